//! Legs of a relay: packet by packet as in the reference, and what is not passed on.

use super::super::legs::{LegEnd, LegRates, Legs, MAX_LEFT};
use super::super::outbox::Outbox;
use super::super::packet::{Header, flag};
use super::super::types::{Transmit, UdxEvent};
use crate::key::{hex, unhex};
use crate::sim::epoch;
use crate::swarm::relay::vectors;
use crate::swarm::socket::SocketId;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const RATES: LegRates = LegRates { host: 1 << 20, total: 4 << 20 };

fn at(host: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(20, 0, 0, host).into(), 5000)
}

fn end(remote_id: u32, host: Option<u8>, proven: bool) -> LegEnd {
    LegEnd { remote_id, host: host.map(|host| at(host).ip()), proven }
}

fn sent(out: &mut Outbox) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((Transmit { to, segment_size, .. }, bytes)) = out.poll_datagram(44) {
        let size = segment_size.unwrap_or(bytes.len());
        all.extend(bytes.chunks(size).map(|bytes| (to, bytes.to_vec())));
    }
    all
}

#[test]
fn packets_are_passed_on_as_the_reference_does() {
    let now = epoch();
    let vectors = &vectors()["relay_to"];
    let (mut legs, mut out) = (Legs::default(), Outbox::default());
    legs.join([7001, 7002], [end(1001, None, true), end(2002, None, true)], now);
    let mut kept = Vec::new();
    for step in vectors["packets"].as_array().unwrap() {
        let (host, leg) = match step["from"].as_str().unwrap() {
            "A" => (1, 7001),
            "B" => (2, 7002),
            _ => (9, 7001),
        };
        let text = step["sent"].as_str().unwrap();
        let mut packet = unhex(text.trim_end_matches('.')).unwrap();
        let long = text.ends_with('.');
        if long {
            packet.resize(1472, b'a');
        }
        assert!(
            legs.handle(leg, (SocketId::MAIN, at(host)), &packet, now, &mut out) || leg == 7001
        );
        let mut got = sent(&mut out);
        if step["name"].as_str().unwrap().starts_with("B: attaches") {
            // What the reference lost is kept here, and follows.
            kept = got.iter().filter(|(to, _)| *to == at(2)).cloned().collect();
            got.retain(|(to, _)| *to == at(1));
        }
        for (name, to) in [("toA", at(1)), ("toB", at(2))] {
            let want = step[name].as_array().unwrap();
            let mine = got.iter().filter(|(at, _)| *at == to).map(|(_, bytes)| hex(bytes));
            let mine: Vec<String> = mine.collect();
            assert_eq!(mine.len(), want.len(), "{}", step["name"]);
            for (mine, want) in mine.iter().zip(want) {
                let want = want.as_str().unwrap();
                let start = want.split("..").next().unwrap();
                assert!(mine.starts_with(start) && (long || mine == want), "{}", step["name"]);
            }
        }
    }
    assert_eq!(kept.len(), 1);
    assert!(!legs.has(7001) && legs.has(7002));
    assert_eq!(out.poll_event(), Some(UdxEvent::LegEnded { leg: 7001 }));
}

fn packet(stream: u32, size: usize) -> Vec<u8> {
    let header = Header { flags: flag::DATA, data_offset: 0, stream, window: 1, seq: 0, ack: 0 };
    let mut bytes = header.encode().to_vec();
    bytes.resize(size, 1);
    bytes
}

/// A pair of legs between hosts 1 and 2.
fn pair(proven: bool) -> (Legs, Outbox) {
    let mut legs = Legs::default();
    legs.limit(RATES, epoch());
    legs.join([1, 2], [end(11, Some(1), true), end(22, Some(2), proven)], epoch());
    (legs, Outbox::default())
}

#[test]
fn nobody_else_attaches_to_a_leg() {
    let (mut legs, mut out) = pair(true);
    let now = epoch();
    legs.handle(2, (SocketId::MAIN, at(66)), &packet(2, 100), now, &mut out);
    legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 100), now, &mut out);
    assert_eq!(sent(&mut out), [], "it is not known where the other is");
    legs.handle(2, (SocketId::MAIN, at(2)), &packet(2, 100), now, &mut out);
    let hosts: Vec<_> = sent(&mut out).into_iter().map(|(to, _)| to).collect();
    assert_eq!(hosts, [at(2), at(1)]);
}

