//! Whole networks in virtual time: full nodes of a DHT and peers on it, over a path that loses and delays.
//! A run is replayed from its seed.

use super::super::*;
use super::sim::{Network, Peer, addr};
use crate::codec::FrameBuf;
use crate::sim::LinkConfig;
use crate::swarm::hyperdht::ConnectError;
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const BOTH: JoinOptions = JoinOptions { server: true, client: true };

/// Full nodes of a DHT, and a path of 3 ms that loses.
fn nodes(count: usize, seed: u64, loss: f64) -> Network {
    let pattern = LinkConfig { loss, latency: Duration::from_millis(3), ..LinkConfig::default() };
    Network::of_nodes(count, seed, pattern, Duration::from_secs(10))
}

/// Whether `i` got a frame of this content.
fn heard(network: &Network, i: usize, data: &[u8]) -> bool {
    let is = |e: &SwarmEvent| matches!(e, SwarmEvent::Frame { data: d, .. } if d[..] == *data);
    network.machines[i].events.iter().any(is)
}

/// Sends over the only connection of `i`, and sees that it arrives at `to`.
fn send(network: &mut Network, i: usize, to: usize, data: &[u8]) {
    let conn = network.open(i)[0];
    network.send_frame(i, conn, data);
    let took = network.run_until(Duration::from_secs(60), |n| heard(n, to, data));
    assert!(took.is_some(), "seed {}: {} bytes never came", network.seed, data.len());
}

fn events(network: &Network) -> Vec<&[SwarmEvent]> {
    network.machines.iter().map(|peer| &peer.events[..]).collect()
}

/// Its process dies and comes back, knowing nothing but its key.
fn restart(network: &mut Network, i: usize, persistent: bool) {
    let peer = Peer::new(network.config(i, persistent), 99, network.now);
    network.replace(i, peer);
}

#[test]
fn a_client_finds_a_server_and_they_talk() {
    for (seed, loss) in (0..6).map(|seed| (seed, 0.02 * seed as f64)) {
        let mut network = nodes(4, seed, loss);
        let (a, b) = (network.begin(false), network.begin(false));
        network.join(a, TOPIC, SERVER);
        network.run(Duration::from_secs(15));
        network.join(b, TOPIC, CLIENT);
        let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
        let took = network.run_until(Duration::from_secs(60), both);
        let took = took.unwrap_or_else(|| panic!("seed {seed}: no connection"));
        assert!(loss > 0.0 || took < Duration::from_millis(200), "seed {seed}: {took:?}");
        send(&mut network, b, a, b"what have you got?");
        send(&mut network, a, b, &vec![seed as u8; 300_000]);
    }
}

#[test]
fn mounting_before_sharing_connects_within_seconds() {
    let mut network = nodes(4, 1, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    network.join(b, TOPIC, CLIENT);
    network.run(Duration::from_secs(20));
    let nobody = |e: &SwarmEvent| matches!(e, SwarmEvent::Settled { connected: 0, .. });
    assert!(network.machines[b].events.iter().any(nobody));
    network.join(a, TOPIC, SERVER);
    let took = network.run_until(Duration::from_secs(60), |n| !n.open(b).is_empty());
    assert!(took.is_some_and(|took| took < Duration::from_secs(20)), "{took:?}");
}

#[test]
fn a_server_counts_as_announced_once_a_node_holds_its_record() {
    let mut network = Network::new(LinkConfig::default(), 1);
    let config = SwarmConfig { bootstrap: vec![addr(1)], ..network.config(0, false) };
    let peer = Peer::new(config, 1, network.now);
    let server = network.add(addr(0), peer);
    network.join(server, TOPIC, SERVER);
    let announced = |n: &Network| {
        let done = |e: &SwarmEvent| matches!(e, SwarmEvent::Round { announced: true, .. });
        n.machines[server].events.iter().any(done)
    };
    assert_eq!(network.run_until(Duration::from_secs(60), announced), None, "nobody is there");
    network.begin(true);
    let took = network.run_until(Duration::from_secs(60), announced);
    assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "{took:?}");
}

