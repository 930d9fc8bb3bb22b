//! Handshakes whose senders are not who, or not where, they say: what they can make a swarm do.

use super::*;
use crate::codec::FrameBuf;
use crate::swarm::secret_stream::frame::Sealer;
use crate::swarm::udx::{ConnectOptions, Sink, UdxConfig};
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

/// Bytes of the smallest datagram with a handshake.
const HANDSHAKE: usize = 184;

struct Ignore;

impl Sink for Ignore {
    fn data(&mut self, _: u32, _: &[u8]) {}
}

/// The far end of a connection that swarm 1 accepted, played by the test.
pub(super) struct Stranger {
    pub udx: Udx,
    pub sealer: Sealer,
    stream: u32,
}

impl Stranger {
    /// Shakes hands with swarm 1 as `remote`. The keys of session `n` are [3; 32], or for a `copy` of somebody
    /// else's handshake others, which the stranger does not know.
    pub fn shake(
        world: &mut Network,
        remote: PublicKey,
        n: u32,
        dial: Option<SocketAddrV4>,
        copy: bool,
    ) -> Self {
        let mut hash = [9; 64];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        let (local_id, stream) = (0x10_0000 + n, 0x20_0000 + n);
        let (tx, rx) = if copy { ([5; 32], [6; 32]) } else { ([3; 32], [4; 32]) };
        let keys = SessionKeys { tx: rx, rx: tx, hash, remote, initiator: false };
        let dial = dial.map(|to| Dial { socket: SocketId::MAIN, to: to.into() });
        let agreed = Agreed {
            keys,
            local_id,
            remote_id: stream,
            dial,
            big_datagrams: false,
            relays: Relays::default(),
        };
        world.machines[1].swarm.accepted(agreed, world.now);
        let keys = SessionKeys { tx: [3; 32], rx: [4; 32], hash, remote, initiator: true };
        let mut udx = Udx::new(StdRng::seed_from_u64(n.into()), UdxConfig::default());
        udx.open(Some(stream)).unwrap();
        let options = ConnectOptions::default();
        udx.connect(stream, SocketId::MAIN, local_id, sim::port(1).into(), options, world.now);
        Self { udx, sealer: Sealer::new(&keys, [n as u8; 24]), stream }
    }

    pub fn write(&mut self, bytes: impl Into<bytes::Bytes>, now: Instant) {
        self.udx.write(self.stream, bytes.into(), now).unwrap();
    }

    /// Lets what was written arrive at swarm 1 as if from `from`; true if anything did.
    pub fn speak(&mut self, world: &mut Network, from: SocketAddrV4) -> bool {
        let (now, mut buf, mut any) = (world.now, Vec::new(), false);
        while self.udx.poll_transmit(now, &mut buf, 1).is_some() {
            let len = buf.len();
            world.machines[1].swarm.handle_datagrams(SocketId::MAIN, from.into(), &buf, len, now);
            any = true;
        }
        world.machines[1].swarm.end_of_batch(now);
        any
    }

    /// Is asked whether it is at `from`, and answers.
    pub fn show(&mut self, world: &mut Network, from: SocketAddrV4) {
        let stream = self.stream - 0x10_0000;
        world.machines[1].swarm.ask(stream, world.now);
        for _ in 0..30 {
            self.listen(world, from);
            self.speak(world, from);
            let connection = world.machines[1].swarm.connections.by_stream(stream);
            if connection.is_none_or(|c| c.proven) {
                break;
            }
        }
        world.settle();
    }

    /// Takes what swarm 1 sends to anybody, and answers it; tells how many bytes went to `victim`.
    pub fn listen(&mut self, world: &mut Network, victim: SocketAddrV4) -> usize {
        let (now, mut buf, mut bytes) = (world.now, Vec::new(), 0);
        while let Some(transmit) = world.machines[1].swarm.poll_transmit(now, &mut buf, 10) {
            bytes += if transmit.to == victim.into() { buf.len() } else { 0 };
            for datagram in buf.chunks(transmit.segment_size.unwrap_or(buf.len())) {
                self.udx.handle_datagram(
                    SocketId::MAIN,
                    sim::port(1).into(),
                    datagram,
                    now,
                    &mut Ignore,
                );
            }
            self.udx.end_of_batch(now);
        }
        bytes
    }
}

