//! A connection's life: from the handshake that the DHT brought to the event that it is closed.
//!
//! ```text
//!   dialled ──┐                                ┌─ frames ─▶ deliver
//!             ├─▶ waiting ─▶ unproven ─▶ open ─┼─ silence ─▶ keep_alive
//!   accepted ─┘   (first     (header   (dupl.  └─ end, destroy, stream lost ─▶ forget ─▶ peer_lost
//!                  packet)    frame)    rule)
//! ```
//!
//! Neither side waits for the other's header frame before it sends its own. An open connection is *placed* when its peer
//! has answered from where it is ([`super::placing`]).
//!
//! Source: hyperswarm/index.js:_connect, _handleServerConnection; hyperdht/lib/{connect,server}.js

use super::connections::{
    Both, CONFIRM_WAIT, CROWDED, Connection, Connections, FIRST_PACKET_WAIT, KEEP_ALIVE,
    MAX_BEFORE_OPEN, MAX_WAITING, PLACE_WAIT, Phase, Session,
};
use super::early::MAX_EARLY;
use super::event::{Closed, SwarmEvent};
use super::hyperdht::{Agreed, ConnectId, Dial};
use super::secret_stream::frame::{FRAME_OVERHEAD, HEADER_FRAME_LEN, Opener, Sealer};
use super::secret_stream::unordered::Unordered;
use super::socket::host_of;
use super::udx::{self, ConnectOptions, UdxEvent};
use super::{SocketId, Swarm};
use rand::Rng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a stream that we ended waits for the peer to end it too.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Bytes that may go to an address from which nothing has come: the packet with our header frame, 79 bytes, so
/// often. To one that a stranger's handshake named, three times; together with the answer to the handshake this
/// is less than three times the handshake. To one that we asked for, at each of its timeouts while we wait, and the packet
/// with our first words as often.
const FIRST_BYTES_ACCEPTED: u64 = 3 * FIRST_PACKET;
pub(super) const FIRST_BYTES_DIALLED: u64 = 6 * (FIRST_PACKET + EARLY_PACKET);
const EARLY_PACKET: u64 = (udx::packet::HEADER + FRAME_OVERHEAD + MAX_EARLY) as u64;
const FIRST_PACKET: u64 = (udx::packet::HEADER + HEADER_FRAME_LEN) as u64;

/// Changes of a queue smaller than this are not told.
const QUEUE_STEP: usize = 64 * 1024;

/// The connection over a stream, be it one to a relay or of a customer.
pub(super) fn either<'a>(
    connections: &'a mut Connections,
    controls: &'a mut Connections,
    stream: u32,
) -> Option<&'a mut Connection> {
    match connections.has(stream) {
        true => connections.by_stream(stream),
        false => controls.by_stream(stream),
    }
}

impl Swarm {
    /// The handshake of a dial is done.
    pub(super) fn dialled(&mut self, connect: ConnectId, agreed: Agreed, now: Instant) {
        let Some(stream) = self.stream_of(connect) else { return };
        let dial = agreed.dial.map(|Dial { socket, to }| (socket, to));
        if let Some(relayed) = self.relayed.get_mut(&stream) {
            relayed.connect = None;
            relayed.dialled = dial;
            // If the peer's first word comes through the relay the stream goes there, and has to find back.
            relayed.direct = relayed.direct.or(dial);
        }
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if connection.session.is_none() {
            self.set_session(stream, agreed);
        }
        if self.udx.remote(stream).is_some() {
            // It has a way through a relay already.
            return dial.into_iter().for_each(|way| self.direct_found(stream, way, now));
        }
        let Some(connection) = self.connections.by_stream(stream) else { return };
        match dial.or(connection.early_from) {
            Some((socket, to)) => self.reach(stream, socket, to, now),
            None => {
                let until = now + FIRST_PACKET_WAIT;
                connection.phase = Phase::Waiting { until };
                self.connections.note_deadline(until);
            }
        }
    }

    /// The handshake of a dial is done, and names a relay. A direct way is still looked for.
    pub(super) fn answered(&mut self, connect: ConnectId, agreed: Agreed, now: Instant) {
        let Some(stream) = self.connections.dial(connect) else { return };
        let (ask, delay) = (agreed.relays.ask, self.head_start(&agreed.keys.remote, now));
        self.set_session(stream, agreed);
        if let Some(ask) = ask {
            self.begin_relay(stream, ask, Some(connect), delay, now);
        }
    }

