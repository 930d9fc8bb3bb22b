//! Spreads packets over time: a token bucket in bytes.
//!
//! The bucket holds two milliseconds of the rate, so a late wake-up loses nothing, and at high rates a whole 64 KiB
//! burst goes out at once. A blocked stream sleeps until a worthwhile burst has gathered, not for each packet.

/// Most bytes that may leave back to back, however fast the path: what a receiver with the default
/// 208 KiB socket buffer can surely take.
const MAX_BURST: f64 = 256.0 * 1024.0;

/// Depth of the bucket, seconds of the rate.
const DEPTH: f64 = 0.002;

/// What a stream that ran dry waits for, seconds of the rate.
const REFILL: f64 = 0.000_5;

#[derive(Debug)]
pub struct Pacer {
    tokens: f64,
    /// Bytes per microsecond.
    rate: f64,
    /// Size of a full packet, bytes.
    packet: f64,
    updated: u64,
}

impl Pacer {
    /// Starts with room for the first flight.
    pub fn new(first_flight: u64, packet: usize) -> Self {
        Self { tokens: first_flight as f64, rate: 0.0, packet: packet as f64, updated: 0 }
    }

    /// Sets the rate (bytes per second) and the size of a full packet.
    pub fn set_rate(&mut self, rate: u64, packet: usize) {
        self.rate = rate as f64 / 1e6;
        self.packet = packet as f64;
    }

    fn depth(&self) -> f64 {
        (self.rate * DEPTH * 1e6).clamp(2.0 * self.packet, MAX_BURST.max(2.0 * self.packet))
    }

    /// Adds what has gathered since the last call.
    pub fn refill(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.updated) as f64;
        self.updated = now.max(self.updated);
        if elapsed > 0.0 {
            self.tokens = (self.tokens + elapsed * self.rate).min(self.depth().max(self.tokens));
        }
    }

    /// Whether a packet may leave now. It may overdraw the bucket.
    pub fn is_open(&self) -> bool {
        self.tokens > 0.0
    }

    pub fn spend(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }

    /// When a closed pacer opens for a burst.
    pub fn opens_at(&self) -> u64 {
        let burst = (self.rate * REFILL * 1e6).clamp(1.0, MAX_BURST / 2.0);
        let wait = (burst - self.tokens) / self.rate.max(1e-6);
        self.updated + (wait.ceil() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_to_the_rate_in_the_long_run() {
        for rate in [100_000u64, 12_500_000, 1_000_000_000] {
            let mut pacer = Pacer::new(0, 1472);
            pacer.set_rate(rate, 1472);
            let (mut now, mut sent) = (0, 0u64);
            while now < 5_000_000 {
                pacer.refill(now);
                while pacer.is_open() {
                    pacer.spend(1472);
                    sent += 1472;
                }
                now = pacer.opens_at();
            }
            let expected = 5 * rate;
            assert!(sent > expected * 98 / 100 && sent < expected * 102 / 100, "{rate}: {sent}");
        }
    }

    #[test]
    fn a_fast_path_sends_whole_bursts() {
        let mut pacer = Pacer::new(0, 1472);
        pacer.set_rate(1_000_000_000, 1472);
        pacer.refill(1);
        pacer.spend(4096);
        pacer.refill(pacer.opens_at());
        assert!(pacer.tokens >= 65_536.0);
    }
}
