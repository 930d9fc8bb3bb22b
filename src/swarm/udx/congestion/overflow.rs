//! A limit by losses that come with a full queue.
//!
//! BBR takes no loss for a sign of congestion, and keeps up to two pipes in flight. Where the bottleneck's queue is
//! shorter than that and others share it, the queue is full of us for good, and a TCP connection, which gives way at
//! each loss, gets nothing. A loss alone says little: a bad radio link loses packets at random. So two rates are
//! compared: what is lost while the round trip is the path's own, and what is lost while it is longer, because a queue
//! stands. Where a standing queue loses more than an empty one it overflows, and be it a single packet: where two
//! senders fill a queue bit by bit, that is all that an overflow costs each, and TCP gives way to it. After such a round
//! the window comes down to a share of what was in flight, as TCP's does, and comes back as slowly; where the queue has
//! gone (the neighbour left) it comes back faster and faster.

use super::RateSample;

/// Share of a round that must be lost with a standing queue before the window comes down: 1/200; in Startup, where little
/// is known of the path yet, 1/25 and more packets than that.
const LOSS_SHARE: u64 = 200;
const STARTUP_LOSS_SHARE: u64 = 25;
const STARTUP_LEAST_LOSS: f64 = 2.0;
/// How many times more than an empty queue a standing one must lose, and how many standard deviations above that.
const EXCESS: f64 = 1.5;
const DEVIATIONS: f64 = 3.0;
/// Bytes after which what an empty queue lost counts half.
const MEMORY: u64 = 4 << 20;
/// What is left of the window after such a round.
const KEEP: f64 = 0.7;
/// Packets by which it grows each round afterwards. To this share belongs this growth (RFC 9438, 4.3); with more we take
/// back what a neighbour has given up before it can.
const GROWTH: f64 = 0.53;
/// The queue stands while a round trip is longer than the shortest by an eighth of it, within these bounds, microseconds.
const STANDING: std::ops::RangeInclusive<u64> = 2_000..=10_000;
/// Rounds with an empty queue after which the window grows faster than that, since a TCP connection takes so long to come
/// back; and the rounds after which it grows twice as fast again.
const PATIENCE_ROUNDS: u32 = 12;
const HASTE_ROUNDS: u32 = 3;
const MAX_HASTE: u32 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    lost: u64,
    delivered: u64,
}

/// How much may be in flight before the bottleneck's queue overflows.
#[derive(Debug)]
pub(super) struct Overflow {
    bytes: u64,
    /// The last round came down: what is lost in this one left before that.
    came_down: bool,
    /// Rounds with an empty queue, one after the other.
    calm: u32,
    /// With an empty queue, lately.
    empty: Tally,
    /// Since the start of the round.
    round: Tally,
    most_in_flight: u64,
    /// A queue stood at some time of the round.
    stood: bool,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            came_down: false,
            calm: 0,
            empty: Tally::default(),
            round: Tally::default(),
            most_in_flight: 0,
            stood: false,
        }
    }
}

impl Overflow {
    /// Takes note of what was acknowledged and lost on a path with this shortest round trip.
    pub(super) fn note(&mut self, sample: &RateSample, min_rtt: u64) {
        let stands =
            min_rtt.saturating_add((min_rtt / 8).clamp(*STANDING.start(), *STANDING.end()));
        self.stood |= sample.rtt.is_some_and(|rtt| rtt > stands);
        self.most_in_flight = self.most_in_flight.max(sample.prior_in_flight);
        self.round.lost += sample.lost;
        self.round.delivered += sample.acked;
    }

    /// Ends a round. `least` = what may always be in flight, `packet` = bytes of a full datagram.
    pub(super) fn end_round(&mut self, startup: bool, least: u64, packet: u64) {
        let round = std::mem::take(&mut self.round);
        let most = std::mem::take(&mut self.most_in_flight);
        let came_down = std::mem::take(&mut self.came_down);
        if !std::mem::take(&mut self.stood) {
            self.empty.lost += round.lost;
            self.empty.delivered += round.delivered;
            if self.empty.delivered > MEMORY {
                self.empty =
                    Tally { lost: self.empty.lost / 2, delivered: self.empty.delivered / 2 };
            }
            self.calm += 1;
        } else {
            self.calm = 0;
            if !came_down && self.is_overflow(round, startup, packet) {
                self.came_down = true;
                self.bytes = ((self.bytes.min(most) as f64 * KEEP) as u64).max(least);
                return;
            }
        }
        if self.bytes != u64::MAX && most >= self.bytes / 4 * 3 {
            let haste =
                self.calm.saturating_sub(PATIENCE_ROUNDS).div_ceil(HASTE_ROUNDS).min(MAX_HASTE);
            let more = if haste == 0 { (packet as f64 * GROWTH) as u64 } else { packet << haste };
            self.bytes = self.bytes.saturating_add(more);
        }
    }

    fn is_overflow(&self, round: Tally, startup: bool, packet: u64) -> bool {
        let (share, least) =
            if startup { (STARTUP_LOSS_SHARE, STARTUP_LEAST_LOSS) } else { (LOSS_SHARE, 0.0) };
        let packets = |bytes: u64| bytes as f64 / packet as f64;
        let rate = self.empty.lost as f64 / self.empty.delivered.max(1) as f64;
        let usual = rate * packets(round.delivered) * EXCESS;
        round.lost * share > round.delivered
            && packets(round.lost) > usual + DEVIATIONS * usual.sqrt() + least
    }

    /// Bytes that may be in flight.
    pub(super) fn limit(&self) -> u64 {
        self.bytes
    }
}
