//! Listening, finding and connecting among our own machines.

use super::sim::{Sim, host, pair, pattern};
use crate::crypto::{KeyPair, hash};
use crate::key::{NodeId, PublicKey, Topic};
use crate::swarm::dht_rpc::Request;
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::hyperdht::handshake::Opening;
use crate::swarm::hyperdht::messages::{
    Mode, MutablePut, NoisePayload, PeerHandshake, UdxInfo, command, error,
};
use crate::swarm::hyperdht::signatures::sign_mutable;
use crate::swarm::hyperdht::{Agreed, ConnectError, DhtConfig, DhtEvent};
use crate::swarm::socket::SocketId;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn outgoing(event: &DhtEvent) -> Option<Result<Agreed, ConnectError>> {
    match event {
        DhtEvent::Outgoing { agreed, .. } => Some(Ok(agreed.clone())),
        DhtEvent::ConnectFailed { why, .. } => Some(Err(*why)),
        _ => None,
    }
}

pub(super) fn incoming(event: &DhtEvent) -> Option<Agreed> {
    if let DhtEvent::Incoming { agreed, .. } = event { Some(agreed.clone()) } else { None }
}

fn listening(event: &DhtEvent) -> Option<usize> {
    if let DhtEvent::Listening { relays, .. } = event { Some(*relays) } else { None }
}

pub(super) fn listen(sim: &mut Sim, n: u16) -> Option<usize> {
    let addr = host(n);
    sim.dht_at(addr, |dht, now| dht.listen(Arc::new(pair(n)), now));
    sim.wait(n, 30 * SECOND, listening)
}

fn connect(sim: &mut Sim, from: u16, to: u16) -> Result<(Agreed, Agreed), ConnectError> {
    let key = PublicKey(pair(to).public());
    sim.take_events(from);
    sim.take_events(to);
    sim.dht_do(from, |dht, now| dht.connect(key, vec![], 77, now));
    let ours = sim.wait(from, 60 * SECOND, outgoing).expect("an outcome")?;
    sim.run(SECOND);
    let theirs: Vec<Agreed> = sim.events(to).iter().filter_map(incoming).collect();
    assert_eq!(theirs.len(), 1, "one handshake, one stream, whatever the number of relays");
    Ok((ours, theirs[0].clone()))
}

fn assert_same_link(client: &Agreed, server: &Agreed) {
    assert_eq!((client.local_id, client.remote_id), (server.remote_id, server.local_id));
    let (client, server) = (&client.keys, &server.keys);
    assert_eq!((client.tx, client.rx, client.hash), (server.rx, server.tx, server.hash));
}

#[test]
fn one_node_is_a_network() {
    let mut sim = Sim::network(1, 1, 2);
    assert_eq!(listen(&mut sim, 1), Some(1));
    let (client, server) = connect(&mut sim, 2, 1).unwrap();
    assert_same_link(&client, &server);
    assert_eq!(server.keys.remote, sim.key(2));
    assert_eq!(client.dial.unwrap().to, host(1).into());
    assert_eq!(server.dial, None, "the client dials");
}

#[test]
fn an_ephemeral_node_is_usable_within_a_round_trip_or_two() {
    let mut sim = Sim::network(2, 8, 1);
    sim.every_link(|link| (link.latency, link.jitter) = (SECOND / 1000, SECOND / 1000));
    let begin = sim.now;
    sim.begin(host(50), 50, |_| {});
    let ready = |e: &DhtEvent| matches!(e, DhtEvent::Bootstrapped { .. }).then_some(());
    sim.wait(50, SECOND, ready).expect("bootstrapped");
    assert!(sim.now - begin < Duration::from_millis(20), "{:?}", sim.now - begin);
    let begin = sim.now;
    assert_eq!(listen(&mut sim, 50), Some(3));
    assert!(sim.now - begin < Duration::from_millis(20), "{:?}", sim.now - begin);
    let begin = sim.now;
    connect(&mut sim, 8, 50).unwrap();
    assert!(sim.now - begin - SECOND < Duration::from_millis(20), "{:?}", sim.now - begin);
}

