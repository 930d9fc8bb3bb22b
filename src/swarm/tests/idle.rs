//! What waiting costs: datagrams a minute of a peer that shares or reads many drives whose peers are not there,
//! and what many topics at once come to. In virtual time, over a DHT of forty full nodes.

use super::punching::behind;
use super::sim::Network;
use crate::crypto::hash;
use crate::key::Topic;
use crate::sim::{Kind, LinkConfig};
use crate::swarm::{JoinOptions, SwarmEvent};
use std::time::Duration;

const NODES: usize = 40;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// As `share` and `seed` join, and as `mount` does.
const SHARES: JoinOptions = JoinOptions { server: true, client: true };
const READS: JoinOptions = JoinOptions { server: false, client: true };

/// Before what is idle was looked at, a minute of sharing 1, 100 and 1,000 drives cost this.
const BEFORE: [(usize, u64); 3] = [(1, 184), (100, 3576), (1000, 34_646)];

pub(super) fn topic(n: usize) -> Topic {
    Topic(hash::hash(&[b"topic", &n.to_le_bytes()]))
}

fn town(seed: u64) -> Network {
    let pattern =
        LinkConfig { latency: SECOND / 100, jitter: 3 * SECOND / 100, ..LinkConfig::default() };
    let mut town = Network::of_nodes(NODES, seed, pattern, SECOND / 2);
    town.run(10 * SECOND);
    town
}

fn join(town: &mut Network, i: usize, topics: std::ops::Range<usize>, options: JoinOptions) {
    topics.for_each(|n| town.join(i, topic(n), options));
}

/// Datagrams from and to `i` in a minute, over twenty.
fn per_minute(town: &mut Network, i: usize) -> u64 {
    let before = town.datagrams_of(i);
    town.run(20 * MINUTE);
    (town.datagrams_of(i) - before) / 20
}

fn announced(town: &Network, i: usize) -> usize {
    town.machines[i].swarm.status().topics.iter().filter(|topic| topic.announced).count()
}

/// A minute of a peer with `drives` drives that nobody else has.
fn cost(drives: usize, options: JoinOptions) -> u64 {
    let mut town = town(1);
    // One that others can reach becomes a node for them, and has their questions to answer.
    let peer = behind(&mut town, Kind::Port, 1);
    join(&mut town, peer, 0..drives, options);
    town.run(10 * MINUTE);
    per_minute(&mut town, peer)
}

fn costs_a_third((drives, before): (usize, u64)) {
    for options in [SHARES, READS] {
        let now = cost(drives, options);
        println!("{drives} drives, {options:?}: {now} datagrams a minute, {before} before");
        assert!(now <= before / 3, "{drives} drives, {options:?}: {now} a minute");
    }
}

#[test]
fn waiting_costs_a_third_of_what_it_did() {
    BEFORE[..2].iter().for_each(|before| costs_a_third(*before));
}

#[test]
#[ignore = "long: make test-long"]
fn waiting_for_a_thousand_drives_costs_a_third_of_what_it_did() {
    costs_a_third(BEFORE[2]);
}

#[test]
#[ignore = "a measurement, for benches/table"]
fn idle_counts() {
    for (drives, _) in BEFORE {
        println!("idle {drives} {} {}", cost(drives, SHARES), cost(drives, READS));
    }
}

#[test]
fn a_thousand_topics_are_announced_and_every_one_can_be_found() {
    let mut town = town(2);
    let (sharer, reader) = (town.begin(false), town.begin(false));
    town.run(SECOND);
    join(&mut town, sharer, 0..1000, SHARES);
    town.run(90 * SECOND);
    assert_eq!(announced(&town, sharer), 1000);
    // More than a peer was once remembered under.
    join(&mut town, reader, 0..200, READS);
    town.run(60 * SECOND);
    let topics = town.machines[reader].swarm.status().topics;
    assert_eq!(topics.iter().filter(|topic| topic.found > 0).count(), 200);
    // One peer under all of them: nothing is left to be looked for.
    assert_eq!(town.open(reader).len(), 1);
    let before = town.machines[reader].swarm.status().topics.iter().map(|t| t.rounds).sum::<u64>();
    town.run(8 * MINUTE);
    let rounds = town.machines[reader].swarm.status().topics.iter().map(|t| t.rounds).sum::<u64>();
    assert_eq!(rounds, before, "it rests until the next full round");
}

#[test]
fn what_somebody_waits_for_does_not_queue_behind_a_thousand_announcements() {
    let mut town = town(3);
    let (sharer, other) = (town.begin(false), town.begin(false));
    join(&mut town, other, 5000..5001, SHARES);
    town.run(10 * SECOND);
    join(&mut town, sharer, 0..1000, SHARES);
    town.run(SECOND);
    join(&mut town, sharer, 5000..5001, READS);
    let start = town.now;
    while town.open(sharer).is_empty() {
        town.run(SECOND / 10);
        assert!(town.now - start < 3 * SECOND, "{:?}", town.now - start);
    }
    assert!(announced(&town, sharer) < 500, "while the others still wait");
}

/// Whether a datagram is an ANNOUNCE request: command 4 behind the flags of a token, a target and a value.
fn is_announce(bytes: &[u8]) -> bool {
    use crate::swarm::dht_rpc::message::Message;
    matches!(Message::decode(bytes), Ok(Message::Request(r)) if !r.internal && r.command == 4
        && r.target != Some(crate::key::NodeId([0; 32])) && topic(0).0 == r.target.unwrap().0)
}

#[test]
fn announced_means_stored_and_is_tried_again_soon_otherwise() {
    let mut town = town(4);
    let sharer = town.begin(false);
    town.tap = Some(Box::new(|packet| !is_announce(&packet.bytes)));
    join(&mut town, sharer, 0..1, SHARES);
    town.run(MINUTE);
    assert_eq!(announced(&town, sharer), 0, "every announcement was lost");
    let told = |e: &SwarmEvent| matches!(e, SwarmEvent::Round { announced: true, .. });
    assert!(!town.machines[sharer].events.iter().any(told));
    town.tap = None;
    town.run(MINUTE);
    assert_eq!(announced(&town, sharer), 1);
    assert!(town.machines[sharer].events.iter().any(told));
}

#[test]
fn a_drive_that_is_shared_while_somebody_waits_for_it_is_found_within_two_minutes() {
    let mut town = town(5);
    let (sharer, reader) = (town.begin(false), town.begin(false));
    join(&mut town, reader, 0..1, READS);
    town.run(15 * MINUTE);
    join(&mut town, sharer, 0..1, SHARES);
    let start = town.now;
    while town.open(reader).is_empty() {
        town.run(SECOND);
        assert!(town.now - start < 125 * SECOND, "{:?}", town.now - start);
    }
    assert_eq!(town.key(sharer), {
        let connected = town.machines[reader].events.iter().find_map(|e| match e {
            SwarmEvent::Connected { remote, .. } => Some(*remote),
            _ => None,
        });
        connected.unwrap()
    });
}
