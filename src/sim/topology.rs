//! Who lives where, and the ways between them.
//!
//! An address counts within a realm: the Internet, or what lies behind one box. A datagram climbs from its sender's
//! realm to the first one that knows its destination, translated by each box on the way ([`Topology::send`]), crosses
//! that realm on a link, and descends **when it arrives** ([`Topology::deliver`]): who is let in depends on what was
//! sent outwards meanwhile.

use super::{Datagram, Link, LinkConfig, Nat};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// What is sent with a TTL of this or less, counted behind the sender's boxes, dies on the Internet. As in natlab.
pub const CORE_HOPS: u8 = 8;

/// What is sent with no TTL in particular has this one.
const USUAL_TTL: u8 = 64;

/// Which ports sockets get that ask for none in particular, as on Linux.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// Where an address counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Realm(usize);

impl Realm {
    pub const INTERNET: Self = Self(0);
}

/// A socket of a machine.
#[derive(Debug, Clone, Copy)]
pub struct Home {
    pub machine: usize,
    pub socket: u16,
    /// The address of its main socket: links are between these.
    pub main: SocketAddrV4,
}

/// A datagram on a link.
#[derive(Debug, Clone)]
pub struct Flight {
    datagram: Datagram,
    /// Where its destination is looked for when it arrives.
    realm: Realm,
    /// It was turned back by the box that it is for.
    hairpin: bool,
    pub sender: Option<usize>,
}

type Way = (Realm, SocketAddrV4, SocketAddrV4);

pub struct Topology {
    /// What links are like on the Internet, and behind boxes.
    pub pattern: LinkConfig,
    pub lan: LinkConfig,
    /// Datagrams that died of their TTL.
    pub expired: u64,
    links: BTreeMap<Way, Link>,
    homes: BTreeMap<(SocketAddrV4, Realm), Home>,
    /// The box of realm n is at n - 1, with the realm that it is in.
    nats: Vec<(Realm, Nat)>,
    /// By the realm that a box is in, and its address there: what is behind it.
    behind: BTreeMap<(Realm, Ipv4Addr), Realm>,
}

impl Topology {
    pub fn new(pattern: LinkConfig) -> Self {
        let lan = LinkConfig { latency: Duration::from_millis(1), ..LinkConfig::default() };
        Self {
            pattern,
            lan,
            expired: 0,
            links: BTreeMap::new(),
            homes: BTreeMap::new(),
            nats: Vec::new(),
            behind: BTreeMap::new(),
        }
    }

    /// Puts a box into a realm, at an address that nobody has. Answers the realm behind it.
    pub fn add_nat(&mut self, outside: Realm, nat: Nat) -> Realm {
        let (ip, inside) = (nat.external, Realm(self.nats.len() + 1));
        let taken = self.homes.keys().any(|(addr, realm)| (*addr.ip(), *realm) == (ip, outside));
        assert!(!taken && self.behind.insert((outside, ip), inside).is_none(), "{ip} is taken");
        self.nats.push((outside, nat));
        inside
    }

    /// The box in front of a realm, and where that is.
    pub fn nat(&mut self, realm: Realm) -> Option<(Realm, &mut Nat)> {
        let (outside, nat) = self.nats.get_mut(realm.0.checked_sub(1)?)?;
        Some((*outside, nat))
    }

    pub fn settle(&mut self, realm: Realm, addr: SocketAddrV4, home: Home) {
        let taken = self.behind.contains_key(&(realm, *addr.ip()));
        assert!(!taken && self.homes.insert((addr, realm), home).is_none(), "{addr} is taken");
    }

    /// An address with a port that nobody has.
    pub fn free_address(&self, realm: Realm, ip: Ipv4Addr, rng: &mut StdRng) -> SocketAddrV4 {
        let mut draw = || SocketAddrV4::new(ip, rng.random_range(EPHEMERAL));
        loop {
            let addr = draw();
            if !self.homes.contains_key(&(addr, realm)) {
                return addr;
            }
        }
    }

    /// A machine gives up all its addresses.
    pub fn leave(&mut self, machine: usize) {
        self.homes.retain(|_, home| home.machine != machine);
    }

    /// Who is at an address: on the Internet if anybody is there, else behind the oldest box.
    pub fn at(&self, addr: SocketAddrV4) -> Option<(Realm, Home)> {
        let (&(found, realm), home) = self.homes.range((addr, Realm::INTERNET)..).next()?;
        (found == addr).then_some((realm, *home))
    }

