//! Swarms on a virtual network.

use super::super::lan::LanTransmit;
use super::super::*;
use super::agree;
use crate::codec::FrameBuf;
use crate::crypto::{KeyPair, hash};
use crate::sim::{Datagram, LinkConfig, Machine, Net, Outgoing};
use crate::swarm::socket::ipv4;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// A swarm, and what it told its owner.
pub(super) struct Peer {
    pub swarm: Swarm,
    pub events: Vec<SwarmEvent>,
    /// Sockets beside the main one that something was sent from, as many as are open, and as many as were at a time.
    pub sockets: BTreeSet<SocketId>,
    pub most_sockets: usize,
    /// What it does beside what its swarm does, for each datagram that comes.
    pub script: Option<Script>,
    said: Vec<Outgoing>,
    /// Handshakes that it began, each unlike the others.
    handshakes: u8,
}

pub(super) type Script = Box<dyn FnMut(&Datagram, &mut Vec<Outgoing>)>;

pub(super) type Network = Net<Peer>;

impl Machine for Peer {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        for datagram in datagrams {
            if let Some(script) = &mut self.script {
                script(datagram, &mut self.said);
            }
            let Datagram { socket, from, bytes, .. } = datagram;
            if datagram.to_group {
                self.swarm.handle_call((*from).into(), bytes, now);
                continue;
            }
            let socket = SocketId(u32::from(*socket));
            self.swarm.handle_datagrams(socket, (*from).into(), bytes, bytes.len(), now);
        }
        self.swarm.end_of_batch(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.swarm.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.swarm.poll_timeout()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        let mut buf = Vec::new();
        out.append(&mut self.said);
        while let Some(transmit) = self.swarm.poll_transmit(now, &mut buf, 10) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            let Transmit { socket, to, ttl, .. } = transmit;
            let to = ipv4(to).expect("no IPv6 there");
            if socket != SocketId::MAIN {
                self.sockets.insert(socket);
                self.most_sockets = self.most_sockets.max(self.sockets.len());
            }
            let socket = u16::try_from(socket.0).expect("few sockets");
            let one = |bytes: &[u8]| Outgoing { socket, to, bytes: bytes.to_vec(), ttl };
            out.extend(buf.chunks(size.max(1)).map(one));
        }
        while let Some(socket) = self.swarm.poll_closed_socket() {
            self.sockets.remove(&socket);
        }
        while let Some(LanTransmit { link, to, bytes }) = self.swarm.poll_lan_transmit() {
            // What is called to everybody comes back.
            if to == link.group() {
                self.swarm.handle_call(link.addr, &bytes, now);
            }
            let SocketAddr::V4(to) = to else { continue };
            out.push(Outgoing::new(to, bytes));
        }
        self.events.extend(std::iter::from_fn(|| self.swarm.poll_event()));
    }
}

impl Peer {
    pub fn new(config: SwarmConfig, rng_seed: u64, now: Instant) -> Self {
        let rng = StdRng::seed_from_u64(rng_seed);
        let swarm = Swarm::new(config, rng, now);
        Self {
            swarm,
            events: vec![],
            sockets: BTreeSet::new(),
            most_sockets: 0,
            script: None,
            said: vec![],
            handshakes: 0,
        }
    }
}

/// All in one net, each machine with an address of its own.
pub(super) fn addr(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, i as u8 + 1), 4000)
}

/// Two swarms on one host, where there is no DHT.
pub(super) fn port(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1000 + i as u16)
}

impl Network {
    /// Full nodes of a DHT, each of them begun some time after the one before.
    pub fn of_nodes(nodes: usize, seed: u64, pattern: LinkConfig, between: Duration) -> Self {
        let mut network = Self::new(pattern, seed);
        for _ in 0..nodes {
            network.begin(true);
            network.run(between);
        }
        network
    }

    /// Begins a swarm that enters the DHT by machine 0.
    pub fn begin(&mut self, persistent: bool) -> usize {
        let i = self.machines.len();
        let peer = Peer::new(self.config(i, persistent), self.seed << 8 | i as u64, self.now);
        self.add(addr(i), peer)
    }

