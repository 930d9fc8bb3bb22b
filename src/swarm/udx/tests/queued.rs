//! What becomes of peers that do not take what is queued for them, and of those that do.

use super::super::queued::{CEILING, MAX_QUEUED, MAX_QUEUED_OF_HOST};
use super::bounds::open_at;
use super::*;
use crate::swarm::udx::packet::Header;
use std::collections::BTreeSet;

const MIB: usize = 1 << 20;
/// What a small answer takes as a message of its own.
const SMALL: usize = 28;
/// Peers that read.
const SLOW: u32 = 1_000_000;

fn host(n: u32, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + n).into(), port)
}

struct World {
    udx: Udx,
    now: Instant,
    /// Streams and where they lead to.
    peers: BTreeMap<u32, SocketAddr>,
    /// The number behind the last packet of each reader that came, and behind the last it took.
    sent: BTreeMap<u32, u32>,
    taken: BTreeMap<u32, u32>,
    gone: Vec<u32>,
}

impl World {
    fn new() -> Self {
        let udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        let (peers, sent, taken) = Default::default();
        Self { udx, now: epoch(), peers, sent, taken, gone: Vec::new() }
    }

    fn open(&mut self, id: u32, at: SocketAddr) {
        open_at(&mut self.udx, id, at, self.now);
        self.peers.insert(id, at);
        self.acknowledge(id);
    }

    /// Readers have a small window; others leave theirs closed.
    fn acknowledge(&mut self, id: u32) {
        let window = if id >= SLOW { 64 << 10 } else { 0 };
        let ack = self.taken.get(&id).copied().unwrap_or(0);
        let header = Header { flags: 0, data_offset: 0, stream: id, window, seq: 0, ack };
        let (from, mut sink) = (self.peers[&id], Collect::new());
        self.udx.handle_datagram(SocketId::MAIN, from, &header.encode(), self.now, &mut sink);
    }

    fn write(&mut self, id: u32, len: usize) {
        self.udx.write(id, payload(0, len), self.now).unwrap();
        self.look();
    }

    /// Who had to go.
    fn look(&mut self) {
        while let Some(event) = self.udx.poll_event() {
            if let UdxEvent::Closed { id, reason } = event {
                assert_eq!(reason, CloseReason::Unread);
                self.peers.remove(&id);
                self.gone.push(id);
            }
        }
    }

    /// Takes what the only stream sends now: the number behind the last packet.
    fn take(&mut self) -> u32 {
        self.udx.handle_timeout(self.now);
        let (mut buf, mut sent) = (Vec::new(), 0);
        while self.udx.poll_transmit(self.now, &mut buf, 1).is_some() {
            let header = Packet::parse(&buf).unwrap().header;
            sent = sent.max(header.seq + u32::from(header.has(flag::DATA)));
        }
        sent
    }

    /// The first reader acknowledges up to `ack`, and reports everything behind the next packet, up to `sent`.
    fn report(&mut self, window: u32, ack: u32, sent: u32) {
        let header =
            Header { flags: flag::SACK, data_offset: 0, stream: SLOW, window, seq: 0, ack };
        let range = [(ack + 1).to_le_bytes(), sent.max(ack + 2).to_le_bytes()].concat();
        let sack = [&header.encode()[..], &range].concat();
        let mut sink = Collect::new();
        self.udx.handle_datagram(SocketId::MAIN, host(1, 1), &sack, self.now, &mut sink);
        self.udx.end_of_batch(self.now);
        self.look();
    }

    /// A tenth of a second: readers take up to 16 packets.
    fn step(&mut self) {
        self.now += Duration::from_millis(100);
        self.udx.handle_timeout(self.now);
        let mut buf = Vec::new();
        while self.udx.poll_transmit(self.now, &mut buf, 1).is_some() {
            let header = Packet::parse(&buf).unwrap().header;
            let sent = self.sent.entry(header.stream).or_default();
            *sent = (*sent).max(header.seq + u32::from(header.has(flag::DATA)));
        }
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            if id >= SLOW {
                let (sent, taken) = (self.sent.get(&id), self.taken.entry(id).or_default());
                *taken = sent.copied().unwrap_or(0).min(*taken + 16);
            }
            self.acknowledge(id);
        }
        self.udx.end_of_batch(self.now);
        self.look();
    }
}

