//! What a peer can make us hold, and for how long.

use super::super::share::MIN_SHARE;
use super::*;
use crate::swarm::udx::packet::Header;

/// Keeps count of what it gets and says that all of it is still held, each byte for `cost`.
struct Hoard {
    bytes: usize,
    cost: usize,
}

impl Sink for Hoard {
    fn data(&mut self, _: u32, payload: &[u8]) {
        self.bytes += payload.len();
    }

    fn held(&self, _: u32) -> Option<usize> {
        Some(self.bytes * self.cost)
    }
}

pub(super) fn open(udx: &mut Udx, id: u32, now: Instant) {
    open_at(udx, id, address(2), now);
}

pub(super) fn open_at(udx: &mut Udx, id: u32, to: SocketAddr, now: Instant) {
    udx.open(Some(id)).unwrap();
    udx.connect(id, SocketId::MAIN, id, to, ConnectOptions::default(), now);
}

pub(super) fn data(stream: u32, seq: u32, len: usize) -> Vec<u8> {
    let header = Header { flags: flag::DATA, data_offset: 0, stream, window: 1 << 20, seq, ack: 0 };
    [&header.encode()[..], &vec![7; len]].concat()
}

/// The window and acknowledgement that the stream tells its peer.
pub(super) fn told(udx: &mut Udx, id: u32, now: Instant) -> Option<(u32, u32)> {
    udx.end_of_batch(now);
    let (mut buf, mut last) = (Vec::new(), None);
    while udx.poll_transmit(now, &mut buf, 1).is_some() {
        let header = Packet::parse(&buf).map(|p| p.header).filter(|h| h.stream == id);
        last = header.map(|h| (h.window, h.ack)).or(last);
    }
    last
}

#[test]
fn a_peer_that_ignores_the_window_is_not_listened_to() {
    for cost in [1, 13] {
        let now = epoch();
        let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        open(&mut udx, A, now);
        let mut sink = Hoard { bytes: 0, cost };
        for seq in 0..60_000 {
            udx.handle_datagram(SocketId::MAIN, address(2), &data(A, seq, 1400), now, &mut sink);
        }
        let held = sink.bytes * cost;
        assert!((MAX_WINDOW..=2 * MAX_WINDOW + 1400 * cost).contains(&held), "{held}");
        let taken = (sink.bytes / 1400) as u32;
        assert_eq!(
            told(&mut udx, A, now),
            Some((0, taken)),
            "what was not taken is not acknowledged"
        );
        // The owner used it up: what comes next is taken.
        sink.bytes = 0;
        udx.set_backlog(A, 0);
        udx.handle_datagram(SocketId::MAIN, address(2), &data(A, taken, 1400), now, &mut sink);
        assert_eq!(sink.bytes, 1400);
    }
}

#[test]
fn early_and_out_of_order_packets_count_for_the_budget() {
    let now = epoch();
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let mut sink = Collect::new();
    udx.open(Some(A)).unwrap();
    udx.handle_datagram(SocketId::MAIN, address(2), &data(A, 0, 1000), now, &mut sink);
    assert!(udx.shares.held >= 1000);
    open(&mut udx, B, now);
    let before = udx.shares.held;
    for seq in 1..=100 {
        udx.handle_datagram(SocketId::MAIN, address(2), &data(B, seq, 1), now, &mut sink);
    }
    assert!(udx.shares.held - before >= 100 * 100, "a packet of one byte costs more than a byte");
    udx.handle_datagram(SocketId::MAIN, address(2), &data(B, 0, 1), now, &mut sink);
    assert_eq!(udx.shares.held, before);
}

