//! A relay follows those who go through it, and they find it again.

use super::super::udx::packet::stream_id;
use super::super::*;
use super::leaving::silence;
use super::relaying::{CLIENT, Lab, TOPIC, behind, relays};
use super::sim::Network;
use crate::sim::{Kind, Realm};
use std::net::SocketAddrV4;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// All NATs that a machine is behind lose their mappings.
fn forget(network: &mut Network, i: usize) {
    let mut realm = network.realm(i);
    while realm != Realm::INTERNET {
        network.nat(realm).forget();
        realm = network.outside(realm);
    }
}

/// A machine comes to another network.
fn moves(network: &mut Network, i: usize, kind: Kind, n: u8) {
    let (realm, ip) = network.place(kind, n);
    let inner = SocketAddrV4::new(ip, 4000);
    network.move_to(i, realm, inner);
    network.on(i, |peer, now| {
        peer.swarm.network_changed(vec![inner], now);
    });
}

/// Two whose only way is the relay, for a while.
fn relayed(seed: u64) -> (Lab, usize, usize) {
    let mut lab = Lab::new(seed, 0.0);
    let (a, b) = (lab.sharer(Kind::Sym, vec![]), lab.reader(Kind::Sym, vec![lab.key]));
    lab.connected(a, b, 10 * SECOND).unwrap();
    silence(&mut lab, (a, b), 15 * SECOND, |_, _| {});
    assert!(lab.is_relayed(a) && lab.is_relayed(b));
    (lab, a, b)
}

#[test]
fn a_relay_follows_those_whose_nat_forgets_them() {
    for (seed, who) in (10..).zip([[true, false], [false, true], [true, true]]) {
        let (mut lab, a, b) = relayed(seed);
        for (i, _) in [a, b].into_iter().zip(who).filter(|(_, forgets)| *forgets) {
            forget(&mut lab.network, i);
        }
        let (longest, closed) = silence(&mut lab, (a, b), 20 * SECOND, |_, _| {});
        println!("{who:?}: {longest:?}");
        assert!(longest < SECOND && closed == 0, "{who:?}: {longest:?}, {closed} closed");
        assert!(lab.carries(a, b), "{who:?}");
    }
}

#[test]
fn a_relay_follows_those_who_come_to_another_network() {
    for (seed, who) in (20..).zip([[true, false], [false, true], [true, true]]) {
        let (mut lab, a, b) = relayed(seed);
        for (n, i) in (3..).zip([a, b]).filter(|(n, _)| who[usize::from(*n) - 3]) {
            moves(&mut lab.network, i, Kind::Sym, n);
        }
        let (longest, closed) = silence(&mut lab, (a, b), 20 * SECOND, |_, _| {});
        println!("{who:?}: {longest:?}, {closed} closed");
        assert!(longest < 3 * SECOND, "{who:?}: {longest:?}");
        assert!(lab.carries(a, b), "{who:?}");
    }
}

/// It knows nobody any more, and says nothing to who goes on speaking to it.
#[test]
fn a_relay_that_began_anew_is_asked_anew() {
    let mut lab = Lab::new(40, 0.0);
    let (relay, key, limits) = (lab.relay, lab.key, RelayLimits::default());
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = behind(&mut lab.network, Kind::Sym, 2, vec![key]);
    lab.network.run(2 * SECOND);
    lab.network.on(b, |peer, now| peer.swarm.visit(key, now));
    lab.network.run(2 * SECOND);
    lab.network.cut(true);
    lab.network.on(relay, |peer, now| {
        let swarm = &mut peer.swarm;
        for stream in swarm.controls.table.streams() {
            swarm.controls.remove(stream);
            swarm.udx.destroy(stream);
        }
        swarm.set_relay(None, now);
    });
    relays(&mut lab.network, relay, limits);
    lab.network.cut(false);
    lab.network.join(b, TOPIC, CLIENT);
    let took = lab.connected(a, b, 20 * SECOND);
    println!("{took:?}");
    assert!(took.is_some_and(|took| took < 5 * SECOND), "{took:?}");
}

/// Just after its relay was left, of a pair with a direct way one side loses its port, or comes to another network.
#[test]
fn whose_direct_way_dies_early_goes_on_by_a_relay_that_it_just_left() {
    for (of_a, of_b) in [(Kind::Sym, Kind::Port), (Kind::Port, Kind::Sym)] {
        for (at, first, another) in [(5, true, false), (30, false, false), (45, true, true)] {
            let mut lab = Lab::new(50 + u64::from(at), 0.0);
            let (a, b) = (lab.sharer(of_a, vec![]), lab.reader(of_b, vec![lab.key]));
            lab.network.every_link(|link| link.latency = Duration::from_millis(50));
            lab.connected(a, b, 10 * SECOND).unwrap();
            let who = if first { a } else { b };
            let (longest, _) = silence(&mut lab, (a, b), 30 * SECOND, |lab, step| match step {
                step if step != at => {}
                _ if another => moves(&mut lab.network, who, Kind::Port, 3),
                _ => forget(&mut lab.network, who),
            });
            println!("{of_a:?} {of_b:?} {at}: {longest:?}");
            assert!(longest < 6 * SECOND, "{of_a:?} {of_b:?} {at}: {longest:?}");
        }
    }
}

/// What one says arrives, and what it hears is all that the other says: only the other can notice.
#[test]
fn who_is_heard_and_does_not_hear_us_is_dialled_anew() {
    let mut lab = Lab::new(60, 0.0);
    let (a, b) = (lab.sharer(Kind::Open, vec![]), lab.reader(Kind::Open, vec![]));
    lab.connected(a, b, 10 * SECOND).unwrap();
    let (stream, to) = (lab.network.open(a)[0].stream(), lab.network.addr(a));
    lab.network.tap = Some(Box::new(move |d| d.to != to || stream_id(&d.bytes) != Some(stream)));
    let (longest, _) = silence(&mut lab, (a, b), 20 * SECOND, |_, _| {});
    println!("{longest:?}");
    assert!(longest < Duration::from_millis(3500), "{longest:?}");
}
