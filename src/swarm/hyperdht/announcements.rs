//! The announcements a persistent node holds: records of topics, and routes to servers.
//!
//! Whoever shows a token can announce as many keys as it likes, so what is held is counted in bytes: of one
//! source, of one topic (in records), and of all. A source that holds its share is refused; when all is full
//! the oldest make room. Each announcement fades [`RECORD_AGE`] after it was last made.

use crate::key::{NodeId, PublicKey};
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Bytes of all announcements.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of those that came from one host: some ten thousand.
const MAX_SOURCE_BYTES: usize = 2 << 20;
/// Records of one topic. A lookup shows 20 of them at random.
pub const MAX_PER_TOPIC: usize = 128;
/// What one announcement takes besides its record: its keys here, in the topic and in the order of age.
const OVERHEAD: usize = 192;
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

/// What is counted of one announcement.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// None: our own, which has no bound but the total.
    source: Option<Ipv4Addr>,
    bytes: usize,
    age: Age,
}

/// When it was made, and a number to tell those of one moment apart.
type Age = (Instant, u64);

/// All of them.
#[derive(Debug, Default)]
pub struct Announcements {
    topics: HashMap<NodeId, Vec<(Record, Held)>>,
    routes: HashMap<NodeId, (Route, Held)>,
    /// Whose announcement of which target it is; no key for a route.
    by_age: BTreeMap<Age, (NodeId, Option<PublicKey>)>,
    by_source: HashMap<Ipv4Addr, usize>,
    bytes: usize,
    next: u64,
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
        self.forget_record(&target, &record.public_key);
        let bytes = record.encoded.len() + OVERHEAD;
        let key = Some(record.public_key);
        let Some(held) = self.count(source, bytes, (target, key), now) else { return false };
        let topic = self.topics.entry(target).or_default();
        topic.push((record, held));
        if topic.len() > MAX_PER_TOPIC {
            let (_, oldest) = topic.remove(0);
            self.uncount(&oldest);
        }
        self.make_room();
        true
    }

    /// Holds a route; false if its source holds too much already.
    pub fn put_route(&mut self, target: NodeId, route: Route, now: Instant) -> bool {
        self.forget_route(&target);
        let bytes = route.record.len() + OVERHEAD;
        let source = Some(*route.relay.ip());
        let Some(held) = self.count(source, bytes, (target, None), now) else { return false };
        self.routes.insert(target, (route, held));
        self.make_room();
        true
    }

    pub fn forget_route(&mut self, target: &NodeId) {
        if let Some((_, held)) = self.routes.remove(target) {
            self.uncount(&held);
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
        self.uncount(&held);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|((at, _), _)| *at + RECORD_AGE)
    }

    /// Drops what has faded.
    pub fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.forget_oldest();
        }
    }

    fn make_room(&mut self) {
        while self.bytes > MAX_BYTES && !self.by_age.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        match self.by_age.first_key_value().map(|(_, whose)| *whose) {
            Some((target, Some(key))) => self.forget_record(&target, &key),
            Some((target, None)) => self.forget_route(&target),
            None => {}
        }
    }

    fn count(
        &mut self,
        source: Option<Ipv4Addr>,
        bytes: usize,
        whose: (NodeId, Option<PublicKey>),
        now: Instant,
    ) -> Option<Held> {
        if let Some(source) = source {
            let held = self.by_source.entry(source).or_default();
            if *held + bytes > MAX_SOURCE_BYTES {
                return None;
            }
            *held += bytes;
        }
        self.bytes += bytes;
        self.next += 1;
        let age = (now, self.next);
        self.by_age.insert(age, whose);
        Some(Held { source, bytes, age })
    }

    fn uncount(&mut self, held: &Held) {
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
}

#[cfg(test)]
mod tests {
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
        assert_eq!(all.by_age.len(), MAX_PER_TOPIC);
        let first = all.of_topic(&target(7)).next().unwrap();
        assert_eq!(first.public_key, record(MAX_PER_TOPIC).public_key);
    }

    #[test]
    fn when_all_is_full_the_oldest_make_room() {
        let (now, mut all) = (epoch(), Announcements::default());
        let large = |n| Record { encoded: vec![0; 60_000], ..record(n) };
        for n in 0..2000 {
            let at = now + Duration::from_millis(n as u64);
            assert!(all.put(target(n), large(n), Some(host(n)), at));
            assert!(all.bytes <= MAX_BYTES);
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
                prop_assert_eq!((held.iter().sum::<usize>(), held.len()), (all.bytes, all.by_age.len()));
                let of_sources = (0..5).filter_map(|h| all.by_source.get(&host(h))).sum::<usize>();
                prop_assert!(of_sources <= all.bytes);
            }
        }
    }
}
