//! What waiting costs: datagrams a minute of a peer that shares or reads many drives whose peers are not there,
//! and what many topics at once come to. In virtual time, over a DHT of forty full nodes.

use crate::crypto::{KeyPair, hash};
use crate::key::{PublicKey, Topic};
use crate::sim::epoch;
use crate::swarm::{JoinOptions, Limits, SocketId, Swarm, SwarmConfig, SwarmEvent};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

const NODES: usize = 40;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// As `share` and `seed` join, and as `mount` does.
const SHARES: JoinOptions = JoinOptions { server: true, client: true };
const READS: JoinOptions = JoinOptions { server: false, client: true };

/// Before what is idle was looked at, a minute of sharing 1, 100 and 1,000 drives cost this.
const BEFORE: [(usize, u64); 3] = [(1, 184), (100, 3576), (1000, 34_646)];

fn addr(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, i as u8 + 1), 4000)
}

pub(super) fn topic(n: usize) -> Topic {
    Topic(hash::hash(&[b"topic", &n.to_le_bytes()]))
}

/// The DHT and the peers at it; only who has something to do is looked at.
struct Town {
    now: Instant,
    swarms: Vec<Swarm>,
    events: Vec<Vec<SwarmEvent>>,
    timers: BTreeSet<(Instant, usize)>,
    timer_of: Vec<Option<Instant>>,
    flying: BTreeMap<(Instant, u64), (usize, SocketAddrV4, Vec<u8>)>,
    sent: u64,
    /// Datagrams from and to each peer.
    counted: Vec<u64>,
    /// Datagrams that hold this are lost.
    lose: Option<fn(&[u8]) -> bool>,
    rng: StdRng,
}

impl Town {
    fn new(seed: u64) -> Self {
        let mut town = Self {
            now: epoch(),
            swarms: vec![],
            events: vec![],
            timers: BTreeSet::new(),
            timer_of: vec![],
            flying: BTreeMap::new(),
            sent: 0,
            counted: vec![],
            lose: None,
            rng: StdRng::seed_from_u64(seed),
        };
        for _ in 0..NODES {
            town.add(true);
            town.run(SECOND / 2);
        }
        town.run(10 * SECOND);
        town
    }

    fn add(&mut self, persistent: bool) -> usize {
        let i = self.swarms.len();
        let config = SwarmConfig {
            key_pair: KeyPair::from_seed(&hash::hash(&[&i.to_le_bytes()])),
            bootstrap: if i == 0 { vec![] } else { vec![addr(0)] },
            persistent,
            address: persistent.then(|| addr(i)),
            local_addresses: vec![addr(i)],
            unix_ms: 0,
            limits: Limits::default(),
        };
        let rng = StdRng::seed_from_u64(self.rng.random());
        self.swarms.push(Swarm::new(config, rng, self.now));
        self.events.push(vec![]);
        self.timer_of.push(None);
        self.counted.push(0);
        self.settle(i);
        i
    }

    fn join(&mut self, i: usize, topics: std::ops::Range<usize>, options: JoinOptions) {
        for n in topics {
            self.swarms[i].join(topic(n), options, self.now);
        }
        self.settle(i);
    }

    fn settle(&mut self, i: usize) {
        let mut buf = Vec::new();
        while let Some(transmit) = self.swarms[i].poll_transmit(self.now, &mut buf, 10) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            for bytes in buf.chunks(size.max(1)) {
                self.counted[i] += 1;
                let to = usize::from(transmit.to.ip().octets()[3]).wrapping_sub(1);
                let lost = self.lose.is_some_and(|lost| lost(bytes));
                if lost || to >= self.swarms.len() {
                    continue;
                }
                self.sent += 1;
                let at = self.now + Duration::from_millis(self.rng.random_range(10..40));
                self.flying.insert((at, self.sent), (to, addr(i), bytes.to_vec()));
            }
        }
        while let Some(event) = self.swarms[i].poll_event() {
            self.events[i].push(event);
        }
        if let Some(at) = self.timer_of[i].take() {
            self.timers.remove(&(at, i));
        }
        self.timer_of[i] = self.swarms[i].poll_timeout();
        self.timers.extend(self.timer_of[i].map(|at| (at, i)));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self.timers.first().map(|(at, _)| *at);
            let packet = self.flying.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = timer.into_iter().chain(packet).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            let i = if packet == Some(at) {
                let Some((_, (to, from, bytes))) = self.flying.pop_first() else { break };
                self.counted[to] += 1;
                let swarm = &mut self.swarms[to];
                swarm.handle_datagrams(SocketId::MAIN, from, &bytes, bytes.len(), self.now);
                swarm.end_of_batch(self.now);
                to
            } else {
                let Some((_, i)) = self.timers.pop_first() else { break };
                self.timer_of[i] = None;
                self.swarms[i].handle_timeout(self.now);
                i
            };
            self.settle(i);
        }
        self.now = end;
    }

    /// Datagrams from and to `i` in a minute, over twenty.
    fn per_minute(&mut self, i: usize) -> u64 {
        let before = self.counted[i];
        self.run(20 * MINUTE);
        (self.counted[i] - before) / 20
    }

    fn announced(&self, i: usize) -> usize {
        self.swarms[i].status().topics.iter().filter(|topic| topic.announced).count()
    }

    fn connected(&self, i: usize) -> usize {
        let mut open = 0;
        for event in &self.events[i] {
            match event {
                SwarmEvent::Connected { .. } => open += 1,
                SwarmEvent::Closed { .. } => open -= 1,
                _ => {}
            }
        }
        open
    }
}

