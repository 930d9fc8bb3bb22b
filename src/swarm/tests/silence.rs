//! Nodes that fall silent: what that makes an idle peer send has bounds, whoever they are.

use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Datagram, LinkConfig};
use crate::swarm::dht_rpc::message::{Request, internal};
use crate::swarm::dht_rpc::node_id;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const TOPICS: u8 = 20;

/// Of one host.
fn silent_one(n: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(70, 0, 0, 1), 1000 + n)
}

/// Eight nodes, and so many more of one host that answered.
fn town(silent: u16) -> (Network, Vec<usize>) {
    let pattern = LinkConfig { latency: SECOND / 50, ..LinkConfig::default() };
    let mut network = Network::of_nodes(8, 5, pattern, SECOND);
    let add = |n: u16| {
        let i = network.machines.len();
        let (address, local_addresses) = (Some(silent_one(n)), vec![silent_one(n)]);
        let config = SwarmConfig { address, local_addresses, ..network.config(i, true) };
        let peer = Peer::new(config, 99 << 8 | i as u64, network.now);
        let i = network.add(silent_one(n), peer);
        network.run(SECOND / 10);
        i
    };
    let bad = (0..silent).map(add).collect();
    network.run(5 * SECOND);
    (network, bad)
}

/// A peer that shares and reads some drives, settled.
fn idle_peer(network: &mut Network, client: bool) -> usize {
    let peer = network.begin(false);
    network.run(2 * SECOND);
    for n in 0..TOPICS {
        let options = JoinOptions { server: true, client };
        network.join(peer, Topic([100 + n; 32]), options);
    }
    network.run(60 * SECOND);
    peer
}

fn rounds(network: &Network, i: usize) -> u64 {
    network.machines[i].swarm.status().topics.iter().map(|topic| topic.rounds).sum()
}

#[test]
fn many_nodes_of_one_host_that_fall_silent_and_go_on_asking_make_nobody_look_anew() {
    // The second has so many that we are announced at some of them, and find ourselves forgotten now and then.
    for (silent, most) in [(10, 100), (20, 220)] {
        let (mut network, bad) = town(silent);
        let peer = idle_peer(&mut network, true);
        bad.iter().for_each(|bad| network.down(*bad));
        let (before, looked) = (network.datagrams_of(peer), rounds(&network, peer));
        let to = network.addr(peer);
        for _ in 0..60 {
            network.run(10 * SECOND);
            for n in 0..silent {
                let id = Some(node_id(silent_one(n)));
                let (internal, command) = (true, internal::PING);
                let (token, target, value) = (None, None, None);
                let ask = Request { tid: n, to, id, token, internal, command, target, value };
                network.send(Datagram::new(silent_one(n), to, ask.encode()));
            }
        }
        // With no such node there are 50 rounds, and 900 datagrams both ways.
        let (looked, sent) = (rounds(&network, peer) - looked, network.datagrams_of(peer) - before);
        println!("{silent}: {looked} rounds, {sent} datagrams");
        assert!(looked < most, "{silent}: {looked} rounds");
        assert!(sent < 9000, "{silent}: {sent} datagrams in 10 min");
    }
}

#[test]
fn a_network_that_comes_and_goes_makes_nobody_look_each_time() {
    let (mut network, _) = town(0);
    let peer = idle_peer(&mut network, false);
    let looked = rounds(&network, peer);
    for n in 0..90 {
        // Where nobody is known at all that is seen at once.
        network.on(peer, |peer, now| peer.swarm.handle_dht(DhtEvent::Met, now));
        network.run((5 + n % 3) * SECOND);
    }
    let looked = (rounds(&network, peer) - looked) / u64::from(TOPICS);
    assert!((7..20).contains(&looked), "{looked} looks in 9 min");
}

#[test]
fn addresses_that_come_and_go_make_nobody_look_each_time() {
    for (every, way_out) in [(2, true), (2, false)] {
        let (mut network, _) = town(0);
        let peer = idle_peer(&mut network, false);
        let (looked, before) = (rounds(&network, peer), network.datagrams_of(peer));
        let own = network.addr(peer);
        for n in 0..60u32 {
            let other = SocketAddrV4::new([172, 17, 0, 1].into(), 4000);
            let all = if n % 2 == 0 { vec![own, other] } else { vec![own] };
            network.on(peer, |peer, now| match way_out {
                true => _ = peer.swarm.network_changed(all, now),
                false => peer.swarm.set_local_addresses(all, now),
            });
            network.run(every * SECOND);
        }
        let looked = (rounds(&network, peer) - looked) / u64::from(TOPICS);
        let sent = network.datagrams_of(peer) - before;
        println!("way out {way_out}: {looked} looks, {sent} datagrams in 2 min");
        match way_out {
            // At 0, 2, 6, 14, 30, 62 s.
            true => assert!((5..8).contains(&looked) && sent < 12_000, "{looked}, {sent}"),
            false => assert!(looked == 0 && sent < 1000, "{looked}, {sent}"),
        }
    }
}
