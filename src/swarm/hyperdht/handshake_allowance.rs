//! How many handshakes a server reads and answers.
//!
//! Reading one costs a curve multiplication, answering it several more and a place among the connections that
//! wait. Who sends nonsense, or too much, uses up what is his own: each source has an allowance, and only a
//! handshake that opens counts against the number of those that are answered. A source can be forged, so there are
//! totals as well; but nobody can forge having shown that he is at an address, and few know by which relays we are found
//! *and* can send in their names. So those two have a total of their own each, which a flood from elsewhere does
//! not touch. Of a total that runs low handshakes are dropped at random, before it is used up: else a flood in
//! step with it would get all of it.

use crate::swarm::dht_rpc::bucket::{Bucket, HostBuckets, Limit};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

/// Of one host: a household or an office that comes back at once, each member through several relays.
const SOURCE: Limit = Limit { burst: 32.0, rate: 10.0 };
/// Read in all, a tenth of a core at some 100 µs each: of hosts that were connected before, of those that our relays
/// tell of, and of all others.
const KNOWN: Limit = Limit { burst: 100.0, rate: 100.0 };
const RELAYED: Limit = Limit { burst: 300.0, rate: 300.0 };
const OTHERS: Limit = Limit { burst: 600.0, rate: 600.0 };
/// Below this part of a total some are dropped, the more the less there is.
const LOW: f64 = 0.5;
/// Answered in all, and of each sort; what is meant for the others is there for all.
pub(super) const ANSWERED_BURST: usize = 320;
pub(super) const ANSWERED_RATE: usize = 100;
const ANSWERED_KNOWN: Limit = Limit { burst: 40.0, rate: 20.0 };
const ANSWERED_RELAYED: Limit = Limit { burst: 80.0, rate: 40.0 };
const ANSWERED_OTHERS: Limit = Limit { burst: 200.0, rate: 40.0 };
/// Buckets of sources in each total, 40 bytes each.
const BUCKETS: usize = 1024;
/// Hosts remembered that were connected.
const MAX_KNOWN: usize = 1024;

/// What is to be said for a handshake before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// A peer was connected from its host before, and was there.
    Known,
    /// One of our relays tells of it.
    Relayed,
    Others,
}

/// What is read and answered of one sort.
struct Total {
    sources: HostBuckets,
    read: Bucket,
    answered: Bucket,
}

impl Total {
    fn new(key: [u8; 32], read: Limit, answered: Limit, now: Instant) -> Self {
        let sources = HostBuckets::new(key, SOURCE, BUCKETS, now);
        Self { sources, read: Bucket::full(read, now), answered: Bucket::full(answered, now) }
    }

    fn read(&mut self, source: &IpAddr, chance: f64, now: Instant) -> bool {
        let own = source.is_loopback() || self.sources.of(source).take(1.0, now);
        own && take(&mut self.read, chance, now)
    }
}

/// Takes one unless there is none, or chance would have it otherwise.
fn take(bucket: &mut Bucket, chance: f64, now: Instant) -> bool {
    chance * LOW < bucket.fill(now) && bucket.take(1.0, now)
}

/// The accounts of one server.
pub(super) struct HandshakeAllowance {
    known: Total,
    relayed: Total,
    others: Total,
    /// Hosts that were connected.
    hosts: lru::LruCache<IpAddr, ()>,
}

impl HandshakeAllowance {
    pub fn new(key: [u8; 32], now: Instant) -> Self {
        let hosts = NonZeroUsize::new(MAX_KNOWN).unwrap_or(NonZeroUsize::MIN);
        Self {
            known: Total::new(key, KNOWN, ANSWERED_KNOWN, now),
            relayed: Total::new(key, RELAYED, ANSWERED_RELAYED, now),
            others: Total::new(key, OTHERS, ANSWERED_OTHERS, now),
            hosts: lru::LruCache::new(hosts),
        }
    }

    /// A peer showed that it is at `host`: no message does, its source may be forged.
    pub fn connected(&mut self, host: IpAddr) {
        self.hosts.put(host, ());
    }

    #[cfg(test)]
    pub fn is_known(&self, host: IpAddr) -> bool {
        self.hosts.contains(&host)
    }

    /// As what a handshake is to be read, if it is, that came from `source`, as one of our relays told or as it says
    /// itself. `chance` is a random number below 1. This machine has no limit of its own.
    pub fn read(
        &mut self,
        source: &IpAddr,
        relayed: bool,
        chance: f64,
        now: Instant,
    ) -> Option<Sort> {
        if self.hosts.contains(source) && self.known.read(source, chance, now) {
            return Some(Sort::Known);
        }
        let sort = if relayed { Sort::Relayed } else { Sort::Others };
        self.total(sort).read(source, chance, now).then_some(sort)
    }

