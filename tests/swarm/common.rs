//! A private network on loopback: some full nodes of the DHT, and peers that use them.

use hdrive::codec::FrameBuf;
use hdrive::crypto::KeyPair;
use hdrive::swarm::driver::{Network, NetworkConfig, NetworkHandle};
use hdrive::swarm::{ConnId, Limits, SwarmEvent};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;
use tokio::sync::mpsc;

/// Nothing on loopback takes this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One process's network, and its events one by one.
pub struct Peer {
    pub net: NetworkHandle,
    receiver: mpsc::UnboundedReceiver<Vec<SwarmEvent>>,
    events: VecDeque<SwarmEvent>,
}

impl Peer {
    pub fn start(bootstrap: &[SocketAddrV4], persistent: bool) -> Self {
        let config = NetworkConfig {
            key_pair: KeyPair::generate(),
            bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            bootstrap: bootstrap.iter().map(|&addr| addr.into()).collect(),
            persistent,
            address: None,
            limits: Limits::default(),
            relays: Vec::new(),
            lan: false,
        };
        let (net, receiver) = Network::start(config).unwrap();
        Self { net, receiver, events: VecDeque::new() }
    }

    /// The next event; panics where none comes for long.
    pub async fn next(&mut self) -> SwarmEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let list = tokio::time::timeout(PATIENCE, self.receiver.recv()).await;
            self.events.extend(list.expect("no event").expect("the network stopped"));
        }
    }

    /// The next event that `pick` takes; others are dropped.
    pub async fn until<T>(&mut self, pick: impl Fn(&SwarmEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(&self.next().await) {
                return found;
            }
        }
    }

    pub async fn connected(&mut self) -> ConnId {
        let pick = |event: &SwarmEvent| match event {
            SwarmEvent::Connected { conn, .. } => Some(*conn),
            _ => None,
        };
        self.until(pick).await
    }

    pub async fn frame(&mut self, from: ConnId) -> Vec<u8> {
        let pick = |event: &SwarmEvent| match event {
            SwarmEvent::Frame { conn, data } if *conn == from => Some(data.to_vec()),
            _ => None,
        };
        let data = self.until(pick).await;
        self.net.consumed(from, data.len());
        data
    }

    /// Waits for the end of the events.
    pub async fn stopped(mut self) {
        let end = async { while self.receiver.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.expect("the network never stopped");
    }

    pub fn send(&self, conn: ConnId, data: &[u8]) -> usize {
        self.net.send(conn, FrameBuf::from(data))
    }
}

/// Full nodes of a DHT of their own.
pub struct Testnet {
    pub bootstrap: Vec<SocketAddrV4>,
    _nodes: Vec<Peer>,
}

impl Testnet {
    pub async fn start(size: usize) -> Self {
        let first = Peer::start(&[], true);
        let bootstrap = vec![first.net.local_addr()];
        let mut nodes = vec![first];
        for _ in 1..size {
            let mut node = Peer::start(&bootstrap, true);
            node.until(|event| matches!(event, SwarmEvent::Ready).then_some(())).await;
            nodes.push(node);
        }
        Self { bootstrap, _nodes: nodes }
    }

    pub fn peer(&self) -> Peer {
        Peer::start(&self.bootstrap, false)
    }
}
