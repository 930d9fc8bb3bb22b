//! The network: UDX, secret streams, DHT, swarm.
//!
//! [`Swarm`] is the machine that joins the machines. Datagrams go to [`Udx`] if it owns the stream they
//! name, else to [`HyperDht`]. A topic's round asks the DHT; each peer it finds is queued and dialled;
//! a finished handshake gives stream ids and keys; the stream's bytes are frames; frames are events.
//!
//! ```text
//!   join(topic) ─▶ Topics ─▶ HyperDht ─▶ Peers ─▶ dial ─▶ HyperDht ─▶ Connections ─▶ Connected
//!   datagram ─▶ Udx ─▶ Opener ─▶ Frame          send(frame) ─▶ Sealer ─▶ Udx ─▶ datagram
//! ```
//!
//! It does no I/O, reads no clock and never blocks: [`driver`] does. After every `handle_…` and command
//! the owner drains [`Swarm::poll_transmit`] and [`Swarm::poll_event`] and asks [`Swarm::poll_timeout`].
//! Whatever a peer does wrong ends that peer's connection and nothing else.
//!
//! Source: hyperswarm/index.js

mod another_relay;
mod backlog;
mod conn_id;
mod connections;
mod control;
mod control_room;
mod customers;
pub mod dht_rpc;
mod dial_queue;
mod dialling;
pub mod driver;
mod duplicates;
mod early;
mod ends;
mod event;
pub mod hyperdht;
pub mod inquiry;
pub mod lan;
mod lifecycle;
mod meter;
mod neighbours;
mod offered;
mod owner;
mod pace;
mod paths;
mod peer_info;
mod peers;
mod placing;
pub mod port_mapping;
mod priority;
mod reachability;
pub mod relay;
mod relay_choice;
mod relaying;
mod retry;
mod room;
mod rounds;
mod seats;
pub mod secret_stream;
pub mod socket;
mod standing;
#[cfg(test)]
mod tests;
mod told;
mod topic;
mod topics;
pub mod udx;

pub use conn_id::ConnId;
pub use customers::RelayLimits;
pub use dht_rpc::Access;
pub use event::{
    Closed, ConnectionStatus, Limits, Reachability, RelayStatus, RelayingStatus, SwarmConfig,
    SwarmEvent, SwarmStatus, Traffic,
};
pub use port_mapping::{PortMapping, PortMappingStatus};
pub use standing::{Nat, Standing};
pub use topic::{JoinOptions, TopicStatus};
pub use udx::Transmit;

use crate::crypto::{KeyPair, hash};
use crate::key::{PublicKey, Topic};
use connections::{Both, Connections};
use customers::Relay;
use dht_rpc::bucket::{Bucket, HostBuckets, Limit};
use hyperdht::{ConnectError, DhtConfig, DhtEvent, HyperDht};
use lan::Lan;
use neighbours::{NEAR_DIALS, NEAR_HOSTS};
use pace::Pace;
use peer_info::PeerInfo;
use peers::Peers;
use rand::SeedableRng;
use rand::rngs::StdRng;
use relay::controls::Controls;
use relaying::Relayed;
pub use socket::SocketId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use told::{Found, Told};
use topics::Topics;
use udx::{Udx, UdxConfig};

/// How often it is looked whether a stream still goes through a socket that was opened for it: what is under way to it when
/// nothing else needs it has come by then.
const SOCKET_LINGER: Duration = Duration::from_secs(1);

/// How often all peers are told that we are elsewhere, where that happens so often that all else has to wait.
const WORDS: Limit = Limit { burst: 3.0, rate: 0.1 };

