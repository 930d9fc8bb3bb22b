//! A neighbour that gives way.
//!
//! Where a queue overflows of a packet or two, one stream loses them and the others nothing; whoever loses gives way, and
//! that is mostly the same: a TCP connection sends in bursts, and of a small stream a packet is a larger share. So all give
//! way together: when a queue that was nearly full drains, somebody has come down, and so do we. All that share a queue see
//! the same of it at the same time, however much or little of it is theirs. The drain may be that of our own cycle: the
//! others cannot know, and if they came down and we did not they would have nothing in the end.
//!
//! A queue that holds about as much as the pipe, or more, is left alone: there the window of twice the pipe keeps us short, and TCP has more.

use super::overflow::Round;

/// Part of the full queue from which on it is nearly full, and by which it must drain.
const NEAR: f64 = 0.75;
const FALL: f64 = 0.25;
/// A full queue below this is not told from jitter, microseconds.
const LEAST: f64 = 6_000.0;
/// Part of the shortest round trip from which on a full queue counts as deep.
const DEEP: f64 = 0.5;
/// Rounds after which what was the fullest counts for nothing.
const FADE_ROUNDS: f64 = 1024.0;

#[derive(Debug, Default)]
pub(super) struct Neighbour {
    /// How long the queue takes when it is full, on average over a round, microseconds; 0 before it overflowed.
    full: f64,
    /// Of the last rounds: how long the queue took, and what was in flight.
    last: [(f64, f64); 3],
}

impl Neighbour {
    /// Takes note of a round; tells whether somebody gave way in it. `crowded` = there is somebody, for sure: until then a
    /// fall that our own may explain is none.
    pub(super) fn note(
        &mut self,
        round: &Round,
        min_rtt: u64,
        overflows: bool,
        crowded: bool,
    ) -> bool {
        if round.weight == 0.0 {
            return false;
        }
        let shortest = min_rtt as f64;
        let queue = (round.rtts / round.weight - shortest).max(0.0);
        let in_flight = round.in_flights / round.weight;
        let fullest = self.last.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0));
        let (before, was_in_flight) = fullest.unwrap_or_default();
        let faded = 1.0 - 1.0 / FADE_ROUNDS;
        if overflows || self.full > 0.0 {
            self.full = queue.max(self.full * faded);
        }
        self.last.rotate_left(1);
        self.last[2] = (queue, in_flight);
        if self.full < LEAST || self.full > DEEP * shortest {
            return false;
        }
        let ours = (was_in_flight - in_flight).max(0.0) / in_flight.max(1.0) * (shortest + before);
        let theirs = before - queue - if crowded { 0.0 } else { ours };
        let gave_way = before > self.full * NEAR && theirs > self.full * FALL;
        if gave_way || overflows {
            self.last = [(queue, in_flight); 3];
        }
        gave_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN_RTT: u64 = 50_000;

    /// Whether somebody gave way when the queue goes from `before` to `after` milliseconds, and so much of what was in flight
    /// with it, after an overflow at 20.
    fn gave_way(before: u64, after: u64, in_flight: f64, crowded: bool) -> bool {
        let mut neighbour = Neighbour::default();
        let round = |queue: u64, in_flight| {
            let mut round = Round::default();
            round.rtts = (MIN_RTT + queue * 1000) as f64;
            (round.in_flights, round.weight) = (in_flight, 1.0);
            round
        };
        neighbour.note(&round(20, 1.0), MIN_RTT, true, crowded);
        for _ in 0..8 {
            neighbour.note(&round(before, 1.0), MIN_RTT, false, crowded);
        }
        neighbour.note(&round(after, in_flight), MIN_RTT, false, crowded)
    }

    #[test]
    fn who_gives_way_shows_by_a_full_queue_that_drains() {
        assert!(gave_way(18, 10, 1.0, false));
        assert!(!gave_way(18, 15, 1.0, false) && !gave_way(12, 4, 1.0, false));
        // What is our own doing counts where others are that see the same.
        assert!(!gave_way(18, 10, 0.8, false) && gave_way(18, 10, 0.8, true));
    }
}
