//! Peers whose address changes, and those who only pretend it.

use super::super::packet::Header;
use super::*;
use crate::sim::Realm;
use crate::swarm::socket::ipv4;
use std::cell::{Cell, RefCell};
use std::net::SocketAddrV4;
use std::rc::Rc;

const TOTAL: u64 = 8 << 20;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn host(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new([10, 0, 0, n].into(), 4000)
}

fn link(loss: f64) -> LinkConfig {
    LinkConfig { loss, latency: ms(20), rate: Some(40_000_000 / 8), ..LinkConfig::default() }
}

/// Machine 0 is to send much to machine 1, and each opens what it gets.
fn pair(loss: f64, seed: u64) -> Pair {
    let mut pair = Pair::new(link(loss), seed);
    pair.add(host(1), Side::new(A, seed));
    pair.add(host(2), Side::new(B, seed ^ 0xffff));
    let now = pair.now;
    pair.machines[0].connect(B, host(2).into(), ConnectOptions::default(), now);
    pair.machines[1].connect(A, host(1).into(), ConnectOptions::default(), now);
    for side in &mut pair.machines {
        side.opens = true;
        side.udx.peer_known(side.id);
    }
    pair.machines[0].total = TOTAL;
    pair
}

/// Runs until all has come. The longest time in which nothing came. Who hears nothing for a while says something.
fn finish(pair: &mut Pair) -> Duration {
    let (mut longest, mut still, mut asked) = (0, 0, [0; 2]);
    for _ in 0..3000 {
        let was = pair.machines[1].sink.bytes;
        if was >= TOTAL {
            assert!(pair.machines[1].sink.intact);
            return ms(longest * 10);
        }
        pair.run(ms(10));
        still = if pair.machines[1].sink.bytes == was { still + 1 } else { 0 };
        longest = longest.max(still);
        for (i, asked) in asked.iter_mut().enumerate() {
            let side = &pair.machines[i];
            let heard = side.udx.last_heard(side.id).unwrap_or(pair.start);
            if pair.now < heard + ms(200) {
                *asked = 0;
            } else if pair.now >= heard + ms(200 << *asked) {
                *asked += 1;
                speak(pair, i, 150);
            }
        }
        tend(pair);
    }
    panic!("seed {}: {} bytes came", pair.seed, pair.machines[1].sink.bytes);
}

/// What the swarm does when it is told that a stream moved.
fn tend(pair: &mut Pair) {
    for i in 0..2 {
        let moved = |event: &UdxEvent| matches!(event, UdxEvent::Moved { .. });
        if pair.machines[i].events.iter().any(moved) {
            pair.machines[i].events.retain(|event| !moved(event));
            let id = pair.machines[i].id;
            if pair.machines[i].udx.unsent(id) < Udx::QUESTION {
                speak(pair, i, Udx::QUESTION);
            }
        }
    }
}

/// In the stream, and beside it.
fn speak(pair: &mut Pair, i: usize, len: usize) {
    pair.on(i, |side, now| {
        let _ = side.udx.send_message(side.id, payload(0, 100));
        let _ = side.udx.write(side.id, payload(side.written, len), now);
        side.written += len as u64;
        side.total = side.total.max(side.written);
    });
}

#[test]
fn a_stream_follows_whichever_side_moves() {
    let mut worst = [ms(0); 2];
    for seed in 0..12 {
        let loss = if seed % 2 == 0 { 0.0 } else { 0.02 };
        for (i, worst) in worst.iter_mut().enumerate() {
            let mut pair = pair(loss, seed);
            pair.run(ms(400 + 37 * seed));
            let to = if seed % 3 == 0 {
                SocketAddrV4::new([10, 0, 0, i as u8 + 1].into(), 9)
            } else {
                host(9)
            };
            pair.move_to(i, Realm::INTERNET, to);
            let still = finish(&mut pair);
            assert!(still < ms(2000), "seed {seed}, side {i}: {still:?}");
            assert_eq!(pair.machines[1 - i].udx.remote([B, A][i]), Some(to.into()));
            *worst = still.max(*worst);
        }
    }
    println!("the sender moves: {:?}, the reader: {:?}", worst[0], worst[1]);
}

#[test]
fn who_is_in_the_middle_of_a_long_frame_is_followed() {
    for seed in 0..6 {
        let mut pair = pair(0.01 * f64::from(seed as u8 % 3), seed);
        pair.machines[1].long_frame = true;
        pair.run(ms(400 + 37 * seed));
        pair.move_to(0, Realm::INTERNET, host(9));
        let still = finish(&mut pair);
        assert!(still < ms(2000), "seed {seed}: {still:?}");
        assert_eq!(pair.machines[1].udx.remote(B), Some(host(9).into()));
    }
}

