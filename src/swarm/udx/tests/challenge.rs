//! Whether a peer is where its stream leads to.

use super::super::packet::Header;
use super::*;

/// What may go to an address from which nothing has come.
const FIRST: u64 = 237;

/// Streams of which the first does not know whether the other is there; the other says a little.
fn unproven(link: &LinkConfig, seed: u64) -> Pair {
    let mut pair = Pair::of_links(link.clone(), link.clone(), seed);
    let now = pair.now;
    let options = ConnectOptions { unproven: Some(FIRST), ..ConnectOptions::default() };
    pair.machines[0].connect(B, address(2), options, now);
    pair.machines[1].connect(A, address(1), ConnectOptions::default(), now);
    pair.machines[1].total = 60;
    pair
}

/// How long 256 KiB take once the peer is known.
fn time_of(mut pair: Pair) -> Duration {
    pair.run(Duration::from_secs(1));
    pair.machines[0].total = 256 << 10;
    pair.run(Duration::from_secs(1));
    pair.machines[0].udx.peer_known(A);
    let all = |p: &Pair| p.machines[1].sink.bytes == 256 << 10;
    let took = pair.run_until(Duration::from_secs(300), all);
    assert!(pair.machines[1].sink.intact && pair.machines[0].closed().is_none());
    took.expect("all arrives")
}

#[test]
fn a_peer_that_is_there_answers_within_a_round_trip_whatever_gets_lost() {
    let link = LinkConfig { latency: Duration::from_millis(25), ..LinkConfig::default() };
    let mut known = Pair::connected(link.clone(), link.clone(), 1);
    known.machines[0].total = 256 << 10;
    let all = |p: &Pair| p.machines[1].sink.bytes == 256 << 10;
    let best = known.run_until(Duration::from_secs(9), all).unwrap();
    for seed in 0..20 {
        let took = time_of(unproven(&link, seed));
        assert!(took < best + Duration::from_millis(60), "{took:?}, {best:?}");
    }
    let lossy = LinkConfig { loss: 0.2, duplicate: 0.1, reorder: 0.2, ..link };
    for seed in 0..40 {
        time_of(unproven(&lossy, seed));
    }
}

#[test]
fn until_it_is_asked_and_has_answered_little_is_sent() {
    let link = LinkConfig::default();
    for known in [false, true] {
        let mut pair = unproven(&link, 1);
        pair.machines[0].total = 256 << 10;
        pair.run(Duration::from_millis(100));
        if known {
            // What it says does not arrive any more.
            pair.link(1, 0).cfg.loss = 1.0;
            pair.machines[0].udx.peer_known(A);
        }
        let ended = |p: &Pair| p.machines[0].closed().is_some();
        pair.run_until(Duration::from_secs(60), ended);
        let sent = pair.machines[0].udx.stats(A).map_or(0, |stats| stats.bytes_sent);
        assert!(sent <= FIRST + 3 * 1000 && pair.machines[1].sink.bytes < 1000, "{sent}");
    }
}

#[test]
fn who_acknowledges_what_he_cannot_see_gains_nothing() {
    let mut forged = 0;
    for seed in 0..300u64 {
        let mut udx = Udx::new(StdRng::seed_from_u64(seed), UdxConfig::default());
        let mut now = epoch();
        udx.open(Some(A)).unwrap();
        let options = ConnectOptions { unproven: Some(FIRST), ..ConnectOptions::default() };
        udx.connect(A, SocketId::MAIN, B, address(2), options, now);
        udx.peer_known(A);
        udx.write(A, payload(0, 1 << 20), now).unwrap();
        let (mut came, mut sent, mut buf, mut sink) = (0, 0, Vec::new(), Collect::new());
        for step in 0..400u32 {
            // He sees nothing, so he tries what might have been sent: in order, or out of it, cautiously or not.
            let ack = match seed % 4 {
                0 => step / 8,
                1 => step / 40,
                2 => 30,
                _ => 1,
            };
            let mut header =
                Header { flags: 0, data_offset: 0, stream: A, window: 4 << 20, seq: 0, ack };
            let mut packet = header.encode().to_vec();
            if seed % 4 == 3 {
                header.flags = flag::SACK;
                packet = header.encode().to_vec();
                let at = 1 + (step * 7 + seed as u32) % 26;
                packet.extend([at.to_le_bytes(), (at + 1).to_le_bytes()].concat());
            }
            came += packet.len();
            udx.handle_datagram(SocketId::MAIN, address(2), &packet, now, &mut sink);
            udx.end_of_batch(now);
            while udx.poll_transmit(now, &mut buf, 10).is_some() {
                sent += buf.len();
            }
            now += Duration::from_millis(10);
            if udx.poll_timeout().is_some_and(|at| at <= now) {
                udx.handle_timeout(now);
            }
        }
        assert!(sent <= FIRST as usize + 3 * came, "{sent} for {came}");
        let closed = UdxEvent::Closed { id: A, reason: CloseReason::Forged };
        let lied = std::iter::from_fn(|| udx.poll_event()).any(|event| event == closed);
        assert!(lied || udx.streams.get(A).is_none_or(|stream| stream.unproven.is_some()));
        forged += u32::from(lied);
    }
    assert!(forged >= 200, "{forged}");
}

