//! What a full node does for hostile customers, who forge their sources and name whom they like: how much it sends to others
//! because of it, and how much it holds.

use super::sim::pair;
use crate::crypto::{KeyPair, hash};
use crate::key::{NodeId, PublicKey};
use crate::sim::epoch;
use crate::swarm::dht_rpc::message::{Message, internal};
use crate::swarm::dht_rpc::{Request, Response, node_id};
use crate::swarm::hyperdht::handshake::ROOMY;
use crate::swarm::hyperdht::messages::{
    Firewall, LookupReply, Mode, NoisePayload, PeerHandshake, PeerHolepunch, PeerRecord,
    RelayOffer, UdxInfo, command,
};
use crate::swarm::hyperdht::signatures::{Place, namespace};
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, HyperDht};
use crate::swarm::inquiry;
use crate::swarm::secret_stream::noise::{Handshake, Pattern};
use crate::swarm::socket::SocketId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Around each datagram on the way.
const HEADERS: usize = 28;
const OWN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, 9), 9);

fn addr(net: u8, n: u32) -> SocketAddrV4 {
    let [_, a, b, c] = n.to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(net, a, b, c), 4000)
}

/// A full node, which is a server of pair 2 and as open as can be, or is behind a NAT.
fn node(open: bool) -> HyperDht {
    let mut config = DhtConfig::new(pair(1), vec![]);
    (config.persistent, config.address) = (open, open.then_some(OWN));
    let mut dht = HyperDht::new(config, StdRng::seed_from_u64(1), epoch());
    let local = (1..9).map(|n| SocketAddrV4::new([192, 168, 1, n].into(), 9)).collect();
    dht.set_local_addresses(local);
    let own = PublicKey(pair(2).public());
    dht.offer_relay(Some(RelayOffer::new(&pair(4), &own)));
    dht.listen(Arc::new(pair(2)), epoch());
    // Until it has announced itself to itself.
    for ms in (0..SETTLED.as_millis() as u64).step_by(100) {
        dht.handle_timeout(epoch() + Duration::from_millis(ms));
        sent(&mut dht);
    }
    dht
}

const SETTLED: Duration = Duration::from_secs(20);

/// When a node is asked first.
fn start() -> Instant {
    epoch() + SETTLED
}

/// Bytes to each host, on the way.
fn sent(dht: &mut HyperDht) -> BTreeMap<Ipv4Addr, usize> {
    let mut hosts = BTreeMap::new();
    let direct = std::iter::from_fn(|| dht.poll_direct()).collect::<Vec<_>>();
    for (to, bytes) in direct {
        let SocketAddr::V4(to) = to else { panic!() };
        *hosts.entry(*to.ip()).or_default() += bytes.len() + HEADERS;
    }
    while let Some(transmit) = dht.poll_transmit() {
        *hosts.entry(*transmit.to.ip()).or_default() += transmit.bytes.len() + HEADERS;
    }
    hosts
}

fn request(command: u64, target: NodeId, value: Option<Vec<u8>>) -> Request {
    let (id, token, internal) = (None, None, false);
    Request { tid: 7, to: OWN, id, token, internal, command, target: Some(target), value }
}

/// A node gets it; answers its bytes on the way.
fn ask(dht: &mut HyperDht, from: SocketAddrV4, request: &Request, now: Instant) -> usize {
    let bytes = request.encode();
    dht.handle_datagram(SocketId::MAIN, from, &bytes, now);
    bytes.len() + HEADERS
}

/// A handshake of `n` with the server: every second is the shortest that gets an answer, and every second pair says that
/// its client is open, and where.
fn noise(n: u32, at: SocketAddrV4) -> Vec<u8> {
    let firewall = if n & 2 == 0 { Firewall::Unknown } else { Firewall::Open };
    client(n, firewall, vec![at]).1
}