/// A stranger who has come in, and has said `word`, and is where it says.
pub(super) fn enter(
    world: &mut Network,
    key: PublicKey,
    n: u32,
    from: SocketAddrV4,
    word: Option<&[u8]>,
) -> Stranger {
    let mut peer = Stranger::shake(world, key, n, None, false);
    let header = peer.sealer.header().to_vec();
    peer.write(header, world.now);
    if let Some(word) = word {
        let frame = peer.sealer.seal(FrameBuf::from(word)).unwrap();
        peer.write(frame, world.now);
    }
    peer.speak(world, from);
    peer.show(world, from);
    peer
}

pub(super) fn key(n: u8) -> PublicKey {
    PublicKey(KeyPair::from_seed(&[n; 32]).public())
}

pub(super) fn elsewhere(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(0x0b00_0000 + n), 4000)
}

/// Bytes that swarm 1 sends to `victim` within `time`.
fn bytes_to(world: &mut Network, victim: SocketAddrV4, time: Duration) -> usize {
    let (end, mut bytes) = (world.now + time, 0);
    loop {
        let mut buf = Vec::new();
        while let Some(transmit) = world.machines[1].swarm.poll_transmit(world.now, &mut buf, 10) {
            bytes += if transmit.to == victim.into() { buf.len() } else { 0 };
        }
        let next = world.machines[1].swarm.poll_timeout().filter(|at| *at <= end);
        let Some(at) = next else { return bytes };
        world.now = at.max(world.now);
        world.machines[1].swarm.handle_timeout(world.now);
    }
}

#[test]
fn a_handshake_that_names_a_victim_makes_us_send_it_hardly_anything() {
    let mut world = Network::two();
    let victim = elsewhere(1);
    Stranger::shake(&mut world, key(7), 1, Some(victim), false);
    let bytes = bytes_to(&mut world, victim, Duration::from_secs(60));
    // The answer to the handshake, about as long as the handshake, goes there too.
    assert!((79..=2 * HANDSHAKE).contains(&bytes), "{bytes}");
    world.settle();
    assert!(world.connected(1).is_empty());
    assert_eq!(world.machines[1].swarm.connections.iter().count(), 0);
}

#[test]
fn who_speaks_from_elsewhere_cannot_make_us_send_to_a_victim() {
    let mut world = Network::two();
    let (victim, own) = (elsewhere(1), elsewhere(2));
    let mut stranger = Stranger::shake(&mut world, key(7), 1, Some(victim), false);
    let header = stranger.sealer.header().to_vec();
    stranger.write(header, world.now);
    let mut bytes = stranger.listen(&mut world, victim);
    stranger.speak(&mut world, own);
    world.machines[1].swarm.poll_event();
    let conn = world.machines[1].swarm.connections.iter().next().unwrap().id;
    // It goes to whoever spoke: the stranger has gained nothing.
    world.machines[1].swarm.send(conn, FrameBuf::from(&[1; 1_000_000][..]), world.now);
    for _ in 0..200 {
        bytes += stranger.listen(&mut world, victim);
        stranger.speak(&mut world, own);
        world.now += Duration::from_millis(10);
        world.machines[1].swarm.handle_timeout(world.now);
    }
    assert!(bytes <= 2 * HANDSHAKE, "{bytes}");
    assert_eq!(world.machines[1].swarm.queued(conn), 0);
}

#[test]
fn packets_from_a_forged_source_are_answered_with_three_times_their_bytes_at_most() {
    let mut world = Network::two();
    let victim = elsewhere(1);
    let mut stranger = Stranger::shake(&mut world, key(7), 1, None, false);
    // Half a header frame, and a gap: everything is acknowledged, nothing is proven.
    let half = stranger.sealer.header()[..30].to_vec();
    stranger.write(half, world.now);
    let mut sent = 0;
    let mut buf = Vec::new();
    while stranger.udx.poll_transmit(world.now, &mut buf, 1).is_some() {
        for _ in 0..5 {
            sent += buf.len();
            let (len, now) = (buf.len(), world.now);
            world.machines[1].swarm.handle_datagrams(SocketId::MAIN, victim.into(), &buf, len, now);
            world.machines[1].swarm.end_of_batch(now);
        }
    }
    let bytes = bytes_to(&mut world, victim, Duration::from_secs(60));
    assert!(bytes <= 3 * sent + 240, "{bytes} for {sent}");
    world.settle();
    assert!(world.connected(1).is_empty());
}