/// The whole network of a process, as one machine.
pub struct Swarm {
    key_pair: Arc<KeyPair>,
    limits: Limits,
    rng: StdRng,
    udx: Udx,
    dht: HyperDht,
    lan: Lan,
    topics: Topics,
    peers: Peers,
    /// Where else they may be.
    told: Told,
    /// Dials to hosts of our local networks.
    near_dials: HostBuckets,
    /// When a dial has lasted so long that it gives way to who waits.
    dial_at: Option<Instant>,
    /// Nobody is dialled until then.
    hold_dials: Option<Instant>,
    connections: Connections,
    controls: Controls,
    /// Streams that may go through a relay.
    relayed: BTreeMap<u32, Relayed>,
    /// Relays that we were told of, to be named where a peer may need one.
    relays: Vec<PublicKey>,
    /// We are one for others.
    relay: Option<Relay>,
    /// Looking around because of what others said or did not say.
    looks: Pace,
    /// Looking around because our addresses changed, and telling the peers meanwhile.
    changes: Pace,
    words: Bucket,
    router_doubted: bool,
    /// When it is looked whether dials begin anew with a relay.
    redial_at: Option<Instant>,
    /// Streams that we ended and whose peers have not: when they are destroyed. No longer than the
    /// list of connections of the last [`LINGER`].
    closing: BTreeMap<u32, Instant>,
    /// Sockets beside the main one that only streams may use any more: when that is looked at.
    retired: BTreeMap<SocketId, Instant>,
    closed_sockets: VecDeque<SocketId>,
    events: VecDeque<SwarmEvent>,
    /// When a round last ended without an answer of anybody.
    in_vain: Option<Instant>,
    /// Topics with a finished round whose peers are still being dialled.
    unsettled: BTreeSet<Topic>,
    /// Topics that were joined where nobody could be asked just before, until neighbours had time to answer.
    alone: BTreeSet<Topic>,
    ready: bool,
    listening: bool,
    /// Addresses of bootstrap nodes are being looked up: nobody could be asked yet.
    entering: bool,
    stopping: bool,
    /// When it was last seen how far connections are, and when that is next noted.
    measured: Instant,
    measure_at: Instant,
}

impl Swarm {
    pub fn new(config: SwarmConfig, mut rng: StdRng, now: Instant) -> Self {
        let SwarmConfig { key_pair, limits, .. } = &config;
        let (key_pair, limits) = (Arc::new(key_pair.clone()), *limits);
        let relays = config.relays.clone();
        let mut child = || StdRng::from_rng(&mut rng);
        let udx = Udx::new(child(), UdxConfig::default());
        let dht = HyperDht::new(dht_config(config, key_pair.clone()), child(), now);
        let lan = Lan::new(key_pair.clone(), child(), now);
        let told = Told::new(PublicKey(key_pair.public()), child(), now);
        let peers = Peers::new(PublicKey(key_pair.public()), &mut rng);
        // Which hosts share a bucket is not to be known.
        let secret = hash::hash(&[b"near dials", &key_pair.seed()]);
        let near_dials = HostBuckets::new(secret, NEAR_DIALS, NEAR_HOSTS, now);
        Self {
            key_pair,
            limits,
            rng,
            udx,
            dht,
            lan,
            topics: Topics::default(),
            peers,
            told,
            near_dials,
            dial_at: None,
            hold_dials: None,
            connections: Connections::default(),
            controls: Controls::default(),
            relayed: BTreeMap::new(),
            relays,
            relay: None,
            looks: Pace::default(),
            changes: Pace::default(),
            words: Bucket::full(WORDS, now),
            router_doubted: false,
            redial_at: None,
            closing: BTreeMap::new(),
            retired: BTreeMap::new(),
            closed_sockets: VecDeque::new(),
            events: VecDeque::new(),
            in_vain: None,
            unsettled: BTreeSet::new(),
            alone: BTreeSet::new(),
            ready: false,
            listening: false,
            entering: false,
            stopping: false,
            measured: now,
            measure_at: now,
        }
    }

    /// Takes what one system call received from `from`: datagrams of `stride` bytes back to back.
    /// [`Self::end_of_batch`] must follow.
    pub fn handle_datagrams(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        data: &[u8],
        stride: usize,
        now: Instant,
    ) {
        self.measure(now);
        for datagram in data.chunks(stride.max(1)) {
            let mut sink = Both(&mut self.connections, &mut self.controls.table);
            if self.udx.handle_datagram(socket, from, datagram, now, &mut sink) {
                continue;
            }
            if inquiry::is_ours(datagram) {
                self.handle_inquiry(from, datagram, now);
            } else if !self.lan.handle_datagram(from, datagram, now)
                && let SocketAddr::V4(from) = from
            {
                self.dht.handle_datagram(socket, from, datagram, now);
            }
        }
    }