/// A client that shakes hands with the server, to read the answer, and what it sends.
fn client(n: u32, firewall: Firewall, addresses4: Vec<SocketAddrV4>) -> (Handshake, Vec<u8>) {
    let mut payload = NoisePayload::empty(NoisePayload::VERSION);
    payload.udx = Some(UdxInfo { reusable_socket: false, big_datagrams: false, id: 1, seq: 0 });
    (payload.firewall, payload.addresses4) = (firewall, addresses4);
    let mut bytes = payload.encode();
    if n % 2 == 1 {
        bytes.resize(ROOMY - 96, 0);
    }
    let (server, seed) = (PublicKey(pair(2).public()), hash::hash(&[&n.to_le_bytes()]));
    let prologue = namespace(command::PEER_HANDSHAKE);
    let state = Handshake::initiator(Pattern::Ik, &pair(3), Some(&server), &prologue, seed);
    let mut state = state.unwrap();
    let noise = state.write(&bytes).unwrap();
    (state, noise)
}

fn server() -> NodeId {
    NodeId(hash::hash(&[&pair(2).public()]))
}

/// Handshakes and hole punch messages in the name of a victim, or that name one, for our server, for one that we pass them on
/// for, and for nobody: what a victim gets by each, with the first packets of a stream that is made for it.
#[test]
fn nobody_gets_more_than_three_times_what_was_sent_in_his_name() {
    let (victim, attacker, route) = (addr(60, 1), addr(70, 1), addr(80, 1));
    // A header frame three times.
    let first_packets = 3 * (79 + HEADERS);
    let mut n = 0;
    let (mut answered, mut worst) = (0, 0.0_f64);
    for open in [true, false] {
        let mut dht = node(open);
        for minutes in 0..40 {
            let now = start() + Duration::from_secs(60 * minutes);
            dht.handle_timeout(now);
            if let Some(records) = dht.records.as_mut() {
                records.route_for_test(NodeId([5; 32]), route, now);
            }
            sent(&mut dht);
            std::iter::from_fn(|| dht.poll_event()).for_each(drop);
            for mode in [
                Mode::FromClient,
                Mode::FromServer,
                Mode::FromRelay,
                Mode::FromSecondRelay,
                Mode::Reply,
            ] {
                for (from, peer, relay) in [
                    (victim, None, None),
                    (victim, Some(victim), Some(victim)),
                    (attacker, Some(victim), None),
                    (attacker, None, Some(victim)),
                    (attacker, Some(attacker), Some(victim)),
                ] {
                    for target in [server(), NodeId([5; 32]), NodeId([6; 32])] {
                        n += 1;
                        let m = PeerHandshake { mode, noise: noise(n, victim), peer, relay };
                        let m = request(command::PEER_HANDSHAKE, target, Some(m.encode()));
                        let came = ask(&mut dht, from, &m, now);
                        let made = std::iter::from_fn(|| dht.poll_event());
                        let to = made.filter_map(|event| match event {
                            DhtEvent::Incoming { agreed, .. } => agreed.dial.map(|dial| dial.to),
                            _ => None,
                        });
                        let streams = to.filter(|to| *to == SocketAddr::V4(victim)).count();
                        let went = sent(&mut dht).get(victim.ip()).copied().unwrap_or(0);
                        let went = went + streams * first_packets;
                        answered += usize::from(went > 0);
                        worst = worst.max(went as f64 / came as f64);
                        let m = PeerHolepunch { mode, id: 0, payload: vec![7; 40], peer };
                        let m = request(command::PEER_HOLEPUNCH, target, Some(m.encode()));
                        let came = ask(&mut dht, from, &m, now);
                        let went = sent(&mut dht).get(victim.ip()).copied().unwrap_or(0);
                        worst = worst.max(went as f64 / came as f64);
                    }
                }
            }
        }
        // And without the DHT, which is what most of a stranger's answers are for.
        let now = start() + Duration::from_secs(9000);
        for n in [0, 1] {
            let (nonce, target, noise) = ([n as u8; 16], server(), noise(n + 1_000_000, victim));
            let handshake = inquiry::Message::Handshake { nonce, target, noise };
            dht.handle_direct(victim.into(), &handshake, now);
            let went = sent(&mut dht)[victim.ip()] + first_packets;
            worst = worst.max(went as f64 / (handshake.encode().len() + HEADERS) as f64);
        }
    }
    println!("{answered} of {n}, at most {worst:.2}");
    assert!(answered > 100 && worst <= 3.0, "{answered} of {n}, {worst}");
}