#[test]
fn a_copy_of_an_old_handshake_leaves_the_live_connection_alone() {
    let (mut world, a, b) = Network::pair();
    world.send_frame(0, a, b"x");
    world.send_frame(1, b, b"y");
    world.run(Duration::from_secs(1));
    for n in 0..40 {
        let from = elsewhere(n);
        let remote = world.key(0);
        let dial = (n % 2 == 0).then_some(from);
        let mut copy = Stranger::shake(&mut world, remote, n, dial, true);
        // Both messages of the handshake were seen, so the header frame is right. The keys are not.
        let header = copy.sealer.header().to_vec();
        copy.write(header, world.now);
        copy.speak(&mut world, from);
        if n % 3 == 0 {
            let frame = copy.sealer.seal(FrameBuf::from(&b"let me in"[..])).unwrap();
            copy.write(frame, world.now);
        } else if n % 3 == 1 {
            // A frame that never ends.
            copy.write(vec![0xff; 200_000], world.now);
        }
        for _ in 0..50 {
            copy.listen(&mut world, from);
            copy.speak(&mut world, from);
        }
        world.run(Duration::from_millis(300));
    }
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert_eq!((world.connected(0).len(), world.connected(1).len()), (1, 1));
    world.send_frame(0, a, b"still here");
    world.run(Duration::from_secs(15));
    assert_eq!(world.frames(1).last(), Some(&b"still here".to_vec()));
    assert_eq!(
        world.machines[1].swarm.connections.iter().count(),
        1,
        "and nothing is kept of them"
    );
}

#[test]
fn a_copy_that_came_first_gives_way_to_the_peer_itself() {
    for greater in [false, true] {
        let mut world = Network::two();
        let remote = if greater { key(1).max(key(2)) } else { world.key(0) };
        let from = elsewhere(3);
        let mut copy = Stranger::shake(&mut world, remote, 3, None, true);
        let header = copy.sealer.header().to_vec();
        copy.write(header, world.now);
        copy.speak(&mut world, from);
        world.dial(0);
        world.run(Duration::from_secs(2));
        let (conn, _) = world.connected(0)[0];
        world.send_frame(0, conn, b"it is me");
        world.run(Duration::from_secs(2));
        assert_eq!(world.frames(1), [b"it is me".to_vec()]);
        assert_eq!(world.closed(0), []);
    }
}

#[test]
fn an_honest_peer_gets_in_beside_a_flood_of_forged_handshakes() {
    let mut world = Network::two();
    world.machines[1].swarm.limits.max_connections = 8;
    let mut n = 0;
    // As many as handshakes are answered: 100 a second, half of them with an address to dial.
    let flood = |world: &mut Network, n: &mut u32| {
        for _ in 0..100 {
            *n += 1;
            let dial = n.is_multiple_of(2).then(|| elsewhere(*n));
            Stranger::shake(world, key((*n % 251) as u8), *n, dial, false);
            world.run(Duration::from_millis(10));
        }
    };
    for _ in 0..5 {
        flood(&mut world, &mut n);
    }
    world.dial(0);
    flood(&mut world, &mut n);
    assert_eq!((world.connected(0).len(), world.connected(1).len()), (1, 1));
    let (a, _) = world.connected(0)[0];
    world.send_frame(0, a, b"in");
    for _ in 0..20 {
        flood(&mut world, &mut n);
    }
    assert_eq!(world.frames(1), [b"in".to_vec()]);
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert!(world.machines[1].swarm.connections.waiting() <= MAX_WAITING);
}

#[test]
fn no_more_connections_are_accepted_than_allowed_and_an_ended_one_makes_room() {
    let mut world = Network::two();
    world.machines[1].swarm.limits.max_connections = 3;
    let enter =
        |world: &mut Network, n: u32| enter(world, key(n as u8), n, elsewhere(n), Some(b"hi"));
    // Handshakes alone take no place, those that come at the same time neither.
    let waiting: Vec<u32> = (40..60).collect();
    waiting.iter().for_each(|&n| drop(Stranger::shake(&mut world, key(n as u8), n, None, false)));
    let mut peers: Vec<Stranger> = (10..16).map(|n| enter(&mut world, n)).collect();
    assert_eq!(world.connected(1).len(), 3);
    assert_eq!(world.machines[1].swarm.connections.counted(), 3);
    // One that waited since before the places were taken finds none either.
    let mut late: Vec<Stranger> =
        (70..72).map(|n| Stranger::shake(&mut world, key(n as u8), n, None, false)).collect();
    assert_eq!(
        world.machines[1].swarm.connections.iter().filter(|c| c.remote == key(70)).count(),
        0
    );
    let stream = peers[0].stream;
    peers[0].udx.destroy(stream);
    peers[0].speak(&mut world, elsewhere(10));
    world.settle();
    assert_eq!(world.closed(1).len(), 1);
    late.clear();
    enter(&mut world, 80);
    assert_eq!(world.connected(1).len(), 4);
    assert_eq!(world.machines[1].swarm.connections.counted(), 3);
}

