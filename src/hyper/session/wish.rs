//! What handles ask of the thread that owns the replication hub.
//!
//! A wish is a message and has no answer. What it brings about comes back through the callbacks of the handle, and
//! what is no longer wanted is taken back by another wish: see [`super::waiters`].

use super::CoreHandle;
use crate::key::DiscoveryKey;
use std::ops::Range;

/// What a handle asks of the thread that owns the replication hub.
#[derive(Debug)]
pub enum Wish {
    Attach {
        handle: CoreHandle,
        downloading: bool,
        small_blocks: bool,
    },
    /// Nobody here uses the core any more.
    Detach {
        core: DiscoveryKey,
    },
    Block {
        core: DiscoveryKey,
        index: u64,
        urgent: bool,
    },
    ForgetBlock {
        core: DiscoveryKey,
        index: u64,
    },
    Range {
        core: DiscoveryKey,
        id: u64,
        range: Range<u64>,
        linear: bool,
    },
    ForgetRange {
        core: DiscoveryKey,
        id: u64,
    },
    Seek {
        core: DiscoveryKey,
        bytes: u64,
    },
    ForgetSeek {
        core: DiscoveryKey,
        bytes: u64,
    },
    /// To be told when the head is what the connected peers have.
    Update {
        core: DiscoveryKey,
    },
    /// Local blocks were appended or truncated.
    Changed {
        core: DiscoveryKey,
    },
    /// Local blocks were given up; the tree is as before.
    Cleared {
        core: DiscoveryKey,
        blocks: Range<u64>,
    },
}
