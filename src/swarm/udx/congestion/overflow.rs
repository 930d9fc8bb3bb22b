//! A limit by losses that come with a full queue.
//!
//! BBR takes no loss for a sign of congestion, and keeps up to two pipes in flight. Where the bottleneck's queue is
//! shorter than that and others share it, the queue is full of us for good, and a TCP connection, which gives way at
//! each loss, gets nothing. A loss alone says little: a bad radio link loses packets at random. So two rates are
//! compared: what is lost while the round trip is short, and what is lost while it is long, because a queue stands.
//! Where long round trips lose more than short ones the queue overflows, and be it a single packet: where two senders
//! fill a queue bit by bit, that is all that an overflow costs each, and TCP gives way to it. After such a round the
//! window comes down to a share of what was in flight, as TCP's does, and comes back as slowly; where the queue has gone
//! (the neighbour left) it comes back faster and faster.
//!
//! "Long" means longer than usual on this path, not only than the shortest ever: on a path that jitters nearly all are
//! that, and its random losses would look like those of a queue.

use super::RateSample;

/// Share of a round that must be lost with a standing queue before the window comes down: 1/200; in Startup, where little
/// is known of the path yet, 1/25 and more packets than that.
const LOSS_SHARE: u64 = 200;
const STARTUP_LOSS_SHARE: u64 = 25;
const STARTUP_LEAST_LOSS: f64 = 2.0;
/// There a quarter of what comes through and more packets than this are an overflow whatever the round trips say.
const STARTUP_FLOOD: u64 = 4;
const STARTUP_FLOOD_LOSS: u64 = 8;
/// How many times more must be lost while round trips are long than while they are short, and how many standard deviations
/// above that; and this many packets where short ones lose some too: there a packet more is chance in one round of hundreds.
const EXCESS: f64 = 1.5;
const DEVIATIONS: f64 = 3.0;
const CHANCE: f64 = 2.0;
/// Bytes after which what was lost at short round trips counts half.
const MEMORY: u64 = 4 << 20;
/// What is left of the window after such a round.
const KEEP: f64 = 0.7;
/// Packets by which it grows each round afterwards. To this share belongs this growth (RFC 9438, 4.3); with more we take
/// back what a neighbour has given up before it can.
const GROWTH: f64 = 0.53;
/// The queue stands while a round trip is longer than the shortest by an eighth of it, within these bounds, microseconds.
const STANDING: std::ops::RangeInclusive<u64> = 2_000..=10_000;
/// Rounds over which the usual round trip is an average, and over which the shortest round of late is forgotten: more than
/// a TCP connection needs from one loss to the next, else what its queue adds would become usual.
const USUAL_ROUNDS: f64 = 32.0;
const SHORTEST_ROUNDS: f64 = 64.0;
/// Rounds with an empty queue after which the window grows faster than that, since a TCP connection takes so long to come
/// back; and the rounds after which it grows twice as fast again. Rounds that are merely as short as any of late count as a
/// quarter: a path that jitters has no others, but a neighbour that has just come down looks the same.
const PATIENCE_ROUNDS: u32 = 12;
const STEADY_SHARE: u32 = 4;
/// In place of the patience while only Startup overshot: nobody else is known to be there.
const ALONE_ROUNDS: u32 = 2;
/// The part by which the window then grows each round, until it overflows again: who starts beside somebody that keeps a
/// queue sees no empty one, and would stay below its share for half a minute.
const START_GROWTH: u64 = 32;
const HASTE_ROUNDS: u32 = 3;
const MAX_HASTE: u32 = 10;

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    lost: u64,
    delivered: u64,
}

/// What is seen in one round.
#[derive(Debug, Default)]
struct Round {
    /// While round trips were long.
    long: Tally,
    most_in_flight: u64,
    lost: u64,
    delivered: u64,
    /// A queue stood at some time.
    stood: bool,
    /// Sum of round trips, each times the bytes that it stands for; and those bytes.
    rtts: f64,
    weight: f64,
}

/// How much may be in flight before the bottleneck's queue overflows.
#[derive(Debug)]
pub(super) struct Overflow {
    bytes: u64,
    /// The last round came down: what is lost in this one left before that.
    came_down: bool,
    /// Rounds since.
    since: u32,
    /// It overflowed of more than what Startup overshot by: somebody else is there.
    crowded: bool,
    /// Rounds with an empty queue, and rounds as short as any of late, one after the other.
    empty: u32,
    steady: u32,
    /// Average round trip, and that of the shortest round of late, microseconds; 0 before the first.
    usual: f64,
    shortest: f64,
    /// The last round trip shows a queue; and was longer than usual.
    stands: bool,
    is_long: bool,
    /// While round trips were short, lately.
    short: Tally,
    round: Round,
}

impl Default for Overflow {
    fn default() -> Self {
        Self {
            bytes: u64::MAX,
            came_down: false,
            since: 0,
            crowded: false,
            empty: 0,
            steady: 0,
            usual: 0.0,
            shortest: 0.0,
            stands: false,
            is_long: false,
            short: Tally::default(),
            round: Round::default(),
        }
    }
}

/// What a round trip takes at least, microseconds, when a queue stands on a path with this shortest one.
fn standing(shortest: u64) -> u64 {
    shortest.saturating_add((shortest / 8).clamp(*STANDING.start(), *STANDING.end()))
}