#[test]
fn nodes_of_a_network_learn_their_addresses_and_become_persistent() {
    let mut sim = Sim::network(3, 24, 0);
    for n in 0..24 {
        let id = sim.dht(n).id();
        assert_eq!(id, Some(crate::swarm::dht_rpc::node_id(host(n))), "node {n}");
        assert!(sim.dht(n).nodes() >= 15, "node {n} knows {}", sim.dht(n).nodes());
    }
}

fn lookup(sim: &mut Sim, n: u16, topic: Topic) -> Vec<(PublicKey, Vec<SocketAddrV4>)> {
    sim.take_events(n);
    let id = sim.dht_do(n, |dht, now| dht.lookup(topic, now));
    let done = |e: &DhtEvent| {
        if let DhtEvent::QueryDone { query, .. } = e { (*query == id).then_some(()) } else { None }
    };
    sim.wait(n, 60 * SECOND, done).expect("the lookup ends");
    let events = sim.events(n).iter();
    let peers = events.filter_map(|e| match e {
        DhtEvent::Peer { public_key, relay_addresses, .. } => {
            Some((*public_key, relay_addresses.clone()))
        }
        _ => None,
    });
    peers.collect()
}

fn announce(sim: &mut Sim, n: u16, topic: Topic) -> usize {
    sim.take_events(n);
    sim.dht_do(n, |dht, now| dht.announce(topic, now));
    let stored = |e: &DhtEvent| {
        if let DhtEvent::Announced { nodes, .. } = e { Some(*nodes) } else { None }
    };
    sim.wait(n, 60 * SECOND, stored).expect("the announcement ends")
}

#[test]
fn announce_lookup_and_connect_over_lossy_links() {
    for seed in 0..6 {
        let mut sim = Sim::network(100 + seed, 24, 4);
        sim.every_link(|link| link.loss = 0.08);
        let topic = Topic([seed as u8; 32]);
        sim.dht_do(24, |dht, now| dht.listen(Arc::new(pair(24)), now));
        // The announcement waits for the server's relays, though it was asked for at once.
        let nodes = announce(&mut sim, 24, topic);
        assert!(nodes >= 15, "stored at {nodes} (seed {seed})");
        let found = lookup(&mut sim, 25, topic);
        assert_eq!(found.len(), 1);
        let (key, relays) = found[0].clone();
        assert_eq!((key, relays.len()), (sim.key(24), 3), "seed {seed}");
        sim.take_events(24);
        sim.dht_do(25, |dht, now| dht.connect(key, relays, 5, now));
        let ours = sim.wait(25, 60 * SECOND, outgoing).unwrap().unwrap();
        sim.run(SECOND);
        let theirs: Vec<Agreed> = sim.events(24).iter().filter_map(incoming).collect();
        // A lost answer may make the client's retries meet the server again: same bytes, same stream.
        assert_eq!(theirs.len(), 1);
        assert_same_link(&ours, &theirs[0]);
        let (client, server) = connect(&mut sim, 26, 24).unwrap();
        assert_same_link(&client, &server);
    }
}

#[test]
fn leaving_is_told_to_the_nodes() {
    let mut sim = Sim::network(4, 10, 2);
    let topic = Topic([1; 32]);
    listen(&mut sim, 10);
    assert!(announce(&mut sim, 10, topic) >= 9);
    assert_eq!(lookup(&mut sim, 11, topic).len(), 1);
    sim.take_events(10);
    sim.dht_do(10, |dht, now| dht.unannounce(topic, now));
    let done = |e: &DhtEvent| matches!(e, DhtEvent::QueryDone { .. }).then_some(());
    sim.wait(10, 10 * SECOND, done).unwrap();
    assert_eq!(lookup(&mut sim, 11, topic).len(), 0);
    let key = sim.key(10);
    assert!(connect(&mut sim, 11, 10).is_ok());
    sim.dht_do(10, |dht, now| dht.unlisten(&key, now));
    let gone = |e: &DhtEvent| matches!(e, DhtEvent::Unlistened { .. }).then_some(());
    sim.wait(10, 10 * SECOND, gone).unwrap();
    sim.take_events(11);
    sim.dht_do(11, |dht, now| dht.connect(key, vec![], 5, now));
    let outcome = sim.wait(11, 60 * SECOND, outgoing).unwrap();
    // The relays of the last connection are asked before: they have forgotten.
    assert!(matches!(
        outcome,
        Err(ConnectError::PeerNotFound | ConnectError::PeerConnectionFailed)
    ));
}

