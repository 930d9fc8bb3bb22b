//! Peers behind NATs of every kind, which nobody has told anything but the DHT.

use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Kind, LinkConfig, NatConfig, Realm};
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const CONE: [Kind; 4] = [Kind::Full, Kind::Addr, Kind::Port, Kind::Cgnat];

/// A swarm behind NATs of a kind, on which only this depends.
pub fn behind(network: &mut Network, kind: Kind, n: u8) -> usize {
    let (realm, ip) = network.place(kind, n);
    inside(network, realm, ip)
}

/// A swarm at an address of a realm.
fn inside(network: &mut Network, realm: Realm, ip: Ipv4Addr) -> usize {
    let i = network.machines.len();
    let inner = SocketAddrV4::new(ip, 4000);
    let config = SwarmConfig { local_addresses: vec![inner], ..network.config(i, false) };
    let peer = Peer::new(config, network.seed << 8 | i as u64, network.now);
    network.add_in(realm, inner, peer)
}

/// How long it takes one of kind `b` to connect to one of kind `a` who shares.
fn connect(a: Kind, b: Kind, seed: u64, loss: f64, within: Duration) -> Option<Duration> {
    let ms = Duration::from_millis;
    let pattern = LinkConfig { loss, latency: ms(20), jitter: ms(5), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, seed, pattern, Duration::from_secs(5));
    let a = behind(&mut network, a, 1);
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(10));
    let b = behind(&mut network, b, 2);
    network.join(b, TOPIC, CLIENT);
    let took = network.run_until(within, |n| n.open(b).len() == 1 && n.open(a).len() == 1)?;
    let conn = network.open(b)[0];
    network.send_frame(b, conn, &[7; 100_000]);
    let heard = |n: &Network| !n.frames(a).is_empty();
    network.run_until(Duration::from_secs(20), heard).map(|_| took)
}

#[test]
fn cones_connect_at_once_whichever_they_are() {
    for a in CONE {
        for b in CONE.into_iter().chain([Kind::Open]) {
            let took = connect(a, b, 1, 0.0, Duration::from_secs(20));
            assert!(took.is_some_and(|t| t < Duration::from_millis(1500)), "{a:?} {b:?}: {took:?}");
        }
    }
}

#[test]
fn what_is_lost_costs_time_and_no_connection() {
    for seed in 0..20 {
        let took = connect(Kind::Port, Kind::Port, seed, 0.1, Duration::from_secs(60));
        assert!(took.is_some(), "seed {seed}");
    }
}

/// The longest and the median of some tries.
fn tries(a: Kind, b: Kind, seeds: u64) -> (Duration, Duration) {
    let within = Duration::from_secs(40);
    let took = |seed| {
        connect(a, b, seed, 0.0, within).unwrap_or_else(|| panic!("{a:?} {b:?}, seed {seed}"))
    };
    let mut all: Vec<_> = (0..seeds).map(took).collect();
    all.sort();
    (all[all.len() - 1], all[all.len() / 2])
}

#[test]
fn one_side_with_random_ports_is_found_by_trying() {
    for kind in CONE {
        for (a, b) in [(kind, Kind::Sym), (Kind::Sym, kind)] {
            let (longest, median) = tries(a, b, 8);
            println!("{a:?} {b:?}: {longest:?}, {median:?}");
            assert!(longest < Duration::from_secs(8), "{a:?} {b:?}: {longest:?}");
            assert!(median < Duration::from_secs(2), "{a:?} {b:?}: {median:?}");
        }
    }
}

#[test]
fn two_sides_with_random_ports_are_told() {
    assert_eq!(connect(Kind::Sym, Kind::Sym, 1, 0.0, Duration::from_secs(20)), None);
}

/// More at once than have a turn: nobody is turned away.
#[test]
fn clients_with_random_ports_that_come_at_once_all_get_in() {
    let ms = Duration::from_millis;
    let pattern = LinkConfig { latency: ms(20), jitter: ms(5), ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 3, pattern, Duration::from_secs(5));
    let server = behind(&mut network, Kind::Port, 1);
    network.join(server, TOPIC, SERVER);
    network.run(Duration::from_secs(10));
    let clients: Vec<_> = (2..14).map(|n| behind(&mut network, Kind::Sym, n)).collect();
    clients.iter().for_each(|client| network.join(*client, TOPIC, CLIENT));
    let all = |n: &Network| clients.iter().all(|client| n.open(*client).len() == 1);
    let took = network.run_until(Duration::from_secs(60), all);
    assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "{took:?}");
}

