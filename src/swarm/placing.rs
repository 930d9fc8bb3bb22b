//! Where a connection's peer is: asking it, and giving it a place once it has answered.
//!
//! The header frame, and any message, can come from a forged source. So an accepted connection counts for the places of
//! its host, and for those of all, only when the peer has shown that what is sent there reaches it ([`super::udx`]). One
//! that never shows it ends after [`PLACE_WAIT`](super::connections::PLACE_WAIT), and before that gives way to whoever
//! comes, see [`MAX_WAITING`](super::connections::MAX_WAITING).
//!
//! The question goes behind the first message of ours, so that it delays nothing, or when we have said nothing for a
//! while, or at once where many wait.

use super::Swarm;
use super::connections::{ASK_WAIT, KEEP_ALIVE};
use super::event::Closed;
use super::lifecycle::either;
use super::socket::host_of;
use super::udx::Udx;
use std::time::Instant;

impl Swarm {
    /// Something was written for the peer of `stream`: it may be asked behind that.
    pub(super) fn ask_behind(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if !connection.initiator && !connection.proven && connection.ask_at > now + ASK_WAIT {
            connection.ask_at = now + ASK_WAIT;
            self.connections.note_deadline(now + ASK_WAIT);
        }
    }

    /// Asks the peer whether it is there, if it has not shown it and was not asked.
    pub(super) fn ask(&mut self, stream: u32, now: Instant) {
        let (connections, controls) = (&mut self.connections, &mut self.controls.table);
        let Some(connection) = either(connections, controls, stream) else { return };
        connection.ask_at = now + KEEP_ALIVE;
        let at = connection.deadline();
        self.connections.note_deadline(at);
        self.controls.table.note_deadline(at);
        let (connections, controls) = (&mut self.connections, &mut self.controls.table);
        let Some(connection) = either(connections, controls, stream) else { return };
        if !self.udx.is_to_be_asked(stream) {
            return;
        }
        // What to ask it with: empty frames, which the peer takes for signs of life.
        let mut written = self.udx.unsent(stream);
        while written < Udx::QUESTION
            && let Some(session) = &mut connection.session
        {
            let frame = session.sealer.keep_alive();
            written += frame.len();
            connection.last_write = now;
            if self.udx.write(stream, frame, now).is_err() {
                return;
            }
        }
        self.udx.ask(stream);
    }

    /// Asks everybody of whom it is not known where they are.
    pub(super) fn ask_all(&mut self, now: Instant) {
        for stream in self.connections.nowhere() {
            self.ask(stream, now);
        }
    }

    /// The peer is where its stream leads to: its connection takes a place, if there is one.
    pub(super) fn proven(&mut self, stream: u32, now: Instant) {
        let addr = self.udx.remote(stream);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let (remote, initiator) = (connection.remote, connection.initiator);
        connection.addr = addr;
        let host = addr.map(|addr| host_of(&addr));
        if connection.proven {
            // It moved. The place that it has it keeps.
            return self.note_host(stream);
        }
        if !initiator && !host.is_some_and(|host| self.make_room(&remote, host, now)) {
            return self.destroy(stream, Closed::Local, now);
        }
        if let Some(connection) = self.connections.by_stream(stream) {
            connection.proven = true;
        }
        self.note_host(stream);
    }

    /// The host of a peer that has shown who and where it is may come again.
    pub(super) fn note_host(&mut self, stream: u32) {
        let connection = self.connections.by_stream(stream);
        let Some(connection) = connection.filter(|c| c.proven && c.is_peer()) else { return };
        if let Some(addr) = connection.addr {
            self.dht.connected(host_of(&addr));
        }
    }
}