#[test]
fn who_moves_again_and_again_is_followed() {
    for seed in 0..10 {
        let mut pair = pair(0.01, seed);
        pair.run(ms(500));
        for n in 0..4 {
            pair.move_to(1, Realm::INTERNET, host(10 + n));
            pair.run(ms(300));
            speak(&mut pair, 1, 150);
            for _ in 0..120 {
                pair.run(ms(10));
                tend(&mut pair);
            }
        }
        let still = finish(&mut pair);
        assert!(still < ms(4000), "seed {seed}: {still:?}");
        assert_eq!(pair.machines[0].udx.remote(A), Some(host(13).into()));
    }
}

#[test]
fn copies_of_packets_move_nothing_while_the_peer_speaks_and_bring_a_victim_little() {
    for seed in 0..20 {
        let mut pair = pair(0.0, seed);
        let (victim, mut copied) = (host(66), 0);
        pair.run(ms(300));
        let mut to_victim = 0;
        for n in 0..200 {
            // A copy of what the reader says is there before it itself.
            pair.on(1, |side, now| {
                let _ = side.udx.write(B, payload(side.written, 60), now);
                side.written += 60;
            });
            let mut packets = vec![];
            pair.tap = Some(Box::new(move |_| true));
            let (now, mut buf) = (pair.now, vec![]);
            while pair.machines[1].udx.poll_transmit(now, &mut buf, 1).is_some() {
                packets.push(buf.clone());
            }
            for packet in packets {
                copied += packet.len();
                let side = &mut pair.machines[0];
                side.feed(now);
                side.udx.handle_datagram(
                    SocketId::MAIN,
                    victim.into(),
                    &packet,
                    now,
                    &mut side.sink,
                );
                side.udx.opened(A, 0, now);
                side.udx.end_of_batch(now);
                if n % 2 == 0 {
                    side.udx.handle_datagram(
                        SocketId::MAIN,
                        host(2).into(),
                        &packet,
                        now,
                        &mut side.sink,
                    );
                    side.udx.end_of_batch(now);
                }
                while let Some(transmit) = pair.machines[0].udx.poll_transmit(now, &mut buf, 1) {
                    to_victim += if transmit.to == victim.into() { buf.len() } else { 0 };
                    let to = ipv4(transmit.to).unwrap();
                    pair.send(Datagram::new(host(1), to, buf.clone()));
                }
            }
            pair.run(ms(10));
            assert_eq!(pair.machines[0].udx.remote(A), Some(host(2).into()), "seed {seed}, {n}");
        }
        assert!(to_victim <= 3 * copied, "{to_victim} for {copied}");
        assert!(pair.machines[0].closed().is_none());
    }
}

/// A packet for machine 0 by somebody who knows its stream's id and can guess numbers.
fn forged(flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    Header { flags, data_offset: 0, stream: A, window: 0, seq, ack }.encode().to_vec()
}

#[test]
fn forged_packets_from_elsewhere_neither_move_nor_end_a_stream() {
    let mut pair = pair(0.0, 1);
    pair.run(ms(500));
    let mut to_victim = 0;
    for n in 0..400u32 {
        for flags in [0, flag::SACK, flag::DESTROY, flag::HEARTBEAT, flag::MESSAGE] {
            let mut packet = forged(flags, n, 3 * n);
            if flags == flag::SACK {
                packet.extend([n.to_le_bytes(), (100 * n).to_le_bytes()].concat());
            }
            let from = host(60 + (n % 8) as u8);
            to_victim += packet.len();
            pair.send(Datagram::new(from, host(1), packet));
        }
        pair.run(ms(5));
    }
    let Stats { retransmits, .. } = pair.machines[0].udx.stats(A).unwrap();
    assert_eq!(retransmits, 0);
    assert_eq!(pair.machines[0].udx.remote(A), Some(host(2).into()));
    assert!(to_victim > 0 && pair.machines[0].closed().is_none());
    finish(&mut pair);
}

#[test]
fn a_peer_that_does_not_answer_at_its_new_address_is_sought_at_the_old_one() {
    let mut pair = pair(0.0, 2);
    pair.run(ms(500));
    // Whatever the reader says comes from a victim for a while.
    let (now, victim) = (pair.now, host(66));
    pair.tap = Some(Box::new(move |datagram| {
        if datagram.from == host(2) {
            datagram.from = victim;
        }
        datagram.to != victim
    }));
    while pair.now < now + ms(1500) {
        speak(&mut pair, 1, 150);
        pair.run(ms(100));
    }
    assert_eq!(pair.machines[0].udx.remote(A), Some(victim.into()));
    pair.tap = None;
    let still = finish(&mut pair);
    assert!(still < ms(5000), "{still:?}");
    assert_eq!(pair.machines[0].udx.remote(A), Some(host(2).into()));
}

