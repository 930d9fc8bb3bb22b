//! What the owner of the machine asks of it: topics and peers, frames, news of the network, and how it all stands.

use super::connections::Connection;
use super::{
    Closed, ConnId, ConnectionStatus, JoinOptions, PortMappingStatus, RelayStatus, Swarm,
    SwarmEvent, SwarmStatus, Traffic, meter, reachability,
};
use crate::codec::FrameBuf;
use crate::key::{PublicKey, Topic};
use std::net::SocketAddrV4;
use std::time::Instant;

impl Swarm {
    /// Joins a topic, or changes the roles in which it is joined. One that is joined already is looked for again.
    pub fn join(&mut self, topic: Topic, options: JoinOptions, now: Instant) {
        // What an earlier round found is not what this one finds.
        self.unsettled.remove(&topic);
        self.topics.join(topic, options, now);
        self.lan.join(topic, options, now);
        self.told.join(topic, options, now);
        if self.is_known_alone(now) {
            self.alone.insert(topic);
        }
        self.pump(now);
    }

    /// Leaves a topic. Connections found through it stay until they are [released](Self::release).
    pub fn leave(&mut self, topic: &Topic, now: Instant) {
        self.topics.leave(topic, now);
        self.lan.leave(topic);
        self.told.leave(topic);
        self.peers.leave_topic(topic, now);
        self.unsettled.remove(topic);
        self.alone.remove(topic);
        self.pump(now);
    }

    /// Keeps a connection to `key`, whatever the topics. No command asks for it so far; one that is given a peer by key will.
    pub fn connect_peer(&mut self, key: PublicKey, now: Instant) {
        self.peers.join_explicit(key, now, &mut self.rng);
        self.pump(now);
    }

    /// Takes [`Self::connect_peer`] back. An open connection stays.
    pub fn leave_peer(&mut self, key: &PublicKey, now: Instant) {
        self.peers.leave_explicit(key, now);
    }

    /// Encrypts and queues one message. Answers the bytes queued now; 0 if the connection is gone.
    pub fn send(&mut self, conn: ConnId, frame: FrameBuf, now: Instant) -> usize {
        let Some(connection) = self.connections.get(conn).filter(|c| c.told) else { return 0 };
        let frame = if connection.is_open() { Some(frame) } else { connection.early.pass(frame) };
        let Some(frame) = frame else { return connection.early.bytes() };
        let Some(session) = &mut connection.session else { return 0 };
        let len = frame.len() as u64;
        match session.sealer.seal(frame) {
            Ok(bytes) => {
                connection.last_write = now;
                connection.has_written = true;
                connection.sent += len;
                let _ = self.udx.write(conn.stream(), bytes, now);
                let queued = self.udx.unsent(conn.stream());
                connection.told_queued = queued;
                self.ask_behind(conn.stream(), now);
                self.watch(conn.stream(), now);
                queued
            }
            Err(error) => {
                self.destroy(conn.stream(), Closed::Frame(error), now);
                0
            }
        }
    }

    /// Bytes queued for a connection.
    pub fn queued(&self, conn: ConnId) -> usize {
        self.udx.unsent(conn.stream())
    }

    /// The owner is done with `bytes` of the frames it got: the peer may send as many more.
    pub fn consumed(&mut self, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.connections.get(conn) {
            connection.backlog.consume(bytes);
            let held = connection.held();
            self.udx.set_backlog(conn.stream(), held);
        }
    }

    /// Ends a connection in good order: what is queued is still delivered.
    pub fn close(&mut self, conn: ConnId, now: Instant) {
        if self.connections.get(conn).is_some() {
            self.end(conn.stream(), Closed::Local, now);
            self.pump(now);
        }
    }

    /// Has nothing to do with `key` until `until`: a peer that broke the rules too often.
    pub fn ban(&mut self, key: PublicKey, until: Instant, now: Instant) {
        self.peers.ban(key, until, now);
        self.dht.block(key, until, now);
        // Accepted ones that wait for their first packet as well.
        let of_key = self.connections.iter().filter(|c| c.remote == key);
        for stream in of_key.map(|c| c.id.stream()).collect::<Vec<_>>() {
            self.destroy(stream, Closed::Banned, now);
        }
        self.pump(now);
    }

    /// Addresses of ours came or went, and what we send leaves as before.
    pub fn set_local_addresses(&mut self, addresses: Vec<SocketAddrV4>, now: Instant) {
        self.dht.set_local_addresses(addresses);
        self.told.hurry(now);
        self.pump(now);
    }

    /// What we send leaves from elsewhere: finds out which connections still live, looks and announces again; at once, unless
    /// it happens time and again. True if so.
    pub fn network_changed(&mut self, addresses: Vec<SocketAddrV4>, now: Instant) -> bool {
        self.dht.set_local_addresses(addresses);
        let at_once = self.changes.want(now);
        if at_once {
            self.enter_anew(now);
        } else if self.words.take(1.0, now) {
            self.speak_up_to_all(now);
        }
        self.pump(now);
        at_once
    }

