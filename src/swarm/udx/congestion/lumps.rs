//! Acknowledgements that come in lumps.
//!
//! Where a receiver or a link holds acknowledgements back, a window of twice the pipe runs empty between two lumps. So it is
//! wider by what was lately acknowledged beyond what the rate explains.

use super::RateSample;

/// Rounds per half of what is remembered, and the most time of the rate that it may add, microseconds.
const ROUNDS: u8 = 5;
const MOST_TIME: u64 = 100_000;

#[derive(Debug, Default)]
pub(super) struct Lumps {
    extra: [u64; 2],
    half: usize,
    rounds: u8,
    since: u64,
    acked: u64,
}

impl Lumps {
    /// Nothing was sent for a while.
    pub(super) fn restart(&mut self, now: u64) {
        (self.since, self.acked) = (now, 0);
    }

    /// Counts how many more bytes than `bandwidth` explains were acknowledged, `cwnd` at most.
    pub(super) fn note(
        &mut self,
        sample: &RateSample,
        bandwidth: u64,
        cwnd: u64,
        round_start: bool,
        full: bool,
        now: u64,
    ) {
        if sample.acked == 0 || sample.interval == 0 {
            return;
        }
        if round_start {
            self.rounds += 1;
            if self.rounds >= if full { ROUNDS } else { 1 } {
                self.rounds = 0;
                self.half ^= 1;
                self.extra[self.half] = 0;
            }
        }
        let elapsed = now.saturating_sub(self.since);
        let mut expected = (bandwidth as f64 * elapsed as f64 / 1e6) as u64;
        if self.acked <= expected {
            self.restart(now);
            expected = 0;
        }
        self.acked += sample.acked;
        let extra = (self.acked - expected).min(cwnd);
        let slot = &mut self.extra[self.half];
        *slot = extra.max(*slot);
    }

    /// Bytes by which the window is wider.
    pub(super) fn extra(&self, bandwidth: u64) -> u64 {
        let most = (bandwidth as f64 * MOST_TIME as f64 / 1e6) as u64;
        self.extra[0].max(self.extra[1]).min(most)
    }
}
