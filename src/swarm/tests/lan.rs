//! Peers of one local network, with and without a DHT.

use super::super::lan::{Link, Neighbour};
use super::super::neighbours::NEAR_DIALS;
use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Datagram, Kind, LinkConfig, NatConfig, Realm};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const BOTH: JoinOptions = JoinOptions { server: true, client: true };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn inner(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new([192, 168, 1, n].into(), 4000 + u16::from(n))
}

fn links(n: u8) -> Vec<Link> {
    vec![Link { interface: 1, addr: inner(n).into(), prefix: 24 }]
}

/// A swarm on a local network, its calls on or off.
fn neighbour(network: &mut Network, realm: Realm, n: u8, bootstrap: Vec<SocketAddrV4>) -> usize {
    let i = network.machines.len();
    let local_addresses = vec![inner(n)];
    let config = SwarmConfig { local_addresses, bootstrap, ..network.config(i, false) };
    let mut peer = Peer::new(config, network.seed << 8 | i as u64, network.now);
    peer.swarm.set_links(links(n), network.now);
    network.add_in(realm, inner(n), peer)
}

/// Two swarms on a local network, and nobody else anywhere.
fn two(seed: u64, loss: f64) -> Network {
    let mut network = Network::new(LinkConfig::default(), seed);
    let realm = network.add_nat(Realm::INTERNET, [20, 0, 0, 1].into(), NatConfig::full());
    network.lan().loss = loss;
    neighbour(&mut network, realm, 1, vec![]);
    neighbour(&mut network, realm, 2, vec![]);
    network
}

fn meet(network: &mut Network, within: Duration) -> Option<Duration> {
    network.run_until(within, |n| n.open(0).len() == 1 && n.open(1).len() == 1)
}

/// Datagrams that pass in `time`.
fn datagrams(network: &mut Network, time: Duration) -> u64 {
    let before = network.datagrams;
    network.run(time);
    network.datagrams - before
}

#[test]
fn neighbours_meet_without_anybody_else_whoever_comes_first() {
    for (first, second) in [(SERVER, CLIENT), (CLIENT, SERVER), (BOTH, BOTH), (BOTH, CLIENT)] {
        for wait in [0, 10, 3600, 86_400] {
            let mut network = two(1, 0.0);
            network.join(0, TOPIC, first);
            network.run(secs(wait));
            network.join(1, TOPIC, second);
            let took = meet(&mut network, secs(2));
            assert!(took.is_some_and(|t| t < ms(50)), "{first:?} {second:?} {wait}: {took:?}");
            assert_eq!(
                network.machines[0].swarm.status().connections[0].addr,
                Some(inner(2).into())
            );
        }
    }
}

/// Firewalls of these hosts let in what is sent to everybody, and of the rest what answers them.
fn let_in_the_group_alone(network: &mut Network, walled: &'static [u8]) {
    let mut written_to = BTreeSet::new();
    network.tap = Some(Box::new(move |datagram| {
        let Datagram { from, to, to_group, .. } = *datagram;
        if !to_group {
            written_to.insert((from, to));
        }
        let walled = walled.iter().any(|n| inner(*n) == to);
        to_group || !walled || written_to.contains(&(to, from))
    }));
}

#[test]
fn behind_firewalls_that_let_in_the_group_alone_neighbours_meet_as_well() {
    for walled in [&[1], &[2], &[1, 2][..]] {
        for (first, second) in [(SERVER, CLIENT), (CLIENT, SERVER), (BOTH, BOTH), (BOTH, CLIENT)] {
            for wait in [0, 10, 3600, 86_400] {
                let mut network = two(1, 0.0);
                let_in_the_group_alone(&mut network, walled);
                network.join(0, TOPIC, first);
                network.run(secs(wait));
                network.join(1, TOPIC, second);
                let took = meet(&mut network, secs(2));
                let what = (walled, first, second, wait);
                assert!(took.is_some_and(|t| t < ms(500)), "{what:?}: {took:?}");
            }
        }
    }
}

