//! What a persistent node keeps for others: announcements, routes to servers, mutable and immutable values.
//!
//! An announcement whose topic is the hash of the announcing key is a *self-announcement*: it makes the
//! sender's address a route, over which handshakes for that key are forwarded. Others are records of a
//! topic. Everything is signed for this node and for a token it just gave; nothing invalid is answered.
//! All is kept in memory, fades if not refreshed, and is bounded, of each host as well ([`Announcements`], [`ValueStore`]).
//!
//! Source: hyperdht/lib/persistent.js

use super::announcements::{Announcements, RECORD_AGE, Record, Route};
use super::ledger::{Bounds, OVERHEAD};
use super::messages::{
    Announce, LookupReply, MutablePut, MutableValue, PeerRecord, command, error,
};
use super::signatures::{Place, verify_mutable};
use super::value_store::ValueStore;
use crate::codec::Reader;
use crate::crypto::{Hash, hash};
use crate::key::{NodeId, PublicKey};
use rand::Rng;
use rand::rngs::StdRng;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// Refresh tokens and bumps: of each about as many as the reference keeps, and of those of one host as many as it may
/// have announcements. Whoever announces anew has told a new token each time, and needs the last.
const MAX_ENTRIES: usize = 65_536;
const MAX_SOURCE_ENTRIES: usize = 8192;
/// Bytes of a refresh token's entry, and of a bump, in the account.
const REFRESH_BYTES: usize = size_of::<Refresh>() + 64;
const BUMP_BYTES: usize = size_of::<u64>();
/// Records shown to a lookup.
const SHOWN: usize = 20;
/// Bytes of a value: with its signature and what surrounds it, it fits in one datagram.
const MAX_VALUE: usize = 1024;
/// How far ahead of our clock a bump may be.
const MAX_BUMP_DRIFT_MS: u64 = 60_000;

/// Of entries of so many bytes.
fn bounds(bytes: usize) -> Bounds {
    let bytes = bytes + OVERHEAD;
    Bounds { total: MAX_ENTRIES * bytes, source: MAX_SOURCE_ENTRIES * bytes, age: RECORD_AGE }
}

/// What a refresh token stands for.
#[derive(Debug, Clone)]
struct Refresh {
    target: NodeId,
    public_key: PublicKey,
    encoded: Vec<u8>,
    own: bool,
}

/// A request that is to be answered with a value, or with an error.
#[derive(Debug, PartialEq, Eq)]
pub enum Stored {
    Ok,
    Error(u64),
}

/// The storage of a persistent node.
#[derive(Debug)]
pub struct Records {
    announcements: Announcements,
    bumps: ValueStore<u64>,
    /// By the hashes that tokens are checked with.
    refreshes: ValueStore<Refresh>,
    mutables: ValueStore<MutableValue>,
    immutables: ValueStore<Vec<u8>>,
    started: Instant,
    started_unix_ms: u64,
}

impl Records {
    /// `unix_ms` is the wall clock at `now`.
    pub fn new(unix_ms: u64, now: Instant) -> Self {
        Self {
            announcements: Announcements::default(),
            bumps: ValueStore::new(bounds(BUMP_BYTES)),
            refreshes: ValueStore::new(bounds(REFRESH_BYTES)),
            mutables: ValueStore::default(),
            immutables: ValueStore::default(),
            started: now,
            started_unix_ms: unix_ms,
        }
    }

    pub fn route(&self, target: &NodeId) -> Option<&Route> {
        self.announcements.route(target)
    }

