//! One direction of a path.
//!
//! A datagram first waits for the bottleneck (rate and tail-drop queue), then travels (latency, jitter), and may be lost,
//! doubled or held back on the way.

use std::collections::BTreeMap;
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

/// A link that carries values of type `T`, each standing for a datagram.
#[derive(Debug)]
pub struct Link<T> {
    pub cfg: LinkConfig,
    pub stats: LinkStats,
    rng: StdRng,
    /// When the bottleneck has sent everything that waits, and what is left of it below a nanosecond.
    free_at: Option<Instant>,
    last_arrival: Option<Instant>,
    under_way: BTreeMap<(Instant, u64), T>,
    count: u64,
}

impl<T: Clone> Link<T> {
    pub fn new(cfg: LinkConfig, seed: u64) -> Self {
        Self {
            cfg,
            stats: LinkStats::default(),
            rng: StdRng::seed_from_u64(seed),
            free_at: None,
            last_arrival: None,
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    /// Puts a datagram of `size` bytes on the link.
    pub fn send(&mut self, now: Instant, size: usize, datagram: T) {
        self.stats.sent += 1;
        if size > self.cfg.max_datagram {
            self.stats.oversized += 1;
            return;
        }
        let Some(leaves) = self.pass_bottleneck(now, size + self.cfg.overhead) else {
            self.stats.overflowed += 1;
            return;
        };
        if self.rng.random_bool(self.cfg.loss) {
            self.stats.lost += 1;
            return;
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.cfg.duplicate));
        for _ in 0..copies {
            let at = self.arrival(leaves);
            self.count += 1;
            self.under_way.insert((at, self.count), datagram.clone());
        }
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

    /// When the next datagram arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next datagram that has arrived.
    pub fn receive(&mut self, now: Instant) -> Option<T> {
        self.next_arrival().filter(|at| *at <= now)?;
        self.under_way.pop_first().map(|(_, datagram)| datagram)
    }
}