impl Overflow {
    /// Takes note of what was acknowledged and lost on a path with this shortest round trip.
    pub(super) fn note(&mut self, sample: &RateSample, min_rtt: u64) {
        let round = &mut self.round;
        if let Some(rtt) = sample.rtt {
            self.stands = rtt > standing(min_rtt);
            self.is_long = self.stands && rtt as f64 >= self.usual;
            round.stood |= self.stands;
            round.rtts += rtt as f64 * sample.acked as f64;
            round.weight += sample.acked as f64;
        }
        round.lost += sample.lost;
        round.delivered += sample.acked;
        round.most_in_flight = round.most_in_flight.max(sample.prior_in_flight);
        let tally = if self.is_long { &mut round.long } else { &mut self.short };
        tally.lost += sample.lost;
        tally.delivered += sample.acked;
    }

    /// Whether a start has lost so much that there is nothing to compare: beside somebody that keeps a queue full no round
    /// trip of it is longer than others.
    fn is_flood(round: &Round, packet: u64) -> bool {
        round.lost > STARTUP_FLOOD_LOSS * packet && round.lost * STARTUP_FLOOD > round.delivered
    }

    /// Ends a round; tells whether the queue overflowed in it. `least` = what may always be in flight, `packet` = bytes of a
    /// full datagram.
    pub(super) fn end_round(&mut self, startup: bool, least: u64, packet: u64) -> bool {
        let round = std::mem::take(&mut self.round);
        let came_down = std::mem::take(&mut self.came_down);
        if self.short.delivered > MEMORY {
            self.short = Tally { lost: self.short.lost / 2, delivered: self.short.delivered / 2 };
        }
        self.compare(&round);
        self.since = self.since.saturating_add(1);
        let floods = startup && Self::is_flood(&round, packet);
        if !came_down && (floods || self.is_overflow(round.long, startup, packet)) {
            (self.came_down, self.since) = (true, 0);
            self.crowded |= !startup;
            let mut most = self.bytes.min(round.most_in_flight);
            if startup {
                // Until it is noticed a start sends several times what path and queue hold. That is what came through.
                most = most.min(round.delivered);
            }
            self.bytes = ((most as f64 * KEEP) as u64).max(least);
        } else if self.bytes != u64::MAX && round.most_in_flight >= self.bytes / 4 * 3 {
            self.bytes = self.bytes.saturating_add(self.growth(packet));
        }
        if startup && (came_down || self.came_down) {
            // What it overshot by is no chance, at whatever round trips it is found.
            self.short = Tally::default();
        }
        self.came_down
    }

    /// Bytes by which the window grows in a round.
    fn growth(&self, packet: u64) -> u64 {
        let calm = self.empty.max(self.steady / STEADY_SHARE);
        let patience = if self.crowded { PATIENCE_ROUNDS } else { ALONE_ROUNDS };
        let haste = calm.saturating_sub(patience).div_ceil(HASTE_ROUNDS).min(MAX_HASTE);
        if haste > 0 {
            packet << haste
        } else if !self.crowded && self.since > ALONE_ROUNDS {
            self.bytes / START_GROWTH
        } else {
            (packet as f64 * GROWTH) as u64
        }
    }

    /// What the round trips of a round say: is the queue empty, is it as short as any, what is usual.
    fn compare(&mut self, round: &Round) {
        self.empty = if round.stood { 0 } else { self.empty + 1 };
        if round.weight == 0.0 {
            return;
        }
        let mean = round.rtts / round.weight;
        if self.usual == 0.0 {
            (self.usual, self.shortest) = (mean, mean);
        }
        self.usual += (mean - self.usual) / USUAL_ROUNDS;
        self.shortest = mean.min(self.shortest + (mean - self.shortest) / SHORTEST_ROUNDS);
        let steady = mean <= standing(self.shortest as u64) as f64;
        self.steady = if steady { self.steady + 1 } else { 0 };
    }

    fn is_overflow(&self, long: Tally, startup: bool, packet: u64) -> bool {
        let (share, least) =
            if startup { (STARTUP_LOSS_SHARE, STARTUP_LEAST_LOSS) } else { (LOSS_SHARE, 0.0) };
        let packets = |bytes: u64| bytes as f64 / packet as f64;
        let (lost, delivered) = (packets(self.short.lost), packets(self.short.delivered));
        let ratio = packets(long.delivered) / (delivered + 1.0) * EXCESS;
        // Half a packet more: of a path that lost none yet it is not known that it never does.
        let usual = (lost + 0.5) * ratio;
        // Both numbers are chance. Where a neighbour keeps a queue round trips are hardly ever short, and that none was lost
        // in so few of them says little.
        let deviation = (usual * (1.0 + ratio)).sqrt();
        let chance = DEVIATIONS * deviation + least.max(lost.min(CHANCE));
        long.lost * share > long.delivered && packets(long.lost) > usual + chance
    }

    /// Whether a queue stands.
    pub(super) fn stands(&self) -> bool {
        self.stands
    }

    /// Bytes that may be in flight.
    pub(super) fn limit(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of packets lost and delivered at short and at long round trips.
    fn is_overflow(short: (u64, u64), long: (u64, u64)) -> bool {
        let tally = |(lost, delivered)| Tally { lost: lost * 1000, delivered: delivered * 1000 };
        let overflow = Overflow { short: tally(short), ..Overflow::default() };
        overflow.is_overflow(tally(long), false, 1000)
    }

    #[test]
    fn that_few_short_round_trips_lost_nothing_says_little() {
        // A path that loses one per cent beside a neighbour who keeps a queue.
        for (short, long) in [((0, 160), (6, 314)), ((0, 110), (5, 199)), ((1, 556), (3, 75))] {
            assert!(!is_overflow(short, long), "{short:?} {long:?}");
        }
        for (short, long) in
            [((0, 2800), (1, 100)), ((15, 2045), (31, 835)), ((12, 1792), (28, 840))]
        {
            assert!(is_overflow(short, long), "{short:?} {long:?}");
        }
    }
}
