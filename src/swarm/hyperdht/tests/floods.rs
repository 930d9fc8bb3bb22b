//! Handshakes without end, most of them nonsense: who still gets in.

use super::flows::{incoming, listen, outgoing};
use super::sim::{Sim, host, pair};
use crate::crypto::hash;
use crate::key::NodeId;
use crate::swarm::dht_rpc::Request;
use crate::swarm::hyperdht::DhtEvent;
use crate::swarm::hyperdht::handshake::Opening;
use crate::swarm::hyperdht::messages::{Mode, NoisePayload, PeerHandshake, UdxInfo, command};
use crate::swarm::socket::SocketId;
use rand::RngCore;
use std::net::SocketAddrV4;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Datagrams with nonsense instead of a handshake, 200 a second for ten seconds, from as many `hosts`, while four
/// clients connect. Answers how many got in.
fn beside_nonsense(hosts: u32, through_relays: bool) -> usize {
    let mut sim = Sim::network(30, 6, 5);
    listen(&mut sim, 6);
    let key = sim.key(6);
    let target = NodeId(hash::hash(&[&key.0]));
    let relays = sim.dht(6).relay_addresses(&key);
    let mut n = 0u32;
    for step in 0..200 {
        if step % 40 == 20 {
            let client = 7 + step / 40;
            if client < 11 {
                sim.dht_do(client, |dht, now| dht.connect(key, vec![], 5, now));
            }
        }
        for _ in 0..10 {
            n += 1;
            let from =
                SocketAddrV4::new([11, 1, ((n % hosts) >> 8) as u8, (n % hosts) as u8].into(), 9);
            let mut noise = vec![0; 100];
            sim.rng.fill_bytes(&mut noise);
            let (via, mode, peer) = match through_relays {
                true => (relays[n as usize % relays.len()], Mode::FromRelay, Some(from)),
                false => (from, Mode::FromClient, None),
            };
            let request = Request {
                tid: n as u16,
                to: host(6),
                id: None,
                token: None,
                internal: false,
                command: command::PEER_HANDSHAKE,
                target: Some(target),
                value: Some(PeerHandshake { mode, noise, peer, relay: None }.encode()),
            };
            sim.dht_do(6, |dht, now| {
                dht.handle_datagram(SocketId::MAIN, via, &request.encode(), now);
            });
        }
        sim.run(SECOND / 20);
    }
    sim.run(10 * SECOND);
    let connected = |e: &DhtEvent| matches!(outgoing(e), Some(Ok(_)));
    (7..11).filter(|&n| sim.events(n).iter().any(connected)).count()
}

#[test]
fn nonsense_keeps_no_client_out() {
    for (hosts, through_relays) in [(1, false), (1, true), (2000, false), (2000, true)] {
        assert_eq!(beside_nonsense(hosts, through_relays), 4, "{hosts} hosts, {through_relays}");
    }
}

/// A handshake reaches node 6; answers how many connections come of it.
fn shake(
    sim: &mut Sim,
    target: NodeId,
    noise: Vec<u8>,
    from: SocketAddrV4,
    peer: Option<SocketAddrV4>,
) -> usize {
    let mode = if peer.is_some() { Mode::FromRelay } else { Mode::FromClient };
    let request = Request {
        tid: 1,
        to: host(6),
        id: None,
        token: None,
        internal: false,
        command: command::PEER_HANDSHAKE,
        target: Some(target),
        value: Some(PeerHandshake { mode, noise, peer, relay: None }.encode()),
    };
    let now = sim.now;
    let dht = sim.dht(6);
    dht.handle_datagram(SocketId::MAIN, from, &request.encode(), now);
    std::iter::from_fn(|| dht.poll_event()).filter_map(|e| incoming(&e)).count()
}