#[test]
fn an_unknown_key_is_not_found() {
    let mut sim = Sim::network(5, 8, 1);
    sim.dht_do(8, |dht, now| dht.connect(PublicKey(pair(999).public()), vec![], 5, now));
    let begin = sim.now;
    let outcome = sim.wait(8, 60 * SECOND, outgoing).unwrap();
    assert_eq!(outcome.err(), Some(ConnectError::PeerNotFound));
    assert!(sim.now - begin < SECOND, "nobody is silent, so nothing is waited for");
}

#[test]
fn a_dead_server_fails_after_its_relays_were_tried() {
    let mut sim = Sim::network(6, 8, 2);
    listen(&mut sim, 8);
    let key = sim.key(8);
    sim.kill(8);
    sim.dht_do(9, |dht, now| dht.connect(key, vec![], 5, now));
    let outcome = sim.wait(9, 60 * SECOND, outgoing).unwrap();
    assert_eq!(outcome.err(), Some(ConnectError::PeerConnectionFailed));
}

#[test]
fn a_server_moves_when_its_relays_die() {
    let mut sim = Sim::network(7, 24, 2);
    listen(&mut sim, 24);
    let key = sim.key(24);
    // It is open, and so the first of them itself.
    let relays = |sim: &mut Sim| {
        let all = sim.dht(24).relay_addresses(&key).into_iter();
        all.filter(|relay| *relay != host(24)).collect::<Vec<_>>()
    };
    for relay in relays(&mut sim) {
        sim.down(sim.at(relay));
    }
    sim.run(60 * SECOND);
    assert!(relays(&mut sim).len() >= 2);
    let (client, server) = connect(&mut sim, 25, 24).unwrap();
    assert_same_link(&client, &server);
}

#[test]
fn announcements_outlive_their_age_by_renewal() {
    let mut sim = Sim::network(8, 6, 2);
    listen(&mut sim, 6);
    sim.run(45 * 60 * SECOND);
    let (client, server) = connect(&mut sim, 7, 6).unwrap();
    assert_same_link(&client, &server);
}

#[test]
fn an_open_server_is_dialled_at_its_own_address() {
    let mut sim = Sim::network(9, 8, 1);
    listen(&mut sim, 3);
    let (client, server) = connect(&mut sim, 8, 3).unwrap();
    assert_same_link(&client, &server);
    assert_eq!(client.dial.unwrap().to, host(3).into());
}

#[test]
fn an_open_client_is_dialled_by_the_server() {
    let mut sim = Sim::network(10, 8, 1);
    listen(&mut sim, 8);
    let (client, server) = connect(&mut sim, 3, 8).unwrap();
    assert_same_link(&client, &server);
    assert_eq!(server.dial.unwrap().to, host(3).into());
}

#[test]
fn peers_on_one_host_meet_at_their_local_addresses() {
    let mut sim = Sim::network(11, 8, 0);
    let (a, b) = (host(60), SocketAddrV4::new(*host(60).ip(), 50_000));
    sim.begin(a, 60, |_| {});
    sim.begin(b, 61, |_| {});
    sim.dht_at(a, |dht, now| dht.listen(Arc::new(pair(60)), now));
    sim.wait_at(a, SECOND, listening).unwrap();
    sim.dht_at(b, |dht, now| dht.connect(PublicKey(pair(60).public()), vec![], 5, now));
    let client = sim.wait_at(b, 10 * SECOND, outgoing).unwrap().unwrap();
    let server = sim.wait_at(a, SECOND, incoming).unwrap();
    assert_same_link(&client, &server);
    assert_eq!((client.dial.unwrap().to, server.dial.unwrap().to), (a.into(), b.into()));
}