#[test]
fn every_packet_that_was_sent_has_to_be_reported() {
    let (now, mut sink) = (epoch(), Collect::new());
    for seed in 0..20 {
        let mut udx = Udx::new(StdRng::seed_from_u64(seed), UdxConfig::default());
        udx.open(Some(A)).unwrap();
        let options = ConnectOptions { unproven: Some(400), ..ConnectOptions::default() };
        udx.connect(A, SocketId::MAIN, B, address(2), options, now);
        udx.peer_known(A);
        udx.write(A, payload(0, 1 << 20), now).unwrap();
        let (mut buf, mut sent) = (Vec::new(), vec![]);
        while udx.poll_transmit(now, &mut buf, 1).is_some() {
            let packet = Packet::parse(&buf).unwrap();
            assert_eq!(packet.payload.len(), 1);
            sent.push(packet.header.seq);
        }
        assert!(sent.len() == 12 && sent.iter().all(|seq| *seq < 24), "{sent:?}");
        let (flags, window) = (flag::SACK, 4 << 20);
        let header = Header { flags, data_offset: 0, stream: A, window, seq: 0, ack: 0 };
        for seq in &sent {
            assert!(udx.streams.get(A).unwrap().unproven.is_some());
            let block = [seq.to_le_bytes(), (seq + 1).to_le_bytes()].concat();
            let report = [&header.encode()[..], &block].concat();
            udx.handle_datagram(SocketId::MAIN, address(2), &report, now, &mut sink);
            udx.end_of_batch(now);
        }
        assert!(udx.streams.get(A).unwrap().unproven.is_none());
    }
}

#[test]
fn what_small_frames_used_up_comes_back_and_the_peer_is_asked() {
    let link = LinkConfig { latency: Duration::from_millis(25), ..LinkConfig::default() };
    for small in 0..30 {
        let mut pair = unproven(&link, small);
        pair.run(Duration::from_secs(1));
        pair.machines[0].udx.peer_known(A);
        // What it says gets lost for a moment.
        pair.link(1, 0).cfg.loss = 1.0;
        for _ in 0..small {
            pair.machines[0].total += 7 + small % 17;
            pair.run(Duration::from_millis(2));
        }
        pair.run(Duration::from_millis(60));
        pair.link(1, 0).cfg.loss = 0.0;
        pair.machines[0].total = 256 << 10;
        let all = |p: &Pair| p.machines[1].sink.bytes == 256 << 10;
        let took = pair.run_until(Duration::from_secs(8), all);
        assert!(took.is_some() && pair.machines[1].sink.intact, "{small} frames");
    }
}

/// A stream to a known peer that may get so many bytes before it is asked, and the packets that went.
fn allowed(first: u64) -> (Udx, Vec<Vec<u8>>) {
    let (mut udx, now) = (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), epoch());
    udx.open(Some(A)).unwrap();
    let options = ConnectOptions { unproven: Some(first), ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, B, address(2), options, now);
    udx.peer_known(A);
    udx.write(A, payload(0, 1 << 20), now).unwrap();
    let (mut buf, mut sent) = (Vec::new(), vec![]);
    while udx.poll_transmit(now, &mut buf, 1).is_some() {
        sent.push(buf.clone());
    }
    (udx, sent)
}

#[test]
fn nothing_is_asked_that_cannot_be_asked_in_full() {
    let is_data = |packet: &Vec<u8>| Packet::parse(packet).unwrap().header.has(flag::DATA);
    for (first, packets) in [(19, 0), (100, 0), (251, 0), (311, 0), (312, 12), (600, 12)] {
        let (mut udx, sent) = allowed(first);
        assert_eq!(sent.iter().filter(|p| is_data(p)).count(), packets, "{first}");
        // One that may not go is followed by a question that needs no leave but its own.
        assert_eq!(sent.len() - packets, usize::from(packets == 0 && first >= 20), "{first}");
        assert!(udx.poll_timeout().is_some());
    }
}

#[test]
fn a_packet_that_was_not_let_out_has_not_timed_out() {
    let (mut udx, _) = allowed(312);
    let (mut buf, start) = (Vec::new(), epoch());
    while let Some(at) = udx.poll_timeout() {
        assert!(at < start + Duration::from_secs(60));
        udx.handle_timeout(at);
        while udx.poll_transmit(at, &mut buf, 1).is_some() {}
        if let Some((_, stream)) = udx.streams.get_mut(A) {
            assert!(stream.sent.front_mut().unwrap().timeouts <= 1);
        }
    }
    let closed = UdxEvent::Closed { id: A, reason: CloseReason::TimedOut };
    assert_eq!(udx.poll_event(), Some(closed));
}
