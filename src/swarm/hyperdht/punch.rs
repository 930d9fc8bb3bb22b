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

use super::messages::{Firewall, HolepunchPayload};
use super::net::Net;
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
/// hit after some 250 of them, within the first 500 in six of seven cases. Tries are datagrams of one byte, and as many
/// entries in the tables of our own router; the reference makes as many, one each 20 ms.
const PORTS: u32 = 1750;
const PORT_EVERY: Duration = Duration::from_millis(5);
const FIRST_PORTS: u32 = 500;
const FIRST_PORT_EVERY: Duration = Duration::from_micros(2500);
/// What is made up for at once when we come late.
const LAG: Duration = Duration::from_millis(50);
/// Ports below are given by hand.
const FIRST_PORT: u16 = 1000;

/// Sockets of the side whose ports are tried, and the distance between its punches.
const SOCKETS: u32 = 256;
const SOCKET_EVERY: Duration = Duration::from_millis(20);
const SOCKET_ROUNDS: u32 = 1750;

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
    // Nobody outside makes us write into our local networks.
    if net.rpc.is_usable(&to) {
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
        let told_addresses = told.addresses.iter().flatten().take(MAX_ADDRESSES);
        self.addresses = told_addresses.map(|addr| (*addr, known(addr.ip()))).collect();
        (self.firewall, self.punching) = (told.firewall, told.punching);
    }

    /// Whether a punch from there may be the peer's.
    pub fn is_at(&self, from: &SocketAddrV4) -> bool {
        let any_port = self.firewall == Firewall::Random;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    Addresses,
    PortsOf(Ipv4Addr),
    FromMany(SocketAddrV4),
}

/// Punches that go on.
#[derive(Debug)]
pub struct Punching {
    aim: Aim,
    /// Beside the main one.
    sockets: Vec<SocketId>,
    next: Instant,
    round: u32,
}

impl Punching {
    /// Begins, if there is a way. Who was asked to has opened its side already, and waits a moment.
    pub fn start(
        initiator: bool,
        ours: Firewall,
        remote: &Remote,
        net: &mut Net,
        now: Instant,
    ) -> Option<Self> {
        let aim = match (ours, remote.firewall) {
            (ours, theirs) if is_consistent(ours) && is_consistent(theirs) => Aim::Addresses,
            (ours, Firewall::Random) if is_consistent(ours) => {
                Aim::PortsOf(*remote.verified()?.ip())
            }
            (Firewall::Random, theirs) if is_consistent(theirs) => {
                Aim::FromMany(remote.verified()?)
            }
            _ => return None,
        };
        let waits = !initiator && aim == Aim::Addresses;
        let next = if waits { now + ROUND } else { now };
        let sockets = match aim {
            Aim::FromMany(_) => (0..SOCKETS).map(|_| net.open_socket()).collect(),
            _ => Vec::new(),
        };
        net.punching.trying += usize::from(matches!(aim, Aim::PortsOf(_)));
        net.punching.from_many += usize::from(matches!(aim, Aim::FromMany(_)));
        // All of them open our side at once, and the other side only then begins to try ports.
        if let Aim::FromMany(to) = aim {
            sockets.iter().for_each(|socket| send(*socket, to, Some(SHORT), net, now));
        }
        Some(Self { aim, sockets, next, round: 0 })
    }

    /// What it opened is of no further use, but for a stream that found its way.
    pub fn end(self, net: &mut Net) {
        net.retired.extend(self.sockets);
        net.punching.trying -= usize::from(matches!(self.aim, Aim::PortsOf(_)));
        net.punching.from_many -= usize::from(matches!(self.aim, Aim::FromMany(_)));
    }

    /// When [`Self::handle_timeout`] is to be called; none when all was tried.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rounds = match self.aim {
            Aim::Addresses => ROUNDS,
            Aim::PortsOf(_) => PORTS,
            Aim::FromMany(_) => SOCKET_ROUNDS,
        };
        (self.round < rounds).then_some(self.next)
    }

    /// When the last round has had its time; the next one, before all was tried.
    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn handle_timeout(&mut self, remote: &Remote, net: &mut Net, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
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
                    punch(SocketAddrV4::new(host, port), net, now);
                }
                Aim::FromMany(to) => {
                    self.next = now + SOCKET_EVERY;
                    let socket = self.sockets.get(self.round as usize % self.sockets.len().max(1));
                    socket.into_iter().for_each(|socket| send(*socket, to, None, net, now));
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
        assert!(remote.is_at(&at(1, 5)) && !remote.is_at(&at(1, 6)) && !remote.is_at(&at(2, 5)));
        remote.update(&told(Firewall::Random, &[(1, 0)]), None);
        assert!(remote.is_at(&at(1, 6)) && !remote.is_at(&at(2, 5)));
    }
}
