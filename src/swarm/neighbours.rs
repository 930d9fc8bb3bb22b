//! What the swarm makes of its local networks: who is found there is dialled there.
//!
//! A neighbour's address is tried beside all other ways to it, and answers before them. A connection that leads another way
//! moves there. The address is forgotten when the networks change.

use super::Swarm;
use super::connections::{Connection, Phase};
use super::dht_rpc::bucket::Limit;
use super::lan::{LanTransmit, Link, Neighbour};
use crate::key::PublicKey;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A peer on a local network that has not answered by then is where a connection with it leads.
const APPROACH: Duration = Duration::from_secs(3);

/// Dials to one host of a local network, of however many who say that they are there: each is some datagrams to
/// somebody who may know nothing of it.
pub(super) const NEAR_DIALS: Limit = Limit { burst: 24.0, rate: 0.1 };
/// Buckets of hosts, 40 bytes each.
pub(super) const NEAR_HOSTS: usize = 256;

impl Swarm {
    /// We are on these local networks now; none if neighbours are neither to be called nor heard.
    pub fn set_links(&mut self, links: Vec<Link>, now: Instant) {
        self.lan.set_links(links, now);
        self.dht.set_neighbourhood(self.lan.links().to_vec());
        self.peers.forget_neighbours();
    }

    /// Takes what somebody called to everybody on a local network. [`Self::end_of_batch`] must follow.
    pub fn handle_call(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        self.lan.handle_call(from, datagram, now);
    }

    /// The next datagram for a local network.
    pub fn poll_lan_transmit(&mut self) -> Option<LanTransmit> {
        self.lan.poll_transmit()
    }

    pub(super) fn neighbour_found(&mut self, neighbour: &Neighbour, now: Instant) {
        let Neighbour { key, addr, topics } = neighbour;
        let known = self.peers.get(key).and_then(|peer| peer.near);
        for topic in topics {
            self.peers.found_near(*key, *addr, *topic, now, &mut self.rng);
            self.tell_met(key, *topic);
        }
        if known != Some(*addr) {
            self.dial_neighbour(key, now);
        }
        self.approach(key, now);
    }

    /// Dials a neighbour beside a connection with it that leads over the Internet; the new one replaces that.
    fn approach(&mut self, key: &PublicKey, now: Instant) {
        // A dial of it, and so an approach, is what counts for the key as long as it is under way.
        let Some(old) = self.connections.by_key(key).filter(|old| old.is_open()) else { return };
        let (stream, addr) = (old.id.stream(), old.addr);
        let near = addr.is_none_or(|addr| self.is_near(&addr)) && self.relay_of(stream).is_none();
        if near || self.stopping {
            return;
        }
        let Some(near) = self.peers.approach(key) else { return };
        if !self.near_dials.of(&near.ip()).take(1.0, now) {
            return;
        }
        let Some(new) = self.udx.open(None) else { return };
        tracing::debug!(peer = ?key, to = %near, "on a local network too: dialling there");
        let connect = self.dht.approach(*key, near, new, now);
        let phase = Phase::Dialling { connect, until: now + APPROACH };
        let id = self.connections.name(new);
        self.connections.insert(Connection::new(id, *key, true, phase, now));
    }

    /// A dial that is under way knows nothing of the peer's new address, and may take its time: another one does not.
    fn dial_neighbour(&mut self, key: &PublicKey, now: Instant) {
        let Some(dial) = self.connections.by_key(key) else { return };
        if !matches!(dial.phase, Phase::Dialling { .. }) {
            return;
        }
        let stream = dial.id.stream();
        self.cancel_dial(stream);
        self.connections.remove(stream);
        self.udx.destroy(stream);
        self.open_candidate(key, now);
        if self.connections.by_key(key).is_none() {
            self.peers.defer(*key, now, &mut self.rng);
        }
    }

    /// Whether somebody there is on a local network of ours.
    pub(super) fn is_near(&self, addr: &SocketAddr) -> bool {
        self.lan.link_of(addr).is_some()
    }
}
