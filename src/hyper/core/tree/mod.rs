//! The Merkle tree over a core's blocks.

use crate::crypto::hash::{self, Hash};

/// One node of the tree: flat-tree index, byte length under it, hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub index: u64,
    pub size: u64,
    pub hash: Hash,
}

/// Where nodes of a tree are kept. `Ok(None)` means "not here", which a sparse reader has often.
pub trait NodeSource {
    fn node(&self, index: u64) -> std::io::Result<Option<Node>>;
}

/// The signed state of a tree: everything else hashes up to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub fork: u64,
    /// Length in blocks.
    pub length: u64,
    /// Full roots, left to right.
    pub roots: Vec<Node>,
    /// As stored: 64 bytes or a multisignature record; empty for an empty tree.
    pub signature: Vec<u8>,
}

impl Head {
    /// Bytes stored in all blocks (encryption padding included).
    pub fn byte_length(&self) -> u64 {
        self.roots.iter().map(|root| root.size).sum()
    }

    /// The hash that is signed.
    pub fn tree_hash(&self) -> Hash {
        hash::tree(self.roots.iter().map(|root| (root.hash, root.index, root.size)))
    }
}
