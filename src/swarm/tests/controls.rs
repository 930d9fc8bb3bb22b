//! Who wants many ways to relays, and who needs one.

use super::super::control_room::{MAX_CONTROLS, Share};
use super::super::*;
use super::relaying::{CLIENT, Lab, SERVER, TOPIC};
use super::sim::Peer;
use crate::sim::{Kind, Realm};
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::time::Duration;

/// More than there is room for.
const MANY: u16 = 40;

/// A swarm at a host of many.
fn one_of(lab: &mut Lab, (realm, ip): (Realm, Ipv4Addr), n: u16, relays: Vec<PublicKey>) -> usize {
    let i = lab.network.machines.len();
    let inner = SocketAddrV4::new(ip, 4000 + n);
    let config =
        SwarmConfig { local_addresses: vec![inner], relays, ..lab.network.config(i, false) };
    let peer = Peer::new(config, 77 << 8 | i as u64, lab.network.now);
    lab.network.add_in(realm, inner, peer)
}

/// Relays of one host, and strangers behind one NAT of whom each names another of them.
fn strangers(lab: &mut Lab, role: JoinOptions) -> Vec<usize> {
    let host = lab.network.place(Kind::Open, 60);
    let pairs: Vec<_> =
        (0..MANY).map(|n| Arc::new(KeyPair::from_seed(&[100 + n as u8; 32]))).collect();
    for (n, pair) in (0..).zip(&pairs) {
        let i = one_of(lab, host, n, vec![]);
        let relay = Some((pair.clone(), RelayLimits::default()));
        lab.network.on(i, |peer, now| peer.swarm.set_relay(relay, now));
    }
    lab.network.run(Duration::from_secs(10));
    let home = lab.network.place(Kind::Sym, 50);
    let one = |(n, pair): (u16, &Arc<KeyPair>)| {
        let i = one_of(lab, home, n, vec![PublicKey(pair.public())]);
        lab.network.join(i, TOPIC, role);
        i
    };
    (0..).zip(&pairs).map(one).collect()
}

/// Each says something to all whom it is connected with.
fn chat(lab: &mut Lab, all: &[usize]) {
    for &i in all {
        for conn in lab.network.open(i) {
            lab.network.send_frame(i, conn, b"hello");
        }
    }
}

fn controls(lab: &Lab, i: usize) -> usize {
    lab.network.machines[i].swarm.controls.ours()
}

#[test]
fn there_are_no_more_ways_to_relays_than_may_be() {
    let mut lab = Lab::new(4, 0.0);
    lab.network.on(lab.relay, |peer, now| {
        for n in 0..u8::try_from(MANY).unwrap() {
            let client = Share::Client(Ipv4Addr::new(70, 0, 0, n).into());
            peer.swarm.control_to(PublicKey([n; 32]), vec![], client, now);
        }
    });
    assert_eq!(controls(&lab, lab.relay), MAX_CONTROLS);
}

#[test]
fn strangers_who_name_many_relays_keep_no_reader_from_a_sharer() {
    for talk in [false, true] {
        let mut lab = Lab::new(4, 0.0);
        let a = lab.sharer(Kind::Sym, vec![]);
        let all = strangers(&mut lab, CLIENT);
        for _ in 0..6 {
            lab.network.run(Duration::from_secs(1));
            if talk {
                chat(&mut lab, &all);
            }
        }
        // One host, of whose clients all are: the last quarter is for others.
        assert!(controls(&lab, a) == 24, "{}", controls(&lab, a));
        let b = lab.reader(Kind::Sym, vec![lab.key]);
        let took = lab.meet(a, b, Duration::from_secs(20));
        println!("{talk}: {took:?}, {}", controls(&lab, a));
        assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "{took:?}");
    }
}

#[test]
fn keys_of_a_topic_that_name_many_relays_keep_no_reader_from_its_sharer() {
    for talk in [false, true] {
        let mut lab = Lab::new(4, 0.0);
        let all = strangers(&mut lab, SERVER);
        lab.network.run(Duration::from_secs(10));
        let b = lab.reader(Kind::Sym, vec![]);
        for _ in 0..10 {
            lab.network.run(Duration::from_secs(1));
            if talk {
                chat(&mut lab, &all);
            }
        }
        assert!(controls(&lab, b) >= 24, "{}", controls(&lab, b));
        let a = lab.sharer(Kind::Sym, vec![lab.key]);
        let key = lab.network.key(a);
        lab.network.on(b, |peer, now| peer.swarm.connect_peer(key, now));
        let took = lab.meet(a, b, Duration::from_secs(20));
        println!("{talk}: {took:?}, {}", controls(&lab, b));
        assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "{took:?}");
    }
}