/// A minute of a peer with `drives` drives that nobody else has.
fn cost(drives: usize, options: JoinOptions) -> u64 {
    let mut town = Town::new(1);
    let peer = town.add(false);
    town.join(peer, 0..drives, options);
    town.run(10 * MINUTE);
    town.per_minute(peer)
}

#[test]
fn waiting_costs_a_third_of_what_it_did() {
    for (drives, before) in &BEFORE[..2] {
        for options in [SHARES, READS] {
            let now = cost(*drives, options);
            println!("{drives} drives, {options:?}: {now} datagrams a minute, {before} before");
            assert!(now <= before / 3, "{drives} drives, {options:?}: {now} a minute");
        }
    }
}

#[test]
#[ignore = "a measurement, for benches/table"]
fn idle_counts() {
    for (drives, _) in BEFORE {
        println!("idle {drives} {} {}", cost(drives, SHARES), cost(drives, READS));
    }
}

#[test]
fn a_thousand_topics_are_announced_and_every_one_can_be_found() {
    let mut town = Town::new(2);
    let (sharer, reader) = (town.add(false), town.add(false));
    town.run(SECOND);
    town.join(sharer, 0..1000, SHARES);
    town.run(90 * SECOND);
    assert_eq!(town.announced(sharer), 1000);
    // More than a peer was once remembered under.
    town.join(reader, 0..200, READS);
    town.run(60 * SECOND);
    let topics = town.swarms[reader].status().topics;
    assert_eq!(topics.iter().filter(|topic| topic.found > 0).count(), 200);
    // One peer under all of them: nothing is left to be looked for.
    assert_eq!(town.connected(reader), 1);
    let before = town.swarms[reader].status().topics.iter().map(|t| t.rounds).sum::<u64>();
    town.run(8 * MINUTE);
    let rounds = town.swarms[reader].status().topics.iter().map(|t| t.rounds).sum::<u64>();
    assert_eq!(rounds, before, "it rests until the next full round");
}

#[test]
fn what_somebody_waits_for_does_not_queue_behind_a_thousand_announcements() {
    let mut town = Town::new(3);
    let (sharer, other) = (town.add(false), town.add(false));
    town.join(other, 5000..5001, SHARES);
    town.run(10 * SECOND);
    town.join(sharer, 0..1000, SHARES);
    town.run(SECOND);
    town.join(sharer, 5000..5001, READS);
    let start = town.now;
    while town.connected(sharer) == 0 {
        town.run(SECOND / 10);
        assert!(town.now - start < 3 * SECOND, "{:?}", town.now - start);
    }
    assert!(town.announced(sharer) < 500, "while the others still wait");
}

/// Whether a datagram is an ANNOUNCE request: command 4 behind the flags of a token, a target and a value.
fn is_announce(bytes: &[u8]) -> bool {
    use crate::swarm::dht_rpc::message::Message;
    matches!(Message::decode(bytes), Ok(Message::Request(r)) if !r.internal && r.command == 4
        && r.target != Some(crate::key::NodeId([0; 32])) && topic(0).0 == r.target.unwrap().0)
}

#[test]
fn announced_means_stored_and_is_tried_again_soon_otherwise() {
    let mut town = Town::new(4);
    let sharer = town.add(false);
    town.lose = Some(is_announce);
    town.join(sharer, 0..1, SHARES);
    town.run(MINUTE);
    assert_eq!(town.announced(sharer), 0, "every announcement was lost");
    let told = |e: &SwarmEvent| matches!(e, SwarmEvent::Round { announced: true, .. });
    assert!(!town.events[sharer].iter().any(told));
    town.lose = None;
    town.run(MINUTE);
    assert_eq!(town.announced(sharer), 1);
    assert!(town.events[sharer].iter().any(told));
}

#[test]
fn a_drive_that_is_shared_while_somebody_waits_for_it_is_found_within_two_minutes() {
    let mut town = Town::new(5);
    let (sharer, reader) = (town.add(false), town.add(false));
    town.join(reader, 0..1, READS);
    town.run(15 * MINUTE);
    town.join(sharer, 0..1, SHARES);
    let start = town.now;
    while town.connected(reader) == 0 {
        town.run(SECOND);
        assert!(town.now - start < 125 * SECOND, "{:?}", town.now - start);
    }
    assert_eq!(PublicKey(town.swarms[sharer].key_pair.public()), {
        let connected = town.events[reader].iter().find_map(|e| match e {
            SwarmEvent::Connected { remote, .. } => Some(*remote),
            _ => None,
        });
        connected.unwrap()
    });
}
