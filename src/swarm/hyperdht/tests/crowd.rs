//! The DHT at size: many nodes that come and go, sharers who announce, readers who enter and look. How many find what
//! they look for, over how many hops, and with how many requests.
//!
//! A network of its own, leaner than [`crate::sim`]: no links and boxes, a latency drawn for each datagram.

use super::sim::pair;
use crate::crypto::hash;
use crate::key::{PublicKey, Topic};
use crate::sim::epoch;
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use crate::swarm::socket::SocketId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// One way, in milliseconds.
const LATENCY: std::ops::Range<u64> = 10..100;
const LOSS: f64 = 0.01;
/// Nodes that newcomers are told of, and that stay.
const ENTRIES: usize = 3;
const SHARERS: usize = 20;
/// As the swarm does.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(660);

enum What {
    Datagram { socket: SocketId, to: SocketAddrV4, from: SocketAddrV4, bytes: Vec<u8> },
    Wake(usize),
}

struct Event(Instant, u64, What);

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Member {
    dht: HyperDht,
    addr: SocketAddrV4,
    wake: Option<Instant>,
    events: Vec<DhtEvent>,
    /// Of a reader: how many hops each node is away that it knows of, and the requests it sent.
    watched: Option<(HashMap<SocketAddrV4, u32>, u32)>,
}

struct Crowd {
    now: Instant,
    rng: StdRng,
    members: BTreeMap<usize, Member>,
    homes: HashMap<SocketAddrV4, usize>,
    agenda: BinaryHeap<Reverse<Event>>,
    next: u64,
    next_member: usize,
    datagrams: u64,
}

