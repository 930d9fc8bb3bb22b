//! The announcements a persistent node holds: records of topics, and routes to servers.
//!
//! What is held is counted in bytes: of one source and of all ([`Ledger`]); and of one topic, in records, where the host
//! with most of them loses one first. Each
//! announcement fades [`RECORD_AGE`] after it was last made.

use super::ledger::{Bounds, Held, Ledger};
use crate::key::{NodeId, PublicKey};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Bytes of all announcements.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of those that came from one host: some ten thousand.
const MAX_SOURCE_BYTES: usize = 2 << 20;
/// Records of one topic. A lookup shows 20 of them at random.
pub const MAX_PER_TOPIC: usize = 128;
/// How long announcements live.
pub const RECORD_AGE: Duration = Duration::from_secs(20 * 60);

/// Who announced, and what is told of it.
#[derive(Debug, Clone)]
pub struct Record {
    pub public_key: PublicKey,
    pub encoded: Vec<u8>,
}

/// Where a server announced itself from, and its encoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub relay: SocketAddrV4,
    pub record: Vec<u8>,
}

/// Whose announcement of which target it is; no key for a route.
type Whose = (NodeId, Option<PublicKey>);

/// All of them.
#[derive(Debug)]
pub struct Announcements {
    topics: HashMap<NodeId, Vec<(Record, Held)>>,
    routes: HashMap<NodeId, (Route, Held)>,
    ledger: Ledger<Whose>,
}

impl Default for Announcements {
    fn default() -> Self {
        let bounds = Bounds { total: MAX_BYTES, source: MAX_SOURCE_BYTES, age: RECORD_AGE };
        let (topics, routes) = (HashMap::new(), HashMap::new());
        Self { topics, routes, ledger: Ledger::new(bounds) }
    }
}

impl Announcements {
    /// Topics and routes held.
    pub fn len(&self) -> usize {
        self.topics.len() + self.routes.len()
    }

    pub fn route(&self, target: &NodeId) -> Option<&Route> {
        self.routes.get(target).map(|(route, _)| route)
    }

    /// The records of a topic, the oldest first.
    pub fn of_topic(&self, target: &NodeId) -> impl Iterator<Item = &Record> {
        self.topics.get(target).into_iter().flatten().map(|(record, _)| record)
    }

    /// Holds a record; false if its source holds too much already.
    pub fn put(
        &mut self,
        target: NodeId,
        record: Record,
        source: Option<Ipv4Addr>,
        now: Instant,
    ) -> bool {
        let (key, len) = (record.public_key, record.encoded.len());
        let old = self.topics.get(&target).into_iter().flatten();
        let old = old.filter(|(record, _)| record.public_key == key).map(|(_, held)| held).next();
        if !self.ledger.may_hold(source, len, old) {
            return false;
        }
        self.forget_record(&target, &key);
        let held = self.ledger.count(source, len, (target, Some(key)), now);
        let topic = self.topics.entry(target).or_default();
        topic.push((record, held));
        if topic.len() > MAX_PER_TOPIC {
            let (_, one) = topic.remove(first_of_most(topic));
            self.ledger.uncount(&one);
        }
        self.handle_timeout(now);
        true
    }

    /// Holds a route; false if its source holds too much already.
    pub fn put_route(&mut self, target: NodeId, route: Route, now: Instant) -> bool {
        let (source, len) = (Some(*route.relay.ip()), route.record.len());
        let old = self.routes.get(&target).map(|(_, held)| held);
        if !self.ledger.may_hold(source, len, old) {
            return false;
        }
        self.forget_route(&target);
        let held = self.ledger.count(source, len, (target, None), now);
        self.routes.insert(target, (route, held));
        self.handle_timeout(now);
        true
    }

    pub fn forget_route(&mut self, target: &NodeId) {
        if let Some((_, held)) = self.routes.remove(target) {
            self.ledger.uncount(&held);
        }
    }

    pub fn forget_record(&mut self, target: &NodeId, public_key: &PublicKey) {
        let Some(topic) = self.topics.get_mut(target) else { return };
        let Some(i) = topic.iter().position(|(record, _)| record.public_key == *public_key) else {
            return;
        };
        let (_, held) = topic.remove(i);
        if topic.is_empty() {
            self.topics.remove(target);
        }
        self.ledger.uncount(&held);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ledger.poll_timeout()
    }

    /// Drops what has faded, and the oldest where there is too much.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(whose) = self.ledger.to_drop(now) {
            match whose {
                (target, Some(key)) => self.forget_record(&target, &key),
                (target, None) => self.forget_route(&target),
            }
        }
    }
}