    /// A peer shook hands with us.
    pub(super) fn accepted(&mut self, agreed: Agreed, now: Instant) {
        let remote = agreed.keys.remote;
        let replaces = self.connections.by_key(&remote).is_some();
        let refused = self.stopping || self.peers.is_refused(&remote, now);
        if refused || !replaces && !self.may_have_room(&remote, now) {
            return self.dht.gone(agreed.local_id);
        }
        let waiting = self.connections.waiting();
        if waiting >= MAX_WAITING
            && let Some(stream) = self.connections.next_to_give_way(&mut self.rng, now)
        {
            self.destroy(stream, Closed::Local, now);
        }
        if waiting >= CROWDED {
            self.ask_all(now);
        }
        let Some(stream) = self.udx.open(Some(agreed.local_id)) else {
            return self.dht.gone(agreed.local_id);
        };
        let id = self.connections.name(stream);
        let phase = Phase::Waiting { until: now + FIRST_PACKET_WAIT };
        self.connections.insert(Connection::new(id, agreed.keys.remote, false, phase, now));
        let (dial, ask) = (agreed.dial, agreed.relays.ask);
        self.set_session(stream, agreed);
        if let Some(Dial { socket, to }) = dial {
            self.reach(stream, socket, to, now);
        } else if let Some(ask) = ask {
            self.begin_relay(stream, ask, None, self.head_start(&remote, now), now);
        }
    }

    /// A way to the peer of an accepted connection is being opened, which takes time.
    pub(super) fn await_punch(&mut self, stream: u32, until: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if let Phase::Waiting { until: waits } = &mut connection.phase {
            *waits = until.max(*waits);
        }
    }

    pub(super) fn set_session(&mut self, stream: u32, agreed: Agreed) {
        let Some(connection) = either(&mut self.connections, &mut self.controls.table, stream)
        else {
            return;
        };
        let Agreed { keys, remote_id, big_datagrams, relays, .. } = agreed;
        connection.offered_relay = relays.offered;
        let sealer = Sealer::new(&keys, self.rng.random());
        let unordered = Unordered::new(&keys, self.rng.random());
        connection.session = Some(Session { sealer, opener: Opener::new(&keys), unordered });
        connection.handshake_hash = keys.hash;
        connection.remote_stream = remote_id;
        connection.big_datagrams = big_datagrams;
    }

    /// The address is known: the stream leads there, and our header frame goes out.
    pub(super) fn reach(&mut self, stream: u32, socket: SocketId, to: SocketAddr, now: Instant) {
        self.reach_by(stream, (socket, to), None, now);
    }

    /// The same through a leg of a relay.
    pub(super) fn reach_through(&mut self, stream: u32, way: udx::Way, leg: u32, now: Instant) {
        self.reach_by(stream, way, Some(leg), now);
    }

    fn reach_by(&mut self, stream: u32, way: udx::Way, leg: Option<u32>, now: Instant) {
        let (socket, to) = way;
        let Some(connection) = either(&mut self.connections, &mut self.controls.table, stream)
        else {
            return;
        };
        let Some(header) = connection.session.as_ref().map(|s| s.sealer.header()) else { return };
        let until = now + FIRST_PACKET_WAIT;
        connection.phase = Phase::Unproven { until };
        connection.addr = Some(to);
        // Elsewhere than on loopback the path carries no more than an Ethernet frame.
        let big = connection.big_datagrams && to.ip().is_loopback() && leg.is_none();
        // That the relay is where it is it has shown itself.
        let first = if connection.initiator || leg.is_some() {
            FIRST_BYTES_DIALLED
        } else {
            FIRST_BYTES_ACCEPTED
        };
        let options = ConnectOptions {
            max_datagram: if big { udx::MAX_DATAGRAM } else { udx::ORDINARY_MAX },
            unproven: Some(first),
            ..ConnectOptions::default()
        };
        let remote_stream = leg.unwrap_or(connection.remote_stream);
        self.connections.note_deadline(until);
        self.controls.table.note_deadline(until);
        self.udx.connect(stream, socket, remote_stream, to, options, now);
        let _ = self.udx.write(stream, header.to_vec().into(), now);
        self.tell_early(stream);
        let mut sink = Both(&mut self.connections, &mut self.controls.table);
        self.udx.deliver_early(stream, now, &mut sink);
        match self.controls.has(stream) {
            true => self.deliver_control(stream, now),
            false => self.deliver_stream(stream, now),
        }
    }