#[test]
fn a_swarm_whose_nodes_are_still_looked_up_asks_nobody_and_then_gets_on() {
    let mut network = nodes(4, 5, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    let config = SwarmConfig { bootstrap: vec![], ..network.config(b, false) };
    let peer = Peer::new(config, 7, network.now);
    network.replace(b, peer);
    network.machines[b].swarm.await_bootstrap();
    network.join(b, TOPIC, CLIENT);
    network.run(Duration::from_secs(8));
    let settled = |e: &SwarmEvent| matches!(e, SwarmEvent::Settled { .. });
    assert!(
        !network.machines[b].events.iter().any(settled),
        "nobody was asked, so nothing is known"
    );
    // The resolver gives up: whoever waits is told that nobody was found.
    let now = network.now;
    network.machines[b].swarm.set_bootstrap(vec![], now);
    network.run(Duration::from_secs(2));
    assert!(network.machines[b].events.iter().any(settled));
    // The network comes up.
    let now = network.now;
    network.machines[b].swarm.set_bootstrap(vec![addr(0)], now);
    let took = network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty());
    assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{took:?}");
}

#[test]
fn peers_that_all_look_and_announce_end_with_one_connection_each() {
    for seed in 0..3 {
        let mut network = nodes(4, seed, 0.01);
        let peers: Vec<usize> = (0..4).map(|_| network.begin(false)).collect();
        for &i in &peers {
            network.join(i, TOPIC, BOTH);
        }
        network.run(Duration::from_secs(90));
        for &i in &peers {
            assert_eq!(network.open(i).len(), 3, "seed {seed}, peer {i}");
        }
    }
}

#[test]
fn a_server_that_restarts_under_its_key_is_found_again() {
    let mut network = nodes(4, 2, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    network.join(b, TOPIC, CLIENT);
    network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty()).unwrap();
    restart(&mut network, a, false);
    network.join(a, TOPIC, SERVER);
    let again = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
    let took = network.run_until(Duration::from_secs(60), again);
    assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "{took:?}");
    send(&mut network, a, b, b"back");
}

/// `count` nodes are restarted, the first `at` after a share began, each `each` after the one before and after
/// having been away for `away`: a reader that comes 40 s later finds the share at once.
fn restart_all(count: usize, at: Duration, away: Duration, each: Duration) -> (Network, usize) {
    let mut network = nodes(count, 3, 0.0);
    let a = network.begin(false);
    network.join(a, TOPIC, SERVER);
    network.run(at);
    for i in 0..count {
        network.down(i);
        if !each.is_zero() || i == count - 1 {
            network.run(away);
            (0..=i).rev().take(if each.is_zero() { count } else { 1 }).for_each(|i| {
                restart(&mut network, i, true);
            });
            network.run(each);
        }
    }
    network.run(Duration::from_secs(40));
    let b = network.begin(false);
    network.join(b, TOPIC, CLIENT);
    let found = network.run_until(Duration::from_secs(5), |n| n.open(b).len() == 1);
    assert!(found.is_some(), "{count} nodes after {at:?}, away for {away:?}, {each:?} between");
    (network, a)
}

#[test]
fn a_share_is_found_again_soon_after_the_only_nodes_of_the_dht_were_restarted() {
    // Away for a while, and back so soon that it was never missed.
    for (count, away) in [(1, 15), (1, 40), (1, 0), (2, 15), (2, 0), (3, 15), (3, 0), (6, 0)] {
        let (at, away) = (Duration::from_secs(62), Duration::from_secs(away));
        let (mut network, a) = restart_all(count, at, away, Duration::ZERO);
        // And no more is sent for ever after than before.
        let rounds = |n: &Network| n.machines[a].swarm.status().topics[0].rounds;
        let before = rounds(&network);
        network.run(Duration::from_secs(500));
        assert_eq!(rounds(&network), before);
    }
}

#[test]
fn a_share_is_found_again_though_the_nodes_were_restarted_one_after_the_other() {
    for (count, away, each) in [(2, 0, 40), (3, 0, 20), (3, 20, 40), (4, 0, 60)] {
        let [away, each] = [away, each].map(Duration::from_secs);
        restart_all(count, Duration::from_secs(62), away, each);
    }
}

#[test]
fn a_share_is_found_again_though_the_nodes_were_restarted_when_it_was_to_be_announced_again() {
    for secs in (585..625).step_by(4) {
        for away in [0, 14] {
            let [at, away] = [secs, away].map(Duration::from_secs);
            restart_all(3, at, away, Duration::ZERO);
        }
    }
}

