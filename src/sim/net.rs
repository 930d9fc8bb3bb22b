//! Machines at addresses, and the datagrams between them.
//!
//! Between any two addresses there is a link in each direction, made at the first datagram by the pattern of the network
//! ([`Net::every_link`]); a test may change one of them ([`Net::link`]). Time only passes in [`Net::run`] and its kin.

use super::{Agenda, Link, LinkConfig, epoch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// What a socket keeps for a process that does not read; 212,992 bytes by Linux' default, counted as whole
/// pages for small datagrams.
const SOCKET_QUEUE: usize = 250;

/// More steps than this at one moment: a machine wants to be woken at once for ever.
const MAX_STEPS_AT_ONCE: u32 = 100_000;

/// A machine without socket, clock and thread, which owns one address.
pub trait Machine {
    /// Datagrams that came for it since it last read its socket, in their order. There is at least one.
    fn receive(&mut self, datagrams: &[Datagram], now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// Tells whatever it sends, and to whom. It comes after everything that happens to the machine, so this is also
    /// the moment to put its events aside.
    fn transmit(&mut self, now: Instant, out: &mut Vec<(SocketAddrV4, Vec<u8>)>);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub bytes: Vec<u8>,
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
    addr: SocketAddrV4,
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
    homes: BTreeMap<SocketAddrV4, usize>,
    pattern: LinkConfig,
    links: BTreeMap<(SocketAddrV4, SocketAddrV4), Link>,
    air: Agenda<Datagram>,
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
            homes: BTreeMap::new(),
            pattern,
            links: BTreeMap::new(),
            air: Agenda::default(),
            timers: BTreeSet::new(),
            steps_at_once: 0,
        }
    }

    /// Puts a machine at an address that nobody has. Answers its number.
    pub fn add(&mut self, addr: SocketAddrV4, machine: M) -> usize {
        let i = self.machines.len();
        assert!(self.homes.insert(addr, i).is_none(), "{addr} is taken");
        self.machines.push(machine);
        self.hosts.push(Host { addr, state: State::Up, timer: None, datagrams: 0 });
        self.settle_one(i);
        i
    }

    /// The number of the machine at an address.
    pub fn at(&self, addr: SocketAddrV4) -> usize {
        *self.homes.get(&addr).unwrap_or_else(|| panic!("nobody is at {addr}"))
    }

    pub fn addr(&self, i: usize) -> SocketAddrV4 {
        self.hosts[i].addr
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

    /// The link from machine `from` to machine `to`.
    pub fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.link_between(self.hosts[from].addr, self.hosts[to].addr)
    }

    /// Changes all links, those to come included.
    pub fn every_link(&mut self, change: impl Fn(&mut LinkConfig)) {
        change(&mut self.pattern);
        self.links.values_mut().for_each(|link| change(&mut link.cfg));
    }

    /// Datagrams under way from machine `from` to machine `to`.
    pub fn under_way(&self, from: usize, to: usize) -> usize {
        let (from, to) = (self.hosts[from].addr, self.hosts[to].addr);
        self.air.iter().filter(|datagram| (datagram.from, datagram.to) == (from, to)).count()
    }

    /// Puts a datagram on its way as if a machine had sent it.
    pub fn send(&mut self, mut datagram: Datagram) {
        self.datagrams += 1;
        if let Some(&i) = self.homes.get(&datagram.from) {
            self.hosts[i].datagrams += 1;
        }
        if self.tap.as_mut().is_some_and(|tap| !tap(&mut datagram)) {
            return;
        }
        if !self.homes.contains_key(&datagram.to) {
            return;
        }
        let (now, size) = (self.now, datagram.bytes.len());
        for at in
            self.link_between(datagram.from, datagram.to).send(now, size).into_iter().flatten()
        {
            self.air.put(at, datagram.clone());
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
        while let Some(datagram) = self.air.pop(now) {
            let Some(&i) = self.homes.get(&datagram.to) else { continue };
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
        let from = self.hosts[i].addr;
        out.into_iter().for_each(|(to, bytes)| self.send(Datagram { from, to, bytes }));
        let timer = self.machines[i].poll_timeout();
        self.set_timer(i, timer);
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

    fn link_between(&mut self, from: SocketAddrV4, to: SocketAddrV4) -> &mut Link {
        let (pattern, rng) = (&self.pattern, &mut self.rng);
        let link = || Link::new(pattern.clone(), rng.random());
        self.links.entry((from, to)).or_insert_with(link)
    }
}
