//! Whether others can send to us unasked: found out for every kind of NAT, though datagrams get lost, and again after
//! the address or the firewall changed; and when we are a node for others because of it.

use super::sim::{Node, Sim, host, pair};
use crate::key::{PublicKey, Topic};
use crate::sim::{Filter, Kind, NatConfig, Realm};
use crate::swarm::dht_rpc::{Access, node_id};
use crate::swarm::hyperdht::{DhtConfig, DhtEvent, Firewall, HyperDht};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::net::SocketAddrV4;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A DHT of `nodes`, of which newcomers are told `told`.
pub(super) fn network(seed: u64, nodes: u16, loss: f64) -> Sim {
    let mut sim = Sim::network(seed, nodes, 0);
    sim.every_link(|link| link.loss = loss);
    sim
}

/// A newcomer, who enters by the first `told` nodes. Answers its number.
pub(super) fn enter(sim: &mut Sim, (realm, addr): (Realm, SocketAddrV4), told: u16) -> usize {
    let n = 1000 + sim.machines.len() as u16;
    let key = PublicKey(pair(n).public());
    let mut config = DhtConfig::new(pair(n), (0..told).map(host).collect());
    config.allow_bogons = true;
    config.local_addresses = vec![addr];
    let rng = StdRng::seed_from_u64(sim.rng.random());
    let dht = Box::new(HyperDht::new(config, rng, sim.now));
    sim.add_in(realm, addr, Node::Honest { dht, events: vec![], key })
}

pub(super) fn place(sim: &mut Sim, kind: Kind, n: u8) -> (Realm, SocketAddrV4) {
    let (realm, ip) = sim.place(kind, n);
    (realm, SocketAddrV4::new(ip, 49737))
}

pub(super) fn dht(sim: &Sim, i: usize) -> &HyperDht {
    match &sim.machines[i] {
        Node::Honest { dht, .. } => dht,
        Node::Scripted { .. } => panic!("this one is scripted"),
    }
}

fn access(sim: &Sim, i: usize) -> Access {
    dht(sim, i).access()
}

pub(super) fn happened(sim: &Sim, i: usize, what: impl Fn(&DhtEvent) -> bool) -> usize {
    match &sim.machines[i] {
        Node::Honest { events, .. } => events.iter().filter(|event| what(event)).count(),
        Node::Scripted { .. } => 0,
    }
}

#[test]
fn of_every_kind_of_nat_it_is_known_within_seconds() {
    for (nodes, told) in [(3, 1), (3, 3), (6, 1), (6, 3), (30, 3)] {
        for kind in Kind::ALL {
            let mut sim = network(7, nodes, 0.0);
            let at = place(&mut sim, kind, 9);
            let i = enter(&mut sim, at, told);
            let expected = match kind {
                Kind::Open | Kind::Full => Access::Open,
                _ => Access::Closed,
            };
            let known = sim.run_until(5 * SECOND, |sim| access(sim, i) != Access::Unknown);
            assert_eq!(access(&sim, i), expected, "{kind:?}, {nodes} nodes, {told} told");
            let limit = if expected == Access::Open { SECOND } else { 4 * SECOND };
            assert!(known.is_some_and(|known| known < limit), "{kind:?}: {known:?}");
            // And that stays so.
            sim.run(30 * MINUTE);
            assert_eq!(access(&sim, i), expected, "later: {kind:?}, {nodes} nodes, {told} told");
        }
    }
}

/// As who dials through the nodes of a small DHT at once.
#[test]
fn who_writes_to_those_that_were_asked_meanwhile_does_not_take_their_answers_for_none() {
    for after in (0..200).step_by(5) {
        let mut sim = network(7, 3, 0.0);
        let at = place(&mut sim, Kind::Open, 9);
        let i = enter(&mut sim, at, 3);
        sim.run(Duration::from_millis(after));
        for n in 0..3 {
            sim.on(i, |node, _| {
                let Node::Honest { dht, .. } = node else { panic!() };
                dht.connected((*host(n).ip()).into());
            });
        }
        sim.run(5 * MINUTE);
        assert_ne!(access(&sim, i), Access::Closed, "after {after} ms");
    }
}

