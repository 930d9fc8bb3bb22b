//! Opening a way through two NATs: what the other side told of itself, and when to send what.
//!
//! A punch is a datagram of one byte, 0. With a small TTL it opens our NAT towards the other side and dies before it
//! arrives there. Who did not begin the connection answers each that comes with one of its own; who began it takes the
//! first that comes, and the address it came from, for the way to the peer.
//!
//! The reference punches from a fresh socket. We do so from the main one: how others see it is known already, the relays
//! of our announcement keep its mapping open, and no socket has to be opened for whoever shakes hands. Only behind a NAT
//! that gives each destination another port there are others, so that one of many ports may be hit.
//!
//! | ours | theirs | what is sent |
//! |---|---|---|
//! | consistent | consistent | a punch to each address a second, those of a host that is not verified less often |
//! | consistent | random | punches to random ports of their verified host, which sends from many sockets |
//! | random | consistent | punches from [`SOCKETS`] to the address of their verified host, which tries ports |
//!
//! Source: hyperdht/lib/holepuncher.js

use super::event::PUNCH_WAIT;
use super::messages::{Firewall, HolepunchPayload};
use super::net::Net;
use super::turns::{Role, SOCKETS, Sort, Turn};
use crate::swarm::dht_rpc::Account;
use crate::swarm::socket::SocketId;
use rand::Rng;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// The datagram.
const PUNCH: u8 = 0;
/// TTL of one that is not to arrive: past our own NATs, not past theirs.
const SHORT: u8 = 5;
/// Addresses of a peer that are punched to.
const MAX_ADDRESSES: usize = 8;

/// Rounds between addresses that stay the same, and their distance.
const ROUNDS: u32 = 10;
const ROUND: Duration = Duration::from_secs(1);
/// Addresses of a host that may be anybody's get a punch in one of so many rounds.
const UNVERIFIED_EACH: u32 = 4;

/// Random ports that are tried, and the distance, which is less for the first: of all that the other side has opened one is
/// hit after some 250 of them, within the first 1,000 in 49 of 50 cases. Tries are datagrams of one byte, and as many
/// entries in the tables of our own router; the reference makes as many, one each 20 ms.
const PORTS: u32 = 1750;
const PORT_EVERY: Duration = Duration::from_millis(5);
const FIRST_PORTS: u32 = 1000;
const FIRST_PORT_EVERY: Duration = Duration::from_micros(1500);
/// What is made up for at once when we come late.
const LAG: Duration = Duration::from_millis(50);
/// Ports below are given by hand.
const FIRST_PORT: u16 = 1000;

/// Punches from the sockets of the side whose ports are tried, their distance, and after how many it gives way to others
/// that wait: by then the other side has tried some 500 ports even if it is as slow as the reference.
const SOCKET_EVERY: Duration = Duration::from_millis(20);
const SOCKET_ROUNDS: u32 = 1750;
const FIRST_SOCKET_ROUNDS: u32 = 500;

/// Whether a datagram is a punch.
pub fn is_punch(data: &[u8]) -> bool {
    data == [PUNCH]
}

/// Sends one.
pub fn punch(to: SocketAddrV4, net: &mut Net, now: Instant) {
    send(SocketId::MAIN, to, None, net, now);
}

/// Answers one that came to `socket`.
pub fn answer(socket: SocketId, to: SocketAddrV4, net: &mut Net, now: Instant) {
    send(socket, to, None, net, now);
}

/// Opens our NAT towards `to`, without a datagram that arrives there.
pub fn open_towards(to: SocketAddrV4, net: &mut Net, now: Instant) {
    send(SocketId::MAIN, to, Some(SHORT), net, now);
}

fn send(socket: SocketId, to: SocketAddrV4, ttl: Option<u8>, net: &mut Net, now: Instant) {
    // Nobody outside makes us write into our local networks, or to ourselves.
    if net.rpc.is_usable(&to) && !net.is_own(&to) {
        net.rpc.send_raw(socket, to, vec![PUNCH], ttl, Account::Handshakes, now);
    }
}

/// What the other side told of itself.
#[derive(Debug)]
pub struct Remote {
    pub firewall: Firewall,
    pub punching: bool,
    /// With whether its host was shown to be the peer's.
    addresses: Vec<(SocketAddrV4, bool)>,
}