#[test]
fn a_blocked_key_and_our_own_get_no_answer() {
    let mut sim = Sim::network(12, 8, 2);
    listen(&mut sim, 8);
    let (server, client) = (sim.key(8), sim.key(9));
    sim.dht_do(8, |dht, now| dht.block(client, now + 90 * SECOND, now));
    sim.dht_do(9, |dht, now| dht.connect(server, vec![], 5, now));
    let outcome = sim.wait(9, 60 * SECOND, outgoing).unwrap();
    assert_eq!(outcome.err(), Some(ConnectError::PeerConnectionFailed));
    sim.run(90 * SECOND);
    sim.take_events(9);
    sim.dht_do(9, |dht, now| dht.connect(server, vec![], 5, now));
    assert!(sim.wait(9, 60 * SECOND, outgoing).unwrap().is_ok(), "the time is over");
    sim.dht_do(8, |dht, now| dht.connect(server, vec![], 5, now));
    assert_eq!(sim.wait(8, SECOND, outgoing).unwrap().err(), Some(ConnectError::BadKey));
}

#[test]
fn values_are_stored_with_a_token_and_found() {
    let mut sim = Sim::network(13, 12, 2);
    let (asker, now) = (host(900), sim.now);
    let mut ask = |command, target: &NodeId, token, value: Option<Vec<u8>>| {
        let request = Request {
            tid: 7,
            to: host(3),
            id: None,
            token,
            internal: false,
            command,
            target: Some(*target),
            value,
        };
        let dht = sim.dht(3);
        dht.handle_datagram(SocketId::MAIN, asker, &request.encode(), now);
        let sent = std::iter::from_fn(|| dht.poll_transmit()).find(|t| t.to == asker)?;
        match Message::decode(&sent.bytes) {
            Ok(Message::Response(response)) => Some(response),
            other => panic!("{other:?}"),
        }
    };
    let target = NodeId(hash::hash(&[b"hello"]));
    let hello = Some(b"hello".to_vec());
    let got = ask(command::IMMUTABLE_GET, &target, None, None).unwrap();
    assert!(got.value.is_none() && got.token.is_some());
    assert!(ask(command::IMMUTABLE_PUT, &target, None, hello.clone()).is_none(), "without a token");
    assert_eq!(ask(command::IMMUTABLE_PUT, &target, got.token, hello.clone()).unwrap().error, 0);
    assert_eq!(ask(command::IMMUTABLE_GET, &target, None, None).unwrap().value, hello);

    let public_key = PublicKey(pair(12).public());
    let target = NodeId(hash::hash(&[&public_key.0]));
    let signed = |seq| sign_mutable(seq, vec![seq as u8], &pair(12));
    for (seq, error) in [(1, 0), (2, 0), (1, error::SEQ_TOO_LOW)] {
        let put = MutablePut { public_key, value: signed(seq) }.encode();
        let answer = ask(command::MUTABLE_PUT, &target, got.token, Some(put)).unwrap();
        assert_eq!(answer.error, error);
    }
    let newest = ask(command::MUTABLE_GET, &target, None, Some(vec![0])).unwrap();
    assert_eq!(newest.value, Some(signed(2).encode()));
    assert_eq!(ask(command::MUTABLE_GET, &target, None, Some(vec![9])).unwrap().value, None);
}

#[test]
fn without_a_network_a_server_keeps_trying_until_there_is_one() {
    let mut sim = Sim::new(pattern(), 14);
    sim.begin(host(5), 5, |_| {});
    sim.dht_do(5, |dht, now| dht.listen(Arc::new(pair(5)), now));
    sim.run(60 * SECOND);
    sim.begin(host(0), 0, |c| {
        c.bootstrap.clear();
        c.persistent = true;
        c.address = Some(host(0));
    });
    let found = |e: &DhtEvent| listening(e).filter(|n| *n > 0);
    let begin = sim.now;
    sim.wait(5, 60 * SECOND, found).expect("a relay");
    assert!(sim.now - begin < 35 * SECOND, "{:?}", sim.now - begin);
}

#[test]
fn a_network_at_rest_is_quiet() {
    let mut sim = Sim::network(15, 10, 10);
    for n in 10..20 {
        listen(&mut sim, n);
    }
    sim.run(60 * SECOND);
    let before = sim.datagrams;
    sim.run(60 * SECOND);
    let per_machine = (sim.datagrams - before) / 20;
    // Three relays pinged every three seconds by half of the machines, and the table's own pings.
    assert!(per_machine < 120, "{per_machine} packets per machine and minute");
}