/// The peer falls silent where it is, and says from a victim's address what only it can say.
#[test]
fn the_victim_that_a_peer_names_gets_three_bytes_for_one() {
    for seed in 0..6 {
        let mut pair = pair(0.0, seed);
        pair.run(ms(500));
        let (victim, got) = (host(66), Rc::new(RefCell::new((0, 0))));
        let count = got.clone();
        pair.tap = Some(Box::new(move |datagram| {
            if datagram.to == victim {
                let (bytes, packets) = *count.borrow();
                *count.borrow_mut() = (bytes + datagram.bytes.len(), packets + 1);
            }
            datagram.from != host(2) && datagram.to != host(2)
        }));
        let mut paid = 0;
        for _ in 0..2 {
            pair.run(ms(700));
            let packet = [forged(flag::MESSAGE, 0, 0), vec![7; 44]].concat();
            paid += packet.len();
            pair.send(Datagram::new(victim, host(1), packet));
        }
        pair.run(ms(100));
        assert_eq!(pair.machines[0].udx.remote(A), Some(victim.into()), "seed {seed}");
        pair.run(ms(20_000));
        let (bytes, packets) = *got.borrow();
        println!("{bytes} bytes in {packets} packets for {paid}");
        assert!(bytes > 0 && bytes <= 3 * paid, "seed {seed}: {bytes} bytes for {paid}");
    }
}

/// The peer has spoken from a victim's address, and much waits for what got lost: a report of that is larger than what asks
/// for it there, which anybody may have sent.
#[test]
fn what_is_acknowledged_elsewhere_is_three_bytes_for_one() {
    let (victim, now, mut sink, mut buf) = (host(66), epoch(), Collect::new(), Vec::new());
    for (blocks, answered) in [(1, true), (5, true), (6, false), (50, false)] {
        let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        udx.open(Some(A)).unwrap();
        udx.connect(A, SocketId::MAIN, B, host(2).into(), ConnectOptions::default(), now);
        for n in 0..blocks {
            let packet = [forged(flag::DATA, 1 + 2 * n, 0), vec![7; 100]].concat();
            udx.handle_datagram(SocketId::MAIN, host(2).into(), &packet, now, &mut sink);
        }
        udx.heard_from(A, (SocketId::MAIN, victim.into()), 44, now);
        let beat = forged(flag::HEARTBEAT, 0, 0);
        udx.handle_datagram(SocketId::MAIN, victim.into(), &beat, now, &mut sink);
        udx.end_of_batch(now);
        let mut got = 0;
        while let Some(transmit) = udx.poll_transmit(now, &mut buf, 1) {
            got += if transmit.to == victim.into() { buf.len() } else { 0 };
        }
        assert_eq!(got > 0, answered, "{blocks} blocks");
        assert!(got <= 3 * beat.len(), "{blocks} blocks: {got} bytes");
    }
}

/// All that the peer says comes as if from one of two others, from each for a moment.
#[test]
fn who_seems_to_move_all_the_time_is_followed_ever_more_seldom() {
    for seed in 0..6 {
        let mut pair = pair(0.0, seed);
        pair.run(ms(500));
        let now_at = Rc::new(Cell::new(66));
        let at = now_at.clone();
        pair.tap = Some(Box::new(move |datagram| {
            if datagram.from == host(2) {
                datagram.from = host(at.get());
            }
            datagram.to.ip().octets()[3] < 66
        }));
        for n in 0..30 {
            now_at.set(66 + n % 2);
            for _ in 0..16 {
                speak(&mut pair, 1, 150);
                pair.run(ms(50));
            }
        }
        let moved = |event: &&UdxEvent| matches!(event, UdxEvent::Moved { .. });
        let moves = pair.machines[0].events.iter().filter(moved).count();
        println!("{moves} moves");
        assert!((2..=8).contains(&moves), "seed {seed}: {moves}");
    }
}

/// Takes the data from machine 0 to machine 1 off the wire.
fn divert(pair: &mut Pair) -> Rc<RefCell<Vec<Vec<u8>>>> {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let into = kept.clone();
    pair.tap = Some(Box::new(move |d| {
        let takes = (d.from, d.to) == (host(1), host(2)) && d.bytes.len() > 1000;
        if takes {
            into.borrow_mut().push(d.bytes.clone());
        }
        !takes
    }));
    kept
}

/// The peer still sends through a relay that we left.
#[test]
fn a_stream_does_not_follow_its_peer_back_to_a_relay_that_it_left() {
    let mut pair = pair(0.0, 3);
    pair.run(ms(300));
    pair.on(1, |side, _| {
        side.udx.set_leg(side.id, (SocketId::MAIN, host(7).into()), 77, A);
        side.udx.forget_leg(side.id);
    });
    let kept = divert(&mut pair);
    for _ in 0..200 {
        pair.run(ms(10));
        let all = std::mem::take(&mut *kept.borrow_mut());
        all.into_iter().for_each(|d| pair.send(Datagram::new(host(7), host(2), d)));
        assert_eq!(pair.machines[1].udx.remote(B), Some(host(1).into()));
    }
}