/// It was told of, or others remember it.
#[test]
fn a_node_that_is_away_says_nothing_of_a_firewall() {
    for nodes in 1..=3 {
        let mut sim = network(7, nodes + 1, 0.0);
        let (_, addr) = place(&mut sim, Kind::Open, 9);
        sim.run(MINUTE);
        // The last of them is gone without a word.
        sim.kill(nodes);
        let i = enter(&mut sim, (Realm::INTERNET, addr), nodes + 1);
        sim.run(10 * MINUTE);
        assert_ne!(access(&sim, i), Access::Closed, "{nodes} nodes");
    }
}

/// The reference knows it of 22 of 60.
#[test]
fn of_sixty_open_peers_all_know_it_soon_though_datagrams_get_lost() {
    for (loss, at_once) in [(0.0, 60), (0.05, 57)] {
        let (mut soon, mut later) = (0, 0);
        for seed in 0..60 {
            let mut sim = network(seed, 6, loss);
            let at = place(&mut sim, Kind::Open, 9);
            let i = enter(&mut sim, at, 3);
            sim.run(2 * SECOND);
            soon += u32::from(access(&sim, i) == Access::Open);
            sim.run(5 * MINUTE);
            later += u32::from(access(&sim, i) == Access::Open);
        }
        assert!(soon >= at_once && later >= at_once, "{soon} and {later} at a loss of {loss}");
    }
}

#[test]
fn who_is_open_for_twenty_minutes_serves_others_until_it_is_so_no_longer() {
    let mut sim = network(3, 30, 0.0);
    let realm = sim.add_nat(Realm::INTERNET, [80, 0, 9, 1].into(), NatConfig::full());
    let i = enter(&mut sim, (realm, "192.168.9.2:49737".parse().unwrap()), 3);
    sim.run(19 * MINUTE);
    assert_eq!((access(&sim, i), dht(&sim, i).id()), (Access::Open, None));
    sim.run(3 * MINUTE);
    let at = SocketAddrV4::new([80, 0, 9, 1].into(), 49737);
    assert_eq!(dht(&sim, i).id(), Some(node_id(at)));
    // Its router is given a firewall.
    sim.nat(realm).cfg.filter = Filter::Endpoints;
    let closed = |sim: &Sim| access(sim, i) == Access::Closed;
    // Who never heard of it cannot reach it.
    let noticed = (30..40).any(|n| {
        sim.begin(host(n), n, |config| config.persistent = true);
        sim.run_until(6 * MINUTE, closed).is_some()
    });
    assert!(noticed, "it goes on believing to be open");
    assert_eq!(dht(&sim, i).id(), None);
    assert!(happened(&sim, i, |event| matches!(event, DhtEvent::Moved)) > 0);
}

#[test]
fn another_public_address_is_noticed_within_seconds_and_what_was_known_is_found_out_anew() {
    let mut sim = network(5, 6, 0.0);
    let at = place(&mut sim, Kind::Open, 9);
    let i = enter(&mut sim, at, 3);
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.listen(std::sync::Arc::new(pair(77)), now);
    });
    sim.run(40 * MINUTE);
    assert!(dht(&sim, i).id().is_some());
    // Nobody tells it: the router has another address.
    let new: SocketAddrV4 = "80.0.10.1:49737".parse().unwrap();
    sim.move_to(i, Realm::INTERNET, new);
    let moved = |sim: &Sim| happened(sim, i, |event| matches!(event, DhtEvent::Moved)) > 0;
    let noticed = sim.run_until(MINUTE, moved);
    assert!(noticed.is_some_and(|time| time < 20 * SECOND), "{noticed:?}");
    assert_eq!(dht(&sim, i).id(), None, "nobody finds it by its old id");
    let open = sim.run_until(MINUTE, |sim| access(sim, i) == Access::Open);
    assert!(open.is_some_and(|time| time < 15 * SECOND), "{open:?}");
    assert_eq!(dht(&sim, i).nat().address(), Some(new));
}