/// All can hear each other, so nobody but the callers writes to everybody.
#[test]
fn where_nothing_is_kept_out_all_hear_the_calls_alone() {
    let mut network = two(1, 0.0);
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    network.tap = Some(Box::new(move |datagram| {
        counted.set(counted.get() + u32::from(datagram.to_group));
        true
    }));
    network.join(0, TOPIC, BOTH);
    network.run(secs(100));
    let before = calls.get();
    network.join(1, TOPIC, CLIENT);
    network.run(secs(10));
    assert_eq!((calls.get() - before, network.open(0).len()), (5, 1));
}

/// Whoever calls last for a second topic, at least one of the two is told that the other has it.
#[test]
fn neighbours_that_are_connected_meet_for_one_more_topic() {
    let other = Topic([8; 32]);
    for [first, second] in [[SERVER, CLIENT], [CLIENT, SERVER], [BOTH, BOTH]] {
        let mut network = two(1, 0.0);
        network.join(0, TOPIC, BOTH);
        network.join(1, TOPIC, BOTH);
        assert!(meet(&mut network, secs(2)).is_some());
        network.join(0, other, first);
        network.run(secs(100));
        network.join(1, other, second);
        network.run(secs(1));
        let is = |e: &SwarmEvent| matches!(e, SwarmEvent::Met { topic, .. } if *topic == other);
        let told = [0, 1].map(|i| network.machines[i].events.iter().any(is));
        assert!(told.contains(&true), "{first:?} {second:?}");
    }
}

#[test]
fn what_is_lost_on_the_air_costs_little() {
    let tries = (0..100).map(|seed| {
        let mut network = two(seed, 0.2);
        let [first, second] = if seed % 2 == 0 { [SERVER, CLIENT] } else { [CLIENT, SERVER] };
        network.join(0, TOPIC, first);
        network.run(secs(20));
        network.join(1, TOPIC, second);
        meet(&mut network, secs(100)).unwrap_or(secs(100))
    });
    let mut times: Vec<Duration> = tries.collect();
    times.sort();
    assert!(times[50] < ms(1500) && times[90] < secs(6), "{:?} {:?}", times[50], times[90]);
    assert!(times[96] < secs(100), "{:?}", &times[90..]);
}

#[test]
fn who_does_not_know_the_topic_is_left_alone() {
    let mut network = two(1, 0.0);
    network.join(0, TOPIC, BOTH);
    network.join(1, Topic([8; 32]), BOTH);
    network.run(secs(3600));
    assert!(network.open(0).is_empty() && network.open(1).is_empty());
    assert_eq!(network.machines[0].swarm.status().peers_known, 0);
}

#[test]
fn where_it_is_off_not_a_datagram_is_sent_nor_answered() {
    let mut network = two(1, 0.0);
    network.on(1, |peer, now| peer.swarm.set_links(vec![], now));
    network.join(1, TOPIC, BOTH);
    let own = network.datagrams_of(1);
    assert_eq!((datagrams(&mut network, secs(100)), own), (0, 0));
    network.join(0, TOPIC, BOTH);
    let called = datagrams(&mut network, secs(100));
    assert!(called > 0);
    assert_eq!(network.datagrams_of(1), called, "all of it came to who is deaf");
    assert!(network.open(0).is_empty());
}

#[test]
fn neighbours_meet_again_in_another_network() {
    let mut network = two(1, 0.0);
    network.join(0, TOPIC, SERVER);
    network.join(1, TOPIC, CLIENT);
    assert!(meet(&mut network, secs(1)).is_some());
    let cafe = network.add_nat(Realm::INTERNET, [20, 0, 0, 9].into(), NatConfig::full());
    for i in 0..2 {
        let n = 40 + i as u8;
        network.move_to(i, cafe, inner(n));
        network.on(i, |peer, now| {
            peer.swarm.set_links(links(n), now);
            peer.swarm.network_changed(vec![inner(n)], now);
        });
    }
    let moved = |n: &Network| {
        let there = |i: usize, at: u8| {
            let status = n.machines[i].swarm.status();
            status.connections.iter().any(|c| c.open && c.addr == Some(inner(at).into()))
        };
        there(0, 41) && there(1, 40)
    };
    let took = network.run_until(secs(60), moved);
    assert!(took.is_some_and(|t| t < secs(20)), "{took:?}");
}

