//! What peers ask and answer about one core, as plain data.
//!
//! The wire layout of both is `replication/wire.rs`; `tree/proof.rs` makes them, `tree/verify.rs` checks them.
//! Indexes: a *block index* counts blocks (0, 1, 2, …); a *tree index* is the flat-tree number (the leaf
//! of block i is 2i).
//!
//! Source: hypercore/lib/messages.js

use super::manifest::{Manifest, Prologue};
use super::node::Node;
use bytes::Bytes;

/// A part of a request: a node and how many levels of its path the asker lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRequest {
    /// Block index in [`Request::block`], tree index in [`Request::hash`].
    pub index: u64,
    /// Levels to climb, which is the number of siblings the answer carries.
    pub nodes: u64,
}

/// A byte position to be found; `padding` is 8 for encrypted cores, else 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekRequest {
    pub bytes: u64,
    pub padding: u64,
}

/// The asker has `start` blocks and wants proof of `length` more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpgradeRequest {
    pub start: u64,
    pub length: u64,
}

impl UpgradeRequest {
    /// What a server answers to this for a core with a prologue: all of that if the request starts inside it, since
    /// no signature covers a part. What lies behind follows as additional nodes.
    pub fn around(self, prologue: &Prologue) -> Self {
        if self.start >= prologue.length {
            return self;
        }
        Self { start: 0, length: prologue.length }
    }
}

/// What one peer asks another about a core. `id` and `fork` are the channel's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub block: Option<NodeRequest>,
    pub hash: Option<NodeRequest>,
    pub seek: Option<SeekRequest>,
    pub upgrade: Option<UpgradeRequest>,
    pub manifest: bool,
    pub priority: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockProof {
    /// Block index.
    pub index: u64,
    /// The stored bytes (encrypted where the core is).
    pub value: Bytes,
    /// Siblings on the way up.
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashProof {
    /// Tree index.
    pub index: u64,
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekProof {
    pub bytes: u64,
    pub nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeProof {
    pub start: u64,
    pub length: u64,
    pub nodes: Vec<Node>,
    /// Nodes beyond the asked range, up to the length that was signed.
    pub additional: Vec<Node>,
    /// Empty stands for none (a prologue needs no signature).
    pub signature: Vec<u8>,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    pub fork: u64,
    pub block: Option<BlockProof>,
    pub hash: Option<HashProof>,
    pub seek: Option<SeekProof>,
    pub upgrade: Option<UpgradeProof>,
    pub manifest: Option<Manifest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prologue_is_served_whole() {
        let p = Prologue { hash: [0; 32], length: 10 };
        let up = |start, length| UpgradeRequest { start, length };
        assert_eq!(up(0, 3).around(&p), up(0, 10));
        assert_eq!(up(4, 30).around(&p), up(0, 10));
        assert_eq!(up(10, 3).around(&p), up(10, 3));
    }
}