    /// Looks whether the peer of an unproven connection has shown itself, and opens the connection if it is not one
    /// too many.
    ///
    /// Who sends a copy of an old handshake learns enough of it to make a header frame, but no message. So a
    /// header frame is enough only where the peer has no connection yet.
    fn prove(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let Some(session) = connection.session.as_ref().filter(|_| connection.is_unproven()) else {
            return;
        };
        let opener = &session.opener;
        let (has_header, confirmed) = (opener.has_header(), opener.has_read());
        let (partial, failed) = (opener.partial().0, opener.failed());
        let (remote, initiator) = (connection.remote, connection.initiator);
        if let Some(error) = failed.filter(|_| !confirmed) {
            return self.give_up(stream, error.to_string(), now);
        }
        if !has_header {
            return;
        }
        self.udx.peer_known(stream);
        let host = self.udx.remote(stream).map(|addr| host_of(&addr));
        if !initiator && !self.connections.beside(stream, &remote).is_empty() {
            if !confirmed {
                if partial > MAX_BEFORE_OPEN {
                    self.give_up(stream, "no whole frame".to_string(), now);
                }
                return;
            }
            if self.waits_for_dial(stream, remote, now) {
                return;
            }
            if !self.wins(stream, remote, now) {
                return self.give_up(stream, "a duplicate".to_string(), now);
            }
        } else if !initiator && !host.is_some_and(|host| self.has_room(&remote, host, now)) {
            return self.give_up(stream, "too many connections".to_string(), now);
        }
        self.open(stream, now);
    }

    /// The peer is there: the connection counts.
    fn open(&mut self, stream: u32, now: Instant) {
        let addr = self.udx.remote(stream);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let Some(addr) = addr.filter(|_| connection.is_unproven()) else { return };
        let (id, remote, initiator) = (connection.id, connection.remote, connection.initiator);
        let handshake_hash = connection.handshake_hash;
        connection.offers = connection.offered_relay.and_then(|offer| offer.proven(&remote));
        connection.phase = Phase::Open;
        connection.told = true;
        connection.addr = Some(addr);
        (connection.opened_at, connection.last_used, connection.last_write) = (now, now, now);
        connection.ask_at = now + KEEP_ALIVE;
        if initiator
            && !connection.early.is_sent()
            && let Some(session) = &mut connection.session
        {
            // A message, so that the other side knows that this is no copy of a handshake.
            let _ = self.udx.write(stream, session.sealer.keep_alive(), now);
        }
        connection.has_read = connection.session.as_ref().is_some_and(|s| s.opener.has_read());
        let is_peer = connection.is_peer();
        self.connections.note_deadline(now + KEEP_ALIVE);
        if is_peer {
            self.claim(stream, now);
        }
        if !initiator && self.connections.waiting() >= CROWDED {
            self.ask(stream, now);
        }
        let topics = self.peers.topics(&remote);
        tracing::debug!(peer = ?remote, to = %addr, initiator, "connected");
        self.events.push_back(SwarmEvent::Connected {
            conn: id,
            remote,
            handshake_hash,
            initiator,
            addr,
            topics,
        });
        self.send_rest(stream, now);
        for other in self.connections.candidates(&remote) {
            self.prove(other, now);
        }
        self.relayed_open(stream, now);
        if self.connections.by_stream(stream).is_some_and(|c| c.offers.is_some()) {
            self.relay_offered(&remote, now);
        }
    }

    /// The connection leads to its peer: it is the one that counts, and others of the peer end.
    pub(super) fn claim(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let (remote, initiator) = (connection.remote, connection.initiator);
        self.note_host(stream);
        self.connections.claim_key(stream);
        self.peers.connected(remote, initiator, now);
        if !initiator {
            self.dht.arrived(stream);
        }
        for other in self.connections.beside(stream, &remote) {
            self.destroy(other, Closed::Duplicate, now);
        }
    }

    /// Ends a connection that is not open.
    fn give_up(&mut self, stream: u32, why: String, now: Instant) {
        if self.connections.by_stream(stream).is_some_and(|c| c.initiator) {
            return self.dial_failed(stream, why, now);
        }
        self.judge_relay(stream, now);
        if let Some(connection) = self.connections.remove(stream) {
            tracing::debug!(peer = ?connection.remote, why, "not accepted");
            self.dht.gone(stream);
            self.udx.destroy(stream);
        }
    }

    pub(super) fn handle_udx(&mut self, event: UdxEvent, now: Instant) {
        if let Some(stream) = event.stream().filter(|stream| self.controls.has(*stream)) {
            return self.handle_control_udx(stream, &event, now);
        }
        match event {
            UdxEvent::LegEnded { leg } => self.leg_ended(leg),
            UdxEvent::Elsewhere { id, socket, from } => {
                self.direct_found(id, (socket, from), now);
            }
            UdxEvent::Unconnected { id, socket, from } => {
                let Some(connection) = self.connections.by_stream(id) else { return };
                match connection.phase {
                    Phase::Waiting { .. } => {
                        self.dht.reached(id, now);
                        self.reach(id, socket, from, now);
                    }
                    Phase::Dialling { .. } => connection.early_from = Some((socket, from)),
                    Phase::Unproven { .. } | Phase::Open => {}
                }
            }
            UdxEvent::Proven { id } => self.proven(id, now),
            UdxEvent::RemoteEnded { id } => {
                self.deliver_stream(id, now);
                if self.is_unproven(id) {
                    return self.give_up(id, "the peer ended at once".to_string(), now);
                }
                self.end(id, Closed::RemoteEnded, now);
            }
            UdxEvent::Closed { id, reason } if self.is_unproven(id) => {
                self.give_up(id, reason.to_string(), now);
            }
            UdxEvent::Closed { id, reason } => {
                self.closing.remove(&id);
                self.forget(id, Closed::Stream(reason), now);
            }
            UdxEvent::Moved { id, to, .. } => self.peer_moved(id, to, now),
            UdxEvent::Message { id, socket, from, payload } => {
                self.heard_beside(id, (socket, from), &payload, now);
            }
            UdxEvent::Writable { .. } => {}
        }
    }

