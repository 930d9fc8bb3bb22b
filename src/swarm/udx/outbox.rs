//! What streams leave for the owner: events, and datagrams that no stream stands behind any more.

use super::detour::Way;
use super::mtu::MAX_DATAGRAM;
use super::packet;
use super::types::{Transmit, UdxEvent};
use crate::swarm::socket::SocketId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Unordered messages waiting for the owner, over all streams; they are unreliable, so more are dropped.
const MAX_MESSAGE_EVENTS: usize = 256;

/// Datagrams waiting that no stream stands behind (answers from the graveyard); a flood gets no more answers than this.
const MAX_LOOSE_DATAGRAMS: usize = 256;

/// Bytes of datagrams waiting that are passed on from others. What is received in one turn is sent in the next; more
/// waits only where the system takes nothing.
const MAX_PASSED_ON: usize = 4 << 20;

/// Datagrams in one send.
const MAX_RUN: usize = 40;

/// What streams leave for the owner.
#[derive(Debug, Default)]
pub struct Outbox {
    pub events: VecDeque<UdxEvent>,
    messages: usize,
    /// Single datagrams of streams that are gone.
    datagrams: VecDeque<(Transmit, Vec<u8>)>,
    passed_on: VecDeque<(Transmit, Vec<u8>)>,
    passed_on_bytes: usize,
}

impl Outbox {
    pub fn message(&mut self, id: u32, (socket, from): Way, payload: &[u8]) {
        if self.messages < MAX_MESSAGE_EVENTS {
            self.messages += 1;
            let payload = Bytes::copy_from_slice(payload);
            self.events.push_back(UdxEvent::Message { id, socket, from, payload });
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

    /// A datagram of somebody else's stream, as it is but for the stream id. Those of one size for one address that follow
    /// each other leave in one send.
    pub fn pass_on(&mut self, socket: SocketId, to: SocketAddr, datagram: &[u8], stream: u32) {
        if self.passed_on_bytes + datagram.len() > MAX_PASSED_ON {
            return;
        }
        self.passed_on_bytes += datagram.len();
        let size = datagram.len();
        let run = self.passed_on.back_mut().filter(|(transmit, run)| {
            let segment = transmit.segment_size.unwrap_or(run.len());
            let whole = run.len().is_multiple_of(segment);
            (transmit.socket, transmit.to) == (socket, to)
                && whole
                && size <= segment
                && run.len() + size <= MAX_DATAGRAM
                && run.len() / segment < MAX_RUN
        });
        let (start, bytes) = match run {
            Some((transmit, run)) => {
                transmit.segment_size.get_or_insert(run.len());
                (run.len(), run)
            }
            None => {
                let transmit =
                    Transmit { socket, to, segment_size: None, ttl: None, in_parts: false };
                self.passed_on.push_back((transmit, Vec::with_capacity(size)));
                let Some((_, run)) = self.passed_on.back_mut() else { return };
                (0, run)
            }
        };
        bytes.extend_from_slice(datagram);
        packet::set_stream_id(&mut bytes[start..], stream);
    }

    /// The next datagrams, of those that are passed on no more than `max_segments`.
    pub fn poll_datagram(&mut self, max_segments: usize) -> Option<(Transmit, Vec<u8>)> {
        let Some((mut transmit, mut run)) = self.passed_on.pop_front() else {
            return self.datagrams.pop_front();
        };
        let segment = transmit.segment_size.unwrap_or(run.len());
        let most = segment * max_segments.max(1);
        if run.len() > most {
            let rest = run.split_off(most);
            let segment_size = (rest.len() > segment).then_some(segment);
            self.passed_on.push_front((Transmit { segment_size, ..transmit }, rest));
        }
        transmit.segment_size = (run.len() > segment).then_some(segment);
        self.passed_on_bytes -= run.len();
        Some((transmit, run))
    }

    pub fn poll_event(&mut self) -> Option<UdxEvent> {
        let event = self.events.pop_front();
        if matches!(event, Some(UdxEvent::Message { .. })) {
            self.messages -= 1;
        }
        event
    }
}
