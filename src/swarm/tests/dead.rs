//! Readers who ended without a word, and liars who invent peers: whoever is there is found beside their records, and
//! what is sent for those has bounds.

use super::super::*;
use super::sim::{Network, Peer, addr};
use crate::crypto::hash;
use crate::sim::LinkConfig;
use crate::swarm::hyperdht::KNOCKS;
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const BOTH: JoinOptions = JoinOptions { server: true, client: true };

/// Where the dead were.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    OneHost,
    ManyHosts,
}

/// A DHT of `nodes`, one who shares, and `dead` who announced themselves after it and ended without a word. Answers
/// the network and the sharer.
fn graveyard(nodes: usize, dead: usize, at: At, seed: u64) -> (Network, usize) {
    let latency = Duration::from_millis(25);
    let pattern = LinkConfig { latency, ..LinkConfig::default() };
    let mut network = Network::of_nodes(nodes, seed, pattern, Duration::from_secs(1));
    let sharer = network.begin(false);
    network.join(sharer, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    let buried: Vec<usize> = (0..dead).map(|n| bury(&mut network, n, at)).collect();
    network.run(Duration::from_secs(10));
    for &i in &buried {
        assert!(network.machines[i].swarm.status().topics[0].announced);
        network.down(i);
    }
    network.run(Duration::from_secs(5));
    (network, sharer)
}

fn bury(network: &mut Network, n: usize, at: At) -> usize {
    let i = network.machines.len();
    let peer = Peer::new(network.config(i, false), network.seed << 16 | i as u64, network.now);
    let host = match at {
        At::OneHost => Ipv4Addr::new(10, 9, 9, 9),
        At::ManyHosts => Ipv4Addr::new(10, 9, (n >> 8) as u8, n as u8),
    };
    let i = network.add(SocketAddrV4::new(host, 5000 + n as u16), peer);
    network.join(i, TOPIC, BOTH);
    i
}

/// How long a reader looks for the sharer.
fn search(network: &mut Network, sharer: usize) -> Duration {
    let reader = network.begin(false);
    network.run(Duration::from_secs(2));
    network.join(reader, TOPIC, CLIENT);
    let found = |n: &Network| !n.open(sharer).is_empty();
    network.run_until(Duration::from_secs(120), found).unwrap_or(Duration::MAX)
}

#[test]
fn whoever_is_there_is_found_at_once_beside_the_records_of_the_dead() {
    for at in [At::OneHost, At::ManyHosts] {
        for (nodes, dead, within) in [(1, 10, 500), (1, 70, 2500), (6, 70, 2500)] {
            let (mut network, sharer) = graveyard(nodes, dead, at, 1);
            let took = search(&mut network, sharer);
            let what = format!("{at:?}, {nodes} nodes, {dead} dead");
            assert!(took <= Duration::from_millis(within), "{what}: {took:?}");
        }
    }
}

#[test]
fn two_who_wait_as_well_do_not_slow_down_the_search_beside_the_dead() {
    let (mut network, sharer) = graveyard(3, 60, At::ManyHosts, 2);
    for _ in 0..2 {
        let waits = network.begin(false);
        network.join(waits, Topic([8; 32]), SERVER);
        network.join(waits, TOPIC, SERVER);
    }
    network.run(Duration::from_secs(5));
    let took = search(&mut network, sharer);
    assert!(took <= Duration::from_millis(2500), "{took:?}");
}

#[test]
fn who_loses_datagrams_is_found_beside_the_dead_all_the_same() {
    let (mut network, sharer) = graveyard(3, 60, At::ManyHosts, 3);
    network.every_link(|link| link.loss = 0.1);
    let took = search(&mut network, sharer);
    assert!(took <= Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_flood_of_invented_peers_makes_us_send_no_more_than_what_one_host_and_all_are_allowed() {
    for at in [At::OneHost, At::ManyHosts] {
        let (mut network, sharer) = graveyard(3, 0, at, 4);
        let reader = network.begin(false);
        network.run(Duration::from_secs(2));
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        network.tap = Some(Box::new(move |datagram| {
            let invented = datagram.to.ip().octets()[..2] == [10, 7];
            count.set(count.get() + usize::from(invented));
            true
        }));
        network.on(reader, |peer, now| {
            let swarm = &mut peer.swarm;
            swarm.topics.join(TOPIC, CLIENT, now);
            for n in 0..1000u16 {
                let key = PublicKey(hash::hash(&[&n.to_le_bytes()]));
                let [a, b] = n.to_be_bytes();
                let host = if at == At::OneHost { [10, 7, 7, 7] } else { [10, 7, a, b] };
                let relays = (0..3).map(|r| SocketAddrV4::new(host.into(), 1000 + 3 * n + r));
                swarm.peers.found(key, relays.collect(), TOPIC, false, now, &mut swarm.rng);
            }
            swarm.pump(now);
        });
        let start = network.now;
        let mut met = None;
        for second in 1..=60 {
            network.run(Duration::from_secs(1));
            if met.is_none() && !network.open(sharer).is_empty() {
                met = Some(second);
            }
            let most = match at {
                At::OneHost => KNOCKS.burst + KNOCKS.rate * f64::from(second),
                At::ManyHosts => 160.0 * (f64::from(second) / 3.0 + 1.0),
            };
            let took = network.now - start;
            assert!(sent.get() as f64 <= most, "{at:?}: {} in {took:?}", sent.get());
        }
        assert!(met.is_some_and(|met| met <= 50), "{at:?}: {met:?}");
    }
}

#[test]
fn who_names_the_relays_of_the_sharer_in_invented_records_keeps_nobody_from_it() {
    let (mut network, sharer) = graveyard(1, 0, At::OneHost, 5);
    let reader = network.begin(false);
    network.run(Duration::from_secs(2));
    network.on(reader, |peer, now| {
        let swarm = &mut peer.swarm;
        swarm.topics.join(TOPIC, CLIENT, now);
        for n in 0..1000u16 {
            let key = PublicKey(hash::hash(&[&n.to_le_bytes()]));
            swarm.peers.found(key, vec![addr(0)], TOPIC, false, now, &mut swarm.rng);
        }
    });
    let found = |n: &Network| !n.open(sharer).is_empty();
    let took = network.run_until(Duration::from_secs(120), found);
    assert!(took.is_some_and(|took| took < Duration::from_secs(60)), "{took:?}");
}
