//! Whether a peer is where its stream leads to.

use super::super::detour::RETURN;
use super::super::packet::{HEADER, Header};
use super::flow::path;
use super::*;
use std::collections::BTreeSet;

/// What may go to an address from which nothing has come.
const FIRST: u64 = 237;

/// Streams of which the first does not know whether the other is there; the other says a little.
pub(super) fn unproven(link: &LinkConfig, seed: u64) -> Pair {
    let mut pair = Pair::of_links(link.clone(), link.clone(), seed);
    let now = pair.now;
    let options = ConnectOptions { unproven: Some(FIRST), ..ConnectOptions::default() };
    pair.machines[0].connect(B, address(2), options, now);
    pair.machines[1].connect(A, address(1), ConnectOptions::default(), now);
    pair.machines[1].total = 60;
    pair
}

/// Both do not know whether the other is there, as two swarms after a handshake; each has said who it is.
fn both_unproven(link: &LinkConfig, seed: u64) -> Pair {
    let mut pair = Pair::of_links(link.clone(), link.clone(), seed);
    let now = pair.now;
    let options = |first| ConnectOptions { unproven: Some(first), ..ConnectOptions::default() };
    pair.machines[0].connect(B, address(2), options(2 * FIRST), now);
    pair.machines[1].connect(A, address(1), options(FIRST), now);
    pair.machines.iter_mut().for_each(|side| side.total = 59);
    pair
}

/// Lets a pair go on as two swarms do: who has got the other's first bytes knows it, and writes `more`. How long it takes
/// until both have got all, or None if it takes longer than `most` or one of them has given up.
fn exchange(pair: &mut Pair, more: [u64; 2], most: Duration) -> Option<Duration> {
    let start = pair.elapsed();
    loop {
        for (i, id) in [A, B].into_iter().enumerate() {
            let side = &mut pair.machines[i];
            if side.sink.bytes >= 59 && side.total == 59 {
                side.udx.peer_known(id);
                side.total += more[i];
            }
        }
        let got = |i: usize| pair.machines[i].sink.bytes == 59 + more[1 - i];
        let took = pair.elapsed() - start;
        if got(0) && got(1) {
            assert!(pair.machines.iter().all(|side| side.sink.intact));
            return Some(took);
        }
        let closed = pair.machines.iter().any(|side| side.closed().is_some());
        if closed || took > most || !pair.step() {
            return None;
        }
    }
}

