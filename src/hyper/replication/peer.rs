//! One peer of one core: what it has, what it told us, and what it asks of us.

use super::ConnId;
use super::held::{CHANNEL, ENTRY};
use super::pace::Pace;
use super::remote_bitfield::RemoteBitfield;
use super::upload::UploadQueue;
use super::wants::{LocalWants, RemoteWants};
use super::wire::Sync;
use std::collections::BTreeSet;
use std::time::Instant;

/// Blocks that a peer announced and then would not or could not send. Beyond that it is not asked any more.
const MAX_DENIED: usize = 1024;
#[derive(Debug)]
pub(super) struct Peer {
    pub conn: ConnId,
    /// Our id of the channel.
    pub channel: u64,
    /// Both sides opened the channel.
    pub open: bool,
    /// When the channel was opened, by us or both.
    pub since: Instant,
    pub seeks: bool,
    /// Its last sync.
    pub remote: Option<Sync>,
    pub synced_at: Instant,
    /// Our length as acknowledged by it, 0 if the forks differed.
    pub acked: u64,
    /// The last sync we sent.
    pub told: Option<Sync>,
    /// The length at which we told it that we have everything.
    pub told_full: u64,
    /// Fork and length of an upgrade that it did not give us.
    pub refused: Option<(u64, u64)>,
    /// Up to this length its history is known to be ours.
    pub agrees_to: u64,
    /// When it was last asked about that.
    pub history_asked: Option<Instant>,
    pub bits: RemoteBitfield,
    pub denied: BTreeSet<u64>,
    pub wants: LocalWants,
    pub remote_wants: RemoteWants,
    pub uploads: UploadQueue,
    pub invalid_requests: u32,
    /// It has a place in the turn of its connection's cores.
    pub in_turn: bool,
    /// What was counted as held for it.
    held: usize,
    pub pace: Pace,
    pub bytes_down: u64,
    pub bytes_up: u64,
}

impl Peer {
    pub fn new(conn: ConnId, channel: u64, now: Instant) -> Self {
        Self {
            conn,
            channel,
            open: false,
            since: now,
            seeks: false,
            remote: None,
            synced_at: now,
            acked: 0,
            told: None,
            told_full: 0,
            refused: None,
            agrees_to: 0,
            history_asked: None,
            bits: RemoteBitfield::default(),
            denied: BTreeSet::new(),
            wants: LocalWants::default(),
            remote_wants: RemoteWants::default(),
            uploads: UploadQueue::default(),
            invalid_requests: 0,
            in_turn: false,
            held: 0,
            pace: Pace::new(now),
            bytes_down: 0,
            bytes_up: 0,
        }
    }

    /// What it said last, if it may be asked for anything.
    pub fn asked_for(&self) -> Option<&Sync> {
        let useful = self.open && self.denied.len() < MAX_DENIED;
        self.remote.as_ref().filter(|remote| useful && remote.uploading)
    }

    /// Whether it says it has a block, and did not deny it since.
    pub fn has(&self, block: u64) -> bool {
        self.bits.has(block) && !self.denied.contains(&block)
    }

    pub fn deny(&mut self, block: u64) {
        if self.denied.len() < MAX_DENIED {
            self.denied.insert(block);
        }
    }

    /// Bytes that it makes us hold: before, and now.
    pub fn count_held(&mut self) -> (usize, usize) {
        let tables = self.bits.held() + self.uploads.held() + self.remote_wants.held();
        let now = CHANNEL + tables + self.denied.len() * ENTRY;
        (std::mem::replace(&mut self.held, now), now)
    }
}
