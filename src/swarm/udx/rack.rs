//! Loss detection by time (RACK, RFC 8985): a packet is lost if one sent later was delivered and it has
//! had the time to arrive, too.
//!
//! "Later" is the ordinal of the transmission, which is unambiguous where the packets of one burst share a
//! time. The tolerance for reordering starts at zero once losses are evident, is a quarter of the shortest round
//! trip on paths that reorder, and grows there while it proves too small. What is reported late because the peer had too much
//! to report teaches nothing: with a tolerance that came of it each loss would hold up a long path for a round trip more.

use super::rtt::Rtt;
use super::sent::{Sent, SentPackets};

/// Largest multiple of a quarter round trip that reordering may cost.
const MAX_FACTOR: u64 = 16;

/// Recoveries without need of it after which it is forgotten (RFC 8985, 6.2).
const PERSISTS: u8 = 16;

/// Numbers of SACKed packets from which on a gap means loss.
const DUP_THRESHOLD: u32 = 3;

#[derive(Debug)]
pub struct Rack {
    /// Newest transmission that was delivered: its ordinal, and how long it took.
    xmit: u64,
    rtt: u64,
    /// Highest packet number delivered.
    highest: u64,
    reordering: bool,
    factor: u64,
    /// Recoveries for which `factor` still counts.
    persists: u8,
    /// Of packets below this number it is not known when they came.
    hidden: u64,
    /// Packets delivered out of order since the last one in order.
    sacked: u32,
}

impl Default for Rack {
    fn default() -> Self {
        Self {
            xmit: 0,
            rtt: 0,
            highest: 0,
            reordering: false,
            factor: 1,
            persists: 0,
            hidden: 0,
            sacked: 0,
        }
    }
}

impl Rack {
    /// A packet was delivered: `sacked` if out of order.
    pub fn on_delivered(&mut self, seq: u64, packet: &Sent, sacked: bool, now: u64, min_rtt: u64) {
        use super::sent::State::Lost;
        let rtt = now.saturating_sub(packet.time);
        let repeated = packet.transmissions > 1;
        if sacked {
            self.sacked += 1;
        }
        let late = packet.state == Lost && !repeated || repeated && rtt < min_rtt / 2;
        if late && seq >= self.hidden {
            // It arrived although it was given up, or much too soon for the copy: it was only late.
            self.reordering = true;
            self.factor = (self.factor + 1).min(MAX_FACTOR);
            self.persists = PERSISTS;
        }
        if seq < self.highest && !repeated && seq >= self.hidden {
            self.reordering = true;
        }
        self.highest = self.highest.max(seq);
        if !repeated || rtt >= min_rtt {
            if packet.xmit > self.xmit {
                (self.xmit, self.rtt) = (packet.xmit, rtt);
            }
        } else {
            // Too soon for the copy: what was sent before it came, be it at no known time.
            self.xmit = self.xmit.max(packet.earlier);
        }
    }

    /// The peer had more to report than it could: what was sent below `next` may have come long before that is told.
    pub fn on_full_report(&mut self, next: u64) {
        self.hidden = next;
    }

    /// All is repaired.
    pub fn on_recovered(&mut self) {
        self.persists = self.persists.saturating_sub(1);
        if self.persists == 0 {
            self.factor = 1;
        }
    }

    /// No gaps are left.
    pub fn on_in_order(&mut self) {
        self.sacked = 0;
    }

    /// How long to wait for a late packet, microseconds.
    fn tolerance(&self, rtt: &Rtt, recovering: bool) -> u64 {
        if !self.reordering && (recovering || self.sacked >= DUP_THRESHOLD) {
            return 0;
        }
        (rtt.min() / 4 * self.factor).min(rtt.smoothed().unwrap_or(0))
    }

    /// Age at which a packet counts as lost when a timeout fires.
    pub fn age_limit(&self, rtt: &Rtt, recovering: bool) -> u64 {
        self.rtt + self.tolerance(rtt, recovering)
    }

    /// The next packet that is lost by now, or when to look again.
    pub fn next_lost(
        &self,
        sent: &mut SentPackets,
        rtt: &Rtt,
        recovering: bool,
        now: u64,
    ) -> Verdict {
        let limit = self.age_limit(rtt, recovering);
        match sent.oldest_in_flight() {
            Some((seq, packet)) if packet.xmit < self.xmit => {
                let due = packet.time + limit;
                if due <= now { Verdict::Lost(seq) } else { Verdict::At(due) }
            }
            _ => Verdict::None,
        }
    }
}

/// What loss detection says about the oldest packet in flight.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    None,
    Lost(u64),
    At(u64),
}

