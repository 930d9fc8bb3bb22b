//! Requests that were sent and have no answer yet.
//!
//! Ids count up and are never used again, which spares the reference's rules about reuse: an answer to
//! a cancelled request cannot be taken for another.

use super::{ConnId, SeekId};
use crate::hyper::core::message::Request;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Peers asked for the same block at a time, as in the reference.
pub(super) const MAX_COPIES: usize = 3;

/// One request on its way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub conn: ConnId,
    pub request: Request,
    pub fork: u64,
    /// Our length when it was sent.
    pub own_length: u64,
    pub sent: Instant,
    /// Bytes that the answer will have, as a guess.
    pub bytes: usize,
    /// Answers of the peer by when this one should have come, if it answers in order.
    pub due: u64,
    /// Overdue: others may be asked as well.
    pub late: bool,
    pub seek: Option<SeekId>,
    /// Asked to compare histories; nothing of the answer is stored.
    pub history: bool,
}

impl Flight {
    pub fn block(&self) -> Option<u64> {
        self.request.block.map(|block| block.index)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Copies {
    ids: [u64; MAX_COPIES],
    len: usize,
}

/// All requests of one core, over all its peers.
#[derive(Debug)]
pub(super) struct Flights {
    next: u64,
    by_id: BTreeMap<u64, Flight>,
    by_block: HashMap<u64, Copies>,
}

impl Default for Flights {
    fn default() -> Self {
        // Id 0 is for conflict checks and pushes.
        Self { next: 1, by_id: BTreeMap::new(), by_block: HashMap::new() }
    }
}

impl Flights {
    pub fn insert(&mut self, flight: Flight) -> u64 {
        let id = self.next;
        self.next += 1;
        if let Some(block) = flight.block() {
            let copies = self.by_block.entry(block).or_default();
            if let Some(slot) = copies.ids.get_mut(copies.len) {
                *slot = id;
                copies.len += 1;
            }
        }
        self.by_id.insert(id, flight);
        id
    }

    pub fn get(&self, id: u64) -> Option<&Flight> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Flight> {
        self.by_id.get_mut(&id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Flight> {
        let flight = self.by_id.remove(&id)?;
        if let Some(block) = flight.block()
            && let Some(copies) = self.by_block.get_mut(&block)
        {
            let kept: Vec<u64> = copies.ids().iter().copied().filter(|i| *i != id).collect();
            *copies = Copies::default();
            for id in kept {
                copies.ids[copies.len] = id;
                copies.len += 1;
            }
            if copies.len == 0 {
                self.by_block.remove(&block);
            }
        }
        Some(flight)
    }

    /// Whether an id was ever given out.
    pub fn was_used(&self, id: u64) -> bool {
        (1..self.next).contains(&id)
    }

    /// Requests for a block, oldest first.
    pub fn copies(&self, block: u64) -> &[u64] {
        self.by_block.get(&block).map_or(&[], Copies::ids)
    }

    /// Whether a block is on its way and not overdue.
    pub fn is_coming(&self, block: u64) -> bool {
        self.copies(block).iter().any(|id| self.by_id.get(id).is_some_and(|f| !f.late))
    }

    /// Whether `conn` may be asked for a block: it was not, and not too many others were.
    pub fn may_ask(&self, block: u64, conn: ConnId) -> bool {
        let copies = self.copies(block);
        copies.len() < MAX_COPIES
            && copies.iter().all(|id| self.by_id.get(id).is_none_or(|f| f.conn != conn))
    }

    /// The request for `block` that `conn` has, if any.
    pub fn of(&self, block: u64, conn: ConnId) -> Option<u64> {
        let asked = |id: &&u64| self.by_id.get(id).is_some_and(|f| f.conn == conn);
        self.copies(block).iter().find(asked).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &Flight)> {
        self.by_id.iter().map(|(id, flight)| (*id, flight))
    }

    /// Ids of the requests that `conn` has.
    pub fn of_conn(&self, conn: ConnId) -> Vec<u64> {
        self.iter().filter(|(_, f)| f.conn == conn).map(|(id, _)| id).collect()
    }
}

impl Copies {
    fn ids(&self) -> &[u64] {
        self.ids.get(..self.len).unwrap_or_default()
    }
}
