//! The network that goes and comes back, for one machine or for all: whoever shares is found again soon, and whoever looks
//! goes on looking, with nothing restarted.

use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{LinkConfig, Realm};
use std::net::SocketAddrV4;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };

/// After so long all goes on.
const SOON: Duration = Duration::from_secs(30);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn nodes(count: usize, seed: u64) -> Network {
    let pattern = LinkConfig { latency: Duration::from_millis(25), ..LinkConfig::default() };
    Network::of_nodes(count, seed, pattern, secs(10))
}

/// Nothing goes from or to `who`, or everything does again.
fn cut(network: &mut Network, who: usize, cut: bool) {
    for other in (0..network.machines.len()).filter(|&other| other != who) {
        for (from, to) in [(who, other), (other, who)] {
            network.link(from, to).cfg.loss = f64::from(u8::from(cut));
        }
    }
}

/// How long it takes until a reader finds the sharer, of whom one enters every second.
fn found_after(network: &mut Network) -> Option<Duration> {
    let start = network.now;
    let mut readers = Vec::new();
    for _ in 0..120 {
        let reader = network.begin(false);
        network.join(reader, TOPIC, CLIENT);
        readers.push(reader);
        let met = |n: &Network| readers.iter().any(|r| !n.open(*r).is_empty());
        if network.run_until(secs(1), met).is_some() {
            return Some(network.now - start);
        }
    }
    None
}

fn found_soon(network: &mut Network, what: &str) {
    let took = found_after(network);
    assert!(took.is_some_and(|took| took <= SOON), "{what}: {took:?}");
}

/// All nodes are away, silent or restarted; at every moment of what a sharer does on its own.
#[test]
fn a_share_is_found_again_soon_after_the_only_nodes_were_away() {
    for count in [1, 3] {
        for away in [15, 300] {
            for (step, restarted) in (0..4).flat_map(|step| [(step, false), (step, true)]) {
                let mut network = nodes(count, step);
                let sharer = network.begin(false);
                network.join(sharer, TOPIC, SERVER);
                network.run(secs(30) + step as u32 * Duration::from_millis(4100));
                (0..count).for_each(|i| network.down(i));
                network.run(secs(away));
                for i in 0..count {
                    if restarted {
                        let peer = Peer::new(network.config(i, true), 99, network.now);
                        network.replace(i, peer);
                    } else {
                        network.up(i);
                    }
                }
                let how = if restarted { "restarted" } else { "cut off" };
                found_soon(&mut network, &format!("{count} nodes {how} for {away} s, step {step}"));
            }
        }
    }
}

#[test]
fn a_sharer_whose_network_was_away_is_found_again_soon() {
    for count in [1, 12] {
        for away in [15, 300] {
            for step in 0..3 {
                let mut network = nodes(count, step);
                let sharer = network.begin(false);
                network.join(sharer, TOPIC, SERVER);
                network.run(secs(60) + step as u32 * Duration::from_millis(4100));
                cut(&mut network, sharer, true);
                network.run(secs(away));
                cut(&mut network, sharer, false);
                found_soon(&mut network, &format!("{count} nodes, away for {away} s, step {step}"));
            }
        }
    }
}

#[test]
fn a_reader_whose_network_was_away_finds_a_share_that_came_meanwhile() {
    for count in [1, 12] {
        for away in [15, 300, 3600] {
            let mut network = nodes(count, away);
            let reader = network.begin(false);
            network.join(reader, TOPIC, CLIENT);
            network.run(secs(60));
            cut(&mut network, reader, true);
            network.run(secs(away));
            let sharer = network.begin(false);
            cut(&mut network, reader, true);
            network.join(sharer, TOPIC, SERVER);
            network.run(secs(20));
            cut(&mut network, reader, false);
            let took = network.run_until(secs(120), |n| !n.open(reader).is_empty());
            assert!(took.is_some_and(|took| took <= SOON), "{count} nodes, {away} s: {took:?}");
        }
    }
}

#[test]
fn who_begins_before_the_nodes_are_there_gets_on_soon_after_they_are() {
    for away in [7, 60, 600] {
        for count in [1, 3] {
            let mut network = nodes(count, away);
            (0..count).for_each(|i| network.down(i));
            let (sharer, reader) = (network.begin(false), network.begin(false));
            network.join(sharer, TOPIC, SERVER);
            network.join(reader, TOPIC, CLIENT);
            network.run(secs(away));
            (0..count).for_each(|i| network.up(i));
            let took = network.run_until(secs(120), |n| !n.open(reader).is_empty());
            assert!(took.is_some_and(|took| took <= SOON), "{count} nodes, {away} s: {took:?}");
        }
    }
}

#[test]
fn a_sharer_that_finds_itself_at_another_address_is_found_there_soon() {
    for count in [3, 12] {
        // Its interfaces tell, or only what the nodes say: a router has another address.
        for told in [true, false] {
            let mut network = nodes(count, 5);
            let sharer = network.begin(false);
            network.join(sharer, TOPIC, SERVER);
            network.run(secs(90));
            let new = SocketAddrV4::new([10, 0, 7, 7].into(), 4000);
            network.move_to(sharer, Realm::INTERNET, new);
            if told {
                network.on(sharer, |peer, now| peer.swarm.network_changed(vec![new], now));
            }
            found_soon(&mut network, &format!("{count} nodes, told: {told}"));
        }
    }
}
