//! Where requests, answers and query results find the part they belong to.
//!
//! Handshakes and hole punch messages are for our servers, or passed on; the rest of the commands only a
//! persistent node serves. Requests that make no sense or are not signed get no answer.
//!
//! Source: hyperdht/index.js:onrequest, hyperdht/lib/persistent.js

use super::HyperDht;
use super::event::DhtEvent;
use super::messages::{LookupReply, PeerHandshake, PeerHolepunch, command};
use super::owner::Owner;
use super::records::{Records, Stored};
use super::router::{self, Hop};
use super::signatures::Place;
use crate::key::{NodeId, Topic};
use crate::swarm::dht_rpc::{Account, Extras, Incoming, QueryId, Reply};
use crate::swarm::socket::SocketId;
use std::net::SocketAddrV4;
use std::time::Instant;

impl HyperDht {
    pub(super) fn on_request(&mut self, incoming: &Incoming, now: Instant) {
        match incoming.request.command {
            command::PEER_HANDSHAKE => self.on_peer_handshake(incoming, now),
            command::PEER_HOLEPUNCH => self.on_peer_holepunch(incoming, now),
            _ => self.serve(incoming, now),
        }
    }

    fn on_peer_handshake(&mut self, incoming: &Incoming, now: Instant) {
        let request = &incoming.request;
        let Some(m) = request.value.as_deref().and_then(|v| PeerHandshake::decode(v).ok()) else {
            return;
        };
        let blocked = &self.blocked;
        let server = request.target.and_then(|target| self.servers.get_mut(&target));
        let hop = match server {
            Some(server) => match server.on_handshake(&m, incoming, blocked, &mut self.net, now) {
                Some(noise) => router::answer_handshake(&m, noise, incoming.from),
                None => Hop::Drop,
            },
            None => {
                let route = self.route(request.target);
                router::relay_handshake(m, incoming.from, route)
            }
        };
        self.hop(incoming, hop, now);
    }

    fn on_peer_holepunch(&mut self, incoming: &Incoming, now: Instant) {
        let request = &incoming.request;
        let Some(m) = request.value.as_deref().and_then(|v| PeerHolepunch::decode(v).ok()) else {
            return;
        };
        let server = request.target.and_then(|target| self.servers.get_mut(&target));
        let hop = match server {
            Some(server) => {
                let trusted = server.announcer.is_relay(&incoming.from);
                match server.sessions.on_message(&m, trusted, &mut self.net, now) {
                    Some(payload) => router::answer_holepunch(&m, payload, incoming.from),
                    None => Hop::Drop,
                }
            }
            None => router::relay_holepunch(m, incoming.from, self.route(request.target)),
        };
        self.hop(incoming, hop, now);
    }

    /// A punch came from there.
    pub(super) fn on_punch(&mut self, socket: SocketId, from: SocketAddrV4, now: Instant) {
        // One that we asked for is the way to its sender.
        let net = &mut self.net;
        let found = self
            .connects
            .iter_mut()
            .find_map(|(id, c)| c.on_punch(socket, from, net).then_some(*id));
        match found {
            Some(id) => self.finish_connect(id),
            None => {
                self.servers
                    .values_mut()
                    .any(|server| server.sessions.on_punch(socket, from, net, now));
            }
        }
    }

    fn hop(&mut self, incoming: &Incoming, hop: Hop, now: Instant) {
        // Only a node that others can find has a reason to pass messages on.
        let relays = self.records.is_some();
        let own = incoming.request.target.is_some_and(|t| self.servers.contains_key(&t));
        // Nobody outside makes us write into our local networks.
        match &hop {
            Hop::Request { to, .. } | Hop::Response { to, .. } if self.net.rpc.is_usable(to) => {}
            // A neighbour gets its own answer.
            Hop::Response { to, .. } if *to == incoming.from && self.net.is_near(to) => {}
            Hop::Request { .. } | Hop::Response { .. } => return,
            Hop::Closer | Hop::Drop => {}
        }
        let account = if own { Account::Handshakes } else { Account::Others };
        match hop {
            Hop::Request { to, value } if relays || own => {
                self.net.rpc.relay(incoming, to, value, account, now);
            }
            Hop::Response { to, value } if relays || own => {
                self.net.rpc.reply_to(incoming, to, Some(value), Extras::BARE, account, now);
            }
            Hop::Closer => {
                let extras = Extras { closer: true, ..Extras::BARE };
                self.net.rpc.reply(incoming, None, extras, now);
            }
            _ => {}
        }
    }