/// How long 256 KiB take once the peer is known.
fn time_of(mut pair: Pair) -> Duration {
    pair.run(Duration::from_secs(1));
    pair.machines[0].total = 256 << 10;
    pair.run(Duration::from_secs(1));
    pair.machines[0].udx.peer_known(A);
    let all = |p: &Pair| p.machines[1].sink.bytes == 256 << 10;
    let took = pair.run_until(Duration::from_secs(30), all);
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

/// A stream goes back to a relay whose other side has never shown itself: what is acknowledged there anybody may have
/// acknowledged, and only so much follows until the peer has answered.
#[test]
fn the_way_back_to_a_relay_is_believed_no_more_than_another() {
    let (mut udx, mut now) = (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), epoch());
    udx.open(Some(A)).unwrap();
    let options = ConnectOptions { unproven: Some(FIRST), ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, B, address(2), options, now);
    udx.peer_known(A);
    udx.set_leg(A, (SocketId::MAIN, address(7)), 77, B);
    udx.take_leg(A, now);
    udx.write(A, payload(0, 1 << 20), now).unwrap();
    let (mut came, mut sent, mut seen, mut buf) = (0, 0, BTreeSet::new(), Vec::new());
    for _ in 0..200 {
        while let Some(transmit) = udx.poll_transmit(now, &mut buf, 1) {
            assert_eq!(transmit.to, address(7));
            sent += buf.len() as u64;
            let packet = Packet::parse(&buf).unwrap();
            if packet.header.has(flag::DATA) {
                seen.insert(packet.header.seq);
            }
        }
        let ack = (0..).find(|seq| !seen.contains(seq)).unwrap();
        let (flags, window) = (0, 4 << 20);
        let header = Header { flags, data_offset: 0, stream: A, window, seq: 0, ack };
        came += HEADER as u64;
        let ack = header.encode();
        udx.handle_datagram(SocketId::MAIN, address(7), &ack, now, &mut Collect::new());
        udx.end_of_batch(now);
        now += Duration::from_millis(10);
        if udx.poll_timeout().is_some_and(|at| at <= now) {
            udx.handle_timeout(now);
        }
    }
    assert!(sent >= RETURN / 2 && sent <= RETURN + 3 * came, "{sent} for {came}");
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
    for (first, packets) in [(19, 0), (100, 0), (251, 0), (252, 12), (312, 12), (600, 12)] {
        let (mut udx, sent) = allowed(first);
        assert_eq!(sent.iter().filter(|p| is_data(p)).count(), packets, "{first}");
        // One that may not go is followed by a question that needs no leave but its own.
        assert_eq!(sent.len() - packets, usize::from(packets == 0), "{first}");
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

#[test]
fn an_outage_at_the_start_silences_nobody_for_good() {
    let link = LinkConfig { latency: Duration::from_millis(5), ..LinkConfig::default() };
    for k in 0..60u64 {
        let mut pair = both_unproven(&link, k);
        let _ = exchange(&mut pair, [1040, 1000], Duration::from_micros(500 * k));
        pair.every_link(|link| link.loss = 1.0);
        let _ = exchange(&mut pair, [1040, 1000], Duration::from_millis(7500));
        pair.every_link(|link| link.loss = 0.0);
        let took = exchange(&mut pair, [1040, 1000], Duration::from_secs(8));
        assert!(took.is_some(), "{k}: {:?}", pair.machines[0].closed());
    }
}

#[test]
fn a_question_that_gets_lost_costs_little() {
    let latency = Duration::from_millis(150);
    let link = LinkConfig { loss: 0.1, latency, ..LinkConfig::default() };
    let (mut slow, mut worst) = (0, Duration::ZERO);
    for seed in 0..400 {
        let took = exchange(&mut both_unproven(&link, seed), [440, 60], Duration::from_secs(60));
        let took = took.expect("all arrives");
        slow += u32::from(took > Duration::from_secs(5));
        worst = worst.max(took);
    }
    // The first packets, which may get lost as well, included.
    assert!(slow <= 12 && worst < Duration::from_secs(15), "{slow}, {worst:?}");
}

#[test]
fn what_could_not_be_sent_again_measures_no_round_trip() {
    let ((mut udx, sent), start, mut sink) = (allowed(252), epoch(), Collect::new());
    assert_eq!(sent.len(), 12);
    let probe = udx.poll_timeout().unwrap() - start;
    assert!(probe < Duration::from_millis(400), "{probe:?}");
    let (mut now, mut buf) = (start, Vec::new());
    while now < start + Duration::from_millis(1500) {
        now = udx.poll_timeout().unwrap();
        udx.handle_timeout(now);
        while udx.poll_transmit(now, &mut buf, 1).is_some() {
            assert_eq!(Packet::parse(&buf).unwrap().header.flags, flag::HEARTBEAT);
        }
    }
    let header =
        Header { flags: flag::SACK, data_offset: 0, stream: A, window: 4 << 20, seq: 0, ack: 0 };
    let mut report = header.encode().to_vec();
    for packet in &sent {
        let seq = Packet::parse(packet).unwrap().header.seq;
        report.extend([seq.to_le_bytes(), (seq + 1).to_le_bytes()].concat());
    }
    udx.handle_datagram(SocketId::MAIN, address(2), &report, now, &mut sink);
    udx.end_of_batch(now);
    assert!(udx.streams.get(A).unwrap().was_proven);
    assert_eq!(udx.stats(A).unwrap().rtt, None);
}

#[test]
fn a_first_message_does_not_wait_for_the_answer() {
    let latency = Duration::from_millis(25);
    let link = LinkConfig { latency, ..LinkConfig::default() };
    for len in [23, 63, 200] {
        let mut pair = both_unproven(&link, 1);
        let took = exchange(&mut pair, [len, 0], Duration::from_secs(2)).unwrap();
        assert!(took < 2 * latency + Duration::from_millis(5), "{len}: {took:?}");
    }
}

/// Bytes and packets that side 0 sends for `total` bytes, and how long that takes.
fn cost(mut pair: Pair, total: u64, known: bool) -> (u64, u64, Duration) {
    pair.run(Duration::from_secs(1));
    pair.machines[0].total = total;
    if known {
        pair.machines[0].udx.peer_known(A);
    }
    let all = |p: &Pair| p.machines[1].sink.bytes == total;
    let took = pair.run_until(Duration::from_secs(600), all).expect("all arrives");
    let stats = pair.machines[0].udx.stats(A).unwrap();
    (stats.bytes_sent, pair.link(0, 1).stats.sent, took)
}

#[test]
fn to_be_asked_again_costs_next_to_nothing() {
    let rate = Some(12_500_000);
    let link = LinkConfig { latency: Duration::from_millis(10), rate, ..LinkConfig::default() };
    let total = 48 << 20;
    let plain = cost(Pair::connected(link.clone(), link.clone(), 1), total, false);
    let asked = cost(unproven(&link, 1), total, true);
    assert!(asked.0 < plain.0 + plain.0 / 200, "{plain:?} {asked:?}");
    assert!(asked.1 < plain.1 + plain.1 / 50, "{plain:?} {asked:?}");
    assert!(asked.2 < plain.2 + plain.2 / 20, "{plain:?} {asked:?}");
}

#[test]
fn to_be_asked_costs_a_long_path_one_round_trip_of_a_transfer() {
    let link = path(300, 100, 100, 0.0).0;
    let total = 60 << 20;
    let plain = cost(Pair::connected(link.clone(), link.clone(), 1), total, false);
    for seed in 1..3 {
        let asked = cost(unproven(&link, seed), total, true);
        let most = plain.2 + Duration::from_millis(100) + plain.2 / 30;
        assert!(asked.2 < most, "{plain:?} {asked:?}");
        assert!(asked.0 < plain.0 + plain.0 / 200, "{plain:?} {asked:?}");
    }
}

#[test]
fn a_long_path_stays_full_while_the_peer_is_asked_again_and_again() {
    let mut pair = unproven(&path(100, 200, 200, 0.0).0, 1);
    pair.run(Duration::from_secs(1));
    pair.machines[0].udx.peer_known(A);
    pair.machines[0].total = u64::MAX / 2;
    pair.run(Duration::from_secs(3));
    let before = pair.machines[1].sink.bytes;
    for i in 0..3000 {
        // The owner there takes what came in its own time, so that hardly ever all the room is offered.
        let backlog = if i % 25 == 0 { 0 } else { 100 << 10 };
        pair.machines[1].udx.set_backlog(B, backlog);
        pair.run(Duration::from_millis(1));
    }
    let got = (pair.machines[1].sink.bytes - before) * 8 / 3 / 1_000_000;
    // Nine tenths are what one that is never asked gets.
    assert!(got >= 90, "{got} of 100 Mbit/s");
}

#[test]
fn who_answers_is_asked_again_and_again_whatever_gets_lost() {
    for seed in 0..12u64 {
        let latency = Duration::from_millis(20);
        let loss = [0.0, 0.05, 0.2][seed as usize % 3];
        let link = LinkConfig { loss, latency, ..LinkConfig::default() };
        let mut pair = unproven(&link, seed);
        pair.run(Duration::from_secs(1));
        pair.machines[0].udx.peer_known(A);
        pair.machines[0].total = 3 << 20;
        // The path dies for a while.
        pair.run(Duration::from_millis(40 * seed));
        pair.every_link(|link| link.loss = 1.0);
        pair.run(Duration::from_secs(6));
        pair.every_link(|link| link.loss = loss);
        let all = |p: &Pair| p.machines[1].sink.bytes == 3 << 20;
        let took = pair.run_until(Duration::from_secs(120), all);
        assert!(took.is_some() && pair.machines[1].sink.intact, "{seed}");
        assert!(pair.machines[0].udx.streams.get(A).is_some_and(|s| s.was_proven));
    }
}

#[test]
fn an_idle_path_is_not_asked() {
    let mut pair = unproven(&LinkConfig::default(), 1);
    pair.run(Duration::from_secs(1));
    pair.machines[0].udx.peer_known(A);
    pair.machines[0].total = 4 << 20;
    pair.run(Duration::from_secs(20));
    let before = pair.link(0, 1).stats.sent;
    pair.run(Duration::from_secs(3600));
    assert_eq!(pair.link(0, 1).stats.sent, before);
}

/// All that it is asked gets lost. Nothing else goes out meanwhile which could tell that.
#[test]
fn a_peer_that_is_heard_is_asked_again_and_again() {
    const TENTH: Duration = Duration::from_millis(100);
    let (mut udx, mut now) = (Udx::new(StdRng::seed_from_u64(1), UdxConfig::default()), epoch());
    udx.open(Some(A)).unwrap();
    let options = ConnectOptions { unproven: Some(4000), ..ConnectOptions::default() };
    udx.connect(A, SocketId::MAIN, B, address(2), options, now);
    udx.peer_known(A);
    udx.write(A, payload(0, 100), now).unwrap();
    let (mut buf, mut asked) = (Vec::new(), 0);
    for step in 0..20 {
        while udx.poll_transmit(now, &mut buf, 1).is_some() {
            asked += u32::from(buf.len() == HEADER + 1);
        }
        now += TENTH;
        let header =
            Header { flags: 0, data_offset: 0, stream: A, window: 4 << 20, seq: 0, ack: 1 };
        let (ack, mut sink) = (header.encode(), Collect::new());
        udx.handle_datagram(SocketId::MAIN, address(2), &ack, now, &mut sink);
        if step == 0 {
            udx.write(A, payload(100, 1000), now).unwrap();
            udx.ask(A);
        }
        udx.end_of_batch(now);
        if udx.poll_timeout().is_some_and(|at| at <= now) {
            udx.handle_timeout(now);
        }
    }
    println!("{asked}");
    assert!((80..=144).contains(&asked), "{asked}");
    assert!(udx.streams.get(A).unwrap().closed.is_none());
}