#[test]
fn a_few_packets_wait_for_a_peer_and_no_more() {
    let (mut legs, mut out) = pair(true);
    let now = epoch();
    for _ in 0..1000 {
        legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 1400), now, &mut out);
    }
    legs.handle(2, (SocketId::MAIN, at(2)), &packet(2, 100), now, &mut out);
    let to_2 = sent(&mut out).into_iter().filter(|(to, _)| *to == at(2)).count();
    assert_eq!(to_2, 4);
}

/// Who names somebody else as his own address makes us send him no more than three times what comes from there.
#[test]
fn a_host_that_did_not_show_itself_is_not_flooded() {
    let (mut legs, mut out) = pair(false);
    let now = epoch();
    legs.handle(2, (SocketId::MAIN, at(2)), &packet(2, 100), now, &mut out);
    for _ in 0..1000 {
        legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 100), now, &mut out);
    }
    let count = |out: &mut Outbox| sent(out).into_iter().filter(|(to, _)| *to == at(2)).count();
    assert_eq!(count(&mut out), 3);
    assert!(legs.prove(2, (SocketId::MAIN, at(2)), now));
    legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 100), now, &mut out);
    assert_eq!(count(&mut out), 1);
}

/// Who was said to be at a victim's and then shows himself elsewhere has shown nothing of the victim.
#[test]
fn a_leg_is_proven_by_its_own_host_and_no_other() {
    let (mut legs, mut out) = pair(false);
    let now = epoch();
    legs.handle(2, (SocketId::MAIN, at(2)), &packet(2, 100), now, &mut out);
    assert!(!legs.prove(2, (SocketId::MAIN, at(3)), now) && !legs.has(2));
    sent(&mut out);
    for _ in 0..10 {
        legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 100), now, &mut out);
    }
    assert!(sent(&mut out).iter().all(|(to, _)| *to != at(2)));
}

/// A NAT forgot it: what is for it goes to both ports, until it is known at which it is.
#[test]
fn who_speaks_from_another_port_of_its_host_is_heard_and_answered_within_bounds() {
    let (mut legs, mut out) = pair(true);
    let now = epoch();
    let [old, new] = [5000, 6000].map(|port| SocketAddr::new(at(2).ip(), port));
    let mut say = |legs: &mut Legs, leg, from| {
        legs.handle(leg, (SocketId::MAIN, from), &packet(leg, 100), now, &mut out);
        sent(&mut out).into_iter().map(|(to, _)| to).collect::<Vec<_>>()
    };
    say(&mut legs, 1, at(1));
    say(&mut legs, 2, old);
    assert_eq!(say(&mut legs, 2, new), [at(1)]);
    for _ in 0..3 {
        assert_eq!(say(&mut legs, 1, at(1)), [old, new]);
    }
    assert_eq!(say(&mut legs, 1, at(1)), [old], "three bytes for one");
    assert!(legs.prove(2, (SocketId::MAIN, new), now));
    for _ in 0..10 {
        assert_eq!(say(&mut legs, 1, at(1)), [new]);
    }
    // A port that it has shown is taken at once.
    assert!(legs.prove(2, (SocketId::MAIN, old), now));
    assert_eq!(say(&mut legs, 1, at(1)), [new]);
    say(&mut legs, 2, old);
    assert_eq!(say(&mut legs, 1, at(1)), [old]);
}

#[test]
fn who_moved_to_another_host_is_followed_once_it_has_shown_itself_there() {
    let (mut legs, mut out) = pair(true);
    let now = epoch();
    for (leg, host) in [(1, 1), (2, 2), (2, 3)] {
        legs.handle(leg, (SocketId::MAIN, at(host)), &packet(leg, 100), now, &mut out);
    }
    assert!(sent(&mut out).iter().all(|(to, _)| *to != at(3)));
    assert!(legs.prove(2, (SocketId::MAIN, at(3)), now));
    legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 100), now, &mut out);
    assert_eq!(sent(&mut out).into_iter().map(|(to, _)| to).collect::<Vec<_>>(), [at(3)]);
    // Its bytes are those of the host where it is.
    legs.remove(2);
    legs.join(
        [3, 4],
        [end(33, Some(4), true), end(44, Some(5), true)],
        now + Duration::from_secs(9),
    );
    assert_eq!(legs.hosts(), 3);
}

