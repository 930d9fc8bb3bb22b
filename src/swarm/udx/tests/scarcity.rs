//! What becomes of peers when all together make us hold much.

use super::super::share::{MAX_HELD, MIN_SHARE};
use super::bounds::{data, open_at, told};
use super::challenge::unproven;
use super::flow::path;
use super::*;

/// Bytes of the longest message that the reference sends.
const MESSAGE: usize = 8 << 20;

fn host(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + n).into(), 4000)
}

fn machine() -> Udx {
    Udx::new(StdRng::seed_from_u64(1), UdxConfig::default())
}

struct Count(usize);

impl Sink for Count {
    fn data(&mut self, _: u32, payload: &[u8]) {
        self.0 += payload.len();
    }
}

/// Streams that ended, in their order.
fn ended(udx: &mut Udx) -> Vec<u32> {
    let events = std::iter::from_fn(|| udx.poll_event());
    let closed = |event| match event {
        UdxEvent::Closed { id, reason: CloseReason::Overfull } => Some(id),
        _ => None,
    };
    events.filter_map(closed).collect()
}

/// One peer that sends a message, and keeps to the window or does not.
#[derive(Clone, Copy)]
struct Sender {
    id: u32,
    sent: u32,
    got: usize,
    window: usize,
}

impl Sender {
    fn is_done(&self) -> bool {
        self.got >= MESSAGE
    }

    /// Sends the next packet; whether it was taken.
    fn send(&mut self, udx: &mut Udx, now: Instant) -> bool {
        let mut sink = Count(0);
        let (socket, packet) = (SocketId::MAIN, data(self.id, self.sent, 1400));
        udx.handle_datagram(socket, host(self.id), &packet, now, &mut sink);
        self.sent += u32::from(sink.0 > 0);
        self.got += sink.0;
        udx.set_partial(self.id, if self.is_done() { 0 } else { self.got });
        sink.0 > 0
    }
}

fn senders(udx: &mut Udx, count: u32, now: Instant) -> Vec<Sender> {
    (1..=count).for_each(|id| open_at(udx, id, host(id), now));
    (1..=count).map(|id| Sender { id, sent: 0, got: 0, window: MAX_WINDOW }).collect()
}

#[test]
fn long_messages_at_the_same_speed_all_arrive_where_peers_keep_to_the_window() {
    for count in [4, 10, 16, 20] {
        let (mut udx, now) = (machine(), epoch());
        let mut peers = senders(&mut udx, count, now);
        for round in 0.. {
            assert!(round < 2000, "{count} peers");
            // A round trip: what was offered comes, one packet of each after the other.
            let mut flight: Vec<usize> = peers.iter().map(|p| p.window / 1400).collect();
            while flight.iter().any(|left| *left > 0) {
                for (peer, left) in peers.iter_mut().zip(&mut flight) {
                    *left = if peer.is_done() { 0 } else { left.saturating_sub(1) };
                    if *left > 0 {
                        assert!(peer.send(&mut udx, now));
                    }
                }
                assert!(udx.shares.held <= MAX_HELD);
            }
            udx.end_of_batch(now);
            let mut buf = Vec::new();
            while udx.poll_transmit(now, &mut buf, 1).is_some() {
                let header = Packet::parse(&buf).unwrap().header;
                peers[header.stream as usize - 1].window = header.window as usize;
            }
            assert_eq!(ended(&mut udx), [0; 0], "{count} peers");
            if peers.iter().all(Sender::is_done) {
                break;
            }
        }
    }
}

#[test]
fn peers_that_do_not_keep_to_the_window_end_one_by_one_and_the_others_arrive() {
    for count in [16, 20, 40] {
        let (mut udx, now) = (machine(), epoch());
        let mut peers = senders(&mut udx, count, now);
        let mut gone = vec![];
        loop {
            for peer in peers.iter_mut().filter(|p| !p.is_done() && !gone.contains(&p.id)) {
                peer.send(&mut udx, now);
                assert!(udx.shares.held <= MAX_HELD + 1400);
            }
            gone.extend(ended(&mut udx));
            if peers.iter().all(|p| p.is_done() || gone.contains(&p.id)) {
                break;
            }
        }
        assert!(peers.iter().filter(|p| p.is_done()).count() >= 12, "{count}: {gone:?}");
    }
}

