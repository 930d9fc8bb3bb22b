//! Networks that find each other by topic on a private DHT, over real sockets on loopback.
#![allow(clippy::disallowed_methods, reason = "real sockets, real time")]

mod common;
mod interop;
#[path = "../common/reference.rs"]
mod reference;

use common::{Peer, Testnet};
use hdrive::key::Topic;
use hdrive::swarm::{Closed, ConnId, JoinOptions, SwarmEvent};

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };

/// A sharing and a mounting peer, connected.
async fn pair(testnet: &Testnet) -> ((Peer, ConnId), (Peer, ConnId)) {
    let (mut a, mut b) = (testnet.peer(), testnet.peer());
    a.net.join(TOPIC, SERVER);
    a.until(|event| matches!(event, SwarmEvent::Round { announced: true, .. }).then_some(())).await;
    b.net.join(TOPIC, CLIENT);
    let (at_a, at_b) = tokio::join!(a.connected(), b.connected());
    ((a, at_a), (b, at_b))
}

#[tokio::test]
async fn peers_of_a_topic_exchange_frames() {
    let testnet = Testnet::start(4).await;
    let ((mut a, at_a), (mut b, at_b)) = pair(&testnet).await;
    for len in [1, 100, 5000, 65_536, 1 << 20, 3 << 20] {
        let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        a.send(at_a, &data);
        assert!(b.frame(at_b).await == data, "{len} bytes to b");
        b.send(at_b, &data);
        assert!(a.frame(at_a).await == data, "{len} bytes to a");
    }
}

#[tokio::test]
async fn many_frames_arrive_in_order_and_all() {
    let testnet = Testnet::start(4).await;
    let ((a, at_a), (mut b, at_b)) = pair(&testnet).await;
    for i in 0..5000u32 {
        a.send(at_a, &vec![i as u8; (i % 3000) as usize + 1]);
    }
    for i in 0..5000u32 {
        assert!(b.frame(at_b).await == vec![i as u8; (i % 3000) as usize + 1], "frame {i}");
    }
}

#[tokio::test]
async fn a_peer_that_looks_before_the_other_announces_connects_soon() {
    let testnet = Testnet::start(4).await;
    let (mut a, mut b) = (testnet.peer(), testnet.peer());
    b.net.join(TOPIC, CLIENT);
    b.until(|event| matches!(event, SwarmEvent::Round { .. }).then_some(())).await;
    a.net.join(TOPIC, SERVER);
    tokio::join!(a.connected(), b.connected());
}

#[tokio::test]
async fn closing_delivers_what_was_sent_and_tells_the_peer() {
    let testnet = Testnet::start(4).await;
    let ((a, at_a), (mut b, at_b)) = pair(&testnet).await;
    a.send(at_a, &[1; 300_000]);
    a.net.close(at_a);
    assert_eq!(b.frame(at_b).await.len(), 300_000);
    let why = b.until(|event| match event {
        SwarmEvent::Closed { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!(why.await, Closed::RemoteEnded);
    assert_eq!(a.send(at_a, b"late"), 0);
}

#[tokio::test]
async fn a_lost_connection_comes_back() {
    let testnet = Testnet::start(4).await;
    let ((mut a, at_a), (mut b, _)) = pair(&testnet).await;
    a.net.close(at_a);
    let (at_a, at_b) = tokio::join!(a.connected(), b.connected());
    a.send(at_a, b"again");
    assert_eq!(b.frame(at_b).await, b"again");
}

#[tokio::test]
async fn two_peers_that_both_look_and_announce_keep_one_connection() {
    let testnet = Testnet::start(4).await;
    let both = JoinOptions { server: true, client: true };
    let (mut a, mut b) = (testnet.peer(), testnet.peer());
    a.net.join(TOPIC, both);
    b.net.join(TOPIC, both);
    for peer in [&mut a, &mut b] {
        // Every dial is over.
        let settled = |event: &SwarmEvent| {
            matches!(event, SwarmEvent::Settled { connected: 1.., .. }).then_some(())
        };
        peer.until(settled).await;
    }
    for peer in [&a, &b] {
        let status = peer.net.status().await.unwrap();
        let open = status.connections.iter().filter(|c| c.open).count();
        assert_eq!(open, 1, "{status:?}");
    }
}

#[tokio::test]
async fn a_stopped_network_ends_its_channel_and_its_announcement() {
    let testnet = Testnet::start(4).await;
    let ((a, _), (mut b, _)) = pair(&testnet).await;
    a.net.stop();
    b.until(|event| matches!(event, SwarmEvent::Closed { .. }).then_some(())).await;
    a.stopped().await;
    let mut c = testnet.peer();
    c.net.join(TOPIC, CLIENT);
    let found = c.until(|event| match event {
        SwarmEvent::Round { found, .. } => Some(*found),
        _ => None,
    });
    assert_eq!(found.await, 0);
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
    let config = hdrive::swarm::driver::NetworkConfig {
        key_pair: hdrive::crypto::KeyPair::generate(),
        bind: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
        bootstrap: vec![],
        persistent: true,
        address: None,
        limits: hdrive::swarm::Limits::default(),
        relays: Vec::new(),
        lan: false,
    };
    let (net, _events) = hdrive::swarm::driver::Network::start(config).unwrap();
    let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    asker.set_read_timeout(Some(common::PATIENCE)).unwrap();
    for last in [1, 2, 3] {
        let asked = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), net.local_addr().port());
        // A dht-rpc PING: request, internal, its number, whom it is for, command 0.
        let mut ping = vec![0x03, 4, last, 0, 127, 0, 0, last];
        ping.extend(asked.port().to_le_bytes());
        ping.push(0);
        asker.send_to(&ping, asked).unwrap();
        let mut buf = [0; 500];
        let (_, from) = asker.recv_from(&mut buf).expect("an answer");
        assert_eq!((from, buf[0], buf[2]), (asked.into(), 0x13, last));
    }
}
