//! BLAKE2b with a 32-byte digest: tree hashes, keyed hashes, namespaces.
//!
//! "Keyed" is BLAKE2b's own keying, not a prefix. No salt and no personalisation is used anywhere.
//!
//! Source: hypercore-crypto/index.js

use blake2b_simd::{Params, many};
use std::hint::black_box;

/// A 32-byte BLAKE2b digest.
pub type Hash = [u8; 32];

fn params() -> Params {
    let mut p = Params::new();
    p.hash_length(32);
    p
}

fn finish(state: &blake2b_simd::State) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

/// Hash of the parts one after the other.
pub fn hash(parts: &[&[u8]]) -> Hash {
    let mut state = params().to_state();
    for part in parts {
        state.update(part);
    }
    finish(&state)
}

/// Hash of parts that come one after the other.
pub struct Hasher(blake2b_simd::State);

impl Default for Hasher {
    fn default() -> Self {
        Self(params().to_state())
    }
}

impl Hasher {
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    pub fn finish(&self) -> Hash {
        finish(&self.0)
    }
}

/// Keyed hash; `key` is 1 to 64 bytes.
pub fn keyed(key: &[u8], parts: &[&[u8]]) -> Hash {
    let mut state = params().key(key).to_state();
    for part in parts {
        state.update(part);
    }
    finish(&state)
}

/// Number `i` of the constants that `name` stands for.
pub fn namespace(name: &str, i: u8) -> Hash {
    hash(&[&hash(&[name.as_bytes()]), &[i]])
}

/// What a core is looked up by: it tells nobody the key.
pub fn discovery_key(core_key: &[u8; 32]) -> Hash {
    keyed(core_key, &[b"hypercore"])
}

/// Hash of a leaf: one block.
pub fn leaf(block: &[u8]) -> Hash {
    hash(&[&[0], &(block.len() as u64).to_le_bytes(), block])
}

/// Hashes of many leaves at once.
pub fn leaves(blocks: &[impl AsRef<[u8]>]) -> Vec<Hash> {
    let head = |block: &[u8]| {
        let mut head = [0; 9];
        head[1..].copy_from_slice(&(block.len() as u64).to_le_bytes());
        head
    };
    hashes(blocks, head)
}

/// Hashes of many contents at once, each behind its head; four lanes wide where the processor can.
pub fn hashes<const N: usize>(
    contents: &[impl AsRef<[u8]>],
    head: impl Fn(&[u8]) -> [u8; N],
) -> Vec<Hash> {
    let params = params();
    let mut states: Vec<_> = contents.iter().map(|_| params.to_state()).collect();
    let heads: Vec<[u8; N]> = contents.iter().map(|content| head(content.as_ref())).collect();
    many::update_many(states.iter_mut().zip(heads.iter()));
    absorb(&mut states, &contents.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    states.iter().map(finish).collect()
}

/// The lanes keep words of 32 bytes on the stack, not always aligned: where one of them lies across two pages hashing is
/// half as fast, and whether one does depends on the frames of all callers. Here the stack goes on at the end of a page,
/// with room for all of them (`benches/leaf_hash.rs`).
#[inline(never)]
fn absorb(states: &mut [blake2b_simd::State], contents: &[&[u8]]) {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Page([0; 4096]);
    black_box(&mut page.0);
    many::update_many(states.iter_mut().zip(contents));
    black_box(&mut page.0);
}

/// Hash of a parent; `size` is the byte length under both children.
pub fn parent(size: u64, left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], &size.to_le_bytes(), left, right])
}

/// Hash of the roots, each as (hash, tree index, byte size), left to right. It is what a writer signs.
pub fn tree(roots: impl IntoIterator<Item = (Hash, u64, u64)>) -> Hash {
    let mut state = params().to_state();
    state.update(&[2]);
    for (hash, index, size) in roots {
        state.update(&hash).update(&index.to_le_bytes()).update(&size.to_le_bytes());
    }
    finish(&state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_agree_with_single_hashes() {
        for n in [0usize, 1, 3, 4, 5, 9] {
            let blocks: Vec<Vec<u8>> = (0..n).map(|i| vec![i as u8; i * 1000 + i]).collect();
            let want: Vec<Hash> = blocks.iter().map(|b| leaf(b)).collect();
            assert_eq!(leaves(&blocks), want);
        }
    }
}
