//! How much each stream may hold, so that all together do not hold too much.
//!
//! What a peer was offered it may send, and what comes next in order is always taken: nothing else could ever make a
//! stream hold less. So memory is kept by offering less in time, and where that is not enough by ending whoever holds
//! most, host by host, for a host can make as many streams as it likes.

use super::recv::MAX_WINDOW;
use super::slots::Slots;
use super::stream::Stream;
use super::{CloseReason, Udx};
use crate::swarm::socket::host_of;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What all streams together may hold for their owner, ahead of gaps, and before they are connected. From half of it on
/// what is left is shared out: windows shrink, and each stream has only its share for what is ahead of a gap.
pub const MAX_HELD: usize = 128 << 20;

/// From here on the longest messages are to become whole before others grow long, and no host holds more than
/// [`MAX_HELD_OF_HOST`].
const TIGHT: usize = MAX_HELD / 4 * 3;
const MAX_HELD_OF_HOST: usize = MAX_HELD / 2;

/// What each stream may hold, however many there are: a window that lets a round trip be used.
pub const MIN_SHARE: usize = 64 << 10;

/// What one with a long message gets whose turn it is not: it goes on, but slowly.
const WAITING_SHARE: usize = 16 << 10;

/// Long messages that are in turn. Each may be 16 MiB, and the two that are the longest need less.
const IN_TURN: usize = 2;

#[derive(Debug, Default)]
pub struct Shares {
    /// What all streams hold.
    pub held: usize,
    /// Slots of the streams that are in turn, while it is tight.
    in_turn: Vec<usize>,
}

impl Shares {
    /// Whether they hold so much that each has a share.
    pub fn is_scarce(&self) -> bool {
        self.held >= MAX_HELD / 2
    }

    /// Whether they hold more than they may.
    pub fn is_full(&self) -> bool {
        self.held > MAX_HELD
    }

    /// Whether somebody may have to go, or to wait.
    pub fn is_tight(&self) -> bool {
        self.held >= TIGHT || !self.in_turn.is_empty()
    }

    /// What each of so many streams may hold. All of them together leave half of the room for what they were offered
    /// before.
    pub fn of_each(&self, streams: usize) -> usize {
        if self.is_scarce() {
            (self.left() / 2 / streams.max(1)).clamp(MIN_SHARE, MAX_WINDOW)
        } else {
            MAX_WINDOW
        }
    }

    /// What the stream in `slot` may hold, one of so many.
    pub fn of(&self, slot: usize, stream: &Stream, streams: usize) -> usize {
        if self.held < TIGHT || stream.recv.partial() < MIN_SHARE {
            self.of_each(streams)
        } else if self.in_turn.contains(&slot) {
            (self.left() / 2 / IN_TURN).clamp(MIN_SHARE, MAX_WINDOW)
        } else {
            WAITING_SHARE
        }
    }

    fn left(&self) -> usize {
        MAX_HELD.saturating_sub(self.held)
    }

    /// Notes what a stream holds now.
    pub fn count(&mut self, stream: &mut Stream) {
        let held = if stream.closed.is_some() { 0 } else { stream.held() };
        self.held = (self.held + held).saturating_sub(std::mem::replace(&mut stream.counted, held));
    }

    /// A stream is gone.
    pub fn uncount(&mut self, stream: &Stream) {
        self.held = self.held.saturating_sub(stream.counted);
    }

    /// The slot of a stream that has to go, if it is too much: the one that holds most of the host that holds most.
    pub fn greediest(&self, streams: &mut Slots) -> Option<usize> {
        if self.held < TIGHT {
            return None;
        }
        let mut hosts: BTreeMap<Option<IpAddr>, (usize, (usize, usize))> = BTreeMap::new();
        for slot in 0..streams.slots() {
            let Some(stream) = streams.at(slot).filter(|stream| stream.counted > 0) else {
                continue;
            };
            let (all, most) = hosts.entry(stream.remote.map(|r| host_of(&r.to))).or_default();
            *all += stream.counted;
            *most = (*most).max((stream.counted, slot));
        }
        let (all, (_, slot)) = hosts.into_values().max()?;
        (all > MAX_HELD_OF_HOST || self.held > MAX_HELD).then_some(slot)
    }

    /// Finds out whose turn it is: of the messages that come in the longest, which is the nearest to leaving.
    pub fn take_turns(&mut self, streams: &mut Slots) {
        self.in_turn.clear();
        if self.held < TIGHT {
            return;
        }
        let slots = 0..streams.slots();
        let mut long: Vec<(usize, usize)> = slots
            .filter_map(|slot| Some((streams.at(slot)?.recv.partial(), slot)))
            .filter(|(partial, _)| *partial >= MIN_SHARE)
            .collect();
        long.sort_unstable_by(|a, b| b.cmp(a));
        self.in_turn.extend(long.into_iter().take(IN_TURN).map(|(_, slot)| slot));
    }
}

impl Udx {
    /// Notes what a stream holds now.
    pub(super) fn count_held(&mut self, slot: usize) {
        if let Some(stream) = self.streams.at(slot) {
            self.shares.count(stream);
        }
        if self.shares.is_full() {
            self.make_room();
        }
    }

    /// Ends streams while all together hold too much.
    pub(super) fn make_room(&mut self) {
        while let Some(slot) = self.shares.greediest(&mut self.streams) {
            let Some(stream) = self.streams.at(slot) else { return };
            tracing::debug!(stream = stream.id, held = stream.counted, "holds too much");
            stream.say_farewell(CloseReason::Overfull, &mut self.out);
            self.shares.count(stream);
            self.touch(slot);
        }
    }
}
