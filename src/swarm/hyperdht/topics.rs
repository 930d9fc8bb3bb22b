//! Lookups and announcements of topics: one query, whose answers stream in, and what is sent to the nearest
//! nodes at its end.
//!
//! A node shows 20 peers of a topic at most, chosen at random each time. Where many nodes answer that is enough to see
//! them all; in a small DHT those that showed so many are asked again, until as many lists have come.
//!
//! An announcement waits for its server's relays before it is committed, because they stand in the record.
//!
//! Source: hyperdht/index.js:lookup, announce, lookupAndUnannounce

use super::event::DhtEvent;
use super::messages::{LookupReply, PeerRecord, command};
use super::net::Net;
use super::owner::{Owner, TopicStep as Step};
use super::signatures::Place;
use crate::crypto::KeyPair;
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::message::error;
use crate::swarm::dht_rpc::{Ask, K, QueryId, Reply};
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Instant;

/// Peers told of per query; a topic's nodes could name any number.
const MAX_PEERS: usize = 1024;

/// Lists of peers that a query takes, of whichever nodes: as many as there are where twenty nodes answer. A peer among
/// a hundred is on none of them once in eighty times.
const LISTS: usize = K;
/// The same of a glance, which comes again.
const LISTS_OF_GLANCE: usize = 6;

/// What the query is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Lookup,
    /// A lookup at a few nodes that are known.
    Glance,
    Announce,
    Unannounce,
}

#[derive(Debug)]
enum State {
    Looking,
    /// Found the nearest nodes; our own relays are not known yet.
    Holding(Vec<Reply>),
    Committing,
}

/// One lookup, announcement or withdrawal.
#[derive(Debug)]
pub(super) struct TopicQuery {
    pub target: NodeId,
    pub aim: Aim,
    key_pair: Arc<KeyPair>,
    found: BTreeSet<PublicKey>,
    state: State,
    nodes: Vec<SocketAddrV4>,
    /// Lists that came, and nodes that have more peers than they showed.
    lists: usize,
    full: Vec<SocketAddrV4>,
    waiting: usize,
    stored: usize,
}

impl TopicQuery {
    pub fn new(target: NodeId, aim: Aim, key_pair: Arc<KeyPair>) -> Self {
        Self {
            target,
            aim,
            key_pair,
            found: BTreeSet::new(),
            state: State::Looking,
            nodes: Vec::new(),
            lists: 0,
            full: Vec::new(),
            waiting: 0,
            stored: 0,
        }
    }

    /// The key whose record is announced.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key_pair.public())
    }

    /// Whether the relays of our server are waited for.
    pub fn is_holding(&self) -> bool {
        matches!(self.state, State::Holding(_))
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Committing) && self.waiting == 0
    }

    /// The nearest nodes, to start the next query of this topic from.
    pub fn closest(&self) -> &[SocketAddrV4] {
        &self.nodes
    }

    pub fn stored(&self) -> usize {
        self.stored
    }

    pub fn found(&self) -> usize {
        self.found.len()
    }

    /// One node's answer to the LOOKUP.
    pub fn on_reply(&mut self, id: QueryId, reply: &Reply, net: &mut Net, now: Instant) {
        let Some(lookup) = reply.value.as_deref().and_then(|v| LookupReply::decode(v).ok()) else {
            return;
        };
        if self.aim == Aim::Unannounce {
            return self.unannounce_if_known(id, &lookup, reply, net, now);
        }
        self.lists += 1;
        if lookup.peers.len() >= K {
            self.full.push(reply.from);
        }
        self.on_peers(id, lookup.peers, net);
    }

    /// Tells the owner of peers it has not heard of.
    pub fn on_peers(&mut self, query: QueryId, peers: Vec<PeerRecord>, net: &mut Net) {
        let own = PublicKey(net.config.key_pair.public());
        for PeerRecord { public_key, mut relay_addresses } in peers {
            if public_key == own || self.found.len() >= MAX_PEERS {
                continue;
            }
            if self.found.insert(public_key) {
                relay_addresses.truncate(PeerRecord::MAX_RELAYS);
                relay_addresses.retain(|a| net.rpc.is_usable(a));
                net.events.push_back(DhtEvent::Peer { query, public_key, relay_addresses });
            }
        }
    }

    /// The query is over. An announcement is then held until [`Self::commit`].
    pub fn on_query_done(&mut self, id: QueryId, closest: Vec<Reply>, net: &mut Net, now: Instant) {
        let lists = if self.aim == Aim::Glance { LISTS_OF_GLANCE } else { LISTS };
        let full = std::mem::take(&mut self.full);
        for &node in full.iter().cycle().take(lists.saturating_sub(self.lists)) {
            let target = Some(self.target);
            let ask = Ask { target, retries: 1, ..Ask::new(node, command::LOOKUP) };
            net.ask(ask, Owner::Topic(id, Step::More), now);
            self.waiting += 1;
        }
        self.nodes = closest.iter().map(|r| r.from).collect();
        self.state = match self.aim {
            Aim::Announce => State::Holding(closest),
            Aim::Lookup | Aim::Glance | Aim::Unannounce => State::Committing,
        };
    }

    /// Sends the announcement to the nodes that were found.
    pub fn commit(&mut self, id: QueryId, relays: Vec<SocketAddrV4>, net: &mut Net, now: Instant) {
        let State::Holding(closest) = std::mem::replace(&mut self.state, State::Committing) else {
            return;
        };
        let peer = PeerRecord { public_key: self.public_key(), relay_addresses: relays };
        for reply in closest {
            let (Some(node), Some(token)) = (reply.id, reply.token) else { continue };
            let place = Place { target: &self.target, node: &node, token: &token };
            let announce = place.announce(peer.clone(), &self.key_pair);
            self.send(id, command::ANNOUNCE, &reply, announce.encode(), net, now);
        }
    }

    /// A request was answered, or not.
    pub fn on_answer(&mut self, id: QueryId, step: Step, reply: Option<&Reply>, net: &mut Net) {
        self.waiting -= 1;
        match (step, reply) {
            (Step::More, Some(reply)) => {
                let lookup = reply.value.as_deref().and_then(|v| LookupReply::decode(v).ok());
                self.on_peers(id, lookup.map_or_else(Vec::new, |lookup| lookup.peers), net);
            }
            (Step::Commit, Some(reply)) => self.stored += usize::from(reply.error == error::NONE),
            _ => {}
        }
    }

    fn unannounce_if_known(
        &mut self,
        id: QueryId,
        lookup: &LookupReply,
        reply: &Reply,
        net: &mut Net,
        now: Instant,
    ) {
        let own = self.public_key();
        // A full answer is a random choice: ours may be among those not shown.
        let maybe = lookup.peers.len() >= K || lookup.peers.iter().any(|p| p.public_key == own);
        let (true, Some(node), Some(token)) = (maybe, reply.id, reply.token) else { return };
        let place = Place { target: &self.target, node: &node, token: &token };
        let value = place.unannounce(&self.key_pair).encode();
        self.send(id, command::UNANNOUNCE, reply, value, net, now);
    }

    fn send(
        &mut self,
        id: QueryId,
        command: u64,
        reply: &Reply,
        value: Vec<u8>,
        net: &mut Net,
        now: Instant,
    ) {
        let ask = Ask {
            target: Some(self.target),
            token: reply.token,
            value: Some(value),
            ..Ask::new(reply.from, command)
        };
        net.ask(ask, Owner::Topic(id, Step::Commit), now);
        self.waiting += 1;
    }
}
