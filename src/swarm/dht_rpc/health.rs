//! Whether the network answers: online, degraded or offline.
//!
//! Once per tick the counts of responses and timeouts are compared with the tick before. Fewer than four
//! events give no verdict. Two ticks running without a response mean offline; four running with more than
//! half of the requests timed out mean degraded.
//!
//! Source: dht-rpc/lib/health.js

use std::collections::VecDeque;

/// Ticks looked at.
const WINDOW: usize = 4;
/// Fewer events than this in a tick give no verdict.
const IDLE: u64 = 4;
/// Ticks without a response until offline.
const OFFLINE_TICKS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Idle,
    Healthy,
    Degraded,
    Offline,
}

/// Whether we can be reached and can reach others.
#[derive(Debug)]
pub struct Health {
    window: VecDeque<Verdict>,
    last: Option<(u64, u64)>,
    offline_ticks: usize,
    online: bool,
    degraded: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            window: VecDeque::with_capacity(WINDOW),
            last: None,
            offline_ticks: 0,
            online: true,
            degraded: false,
        }
    }
}

impl Health {
    pub fn online(&self) -> bool {
        self.online
    }

    pub fn degraded(&self) -> bool {
        self.degraded
    }

    /// Forgets everything, after a suspend.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// One tick; the arguments are totals since the start. True if `online` or `degraded` changed.
    pub fn tick(&mut self, responses: u64, timeouts: u64) -> bool {
        let (old_responses, old_timeouts) =
            self.last.replace((responses, timeouts)).unwrap_or((responses, timeouts));
        let (responses, timeouts) = (responses - old_responses, timeouts - old_timeouts);
        let verdict = match (responses, timeouts) {
            (r, t) if r + t < IDLE => Verdict::Idle,
            (0, _) => Verdict::Offline,
            (r, t) if t > r => Verdict::Degraded,
            _ => Verdict::Healthy,
        };
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(verdict);
        if self.window.len() < WINDOW || verdict == Verdict::Idle {
            return false;
        }
        self.judge(verdict)
    }

    fn judge(&mut self, verdict: Verdict) -> bool {
        let before = (self.online, self.degraded);
        if verdict == Verdict::Offline {
            self.offline_ticks += 1;
            self.online &= self.offline_ticks < OFFLINE_TICKS;
        } else {
            self.offline_ticks = 0;
            self.online = true;
        }
        let all = |v| self.window.iter().all(|w| *w == v);
        if !self.online || all(Verdict::Healthy) {
            self.degraded = false;
        } else if all(Verdict::Degraded) {
            self.degraded = true;
        }
        before != (self.online, self.degraded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ticks: &[(u64, u64)]) -> Health {
        let (mut health, mut total) = (Health::default(), (0, 0));
        for (responses, timeouts) in ticks {
            total = (total.0 + responses, total.1 + timeouts);
            health.tick(total.0, total.1);
        }
        health
    }

    #[test]
    fn silence_for_two_ticks_is_offline_and_one_answer_ends_it() {
        let quiet = [(9, 0), (9, 0), (9, 0), (9, 0), (0, 9), (0, 9)];
        assert!(!run(&quiet).online());
        assert!(run(&[&quiet[..], &[(4, 1)]].concat()).online());
    }

    #[test]
    fn four_ticks_of_mostly_timeouts_are_degraded() {
        let health = run(&[(9, 0), (1, 9), (1, 9), (1, 9), (1, 9)]);
        assert!(health.online() && health.degraded());
    }

    #[test]
    fn few_events_are_no_verdict() {
        let health = run(&[(9, 0), (9, 0), (9, 0), (9, 0), (0, 1), (0, 2), (0, 3)]);
        assert!(health.online() && !health.degraded());
    }
}
