//! A running download whose path dies: the reader's NAT forgets it, one of the two finds itself in another network, or
//! both do.

use super::super::*;
use super::punching::behind;
use super::sim::Network;
use crate::sim::{Kind, LinkConfig, Realm};
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