#[test]
fn when_nonsense_has_used_up_what_is_read_there_is_something_left_for_some() {
    let mut sim = Sim::network(32, 6, 1);
    listen(&mut sim, 6);
    let key = sim.key(6);
    let target = NodeId(hash::hash(&[&key.0]));
    let relays = sim.dht(6).relay_addresses(&key);
    let relay = relays.into_iter().find(|relay| *relay != host(6)).unwrap();
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: true, id: 1, seq: 0 });
    let client = |n: u8| Opening::new(&pair(900), &key, &payload, [n; 32]).unwrap().message;
    let at = |net: u8, n: u32| SocketAddrV4::new([net, 1, (n >> 8) as u8, n as u8].into(), 9);
    for n in 0..4000u32 {
        let mut noise = vec![7; 100];
        noise[..4].copy_from_slice(&n.to_le_bytes());
        shake(&mut sim, target, noise, at(11, n), None);
    }
    assert_eq!(shake(&mut sim, target, client(1), at(12, 1), None), 0);
    assert_eq!(
        shake(&mut sim, target, client(2), relay, Some(at(12, 2))),
        1,
        "our relay tells of it"
    );
    sim.dht(6).connected((*at(12, 3).ip()).into());
    assert_eq!(shake(&mut sim, target, client(3), at(12, 3), None), 1, "it was here before");
}

/// One host, which forges nothing, tells our relays that it passes on for our clients, 400 times a second: who of those
/// gets in meanwhile, and how many of its handshakes were read in 40 s.
fn beside_one_who_names(named: impl Fn(u32) -> SocketAddrV4) -> (usize, usize) {
    const RATE: u32 = 400;
    let mut sim = Sim::network(30, 6, 5);
    listen(&mut sim, 6);
    let key = sim.key(6);
    let target = NodeId(hash::hash(&[&key.0]));
    let relays = sim.dht(6).relay_addresses(&key);
    let liar: SocketAddrV4 = "77.1.1.1:5000".parse().unwrap();
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: true, id: 1, seq: 0 });
    let (mut n, mut read) = (0, 0);
    for step in 0..20 * 40_u32 {
        if step % 100 == 80 && step < 400 {
            let client = 7 + (step / 100) as u16;
            sim.dht_do(client, |dht, now| dht.connect(key, vec![], 5, now));
        }
        for _ in 0..RATE / 20 {
            n += 1;
            let mut seed = [0; 32];
            sim.rng.fill_bytes(&mut seed);
            let noise = Opening::new(&pair(900), &key, &payload, seed).unwrap().message;
            let relay = relays[n as usize % relays.len()].ip().octets();
            let to = u16::from_be_bytes([relay[2], relay[3]]);
            let peer = Some(named(n));
            let m = PeerHandshake { mode: Mode::FromRelay, noise, peer, relay: None };
            let request = Request {
                tid: n as u16,
                to: host(to),
                id: None,
                token: None,
                internal: false,
                command: command::PEER_HANDSHAKE,
                target: Some(target),
                value: Some(m.encode()),
            };
            sim.dht_do(to, |dht, now| {
                dht.handle_datagram(SocketId::MAIN, liar, &request.encode(), now);
            });
        }
        sim.run(SECOND / 20);
        read += sim.events(6).iter().filter_map(incoming).count();
        sim.take_events(6);
    }
    sim.run(20 * SECOND);
    let connected = |e: &DhtEvent| matches!(outgoing(e), Some(Ok(_)));
    let inside = (7..11).filter(|&n| sim.events(n).iter().any(connected)).count();
    (inside, read)
}

#[test]
fn who_tells_our_relays_of_others_pays_for_it_and_keeps_nobody_out() {
    let (inside, _) = beside_one_who_names(|n| host(7 + (n % 4) as u16));
    assert!(inside >= 3, "{inside} of 4");
    let any = |n: u32| SocketAddrV4::new([12, (n >> 16) as u8, (n >> 8) as u8, n as u8].into(), 9);
    let (inside, read) = beside_one_who_names(any);
    assert!(inside == 4 && read < 1_000, "{inside} of 4, {read} read");
}
