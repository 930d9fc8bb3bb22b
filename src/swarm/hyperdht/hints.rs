//! Where to begin, as keys say, and what a key of ours can say.

use super::HyperDht;
use crate::key::{NodeId, Topic};
use std::net::SocketAddrV4;
use std::time::Instant;

impl HyperDht {
    /// Nodes near a topic, as a key says. Until others are known it is looked for from there, and the network is entered
    /// there where nobody else is known.
    pub fn hint(&mut self, topic: Topic, nodes: &[SocketAddrV4], now: Instant) {
        let usable = nodes.iter().copied().filter(|node| self.net.rpc.is_usable(node));
        let usable: Vec<_> = usable.collect();
        if usable.is_empty() {
            return;
        }
        let target = NodeId(topic.0);
        if !self.closest.contains(&target) {
            self.closest.put(target, usable.clone());
        }
        self.net.rpc.hint(&usable, now);
        self.pump(now);
    }

    /// The nodes nearest to a topic, as far as they are known.
    pub fn nearest(&self, topic: &Topic) -> &[SocketAddrV4] {
        self.closest.peek(&NodeId(topic.0)).map_or(&[], Vec::as_slice)
    }

    /// Whether the nodes that we start from are on this machine, and the whole network is, therefore.
    pub fn is_on_loopback(&self) -> bool {
        self.net.rpc.bootstrap().iter().any(|node| node.ip().is_loopback())
    }

    /// Our addresses on the local networks.
    pub fn local_addresses(&self) -> &[SocketAddrV4] {
        &self.net.config.local_addresses
    }
}
