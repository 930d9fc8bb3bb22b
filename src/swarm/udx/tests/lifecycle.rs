//! Opening, ending, vanishing.

use super::*;

fn quiet() -> LinkConfig {
    LinkConfig::default()
}

#[test]
fn both_ends_close_and_late_ends_are_answered_from_the_grave() {
    let mut pair = Pair::connected(quiet(), quiet(), 1);
    pair.machines[0].total = 5000;
    pair.end_when_written();
    assert!(
        pair.run_until(Duration::from_secs(5), |p| p.machines[1]
            .events
            .contains(&UdxEvent::RemoteEnded { id: B }))
            .is_some()
    );
    assert_eq!(pair.machines[1].sink.bytes, 5000);
    pair.machines[1].udx.end(B);
    // The acknowledgement of B's END is lost: without the grave B would time out.
    assert!(
        pair.run_until(Duration::from_secs(5), |p| p.under_way(1, 0) > 0 && p.under_way(0, 1) == 0)
            .is_some()
    );
    pair.link(0, 1).cfg.loss = 1.0;
    assert!(pair.run_until(Duration::from_secs(1), |p| p.machines[0].closed().is_some()).is_some());
    pair.link(0, 1).cfg.loss = 0.0;
    assert!(pair.machines[1].closed().is_none());
    assert!(
        pair.run_until(Duration::from_secs(20), |p| p.machines[1].closed().is_some()).is_some()
    );
    assert_eq!(pair.machines[1].closed(), Some(CloseReason::Ended));
    assert_eq!(pair.machines[0].udx.write(A, payload(0, 1), pair.now), Err(WriteError::Unknown));
}

#[test]
fn destroy_resets_the_peer() {
    let mut pair = Pair::connected(quiet(), quiet(), 1);
    pair.machines[0].total = 100_000;
    pair.run(Duration::from_millis(15));
    pair.machines[1].udx.destroy(B);
    assert!(pair.run_until(Duration::from_secs(1), |p| p.machines[0].closed().is_some()).is_some());
    assert_eq!(pair.machines[0].closed(), Some(CloseReason::Reset));
    assert_eq!(pair.machines[1].closed(), None);
    assert!(pair.machines[0].udx.stats(A).is_none() && pair.machines[1].udx.stats(B).is_none());
}

#[test]
fn a_silent_peer_is_given_up_after_thirteen_seconds() {
    let dead = LinkConfig { loss: 1.0, ..quiet() };
    let mut pair = Pair::connected(dead, quiet(), 1);
    pair.machines[0].total = 46_080;
    let mut sends = Vec::new();
    pair.settle();
    assert_eq!(pair.link(0, 1).stats.sent, 32);
    while pair.machines[0].closed().is_none() {
        let before = pair.link(0, 1).stats.sent;
        assert!(pair.step());
        if pair.link(0, 1).stats.sent > before {
            sends.push((pair.elapsed().as_millis(), pair.link(0, 1).stats.sent - before));
        }
    }
    assert_eq!(pair.machines[0].closed(), Some(CloseReason::TimedOut));
    assert_eq!(pair.elapsed().as_millis(), 13_000);
    // The last one tells the peer of it.
    assert_eq!(sends, [1000, 3000, 5000, 7000, 9000, 11_000, 13_000].map(|at| (at, 1)));
}

#[test]
fn packets_for_an_unconnected_stream_wait_for_connect() {
    let mut pair = Pair::of_links(quiet(), quiet(), 1);
    let now = pair.now;
    pair.machines[0].udx.open(Some(A));
    pair.machines[1].udx.open(Some(B));
    pair.machines[0].udx.connect(A, SocketId::MAIN, B, address(2), ConnectOptions::default(), now);
    pair.machines[0].total = 5000;
    pair.run(Duration::from_millis(100));
    let unconnected = UdxEvent::Unconnected { id: B, socket: SocketId::MAIN, from: address(1) };
    assert_eq!(pair.machines[1].events, [unconnected]);
    assert_eq!((pair.machines[1].sink.bytes, pair.link(1, 0).stats.sent), (0, 0));
    let now = pair.now;
    pair.machines[1].udx.connect(B, SocketId::MAIN, A, address(1), ConnectOptions::default(), now);
    let b = &mut pair.machines[1];
    b.udx.deliver_early(B, now, &mut b.sink);
    assert_eq!(pair.machines[1].sink.bytes, 5000);
    assert!(
        pair.run_until(Duration::from_secs(1), |p| p.machines[0].udx.stats(A).unwrap().in_flight
            == 0)
            .is_some()
    );
    assert_eq!(pair.machines[0].udx.stats(A).unwrap().retransmits, 0);
}