/// A machine that wakes up talks to its peer again within this: the longest an old connection takes to be
/// found dead, and the first retry after it.
const BACK_AGAIN: Duration = Duration::from_secs(25);

/// `who` of a server and a client stand still for `time`; afterwards what either says reaches the other.
fn stand_still(seed: u64, who: &[usize], time: Duration) {
    let mut network = nodes(4, seed, 0.005 * (seed % 4) as f64);
    let (a, b) = (network.begin(false), network.begin(false));
    network.join(a, TOPIC, BOTH);
    network.run(Duration::from_secs(5));
    network.join(b, TOPIC, BOTH);
    let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
    network.run_until(Duration::from_secs(60), both).unwrap();
    // At any point of the keep-alive, or while there is much under way.
    network.run(Duration::from_millis(631 * (seed % 9)));
    if seed.is_multiple_of(2) {
        let conn = network.open(a)[0];
        network.machines[a].swarm.send(conn, FrameBuf::from(&[7; 300_000][..]), network.now);
    }
    let all = [a, b];
    who.iter().for_each(|&i| network.freeze(all[i], time));
    network.run(time);
    let what = format!("seed {seed}: {who:?} stood still for {time:?}");
    let start = network.now;
    let mut attempt = 0u64;
    // Whoever talks does so every second; a connection that has died takes no notice of it.
    while !(heard(&network, a, b"x") && heard(&network, b, b"x")) {
        assert!(network.now - start < BACK_AGAIN, "{what}: {:?}", events(&network));
        for i in all {
            for conn in network.open(i) {
                network.machines[i].swarm.send(conn, FrameBuf::from(&b"x"[..]), network.now);
            }
        }
        attempt += 1;
        network.run(start + Duration::from_secs(attempt) - network.now);
    }
    network.run(Duration::from_secs(60));
    assert_eq!((network.open(a).len(), network.open(b).len()), (1, 1), "{what}");
}

#[test]
fn whoever_stood_still_is_back_within_seconds() {
    let times = [1, 5, 13, 20, 40, 180, 900];
    for (seed, (secs, who)) in times
        .into_iter()
        .flat_map(|t| [&[0][..], &[1], &[0, 1]].map(|w| (t, w)))
        .cycle()
        .take(84)
        .enumerate()
    {
        stand_still(seed as u64, who, Duration::from_secs(secs));
    }
}

#[test]
fn a_peer_that_stands_still_while_it_connects_is_back_within_seconds() {
    for seed in 0..40 {
        let mut network = nodes(4, seed, 0.0);
        let (a, b) = (network.begin(false), network.begin(false));
        network.join(a, TOPIC, BOTH);
        network.run(Duration::from_secs(5));
        network.join(b, TOPIC, BOTH);
        // The whole way to an open connection is less than this.
        network.run(Duration::from_millis(2 * seed));
        let time = Duration::from_secs([1, 5, 12, 30][seed as usize % 4]);
        let who = [a, b][(seed / 4) as usize % 2];
        network.freeze(who, time);
        network.run(time);
        let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
        let took = network.run_until(BACK_AGAIN, both);
        assert!(took.is_some(), "seed {seed}: {who} for {time:?}: {:?}", events(&network));
        network.run(Duration::from_secs(40));
        assert!(both(&network), "seed {seed}: {:?}", events(&network));
        send(&mut network, a, b, b"here I am");
    }
}

