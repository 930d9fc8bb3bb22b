//! A running download whose path dies: the reader's NAT forgets it, one of the two finds itself in another network, or
//! both do.

use super::super::*;
use super::punching::behind;
use super::relaying::{self, Lab};
use super::sim::Network;
use crate::sim::{Kind, LinkConfig, Realm};
use std::net::SocketAddrV4;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };

/// Answers of 20 KB, eight of which are asked for at a time.
const ANSWER: usize = 20_000;
const AT_ONCE: u32 = 8;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Who shares, who reads, and what the reader has asked for.
struct Reading {
    network: Network,
    sharer: usize,
    reader: usize,
    conn: Option<ConnId>,
    wanted: u32,
    got: u32,
    connections: usize,
}

impl Reading {
    fn begin(a: Kind, b: Kind, seed: u64, loss: f64) -> Self {
        let pattern = LinkConfig {
            loss,
            latency: ms(20),
            jitter: ms(5),
            rate: Some(2_000_000),
            ..LinkConfig::default()
        };
        let mut network = Network::of_nodes(8, seed, pattern, Duration::from_secs(5));
        let sharer = behind(&mut network, a, 1);
        network.join(sharer, TOPIC, SERVER);
        network.run(Duration::from_secs(10));
        let reader = behind(&mut network, b, 2);
        network.join(reader, TOPIC, CLIENT);
        let (conn, wanted, got, connections) = (None, 0, 0, 0);
        let mut reading = Self { network, sharer, reader, conn, wanted, got, connections };
        while reading.got < 20 {
            assert!(reading.network.elapsed() < Duration::from_secs(120), "seed {seed}");
            reading.step();
        }
        reading
    }

    fn take(&mut self, i: usize) -> Vec<SwarmEvent> {
        std::mem::take(&mut self.network.machines[i].events)
    }

    /// A hundredth of a second. What was asked for is numbered, and asked anew where a connection is new.
    fn step(&mut self) {
        for event in self.take(self.sharer) {
            if let SwarmEvent::Frame { conn, data } = event {
                let mut answer = vec![7; ANSWER];
                answer[..4].copy_from_slice(&data[..4]);
                self.network.send_frame(self.sharer, conn, &answer);
                self.network.machines[self.sharer].swarm.consumed(conn, data.len());
            }
        }
        for event in self.take(self.reader) {
            match event {
                SwarmEvent::Connected { conn, .. } => {
                    (self.conn, self.wanted) = (Some(conn), self.got);
                    self.connections += 1;
                }
                SwarmEvent::Closed { conn, .. } if self.conn == Some(conn) => self.conn = None,
                SwarmEvent::Frame { conn, data } if self.conn == Some(conn) => {
                    assert_eq!(data[..4], self.got.to_le_bytes());
                    self.got += 1;
                    self.network.machines[self.reader].swarm.consumed(conn, data.len());
                }
                _ => {}
            }
        }
        while let Some(conn) = self.conn.filter(|_| self.wanted < self.got + AT_ONCE) {
            let mut request = vec![1; 40];
            request[..4].copy_from_slice(&self.wanted.to_le_bytes());
            self.network.send_frame(self.reader, conn, &request);
            self.wanted += 1;
        }
        self.network.run(ms(10));
    }

    /// Reads on for `time`: the longest time in which nothing came.
    fn go_on(&mut self, time: Duration) -> Duration {
        let (mut longest, mut still) = (0, 0);
        for _ in 0..time.as_millis() / 10 {
            let was = self.got;
            self.step();
            still = if self.got == was { still + 1 } else { 0 };
            longest = longest.max(still);
        }
        ms(10 * longest)
    }

    /// The box next to a machine forgets everything.
    fn forget(&mut self, i: usize) {
        let mut realm = self.network.realm(i);
        while realm != Realm::INTERNET {
            self.network.nat(realm).forget();
            realm = self.network.outside(realm);
        }
    }

    /// A machine finds itself in another network, and notices.
    fn move_to(&mut self, i: usize, kind: Kind, n: u8) {
        let (realm, ip) = self.network.place(kind, n);
        let inner = SocketAddrV4::new(ip, 4000);
        self.network.move_to(i, realm, inner);
        self.network.on(i, |peer, now| peer.swarm.network_changed(vec![inner], now));
    }
}

/// The median and the longest of some standstills.
fn tell(what: &str, mut all: Vec<Duration>, most: Duration) {
    all.sort();
    let (median, longest) = (all[all.len() / 2], all[all.len() - 1]);
    println!("{what}: {median:?}, at most {longest:?} of {}", all.len());
    assert!(longest < most, "{what}: {all:?}");
}

fn seeds() -> impl Iterator<Item = (u64, f64)> {
    (0..6).map(|seed| (seed, if seed % 2 == 0 { 0.0 } else { 0.01 }))
}