/// What a look-up came to.
struct Looked {
    hops: Option<u32>,
    requests: u32,
    time: Duration,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        Self {
            now: epoch(),
            rng: StdRng::seed_from_u64(seed),
            members: BTreeMap::new(),
            homes: HashMap::new(),
            agenda: BinaryHeap::new(),
            next: 0,
            next_member: 0,
            datagrams: 0,
        }
    }

    /// The address of a member: no two share the first 24 bits.
    fn addr(i: usize) -> SocketAddrV4 {
        SocketAddrV4::new((0x0b00_0001 + ((i as u32) << 8)).into(), 49737)
    }

    fn enter(&mut self, persistent: bool) -> usize {
        let i = self.next_member;
        self.next_member += 1;
        let addr = Self::addr(i);
        let bootstrap = (0..ENTRIES.min(i)).map(Self::addr).collect();
        let mut config = DhtConfig::new(pair(i as u16), bootstrap);
        (config.persistent, config.local_addresses) = (persistent, vec![addr]);
        config.address = persistent.then_some(addr);
        let dht = HyperDht::new(config, StdRng::seed_from_u64(self.rng.random()), self.now);
        self.members.insert(i, Member { dht, addr, wake: None, events: vec![], watched: None });
        self.homes.insert(addr, i);
        self.settle(i);
        i
    }

    fn leave(&mut self, i: usize) {
        if let Some(member) = self.members.remove(&i) {
            self.homes.remove(&member.addr);
        }
    }

    fn put(&mut self, at: Instant, what: What) {
        self.next += 1;
        self.agenda.push(Reverse(Event(at, self.next, what)));
    }

    /// Takes what a member sends and tells, and sees when it wants to be woken.
    fn settle(&mut self, i: usize) {
        let Some(member) = self.members.get_mut(&i) else { return };
        let mut sent = Vec::new();
        while let Some(transmit) = member.dht.poll_transmit() {
            if let Some((hops, requests)) = &mut member.watched
                && transmit.socket == SocketId::MAIN
                && matches!(Message::decode(&transmit.bytes), Ok(Message::Request(_)))
            {
                *requests += 1;
                hops.entry(transmit.to).or_insert(1);
            }
            sent.push(transmit);
        }
        member.events.extend(std::iter::from_fn(|| member.dht.poll_event()));
        let (from, at) = (member.addr, member.dht.poll_timeout());
        let sooner = at.filter(|at| member.wake.is_none_or(|wake| *at < wake));
        member.wake = sooner.or(member.wake);
        sooner.into_iter().for_each(|at| self.put(at, What::Wake(i)));
        for transmit in sent {
            self.datagrams += 1;
            if self.rng.random_bool(LOSS) {
                continue;
            }
            let port = if transmit.socket == SocketId::MAIN { 49737 } else { 40000 };
            let from = SocketAddrV4::new(*from.ip(), port);
            let at = self.now + Duration::from_millis(self.rng.random_range(LATENCY));
            let (to, bytes) = (transmit.to, transmit.bytes);
            let socket = if to.port() == 49737 { SocketId::MAIN } else { SocketId::PROBE };
            self.put(at, What::Datagram { socket, to, from, bytes });
        }
    }

    /// Runs until `done`, for `time` at most. Answers whether it came to be.
    fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + time;
        while let Some(Reverse(Event(at, ..))) = self.agenda.peek()
            && *at <= end
        {
            let Some(Reverse(Event(at, _, what))) = self.agenda.pop() else { break };
            self.now = at;
            let i = match what {
                What::Wake(i) => {
                    let Some(member) = self.members.get_mut(&i) else { continue };
                    if member.wake != Some(at) {
                        continue;
                    }
                    member.wake = None;
                    if member.dht.poll_timeout().is_some_and(|due| due <= at) {
                        member.dht.handle_timeout(at);
                    }
                    i
                }
                What::Datagram { socket, to, from, bytes } => {
                    let home = self.homes.get(&SocketAddrV4::new(*to.ip(), 49737));
                    let Some(&i) = home else { continue };
                    let Some(member) = self.members.get_mut(&i) else { continue };
                    if let Some((hops, _)) = &mut member.watched
                        && let Ok(Message::Response(response)) = Message::decode(&bytes)
                    {
                        let next = hops.get(&from).copied().unwrap_or(0) + 1;
                        for node in response.closer {
                            hops.entry(node).or_insert(next);
                        }
                        // Whose answer it is that is being handled.
                        hops.insert(member.addr, next - 1);
                    }
                    member.dht.handle_datagram(socket, from, &bytes, at);
                    i
                }
            };
            self.settle(i);
            if done(self) {
                return true;
            }
        }
        self.now = end;
        false
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    fn on<T>(&mut self, i: usize, f: impl FnOnce(&mut HyperDht, Instant) -> T) -> T {
        let now = self.now;
        let answer = f(&mut self.members.get_mut(&i).expect("it is there").dht, now);
        self.settle(i);
        answer
    }

    /// A reader enters, looks for a topic, and leaves.
    fn look_up(&mut self, topic: Topic, key: PublicKey) -> Looked {
        let i = self.enter(false);
        let entered = |crowd: &mut Self| {
            let events = &crowd.members[&i].events;
            events.iter().any(|event| matches!(event, DhtEvent::Bootstrapped { .. }))
        };
        self.run_until(MINUTE, entered);
        let member = self.members.get_mut(&i).expect("it is there");
        member.watched = Some(Default::default());
        let start = self.now;
        let query = self.on(i, |dht, now| dht.lookup(topic, now));
        let mut hops = None;
        self.run_until(MINUTE, |crowd| {
            let member = &crowd.members[&i];
            let is = |event: &DhtEvent| matches!(event, DhtEvent::Peer { public_key, .. } if *public_key == key);
            if hops.is_none() && member.events.iter().any(is) {
                hops = member.watched.as_ref().and_then(|(hops, _)| hops.get(&member.addr)).copied();
            }
            let over = |event: &DhtEvent| matches!(event, DhtEvent::QueryDone { query: q, .. } if *q == query);
            member.events.iter().any(over)
        });
        let (time, requests) =
            (self.now - start, self.members[&i].watched.as_ref().map_or(0, |w| w.1));
        self.leave(i);
        Looked { hops, requests, time }
    }
}

