//! Who holds how much of what a node keeps for others, and what is the oldest of it.
//!
//! Whoever shows a token can store as much as it likes, so what is held is counted in bytes: of one source, and of
//! all. A source that holds its share is refused; when all is full the oldest make room.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// What one entry takes besides its bytes: its keys in the store, in its group, and in the order of age.
pub const OVERHEAD: usize = 192;

/// The bounds of a store.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of all.
    pub total: usize,
    /// Bytes of those that came from one host.
    pub source: usize,
    /// How long an entry lives.
    pub age: Duration,
}

/// When an entry was made, and a number to tell those of one moment apart.
type Age = (Instant, u64);

/// What is counted of one entry.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// None: our own, which has no bound but the total.
    source: Option<Ipv4Addr>,
    bytes: usize,
    age: Age,
}

impl Held {
    /// Whose it is; none if it is our own.
    pub fn source(&self) -> Option<Ipv4Addr> {
        self.source
    }
}

/// The account of a store whose entries have names `N`.
#[derive(Debug)]
pub struct Ledger<N> {
    bounds: Bounds,
    by_age: BTreeMap<Age, N>,
    by_source: HashMap<Ipv4Addr, usize>,
    bytes: usize,
    next: u64,
}

impl<N: Copy> Ledger<N> {
    pub fn new(bounds: Bounds) -> Self {
        let (by_age, by_source) = (BTreeMap::new(), HashMap::new());
        Self { bounds, by_age, by_source, bytes: 0, next: 0 }
    }

    /// Whether an entry of `len` bytes may come from `source`, in the place of `old`.
    pub fn may_hold(&self, source: Option<Ipv4Addr>, len: usize, old: Option<&Held>) -> bool {
        let Some(host) = source else { return true };
        let freed = old.filter(|old| old.source == source).map_or(0, |old| old.bytes);
        self.of_source(&host) + len + OVERHEAD - freed <= self.bounds.source
    }

    /// Counts an entry.
    pub fn count(&mut self, source: Option<Ipv4Addr>, len: usize, name: N, now: Instant) -> Held {
        let bytes = len + OVERHEAD;
        if let Some(source) = source {
            *self.by_source.entry(source).or_default() += bytes;
        }
        self.bytes += bytes;
        self.next += 1;
        let age = (now, self.next);
        self.by_age.insert(age, name);
        Held { source, bytes, age }
    }

    pub fn uncount(&mut self, held: &Held) {
        self.by_age.remove(&held.age);
        self.bytes -= held.bytes;
        let Some(source) = held.source else { return };
        if let Some(bytes) = self.by_source.get_mut(&source) {
            *bytes -= held.bytes;
            if *bytes == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// What has to go: the oldest entry, if it has faded or all is full.
    pub fn to_drop(&self, now: Instant) -> Option<N> {
        let (_, oldest) = self.by_age.first_key_value()?;
        let faded = self.poll_timeout().is_some_and(|at| at <= now);
        (faded || self.bytes > self.bounds.total).then_some(*oldest)
    }

    /// When the oldest entry fades.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|((at, _), _)| *at + self.bounds.age)
    }

    /// Bytes that came from a host.
    pub fn of_source(&self, source: &Ipv4Addr) -> usize {
        self.by_source.get(source).copied().unwrap_or(0)
    }

    /// Bytes and entries of all.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.bytes, self.by_age.len())
    }
}
