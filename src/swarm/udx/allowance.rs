//! What may be sent to an address that has not shown that our peer is there, and what the peer is asked there.
//!
//! Where a stream goes is often told by third parties, and the source of a datagram can be forged, also that of one with
//! the right keys. Until the peer has answered a [`Challenge`] (`challenge.rs` puts it), only a few first bytes go out,
//! and three times what came from there: whoever names a victim's address makes us send it hardly more than he could
//! have sent himself. QUIC has the same rule (RFC 9000 §8.1).

use super::packet::HEADER;
use super::recv::MAX_WINDOW;
use rand::Rng;
use rand::seq::index;

/// Bytes that may be sent for each one received.
const FACTOR: u64 = 3;

/// Questions in a row for leave to send more that may stay without any packet of the peer, timeouts before it came to
/// that included: 13 s, as long as data may be without an answer.
pub(super) const MAX_SILENT: u8 = 7;

/// What heartbeats, and a farewell, may exceed the allowance by once the peer is known. An outage may use up all of both
/// sides, and nobody would ever speak again. Each answer is worth three of them; without one the stream ends before they
/// are used up.
const TRICKLE: u64 = (MAX_SILENT as u64 + 2) * HEADER as u64;

/// Packets of a challenge, and how many of them are sent: 2.7 million choices, 1.8 of which every peer reports.
pub(super) const NUMBERS: usize = 24;
pub(super) const SENT: usize = NUMBERS / 2;

/// What may be sent until the answer of a peer that is asked again: two windows of congestion as they were when the peer was last proven, for
/// what was acknowledged since may have been acknowledged by anybody, and at its start a window doubles each round trip.
/// At least so much, and at most what is ever in flight.
const LEAST: u64 = 128 << 10;
const MOST: u64 = MAX_WINDOW as u64;

/// A part of it more is kept for what gets lost, the question above all.
const KEPT: u64 = 4;

/// The account of one unproven path, bytes of UDP payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    first: u64,
    sent: u64,
    received: u64,
    /// What heartbeats may exceed it by.
    trickle: u64,
    /// It is to be asked at the next opportunity, though more might be sent before.
    pub(super) due: bool,
    /// What the peer was asked, and the number of its first packet.
    pub(super) asked: Option<(Challenge, u64)>,
}

impl Allowance {
    /// `first` bytes may be sent before anything comes.
    pub(super) fn new(first: u64) -> Self {
        Self { first, sent: 0, received: 0, trickle: TRICKLE, due: false, asked: None }
    }

    /// That of an address that is tried for a moment, with another one to fall back on: nothing goes beyond it.
    pub(super) fn of_trial(self, first: u64) -> Self {
        Self { first, trickle: 0, due: false, asked: None, ..self }
    }

    /// There is no other address any more.
    pub(super) fn for_good(self) -> Self {
        Self { trickle: TRICKLE, ..self }
    }

    /// Bytes that may be sent now.
    pub(super) fn left(&self) -> u64 {
        self.first.saturating_add(FACTOR.saturating_mul(self.received)).saturating_sub(self.sent)
    }

    /// Whether one more heartbeat may go to a peer that is known.
    pub(super) fn may_ask(&self) -> bool {
        let most = self.first.saturating_add(FACTOR.saturating_mul(self.received));
        self.sent + HEADER as u64 <= most.saturating_add(self.trickle)
    }

    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Something came from the very address that we send to.
    pub(super) fn on_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// That of a peer who turned out to be elsewhere: nothing goes there before something comes.
    pub(super) fn elsewhere(self) -> Self {
        Self { due: self.due, ..Self::new(0) }
    }

    /// Whether anything came from there.
    pub(super) fn is_answered(&self) -> bool {
        self.received > 0
    }
}

/// When the peer is asked again, by bytes of data that were sent: from when on, if so much waits that nobody notices the
/// delay; and when, however little waits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Again {
    pub(super) from: u64,
    pub(super) by: u64,
    /// The window of congestion when it was last proven.
    pub(super) window: u64,
    /// The bytes of data that had been sent when the peer last offered all the room there is.
    pub(super) roomy: Option<u64>,
}

impl Again {
    /// What may go beside the question, and what is kept for losses besides.
    pub(super) fn allowance(&self) -> (u64, u64) {
        let beside = self.window.saturating_mul(2).clamp(LEAST, MOST);
        (beside, beside / KEPT)
    }
}

/// What the peer is asked: which of the packets are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenge {
    sent: u32,
}

impl Challenge {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        loop {
            let sent = index::sample(rng, NUMBERS, SENT).into_iter().fold(0, |all, i| all | 1 << i);
            if is_reported(sent) {
                return Self { sent };
            }
        }
    }

    /// The numbers from the first on, and whether each is sent.
    pub(super) fn numbers(self, first: u64) -> impl Iterator<Item = (u64, bool)> {
        (first..).take(NUMBERS).zip(0..).map(move |(seq, i)| (seq, self.sent >> i & 1 == 1))
    }
}

/// Whether every peer reports all of this: past the first gap, fewer numbers are missing below the last packet than
/// packets are held.
fn is_reported(sent: u32) -> bool {
    let (first, last) =
        (sent.trailing_ones(), NUMBERS as u32 - (sent << (32 - NUMBERS)).leading_zeros());
    let held = sent.count_ones() - first;
    // The first gap is where the acknowledgement stands, which is not counted.
    let missing = last.saturating_sub(first + 1 + held);
    missing < held
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// How many packets a peer reports in the end. It looks at the numbers from the acknowledgement on until it has counted
    /// as many as it holds: those that it holds, or those that are missing (`send_ack` of libudx in udx-native 1.20.0
    /// to 1.21.2).
    fn reported(sent: &[bool], counts: bool) -> usize {
        let ack = sent.iter().take_while(|sent| **sent).count();
        let mut left = sent[ack..].iter().filter(|sent| **sent).count();
        let mut seen = ack;
        for at in ack + 1.. {
            if left == 0 {
                break;
            }
            let held = sent.get(at).copied().unwrap_or(false);
            seen += usize::from(held);
            left -= usize::from(held == counts);
        }
        seen
    }

    #[test]
    fn every_peer_reports_all_that_is_asked() {
        for seed in 0..3000 {
            let challenge = Challenge::new(&mut StdRng::seed_from_u64(seed));
            let sent: Vec<bool> = challenge.numbers(1000).map(|(_, sent)| sent).collect();
            for counts in [true, false] {
                assert_eq!(reported(&sent, counts), SENT, "{sent:?}");
            }
        }
        let all = 0..1u32 << NUMBERS;
        let choices = all.filter(|sent| sent.count_ones() as usize == SENT && is_reported(*sent));
        assert!(choices.count() > 1 << 20);
    }
}