#[test]
fn the_reader_whose_nat_forgets_it_reads_on() {
    for (a, b) in [(Kind::Port, Kind::Port), (Kind::Open, Kind::Sym), (Kind::Open, Kind::Cgnat)] {
        let still = seeds().map(|(seed, loss)| {
            let mut reading = Reading::begin(a, b, seed, loss);
            reading.forget(reading.reader);
            let still = reading.go_on(Duration::from_secs(6));
            assert!(reading.got > 200, "{}", reading.got);
            still
        });
        tell(&format!("{a:?} {b:?}, forgotten"), still.collect(), ms(2500));
    }
}

/// A way has to be searched for again, among all the ports of a host. A host is sent so many tries in a minute, the first
/// search's with them: one of eight may be unlucky.
#[test]
fn the_reader_behind_random_ports_is_punched_to_anew() {
    for (a, b) in [(Kind::Port, Kind::Sym), (Kind::Sym, Kind::Port)] {
        let still = (0..8).map(|seed| {
            let mut reading = Reading::begin(a, b, seed, 0.0);
            reading.forget(reading.reader);
            reading.go_on(Duration::from_secs(10))
        });
        let mut still: Vec<_> = still.collect();
        still.sort();
        let longest = still.pop();
        assert!(longest.is_some_and(|longest| longest < ms(9000)), "{longest:?}");
        tell(&format!("{a:?} {b:?}, forgotten, but for {longest:?}"), still, ms(3000));
    }
}

/// Its relays know it at a port that its NAT has given up.
#[test]
fn the_sharer_whose_nat_forgets_it_is_read_on() {
    for (a, b) in [(Kind::Sym, Kind::Port), (Kind::Sym, Kind::Open), (Kind::Port, Kind::Port)] {
        let still = (0..6).map(|seed| {
            let mut reading = Reading::begin(a, b, seed, 0.0);
            reading.forget(reading.sharer);
            reading.go_on(Duration::from_secs(8))
        });
        tell(&format!("{a:?} {b:?}, the sharer's forgotten"), still.collect(), ms(4000));
    }
}

/// Nobody is connected who would notice.
#[test]
fn a_sharer_whose_nat_forgets_it_is_found_after_its_next_ping() {
    let pattern = LinkConfig { latency: ms(20), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 3, pattern, Duration::from_secs(5));
    let sharer = behind(&mut network, Kind::Sym, 1);
    network.join(sharer, TOPIC, SERVER);
    network.run(Duration::from_secs(30));
    let realm = network.realm(sharer);
    network.nat(realm).forget();
    network.run(Duration::from_secs(17));
    let reader = behind(&mut network, Kind::Port, 2);
    network.join(reader, TOPIC, CLIENT);
    let took = network.run_until(Duration::from_secs(60), |n| !n.open(reader).is_empty());
    assert!(took.is_some_and(|took| took < Duration::from_secs(5)), "{took:?}");
}

#[test]
fn the_reader_who_comes_to_another_network_reads_on() {
    for (a, b) in [(Kind::Open, Kind::Port), (Kind::Port, Kind::Port)] {
        let still = seeds().map(|(seed, loss)| {
            let mut reading = Reading::begin(a, b, seed, loss);
            reading.move_to(reading.reader, b, 3);
            reading.go_on(Duration::from_secs(6))
        });
        tell(&format!("{a:?} {b:?}, the reader moved"), still.collect(), ms(3000));
    }
}

#[test]
fn the_sharer_who_comes_to_another_network_is_read_on() {
    for (a, b) in [(Kind::Open, Kind::Open), (Kind::Open, Kind::Port), (Kind::Port, Kind::Port)] {
        let still = seeds().map(|(seed, loss)| {
            let mut reading = Reading::begin(a, b, seed, loss);
            reading.move_to(reading.sharer, a, 3);
            reading.go_on(Duration::from_secs(8))
        });
        tell(&format!("{a:?} {b:?}, the sharer moved"), still.collect(), ms(4000));
    }
}

#[test]
fn no_path_that_is_slow_or_loses_much_is_taken_for_dead() {
    for seed in 0..6 {
        let mut reading = Reading::begin(Kind::Port, Kind::Port, seed, 0.0);
        let connections = reading.connections;
        reading.network.every_link(|link| {
            (link.loss, link.jitter) = (0.05, ms(60));
            link.latency = ms(40 * (seed + 1));
            link.rate = Some(100_000);
        });
        reading.go_on(Duration::from_secs(20));
        // Silence and words by turns.
        for _ in 0..20 {
            reading.network.run(ms(700));
            reading.go_on(ms(300));
        }
        assert_eq!(reading.connections, connections, "seed {seed}");
    }
}

/// The way of the two to each other dies `gap` after a message of the reader, which writes another `wait` later, and again
/// wherever a connection is new. How long it takes until one comes.
fn writes_on(
    lab: &mut Lab,
    (a, b): (usize, usize),
    (gap, wait): (u64, u64),
    dies: impl FnOnce(&mut Lab),
) -> Option<Duration> {
    let conn = lab.network.open(b)[0];
    lab.network.send_frame(b, conn, &[1; 40]);
    lab.network.run(ms(gap));
    dies(lab);
    lab.network.run(ms(wait));
    let (before, start, mut last) = (lab.network.frames(a).len(), lab.network.now, None);
    while lab.network.now < start + ms(30_000) {
        let conn = lab.network.open(b).first().copied();
        if let Some(conn) = conn.filter(|conn| last != Some(*conn)) {
            lab.network.send_frame(b, conn, &[2; 40]);
            last = Some(conn);
        }
        lab.network.run(ms(20));
        if lab.network.frames(a).len() > before {
            return Some(lab.network.now - start);
        }
    }
    None
}

