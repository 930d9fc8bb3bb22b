//! Who comes to a relay that many want to be customers of.

use super::super::connections::{Connection, Phase, TIME_TO_ANSWER};
use super::super::hyperdht::{Agreed, Relays};
use super::super::relay::messages::Pair;
use super::super::relay::server::PENDING_WAIT;
use super::super::seats::{MAX_CUSTOMERS, MAX_PER_HOST};
use super::super::secret_stream::noise::SessionKeys;
use super::super::*;
use super::relaying::{Lab, TOPIC};
use crate::crypto::hash;
use crate::sim::Kind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

fn key(n: u32) -> PublicKey {
    PublicKey(hash::hash(&[&n.to_le_bytes()]))
}

fn v4(n: usize) -> IpAddr {
    Ipv4Addr::new(70, 0, (n >> 8) as u8, n as u8).into()
}

/// Somebody who has come from a host, and the stream if there is a seat.
fn come(swarm: &mut Swarm, host: IpAddr, key: PublicKey, now: Instant) -> Option<u32> {
    let stream = swarm.udx.open(None).unwrap();
    let id = swarm.connections.name(stream);
    let mut customer = Connection::new(id, key, false, Phase::Open, now);
    (customer.addr, customer.proven, customer.has_read) = (Some((host, 4000).into()), true, true);
    swarm.controls.insert(customer);
    let keys =
        SessionKeys { tx: [1; 32], rx: [2; 32], hash: [3; 64], remote: key, initiator: false };
    let (local_id, remote_id, relays) = (stream, 1, Relays::default());
    let agreed = Agreed { keys, local_id, remote_id, dial: None, big_datagrams: false, relays };
    swarm.set_session(stream, agreed);
    let seated = swarm.customer_open(stream, now);
    if !seated {
        swarm.end_control(stream, "no seat", now);
    }
    seated.then_some(stream)
}

/// It asks for the other half of a token.
fn ask(swarm: &mut Swarm, stream: u32, token: u32, initiator: bool, now: Instant) {
    let token = hash::hash(&[b"token", &token.to_le_bytes()]);
    swarm.customer_pairs(stream, Pair { initiator, token, id: 1, seq: 0 }, now);
}

fn seated(swarm: &Swarm) -> usize {
    swarm.controls.customers().filter(|c| c.is_open()).count()
}

#[test]
fn a_few_hosts_who_take_all_seats_keep_nobody_out() {
    for among_themselves in [false, true] {
        let mut lab = Lab::new(5, 0.0);
        let relay = lab.relay;
        let mut token = 0;
        let mut fill = |lab: &mut Lab| {
            lab.network.on(relay, |peer, now| {
                for n in 0..MAX_CUSTOMERS {
                    let Some(stream) = come(&mut peer.swarm, v4(n / 32), key(n as u32), now) else {
                        continue;
                    };
                    // Each for itself, or with the one before it.
                    token += u32::from(!among_themselves || n % 2 == 0);
                    ask(&mut peer.swarm, stream, token, n % 2 == 0, now);
                }
            });
        };
        fill(&mut lab);
        assert_eq!(seated(&lab.network.machines[relay].swarm), MAX_CUSTOMERS);
        let a = lab.sharer(Kind::Sym, vec![]);
        fill(&mut lab);
        let b = lab.reader(Kind::Sym, vec![lab.key]);
        lab.network.run(Duration::from_millis(100));
        fill(&mut lab);
        let took = lab.meet(a, b, Duration::from_secs(20));
        println!("{took:?}");
        assert!(took.is_some_and(|took| took < Duration::from_millis(1500)), "{took:?}");
    }
}

#[test]
fn a_host_has_its_share_of_seats_though_most_are_free() {
    let mut lab = Lab::new(1, 0.0);
    lab.network.on(lab.relay, |peer, now| {
        let swarm = &mut peer.swarm;
        for n in 0..2 * MAX_PER_HOST {
            // Each of them is passed on for, so that none gives way.
            if let Some(stream) = come(swarm, v4(1), key(n as u32), now) {
                ask(swarm, stream, n as u32 / 2, n % 2 == 0, now);
            }
        }
        assert_eq!(seated(swarm), MAX_PER_HOST);
        assert!(come(swarm, v4(2), key(999), now).is_some());
    });
}

#[test]
fn who_asks_and_asks_for_what_never_comes_loses_its_seat() {
    let mut lab = Lab::new(1, 0.0);
    let relay = lab.relay;
    let stream = lab.network.on(relay, |peer, now| come(&mut peer.swarm, v4(1), key(1), now));
    for token in 0..8 {
        lab.network.on(relay, |peer, now| ask(&mut peer.swarm, stream.unwrap(), token, true, now));
        lab.network.run(Duration::from_secs(10));
    }
    assert_eq!(seated(&lab.network.machines[relay].swarm), 0);
}

#[test]
fn a_site_of_ipv6_gets_no_more_than_a_host_where_seats_are_scarce() {
    let mut lab = Lab::new(1, 0.0);
    lab.network.on(lab.relay, |peer, now| {
        let swarm = &mut peer.swarm;
        for n in 0..400u16 {
            let host = Ipv6Addr::new(0x2001, 0xdb8, 7, n, 0, 0, 0, 1).into();
            come(swarm, host, key(n.into()), now);
        }
        assert_eq!(seated(swarm), MAX_CUSTOMERS - MAX_CUSTOMERS / 4);
        let others: Vec<_> =
            (0..200).map(|n| come(swarm, v4(n), key(1000 + n as u32), now)).collect();
        assert!(
            others.iter().flatten().filter(|stream| swarm.controls.has(**stream)).count() == 200
        );
        assert_eq!(seated(swarm), MAX_CUSTOMERS);
    });
}

#[test]
fn the_peers_of_its_drives_come_before_strangers() {
    let mut lab = Lab::new(1, 0.0);
    lab.network.on(lab.relay, |peer, now| {
        let swarm = &mut peer.swarm;
        for n in 0..MAX_CUSTOMERS {
            let stream = come(swarm, v4(n), key(n as u32), now).unwrap();
            ask(swarm, stream, n as u32 / 2, n % 2 == 0, now);
        }
        assert_eq!(come(swarm, v4(999), key(999), now), None);
        swarm.peers.found(key(999), vec![], TOPIC, false, now, &mut swarm.rng);
        let stream = come(swarm, v4(999), key(999), now).unwrap();
        assert_eq!(seated(swarm), MAX_CUSTOMERS);
        ask(swarm, stream, 5000, true, now);
        // Not to a stranger, unless what it asks for does not come.
        assert_eq!(come(swarm, v4(1000), key(1000), now), None);
        assert!(come(swarm, v4(1000), key(1000), now + PENDING_WAIT).is_some());
        assert!(!swarm.controls.has(stream));
    });
}

#[test]
fn who_asks_nothing_loses_its_seat_before_those_who_ask_in_vain() {
    let mut lab = Lab::new(1, 0.0);
    lab.network.on(lab.relay, |peer, now| {
        let swarm = &mut peer.swarm;
        let mut silent = None;
        for n in 0..MAX_CUSTOMERS {
            let stream = come(swarm, v4(n), key(n as u32), now).unwrap();
            match n {
                7 => silent = Some(stream),
                _ => ask(swarm, stream, n as u32, true, now),
            }
        }
        assert_eq!(come(swarm, v4(1000), key(1000), now + TIME_TO_ANSWER / 2), None);
        assert!(come(swarm, v4(1000), key(1000), now + TIME_TO_ANSWER).is_some());
        assert!(!swarm.controls.has(silent.unwrap()));
    });
}
