//! Connections whose path changes or dies under them.
//!
//! The stream follows a peer that speaks from another address by itself ([`super::udx`]); here its connection learns of it, and
//! the peer is asked whether it is there. So that the peer notices *us* at another address, and that a dead path is noticed
//! long before the stream times out, who has written or read a message and then hears nothing for some round trips
//! says something: that opens a new mapping in a NAT, and the peer follows. If much waits in the stream it is said beside it
//! as well, which the reference takes and ignores. Who hears nothing then, however often
//! he asks, dials the peer anew beside the old connection. Whichever is there first carries on: the old one is heard
//! again, and a dial that has come to nothing so far ends; or the new one opens, and replaces the old one.
//!
//! A peer that is merely slow acknowledges what is said to it, and a path that loses much brings one of several answers.
//! One that is heard, and acknowledges nothing however often it is sent, does not hear us: that path is as dead.

use super::Swarm;
use super::connections::{Connection, Phase};
use super::dialling::DIAL_TIMEOUT;
use super::event::SwarmEvent;
use super::hyperdht::ConnectId;
use super::secret_stream::unordered::UNORDERED_OVERHEAD;
use super::udx::{Udx, Way};
use crate::key::PublicKey;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long nothing must have been heard before we say something: three round trips, within these bounds.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_millis(800);

/// How long a peer may acknowledge nothing: four round trips, within these bounds.
const LEAST_UNHEEDED: Duration = Duration::from_millis(1500);
const MOST_UNHEEDED: Duration = Duration::from_secs(4);

/// Bytes that are said then. Three times as many may be sent back to where they came from: enough to be asked whether we
/// are there.
const WORDS: usize = 6 * 20;

/// What is asked without an answer, once each half of that, before the path counts as dead.
const QUESTIONS: u32 = 2;

/// The same where we know that we moved: a NAT in front of the peer, which lets in only who is known to it, does not let us.
const QUESTIONS_MOVED: u32 = 1;

/// The same where our NAT has another port for each destination. A mapping that it lost comes back with another port,
/// which the peer's NAT does not let in.
const QUESTIONS_RANDOM: u32 = 1;

/// How long one dial beside a dead path may look for the peer, of which relays may not know yet where it is now.
const REDIAL: Duration = Duration::from_millis(1500);

/// So many dials beside one connection; the stream times out meanwhile, or the peer is heard now and then: after so long
/// without one they are forgotten.
const MAX_REDIALS: u32 = 8;
const FORGOTTEN: Duration = Duration::from_secs(300);

/// So many dials beside connections at a time: if the paths to many are dead it is most likely our own network.
const MAX_BESIDE: usize = 8;

/// Whether the peer of a connection is still there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    /// When it is looked whether anything was heard.
    pub at: Option<Instant>,
    /// When it was first asked, and how often.
    asked: Option<(Instant, u32)>,
    /// When a message was last written or read since: the answer says nothing of it.
    spoken: Option<Instant>,
    /// Another look follows when the peer was heard: we moved, and what we said may have come before what we said
    /// before.
    again: bool,
    redials: u32,
    redialled_at: Option<Instant>,
}

impl Swarm {
    /// The stream leads elsewhere now.
    pub(super) fn peer_moved(&mut self, stream: u32, addr: SocketAddr, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        connection.addr = Some(addr);
        tracing::debug!(peer = ?connection.remote, to = %addr, "the peer moved");
        if connection.is_open() {
            let conn = connection.id;
            self.events.push_back(SwarmEvent::PeerMoved { conn, addr });
            self.ask(stream, now);
        }
    }