#[test]
fn a_banned_peer_gets_no_answer_and_is_welcome_afterwards() {
    let mut network = nodes(4, 3, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    let key = PublicKey(network.config(b, false).key_pair.public());
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    let now = network.now;
    network.machines[a].swarm.ban(key, now + Duration::from_secs(60), now);
    network.join(b, TOPIC, CLIENT);
    network.run(Duration::from_secs(50));
    assert!(network.open(b).is_empty());
    let failed = |e: &SwarmEvent| match e {
        SwarmEvent::DialFailed { why, .. } => Some(why.clone()),
        _ => None,
    };
    let why: Vec<String> = network.machines[b].events.iter().filter_map(failed).collect();
    assert!(
        !why.is_empty()
            && why.iter().all(|why| *why == ConnectError::PeerConnectionFailed.to_string()),
        "{why:?}"
    );
    let took = network.run_until(Duration::from_secs(200), |n| !n.open(b).is_empty());
    assert!(took.is_some());
}

#[test]
fn a_connection_is_let_go_when_its_topic_is_left_and_not_before() {
    let mut network = nodes(4, 4, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    network.join(b, TOPIC, CLIENT);
    network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty()).unwrap();
    let conn = network.open(b)[0];
    let topic = Topic([8; 32]);
    network.machines[b].swarm.join(topic, CLIENT, network.now);
    network.machines[b].swarm.leave(&topic, network.now);
    network.machines[b].swarm.release(conn, network.now);
    network.run(Duration::from_secs(5));
    assert_eq!(network.open(b), [conn], "its peer was found under a topic that is joined");

    network.machines[b].swarm.leave(&TOPIC, network.now);
    assert_eq!(network.open(b), [conn], "whoever uses it may go on");
    network.machines[b].swarm.release(conn, network.now);
    network.run(Duration::from_secs(60));
    assert!(network.open(a).is_empty() && network.open(b).is_empty());
    // Nobody is dialled again, and nothing of the topic is left.
    let connected = |e: &&SwarmEvent| matches!(e, SwarmEvent::Connected { .. });
    assert_eq!(network.machines[b].events.iter().filter(connected).count(), 1);
    assert!(network.machines[b].swarm.status().topics.is_empty());
}

#[test]
fn it_is_told_how_the_peers_of_a_topic_stand() {
    let mut network = nodes(4, 5, 0.0);
    let (a, b) = (network.begin(false), network.begin(false));
    let reach =
        |n: &Network| n.machines[b].swarm.status().reachability.get(&TOPIC).cloned().unwrap();
    network.join(b, TOPIC, CLIENT);
    network.run(Duration::from_secs(5));
    assert_eq!(reach(&network), Reachability::default());
    let key = PublicKey(network.config(b, false).key_pair.public());
    network.join(a, TOPIC, SERVER);
    network.run(Duration::from_secs(5));
    // It does not answer us.
    let until = network.now + Duration::from_secs(60);
    network.machines[a].swarm.ban(key, until, network.now);
    network.run(Duration::from_secs(25));
    let refused = reach(&network);
    assert_eq!((refused.connected, refused.failed), (0, 1), "{refused:?}");
    assert_eq!(refused.why, Some(ConnectError::PeerConnectionFailed.to_string()));
    network.run_until(Duration::from_secs(200), |n| !n.open(b).is_empty()).unwrap();
    let found = reach(&network);
    assert_eq!((found.connected, found.failed, found.why), (1, 0, None));
}

/// Whoever is connected for one topic and found under another is told as a peer of that one, too.
#[test]
fn a_peer_that_is_found_under_one_more_topic_is_told() {
    let pattern = LinkConfig { latency: Duration::from_millis(20), ..LinkConfig::default() };
    let mut network = Network::of_nodes(6, 1, pattern, Duration::from_secs(5));
    let [one, other] = [Topic([1; 32]), Topic([2; 32])];
    let (a, b) = (network.begin(false), network.begin(false));
    let [share, read] = [true, false].map(|server| JoinOptions { server, client: !server });
    network.join(a, one, share);
    network.join(a, other, share);
    network.run(Duration::from_secs(15));
    network.join(b, one, read);
    let within = Duration::from_secs(10);
    assert!(network.run_until(within, |n| n.open(b).len() == 1).is_some());
    let conn = network.open(b)[0];
    let met = |n: &Network| {
        let is = |e: &SwarmEvent| matches!(e, SwarmEvent::Met { conn: c, topic } if (*c, *topic) == (conn, other));
        n.machines[b].events.iter().filter(|event| is(event)).count()
    };
    assert_eq!(met(&network), 0);
    network.join(b, other, read);
    assert!(network.run_until(within, |n| met(n) == 1).is_some());
    network.run(Duration::from_secs(60));
    assert_eq!((met(&network), network.open(b)), (1, vec![conn]));
    // With each round: it may not have had the drive before.
    network.run(Duration::from_secs(12 * 60));
    assert_eq!(met(&network), 2);
    // The drive is closed here, and comes back.
    network.on(b, |peer, now| peer.swarm.leave(&other, now));
    network.run(Duration::from_secs(60));
    network.join(b, other, read);
    assert!(network.run_until(within, |n| met(n) == 3).is_some());
    assert_eq!(network.open(b), [conn]);
}