#[test]
fn bytes_beyond_the_allowance_of_a_host_are_lost_and_those_of_others_are_not() {
    let (mut legs, mut out) = pair(true);
    legs.join([3, 4], [end(33, Some(3), true), end(44, Some(4), true)], epoch());
    let mut now = epoch();
    for (leg, host) in [(2, 2), (4, 4)] {
        legs.handle(leg, (SocketId::MAIN, at(host)), &packet(leg, 20), now, &mut out);
    }
    let mut passed = [0; 2];
    for _ in 0..10_000 {
        now += Duration::from_millis(1);
        for _ in 0..4 {
            legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, 1400), now, &mut out);
        }
        legs.handle(3, (SocketId::MAIN, at(3)), &packet(3, 700), now, &mut out);
        for (to, bytes) in sent(&mut out) {
            match to {
                to if to == at(2) => passed[0] += bytes.len(),
                to if to == at(4) => passed[1] += bytes.len(),
                _ => {}
            }
        }
    }
    let rate = RATES.host as usize;
    assert!((rate * 10..rate * 11).contains(&passed[0]), "{passed:?}");
    assert_eq!(passed[1], 7_000_000);
}

/// It has its legs taken away and joined anew all the time.
#[test]
fn a_host_that_joins_again_and_again_has_the_allowance_of_one() {
    let (mut legs, mut out, mut now) = (Legs::default(), Outbox::default(), epoch());
    legs.limit(RATES, now);
    for n in 0..250 {
        now += Duration::from_millis(40);
        let (a, b) = (2 * n, 2 * n + 1);
        legs.join([a, b], [end(11, Some(1), true), end(12, Some(1), true)], now);
        for id in [b].into_iter().chain([a; 200]) {
            legs.handle(id, (SocketId::MAIN, at(1)), &packet(id, 1400), now, &mut out);
        }
        sent(&mut out);
        legs.remove(a);
        legs.remove(b);
    }
    let most = 11 * RATES.host;
    assert!((most / 2..most).contains(&legs.passed()), "{} bytes", legs.passed());
    now += Duration::from_secs(1);
    legs.join([1, 2], [end(11, Some(2), true), end(12, Some(2), true)], now);
    assert_eq!(legs.hosts(), 1);
    // However many come and go, few are remembered.
    for n in 0..2000u32 {
        let id = 1000 + 2 * n;
        let host = SocketAddr::new(Ipv4Addr::from(n).into(), 5000);
        let end = LegEnd { host: Some(host.ip()), ..end(11, None, true) };
        legs.join([id, id + 1], [end; 2], now);
        legs.handle(id, (SocketId::MAIN, host), &packet(id, 1400), now, &mut out);
        legs.remove(id);
        legs.remove(id + 1);
    }
    assert!(legs.hosts() <= 2 + MAX_LEFT, "{} hosts", legs.hosts());
}

#[test]
fn hosts_together_get_no_more_than_all_may() {
    let (mut legs, mut out) = (Legs::default(), Outbox::default());
    legs.limit(RATES, epoch());
    let ids = |n: u8| [u32::from(n), 100 + u32::from(n)];
    for n in 1..=16 {
        let ends = [end(1, Some(n), true), end(2, Some(100 + n), true)];
        legs.join(ids(n), ends, epoch());
        legs.handle(ids(n)[1], (SocketId::MAIN, at(100 + n)), &packet(2, 20), epoch(), &mut out);
    }
    sent(&mut out);
    let mut bytes = 0;
    for ms in 0..10_000 {
        let now = epoch() + Duration::from_millis(ms);
        for n in 1..=16 {
            legs.handle(ids(n)[0], (SocketId::MAIN, at(n)), &packet(1, 1000), now, &mut out);
        }
        bytes += sent(&mut out).iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    }
    // Of ten seconds, and what may come at once; the hosts alone would have 160 MiB.
    let most = RATES.total * 12;
    assert!(bytes > RATES.total * 9 && bytes <= most, "{bytes} of {most}");
}

#[test]
fn what_goes_the_same_way_leaves_in_one_send() {
    let (mut legs, mut out) = pair(true);
    let now = epoch();
    legs.handle(2, (SocketId::MAIN, at(2)), &packet(2, 20), now, &mut out);
    sent(&mut out);
    for size in [1000, 1000, 1000, 400, 1000] {
        legs.handle(1, (SocketId::MAIN, at(1)), &packet(1, size), now, &mut out);
    }
    let runs: Vec<_> = std::iter::from_fn(|| out.poll_datagram(2))
        .map(|(t, b)| (t.segment_size, b.len()))
        .collect();
    assert_eq!(runs, [(None, 20), (Some(1000), 2000), (Some(1000), 1400), (None, 1000)]);
}