#[test]
fn what_an_unconnected_stream_keeps_is_bounded() {
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let now = epoch();
    let id = udx.open(None).unwrap();
    let header =
        packet::Header { flags: flag::DATA, data_offset: 0, stream: id, window: 0, seq: 0, ack: 0 };
    let datagram = [&header.encode()[..], &[0; 1452]].concat();
    for port in 0..2000 {
        assert!(udx.handle_datagram(
            SocketId::MAIN,
            address(port),
            &datagram,
            now,
            &mut Collect::new()
        ));
    }
    assert_eq!(std::iter::from_fn(|| udx.poll_event()).count(), 8);
    let mut sink = Collect::new();
    udx.connect(id, SocketId::MAIN, 1, address(1), ConnectOptions::default(), now);
    udx.deliver_early(id, now, &mut sink);
    assert_eq!(sink.bytes, 1452);
}

#[test]
fn keep_alive_speaks_only_in_silence() {
    let opts =
        ConnectOptions { keep_alive: Some(Duration::from_secs(1)), ..ConnectOptions::default() };
    let mut pair = Pair::connected_with(quiet(), quiet(), 1, &opts);
    pair.run(Duration::from_millis(4500));
    assert_eq!((pair.link(0, 1).stats.sent, pair.link(1, 0).stats.sent), (8, 8));
}

#[test]
fn a_message_larger_than_the_peer_takes_is_not_sent() {
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let now = epoch();
    let message = |len: usize| Bytes::from(vec![2; len]);
    udx.open(Some(A)).unwrap();
    assert_eq!(udx.send_message(A, message(1453)), Err(WriteError::TooLarge));
    udx.send_message(A, message(1452)).unwrap();
    udx.send_message(A, message(1300)).unwrap();
    let narrow = ConnectOptions { max_datagram: 1400, ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, B, address(2), narrow, now);
    assert_eq!(udx.send_message(A, message(1381)), Err(WriteError::TooLarge));
    udx.send_message(A, message(1380)).unwrap();
    let mut buf = Vec::new();
    let mut sizes = Vec::new();
    while udx.poll_transmit(now, &mut buf, 16).is_some() {
        sizes.push(buf.len());
    }
    assert_eq!(sizes, [1320, 1400]);
}

