//! Tokens that come back with time: how much of something may be had at once, and how much a second.
//!
//! Where each host has an allowance of its own, hosts share [`HostBuckets`] by keyed hash: the table cannot be
//! filled up, and nobody knows with whom it shares.

use crate::crypto::hash;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

/// How much at once after a quiet time, and how much a second.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub burst: f64,
    pub rate: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    limit: Limit,
    level: f64,
    at: Instant,
}

impl Bucket {
    pub fn full(limit: Limit, now: Instant) -> Self {
        Self { limit, level: limit.burst, at: now }
    }

    /// Whether as many tokens are there.
    pub fn has(&mut self, tokens: f64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.limit.rate).min(self.limit.burst);
        self.at = now;
        self.level >= tokens
    }

    /// How full it is, from 0 to 1.
    pub fn fill(&mut self, now: Instant) -> f64 {
        self.has(0.0, now);
        self.level / self.limit.burst
    }

    /// Takes as many tokens if they are there.
    pub fn take(&mut self, tokens: f64, now: Instant) -> bool {
        let ok = self.has(tokens, now);
        if ok {
            self.level -= tokens;
        }
        ok
    }
}

/// A bucket for each host, of which some share one.
pub struct HostBuckets {
    key: [u8; 32],
    count: usize,
    full: Bucket,
    /// Those that were used.
    buckets: BTreeMap<usize, Bucket>,
}

impl HostBuckets {
    /// `count` buckets, which are full.
    pub fn new(key: [u8; 32], limit: Limit, count: usize, now: Instant) -> Self {
        Self { key, count, full: Bucket::full(limit, now), buckets: BTreeMap::new() }
    }

    pub fn of(&mut self, host: &(impl Copy + Into<IpAddr>)) -> &mut Bucket {
        let digest = match (*host).into() {
            IpAddr::V4(host) => hash::keyed(&self.key, &[&host.octets()]),
            IpAddr::V6(host) => hash::keyed(&self.key, &[&host.octets()]),
        };
        let i = usize::from(u16::from_le_bytes([digest[0], digest[1]])) % self.count.max(1);
        self.buckets.entry(i).or_insert(self.full)
    }
}