/// A stream with data for a peer whose window is closed.
fn stuck() -> Pair {
    let mut pair = Pair::connected(LinkConfig::default(), LinkConfig::default(), 1);
    pair.machines[1].udx.set_backlog(B, MAX_WINDOW);
    pair.machines[0].total = 2000;
    pair.machines[1].total = 100;
    pair.run(Duration::from_secs(1));
    pair.machines[0].total = 100_000;
    pair.run(Duration::from_secs(1));
    assert!(pair.machines[1].sink.bytes < 100_000 && pair.machines[0].closed().is_none());
    pair
}

#[test]
fn a_peer_that_vanishes_behind_a_closed_window_is_given_up() {
    let mut pair = stuck();
    pair.link(1, 0).cfg.loss = 1.0;
    let at = pair.elapsed();
    assert!(
        pair.run_until(Duration::from_secs(60), |p| p.machines[0].closed().is_some()).is_some(),
        "still there"
    );
    assert_eq!(pair.machines[0].closed(), Some(CloseReason::TimedOut));
    assert!(pair.elapsed() - at < Duration::from_secs(20), "{:?}", pair.elapsed() - at);
}

#[test]
fn a_peer_that_answers_may_keep_its_window_closed() {
    let mut pair = stuck();
    pair.link(1, 0).cfg.loss = 0.3;
    pair.run(Duration::from_secs(3600));
    assert_eq!(pair.machines[0].closed(), None);
    pair.machines[1].udx.set_backlog(B, 0);
    assert!(
        pair.run_until(Duration::from_secs(20), |p| p.machines[1].sink.bytes == 100_000).is_some()
    );
}

#[test]
fn a_peer_that_has_only_a_share_learns_of_the_room_too() {
    let now = epoch();
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let streams = 200;
    (1..=streams).for_each(|id| open(&mut udx, id, now));
    (1..streams).for_each(|id| udx.set_partial(id, 400 << 10));
    assert!(udx.shares.of_each(udx.streams.len()) < MAX_WINDOW / 4);
    let (mut sink, mut seq) = (Hoard { bytes: 0, cost: 1 }, 0);
    let window = loop {
        udx.handle_datagram(SocketId::MAIN, address(2), &data(streams, seq, 1400), now, &mut sink);
        let Some((window, ack)) = told(&mut udx, streams, now) else { continue };
        if window == 0 || ack == seq {
            break window;
        }
        seq = ack;
    };
    assert!(window < 1400, "{window}");
    udx.set_backlog(streams, 0);
    let (window, _) = told(&mut udx, streams, now).unwrap();
    assert!(window as usize >= MIN_SHARE, "{window}");
}

#[test]
fn a_window_smaller_than_the_next_packet_does_not_stop_a_stream_without_a_timer() {
    for window in [1, 30, 500, 1000] {
        let now = epoch();
        let (mut udx, mut sink) =
            (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), Collect::new());
        open(&mut udx, A, now);
        let header =
            Header { flags: flag::DATA, data_offset: 0, stream: A, window, seq: 0, ack: 0 };
        let word = [&header.encode()[..], &[7; 10]].concat();
        udx.handle_datagram(SocketId::MAIN, address(2), &word, now, &mut sink);
        assert!(told(&mut udx, A, now).is_some());
        // The packet that tells of more room gets lost.
        udx.write(A, payload(0, 50_000), now).unwrap();
        let mut buf = Vec::new();
        let went = udx.poll_transmit(now, &mut buf, 1).is_some();
        assert!(went, "a window of {window}");
        assert!(udx.poll_transmit(now, &mut buf, 1).is_none(), "no more than one");
        assert!(udx.poll_timeout().is_some(), "a window of {window}");
    }
}

#[test]
fn a_path_on_which_the_peer_has_spoken_is_not_moved_by_others() {
    for (first, moves) in [(address(2), false), (address(3), true)] {
        let now = epoch();
        let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        udx.open(Some(A)).unwrap();
        let options = ConnectOptions { unproven: Some(1000), ..ConnectOptions::default() };
        udx.connect(A, SocketId::MAIN, A, address(2), options, now);
        let mut sink = Hoard { bytes: 0, cost: 0 };
        udx.handle_datagram(SocketId::MAIN, first, &data(A, 0, 100), now, &mut sink);
        assert_eq!(udx.remote(A), Some(if moves { address(3) } else { address(2) }));
        udx.handle_datagram(SocketId::MAIN, address(4), &data(A, 1, 100), now, &mut sink);
        assert_eq!(udx.remote(A), Some(first));
    }
}