/// Readers that are behind with much stay, be they at the host of those who fill what they can or elsewhere.
#[test]
fn who_takes_nothing_has_to_go_and_who_reads_slowly_stays() {
    let mut world = World::new();
    world.open(SLOW, host(1, 1));
    world.open(SLOW + 1, host(2, 1));
    for id in [SLOW, SLOW + 1] {
        // What was queued before, and a block of the greatest length.
        (0..18 * MIB / 65_536).for_each(|_| world.write(id, 65_536));
    }
    (0..30).for_each(|_| world.step());
    let (mut next, mut attackers) = (1, BTreeSet::new());
    let mut most = 0;
    for _ in 0..130 {
        while attackers.len() < 190 {
            world.open(next, host(1, next as u16));
            attackers.insert(next);
            next += 1;
        }
        for id in attackers.clone() {
            for i in 0..5 {
                if world.peers.contains_key(&id) {
                    world.write(id, if i == 0 { 16_384 } else { SMALL });
                }
            }
        }
        most = most.max(world.udx.queued.all());
        attackers.retain(|id| world.peers.contains_key(id));
        world.step();
    }
    // Two readers, and what comes until it shows that nobody takes it.
    assert!(most <= MAX_QUEUED_OF_HOST + 100 * MIB, "{} MiB", most / MIB);
    assert!(world.gone.len() > 50 && world.gone.iter().all(|id| *id < SLOW), "{:?}", world.gone);
    assert!(
        world.taken[&SLOW] > 300 && world.taken[&(SLOW + 1)] > 300,
        "it went on: {:?}",
        world.taken
    );
    for id in world.peers.into_keys() {
        world.udx.destroy(id);
    }
    assert_eq!(world.udx.queued.all(), 0, "what is gone is not counted");
}

#[test]
fn many_hosts_that_take_nothing_share_one_bound() {
    let mut world = World::new();
    for reader in 0..4 {
        world.open(SLOW + reader, host(100 + reader, 1));
        (0..10 * MIB / 65_536).for_each(|_| world.write(SLOW + reader, 65_536));
    }
    world.step();
    for round in 0..200 {
        for id in 1..=20 {
            if !world.peers.contains_key(&id) {
                world.open(id, host(id, 1));
            }
            for _ in 0..2 {
                if world.peers.contains_key(&id) {
                    world.write(id, 65_536);
                }
            }
            assert!(world.udx.queued.all() <= MAX_QUEUED + 64 * MIB, "round {round}");
        }
        world.step();
    }
    assert!(!world.gone.is_empty() && world.gone.iter().all(|id| *id < SLOW), "{:?}", world.gone);
}

/// Each has one large block queued, and takes a part of it now and then.
#[test]
fn readers_of_large_blocks_stay_though_they_are_many() {
    let mut world = World::new();
    for reader in 0..60 {
        world.open(SLOW + reader, host(reader % 2, 1 + reader as u16));
        (0..8 * MIB / 65_536).for_each(|_| world.write(SLOW + reader, 65_536));
    }
    assert!(world.udx.queued.all() > MAX_QUEUED);
    for round in 0..60 {
        world.step();
        // One comes and one has all: what is queued for the others is not what has to go.
        let id = SLOW + 100 + round;
        world.open(id, host(1, 1000 + round as u16));
        world.write(id, 65_536);
    }
    assert!(world.gone.is_empty(), "{:?}", world.gone);
}

#[test]
fn above_the_ceiling_those_who_read_go_too() {
    let mut world = World::new();
    let bytes = payload(0, MIB);
    for reader in 0..110 {
        world.open(SLOW + reader, host(reader, 1));
        for _ in 0..8 {
            if world.peers.contains_key(&(SLOW + reader)) {
                world.udx.write(SLOW + reader, bytes.clone(), world.now).unwrap();
                world.look();
            }
            assert!(world.udx.queued.all() <= CEILING);
        }
    }
    assert!(world.udx.queued.all() > CEILING - 16 * MIB && !world.gone.is_empty());
}