    pub(super) fn enter_anew(&mut self, now: Instant) {
        self.speak_up_to_all(now);
        self.dht.network_changed(now);
        self.look_around(now);
    }

    /// Whether the router may have forgotten what it granted: our public address is another one, nobody can reach us any
    /// more, or nobody answered for a while.
    pub fn take_router_doubt(&mut self) -> bool {
        std::mem::take(&mut self.router_doubted)
    }

    /// The gateway is being asked for a port: whether others can send to us is better found out after that, or then.
    pub fn await_port_mapping(&mut self, until: Instant) {
        self.dht.hold_probe(until);
    }

    /// It was asked, and grants this port or none: now it can be found out. 0.0.0.0 where it did not tell its address.
    pub fn port_mapping_is_known(&mut self, mapped: Option<SocketAddrV4>, now: Instant) {
        self.dht.probe_anew(mapped, now);
        self.pump(now);
    }

    /// Asks nobody anything before [`Self::set_bootstrap`]: the addresses are still being looked up.
    pub fn await_bootstrap(&mut self) {
        self.entering = true;
    }

    /// The nodes to enter the DHT by have other addresses.
    pub fn set_bootstrap(&mut self, nodes: Vec<SocketAddrV4>, now: Instant) {
        let entered = std::mem::take(&mut self.entering);
        if self.dht.set_bootstrap(nodes, now) && self.is_alone() && !entered {
            self.dht.refresh(now);
            self.look_around(now);
        }
        if entered && self.listening {
            self.dht.refresh(now);
        }
        self.pump(now);
    }

    /// A full node's public address is another one now.
    pub fn set_address(&mut self, address: SocketAddrV4, now: Instant) {
        self.dht.set_address(address, now);
        self.events.push_back(SwarmEvent::Moved { address });
        self.pump(now);
    }

    /// Whether we know no node of the DHT.
    pub fn is_alone(&self) -> bool {
        self.dht.nodes() == 0
    }

    /// Leaves everything. [`Self::is_stopped`] tells when all has been said.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.lan.set_links(Vec::new(), now);
        self.peers.stop();
        self.told.stop();
        self.topics.leave_all(now);
        for stream in self.connections.streams() {
            self.end(stream, Closed::Local, now);
        }
        self.set_relay(None, now);
        if self.listening {
            self.listening = false;
            self.dht.unlisten(&PublicKey(self.key_pair.public()), now);
        }
        self.pump(now);
    }

    /// Whether nothing is left to be said after [`Self::stop`].
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.topics.is_empty() && self.closing.is_empty()
    }

    /// Notes how far everything is, to know how fast it goes. Who wants to be told the rates of now says it first.
    pub fn measure(&mut self, now: Instant) {
        self.measured = now;
        if now < self.measure_at {
            return;
        }
        self.measure_at = now + meter::EVERY;
        for connection in self.connections.iter_mut() {
            let unsent = self.udx.unsent(connection.id.stream());
            connection.meter.note(moved(connection, unsent), now);
        }
        if let Some(relay) = &mut self.relay {
            relay.meter.note([self.udx.passed_on()], now);
        }
    }

    /// The state of everything, with the rates of when it was last [measured](Self::measure).
    pub fn status(&self) -> SwarmStatus {
        let connections = self.connections.iter().map(|c| {
            let queued = self.udx.unsent(c.id.stream());
            let [receiving, sending] = c.meter.rates(moved(c, queued), self.measured);
            ConnectionStatus {
                conn: c.id,
                remote: c.remote,
                initiator: c.initiator,
                open: c.is_open(),
                addr: c.addr,
                received: c.received,
                sent: c.sent,
                receiving,
                sending,
                queued,
                near: c.addr.is_some_and(|addr| self.is_near(&addr)),
                relay: self.relay_of(c.id.stream()),
                rtt: self.udx.stats(c.id.stream()).and_then(|stats| stats.rtt),
            }
        });
        let visited = self.controls.to_relays().map(|(c, serves)| RelayStatus {
            key: c.remote,
            serves,
            addr: c.addr,
            rtt: self.udx.stats(c.id.stream()).and_then(|stats| stats.rtt),
        });
        let topics = self.topics.status();
        SwarmStatus {
            reachability: reachability::of_topics(
                &topics,
                &self.peers,
                &self.connections,
                &self.told,
            ),
            ready: self.ready,
            listening: self.listening,
            standing: self.dht.standing(),
            nodes: self.dht.nodes(),
            relays: self.dht.relay_addresses(&PublicKey(self.key_pair.public())),
            peers_known: self.peers.len(),
            peers_queued: self.peers.queued(),
            connections: connections.collect(),
            visited: visited.collect(),
            absent_relays: self.absent_relays(),
            relaying: self.relaying_status(),
            topics,
            links: self.lan.status(),
            local_network: false,
            port_mapping: PortMappingStatus::Off,
            traffic: Traffic::default(),
            nameless: Vec::new(),
        }
    }
}

/// Bytes received over a connection, and sent of which `unsent` wait still.
fn moved(connection: &Connection, unsent: usize) -> [u64; 2] {
    [connection.received, connection.sent.saturating_sub(unsent as u64)]
}