/// Where the reader is connected to, of two on a local network behind a box with the DHT beyond it.
fn beside_the_dht(calls: bool, seed: u64) -> (Duration, Option<SocketAddr>) {
    let pattern = LinkConfig { latency: ms(20), jitter: ms(5), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, seed, pattern, secs(5));
    let (realm, _) = network.place(Kind::Full, 1);
    let boot = vec![network.addr(0)];
    let a = neighbour(&mut network, realm, 1, boot.clone());
    network.join(a, TOPIC, SERVER);
    network.run(secs(10));
    let b = neighbour(&mut network, realm, 2, boot);
    if !calls {
        network.on(b, |peer, now| peer.swarm.set_links(vec![], now));
    }
    network.join(b, TOPIC, CLIENT);
    let took = network.run_until(secs(60), |n| n.open(b).len() == 1 && n.open(a).len() == 1);
    (took.unwrap(), network.machines[b].swarm.status().connections[0].addr)
}

#[test]
fn the_local_way_wins_over_all_others() {
    for seed in 0..10 {
        let (took, addr) = beside_the_dht(true, seed);
        assert!(took < ms(50) && addr == Some(inner(1).into()), "seed {seed}: {took:?} {addr:?}");
    }
    let (took, _) = beside_the_dht(false, 0);
    assert!(took > ms(100), "{took:?}: it takes longer without");
}

#[test]
fn who_is_connected_another_way_moves_to_the_local_one_and_stays() {
    for seed in 0..6 {
        let pattern = LinkConfig { latency: ms(20), ..LinkConfig::default() };
        let mut network = Network::of_nodes(8, seed, pattern, secs(5));
        let (home, _) = network.place(Kind::Full, 1);
        let boot = vec![network.addr(0)];
        // Neither hears the other, nor knows where itself is; the router leads what they send each other back.
        let add = |network: &mut Network, n: u8| {
            let config = SwarmConfig {
                local_addresses: Vec::new(),
                bootstrap: boot.clone(),
                ..network.config(network.machines.len(), false)
            };
            let peer = Peer::new(config, seed << 8 | u64::from(n), network.now);
            network.add_in(home, inner(n), peer)
        };
        let a = add(&mut network, 1);
        network.join(a, TOPIC, SERVER);
        network.run(secs(10));
        let b = add(&mut network, 2);
        network.join(b, TOPIC, CLIENT);
        let met = |n: &Network| n.open(b).len() == 1 && n.open(a).len() == 1;
        assert!(network.run_until(secs(60), met).is_some());
        let where_b_is = |n: &Network| n.machines[b].swarm.status().connections[0].addr;
        network.run(secs(20));
        assert_ne!(where_b_is(&network), Some(inner(1).into()), "seed {seed}: there already");
        let before = network.open(b);
        for (n, peer) in [(1, a), (2, b)] {
            network.on(peer, |peer, now| peer.swarm.set_links(links(n), now));
        }
        let moved = |n: &Network| met(n) && where_b_is(n) == Some(inner(1).into());
        let took = network.run_until(secs(10), moved);
        assert!(took.is_some_and(|t| t < secs(3)), "seed {seed}: {took:?}");
        let there = network.open(b);
        assert_ne!(before, there);
        network.run(secs(3600));
        assert_eq!(network.open(b), there, "seed {seed}: it stays");
    }
}

#[test]
fn an_address_where_nobody_is_any_more_keeps_nobody_from_the_other_ways() {
    let pattern = LinkConfig { latency: ms(20), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 1, pattern, secs(5));
    let (home, _) = network.place(Kind::Full, 1);
    let boot = vec![network.addr(0)];
    let a = neighbour(&mut network, home, 1, boot.clone());
    network.join(a, TOPIC, SERVER);
    network.run(secs(10));
    let b = neighbour(&mut network, home, 2, boot);
    let key = network.key(a);
    network.on(b, |peer, now| {
        let topics = vec![TOPIC];
        peer.swarm.join(TOPIC, CLIENT, now);
        let gone = super::super::lan::Neighbour { key, addr: inner(77).into(), topics };
        peer.swarm.neighbour_found(&gone, now);
        peer.swarm.set_links(vec![Link { interface: 1, addr: inner(2).into(), prefix: 32 }], now);
        peer.swarm.neighbour_found(&gone, now);
        peer.swarm.handle_timeout(now);
    });
    let took = network.run_until(secs(60), |n| n.open(b).len() == 1 && n.open(a).len() == 1);
    assert!(took.is_some_and(|t| t < secs(2)), "{took:?}");
}

