//! Two swarms in virtual time, handed finished handshakes: what they do with streams, frames and each
//! other. The DHT is not in play here.

mod idle;
mod network;
mod places;
mod strangers;

use super::connections::{FIRST_PACKET_WAIT, MAX_WAITING};
use super::hyperdht::{Agreed, ConnectId, Dial};
use super::secret_stream::noise::SessionKeys;
use super::*;
use crate::crypto::KeyPair;
use crate::sim::epoch;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;

/// One way over the link.
const DELAY: Duration = Duration::from_millis(5);

/// Something to arrive, earliest first.
#[derive(PartialEq, Eq)]
struct Arrival {
    at: Instant,
    order: u64,
    to: usize,
    bytes: Vec<u8>,
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct World {
    now: Instant,
    swarms: [Swarm; 2],
    keys: [PublicKey; 2],
    link: BinaryHeap<Arrival>,
    order: u64,
    /// Everything sent is lost.
    cut: bool,
    events: [Vec<SwarmEvent>; 2],
    handshakes: u8,
}

/// The outcome of a handshake that `a` started with `b`, who is at `addr`; `n` makes it unlike others.
pub(super) fn agree(a: &mut Swarm, b: &mut Swarm, addr: SocketAddrV4, n: u8, now: Instant) {
    let key = |swarm: &Swarm| PublicKey(swarm.key_pair.public());
    let connect = ConnectId(1000 + u64::from(n));
    let local = a.udx.open(None).unwrap();
    let id = a.connections.name(local);
    let phase = Phase::Dialling { connect, until: now + DIAL_TIMEOUT };
    a.connections.insert(Connection::new(id, key(b), true, phase, now));
    a.peers.connecting(key(b), now);
    let remote = 5000 + u32::from(n);
    let session = |remote, local_id, remote_id, tx, rx, dial: Option<Dial>| {
        let initiator = dial.is_some();
        let keys = SessionKeys { tx, rx, hash: [n; 64], remote, initiator };
        Agreed { keys, local_id, remote_id, dial, big_datagrams: true }
    };
    b.accepted(session(key(a), remote, local, [2; 32], [1; 32], None), now);
    let dial = Some(Dial { socket: SocketId::MAIN, to: addr });
    a.dialled(connect, session(key(b), local, remote, [1; 32], [2; 32], dial), now);
}

fn addr(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1000 + i as u16)
}