    /// Puts a datagram on its way. Answers when it arrives, and when its double does.
    pub fn send(
        &mut self,
        mut datagram: Datagram,
        from: Option<(Realm, Home)>,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<(Flight, [Option<Instant>; 2])> {
        let (mut realm, mut start) = match from {
            Some((realm, home)) => (realm, home.main),
            None => (Realm::INTERNET, datagram.from),
        };
        let (to, mut ttl) = (datagram.to, datagram.ttl.unwrap_or(USUAL_TTL));
        let (way, arrives_in) = loop {
            if let Some(end) = self.end(realm, to) {
                break ((realm, start, end), realm);
            }
            let (outside, nat) = self.nat(realm)?;
            let hairpin = nat.external == *to.ip();
            if hairpin && !nat.cfg.hairpin {
                nat.refused += 1;
                return None;
            }
            if ttl <= 1 {
                self.expired += 1;
                return None;
            }
            ttl -= 1;
            datagram.from = nat.outbound(datagram.from, to, now, rng)?;
            let site = site(nat.external);
            if hairpin {
                break ((realm, start, site), outside);
            }
            (realm, start) = (outside, site);
        };
        if way.0 == Realm::INTERNET && ttl <= CORE_HOPS {
            self.expired += 1;
            return None;
        }
        let arrivals = self.link(way, rng).send(now, datagram.bytes.len());
        let (hairpin, sender) = (way.0 != arrives_in, from.map(|(_, home)| home.machine));
        Some((Flight { datagram, realm: arrives_in, hairpin, sender }, arrivals))
    }

    /// A datagram arrives: at which machine, if at any.
    pub fn deliver(&mut self, flight: Flight, now: Instant) -> Option<(usize, Datagram)> {
        let Flight { mut datagram, mut realm, hairpin, .. } = flight;
        let mut filtered = !hairpin;
        loop {
            if let Some(home) = self.homes.get(&(datagram.to, realm)) {
                datagram.socket = home.socket;
                return Some((home.machine, datagram));
            }
            realm = *self.behind.get(&(realm, *datagram.to.ip()))?;
            let (_, nat) = self.nat(realm)?;
            datagram.to = nat.inbound(datagram.from, datagram.to.port(), filtered, now)?;
            filtered = true;
        }
    }

    /// Which machine a datagram would come to as things are now.
    pub fn goal(&self, flight: &Flight, now: Instant) -> Option<usize> {
        let (mut to, mut realm, mut filtered) = (flight.datagram.to, flight.realm, !flight.hairpin);
        loop {
            if let Some(home) = self.homes.get(&(to, realm)) {
                return Some(home.machine);
            }
            realm = *self.behind.get(&(realm, *to.ip()))?;
            let (_, nat) = &self.nats[realm.0 - 1];
            to = nat.admits(flight.datagram.from, to.port(), filtered, now)?;
            filtered = true;
        }
    }

    /// The link between two machines, in the innermost realm that both are in or behind.
    pub fn link_between(
        &mut self,
        from: (Realm, SocketAddrV4),
        to: (Realm, SocketAddrV4),
        rng: &mut StdRng,
    ) -> &mut Link {
        let (from, to) = (self.sites(from), self.sites(to));
        let shared = from.iter().find_map(|(realm, start)| {
            let (_, end) = to.iter().find(|(other, _)| other == realm)?;
            Some((*realm, *start, *end))
        });
        self.link(shared.expect("all boxes lead to the Internet"), rng)
    }

    pub fn every_link(&mut self, change: impl Fn(&mut LinkConfig)) {
        change(&mut self.pattern);
        change(&mut self.lan);
        self.links.values_mut().for_each(|link| change(&mut link.cfg));
    }

    /// Where a machine is, and the boxes in front of it.
    fn sites(&self, machine: (Realm, SocketAddrV4)) -> Vec<(Realm, SocketAddrV4)> {
        std::iter::successors(Some(machine), |(realm, _)| {
            let (outside, nat) = self.nats.get(realm.0.checked_sub(1)?)?;
            Some((*outside, site(nat.external)))
        })
        .collect()
    }

    /// Where a link to an address of this realm ends, if anybody has it.
    fn end(&self, realm: Realm, to: SocketAddrV4) -> Option<SocketAddrV4> {
        let home = self.homes.get(&(to, realm)).map(|home| home.main);
        home.or_else(|| self.behind.get(&(realm, *to.ip())).map(|_| site(*to.ip())))
    }

    fn link(&mut self, way: Way, rng: &mut StdRng) -> &mut Link {
        let pattern = if way.0 == Realm::INTERNET { &self.pattern } else { &self.lan };
        self.links.entry(way).or_insert_with(|| Link::new(pattern.clone(), rng.random()))
    }
}

/// The end of a link at a box.
fn site(external: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(external, 0)
}