    /// Everything that was waiting in the sockets has been handled: acknowledges, decides, tells.
    pub fn end_of_batch(&mut self, now: Instant) {
        self.deliver(now);
        self.deliver_controls(now);
        self.udx.end_of_batch(now);
        self.pump(now);
        self.tell_queues();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.measure(now);
        self.udx.handle_timeout(now);
        self.dht.handle_timeout(now);
        self.lan.handle_timeout(now);
        self.ask_told(now);
        self.peers.handle_timeout(now, &mut self.rng);
        for stream in self.connections.due(now) {
            self.connection_due(stream, now);
        }
        for stream in self.controls.table.due(now) {
            self.control_due(stream, now);
        }
        self.handle_relayed(now);
        self.redial(now);
        self.relay_due(now);
        if self.changes.is_due(now) {
            self.enter_anew(now);
        }
        if self.looks.is_due(now) {
            self.look_around(now);
        }
        let udx = &mut self.udx;
        self.closing.retain(|&stream, &mut until| {
            let waits = until > now;
            if !waits {
                udx.destroy(stream);
            }
            waits
        });
        self.pump(now);
        self.tell_queues();
    }

    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let deadlines = [
            self.udx.poll_timeout(),
            self.dht.poll_timeout(),
            self.lan.poll_timeout(),
            self.topics.poll_timeout().filter(|_| !self.entering),
            self.peers.poll_timeout(),
            self.told.poll_timeout(),
            self.dial_at,
            self.connections.poll_timeout(),
            self.controls.table.poll_timeout(),
            self.relayed_timeout(),
            self.redial_at,
            self.looks.poll_timeout(),
            self.changes.poll_timeout(),
            self.relay_timeout(),
            self.closing.values().min().copied(),
            self.retired.values().min().copied(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub fn poll_event(&mut self) -> Option<SwarmEvent> {
        self.events.pop_front()
    }

    /// The next socket to close.
    pub fn poll_closed_socket(&mut self) -> Option<SocketId> {
        self.closed_sockets.pop_front()
    }

    /// Closes sockets that were opened to punch, and that no stream goes through.
    fn close_sockets(&mut self, now: Instant) {
        for socket in self.dht.take_retired() {
            self.retired.insert(socket, now + SOCKET_LINGER);
        }
        let due = self.retired.iter().filter(|(_, at)| **at <= now).map(|(socket, _)| *socket);
        let (used, closed): (Vec<_>, Vec<_>) = due.partition(|socket| self.udx.uses(*socket));
        self.retired.extend(used.into_iter().map(|socket| (socket, now + SOCKET_LINGER)));
        if !closed.is_empty() {
            self.retired.retain(|socket, _| !closed.contains(socket));
            self.dht.closed(&closed);
            self.closed_sockets.extend(closed);
        }
    }

    /// Fills `buf` with the next datagrams for one address, at most `max_segments` of them.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        if let Some(transmit) = self.dht.poll_transmit() {
            buf.clear();
            buf.extend_from_slice(&transmit.bytes);
            let dht_rpc::Transmit { socket, to, ttl, .. } = transmit;
            return Some(Transmit { ttl, ..Transmit::whole(socket, to.into()) });
        }
        if let Some((to, bytes)) = self.told.poll_transmit().or_else(|| self.dht.poll_direct()) {
            buf.clear();
            buf.extend_from_slice(&bytes);
            let socket = SocketId::towards(&to);
            self.dht.wrote_to(socket::host_of(&to));
            return Some(Transmit::whole(socket, to));
        }
        let transmit = self.udx.poll_transmit(now, buf, max_segments)?;
        if transmit.socket == SocketId::MAIN {
            self.dht.wrote_to(socket::host_of(&transmit.to));
        }
        Some(transmit)
    }

    /// The system refused a datagram of `size` bytes as too large for the way to `to`.
    pub fn handle_send_error(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        size: usize,
        now: Instant,
    ) {
        self.udx.handle_send_error(socket, to, size, now);
    }

