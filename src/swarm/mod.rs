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

mod connections;
pub mod dht_rpc;
pub mod driver;
mod event;
pub mod hyperdht;
mod peer_info;
mod retry;
pub mod secret_stream;
#[cfg(test)]
mod tests;
mod topic;
pub mod udx;

pub use connections::ConnId;
pub use event::{Closed, ConnectionStatus, Limits, SwarmConfig, SwarmEvent, SwarmStatus};
pub use topic::{JoinOptions, TopicStatus};

use crate::codec::FrameBuf;
use crate::crypto::KeyPair;
use crate::key::{PublicKey, Topic};
use connections::{Connection, Connections, FIRST_PACKET_WAIT, MAX_WAITING, Phase, Session};
use dht_rpc::QueryId;
use hyperdht::{ConnectId, DhtConfig, DhtEvent, Dial, HyperDht};
use peer_info::Peers;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secret_stream::frame::{Opener, Sealer};
use secret_stream::noise::SessionKeys;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};
use topic::{Action, Topics};
use udx::{ConnectOptions, Udx, UdxConfig, UdxEvent};

/// One UDP socket of the driver, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u8);

impl SocketId {
    /// The socket that announces, answers and carries streams.
    pub const MAIN: Self = Self(0);
}

/// A dial that takes longer has got stuck: punching through the worst pair of NATs takes 35 s.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stream that we ended waits for the peer to end it too.
const LINGER: Duration = Duration::from_secs(5);

/// Changes of a queue smaller than this are not told.
const QUEUE_STEP: usize = 64 * 1024;

/// Where datagrams of one poll go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    pub socket: SocketId,
    pub to: SocketAddrV4,
    /// The buffer holds several datagrams of this size, the last may be shorter.
    pub segment_size: Option<usize>,
    pub ttl: Option<u8>,
}

/// The whole network of a process, as one machine.
pub struct Swarm {
    key_pair: Arc<KeyPair>,
    limits: Limits,
    rng: StdRng,
    udx: Udx,
    dht: HyperDht,
    topics: Topics,
    peers: Peers,
    connections: Connections,
    /// Streams that we ended and whose peers have not: when they are destroyed. No longer than the
    /// list of connections of the last [`LINGER`].
    closing: BTreeMap<u32, Instant>,
    events: VecDeque<SwarmEvent>,
    ready: bool,
    listening: bool,
    online: bool,
    stopping: bool,
}

/// What a handshake inside the DHT came to.
struct Agreed {
    keys: SessionKeys,
    local_id: u32,
    remote_id: u32,
    /// Where to send; `None`: their first packet will tell.
    dial: Option<Dial>,
    big_datagrams: bool,
}

impl Swarm {
    pub fn new(config: SwarmConfig, mut rng: StdRng, now: Instant) -> Self {
        let SwarmConfig { key_pair, limits, .. } = &config;
        let (key_pair, limits) = (Arc::new(key_pair.clone()), *limits);
        let mut child = || StdRng::from_rng(&mut rng);
        let udx = Udx::new(child(), UdxConfig::default());
        let dht = HyperDht::new(dht_config(config, key_pair.clone()), child(), now);
        let peers = Peers::new(PublicKey(key_pair.public()), &mut rng);
        Self {
            key_pair,
            limits,
            rng,
            udx,
            dht,
            topics: Topics::default(),
            peers,
            connections: Connections::default(),
            closing: BTreeMap::new(),
            events: VecDeque::new(),
            ready: false,
            listening: false,
            online: true,
            stopping: false,
        }
    }

    /// Takes what one system call received from `from`: datagrams of `stride` bytes back to back.
    /// [`Self::end_of_batch`] must follow.
    pub fn handle_datagrams(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        data: &[u8],
        stride: usize,
        now: Instant,
    ) {
        for datagram in data.chunks(stride.max(1)) {
            if !self.udx.handle_datagram(socket, from, datagram, now, &mut self.connections) {
                self.dht.handle_datagram(socket, from, datagram, now);
            }
        }
    }

