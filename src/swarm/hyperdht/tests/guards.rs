//! What strangers name must not make us write where no peer can be: into the local networks.

use super::sim::pair;
use crate::crypto::{KeyPair, hash};
use crate::key::{NodeId, PublicKey, Topic};
use crate::sim::epoch;
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::dht_rpc::{QueryId, Request, Response, Rpc, RpcConfig, node_id};
use crate::swarm::hyperdht::handshake::Opening;
use crate::swarm::hyperdht::messages::{
    LookupReply, Mode, NoisePayload, PeerHandshake, PeerRecord, UdxInfo, command,
};
use crate::swarm::hyperdht::net::Net;
use crate::swarm::hyperdht::topics::{Aim, TopicQuery};
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use crate::swarm::socket::SocketId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

fn addr(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

fn outside() -> SocketAddrV4 {
    addr("8.1.2.3:4000")
}

fn other() -> SocketAddrV4 {
    addr("8.4.5.6:4000")
}

fn inside() -> SocketAddrV4 {
    addr("192.168.1.5:4000")
}

/// A node of the public network.
fn node(persistent: bool, bootstrap: Vec<SocketAddrV4>) -> HyperDht {
    let mut config = DhtConfig::new(pair(1), bootstrap);
    (config.persistent, config.address) = (persistent, persistent.then(|| addr("9.9.9.9:9")));
    let mut dht = HyperDht::new(config, StdRng::seed_from_u64(1), epoch());
    dht.set_local_addresses(vec![addr("192.168.1.2:9")]);
    dht
}

/// Where the datagrams go that leave.
fn sent(dht: &mut HyperDht) -> Vec<(SocketAddrV4, Vec<u8>)> {
    std::iter::from_fn(|| dht.poll_transmit()).map(|t| (t.to, t.bytes)).collect()
}

fn goes_to(dht: &mut HyperDht) -> Vec<SocketAddrV4> {
    sent(dht).into_iter().map(|(to, _)| to).collect()
}

fn handshake(dht: &mut HyperDht, target: NodeId, m: &PeerHandshake) {
    handshake_from(dht, outside(), target, m);
}

fn handshake_from(dht: &mut HyperDht, from: SocketAddrV4, target: NodeId, m: &PeerHandshake) {
    let request = Request {
        tid: 7,
        to: addr("9.9.9.9:9"),
        id: None,
        token: None,
        internal: false,
        command: command::PEER_HANDSHAKE,
        target: Some(target),
        value: Some(m.encode()),
    };
    dht.handle_datagram(SocketId::MAIN, from, &request.encode(), epoch());
}

#[test]
fn a_relay_passes_nothing_on_into_local_networks() {
    let mut dht = node(true, vec![]);
    goes_to(&mut dht);
    let m = |mode, peer, relay| PeerHandshake { mode, noise: vec![1; 50], peer, relay };
    for (to, passes) in [(other(), true), (inside(), false)] {
        handshake(&mut dht, NodeId([5; 32]), &m(Mode::FromClient, None, Some(to)));
        assert_eq!(goes_to(&mut dht).contains(&to), passes, "a request to {to}");
    }
    // A route makes us answer whoever the message names.
    let key = pair(1);
    dht.listen(Arc::new(pair(2)), epoch());
    goes_to(&mut dht);
    let target = NodeId(hash::hash(&[&key.public()]));
    for (to, passes) in [(other(), true), (inside(), false)] {
        let records = dht.records.as_mut().unwrap();
        records.route_for_test(target, other(), epoch());
        handshake(&mut dht, target, &m(Mode::FromServer, Some(to), None));
        assert_eq!(goes_to(&mut dht).contains(&to), passes, "a response to {to}");
    }
}

#[test]
fn a_client_that_is_said_to_be_in_a_local_network_gets_no_answer() {
    let mut dht = node(false, vec![]);
    let server = pair(2);
    let (key, target) = (PublicKey(server.public()), NodeId(hash::hash(&[&server.public()])));
    dht.listen(Arc::new(server), epoch());
    goes_to(&mut dht);
    for (n, (peer, answered)) in [(other(), true), (inside(), false)].into_iter().enumerate() {
        let mut payload = NoisePayload::empty(NoisePayload::VERSION);
        payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 1, seq: 0 });
        let noise = Opening::new(&pair(3), &key, &payload, [n as u8 + 1; 32]).unwrap().message;
        let m = PeerHandshake { mode: Mode::FromRelay, noise, peer: Some(peer), relay: None };
        handshake(&mut dht, target, &m);
        assert_eq!(!goes_to(&mut dht).is_empty(), answered, "{peer}");
        let incoming = std::iter::from_fn(|| dht.poll_event());
        let incoming = incoming.filter(|e| matches!(e, DhtEvent::Incoming { .. })).count();
        assert_eq!(incoming, usize::from(answered));
    }
}