    /// How long a connection may be silent.
    fn patience(&self, stream: u32) -> Duration {
        let rtt = self.udx.stats(stream).and_then(|stats| stats.rtt).unwrap_or(LEAST_PATIENCE);
        (3 * rtt).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// Whether the peer takes nothing of what it is sent: it does not hear us, though we may hear it.
    pub(super) fn is_unheeded(&self, stream: u32, now: Instant) -> bool {
        let rtt = self.udx.stats(stream).and_then(|stats| stats.rtt).unwrap_or_default();
        let patience = (4 * rtt).clamp(LEAST_UNHEEDED, MOST_UNHEEDED);
        self.udx.unheeded_since(stream).is_some_and(|since| now >= since + patience)
    }

    /// A message was written or read: from now on silence means something.
    pub(super) fn watch(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        connection.watch.spoken = Some(now);
        if connection.watch.at.is_none() {
            self.watch_at(stream, now + self.patience(stream));
        }
    }

    fn watch_at(&mut self, stream: u32, at: Instant) {
        if let Some(connection) = self.connections.by_stream(stream) {
            connection.watch.at = Some(at);
            self.connections.note_deadline(at);
        }
    }

    /// Looks at a connection that was to be watched.
    pub(super) fn look_after(&mut self, stream: u32, now: Instant) {
        let patience = self.patience(stream);
        let unheeded = self.is_unheeded(stream, now);
        if unheeded {
            // Its timer may come late, and the peer be there again.
            self.udx.repeat(stream);
        }
        let heard = self.udx.last_heard(stream).filter(|_| !unheeded);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let asked = connection.watch.asked;
        match (asked, heard) {
            (Some((at, _)), Some(heard)) if heard > at => {
                let before = std::mem::take(&mut connection.watch);
                let again = before.again;
                // Who is heard now and then is not dialled anew each time.
                if before.redialled_at.is_some_and(|at| now < at + FORGOTTEN) {
                    connection.watch.redials = before.redials;
                    connection.watch.redialled_at = before.redialled_at;
                }
                self.end_redial(stream);
                if again {
                    self.watch_at(stream, now + patience);
                } else if let Some(spoken) = before.spoken {
                    self.watch_at(stream, spoken.max(heard) + patience);
                }
            }
            (None, Some(heard)) if heard + patience > now => {
                self.watch_at(stream, heard + patience);
            }
            (None, _) => {
                self.speak_up(stream, now);
                self.speak_to_relay(stream, now);
            }
            (Some((at, questions)), _) => {
                connection.watch.asked = Some((at, questions + 1));
                let (moved, initiator) = (connection.watch.again, connection.initiator);
                let enough = match () {
                    () if moved => QUESTIONS_MOVED,
                    () if self.dht.has_random_ports() => QUESTIONS_RANDOM,
                    () => QUESTIONS,
                };
                self.udx.beat(stream);
                self.speak_beside(stream);
                self.watch_at(stream, now + (patience / 2).max(LEAST_PATIENCE));
                if questions >= enough {
                    self.dial_beside(stream, now);
                }
                // It may be our NAT that forgot everything. Then the peer's dial does not find us either.
                if !initiator && questions == 0 {
                    self.dht.check_announcements(now);
                }
            }
        }
    }

    /// Says something to the peer, who is to answer.
    fn speak_up(&mut self, stream: u32, now: Instant) {
        let patience = self.patience(stream);
        let Some(connection) = self.connections.by_stream(stream).filter(|c| c.is_open()) else {
            return;
        };
        let Some(session) = &mut connection.session else { return };
        let mut words = Vec::with_capacity(WORDS);
        while words.len() < WORDS {
            words.extend_from_slice(&session.sealer.keep_alive());
        }
        (connection.watch.asked, connection.watch.spoken) = (Some((now, 0)), None);
        (connection.last_write, connection.has_written) = (now, true);
        self.speak_beside(stream);
        let _ = self.udx.write(stream, words.into(), now);
        self.watch_at(stream, now + patience.min(LEAST_PATIENCE));
    }

    /// Says as much beside the stream, if what is said in it may come late.
    fn speak_beside(&mut self, stream: u32) {
        let busy = self.udx.stats(stream).is_some_and(|stats| stats.in_flight > 0)
            || self.udx.unsent(stream) > 0;
        let session = self.connections.by_stream(stream).and_then(|c| c.session.as_mut());
        let Some(session) = session.filter(|_| busy) else { return };
        let message = session.unordered.seal(&[0; WORDS - UNORDERED_OVERHEAD]);
        let _ = self.udx.send_message(stream, message);
    }

    /// A message came beside a stream, maybe from elsewhere. The reference sends empty ones to confirm a changed path.
    pub(super) fn heard_beside(&mut self, stream: u32, way: Way, message: &[u8], now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let session =
            connection.session.as_mut().filter(|_| matches!(connection.phase, Phase::Open));
        if let Some(text) = session.and_then(|session| session.unordered.open(message)) {
            self.udx.heard_from(stream, way, message.len(), now);
            self.heard_sign(stream, &text, now);
        }
    }

    /// Our addresses have changed: every peer, relay and customer is told where we are now, before anything else.
    pub(super) fn speak_up_to_all(&mut self, now: Instant) {
        for control in self.controls.table.streams() {
            self.keep_alive(control, now);
        }
        for stream in self.connections.streams() {
            self.speak_up(stream, now);
            if let Some(connection) = self.connections.by_stream(stream) {
                connection.watch.again = true;
            }
        }
    }

    /// Dials the peer of a connection whose path seems to be dead.
    fn dial_beside(&mut self, stream: u32, now: Instant) {
        let Some(old) = self.connections.by_stream(stream) else { return };
        let (remote, initiator) = (old.remote, old.initiator);
        let (redials, recent) = (old.watch.redials, old.watch.redialled_at);
        let relays = self.peers.get(&remote).map(|peer| peer.relay_addresses.clone());
        let relays = relays.unwrap_or_default();
        let may = initiator || !relays.is_empty();
        if !may || redials >= MAX_REDIALS || recent.is_some_and(|at| now < at + REDIAL) {
            return;
        }
        // One that still looks for the peer asks anew. One that goes through the ports of a host needs longer.
        if !self.dial_under_way(remote).is_some_and(|(_, connect)| self.dht.is_searching(connect)) {
            self.end_redial(stream);
        }
        let beside = |c: &Connection| c.remote == remote && c.initiator && !c.is_open();
        if self.stopping || self.connections.iter().any(beside) || self.beside() >= MAX_BESIDE {
            return;
        }
        let Some(new) = self.udx.open(None) else { return };
        tracing::debug!(peer = ?remote, redials, "nothing is heard: dialling beside");
        self.note_dead_relay(stream, remote, now);
        let relay = self.relay_for(&remote, now);
        let connect = self.dht.connect_through(relay, remote, relays, new, now);
        let id = self.connections.name(new);
        let phase = Phase::Dialling { connect, until: now + DIAL_TIMEOUT };
        let mut dial = Connection::new(id, remote, true, phase, now);
        dial.names_relay = relay.is_some();
        (dial.watch.redials, dial.watch.redialled_at) = (redials + 1, Some(now));
        self.connections.insert(dial);
        if let Some(old) = self.connections.by_stream(stream) {
            (old.watch.redials, old.watch.redialled_at) = (redials + 1, Some(now));
        }
    }

    /// Dials beside open connections.
    fn beside(&self) -> usize {
        let open: BTreeSet<_> =
            self.connections.iter().filter(|c| c.is_open()).map(|c| c.remote).collect();
        let dials = self.connections.iter().filter(|c| c.initiator && !c.is_open());
        dials.filter(|dial| open.contains(&dial.remote)).count()
    }

    /// A dial that has not found the peer so far: its stream and the attempt.
    fn dial_under_way(&self, remote: PublicKey) -> Option<(u32, ConnectId)> {
        self.connections.iter().find_map(|c| match c.phase {
            Phase::Dialling { connect, .. } if c.remote == remote && c.initiator => {
                Some((c.id.stream(), connect))
            }
            _ => None,
        })
    }

    /// A dial beside a connection that has not found the peer so far ends. One that has may be the one that the peer keeps.
    fn end_redial(&mut self, stream: u32) {
        let Some(old) = self.connections.by_stream(stream) else { return };
        let remote = old.remote;
        let Some((new, _)) = self.dial_under_way(remote) else { return };
        self.cancel_dial(new);
        self.connections.remove(new);
        self.udx.destroy(new);
        self.connections.claim_key(stream);
    }
}

/// What a question takes is less than what is said.
const _: () = assert!(WORDS >= Udx::QUESTION);