impl Remote {
    pub fn new(firewall: Firewall) -> Self {
        Self { firewall, punching: false, addresses: Vec::new() }
    }

    /// Takes what it says now. `verified` is a host at which it has shown to receive.
    pub fn update(&mut self, told: &HolepunchPayload, verified: Option<Ipv4Addr>) {
        let known = |host: &Ipv4Addr| {
            verified.as_ref() == Some(host)
                || self.addresses.iter().any(|(addr, verified)| *verified && addr.ip() == host)
        };
        let mut addresses: Vec<(SocketAddrV4, bool)> = Vec::new();
        for addr in told.addresses.iter().flatten() {
            if addresses.len() < MAX_ADDRESSES && addresses.iter().all(|(known, _)| known != addr) {
                addresses.push((*addr, known(addr.ip())));
            }
        }
        self.addresses = addresses;
        (self.firewall, self.punching) = (told.firewall, told.punching);
    }

    /// Whether a punch from there may be the peer's. `tries`: ports are tried, if its NAT makes them random.
    pub fn is_at(&self, from: &SocketAddrV4, tries: bool) -> bool {
        let any_port = tries && self.firewall == Firewall::Random;
        self.addresses.iter().any(|(addr, _)| addr == from || any_port && addr.ip() == from.ip())
    }

    fn verified(&self) -> Option<SocketAddrV4> {
        self.addresses.iter().find(|(_, verified)| *verified).map(|(addr, _)| *addr)
    }
}

/// Whether it is always the same address that others see.
pub fn is_consistent(firewall: Firewall) -> bool {
    matches!(firewall, Firewall::Open | Firewall::Consistent)
}

/// What it takes to punch to a host.
pub fn sort(ours: Firewall, theirs: Firewall, host: Ipv4Addr) -> Sort {
    match (ours, theirs) {
        (Firewall::Random, _) => Sort::Sockets(host),
        (_, Firewall::Random) => Sort::Ports(host),
        _ => Sort::Few,
    }
}

/// What is punched to, and what that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Addresses,
    PortsOf(Ipv4Addr),
    FromMany(SocketAddrV4),
}

impl Aim {
    /// None if there is no way.
    pub fn of(ours: Firewall, remote: &Remote) -> Option<Self> {
        match (ours, remote.firewall) {
            (ours, theirs) if is_consistent(ours) && is_consistent(theirs) => Some(Self::Addresses),
            (ours, Firewall::Random) if is_consistent(ours) => {
                Some(Self::PortsOf(*remote.verified()?.ip()))
            }
            (Firewall::Random, theirs) if is_consistent(theirs) => {
                Some(Self::FromMany(remote.verified()?))
            }
            _ => None,
        }
    }

    pub fn sort(&self) -> Sort {
        match self {
            Self::Addresses => Sort::Few,
            Self::PortsOf(host) => Sort::Ports(*host),
            Self::FromMany(to) => Sort::Sockets(*to.ip()),
        }
    }

    /// How long a punch of the other side may take.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Addresses => ROUND * (ROUNDS + 2),
            Self::PortsOf(_) | Self::FromMany(_) => PUNCH_WAIT,
        }
    }
}

/// Punches that go on.
#[derive(Debug)]
pub struct Punching {
    aim: Aim,
    /// Until all was tried.
    turn: Option<Turn>,
    /// Beside the main one.
    sockets: Vec<SocketId>,
    next: Instant,
    round: u32,
}

impl Punching {
    /// Begins. Who was asked to has opened its side already, and waits a moment.
    pub fn start(aim: Aim, turn: Turn, net: &mut Net, now: Instant) -> Self {
        let waits = turn.role == Role::Server && aim == Aim::Addresses;
        let next = if waits { now + ROUND } else { now };
        let sockets: Vec<_> = match aim {
            Aim::FromMany(_) => (0..SOCKETS).map(|_| net.open_socket()).collect(),
            _ => Vec::new(),
        };
        net.punching.opened(sockets.len());
        // All of them open our side at once, and the other side only then begins to try ports.
        if let Aim::FromMany(to) = aim {
            for socket in &sockets {
                if net.punching.try_at(to.ip(), now) {
                    send(*socket, to, Some(SHORT), net, now);
                }
            }
        }
        Self { aim, turn: Some(turn), sockets, next, round: 0 }
    }

