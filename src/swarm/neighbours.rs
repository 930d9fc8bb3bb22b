//! What the swarm makes of its local networks: who is found there is dialled there.
//!
//! A neighbour's address is tried beside all other ways to it, and answers before them. It is forgotten when the networks
//! change.

use super::Swarm;
use super::lan::{LanTransmit, Link, Neighbour};
use std::net::SocketAddrV4;
use std::time::Instant;

impl Swarm {
    /// We are on these local networks now; none if neighbours are neither to be called nor heard.
    pub fn set_links(&mut self, links: Vec<Link>, now: Instant) {
        self.lan.set_links(links, now);
        self.dht.set_neighbourhood(self.lan.links().to_vec());
        self.peers.forget_neighbours();
    }

    /// Takes what somebody called to everybody on a local network. [`Self::end_of_batch`] must follow.
    pub fn handle_call(&mut self, from: SocketAddrV4, datagram: &[u8], now: Instant) {
        self.lan.handle_datagram(from, datagram, now);
    }

    /// The next datagram for a local network.
    pub fn poll_lan_transmit(&mut self) -> Option<LanTransmit> {
        self.lan.poll_transmit()
    }

    pub(super) fn neighbour_found(&mut self, neighbour: &Neighbour, now: Instant) {
        let Neighbour { key, addr, topics } = neighbour;
        for topic in topics {
            self.peers.found_near(*key, *addr, *topic, now, &mut self.rng);
        }
    }
}
