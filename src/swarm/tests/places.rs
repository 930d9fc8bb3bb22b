//! Places among the connections: what strangers can take of them, and who must give way.

use super::strangers::{Stranger, elsewhere, enter};
use super::*;
use crate::codec::FrameBuf;
use crate::crypto::hash;
use crate::swarm::connections::CONFIRM_WAIT;
use crate::swarm::room::{MAX_PER_HOST, MAX_UNUSED};
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

const SECOND: Duration = Duration::from_secs(1);
const TOPIC: Topic = Topic([7; 32]);

fn key(n: u32) -> PublicKey {
    PublicKey(KeyPair::from_seed(&hash::hash(&[&n.to_le_bytes()])).public())
}

/// The `n`th port of one host.
fn port(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1), 4000 + n as u16)
}

fn found(world: &mut Network, remote: PublicKey) {
    let (now, swarm) = (world.now, &mut world.machines[1].swarm);
    swarm.topics.join(TOPIC, JoinOptions { server: false, client: true }, now);
    swarm.peers.found(remote, vec![], TOPIC, false, now, &mut swarm.rng);
}

/// Whether swarm 1 begins to dial anybody.
fn dials(world: &mut Network) -> bool {
    world.machines[1].swarm.pump(world.now);
    // Without a DHT it comes to nothing at once.
    let dialled = world.machines[1].swarm.connections.dialling() > 0;
    world.settle();
    dialled || world.machines[1].events.iter().any(|e| matches!(e, SwarmEvent::DialFailed { .. }))
}

#[test]
fn one_host_has_a_share_of_the_places_however_many_keys_it_has() {
    let mut world = Network::two();
    let max = world.machines[1].swarm.limits.max_connections as u32;
    let _held: Vec<Stranger> =
        (0..max + 20).map(|n| enter(&mut world, key(n), n, port(n), Some(b"hi"))).collect();
    // Where others need none; a part of them is kept for those.
    assert_eq!(world.machines[1].swarm.connections.counted() as u32, max - max / 4);
    assert_eq!(world.closed(1), [], "who is of use stays");
    world.dial(0);
    world.run(SECOND);
    assert_eq!(world.connected(0).len(), 1);
    assert_eq!(world.closed(0), []);
}

#[test]
fn many_of_one_host_have_places_while_there_are_any_and_of_this_machine_all() {
    let here = |n: u32| SocketAddrV4::new(Ipv4Addr::LOCALHOST, 4000 + n as u16);
    let max = Limits::default().max_connections as u32;
    for (at, many) in [(here as fn(u32) -> _, max), (port, MAX_PER_HOST as u32 + 50)] {
        let mut world = Network::two();
        let _held: Vec<Stranger> =
            (0..many).map(|n| enter(&mut world, key(n), n, at(n), Some(b"hi"))).collect();
        assert_eq!(world.machines[1].swarm.connections.counted() as u32, many);
        assert_eq!(world.closed(1), []);
    }
}

#[test]
fn who_is_silent_makes_room_the_oldest_first() {
    let mut world = Network::two();
    world.machines[1].swarm.limits.max_connections = 6;
    let useful = enter(&mut world, key(0), 0, elsewhere(0), Some(b"hi"));
    let held: Vec<Stranger> = (1..6)
        .map(|n| {
            world.now += Duration::from_millis(10);
            // Some have shown that they know their keys, and no more.
            let word = (n % 2 == 0).then_some(&b""[..]);
            enter(&mut world, key(n), n, elsewhere(n), word)
        })
        .collect();
    let first = world.connected(1)[1].0;
    world.dial(0);
    world.run(SECOND / 10);
    assert_eq!((world.connected(0).len(), world.closed(1)), (1, vec![]));
    // When it has shown where it is.
    world.run(5 * SECOND);
    assert_eq!(world.closed(0), []);
    assert_eq!(world.closed(1), [(first, Closed::Local)]);
    assert_eq!(world.machines[1].swarm.connections.counted(), 6);
    drop((useful, held));
}

