//! The owner's time in microseconds.

use std::time::{Duration, Instant};

/// Turns the owner's time into microseconds since the machine's first moment, plus one second so that 0 is never.
#[derive(Debug, Default)]
pub(super) struct Clock {
    epoch: Option<Instant>,
    pub(super) now: u64,
}

const CLOCK_START: u64 = 1_000_000;

impl Clock {
    pub(super) fn set(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.epoch.get_or_insert(now));
        let micros = since.as_secs() * 1_000_000 + u64::from(since.subsec_micros()) + CLOCK_START;
        self.now = self.now.max(micros);
        self.now
    }

    pub(super) fn instant(&self, micros: u64) -> Option<Instant> {
        Some(self.epoch? + Duration::from_micros(micros.saturating_sub(CLOCK_START)))
    }
}
