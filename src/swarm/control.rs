//! The life of control connections: to relays, and of customers of ours. See [`super::relay`].
//!
//! They have the handshake, the header frames and the keep-alive of all connections, and none of the rules about peers: a
//! relay is no peer of a drive, and a customer takes no place of one.

use super::Swarm;
use super::connections::{Connection, FIRST_PACKET_WAIT, KEEP_ALIVE, Phase};
use super::control_room::Share;
use super::hyperdht::{Agreed, Dial};
use super::relay::controls::MAX_FRAME;
use super::relay::messages::{self, Pair};
use super::udx::UdxEvent;
use crate::key::PublicKey;
use crate::mux::MuxEvent;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// How long one to a relay stays that nothing goes through, for the next that needs it.
const UNUSED: Duration = Duration::from_secs(10);

/// How long a customer may stay for whom nothing is passed on, whatever it asks for.
const IDLE_CUSTOMER: Duration = Duration::from_secs(60);

/// How long it may take to come to a relay.
const DIAL: Duration = Duration::from_secs(15);

impl Swarm {
    /// The control connection to a relay, which is looked for at `hint` first, for a stream of `share`. None if there is
    /// no room for it.
    pub(super) fn control_to(
        &mut self,
        relay: PublicKey,
        hint: Vec<SocketAddrV4>,
        share: Share,
        now: Instant,
    ) -> Option<u32> {
        let known = self.controls.table.by_key(&relay).map(|control| control.id.stream());
        if let Some(control) = known.filter(|control| !self.is_mute(*control, now)) {
            return Some(control);
        }
        if self.is_own_relay(&relay) || !self.make_control_room(&relay, share, now) {
            return None;
        }
        let stream = self.udx.open(None)?;
        let connect = self.dht.connect(relay, hint, stream, now);
        let id = self.connections.name(stream);
        let phase = Phase::Dialling { connect, until: now + DIAL };
        tracing::debug!(?relay, "going to a relay");
        self.controls.insert(Connection::new(id, relay, true, phase, now));
        Some(stream)
    }

    /// Goes to a relay that nothing needs yet, to see whether it is there: [`SwarmStatus::visited`](super::SwarmStatus).
    pub fn visit(&mut self, relay: PublicKey, now: Instant) {
        self.control_to(relay, Vec::new(), Share::Relay(None), now);
        self.pump(now);
    }

    /// The handshake with a relay is done.
    pub(super) fn control_dialled(&mut self, stream: u32, agreed: Agreed, now: Instant) {
        let dial = agreed.dial;
        self.set_session(stream, agreed);
        let Some(control) = self.controls.table.by_stream(stream) else { return };
        match dial.map(|Dial { socket, to }| (socket, to)).or(control.early_from) {
            Some((socket, to)) => self.reach(stream, socket, to, now),
            None => {
                let until = now + FIRST_PACKET_WAIT;
                control.phase = Phase::Waiting { until };
                self.controls.table.note_deadline(until);
            }
        }
    }

    pub(super) fn handle_control_udx(&mut self, stream: u32, event: &UdxEvent, now: Instant) {
        match event {
            UdxEvent::Unconnected { socket, from, .. } => {
                let Some(control) = self.controls.table.by_stream(stream) else { return };
                match control.phase {
                    Phase::Waiting { .. } => {
                        self.dht.reached(stream, now);
                        self.reach(stream, *socket, *from, now);
                    }
                    Phase::Dialling { .. } => control.early_from = Some((*socket, *from)),
                    Phase::Unproven { .. } | Phase::Open => {}
                }
            }
            UdxEvent::Proven { .. } => self.customer_proven(stream, now),
            UdxEvent::Moved { .. } => self.ask(stream, now),
            UdxEvent::RemoteEnded { .. } => {
                self.deliver_control(stream, now);
                self.end_control(stream, "the other side ended", now);
            }
            UdxEvent::Closed { reason, .. } => {
                self.end_control(stream, &reason.to_string(), now);
            }
            _ => {}
        }
    }

    /// Works off what has come.
    pub(super) fn deliver_controls(&mut self, now: Instant) {
        let touched = self.controls.table.take_touched();
        for &stream in &touched {
            self.deliver_control(stream, now);
        }
        self.controls.table.recycle(touched);
    }

