//! What relays and records can make us do while we connect.

use super::*;
use crate::crypto::KeyPair;
use crate::sim::epoch;
use crate::swarm::dht_rpc::{Rpc, RpcConfig};
use crate::swarm::hyperdht::event::DhtConfig;
use crate::swarm::hyperdht::handshake::Answering;
use crate::swarm::hyperdht::messages::{HolepunchInfo, RelayInfo, UdxInfo};
use crate::swarm::socket::ipv4;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::time::Duration;

fn at(host: [u8; 4]) -> SocketAddrV4 {
    SocketAddrV4::new(host.into(), 4000)
}

const RELAY: [u8; 4] = [20, 0, 0, 1];
const OWN: [u8; 4] = [30, 0, 0, 1];
const LAN: [u8; 4] = [192, 168, 1, 7];

fn server() -> KeyPair {
    KeyPair::from_seed(&[2; 32])
}

/// Begins a connection to [`server`], of which we know one relay.
fn begun(now: Instant) -> (Connect, Net) {
    let us = KeyPair::from_seed(&[1; 32]);
    let config = RpcConfig {
        bootstrap: vec![at(RELAY)],
        persistent: false,
        address: None,
        allow_bogons: false,
    };
    let rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
    let config = DhtConfig::new(us, vec![at(RELAY)]);
    let mut net = Net::new(rpc, config, StdRng::seed_from_u64(2), now);
    let (id, key) = (ConnectId(1), PublicKey(server().public()));
    let connect =
        Connect::start(id, key, vec![at(RELAY)].into(), 5, (Effort::Whole, None), &mut net, now)
            .expect("a key");
    (connect, net)
}

/// Where we dial, or whom we ping on the local network, when a relay on the public network says that the server
/// is at `peer` and we at `own`.
fn led_to(peer: [u8; 4], own: [u8; 4], lan: bool) -> Vec<SocketAddrV4> {
    let (mut connect, mut net) = answered(peer, own, lan);
    if let (State::Finding { .. }, Some(at)) = (&connect.state, connect.poll_timeout()) {
        connect.handle_timeout(&mut net, at);
    }
    let dialled = net.events.iter().filter_map(|event| match event {
        DhtEvent::Outgoing { agreed, .. } => agreed.dial.and_then(|dial| ipv4(dial.to)),
        _ => None,
    });
    let mut led: Vec<_> = dialled.collect();
    led.extend(std::iter::from_fn(|| net.rpc.poll_transmit()).map(|t| t.to));
    led.retain(|to| *to != at(RELAY));
    led
}

/// The same, as the answer leaves it.
fn answered(peer: [u8; 4], own: [u8; 4], lan: bool) -> (Connect, Net) {
    let (now, server) = (epoch(), server());
    let (mut connect, mut net) = begun(now);
    let State::Finding { opening, .. } = &connect.state else { panic!("over at once") };
    let answering = Answering::read(&server, &opening.message, [3; 32]).unwrap();
    let relay = RelayInfo { relay: at(RELAY), peer: at(peer) };
    let payload = NoisePayload {
        addresses4: vec![at(LAN)],
        holepunch: lan.then(|| HolepunchInfo { id: 1, relays: vec![relay] }),
        udx: Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 9, seq: 0 }),
        ..NoisePayload::empty(NoisePayload::VERSION)
    };
    let (noise, _) = answering.reply(&payload).unwrap();
    let m = PeerHandshake { mode: Mode::Reply, noise, peer: Some(at(peer)), relay: None };
    let reply = Reply {
        from: at(RELAY),
        id: None,
        to: at(own),
        token: None,
        closer: vec![],
        error: error::NONE,
        value: Some(m.encode()),
        rtt: Duration::ZERO,
    };
    while net.rpc.poll_transmit().is_some() {}
    let step = Step::Handshake { via: at(RELAY), road: Road::Known };
    connect.on_answer(step, Some(&reply), &mut net, now);
    (connect, net)
}

