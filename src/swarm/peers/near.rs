//! Where peers are on local networks.

use super::Peers;
use crate::key::{PublicKey, Topic};
use rand::rngs::StdRng;
use std::net::SocketAddr;
use std::time::Instant;

/// Tries to move a connection with a peer to one address on a local network.
const MAX_APPROACHES: u32 = 3;

impl Peers {
    /// It is at `addr` on a local network, and has `topic`.
    pub fn found_near(
        &mut self,
        key: PublicKey,
        addr: SocketAddr,
        topic: Topic,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let Some(peer) = self.upsert(key, now) else { return };
        // One address of each is enough, and who is found by IPv6 may be just now found by IPv4 too.
        let silent = std::mem::take(&mut peer.near_is_silent);
        let known = peer.near.filter(|near| !silent && near.is_ipv4() && addr.is_ipv6());
        let addr = known.unwrap_or(addr);
        let moved = peer.near.replace(addr) != Some(addr);
        if moved {
            peer.approaches = 0;
        }
        self.consider(key, topic, true, moved, now, rng);
    }

    /// Where a connection with `key` on a local network would lead, if that was not tried often.
    pub fn approach(&mut self, key: &PublicKey) -> Option<SocketAddr> {
        let peer = self.peers.get_mut(key).filter(|peer| peer.approaches < MAX_APPROACHES)?;
        peer.approaches += u32::from(peer.near.is_some());
        peer.near
    }

    /// The local networks changed.
    pub fn forget_neighbours(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.near = None);
    }

    /// It did not answer where it was said to be on a local network: somebody else may have said so.
    pub fn neighbour_is_silent(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.near_is_silent = true;
        }
    }
}