#[test]
fn a_host_whose_share_is_used_up_by_the_silent_still_gets_in() {
    let mut world = Network::two();
    let share = MAX_PER_HOST as u32;
    world.machines[1].swarm.limits.max_connections = MAX_PER_HOST + 10;
    let _held: Vec<Stranger> =
        (0..share).map(|n| enter(&mut world, key(n), n, port(n), None)).collect();
    let other = enter(&mut world, key(500), 500, elsewhere(5), None);
    let late = enter(&mut world, key(900), 900, port(900), Some(b"hi"));
    assert!(
        world.machines[1].swarm.connections.iter().any(|c| c.remote == key(900) && c.is_open())
    );
    assert_eq!(world.closed(1).len(), 1);
    assert_eq!(world.machines[1].swarm.connections.counted(), MAX_PER_HOST + 1);
    drop((other, late));
}

#[test]
fn strangers_do_not_keep_us_from_dialling() {
    for word in [None, Some(&b""[..]), Some(&b"hi"[..])] {
        let mut world = Network::two();
        let _held: Vec<Stranger> =
            (0..100).map(|n| enter(&mut world, key(n), n, elsewhere(n), word)).collect();
        assert_eq!(world.machines[1].swarm.connections.counted(), 100);
        let remote = world.key(0);
        found(&mut world, remote);
        assert!(dials(&mut world), "{word:?}");
    }
}

#[test]
fn a_copy_of_a_handshake_does_not_stand_for_the_peer() {
    let mut world = Network::two();
    let (remote, from) = (world.key(0), elsewhere(3));
    let mut copy = Stranger::shake(&mut world, remote, 3, None, true);
    let header = copy.sealer.header().to_vec();
    copy.write(header, world.now);
    copy.speak(&mut world, from);
    world.settle();
    assert_eq!(world.connected(1).len(), 1);
    found(&mut world, remote);
    assert!(dials(&mut world), "the peer itself is looked for all the same");
    world.dial(1);
    world.run(SECOND);
    // Ours is the one that stays.
    assert_eq!(world.connected(1).len(), 2);
    assert_eq!(world.closed(1), [(world.connected(1)[0].0, Closed::Duplicate)]);
    let conn = world.connected(1)[1].0;
    world.send_frame(1, conn, b"to the peer");
    world.run(SECOND);
    assert_eq!(world.frames(0), [b"to the peer".to_vec()]);
}

#[test]
fn a_copy_of_a_handshake_is_not_connected_for_ever() {
    let mut world = Network::two();
    let (remote, from) = (world.key(0), elsewhere(3));
    let mut copy = Stranger::shake(&mut world, remote, 3, None, true);
    let header = copy.sealer.header().to_vec();
    copy.write(header, world.now);
    copy.speak(&mut world, from);
    let start = world.now;
    // It acknowledges everything.
    while world.machines[1].swarm.connections.iter().count() > 0 {
        copy.listen(&mut world, from);
        copy.speak(&mut world, from);
        world.now += SECOND / 2;
        world.machines[1].swarm.handle_timeout(world.now);
        assert!(world.now <= start + CONFIRM_WAIT + SECOND);
    }
    assert!(world.now >= start + CONFIRM_WAIT);
}

#[test]
fn being_announced_keeps_a_silent_connection_for_a_while_only() {
    let (mut world, _, b) = Network::pair();
    let remote = world.key(0);
    found(&mut world, remote);
    let start = world.now;
    while world.closed(1).is_empty() {
        world.run(15 * SECOND);
        let now = world.now;
        world.machines[1].swarm.release(b, now);
        world.settle();
        assert!(now - start <= MAX_UNUSED + 15 * SECOND);
    }
    assert!(world.now - start >= MAX_UNUSED);
    // Where it was asked for by key it stays, and so does one that had a use in between.
    let (mut world, _, b) = Network::pair();
    found(&mut world, remote);
    for pause in [15, 15, 40, 15, 15, 40, 15, 15] {
        world.run(pause * SECOND);
        let now = world.now;
        world.machines[1].swarm.release(b, now);
    }
    world.machines[1].swarm.peers.join_explicit(remote, world.now, &mut StdRng::seed_from_u64(1));
    for _ in 0..20 {
        world.run(15 * SECOND);
        let now = world.now;
        world.machines[1].swarm.release(b, now);
    }
    assert_eq!(world.closed(1), []);
}

