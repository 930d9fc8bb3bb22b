//! Block encryption: an 8-byte pad and an XSalsa20 stream over the block.
//!
//! ```text
//! stored block = pad[8] | body
//! pad  = xsalsa20(u64 fork; nonce = u64 index | 0[16];       blinding key)
//! body = xsalsa20(plain;    nonce = u64 index | pad | 0[8];  block key)
//! ```
//!
//! There is no tag: integrity comes from the signed tree, whose leaves hash the stored bytes. Writing two
//! plaintexts at one (index, fork) gives away their difference, so a writer must never lose a tail it has shown.
//!
//! Source: hypercore/lib/default-encryption.js

use super::manifest::caps;
use crate::crypto::hash::{self, namespace};
use crate::key::CoreKey;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

/// Bytes that a stored block is longer than its plaintext.
pub const PADDING: usize = 8;

/// Encrypts and decrypts the blocks of one core.
#[derive(Clone)]
pub struct BlockCipher {
    block_key: [u8; 32],
    blinding_key: [u8; 32],
}

impl BlockCipher {
    /// The cipher of a core in a store or drive that has `encryption_key`; each core has its own block key.
    /// `compat`: the core's key is its signer's public key.
    pub fn new(key: &CoreKey, compat: bool, encryption_key: &[u8; 32]) -> Self {
        Self::from_block_key(if compat {
            hash::keyed(&key.0, &[encryption_key])
        } else {
            let context = namespace("hypercore", caps::DEFAULT_ENCRYPTION);
            hash::hash(&[&context, &key.0, encryption_key])
        })
    }

    /// For a block key that was given as such.
    pub fn from_block_key(block_key: [u8; 32]) -> Self {
        Self { block_key, blinding_key: hash::hash(&[&block_key]) }
    }

    /// The bytes to store for block `index`; `fork` is the core's fork as it is appended.
    pub fn encrypt(&self, index: u64, fork: u64, plain: &[u8]) -> Vec<u8> {
        let mut pad = fork.to_le_bytes();
        xor(&self.blinding_key, index, [0; PADDING], &mut pad);
        let mut out = Vec::with_capacity(PADDING + plain.len());
        out.extend_from_slice(&pad);
        out.extend_from_slice(plain);
        xor(&self.block_key, index, pad, &mut out[PADDING..]);
        out
    }

    /// The plaintext of a stored block; `None` if it is too short to be one.
    pub fn decrypt(&self, index: u64, stored: &[u8]) -> Option<Vec<u8>> {
        let (pad, body) = stored.split_first_chunk()?;
        let mut plain = body.to_vec();
        xor(&self.block_key, index, *pad, &mut plain);
        Some(plain)
    }
}

impl std::fmt::Debug for BlockCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockCipher")
    }
}

fn xor(key: &[u8; 32], index: u64, pad: [u8; PADDING], data: &mut [u8]) {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&index.to_le_bytes());
    nonce[8..16].copy_from_slice(&pad);
    XSalsa20::new(key.into(), &nonce.into()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use crate::hyper::core::tree::testing::{bytes, bytes32, vectors};
    use crate::hyper::core::tree::{Batch, Head, SeekResult, seek, testing::MapSource};
    use crate::hyper::core::verifier::Verifier;
    use proptest::prelude::*;

    #[test]
    fn vectors_of_blocks() {
        for v in vectors()["encryption"].as_array().unwrap() {
            let encryption_key = bytes32(&v["encryptionKey"]);
            let cipher = match v["options"]["block"].as_bool().unwrap() {
                true => BlockCipher::from_block_key(encryption_key),
                false => {
                    let key = CoreKey(bytes32(&v["hypercoreKey"]));
                    let compat = v["options"]["compat"].as_bool().unwrap();
                    BlockCipher::new(&key, compat, &encryption_key)
                }
            };
            assert_eq!(cipher.block_key, bytes32(&v["blockKey"]));
            assert_eq!(cipher.blinding_key, bytes32(&v["blindingKey"]));
            for b in v["blocks"].as_array().unwrap() {
                let (index, fork) = (b["index"].as_u64().unwrap(), b["fork"].as_u64().unwrap());
                let (plain, stored) = (bytes(&b["plaintext"]), bytes(&b["stored_block"]));
                assert_eq!(cipher.encrypt(index, fork, &plain), stored);
                assert_eq!(cipher.decrypt(index, &stored), Some(plain));
            }
        }
    }

    #[test]
    fn vectors_of_an_encrypted_core() {
        let v = vectors()["encrypted_core"].clone();
        let key = CoreKey(bytes32(&v["key"]));
        let cipher = BlockCipher::new(&key, false, &bytes32(&v["encryptionKey"]));
        let mut batch = Batch::new(&Head::default());
        for (i, plain) in v["plaintext"].as_array().unwrap().iter().enumerate() {
            let stored = cipher.encrypt(i as u64, 0, &bytes(plain));
            assert_eq!(stored, bytes(&v["stored_blocks"][i]));
            batch.push(stored.len() as u64, hash::leaf(&stored));
        }
        let (mut head, nodes) = batch.finish();
        assert_eq!(head.tree_hash(), bytes32(&v["treeHash"]));
        assert_eq!(head.byte_length(), v["byteLength_of_tree"]);
        let unpadded = head.byte_length() - head.length * PADDING as u64;
        assert_eq!(unpadded, v["byteLength_reported"]);
        let pair = KeyPair::from_seed(&[1; 32]);
        let manifest = super::super::manifest::Manifest::single(pair.public());
        let verifier = Verifier::new(&key, &manifest).unwrap();
        head.signature = verifier.sign(&head, &pair).unwrap();
        assert_eq!(head.signature, bytes(&v["signature"]));
        let found = seek(&head, &MapSource::from(nodes), 6, PADDING as u64).unwrap();
        let want = &v["seek_6"];
        let (block, offset) = (want[0].as_u64().unwrap(), want[1].as_u64().unwrap());
        assert_eq!(found, SeekResult::Found { block, offset });
    }

    proptest! {
        #[test]
        fn round_trip(index in any::<u64>(), fork in any::<u64>(), plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            let cipher = BlockCipher::from_block_key([9; 32]);
            let stored = cipher.encrypt(index, fork, &plain);
            prop_assert_eq!(stored.len(), plain.len() + PADDING);
            prop_assert_eq!(cipher.decrypt(index, &stored), Some(plain));
        }
    }

    #[test]
    fn too_short_is_no_block() {
        assert_eq!(BlockCipher::from_block_key([9; 32]).decrypt(0, &[1; 7]), None);
    }
}