/// Frames of `len` bytes that swarm 1 takes of a stranger who ignores its window, and whether it stays connected.
fn taken_of(len: usize, total: usize) -> (usize, bool) {
    let mut world = Network::two();
    let from = elsewhere(1);
    let mut stranger = Stranger::shake(&mut world, key(7), 1, None, false);
    let mut bytes = stranger.sealer.header().to_vec();
    let frame = vec![1; len];
    while bytes.len() < total {
        bytes.extend_from_slice(&stranger.sealer.seal(FrameBuf::from(&frame[..])).unwrap());
    }
    for (seq, payload) in bytes.chunks(1400).enumerate() {
        let header = udx::packet::Header {
            flags: udx::packet::flag::DATA,
            data_offset: 0,
            stream: 0x10_0001,
            window: 1 << 20,
            seq: seq as u32,
            ack: 0,
        };
        let packet = [&header.encode()[..], payload].concat();
        let (len, now) = (packet.len(), world.now);
        world.machines[1].swarm.handle_datagrams(SocketId::MAIN, from.into(), &packet, len, now);
        if seq % 40 == 39 {
            world.machines[1].swarm.end_of_batch(now);
        }
    }
    world.machines[1].swarm.end_of_batch(world.now);
    world.settle();
    (world.frames(1).len(), world.closed(1).is_empty())
}

#[test]
fn what_nobody_takes_is_bounded_in_bytes_and_in_frames() {
    let (frames, stays) = taken_of(65_536, 14 << 20);
    assert!(stays && frames * 65_536 <= 2 * udx::MAX_WINDOW + 65_536, "{frames}");
    // Each costs more than its byte.
    let (frames, stays) = taken_of(1, 1_500_000);
    assert!(stays && (10_000..40_000).contains(&frames), "{frames}");
}

#[test]
fn a_peer_that_reached_us_does_not_wait_for_our_own_dial_to_it() {
    // Whoever has the greater key, and whether our dial has got as far as a first packet or not.
    for (dialler, sent) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut world = Network::two();
        let us = 1 - dialler;
        let (remote, now) = (world.key(dialler), world.now);
        let swarm = &mut world.machines[us].swarm;
        let stream = swarm.udx.open(None).unwrap();
        let id = swarm.connections.name(stream);
        let phase = Phase::Dialling { connect: ConnectId(77), until: now + DIAL_TIMEOUT };
        swarm.connections.insert(Connection::new(id, remote, true, phase, now));
        swarm.peers.connecting(remote, now);
        if sent {
            let keys =
                SessionKeys { tx: [8; 32], rx: [9; 32], hash: [8; 64], remote, initiator: true };
            // To where nobody is.
            let dial = Some(Dial { socket: SocketId::MAIN, to: elsewhere(1).into() });
            let agreed = Agreed {
                keys,
                local_id: stream,
                remote_id: 1,
                dial,
                big_datagrams: false,
                relays: Relays::default(),
            };
            swarm.dialled(ConnectId(77), agreed, now);
        }
        world.dial(dialler);
        world.run(Duration::from_secs(2));
        let context = format!("{dialler} {sent}");
        assert_eq!((world.connected(0).len(), world.connected(1).len()), (1, 1), "{context}");
        world.run(Duration::from_secs(30));
        assert_eq!((world.open(0).len(), world.open(1).len()), (1, 1), "{context}");
        assert_eq!(world.machines[us].swarm.connections.iter().count(), 1, "{context}");
    }
}

