//! Manifests: who may sign a core, and the key that follows from it.
//!
//! ```text
//! v0   00 | hash 00 | type   0: prologue hash[32]
//!                            1: signer
//!                            2: flags uint (1 patch) | quorum uint | array<signer>
//! v1-3 version uint | flags uint | hash 00 | quorum uint | array<signer>
//!      | flag 2: prologue hash[32], length uint | flag 4: array<key[32]> | flag 8: user data buffer
//! signer = 00 | namespace[32] | public key[32]
//! ```
//!
//! The key of a core is the hash of its manifest. The exception are *compat* cores, whose key is the public key
//! of the one signer and whose manifest is not hashed at all.
//!
//! Source: hypercore/lib/messages.js, hypercore/lib/verifier.js, hyperdrive/index.js:generateContentManifest

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::{DecodeError, Put, Reader, Result};
use crate::crypto::hash::{self, Hash, namespace};
use crate::key::CoreKey;

const FLAG_PATCH: u64 = 1;
const FLAG_PROLOGUE: u64 = 2;
const FLAG_LINKED: u64 = 4;
const FLAG_USER_DATA: u64 = 8;

const V0_STATIC: u64 = 0;
const V0_SINGLE: u64 = 1;
const V0_MULTI: u64 = 2;

const MAX_VERSION: u64 = 3;

/// Bytes of an encoded signer.
const SIGNER_SIZE: usize = 65;

/// Numbers of the "hypercore" namespaces.
pub(super) mod caps {
    pub const TREE: u8 = 0;
    pub const MANIFEST: u8 = 3;
    pub const DEFAULT_NAMESPACE: u8 = 4;
    pub const DEFAULT_ENCRYPTION: u8 = 5;
}

/// A key that may sign, and the context its signatures are made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    pub namespace: [u8; 32],
    /// Ed25519.
    pub public_key: [u8; 32],
}

impl Signer {
    /// A signer in the default namespace.
    pub fn new(public_key: [u8; 32]) -> Self {
        Self { namespace: namespace("hypercore", caps::DEFAULT_NAMESPACE), public_key }
    }
}

/// The first blocks of a core, fixed by the manifest itself instead of by a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prologue {
    /// Tree hash at `length`.
    pub hash: Hash,
    /// Blocks.
    pub length: u64,
}

/// Who signs a core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// 0 to 3; from 1 on the signatures bind the core's key.
    pub version: u64,
    /// Whether a signer may sign a longer tree than the others (the signature then carries the nodes between).
    pub allow_patch: bool,
    /// How many signers must sign. 0 verifies nothing, which fits a core that is all prologue.
    pub quorum: u64,
    pub signers: Vec<Signer>,
    pub prologue: Option<Prologue>,
    /// Keys of cores that belong to this one. Version 2 and up.
    pub linked: Vec<[u8; 32]>,
    /// Anything the creator wants bound to the key. Version 2 and up.
    pub user_data: Option<Vec<u8>>,
}

impl Manifest {
    /// What a core of one writer has by default: version 1, default namespace.
    pub fn single(public_key: [u8; 32]) -> Self {
        Self {
            version: 1,
            allow_patch: false,
            quorum: 1,
            signers: vec![Signer::new(public_key)],
            prologue: None,
            linked: Vec::new(),
            user_data: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + SIGNER_SIZE * self.signers.len());
        self.put(&mut out);
        out
    }

    /// Appends the encoded manifest.
    pub fn put(&self, out: &mut impl Put) {
        out.put_uint(self.version);
        if self.version == 0 {
            return self.put_v0(out);
        }
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        out.put_uint(
            flag(self.allow_patch, FLAG_PATCH)
                | flag(self.prologue.is_some(), FLAG_PROLOGUE)
                | flag(!self.linked.is_empty(), FLAG_LINKED)
                | flag(self.user_data.is_some(), FLAG_USER_DATA),
        );
        out.put_u8(0); // BLAKE2b
        out.put_uint(self.quorum);
        put_signers(out, &self.signers);
        if let Some(prologue) = &self.prologue {
            out.put(&prologue.hash);
            out.put_uint(prologue.length);
        }
        if !self.linked.is_empty() {
            out.put_uint(self.linked.len() as u64);
            for key in &self.linked {
                out.put(key);
            }
        }
        if let Some(data) = &self.user_data {
            out.put_buffer(data);
        }
    }

    fn put_v0(&self, out: &mut impl Put) {
        out.put_u8(0); // BLAKE2b
        match (&self.prologue, self.signers.as_slice()) {
            (Some(prologue), []) => {
                out.put_uint(V0_STATIC);
                out.put(&prologue.hash);
            }
            (_, [signer]) if self.quorum == 1 && !self.allow_patch => {
                out.put_uint(V0_SINGLE);
                put_signer(out, signer);
            }
            (_, signers) => {
                out.put_uint(V0_MULTI);
                out.put_uint(self.allow_patch.into());
                out.put_uint(self.quorum);
                put_signers(out, signers);
            }
        }
    }

    /// Refuses unknown versions, v0 types, hash and signature types. Whether the manifest belongs to a key is
    /// for [`super::verifier::Verifier::new`] to say.
    pub fn decode(r: &mut Reader) -> Result<Self> {
        let version = r.uint()?;
        if version == 0 {
            return Self::decode_v0(r);
        }
        if version > MAX_VERSION {
            return Err(DecodeError::Invalid("manifest version"));
        }
        let flags = r.uint()?;
        hash_type(r)?;
        let quorum = r.uint()?;
        let signers = signers(r)?;
        let prologue = match flags & FLAG_PROLOGUE != 0 {
            true => Some(Prologue { hash: r.fixed()?, length: r.uint()? }),
            false => None,
        };
        let mut linked = Vec::new();
        if flags & FLAG_LINKED != 0 {
            let count = r.count(32)?;
            linked.reserve_exact(count);
            for _ in 0..count {
                linked.push(r.fixed()?);
            }
        }
        let user_data = match flags & FLAG_USER_DATA != 0 {
            true => Some(r.buffer()?.to_vec()),
            false => None,
        };
        let allow_patch = flags & FLAG_PATCH != 0;
        Ok(Self { version, allow_patch, quorum, signers, prologue, linked, user_data })
    }

