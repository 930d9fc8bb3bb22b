//! Ed25519 as libsodium does it: 32-byte seeds and public keys, detached 64-byte signatures.

use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};

/// A detached Ed25519 signature.
pub type Signature = [u8; 64];

/// A signing key and its public half. It has no `Debug` of the secret.
#[derive(Clone)]
pub struct KeyPair {
    key: SigningKey,
}

impl KeyPair {
    /// The key pair of a 32-byte seed, as `crypto_sign_seed_keypair`.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// A key pair from the operating system's randomness.
    pub fn generate() -> Self {
        Self::from_seed(&random())
    }

    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The seed: the secret half, to be stored and to be used for key agreement.
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    pub fn sign(&self, message: &[u8]) -> Signature {
        self.key.sign(message).to_bytes()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.public();
        write!(f, "KeyPair({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

/// Whether `signature` is the signature of `message` by `public`. A malformed key verifies nothing.
pub fn verify(public: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else { return false };
    !key.is_weak() && key.verify(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

/// 32 bytes of the operating system's randomness.
pub fn random() -> [u8; 32] {
    use rand::TryRngCore;
    let mut bytes = [0; 32];
    // Without randomness there are no keys: nothing sensible is left to do.
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the operating system gives randomness");
    bytes
}
