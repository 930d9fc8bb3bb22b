//! Datagrams that came for a stream before it was connected: its owner learns where from, and works them off later.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::swarm::socket::SocketId;

/// Datagrams kept for a stream that is not connected yet: a little more than the first flight of a peer.
const MAX_DATAGRAMS: usize = 64;
const MAX_BYTES: usize = 256 << 10;
/// Different places an unconnected stream reports packets from.
const MAX_PLACES: usize = 8;

/// What came too early for one stream.
#[derive(Debug, Default)]
pub(super) struct Early {
    datagrams: Vec<(SocketId, SocketAddr, Bytes)>,
    bytes: usize,
    places: Vec<(SocketId, SocketAddr)>,
}

impl Early {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a datagram, as long as there is room. Whether it came from a place that is to be reported.
    pub(super) fn hold(&mut self, socket: SocketId, from: SocketAddr, datagram: &[u8]) -> bool {
        let fits = self.datagrams.len() < MAX_DATAGRAMS && self.bytes + datagram.len() <= MAX_BYTES;
        if fits {
            self.bytes += datagram.len();
            self.datagrams.push((socket, from, Bytes::copy_from_slice(datagram)));
        }
        let new = self.places.len() < MAX_PLACES && !self.places.contains(&(socket, from));
        if new {
            self.places.push((socket, from));
        }
        new
    }

    /// All of it, in the order it came in.
    pub(super) fn take(&mut self) -> Vec<(SocketId, SocketAddr, Bytes)> {
        std::mem::take(self).datagrams
    }
}