#[test]
fn messages_arrive_beside_the_stream_and_their_queue_is_bounded() {
    let mut pair = Pair::connected(quiet(), quiet(), 1);
    pair.machines[0].udx.send_message(A, Bytes::from_static(b"unordered")).unwrap();
    pair.machines[0].udx.send_message(A, Bytes::new()).unwrap();
    pair.run(Duration::from_millis(20));
    let payloads: Vec<_> = pair.machines[1]
        .events
        .iter()
        .map(|e| match e {
            UdxEvent::Message { payload, .. } => payload.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(payloads, [Bytes::from_static(b"unordered"), Bytes::new()]);
    let header = packet::Header {
        flags: flag::MESSAGE,
        data_offset: 0,
        stream: B,
        window: 0,
        seq: 0,
        ack: 0,
    };
    for _ in 0..1000 {
        let side = &mut pair.machines[1];
        side.udx.handle_datagram(
            SocketId::MAIN,
            address(1),
            &header.encode(),
            pair.now,
            &mut side.sink,
        );
    }
    assert_eq!(std::iter::from_fn(|| pair.machines[1].udx.poll_event()).count(), 256);
}

#[test]
fn a_moved_stream_goes_on_at_the_new_place() {
    let mut pair = Pair::connected(quiet(), quiet(), 1);
    pair.machines[0].total = 3 << 20;
    pair.run(Duration::from_millis(100));
    // The new place is that of machine 1, too.
    pair.tap = Some(Box::new(|datagram| {
        if datagram.to == home(9) {
            datagram.to = home(2);
        }
        true
    }));
    let now = pair.now;
    pair.machines[0].udx.change_remote(A, SocketId(1), B, address(9), ORDINARY_MAX, now);
    let mut buf = Vec::new();
    while let Some(transmit) = pair.machines[0].udx.poll_transmit(pair.now, &mut buf, 1) {
        assert_eq!((transmit.socket, transmit.to), (SocketId(1), address(9)));
        pair.send(Datagram::new(home(1), home(9), buf.clone()));
    }
    assert!(
        pair.run_until(Duration::from_secs(10), |p| p.machines[1].sink.bytes == 3 << 20).is_some()
    );
    assert!(pair.machines[1].sink.intact);
}

#[test]
fn ids_are_unique_and_free_again_after_the_end() {
    let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    assert_eq!(udx.open(Some(5)), Some(5));
    assert_eq!(udx.open(Some(5)), None);
    let other = udx.open(None).unwrap();
    assert_ne!(other, 5);
    udx.destroy(5);
    assert_eq!(udx.open(Some(5)), Some(5));
    assert!(udx.poll_transmit(epoch(), &mut Vec::new(), 1).is_none());
}

#[test]
fn writable_comes_once_per_crossing() {
    let mut pair = Pair::connected(quiet(), quiet(), 1);
    let now = pair.now;
    pair.machines[0].udx.write(A, payload(0, 2 << 20), now).unwrap();
    assert!(
        pair.run_until(Duration::from_secs(10), |p| p.machines[1].sink.bytes == 2 << 20).is_some()
    );
    assert_eq!(pair.machines[0].events, [UdxEvent::Writable { id: A }]);
    pair.machines[0].udx.end(A);
    assert_eq!(pair.machines[0].udx.write(A, payload(0, 1), now), Err(WriteError::Ended));
}

#[test]
fn peers_on_this_machine_are_offered_what_the_socket_buffer_takes() {
    let now = epoch();
    for (to, expected) in
        [(address(2), 200_000), (SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 2), MAX_WINDOW)]
    {
        let cfg = UdxConfig { receive_buffer: 400_000, ..UdxConfig::default() };
        let mut udx = Udx::new(StdRng::seed_from_u64(1), cfg);
        udx.open(Some(A));
        udx.connect(A, SocketId::MAIN, B, to, ConnectOptions::default(), now);
        let window = |udx: &mut Udx| {
            udx.write(A, payload(0, 1), now).unwrap();
            let mut buf = Vec::new();
            udx.poll_transmit(now, &mut buf, 1).unwrap();
            Packet::parse(&buf).unwrap().header.window as usize
        };
        assert_eq!(window(&mut udx), expected);
        udx.set_backlog(A, MAX_WINDOW - 1000);
        assert_eq!(window(&mut udx), 1000);
    }
}

#[test]
fn a_peer_that_is_not_heard_learns_that_it_was_given_up() {
    let mut pair = Pair::connected(LinkConfig::default(), LinkConfig::default(), 1);
    pair.link(1, 0).cfg.loss = 1.0;
    pair.machines[0].total = 1000;
    let ended = |side: usize| move |p: &Pair| p.machines[side].closed().is_some();
    pair.run_until(Duration::from_secs(60), ended(0)).unwrap();
    pair.run_until(Duration::from_millis(200), ended(1)).unwrap();
    assert_eq!(pair.machines[0].closed(), Some(CloseReason::TimedOut));
    assert_eq!(pair.machines[1].closed(), Some(CloseReason::Reset));
}

#[test]
fn what_came_before_the_question_could_be_answered_is_no_sign_of_a_narrow_path() {
    let (mut udx, now, mut sink) =
        (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), epoch(), Collect::new());
    udx.open(Some(A)).unwrap();
    udx.connect(A, SocketId::MAIN, B, address(2), ConnectOptions::default(), now);
    let from = udx.clock.now + 1000;
    udx.streams.get_mut(A).unwrap().1.black_hole = Some(from);
    let header = super::super::packet::Header {
        flags: 0,
        data_offset: 0,
        stream: A,
        window: 4 << 20,
        seq: 0,
        ack: 0,
    };
    for (micros, waits) in [(0, true), (999, true), (1000, false)] {
        let (now, ack) = (now + Duration::from_micros(micros), header.encode());
        udx.handle_datagram(SocketId::MAIN, address(2), &ack, now, &mut sink);
        assert_eq!(udx.streams.get(A).unwrap().black_hole.is_some(), waits, "{micros}");
    }
}
