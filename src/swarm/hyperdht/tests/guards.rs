//! What strangers name must not make us write where no peer can be: into the local networks.

use super::sim::pair;
use crate::crypto::hash;
use crate::key::{NodeId, PublicKey, Topic};
use crate::sim::epoch;
use crate::swarm::SocketId;
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::dht_rpc::{Request, Response, node_id};
use crate::swarm::hyperdht::handshake::Opening;
use crate::swarm::hyperdht::messages::{
    LookupReply, Mode, NoisePayload, PeerHandshake, PeerRecord, UdxInfo, command,
};
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::net::SocketAddrV4;
use std::sync::Arc;

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
    dht.set_local_addresses(vec![addr("192.168.1.2:9")], epoch());
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
    dht.handle_datagram(SocketId::MAIN, outside(), &request.encode(), epoch());
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
