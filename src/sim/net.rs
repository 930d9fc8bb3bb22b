//! Machines at addresses, and the datagrams between them.
//!
//! Between any two machines there is a link in each direction, made at the first datagram by the pattern of the network
//! ([`Net::every_link`]); a test may change one of them ([`Net::link`]). Machines behind one box share its links to the
//! Internet, and have links of their own between them. Time only passes in [`Net::run`] and its kin.

use super::topology::{Flight, Home, Topology};
use super::{Agenda, Link, LinkConfig, Nat, NatConfig, Realm, epoch};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// The number of a machine's main socket.
const MAIN: u16 = 0;

/// What a socket keeps for a process that does not read; 212,992 bytes by Linux' default, counted as whole
/// pages for small datagrams.
const SOCKET_QUEUE: usize = 250;

/// More steps than this at one moment: a machine wants to be woken at once for ever.
const MAX_STEPS_AT_ONCE: u32 = 100_000;

/// A machine without socket, clock and thread. Its main socket has the address at which it was added, the others get a
/// random port of the same host when it first sends from them.
pub trait Machine {
    /// Datagrams that came for it since it last read its socket, in their order. There is at least one.
    fn receive(&mut self, datagrams: &[Datagram], now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// Tells whatever it sends, and to whom. It comes after everything that happens to the machine, so this is also
    /// the moment to put its events aside.
    fn transmit(&mut self, now: Instant, out: &mut Vec<Outgoing>);
}

/// What a machine sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// From which of its sockets; 0 is the main one.
    pub socket: u16,
    pub to: SocketAddrV4,
    pub bytes: Vec<u8>,
    pub ttl: Option<u8>,
}

