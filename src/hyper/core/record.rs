//! The two records that a store keeps per core.
//!
//! | record | layout |
//! |---|---|
//! | who ([`Table::Cores`]) | uint version 1, uint flags, key\[32\], then by flag: 1 manifest (buffer), 2 seed of the key pair\[32\], 4 encryption key\[32\]; 8 the encryption is known, 16 it is claimed |
//! | state ([`Table::Heads`]) | uint version 1, uint session, uint fork, uint length, per root {uint size, hash\[32\]}, signature (buffer), bool stamp, then where it is true [`CoreStamp`] |
//!
//! The roots' tree indexes follow from the length. Records of older versions end with the signature.

use super::head::Head;
use super::manifest::Manifest;
use super::node::Node;
use super::secrecy::Secrecy;
use super::storage::{CoreStamp, StorageError, Table};
use super::verifier::Verifier;
use crate::codec::{DecodeError, Put, Reader, Result};
use crate::crypto::KeyPair;
use crate::hyper::flat_tree as flat;
use crate::key::{CoreKey, DiscoveryKey, short};

const VERSION: u64 = 1;
const MANIFEST: u64 = 1;
const KEY_PAIR: u64 = 2;
const ENCRYPTION: u64 = 4;
const KNOWN: u64 = 8;
const CLAIMED: u64 = 16;

/// Who a core is: what never changes once known.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) key: CoreKey,
    pub(super) verifier: Option<Verifier>,
    pub(super) key_pair: Option<KeyPair>,
    pub(super) secrecy: Secrecy,
}

impl Identity {
    pub(super) fn encode(&self) -> Vec<u8> {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let mut out = Vec::new();
        out.put_uint(VERSION);
        out.put_uint(
            flag(self.verifier.is_some(), MANIFEST)
                | flag(self.key_pair.is_some(), KEY_PAIR)
                | flag(self.secrecy.key().is_some(), ENCRYPTION)
                | flag(matches!(self.secrecy, Secrecy::Known(_)), KNOWN)
                | flag(matches!(self.secrecy, Secrecy::Claimed(_)), CLAIMED),
        );
        out.put(&self.key.0);
        if let Some(verifier) = &self.verifier {
            out.put_buffer(&verifier.manifest().encode());
        }
        if let Some(pair) = &self.key_pair {
            out.put(&pair.seed());
        }
        if let Some(key) = self.secrecy.key() {
            out.put(key);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        version(&mut r)?;
        let flags = r.uint()?;
        let key = CoreKey(r.fixed()?);
        let mut verifier = None;
        if flags & MANIFEST != 0 {
            let manifest = Manifest::decode(&mut Reader::new(r.buffer()?))?;
            let known = Verifier::new(&key, &manifest);
            verifier = Some(known.ok_or(DecodeError::Invalid("manifest for the key"))?);
        }
        let key_pair = match flags & KEY_PAIR {
            0 => None,
            _ => Some(KeyPair::from_seed(&r.fixed()?)),
        };
        let encryption_key = if flags & ENCRYPTION == 0 { None } else { Some(r.fixed()?) };
        let secrecy = match (flags & (KNOWN | CLAIMED), encryption_key) {
            (CLAIMED, key) => Secrecy::Claimed(key),
            (0, None) => Secrecy::Unknown,
            (_, key) => Secrecy::Known(key),
        };
        Ok(Self { key, verifier, key_pair, secrecy })
    }
}

/// The stored state: the head, the session in which the tree file was last known to be sound, and what the files were
/// when all that is said to be in them was; `None` where that is not known.
pub(super) fn encode_head(head: &Head, session: u64, stamp: Option<CoreStamp>) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + head.roots.len() * 40 + head.signature.len());
    out.put_uint(VERSION);
    out.put_uint(session);
    out.put_uint(head.fork);
    out.put_uint(head.length);
    for root in &head.roots {
        out.put_uint(root.size);
        out.put(&root.hash);
    }
    out.put_buffer(&head.signature);
    out.put_bool(stamp.is_some());
    if let Some(stamp) = stamp {
        stamp.put(&mut out);
    }
    out
}

pub(super) fn decode_head(bytes: &[u8]) -> Result<(Head, u64, Option<CoreStamp>)> {
    let mut r = Reader::new(bytes);
    version(&mut r)?;
    let session = r.uint()?;
    let fork = r.uint()?;
    let length = r.uint()?;
    if length > super::MAX_BLOCKS {
        return Err(DecodeError::Invalid("length"));
    }
    let node = |index| Ok(Node { index, size: r.uint()?, hash: r.fixed()? });
    let roots: Vec<Node> = flat::full_roots(length).map(node).collect::<Result<_>>()?;
    let signature = r.buffer()?.to_vec();
    let stamp = match r.is_empty() || !r.bool()? {
        true => None,
        false => Some(CoreStamp::decode(&mut r)?),
    };
    Ok((Head { fork, length, roots, signature }, session, stamp))
}

fn version(r: &mut Reader) -> Result<()> {
    match r.uint()? {
        VERSION => Ok(()),
        _ => Err(DecodeError::Invalid("version of the record")),
    }
}

/// Key of the record of a bitfield page.
pub(super) fn page_key(core: &DiscoveryKey, page: u64) -> Vec<u8> {
    [core.as_bytes().as_slice(), &page.to_be_bytes()].concat()
}

pub(super) fn damaged(table: Table, core: &DiscoveryKey, reason: DecodeError) -> StorageError {
    StorageError::DamagedRecord { table, key: short(&core.0), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::tree::testing::{key_pair, tree};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_come_back_and_damage_is_an_error() {
        let (head, _) = tree(13);
        let old = encode_head(&head, 9, None).len() - 1;
        let stamp = Some(CoreStamp::default());
        let bytes = encode_head(&head, 9, stamp);
        assert_eq!(decode_head(&bytes).unwrap(), (head.clone(), 9, stamp));
        assert_eq!(decode_head(&bytes[..old]).unwrap(), (head, 9, None));
        let manifest = Manifest::single(key_pair(0).public());
        let key = manifest.key();
        let identity = Identity {
            key,
            verifier: Verifier::new(&key, &manifest),
            key_pair: Some(key_pair(0)),
            secrecy: Secrecy::Claimed(Some([4; 32])),
        };
        let stored = identity.encode();
        let back = Identity::decode(&stored).unwrap();
        assert_eq!((back.key, &back.verifier), (key, &identity.verifier));
        assert_eq!(back.key_pair.unwrap().seed(), key_pair(0).seed());
        assert_eq!(back.secrecy, identity.secrecy);
        for cut in 0..stored.len() {
            assert!(Identity::decode(&stored[..cut]).is_err());
        }
        for cut in (0..bytes.len()).filter(|&cut| cut != old) {
            assert!(decode_head(&bytes[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Identity::decode(&bytes), decode_head(&bytes));
        }
    }
}