#[test]
fn where_clients_do_not_come_through_who_believes_to_be_open_believes_it_no_longer() {
    let mut sim = network(3, 6, 0.0);
    let at = place(&mut sim, Kind::Open, 9);
    let i = enter(&mut sim, at, 3);
    sim.run(MINUTE);
    let told = |sim: &mut Sim, came: bool| {
        sim.on(i, |node, now| {
            let Node::Honest { dht, .. } = node else { panic!() };
            if came { dht.reached(0, now) } else { dht.missed(now) }
        });
        access(sim, i)
    };
    for came in [false, false, true, false, false] {
        assert_eq!(told(&mut sim, came), Access::Open);
    }
    assert_eq!(told(&mut sim, false), Access::Closed);
}

/// What is sent to find it out.
#[test]
fn a_closed_peer_asks_seldom() {
    let mut sim = network(4, 30, 0.0);
    let at = place(&mut sim, Kind::Port, 9);
    let i = enter(&mut sim, at, 3);
    sim.run(60 * MINUTE);
    let before = sim.datagrams_of(i);
    sim.run(60 * MINUTE);
    let hour = sim.datagrams_of(i) - before;
    assert!(hour < 1200, "{hour} datagrams in an hour of rest");
}

/// What a gateway says becomes known; what it opens is open if `true_word`.
fn gateway_opens(sim: &mut Sim, (realm, at): (Realm, SocketAddrV4), i: usize, true_word: bool) {
    if true_word {
        sim.nat(realm).forwards.insert(at.port(), at);
    }
    let outside = SocketAddrV4::new(sim.nat(realm).external, at.port());
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.probe_anew(Some(outside), now);
    });
}

#[test]
fn who_is_given_a_port_by_his_router_is_open_if_that_is_true() {
    // In a small network whoever was asked cannot tell any more: the first look waits for the router.
    for (nodes, waits) in [(6, true), (30, true), (100, false)] {
        for true_word in [true, false] {
            let mut sim = network(11, nodes, 0.0);
            let at = place(&mut sim, Kind::Port, 9);
            let i = enter(&mut sim, at, 6);
            if waits {
                sim.on(i, |node, now| {
                    let Node::Honest { dht, .. } = node else { panic!() };
                    dht.hold_probe(now + 3 * SECOND);
                });
                sim.run(SECOND + SECOND / 2);
                assert_eq!(access(&sim, i), Access::Unknown, "it waits");
            } else {
                sim.run(MINUTE);
                assert_eq!(access(&sim, i), Access::Closed);
            }
            gateway_opens(&mut sim, at, i, true_word);
            sim.run(10 * SECOND);
            let expected = if true_word { Access::Open } else { Access::Closed };
            assert_eq!(access(&sim, i), expected, "{nodes} nodes, {true_word}");
        }
    }
}