#[test]
fn a_peer_is_believed_no_larger_window_than_ours() {
    let mut world = World::new();
    world.open(SLOW, host(1, 1));
    let header =
        Header { flags: 0, data_offset: 0, stream: SLOW, window: u32::MAX, seq: 0, ack: 0 };
    let mut sink = Collect::new();
    world.udx.handle_datagram(SocketId::MAIN, host(1, 1), &header.encode(), world.now, &mut sink);
    assert_eq!(world.udx.streams.get(SLOW).unwrap().window, MAX_WINDOW as u64);
}

#[test]
fn a_small_message_counts_for_what_it_costs() {
    let mut world = World::new();
    world.open(1, host(1, 1));
    (0..1000).for_each(|_| world.write(1, SMALL));
    assert!(world.udx.queued.all() >= 1000 * (SMALL + 128), "{}", world.udx.queued.all());
}

/// Who acknowledges all but the first packet makes us keep everything.
#[test]
fn what_was_reported_out_of_order_counts_until_it_is_acknowledged() {
    let mut world = World::new();
    world.open(SLOW, host(1, 1));
    (0..4).for_each(|_| world.write(SLOW, 10_000));
    let all = world.udx.queued.all();
    assert!(all > 40_000, "{all}");
    world.now += Duration::from_millis(100);
    let (mut buf, mut sent) = (Vec::new(), 0);
    while world.udx.poll_transmit(world.now, &mut buf, 1).is_some() {
        sent += u32::from(Packet::parse(&buf).unwrap().header.has(flag::DATA));
    }
    assert!(sent > 5 && world.udx.unsent(SLOW) < 40_000);
    let flags = flag::SACK;
    let header = Header { flags, data_offset: 0, stream: SLOW, window: 64 << 10, seq: 0, ack: 0 };
    let sack = [&header.encode()[..], &1u32.to_le_bytes(), &sent.to_le_bytes()].concat();
    let (from, mut sink) = (host(1, 1), Collect::new());
    world.udx.handle_datagram(SocketId::MAIN, from, &sack, world.now, &mut sink);
    world.udx.end_of_batch(world.now);
    assert_eq!(world.udx.queued.all(), all);
    world.taken.insert(SLOW, sent);
    world.acknowledge(SLOW);
    world.udx.end_of_batch(world.now);
    assert!(world.udx.queued.all() < all, "{}", world.udx.queued.all());
}

/// Who reports everything but the first packet, acknowledges one a second and offers a window without an end makes us
/// keep no more than what we send behind a gap, and what waits above that.
#[test]
fn who_holds_back_the_first_acknowledgement_gets_no_more_than_two_windows() {
    const AHEAD: usize = 128 << 10;
    let mut world = World::new();
    world.open(SLOW, host(1, 1));
    let (mut sent, mut most) = (0, 0);
    for step in 0..15_000u32 {
        while world.udx.unsent(SLOW) < AHEAD {
            world.write(SLOW, 65_536);
        }
        world.now += Duration::from_millis(10);
        sent = sent.max(world.take());
        let ack = (step / 100).min(sent.saturating_sub(2));
        world.report(u32::MAX, ack, sent);
        most = most.max(world.udx.queued.all());
    }
    assert!(world.gone.is_empty(), "{:?}", world.gone);
    assert!(most > 4 * MIB, "{} MiB: it was sent something", most / MIB);
    // With what each packet costs beside its bytes.
    assert!(most < 12 * MIB, "{} MiB", most / MIB);
}

/// The same with packets of a few bytes, each of which costs much more.
#[test]
fn who_holds_back_the_first_acknowledgement_gets_no_more_packets_than_a_peer_holds() {
    let mut world = World::new();
    world.open(SLOW, host(1, 1));
    let mut sent = 0;
    for step in 0..30_000u32 {
        world.write(SLOW, SMALL);
        world.now += Duration::from_millis(1);
        sent = sent.max(world.take());
        let ack = (step / 1000).min(sent.saturating_sub(2));
        world.report(MAX_WINDOW as u32, ack, sent);
        assert!(sent - ack <= 16_384 + 1, "{sent} sent, {ack} acknowledged");
    }
    assert!(sent > 16_000, "{sent}");
}
