//! The Merkle tree over a core's blocks.
//!
//! A tree is its [`Head`] (fork, length, roots, signature) and a [`NodeSource`] with whatever nodes are here.
//! Nothing in this module stores or changes either: [`Batch`] computes what an append adds, [`verify_proof`]
//! and [`verify_reorg`] what a peer's answer adds, and the core commits it.
//!
//! What holds in a store that is only fed so:
//! - a stored node that is no root has its sibling and every ancestor stored, so proofs can be made from it;
//! - the size of a stored node is true once its block or a child is stored. A pair of siblings with nothing
//!   below it may carry shifted sizes, of which only the sum is true: a parent's hash covers no more. A peer
//!   can lie so in answers without block; the lie moves no stored block and is put right by the first proof
//!   from below.
//!
//! Source: hypercore/lib/merkle-tree.js

mod batch;
mod history;
mod proof;
mod reorg;
mod seek;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub use batch::Batch;
pub use history::{Roots, verify_history};
pub use proof::{ProofError, make_proof};
pub use reorg::{Reorg, verify_reorg};
pub use seek::{
    SeekResult, SpanCursor, block_span, byte_offset, max_missing_nodes, missing_nodes, seek,
    truncated_roots,
};
pub use verify::{Verified, VerifyError, verify_proof};

use crate::codec::{self, Put, Reader};
use crate::crypto::hash::{self, Hash};
use crate::hyper::flat_tree as flat;
use std::io;

/// The longest list of nodes any message has reason to carry: two for each level of the tallest tree. Longer
/// ones are refused before anything is allocated or hashed.
pub const MAX_NODES: usize = 2 * 53;

/// One node of the tree: flat-tree index, byte length under it, hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub index: u64,
    pub size: u64,
    pub hash: Hash,
}

impl Node {
    /// Bytes that an encoded node takes at least.
    pub const MIN_ENCODED: usize = 34;

    /// Appends index, size and hash as messages carry them.
    pub fn put(&self, out: &mut impl Put) {
        out.put_uint(self.index);
        out.put_uint(self.size);
        out.put(&self.hash);
    }

    pub fn decode(r: &mut Reader) -> codec::Result<Self> {
        Ok(Self { index: r.uint()?, size: r.uint()?, hash: r.fixed()? })
    }

    /// The parent of two siblings, given in either order. `None` if their sizes do not add up to a size.
    fn parent_of(a: &Node, b: &Node) -> Option<Node> {
        let size = a.size.checked_add(b.size).filter(|&size| size <= codec::MAX_INT)?;
        let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
        let hash = hash::parent(size, &left.hash, &right.hash);
        Some(Node { index: flat::parent(left.index), size, hash })
    }
}

/// Where nodes of a tree are kept. `Ok(None)` means "not here", which a sparse reader has often.
pub trait NodeSource {
    fn node(&self, index: u64) -> std::io::Result<Option<Node>>;
}

/// The signed state of a tree: everything else hashes up to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub fork: u64,
    /// Length in blocks, at most [`flat::MAX_LENGTH`]: no proof and no record gives a longer one.
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

/// A head and its nodes together; roots are answered from the head.
#[derive(Clone, Copy)]
struct Tree<'a> {
    head: &'a Head,
    nodes: &'a dyn NodeSource,
}

impl Tree<'_> {
    fn node(&self, index: u64) -> io::Result<Option<Node>> {
        match self.head.roots.iter().find(|root| root.index == index) {
            Some(root) => Ok(Some(*root)),
            None => self.nodes.node(index),
        }
    }
}
