//! Packets sent and not yet acknowledged in order: the scoreboard of the sender.
//!
//! A packet is found by its number (a ring that starts at the oldest unacknowledged one) and, for loss
//! detection, by the order of its last transmission ([`SentPackets::order`], whose outdated entries are dropped when
//! they come to the front). So acknowledging, finding losses and resending all cost constant time per packet.

use std::collections::{BTreeSet, VecDeque};

use super::congestion::rate::Snapshot;
use super::packet::{FIRST_SEQ, HEADER, expand, flag};
use super::ranges::RangeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    InFlight,
    /// Given up on; waits to be sent again.
    Lost,
    /// The peer reported it out of order.
    Sacked,
    /// It has a number and was never sent, see [`super::challenge`].
    Withheld,
}

/// One numbered packet.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where its payload lies in the stream.
    pub offset: u64,
    pub len: u32,
    pub flags: u8,
    pub state: State,
    /// How often it was sent, how often of these after a timeout.
    pub transmissions: u8,
    pub timeouts: u8,
    /// Carries padding of the path-MTU search, at its first transmission only.
    pub probe: bool,
    /// Ordinal of the last transmission, over all packets of the stream; 0 before the first.
    pub xmit: u64,
    /// The ordinal of the transmission before that; 0 if there was none.
    pub earlier: u64,
    /// Time of the last transmission.
    pub time: u64,
    pub at_send: Snapshot,
}

impl Sent {
    /// Bytes it counts for in flight: its datagram without padding.
    pub fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.len)
    }
}

#[derive(Debug)]
pub struct SentPackets {
    packets: VecDeque<Sent>,
    una: u64,
    in_flight: u64,
    xmits: u64,
    /// (number, ordinal of the transmission), oldest transmission first; may hold outdated entries.
    order: VecDeque<(u64, u64)>,
    lost: BTreeSet<u64>,
    sacked: RangeSet,
}

impl SentPackets {
    /// `first` is the wire number of the first packet.
    pub fn new(first: u32) -> Self {
        Self {
            packets: VecDeque::new(),
            una: FIRST_SEQ + u64::from(first),
            in_flight: 0,
            xmits: 0,
            order: VecDeque::new(),
            lost: BTreeSet::new(),
            sacked: RangeSet::default(),
        }
    }

    /// The oldest number not acknowledged.
    pub fn una(&self) -> u64 {
        self.una
    }

    /// The next number to be used.
    pub fn next(&self) -> u64 {
        self.una + self.packets.len() as u64
    }

    pub fn expand(&self, wire: u32) -> u64 {
        expand(wire, self.una)
    }

