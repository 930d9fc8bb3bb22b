//! Noise IK and XX with Diffie-Hellman over Ed25519, the way HyperDHT shakes hands.
//!
//! | pattern | where | messages |
//! |---|---|---|
//! | IK | inside the DHT's `PEER_HANDSHAKE`, prologue = its namespace | → e, es, s, ss · ← e, ee, se |
//! | XX | inside a stream that has no keys yet (tests, plain TCP) | → e · ← e, ee, s, es · → s, se |
//!
//! snow runs the patterns; this file gives it the curve. Keys are ordinary Ed25519 key pairs, the shared
//! secret is the compressed Edwards point `scalar · remote`. Only the protocol's *name* differs from
//! what snow can parse, and only the name enters the hash, so it is overwritten after parsing.
//!
//! Source: noise-handshake/noise.js, noise-curve-ed/index.js, @hyperswarm/secret-stream/lib/handshake.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::crypto::KeyPair;
use crate::key::PublicKey;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest, Sha512};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};

/// Bytes of a public key, of a seed and of a shared secret.
const KEY_LEN: usize = 32;

/// Largest handshake message of either kind. Noise allows 65 535; a handshake travels in a datagram,
/// and the framed form inside a stream is never longer.
pub const MAX_MESSAGE: usize = 4096;

/// Why a handshake failed. None of it tells the peer anything: the message is dropped.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum NoiseError {
    /// A message that does not decrypt, has a bad point in it, or comes out of turn.
    #[error("the handshake message does not fit: {0}")]
    Message(#[from] snow::Error),
    #[error("a handshake message of {0} bytes is too long")]
    TooLong(usize),
    #[error("the handshake is not finished")]
    Unfinished,
}

/// The handshake pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Ik,
    Xx,
}

impl Pattern {
    /// The name snow can parse, and the one that is hashed.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Ik => {
                ("Noise_IK_25519_ChaChaPoly_BLAKE2b", "Noise_IK_Ed25519_ChaChaPoly_BLAKE2b")
            }
            Self::Xx => {
                ("Noise_XX_25519_ChaChaPoly_BLAKE2b", "Noise_XX_Ed25519_ChaChaPoly_BLAKE2b")
            }
        }
    }
}

/// What a finished handshake leaves behind.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// Key of what we send.
    pub tx: [u8; 32],
    /// Key of what we receive.
    pub rx: [u8; 32],
    /// The final hash: the same on both sides, names the session.
    pub hash: [u8; 64],
    pub remote: PublicKey,
    pub initiator: bool,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.initiator { "initiator" } else { "responder" };
        write!(f, "SessionKeys({role}, {:?})", self.remote)
    }
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    state: HandshakeState,
}

impl Handshake {
    /// The side that speaks first. `remote` is the server's key for IK, `None` for XX; `ephemeral` is
    /// the seed of the one-time key: 32 random bytes, never used twice.
    pub fn initiator(
        pattern: Pattern,
        local: &KeyPair,
        remote: Option<&PublicKey>,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, NoiseError> {
        let seed = local.seed();
        let mut builder = builder(pattern, ephemeral)?.local_private_key(&seed)?;
        if let Some(key) = remote {
            builder = builder.remote_public_key(key.as_bytes())?;
        }
        Ok(Self { state: builder.prologue(prologue)?.build_initiator()? })
    }

    /// The side that answers.
    pub fn responder(
        pattern: Pattern,
        local: &KeyPair,
        prologue: &[u8],
        ephemeral: [u8; 32],
    ) -> Result<Self, NoiseError> {
        let seed = local.seed();
        let builder = builder(pattern, ephemeral)?.local_private_key(&seed)?.prologue(prologue)?;
        Ok(Self { state: builder.build_responder()? })
    }

    /// The next message to the peer, carrying `payload`.
    pub fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut message = vec![0; payload.len() + 160];
        let len = self.state.write_message(payload, &mut message)?;
        message.truncate(len);
        Ok(message)
    }