    fn route(&self, target: Option<NodeId>) -> Option<SocketAddrV4> {
        self.records.as_ref()?.route(&target?).map(|r| r.relay)
    }

    fn serve(&mut self, incoming: &Incoming, now: Instant) {
        let (Some(records), Some(node)) = (&mut self.records, self.net.rpc.id()) else {
            return self.net.rpc.reply_unknown(incoming, now);
        };
        let request = &incoming.request;
        if !(command::FIND_PEER..=command::IMMUTABLE_GET).contains(&request.command) {
            return self.net.rpc.reply_unknown(incoming, now);
        }
        let Some(target) = &request.target else { return };
        let value = request.value.as_deref();
        let stored = match (request.command, value) {
            (command::FIND_PEER, _) => {
                let own = self.servers.get(target).map(|s| s.announcer.record());
                let record = own.or_else(|| records.route(target).map(|r| r.record.clone()));
                return self.net.rpc.reply(incoming, record, Extras::QUERY, now);
            }
            (command::LOOKUP, _) => {
                let found = records.lookup(target, &mut self.net.rng);
                let own = self.servers.get(target).map(|s| s.announcer.record());
                let own = own.map(|r| LookupReply::encode_raw(&[&r], 0));
                return self.net.rpc.reply(incoming, found.or(own), Extras::QUERY, now);
            }
            (command::MUTABLE_GET, Some(value)) => {
                let Some(found) = records.mutable_get(target, value) else { return };
                return self.net.rpc.reply(incoming, found, Extras::QUERY, now);
            }
            (command::IMMUTABLE_GET, _) => {
                let found = records.immutable_get(target);
                return self.net.rpc.reply(incoming, found, Extras::QUERY, now);
            }
            (_, Some(value)) => put(records, &node, target, value, incoming, now),
            _ => None,
        };
        if let Some(outcome) = stored {
            let error = if let Stored::Error(error) = outcome { error } else { 0 };
            self.net.rpc.reply(incoming, None, Extras { error, ..Extras::BARE }, now);
        }
    }

    /// A request of one of our parts was answered, or not (`None`).
    pub(super) fn on_answer(&mut self, owner: Owner, reply: Option<&Reply>, now: Instant) {
        match owner {
            Owner::Announcer(target, step) => {
                let Some(server) = self.servers.get_mut(&target) else { return };
                let before = server.announcer.updates();
                server.announcer.on_answer(step, reply, &mut self.net, now);
                self.tell_if_listening(target, before);
            }
            Owner::Connect(id, step) => {
                let Some(connect) = self.connects.get_mut(&id) else { return };
                connect.on_answer(step, reply, &mut self.net, now);
                self.finish_connect(id);
            }
            Owner::Topic(id, step) => {
                if let Some(topic) = self.topics.get_mut(&id) {
                    topic.on_answer(id, step, reply, &mut self.net);
                }
                self.finish_topic(id);
            }
            Owner::Leave(id, step, _) => {
                if let Some((leaving, _)) = self.leaving.get_mut(&id) {
                    leaving.on_answer(id, step, reply, &mut self.net, now);
                }
                self.finish_leaving(id);
            }
        }
    }

