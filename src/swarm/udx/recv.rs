//! The receiving half of a stream: order, gaps, the window we offer.
//!
//! A packet that is next in order goes straight to the sink and is never stored. One that is ahead is copied
//! and held until the gap before it is closed; what is held is reported back as SACK blocks and, once
//! reported, must not be dropped (the sender never sends it again).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::packet::{FIRST_SEQ, MAX_SACK_BLOCKS, expand, flag};
use super::ranges::RangeSet;

/// The window a receiver with nothing buffered offers, as every peer of the network does.
pub const MAX_WINDOW: usize = 4 << 20;

/// A window smaller than one burst would only cost wake-ups.
const MIN_LIMIT: usize = 64 << 10;

/// What the owner may hold before packets are not taken any more, so that the peer has to send them again. A peer that
/// keeps to the window stays below, but for the cost of small messages.
const MAX_BACKLOG: usize = 2 * MAX_WINDOW;

/// What a packet held ahead of a gap costs beside its payload.
const HELD_COST: usize = 128;

/// Bytes held ahead of a gap. Senders count only what is in flight against the window, not what was SACKed, so a
/// gap that takes two round trips to repair can be followed by two windows of data.
pub(super) const MAX_HELD_BYTES: usize = 2 * MAX_WINDOW;

/// Packets ahead of the next expected one that are held: four windows of 1152-byte packets.
/// Bounds the bookkeeping for tiny packets.
pub(super) const MAX_AHEAD: u64 = 16_384;

/// Of the ranges reported, how many are the lowest ones if there are too many.
const LOWEST_BLOCKS: usize = 20;

#[derive(Debug)]
struct Held {
    flags: u8,
    payload: Bytes,
}

/// What has come in, by packet number.
#[derive(Debug)]
pub struct Receiver {
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    ranges: RangeSet,
    /// Number of the packet with the END flag.
    end: Option<u64>,
    ended: bool,
    /// What of the delivered bytes the layers above hold, with what that costs them.
    backlog: usize,
    /// Held by the layers above without a claim on the window: a message of which more must come.
    partial: usize,
    /// What may be held before the window closes; less than [`MAX_WINDOW`] while all streams together hold much.
    share: usize,
    /// The largest window to offer.
    limit: usize,
}

impl Receiver {
    /// `first` is the wire number of the first packet.
    pub fn new(first: u32) -> Self {
        Self {
            next: FIRST_SEQ + u64::from(first),
            held: BTreeMap::new(),
            held_bytes: 0,
            ranges: RangeSet::default(),
            end: None,
            ended: false,
            backlog: 0,
            partial: 0,
            share: MAX_WINDOW,
            limit: MAX_WINDOW,
        }
    }

    /// The next number expected.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The full number of a packet with the wire number `seq`.
    pub fn expand(&self, seq: u32) -> u64 {
        expand(seq, self.next)
    }

    /// The END of the peer was reached: nothing more will be delivered.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub fn has_gaps(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Held above of a message of which more must come.
    pub fn partial(&self) -> usize {
        self.partial
    }

    /// What may be held ahead of gaps: what was not taken is sent again.
    fn most_ahead(&self) -> usize {
        if self.share < MAX_WINDOW { self.share } else { MAX_HELD_BYTES }
    }

    /// The window to offer where nothing is held.
    pub fn most(&self) -> usize {
        self.limit.min(self.share)
    }

