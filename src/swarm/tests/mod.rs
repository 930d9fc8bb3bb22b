//! Two swarms in virtual time, handed finished handshakes: what they do with streams, frames and each
//! other. The DHT is not in play here.

mod away;
mod controls;
mod dead;
mod early;
mod following;
mod idle;
mod lan;
mod leaving;
mod liars;
mod network;
mod paths;
mod places;
mod punching;
mod relaying;
mod relays;
mod seats;
mod silence;
mod sim;
mod strangers;
mod told;
mod waiting;

use super::connections::{Connection, FIRST_PACKET_WAIT, MAX_WAITING, Phase};
use super::dialling::DIAL_TIMEOUT;
use super::hyperdht::{Agreed, ConnectId, Dial, Relays};
use super::secret_stream::noise::SessionKeys;
use super::*;
use crate::crypto::KeyPair;
use sim::Network;
use std::net::SocketAddrV4;
use std::time::Duration;

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
        Agreed { keys, local_id, remote_id, dial, big_datagrams: true, relays: Relays::default() }
    };
    b.accepted(session(key(a), remote, local, [2; 32], [1; 32], None), now);
    let dial = Some(Dial { socket: SocketId::MAIN, to: addr.into() });
    a.dialled(connect, session(key(b), local, remote, [1; 32], [2; 32], dial), now);
}

#[test]
fn a_finished_handshake_becomes_a_connection_on_both_sides() {
    let (mut world, a, b) = Network::pair();
    assert_eq!((world.connected(0), world.connected(1)), (vec![(a, true)], vec![(b, false)]));
    world.send_frame(0, a, b"from a");
    world.send_frame(1, b, &[7; 100_000]);
    world.run(Duration::from_secs(1));
    assert_eq!(world.frames(1), [b"from a".to_vec()]);
    assert_eq!(world.frames(0), [vec![7; 100_000]]);
}

#[test]
fn silence_is_kept_alive_and_the_owner_sees_nothing_of_it() {
    let (mut world, ..) = Network::pair();
    world.run(Duration::from_secs(300));
    assert_eq!((world.closed(0), world.closed(1)), (vec![], vec![]));
    assert_eq!((world.frames(0).len(), world.frames(1).len()), (0, 0));
    let received = |i: usize| world.machines[i].swarm.connections.iter().all(|c| c.has_read);
    assert!(received(0) && received(1));
}

#[test]
fn a_dead_peer_is_noticed_within_twenty_seconds() {
    let (mut world, a, _) = Network::pair();
    world.cut(true);
    world.run(Duration::from_secs(20));
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::TimedOut))]);
}

#[test]
fn of_two_simultaneous_dials_the_one_of_the_greater_key_survives() {
    let mut world = Network::two();
    world.dial(0);
    world.dial(1);
    world.run(Duration::from_secs(30));
    for i in 0..2 {
        let open: Vec<_> =
            world.machines[i].swarm.connections.iter().filter(|c| c.is_open()).collect();
        assert_eq!(open.len(), 1);
        assert_eq!(open[0].initiator, i == 1);
        let told = world.connected(i).len() - world.closed(i).len();
        assert_eq!(told, 1, "the owner knows of one");
    }
}

#[test]
fn a_peer_that_lost_its_connection_may_come_back_before_we_notice() {
    let (mut world, a, b) = Network::pair();
    world.send_frame(0, a, b"x");
    world.send_frame(1, b, b"y");
    world.run(Duration::from_secs(1));
    // The peer restarts: it forgets the connection without a word.
    let stream = a.stream();
    world.machines[0].swarm.connections.remove(stream);
    world.cut(true);
    world.machines[0].swarm.udx.destroy(stream);
    world.settle();
    world.cut(false);
    world.dial(0);
    world.run(Duration::from_secs(2));
    assert_eq!(world.closed(1), [(b, Closed::Duplicate)]);
    assert_eq!(world.connected(1).len(), 2);
}

#[test]
fn an_accepted_handshake_without_a_packet_is_forgotten() {
    let mut world = Network::two();
    world.cut(true);
    world.dial(0);
    assert_eq!(world.machines[1].swarm.connections.waiting(), 1);
    world.run(FIRST_PACKET_WAIT);
    assert_eq!(world.machines[1].swarm.connections.waiting(), 0);
    assert!(world.connected(1).is_empty());
}

#[test]
fn a_flood_of_handshakes_displaces_the_oldest() {
    let mut world = Network::two();
    world.cut(true);
    for _ in 0..MAX_WAITING + 20 {
        world.dial(0);
    }
    assert_eq!(world.machines[1].swarm.connections.waiting(), MAX_WAITING);
}