#[test]
fn the_packet_that_fills_a_gap_is_taken_however_much_others_hold() {
    let (mut udx, now) = (machine(), epoch());
    open_at(&mut udx, 1, host(1), now);
    let mut sink = Count(0);
    for seq in 1..1500 {
        udx.handle_datagram(SocketId::MAIN, host(1), &data(1, seq, 1400), now, &mut sink);
    }
    for id in 2..66 {
        open_at(&mut udx, id, host(2), now);
        udx.set_partial(id, 1100 << 10);
    }
    udx.end_of_batch(now);
    assert!(udx.shares.of_each(udx.streams.len()) < 1500 * 1400);
    udx.handle_datagram(SocketId::MAIN, host(1), &data(1, 0, 1400), now, &mut sink);
    assert_eq!(sink.0, 1500 * 1400);
}

#[test]
fn of_a_host_that_holds_most_streams_end_and_of_others_none() {
    let (mut udx, now) = (machine(), epoch());
    let mut gone = vec![];
    for id in 1..300 {
        open_at(&mut udx, id, host(if id < 250 { 1 } else { id }), now);
        udx.set_partial(id, 1 << 20);
        udx.end_of_batch(now);
        assert!(udx.shares.held <= MAX_HELD);
        gone.extend(ended(&mut udx));
    }
    assert!(gone.iter().all(|id| *id < 250), "{gone:?}");
    let left = udx.streams.len() - 50;
    assert!((60..=64).contains(&left), "{left} MiB of one host");
    // Who holds nothing is offered its share.
    open_at(&mut udx, 1000, host(1000), now);
    let mut sink = Count(0);
    udx.handle_datagram(SocketId::MAIN, host(1000), &data(1000, 0, 1000), now, &mut sink);
    let (window, ack) = told(&mut udx, 1000, now).unwrap();
    assert_eq!((sink.0, ack), (1000, 1));
    assert!((MIN_SHARE..MAX_WINDOW).contains(&(window as usize)), "{window}");
    // What is gone is not held.
    (1..=1000).for_each(|id| udx.destroy(id));
    assert_eq!(udx.shares.held, 0);
}

#[test]
fn a_transfer_with_losses_goes_on_while_others_hold_much() {
    for rate in [20, 200] {
        let (there, mut back) = path(rate, 100, 100, 0.001);
        back.latency = Duration::from_millis(50);
        let mut pair = Pair::connected(there, back, 3);
        pair.machines[0].total = 60 << 20;
        pair.run(Duration::from_secs(2));
        let now = pair.now;
        for id in 100..164 {
            open_at(&mut pair.machines[1].udx, id, host(1), now);
            pair.machines[1].udx.set_partial(id, 1100 << 10);
        }
        let all = |p: &Pair| p.machines[1].sink.bytes == 60 << 20;
        let took = pair.run_until(Duration::from_secs(60), all);
        let (got, closed) = (pair.machines[1].sink.bytes, pair.machines[0].closed());
        println!("{rate} Mbit/s: {took:?}");
        assert!(took.is_some() && pair.machines[1].sink.intact, "{rate}: {got}, {closed:?}");
    }
}

/// 30 MiB over 100 Mbit/s with losses to a peer that may hold a third of a window, and is asked again and again.
fn transfer_to_a_peer_that_may_hold_little(seed: u64) {
    let mut pair = unproven(&path(100, 100, 100, 0.03).0, seed);
    let now = pair.now;
    for id in 100..120 {
        open_at(&mut pair.machines[1].udx, id, host(1), now);
        pair.machines[1].udx.set_partial(id, 3500 << 10);
    }
    pair.run(Duration::from_secs(1));
    pair.machines[0].udx.peer_known(A);
    pair.machines[0].total = 30 << 20;
    let all = |p: &Pair| p.machines[1].sink.bytes == 30 << 20;
    let took = pair.run_until(Duration::from_secs(60), all);
    println!("{took:?}");
    let side = &mut pair.machines[0];
    let (stats, window) = (side.udx.stats(A).unwrap(), side.udx.streams.get(A).unwrap().window);
    assert!(took.is_some_and(|took| took < Duration::from_secs(9)), "{took:?}");
    assert!(pair.machines[1].sink.intact);
    // What gets lost, and above all a question, takes long to come. What came behind it meanwhile and was not held would be
    // sent again.
    let packets = stats.bytes_sent / 1472;
    assert!(window < 2 << 20 && stats.retransmits < packets / 20, "{window}: {stats:?}");
}

#[test]
fn a_peer_that_may_hold_little_is_sent_no_more_behind_a_gap() {
    (1..9).for_each(transfer_to_a_peer_that_may_hold_little);
}
