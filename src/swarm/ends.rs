//! How a connection, or a dial, ends, and what becomes of its peer.

use super::Swarm;
use super::connections::{Connection, Phase};
use super::event::{Closed, SwarmEvent};
use super::lifecycle::LINGER;
use super::rounds::has_peer;
use super::udx;
use crate::key::{PublicKey, Topic};
use std::time::Instant;

impl Swarm {
    /// The only way to the peer is gone: a new one is looked for at once.
    pub(super) fn path_lost(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let (remote, initiator) = (connection.remote, connection.initiator);
        self.destroy(stream, Closed::Stream(udx::CloseReason::TimedOut), now);
        if initiator {
            self.peers.hurry(&remote, now, &mut self.rng);
        }
    }

    pub(super) fn dial_failed(&mut self, stream: u32, why: String, now: Instant) {
        self.judge_relay(stream, now);
        let Some(connection) = self.connections.remove(stream) else { return };
        tracing::debug!(peer = ?connection.remote, why, "dial failed");
        self.udx.destroy(stream);
        self.tell_gone(&connection, Closed::Unreached);
        let remote = connection.remote;
        self.peers.failed(&remote, &why);
        self.open_candidate(&remote, now);
        self.peer_lost(&connection, now);
        if connection.is_there || connection.session.is_some() {
            self.retry_by_relay(&connection, now);
        } else {
            self.peers.neighbour_is_silent(&remote);
        }
        if connection.again {
            self.peers.once_more(&remote, now, &mut self.rng);
        }
        self.events.push_back(SwarmEvent::DialFailed { remote, why });
    }

    /// Ends a connection in good order.
    pub(super) fn end(&mut self, stream: u32, why: Closed, now: Instant) {
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
    pub(super) fn destroy(&mut self, stream: u32, why: Closed, now: Instant) {
        self.cancel_dial(stream);
        self.udx.destroy(stream);
        self.forget(stream, why, now);
    }

    pub(super) fn cancel_dial(&mut self, stream: u32) {
        let phase = self.connections.by_stream(stream).map(|c| &c.phase);
        if let Some(&Phase::Dialling { connect, .. }) = phase {
            self.dht.cancel(connect);
        }
    }

    /// The stream is no connection any more.
    pub(super) fn forget(&mut self, stream: u32, why: Closed, now: Instant) {
        let Some(connection) = self.connections.remove(stream) else { return };
        if !connection.initiator {
            self.dht.gone(stream);
        }
        self.tell_gone(&connection, why);
        if connection.is_open() || connection.initiator {
            self.open_candidate(&connection.remote, now);
        }
        if connection.is_peer() || connection.initiator {
            self.peer_lost(&connection, now);
        }
    }

    /// The connection that counted for `remote` is gone: another one may have waited beside it.
    pub(super) fn open_candidate(&mut self, remote: &PublicKey, now: Instant) {
        if self.connections.by_key(remote).is_some() {
            return;
        }
        if let Some(stream) = self.connections.confirmed(remote) {
            return self.claim(stream, now);
        }
        for stream in self.connections.candidates(remote) {
            self.deliver_stream(stream, now);
        }
    }

    /// A connection that counted is gone: retries its peer, and looks for others where it was the last.
    pub(super) fn peer_lost(&mut self, connection: &Connection, now: Instant) {
        let remote = connection.remote;
        if self.connections.by_key(&remote).is_some() {
            return; // another connection took its place
        }
        let shared = self.peers.get(&remote).map(|peer| peer.topics.clone()).unwrap_or_default();
        let topics = &self.topics;
        let joined = |topic: &Topic| topics.is_joined(topic);
        self.told.lost(&remote, now);
        self.peers.disconnected(remote, connection.initiator, joined, now, &mut self.rng);
        if connection.is_open() {
            for topic in shared.iter().filter(|t| !has_peer(&self.connections, &self.peers, t)) {
                self.topics.lonely(topic, now);
            }
        }
    }
}