fn median<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// A DHT of so many nodes, of which a fifth goes in an hour, and others come: after `settled` of that, how look-ups fare.
/// Answers those that succeeded, in per mille.
fn at_size(nodes: usize, settled: Duration, looks: usize) -> u32 {
    let mut crowd = Crowd::new(nodes as u64);
    for _ in 0..nodes {
        crowd.enter(true);
        crowd.run(Duration::from_millis(20).max(SECOND * 20 / nodes as u32));
    }
    let topics: Vec<Topic> =
        (0..SHARERS).map(|n| Topic(hash::hash(&[b"crowd", &n.to_le_bytes()]))).collect();
    let sharers: Vec<(usize, PublicKey)> = (0..SHARERS)
        .map(|_| {
            let i = crowd.enter(false);
            (i, crowd.members[&i].dht.public_key())
        })
        .collect();
    for &(i, _) in &sharers {
        let key_pair = Arc::new(pair(i as u16));
        crowd.on(i, |dht, now| dht.listen(key_pair, now));
    }
    crowd.run(30 * SECOND);
    // One node goes and one comes in each of these.
    let step = Duration::from_secs(5 * 3600) / nodes as u32;
    let start = crowd.now;
    let mut churn_at = start;
    let mut announce_at: Vec<Instant> = (0..SHARERS as u32).map(|n| start + SECOND * n).collect();
    let (mut look_at, look_every) = (start + settled, MINUTE * 10 / looks as u32);
    let (mut looked, mut datagrams) = (Vec::new(), 0);
    while looked.len() < looks {
        if crowd.now >= churn_at {
            churn_at += step;
            let mortal = |i: &usize| *i >= ENTRIES && sharers.iter().all(|(s, _)| s != i);
            let mortal: Vec<usize> = crowd.members.keys().copied().filter(mortal).collect();
            let gone = crowd.rng.random_range(0..mortal.len());
            crowd.leave(mortal[gone]);
            crowd.enter(true);
        }
        let now = crowd.now;
        for (n, at) in announce_at.iter_mut().enumerate().filter(|(_, at)| **at <= now) {
            *at += ANNOUNCE_EVERY;
            crowd.on(sharers[n].0, |dht, now| dht.announce(topics[n], now));
        }
        if crowd.now >= look_at {
            look_at += look_every;
            datagrams = if looked.is_empty() { crowd.datagrams } else { datagrams };
            let n = looked.len() % SHARERS;
            looked.push(crowd.look_up(topics[n], sharers[n].1));
        }
        crowd.run(step.min(SECOND).min(look_every));
    }
    let found = looked.iter().filter(|l| l.hops.is_some()).count();
    let mut hops: Vec<u32> = looked.iter().filter_map(|l| l.hops).collect();
    let mut requests: Vec<u32> = looked.iter().map(|l| l.requests).collect();
    let mut times: Vec<Duration> = looked.iter().map(|l| l.time).collect();
    let span = (crowd.now - (start + settled)).as_secs_f64();
    println!(
        "| {nodes} | {found}/{} | {} ({}) | {} ({}) | {:.2} s | {:.2} |",
        looked.len(),
        median(&mut hops).unwrap_or(0),
        hops.last().unwrap_or(&0),
        median(&mut requests).unwrap_or(0),
        requests.last().unwrap_or(&0),
        median(&mut times).unwrap_or_default().as_secs_f64(),
        (crowd.datagrams - datagrams) as f64 / span / nodes as f64,
    );
    (found * 1000 / looked.len()) as u32
}

const HEAD: &str = "| nodes | found | hops to it, median (most) | requests a look-up | until it ends | datagrams a node and second |\n|---|---|---|---|---|---|";

#[test]
fn in_a_small_crowd_that_comes_and_goes_everything_is_found() {
    println!("{HEAD}");
    assert!(at_size(200, 2 * MINUTE, 30) >= 990);
}

#[test]
#[ignore = "long: make test-long"]
fn in_a_crowd_of_any_size_that_comes_and_goes_what_is_shared_is_found() {
    println!("{HEAD}");
    for (nodes, settled) in [(100, 60 * MINUTE), (1_000, 60 * MINUTE), (10_000, 20 * MINUTE)] {
        assert!(at_size(nodes, settled, 200) >= 990, "{nodes}");
    }
}