#[test]
fn a_frame_that_was_begun_and_never_ends_ends_the_connection() {
    for still in [true, false] {
        let mut world = Network::two();
        let from = elsewhere(3);
        let mut peer = enter(&mut world, key(3), 3, from, Some(b"hi"));
        let conn = world.connected(1)[0].0;
        let now = world.now;
        world.machines[1].swarm.consumed(conn, 2);
        // A megabyte is announced.
        peer.write(vec![0, 0, 16, 1, 2, 3], now);
        for second in 0..90 {
            if !still {
                peer.write(vec![second], world.now);
            }
            peer.listen(&mut world, from);
            peer.speak(&mut world, from);
            world.now += SECOND;
            world.machines[1].swarm.handle_timeout(world.now);
        }
        world.settle();
        assert_eq!(world.closed(1).len(), usize::from(still));
    }
}

#[test]
fn a_second_connection_of_a_peer_may_not_send_much_before_its_first_whole_frame() {
    let (mut world, ..) = Network::pair();
    let (remote, from) = (world.key(0), elsewhere(3));
    let mut copy = Stranger::shake(&mut world, remote, 3, None, true);
    let header = copy.sealer.header().to_vec();
    copy.write(header, world.now);
    copy.write(vec![0xff; 200_000], world.now);
    for _ in 0..50 {
        copy.speak(&mut world, from);
        copy.listen(&mut world, from);
    }
    assert_eq!(world.machines[1].swarm.connections.iter().count(), 1);
    assert_eq!(world.closed(1), []);
}

#[test]
fn whoever_was_of_no_use_is_not_dialled_again_until_it_is_found_again() {
    let mut world = Network::two();
    world.dial(1);
    world.run(SECOND);
    let (remote, conn, start) = (world.key(0), world.connected(1)[0].0, world.now);
    found(&mut world, remote);
    while world.closed(1).is_empty() {
        world.run(15 * SECOND);
        world.on(1, |peer, now| peer.swarm.release(conn, now));
        assert!(world.now - start <= MAX_UNUSED + 15 * SECOND);
    }
    world.run(60 * SECOND);
    assert!(!dials(&mut world));
    found(&mut world, remote);
    assert!(dials(&mut world));
}

#[test]
fn a_few_hosts_do_not_hold_all_places() {
    let mut world = Network::two();
    let hosts = 4;
    let at = |n: u32| SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1 + (n % 4) as u8), 4000);
    let max = world.machines[1].swarm.limits.max_connections as u32;
    let mut held: Vec<Stranger> =
        (0..max).map(|n| enter(&mut world, key(n), n, at(n), Some(b"hi"))).collect();
    assert_eq!(world.closed(1), []);
    let of = |world: &Network, host: Ipv4Addr| {
        let host = host.into();
        world.machines[1].swarm.connections.accepted().filter(|c| c.is_at(host)).count()
    };
    // They cannot come instead of each other, newcomers come instead of them.
    held.push(enter(&mut world, key(999), 999, at(0), Some(b"hi")));
    assert!(world.machines[1].swarm.connections.iter().all(|c| c.remote != key(999)));
    for n in 0..20 {
        held.push(enter(&mut world, key(1000 + n), 1000 + n, elsewhere(100 + n), Some(b"hi")));
    }
    world.dial(0);
    world.run(SECOND);
    assert_eq!((world.connected(0).len(), world.closed(0)), (1, vec![]));
    assert!((0..20).all(|n| of(&world, *elsewhere(100 + n).ip()) == 1));
    // All of them lose as much.
    assert!((0..hosts).all(|n| (58..=59).contains(&of(&world, *at(n).ip()))));
    // One host of many comes to have as many as they, and no more.
    for n in 0..100 {
        let from = SocketAddrV4::new(Ipv4Addr::new(12, 0, 0, 1), 4000 + n as u16);
        held.push(enter(&mut world, key(2000 + n), 2000 + n, from, Some(b"hi")));
    }
    let late = of(&world, Ipv4Addr::new(12, 0, 0, 1));
    assert!((0..hosts).all(|n| of(&world, *at(n).ip()).abs_diff(late) <= 1), "{late}");
}

