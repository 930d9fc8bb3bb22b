//! What streams leave for the owner: events, and datagrams that no stream stands behind any more.

use super::types::{Transmit, UdxEvent};
use crate::swarm::socket::SocketId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Unordered messages waiting for the owner, over all streams; they are unreliable, so more are dropped.
const MAX_MESSAGE_EVENTS: usize = 256;

/// Datagrams waiting that no stream stands behind (answers from the graveyard); a flood gets no more answers than this.
const MAX_LOOSE_DATAGRAMS: usize = 256;

/// What streams leave for the owner.
#[derive(Debug, Default)]
pub struct Outbox {
    pub events: VecDeque<UdxEvent>,
    messages: usize,
    /// Single datagrams of streams that are gone.
    datagrams: VecDeque<(Transmit, Vec<u8>)>,
}

impl Outbox {
    pub fn message(&mut self, id: u32, payload: &[u8]) {
        if self.messages < MAX_MESSAGE_EVENTS {
            self.messages += 1;
            self.events
                .push_back(UdxEvent::Message { id, payload: Bytes::copy_from_slice(payload) });
        }
    }

    /// A single datagram of a stream that goes.
    pub fn datagram(&mut self, socket: SocketId, to: SocketAddr, bytes: Vec<u8>) {
        let transmit = Transmit { socket, to, segment_size: None, ttl: None, in_parts: false };
        self.datagrams.push_back((transmit, bytes));
    }

    /// The same, if not too many wait.
    pub fn answer(&mut self, socket: SocketId, to: SocketAddr, bytes: Vec<u8>) {
        if self.datagrams.len() < MAX_LOOSE_DATAGRAMS {
            self.datagram(socket, to, bytes);
        }
    }

    pub fn poll_datagram(&mut self) -> Option<(Transmit, Vec<u8>)> {
        self.datagrams.pop_front()
    }

    pub fn poll_event(&mut self) -> Option<UdxEvent> {
        let event = self.events.pop_front();
        if matches!(event, Some(UdxEvent::Message { .. })) {
            self.messages -= 1;
        }
        event
    }
}