#[test]
fn a_stranger_who_names_another_client_each_time_still_uses_up_its_own_allowance() {
    let mut dht = node(false, vec![]);
    let server = pair(2);
    let (key, target) = (PublicKey(server.public()), NodeId(hash::hash(&[&server.public()])));
    dht.listen(Arc::new(server), epoch());
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 1, seq: 0 });
    for n in 1..100 {
        let noise = Opening::new(&pair(3), &key, &payload, [n; 32]).unwrap().message;
        let peer = Some(SocketAddrV4::new([8, 9, n, 1].into(), 4000));
        handshake(
            &mut dht,
            target,
            &PeerHandshake { mode: Mode::FromRelay, noise, peer, relay: None },
        );
    }
    let incoming = std::iter::from_fn(|| dht.poll_event());
    let incoming = incoming.filter(|e| matches!(e, DhtEvent::Incoming { .. })).count();
    // What one host may have read at once, and a few for the time that this takes.
    assert!((32..60).contains(&incoming), "{incoming}");
}

#[test]
fn who_names_another_source_each_time_pays_where_the_answers_go() {
    let mut dht = node(false, vec![]);
    let server = pair(2);
    let (key, target) = (PublicKey(server.public()), NodeId(hash::hash(&[&server.public()])));
    dht.listen(Arc::new(server), epoch());
    for n in 1..100 {
        let noise = opening_for(&key, n);
        let (mode, peer) = (Mode::FromSecondRelay, Some(addr("8.9.9.9:4000")));
        let m = PeerHandshake { mode, noise, peer, relay: Some(other()) };
        handshake_from(&mut dht, SocketAddrV4::new([8, 9, n, 1].into(), 4000), target, &m);
    }
    let read = incoming(&mut dht);
    assert!((32..60).contains(&read), "{read}");
}

fn opening_for(key: &PublicKey, n: u8) -> Vec<u8> {
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 1, seq: 0 });
    Opening::new(&pair(3), key, &payload, [n; 32]).unwrap().message
}

#[test]
fn relays_that_no_node_can_have_are_neither_told_nor_asked() {
    let mut dht = node(false, vec![outside()]);
    goes_to(&mut dht);
    let topic = Topic([4; 32]);
    let query = dht.lookup(topic, epoch());
    let asked = sent(&mut dht).into_iter().find_map(|(_, bytes)| match Message::decode(&bytes) {
        Ok(Message::Request(r)) if r.command == command::LOOKUP && !r.internal => Some(r),
        _ => None,
    });
    let (asked, relays) = (asked.unwrap(), vec![inside(), other(), addr("224.0.0.1:1")]);
    let key = PublicKey(pair(3).public());
    let record = PeerRecord { public_key: key, relay_addresses: relays.clone() }.encode();
    let response = Response {
        tid: asked.tid,
        to: addr("9.9.9.9:9"),
        id: Some(node_id(outside())),
        token: None,
        closer: vec![],
        error: 0,
        value: Some(LookupReply::encode_raw(&[&record], 0)),
    };
    dht.handle_datagram(SocketId::MAIN, outside(), &response.encode(), epoch());
    let found = std::iter::from_fn(|| dht.poll_event()).find_map(|event| match event {
        DhtEvent::Peer { query: q, relay_addresses, .. } if q == query => Some(relay_addresses),
        _ => None,
    });
    assert_eq!(found, Some(vec![other()]));
    goes_to(&mut dht);
    dht.connect(key, relays, 5, epoch());
    let to = goes_to(&mut dht);
    assert!(to.contains(&other()) && !to.contains(&inside()), "{to:?}");
}

