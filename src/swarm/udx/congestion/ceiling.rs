//! A limit by losses for local paths.
//!
//! On loopback and in a LAN the bottleneck is the other process: it takes nothing while it is not scheduled, then everything
//! at once, and what does not fit its socket buffer (208 KiB unless it may ask for more) is dropped. Bandwidth and round trip
//! say nothing about that, so there the window is held below what overflowed lately. Longer paths are left to BBR alone,
//! which does not mistake random losses for congestion.

use super::RateSample;

/// Paths with a shorter round trip are local, microseconds.
const LOCAL_RTT: u64 = 2_000;

/// Share of a round that may be lost before the ceiling comes down (1/20), and the least number of bytes.
const LOSS_SHARE: u64 = 20;
const LEAST_LOSS: u64 = 6_000;

/// How much may be in flight before the receiver's socket buffer overflows.
#[derive(Debug)]
pub(super) struct Ceiling {
    bytes: u64,
    /// Since the start of the round.
    lost: u64,
    delivered: u64,
    most_in_flight: u64,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { bytes: u64::MAX, lost: 0, delivered: 0, most_in_flight: 0 }
    }
}

impl Ceiling {
    pub(super) fn note(&mut self, sample: &RateSample) {
        self.lost += sample.lost;
        self.delivered += sample.acked;
        self.most_in_flight = self.most_in_flight.max(sample.prior_in_flight);
    }

    /// Ends a round: comes down to 7/8 of what was in flight after heavy losses, rises by 1/32 if it was reached without any.
    pub(super) fn end_round(&mut self, least: u64) {
        let heavy = self.lost * LOSS_SHARE > self.delivered + self.lost && self.lost >= LEAST_LOSS;
        if heavy {
            self.bytes = self.bytes.min(self.most_in_flight) / 8 * 7;
        } else if self.most_in_flight >= self.bytes / 4 * 3 {
            self.bytes = self.bytes.saturating_add(self.bytes / 32);
        }
        *self = Self { bytes: self.bytes.max(least), ..Self::default() };
    }

    /// Bytes that may be in flight on a path with this shortest round trip.
    pub(super) fn limit(&self, min_rtt: u64) -> u64 {
        if min_rtt < LOCAL_RTT { self.bytes } else { u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ceiling: &mut Ceiling, acked: u64, lost: u64) {
        ceiling.note(&RateSample {
            acked,
            lost,
            prior_in_flight: acked + lost,
            ..RateSample::default()
        });
        ceiling.end_round(6_000);
    }

    #[test]
    fn comes_down_at_once_and_rises_slowly() {
        let mut ceiling = Ceiling::default();
        round(&mut ceiling, 4_000_000, 0);
        assert_eq!(ceiling.limit(100), u64::MAX);
        round(&mut ceiling, 400_000, 400_000);
        assert_eq!((ceiling.limit(100), ceiling.limit(50_000)), (700_000, u64::MAX));
        for _ in 0..10 {
            round(&mut ceiling, 690_000, 10_000);
        }
        assert!(ceiling.limit(100) > 880_000 && ceiling.limit(100) < 1_000_000);
        for _ in 0..100 {
            round(&mut ceiling, 1_000, 100_000);
        }
        assert_eq!(ceiling.limit(100), 6_000);
    }
}
