//! How often something costly is done that others can bring about: the first time at once, then with pauses that double, and
//! at once again only after a long time in which nobody wanted it. What has to wait is done when the pause is over.

use std::time::{Duration, Instant};

/// The first pause: a machine that changes networks has a new address some moments after it has none.
const FIRST: Duration = Duration::from_secs(2);
/// The last one: all that is joined is looked for anew about as often anyway.
const LAST: Duration = Duration::from_secs(600);
/// After so long without a wish the next is met at once.
const QUIET: Duration = Duration::from_secs(1200);

#[derive(Debug, Default)]
pub struct Pace {
    /// How often it was done without such a quiet time between.
    done: u32,
    done_at: Option<Instant>,
    wished_at: Option<Instant>,
    waits: bool,
}

impl Pace {
    /// It is wanted. True if it is to be done now; else it is [due](Self::is_due) later.
    pub fn want(&mut self, now: Instant) -> bool {
        if self.wished_at.is_none_or(|at| now >= at + QUIET) {
            self.done = 0;
        }
        self.wished_at = Some(now);
        self.waits = true;
        self.is_due(now)
    }

    /// Whether it was wanted, and may be done now; it counts as done then.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.waits && self.at().is_none_or(|at| at <= now);
        if due {
            (self.done, self.done_at, self.waits) = (self.done.saturating_add(1), Some(now), false);
        }
        due
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.at().filter(|_| self.waits)
    }

    /// When it may be done again.
    fn at(&self) -> Option<Instant> {
        let doubled = self.done.checked_sub(1).map(|n| FIRST * 2u32.saturating_pow(n).min(1024));
        Some(self.done_at? + doubled?.min(LAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_wanted_all_the_time_is_done_ever_more_seldom() {
        let (mut pace, start) = (Pace::default(), epoch());
        let done = |at: &u32| pace.want(start + *at * SECOND);
        let times: Vec<u32> = (0..2500).filter(done).collect();
        assert_eq!(times, [0, 2, 6, 14, 30, 62, 126, 254, 510, 1022, 1622, 2222]);
    }

    #[test]
    fn what_had_to_wait_is_done_once_and_a_long_quiet_time_makes_up_for_all() {
        let (mut pace, start) = (Pace::default(), epoch());
        assert!(pace.want(start) && pace.poll_timeout().is_none());
        assert!(!pace.want(start + SECOND) && !pace.want(start + SECOND));
        assert_eq!(pace.poll_timeout(), Some(start + 2 * SECOND));
        assert!(!pace.is_due(start + SECOND) && pace.is_due(start + 2 * SECOND));
        assert!(pace.poll_timeout().is_none() && !pace.is_due(start + 9 * SECOND));
        assert!(!pace.want(start + 3 * SECOND), "a short quiet time does not");
        assert!(pace.is_due(start + 6 * SECOND) && !pace.want(start + 7 * SECOND));
        assert!(pace.want(start + 7 * SECOND + QUIET));
    }
}