/// The answer to a handshake that came from there: of a client, or of a relay that sees its client at `at`.
fn answer(
    dht: &mut HyperDht,
    (from, at): (SocketAddrV4, Option<SocketAddrV4>),
    noise: Vec<u8>,
) -> Option<Vec<u8>> {
    let mode = if at.is_some() { Mode::FromRelay } else { Mode::FromClient };
    let m = PeerHandshake { mode, noise, peer: at, relay: None };
    ask(dht, from, &request(command::PEER_HANDSHAKE, server(), Some(m.encode())), start());
    let answers = std::iter::from_fn(|| dht.poll_transmit()).filter(|t| t.to == from);
    let values = answers.filter_map(|t| match Message::decode(&t.bytes).unwrap() {
        Message::Response(Response { value, .. }) | Message::Request(Request { value, .. }) => {
            value
        }
    });
    Some(PeerHandshake::decode(&values.last()?).unwrap().noise)
}

/// The same without the DHT.
fn answer_to_inquiry(dht: &mut HyperDht, from: SocketAddrV4, noise: Vec<u8>) -> Option<Vec<u8>> {
    let handshake = inquiry::Message::Handshake { nonce: [0; 16], target: server(), noise };
    dht.handle_direct(from.into(), &handshake, start());
    match inquiry::Message::decode(&dht.poll_direct()?.1) {
        Some(inquiry::Message::Answer { noise, .. }) => Some(noise),
        _ => None,
    }
}

/// What short and roomy handshakes are answered; and nobody is told that a server is open which is not.
#[test]
fn little_is_said_where_it_might_reach_a_victim() {
    let (closed, relays) = (Firewall::Unknown, Some(addr(60, 1)));
    let mut n = 0;
    for open in [true, false] {
        let mut dht = node(open);
        for (inquires, at, firewall, little) in [
            (true, None, closed, [true, true]),
            (false, None, closed, [true, true]),
            (false, relays, Firewall::Open, [true, false]),
            (false, relays, closed, [false, false]),
        ] {
            for (roomy, little) in [false, true].into_iter().zip(little) {
                n += 2;
                let (mut state, noise) = client(n + u32::from(roomy), firewall, vec![addr(60, 1)]);
                let from = addr(70, n);
                let answer = match inquires {
                    true => answer_to_inquiry(&mut dht, from, noise),
                    false => answer(&mut dht, (from, at), noise),
                };
                let said = state.read(&answer.unwrap()).unwrap();
                let said = NoisePayload::decode(&said).unwrap();
                assert_eq!(said.addresses4.len() <= 3, little, "{:?}", said.addresses4);
                assert_eq!(said.relay_addresses.is_none(), little || !open);
                assert_eq!(said.relay.is_none(), little && !roomy);
                assert_eq!(said.firewall == Firewall::Open, open);
                assert_eq!(said.addresses4.contains(&OWN), open);
            }
        }
    }
}

/// Any node may say that it sees the client of a handshake somewhere.
#[test]
fn a_client_that_is_open_is_written_to_where_it_says_that_it_is_and_nowhere_else() {
    let (relay, own, victim) = (addr(70, 1), addr(60, 1), addr(61, 1));
    let other_port = SocketAddrV4::new(*own.ip(), 1);
    let mut n = 0;
    for open in [true, false] {
        let mut dht = node(open);
        for (seen, to) in [(own, Some(own)), (other_port, Some(own)), (victim, None)] {
            for firewall in [Firewall::Open, Firewall::Consistent] {
                n += 1;
                let says = vec![addr(62, 1), own];
                let noise = client(n, firewall, says).1;
                let answered = answer(&mut dht, (relay, Some(seen)), noise).is_some();
                let made = std::iter::from_fn(|| dht.poll_event()).find_map(|event| match event {
                    DhtEvent::Incoming { agreed, .. } => Some(agreed.dial.map(|dial| dial.to)),
                    _ => None,
                });
                match firewall {
                    Firewall::Open => assert_eq!(made, to.map(|to| Some(to.into()))),
                    _ => assert_eq!(made, Some(None)),
                }
                assert_eq!(answered, made.is_some());
            }
        }
    }
}

