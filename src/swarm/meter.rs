//! How fast something goes just now: totals that only grow are noted once in a while, and compared with what they are.
//!
//! A meter has no timer. Its owner brings the totals whenever anything happens; while nothing does they stay as they are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Totals are kept so far apart at least. Over less time nothing is called a rate.
pub const EVERY: Duration = Duration::from_secs(1);

/// How far a rate looks back, and further where nothing was noted meanwhile.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Of `N` totals that grow side by side.
#[derive(Debug)]
pub struct Meter<const N: usize> {
    /// The oldest first; one of them is as old as the window, or older.
    noted: VecDeque<(Instant, [u64; N])>,
}

impl<const N: usize> Meter<N> {
    /// All totals are 0.
    pub fn new(now: Instant) -> Self {
        Self { noted: VecDeque::from([(now, [0; N])]) }
    }

    pub fn note(&mut self, totals: [u64; N], now: Instant) {
        while self.noted.get(1).is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.noted.pop_front();
        }
        if self.noted.back().is_none_or(|(at, _)| *at + EVERY <= now) {
            self.noted.push_back((now, totals));
        }
    }

    /// How many a second they grow by.
    pub fn rates(&self, totals: [u64; N], now: Instant) -> [u64; N] {
        let old = self.noted.iter().rev().find(|(at, _)| *at + WINDOW <= now);
        let Some((at, base)) = old.or(self.noted.front()) else { return [0; N] };
        let seconds = now.saturating_duration_since(*at).max(EVERY).as_secs_f64();
        std::array::from_fn(|i| (totals[i].saturating_sub(base[i]) as f64 / seconds) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_the_memory_is_bounded() {
        let start = epoch();
        let mut meter = Meter::new(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(meter.rates([300], at(10)), [300], "no less than a second is looked at");
        for ms in (0..20_000).step_by(10) {
            meter.note([ms], at(ms));
            assert!(meter.noted.len() <= 7);
        }
        assert_eq!(meter.rates([20_000], at(20_000)), [1000]);
        // Nothing comes any more.
        for ms in (20_000..23_000).step_by(10) {
            meter.note([20_000], at(ms));
        }
        let [slower] = meter.rates([20_000], at(23_000));
        assert!((300..500).contains(&slower), "{slower}");
        for ms in (23_000..27_000).step_by(10) {
            meter.note([20_000], at(ms));
        }
        assert_eq!(meter.rates([20_000], at(27_000)), [0]);
    }

    /// Who did not hear of it for a minute does not know in which second it was.
    #[test]
    fn what_nobody_noted_is_spread_over_the_time() {
        let start = epoch();
        let meter = Meter::new(start);
        assert_eq!(meter.rates([6000], start + Duration::from_secs(60)), [100]);
    }
}