#[cfg(test)]
mod tests {
    use super::super::congestion::rate::Snapshot;
    use super::super::packet::FIRST_SEQ;
    use super::*;

    fn deliver(rack: &mut Rack, sent: &mut SentPackets, n: u64, now: u64) {
        sent.sack(FIRST_SEQ + n, FIRST_SEQ + n + 1, |seq, p| {
            rack.on_delivered(seq, p, true, now, 100)
        });
    }

    #[test]
    fn three_later_packets_prove_a_loss_and_one_does_not_yet() {
        let (mut rack, mut rtt, mut sent) = (Rack::default(), Rtt::default(), SentPackets::new(0));
        rtt.update(100, 0);
        for _ in 0..5 {
            sent.push(0, 10, 1, false, 1000, Snapshot::default());
        }
        deliver(&mut rack, &mut sent, 1, 1100);
        assert_eq!(rack.next_lost(&mut sent, &rtt, false, 1100), Verdict::At(1125));
        deliver(&mut rack, &mut sent, 2, 1100);
        deliver(&mut rack, &mut sent, 3, 1100);
        assert_eq!(rack.next_lost(&mut sent, &rtt, false, 1100), Verdict::Lost(FIRST_SEQ));
        sent.mark_lost(FIRST_SEQ);
        assert_eq!(rack.next_lost(&mut sent, &rtt, false, 1100), Verdict::None);
    }

    /// Each packet is sent twice before it can be acknowledged, as by somebody who asks again and again.
    #[test]
    fn what_is_acknowledged_too_soon_for_its_copy_proves_a_loss_too() {
        let (mut rack, mut rtt, mut sent) = (Rack::default(), Rtt::default(), SentPackets::new(0));
        rtt.update(100, 0);
        for n in 0..5 {
            sent.push(0, 10, 1, false, 1000, Snapshot::default());
            if n > 0 {
                sent.resend(FIRST_SEQ + n, 1060, Snapshot::default());
            }
        }
        (1..5).for_each(|n| deliver(&mut rack, &mut sent, n, 1105));
        assert_eq!(rack.next_lost(&mut sent, &rtt, true, 1105), Verdict::Lost(FIRST_SEQ));
    }

    #[test]
    fn a_late_packet_teaches_patience() {
        let (mut rack, mut rtt, mut sent) = (Rack::default(), Rtt::default(), SentPackets::new(0));
        rtt.update(100, 0);
        for _ in 0..8 {
            sent.push(0, 10, 1, false, 1000, Snapshot::default());
        }
        deliver(&mut rack, &mut sent, 1, 1100);
        deliver(&mut rack, &mut sent, 0, 1110);
        for n in 3..7 {
            deliver(&mut rack, &mut sent, n, 1120);
        }
        assert_eq!(rack.next_lost(&mut sent, &rtt, true, 1120), Verdict::At(1145));
    }

    /// Reports packets 1 to 7 of eight and then, once it was given up, the first.
    fn report_late(rack: &mut Rack, rtt: &Rtt, hidden: bool) -> SentPackets {
        let mut sent = SentPackets::new(0);
        for _ in 0..8 {
            sent.push(0, 10, 1, false, 1000, Snapshot::default());
        }
        (1..8).for_each(|n| deliver(rack, &mut sent, n, 1100));
        if hidden {
            rack.on_full_report(sent.next());
        }
        assert_eq!(rack.next_lost(&mut sent, rtt, true, 1100), Verdict::Lost(FIRST_SEQ));
        sent.mark_lost(FIRST_SEQ);
        deliver(rack, &mut sent, 0, 1110);
        sent
    }

    #[test]
    fn what_the_peer_had_no_place_to_report_was_not_late() {
        let mut rtt = Rtt::default();
        rtt.update(100, 0);
        for (hidden, limit) in [(true, 100), (false, 150)] {
            let mut rack = Rack::default();
            report_late(&mut rack, &rtt, hidden);
            assert_eq!(rack.age_limit(&rtt, true), limit, "{hidden}");
        }
    }

    #[test]
    fn much_patience_is_forgotten_after_recoveries_without_need() {
        let (mut rack, mut rtt) = (Rack::default(), Rtt::default());
        rtt.update(100, 0);
        report_late(&mut rack, &rtt, false);
        for _ in 0..PERSISTS - 1 {
            rack.on_recovered();
        }
        assert_eq!(rack.age_limit(&rtt, true), 150);
        rack.on_recovered();
        assert_eq!(rack.age_limit(&rtt, true), 125);
    }
}