    /// Takes the peer's message and answers its payload.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        if message.len() > MAX_MESSAGE {
            return Err(NoiseError::TooLong(message.len()));
        }
        let mut payload = vec![0; message.len()];
        let len = self.state.read_message(message, &mut payload)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// The peer's identity, as soon as its message with `s` was read (IK: after the first one).
    pub fn remote(&self) -> Option<PublicKey> {
        self.state.get_remote_static()?.try_into().ok().map(PublicKey)
    }

    pub fn is_finished(&self) -> bool {
        self.state.is_handshake_finished()
    }

    /// The keys, once the last message was written or read.
    pub fn finish(mut self) -> Result<SessionKeys, NoiseError> {
        if !self.is_finished() {
            return Err(NoiseError::Unfinished);
        }
        let hash = self.state.get_handshake_hash().try_into();
        let hash = hash.map_err(|_| NoiseError::Unfinished)?;
        let remote = self.remote().ok_or(NoiseError::Unfinished)?;
        let initiator = self.state.is_initiator();
        let (first, second) = self.state.dangerously_get_raw_split();
        let (tx, rx) = if initiator { (first, second) } else { (second, first) };
        Ok(SessionKeys { tx, rx, hash, remote, initiator })
    }
}

fn builder<'a>(pattern: Pattern, ephemeral: [u8; 32]) -> Result<Builder<'a>, NoiseError> {
    let (parsed, hashed) = pattern.names();
    let mut params: NoiseParams = parsed.parse()?;
    params.name = hashed.to_string();
    Ok(Builder::with_resolver(params, Box::new(Resolver { ephemeral })))
}

/// The scalar of a seed: its SHA-512's first half (clamping is part of every multiplication).
fn scalar_bytes(seed: &[u8; KEY_LEN]) -> [u8; KEY_LEN] {
    let mut scalar = [0; KEY_LEN];
    for (to, from) in scalar.iter_mut().zip(Sha512::digest(seed)) {
        *to = from;
    }
    scalar
}

/// A point that libsodium would accept: canonical, of large order, in the prime-order subgroup.
fn checked_point(bytes: &[u8; KEY_LEN]) -> Option<EdwardsPoint> {
    let point = CompressedEdwardsY(*bytes).decompress()?;
    let canonical = point.compress().to_bytes() == *bytes;
    (canonical && !point.is_small_order() && point.is_torsion_free()).then_some(point)
}

/// `crypto_scalarmult_ed25519`: the shared secret of our seed and their public key, or `None` for a
/// public key that is not a good point.
pub fn ed25519_dh(seed: &[u8; 32], remote: &[u8; 32]) -> Option<[u8; 32]> {
    let shared = checked_point(remote)?.mul_clamped(scalar_bytes(seed));
    (!shared.is_identity()).then(|| shared.compress().to_bytes())
}

/// Ed25519 as snow's Diffie-Hellman.
#[derive(Default)]
struct EdDh {
    seed: [u8; KEY_LEN],
    public: [u8; KEY_LEN],
}

impl Dh for EdDh {
    fn name(&self) -> &'static str {
        "Ed25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, privkey: &[u8]) {
        if let Ok(seed) = privkey.try_into() {
            self.seed = seed;
            self.public = EdwardsPoint::mul_base_clamped(scalar_bytes(&seed)).compress().to_bytes();
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut seed = [0; KEY_LEN];
        rng.try_fill_bytes(&mut seed)?;
        self.set(&seed);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.seed
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        // snow hands over a buffer as long as the longest key it knows.
        let remote = pubkey.first_chunk::<KEY_LEN>().ok_or(snow::Error::Dh)?;
        let shared = ed25519_dh(&self.seed, remote).ok_or(snow::Error::Dh)?;
        *out.first_chunk_mut::<KEY_LEN>().ok_or(snow::Error::Dh)? = shared;
        Ok(())
    }
}

/// Gives snow our curve and our randomness; hash and cipher are snow's own.
struct Resolver {
    ephemeral: [u8; KEY_LEN],
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneSeed(Some(self.ephemeral))))
    }

    fn resolve_dh(&self, _: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(EdDh::default()))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Randomness for exactly one ephemeral key: a pattern needs no more, and asking twice must not repeat.
struct OneSeed(Option<[u8; KEY_LEN]>);

impl Random for OneSeed {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != KEY_LEN {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&seed);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::key::{hex, unhex};
    use crate::swarm::secret_stream::vectors;
    use serde_json::Value;

    fn fixed(v: &Value) -> [u8; 32] {
        unhex(v.as_str().unwrap()).unwrap().try_into().unwrap()
    }

    fn seed(v: &Value, name: &Value) -> [u8; 32] {
        fixed(&v["keys"][name.as_str().unwrap()]["seed"])
    }

