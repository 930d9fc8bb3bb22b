//! [`HyperDht`] machines on a virtual network.

use crate::crypto::KeyPair;
use crate::key::PublicKey;
use crate::sim::{Datagram, LinkConfig, Machine, Net, Outgoing};
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use crate::swarm::socket::SocketId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Answers of a machine that is no [`HyperDht`].
pub(super) type Script =
    Box<dyn FnMut(SocketAddrV4, &[u8], &mut StdRng) -> Vec<(SocketAddrV4, Vec<u8>)>>;

pub(super) enum Node {
    Honest { dht: Box<HyperDht>, events: Vec<DhtEvent>, key: PublicKey },
    Scripted { script: Script, rng: Box<StdRng>, answers: Vec<(SocketAddrV4, Vec<u8>)> },
}

pub(super) type Sim = Net<Node>;

impl Node {
    fn honest(&mut self) -> (&mut HyperDht, &mut Vec<DhtEvent>) {
        match self {
            Self::Honest { dht, events, .. } => (dht, events),
            Self::Scripted { .. } => panic!("this one is scripted"),
        }
    }
}

impl Machine for Node {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        for Datagram { socket, from, bytes, .. } in datagrams {
            match self {
                Self::Honest { dht, .. } => {
                    let socket = SocketId(u32::from(*socket));
                    dht.handle_datagram(socket, *from, bytes, now);
                }
                Self::Scripted { script, rng, answers } => {
                    answers.extend(script(*from, bytes, rng));
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.honest().0.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        match self {
            Self::Honest { dht, .. } => dht.poll_timeout(),
            Self::Scripted { .. } => None,
        }
    }

    fn transmit(&mut self, _: Instant, out: &mut Vec<Outgoing>) {
        match self {
            Self::Honest { dht, events, .. } => {
                while let Some(t) = dht.poll_transmit() {
                    assert!(t.bytes.len() <= 1400, "a datagram of {} bytes", t.bytes.len());
                    let socket = u16::try_from(t.socket.0).expect("few sockets");
                    out.push(Outgoing { socket, to: t.to, bytes: t.bytes, ttl: t.ttl });
                }
                events.extend(std::iter::from_fn(|| dht.poll_event()));
            }
            Self::Scripted { answers, .. } => {
                out.extend(answers.drain(..).map(|(to, bytes)| Outgoing::new(to, bytes)));
            }
        }
    }
}

/// A host of its own for each number.
pub(super) fn host(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, (n >> 8) as u8, n as u8].into(), 49737)
}

pub(super) fn pair(n: u16) -> KeyPair {
    KeyPair::from_seed(&crate::crypto::hash::hash(&[b"test", &n.to_le_bytes()]))
}

/// 5 to 40 ms one way.
pub(super) fn pattern() -> LinkConfig {
    let ms = Duration::from_millis;
    LinkConfig { latency: ms(5), jitter: ms(35), ..LinkConfig::default() }
}

impl Sim {
    /// A machine at `addr`, with the key pair of number `n`.
    pub fn begin(&mut self, addr: SocketAddrV4, n: u16, config: impl FnOnce(&mut DhtConfig)) {
        let key_pair = pair(n);
        let key = PublicKey(key_pair.public());
        let mut cfg = DhtConfig::new(key_pair, vec![host(0)]);
        cfg.allow_bogons = true;
        cfg.local_addresses = vec![addr];
        config(&mut cfg);
        let rng = StdRng::seed_from_u64(self.rng.random());
        let dht = Box::new(HyperDht::new(cfg, rng, self.now));
        self.add(addr, Node::Honest { dht, events: Vec::new(), key });
    }

    /// The first node, `persistent - 1` others that learn their address, and what is left ephemeral.
    pub fn network(seed: u64, persistent: u16, ephemeral: u16) -> Self {
        let mut sim = Self::new(pattern(), seed);
        sim.begin(host(0), 0, |c| {
            c.bootstrap.clear();
            c.persistent = true;
            c.address = Some(host(0));
        });
        for n in 1..persistent {
            sim.begin(host(n), n, |c| c.persistent = true);
            sim.run(Duration::from_millis(300));
        }
        for n in persistent..persistent + ephemeral {
            sim.begin(host(n), n, |_| {});
        }
        sim.run(Duration::from_secs(8));
        sim
    }

    /// A script takes the place of machine `n`.
    pub fn script(&mut self, n: u16, script: Script) {
        let rng = Box::new(StdRng::seed_from_u64(self.rng.random()));
        let (i, answers) = (self.at(host(n)), Vec::new());
        self.replace(i, Node::Scripted { script, rng, answers });
    }

    pub fn dht(&mut self, n: u16) -> &mut HyperDht {
        let i = self.at(host(n));
        self.machines[i].honest().0
    }

    pub fn key(&self, n: u16) -> PublicKey {
        match &self.machines[self.at(host(n))] {
            Node::Honest { key, .. } => *key,
            Node::Scripted { .. } => panic!("{n} is scripted"),
        }
    }

    /// Runs a command on machine `n`.
    pub fn dht_do<T>(&mut self, n: u16, f: impl FnOnce(&mut HyperDht, Instant) -> T) -> T {
        self.dht_at(host(n), f)
    }

    pub fn dht_at<T>(
        &mut self,
        addr: SocketAddrV4,
        f: impl FnOnce(&mut HyperDht, Instant) -> T,
    ) -> T {
        self.on(self.at(addr), |node, now| f(node.honest().0, now))
    }

    pub fn events(&self, n: u16) -> &[DhtEvent] {
        self.events_at(host(n))
    }

    fn events_at(&self, addr: SocketAddrV4) -> &[DhtEvent] {
        match &self.machines[self.at(addr)] {
            Node::Honest { events, .. } => events,
            Node::Scripted { .. } => &[],
        }
    }

    /// Takes the events of machine `n` so far.
    pub fn take_events(&mut self, n: u16) -> Vec<DhtEvent> {
        let i = self.at(host(n));
        std::mem::take(self.machines[i].honest().1)
    }

    /// A machine goes silent.
    pub fn kill(&mut self, n: u16) {
        self.down(self.at(host(n)));
    }

    /// Runs until an event of machine `n` gives something, at most `limit`.
    pub fn wait<T>(
        &mut self,
        n: u16,
        limit: Duration,
        pick: impl FnMut(&DhtEvent) -> Option<T>,
    ) -> Option<T> {
        self.wait_at(host(n), limit, pick)
    }

    pub fn wait_at<T>(
        &mut self,
        addr: SocketAddrV4,
        limit: Duration,
        mut pick: impl FnMut(&DhtEvent) -> Option<T>,
    ) -> Option<T> {
        let (mut seen, mut found) = (0, None);
        self.run_until(limit, |sim| {
            let events = sim.events_at(addr);
            found = events[seen..].iter().find_map(&mut pick);
            seen = events.len();
            found.is_some()
        });
        found
    }
}