/// The peer was asked whether it is there, has answered, and the path died: what was written meanwhile is watched.
#[test]
fn what_is_written_while_a_question_is_in_flight_is_not_written_in_vain() {
    let mut all = Vec::new();
    for gap in (560..800).step_by(40) {
        let mut lab = Lab::new(3, 0.0);
        let a = lab.sharer(Kind::Port, vec![]);
        let b = lab.reader(Kind::Port, vec![lab.key]);
        lab.network.run(ms(60_000));
        let took = writes_on(&mut lab, (a, b), (gap, 60), |lab| {
            for (from, to) in [(a, b), (b, a)] {
                lab.network.link(from, to).cfg.loss = 1.0;
            }
        });
        all.push(took.unwrap());
    }
    tell("the direct way dies", all, ms(3000));
    let mut all = Vec::new();
    for gap in (500..860).step_by(40) {
        let mut lab = Lab::new(31, 0.0);
        let second = relaying::behind(&mut lab.network, Kind::Open, 101, vec![]);
        let second = relaying::relays(&mut lab.network, second, RelayLimits::default());
        let a = lab.sharer(Kind::Sym, vec![]);
        let b = lab.reader(Kind::Sym, vec![lab.key, second]);
        lab.network.run(ms(20_000));
        let took = writes_on(&mut lab, (a, b), (gap, 0), |lab| {
            let status = lab.network.machines[b].swarm.status();
            let first = status.connections[0].relay == Some(lab.key);
            let relay = if first { lab.relay } else { lab.network.machines.len() - 3 };
            lab.network.down(relay);
        });
        all.push(took.unwrap());
    }
    tell("the relay dies", all, ms(3000));
}

/// A DHT, one who shares, and one who reads of it.
fn pair(readers_of: usize) -> (Network, Vec<usize>, usize) {
    let pattern = LinkConfig { latency: ms(20), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 5, pattern, ms(1000));
    let sharers: Vec<usize> = (0..readers_of).map(|_| network.begin(false)).collect();
    for sharer in &sharers {
        network.join(*sharer, TOPIC, SERVER);
        network.run(ms(200));
    }
    network.run(ms(5000));
    let reader = network.begin(false);
    network.run(ms(2000));
    network.join(reader, TOPIC, CLIENT);
    network.run(ms(20_000));
    assert_eq!(network.open(reader).len(), readers_of);
    (network, sharers, reader)
}

/// A peer is silent again and again, and its record names a victim as its relay.
#[test]
fn a_peer_that_is_heard_now_and_then_is_not_dialled_anew_each_time() {
    use std::{cell::Cell, rc::Rc};
    for (down, up) in [(3000, 300), (1800, 100)] {
        let (mut network, sharers, reader) = pair(1);
        let (sharer, key) = (sharers[0], network.key(sharers[0]));
        let victim = |n: u16| SocketAddrV4::new([90, 0, 0, 1].into(), 50 + n);
        network.on(reader, |peer, now| {
            let swarm = &mut peer.swarm;
            swarm.peers.found(key, (0..3).map(victim).collect(), TOPIC, false, now, &mut swarm.rng);
        });
        let (sent, silent) = (Rc::new(Cell::new(0usize)), Rc::new(Cell::new(false)));
        let (count, off) = (sent.clone(), silent.clone());
        let (r, s) = (network.addr(reader), network.addr(sharer));
        network.tap = Some(Box::new(move |d| {
            count.set(count.get() + usize::from(*d.to.ip() == *victim(0).ip()));
            let between = d.from == r && d.to == s || d.from == s && d.to == r;
            !(between && off.get())
        }));
        for _ in 0..200_000 / (down + up) {
            silent.set(false);
            for conn in network.open(sharer) {
                network.send_frame(sharer, conn, b"x");
            }
            network.run(ms(up));
            silent.set(true);
            network.run(ms(down));
        }
        println!("{down}, {up}: {} datagrams to the victim", sent.get());
        assert!(sent.get() < 80, "{down}, {up}: {} datagrams", sent.get());
    }
}

#[test]
fn where_all_paths_die_a_few_peers_are_dialled_beside() {
    let (mut network, _, reader) = pair(30);
    let me = network.addr(reader);
    network.tap = Some(Box::new(move |d| d.from != me && d.to != me));
    let mut most = 0;
    for _ in 0..50 {
        for conn in network.open(reader) {
            network.send_frame(reader, conn, b"x");
        }
        network.run(ms(100));
        let connections = network.machines[reader].swarm.connections.iter();
        most = most.max(connections.filter(|c| !c.is_open()).count());
    }
    assert!((1..=8).contains(&most), "{most} dials beside");
    network.tap = None;
    network.run(ms(10_000));
    assert_eq!(network.open(reader).len(), 30);
}
