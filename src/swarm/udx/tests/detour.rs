//! Streams that have a way through a relay, and what others say to them.

use super::super::packet::Header;
use super::*;

const MS: Duration = Duration::from_millis(1);

/// A stream that leads to its leg, at address 7, and has sent some packets.
fn on_leg() -> (Udx, Instant) {
    let (mut udx, now) = (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), epoch());
    udx.open(Some(A)).unwrap();
    udx.connect(A, SocketId::MAIN, B, address(2), ConnectOptions::default(), now);
    udx.peer_known(A);
    udx.set_leg(A, (SocketId::MAIN, address(7)), 77, B);
    udx.take_leg(A, now);
    udx.write(A, payload(0, 20_000), now).unwrap();
    send(&mut udx, now);
    assert!(udx.streams.get(A).unwrap().sent.next() > 4);
    (udx, now)
}

fn send(udx: &mut Udx, now: Instant) {
    let mut buf = Vec::new();
    while udx.poll_transmit(now, &mut buf, 1).is_some() {}
}

/// A packet of the peer, or of who says so, comes.
fn comes(udx: &mut Udx, from: u16, flags: u8, ack: u32, now: Instant) {
    let seq = if flags == flag::DESTROY { 1 << 20 } else { 0 };
    let header = Header { flags, data_offset: 0, stream: A, window: 4 << 20, seq, ack };
    udx.handle_datagram(SocketId::MAIN, address(from), &header.encode(), now, &mut Collect::new());
    udx.end_of_batch(now);
}

fn acknowledged(udx: &Udx) -> u64 {
    udx.streams.get(A).unwrap().sent.una() - packet::FIRST_SEQ
}

#[test]
fn who_has_a_leg_believes_nobody_elsewhere() {
    let (mut udx, start) = on_leg();
    let now = start + MS;
    let before = udx.last_heard(A);
    for flags in [0, flag::HEARTBEAT, flag::DESTROY] {
        comes(&mut udx, 9, flags, 2, now);
    }
    assert_eq!((acknowledged(&udx), udx.last_heard(A)), (0, before));
    assert!(udx.heard(A).direct.is_none() && udx.heard(A).by_leg.is_none());
    comes(&mut udx, 7, 0, 2, now);
    assert_eq!((acknowledged(&udx), udx.last_heard(A)), (2, Some(now)));
    comes(&mut udx, 7, flag::DESTROY, 2, now);
    assert!(udx.streams.get(A).is_none());
}

/// It may be the peer who answers there, and may not.
#[test]
fn where_the_peer_is_looked_for_it_may_acknowledge_and_not_end() {
    let (mut udx, start) = on_leg();
    let (now, way) = (start + MS, (SocketId::MAIN, address(9)));
    udx.try_way(A, way, 0, ORDINARY_MAX, now);
    comes(&mut udx, 9, 0, 1, now);
    comes(&mut udx, 9, flag::DESTROY, 1, now);
    assert_eq!((acknowledged(&udx), udx.heard(A).direct), (1, Some(now)));
    // It came to nothing.
    udx.take_leg(A, now);
    comes(&mut udx, 9, 0, 2, now + MS);
    assert_eq!((acknowledged(&udx), udx.last_heard(A)), (1, Some(now)));
    // It was the peer, which has written something there.
    udx.heard_from(A, way, 40, now + MS);
    comes(&mut udx, 9, 0, 2, now + 2 * MS);
    assert_eq!((acknowledged(&udx), udx.last_heard(A)), (2, Some(now + 2 * MS)));
    comes(&mut udx, 9, flag::DESTROY, 2, now + 2 * MS);
    assert!(udx.streams.get(A).is_none());
}

/// What it said of what has come went a way that may be dead.
#[test]
fn who_goes_back_to_its_leg_acknowledges_there() {
    let (mut udx, now) = on_leg();
    udx.try_way(A, (SocketId::MAIN, address(9)), 0, ORDINARY_MAX, now);
    send(&mut udx, now);
    udx.take_leg(A, now);
    let mut buf = Vec::new();
    let mut sent = std::iter::from_fn(|| udx.poll_transmit(now, &mut buf, 1));
    assert!(sent.any(|transmit| transmit.to == address(7)));
}