    /// Carries news between the machines until none is left.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.dht.poll_event() {
                self.handle_dht(event, now);
            } else if let Some(neighbour) = self.lan.poll_found() {
                self.neighbour_found(&neighbour, now);
            } else if let Some(event) = self.udx.poll_event() {
                self.handle_udx(event, now);
            } else if let Some(found) = self.told.poll_found() {
                let Found { key, addr, topic } = found;
                self.peers.found_at(key, addr, topic, now, &mut self.rng);
                self.tell_met(&key, topic);
            } else if !self.start_round(now) && !self.start_dial(now) {
                break;
            }
        }
        self.tidy_relayed(now);
        self.settle(now);
        self.close_sockets(now);
    }

    /// A peer was found under a topic: who knows of a connection to it is told, each time.
    fn tell_met(&mut self, remote: &PublicKey, topic: Topic) {
        let told = self.connections.iter().filter(|c| c.remote == *remote && c.told);
        let met = told.map(|c| SwarmEvent::Met { conn: c.id, topic });
        self.events.extend(met);
    }

    /// Finds out which connections still live, and which peers there are.
    fn look_around(&mut self, now: Instant) {
        for stream in self.connections.streams() {
            self.keep_alive(stream, now);
        }
        self.told.hurry(now);
        self.topics.refresh(now);
    }

    /// The same because of what nodes of the DHT say, or do not say any more: anybody may be one.
    fn look_around_again(&mut self, now: Instant) {
        if self.looks.want(now) {
            self.look_around(now);
        }
    }

    fn handle_dht(&mut self, event: DhtEvent, now: Instant) {
        match event {
            DhtEvent::Bootstrapped { .. } => {
                if !std::mem::replace(&mut self.ready, true) {
                    self.events.push_back(SwarmEvent::Ready);
                }
            }
            DhtEvent::Peer { query, public_key, relay_addresses } => {
                if let Some(found) = self.topics.peer_found(query, public_key) {
                    let (topic, quick, rng) = (found.topic, found.quick, &mut self.rng);
                    self.peers.found(public_key, relay_addresses, topic, quick, now, rng);
                    if found.first {
                        self.tell_met(&public_key, topic);
                    }
                }
            }
            DhtEvent::Announced { query, nodes, .. } => self.topics.stored(query, nodes),
            DhtEvent::QueryDone { query, .. } => self.round_finished(query, now),
            DhtEvent::Listening { relays, public_key } if self.is_own_relay(&public_key) => {
                self.events.push_back(SwarmEvent::RelayListens { relays });
            }
            DhtEvent::Listening { relays, .. } => {
                tracing::debug!(relays, "listening");
                // Without a relay the record would lead nowhere, and no node would hold it.
                if relays > 0 {
                    self.topics.may_announce(now);
                }
            }
            DhtEvent::Answered { connect, agreed } => self.answered(connect, agreed, now),
            DhtEvent::Outgoing { connect, agreed } => match self.controls.table.dial(connect) {
                Some(stream) => self.control_dialled(stream, agreed, now),
                None => self.dialled(connect, agreed, now),
            },
            DhtEvent::Incoming { local, agreed } => {
                match self.is_own_relay(&PublicKey(local.public())) {
                    true => self.accept_customer(agreed, now),
                    false => self.accepted(agreed, now),
                }
            }
            DhtEvent::ConnectFailed { connect, why, .. } => {
                if let Some(stream) = self.controls.table.dial(connect) {
                    return self.end_control(stream, &why.to_string(), now);
                }
                let Some(stream) = self.stream_of(connect) else { return };
                if self.goes_on_by_relay(stream, now) {
                    tracing::debug!(%why, "no direct way so far");
                } else if why == ConnectError::RelaysBusy {
                    self.hold_dial(stream, now);
                } else {
                    if let Some(dial) = self.connections.by_stream(stream) {
                        (dial.is_there, dial.again) = (why.is_of_path(), why.may_be_chance());
                    }
                    self.dial_failed(stream, why.to_string(), now);
                }
            }
            // What was announced may have faded meanwhile.
            DhtEvent::WokeUp => self.look_around(now),
            DhtEvent::Forgotten => self.look_around_again(now),
            DhtEvent::Met | DhtEvent::Moved => {
                self.router_doubted = true;
                self.look_around_again(now);
            }
            DhtEvent::Late { connect } => self.direct_is_late(connect, now),
            DhtEvent::Punching { local_id, until } => self.await_punch(local_id, until),
            DhtEvent::Persistent { .. }
            | DhtEvent::Access(_)
            | DhtEvent::Health { .. }
            | DhtEvent::Unlistened { .. } => {}
        }
    }
}

fn dht_config(config: SwarmConfig, key_pair: Arc<KeyPair>) -> DhtConfig {
    let SwarmConfig { bootstrap, persistent, address, local_addresses, unix_ms, relays, .. } =
        config;
    let bogon = address.is_some_and(|a| dht_rpc::bogon::is_bogon(a.ip()));
    let mut dht = DhtConfig::new((*key_pair).clone(), bootstrap);
    dht.allow_bogons |= bogon;
    (dht.persistent, dht.address, dht.local_addresses) = (persistent, address, local_addresses);
    (dht.big_datagrams, dht.unix_ms, dht.relays) = (true, unix_ms, relays);
    dht
}
