//! Peers at addresses that we were told, where there is no DHT.

use super::*;
use crate::key::Topic;
use crate::sim::LinkConfig;

const TOPIC: Topic = Topic([7; 32]);
const SERVE: JoinOptions = JoinOptions { server: true, client: true };
const READ: JoinOptions = JoinOptions { server: false, client: true };
const SECOND: Duration = Duration::from_secs(1);

/// Swarm 1 serves the topic, swarm 0 was told of `addr` and looks for it.
fn world(addr: std::net::SocketAddrV4) -> Network {
    let mut world = Network::two();
    world.join(1, TOPIC, SERVE);
    world.on(0, |peer, now| peer.swarm.tell([addr.into()], now));
    world.join(0, TOPIC, READ);
    world
}

#[test]
fn a_peer_is_reached_at_an_address_that_was_told_without_any_dht() {
    let mut world = world(sim::port(1));
    let took = world.run_until(SECOND, |world| !world.connected(1).is_empty());
    // An inquiry, a handshake and the first packets: 10 ms each, there and back.
    assert!(took.is_some_and(|took| took <= Duration::from_millis(40)), "{took:?}");
    world.run(SECOND);
    let [(conn, true)] = world.connected(0)[..] else { panic!("{:?}", world.connected(0)) };
    world.send_frame(0, conn, b"hello");
    world.run(SECOND);
    assert_eq!(world.frames(1), [b"hello".to_vec()]);
    let topics = world.machines[0].events.iter().find_map(|event| match event {
        SwarmEvent::Connected { topics, .. } => Some(topics.clone()),
        _ => None,
    });
    assert_eq!(topics, Some(vec![TOPIC]));
    // Nobody is asked any more: an hour costs what keeps the connection.
    world.run(60 * SECOND);
    assert_eq!(world.connected(0).len(), 1);
}

#[test]
fn who_is_connected_is_asked_for_one_more_topic() {
    let mut world = world(sim::port(1));
    assert!(world.run_until(SECOND, |world| !world.connected(0).is_empty()).is_some());
    let other = Topic([8; 32]);
    world.join(1, other, SERVE);
    world.run(SECOND);
    world.join(0, other, READ);
    let is = |e: &SwarmEvent| matches!(e, SwarmEvent::Met { topic, .. } if *topic == other);
    let met = |world: &Network| world.machines[0].events.iter().any(is);
    assert!(world.run_until(SECOND, met).is_some());
}

#[test]
fn whatever_gets_lost_is_sent_again() {
    let mut world = world(sim::port(1));
    world.every_link(|link| link.loss = 0.3);
    assert!(world.run_until(60 * SECOND, |world| !world.connected(1).is_empty()).is_some());
}

#[test]
fn who_comes_later_or_begins_anew_under_another_key_is_found() {
    let mut world = world(sim::port(1));
    world.down(1);
    world.run(100 * SECOND);
    assert_eq!(world.connected(0), []);
    world.up(1);
    assert!(world.run_until(35 * SECOND, |world| !world.connected(0).is_empty()).is_some());
    let config = SwarmConfig {
        key_pair: KeyPair::from_seed(&[99; 32]),
        bootstrap: vec![],
        ..world.config(1, false)
    };
    let mut peer = sim::Peer::new(config, 99, world.now);
    peer.swarm.join(TOPIC, SERVE, world.now);
    world.replace(1, peer);
    assert!(world.run_until(60 * SECOND, |world| world.connected(0).len() == 2).is_some());
}

#[test]
fn whoever_waits_for_a_first_peer_waits_for_the_answer_and_not_for_ever() {
    let settled = |world: &Network| {
        let settled = |event: &SwarmEvent| matches!(event, SwarmEvent::Settled { .. });
        world.machines[0].events.iter().any(settled)
    };
    let mut found = world(sim::port(1));
    let connected = found.run_until(10 * SECOND, settled).map(|_| found.connected(0).len());
    assert_eq!(connected, Some(1));
    let mut nobody = world(sim::port(1));
    nobody.cut(true);
    let took = nobody.run_until(10 * SECOND, settled);
    assert!(took.is_some_and(|took| took >= 3 * SECOND), "{took:?}");
    let status = nobody.machines[0].swarm.status();
    assert_eq!(status.reachability[&TOPIC].silent, [sim::port(1).into()]);
}