#[test]
fn many_drives_are_few_datagrams() {
    for (drives, first, later) in [(1u32, 8, 20), (100, 16, 40), (1000, 120, 250)] {
        let mut network = two(1, 0.0);
        for n in 0..drives {
            let topic = Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
            network.join(0, topic, BOTH);
        }
        let begun = datagrams(&mut network, secs(60));
        let idle = datagrams(&mut network, secs(3600));
        println!("{drives} drives: {begun} datagrams in the first minute, then {idle} an hour");
        assert!(begun <= first && idle <= later, "{drives}: {begun}, {idle}");
        // Who only shares is silent after the first second.
        let mut network = two(1, 0.0);
        for n in 0..drives {
            let topic = Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
            network.join(0, topic, SERVER);
        }
        network.run(secs(60));
        assert_eq!(datagrams(&mut network, secs(3600)), 0);
    }
}

#[test]
fn a_dial_under_way_gives_way_to_the_local_one() {
    let mut network = two(1, 0.0);
    network.join(0, TOPIC, SERVER);
    network.on(1, |peer, now| peer.swarm.set_links(vec![], now));
    network.join(1, TOPIC, CLIENT);
    let key = network.key(0);
    // Its relay is silent: this takes seconds to fail.
    network.on(1, |peer, now| {
        let (relay, swarm) = (SocketAddrV4::new([20, 0, 0, 77].into(), 1), &mut peer.swarm);
        swarm.peers.found(key, vec![relay], TOPIC, false, now, &mut swarm.rng);
        swarm.handle_timeout(now);
    });
    network.run(ms(500));
    assert_eq!(network.machines[1].swarm.connections.dialling(), 1);
    network.on(1, |peer, now| peer.swarm.set_links(links(2), now));
    let took = meet(&mut network, secs(2));
    assert!(took.is_some_and(|t| t < ms(50)), "{took:?}");
}

#[test]
fn nobody_gives_up_before_neighbours_could_answer() {
    let mut network = two(1, 0.0);
    network.join(1, TOPIC, CLIENT);
    let settled = |n: &Network| {
        n.machines[1].events.iter().any(|event| matches!(event, SwarmEvent::Settled { .. }))
    };
    let alone = |n: &Network| {
        n.machines[1].events.iter().any(|event| matches!(event, SwarmEvent::Alone { .. }))
    };
    let took = network.run_until(secs(9), settled).unwrap();
    assert!(took >= secs(1) && took < ms(1200), "{took:?}");
    network.on(1, |peer, now| peer.swarm.leave(&TOPIC, now));
    network.join(1, Topic([8; 32]), CLIENT);
    let took = network.run_until(secs(9), alone).unwrap();
    assert!(took >= secs(1) && took < ms(1200), "{took:?}");
}

#[test]
fn a_handshake_from_a_private_address_is_answered_to_neighbours_alone() {
    for hears in [true, false] {
        let mut network = two(1, 0.0);
        if !hears {
            network.on(0, |peer, now| peer.swarm.set_links(vec![], now));
        }
        network.join(0, TOPIC, SERVER);
        network.run(secs(10));
        let (key, addr) = (network.key(0), inner(1));
        network.on(1, |peer, now| {
            let found =
                super::super::lan::Neighbour { key, addr: addr.into(), topics: vec![TOPIC] };
            peer.swarm.neighbour_found(&found, now);
            peer.swarm.handle_timeout(now);
        });
        let met = meet(&mut network, secs(10));
        assert_eq!(met.is_some(), hears, "{met:?}");
    }
}

/// A neighbour found who may be nobody.
fn invented(n: u64, host: u8) -> Neighbour {
    let key = PublicKey(KeyPair::from_seed(&hash::hash(&[&n.to_le_bytes()])).public());
    Neighbour { key, addr: SocketAddr::from(([192, 168, 1, host], 5000)), topics: vec![TOPIC] }
}

fn find(network: &mut Network, i: usize, neighbour: &Neighbour) {
    network.on(i, |peer, now| {
        peer.swarm.neighbour_found(neighbour, now);
        peer.swarm.end_of_batch(now);
    });
}

