//! Peers behind NATs of every kind, which nobody has told anything but the DHT.

use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Kind, LinkConfig};
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const CONE: [Kind; 4] = [Kind::Full, Kind::Addr, Kind::Port, Kind::Cgnat];

/// A swarm behind NATs of a kind, on which only this depends.
fn behind(network: &mut Network, kind: Kind, n: u8) -> usize {
    let i = network.machines.len();
    let (realm, ip) = network.place(kind, n);
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
            assert!(longest < Duration::from_secs(12), "{a:?} {b:?}: {longest:?}");
            assert!(median < Duration::from_secs(3), "{a:?} {b:?}: {median:?}");
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