    /// Whether a handshake that was read as `sort` and opens is to be answered. Anybody can make one that opens.
    pub fn answer(&mut self, sort: Sort, chance: f64, now: Instant) -> bool {
        take(&mut self.total(sort).answered, chance, now)
            || sort != Sort::Others && take(&mut self.others.answered, chance, now)
    }

    fn total(&mut self, sort: Sort) -> &mut Total {
        match sort {
            Sort::Known => &mut self.known,
            Sort::Relayed => &mut self.relayed,
            Sort::Others => &mut self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn a_source_uses_up_its_own_and_gets_it_back() {
        let now = epoch();
        let mut allowance = HandshakeAllowance::new([1; 32], now);
        let (loud, quiet) = (Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(8, 8, 8, 8));
        let mut read = |host, now| allowance.read(&IpAddr::V4(host), false, 0.0, now).is_some();
        assert_eq!((0..500).filter(|_| read(loud, now)).count(), SOURCE.burst as usize);
        assert!(read(quiet, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..500).filter(|_| read(loud, later)).count(), SOURCE.rate as usize);
    }

    #[test]
    fn many_sources_together_have_a_total() {
        let now = epoch();
        let mut allowance = HandshakeAllowance::new([1; 32], now);
        let sources = (0..5000).map(|n| Ipv4Addr::from(0x0900_0000 + n));
        let read =
            sources.filter(|s| allowance.read(&IpAddr::V4(*s), false, 0.0, now).is_some()).count();
        assert_eq!(read, OTHERS.burst as usize);
        let mut answered = |sort| (0..5000).filter(|_| allowance.answer(sort, 0.0, now)).count();
        let all = [Sort::Others, Sort::Relayed, Sort::Known].map(&mut answered);
        assert_eq!((all, all.iter().sum()), ([200, 80, 40], ANSWERED_BURST));
    }

    /// Of 500 honest handshakes in 50 s beside `rate` of forged sources a second, evenly spaced: how many are read and
    /// answered. Those of forged sources `open` or are nonsense.
    fn answered_beside(
        rate: u64,
        open: bool,
        forged_relay: bool,
        known: bool,
        relayed: bool,
    ) -> usize {
        let (start, mut rng) = (epoch(), StdRng::seed_from_u64(1));
        let mut allowance = HandshakeAllowance::new([1; 32], start);
        let host = |n: u64| IpAddr::from(Ipv4Addr::from(0x0800_0000 + (n % 200) as u32));
        if known {
            (0..200).for_each(|n| allowance.connected(host(n)));
        }
        let mut answered = 0;
        let gap = 1_000_000 / rate;
        for n in 0..60 * rate {
            let now = start + Duration::from_micros(n * gap);
            let forged = IpAddr::from(Ipv4Addr::from(rng.random::<u32>() | 0x8000_0000));
            let sort = allowance.read(&forged, forged_relay, rng.random(), now);
            if let Some(sort) = sort.filter(|_| open) {
                allowance.answer(sort, rng.random(), now);
            }
            if n >= 10 * rate && n % (rate / 10) == 0 {
                let now = now + Duration::from_micros(rng.random_range(0..gap));
                let sort = allowance.read(&host(n), relayed, rng.random(), now);
                let ok = sort.is_some_and(|sort| allowance.answer(sort, rng.random(), now));
                answered += usize::from(ok);
            }
        }
        answered
    }

    #[test]
    fn forged_sources_keep_nobody_out_who_comes_by_our_relays_or_came_before() {
        for (rate, open) in [(2000, false), (20_000, false), (200, true), (2000, true)] {
            let beside = |forged_relay, known, relayed| {
                answered_beside(rate, open, forged_relay, known, relayed)
            };
            assert_eq!(beside(false, false, true), 500, "{rate}/s, {open}, by our relays");
            assert_eq!(beside(false, true, false), 500, "{rate}/s, {open}, connected before");
            assert_eq!(beside(true, true, true), 500, "{rate}/s, {open}, in their names");
        }
    }

    #[test]
    fn whoever_comes_beside_a_flood_has_the_same_chance_as_each_of_it() {
        let read = answered_beside(2000, false, false, false, false);
        // 600 of 2,000 are read.
        assert!((100..=220).contains(&read), "{read} of 500");
    }
}