    fn decode_v0(r: &mut Reader) -> Result<Self> {
        hash_type(r)?;
        let (mut allow_patch, mut quorum, mut signers, mut prologue) = (false, 0, Vec::new(), None);
        match r.uint()? {
            V0_STATIC => prologue = Some(Prologue { hash: r.fixed()?, length: 0 }),
            V0_SINGLE => (quorum, signers) = (1, vec![signer(r)?]),
            V0_MULTI => {
                allow_patch = r.uint()? & FLAG_PATCH != 0;
                quorum = r.uint()?;
                signers = self::signers(r)?;
            }
            _ => return Err(DecodeError::Invalid("manifest type")),
        }
        let (linked, user_data) = (Vec::new(), None);
        Ok(Self { version: 0, allow_patch, quorum, signers, prologue, linked, user_data })
    }

    /// The key of a (not compat) core with this manifest.
    pub fn key(&self) -> CoreKey {
        CoreKey(hash::hash(&[&namespace("hypercore", caps::MANIFEST), &self.encode()]))
    }

    /// Whether this is the manifest of the compat core `key`: the key is the one signer's public key.
    pub fn is_compat(&self, key: &CoreKey) -> bool {
        matches!(self.signers.as_slice(), [signer] if signer.public_key == key.0)
    }

    /// Manifest of the core that holds the file contents of the drive `db_key`, of which this is the manifest.
    /// `None` for version 0, where nothing can be derived. The drive must not be a compat core.
    pub fn content(&self, db_key: &CoreKey) -> Option<Manifest> {
        if self.version == 0 {
            return None;
        }
        let blobs = namespace("hyperdrive", 0);
        let derive = |signer: &Signer| Signer {
            namespace: hash::hash(&[&blobs, &db_key.0, &signer.namespace]),
            public_key: signer.public_key,
        };
        Some(Manifest {
            version: self.version,
            allow_patch: self.allow_patch,
            quorum: self.quorum,
            signers: self.signers.iter().map(derive).collect(),
            prologue: None,
            linked: Vec::new(),
            user_data: None,
        })
    }
}

fn hash_type(r: &mut Reader) -> Result<()> {
    match r.uint()? {
        0 => Ok(()),
        _ => Err(DecodeError::Invalid("hash type")),
    }
}

fn put_signer(out: &mut impl Put, signer: &Signer) {
    out.put_u8(0); // Ed25519
    out.put(&signer.namespace);
    out.put(&signer.public_key);
}

fn put_signers(out: &mut impl Put, signers: &[Signer]) {
    out.put_uint(signers.len() as u64);
    for signer in signers {
        put_signer(out, signer);
    }
}

fn signer(r: &mut Reader) -> Result<Signer> {
    match r.uint()? {
        0 => Ok(Signer { namespace: r.fixed()?, public_key: r.fixed()? }),
        _ => Err(DecodeError::Invalid("signature type")),
    }
}

fn signers(r: &mut Reader) -> Result<Vec<Signer>> {
    let count = r.count(SIGNER_SIZE)?;
    (0..count).map(|_| signer(r)).collect()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::hyper::core::tree::testing::{bytes, bytes32, drive_vectors, manifest, vectors};
    use crate::key::unhex;
    use proptest::prelude::*;

    #[test]
    fn vectors_encode_decode_and_hash() {
        for (name, v) in vectors()["manifests"].as_object().unwrap() {
            let encoded = bytes(&v["encoded"]);
            let want = manifest(&v["manifest"]);
            let mut r = Reader::new(&encoded);
            assert_eq!(Manifest::decode(&mut r).unwrap(), want, "{name}");
            assert!(r.is_empty());
            assert_eq!(want.encode(), encoded, "{name}");
            assert_eq!(want.key().0, bytes32(&v["key"]), "{name}");
            assert_eq!(want.key().discovery_key().0, bytes32(&v["discoveryKey"]), "{name}");
        }
    }

    #[test]
    fn drive_vectors_derive_the_content_core() {
        let pairs = drive_vectors()["keys"]["keyPairs"].clone();
        for v in pairs.as_array().unwrap() {
            let db = Manifest::single(bytes32(&v["publicKey"]));
            assert_eq!(db.encode(), bytes(&v["manifest"]));
            assert_eq!(db.key().0, bytes32(&v["key"]));
            let content = db.content(&db.key()).unwrap();
            assert_eq!(content.encode(), bytes(&v["asDrive"]["contentManifest"]));
            assert_eq!(content.key().0, bytes32(&v["asDrive"]["contentKey"]));
            let v0 = Manifest { version: 0, ..db };
            assert_eq!(v0.encode(), bytes(&v["manifestV0"]));
            assert_eq!(v0.key().0, bytes32(&v["keyV0"]));
            assert_eq!(v0.content(&v0.key()), None);
        }
    }

    #[test]
    fn unknown_kinds_are_refused() {
        for hex in ["04", "00010000", "000003", "01000100"] {
            assert!(Manifest::decode(&mut Reader::new(&unhex(hex).unwrap())).is_err(), "{hex}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(m) = Manifest::decode(&mut Reader::new(&b)) {
                prop_assert_eq!(Manifest::decode(&mut Reader::new(&m.encode())), Ok(m));
            }
        }
    }
}