    /// Everything sent is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes of the packets in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Some packets were reported out of order.
    pub fn has_sacked(&self) -> bool {
        !self.sacked.is_empty()
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.una)?).ok()
    }

    pub fn get(&self, seq: u64) -> Option<&Sent> {
        self.packets.get(self.index(seq)?)
    }

    /// Offset of the oldest byte that is not acknowledged in order.
    pub fn front_offset(&self) -> Option<u64> {
        self.packets.front().map(|packet| packet.offset)
    }

    pub fn front_mut(&mut self) -> Option<&mut Sent> {
        self.packets.front_mut()
    }

    /// Numbers a new packet and counts it as sent.
    pub fn push(
        &mut self,
        offset: u64,
        len: usize,
        flags: u8,
        probe: bool,
        now: u64,
        at_send: Snapshot,
    ) -> u64 {
        let seq = self.next();
        self.xmits += 1;
        let sent = Sent {
            offset,
            len: len as u32,
            flags,
            state: State::InFlight,
            transmissions: 1,
            timeouts: 0,
            probe,
            xmit: self.xmits,
            earlier: 0,
            time: now,
            at_send,
        };
        self.in_flight += sent.size();
        self.packets.push_back(sent);
        self.order.push_back((seq, self.xmits));
        seq
    }

    /// Numbers a packet of one byte that waits to be sent, or is withheld.
    pub fn push_byte(&mut self, offset: u64, waits: bool, now: u64) {
        let seq = self.next();
        if waits {
            self.lost.insert(seq);
        }
        self.packets.push_back(Sent {
            offset,
            len: 1,
            flags: flag::DATA,
            state: if waits { State::Lost } else { State::Withheld },
            // One that was withheld comes out of order, which tells nothing about the path.
            transmissions: u8::from(!waits),
            timeouts: 0,
            probe: false,
            xmit: 0,
            earlier: 0,
            time: now,
            at_send: Snapshot::default(),
        });
    }

    /// A packet that was withheld waits to be sent now.
    pub fn release(&mut self, seq: u64) {
        let Some(i) = self.index(seq) else { return };
        if let Some(packet) = self.packets.get_mut(i).filter(|p| p.state == State::Withheld) {
            packet.state = State::Lost;
            // That none was answered before is not for this one to tell.
            packet.timeouts = 0;
            self.lost.insert(seq);
        }
    }

    /// That none was answered before tells nothing any more.
    pub fn forgive(&mut self) {
        self.packets.iter_mut().for_each(|packet| packet.timeouts = 0);
    }

    /// No packet on the way measures a round trip.
    pub fn measure_nothing(&mut self) {
        self.packets
            .iter_mut()
            .for_each(|packet| packet.transmissions = packet.transmissions.max(2));
    }

    /// Whether the peer has reported a packet.
    pub fn is_delivered(&self, seq: u64) -> bool {
        seq < self.una || self.get(seq).is_some_and(|packet| packet.state == State::Sacked)
    }

    /// Counts a packet as sent once more.
    pub fn resend(&mut self, seq: u64, now: u64, at_send: Snapshot) {
        let Some(i) = self.index(seq) else { return };
        let Some(packet) = self.packets.get_mut(i) else { return };
        self.xmits += 1;
        if packet.state == State::Lost {
            self.lost.remove(&seq);
            self.in_flight += packet.size();
        }
        packet.state = State::InFlight;
        packet.transmissions = packet.transmissions.saturating_add(1);
        packet.probe = false;
        packet.earlier = packet.xmit;
        packet.xmit = self.xmits;
        packet.time = now;
        packet.at_send = at_send;
        self.order.push_back((seq, self.xmits));
    }

    /// The lowest packet that waits to be sent again.
    pub fn first_lost(&self) -> Option<u64> {
        self.lost.first().copied()
    }

    /// The lowest of these that waits to be sent again.
    pub fn first_lost_of(&self, numbers: std::ops::Range<u64>) -> Option<u64> {
        self.lost.range(numbers).next().copied()
    }

    /// Whether the oldest packet that is not acknowledged is on its way.
    pub fn is_first_in_flight(&self) -> bool {
        self.packets.front().is_some_and(|packet| packet.state == State::InFlight)
    }

    /// The newest packet that is in flight.
    pub fn last_in_flight(&self) -> Option<u64> {
        let i = self.packets.iter().rposition(|packet| packet.state == State::InFlight)?;
        Some(self.una + i as u64)
    }

    /// Gives a packet in flight up; returns it.
    pub fn mark_lost(&mut self, seq: u64) -> Option<&Sent> {
        let i = self.index(seq)?;
        let packet = self.packets.get_mut(i).filter(|packet| packet.state == State::InFlight)?;
        packet.state = State::Lost;
        self.in_flight -= packet.size();
        self.lost.insert(seq);
        Some(packet)
    }

    /// The packet in flight that was sent the longest ago, by its last transmission.
    pub fn oldest_in_flight(&mut self) -> Option<(u64, &Sent)> {
        while let Some(&(seq, xmit)) = self.order.front() {
            let current =
                self.get(seq).is_some_and(|p| p.xmit == xmit && p.state == State::InFlight);
            if current {
                return self.get(seq).map(|packet| (seq, packet));
            }
            self.order.pop_front();
        }
        None
    }

    /// Numbers of the packets in flight for which `test` holds.
    pub fn in_flight_where(&self, test: impl Fn(&Sent) -> bool) -> Vec<u64> {
        let hits = self.packets.iter().zip(self.una..);
        hits.filter(|(packet, _)| packet.state == State::InFlight && test(packet))
            .map(|(_, seq)| seq)
            .collect()
    }

    /// Takes everything below `ack`; calls `delivered` for each packet that was not SACKed before.
    /// Returns the offset up to which the stream is acknowledged. `ack` must lie within una..=next.
    pub fn acknowledge(&mut self, ack: u64, mut delivered: impl FnMut(u64, &Sent)) -> Option<u64> {
        let mut offset = None;
        while self.una < ack
            && let Some(packet) = self.packets.pop_front()
        {
            let seq = self.una;
            self.una += 1;
            offset = Some(packet.offset + u64::from(packet.len));
            self.leave(seq, packet.state, packet.size());
            if packet.state != State::Sacked {
                delivered(seq, &packet);
            }
        }
        if !self.sacked.is_empty() {
            self.sacked.remove_below(self.una);
        }
        if self.packets.is_empty() {
            self.order.clear();
        }
        offset
    }

    /// Takes a SACK block; calls `delivered` for each packet not reported before.
    pub fn sack(&mut self, start: u64, end: u64, mut delivered: impl FnMut(u64, &Sent)) {
        if start < self.una || end > self.next() || start >= end {
            return;
        }
        let mut at = start;
        while let Some((from, to)) = self.sacked.first_missing(at, end) {
            for seq in from..to {
                let Some(i) = self.index(seq) else { continue };
                let Some(packet) = self.packets.get_mut(i) else { continue };
                let was = std::mem::replace(&mut packet.state, State::Sacked);
                let before = Sent { state: was, ..packet.clone() };
                self.leave(seq, was, before.size());
                delivered(seq, &before);
            }
            at = to;
        }
        self.sacked.insert(start, end);
    }

    /// Bookkeeping for a packet that is no longer in flight or waiting.
    fn leave(&mut self, seq: u64, was: State, size: u64) {
        match was {
            State::InFlight => self.in_flight -= size,
            State::Lost => {
                self.lost.remove(&seq);
            }
            State::Sacked | State::Withheld => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_packets(n: u64) -> SentPackets {
        let mut sent = SentPackets::new(0);
        for i in 0..n {
            sent.push(i * 10, 10, 1, false, i, Snapshot::default());
        }
        sent
    }

    proptest! {
        #[test]
        fn each_packet_is_delivered_once_and_flight_adds_up(
            ops in proptest::collection::vec((0u8..4, 0u64..40, 0u64..12), 0..120),
        ) {
            let mut sent = with_packets(40);
            let mut seen = BTreeSet::new();
            for (op, a, n) in ops {
                let seq = FIRST_SEQ + a;
                let mut twice = false;
                match op {
                    0 => {
                        let ack = (sent.una() + n / 4).min(sent.next());
                        sent.acknowledge(ack, |seq, _| twice |= !seen.insert(seq));
                    }
                    1 => sent.sack(seq, seq + n, |seq, _| twice |= !seen.insert(seq)),
                    2 => {
                        sent.mark_lost(seq);
                    }
                    _ => {
                        if let Some(lost) = sent.first_lost() {
                            sent.resend(lost, 50, Snapshot::default());
                        }
                    }
                }
                prop_assert!(!twice);
                let flight: u64 = sent.packets.iter().filter(|p| p.state == State::InFlight).map(Sent::size).sum();
                prop_assert_eq!(sent.in_flight(), flight);
                let lost = sent.packets.iter().filter(|p| p.state == State::Lost).count();
                prop_assert_eq!(sent.lost.len(), lost);
            }
        }
    }

    #[test]
    fn a_packet_that_was_withheld_measures_no_round_trip_and_has_not_timed_out() {
        let mut sent = SentPackets::new(0);
        sent.push_byte(0, false, 5);
        sent.push_byte(1, true, 5);
        sent.front_mut().unwrap().timeouts = 3;
        sent.release(FIRST_SEQ);
        for (seq, transmissions) in [(FIRST_SEQ, 2), (FIRST_SEQ + 1, 1)] {
            sent.resend(seq, 9, Snapshot::default());
            let packet = sent.get(seq).unwrap();
            assert_eq!((packet.transmissions, packet.timeouts), (transmissions, 0));
        }
    }

    #[test]
    fn the_oldest_transmission_comes_first() {
        let mut sent = with_packets(3);
        sent.mark_lost(FIRST_SEQ);
        sent.resend(FIRST_SEQ, 9, Snapshot::default());
        assert_eq!(sent.oldest_in_flight().map(|(seq, _)| seq), Some(FIRST_SEQ + 1));
        sent.sack(FIRST_SEQ + 1, FIRST_SEQ + 3, |_, _| {});
        assert_eq!(sent.oldest_in_flight().map(|(seq, p)| (seq, p.time)), Some((FIRST_SEQ, 9)));
    }

    #[test]
    fn bogus_blocks_are_ignored() {
        let mut sent = with_packets(3);
        for (start, end) in [
            (FIRST_SEQ - 1, FIRST_SEQ + 1),
            (FIRST_SEQ + 2, FIRST_SEQ + 9),
            (FIRST_SEQ + 2, FIRST_SEQ + 1),
        ] {
            sent.sack(start, end, |_, _| panic!("delivered"));
        }
        assert_eq!(sent.in_flight(), 90);
    }
}