    /// Everything that was waiting in the sockets has been handled: acknowledges, decides, tells.
    pub fn end_of_batch(&mut self, now: Instant) {
        self.deliver(now);
        self.udx.end_of_batch(now);
        self.pump(now);
        self.tell_queues();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.udx.handle_timeout(now);
        self.dht.handle_timeout(now);
        self.peers.handle_timeout(now, &mut self.rng);
        for stream in self.connections.due(now) {
            self.connection_due(stream, now);
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
            self.topics.poll_timeout(),
            self.peers.poll_timeout(),
            self.connections.poll_timeout(),
            self.closing.values().min().copied(),
        ];
        deadlines.into_iter().flatten().min()
    }

    pub fn poll_event(&mut self) -> Option<SwarmEvent> {
        self.events.pop_front()
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
            return Some(Transmit { socket, to, segment_size: None, ttl });
        }
        let udx::Transmit { socket, to, segment_size, ttl } =
            self.udx.poll_transmit(now, buf, max_segments)?;
        Some(Transmit { socket, to, segment_size, ttl })
    }

    /// The system refused a datagram of `size` bytes as too large for the way to `to`.
    pub fn handle_send_error(
        &mut self,
        socket: SocketId,
        to: SocketAddrV4,
        size: usize,
        now: Instant,
    ) {
        self.udx.handle_send_error(socket, to, size, now);
    }

    /// Joins a topic, or changes the roles in which it is joined.
    pub fn join(&mut self, topic: Topic, options: JoinOptions, now: Instant) {
        self.topics.join(topic, options, now);
        self.pump(now);
    }

    /// Leaves a topic. Connections found through it stay.
    pub fn leave(&mut self, topic: &Topic, now: Instant) {
        self.topics.leave(topic, now);
        self.pump(now);
    }

    /// Keeps a connection to `key`, whatever the topics.
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
        let Some(connection) = self.connections.get(conn).filter(|c| c.is_open()) else { return 0 };
        let Some(session) = &mut connection.session else { return 0 };
        let len = frame.len() as u64;
        match session.sealer.seal(frame) {
            Ok(bytes) => {
                connection.last_write = now;
                connection.has_written = true;
                connection.sent += len;
                let _ = self.udx.write(conn.stream(), bytes, now);
                let queued = self.udx.queued(conn.stream());
                connection.told_queued = queued;
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
        self.udx.queued(conn.stream())
    }

    /// The owner is done with `bytes` of the frames it got: the peer may send as many more.
    pub fn consumed(&mut self, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.connections.get(conn) {
            connection.backlog = connection.backlog.saturating_sub(bytes);
            self.udx.set_backlog(conn.stream(), connection.backlog);
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
        if let Some(stream) = self.connections.by_key(&key).map(|c| c.id.stream()) {
            self.destroy(stream, Closed::Banned, now);
        }
        self.pump(now);
    }

    /// The interfaces or their addresses changed: finds out which connections still live, looks and
    /// announces again.
    pub fn network_changed(&mut self, local_addresses: Vec<SocketAddrV4>, now: Instant) {
        self.dht.set_local_addresses(local_addresses, now);
        self.look_around(now);
        self.pump(now);
    }

    /// Leaves everything. [`Self::is_stopped`] tells when all has been said.
    pub fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.peers.stop();
        self.topics.leave_all(now);
        for stream in self.connections.streams() {
            self.end(stream, Closed::Local, now);
        }
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

    pub fn status(&self) -> SwarmStatus {
        let connections = self.connections.iter().map(|c| ConnectionStatus {
            conn: c.id,
            remote: c.remote,
            initiator: c.initiator,
            open: c.is_open(),
            addr: c.addr,
            received: c.received,
            sent: c.sent,
            queued: self.udx.queued(c.id.stream()),
            rtt: self.udx.stats(c.id.stream()).and_then(|stats| stats.rtt),
        });
        SwarmStatus {
            ready: self.ready,
            listening: self.listening,
            peers_known: self.peers.len(),
            peers_queued: self.peers.queued(),
            connections: connections.collect(),
            topics: self.topics.status(),
        }
    }

    /// Carries news between the machines until none is left.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.dht.poll_event() {
                self.handle_dht(event, now);
            } else if let Some(event) = self.udx.poll_event() {
                self.handle_udx(event, now);
            } else if !self.start_round(now) && !self.start_dial(now) {
                return;
            }
        }
    }

    /// Finds out which connections still live, and which peers there are.
    fn look_around(&mut self, now: Instant) {
        for stream in self.connections.streams() {
            self.keep_alive(stream, now);
        }
        self.topics.refresh(now);
    }

    /// Starts the next round of a topic that is due.
    fn start_round(&mut self, now: Instant) -> bool {
        if !self.listening && self.topics.is_server() {
            // Records of topics name our relays, so those come first; DhtEvent::Listening says when.
            self.listening = true;
            self.dht.listen(self.key_pair.clone(), now);
            return true;
        }
        let (connections, peers) = (&self.connections, &self.peers);
        let due = self.topics.poll(now, |topic| has_peer(connections, peers, topic));
        let Some((topic, action)) = due else { return false };
        let query = match action {
            Action::Announce => self.dht.announce(topic, now),
            Action::Lookup => self.dht.lookup(topic, now),
            Action::Unannounce => self.dht.unannounce(topic, now),
            Action::Cancel(query) => {
                self.dht.cancel_topic_query(query);
                return true;
            }
        };
        self.topics.started(topic, action, query, now);
        true
    }

    /// Dials the next queued peer if one more may be dialled.
    fn start_dial(&mut self, now: Instant) -> bool {
        let limits = self.limits;
        let first = self.connections.counted() == self.connections.dialling();
        let parallel = if first { limits.max_parallel_first } else { limits.max_parallel };
        if self.stopping || self.connections.dialling() >= parallel {
            return false;
        }
        let Some(dial) = self.peers.next_dial(!self.is_within_max_peers(), now) else {
            return false;
        };
        let Some(stream) = self.udx.open(None) else { return false };
        tracing::debug!(peer = ?dial.remote, explicit = dial.explicit, "dialling");
        let connect = self.dht.connect(dial.remote, dial.relay_addresses, stream, now);
        let id = self.connections.name(stream);
        let phase = Phase::Dialling { connect, until: now + DIAL_TIMEOUT };
        self.connections.insert(Connection::new(id, dial.remote, true, phase, now));
        self.peers.connecting(dial.remote, now);
        true
    }

    /// The more explicit peers there are, the fewer others.
    fn is_within_max_peers(&self) -> bool {
        let factor = match self.peers.explicit() {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            _ => 4,
        };
        factor * self.connections.counted() < self.limits.max_peers
    }

    fn handle_dht(&mut self, event: DhtEvent, now: Instant) {
        match event {
            DhtEvent::Bootstrapped { .. } => {
                if !std::mem::replace(&mut self.ready, true) {
                    self.events.push_back(SwarmEvent::Ready);
                }
            }
            DhtEvent::Peer { query, public_key, relay_addresses } => {
                if let Some((topic, quick)) = self.topics.peer_found(query, public_key) {
                    let rng = &mut self.rng;
                    self.peers.found(public_key, relay_addresses, topic, quick, now, rng);
                }
            }
            DhtEvent::QueryDone { query, .. } => self.round_finished(query, now),
            DhtEvent::Listening { relays, .. } => {
                tracing::debug!(relays, "listening");
                self.topics.may_announce();
            }
            DhtEvent::Outgoing { connect, local_id, remote_id, tx, rx, hash, dial, .. } => {
                let DhtEvent::Outgoing { remote, big_datagrams, .. } = event else { return };
                let keys = SessionKeys { tx, rx, hash, remote, initiator: true };
                let agreed = Agreed { keys, local_id, remote_id, dial, big_datagrams };
                self.dialled(connect, agreed, now);
            }
            DhtEvent::Incoming { remote, local_id, remote_id, tx, rx, hash, dial, .. } => {
                let DhtEvent::Incoming { big_datagrams, .. } = event else { return };
                let keys = SessionKeys { tx, rx, hash, remote, initiator: false };
                let agreed = Agreed { keys, local_id, remote_id, dial, big_datagrams };
                self.accepted(agreed, now);
            }
            DhtEvent::ConnectFailed { connect, why, .. } => {
                if let Some(stream) = self.connections.dial(connect) {
                    self.dial_failed(stream, why.to_string(), now);
                }
            }
            DhtEvent::Health { online, .. } => {
                if online && !std::mem::replace(&mut self.online, online) {
                    self.look_around(now);
                }
                self.online = online;
            }
            DhtEvent::Announced { .. }
            | DhtEvent::Persistent { .. }
            | DhtEvent::Unlistened { .. }
            | DhtEvent::Value { .. }
            | DhtEvent::Stored { .. } => {}
        }
    }

    fn round_finished(&mut self, query: QueryId, now: Instant) {
        let (connections, peers) = (&self.connections, &self.peers);
        let has_peer = |topic: &Topic| has_peer(connections, peers, topic);
        if let Some(round) = self.topics.finished(query, has_peer, now, &mut self.rng) {
            let announced = round.announced;
            let (topic, found) = (round.topic, round.found);
            self.events.push_back(SwarmEvent::Discovery { topic, found, announced });
        }
    }

    /// The handshake of a dial is done.
    fn dialled(&mut self, connect: ConnectId, agreed: Agreed, now: Instant) {
        let Some(stream) = self.connections.dial(connect) else { return };
        let dial = agreed.dial.map(|Dial { socket, to }| (socket, to));
        self.set_session(stream, agreed);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        match dial.or(connection.early_from) {
            Some((socket, to)) => self.open(stream, socket, to, now),
            None => {
                let until = now + FIRST_PACKET_WAIT;
                connection.phase = Phase::Waiting { until };
                self.connections.note_deadline(until);
            }
        }
    }

    /// A peer shook hands with us.
    fn accepted(&mut self, agreed: Agreed, now: Instant) {
        let room = self.connections.counted() < self.limits.max_connections;
        if self.stopping || !room || self.peers.is_refused(&agreed.keys.remote, now) {
            return;
        }
        if self.connections.waiting() >= MAX_WAITING
            && let Some(oldest) = self.connections.oldest_waiting()
        {
            self.connections.remove(oldest);
            self.udx.destroy(oldest);
        }
        let Some(stream) = self.udx.open(Some(agreed.local_id)) else { return };
        let id = self.connections.name(stream);
        let phase = Phase::Waiting { until: now + FIRST_PACKET_WAIT };
        self.connections.insert(Connection::new(id, agreed.keys.remote, false, phase, now));
        let dial = agreed.dial;
        self.set_session(stream, agreed);
        if let Some(Dial { socket, to }) = dial {
            self.open(stream, socket, to, now);
        }
    }

    fn set_session(&mut self, stream: u32, agreed: Agreed) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let Agreed { keys, remote_id, big_datagrams, .. } = agreed;
        let sealer = Sealer::new(&keys, self.rng.random());
        connection.session = Some(Session { sealer, opener: Opener::new(&keys) });
        connection.handshake_hash = keys.hash;
        connection.remote_stream = remote_id;
        connection.big_datagrams = big_datagrams;
    }

    /// The address is known: connects the stream, if the connection is not one too many.
    fn open(&mut self, stream: u32, socket: SocketId, to: SocketAddrV4, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let (id, remote, initiator) = (connection.id, connection.remote, connection.initiator);
        let handshake_hash = connection.handshake_hash;
        let Some(header) = connection.session.as_ref().map(|s| s.sealer.header()) else { return };
        // Elsewhere than on loopback the path carries no more than an Ethernet frame.
        let big = connection.big_datagrams && to.ip().is_loopback();
        let options = ConnectOptions {
            max_datagram: if big { udx::MAX_DATAGRAM } else { udx::ORDINARY_MAX },
            ..ConnectOptions::default()
        };
        let remote_stream = connection.remote_stream;
        self.udx.connect(stream, socket, remote_stream, to, options, now);
        if !initiator && !self.wins(stream, remote, now) {
            // Connected above so that the peer learns of the end.
            self.connections.remove(stream);
            self.udx.destroy(stream);
            return;
        }
        let _ = self.udx.write(stream, header.to_vec().into(), now);
        self.connections.claim_key(stream);
        self.peers.connected(remote, initiator, now);
        if let Some(connection) = self.connections.by_stream(stream) {
            connection.phase = Phase::Open;
            (connection.opened_at, connection.last_write) = (now, now);
            connection.addr = Some(to);
        }
        self.connections.note_deadline(now + connections::KEEP_ALIVE);
        let topics = self.peers.get(&remote).map(|peer| peer.topics.iter().copied().collect());
        tracing::debug!(peer = ?remote, %to, initiator, "connected");
        self.udx.deliver_early(stream, now, &mut self.connections);
        self.events.push_back(SwarmEvent::Connected {
            conn: id,
            remote,
            handshake_hash,
            initiator,
            addr: to,
            topics: topics.unwrap_or_default(),
        });
        self.deliver_stream(stream, now);
    }

    /// Whether an accepted connection may stay beside, that is instead of, one we have with the same
    /// peer. On a true tie the one opened by the greater public key survives, on both sides; a
    /// connection that has carried bytes both ways is outdated: its peer must have lost it.
    fn wins(&mut self, stream: u32, remote: PublicKey, now: Instant) -> bool {
        let own = PublicKey(self.key_pair.public());
        let Some(existing) = self.connections.by_key(&remote) else { return true };
        let other = existing.id.stream();
        if other == stream {
            return true;
        }
        let outdated = existing.has_read && existing.has_written;
        if outdated || own < remote {
            self.destroy(other, Closed::Duplicate, now);
            return true;
        }
        self.keep_alive(other, now);
        false
    }

    fn handle_udx(&mut self, event: UdxEvent, now: Instant) {
        match event {
            UdxEvent::Unconnected { id, socket, from } => {
                let Some(connection) = self.connections.by_stream(id) else { return };
                match connection.phase {
                    Phase::Waiting { .. } => self.open(id, socket, from, now),
                    Phase::Dialling { .. } => connection.early_from = Some((socket, from)),
                    Phase::Open => {}
                }
            }
            UdxEvent::RemoteEnded { id } => {
                self.deliver_stream(id, now);
                self.end(id, Closed::RemoteEnded, now);
            }
            UdxEvent::Closed { id, reason } => {
                self.closing.remove(&id);
                self.forget(id, Closed::Stream(reason), now);
            }
            // The reference sends an empty message to confirm a changed path; there are no others.
            UdxEvent::Message { .. } | UdxEvent::Writable { .. } => {}
        }
    }

    /// Hands the owner what has come for the streams that were fed.
    fn deliver(&mut self, now: Instant) {
        let touched = self.connections.take_touched();
        for &stream in &touched {
            self.deliver_stream(stream, now);
        }
        self.connections.recycle(touched);
    }

    fn deliver_stream(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if !connection.is_open() {
            return;
        }
        let conn = connection.id;
        let broken = loop {
            match connection.next_frame() {
                Ok(Some(data)) => self.events.push_back(SwarmEvent::Frame { conn, data }),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let backlog = connection.backlog;
        self.udx.set_backlog(stream, backlog);
        if let Some(error) = broken {
            tracing::debug!(?conn, %error, "the encrypted stream broke");
            self.destroy(stream, Closed::Frame(error), now);
        }
    }

    /// Tells the owner of queues that changed much: it decides by them how much to send.
    fn tell_queues(&mut self) {
        for connection in self.connections.iter_mut().filter(|c| c.told_queued > 0) {
            let queued = self.udx.queued(connection.id.stream());
            let fell = queued == 0 || queued + QUEUE_STEP <= connection.told_queued;
            if fell {
                connection.told_queued = queued;
                let conn = connection.id;
                self.events.push_back(SwarmEvent::Queued { conn, bytes: queued });
            }
        }
    }

    fn connection_due(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        match connection.phase {
            Phase::Open => self.keep_alive(stream, now),
            Phase::Dialling { connect, .. } => {
                self.dht.cancel(connect);
                self.dial_failed(stream, "it took too long".to_string(), now);
            }
            Phase::Waiting { .. } if connection.initiator => {
                self.dial_failed(stream, "no packet came after the handshake".to_string(), now);
            }
            Phase::Waiting { .. } => {
                self.connections.remove(stream);
                self.udx.destroy(stream);
            }
        }
    }

    fn keep_alive(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let Some(session) =
            connection.session.as_mut().filter(|_| matches!(connection.phase, Phase::Open))
        else {
            return;
        };
        let bytes = session.sealer.keep_alive();
        (connection.last_write, connection.has_written) = (now, true);
        let _ = self.udx.write(stream, bytes, now);
        self.connections.note_deadline(now + connections::KEEP_ALIVE);
    }

    fn dial_failed(&mut self, stream: u32, why: String, now: Instant) {
        let Some(connection) = self.connections.remove(stream) else { return };
        tracing::debug!(peer = ?connection.remote, why, "dial failed");
        self.udx.destroy(stream);
        let remote = connection.remote;
        self.peer_lost(&connection, now);
        self.events.push_back(SwarmEvent::DialFailed { remote, why });
    }

    /// Ends a connection in good order.
    fn end(&mut self, stream: u32, why: Closed, now: Instant) {
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        if open {
            self.udx.end(stream);
            self.closing.insert(stream, now + LINGER);
        } else {
            self.cancel_dial(stream);
            self.udx.destroy(stream);
        }
        self.forget(stream, why, now);
    }

    /// Ends a connection at once.
    fn destroy(&mut self, stream: u32, why: Closed, now: Instant) {
        self.cancel_dial(stream);
        self.udx.destroy(stream);
        self.forget(stream, why, now);
    }

    fn cancel_dial(&mut self, stream: u32) {
        let phase = self.connections.by_stream(stream).map(|c| &c.phase);
        if let Some(&Phase::Dialling { connect, .. }) = phase {
            self.dht.cancel(connect);
        }
    }

    /// The stream is no connection any more.
    fn forget(&mut self, stream: u32, why: Closed, now: Instant) {
        let Some(connection) = self.connections.remove(stream) else { return };
        let conn = connection.id;
        if connection.is_open() {
            tracing::debug!(peer = ?connection.remote, ?why, "closed");
            self.events.push_back(SwarmEvent::Closed { conn, why });
        }
        self.peer_lost(&connection, now);
    }

    /// A connection that counted is gone: retries its peer, and looks for others where it was the last.
    fn peer_lost(&mut self, connection: &Connection, now: Instant) {
        let remote = connection.remote;
        if self.connections.by_key(&remote).is_some() {
            return; // another connection took its place
        }
        let shared = self.peers.get(&remote).map(|peer| peer.topics.clone()).unwrap_or_default();
        let topics = &self.topics;
        let joined = |topic: &Topic| topics.is_joined(topic);
        self.peers.disconnected(remote, connection.initiator, joined, now, &mut self.rng);
        if connection.is_open() {
            for topic in shared.iter().filter(|t| !has_peer(&self.connections, &self.peers, t)) {
                self.topics.lonely(topic, now);
            }
        }
    }
}

/// Whether an open connection leads to a peer of `topic`.
fn has_peer(connections: &Connections, peers: &Peers, topic: &Topic) -> bool {
    let shares = |c: &Connection| peers.get(&c.remote).is_some_and(|p| p.topics.contains(topic));
    connections.iter().any(|connection| connection.is_open() && shares(connection))
}

fn dht_config(config: SwarmConfig, key_pair: Arc<KeyPair>) -> DhtConfig {
    let SwarmConfig { bootstrap, persistent, address, local_addresses, unix_ms, .. } = config;
    let private = address.is_some_and(|a| a.ip().is_private() || a.ip().is_loopback());
    let mut dht = DhtConfig::new((*key_pair).clone(), bootstrap);
    dht.allow_bogons |= private;
    (dht.persistent, dht.address, dht.local_addresses) = (persistent, address, local_addresses);
    (dht.big_datagrams, dht.unix_ms) = (true, unix_ms);
    dht
}