    /// Hands the owner what has come for the streams that were fed.
    pub(super) fn deliver(&mut self, now: Instant) {
        let touched = self.connections.take_touched();
        for &stream in &touched {
            self.deliver_stream(stream, now);
        }
        self.connections.recycle(touched);
    }

    fn is_unproven(&mut self, stream: u32) -> bool {
        self.connections.by_stream(stream).is_some_and(|c| c.is_unproven())
    }

    pub(super) fn deliver_stream(&mut self, stream: u32, now: Instant) {
        self.prove(stream, now);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if !connection.is_open() {
            return;
        }
        connection.last_read = now;
        let (conn, remote, was_peer) = (connection.id, connection.remote, connection.is_peer());
        let broken = loop {
            match connection.next_frame() {
                Ok(Some(data)) => {
                    connection.last_used = now;
                    self.events.push_back(SwarmEvent::Frame { conn, data });
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let (held, partial) = (connection.held(), connection.partial());
        let used = connection.last_used == now || connection.partial() > 0;
        let unopened = connection.session.as_ref().map_or(0, |session| session.opener.unopened());
        let confirmed = !was_peer && connection.is_peer();
        self.udx.set_backlog(stream, held);
        self.udx.set_partial(stream, partial);
        if confirmed && !self.waits_for_dial(stream, remote, now) {
            self.claim(stream, now);
        }
        if let Some(error) = broken {
            tracing::debug!(?conn, %error, "the encrypted stream broke");
            self.destroy(stream, Closed::Frame(error), now);
        } else {
            self.udx.opened(stream, unopened, now);
            self.direct_shown(stream, now);
            if used {
                self.watch(stream, now);
            }
        }
    }

    /// Tells the owner of queues that changed much: it decides by them how much to send.
    pub(super) fn tell_queues(&mut self) {
        for connection in self.connections.iter_mut().filter(|c| c.told_queued > 0) {
            let queued = self.udx.unsent(connection.id.stream());
            let fell = queued == 0 || queued + QUEUE_STEP <= connection.told_queued;
            if fell {
                connection.told_queued = queued;
                let conn = connection.id;
                self.events.push_back(SwarmEvent::Queued { conn, bytes: queued });
            }
        }
    }

    pub(super) fn connection_due(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        match connection.phase {
            Phase::Open
                if connection.stands_still(now)
                    || !connection.is_peer() && now >= connection.opened_at + CONFIRM_WAIT
                    || !connection.proven && now >= connection.opened_at + PLACE_WAIT =>
            {
                self.destroy(stream, Closed::Stream(udx::CloseReason::TimedOut), now);
            }
            Phase::Open if !connection.proven && now >= connection.ask_at => self.ask(stream, now),
            Phase::Open if connection.watch.at.is_some_and(|at| at <= now) => {
                connection.watch.at = None;
                let next = connection.deadline();
                self.connections.note_deadline(next);
                self.look_after(stream, now);
            }
            Phase::Open => self.keep_alive(stream, now),
            Phase::Dialling { connect, .. } => {
                self.dht.cancel(connect);
                self.dial_failed(stream, "it took too long".to_string(), now);
            }
            Phase::Waiting { .. } => {
                if !connection.initiator {
                    self.dht.missed(now);
                }
                self.give_up(stream, "no packet came after the handshake".to_string(), now);
            }
            Phase::Unproven { .. } => {
                self.give_up(stream, "the peer was not there after the handshake".to_string(), now);
            }
        }
    }

    pub(super) fn keep_alive(&mut self, stream: u32, now: Instant) {
        let Some(connection) = either(&mut self.connections, &mut self.controls.table, stream)
        else {
            return;
        };
        let Some(session) =
            connection.session.as_mut().filter(|_| matches!(connection.phase, Phase::Open))
        else {
            return;
        };
        let bytes = session.sealer.keep_alive();
        (connection.last_write, connection.has_written) = (now, true);
        let _ = self.udx.write(stream, bytes, now);
        self.connections.note_deadline(now + KEEP_ALIVE);
        self.controls.table.note_deadline(now + KEEP_ALIVE);
    }
}
