//! Datagrams in and out, as many at a time as the system takes.

use super::Driver;
use super::socket::Sent;
use super::way_out::is_on_the_way;
use crate::swarm::lan::LanTransmit;
use crate::swarm::{SocketId, Transmit};
use std::net::SocketAddr;
use std::time::Instant;

/// Calls of neighbours heard in one turn.
const CALLS_PER_TURN: usize = 64;
/// Batches received in one turn before the machine may decide and send.
const RECEIVES_PER_TURN: usize = 4;
/// Sends in one turn before what has arrived meanwhile is looked at: about a megabyte.
const SENDS_PER_TURN: usize = 16;
/// Most datagrams of 1472 bytes in one run of at most 65 507.
const MAX_SEGMENTS: usize = 44;

impl Driver {
    /// Takes what the sockets hold, within reason. Answers whether anything came.
    pub(super) fn receive(&mut self, now: Instant) -> bool {
        let mut any = false;
        let Self { sockets, swarm, ways, traffic, neighbours, bootstrap, .. } = self;
        if let Some(neighbours) = neighbours {
            any = neighbours
                .receive(CALLS_PER_TURN, |from, bytes| swarm.handle_call(from, bytes, now));
        }
        sockets.receive(RECEIVES_PER_TURN, |socket, received| {
            for (from, to, bytes, stride) in received.datagrams() {
                any = true;
                to.into_iter().for_each(|to| ways.note(from, to));
                if traffic.no_way.is_some() && is_on_the_way(from, || bootstrap.addresses()) {
                    traffic.no_way = None;
                }
                traffic.received += 1;
                traffic.received_bytes += bytes.len() as u64;
                swarm.handle_datagrams(socket, from, bytes, stride, now);
            }
        });
        if any {
            self.swarm.end_of_batch(now);
        }
        any
    }

    /// Sends what there is, within reason. Answers whether there may be more to send at once.
    pub(super) fn transmit(&mut self, now: Instant) -> bool {
        while let Some(LanTransmit { link, to, bytes }) = self.swarm.poll_lan_transmit() {
            if let Some(socket) = self.sockets.get(SocketId::towards(&to)) {
                socket.send_over(&link, to, &bytes);
            }
        }
        for _ in 0..SENDS_PER_TURN {
            if self.blocked.is_none() {
                let segments = self.sockets.main().max_segments().min(MAX_SEGMENTS);
                let Some(transmit) = self.swarm.poll_transmit(now, &mut self.buf, segments) else {
                    return false;
                };
                self.blocked = Some(transmit);
            }
            let Some(Transmit { socket, to, segment_size, ttl, in_parts }) = self.blocked else {
                return false;
            };
            if in_parts {
                self.allow_parts(socket, true);
            }
            let sent = self.send(socket, to, segment_size, ttl);
            if in_parts {
                self.allow_parts(socket, false);
            }
            match sent {
                Sent::Done => {
                    self.traffic.sent += 1;
                    self.traffic.sent_bytes += self.buf.len() as u64;
                    if self.traffic.no_way.is_some() {
                        self.note_way(to, None);
                    }
                }
                // Lost, as any datagram may be, but for a reason that somebody may want to know.
                Sent::NoWay(errno) => self.note_way(to, Some(errno)),
                Sent::Blocked => {
                    self.traffic.blocked += 1;
                    return false;
                }
                Sent::TooLarge(size) => self.swarm.handle_send_error(socket, to, size, now),
            }
            self.blocked = None;
        }
        true
    }

    fn note_way(&mut self, to: SocketAddr, no_way: Option<i32>) {
        if is_on_the_way(to, || self.bootstrap.addresses()) {
            self.traffic.no_way = no_way;
        }
    }

    fn allow_parts(&mut self, socket: SocketId, parts: bool) {
        if let Some(socket) = self.sockets.get(socket) {
            socket.allow_parts(parts);
        }
    }

    /// Sends from the address that `to` writes to, if it does.
    fn send(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        segment: Option<usize>,
        ttl: Option<u8>,
    ) -> Sent {
        let Some(socket) = self.sockets.get(socket) else { return Sent::Done };
        if let Some(source) = self.ways.source(&to) {
            match socket.send_from(source, to, &self.buf, segment, ttl) {
                Some(sent) => return sent,
                None => self.ways.forget(&to),
            }
        }
        socket.send(to, &self.buf, segment, ttl)
    }
}
