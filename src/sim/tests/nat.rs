//! Boxes: what natlab's selftest proves of the kernel's, here of ours.

mod lifetime;

use super::*;

/// Keeps what comes to its sockets.
#[derive(Default)]
struct Probe {
    out: Vec<Outgoing>,
    heard: Vec<Datagram>,
}

impl Machine for Probe {
    fn receive(&mut self, datagrams: &[Datagram], _: Instant) {
        self.heard.extend_from_slice(datagrams);
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn transmit(&mut self, _: Instant, out: &mut Vec<Outgoing>) {
        out.append(&mut self.out);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn at(ip: [u8; 4], port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip.into(), port)
}

/// Servers 0 and 1 are two ports of one host, server 2 is another host.
const SERVERS: [([u8; 4], u16); 3] = [([1, 1, 1, 1], 1), ([1, 1, 1, 1], 2), ([2, 2, 2, 2], 1)];
const EXTERNAL: [u8; 4] = [3, 3, 3, 3];
const INNER: [u8; 4] = [192, 168, 1, 2];

fn server(n: usize) -> SocketAddrV4 {
    at(SERVERS[n].0, SERVERS[n].1)
}

/// The servers, and the first machine behind a box.
struct Lab {
    net: Net<Probe>,
    /// From the outermost inwards.
    realms: Vec<Realm>,
    realm: Realm,
    a: usize,
}

impl Lab {
    fn behind(boxes: &[NatConfig], seed: u64) -> Self {
        let mut net = Net::new(LinkConfig::default(), seed);
        for n in 0..SERVERS.len() {
            net.add(server(n), Probe::default());
        }
        let (mut realm, mut realms) = (Realm::INTERNET, Vec::new());
        for (n, cfg) in boxes.iter().rev().enumerate() {
            let ip = if n == 0 { EXTERNAL } else { [100, 64, n as u8, 1] };
            realm = net.add_nat(realm, ip.into(), *cfg);
            realms.push(realm);
        }
        let a = net.add_in(realm, at(INNER, 4000), Probe::default());
        Self { net, realms, realm, a }
    }

    /// Another machine behind the same box.
    fn neighbour(&mut self, port: u16) -> usize {
        self.net.add_in(self.realm, at([192, 168, 1, 3], port), Probe::default())
    }

    /// Sends from a socket, and tells what came of it: to which machine, socket and from where.
    fn send(&mut self, i: usize, socket: u16, to: SocketAddrV4, ttl: Option<u8>) -> Vec<Heard> {
        let bytes = b"?".to_vec();
        self.net.on(i, |probe, _| probe.out.push(Outgoing { socket, to, bytes, ttl }));
        self.net.run(SECOND);
        let machines = self.net.machines.iter_mut().enumerate();
        machines
            .flat_map(|(i, probe)| {
                probe.heard.drain(..).map(move |d| Heard {
                    i,
                    socket: d.socket,
                    from: d.from,
                    to: d.to,
                })
            })
            .collect()
    }

    /// As whom a server sees a socket of a machine.
    fn seen(&mut self, i: usize, socket: u16, by: usize) -> SocketAddrV4 {
        let heard = self.send(i, socket, server(by), None);
        assert_eq!((heard.len(), heard[0].i), (1, by), "{heard:?}");
        heard[0].from
    }

    /// Who hears what a server sends to an address.
    fn hears(&mut self, by: usize, to: SocketAddrV4) -> Option<usize> {
        let heard = self.send(by, 0, to, None);
        assert!(heard.iter().all(|heard| heard.from == server(by)), "{heard:?}");
        heard.first().map(|heard| heard.i)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Heard {
    i: usize,
    socket: u16,
    from: SocketAddrV4,
    to: SocketAddrV4,
}

#[test]
fn what_dies_in_the_core_opens_the_box_all_the_same() {
    for cfg in [NatConfig::full(), NatConfig::addr(), NatConfig::port()] {
        let mut lab = Lab::behind(&[cfg], 1);
        let (a, out) = (lab.a, at(EXTERNAL, 4000));
        assert_eq!(lab.hears(0, out), None);
        assert_eq!(lab.send(a, 0, server(0), Some(5)), []);
        assert_eq!((lab.net.expired(), lab.net.nat(lab.realm).refused), (1, 1));
        assert_eq!(lab.hears(0, out), Some(a));
        // The box takes one, and the core must get more than it has hops.
        assert_eq!(lab.send(a, 0, server(2), Some(CORE_HOPS + 1)), []);
        assert_eq!(lab.send(a, 0, server(2), Some(CORE_HOPS + 2)).len(), 1);
        assert_eq!(lab.net.expired(), 2);

        // What dies in the box itself opens nothing.
        let mut lab = Lab::behind(&[cfg], 1);
        assert_eq!(lab.send(a, 0, server(0), Some(1)), []);
        assert_eq!((lab.hears(0, out), lab.net.expired()), (None, 1));
    }
    let mut open = Lab::behind(&[], 1);
    assert_eq!(open.send(0, 0, server(2), Some(CORE_HOPS)), []);
    assert_eq!(open.send(0, 0, server(2), Some(CORE_HOPS + 1)).len(), 1);
}

#[test]
fn a_machine_has_many_sockets_and_hears_at_which_one_something_came() {
    let mut lab = Lab::behind(&[], 1);
    let seen: Vec<SocketAddrV4> = (0..300).map(|socket| lab.seen(3, socket, 0)).collect();
    assert_eq!(seen[0], at(INNER, 4000));
    assert!(seen.iter().all(|addr| *addr.ip() == Ipv4Addr::from(INNER)));
    for socket in [299, 0, 7] {
        let to = seen[usize::from(socket)];
        assert_eq!(lab.send(0, 0, to, None), [Heard { i: 3, socket, from: server(0), to }]);
        assert_eq!(lab.seen(3, socket, 2), to);
    }
    // A port that it never sent from.
    assert!(!seen.contains(&at(INNER, 5000)));
    assert_eq!(lab.hears(0, at(INNER, 5000)), None);
}

/// Which ports are seen, and which servers are let in that were not asked: another port of the asked host, another host.
#[test]
fn each_kind_maps_and_filters_as_it_is_named() {
    let carrier = [NatConfig::port(), NatConfig::carrier()];
    for (name, boxes, (kept, one), let_in) in [
        ("full", &[NatConfig::full()][..], (true, true), [true, true]),
        ("addr", &[NatConfig::addr()], (true, true), [true, false]),
        ("port", &[NatConfig::port()], (true, true), [false, false]),
        ("sym", &[NatConfig::sym()], (false, false), [false, false]),
        ("cgnat", &carrier, (false, true), [false, false]),
    ] {
        let mut lab = Lab::behind(boxes, 1);
        let a = lab.a;
        for socket in [0, 1] {
            let out = lab.seen(a, socket, 0);
            assert_eq!(*out.ip(), Ipv4Addr::from(EXTERNAL), "{name}");
            assert_eq!(out.port() == 4000, kept && socket == 0, "{name}");
            assert_eq!(lab.hears(0, out), Some(a), "{name}: an answer");
            assert_eq!([1, 2].map(|by| lab.hears(by, out).is_some()), let_in, "{name}");
            // Nor does what was not let in spoil what comes after it.
            let again = [2, 1, 0].map(|by| lab.seen(a, socket, by));
            assert_eq!(again.map(|seen| seen == out), [one, one, true], "{name}");
            assert_eq!(again.map(|seen| lab.hears(0, seen).is_some()), [one, one, true], "{name}");
            assert_eq!(lab.hears(2, again[0]), Some(a), "{name}");
        }
    }
}

#[test]
fn two_machines_with_one_port_share_a_box_and_talk_past_it() {
    for cfg in [NatConfig::full(), NatConfig::addr(), NatConfig::port(), NatConfig::sym()] {
        let mut lab = Lab::behind(&[cfg], 1);
        let (a, b) = (lab.a, lab.neighbour(4000));
        let seen = [(a, 0), (b, 2), (a, 0), (b, 2)].map(|(i, by)| lab.seen(i, 0, by));
        assert_ne!(seen[0], seen[1]);
        assert_eq!(seen[..2], seen[2..]);
        assert_eq!([lab.hears(0, seen[0]), lab.hears(2, seen[1])], [Some(a), Some(b)]);

        let to = lab.net.addr(b);
        let heard = lab.send(a, 0, to, Some(1));
        assert_eq!(heard, [Heard { i: b, socket: 0, from: lab.net.addr(a), to }]);
    }
}

#[test]
fn a_hairpin_shows_the_external_endpoint_and_is_not_there_by_default() {
    let with = |cfg| NatConfig { hairpin: true, ..cfg };
    for cfg in [NatConfig::full(), with(NatConfig::port()), with(NatConfig::carrier())] {
        let mut lab = Lab::behind(&[cfg], 1);
        let (a, b) = (lab.a, lab.neighbour(4000));
        let [to, from] = [a, b].map(|i| lab.seen(i, 0, 0));
        let inner = lab.net.addr(a);
        assert_eq!(lab.send(b, 0, to, None), [Heard { i: a, socket: 0, from, to: inner }]);
    }
    for cfg in [NatConfig::addr(), NatConfig::port(), NatConfig::sym()] {
        let mut lab = Lab::behind(&[cfg], 1);
        let (a, b) = (lab.a, lab.neighbour(4000));
        let [to, from] = [a, b].map(|i| lab.seen(i, 0, 0));
        assert_eq!([lab.send(b, 0, to, None), lab.send(a, 0, from, None)], [vec![], vec![]]);
    }
}

#[test]
fn customers_of_one_carrier_meet_behind_it_or_by_its_hairpin() {
    let mut lab = Lab::behind(&[NatConfig::full(), NatConfig::carrier()], 1);
    let (a, at_carrier) = (lab.a, at([100, 64, 1, 1], 4000));
    let carrier = lab.realms[0];
    let home = lab.net.add_nat(carrier, [100, 64, 1, 9].into(), NatConfig::port());
    let b = lab.net.add_in(home, at(INNER, 4000), Probe::default());
    let [from, to] = [b, a].map(|i| lab.seen(i, 0, 0));
    assert_eq!((from.ip(), to.ip()), (&EXTERNAL.into(), &EXTERNAL.into()));
    // Both homes know of an INNER of their own.
    let inner = at(INNER, 4000);
    let seen = at([100, 64, 1, 9], 4000);
    assert_eq!(
        lab.send(b, 0, at_carrier, None),
        [Heard { i: a, socket: 0, from: seen, to: inner }]
    );
    assert_eq!(lab.send(b, 0, to, None), []);
    lab.net.nat(carrier).cfg.hairpin = true;
    // Let in by the carrier is not yet let in by the home.
    lab.net.nat(lab.realm).cfg.filter = Filter::Endpoints;
    assert_eq!(lab.send(b, 0, to, None), []);
    lab.net.nat(lab.realm).cfg.filter = Filter::Anyone;
    assert_eq!(lab.send(b, 0, to, None), [Heard { i: a, socket: 0, from, to: inner }]);
}

#[test]
fn who_is_let_in_is_decided_when_it_arrives() {
    let mut lab = Lab::behind(&[NatConfig::port()], 1);
    let a = lab.a;
    let out = lab.seen(a, 0, 0);
    let say = |net: &mut Net<Probe>, i: usize, to| {
        net.on(i, |probe, _| probe.out.push(Outgoing::new(to, vec![1])));
    };
    // Both at once: each opens for the other before that one's datagram is there.
    say(&mut lab.net, 2, out);
    assert_eq!(lab.net.under_way(2, a), 0);
    say(&mut lab.net, a, server(2));
    assert_eq!((lab.net.under_way(2, a), lab.net.under_way(a, 2)), (1, 1));
    lab.net.run(SECOND);
    assert_eq!((lab.net.machines[a].heard.len(), lab.net.machines[2].heard.len()), (1, 1));

    // And a box that forgets while something is under way refuses it.
    say(&mut lab.net, 2, out);
    lab.net.nat(lab.realm).forget();
    lab.net.run(SECOND);
    assert_eq!((lab.net.machines[a].heard.len(), lab.net.nat(lab.realm).refused), (1, 1));
}

#[test]
fn a_machine_that_moves_keeps_its_ports_and_is_found_at_its_old_place_no_more() {
    let mut lab = Lab::behind(&[NatConfig::full()], 1);
    let a = lab.a;
    let out = [0, 1].map(|socket| lab.seen(a, socket, 0));
    let elsewhere = at([5, 5, 5, 5], 4000);
    lab.net.move_to(a, Realm::INTERNET, elsewhere);
    assert_eq!(lab.net.addr(a), elsewhere);
    assert_eq!(out.map(|out| lab.hears(0, out)), [None, None]);
    for (socket, out) in [0, 1].into_iter().zip(out) {
        let seen = at([5, 5, 5, 5], out.port());
        assert_eq!(lab.seen(a, socket, 0), seen);
        assert_eq!(lab.hears(2, seen), Some(a));
    }
    lab.net.move_to(a, lab.realm, at([192, 168, 1, 77], 4000));
    assert_eq!(lab.hears(0, elsewhere), None);
    let seen = lab.seen(a, 0, 0);
    assert_eq!((*seen.ip(), lab.hears(0, seen)), (EXTERNAL.into(), Some(a)));
}

#[test]
fn who_shares_a_box_shares_its_links_and_has_a_short_one_to_the_neighbour() {
    let mut lab = Lab::behind(&[NatConfig::port(), NatConfig::carrier()], 1);
    let (a, b) = (lab.a, lab.neighbour(4000));
    lab.net.lan().latency = 2 * MS;
    let took = |net: &mut Net<Probe>, from: usize, to: usize| {
        let (start, bytes, to_addr) = (net.now, b"?".to_vec(), net.addr(to));
        net.on(from, |probe, _| probe.out.push(Outgoing::new(to_addr, bytes)));
        assert!(net.run_until(SECOND, |net| !net.machines[to].heard.is_empty()).is_some());
        net.machines[to].heard.clear();
        net.now - start
    };
    assert_eq!((took(&mut lab.net, a, b), took(&mut lab.net, a, 0)), (2 * MS, 10 * MS));
    lab.net.link(b, 0).cfg.latency = 30 * MS;
    lab.net.link(b, a).cfg.latency = 5 * MS;
    assert_eq!((took(&mut lab.net, a, 0), took(&mut lab.net, a, b)), (30 * MS, 2 * MS));
    assert_eq!((took(&mut lab.net, b, 0), took(&mut lab.net, b, a)), (30 * MS, 5 * MS));
    lab.net.every_link(|link| link.latency = 7 * MS);
    assert_eq!((took(&mut lab.net, a, 0), took(&mut lab.net, a, b)), (7 * MS, 7 * MS));
    let c = lab.net.add_in(lab.realm, at([192, 168, 1, 4], 4000), Probe::default());
    assert_eq!((took(&mut lab.net, c, 1), took(&mut lab.net, a, c)), (7 * MS, 7 * MS));
}

#[test]
fn random_ports_are_all_over_the_place_and_come_again_from_the_same_seed() {
    let ports = |seed| {
        let mut lab = Lab::behind(&[NatConfig::sym()], seed);
        let a = lab.a;
        (0..256).map(|socket| lab.seen(a, socket, 0).port()).collect::<Vec<u16>>()
    };
    let one = ports(7);
    assert_eq!(one, ports(7));
    assert_ne!(one, ports(8));
    let parts: std::collections::BTreeSet<u16> = one.iter().map(|port| port / 4096).collect();
    assert_eq!((parts.len(), one.iter().min() >= Some(&1024)), (16, true));
}

#[test]
fn the_kinds_of_natlab_are_placed_side_by_side() {
    let mut net = Net::new(LinkConfig::default(), 1);
    net.add(server(0), Probe::default());
    for (n, kind) in (1..).zip(Kind::ALL) {
        let (realm, ip) = net.place(kind, n);
        let i = net.add_in(realm, SocketAddrV4::new(ip, 4000), Probe::default());
        net.on(i, |probe, _| probe.out.push(Outgoing::new(server(0), vec![n])));
    }
    net.run(SECOND);
    let kept = |d: &Datagram| d.from.port() == 4000;
    let heard: Vec<(u8, bool)> =
        net.machines[0].heard.iter().map(|d| (d.bytes[0], kept(d))).collect();
    let [yes, no] = [true, false];
    assert_eq!(heard, [(1, yes), (2, yes), (3, yes), (4, yes), (5, no), (6, no), (7, no)]);
    let from: std::collections::BTreeSet<_> =
        net.machines[0].heard.iter().map(|d| d.from.ip()).collect();
    assert_eq!(from.len(), 7);
}
