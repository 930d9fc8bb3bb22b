//! The driver's clock: it goes on while the machine sleeps.
//!
//! `Instant` is CLOCK_MONOTONIC on Linux, which stands still in suspend: to it a night is a moment, and nobody
//! would see that what others keep for us has faded. CLOCK_BOOTTIME counts the night.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// A wait that took this much longer than it should was a sleep, or a process that was stopped.
const SLEPT: Duration = Duration::from_secs(15);

/// Gives the time as an `Instant` that suspend does not stop.
pub struct Clock {
    /// One moment on both clocks.
    start: (Instant, Duration),
    boot: fn() -> Option<Duration>,
    latest: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self::over(Instant::now(), boot_time)
    }

    fn over(start: Instant, boot: fn() -> Option<Duration>) -> Self {
        Self { start: (start, boot().unwrap_or_default()), boot, latest: start }
    }

    /// The time now; it never goes back.
    pub fn now(&mut self) -> Instant {
        let (start, boot) = self.start;
        let now = match (self.boot)() {
            Some(time) => start + time.saturating_sub(boot),
            None => Instant::now(),
        };
        self.latest = self.latest.max(now);
        self.latest
    }

    /// What an instant of the ordinary clock is on this one.
    pub fn at(&mut self, ordinary: Instant) -> Instant {
        let left = ordinary.saturating_duration_since(Instant::now());
        self.now() + left
    }

    /// What an instant of this clock is on the ordinary one.
    pub fn ordinary(&mut self, ours: Instant) -> Instant {
        let left = ours.saturating_duration_since(self.now());
        Instant::now() + left
    }

    /// Whether the machine slept between two moments that should be `wait` apart at most.
    pub fn slept(before: Instant, after: Instant, wait: Duration) -> bool {
        after.saturating_duration_since(before) >= wait + SLEPT
    }
}

fn boot_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_night_asleep_passes_and_time_never_goes_back() {
        static BOOT: AtomicU64 = AtomicU64::new(1000);
        let second = Duration::from_secs(1);
        let start = epoch();
        let mut clock =
            Clock::over(start, || Some(Duration::from_secs(BOOT.load(Ordering::Relaxed))));
        assert_eq!(clock.now(), start);
        BOOT.store(1005, Ordering::Relaxed);
        let evening = clock.now();
        assert_eq!(evening, start + 5 * second);
        BOOT.store(1005 + 8 * 3600, Ordering::Relaxed);
        let morning = clock.now();
        assert_eq!(morning, evening + 8 * 3600 * second);
        assert!(Clock::slept(evening, morning, 5 * second));
        assert!(!Clock::slept(start, evening, 5 * second));
        BOOT.store(3, Ordering::Relaxed);
        assert_eq!(clock.now(), morning);
    }

    #[test]
    fn it_is_the_clock_that_counts_sleep_and_runs_as_the_ordinary_one_otherwise() {
        let mut clock = Clock::new();
        let (ordinary, start) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(20));
        let (ordinary, ours) = (ordinary.elapsed(), clock.now() - start);
        assert!(ours >= Duration::from_millis(20) && ours < ordinary + Duration::from_secs(1));
        let boot = boot_time().expect("the system counts it");
        let monotonic = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        assert!(boot + Duration::from_millis(1) >= monotonic);
        let soon = clock.at(Instant::now() + Duration::from_secs(9));
        let left = soon - clock.now();
        assert!(left > Duration::from_secs(8) && left <= Duration::from_secs(9), "{left:?}");
    }
}