/// Who answers in the place of another needs his key to go on.
#[test]
fn a_lie_about_who_is_there_leads_nowhere() {
    let mut world = world(sim::port(1));
    let forged = PublicKey(KeyPair::from_seed(&[55; 32]).public());
    let topic = TOPIC;
    world.tap = Some(Box::new(move |datagram| {
        use crate::swarm::inquiry::{Message, Reply};
        if let Some(Message::Reply(reply)) = Message::decode(&datagram.bytes) {
            datagram.bytes = Message::Reply(Reply::new(&topic, reply.nonce, &forged)).encode();
        }
        true
    }));
    world.run(120 * SECOND);
    assert_eq!((world.connected(0), world.connected(1)), (vec![], vec![]));
    assert!(world.datagrams < 200, "{}", world.datagrams);
    world.tap = None;
    assert!(world.run_until(60 * SECOND, |world| !world.connected(0).is_empty()).is_some());
}

#[test]
fn a_banned_peer_is_not_answered_and_a_handshake_is_not_a_lever() {
    let mut world = world(sim::port(1));
    let (reader, now) = (world.key(0), world.now);
    world.machines[1].swarm.ban(reader, now + 600 * SECOND, now);
    let (mut asked, mut answered) = (0, 0);
    let (sent, got) = (
        std::rc::Rc::new(std::cell::RefCell::new(0)),
        std::rc::Rc::new(std::cell::RefCell::new(0)),
    );
    let (to_1, to_0) = (sent.clone(), got.clone());
    world.tap = Some(Box::new(move |datagram| {
        let sum = if datagram.to == sim::port(1) { &to_1 } else { &to_0 };
        *sum.borrow_mut() += datagram.bytes.len();
        true
    }));
    world.run(30 * SECOND);
    asked += *sent.borrow();
    answered += *got.borrow();
    assert_eq!(world.connected(1), []);
    assert!(asked > 0 && answered < asked, "{answered} of {asked}");
}

#[test]
fn who_shook_hands_from_a_forged_address_makes_us_send_little_there() {
    let mut world = world(sim::port(1));
    let (victim, sum) = (sim::port(0), std::rc::Rc::new(std::cell::RefCell::new((0, 0))));
    let counts = sum.clone();
    // All that the victim would get is lost: he never asked.
    world.tap = Some(Box::new(move |datagram| {
        let mut sums = counts.borrow_mut();
        if datagram.to == victim && datagram.bytes.first() != Some(&b'H') {
            sums.0 += datagram.bytes.len();
            return false;
        }
        if datagram.to == victim {
            sums.0 += datagram.bytes.len();
        } else {
            sums.1 += datagram.bytes.len();
        }
        true
    }));
    world.run(5 * SECOND);
    let (to_victim, by_attacker) = *sum.borrow();
    assert!(by_attacker > 0 && to_victim <= 3 * by_attacker, "{to_victim} for {by_attacker}");
}

/// A reader of a drive that is there, in a network of eight nodes, and what its key says.
fn hinted(nodes: Vec<std::net::SocketAddrV4>) -> (Network, usize) {
    let pattern = LinkConfig { latency: Duration::from_millis(20), ..LinkConfig::default() };
    let mut world = Network::of_nodes(8, 3, pattern, 5 * SECOND);
    world.join(1, TOPIC, SERVE);
    world.run(20 * SECOND);
    let reader = world.begin(false);
    world.run(5 * SECOND);
    world.on(reader, |peer, now| peer.swarm.hint(TOPIC, nodes, now));
    world.join(reader, TOPIC, READ);
    (world, reader)
}

#[test]
fn dead_nodes_in_a_key_do_not_have_its_readers_ask_without_end() {
    for hosts in [1, 16] {
        let dead = |n: u8| {
            std::net::SocketAddrV4::new([90, 0, 0, 1 + n % hosts].into(), 50 + u16::from(n))
        };
        let cost = |nodes: Vec<_>| {
            let (mut world, reader) = hinted(nodes);
            world.run(60 * SECOND);
            assert!(!world.connected(reader).is_empty());
            let before = world.datagrams_of(reader);
            world.run(3600 * SECOND);
            world.datagrams_of(reader) - before
        };
        let (without, with) = (cost(vec![]), cost((0..16).map(dead).collect()));
        // At most eight addresses: an inquiry each in two minutes, and what the DHT asks there when it looks around.
        assert!(with < without + 8 * 250, "{hosts} hosts: {with} datagrams, without {without}");
    }
}

