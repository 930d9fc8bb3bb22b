//! What local readers wish for: single blocks, ranges, positions.
//!
//! A wish lives until it is fulfilled or withdrawn; that peers come and go does not touch it.

use super::{ConnId, RangeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Instant;

/// A block that somebody waits for.
#[derive(Debug)]
pub(super) struct BlockWish {
    /// How many times it was wanted.
    pub count: u32,
    pub priority: bool,
    /// Since when somebody waits for it, or wants it at all.
    pub since: Instant,
    /// Its place in the queue while it is queued.
    seq: Option<u64>,
    /// That nobody has it was told.
    reported: bool,
}

/// Not priority, sequence, block: what comes first is asked for first.
pub(super) type Place = (bool, u64, u64);

/// Blocks that are waited for. Each is queued (to be asked for), parked (no peer has it), or under way.
#[derive(Debug, Default)]
pub(super) struct BlockWishes {
    map: BTreeMap<u64, BlockWish>,
    queue: BTreeSet<Place>,
    parked: BTreeSet<u64>,
    next: u64,
    /// Those of which nobody was told that they cannot be had.
    unreported: usize,
}

impl BlockWishes {
    /// One more waiter for a block.
    pub fn add(&mut self, block: u64, priority: bool, now: Instant) {
        let new = BlockWish { count: 0, priority, since: now, seq: None, reported: false };
        let is_new = !self.map.contains_key(&block);
        let wish = self.map.entry(block).or_insert(new);
        wish.count += 1;
        self.unreported += usize::from(is_new || std::mem::take(&mut wish.reported));
        let raised = priority && !wish.priority;
        if raised {
            (wish.priority, wish.since) = (true, now);
        }
        let queued = wish.seq;
        if is_new {
            self.queue(block);
        } else if raised && let Some(seq) = queued {
            self.queue.remove(&(true, seq, block));
            self.queue.insert((false, seq, block));
        }
    }

    /// One waiter less. True if it was the last.
    pub fn withdraw(&mut self, block: u64) -> bool {
        let Some(wish) = self.map.get_mut(&block) else { return false };
        wish.count = wish.count.saturating_sub(1);
        let last = wish.count == 0;
        if last {
            self.remove(block);
        }
        last
    }

    /// The block is here. True if it was wanted.
    pub fn remove(&mut self, block: u64) -> bool {
        self.unqueue(block);
        self.parked.remove(&block);
        let Some(wish) = self.map.remove(&block) else { return false };
        self.unreported -= usize::from(!wish.reported);
        true
    }

    pub fn get(&self, block: u64) -> Option<&BlockWish> {
        self.map.get(&block)
    }

    /// Parked blocks of which nobody was told yet that they cannot be had.
    pub fn unreported(&self) -> Vec<u64> {
        if self.unreported == 0 {
            return Vec::new();
        }
        let unreported = |block: &&u64| self.map.get(block).is_some_and(|wish| !wish.reported);
        self.parked.iter().filter(unreported).copied().collect()
    }

    /// That a block cannot be had is told now.
    pub fn report(&mut self, block: u64) {
        if let Some(wish) = self.map.get_mut(&block) {
            self.unreported -= usize::from(!std::mem::replace(&mut wish.reported, true));
        }
    }

    pub fn has_unreported(&self) -> bool {
        self.unreported > 0
    }

    /// (Back) into the queue, if it is wanted at all.
    pub fn queue(&mut self, block: u64) {
        let Some(wish) = self.map.get_mut(&block).filter(|wish| wish.seq.is_none()) else { return };
        self.parked.remove(&block);
        wish.seq = Some(self.next);
        self.queue.insert((!wish.priority, self.next, block));
        self.next += 1;
    }

    /// It is under way.
    pub fn unqueue(&mut self, block: u64) {
        self.parked.remove(&block);
        if let Some(wish) = self.map.get_mut(&block)
            && let Some(seq) = wish.seq.take()
        {
            self.queue.remove(&(!wish.priority, seq, block));
            self.unreported += usize::from(std::mem::take(&mut wish.reported));
        }
    }

    /// Nobody has it: it waits until somebody may.
    pub fn park(&mut self, block: u64) {
        let Some(wish) = self.map.get_mut(&block) else { return };
        if let Some(seq) = wish.seq.take() {
            self.queue.remove(&(!wish.priority, seq, block));
            self.parked.insert(block);
        }
    }

    /// A peer may have these now.
    pub fn unpark(&mut self, start: u64, end: u64) {
        if self.parked.is_empty() || start >= end {
            return;
        }
        let blocks: Vec<u64> = self.parked.range(start..end).copied().collect();
        blocks.into_iter().for_each(|block| self.queue(block));
    }

    /// The queued block behind the given place, first come first, and its place.
    pub fn queued_after(&self, place: Option<Place>) -> Option<(Place, u64)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.queue.range((from, Bound::Unbounded)).next().map(|place| (*place, place.2))
    }

    /// Whether more than `many` blocks of `start..end` are parked.
    pub fn has_parked(&self, many: usize, start: u64, end: u64) -> bool {
        start < end && self.parked.range(start..end).nth(many).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &BlockWish)> {
        self.map.iter().map(|(block, wish)| (*block, wish))
    }

    /// Wanted blocks of `from..to`, lowest first.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        self.map.range(from..to.max(from)).map(|(block, _)| *block)
    }
}

/// How far one peer was looked through for the blocks of a range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    pub at: u64,
    /// Set while the part behind a start in the middle is still to be looked at: where to stop.
    pub wrap: Option<u64>,
}

/// Blocks `start..end` to be fetched.
#[derive(Debug)]
pub(super) struct RangeWish {
    pub id: RangeId,
    start: u64,
    pub end: u64,
    pub linear: bool,
    /// From the start up to here everything is here.
    pub low: u64,
    scans: BTreeMap<ConnId, Scan>,
}

impl RangeWish {
    pub fn new(id: RangeId, start: u64, end: u64, linear: bool) -> Self {
        Self { id, start, end, linear, low: start, scans: BTreeMap::new() }
    }

    /// Where to go on for a peer. A range that is not linear begins at a place of its own for each peer,
    /// so that several peers rarely fetch the same end of it.
    pub fn scan(&mut self, conn: ConnId, end: u64) -> Scan {
        let low = self.low;
        let linear = self.linear;
        *self.scans.entry(conn).or_insert_with(|| {
            let len = end.saturating_sub(low);
            let spread = conn.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
            let skip = if linear || len == 0 { 0 } else { spread % len };
            Scan { at: low + skip, wrap: (skip > 0).then_some(low + skip) }
        })
    }

    pub fn set_scan(&mut self, conn: ConnId, scan: Scan) {
        self.scans.insert(conn, scan);
    }

    /// A block is to be asked for again.
    pub fn put_back(&mut self, block: u64) {
        if (self.low..self.end).contains(&block) {
            for scan in self.scans.values_mut() {
                // What is skipped this way is looked at once more; cheap, since it is on its way or here.
                scan.at = scan.at.min(block);
            }
        }
    }

    /// A peer has more from `block` on than when it was looked through.
    pub fn look_again(&mut self, conn: ConnId, block: u64) {
        if let Some(scan) = self.scans.get_mut(&conn) {
            scan.at = scan.at.min(block.max(self.low));
        }
    }

    /// Start over: the tree was cut at `length`.
    pub fn reset(&mut self, length: u64) {
        self.low = self.low.min(length).max(self.start);
        self.scans.clear();
    }

    pub fn forget(&mut self, conn: ConnId) {
        self.scans.remove(&conn);
    }
}