    pub fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes.clamp(MIN_LIMIT, MAX_WINDOW);
    }

    pub fn set_backlog(&mut self, bytes: usize) {
        self.backlog = bytes;
    }

    pub fn set_partial(&mut self, bytes: usize) {
        self.partial = bytes;
    }

    pub fn set_share(&mut self, bytes: usize) {
        self.share = bytes.min(MAX_WINDOW);
    }

    /// What is held for this stream, here and above.
    pub fn held(&self) -> usize {
        self.held_bytes + HELD_COST * self.held.len() + self.backlog + self.partial
    }

    /// Whether the owner holds more than any peer that keeps to the window makes it hold.
    pub fn is_full(&self) -> bool {
        self.backlog >= MAX_BACKLOG
    }

    /// The window to offer, bytes.
    pub fn window(&self) -> u32 {
        let used = self.backlog + self.held_bytes.saturating_sub(MAX_WINDOW);
        self.share.saturating_sub(used).min(self.limit) as u32
    }

    /// Takes a DATA or END packet; calls `deliver` for every payload that is now in order.
    pub fn accept(&mut self, seq: u64, flags: u8, payload: &[u8], mut deliver: impl FnMut(&[u8])) {
        if self.ended || seq < self.next || self.end.is_some_and(|end| seq > end) {
            return;
        }
        if seq > self.next {
            self.hold(seq, flags, payload);
            return;
        }
        self.consume(flags, payload, &mut deliver);
        // Room for this number may have been held already only if it was held as `next`, which never happens.
        while let Some((&seq, _)) = self.held.first_key_value()
            && seq == self.next
            && let Some((_, held)) = self.held.pop_first()
        {
            self.held_bytes -= held.payload.len();
            self.consume(held.flags, &held.payload, &mut deliver);
        }
        if !self.ranges.is_empty() {
            self.ranges.remove_below(self.next);
        }
    }

    fn consume(&mut self, flags: u8, payload: &[u8], deliver: &mut impl FnMut(&[u8])) {
        self.next += 1;
        if flags & flag::DATA != 0 && !payload.is_empty() && !self.ended {
            deliver(payload);
        }
        if flags & flag::END != 0 {
            self.ended = true;
        }
    }

    fn hold(&mut self, seq: u64, flags: u8, payload: &[u8]) {
        let payload = if flags & flag::DATA != 0 { payload } else { &[] };
        let fits =
            seq - self.next < MAX_AHEAD && self.held_bytes + payload.len() <= self.most_ahead();
        if !fits || self.held.contains_key(&seq) {
            return;
        }
        if flags & flag::END != 0 {
            self.end = Some(seq);
        }
        self.held_bytes += payload.len();
        self.held.insert(seq, Held { flags, payload: Bytes::copy_from_slice(payload) });
        self.ranges.insert(seq, seq + 1);
    }

    /// The ranges to report, ascending, as wire numbers.
    ///
    /// The reference reports the lowest 50 only. With more gaps than that it hides from the sender what arrives now, which
    /// ruins its round-trip times and its rate; so we give 30 places to the newest ranges.
    pub fn sack_blocks(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let skipped = self.ranges.len().saturating_sub(MAX_SACK_BLOCKS);
        let kept = move |i: usize| i < LOWEST_BLOCKS || i >= LOWEST_BLOCKS + skipped;
        let reported = self.ranges.iter().enumerate().filter(move |(i, _)| kept(*i));
        reported.map(|(_, (start, end))| (start as u32, end as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer(r: &mut Receiver, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        let seq = r.expand(seq);
        r.accept(seq, flags, payload, |p| got.extend_from_slice(p));
        got
    }

    proptest! {
        #[test]
        fn any_order_with_duplicates_delivers_once_in_order(first: u32, mut order in proptest::collection::vec(0u32..40, 0..200)) {
            let mut r = Receiver::new(first);
            order.extend(0..40);
            let mut got = Vec::new();
            for n in order {
                let flags = if n == 39 { flag::DATA | flag::END } else { flag::DATA };
                got.extend(offer(&mut r, first.wrapping_add(n), flags, &[n as u8]));
            }
            prop_assert_eq!(got, (0..40).collect::<Vec<u8>>());
            prop_assert!(r.ended() && !r.has_gaps());
            prop_assert_eq!(r.held_bytes, 0);
        }
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_held() {
        let mut r = Receiver::new(0);
        offer(&mut r, MAX_AHEAD as u32, flag::DATA, b"x");
        offer(&mut r, 0x7fff_ffff, flag::DATA, b"x");
        assert!(!r.has_gaps());
        for n in 1..200 {
            offer(&mut r, n, flag::DATA, &vec![0; 65_000]);
        }
        assert!(r.held_bytes <= MAX_HELD_BYTES);
        assert_eq!(r.window(), MAX_WINDOW.saturating_sub(r.held_bytes - MAX_WINDOW) as u32);
    }

    #[test]
    fn of_many_gaps_the_lowest_and_the_newest_are_reported() {
        let mut r = Receiver::new(0);
        for n in 1..=120 {
            offer(&mut r, 2 * n, flag::DATA, b"x");
        }
        let starts: Vec<u32> = r.sack_blocks().map(|(start, _)| start / 2).collect();
        assert_eq!(starts, (1..=20).chain(91..=120).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_taken_behind_the_end() {
        let mut r = Receiver::new(0);
        offer(&mut r, 2, flag::END, b"");
        offer(&mut r, 3, flag::DATA, b"late");
        assert_eq!(offer(&mut r, 0, flag::DATA, b"a"), b"a");
        assert!(!r.ended());
        assert_eq!(offer(&mut r, 1, flag::DATA, b"b"), b"b");
        assert!(r.ended());
        assert_eq!(r.next(), FIRST_SEQ + 3);
        assert_eq!(offer(&mut r, 3, flag::DATA, b"late"), b"");
    }
}