/// It had given the port that we asked for to somebody else, or gives what we send another one for each destination.
#[test]
fn a_port_of_the_router_that_is_not_the_one_we_are_seen_at_is_as_good() {
    let granted = |sim: &mut Sim, i: usize, mapped: Option<SocketAddrV4>| {
        sim.on(i, |node, now| {
            let Node::Honest { dht, .. } = node else { panic!() };
            dht.probe_anew(mapped, now);
        });
    };
    for (kind, first) in [(Kind::Port, Firewall::Consistent), (Kind::Sym, Firewall::Random)] {
        let mut sim = network(13, 100, 0.0);
        let at = place(&mut sim, kind, 9);
        let i = enter(&mut sim, at, 6);
        sim.run(MINUTE);
        assert_eq!((access(&sim, i), dht(&sim, i).net.nat_verdict().0), (Access::Closed, first));
        let entrance = SocketAddrV4::new(sim.nat(at.0).external, 6881);
        // Nothing is told of it before it was seen to be true.
        granted(&mut sim, i, Some(entrance));
        sim.run(10 * SECOND);
        assert!(!dht(&sim, i).net.nat_verdict().1.contains(&entrance), "{kind:?}");
        sim.nat(at.0).forwards.insert(6881, at.1);
        granted(&mut sim, i, Some(entrance));
        sim.run(10 * SECOND);
        assert_eq!(dht(&sim, i).open_address(), Some(entrance), "{kind:?}");
        let (firewall, addresses) = dht(&sim, i).net.nat_verdict();
        assert_eq!((firewall, addresses.first()), (Firewall::Consistent, Some(&entrance)));
        // What it sends comes from elsewhere: as a node it would be looked for there.
        sim.run(22 * MINUTE);
        assert_eq!((access(&sim, i), dht(&sim, i).id()), (Access::Open, None), "{kind:?}");
        sim.nat(at.0).forwards.clear();
        granted(&mut sim, i, None);
        assert_ne!(access(&sim, i), Access::Open, "{kind:?}");
        sim.run(MINUTE);
        assert_eq!((access(&sim, i), dht(&sim, i).net.nat_verdict().0), (Access::Closed, first));
    }
}

/// An inner router grants a port at its own outside, which is no public address: what nodes see is what counts, and there
/// everybody is let in.
#[test]
fn the_port_of_an_inner_router_does_not_hide_where_we_are_open() {
    let mut sim = network(14, 100, 0.0);
    let at = place(&mut sim, Kind::Full, 9);
    let i = enter(&mut sim, at, 6);
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.hold_probe(now + 3 * SECOND);
    });
    sim.run(SECOND);
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.probe_anew(Some("192.168.1.2:6881".parse().unwrap()), now);
    });
    sim.run(MINUTE);
    assert_eq!(access(&sim, i), Access::Open);
}

#[test]
fn a_router_that_says_nothing_is_not_waited_for_longer() {
    let mut sim = network(12, 6, 0.0);
    let at = place(&mut sim, Kind::Open, 9);
    let i = enter(&mut sim, at, 6);
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.hold_probe(now + 2 * SECOND);
    });
    let open = sim.run_until(20 * SECOND, |sim| access(sim, i) == Access::Open);
    assert!(open.is_some_and(|time| time >= 2 * SECOND && time < 8 * SECOND), "{open:?}");
}

#[test]
fn who_waited_for_a_router_in_vain_is_taken_for_closed_though_nobody_can_tell_any_more() {
    for waits in [false, true] {
        let mut sim = network(13, 6, 0.0);
        let at = place(&mut sim, Kind::Port, 9);
        let i = enter(&mut sim, at, 6);
        sim.on(i, |node, now| {
            let Node::Honest { dht, .. } = node else { panic!() };
            if waits {
                dht.hold_probe(now + SECOND);
            }
            dht.listen(std::sync::Arc::new(pair(77)), now);
        });
        sim.run(20 * SECOND);
        assert_eq!(access(&sim, i), Access::Closed, "it waited: {waits}");
    }
}

/// A relay or a seed: its key is announced at once, and its router is waited for, of which there is none.
pub(super) fn announces(sim: &mut Sim, i: usize) {
    sim.on(i, |node, now| {
        let Node::Honest { dht, .. } = node else { panic!() };
        dht.hold_probe(now + SECOND);
        dht.listen(std::sync::Arc::new(pair(77)), now);
        dht.announce(Topic([7; 32]), now);
    });
}