/// An acknowledgement of everything below `ack`, or a heartbeat.
fn says(stream: u32, flags: u8, ack: u32) -> Vec<u8> {
    Header { flags, data_offset: 0, stream, window: 4 << 20, seq: 1, ack }.encode().to_vec()
}

#[test]
fn what_comes_from_elsewhere_tells_nothing_of_an_unproven_address() {
    let (mut now, mut sink, mut buf) = (epoch(), Hoard { bytes: 0, cost: 0 }, Vec::new());
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    udx.open(Some(A)).unwrap();
    let options = ConnectOptions { unproven: Some(79), ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, A, address(2), options, now);
    udx.handle_datagram(SocketId::MAIN, address(2), &data(A, 0, 10), now, &mut sink);
    udx.peer_known(A);
    udx.write(A, payload(0, 5000), now).unwrap();
    let (start, mut turns, mut moved) = (now, 0, None);
    while udx.streams.has(A) && now < start + Duration::from_secs(120) {
        while udx.poll_transmit(now, &mut buf, 1).is_some() {}
        now = udx.poll_timeout().unwrap();
        udx.handle_timeout(now);
        // It acknowledges what went to another, and asks.
        for (flags, ack) in [(0, 1), (flag::HEARTBEAT, 1)] {
            let packet = says(A, flags, ack);
            udx.handle_datagram(SocketId::MAIN, address(3), &packet, now, &mut sink);
        }
        udx.end_of_batch(now);
        turns += 1;
        if udx.remote(A) == Some(address(3)) {
            moved = Some(turns);
            break;
        }
        assert_eq!(udx.streams.get(A).unwrap().sent.una(), packet::FIRST_SEQ);
    }
    // Who speaks from elsewhere is looked for there in the end, and nothing goes there unasked.
    assert!(moved.is_some_and(|turns| turns >= 2), "{moved:?}");
    let allowance = udx.streams.get(A).unwrap().unproven.unwrap();
    assert!(allowance.left() <= 3 * 40 && allowance.asked.is_none(), "{allowance:?}");
}

#[test]
fn acknowledgements_of_a_proven_peer_may_come_from_another_of_its_addresses() {
    let (mut now, mut sink, mut buf) = (epoch(), Hoard { bytes: 0, cost: 0 }, Vec::new());
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    open(&mut udx, A, now);
    udx.write(A, payload(0, 100_000), now).unwrap();
    let mut next = 0;
    // It was heard from there: a frame was opened.
    udx.handle_datagram(SocketId::MAIN, address(3), &data(A, 0, 100), now, &mut sink);
    udx.opened(A, 0, now);
    udx.handle_datagram(SocketId::MAIN, address(2), &data(A, 0, 100), now, &mut sink);
    for _ in 0..200 {
        while udx.poll_transmit(now, &mut buf, 1).is_some() {
            let header = Packet::parse(&buf).unwrap().header;
            next = if header.has(flag::DATA) { next.max(header.seq + 1) } else { next };
        }
        now += Duration::from_millis(10);
        udx.handle_datagram(SocketId::MAIN, address(3), &says(A, 0, next), now, &mut sink);
        // It is where it was, too: otherwise it would be followed.
        udx.handle_datagram(SocketId::MAIN, address(2), &says(A, 0, 1), now, &mut sink);
        udx.handle_timeout(now);
    }
    assert_eq!(udx.remote(A), Some(address(2)));
    assert!(udx.unsent(A) == 0 && udx.streams.get(A).unwrap().sent.is_empty());
}
