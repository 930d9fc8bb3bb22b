//! A box that translates addresses: what it maps, whom it lets in, and for how long.
//!
//! It has one external address. An endpoint behind it that sends something gets an external port (a mapping), and whom
//! it sent to may answer. Only what is sent outwards keeps both alive.

use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Where random ports are taken from, as Linux does it for ports that are not privileged.
const PORTS: RangeInclusive<u16> = 1024..=65535;

/// So many random ports are tried; where all of them are taken the box is full, and drops what wants out.
const TRIES: usize = 128;

/// Which external port an endpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Its own, where it is free; otherwise a random one.
    Kept,
    Random,
    /// Another random one for each address and port that it sends to.
    RandomPerRemote,
}

/// Who may send to a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    Anyone,
    /// The addresses that it has sent to, from any port.
    Addresses,
    /// The ports of addresses that it has sent to.
    Endpoints,
}

#[derive(Debug, Clone, Copy)]
pub struct NatConfig {
    pub ports: Ports,
    pub filter: Filter,
    /// Who sends to the external address from behind the box gets through, and is seen at its own external address.
    /// It is not filtered.
    pub hairpin: bool,
    /// How long after the last datagram outwards something may come in.
    pub lifetime: Duration,
    /// The same while nothing has come in.
    pub unanswered: Duration,
}

impl NatConfig {
    const fn new(ports: Ports, filter: Filter, hairpin: bool) -> Self {
        let (lifetime, unanswered) = (Duration::from_secs(120), Duration::from_secs(30));
        Self { ports, filter, hairpin, lifetime, unanswered }
    }

    pub const fn full() -> Self {
        Self::new(Ports::Kept, Filter::Anyone, true)
    }

    pub const fn addr() -> Self {
        Self::new(Ports::Kept, Filter::Addresses, false)
    }

    pub const fn port() -> Self {
        Self::new(Ports::Kept, Filter::Endpoints, false)
    }

    pub const fn sym() -> Self {
        Self::new(Ports::RandomPerRemote, Filter::Endpoints, false)
    }

    /// A carrier's, in front of other boxes.
    pub const fn carrier() -> Self {
        Self::new(Ports::Random, Filter::Endpoints, false)
    }

    fn ends(&self, contact: &Contact) -> Instant {
        let unanswered = self.unanswered.min(self.lifetime);
        contact.sent + if contact.answered { self.lifetime } else { unanswered }
    }
}

#[derive(Debug, Clone, Copy)]
struct Contact {
    /// When something last went out.
    sent: Instant,
    answered: bool,
}

/// Whose mapping it is, and for which remote endpoint if for one only.
type Key = (SocketAddrV4, Option<SocketAddrV4>);

#[derive(Debug)]
struct Mapping {
    key: Key,
    all: Contact,
    /// With each remote endpoint that it has sent to.
    each: BTreeMap<SocketAddrV4, Contact>,
}

#[derive(Debug)]
pub struct Nat {
    pub cfg: NatConfig,
    pub external: Ipv4Addr,
    /// Datagrams from outside that were not let in.
    pub refused: u64,
    /// Ports at which whatever comes is passed on to an endpoint behind.
    pub forwards: BTreeMap<u16, SocketAddrV4>,
    mappings: BTreeMap<u16, Mapping>,
    ports: BTreeMap<Key, u16>,
}

impl Nat {
    pub fn new(external: Ipv4Addr, cfg: NatConfig) -> Self {
        let (forwards, mappings, ports) = Default::default();
        Self { cfg, external, refused: 0, forwards, mappings, ports }
    }

    /// Knows nothing any more, as a router that has been switched off and on.
    pub fn forget(&mut self) {
        self.mappings.clear();
        self.ports.clear();
    }

    /// Something goes out: as whom the world sees its sender.
    pub fn outbound(
        &mut self,
        inner: SocketAddrV4,
        remote: SocketAddrV4,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<SocketAddrV4> {
        let key = (inner, (self.cfg.ports == Ports::RandomPerRemote).then_some(remote));
        let known = self.ports.get(&key).copied().filter(|port| !self.is_free(*port, now));
        let port = known.or_else(|| self.open(key, now, rng))?;
        let (cfg, mapping) = (self.cfg, self.mappings.get_mut(&port)?);
        let first = Contact { sent: now, answered: false };
        mapping.all.sent = now;
        let contact = mapping.each.entry(remote).or_insert(first);
        *contact = if cfg.ends(contact) <= now { first } else { Contact { sent: now, ..*contact } };
        Some(SocketAddrV4::new(self.external, port))
    }

    /// Something comes in: for whom it is, if it is let in.
    pub fn inbound(
        &mut self,
        remote: SocketAddrV4,
        port: u16,
        filtered: bool,
        now: Instant,
    ) -> Option<SocketAddrV4> {
        let Some(inner) = self.admits(remote, port, filtered, now) else {
            self.refused += 1;
            return None;
        };
        let cfg = self.cfg;
        let Some(mapping) = self.mappings.get_mut(&port) else { return Some(inner) };
        mapping.all.answered = true;
        if let Some(contact) = mapping.each.get_mut(&remote).filter(|c| now < cfg.ends(c)) {
            contact.answered = true;
        }
        Some(inner)
    }

    /// For whom something from outside is, as things are now.
    pub fn admits(
        &self,
        remote: SocketAddrV4,
        port: u16,
        filtered: bool,
        now: Instant,
    ) -> Option<SocketAddrV4> {
        if let Some(inner) = self.forwards.get(&port) {
            return Some(*inner);
        }
        let mapping = self.mappings.get(&port).filter(|_| !self.is_free(port, now))?;
        let of_address = |port| SocketAddrV4::new(*remote.ip(), port);
        let asked = match self.cfg.filter {
            Filter::Anyone => return Some(mapping.key.0),
            Filter::Addresses => of_address(0)..=of_address(u16::MAX),
            Filter::Endpoints => remote..=remote,
        };
        let knows = || mapping.each.range(asked).any(|(_, c)| now < self.cfg.ends(c));
        (!filtered || knows()).then_some(mapping.key.0)
    }

    /// Nobody has this port, or nobody any more.
    fn is_free(&self, port: u16, now: Instant) -> bool {
        self.mappings.get(&port).is_none_or(|mapping| self.cfg.ends(&mapping.all) <= now)
    }

    fn open(&mut self, key: Key, now: Instant, rng: &mut StdRng) -> Option<u16> {
        let kept = (self.cfg.ports == Ports::Kept).then_some(key.0.port());
        let drawn = std::iter::repeat_with(|| rng.random_range(PORTS)).take(TRIES);
        let port = kept.into_iter().chain(drawn).find(|port| self.is_free(*port, now))?;
        let all = Contact { sent: now, answered: false };
        let before = self.mappings.insert(port, Mapping { key, all, each: BTreeMap::new() });
        if let Some(Mapping { key, .. }) = before {
            self.ports.remove(&key);
        }
        if let Some(before) = self.ports.insert(key, port).filter(|before| *before != port) {
            self.mappings.remove(&before);
        }
        Some(port)
    }
}
