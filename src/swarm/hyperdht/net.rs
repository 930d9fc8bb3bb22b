//! The dht-rpc node as the parts of [`super::HyperDht`] share it: who asked what, and what to tell the owner.

use super::messages::{Firewall, PeerRecord};
use super::{DhtConfig, DhtEvent, announcer, connect, leave, topics, values};
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::{Ask, QueryId, QuerySpec, RequestId, Rpc};
use rand::rngs::StdRng;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Instant;

/// Which part a request or query belongs to, and what it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The announcer of the server at this target.
    Announcer(NodeId, announcer::Step),
    Connect(super::ConnectId, connect::Step),
    Topic(QueryId, topics::Step),
    Leave(u64, leave::Step),
    Value(QueryId, values::Step),
}

/// Keys that get no answer at a time; of more, the one whose time is over first gets one again. A key costs a
/// stranger nothing, so there is no end to them.
const MAX_BLOCKED: usize = 1024;

pub(super) struct Net {
    pub rpc: Rpc,
    pub config: DhtConfig,
    pub rng: StdRng,
    pub events: VecDeque<DhtEvent>,
    /// Announcements to withdraw, not begun yet.
    pub leaving: Vec<leave::Leaving>,
    requests: BTreeMap<RequestId, Owner>,
    queries: BTreeMap<QueryId, Owner>,
    /// Keys whose handshakes get no answer, and until when.
    blocked: BTreeMap<PublicKey, Instant>,
    /// Where a peer was found or said to be found next time.
    relays: lru::LruCache<PublicKey, Vec<SocketAddrV4>>,
}

impl Net {
    pub fn new(rpc: Rpc, config: DhtConfig, rng: StdRng) -> Self {
        Self {
            rpc,
            config,
            rng,
            events: VecDeque::new(),
            leaving: Vec::new(),
            requests: BTreeMap::new(),
            queries: BTreeMap::new(),
            blocked: BTreeMap::new(),
            relays: lru::LruCache::new(super::remembered()),
        }
    }

    pub fn block(&mut self, key: PublicKey, until: Instant, now: Instant) {
        self.blocked.retain(|_, until| *until > now);
        self.blocked.insert(key, until);
        if self.blocked.len() > MAX_BLOCKED
            && let Some((&first, _)) = self.blocked.iter().min_by_key(|(_, until)| **until)
        {
            self.blocked.remove(&first);
        }
    }

    pub fn is_blocked(&self, key: &PublicKey, now: Instant) -> bool {
        self.blocked.get(key).is_some_and(|until| *until > now)
    }

    pub fn ask(&mut self, ask: Ask, owner: Owner, now: Instant) -> RequestId {
        let id = self.rpc.request(ask, now);
        self.requests.insert(id, owner);
        id
    }

    pub fn query(&mut self, spec: QuerySpec, owner: Owner, now: Instant) -> QueryId {
        let id = self.rpc.query(spec, now);
        self.queries.insert(id, owner);
        id
    }

    /// Names the owner of a query that was started at the rpc node.
    pub fn own_query(&mut self, id: QueryId, owner: Owner) {
        self.queries.insert(id, owner);
    }

    pub fn known_relays(&mut self, key: &PublicKey) -> Vec<SocketAddrV4> {
        self.relays.get(key).cloned().unwrap_or_default()
    }

    pub fn remember_relays(&mut self, key: PublicKey, mut relays: Vec<SocketAddrV4>) {
        relays.truncate(PeerRecord::MAX_RELAYS);
        if !relays.is_empty() {
            self.relays.put(key, relays);
        }
    }

    /// The owner of a request that is over.
    pub fn finish_request(&mut self, id: RequestId) -> Option<Owner> {
        self.requests.remove(&id)
    }

    /// The owner of a query that goes on.
    pub fn query_owner(&self, id: QueryId) -> Option<Owner> {
        self.queries.get(&id).cloned()
    }

    pub fn finish_query(&mut self, id: QueryId) -> Option<Owner> {
        self.queries.remove(&id)
    }

    pub fn cancel_query(&mut self, id: QueryId) {
        self.queries.remove(&id);
        self.rpc.cancel_query(id);
    }

    /// Forgets all requests and queries of some owner.
    pub fn cancel_owner(&mut self, is: impl Fn(&Owner) -> bool) {
        let requests: Vec<_> =
            self.requests.iter().filter(|(_, o)| is(o)).map(|(id, _)| *id).collect();
        for id in requests {
            self.requests.remove(&id);
            self.rpc.cancel_request(id);
        }
        let queries: Vec<_> =
            self.queries.iter().filter(|(_, o)| is(o)).map(|(id, _)| *id).collect();
        queries.into_iter().for_each(|id| self.cancel_query(id));
    }

    /// Our public address, if anybody can reach us there.
    pub fn open_address(&self) -> Option<SocketAddrV4> {
        self.rpc.id().and_then(|_| self.rpc.address())
    }

    pub fn firewall(&self) -> Firewall {
        if self.open_address().is_some() { Firewall::Open } else { Firewall::Unknown }
    }

    /// The addresses to tell a peer: the public one if it is known, and those on our networks.
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        let mut list: Vec<_> = self.open_address().into_iter().collect();
        let local = self.config.local_addresses.iter().take(super::MAX_LOCAL_ADDRESSES);
        list.extend(local.filter(|a| Some(**a) != self.open_address()));
        list
    }
}