/// One handshake, again and again, in the name of a victim or of many: an answer for each copy that came from there, and
/// few streams.
#[test]
fn copies_of_a_handshake_are_no_lever() {
    for open in [true, false] {
        let (mut dht, now, noise) = (node(open), start(), noise(1, addr(60, 1)));
        let handshake = inquiry::Message::Handshake { nonce: [1; 16], target: server(), noise };
        let len = handshake.encode().len() + HEADERS;
        let (mut came, mut went, mut streams) = (0, 0, 0);
        for n in 0..10_000 {
            let from = addr(60, if n < 5000 { 1 } else { n });
            dht.handle_direct(from.into(), &handshake, now);
            came += len;
            went += sent(&mut dht).values().sum::<usize>();
            let made = std::iter::from_fn(|| dht.poll_event());
            streams += made.filter(|event| matches!(event, DhtEvent::Incoming { .. })).count();
        }
        println!("{streams} streams, {went} bytes for {came}");
        assert!((1..=4).contains(&streams) && went < 2 * came, "{streams}, {went} of {came}");
    }
}

/// Whoever can be reached at `from` has a token of the node.
fn token(dht: &mut HyperDht, from: SocketAddrV4, now: Instant) -> [u8; 32] {
    let request = request(command::LOOKUP, NodeId([1; 32]), None);
    dht.handle_datagram(SocketId::MAIN, from, &request.encode(), now);
    let answers = std::iter::from_fn(|| dht.poll_transmit()).filter(|t| t.to == from);
    let tokens = answers.filter_map(|t| match Message::decode(&t.bytes) {
        Ok(Message::Response(Response { token, .. })) => token,
        _ => None,
    });
    tokens.last().expect("a token")
}

fn announcement(key_pair: &KeyPair, target: NodeId, token: [u8; 32]) -> Request {
    let place = Place { target: &target, node: &node_id(OWN), token: &token };
    let public_key = PublicKey(key_pair.public());
    let record = PeerRecord { public_key, relay_addresses: vec![addr(1, 1); 3] };
    let value = Some(place.announce(record, key_pair).encode());
    Request { token: Some(token), ..request(command::ANNOUNCE, target, value) }
}

/// Keys that a lookup shows.
fn found(dht: &mut HyperDht, target: NodeId, now: Instant) -> Vec<PublicKey> {
    sent(dht);
    let from = addr(90, 1);
    dht.handle_datagram(
        SocketId::MAIN,
        from,
        &request(command::LOOKUP, target, None).encode(),
        now,
    );
    let answers = std::iter::from_fn(|| dht.poll_transmit()).filter(|t| t.to == from);
    let values = answers.filter_map(|t| match Message::decode(&t.bytes) {
        Ok(Message::Response(Response { value, .. })) => value,
        _ => None,
    });
    let replies = values.map(|value| LookupReply::decode(&value).unwrap());
    replies.flat_map(|reply| reply.peers).map(|peer| peer.public_key).collect()
}

/// A host has its share of what is held, and nobody is kept out by it.
#[test]
fn a_flood_of_announcements_has_bounds_and_others_are_stored_beside_it() {
    const OF_TOPIC: u32 = 64;
    let (mut dht, mut now) = (node(true), start());
    let mut flood = (addr(60, 1), token(&mut dht, addr(60, 1), now));
    let before = dht.records();
    for n in 0..16_000u32 {
        if n % 200 == 199 {
            now += Duration::from_secs(4);
            dht.handle_timeout(now);
            flood.1 = token(&mut dht, flood.0, now);
        }
        let key_pair = KeyPair::from_seed(&hash::hash(&[&n.to_le_bytes()]));
        let target = NodeId(hash::hash(&[&(n / OF_TOPIC).to_le_bytes()]));
        ask(&mut dht, flood.0, &announcement(&key_pair, target, flood.1), now);
        sent(&mut dht);
    }
    // Those of a topic are counted as one.
    let stored = (dht.records() - before) * OF_TOPIC as usize;
    println!("{stored} of one host");
    assert!((5000..12_000).contains(&stored), "{stored}");
    let honest = (addr(61, 1), token(&mut dht, addr(61, 1), now));
    let (key, target) = (PublicKey(pair(50).public()), NodeId([3; 32]));
    ask(&mut dht, honest.0, &announcement(&pair(50), target, honest.1), now);
    assert_eq!(found(&mut dht, target, now), [key]);
}

