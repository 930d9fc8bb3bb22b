//! Round-trip time: smoothed value, variation, the retransmission timeout, a long-lived minimum.
//!
//! All times are microseconds.

use super::congestion::win_filter::WinFilter;

/// Bounds of the retransmission timeout, as in the reference.
const MIN_RTO: u64 = 1_000_000;
const MAX_RTO: u64 = 30_000_000;

/// A sample above this and far from the average is most likely a machine that slept; it is pulled in.
const SUSPICIOUS: u64 = 5_000_000;
const MAX_SAMPLE: u64 = 30_000_000;

/// How long a minimum counts for loss detection.
const MIN_RTT_WINDOW: u64 = 300_000_000;

#[derive(Debug)]
pub struct Rtt {
    smoothed: Option<u64>,
    variation: u64,
    min: WinFilter,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: None, variation: 0, min: WinFilter::new(0) }
    }
}

impl Rtt {
    /// Takes a sample of a packet that was sent only once.
    pub fn update(&mut self, sample: u64, now: u64) {
        let mut sample = sample.max(1);
        let Some(smoothed) = self.smoothed else {
            // Taken as it is, an hour of sleep would be the round trip: what has died meanwhile would not
            // be noticed for minutes.
            if sample <= SUSPICIOUS {
                self.min.update_min(MIN_RTT_WINDOW, now, sample);
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            return;
        };
        if sample > SUSPICIOUS {
            sample = sample.min(smoothed + 5 * self.variation).min(MAX_SAMPLE);
        }
        self.min.update_min(MIN_RTT_WINDOW, now, sample);
        self.variation = (3 * self.variation + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((7 * smoothed + sample) / 8);
    }

    /// The smoothed round-trip time; `None` before the first sample.
    pub fn smoothed(&self) -> Option<u64> {
        self.smoothed
    }

    /// The smallest sample of the last five minutes, 0 if there is none.
    pub fn min(&self) -> u64 {
        if self.smoothed.is_some() { self.min.get() } else { 0 }
    }

    pub fn rto(&self) -> u64 {
        let Some(smoothed) = self.smoothed else { return MIN_RTO };
        (smoothed + 4 * self.variation).clamp(MIN_RTO, MAX_RTO)
    }

    /// How long after the last transmission a tail-loss probe is due.
    ///
    /// Twice the round trip as in RFC 8985, plus the delay a peer's event loop may add: on a loopback path the
    /// bare rule would fire every time the peer's process is not scheduled at once.
    pub fn probe_timeout(&self) -> Option<u64> {
        let smoothed = self.smoothed?;
        Some((2 * smoothed).max(smoothed + 4 * self.variation) + 2_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_follows_the_samples_within_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(), MIN_RTO);
        rtt.update(100, 1);
        assert_eq!((rtt.smoothed(), rtt.rto(), rtt.min()), (Some(100), MIN_RTO, 100));
        for i in 0..100 {
            rtt.update(2_000_000, 2 + i);
        }
        assert!(rtt.rto() >= 2_000_000 && rtt.rto() < 3_000_000);
        assert_eq!(rtt.min(), 100);
    }

    #[test]
    fn one_absurd_sample_does_not_spoil_the_average() {
        let mut rtt = Rtt::default();
        for i in 0..20 {
            rtt.update(50_000, i);
        }
        rtt.update(3_600_000_000, 21);
        assert!(rtt.smoothed().unwrap() < 60_000 && rtt.min() == 50_000);
        rtt.update(3_600_000_000, 21 + MIN_RTT_WINDOW);
        assert!(rtt.min() < 60_000, "{}", rtt.min());
    }

    #[test]
    fn an_absurd_first_sample_is_none() {
        let mut rtt = Rtt::default();
        rtt.update(900_000_000, 1);
        assert_eq!((rtt.smoothed(), rtt.rto(), rtt.min()), (None, MIN_RTO, 0));
        rtt.update(6_000, 2);
        assert_eq!((rtt.smoothed(), rtt.rto(), rtt.min()), (Some(6_000), MIN_RTO, 6_000));
    }
}
