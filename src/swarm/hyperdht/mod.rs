//! HyperDHT: finding peers by key or topic, and agreeing on a connection with them.
//!
//! [`HyperDht`] is a dht-rpc node that knows HyperDHT's commands. As a *client* it looks topics up and
//! connects to keys; as a *server* it announces keys and answers handshakes; as a *persistent node* it
//! stores announcements for others and passes their handshakes on, and can be the first node of a network.
//!
//! Where neither side can be reached as it is, both open their NATs towards each other at the same time (`punch`).
//!
//! It knows no UDX: it is given stream ids, and says what to connect where ([`DhtEvent::Outgoing`],
//! [`DhtEvent::Incoming`]). Both end in a [`Dial`], or in waiting for the first
//! packet to the local stream id, whose source then is the peer.
//!
//! Sans-io: after each command or `handle_*` the owner drains [`HyperDht::poll_event`] and
//! [`HyperDht::poll_transmit`] and looks at [`HyperDht::poll_timeout`].
//!
//! Source: hyperdht/index.js

mod announcements;
mod announcer;
mod blocked;
mod connect;
mod dials;
mod dispatch;
mod event;
pub mod handshake;
mod handshake_allowance;
mod hints;
mod known_relays;
mod leave;
mod ledger;
pub mod messages;
mod nat;
mod net;
mod news;
mod owner;
mod punch;
mod records;
mod router;
pub mod secure_payload;
mod server;
mod sessions;
pub mod signatures;
mod silent_relays;
mod topics;
mod turns;
mod value_store;

#[cfg(test)]
mod tests;

pub use event::{Agreed, ConnectError, ConnectId, DhtConfig, DhtEvent, Dial, RelayAsk, Relays};
pub use messages::{Firewall, RelayOffer};
#[cfg(test)]
pub use net::KNOCKS;

use super::SocketId;
use super::Standing;
use super::dht_rpc::{Health, NatSampler, QueryId, QuerySpec, Rpc, RpcConfig, Transmit};
use super::lan::Link;
use crate::crypto::{KeyPair, hash};
use crate::key::{NodeId, PublicKey, Topic};
use blocked::Blocked;
use connect::Connect;
pub use connect::Whereabouts;
use known_relays::KnownRelays;
use leave::Leaving;
use messages::{PeerRecord, command};
use net::{Net, Withdrawal};
use owner::{Owner, TopicStep};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};
use records::Records;
use server::Server;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;
use topics::{Aim, TopicQuery};

/// Keys whose relays are remembered, as many as in the reference.
const MAX_REMEMBERED: usize = 512;
/// Topics whose nearest nodes are remembered: each is 20 addresses.
const MAX_TOPICS: usize = 4096;
/// Nodes asked by a glance: each of the 20 nearest holds what was announced.
const GLANCE: usize = 3;

/// A HyperDHT node.
pub struct HyperDht {
    net: Net,
    records: Option<Records>,
    servers: BTreeMap<NodeId, Server>,
    connects: BTreeMap<ConnectId, Connect>,
    topics: BTreeMap<QueryId, TopicQuery>,
    leaving: BTreeMap<u64, (Leaving, Option<PublicKey>)>,
    /// Nodes nearest to a topic at its last query.
    closest: lru::LruCache<NodeId, Vec<SocketAddrV4>>,
    blocked: Blocked,
    known_relays: KnownRelays,
    next_id: u64,
}

impl HyperDht {
    pub fn new(config: DhtConfig, mut rng: StdRng, now: Instant) -> Self {
        let rpc_config = RpcConfig {
            bootstrap: config.bootstrap.clone(),
            persistent: config.persistent,
            address: config.address,
            allow_bogons: config.allow_bogons,
        };
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let rpc = Rpc::new(rpc_config, StdRng::from_seed(seed), now);
        let mut dht = Self {
            net: Net::new(rpc, config, rng, now),
            records: None,
            servers: BTreeMap::new(),
            connects: BTreeMap::new(),
            topics: BTreeMap::new(),
            leaving: BTreeMap::new(),
            closest: growing(MAX_TOPICS),
            blocked: Blocked::default(),
            known_relays: KnownRelays::new(bound(MAX_REMEMBERED)),
            next_id: 0,
        };
        dht.pump(now);
        dht
    }

