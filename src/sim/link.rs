//! One direction of a path.
//!
//! A datagram first waits for the bottleneck (rate and tail-drop queue), then travels (latency, jitter), and may be lost,
//! doubled or held back on the way. A link says when it arrives; who carries it there is [`Net`](super::Net).

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Bytes per second of the bottleneck, headers included; `None` for no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the bottleneck.
    pub queue: usize,
    /// One way.
    pub latency: Duration,
    /// Added at random, keeping the order.
    pub jitter: Duration,
    /// Probabilities.
    pub loss: f64,
    pub duplicate: f64,
    /// A datagram is held back by `reorder_delay` and overtaken.
    pub reorder: f64,
    pub reorder_delay: Duration,
    /// Larger datagrams vanish.
    pub max_datagram: usize,
    /// Bytes of headers below the datagram.
    pub overhead: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            rate: None,
            queue: usize::MAX,
            latency: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(5),
            max_datagram: 1472,
            overhead: 28,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    pub sent: u64,
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    pub oversized: u64,
}

#[derive(Debug)]
pub struct Link {
    pub cfg: LinkConfig,
    pub stats: LinkStats,
    rng: StdRng,
    /// When the bottleneck has sent everything that waits.
    free_at: Option<Instant>,
    last_arrival: Option<Instant>,
}

impl Link {
    pub fn new(cfg: LinkConfig, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { cfg, stats: LinkStats::default(), rng, free_at: None, last_arrival: None }
    }

    /// Puts a datagram of `size` bytes on the link: when it arrives, and when its double does.
    pub fn send(&mut self, now: Instant, size: usize) -> [Option<Instant>; 2] {
        self.stats.sent += 1;
        if size > self.cfg.max_datagram {
            self.stats.oversized += 1;
            return [None; 2];
        }
        let Some(leaves) = self.pass_bottleneck(now, size + self.cfg.overhead) else {
            self.stats.overflowed += 1;
            return [None; 2];
        };
        if self.rng.random_bool(self.cfg.loss) {
            self.stats.lost += 1;
            return [None; 2];
        }
        let doubled = self.rng.random_bool(self.cfg.duplicate);
        [Some(self.arrival(leaves)), doubled.then(|| self.arrival(leaves))]
    }

    fn pass_bottleneck(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Some(rate) = self.cfg.rate else { return Some(now) };
        let start = self.free_at.map_or(now, |at| at.max(now));
        let waiting = start.duration_since(now).as_secs_f64() * rate as f64;
        if waiting + bytes as f64 > self.cfg.queue as f64 {
            return None;
        }
        let end = start + Duration::from_nanos((bytes as u64 * 1_000_000_000).div_ceil(rate));
        self.free_at = Some(end);
        Some(end)
    }

    fn arrival(&mut self, leaves: Instant) -> Instant {
        let at = leaves + self.cfg.latency + self.cfg.jitter.mul_f64(self.rng.random());
        if self.rng.random_bool(self.cfg.reorder) {
            return at + self.cfg.reorder_delay;
        }
        let at = self.last_arrival.map_or(at, |last| last.max(at));
        self.last_arrival = Some(at);
        at
    }
}