#[test]
fn two_or_three_nodes_tell_whether_a_peer_is_open_though_it_announces_itself_at_once() {
    for nodes in 2..=3 {
        for kind in Kind::ALL {
            for seed in 0..5 {
                let mut sim = network(seed, nodes, 0.0);
                let at = place(&mut sim, kind, 9);
                let i = enter(&mut sim, at, nodes);
                announces(&mut sim, i);
                let expected = match kind {
                    Kind::Open | Kind::Full => Access::Open,
                    _ => Access::Closed,
                };
                let known = sim.run_until(MINUTE, |sim| access(sim, i) != Access::Unknown);
                let what = format!("{nodes} nodes, {kind:?}, seed {seed}: {known:?}");
                assert_eq!(access(&sim, i), expected, "{what}");
                assert!(known.is_some_and(|known| known < 6 * SECOND), "{what}");
                // Every node holds its announcement once the router will not give a port any more.
                sim.on(i, |node, now| {
                    let Node::Honest { dht, .. } = node else { panic!() };
                    dht.probe_anew(None, now);
                });
                sim.run(5 * SECOND);
                let relays = dht(&sim, i).relay_addresses(&PublicKey(pair(77).public()));
                let nodes = usize::from(nodes) + usize::from(kind == Kind::Open);
                assert_eq!(relays.len(), nodes.min(3), "{what}");
            }
        }
    }
}

#[test]
fn where_nobody_could_be_asked_it_is_not_known() {
    for kind in [Kind::Open, Kind::Port] {
        let mut sim = network(3, 1, 0.0);
        let at = place(&mut sim, kind, 9);
        let i = enter(&mut sim, at, 1);
        announces(&mut sim, i);
        sim.run(30 * MINUTE);
        assert_eq!(access(&sim, i), Access::Unknown, "{kind:?}");
    }
}

#[test]
fn an_open_peer_of_a_network_of_three_nodes_that_stays_becomes_the_fourth() {
    let mut sim = network(5, 3, 0.0);
    let at = place(&mut sim, Kind::Open, 9);
    let i = enter(&mut sim, at, 3);
    announces(&mut sim, i);
    sim.run(22 * MINUTE);
    assert_eq!(dht(&sim, i).id(), Some(node_id(at.1)));
}

#[test]
fn a_port_that_the_router_gives_late_is_looked_at_in_a_small_network_too() {
    for (after, true_word) in [(1500, true), (3000, true), (6000, true), (6000, false)] {
        let mut sim = network(8, 3, 0.0);
        let at = place(&mut sim, Kind::Port, 9);
        let i = enter(&mut sim, at, 3);
        announces(&mut sim, i);
        sim.run(Duration::from_millis(after));
        gateway_opens(&mut sim, at, i, true_word);
        sim.run(5 * SECOND);
        let expected = if true_word { Access::Open } else { Access::Closed };
        assert_eq!(access(&sim, i), expected, "after {after} ms, {true_word}");
    }
}

/// The one that could have told is away.
#[test]
fn where_every_node_knows_a_peer_one_is_spared_until_it_can_tell() {
    for kind in [Kind::Open, Kind::Full, Kind::Addr, Kind::Port, Kind::Cgnat] {
        let mut sim = network(7, 4, 0.0);
        let at = place(&mut sim, kind, 9);
        sim.run(MINUTE);
        sim.kill(3);
        let i = enter(&mut sim, at, 4);
        announces(&mut sim, i);
        sim.run(MINUTE);
        assert_eq!(access(&sim, i), Access::Unknown, "{kind:?}");
        assert!(dht(&sim, i).standing().asks_later, "{kind:?}");
        let relays = |sim: &Sim| dht(sim, i).relay_addresses(&PublicKey(pair(77).public())).len();
        assert_eq!(relays(&sim), 2, "who is spared is no relay");
        let expected = match kind {
            Kind::Open | Kind::Full => Access::Open,
            _ => Access::Closed,
        };
        let known = sim.run_until(15 * MINUTE, |sim| access(sim, i) != Access::Unknown);
        assert_eq!(access(&sim, i), expected, "{kind:?}: {known:?}");
        sim.run(MINUTE);
        assert!(!dht(&sim, i).standing().asks_later && relays(&sim) >= 3, "{kind:?}");
    }
}