impl World {
    /// Swarm 1 has the greater public key.
    fn new() -> Self {
        let now = epoch();
        let mut pairs = [KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32])];
        pairs.sort_by_key(KeyPair::public);
        let keys = [PublicKey(pairs[0].public()), PublicKey(pairs[1].public())];
        let mut seed = 0;
        let swarms = pairs.map(|key_pair| {
            let config = SwarmConfig {
                key_pair,
                bootstrap: vec![],
                persistent: false,
                address: None,
                local_addresses: vec![],
                unix_ms: 0,
                limits: Limits::default(),
            };
            seed += 1;
            Swarm::new(config, StdRng::seed_from_u64(seed), now)
        });
        Self {
            now,
            swarms,
            keys,
            link: BinaryHeap::new(),
            order: 0,
            cut: false,
            events: [vec![], vec![]],
            handshakes: 0,
        }
    }

    /// Starts a dial from swarm `from` to the other, up to the finished handshake.
    fn dial(&mut self, from: usize) {
        self.handshakes += 1;
        let [first, second] = &mut self.swarms;
        let (a, b) = if from == 0 { (first, second) } else { (second, first) };
        agree(a, b, addr(1 - from), self.handshakes, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        for i in 0..2 {
            let mut buf = Vec::new();
            while let Some(transmit) = self.swarms[i].poll_transmit(self.now, &mut buf, 10) {
                let size = transmit.segment_size.unwrap_or(buf.len());
                for datagram in buf.chunks(size).filter(|_| !self.cut) {
                    self.order += 1;
                    self.link.push(Arrival {
                        at: self.now + DELAY,
                        order: self.order,
                        to: 1 - i,
                        bytes: datagram.to_vec(),
                    });
                }
            }
            while let Some(event) = self.swarms[i].poll_event() {
                self.events[i].push(event);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let timers = self.swarms.iter_mut().filter_map(Swarm::poll_timeout).min();
            let arrival = self.link.peek().map(|arrival| arrival.at);
            let Some(at) = timers.into_iter().chain(arrival).min().filter(|&at| at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            for i in 0..2 {
                let mut any = false;
                while self.link.peek().is_some_and(|a| a.at <= self.now && a.to == i) {
                    let arrival = self.link.pop().unwrap();
                    let len = arrival.bytes.len();
                    let (from, bytes) = (addr(1 - i), arrival.bytes);
                    self.swarms[i].handle_datagrams(SocketId::MAIN, from, &bytes, len, self.now);
                    any = true;
                }
                if any {
                    self.swarms[i].end_of_batch(self.now);
                }
                if self.swarms[i].poll_timeout().is_some_and(|at| at <= self.now) {
                    self.swarms[i].handle_timeout(self.now);
                }
            }
        }
        self.now = end;
    }

    /// Connections of swarm `i`, in the order in which they opened.
    fn connected(&self, i: usize) -> Vec<(ConnId, bool)> {
        let open = |event: &SwarmEvent| match event {
            SwarmEvent::Connected { conn, initiator, .. } => Some((*conn, *initiator)),
            _ => None,
        };
        self.events[i].iter().filter_map(open).collect()
    }

    fn closed(&self, i: usize) -> Vec<(ConnId, Closed)> {
        let closed = |event: &SwarmEvent| match event {
            SwarmEvent::Closed { conn, why } => Some((*conn, *why)),
            _ => None,
        };
        self.events[i].iter().filter_map(closed).collect()
    }

    fn frames(&self, i: usize) -> Vec<Vec<u8>> {
        let frame = |event: &SwarmEvent| match event {
            SwarmEvent::Frame { data, .. } => Some(data.to_vec()),
            _ => None,
        };
        self.events[i].iter().filter_map(frame).collect()
    }

    fn send(&mut self, i: usize, conn: ConnId, data: &[u8]) -> usize {
        let queued = self.swarms[i].send(conn, FrameBuf::from(data), self.now);
        self.settle();
        queued
    }

    /// Swarm 0 dials swarm 1.
    fn pair() -> (Self, ConnId, ConnId) {
        let mut world = Self::new();
        world.dial(0);
        world.run(Duration::from_secs(1));
        let (a, b) = (world.connected(0)[0].0, world.connected(1)[0].0);
        (world, a, b)
    }
}

#[test]
fn a_finished_handshake_becomes_a_connection_on_both_sides() {
    let (mut world, a, b) = World::pair();
    assert_eq!((world.connected(0), world.connected(1)), (vec![(a, true)], vec![(b, false)]));
    world.send(0, a, b"from a");
    world.send(1, b, &[7; 100_000]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.frames(1), [b"from a".to_vec()]);
    assert_eq!(world.frames(0), [vec![7; 100_000]]);
}

#[test]
fn silence_is_kept_alive_and_the_owner_sees_nothing_of_it() {
    let (mut world, ..) = World::pair();
    world.run(Duration::from_secs(300));
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert_eq!((world.frames(0).len(), world.frames(1).len()), (0, 0));
    let received = |i: usize| world.swarms[i].connections.iter().all(|c| c.has_read);
    assert!(received(0) && received(1));
}

#[test]
fn a_dead_peer_is_noticed_within_twenty_seconds() {
    let (mut world, a, _) = World::pair();
    world.cut = true;
    world.run(Duration::from_secs(20));
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::TimedOut))]);
}

#[test]
fn of_two_simultaneous_dials_the_one_of_the_greater_key_survives() {
    let mut world = World::new();
    world.dial(0);
    world.dial(1);
    world.run(Duration::from_secs(30));
    for i in 0..2 {
        let open: Vec<_> = world.swarms[i].connections.iter().filter(|c| c.is_open()).collect();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].initiator, i == 1);
        let told = world.connected(i).len() - world.closed(i).len();
        assert_eq!(told, 1, "the owner knows of one");
    }
}