    pub(super) fn deliver_control(&mut self, stream: u32, now: Instant) {
        let Some(control) = self.controls.table.by_stream(stream) else { return };
        if control.is_unproven() && control.has_header() {
            self.udx.peer_known(stream);
            self.open_control(stream, now);
        }
        loop {
            let Some(control) = self.controls.table.by_stream(stream) else { return };
            if !control.is_open() {
                return;
            }
            control.last_read = now;
            if control.session.as_ref().is_some_and(|s| s.opener.partial().0 > MAX_FRAME) {
                return self.end_control(stream, "too long a frame", now);
            }
            match control.next_frame() {
                Ok(Some(frame)) => {
                    control.backlog.consume(frame.len());
                    let Some(control) = self.controls.get(stream) else { return };
                    if control.handle_frame(frame).is_err() || !self.hear(stream, now) {
                        return self.end_control(stream, "a broken frame", now);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.end_control(stream, &error.to_string(), now),
            }
        }
        let control = self.controls.table.by_stream(stream);
        let session = control.and_then(|control| control.session.as_ref());
        self.udx.opened(stream, session.map_or(0, |session| session.opener.unopened()), now);
        self.flush_control(stream, now);
    }

    fn open_control(&mut self, stream: u32, now: Instant) {
        let addr = self.udx.remote(stream);
        let own = self.key_pair.public();
        let Some(control) = self.controls.table.by_stream(stream) else { return };
        control.phase = Phase::Open;
        control.addr = addr;
        (control.opened_at, control.last_used, control.last_write) = (now, now, now);
        control.ask_at = now;
        let initiator = control.initiator;
        // Where a relay is we have been told by itself.
        control.proven = initiator;
        self.controls.table.note_deadline(now + KEEP_ALIVE);
        if initiator {
            if let Some(control) = self.controls.get(stream) {
                control.open(&own);
            }
            self.relay_open(stream, now);
            self.flush_control(stream, now);
        } else if self.customer_open(stream, now) {
            self.ask(stream, now);
        } else {
            self.end_control(stream, "too many customers", now);
        }
    }

    /// Works off the messages of a frame. False if they make no sense.
    fn hear(&mut self, stream: u32, now: Instant) -> bool {
        let Some(connection) = self.controls.table.by_stream(stream) else { return true };
        let (remote, initiator) = (connection.remote, connection.initiator);
        loop {
            let Some(control) = self.controls.get(stream) else { return true };
            match control.mux.poll_event() {
                Ok(Some(MuxEvent::Asked { id, .. })) => {
                    if initiator || id != remote.0 || control.channel.is_some() {
                        control.mux.refuse();
                        continue;
                    }
                    control.channel = control.mux.accept(&[]);
                }
                Ok(Some(MuxEvent::Message { kind: messages::PAIR, body, .. })) => {
                    let Ok(pair) = Pair::decode(&body) else { return false };
                    match initiator {
                        true => self.paired(stream, &pair, now),
                        false => self.customer_pairs(stream, pair, now),
                    }
                }
                Ok(Some(MuxEvent::Message { kind: messages::UNPAIR, body, .. })) => {
                    let Ok(token) = messages::decode_unpair(&body) else { return false };
                    if !initiator {
                        self.customer_unpairs(stream, &token, now);
                    }
                }
                Ok(Some(MuxEvent::Closed { .. })) => return false,
                Ok(Some(MuxEvent::Opened { .. })) => {
                    control.serves = true;
                    self.dht.silent_relays_mut().is_there(&remote);
                }
                Ok(Some(MuxEvent::Message { .. })) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Sends what is to be said.
    pub(super) fn flush_control(&mut self, stream: u32, now: Instant) {
        loop {
            let Some(control) = self.controls.get(stream) else { return };
            let Some(frame) = control.mux.poll_transmit() else { return };
            let Some(connection) = self.controls.table.by_stream(stream) else { return };
            let Some(session) = &mut connection.session else { return };
            let Ok(bytes) = session.sealer.seal(frame) else { return };
            (connection.last_write, connection.has_written) = (now, true);
            let _ = self.udx.write(stream, bytes, now);
        }
    }

    pub(super) fn control_due(&mut self, stream: u32, now: Instant) {
        let used = self.is_used(stream);
        let Some(control) = self.controls.table.by_stream(stream) else { return };
        if !control.is_open() {
            return self.end_control(stream, "no answer", now);
        }
        let patience = if control.initiator { UNUSED } else { IDLE_CUSTOMER };
        if used {
            control.last_used = now;
        }
        let idle = now >= control.last_used + patience;
        if idle || control.stands_still(now) || !control.initiator && control.is_overdue(now) {
            self.end_control(stream, "nobody needs it", now);
        } else if !control.proven && now >= control.ask_at {
            self.ask(stream, now);
        } else {
            self.keep_alive(stream, now);
        }
    }

    /// Whether streams go through it, or wait to where it is ours.
    fn is_used(&mut self, stream: u32) -> bool {
        match self.controls.table.by_stream(stream) {
            Some(control) if control.initiator => self.needs_control(stream),
            _ => self.is_passed_on(stream),
        }
    }

    /// A control connection is over, whoever ended it.
    pub(super) fn end_control(&mut self, stream: u32, why: &str, now: Instant) {
        let Some(control) = self.controls.remove(stream) else { return };
        tracing::debug!(remote = ?control.remote, why, "no way to a relay, or a customer, any more");
        if let Phase::Dialling { connect, .. } = control.phase {
            self.dht.cancel(connect);
        }
        match control.is_open() {
            true => {
                self.udx.end(stream);
                self.closing.insert(stream, now + super::lifecycle::LINGER);
            }
            false => self.udx.destroy(stream),
        }
        match control.initiator {
            true => self.relay_lost(stream, now),
            false => {
                self.dht.gone(stream);
                self.customer_gone(stream, now);
            }
        }
    }
}