#[test]
fn who_acknowledges_in_the_name_of_a_victim_makes_us_send_it_hardly_anything() {
    for (n, dial) in [(1, None), (2, Some(elsewhere(2)))] {
        let mut world = Network::two();
        let victim = elsewhere(1);
        // He gets the answer to the handshake, so he has the keys; from then on he speaks from a forged address.
        let mut stranger = Stranger::shake(&mut world, key(7), n, dial, false);
        let header = stranger.sealer.header().to_vec();
        stranger.write(header, world.now);
        let word = stranger.sealer.seal(FrameBuf::from(&b"requests"[..])).unwrap();
        stranger.write(word, world.now);
        stranger.speak(&mut world, victim);
        let conn = world.machines[1].swarm.connections.iter().next().unwrap().id;
        let (mut came, mut sent, mut buf) = (HANDSHAKE + 300, 0, Vec::new());
        for tick in 0..1000u32 {
            let now = world.now;
            let swarm = &mut world.machines[1].swarm;
            if swarm.queued(conn) < 1 << 20 {
                swarm.send(conn, FrameBuf::from(&[1; 1 << 20][..]), now);
            }
            while let Some(transmit) = swarm.poll_transmit(now, &mut buf, 10) {
                sent += if transmit.to == victim.into() { buf.len() } else { 0 };
            }
            let ack = tick * tick / 4000;
            let stream = 0x10_0000 + n;
            let window = 4 << 20;
            let ack = udx::packet::Header { flags: 0, data_offset: 0, stream, window, seq: 3, ack };
            let packet = ack.encode();
            came += packet.len();
            swarm.handle_datagrams(SocketId::MAIN, victim.into(), &packet, packet.len(), now);
            swarm.end_of_batch(now);
            world.now += Duration::from_millis(10);
            if swarm.poll_timeout().is_some_and(|at| at <= world.now) {
                swarm.handle_timeout(world.now);
            }
        }
        assert!(sent <= 3 * came, "{sent} for {came}");
    }
}

#[test]
fn long_messages_of_honest_peers_arrive_while_a_host_leaves_many_unfinished() {
    for len in [1 << 19, 3 << 20, 8 << 20] {
        let (mut world, a, b) = Network::pair();
        world.send_frame(0, a, b"x");
        world.run(Duration::from_secs(1));
        let mut held = vec![];
        for n in 1..=64u32 {
            let seed = crate::crypto::hash::hash(&[&n.to_le_bytes()]);
            let from = SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1), 4000 + n as u16);
            let key = PublicKey(KeyPair::from_seed(&seed).public());
            held.push(enter(&mut world, key, n, from, Some(b"hi")));
            // The beginning of a message of 1.5 MB.
            let mut bytes = 1_500_000u32.to_le_bytes()[..3].to_vec();
            bytes.resize(1_100_000, 7);
            for (i, payload) in bytes.chunks(1400).enumerate() {
                let header = udx::packet::Header {
                    flags: udx::packet::flag::DATA,
                    data_offset: 0,
                    stream: 0x10_0000 + n,
                    window: 1 << 20,
                    seq: 2 + i as u32,
                    ack: 1,
                };
                let packet = [&header.encode()[..], payload].concat();
                let (len, now) = (packet.len(), world.now);
                let swarm = &mut world.machines[1].swarm;
                swarm.handle_datagrams(SocketId::MAIN, from.into(), &packet, len, now);
            }
            let now = world.now;
            world.machines[1].swarm.end_of_batch(now);
            world.settle();
        }
        world.send_frame(0, a, &vec![1; len]);
        let arrived = |w: &Network| w.frames(1).iter().any(|frame| frame.len() == len);
        let took = world.run_until(Duration::from_secs(20), arrived);
        assert!(took.is_some(), "{len}: {:?}", world.closed(0));
        assert!(world.closed(1).iter().all(|(conn, _)| *conn != b));
    }
}

#[test]
fn a_connection_that_shows_itself_to_be_the_peer_waits_for_our_own_dial_under_way() {
    let mut world = Network::two();
    let (remote, from) = (world.key(0), elsewhere(3));
    let mut peer = enter(&mut world, remote, 3, from, None);
    let accepted = world.connected(1)[0].0;
    // Ours, of the greater key, has sent its first packet.
    world.dial(1);
    let word = peer.sealer.seal(FrameBuf::from(&b"hi"[..])).unwrap();
    peer.write(word, world.now);
    peer.speak(&mut world, from);
    world.run(Duration::from_secs(1));
    let connected = world.connected(1);
    assert_eq!(connected.len(), 2);
    assert!(connected[1].1, "dialled");
    assert_eq!(world.closed(1), [(accepted, Closed::Duplicate)]);
    assert_eq!((world.connected(0).len(), world.closed(0)), (1, vec![]));
}