#[test]
fn a_peer_that_lost_its_connection_may_come_back_before_we_notice() {
    let (mut world, a, b) = World::pair();
    world.send(0, a, b"x");
    world.send(1, b, b"y");
    world.run(Duration::from_secs(1));
    // The peer restarts: it forgets the connection without a word.
    let stream = a.stream();
    world.swarms[0].connections.remove(stream);
    world.cut = true;
    world.swarms[0].udx.destroy(stream);
    world.settle();
    world.cut = false;
    world.dial(0);
    world.run(Duration::from_secs(2));
    assert_eq!(world.closed(1), [(b, Closed::Duplicate)]);
    assert_eq!(world.connected(1).len(), 2);
}

#[test]
fn an_accepted_handshake_without_a_packet_is_forgotten() {
    let mut world = World::new();
    world.cut = true;
    world.dial(0);
    assert_eq!(world.swarms[1].connections.waiting(), 1);
    world.run(FIRST_PACKET_WAIT);
    assert_eq!(world.swarms[1].connections.waiting(), 0);
    assert!(world.connected(1).is_empty());
}

#[test]
fn a_flood_of_handshakes_displaces_the_oldest() {
    let mut world = World::new();
    world.cut = true;
    for _ in 0..MAX_WAITING + 20 {
        world.dial(0);
    }
    assert_eq!(world.swarms[1].connections.waiting(), MAX_WAITING);
}

#[test]
fn a_broken_frame_ends_that_connection_on_both_sides() {
    let (mut world, a, b) = World::pair();
    world.send(0, a, b"good");
    let _ = world.swarms[0].udx.write(a.stream(), bytes::Bytes::from(vec![17, 0, 0]), world.now);
    let _ = world.swarms[0].udx.write(a.stream(), bytes::Bytes::from(vec![1; 17]), world.now);
    world.run(Duration::from_secs(1));
    let decrypt = Closed::Frame(secret_stream::frame::FrameError::Decrypt);
    assert_eq!(world.frames(1), [b"good".to_vec()]);
    assert_eq!(world.closed(1), [(b, decrypt)]);
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::Reset))]);
}

#[test]
fn what_the_owner_does_not_consume_stops_the_sender() {
    let (mut world, a, b) = World::pair();
    let frames = 160; // 10 MiB
    for _ in 0..frames {
        world.send(0, a, &[1; 65_536]);
    }
    world.run(Duration::from_secs(20));
    let stalled = world.frames(1).len();
    assert!((50..=70).contains(&stalled), "{stalled} frames of 64 KiB in a window of 4 MiB");
    let mut done = 0;
    for _ in 0..200 {
        let have = world.frames(1).len();
        world.swarms[1].consumed(b, (have - done) * 65_536);
        done = have;
        world.run(Duration::from_millis(500));
    }
    assert_eq!(world.frames(1).len(), frames);
    let told = world.events[0].iter().any(|e| matches!(e, SwarmEvent::Queued { bytes: 0, .. }));
    assert!(told, "the sender's owner learns that the queue is empty");
}

#[test]
fn a_banned_peer_is_dropped_and_not_accepted() {
    let (mut world, a, b) = World::pair();
    let until = world.now + Duration::from_secs(60);
    let (key, now) = (world.keys[0], world.now);
    world.swarms[1].ban(key, until, now);
    world.run(Duration::from_millis(900));
    assert_eq!(world.closed(1), [(b, Closed::Banned)]);
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::Reset))]);
    world.dial(0);
    assert_eq!(world.swarms[1].connections.waiting(), 0);
}

#[test]
fn closing_ends_both_sides_behind_the_last_frame() {
    let (mut world, a, b) = World::pair();
    world.send(0, a, &[3; 200_000]);
    let now = world.now;
    world.swarms[0].close(a, now);
    world.run(Duration::from_secs(2));
    assert_eq!(world.frames(1), [vec![3; 200_000]]);
    assert_eq!(world.closed(0), [(a, Closed::Local)]);
    assert_eq!(world.closed(1), [(b, Closed::RemoteEnded)]);
    assert!(world.swarms.iter().all(|swarm| swarm.closing.is_empty()));
}

#[test]
fn names_of_closed_connections_do_nothing() {
    let (mut world, a, _) = World::pair();
    let now = world.now;
    world.swarms[0].close(a, now);
    assert_eq!(world.send(0, a, b"late"), 0);
    world.swarms[0].consumed(a, 5);
    world.swarms[0].close(a, now);
    assert_eq!(world.closed(0).len(), 1);
}