#[test]
fn a_direct_way_that_is_late_is_told_once() {
    let (mut connect, mut net) = answered([40, 0, 0, 1], OWN, true);
    let mut told = Vec::new();
    while let Some(at) = connect.poll_timeout() {
        connect.handle_timeout(&mut net, at);
        told.extend(net.events.drain(..));
    }
    assert!(matches!(told[..], [DhtEvent::Late { .. }]), "{told:?}");
}

#[test]
fn a_relay_does_not_lead_us_into_our_local_network() {
    for peer in [LAN, [127, 0, 0, 1], [10, 0, 0, 1], [100, 64, 0, 1], [169, 254, 1, 1], [0; 4]] {
        for lan in [true, false] {
            assert_eq!(led_to(peer, OWN, lan), [], "{peer:?} {lan}");
            assert_eq!(led_to(peer, peer, lan), [], "{peer:?} {lan}, and we beside it");
        }
    }
    assert_eq!(led_to([40, 0, 0, 1], OWN, false), [at([40, 0, 0, 1])]);
    // Our side is opened towards it: one datagram, which dies on the way.
    assert_eq!(
        led_to([40, 0, 0, 1], OWN, true),
        [at([40, 0, 0, 1])],
        "no local address of another host"
    );
    assert_eq!(led_to(OWN, OWN, true), [at(LAN)], "behind the same router");
}

#[test]
fn a_server_behind_our_router_is_asked_for_a_hole_once_its_local_addresses_had_a_moment() {
    let (mut connect, mut net) = answered(OWN, OWN, true);
    let sent = |net: &mut Net| {
        std::iter::from_fn(|| net.rpc.poll_transmit()).map(|t| t.to).collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut net), [at(LAN)]);
    let then = connect.poll_timeout().unwrap();
    connect.handle_timeout(&mut net, then - Duration::from_millis(1));
    assert_eq!(sent(&mut net), []);
    connect.handle_timeout(&mut net, then);
    assert_eq!(sent(&mut net), [at(OWN), at(RELAY)], "our side is opened, and a relay asked");
}

#[test]
fn only_addresses_that_a_host_can_have_are_tried_on_the_local_network() {
    let (_, net) = begun(epoch());
    let mut addresses4: Vec<_> =
        [[224, 0, 0, 1], LAN, [0; 4], [240, 0, 0, 1], [255; 4]].map(at).to_vec();
    addresses4.push(SocketAddrV4::new(LAN.into(), 0));
    let payload = NoisePayload { addresses4, ..NoisePayload::empty(NoisePayload::VERSION) };
    assert_eq!(lan::candidates(&payload, &net), [at(LAN)]);
}

#[test]
fn a_hundred_nodes_that_claim_to_know_the_server_are_not_all_asked() {
    let now = epoch();
    let (mut connect, mut net) = begun(now);
    let other = PeerRecord { public_key: PublicKey([9; 32]), relay_addresses: vec![] };
    let record = PeerRecord { public_key: connect.remote, ..other.clone() };
    for n in 0..100 {
        // Some know another server.
        let (net_of, record) = if n < 5 { (51, &other) } else { (50, &record) };
        let reply = Reply {
            from: at([net_of, 0, 0, n]),
            id: None,
            to: at(OWN),
            token: None,
            closer: vec![],
            error: error::NONE,
            value: Some(record.encode()),
            rtt: Duration::ZERO,
        };
        connect.on_reply(&reply, &mut net, now);
    }
    let mut asked = BTreeSet::new();
    // Each of them answers nothing, until there is nobody left to ask.
    while let Some(via) = connect.asked.iter().find(|a| !asked.contains(*a)).copied() {
        asked.insert(via);
        let known = via == at(RELAY);
        connect.on_answer(
            Step::Handshake { via, road: if known { Road::Known } else { Road::Found } },
            None,
            &mut net,
            now,
        );
    }
    assert_eq!(asked.len(), MAX_ASKED);
    assert!(asked.iter().all(|via| via.ip().octets()[0] != 51));
}