#[test]
fn the_host_with_most_places_loses_one_first() {
    // Silent, or of use.
    for word in [None, Some(&b"hi"[..])] {
        let mut world = Network::two();
        world.machines[1].swarm.limits.max_connections = 6;
        let hosts = [1, 2, 3, 3, 3, 2];
        let _held: Vec<Stranger> = (0..6)
            .map(|n| {
                world.now += Duration::from_millis(10);
                enter(&mut world, key(n), n, elsewhere(hosts[n as usize]), word)
            })
            .collect();
        let oldest_of_it = world.connected(1)[2].0;
        let _newcomer = enter(&mut world, key(9), 9, elsewhere(9), Some(b"hi"));
        assert_eq!(world.closed(1), [(oldest_of_it, Closed::Local)], "{word:?}");
        assert!(world.machines[1].swarm.connections.iter().any(|c| c.remote == key(9)));
    }
}

/// Whether somebody gets in where the only place is taken by one who says something every `pause` seconds.
fn gets_in(pause: u64, explicit: bool) -> Vec<bool> {
    let mut world = Network::two();
    world.machines[1].swarm.limits.max_connections = 1;
    let from = elsewhere(3);
    let mut peer = enter(&mut world, key(3), 3, from, Some(b"hi"));
    if explicit {
        let (now, swarm) = (world.now, &mut world.machines[1].swarm);
        swarm.peers.join_explicit(key(3), now, &mut swarm.rng);
    }
    let mut come_in = Vec::new();
    for second in 1..=620u64 {
        let frame = if second % pause == 0 { &b"have you got this?"[..] } else { &b""[..] };
        let frame = peer.sealer.seal(FrameBuf::from(frame)).unwrap();
        peer.write(frame, world.now);
        peer.speak(&mut world, from);
        peer.listen(&mut world, from);
        world.now += SECOND;
        world.machines[1].swarm.handle_timeout(world.now);
        if second % 290 == 0 || second % 310 == 0 {
            let n = 1000 + second as u32;
            let newcomer = enter(&mut world, key(n), n, elsewhere(n), Some(b"hi"));
            come_in.push(world.machines[1].swarm.connections.iter().any(|c| c.remote == key(n)));
            drop(newcomer);
            if come_in.last() == Some(&true) {
                break;
            }
        }
    }
    come_in
}

#[test]
fn who_neither_asks_nor_gives_for_minutes_makes_room() {
    assert_eq!(gets_in(1000, false), [false, true]);
    assert_eq!(gets_in(100, false), [false; 4], "who asks stays");
    assert_eq!(gets_in(1000, true), [false; 4], "and who was asked for");
}

/// Dials at a time where a few are connected already: of our drive, or strangers.
fn dials_beside(sought: bool) -> usize {
    let mut world = Network::two();
    let few = 100..103;
    let _peers: Vec<_> =
        few.clone().map(|n| enter(&mut world, key(n), n, elsewhere(n), Some(b"hi"))).collect();
    few.for_each(|n| found(&mut world, key(if sought { n } else { n + 3 })));
    let (now, swarm) = (world.now, &mut world.machines[1].swarm);
    for n in 110..200 {
        // By a relay that says nothing.
        swarm.peers.found(key(n), vec![elsewhere(n)], TOPIC, false, now, &mut swarm.rng);
    }
    world.on(1, |peer, now| peer.swarm.pump(now));
    world.machines[1].swarm.connections.dialling()
}

#[test]
fn strangers_do_not_slow_down_the_search_for_the_first_peers_of_a_drive() {
    let limits = Limits::default();
    assert_eq!(dials_beside(false), limits.max_sought);
    assert_eq!(dials_beside(true), limits.max_parallel_first);
}

/// As many strangers as `hosts`, each in the name of another of them. All of them are elsewhere, see nothing that is
/// sent to these, and say `word`.
fn blind(world: &mut Network, first: u32, hosts: &[SocketAddrV4]) -> Vec<Stranger> {
    let own = elsewhere(5000);
    let shake = |(n, from): (u32, &SocketAddrV4)| {
        let mut peer = Stranger::shake(world, key(n), n, Some(own), false);
        let header = peer.sealer.header().to_vec();
        peer.write(header, world.now);
        let word = peer.sealer.seal(FrameBuf::from(&b"hi"[..])).unwrap();
        peer.write(word, world.now);
        peer.speak(world, *from);
        world.settle();
        peer
    };
    (first..).zip(hosts).map(shake).collect()
}

