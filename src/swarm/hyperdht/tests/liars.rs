//! Nodes that answer everything, falsely.

use super::sim::{Sim, host, pair};
use crate::key::{NodeId, PublicKey, Topic};
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::dht_rpc::{K, Request, Response, node_id};
use crate::swarm::hyperdht::messages::{
    LookupReply, Mode, PeerHandshake, PeerHolepunch, PeerRecord, command,
};
use crate::swarm::hyperdht::{DhtEvent, MAX_REMEMBERED};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn anywhere(rng: &mut StdRng) -> SocketAddrV4 {
    SocketAddrV4::new(
        [10, rng.random_range(1..200), rng.random(), rng.random()].into(),
        rng.random(),
    )
}

/// A well-formed lie of the right kind: invented nodes, records, relays and handshakes.
fn lie(
    at: SocketAddrV4,
    victim: PublicKey,
    from: SocketAddrV4,
    data: &[u8],
    rng: &mut StdRng,
) -> Vec<(SocketAddrV4, Vec<u8>)> {
    let Ok(Message::Request(request)) = Message::decode(data) else { return Vec::new() };
    let mut noise = vec![0; 150];
    rng.fill_bytes(&mut noise);
    let record = PeerRecord { public_key: victim, relay_addresses: vec![anywhere(rng); 3] };
    let value = match (request.internal, request.command) {
        (false, command::FIND_PEER) => Some(record.encode()),
        (false, command::LOOKUP) => {
            let invented: Vec<Vec<u8>> = (0..25)
                .map(|_| {
                    let mut key = [0; 32];
                    rng.fill_bytes(&mut key);
                    PeerRecord { public_key: PublicKey(key), ..record.clone() }.encode()
                })
                .collect();
            let invented: Vec<&[u8]> = invented.iter().map(Vec::as_slice).collect();
            Some(LookupReply::encode_raw(&invented, 0))
        }
        (false, command::PEER_HANDSHAKE) => {
            let peer = Some(anywhere(rng));
            Some(PeerHandshake { mode: Mode::Reply, noise, peer, relay: None }.encode())
        }
        _ => None,
    };
    let response = Response {
        tid: request.tid,
        to: anywhere(rng),
        id: Some(node_id(at)),
        token: Some([1; 32]),
        closer: (0..K).map(|_| anywhere(rng)).collect(),
        error: 0,
        value,
    };
    vec![(from, response.encode())]
}

/// A third of the persistent nodes lie; honest nodes know them from the start.
fn infiltrated(seed: u64) -> Sim {
    let mut sim = Sim::network(seed, 30, 3);
    let victim = PublicKey(pair(30).public());
    for n in (1..30).step_by(3) {
        let at = host(n);
        sim.script(n, Box::new(move |from, data, rng| lie(at, victim, from, data, rng)));
    }
    sim
}

#[test]
fn connecting_works_as_long_as_one_relay_is_honest() {
    let mut connected = 0;
    for seed in 0..8 {
        let mut sim = infiltrated(200 + seed);
        sim.dht_do(30, |dht, now| dht.listen(Arc::new(pair(30)), now));
        sim.run(20 * SECOND);
        let key = sim.key(30);
        sim.dht_do(31, |dht, now| dht.connect(key, vec![], 5, now));
        let outcome = sim.wait(31, 120 * SECOND, |e| match e {
            DhtEvent::Outgoing { .. } => Some(true),
            DhtEvent::ConnectFailed { .. } => Some(false),
            _ => None,
        });
        connected += usize::from(outcome.expect("an outcome"));
    }
    assert!(connected >= 6, "{connected} of 8");
}

#[test]
fn a_lookup_ends_and_finds_the_honest_peer_among_the_invented() {
    let mut sim = infiltrated(300);
    let topic = Topic([4; 32]);
    sim.dht_do(30, |dht, now| dht.listen(Arc::new(pair(30)), now));
    sim.run(20 * SECOND);
    sim.dht_do(30, |dht, now| dht.announce(topic, now));
    sim.run(60 * SECOND);
    sim.dht_do(31, |dht, now| dht.lookup(topic, now));
    let done = |e: &DhtEvent| matches!(e, DhtEvent::QueryDone { .. }).then_some(());
    sim.wait(31, 300 * SECOND, done).expect("the lookup ends");
    let key = sim.key(30);
    let found = |e: &DhtEvent| matches!(e, DhtEvent::Peer { public_key, .. } if *public_key == key);
    assert!(sim.events(31).iter().any(found));
}

#[test]
fn a_third_of_liars_cannot_make_us_take_a_false_address() {
    let mut sim = infiltrated(400);
    sim.begin(host(90), 90, |c| c.persistent = true);
    sim.run(60 * SECOND);
    let id: Option<NodeId> = sim.dht(90).id();
    assert!(id.is_none() || id == Some(node_id(host(90))));
}

/// Where the liars that work together say we are.
const FALSE: &str = "10.9.9.9:999";

/// A third of the persistent nodes work together: they name one another as nearest to everything and agree on a
/// false address of whoever asks.
fn conspiracy(seed: u64) -> Sim {
    let mut sim = Sim::network(seed, 30, 3);
    let liars: Vec<SocketAddrV4> = (1..30).step_by(3).map(host).collect();
    for n in (1..30).step_by(3) {
        let at = host(n);
        let closer = liars.clone();
        let script = move |from, data: &[u8], _: &mut StdRng| {
            let Ok(Message::Request(request)) = Message::decode(data) else { return vec![] };
            let response = Response {
                tid: request.tid,
                to: FALSE.parse().unwrap(),
                id: Some(node_id(at)),
                token: Some([1; 32]),
                closer: closer.clone(),
                error: 0,
                value: None,
            };
            vec![(from, response.encode())]
        };
        sim.script(n, Box::new(script));
    }
    sim
}

