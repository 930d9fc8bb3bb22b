//! A network of [`HyperDht`] machines: latency, loss, and a clock that jumps to the next thing to do.

use crate::crypto::KeyPair;
use crate::key::PublicKey;
use crate::sim::epoch;
use crate::swarm::SocketId;
use crate::swarm::dht_rpc::Transmit;
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Answers of a machine that is no [`HyperDht`].
pub(super) type Script =
    Box<dyn FnMut(SocketAddrV4, &[u8], &mut StdRng) -> Vec<(SocketAddrV4, Vec<u8>)>>;

pub(super) struct Machine {
    pub dht: HyperDht,
    pub events: Vec<DhtEvent>,
    pub key: PublicKey,
}

struct Packet {
    from: SocketAddrV4,
    to: SocketAddrV4,
    bytes: Vec<u8>,
}

pub(super) struct Sim {
    pub now: Instant,
    pub rng: StdRng,
    pub machines: BTreeMap<SocketAddrV4, Machine>,
    pub scripts: BTreeMap<SocketAddrV4, Script>,
    pub loss: f64,
    pub latency_ms: std::ops::Range<u64>,
    pub packets: u64,
    flying: BTreeMap<(Instant, u64), Packet>,
    next: u64,
}

/// A host of its own for each number.
pub(super) fn host(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, (n >> 8) as u8, n as u8].into(), 49737)
}

pub(super) fn pair(n: u16) -> KeyPair {
    KeyPair::from_seed(&crate::crypto::hash::hash(&[b"test", &n.to_le_bytes()]))
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let now = epoch();
        Self {
            now,
            rng: StdRng::seed_from_u64(seed),
            machines: BTreeMap::new(),
            scripts: BTreeMap::new(),
            loss: 0.0,
            latency_ms: 5..40,
            packets: 0,
            flying: BTreeMap::new(),
            next: 0,
        }
    }

    /// A machine at `addr`, with the key pair of number `n`.
    pub fn add(&mut self, addr: SocketAddrV4, n: u16, config: impl FnOnce(&mut DhtConfig)) {
        let key_pair = pair(n);
        let key = PublicKey(key_pair.public());
        let mut cfg = DhtConfig::new(key_pair, vec![host(0)]);
        cfg.allow_bogons = true;
        cfg.local_addresses = vec![addr];
        config(&mut cfg);
        let rng = StdRng::seed_from_u64(self.rng.random());
        let dht = HyperDht::new(cfg, rng, self.now);
        self.machines.insert(addr, Machine { dht, events: Vec::new(), key });
        self.drain(addr);
    }

    /// The first node, `persistent - 1` others that learn their address, and what is left ephemeral.
    pub fn network(seed: u64, persistent: u16, ephemeral: u16) -> Self {
        let mut sim = Self::new(seed);
        sim.add(host(0), 0, |c| {
            c.bootstrap.clear();
            c.persistent = true;
            c.address = Some(host(0));
        });
        for n in 1..persistent {
            sim.add(host(n), n, |c| c.persistent = true);
            sim.run_for(Duration::from_millis(300));
        }
        for n in persistent..persistent + ephemeral {
            sim.add(host(n), n, |_| {});
        }
        sim.run_for(Duration::from_secs(8));
        sim
    }

    pub fn dht(&mut self, n: u16) -> &mut HyperDht {
        &mut self.machines.get_mut(&host(n)).unwrap().dht
    }

    pub fn key(&self, n: u16) -> PublicKey {
        self.machines[&host(n)].key
    }

    /// Runs a command on machine `n`.
    pub fn on<T>(&mut self, n: u16, f: impl FnOnce(&mut HyperDht, Instant) -> T) -> T {
        self.at(host(n), f)
    }

    pub fn at<T>(&mut self, addr: SocketAddrV4, f: impl FnOnce(&mut HyperDht, Instant) -> T) -> T {
        let now = self.now;
        let out = f(&mut self.machines.get_mut(&addr).unwrap().dht, now);
        self.drain(addr);
        out
    }

    pub fn events(&self, n: u16) -> &[DhtEvent] {
        &self.machines[&host(n)].events
    }

    /// Takes the events of machine `n` so far.
    pub fn take_events(&mut self, n: u16) -> Vec<DhtEvent> {
        std::mem::take(&mut self.machines.get_mut(&host(n)).unwrap().events)
    }

    /// A machine goes silent for good.
    pub fn kill(&mut self, n: u16) {
        self.machines.remove(&host(n));
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until an event of machine `n` gives something, at most `limit`.
    pub fn wait<T>(
        &mut self,
        n: u16,
        limit: Duration,
        mut pick: impl FnMut(&DhtEvent) -> Option<T>,
    ) -> Option<T> {
        self.wait_at(host(n), limit, &mut pick)
    }

    pub fn wait_at<T>(
        &mut self,
        addr: SocketAddrV4,
        limit: Duration,
        pick: &mut dyn FnMut(&DhtEvent) -> Option<T>,
    ) -> Option<T> {
        let end = self.now + limit;
        let mut seen = 0;
        loop {
            let events = &self.machines[&addr].events;
            if let Some(found) = events[seen..].iter().find_map(&mut *pick) {
                return Some(found);
            }
            seen = events.len();
            if !self.step(end) {
                self.now = end;
                return None;
            }
        }
    }

    /// The next packet or timer, if it is due by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let packet = self.flying.first_key_value().map(|(k, _)| *k);
        let timer = self
            .machines
            .iter()
            .filter_map(|(addr, m)| m.dht.poll_timeout().map(|at| (at, *addr)))
            .min();
        match (packet, timer) {
            (Some((at, _)), timer) if at <= end && timer.is_none_or(|(t, _)| at <= t) => {
                self.now = self.now.max(at);
                if let Some((_, packet)) = self.flying.pop_first() {
                    self.deliver(packet);
                }
            }
            (_, Some((at, addr))) if at <= end => {
                self.now = self.now.max(at);
                self.at(addr, |dht, now| dht.handle_timeout(now));
            }
            _ => return false,
        }
        true
    }

    fn deliver(&mut self, packet: Packet) {
        let Packet { from, to, bytes } = packet;
        if let Some(script) = self.scripts.get_mut(&to) {
            for (back, bytes) in script(from, &bytes, &mut self.rng) {
                self.send(to, back, bytes);
            }
        } else if self.machines.contains_key(&to) {
            self.at(to, |dht, now| dht.handle_datagram(SocketId::MAIN, from, &bytes, now));
        }
    }

    fn drain(&mut self, addr: SocketAddrV4) {
        let Some(machine) = self.machines.get_mut(&addr) else { return };
        let sent: Vec<Transmit> = std::iter::from_fn(|| machine.dht.poll_transmit()).collect();
        let events = std::iter::from_fn(|| machine.dht.poll_event());
        machine.events.extend(events);
        for Transmit { to, bytes, .. } in sent {
            assert!(bytes.len() <= 1400, "a datagram of {} bytes", bytes.len());
            self.send(addr, to, bytes);
        }
    }

    fn send(&mut self, from: SocketAddrV4, to: SocketAddrV4, bytes: Vec<u8>) {
        self.packets += 1;
        if self.rng.random_bool(self.loss) {
            return;
        }
        let latency = Duration::from_millis(self.rng.random_range(self.latency_ms.clone()));
        self.next += 1;
        self.flying.insert((self.now + latency, self.next), Packet { from, to, bytes });
    }
}
