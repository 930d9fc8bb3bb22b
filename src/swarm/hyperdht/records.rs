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
#[path = "records/tests.rs"]
mod tests;