#[test]
fn whom_a_person_named_is_asked_whatever_keys_say() {
    let mut world = world(sim::port(1));
    world.down(1);
    for n in 0..60u8 {
        let nodes = (0..5).map(|m| std::net::SocketAddrV4::new([90, n, m, 1].into(), 5000));
        let (topic, nodes) = (Topic([50 + n; 32]), nodes.collect());
        world.on(0, |peer, now| peer.swarm.hint(topic, nodes, now));
        world.join(0, topic, READ);
    }
    world.run(60 * SECOND);
    world.up(1);
    let took = world.run_until(60 * SECOND, |world| !world.connected(0).is_empty());
    assert!(took.is_some(), "the peer that was named by hand is found");
}

#[test]
fn dead_addresses_of_a_key_are_left_alone_where_no_node_answers() {
    let pattern = LinkConfig { latency: SECOND / 50, ..LinkConfig::default() };
    let mut world = Network::of_nodes(8, 3, pattern, SECOND);
    world.run(10 * SECOND);
    (0..8).for_each(|i| world.down(i));
    let reader = world.begin(false);
    world.run(5 * SECOND);
    let dead = |n: u8| std::net::SocketAddrV4::new([90, 0, 0, n].into(), 50);
    let sum = std::rc::Rc::new(std::cell::Cell::new(0usize));
    let count = sum.clone();
    world.tap = Some(Box::new(move |datagram| {
        count.set(count.get() + usize::from(datagram.to.ip().octets()[0] == 90));
        true
    }));
    world.on(reader, |peer, now| peer.swarm.hint(TOPIC, (0..8).map(dead).collect(), now));
    world.join(reader, TOPIC, READ);
    let mut after = Vec::new();
    for minutes in [10, 60] {
        let before = sum.get();
        world.run(60 * minutes * SECOND);
        after.push(sum.get() - before);
    }
    // Less than one datagram a minute to each, once it is clear that nobody is there.
    println!("{after:?}");
    assert!(after[0] < 1000 && after[1] < 60 * 8 * 3, "{after:?}");
    // Whoever comes to life there is found.
    world.up(0);
    let met = |w: &Network| w.machines[reader].swarm.status().nodes > 0;
    assert!(world.run_until(60 * SECOND, met).is_some());
}

#[test]
fn a_key_that_names_many_ports_of_one_host_has_few_of_them_asked() {
    use std::{cell::RefCell, collections::BTreeSet, rc::Rc};
    let mut world = Network::two();
    let ports = Rc::new(RefCell::new(BTreeSet::new()));
    let seen = ports.clone();
    world.tap = Some(Box::new(move |datagram| {
        if datagram.to.ip().octets()[0] == 90 {
            seen.borrow_mut().insert(datagram.to.port());
        }
        true
    }));
    let nodes = (1..9).map(|port| std::net::SocketAddrV4::new([90, 0, 0, 1].into(), port));
    let nodes = nodes.collect();
    world.on(0, |peer, now| peer.swarm.hint(TOPIC, nodes, now));
    world.join(0, TOPIC, READ);
    world.run(60 * SECOND);
    assert_eq!(ports.borrow().len(), 4);
}

/// A machine without any network, whose only address everybody else has as well.
#[test]
fn nobody_is_sent_to_his_own_machine_by_a_hint_unless_the_whole_network_is_on_one() {
    let mut world = Network::two();
    let local: std::net::SocketAddrV4 = "127.0.0.1:5".parse().unwrap();
    let node = |text: &str| vec![text.parse().unwrap()];
    for (nodes, hinted) in [(node("20.0.0.1:5"), vec![]), (node("127.0.0.1:9"), vec![local])] {
        let config = SwarmConfig {
            bootstrap: nodes,
            local_addresses: vec![local],
            ..world.config(0, false)
        };
        world.replace(0, sim::Peer::new(config, 1, world.now));
        assert_eq!(world.machines[0].swarm.hints(&TOPIC), hinted);
    }
}
