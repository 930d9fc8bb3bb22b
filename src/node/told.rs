//! Where peers may be, as people and keys say: kept until the network runs, and handed to it.

use super::Node;
use crate::key::{Address, CoreKey, Topic};
use crate::lock::lock;
use crate::swarm::driver::{NetworkHandle, PeerAddress};
use std::net::SocketAddrV4;

/// What is kept before the network runs; no command brings so much.
const MAX_KEPT: usize = 256;

#[derive(Default)]
pub(super) struct Told {
    peers: Vec<PeerAddress>,
    hints: Vec<(Topic, Vec<SocketAddrV4>)>,
}

impl Told {
    pub(super) fn hand_over(&mut self, network: &NetworkHandle) {
        network.tell(std::mem::take(&mut self.peers));
        for (topic, nodes) in self.hints.drain(..) {
            network.hint(topic, nodes);
        }
    }
}

impl Node {
    /// Where peers of a drive may look for this one: its key with those addresses. As many as are known now.
    pub async fn address_of(&self, key: CoreKey) -> Address {
        let topic = Topic::from(key.discovery_key());
        let nodes = match self.running() {
            Some(online) => online.network.hints(topic).await.unwrap_or_default(),
            None => Vec::new(),
        };
        Address { key, nodes }
    }

    /// Peers of whatever drive may be there.
    pub fn tell(&self, peers: Vec<PeerAddress>) {
        let mut told = lock(&self.told);
        told.peers.extend(peers);
        told.peers.truncate(MAX_KEPT);
        if let Some(online) = self.running() {
            told.hand_over(&online.network);
        }
    }

    /// Peers of this drive, or nodes of the DHT that know of them, are there, as its key says.
    pub fn hint(&self, key: CoreKey, nodes: Vec<SocketAddrV4>) {
        if nodes.is_empty() {
            return;
        }
        let mut told = lock(&self.told);
        told.hints.push((Topic::from(key.discovery_key()), nodes));
        told.hints.truncate(MAX_KEPT);
        if let Some(online) = self.running() {
            told.hand_over(&online.network);
        }
    }
}
