//! How often a local storage that did not take a block, for the disk is full mostly, is tried again.

use std::time::{Duration, Instant};

/// The first pause between two tries, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// When the next try is due, and the pause after it. Nothing while blocks are stored.
    state: Option<(Instant, Duration)>,
}

impl Backoff {
    /// A block was stored.
    pub fn stored(&mut self) {
        self.state = None;
    }

    /// A block was not stored. True if that is news.
    pub fn failed(&mut self, now: Instant) -> bool {
        let news = self.state.is_none();
        let (_, pause) = self.state.unwrap_or((now, FIRST));
        if self.state.is_none_or(|(due, _)| now >= due) {
            self.state = Some((now + pause, (2 * pause).min(LONGEST)));
        }
        news
    }

    pub fn is_active(&self) -> bool {
        self.state.is_some()
    }

    /// Whether something that nobody waits for may be asked for; one request a time, if storing failed.
    pub fn may_fetch(&mut self, now: Instant) -> bool {
        let Some((due, pause)) = &mut self.state else { return true };
        let may = now >= *due;
        if may {
            *due = now + *pause;
            *pause = (2 * *pause).min(LONGEST);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_and_one_that_is_stored_ends_it() {
        let (start, mut backoff) = (crate::sim::epoch(), Backoff::default());
        assert!(backoff.failed(start) && !backoff.failed(start));
        let mut tries = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            if backoff.may_fetch(now) {
                assert!(!backoff.may_fetch(now), "one at a time");
                assert!(!backoff.failed(now), "told once");
                tries += 1;
            }
        }
        assert!((10..30).contains(&tries), "{tries}");
        backoff.stored();
        assert!(backoff.may_fetch(start) && backoff.may_fetch(start));
    }
}