    #[test]
    fn dh_of_the_vectors() {
        let v = vectors();
        for case in v["ed25519_dh"].as_array().unwrap() {
            let remote = fixed(&v["keys"][case["remote"].as_str().unwrap()]["publicKey"]);
            let shared = ed25519_dh(&seed(&v, &case["local"]), &remote).unwrap();
            assert_eq!(shared, fixed(&case["shared"]));
        }
    }

    fn run(case: &Value, v: &Value, pattern: Pattern) {
        let prologue = unhex(case["prologue"].as_str().unwrap()).unwrap();
        let client = KeyPair::from_seed(&seed(v, &case["initiatorStatic"]));
        let server = KeyPair::from_seed(&seed(v, &case["responderStatic"]));
        let server_key = PublicKey(server.public());
        let remote = (pattern == Pattern::Ik).then_some(&server_key);
        let e = seed(v, &case["initiatorEphemeral"]);
        let mut a = Handshake::initiator(pattern, &client, remote, &prologue, e).unwrap();
        let e = seed(v, &case["responderEphemeral"]);
        let mut b = Handshake::responder(pattern, &server, &prologue, e).unwrap();
        for m in case["messages"].as_array().unwrap() {
            let payload = unhex(m["payload"].as_str().unwrap()).unwrap();
            let message = a.write(&payload).unwrap();
            assert_eq!(hex(&message), m["message"].as_str().unwrap());
            assert_eq!(b.read(&message).unwrap(), payload);
            std::mem::swap(&mut a, &mut b);
        }
        let (first, second) = (a.finish().unwrap(), b.finish().unwrap());
        let (client_keys, server_keys) =
            if first.initiator { (first, second) } else { (second, first) };
        assert_eq!(hex(&client_keys.hash), case["handshakeHash"].as_str().unwrap());
        assert_eq!(client_keys.hash, server_keys.hash);
        assert_eq!(client_keys.tx, fixed(&case["initiatorTx"]));
        assert_eq!(client_keys.rx, fixed(&case["initiatorRx"]));
        assert_eq!((client_keys.tx, client_keys.rx), (server_keys.rx, server_keys.tx));
        assert_eq!(client_keys.remote, server_key);
        assert_eq!(server_keys.remote, PublicKey(client.public()));
    }

    #[test]
    fn ik_of_the_vectors() {
        let v = vectors();
        run(&v["noise"]["hyperdht_IK"], &v, Pattern::Ik);
    }

    #[test]
    fn xx_of_the_vectors() {
        let v = vectors();
        run(&v["noise"]["secret_stream_default_XX"], &v, Pattern::Xx);
    }

    #[test]
    fn bad_points_are_refused() {
        let seed = [9; 32];
        let mut one = [0; 32];
        one[0] = 1; // the identity
        assert_eq!(ed25519_dh(&seed, &one), None);
        assert_eq!(ed25519_dh(&seed, &[0; 32]), None); // order 4
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f); // order 2
        assert_eq!(ed25519_dh(&seed, &minus_one), None);
        let mut above_p = [0xff; 32];
        (above_p[0], above_p[31]) = (0xf0, 0x7f); // 3 + p, not canonical
        assert_eq!(ed25519_dh(&seed, &above_p), None);
        // A good point plus one of order 8 lies outside the prime-order subgroup.
        let good = EdwardsPoint::mul_base_clamped([7; 32]);
        for torsion in curve25519_dalek::constants::EIGHT_TORSION.iter().skip(1) {
            assert_eq!(ed25519_dh(&seed, &(good + torsion).compress().to_bytes()), None);
        }
        assert!(ed25519_dh(&seed, &good.compress().to_bytes()).is_some());
    }

    #[test]
    fn an_altered_message_is_refused() {
        let (client, server) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
        let key = PublicKey(server.public());
        let mut a = Handshake::initiator(Pattern::Ik, &client, Some(&key), b"p", [3; 32]).unwrap();
        let message = a.write(b"hello").unwrap();
        for i in 0..message.len() {
            let mut bad = message.clone();
            bad[i] ^= 1;
            let mut b = Handshake::responder(Pattern::Ik, &server, b"p", [4; 32]).unwrap();
            assert!(b.read(&bad).is_err(), "byte {i}");
        }
    }
}