/// The oldest record of the host that has most of a topic: keys cost nothing, so the others stay. Our own are of nobody.
fn first_of_most(topic: &[(Record, Held)]) -> usize {
    let mut of_host: HashMap<Ipv4Addr, usize> = HashMap::new();
    for host in topic.iter().filter_map(|(_, held)| held.source()) {
        *of_host.entry(host).or_default() += 1;
    }
    let count = |i: &usize| {
        let host = topic.get(*i).and_then(|(_, held)| held.source());
        (host.map_or(0, |host| of_host.get(&host).copied().unwrap_or(0)), Reverse(*i))
    };
    (0..topic.len()).max_by_key(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::ledger::OVERHEAD;
    use super::*;
    use crate::crypto::hash;
    use crate::sim::epoch;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn target(n: usize) -> NodeId {
        NodeId(hash::hash(&[&n.to_le_bytes()]))
    }

    fn record(n: usize) -> Record {
        Record { public_key: PublicKey(target(n).0), encoded: vec![0; 51] }
    }

    fn host(n: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0800_0000 + n as u32)
    }

    fn route(host: Ipv4Addr) -> Route {
        Route { relay: SocketAddrV4::new(host, 1), record: vec![0; 33] }
    }

    #[test]
    fn one_source_gets_its_share_and_others_still_get_theirs() {
        let (now, mut all) = (epoch(), Announcements::default());
        let stored = (0..20_000).filter(|&n| all.put(target(n), record(n), Some(host(1)), now));
        let stored = stored.count();
        assert_eq!(stored, MAX_SOURCE_BYTES / (51 + OVERHEAD));
        assert!(!all.put_route(target(1), route(host(1)), now), "records and routes together");
        assert!(all.put(target(1), record(1), Some(host(2)), now));
        assert!(all.put_route(target(1), route(host(2)), now));
        assert!(all.put(target(30_000), record(1), None, now), "our own");
        // What it holds can be renewed, and what has faded makes room.
        assert!(all.put(target(0), record(0), Some(host(1)), now + SECOND));
        all.handle_timeout(now + RECORD_AGE);
        assert!(all.put(target(9), record(9), Some(host(1)), now + RECORD_AGE));
    }

    #[test]
    fn a_topic_keeps_so_many_records_and_the_oldest_goes() {
        let (now, mut all) = (epoch(), Announcements::default());
        for n in 0..2 * MAX_PER_TOPIC {
            all.put(target(7), record(n), Some(host(n)), now);
        }
        assert_eq!(all.of_topic(&target(7)).count(), MAX_PER_TOPIC);
        assert_eq!(all.ledger.held().1, MAX_PER_TOPIC);
        let first = all.of_topic(&target(7)).next().unwrap();
        assert_eq!(first.public_key, record(MAX_PER_TOPIC).public_key);
    }

    #[test]
    fn no_host_pushes_the_others_out_of_a_topic() {
        let (now, mut all) = (epoch(), Announcements::default());
        all.put(target(7), record(500), None, now);
        for n in 0..20 {
            all.put(target(7), record(n), Some(host(n)), now);
        }
        for n in 1000..1000 + 3 * MAX_PER_TOPIC {
            // Two of them take turns.
            assert!(all.put(target(7), record(n), Some(host(900 + n % 2)), now + SECOND));
        }
        let topic = target(7);
        let mut kept = all.of_topic(&topic).map(|r| r.public_key);
        assert_eq!(kept.next(), Some(record(500).public_key));
        assert!(kept.take(20).eq((0..20).map(|n| record(n).public_key)));
        // An honest one comes in, and they make room.
        all.put(target(7), record(30), Some(host(30)), now + SECOND);
        assert_eq!(all.of_topic(&target(7)).count(), MAX_PER_TOPIC);
        assert_eq!(all.of_topic(&target(7)).last().unwrap().public_key, record(30).public_key);
    }

    #[test]
    fn when_all_is_full_the_oldest_make_room() {
        let (now, mut all) = (epoch(), Announcements::default());
        let large = |n| Record { encoded: vec![0; 60_000], ..record(n) };
        for n in 0..2000 {
            let at = now + Duration::from_millis(n as u64);
            assert!(all.put(target(n), large(n), Some(host(n)), at));
            assert!(all.ledger.held().0 <= MAX_BYTES);
        }
        assert_eq!(all.of_topic(&target(0)).count(), 0);
        assert_eq!(all.of_topic(&target(1999)).count(), 1);
        assert_eq!(all.topics.len(), MAX_BYTES / (60_000 + OVERHEAD));
    }

    proptest! {
        /// Whatever happens, what is counted is what is held.
        #[test]
        fn the_counts_agree(ops in proptest::collection::vec((0..5u8, 0..6usize, 0..6usize, 0..4usize), 0..200)) {
            let (mut now, mut all) = (epoch(), Announcements::default());
            for (op, t, k, h) in ops {
                match op {
                    0 | 1 => { all.put(target(t), record(k), (h > 0).then(|| host(h)), now); }
                    2 => { all.put_route(target(t), route(host(h)), now); }
                    3 => { all.forget_record(&target(t), &record(k).public_key); all.forget_route(&target(h)); }
                    _ => { now += RECORD_AGE / 3; all.handle_timeout(now); }
                }
                let records = (0..6).flat_map(|t| all.of_topic(&target(t)).cloned().collect::<Vec<_>>()).map(|r| r.encoded.len() + OVERHEAD);
                let routes = (0..6).filter_map(|t| all.route(&target(t))).map(|r| r.record.len() + OVERHEAD);
                let held: Vec<usize> = records.chain(routes).collect();
                prop_assert_eq!((held.iter().sum::<usize>(), held.len()), all.ledger.held());
                let of_sources = (0..5).map(|h| all.ledger.of_source(&host(h))).sum::<usize>();
                prop_assert!(of_sources <= all.ledger.held().0);
            }
        }
    }
}