#[test]
fn liars_that_agree_can_neither_name_our_address_nor_hide_a_peer() {
    for seed in 0..4 {
        let mut sim = conspiracy(700 + seed);
        sim.begin(host(90), 90, |c| c.persistent = true);
        sim.run(60 * SECOND);
        let id = sim.dht(90).id();
        assert!(id.is_none() || id == Some(node_id(host(90))), "seed {seed}");
        let topic = Topic([4; 32]);
        sim.dht_do(30, |dht, now| dht.listen(Arc::new(pair(30)), now));
        sim.dht_do(30, |dht, now| dht.announce(topic, now));
        sim.run(60 * SECOND);
        sim.take_events(31);
        sim.dht_do(31, |dht, now| dht.lookup(topic, now));
        sim.run(60 * SECOND);
        let key = sim.key(30);
        let found =
            |e: &DhtEvent| matches!(e, DhtEvent::Peer { public_key, .. } if *public_key == key);
        assert!(sim.events(31).iter().any(found), "seed {seed}");
    }
}

#[test]
fn requests_in_the_names_of_honest_nodes_do_not_move_us() {
    let mut sim = Sim::network(800, 30, 1);
    let before = sim.dht(5).id();
    assert_eq!(before, Some(node_id(host(5))));
    let nodes = sim.dht(5).nodes();
    // Half an hour of pings with the addresses and ids of all others, and of invented nodes.
    for round in 0..360u16 {
        for n in (0..30).filter(|n| *n != 5).chain(2000 + round * 20..2000 + round * 20 + 20) {
            let request = Request {
                tid: round,
                to: FALSE.parse().unwrap(),
                // An invented node shows the id of another address.
                id: Some(node_id(host(if n < 30 { n } else { n - 1000 }))),
                token: None,
                internal: true,
                command: 0,
                target: None,
                value: None,
            };
            let data = request.encode();
            sim.dht_do(5, |dht, now| {
                dht.handle_datagram(crate::swarm::SocketId::MAIN, host(n), &data, now);
            });
        }
        sim.run(5 * SECOND);
    }
    assert_eq!(sim.dht(5).id(), before);
    assert!(sim.dht(5).nodes() <= nodes.max(30), "{}", sim.dht(5).nodes());
}

#[test]
fn any_bytes_are_survived() {
    let mut sim = Sim::network(500, 2, 1);
    sim.dht_do(1, |dht, now| dht.listen(Arc::new(pair(1)), now));
    let mut rng = sim.rng.clone();
    for _ in 0..20_000 {
        let mut data = vec![0; rng.random_range(0..300)];
        rng.fill_bytes(&mut data);
        if let Some(first) = data.first_mut() {
            *first = if rng.random() { 0x03 } else { 0x13 };
        }
        let from = anywhere(&mut rng);
        sim.dht_do(1, |dht, now| {
            dht.handle_datagram(crate::swarm::SocketId::MAIN, from, &data, now)
        });
    }
    sim.run(10 * SECOND);
    assert!(sim.dht(1).id().is_some());
    assert!(sim.dht(1).nodes() < MAX_REMEMBERED);
}

#[test]
fn any_well_formed_requests_are_survived() {
    let mut sim = Sim::network(600, 3, 1);
    sim.dht_do(1, |dht, now| dht.listen(Arc::new(pair(1)), now));
    sim.run(SECOND);
    let target = NodeId(crate::crypto::hash::hash(&[&sim.key(1).0]));
    let mut rng = sim.rng.clone();
    for _ in 0..20_000 {
        let mut noise = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut noise);
        let modes = [Mode::FromClient, Mode::FromServer, Mode::FromRelay, Mode::FromSecondRelay];
        let mode = modes[rng.random_range(0..4)];
        let (peer, relay) = (Some(anywhere(&mut rng)), Some(anywhere(&mut rng)));
        let mut value = match rng.random_range(0..3) {
            0 => PeerHandshake { mode, noise, peer, relay }.encode(),
            1 => PeerHolepunch { mode, id: 1, payload: noise, peer }.encode(),
            _ => noise,
        };
        if rng.random() && !value.is_empty() {
            let at = rng.random_range(0..value.len());
            value[at] = rng.random();
        }
        let from = anywhere(&mut rng);
        // The id of another address, of none at all, or none: whoever shows its own is a node like any other.
        let id = match rng.random_range(0..3) {
            0 => Some(node_id(anywhere(&mut rng))),
            1 => Some(NodeId(rng.random())),
            _ => None,
        };
        let request = Request {
            tid: rng.random(),
            to: host(1),
            id,
            token: None,
            internal: rng.random(),
            command: rng.random_range(0..12),
            target: rng.random_bool(0.8).then_some(target),
            value: rng.random_bool(0.9).then_some(value),
        };
        let data = request.encode();
        sim.dht_do(1, |dht, now| {
            dht.handle_datagram(crate::swarm::SocketId::MAIN, from, &data, now)
        });
    }
    sim.run(30 * SECOND);
    assert_eq!(sim.dht(1).nodes(), 2, "an id that is not its address's is none");
    assert_eq!(sim.dht(1).records(), 0);
    assert!(!sim.events(1).iter().any(|e| matches!(e, DhtEvent::Incoming { .. })));
}
