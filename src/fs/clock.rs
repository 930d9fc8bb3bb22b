//! The time as the kernel stamps files with it: it keeps that of what it writes itself, and both must go on together.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time of the last tick of the kernel.
pub fn now() -> SystemTime {
    let Ok(time) = clock_gettime(ClockId::CLOCK_REALTIME_COARSE) else { return SystemTime::now() };
    let since = |seconds| Some(Duration::new(seconds, u32::try_from(time.tv_nsec()).ok()?));
    let seconds = u64::try_from(time.tv_sec()).ok();
    seconds.and_then(since).map_or_else(SystemTime::now, |since| UNIX_EPOCH + since)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_tick_behind_at_most() {
        let (before, now) = (std::time::SystemTime::now(), super::now());
        assert!(now <= std::time::SystemTime::now());
        assert!(before.duration_since(now).unwrap_or_default().as_millis() < 50);
    }
}