    /// Topics, routes and values held.
    pub fn len(&self) -> usize {
        self.announcements.len() + self.mutables.len() + self.immutables.len()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer to LOOKUP, if anything is known.
    pub fn lookup(&self, target: &NodeId, rng: &mut StdRng) -> Option<Vec<u8>> {
        let mut live: Vec<&Record> = self.announcements.of_topic(target).collect();
        let shown = live.len().min(SHOWN);
        for i in 0..shown {
            let j = rng.random_range(i..live.len());
            live.swap(i, j);
        }
        let mut shown: Vec<&[u8]> = live[..shown].iter().map(|r| &r.encoded[..]).collect();
        if shown.len() < SHOWN {
            shown.extend(self.route(target).map(|route| &route.record[..]));
        }
        let bump = self.bumps.get(target).copied().unwrap_or(0);
        (!shown.is_empty()).then(|| LookupReply::encode_raw(&shown, bump))
    }

    /// Takes an ANNOUNCE that came from `from`; true if it is to be acknowledged.
    pub fn announce(
        &mut self,
        place: Place<'_>,
        value: &[u8],
        from: SocketAddrV4,
        now: Instant,
    ) -> bool {
        let Ok(announce) = Announce::decode(value) else { return false };
        let Some(mut peer) = announce.peer.clone() else {
            return announce.refresh.is_some_and(|token| self.refresh(token, from, now));
        };
        if !place.verify(command::ANNOUNCE, &announce) {
            return false;
        }
        peer.relay_addresses.truncate(PeerRecord::MAX_RELAYS);
        let entry = Refresh {
            target: *place.target,
            public_key: peer.public_key,
            encoded: peer.encode(),
            own: hash::hash(&[&peer.public_key.0]) == place.target.0,
        };
        if !self.store(&entry, from, now) {
            return false;
        }
        if !entry.own {
            self.bump(place.target, announce.bump, *from.ip(), now);
        }
        if let Some(token) = announce.refresh {
            self.note_refresh(token, entry, *from.ip(), now);
        }
        true
    }

    #[cfg(test)]
    pub fn route_for_test(&mut self, target: NodeId, relay: SocketAddrV4, now: Instant) {
        self.announcements.put_route(target, Route { relay, record: vec![] }, now);
    }

    /// Puts our own record under a topic: we may be the nearest node there is.
    pub fn announce_own(&mut self, target: &NodeId, peer: &PeerRecord, now: Instant) {
        let record = Record { public_key: peer.public_key, encoded: peer.encode() };
        self.announcements.put(*target, record, None, now);
    }

    /// Takes an UNANNOUNCE; true if it is to be acknowledged.
    pub fn unannounce(&mut self, place: Place<'_>, value: &[u8]) -> bool {
        let Ok(announce) = Announce::decode(value) else { return false };
        let Some(peer) = &announce.peer else { return false };
        if !place.verify(command::UNANNOUNCE, &announce) {
            return false;
        }
        self.forget(place.target, &peer.public_key);
        true
    }

    /// Drops whatever the key announced under a target.
    pub fn forget(&mut self, target: &NodeId, public_key: &PublicKey) {
        if hash::hash(&[&public_key.0]) == target.0 {
            self.announcements.forget_route(target);
        }
        self.announcements.forget_record(target, public_key);
    }

    /// The answer to MUTABLE_GET: the value, if it is at least as new as asked for. `None` if the
    /// request makes no sense.
    pub fn mutable_get(&self, target: &NodeId, value: &[u8]) -> Option<Option<Vec<u8>>> {
        let seq = Reader::new(value).uint().ok()?;
        Some(self.mutables.get(target).filter(|v| v.seq >= seq).map(MutableValue::encode))
    }

    /// Takes a MUTABLE_PUT of a host. `None` if it gets no answer: it makes no sense, or the host holds too much.
    pub fn mutable_put(
        &mut self,
        target: &NodeId,
        value: &[u8],
        from: Ipv4Addr,
        now: Instant,
    ) -> Option<Stored> {
        let put = MutablePut::decode(value).ok()?;
        let new = put.value;
        if hash::hash(&[&put.public_key.0]) != target.0
            || new.value.is_empty()
            || new.value.len() > MAX_VALUE
            || !verify_mutable(&new, &put.public_key)
        {
            return None;
        }
        if let Some(known) = self.mutables.get(target) {
            if known.seq == new.seq && known.value != new.value {
                return Some(Stored::Error(error::SEQ_REUSED));
            }
            if new.seq < known.seq {
                return Some(Stored::Error(error::SEQ_TOO_LOW));
            }
        }
        let len = new.value.len();
        self.mutables.put(*target, new, len, from, now).then_some(Stored::Ok)
    }

    pub fn immutable_get(&self, target: &NodeId) -> Option<Vec<u8>> {
        self.immutables.get(target).cloned()
    }

    /// Takes an IMMUTABLE_PUT of a host; `None` as with [`Self::mutable_put`].
    pub fn immutable_put(
        &mut self,
        target: &NodeId,
        value: &[u8],
        from: Ipv4Addr,
        now: Instant,
    ) -> Option<Stored> {
        if value.len() > MAX_VALUE || hash::hash(&[value]) != target.0 {
            return None;
        }
        let kept = self.immutables.put(*target, value.to_vec(), value.len(), from, now);
        kept.then_some(Stored::Ok)
    }

    /// None if there is nothing to fade.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let fades = [
            self.announcements.poll_timeout(),
            self.bumps.poll_timeout(),
            self.refreshes.poll_timeout(),
            self.mutables.poll_timeout(),
            self.immutables.poll_timeout(),
        ];
        fades.into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.announcements.handle_timeout(now);
        self.bumps.handle_timeout(now);
        self.refreshes.handle_timeout(now);
        self.mutables.handle_timeout(now);
        self.immutables.handle_timeout(now);
    }

    /// False if the source holds too much already.
    fn store(&mut self, entry: &Refresh, from: SocketAddrV4, now: Instant) -> bool {
        let encoded = entry.encoded.clone();
        if entry.own {
            let route = Route { relay: from, record: encoded };
            return self.announcements.put_route(entry.target, route, now);
        }
        let record = Record { public_key: entry.public_key, encoded };
        self.announcements.put(entry.target, record, Some(*from.ip()), now)
    }

    fn bump(&mut self, target: &NodeId, bump: u64, from: Ipv4Addr, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_millis() as u64;
        let latest = self.started_unix_ms.saturating_add(elapsed + MAX_BUMP_DRIFT_MS);
        if bump > self.bumps.get(target).copied().unwrap_or(0) && bump <= latest {
            // Without room for it the records are shown all the same.
            self.bumps.put(*target, bump, BUMP_BYTES, from, now);
        }
    }

    fn note_refresh(&mut self, token: Hash, entry: Refresh, from: Ipv4Addr, now: Instant) {
        // Without room for it the announcement is made anew when it is to be renewed.
        self.refreshes.put(NodeId(token), entry, REFRESH_BYTES, from, now);
    }

    /// Whoever knows what hashes to a registered token may renew that announcement once.
    fn refresh(&mut self, token: [u8; 32], from: SocketAddrV4, now: Instant) -> bool {
        let known = NodeId(hash::hash(&[&token]));
        let Some(entry) = self.refreshes.remove(&known) else { return false };
        let stored = self.store(&entry, from, now);
        self.note_refresh(token, entry, *from.ip(), now);
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KeyPair;
    use crate::sim::epoch;
    use crate::swarm::hyperdht::signatures::sign_mutable;
    use crate::swarm::hyperdht::value_store::VALUE_AGE;
    use rand::SeedableRng;

    const FROM: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(1, 2, 3, 4), 5);
    const NODE: NodeId = NodeId([8; 32]);
    const TOKEN: [u8; 32] = [6; 32];

    fn pair(n: u8) -> KeyPair {
        KeyPair::from_seed(&[n; 32])
    }

    fn record(pair: &KeyPair) -> PeerRecord {
        PeerRecord { public_key: PublicKey(pair.public()), relay_addresses: vec![FROM; 5] }
    }

    fn announce(records: &mut Records, target: &NodeId, pair: &KeyPair, now: Instant) -> bool {
        let place = Place { target, node: &NODE, token: &TOKEN };
        let value = place.announce(record(pair), pair).encode();
        records.announce(place, &value, FROM, now)
    }

    fn found(records: &Records, target: &NodeId) -> Vec<PublicKey> {
        let mut rng = StdRng::seed_from_u64(1);
        let Some(value) = records.lookup(target, &mut rng) else { return Vec::new() };
        LookupReply::decode(&value).unwrap().peers.iter().map(|p| p.public_key).collect()
    }

    #[test]
    fn a_topic_keeps_each_key_once_and_forgets_on_demand() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let topic = NodeId([7; 32]);
        for n in [1, 2, 1] {
            assert!(announce(&mut records, &topic, &pair(n), now));
        }
        assert_eq!(found(&records, &topic).len(), 2);
        let place = Place { target: &topic, node: &NODE, token: &TOKEN };
        let value = place.unannounce(&pair(1)).encode();
        assert!(!records.unannounce(Place { token: &[0; 32], ..place }, &value), "other token");
        assert!(records.unannounce(place, &value));
        assert_eq!(found(&records, &topic), [PublicKey(pair(2).public())]);
    }

    #[test]
    fn records_carry_three_relays_at_most() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let topic = NodeId([7; 32]);
        announce(&mut records, &topic, &pair(1), now);
        let value = records.lookup(&topic, &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(LookupReply::decode(&value).unwrap().peers[0].relay_addresses.len(), 3);
    }

    #[test]
    fn announcing_the_own_key_makes_a_route() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let own = NodeId(hash::hash(&[&pair(1).public()]));
        assert!(announce(&mut records, &own, &pair(1), now));
        assert_eq!(records.route(&own).unwrap().relay, FROM);
        assert_eq!(found(&records, &own).len(), 1);
        records.forget(&own, &PublicKey(pair(1).public()));
        assert!(records.route(&own).is_none());
    }

    #[test]
    fn unsigned_and_foreign_announcements_are_not_stored() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let topic = NodeId([7; 32]);
        let place = Place { target: &topic, node: &NODE, token: &TOKEN };
        let mut forged = place.announce(record(&pair(1)), &pair(2));
        assert!(!records.announce(place, &forged.encode(), FROM, now));
        forged.signature = None;
        assert!(!records.announce(place, &forged.encode(), FROM, now));
        assert!(!records.announce(place, &[1, 2, 3], FROM, now));
        assert!(records.is_empty());
    }

    #[test]
    fn announcements_fade_unless_made_again() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let topic = NodeId([7; 32]);
        announce(&mut records, &topic, &pair(1), now);
        announce(&mut records, &topic, &pair(2), now);
        let later = now + RECORD_AGE / 2;
        records.handle_timeout(later);
        announce(&mut records, &topic, &pair(2), later);
        assert_eq!(found(&records, &topic).len(), 2);
        records.handle_timeout(now + RECORD_AGE);
        assert_eq!(found(&records, &topic), [PublicKey(pair(2).public())]);
    }

    #[test]
    fn a_lookup_shows_some_of_many_records() {
        let now = epoch();
        let mut records = Records::new(0, now);
        for n in 0..100 {
            let peer = record(&KeyPair::from_seed(&hash::hash(&[&[n]])));
            records.announce_own(&NodeId([7; 32]), &peer, now);
        }
        assert_eq!(found(&records, &NodeId([7; 32])).len(), SHOWN);
    }

    #[test]
    fn a_refresh_token_renews_once_and_passes_on() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let first = [1; 32];
        let second = hash::hash(&[&first]);
        let target = NodeId([7; 32]);
        let entry = Refresh {
            target,
            public_key: PublicKey(pair(1).public()),
            encoded: record(&pair(1)).encode(),
            own: false,
        };
        records.note_refresh(second, entry, *FROM.ip(), now);
        let renew = |token| Announce { refresh: Some(token), ..Announce::default() }.encode();
        let place = Place { target: &target, node: &NODE, token: &TOKEN };
        assert!(!records.announce(place, &renew([9; 32]), FROM, now));
        assert!(records.announce(place, &renew(first), FROM, now));
        assert!(!records.announce(place, &renew(first), FROM, now), "once");
        assert_eq!(found(&records, &target).len(), 1);
    }

    #[test]
    fn mutable_values_only_move_forward() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let public_key = PublicKey(pair(1).public());
        let target = NodeId(hash::hash(&[&public_key.0]));
        let put = |seq, text: &str| {
            MutablePut { public_key, value: sign_mutable(seq, text.into(), &pair(1)) }.encode()
        };
        assert_eq!(records.mutable_put(&target, &put(2, "a"), *FROM.ip(), now), Some(Stored::Ok));
        let reused = Some(Stored::Error(error::SEQ_REUSED));
        assert_eq!(records.mutable_put(&target, &put(2, "b"), *FROM.ip(), now), reused);
        let low = Some(Stored::Error(error::SEQ_TOO_LOW));
        assert_eq!(records.mutable_put(&target, &put(1, "c"), *FROM.ip(), now), low);
        assert_eq!(records.mutable_put(&target, &put(3, "d"), *FROM.ip(), now), Some(Stored::Ok));
        let forged = MutableValue { seq: 9, ..sign_mutable(3, b"d".to_vec(), &pair(1)) };
        let forged = MutablePut { public_key, value: forged }.encode();
        assert_eq!(records.mutable_put(&target, &forged, *FROM.ip(), now), None, "unsigned");
        for len in [0, MAX_VALUE + 1] {
            let put = put(9, &"x".repeat(len));
            assert_eq!(records.mutable_put(&target, &put, *FROM.ip(), now), None, "{len}");
        }
        assert_eq!(
            records.mutable_put(&NODE, &put(3, "d"), *FROM.ip(), now),
            None,
            "under its key only"
        );
        assert_eq!(records.mutable_get(&target, &[4]), Some(None));
        let value = records.mutable_get(&target, &[3]).unwrap().unwrap();
        assert_eq!(MutableValue::decode(&value).unwrap().value, b"d");
        assert_eq!(records.mutable_get(&target, &[]), None);
    }

    #[test]
    fn immutable_values_are_kept_under_their_hash() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let target = NodeId(hash::hash(&[b"hello"]));
        assert_eq!(records.immutable_put(&NODE, b"hello", *FROM.ip(), now), None);
        assert_eq!(records.immutable_put(&target, b"hello", *FROM.ip(), now), Some(Stored::Ok));
        assert_eq!(records.immutable_get(&target).as_deref(), Some(&b"hello"[..]));
        let big = vec![0; MAX_VALUE + 1];
        assert_eq!(
            records.immutable_put(&NodeId(hash::hash(&[&big])), &big, *FROM.ip(), now),
            None
        );
    }

    #[test]
    fn no_host_fills_the_store_with_values_and_both_kinds_fade() {
        let now = epoch();
        let mut records = Records::new(0, now);
        let other = Ipv4Addr::new(5, 6, 7, 8);
        let put = |records: &mut Records, n: u32, from| {
            let value = [&n.to_le_bytes()[..], &[0; 1000]].concat();
            let put = records.immutable_put(&NodeId(hash::hash(&[&value])), &value, from, now);
            put == Some(Stored::Ok)
        };
        let kept = (0..2000).filter(|&n| put(&mut records, n, *FROM.ip())).count();
        assert!((500..1000).contains(&kept), "{kept}");
        assert!(put(&mut records, 3000, other));
        let put = |records: &mut Records, n: u32, from| {
            let pair = KeyPair::from_seed(&hash::hash(&[&n.to_le_bytes()]));
            let public_key = PublicKey(pair.public());
            let put = MutablePut { public_key, value: sign_mutable(1, vec![0; 1000], &pair) };
            let target = NodeId(hash::hash(&[&public_key.0]));
            records.mutable_put(&target, &put.encode(), from, now) == Some(Stored::Ok)
        };
        let kept = (0..1000).filter(|&n| put(&mut records, n, *FROM.ip())).count();
        assert!((500..1000).contains(&kept), "{kept}");
        assert!(put(&mut records, 3000, other));
        let mut at = now;
        while !records.is_empty() {
            at = records.poll_timeout().unwrap();
            records.handle_timeout(at);
        }
        assert_eq!(at, now + VALUE_AGE);
    }

    #[test]
    fn a_bump_from_the_future_is_ignored() {
        let now = epoch();
        let mut records = Records::new(1_000_000, now);
        let topic = NodeId([7; 32]);
        records.bump(&topic, 1_000_000 + MAX_BUMP_DRIFT_MS + 1, *FROM.ip(), now);
        assert_eq!(records.bumps.get(&topic), None);
        records.bump(&topic, 1_000_000 + MAX_BUMP_DRIFT_MS, *FROM.ip(), now);
        records.bump(&topic, 5, *FROM.ip(), now);
        assert_eq!(records.bumps.get(&topic), Some(&(1_000_000 + MAX_BUMP_DRIFT_MS)));
    }
    #[test]
    fn no_host_takes_the_tokens_and_bumps_of_others() {
        let now = epoch();
        let mut records = Records::new(1_000_000, now);
        let other = Ipv4Addr::new(5, 6, 7, 8);
        let numbered = |n: u32| hash::hash(&[&n.to_le_bytes()]);
        let entry = |n| Refresh {
            target: NodeId(numbered(n)),
            public_key: PublicKey([1; 32]),
            encoded: vec![0; 51],
            own: false,
        };
        records.note_refresh(numbered(0), entry(0), other, now);
        records.bump(&NodeId(numbered(0)), 7, other, now);
        for n in 1..2 * MAX_ENTRIES as u32 {
            records.note_refresh(numbered(n), entry(n), *FROM.ip(), now);
            records.bump(&NodeId(numbered(n)), 7, *FROM.ip(), now);
        }
        assert!(records.refreshes.get(&NodeId(numbered(0))).is_some());
        assert!(records.bumps.get(&NodeId(numbered(0))).is_some());
        assert_eq!(records.refreshes.len(), 1 + MAX_SOURCE_ENTRIES);
        assert_eq!(records.bumps.len(), 1 + MAX_SOURCE_ENTRIES);
        records.handle_timeout(now + RECORD_AGE);
        assert_eq!((records.refreshes.len(), records.bumps.len()), (0, 0));
        assert_eq!(records.poll_timeout(), None);
    }

    #[test]
    fn an_announcement_that_is_refused_bumps_nothing() {
        let now = epoch();
        let mut records = Records::new(1_000_000, now);
        let topic = NodeId([7; 32]);
        // The host has all that it may have.
        let large = Record { public_key: PublicKey([1; 32]), encoded: vec![0; 100_000] };
        let mut full = 0u32;
        while records.announcements.put(
            NodeId(hash::hash(&[&full.to_le_bytes()])),
            large.clone(),
            Some(*FROM.ip()),
            now,
        ) {
            full += 1;
        }
        let small = Record { public_key: PublicKey([1; 32]), encoded: vec![0; 51] };
        while records.announcements.put(
            NodeId(hash::hash(&[&full.to_le_bytes()])),
            small.clone(),
            Some(*FROM.ip()),
            now,
        ) {
            full += 1;
        }
        let place = Place { target: &topic, node: &NODE, token: &TOKEN };
        let mut announce = place.announce(record(&pair(1)), &pair(1));
        announce.bump = 1_000_000;
        assert!(!records.announce(place, &announce.encode(), FROM, now));
        assert_eq!(records.bumps.get(&topic), None);
        let from = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 8), 9);
        assert!(records.announce(place, &announce.encode(), from, now));
        assert_eq!(records.bumps.get(&topic), Some(&1_000_000));
    }
}