/// A reader on a local network, and a sharer elsewhere.
fn sharer_outside() -> (Network, usize, usize) {
    let pattern = LinkConfig { latency: ms(20), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 3, pattern, secs(5));
    let (realm, ip) = network.place(Kind::Full, 9);
    let addr = SocketAddrV4::new(ip, 4000);
    let i = network.machines.len();
    let config = SwarmConfig { local_addresses: vec![addr], ..network.config(i, false) };
    let peer = Peer::new(config, 999, network.now);
    let sharer = network.add_in(realm, addr, peer);
    network.join(sharer, TOPIC, SERVER);
    network.run(secs(20));
    let realm = network.add_nat(Realm::INTERNET, [20, 0, 0, 1].into(), NatConfig::full());
    let bootstrap = vec![network.addr(0)];
    let reader = neighbour(&mut network, realm, 1, bootstrap);
    network.run(secs(5));
    (network, sharer, reader)
}

/// Answers of as many keys as are looked at keep nobody from a sharer who is elsewhere.
#[test]
fn invented_neighbours_take_turns_with_others() {
    for (rate, hosts) in [(8, 1), (64, 200)] {
        let (mut network, _, reader) = sharer_outside();
        network.join(reader, TOPIC, CLIENT);
        network.run(ms(5));
        let mut n = 0;
        let mut invent = |network: &mut Network, many: u64| {
            for _ in 0..many {
                n += 1;
                find(network, reader, &invented(n, 10 + (n % hosts) as u8));
            }
        };
        invent(&mut network, if hosts == 1 { 96 } else { 512 });
        let start = network.now;
        while network.open(reader).is_empty() && network.now < start + secs(120) {
            network.run(ms(250));
            invent(&mut network, rate / 4);
        }
        let took = network.now - start;
        println!("{rate} a second of {hosts} hosts: {took:?}");
        assert!(took < secs(10), "{rate} a second of {hosts} hosts: {took:?}");
    }
}

/// A peer says that it is at a victim's as well, on a local network, and each time at another port.
#[test]
fn whom_a_peer_names_as_itself_again_and_again_gets_little() {
    let (mut network, sharer, reader) = sharer_outside();
    network.join(reader, TOPIC, CLIENT);
    network.run(secs(20));
    assert_eq!(network.open(reader).len(), 1);
    let (key, topics) = (network.key(sharer), vec![TOPIC]);
    let says = |network: &mut Network, port: u16| {
        let addr = SocketAddr::from(([192, 168, 1, 50], port));
        find(network, reader, &Neighbour { key, addr, topics: topics.clone() });
        network.machines[reader].swarm.connections.dialling()
    };
    assert!([1, 1, 2, 2].into_iter().all(|port| says(&mut network, port) == 1), "one at a time");
    let (start, mut dials) = (network.now, 0);
    for port in 5000..5250 {
        network.run(secs(4));
        dials += says(&mut network, port);
    }
    let seconds = (network.now - start).as_secs_f64();
    let most = NEAR_DIALS.burst + NEAR_DIALS.rate * seconds;
    println!("{dials} dials in {seconds} s");
    assert!(dials as f64 >= NEAR_DIALS.burst && dials as f64 <= most, "{dials} in {seconds} s");
    assert_eq!(network.open(reader).len(), 1);
}

/// A forged answer has some datagrams sent to the neighbour that it names, and many of them no more than some more.
#[test]
fn who_is_named_by_forged_answers_gets_little() {
    for (answers, most) in [(1, 5), (96, 200)] {
        let (mut network, _, reader) = sharer_outside();
        network.join(reader, TOPIC, CLIENT);
        network.run(secs(10));
        let (count, victim) = (Rc::new(Cell::new(0)), invented(0, 50).addr);
        let counted = count.clone();
        network.tap = Some(Box::new(move |datagram| {
            counted.set(counted.get() + u32::from(SocketAddr::V4(datagram.to) == victim));
            true
        }));
        (0..answers).for_each(|n| find(&mut network, reader, &invented(n, 50)));
        network.run(secs(600));
        println!("{answers}: {}", count.get());
        assert!((1..=most).contains(&count.get()), "{answers}: {}", count.get());
    }
}
