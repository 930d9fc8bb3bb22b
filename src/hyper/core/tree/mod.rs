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

pub(super) mod batch;
mod history;
mod proof;
mod reorg;
mod seek;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verify;

pub use super::head::Head;
pub use super::node::{MAX_NODES, Node};
pub use batch::Batch;
pub use history::{Roots, verify_history};
pub use proof::{ProofError, make_proof};
pub use reorg::{Reorg, verify_reorg};
pub use seek::{
    SeekResult, SpanCursor, block_span, byte_offset, max_missing_nodes, missing_nodes, seek,
    truncated_roots,
};
pub use verify::{Verified, VerifyError, verify_proof};

use std::io;

/// Where nodes of a tree are kept. `Ok(None)` means "not here", which a sparse reader has often.
pub trait NodeSource {
    fn node(&self, index: u64) -> io::Result<Option<Node>>;
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