/// Of the sockets for whoever tries our ports one stays, which the connection goes through.
#[test]
fn sockets_are_closed_that_brought_nothing() {
    let mut network = network();
    let a = behind(&mut network, Kind::Sym, 1);
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(10));
    let b = behind(&mut network, Kind::Port, 2);
    network.join(b, TOPIC, CLIENT);
    network.run_until(Duration::from_secs(10), |n| n.open(a).len() == 1).expect("a connection");
    assert!(network.machines[a].most_sockets >= 256);
    network.run(Duration::from_secs(3));
    assert_eq!(network.machines[a].sockets.len(), 1);
    let conn = network.open(a)[0];
    [a, b].iter().for_each(|i| network.on(*i, |peer, now| peer.swarm.leave(&TOPIC, now)));
    network.on(a, |peer, now| peer.swarm.close(conn, now));
    network.run(Duration::from_secs(10));
    assert_eq!(network.machines[a].sockets.len(), 0);
}

/// Two peers who share a router with random ports are told apart.
#[test]
fn two_behind_one_router_with_random_ports_are_both_reached() {
    let mut network = network();
    let (home, ip) = network.place(Kind::Sym, 1);
    let servers = [ip, [192, 168, 1, 3].into()].map(|ip| inside(&mut network, home, ip));
    servers.iter().for_each(|server| network.join(*server, TOPIC, SERVER));
    network.run(Duration::from_secs(10));
    for n in 2..6 {
        let reader = behind(&mut network, Kind::Port, n);
        network.join(reader, TOPIC, CLIENT);
        let both = |n: &Network| n.open(reader).len() == 2;
        let took = network.run_until(Duration::from_secs(25), both);
        assert!(took.is_some(), "reader {n}");
        let failed = |e: &SwarmEvent| matches!(e, SwarmEvent::DialFailed { .. });
        assert!(!network.machines[reader].events.iter().any(failed), "reader {n}");
    }
}

/// 20 ms to every node, and to everybody behind the same router.
fn network() -> Network {
    let latency = Duration::from_millis(20);
    let pattern = LinkConfig { latency, ..LinkConfig::default() };
    Network::of_nodes(8, 1, pattern, Duration::from_secs(5))
}

#[test]
fn two_on_one_network_do_not_wait_for_a_hole() {
    let mut network = network();
    let (home, ip) = network.place(Kind::Port, 1);
    let a = inside(&mut network, home, ip);
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(10));
    let b = inside(&mut network, home, [192, 168, 1, 3].into());
    network.join(b, TOPIC, CLIENT);
    let took = network.run_until(Duration::from_secs(10), |n| n.open(b).len() == 1);
    assert!(took.is_some_and(|took| took < Duration::from_millis(400)), "{took:?}");
    let at = network.machines[b].swarm.connections.iter().find_map(|c| c.addr);
    assert_eq!(at, Some(SocketAddrV4::new(ip, 4000).into()));
}

/// How long two customers of one carrier, each behind a router of its own, take to connect, or to be told that they cannot.
fn customers(hairpin: bool) -> (bool, Duration) {
    let mut network = network();
    let carrier = NatConfig { hairpin, ..NatConfig::carrier() };
    let carrier = network.add_nat(Realm::INTERNET, [80, 0, 1, 1].into(), carrier);
    let [a, b] = [2, 3].map(|n| {
        let home = network.add_nat(carrier, [100, 64, 1, n].into(), NatConfig::port());
        inside(&mut network, home, [192, 168, n, 2].into())
    });
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(10));
    network.join(b, TOPIC, CLIENT);
    let failed = |e: &SwarmEvent| matches!(e, SwarmEvent::DialFailed { .. });
    let over = |n: &Network| n.open(b).len() == 1 || n.machines[b].events.iter().any(failed);
    let took = network.run_until(Duration::from_secs(20), over).expect("it is over");
    (network.open(b).len() == 1, took)
}

#[test]
fn two_customers_of_a_carrier_punch_beside_looking_on_their_network() {
    let (connected, took) = customers(true);
    assert!(connected && took < Duration::from_millis(600), "{took:?}");
}

#[test]
fn where_a_carrier_turns_nothing_around_its_customers_are_told_soon() {
    let (connected, took) = customers(false);
    assert!(!connected && took < Duration::from_secs(4), "{took:?}");
}