    pub(super) fn on_query_reply(&mut self, query: QueryId, reply: &Reply, now: Instant) {
        match self.net.query_owner(query) {
            Some(Owner::Connect(id, _)) => {
                if let Some(connect) = self.connects.get_mut(&id) {
                    connect.on_reply(reply, &mut self.net, now);
                }
                self.finish_connect(id);
            }
            Some(Owner::Topic(id, _)) => {
                if let Some(topic) = self.topics.get_mut(&id) {
                    topic.on_reply(id, reply, &mut self.net, now);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_query_done(&mut self, query: QueryId, closest: Vec<Reply>, now: Instant) {
        match self.net.finish_query(query) {
            Some(Owner::Announcer(target, _)) => {
                let Some(server) = self.servers.get_mut(&target) else { return };
                let before = server.announcer.updates();
                server.announcer.on_query_done(&closest, &mut self.net, now);
                self.tell_if_listening(target, before);
            }
            Some(Owner::Connect(id, _)) => {
                if let Some(connect) = self.connects.get_mut(&id) {
                    connect.on_query_done(&mut self.net, now);
                }
                self.finish_connect(id);
            }
            Some(Owner::Topic(id, _)) => {
                if let Some(topic) = self.topics.get_mut(&id) {
                    topic.on_query_done(id, closest, &mut self.net, now);
                }
                self.finish_topic(id);
            }
            Some(Owner::Leave(..)) | None => {}
        }
    }

    /// Announcements that have found their nodes go out once our relays are known.
    pub(super) fn commit_announcements(&mut self, now: Instant) {
        let held: Vec<QueryId> =
            self.topics.iter().filter(|(_, t)| t.is_holding()).map(|(id, _)| *id).collect();
        for id in held {
            let Some(topic) = self.topics.get_mut(&id) else { continue };
            let server = self.servers.get(&super::target_of(&topic.public_key()));
            let relays = match server {
                Some(server) if !server.announcer.is_ready() => continue,
                Some(server) => server.announcer.relay_addresses(&self.net),
                None => Vec::new(),
            };
            topic.commit(id, relays, &mut self.net, now);
            self.finish_topic(id);
        }
    }

    fn tell_if_listening(&mut self, target: NodeId, before: u64) {
        let Some(server) = self.servers.get(&target) else { return };
        if server.announcer.updates() != before {
            self.net.events.push_back(DhtEvent::Listening {
                public_key: crate::key::PublicKey(server.key_pair.public()),
                relays: server.announcer.relays().len(),
            });
        }
    }

    pub(super) fn finish_connect(&mut self, id: super::event::ConnectId) {
        if self.connects.get(&id).is_some_and(super::Connect::is_over)
            && let Some(connect) = self.connects.remove(&id)
        {
            self.known_relays.put(connect.remote, connect.next_relays);
        }
    }

    fn finish_topic(&mut self, id: QueryId) {
        if !self.topics.get(&id).is_some_and(super::TopicQuery::is_done) {
            return;
        }
        let Some(topic) = self.topics.remove(&id) else { return };
        match (topic.aim, topic.closest().is_empty()) {
            // Nobody is there any more: the next look goes further.
            (super::Aim::Glance, true) => drop(self.closest.pop(&topic.target)),
            (super::Aim::Glance, false) | (_, true) => {}
            (_, false) => drop(self.closest.put(topic.target, topic.closest().to_vec())),
        }
        let name = Topic(topic.target.0);
        if topic.aim == super::Aim::Announce {
            let nodes = topic.stored();
            self.net.events.push_back(DhtEvent::Announced { query: id, topic: name, nodes });
        }
        let found = topic.found();
        self.net.events.push_back(DhtEvent::QueryDone { query: id, topic: name, found });
    }
}

/// The commands that store something. All need a token: it shows that the sender is where it says.
fn put(
    records: &mut Records,
    node: &NodeId,
    target: &NodeId,
    value: &[u8],
    incoming: &Incoming,
    now: Instant,
) -> Option<Stored> {
    let token = incoming.request.token.as_ref()?;
    let place = Place { target, node, token };
    let done = |ok: bool| ok.then_some(Stored::Ok);
    match incoming.request.command {
        command::ANNOUNCE => done(records.announce(place, value, incoming.from, now)),
        command::UNANNOUNCE => done(records.unannounce(place, value)),
        command::MUTABLE_PUT => records.mutable_put(target, value, *incoming.from.ip(), now),
        command::IMMUTABLE_PUT => records.immutable_put(target, value, *incoming.from.ip(), now),
        _ => None,
    }
}
