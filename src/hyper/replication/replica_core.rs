//! What replication needs of a core.
//!
//! [`Hub`](super::Hub) shares each core with local readers and writers behind a mutex and holds the lock
//! only inside one `handle_*` call. The trait is the whole surface it touches, in the words of replication: what
//! is not here, stale or busy, and whose fault it is.

use crate::crypto::Hash;
use crate::hyper::core::manifest::Manifest;
use crate::hyper::core::message::{Proof, Request};
use crate::hyper::core::tree::{self, Head, Roots, SeekResult, VerifyError};
use crate::hyper::core::{self, ApplyError, Core};
use crate::key::CoreKey;
use std::sync::{Arc, Mutex};

/// A core that local users and the hub share. `Arc<Mutex<Core>>` turns into it by itself.
pub type SharedReplica = Arc<Mutex<dyn ReplicaCore>>;

/// What a core says to a request.
#[expect(clippy::large_enum_variant, reason = "moved once, never kept")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The proof, with the block's value and without a manifest.
    Proof(Proof),
    /// The block or a node to prove it is not here.
    NotHere,
    /// No honest peer asks this.
    Invalid,
}

/// What a proof changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Lengths before and after, if the tree grew.
    pub upgraded: Option<(u64, u64)>,
    /// A block is stored that was not here before.
    pub block: Option<u64>,
}

/// What following a fork changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reorged {
    /// Blocks that were kept.
    pub ancestors: u64,
    pub old_length: u64,
}

/// Why a proof was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is false.
    Invalid(String),
    /// It is about another fork or an older tree: neither right nor wrong.
    Stale,
    /// It is true, and our own storage would not take its block, for it is full or for another reason.
    Unstored { why: String, full: bool },
    /// An append of ours is under way: later.
    Busy,
    /// Our own storage failed; the peer is not to blame.
    Storage(String),
}

/// A core as replication sees it. "Blocks" are indexes below 2^53; storage errors of the questions count
/// as "not here".
pub trait ReplicaCore: Send {
    fn key(&self) -> CoreKey;
    fn head(&self) -> &Head;
    /// Blocks held from 0 without a hole.
    fn contiguous_length(&self) -> u64;
    fn has(&self, block: u64) -> bool;
    /// The first block in `start..end` that is not here. Indexes at or past the length are not here.
    fn next_missing(&self, start: u64, end: u64) -> Option<u64>;
    /// The first block in `start..end` that is here.
    fn next_present(&self, start: u64, end: u64) -> Option<u64>;
    /// Bits of the blocks from `start`, a multiple of 32, in words of 32 blocks; up to the length.
    fn bits(&self, start: u64, len: u64) -> Vec<u32>;
    /// The manifest to send to who asks; `None` while unknown, and always for a compat core.
    fn manifest(&self) -> Option<&Manifest>;
    /// The manifest is not known, and the core is not known to be compat.
    fn needs_manifest(&self) -> bool;
    /// Levels above a block that are not here.
    fn missing_nodes(&self, block: u64) -> u64;
    /// Whether an upgrade from `length` to the head can be proven: the roots at `length` are here.
    fn can_prove_from(&self, length: u64) -> bool;
    /// Bytes at the head of each block that readers do not see: 8 for encrypted cores.
    fn padding(&self) -> u64;
    /// The block that holds a plaintext byte; `None` if the tree cannot be read.
    fn seek(&self, bytes: u64) -> Option<SeekResult>;
    fn create_proof(&self, request: &Request) -> Answer;
    /// Checks a proof and stores what it brings; `leaf` is the hash of its block. A proof may hold a
    /// manifest and nothing else.
    fn apply_proof(&mut self, proof: &Proof, leaf: Option<Hash>) -> Result<Applied, Refusal>;
    /// Of an answer to an upgrade from 0: the length, and the roots there of what was signed.
    fn history_of(&self, proof: &Proof) -> Result<(u64, Roots), Refusal>;
    /// The roots at a length of the tree that is here.
    fn history_at(&self, length: u64) -> Option<Roots>;
    /// Follows a higher fork: checks the proof from nothing, cuts to the common prefix, installs.
    fn apply_reorg(&mut self, proof: &Proof) -> Result<Reorged, Refusal>;
}

impl ReplicaCore for Core {
    fn key(&self) -> CoreKey {
        *self.key()
    }

    fn head(&self) -> &Head {
        self.head()
    }

    fn contiguous_length(&self) -> u64 {
        self.contiguous_length()
    }

    fn has(&self, block: u64) -> bool {
        self.has(block)
    }

    fn next_missing(&self, start: u64, end: u64) -> Option<u64> {
        self.next_missing(start..end)
    }

    fn next_present(&self, start: u64, end: u64) -> Option<u64> {
        self.next_present(start..end)
    }

    fn bits(&self, start: u64, len: u64) -> Vec<u32> {
        self.bits(start, len)
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.manifest().filter(|_| !self.is_compat())
    }

    fn needs_manifest(&self) -> bool {
        self.manifest().is_none()
    }

    fn missing_nodes(&self, block: u64) -> u64 {
        let all = || tree::max_missing_nodes(block, self.length());
        self.missing_nodes(block).unwrap_or_else(|_| all())
    }

    fn can_prove_from(&self, length: u64) -> bool {
        self.can_prove_from(length)
    }

    fn padding(&self) -> u64 {
        self.padding()
    }

    fn seek(&self, bytes: u64) -> Option<SeekResult> {
        self.seek(bytes).ok()
    }

    fn create_proof(&self, request: &Request) -> Answer {
        match self.create_proof(request) {
            Ok(core::Answer::Proof(proof)) => Answer::Proof(proof),
            Ok(core::Answer::Invalid(_)) => Answer::Invalid,
            Ok(core::Answer::NotHere) => Answer::NotHere,
            Err(error) => {
                tracing::debug!(core = ?self.discovery_key(), "not answered");
                tracing::warn!("what a peer asked for cannot be read: {error}");
                Answer::NotHere
            }
        }
    }

    fn apply_proof(&mut self, proof: &Proof, leaf: Option<Hash>) -> Result<Applied, Refusal> {
        let applied = self.apply_proof(proof, leaf)?;
        let block = applied.block.filter(|_| applied.new_block);
        Ok(Applied { upgraded: applied.upgraded, block })
    }

    fn history_of(&self, proof: &Proof) -> Result<(u64, Roots), Refusal> {
        Ok(self.history_of(proof)?)
    }

    fn history_at(&self, length: u64) -> Option<Roots> {
        self.history_at(length)
    }

    fn apply_reorg(&mut self, proof: &Proof) -> Result<Reorged, Refusal> {
        let old_length = self.length();
        let applied = self.apply_reorg(proof)?;
        Ok(Reorged { ancestors: applied.ancestors.unwrap_or(0), old_length })
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Rejected(VerifyError::Fork(_)) => Self::Stale,
            ApplyError::Unstored(error) => {
                Self::Unstored { why: error.to_string(), full: error.is_disk_full() }
            }
            ApplyError::Local(core::CoreError::Busy) => Self::Busy,
            ApplyError::Local(error) => Self::Storage(error.to_string()),
            other => Self::Invalid(other.to_string()),
        }
    }
}
