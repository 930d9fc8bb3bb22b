//! What is sent to a peer before it has shown itself: the first words of our side go out with the header frame, which
//! saves a round trip. To an address that may be anybody's no more goes than one small frame; the rest waits here.

use super::Swarm;
use super::connections::Connection;
use super::event::{Closed, SwarmEvent};
use crate::codec::FrameBuf;
use std::time::Instant;

/// The longest frame that goes out ahead: the openings of two channels.
pub const MAX_EARLY: usize = 256;

#[derive(Debug, Default)]
pub struct Early {
    sent: bool,
    bytes: usize,
    /// What comes behind. Its owner writes it, no peer, and counts its bytes as queued.
    waiting: Vec<FrameBuf>,
}

impl Early {
    /// The frame, if it may go out now; else it waits.
    pub fn pass(&mut self, frame: FrameBuf) -> Option<FrameBuf> {
        if !self.sent && self.waiting.is_empty() && frame.len() <= MAX_EARLY {
            self.sent = true;
            return Some(frame);
        }
        self.bytes += frame.len();
        self.waiting.push(frame);
        None
    }

    /// Whether something went out.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What waited, when the peer is there.
    pub fn take(&mut self) -> Vec<FrameBuf> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl Swarm {
    /// Lets the owner speak to a peer that we dialled before it has shown itself.
    pub(super) fn tell_early(&mut self, stream: u32) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        if !connection.initiator || std::mem::replace(&mut connection.told, true) {
            return;
        }
        let Connection { id: conn, remote, handshake_hash, .. } = *connection;
        let topics = self.peers.topics(&remote);
        self.events.push_back(SwarmEvent::Reaching { conn, remote, handshake_hash, topics });
    }

    /// What waited for an early peer to be there goes out.
    pub(super) fn send_rest(&mut self, stream: u32, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let (conn, rest) = (connection.id, connection.early.take());
        for frame in rest {
            self.send(conn, frame, now);
        }
    }

    /// Tells the owner, if it knows of the connection.
    pub(super) fn tell_gone(&mut self, connection: &Connection, why: Closed) {
        if connection.told {
            tracing::debug!(peer = ?connection.remote, ?why, "closed");
            self.events.push_back(SwarmEvent::Closed { conn: connection.id, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_small_frame_goes_ahead_and_the_rest_in_order_behind() {
        let frame = |len| FrameBuf::from(&vec![0; len][..]);
        let mut early = Early::default();
        assert!(early.pass(frame(MAX_EARLY)).is_some() && early.is_sent());
        assert!(early.pass(frame(1)).is_none() && early.pass(frame(2)).is_none());
        assert_eq!(early.bytes(), 3);
        assert_eq!(early.take().iter().map(FrameBuf::len).collect::<Vec<_>>(), [1, 2]);
        let mut early = Early::default();
        assert!(early.pass(frame(MAX_EARLY + 1)).is_none() && early.pass(frame(1)).is_none());
        assert!(!early.is_sent() && early.bytes() == MAX_EARLY + 2);
    }
}