#[test]
fn a_flood_of_handshakes_is_cut_and_a_copy_is_answered_alike() {
    let mut sim = Sim::network(16, 3, 1);
    listen(&mut sim, 3);
    let (key, target) = (sim.key(3), NodeId(hash::hash(&[&sim.key(3).0])));
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: true, id: 1, seq: 0 });
    let mut request = |n: u16, tid: u16| {
        let opening = Opening::new(&pair(500 + n), &key, &payload, pair(n).seed()).unwrap();
        let m = PeerHandshake {
            mode: Mode::FromClient,
            noise: opening.message,
            peer: None,
            relay: None,
        };
        let request = Request {
            tid,
            to: host(3),
            id: None,
            token: None,
            internal: false,
            command: command::PEER_HANDSHAKE,
            target: Some(target),
            value: Some(m.encode()),
        };
        let now = sim.now;
        let dht = sim.dht(3);
        dht.handle_datagram(SocketId::MAIN, host(900 + n), &request.encode(), now);
        let sent = std::iter::from_fn(|| dht.poll_transmit()).find(|t| t.to == host(900 + n));
        let events = std::iter::from_fn(|| dht.poll_event()).filter_map(|e| incoming(&e)).count();
        let value = sent.and_then(|t| match Message::decode(&t.bytes) {
            Ok(Message::Response(r)) => r.value,
            _ => None,
        });
        (value, events)
    };
    let (first, events) = request(0, 1);
    assert!(first.is_some() && events == 1);
    assert_eq!(request(0, 2), (first, 0), "the same bytes: the same answer and no second stream");
    let made: usize = (1..600).map(|n| request(n, n).1).sum();
    assert!((100..=200).contains(&made), "{made}");
}

#[test]
fn after_a_sleep_the_machine_looks_around_again() {
    let mut sim = Sim::network(17, 8, 2);
    listen(&mut sim, 8);
    // Nothing of this machine runs for an hour; the others forget it.
    sim.kill(8);
    sim.run(3600 * SECOND);
    sim.up(sim.at(host(8)));
    sim.run(30 * SECOND);
    let (client, server) = connect(&mut sim, 9, 8).unwrap();
    assert_same_link(&client, &server);
}

#[test]
fn a_network_of_addresses_that_nobody_has_is_used_when_it_is_named() {
    for (bootstrap, allowed) in
        [("198.51.100.1:1", true), ("10.0.0.1:1", true), ("88.99.3.86:49737", false)]
    {
        let config = DhtConfig::new(KeyPair::from_seed(&[1; 32]), vec![bootstrap.parse().unwrap()]);
        assert_eq!(config.allow_bogons, allowed, "{bootstrap}");
    }
}

/// What a server tells a client at `client`, both of them seen at the same host by a relay.
fn told_beside(local: &[SocketAddrV4], server: SocketAddrV4, client: SocketAddrV4) -> bool {
    let mut sim = Sim::network(31, 6, 0);
    let addresses = local.to_vec();
    sim.begin(server, 60, move |c| c.local_addresses = addresses);
    sim.dht_at(server, |dht, now| dht.listen(Arc::new(pair(60)), now));
    sim.wait_at(server, SECOND, listening).unwrap();
    sim.begin(client, 61, |_| {});
    sim.dht_at(client, |dht, now| dht.connect(PublicKey(pair(60).public()), vec![], 5, now));
    let result = sim.wait_at(client, 10 * SECOND, outgoing).unwrap();
    result.is_ok_and(|agreed| agreed.dial.is_some_and(|dial| dial.to == server.into()))
}

#[test]
fn peers_on_one_machine_meet_whatever_its_addresses_are() {
    let at = |port| SocketAddrV4::new(*host(60).ip(), port);
    let lab = SocketAddrV4::new([192, 0, 2, 2].into(), 4000);
    // Its only address is one that the reference takes for nobody's: it would punch, which we do not answer.
    assert!(told_beside(&[lab], at(4000), at(5000)));
    assert!(told_beside(&[lab, at(4000)], at(4000), at(5000)));
}
