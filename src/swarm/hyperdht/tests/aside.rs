//! What it costs that nodes are left alone for a while, so that they can tell whether others reach us: nobody is found less
//! for it.

use super::access::{announces, dht, enter, happened, network, place};
use super::sim::{Node, Sim, host, pair};
use crate::key::PublicKey;
use crate::sim::Kind;
use crate::swarm::hyperdht::{DhtEvent, HyperDht, target_of};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);

fn key() -> PublicKey {
    PublicKey(pair(77).public())
}

fn with(sim: &mut Sim, i: usize, f: impl FnOnce(&mut HyperDht, Instant)) {
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        f(dht, now);
    });
}

/// Whether node `n` holds the announcement.
fn holds(sim: &Sim, n: u16) -> bool {
    let records = dht(sim, sim.at(host(n))).records.as_ref();
    records.is_some_and(|records| records.route(&target_of(&key())).is_some())
}

/// A peer behind a NAT that is announced at all of a few nodes.
fn announced(seed: u64, nodes: u16) -> (Sim, usize) {
    let mut sim = network(seed, nodes, 0.0);
    let at = place(&mut sim, Kind::Port, 9);
    let i = enter(&mut sim, at, nodes);
    announces(&mut sim, i);
    with(&mut sim, i, |dht, now| dht.probe_anew(None, now));
    sim.run(20 * SECOND);
    assert!((0..nodes).all(|n| holds(&sim, n)), "{nodes} nodes, seed {seed}");
    (sim, i)
}

#[test]
fn the_nodes_of_a_small_network_keep_what_they_hold_of_a_peer_whose_network_changes() {
    for (nodes, loss) in [(1, 0.0), (1, 0.1), (2, 0.0), (2, 0.1), (3, 0.0)] {
        for seed in 0..6 {
            let (mut sim, i) = announced(seed, nodes);
            sim.every_link(|link| link.loss = loss);
            with(&mut sim, i, |dht, now| dht.network_changed(now));
            for step in 0..12 * 20 {
                sim.run(STEP);
                let all = (0..nodes).all(|n| holds(&sim, n));
                assert!(all, "{nodes} nodes, {loss}, seed {seed}: gone after {step} steps");
            }
            let told = happened(&sim, i, |event| matches!(event, DhtEvent::Forgotten));
            assert_eq!(told, 0, "{nodes} nodes, {loss}, seed {seed}");
        }
    }
}

#[test]
fn a_peer_is_announced_at_the_one_node_that_answers_as_soon_as_the_others_are_given_up() {
    for after in [0, 5] {
        let mut sim = network(3, 2, 0.0);
        sim.kill(0);
        let at = place(&mut sim, Kind::Port, 9);
        let i = enter(&mut sim, at, 2);
        announces(&mut sim, i);
        if after == 0 {
            with(&mut sim, i, |dht, now| dht.probe_anew(None, now));
        }
        let took = sim.run_until(20 * SECOND, |sim| holds(sim, 1));
        assert!(took.is_some_and(|took| took < 5 * SECOND / 2), "{took:?}");
    }
}

#[test]
fn who_is_announced_again_is_not_withdrawn_any_more() {
    for seed in 0..12 {
        let (mut sim, i) = announced(seed, 1);
        // What is sent first comes first, or has to be sent again.
        sim.every_link(|link| (link.jitter, link.loss) = (Duration::ZERO, 0.4));
        with(&mut sim, i, |dht, now| {
            dht.unlisten(&key(), now);
            dht.listen(std::sync::Arc::new(pair(77)), now);
        });
        let listens = |sim: &Sim| {
            dht(sim, i).servers.values().any(|server| !server.announcer.relays().is_empty())
        };
        assert!(sim.run_until(60 * SECOND, listens).is_some(), "seed {seed}");
        for step in 0..8 * 20 {
            assert!(holds(&sim, 0), "seed {seed}: gone after {step} steps");
            sim.run(STEP);
        }
        let gone = happened(&sim, i, |event| matches!(event, DhtEvent::Unlistened { .. }));
        assert_eq!(gone, 1, "seed {seed}");
    }
}
