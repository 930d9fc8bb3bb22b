//! How much may be queued for peers until they take it.
//!
//! The owner of a stream writes no more than so much to a peer that does not read, but a host can make as many streams as
//! it likes, and acknowledge what it likes. So all that is kept for peers counts together, to the acknowledgement in order,
//! also what goes to one whose end was asked for. Where it is too much whoever holds most of it ends, host by host, of
//! those who have taken nothing for a while; the longer the more it weighs. Who reads stays, however slowly, up to
//! [`CEILING`] in all: readers of large blocks may together have more queued than [`MAX_QUEUED`], as much as goes to each in
//! any case.
//!
//! What the owner has not written yet does not count. It is answers to messages that came and requests of our own, which
//! are bounded as such, and it is written when the thread that does so has its next turn.

use super::stream::Stream;
use super::{CloseReason, Udx};
use crate::swarm::socket::host_of;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What may be queued for all peers together before those that take nothing go. Half is what blocks are read for, with what one host may add to it and the
/// little that goes to each in any case (see the limits of replication).
pub const MAX_QUEUED: usize = 384 << 20;

/// And for those of one host. Behind one address there may be as many honest readers as there are places.
pub const MAX_QUEUED_OF_HOST: usize = 256 << 20;

/// With so much in all nobody is spared, whatever he takes. A reader of blocks of 8 MiB may have two of them queued, so
/// some forty of those stay below.
pub const CEILING: usize = 2 * MAX_QUEUED;

/// Who has taken something within this reads, microseconds. The acknowledgements of a reader follow close upon each other.
const READS: u64 = 2_000_000;

/// What waits counts for no longer than this: one that is away for long is not to go before others that hold much more.
const MOST_WAIT: u64 = 10_000_000;

/// What is queued for all peers.
#[derive(Debug, Default)]
pub(super) struct Queued {
    all: usize,
}

impl Queued {
    /// Notes what is queued for a peer now.
    pub fn count(&mut self, stream: &mut Stream) {
        let now = if stream.closed.is_some() { 0 } else { stream.send.kept() };
        let before = std::mem::replace(&mut stream.counted_queue, now);
        self.all = (self.all + now).saturating_sub(before);
    }

    /// A stream is gone.
    pub fn uncount(&mut self, stream: &Stream) {
        self.all = self.all.saturating_sub(stream.counted_queue);
    }

    #[cfg(test)]
    pub fn all(&self) -> usize {
        self.all
    }
}

/// What is queued for the streams of a host: bytes, what they weigh, and the weightiest stream.
#[derive(Default)]
struct Host {
    bytes: usize,
    weight: u64,
    first: (u64, usize),
}

impl Udx {
    /// Notes what is queued for a peer, and ends streams while it is too much for all or for a host.
    pub(super) fn count_queued(&mut self, slot: usize) {
        if let Some(stream) = self.streams.at(slot) {
            self.queued.count(stream);
        }
        while let Some(slot) = self.weightiest() {
            let Some(stream) = self.streams.at(slot) else { return };
            tracing::debug!(stream = stream.id, queued = stream.counted_queue, "does not read");
            stream.say_farewell(CloseReason::Unread, &mut self.out);
            stream.send.clear();
            self.queued.count(stream);
            self.touch(slot);
        }
    }

    /// The slot of the stream that has to go, if it is too much.
    fn weightiest(&mut self) -> Option<usize> {
        if self.queued.all <= MAX_QUEUED_OF_HOST {
            return None;
        }
        // A peer may take a packet now and then, and hold back the acknowledgement of all others.
        let far_too_much = self.queued.all > CEILING;
        let mut hosts: BTreeMap<Option<IpAddr>, Host> = BTreeMap::new();
        for slot in 0..self.streams.slots() {
            let Some(stream) = self.streams.at(slot).filter(|s| s.counted_queue > 0) else {
                continue;
            };
            let wait = self.clock.now.saturating_sub(stream.taken_at);
            let host = hosts.entry(stream.remote.map(|r| host_of(&r.to))).or_default();
            host.bytes += stream.counted_queue;
            if wait >= READS || far_too_much {
                let weight = stream.counted_queue as u64 * wait.clamp(1, MOST_WAIT);
                host.weight += weight;
                host.first = host.first.max((weight, slot));
            }
        }
        let all = self.queued.all > MAX_QUEUED;
        let over = hosts.into_values();
        let over = over.filter(|host| host.weight > 0 && (all || host.bytes > MAX_QUEUED_OF_HOST));
        over.max_by_key(|host| host.weight).map(|host| host.first.1)
    }
}
