//! When a lost peer is dialled again.
//!
//! Four delays, each drawn once per process so that peers that lost the same server do not all come back
//! in the same second: S ≈ 1 s, M ≈ 5 s, L ≈ 15 s, X ≈ 10 min. Which one a peer gets depends on how
//! often it failed in a row and on whether it ever worked.
//!
//! Source: hyperswarm/lib/retry-timer.js, hyperswarm/lib/bulk-timer.js

use crate::key::PublicKey;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a peer waits, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    Short,
    Medium,
    Long,
    /// For explicit peers that failed too often: they are never given up.
    Extra,
}

impl Delay {
    /// The class of a peer with this many failures in a row, `None` if it is not tried again.
    pub fn of(attempts: u32, proven: bool, explicit: bool) -> Option<Self> {
        match (attempts, proven) {
            (0, _) | (1, true) => Some(Self::Short),
            (1, false) | (2, true) => Some(Self::Medium),
            (2, false) | (3, _) => Some(Self::Long),
            _ => explicit.then_some(Self::Extra),
        }
    }
}

/// Peers that wait for their next dial.
#[derive(Debug)]
pub struct RetryTimer {
    /// By class: short, medium, long, extra.
    delays: [Duration; 4],
    /// No larger than the table of peers: each peer waits at most once.
    due: BTreeSet<(Instant, PublicKey)>,
}

impl RetryTimer {
    pub fn new(rng: &mut StdRng) -> Self {
        let mut draw = |base: u64, jitter: u64| {
            Duration::from_millis(base + rng.random_range(0..=jitter) + rng.random_range(0..=500))
        };
        let delays =
            [draw(1000, 500), draw(5000, 1000), draw(15_000, 2000), draw(600_000, 120_000)];
        Self { delays, due: BTreeSet::new() }
    }

    /// Lets `peer` wait. Two ticks of two thirds of the delay each bound the wait of the reference's
    /// bulk timer; here it is drawn between them.
    pub fn add(&mut self, peer: PublicKey, delay: Delay, now: Instant, rng: &mut StdRng) {
        let [short, medium, long, extra] = self.delays;
        let base = match delay {
            Delay::Short => short,
            Delay::Medium => medium,
            Delay::Long => long,
            Delay::Extra => extra,
        };
        self.due.insert((now + base.mul_f64(rng.random_range(0.66..1.32)), peer));
    }

    /// Lets `peer` wait until `at`.
    pub fn add_at(&mut self, peer: PublicKey, at: Instant) {
        self.due.insert((at, peer));
    }

    /// The next peer whose wait is over.
    pub fn pop(&mut self, now: Instant) -> Option<PublicKey> {
        let &(at, _) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first().map(|(_, peer)| peer)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    pub fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use rand::SeedableRng;

    #[test]
    fn classes_of_the_reference() {
        use Delay::*;
        let proven: Vec<_> = (0..5).map(|n| Delay::of(n, true, false)).collect();
        assert_eq!(proven, [Some(Short), Some(Short), Some(Medium), Some(Long), None]);
        let unproven: Vec<_> = (0..5).map(|n| Delay::of(n, false, false)).collect();
        assert_eq!(unproven, [Some(Short), Some(Medium), Some(Long), Some(Long), None]);
        assert_eq!(Delay::of(9, false, true), Some(Extra));
    }

    #[test]
    fn peers_come_back_in_the_order_of_their_delays() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut timer = RetryTimer::new(&mut rng);
        let now = epoch();
        let classes = [Delay::Extra, Delay::Long, Delay::Medium, Delay::Short];
        for (i, delay) in classes.into_iter().enumerate() {
            timer.add(PublicKey([i as u8; 32]), delay, now, &mut rng);
        }
        assert_eq!(timer.pop(now + Duration::from_millis(600)), None);
        let mut order = Vec::new();
        while let Some(at) = timer.poll_timeout() {
            order.push(timer.pop(at).unwrap().0[0]);
        }
        assert_eq!(order, [3, 2, 1, 0]);
    }
}