    pub fn config(&self, i: usize, persistent: bool) -> SwarmConfig {
        SwarmConfig {
            key_pair: KeyPair::from_seed(&hash::hash(&[
                &self.seed.to_le_bytes(),
                &i.to_le_bytes(),
            ])),
            bootstrap: if i == 0 { vec![] } else { vec![addr(0)] },
            persistent,
            address: persistent.then(|| addr(i)),
            local_addresses: vec![addr(i)],
            unix_ms: 0,
            limits: Limits::default(),
            relays: vec![],
        }
    }

    /// Two swarms that know of no DHT, and are handed finished handshakes. Swarm 1 has the greater public key.
    pub fn two() -> Self {
        let pattern = LinkConfig { latency: Duration::from_millis(5), ..LinkConfig::default() };
        let mut network = Self::new(pattern, 1);
        let mut pairs = [KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32])];
        pairs.sort_by_key(KeyPair::public);
        for (i, key_pair) in pairs.into_iter().enumerate() {
            let config = SwarmConfig {
                key_pair,
                bootstrap: vec![],
                local_addresses: vec![],
                ..network.config(i, false)
            };
            let peer = Peer::new(config, i as u64 + 1, network.now);
            network.add(port(i), peer);
        }
        network
    }

    /// Two swarms of which the first has dialled the second.
    pub fn pair() -> (Self, ConnId, ConnId) {
        let mut network = Self::two();
        network.dial(0);
        network.run(Duration::from_secs(1));
        let (a, b) = (network.connected(0)[0].0, network.connected(1)[0].0);
        (network, a, b)
    }

    /// Of [two](Self::two) swarms, `from` dials the other, up to the finished handshake.
    pub fn dial(&mut self, from: usize) {
        let [a, b] = self.machines.get_disjoint_mut([from, 1 - from]).expect("two swarms");
        a.handshakes += 1;
        let n = a.handshakes + b.handshakes;
        agree(&mut a.swarm, &mut b.swarm, port(1 - from), n, self.now);
        self.settle();
    }

    /// Everything sent is lost.
    pub fn cut(&mut self, cut: bool) {
        self.every_link(|link| link.loss = f64::from(u8::from(cut)));
    }

    pub fn key(&self, i: usize) -> PublicKey {
        PublicKey(self.machines[i].swarm.key_pair.public())
    }

    pub fn join(&mut self, i: usize, topic: Topic, options: JoinOptions) {
        self.on(i, |peer, now| peer.swarm.join(topic, options, now));
    }

    pub fn send_frame(&mut self, i: usize, conn: ConnId, data: &[u8]) -> usize {
        self.on(i, |peer, now| peer.swarm.send(conn, FrameBuf::from(data), now))
    }

    fn told<T>(&self, i: usize, pick: impl FnMut(&SwarmEvent) -> Option<T>) -> Vec<T> {
        self.machines[i].events.iter().filter_map(pick).collect()
    }

    /// Connections of swarm `i`, in the order in which they opened.
    pub fn connected(&self, i: usize) -> Vec<(ConnId, bool)> {
        self.told(i, |event| match event {
            SwarmEvent::Connected { conn, initiator, .. } => Some((*conn, *initiator)),
            _ => None,
        })
    }

    pub fn closed(&self, i: usize) -> Vec<(ConnId, Closed)> {
        self.told(i, |event| match event {
            SwarmEvent::Closed { conn, why } => Some((*conn, *why)),
            _ => None,
        })
    }

    /// Connections of `i` that its owner knows of.
    pub fn open(&self, i: usize) -> Vec<ConnId> {
        let closed = self.closed(i);
        let opened = self.connected(i).into_iter().map(|(conn, _)| conn);
        opened.filter(|conn| closed.iter().all(|(c, _)| c != conn)).collect()
    }

    /// Contents of the frames that came.
    pub fn frames(&self, i: usize) -> Vec<Vec<u8>> {
        self.told(i, |event| match event {
            SwarmEvent::Frame { data, .. } => Some(data.to_vec()),
            _ => None,
        })
    }
}