    /// What it opened is of no further use, but for a stream that found its way.
    pub fn end(mut self, net: &mut Net) {
        self.leave(net);
    }

    /// Others have their turn.
    fn leave(&mut self, net: &mut Net) {
        net.retired.append(&mut self.sockets);
        self.turn.take().into_iter().for_each(|turn| net.punching.give_back(turn));
    }

    fn rounds(&self) -> u32 {
        match self.aim {
            Aim::Addresses => ROUNDS,
            Aim::PortsOf(_) => PORTS,
            Aim::FromMany(_) => SOCKET_ROUNDS,
        }
    }

    /// When [`Self::handle_timeout`] is to be called; none when all was tried.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.turn.is_some().then_some(self.next)
    }

    /// When the last round has had its time; the next one, before all was tried.
    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn handle_timeout(&mut self, remote: &Remote, net: &mut Net, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            let gives_way = matches!(self.aim, Aim::FromMany(_))
                && self.round >= FIRST_SOCKET_ROUNDS
                && net.punching.are_sockets_wanted(now);
            if self.round >= self.rounds() || gives_way {
                // What the last one brings has had its time.
                return self.leave(net);
            }
            self.round += 1;
            match self.aim {
                Aim::Addresses => {
                    self.next = now + ROUND;
                    for (to, verified) in &remote.addresses {
                        if *verified || self.round.is_multiple_of(UNVERIFIED_EACH) {
                            punch(*to, net, now);
                        }
                    }
                }
                Aim::PortsOf(host) => {
                    let every =
                        if self.round <= FIRST_PORTS { FIRST_PORT_EVERY } else { PORT_EVERY };
                    self.next = (self.next + every).max(now.checked_sub(LAG).unwrap_or(now));
                    let port = net.rng.random_range(FIRST_PORT..=u16::MAX);
                    if net.punching.try_at(&host, now) {
                        punch(SocketAddrV4::new(host, port), net, now);
                    }
                }
                Aim::FromMany(to) => {
                    self.next = now + SOCKET_EVERY;
                    let socket = self.sockets.get(self.round as usize % self.sockets.len().max(1));
                    if let Some(socket) = socket
                        && net.punching.try_at(to.ip(), now)
                    {
                        send(*socket, to, None, net, now);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(firewall: Firewall, addresses: &[(u8, u16)]) -> HolepunchPayload {
        let addresses = addresses.iter().map(|(host, port)| at(*host, *port)).collect();
        HolepunchPayload { addresses: Some(addresses), ..HolepunchPayload::said(firewall) }
    }

    fn at(host: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new([198, 51, 100, host].into(), port)
    }

    #[test]
    fn a_host_is_verified_once_and_for_all() {
        let mut remote = Remote::new(Firewall::Unknown);
        remote.update(&told(Firewall::Consistent, &[(1, 5), (2, 5)]), Some(*at(1, 0).ip()));
        remote.update(&told(Firewall::Consistent, &[(1, 6), (2, 6)]), None);
        assert_eq!(remote.addresses, [(at(1, 6), true), (at(2, 6), false)]);
        remote.update(&told(Firewall::Consistent, &[(2, 6)]), None);
        assert_eq!(remote.verified(), None);
    }

    #[test]
    fn a_punch_is_of_the_peer_where_it_said_that_it_is() {
        let mut remote = Remote::new(Firewall::Unknown);
        remote.update(&told(Firewall::Consistent, &[(1, 5)]), None);
        let is_at = |remote: &Remote, at| remote.is_at(&at, true);
        assert!(is_at(&remote, at(1, 5)));
        assert!(!is_at(&remote, at(1, 6)) && !is_at(&remote, at(2, 5)));
        remote.update(&told(Firewall::Random, &[(1, 0)]), None);
        assert!(is_at(&remote, at(1, 6)) && !is_at(&remote, at(2, 5)));
        assert!(!remote.is_at(&at(1, 6), false), "no ports are tried, so it may be another's");
    }

    #[test]
    fn an_address_named_often_is_one() {
        let mut remote = Remote::new(Firewall::Unknown);
        let often = [(1, 5), (1, 5), (1, 5), (1, 5), (1, 5), (1, 5), (1, 5), (1, 5), (1, 6)];
        remote.update(&told(Firewall::Consistent, &often), None);
        assert_eq!(remote.addresses, [(at(1, 5), false), (at(1, 6), false)]);
    }
}