impl Outgoing {
    /// From the main socket, with the usual TTL.
    pub fn new(to: SocketAddrV4, bytes: Vec<u8>) -> Self {
        Self { socket: MAIN, to, bytes, ttl: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// As who sees the datagram knows its sender.
    pub from: SocketAddrV4,
    /// Once it has arrived: the address of the receiver as that knows it itself.
    pub to: SocketAddrV4,
    pub bytes: Vec<u8>,
    /// Of the machine that sees it: of the sender as it leaves, of the receiver once it has arrived.
    pub socket: u16,
    pub ttl: Option<u8>,
    /// It was sent to a group, of which the receiver is.
    pub to_group: bool,
}

impl Datagram {
    pub fn new(from: SocketAddrV4, to: SocketAddrV4, bytes: Vec<u8>) -> Self {
        Self { from, to, bytes, socket: MAIN, ttl: None, to_group: false }
    }
}

/// Sees each datagram as it leaves, and may change it; it is lost where the answer is false.
type Tap = Box<dyn FnMut(&mut Datagram) -> bool>;

enum State {
    Up,
    /// Its process stands still: it reads nothing, sends nothing, and its timers come late and all at once.
    Frozen {
        queue: Vec<Datagram>,
    },
    /// Nobody is at its address.
    Down,
}

struct Host {
    realm: Realm,
    /// Addresses by the number of the socket; the main one is always among them.
    sockets: BTreeMap<u16, SocketAddrV4>,
    state: State,
    /// Under which time it stands among the timers.
    timer: Option<Instant>,
    /// Datagrams from it and to it.
    datagrams: u64,
}

pub struct Net<M> {
    pub now: Instant,
    pub start: Instant,
    pub rng: StdRng,
    pub seed: u64,
    /// In the order in which they were added. What a test does to one of them directly is noticed at the next run.
    pub machines: Vec<M>,
    pub tap: Option<Tap>,
    /// Datagrams that left a machine.
    pub datagrams: u64,
    hosts: Vec<Host>,
    topology: Topology,
    air: Agenda<Flight>,
    timers: BTreeSet<(Instant, usize)>,
    steps_at_once: u32,
}

impl<M: Machine> Net<M> {
    /// Without a machine; every link will be like `pattern`.
    pub fn new(pattern: LinkConfig, seed: u64) -> Self {
        let now = epoch();
        Self {
            now,
            start: now,
            rng: StdRng::seed_from_u64(seed),
            seed,
            machines: Vec::new(),
            tap: None,
            datagrams: 0,
            hosts: Vec::new(),
            topology: Topology::new(pattern),
            air: Agenda::default(),
            timers: BTreeSet::new(),
            steps_at_once: 0,
        }
    }

    /// Puts a machine on the Internet, at an address that nobody has. Answers its number.
    pub fn add(&mut self, addr: SocketAddrV4, machine: M) -> usize {
        self.add_in(Realm::INTERNET, addr, machine)
    }

    /// Puts a machine behind a box (or on the Internet).
    pub fn add_in(&mut self, realm: Realm, addr: SocketAddrV4, machine: M) -> usize {
        let i = self.machines.len();
        self.topology.settle(realm, addr, Home { machine: i, socket: MAIN, main: addr });
        self.machines.push(machine);
        let sockets = BTreeMap::from([(MAIN, addr)]);
        self.hosts.push(Host { realm, sockets, state: State::Up, timer: None, datagrams: 0 });
        self.settle_one(i);
        i
    }

    /// Puts a box on the Internet, or behind another box. Answers the realm behind it.
    pub fn add_nat(&mut self, outside: Realm, external: Ipv4Addr, cfg: NatConfig) -> Realm {
        self.topology.add_nat(outside, Nat::new(external, cfg))
    }

    /// The box in front of a realm.
    pub fn nat(&mut self, realm: Realm) -> &mut Nat {
        self.topology.nat(realm).expect("there is a box in front of all but the Internet").1
    }

    /// Machine `i` finds itself in another network, with other addresses. The ports of its sockets stay, but for the main
    /// one's, which is told. What is under way to its old addresses is lost.
    pub fn move_to(&mut self, i: usize, realm: Realm, addr: SocketAddrV4) {
        self.topology.leave(i);
        let host = &mut self.hosts[i];
        host.realm = realm;
        for (&socket, at) in &mut host.sockets {
            *at = if socket == MAIN { addr } else { SocketAddrV4::new(*addr.ip(), at.port()) };
            self.topology.settle(realm, *at, Home { machine: i, socket, main: addr });
        }
    }

    /// Where machine `i` is.
    pub fn realm(&self, i: usize) -> Realm {
        self.hosts[i].realm
    }

    /// What the box in front of a realm is in.
    pub fn outside(&mut self, realm: Realm) -> Realm {
        self.topology.nat(realm).map_or(Realm::INTERNET, |(outside, _)| outside)
    }

    /// The number of the machine at an address; on the Internet if anybody is there, else behind the oldest box.
    pub fn at(&self, addr: SocketAddrV4) -> usize {
        let found = self.topology.at(addr);
        found.unwrap_or_else(|| panic!("nobody is at {addr}")).1.machine
    }

    /// The address of its main socket, as machine `i` knows it itself.
    pub fn addr(&self, i: usize) -> SocketAddrV4 {
        self.hosts[i].sockets[&MAIN]
    }

    /// What links behind boxes are like that are yet to come.
    pub fn lan(&mut self) -> &mut LinkConfig {
        &mut self.topology.lan
    }

    /// Datagrams that died of their TTL.
    pub fn expired(&self) -> u64 {
        self.topology.expired
    }

    /// Datagrams from and to machine `i` so far.
    pub fn datagrams_of(&self, i: usize) -> u64 {
        self.hosts[i].datagrams
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Does something to machine `i`, and takes what it sends.
    pub fn on<T>(&mut self, i: usize, f: impl FnOnce(&mut M, Instant) -> T) -> T {
        let out = f(&mut self.machines[i], self.now);
        self.settle_one(i);
        out
    }

    /// Another machine starts where `i` was, which says nothing more.
    pub fn replace(&mut self, i: usize, machine: M) {
        self.machines[i] = machine;
        self.up(i);
    }

    /// Machine `i` is cut off without a word, and nothing of it runs. What is sent to it is lost.
    pub fn down(&mut self, i: usize) {
        self.hosts[i].state = State::Down;
        self.set_timer(i, None);
    }

    /// It is back, and knows nothing of the time between.
    pub fn up(&mut self, i: usize) {
        self.hosts[i].state = State::Up;
        self.settle_one(i);
    }

    /// The process of machine `i` stands still for `time`. What comes meanwhile waits in its socket.
    pub fn freeze(&mut self, i: usize, time: Duration) {
        self.settle_one(i);
        let until = self.now + time;
        self.hosts[i].state = State::Frozen { queue: Vec::new() };
        self.set_timer(i, Some(until));
    }

    /// The link from machine `from` to machine `to`, which all share that are behind the same boxes.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let place = |i: usize| (self.hosts[i].realm, self.addr(i));
        let (from, to) = (place(from), place(to));
        self.topology.link_between(from, to, &mut self.rng)
    }

    /// Changes all links, those to come included.
    pub fn every_link(&mut self, change: impl Fn(&mut LinkConfig)) {
        self.topology.every_link(change);
    }

    /// Datagrams under way from machine `from` to machine `to`; those only that boxes would let in if they came now.
    pub fn under_way(&self, from: usize, to: usize) -> usize {
        let is_one = |flight: &&Flight| {
            flight.sender == Some(from) && self.topology.goal(flight, self.now) == Some(to)
        };
        self.air.iter().filter(is_one).count()
    }

    /// Puts a datagram on its way as if the machine at its address had sent it.
    pub fn send(&mut self, datagram: Datagram) {
        self.launch(self.topology.at(datagram.from), datagram);
    }

    fn launch(&mut self, from: Option<(Realm, Home)>, mut datagram: Datagram) {
        if datagram.to.ip().is_multicast() {
            return self.spread(from, &datagram);
        }
        self.datagrams += 1;
        if let Some((_, home)) = from {
            self.hosts[home.machine].datagrams += 1;
        }
        if self.tap.as_mut().is_some_and(|tap| !tap(&mut datagram)) {
            return;
        }
        let sent = self.topology.send(datagram, from, self.now, &mut self.rng);
        if let Some((flight, arrivals)) = sent {
            arrivals.into_iter().flatten().for_each(|at| self.air.put(at, flight.clone()));
        }
    }

    /// What is sent to a group comes to the main sockets of all others in the realm. On the Internet nobody passes it on.
    fn spread(&mut self, from: Option<(Realm, Home)>, datagram: &Datagram) {
        let Some((realm, home)) = from.filter(|(realm, _)| *realm != Realm::INTERNET) else {
            return;
        };
        for i in 0..self.hosts.len() {
            if i != home.machine && self.hosts[i].realm == realm {
                let to = self.addr(i);
                self.launch(from, Datagram { to, to_group: true, ..datagram.clone() });
            }
        }
    }

    /// Takes what the machines send, after a test has done something to them by hand.
    pub fn settle(&mut self) {
        (0..self.machines.len()).for_each(|i| self.settle_one(i));
    }

    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, at most for `time`. Answers how long it took, if it came to be.
    pub fn run_until(
        &mut self,
        time: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let (start, end) = (self.now, self.now + time);
        self.settle();
        loop {
            if done(self) {
                return Some(self.now - start);
            }
            if !self.step_until(Some(end)) {
                self.now = end;
                return None;
            }
        }
    }

    /// Jumps to the next thing that happens; false if nothing ever will.
    pub fn step(&mut self) -> bool {
        self.settle();
        self.step_until(None)
    }

    fn step_until(&mut self, end: Option<Instant>) -> bool {
        let timer = self.timers.first().map(|(at, _)| *at);
        let next = self.air.next().into_iter().chain(timer).min();
        let Some(at) = next.filter(|at| end.is_none_or(|end| *at <= end)) else { return false };
        self.steps_at_once = if at > self.now { 0 } else { self.steps_at_once + 1 };
        assert!(self.steps_at_once < MAX_STEPS_AT_ONCE, "time stands still");
        self.now = self.now.max(at);
        let now = self.now;
        let mut due = BTreeSet::new();
        let mut inboxes: BTreeMap<usize, Vec<Datagram>> = BTreeMap::new();
        while let Some(&(_, i)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.set_timer(i, None);
            due.insert(i);
            if let State::Frozen { queue } = &mut self.hosts[i].state {
                inboxes.insert(i, std::mem::take(queue));
                self.hosts[i].state = State::Up;
            }
        }
        while let Some(flight) = self.air.pop(now) {
            let Some((i, datagram)) = self.topology.deliver(flight, now) else { continue };
            let host = &mut self.hosts[i];
            match &mut host.state {
                State::Down => continue,
                State::Frozen { queue } if queue.len() < SOCKET_QUEUE => queue.push(datagram),
                State::Frozen { .. } => continue,
                State::Up => inboxes.entry(i).or_default().push(datagram),
            }
            host.datagrams += 1;
        }
        for (i, datagrams) in inboxes {
            due.insert(i);
            if !datagrams.is_empty() {
                self.machines[i].receive(&datagrams, now);
            }
        }
        for &i in &due {
            let machine = &mut self.machines[i];
            if machine.poll_timeout().is_some_and(|at| at <= now) {
                machine.handle_timeout(now);
            }
        }
        due.into_iter().for_each(|i| self.settle_one(i));
        true
    }

    fn settle_one(&mut self, i: usize) {
        match self.hosts[i].state {
            State::Up => {}
            State::Frozen { .. } | State::Down => return,
        }
        let mut out = Vec::new();
        self.machines[i].transmit(self.now, &mut out);
        let (realm, main) = (self.hosts[i].realm, self.addr(i));
        for Outgoing { socket, to, bytes, ttl } in out {
            let home = Home { machine: i, socket, main };
            let from = self.address_of(realm, home);
            let datagram = Datagram { socket, ttl, ..Datagram::new(from, to, bytes) };
            self.launch(Some((realm, home)), datagram);
        }
        let timer = self.machines[i].poll_timeout();
        self.set_timer(i, timer);
    }

    /// The address of a socket, which gets one when it is first used.
    fn address_of(&mut self, realm: Realm, home: Home) -> SocketAddrV4 {
        let sockets = &mut self.hosts[home.machine].sockets;
        *sockets.entry(home.socket).or_insert_with(|| {
            let addr = self.topology.free_address(realm, *home.main.ip(), &mut self.rng);
            self.topology.settle(realm, addr, home);
            addr
        })
    }

    fn set_timer(&mut self, i: usize, at: Option<Instant>) {
        let before = std::mem::replace(&mut self.hosts[i].timer, at);
        if before != at {
            self.timers.extend(at.map(|at| (at, i)));
            if let Some(before) = before {
                self.timers.remove(&(before, i));
            }
        }
    }
}
