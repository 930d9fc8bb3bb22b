//! The head of a core's Merkle tree: what is signed of it, and the signature.

use super::node::Node;
use crate::crypto::hash::{self, Hash};

/// The signed state of a tree: everything else hashes up to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub fork: u64,
    /// Length in blocks, at most [`MAX_LENGTH`](crate::hyper::flat_tree::MAX_LENGTH): no proof and no record gives a longer one.
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