#[test]
fn a_broken_frame_ends_that_connection_on_both_sides() {
    let (mut world, a, b) = Network::pair();
    world.send_frame(0, a, b"good");
    let _ = world.machines[0].swarm.udx.write(
        a.stream(),
        bytes::Bytes::from(vec![17, 0, 0]),
        world.now,
    );
    let _ =
        world.machines[0].swarm.udx.write(a.stream(), bytes::Bytes::from(vec![1; 17]), world.now);
    world.run(Duration::from_secs(1));
    let decrypt = Closed::Frame(secret_stream::frame::FrameError::Decrypt);
    assert_eq!(world.frames(1), [b"good".to_vec()]);
    assert_eq!(world.closed(1), [(b, decrypt)]);
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::Reset))]);
}

#[test]
fn what_the_owner_does_not_consume_stops_the_sender() {
    let (mut world, a, b) = Network::pair();
    let frames = 160; // 10 MiB
    for _ in 0..frames {
        world.send_frame(0, a, &[1; 65_536]);
    }
    world.run(Duration::from_secs(20));
    let stalled = world.frames(1).len();
    assert!((50..=70).contains(&stalled), "{stalled} frames of 64 KiB in a window of 4 MiB");
    let mut done = 0;
    for _ in 0..200 {
        let have = world.frames(1).len();
        world.machines[1].swarm.consumed(b, (have - done) * 65_536);
        done = have;
        world.run(Duration::from_millis(500));
    }
    assert_eq!(world.frames(1).len(), frames);
    let told =
        world.machines[0].events.iter().any(|e| matches!(e, SwarmEvent::Queued { bytes: 0, .. }));
    assert!(told, "the sender's owner learns that the queue is empty");
}

#[test]
fn a_banned_peer_is_dropped_and_not_accepted() {
    let (mut world, a, b) = Network::pair();
    let until = world.now + Duration::from_secs(60);
    let (key, now) = (world.key(0), world.now);
    world.machines[1].swarm.ban(key, until, now);
    world.run(Duration::from_millis(900));
    assert_eq!(world.closed(1), [(b, Closed::Banned)]);
    assert_eq!(world.closed(0), [(a, Closed::Stream(udx::CloseReason::Reset))]);
    world.dial(0);
    assert_eq!(world.machines[1].swarm.connections.waiting(), 0);
}

#[test]
fn closing_ends_both_sides_behind_the_last_frame() {
    let (mut world, a, b) = Network::pair();
    world.send_frame(0, a, &[3; 200_000]);
    let now = world.now;
    world.machines[0].swarm.close(a, now);
    world.run(Duration::from_secs(2));
    assert_eq!(world.frames(1), [vec![3; 200_000]]);
    assert_eq!(world.closed(0), [(a, Closed::Local)]);
    assert_eq!(world.closed(1), [(b, Closed::RemoteEnded)]);
    assert!(world.machines.iter().all(|peer| peer.swarm.closing.is_empty()));
}

#[test]
fn names_of_closed_connections_do_nothing() {
    let (mut world, a, _) = Network::pair();
    let now = world.now;
    world.machines[0].swarm.close(a, now);
    assert_eq!(world.send_frame(0, a, b"late"), 0);
    world.machines[0].swarm.consumed(a, 5);
    world.machines[0].swarm.close(a, now);
    assert_eq!(world.closed(0).len(), 1);
}

/// Processor time of this thread, whatever else the machine does.
fn cpu() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// A swarm that has peers enough while so many others wait.
fn with_waiting(waiting: u32) -> Network {
    let (mut world, ..) = Network::pair();
    let (topic, now) = (Topic([7; 32]), world.now);
    let swarm = &mut world.machines[0].swarm;
    swarm.limits.max_peers = 1;
    swarm.unsettled.insert(topic);
    for n in 0..waiting {
        let key = PublicKey(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
        swarm.peers.found(key, vec![], topic, false, now, &mut swarm.rng);
    }
    world
}

/// What a pump of it costs.
fn pump_cost(world: &mut Network) -> Duration {
    let (start, mut pumps) = (cpu(), 0);
    while cpu() - start < Duration::from_millis(20) {
        world.machines[0].swarm.end_of_batch(world.now);
        pumps += 1;
    }
    (cpu() - start) / pumps
}

#[test]
fn a_pump_costs_no_more_the_more_peers_wait() {
    let (mut a_few, mut a_lot) = (with_waiting(1000), with_waiting(4000));
    let (mut few, mut many) = (Duration::MAX, Duration::MAX);
    // In turns, so that both meet the same machine.
    for _ in 0..5 {
        few = few.min(pump_cost(&mut a_few));
        many = many.min(pump_cost(&mut a_lot));
    }
    assert!(many <= few * 6, "{few:?} with 1,000, {many:?} with 4,000");
    assert!(many < Duration::from_millis(2), "{many:?}");
}
