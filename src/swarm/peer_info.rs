//! What is remembered of one peer: how often it failed in a row (`attempts`), whether it ever worked (`proven`) and
//! where it is in its circle: found → queued → dialled → connected → lost → waiting → queued again.
//!
//! | attempts | 0 | 1 | 2 | 3 | more |
//! |---|---|---|---|---|---|
//! | priority | normal | very high | high | low | not queued |
//!
//! Who is new and on a local network of ours comes first. Who was dialled in vain (`tried`) and never answered comes behind
//! all of them, or records of the dead would keep the living waiting. The reference has this rule, but sets the flag nowhere.
//!
//! Source: hyperswarm/lib/peer-info.js

use super::priority::{Priority, Slot};
use crate::key::Topic;
use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

/// One known peer.
#[derive(Debug, Default)]
pub struct PeerInfo {
    /// Nodes that can pass a handshake on to it, as the latest lookup gave them.
    pub relay_addresses: Vec<SocketAddrV4>,
    /// Where it is on a local network.
    pub near: Option<SocketAddr>,
    /// It did not answer there since it was last found there.
    pub near_is_silent: bool,
    /// How often we tried to move a connection with it there.
    pub approaches: u32,
    /// Where it says that it is itself, the latest first.
    pub told: Vec<SocketAddr>,
    /// Joined topics under which it was found.
    pub topics: BTreeSet<Topic>,
    /// Asked for by key rather than found.
    pub explicit: bool,
    /// Why the last dial failed, until one succeeds.
    pub failure: Option<String>,
    pub(super) attempts: u32,
    pub(super) proven: bool,
    /// It answered when it was dialled last, but there was no way to it.
    pub(super) unreachable: bool,
    /// It did not answer when it was dialled last.
    pub(super) tried: bool,
    /// In the dial queue, under this number.
    pub(super) queued: Option<Slot>,
    /// In the retry timer.
    pub(super) waiting: bool,
    /// Its last connection was dialled by us.
    pub(super) client: bool,
    /// A connection, or a dial, is under way.
    pub(super) connected: bool,
    /// A connection is open.
    pub(super) open: bool,
    pub(super) connected_at: Option<Instant>,
    pub(super) disconnected_at: Option<Instant>,
    pub(super) banned_until: Option<Instant>,
}

impl PeerInfo {
    pub fn priority(&self) -> Priority {
        match self.attempts {
            _ if self.tried && !self.proven && !self.explicit => Priority::VeryLow,
            0 if self.near.is_some() && !self.near_is_silent => Priority::VeryHigh,
            0 => Priority::Normal,
            1 => Priority::VeryHigh,
            2 => Priority::High,
            3 => Priority::Low,
            _ => Priority::VeryLow,
        }
    }

    /// Whether nothing speaks against its being there: it was not dialled in vain so far, or once worked and failed no
    /// more than twice since.
    pub fn is_hopeful(&self) -> bool {
        self.priority() >= Priority::Normal
    }

    /// Whether it waits for a free dial.
    pub fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    pub fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| until > now)
    }

    /// As if never met.
    pub fn reset(&mut self) {
        (self.client, self.proven, self.attempts) = (false, false, 0);
    }

    pub fn is_forgettable(&self, now: Instant) -> bool {
        let kept = self.explicit || self.waiting || self.connected || self.queued.is_some();
        !kept && !self.is_banned(now)
    }
}