#[test]
fn who_is_not_where_he_says_takes_no_place_and_does_not_stay() {
    let mut world = Network::two();
    let max = world.machines[1].swarm.limits.max_connections as u32;
    let hosts: Vec<SocketAddrV4> = (0..max).map(elsewhere).collect();
    let mut held = blind(&mut world, 0, &hosts);
    for (conn, _) in world.connected(1) {
        world.on(1, |peer, now| peer.swarm.send(conn, FrameBuf::from(&[1; 400][..]), now));
    }
    let open = |w: &Network| w.machines[1].swarm.connections.iter().filter(|c| c.is_open()).count();
    assert!(open(&world) <= MAX_WAITING && open(&world) > 200);
    let newcomer = enter(&mut world, key(9000), 9000, elsewhere(9000), Some(b"hi"));
    assert_eq!(world.machines[1].swarm.connections.counted(), 1);
    // From his own address he asks, and says something, as often as he likes.
    for second in 0..70u64 {
        if second % 4 == 0 {
            for (n, peer) in held.iter_mut().enumerate() {
                let now = world.now;
                let header = udx::packet::Header {
                    flags: udx::packet::flag::HEARTBEAT,
                    data_offset: 0,
                    stream: 0x10_0000 + n as u32,
                    window: 4 << 20,
                    seq: 2,
                    ack: 0,
                };
                let own = elsewhere(5000);
                let bytes = header.encode();
                world.machines[1].swarm.handle_datagrams(
                    SocketId::MAIN,
                    own.into(),
                    &bytes,
                    20,
                    now,
                );
                let word = peer.sealer.seal(FrameBuf::from(&b"hi"[..])).unwrap();
                peer.write(word, now);
                peer.speak(&mut world, own);
            }
        }
        world.run(SECOND);
    }
    let of_them = |c: &&Connection| (0..max).any(|n| c.remote == key(n));
    assert_eq!(world.machines[1].swarm.connections.iter().filter(of_them).count(), 0);
    drop(newcomer);
}

#[test]
fn who_speaks_in_the_name_of_a_host_does_not_keep_it_out_and_does_not_make_it_known() {
    let mut world = Network::two();
    world.join(1, TOPIC, JoinOptions { server: true, client: false });
    let ports: Vec<SocketAddrV4> = (0..MAX_PER_HOST as u32 + 10).map(port).collect();
    let _held = blind(&mut world, 0, &ports);
    assert!(!world.machines[1].swarm.dht.is_known((*port(0).ip()).into()));
    let itself = enter(&mut world, key(777), 777, port(900), Some(b"hi"));
    let is_in = |c: &Connection| c.remote == key(777) && c.is_placed();
    assert!(world.machines[1].swarm.connections.iter().any(is_in));
    assert!(world.machines[1].swarm.dht.is_known((*port(0).ip()).into()));
    drop(itself);
}

#[test]
fn a_peer_is_asked_behind_the_first_message_and_has_a_place_a_round_trip_later() {
    let (mut world, a, b) = Network::pair();
    let placed =
        |w: &Network, i: usize| w.machines[i].swarm.connections.iter().filter(|c| c.proven).count();
    world.run(5 * SECOND);
    world.run(SECOND / 20);
    assert_eq!((placed(&world, 0), placed(&world, 1)), (1, 1), "silent ones too");
    let (mut world, ..) = (Network::two(), a, b);
    world.dial(0);
    world.run(SECOND / 50);
    let b = world.connected(1)[0].0;
    world.send_frame(1, b, b"what have you got?");
    let heard = world.run_until(SECOND, |w| !w.frames(0).is_empty()).unwrap();
    assert!(heard <= Duration::from_millis(6), "{heard:?}");
    world.run(Duration::from_millis(16));
    assert_eq!(placed(&world, 1), 1);
}