    /// Our id, if we are a persistent node.
    pub fn id(&self) -> Option<NodeId> {
        self.net.rpc.id()
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.net.config.key_pair.public())
    }

    /// Our address as others see it.
    pub fn nat(&self) -> &NatSampler {
        self.net.rpc.nat()
    }

    /// Whether our NAT has another port for each destination, as far as is known.
    pub fn has_random_ports(&self) -> bool {
        self.net.nat_verdict().0 == messages::Firewall::Random
    }

    /// Our public address, if anybody can reach us there, also through a router.
    pub fn open_address(&self) -> Option<SocketAddrV4> {
        self.net.rpc.open_address()
    }

    pub fn health(&self) -> &Health {
        self.net.rpc.health()
    }

    /// Whether others can send to us unasked.
    #[cfg(test)]
    pub fn access(&self) -> super::Access {
        self.net.rpc.access()
    }

    /// How we stand towards the others.
    pub fn standing(&self) -> Standing {
        let (firewall, seen) = self.net.nat();
        let seen = (firewall, seen.first().copied());
        let own = &self.net.config.local_addresses;
        let asks_later = self.net.rpc.spares();
        Standing {
            asks_later,
            ..Standing::new(self.net.rpc.access(), seen, own, self.id().is_some())
        }
    }

    /// Nodes in the routing table.
    pub fn nodes(&self) -> usize {
        self.net.rpc.table().len()
    }

    /// Announcements, routes and values held for others.
    pub fn records(&self) -> usize {
        self.records.as_ref().map_or(0, Records::len)
    }

    /// The relays of a key we listen on.
    pub fn relay_addresses(&self, key: &PublicKey) -> Vec<SocketAddrV4> {
        let server = self.servers.get(&target_of(key));
        server.map_or_else(Vec::new, |s| s.announcer.relay_addresses(&self.net))
    }

    /// Our addresses on the local networks changed.
    pub fn set_local_addresses(&mut self, addresses: Vec<SocketAddrV4>) {
        self.net.config.local_addresses = addresses;
    }

    /// What we send leaves from elsewhere: what was known of our address is void.
    pub fn network_changed(&mut self, now: Instant) {
        self.net.rpc.network_changed(now);
        self.refresh(now);
    }

    /// See [`super::Swarm::await_port_mapping`].
    pub fn hold_probe(&mut self, until: Instant) {
        self.net.rpc.hold_probe(until);
    }

    /// See [`super::Swarm::port_mapping_is_known`].
    pub fn probe_anew(&mut self, mapped: Option<SocketAddrV4>, now: Instant) {
        self.net.rpc.probe_anew(mapped, now);
        self.pump(now);
    }

    /// We are on these local networks: hosts there may shake hands with us directly, whatever their addresses.
    pub fn set_neighbourhood(&mut self, links: Vec<Link>) {
        self.net.links = links;
    }

    /// Our public address, which we were told, is another one.
    pub fn set_address(&mut self, address: SocketAddrV4, now: Instant) {
        self.net.rpc.set_address(address, now);
        self.pump(now);
    }

    /// The nodes to start from have other addresses. True if that is news.
    pub fn set_bootstrap(&mut self, nodes: Vec<SocketAddrV4>, now: Instant) -> bool {
        let news = self.net.rpc.set_bootstrap(nodes, now);
        self.pump(now);
        news
    }

    /// Peers are told from now on that this is a relay of ours, or that there is none.
    pub fn offer_relay(&mut self, offer: Option<RelayOffer>) {
        self.net.config.relay = offer;
    }

    /// Handshakes of `key` get no answer until `until`.
    pub fn block(&mut self, key: PublicKey, until: Instant, now: Instant) {
        self.blocked.add(key, until, now);
    }

    /// A peer showed that it is at `host`: when it comes again a flood of strangers does not keep it out.
    pub fn connected(&mut self, host: IpAddr) {
        self.wrote_to(host);
        self.servers.values_mut().for_each(|server| server.connected(host));
    }

    /// Whether a handshake from `host` is one of a host that was there before.
    #[cfg(test)]
    pub fn is_known(&self, host: IpAddr) -> bool {
        self.servers.values().any(|server| server.is_known(host))
    }

    /// Announces a key and answers its handshakes. Does nothing if it is listened on already.
    pub fn listen(&mut self, key_pair: Arc<KeyPair>, now: Instant) {
        let target = target_of(&PublicKey(key_pair.public()));
        if !self.servers.contains_key(&target) {
            let server = Server::start(key_pair, target, &mut self.net, now);
            self.servers.insert(target, server);
        }
        self.pump(now);
    }

    /// Stops listening on a key and tells its relays; [`DhtEvent::Unlistened`] when that is done.
    pub fn unlisten(&mut self, key: &PublicKey, now: Instant) {
        if let Some(mut server) = self.servers.remove(&target_of(key)) {
            server.sessions.end_all(&mut self.net);
            let withdrawal = server.announcer.stop(&mut self.net);
            self.leave(withdrawal, Some(*key), now);
        }
        self.pump(now);
    }

    /// Finds peers of a topic.
    pub fn lookup(&mut self, topic: Topic, now: Instant) -> QueryId {
        self.topic_query(topic, Aim::Lookup, now)
    }

    /// Finds peers of a topic at a few of the nodes nearest to it at its last query; where none are known,
    /// as [`Self::lookup`].
    pub fn glance(&mut self, topic: Topic, now: Instant) -> QueryId {
        self.topic_query(topic, Aim::Glance, now)
    }

    /// Finds peers of a topic and announces our key under it. Listen first: the record names our relays.
    pub fn announce(&mut self, topic: Topic, now: Instant) -> QueryId {
        self.topic_query(topic, Aim::Announce, now)
    }

    /// Withdraws our key from a topic, asking the nodes nearest at the last announcement first.
    pub fn unannounce(&mut self, topic: Topic, now: Instant) -> QueryId {
        let key = self.public_key();
        if let Some(records) = &mut self.records {
            records.forget(&NodeId(topic.0), &key);
        }
        self.topic_query(topic, Aim::Unannounce, now)
    }

    /// Ends a topic query without an event.
    pub fn cancel_topic_query(&mut self, id: QueryId) {
        if self.topics.remove(&id).is_some() {
            self.net.cancel_query(id);
            self.net.cancel_owner(|o| matches!(o, Owner::Topic(q, _) if *q == id));
        }
    }

    /// Renews all announcements of listening keys: the network changed.
    pub fn refresh(&mut self, now: Instant) {
        self.refresh_announcers(now);
        self.pump(now);
    }

    /// Takes a datagram; false if it is not for the DHT.
    pub fn handle_datagram(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        data: &[u8],
        now: Instant,
    ) -> bool {
        if punch::is_punch(data) {
            self.on_punch(socket, from, now);
            return true;
        }
        let ours = self.net.rpc.handle_datagram(socket, from, data, now);
        if ours {
            self.pump(now);
        }
        ours
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.net.rpc.poll_transmit()
    }

    pub fn poll_event(&mut self) -> Option<DhtEvent> {
        self.net.events.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let servers = self.servers.values().filter_map(Server::poll_timeout);
        let records = self.records.iter().filter_map(Records::poll_timeout);
        let connects = self.connects.values().filter_map(Connect::poll_timeout);
        servers.chain(records).chain(connects).chain(self.net.rpc.poll_timeout()).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.net.rpc.handle_timeout(now);
        if let Some(records) = &mut self.records {
            records.handle_timeout(now);
        }
        self.pump(now);
        for server in self.servers.values_mut() {
            server.handle_timeout(&mut self.net, now);
        }
        let due =
            self.connects.iter().filter(|(_, c)| c.poll_timeout().is_some_and(|at| at <= now));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(connect) = self.connects.get_mut(&id) {
                connect.handle_timeout(&mut self.net, now);
            }
            self.finish_connect(id);
        }
        self.pump(now);
    }

    /// The peer of an incoming stream has shown that it has the stream's keys.
    pub fn arrived(&mut self, stream: u32) {
        self.servers.values_mut().for_each(|server| server.arrived(stream));
    }

    /// The client of an incoming stream is there: nothing needs to be punched any more.
    pub fn reached(&mut self, stream: u32, now: Instant) {
        self.net.rpc.note_client(true, now);
        self.gone(stream);
    }

    /// An incoming stream is not waited for.
    pub fn gone(&mut self, stream: u32) {
        let net = &mut self.net;
        self.servers.values_mut().for_each(|server| server.sessions.end(stream, net));
    }

    /// A client shook hands, and did not come.
    pub fn missed(&mut self, now: Instant) {
        self.net.rpc.note_client(false, now);
        self.pump(now);
    }

    /// Sockets that nothing here needs any more. A stream may still use one of them.
    pub fn take_retired(&mut self) -> Vec<SocketId> {
        std::mem::take(&mut self.net.retired)
    }

    /// These are closed now. What waits to be sent from them would open them anew.
    pub fn closed(&mut self, sockets: &[SocketId]) {
        self.net.rpc.forget_sockets(sockets);
        self.net.punching.closed(sockets.len());
    }

    /// A peer is not heard that had found us: our relays are asked whether they see us where they did.
    pub fn check_announcements(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            server.announcer.check(&mut self.net, now);
        }
        self.pump(now);
    }

    fn refresh_announcers(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            server.announcer.refresh(&mut self.net, now);
        }
    }

    fn topic_query(&mut self, topic: Topic, aim: Aim, now: Instant) -> QueryId {
        let target = NodeId(topic.0);
        let mut nodes = self.closest.get(&target).cloned().unwrap_or_default();
        if aim == Aim::Glance {
            // Others each time: some may be silent or lie.
            nodes.shuffle(&mut self.net.rng);
            nodes.truncate(GLANCE);
        }
        let only_nodes = matches!(aim, Aim::Glance | Aim::Unannounce) && !nodes.is_empty();
        let spec = QuerySpec { nodes, only_nodes, ..QuerySpec::new(command::LOOKUP, target) };
        // The owner must know the query's number, which is the query's own.
        let id = self.net.rpc.query(spec, now);
        self.net.own_query(id, Owner::Topic(id, TopicStep::Look));
        let aim = if aim == Aim::Glance && !only_nodes { Aim::Lookup } else { aim };
        let mut query = TopicQuery::new(target, aim, self.net.config.key_pair.clone());
        self.add_own_records(id, &mut query, now);
        self.topics.insert(id, query);
        self.pump(now);
        id
    }

    /// A persistent node may itself be among the nearest: it finds what it stores, and stores what it
    /// announces.
    fn add_own_records(&mut self, id: QueryId, query: &mut TopicQuery, now: Instant) {
        let Some(records) = &mut self.records else { return };
        let found = records.lookup(&query.target, &mut self.net.rng);
        let found = found.and_then(|v| messages::LookupReply::decode(&v).ok());
        query.on_peers(id, found.map_or_else(Vec::new, |f| f.peers), &mut self.net);
        if query.aim == Aim::Announce {
            let relay_addresses = self.net.open_address().into_iter().collect();
            let peer = PeerRecord { public_key: query.public_key(), relay_addresses };
            records.announce_own(&query.target, &peer, now);
        }
    }

    fn leave(&mut self, withdrawal: Withdrawal, key: Option<PublicKey>, now: Instant) {
        let id = self.fresh_id();
        let mut leaving = Leaving::new(withdrawal);
        leaving.start(id, &mut self.net, now);
        self.leaving.insert(id, (leaving, key));
        self.finish_leaving(id);
    }

    fn finish_leaving(&mut self, id: u64) {
        if self.leaving.get(&id).is_some_and(|(l, _)| l.is_done())
            && let Some((_, Some(public_key))) = self.leaving.remove(&id)
        {
            self.net.events.push_back(DhtEvent::Unlistened { public_key });
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Works off what the rpc node has for us, until it has nothing more.
    fn pump(&mut self, now: Instant) {
        loop {
            for withdrawal in std::mem::take(&mut self.net.withdrawals) {
                self.leave(withdrawal, None, now);
            }
            let Some(event) = self.net.rpc.poll_event() else { break };
            self.on_rpc_event(event, now);
        }
        self.commit_announcements(now);
    }
}

/// Where a key is announced and looked for.
fn target_of(key: &PublicKey) -> NodeId {
    NodeId(hash::hash(&[&key.0]))
}

/// A cache that takes memory as it is filled: thousands of machines stand in a test.
fn growing<K: std::hash::Hash + Eq, V>(entries: usize) -> lru::LruCache<K, V> {
    let mut cache = lru::LruCache::unbounded();
    cache.resize(bound(entries));
    cache
}

fn bound(entries: usize) -> std::num::NonZeroUsize {
    std::num::NonZeroUsize::new(entries).unwrap_or(std::num::NonZeroUsize::MIN)
}