/// A handshake of `client` with the server of pair 2, unlike others by `n`.
fn opening(client: &KeyPair, n: u8) -> Vec<u8> {
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 1, seq: 0 });
    Opening::new(client, &PublicKey(pair(2).public()), &payload, [n; 32]).unwrap().message
}

fn incoming(dht: &mut HyperDht) -> usize {
    let events = std::iter::from_fn(|| dht.poll_event());
    events.filter(|e| matches!(e, DhtEvent::Incoming { .. })).count()
}

#[test]
fn a_server_does_not_connect_to_itself() {
    let (mut dht, target) = (node(false, vec![]), NodeId(hash::hash(&[&pair(2).public()])));
    dht.listen(Arc::new(pair(2)), epoch());
    let from = |client: &KeyPair| PeerHandshake {
        mode: Mode::FromRelay,
        noise: opening(client, 1),
        peer: Some(other()),
        relay: None,
    };
    handshake(&mut dht, target, &from(&pair(2)));
    assert_eq!(incoming(&mut dht), 0);
    handshake(&mut dht, target, &from(&pair(3)));
    assert_eq!(incoming(&mut dht), 1);
}

#[test]
fn many_clients_that_are_named_to_us_make_us_write_to_some_of_them_only() {
    let (mut dht, target) = (node(false, vec![]), NodeId(hash::hash(&[&pair(2).public()])));
    dht.listen(Arc::new(pair(2)), epoch());
    goes_to(&mut dht);
    for n in 0..150 {
        let at = |net| SocketAddrV4::new([net, 9, n, 1].into(), 4000);
        let noise = opening(&pair(3), n);
        let m = PeerHandshake { mode: Mode::FromRelay, noise, peer: Some(at(8)), relay: None };
        handshake_from(&mut dht, at(20), target, &m);
    }
    // Some get no answer; each of the others would be written to four times.
    assert!(incoming(&mut dht) > 70);
    sent(&mut dht);
    dht.handle_timeout(epoch() + Duration::from_secs(5));
    let openings = sent(&mut dht).into_iter().filter(|(_, bytes)| bytes == &[0]).count();
    assert_eq!(openings, 256);
}

#[test]
fn a_node_that_invents_peers_is_believed_within_bounds() {
    let rpc =
        RpcConfig { bootstrap: vec![], persistent: false, address: None, allow_bogons: false };
    let rpc = Rpc::new(rpc, StdRng::seed_from_u64(1), epoch());
    let mut net = Net::new(rpc, DhtConfig::new(pair(1), vec![]), StdRng::seed_from_u64(2), epoch());
    let mut query = TopicQuery::new(NodeId([1; 32]), Aim::Lookup, Arc::new(pair(1)));
    let relay_addresses = vec![other(), outside(), inside(), other(), other(), outside()];
    let own = PublicKey(pair(1).public());
    let keys = (0..3000u32).map(|n| PublicKey(hash::hash(&[&n.to_le_bytes()])));
    for public_key in std::iter::once(own).chain(keys) {
        let record = PeerRecord { public_key, relay_addresses: relay_addresses.clone() };
        query.on_peers(QueryId(1), vec![record], &mut net);
    }
    assert_eq!(net.events.len(), 1024);
    for event in &net.events {
        let DhtEvent::Peer { public_key, relay_addresses, .. } = event else { panic!("{event:?}") };
        assert_ne!(*public_key, own);
        assert_eq!(relay_addresses, &[other(), outside()], "of the first three, those that can be");
    }
}