/// A token that is another's, invented, or from too long ago; and an announcement that was made for another node.
#[test]
fn with_a_forged_token_nothing_is_stored() {
    let (mut dht, now) = (node(true), start());
    let (here, elsewhere) = (addr(60, 1), addr(61, 1));
    let token = token(&mut dht, here, now);
    let (key, target) = (PublicKey(pair(50).public()), NodeId([3; 32]));
    for (from, token) in [(elsewhere, token), (here, [9; 32])] {
        ask(&mut dht, from, &announcement(&pair(50), target, token), now);
        assert_eq!(found(&mut dht, target, now), []);
    }
    let place = Place { target: &target, node: &node_id(elsewhere), token: &token };
    let record = PeerRecord { public_key: key, relay_addresses: vec![] };
    let value = Some(place.announce(record, &pair(50)).encode());
    let foreign = Request { token: Some(token), ..request(command::ANNOUNCE, target, value) };
    ask(&mut dht, here, &foreign, now);
    assert_eq!(found(&mut dht, target, now), []);
    let late = now + Duration::from_secs(60);
    // The secrets turn over, one after the other.
    for seconds in 0..60 {
        dht.handle_timeout(now + Duration::from_secs(seconds));
    }
    ask(&mut dht, here, &announcement(&pair(50), target, token), late);
    assert_eq!(found(&mut dht, target, late), []);
    sent(&mut dht);
    let token = self::token(&mut dht, here, late);
    ask(&mut dht, here, &announcement(&pair(50), target, token), late);
    assert_eq!(found(&mut dht, target, late), [key]);
}

/// Values and records that are larger than any honest one.
#[test]
fn what_is_oversized_is_not_stored_or_cut() {
    let (mut dht, now) = (node(true), start());
    let (from, before) = (addr(60, 1), dht.records());
    let token = token(&mut dht, from, now);
    for (len, stored) in [(1025, false), (1200, false), (40_000, false), (1024, true)] {
        let value = vec![7; len];
        let put = request(command::IMMUTABLE_PUT, NodeId(hash::hash(&[&value])), Some(value));
        ask(&mut dht, from, &Request { token: Some(token), ..put }, now);
        assert_eq!(dht.records() > before, stored, "{len}");
    }
    let before = dht.records();
    // Of a thousand relays three are kept, or the record is none.
    let target = NodeId([3; 32]);
    let place = Place { target: &target, node: &node_id(OWN), token: &token };
    let relay_addresses = (0..1000).map(|n| addr(1, n)).collect();
    let record = PeerRecord { public_key: PublicKey(pair(50).public()), relay_addresses };
    let value = Some(place.announce(record, &pair(50)).encode());
    let put = Request { token: Some(token), ..request(command::ANNOUNCE, target, value) };
    ask(&mut dht, from, &put, now);
    sent(&mut dht);
    assert!(dht.records() <= before + 1);
    let look = request(command::LOOKUP, target, None);
    dht.handle_datagram(SocketId::MAIN, addr(61, 1), &look.encode(), now);
    while let Some(transmit) = dht.poll_transmit() {
        assert!(transmit.bytes.len() <= 1400, "{}", transmit.bytes.len());
    }
}

/// Lookups and pings in the name of a victim: a named budget, whatever comes.
#[test]
fn who_is_looked_up_for_by_others_gets_a_named_budget() {
    let (mut dht, victim) = (node(true), addr(60, 1));
    let mut went = 0;
    for ms in (0..10_000).step_by(5) {
        let now = start() + Duration::from_millis(ms);
        let ping =
            Request { internal: true, ..request(internal::FIND_NODE, NodeId([3; 32]), None) };
        for request in [
            ping,
            request(command::LOOKUP, NodeId([1; 32]), None),
            request(command::FIND_PEER, server(), None),
        ] {
            ask(&mut dht, victim, &request, now);
        }
        went += sent(&mut dht).get(victim.ip()).copied().unwrap_or(0);
    }
    // 24 KiB, then 4 KiB a second, and what surrounds that on the way.
    println!("{went}");
    assert!((30_000..160_000).contains(&went), "{went}");
}
