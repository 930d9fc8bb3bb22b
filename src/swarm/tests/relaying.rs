//! Peers that need a relay, and those that only think so.

use super::super::hyperdht::{Agreed, Relays};
use super::super::secret_stream::noise::SessionKeys;
use super::super::udx::packet::{Header, flag};
use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Kind, LinkConfig};
use std::cell::Cell;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;

pub(super) const TOPIC: Topic = Topic([7; 32]);
pub(super) const SERVER: JoinOptions = JoinOptions { server: true, client: false };
pub(super) const CLIENT: JoinOptions = JoinOptions { server: false, client: true };

/// Some nodes of a DHT with ways of 20 ms, and a relay.
pub(super) struct Lab {
    pub network: Network,
    pub relay: usize,
    pub key: PublicKey,
}

/// A swarm behind NATs of a kind.
pub(super) fn behind(network: &mut Network, kind: Kind, n: u8, relays: Vec<PublicKey>) -> usize {
    let i = network.machines.len();
    let (realm, ip) = network.place(kind, n);
    let inner = SocketAddrV4::new(ip, 4000);
    let config = SwarmConfig { local_addresses: vec![inner], relays, ..network.config(i, false) };
    let peer = Peer::new(config, network.seed << 8 | i as u64, network.now);
    network.add_in(realm, inner, peer)
}

/// Has a machine relay, under its own key.
pub(super) fn relays(network: &mut Network, i: usize, limits: RelayLimits) -> PublicKey {
    let pair = Arc::new(KeyPair::from_seed(&[network.seed as u8 ^ i as u8; 32]));
    let key = PublicKey(pair.public());
    network.on(i, |peer, now| peer.swarm.set_relay(Some((pair, limits)), now));
    key
}

impl Lab {
    pub(super) fn new(seed: u64, loss: f64) -> Self {
        let ms = Duration::from_millis;
        let pattern = LinkConfig { loss, latency: ms(20), jitter: ms(5), ..LinkConfig::default() };
        let mut network = Network::of_nodes(8, seed, pattern, Duration::from_secs(5));
        let relay = behind(&mut network, Kind::Open, 100, vec![]);
        let key = relays(&mut network, relay, RelayLimits::default());
        network.run(Duration::from_secs(10));
        Self { network, relay, key }
    }

    /// The same with a relay that pairs, and passes nothing on.
    fn with_black_hole(seed: u64) -> Self {
        let mut lab = Self::new(seed, 0.0);
        relays(&mut lab.network, lab.relay, RelayLimits { customer: 0, total: 0 });
        lab
    }

    /// The relay holds the drive, too.
    pub(super) fn relay_seeds(&mut self) {
        self.network.join(self.relay, TOPIC, SERVER);
        self.network.run(Duration::from_secs(5));
    }

    /// How long it takes until both are connected with each other, whoever else they are with.
    pub(super) fn meet(&mut self, a: usize, b: usize, within: Duration) -> Option<Duration> {
        let keys = [a, b].map(|i| self.network.key(i));
        self.network.run_until(within, |n| {
            let sees = |i: usize, key| {
                let status = n.machines[i].swarm.status();
                status.connections.iter().any(|c| c.open && c.remote == key)
            };
            sees(a, keys[1]) && sees(b, keys[0])
        })
    }

    /// Who shares, settled.
    pub(super) fn sharer(&mut self, kind: Kind, relays: Vec<PublicKey>) -> usize {
        let sharer = behind(&mut self.network, kind, 1, relays);
        self.network.join(sharer, TOPIC, SERVER);
        self.network.run(Duration::from_secs(10));
        sharer
    }

    pub(super) fn reader(&mut self, kind: Kind, relays: Vec<PublicKey>) -> usize {
        let reader = behind(&mut self.network, kind, 2, relays);
        self.network.join(reader, TOPIC, CLIENT);
        reader
    }

    /// How long it takes until both are connected.
    pub(super) fn connected(&mut self, a: usize, b: usize, within: Duration) -> Option<Duration> {
        self.network.run_until(within, |n| n.open(b).len() == 1 && n.open(a).len() == 1)
    }

    /// Whether the connection of `i` goes through a relay.
    pub(super) fn is_relayed(&self, i: usize) -> bool {
        let status = self.network.machines[i].swarm.status();
        status.connections.iter().any(|c| c.relay == Some(self.key))
    }

    /// Sends from `a` to `b` and back what takes many packets, and looks whether it comes.
    pub(super) fn carries(&mut self, a: usize, b: usize) -> bool {
        for (from, to) in [(a, b), (b, a)] {
            let before = self.network.frames(to).len();
            let conn = self.network.open(from)[0];
            self.network.send_frame(from, conn, &[7; 300_000]);
            let heard = |n: &Network| n.frames(to).len() > before;
            if self.network.run_until(Duration::from_secs(20), heard).is_none() {
                return false;
            }
        }
        true
    }
}

#[test]
fn random_ports_on_both_sides_connect_through_a_relay() {
    for seed in 1..6 {
        let mut lab = Lab::new(seed, 0.0);
        let a = lab.sharer(Kind::Sym, vec![]);
        let b = lab.reader(Kind::Sym, vec![lab.key]);
        let took = lab.connected(a, b, Duration::from_secs(20));
        assert!(took.is_some_and(|took| took < Duration::from_millis(1500)), "{seed}: {took:?}");
        assert!(lab.is_relayed(a) && lab.is_relayed(b));
        assert!(lab.carries(a, b));
        assert!(lab.network.machines[lab.relay].swarm.udx.passed_on() > 600_000);
        println!("{took:?}");
    }
}

/// Who wants to know whether a relay is there goes to it, and is told so only once it has answered as a relay does.
#[test]
fn a_relay_that_is_gone_to_serves_and_a_peer_does_not() {
    let mut lab = Lab::new(3, 0.0);
    let peer = lab.sharer(Kind::Open, vec![]);
    let other = lab.network.key(peer);
    let visitor = behind(&mut lab.network, Kind::Port, 2, vec![]);
    lab.network.run(Duration::from_secs(2));
    for key in [lab.key, other] {
        lab.network.on(visitor, |peer, now| peer.swarm.visit(key, now));
    }
    let visited = |n: &Network, key: PublicKey| {
        let status = n.machines[visitor].swarm.status();
        status.visited.into_iter().find(|relay| relay.key == key)
    };
    let relay = lab.key;
    assert!(visited(&lab.network, relay).is_some_and(|relay| !relay.serves), "on the way there");
    let serves = |n: &Network, key| visited(n, key).is_some_and(|relay| relay.serves);
    assert!(lab.network.run_until(Duration::from_secs(5), |n| serves(n, relay)).is_some());
    assert!(lab.network.run_until(Duration::from_secs(10), |n| serves(n, other)).is_none());
}

/// Nothing is configured: whoever holds the drive and can be reached is the relay.
#[test]
fn a_seeder_of_the_topic_is_the_relay_of_those_who_cannot_reach_each_other() {
    for (seed, kinds) in (1..).zip([(Kind::Sym, Kind::Sym), (Kind::CgnatSym, Kind::Port)]) {
        let mut lab = Lab::new(seed, 0.0);
        lab.relay_seeds();
        let a = lab.sharer(kinds.0, vec![]);
        let b = lab.reader(kinds.1, vec![]);
        let took = lab.meet(a, b, Duration::from_secs(20));
        println!("{kinds:?}: {took:?}");
        assert!(took.is_some_and(|took| took < Duration::from_millis(1500)), "{kinds:?}: {took:?}");
    }
}

/// Both ways are there at about the same time, in whatever order: always one of them is taken, and in the end the direct
/// one alone.
#[test]
fn a_race_of_relay_and_punch_never_hangs() {
    let kinds = [Kind::Open, Kind::Full, Kind::Addr, Kind::Port, Kind::Cgnat];
    let mut longest = Duration::ZERO;
    for seed in 0..crate::sim::cases(25).cases as u64 {
        let mut lab = Lab::new(seed, 0.02);
        let [a, b] = [3, 7].map(|step| kinds[(seed as usize * step + 1) % kinds.len()]);
        let named = |side: u64| if (seed >> side) & 1 == 0 { vec![lab.key] } else { vec![] };
        let (for_a, for_b) = (named(0), if seed & 3 == 3 { vec![lab.key] } else { named(1) });
        let a = lab.sharer(a, for_a);
        let b = lab.reader(b, for_b);
        let took = lab.connected(a, b, Duration::from_secs(10));
        longest = longest.max(took.unwrap_or_else(|| panic!("seed {seed} hangs")));
        assert!(lab.carries(a, b), "seed {seed}");
        lab.network.run(Duration::from_secs(45));
        assert!(lab.carries(a, b), "seed {seed}");
        for i in [a, b] {
            let swarm = &lab.network.machines[i].swarm;
            assert!(!lab.is_relayed(i), "seed {seed}");
            assert_eq!((swarm.relayed.len(), swarm.controls.ours()), (0, 0), "seed {seed}");
        }
        assert_eq!(lab.network.closed(a).len() + lab.network.closed(b).len(), 0, "seed {seed}");
    }
    println!("{longest:?}");
}

/// A stream through a relay is cut off from it: it is noticed at once, and the peers meet again by another way.
#[test]
fn the_end_of_the_relay_is_noticed_at_once() {
    let mut lab = Lab::new(9, 0.0);
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![lab.key]);
    lab.connected(a, b, Duration::from_secs(5)).unwrap();
    lab.network.on(lab.relay, |peer, now| peer.swarm.set_relay(None, now));
    let lost = |n: &Network| n.closed(b).len() == 1;
    let took = lab.network.run_until(Duration::from_secs(20), lost);
    assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{took:?}");
}

/// Who shakes hands with a relay again and again, in whoever's name, displaces others who have not shown themselves either,
/// and is forgotten.
#[test]
fn customers_who_never_come_are_bounded() {
    let mut lab = Lab::new(1, 0.0);
    let customers = |lab: &Lab| lab.network.machines[lab.relay].swarm.controls.customers().count();
    lab.network.on(lab.relay, |peer, now| {
        for n in 0..1000u32 {
            let (remote, hash) = (PublicKey([n as u8; 32]), [n as u8; 64]);
            let keys = SessionKeys { tx: [1; 32], rx: [2; 32], hash, remote, initiator: false };
            let (local_id, remote_id, relays) = (n + 1, 1, Relays::default());
            let agreed =
                Agreed { keys, local_id, remote_id, dial: None, big_datagrams: false, relays };
            peer.swarm.accept_customer(agreed, now);
        }
    });
    assert_eq!(customers(&lab), 64);
    lab.network.run(Duration::from_secs(11));
    assert_eq!(customers(&lab), 0);
}

/// A packet for a stream in its peer's name, from anywhere. It tells how large it is.
pub(super) fn forge_from(lab: &mut Lab, i: usize, stream: u32, from: SocketAddrV4) -> usize {
    forge(lab, i, stream, from, (flag::HEARTBEAT, 0))
}

/// The same with flags and a number.
pub(super) fn forge(
    lab: &mut Lab,
    i: usize,
    stream: u32,
    from: SocketAddrV4,
    (flags, seq): (u8, u32),
) -> usize {
    let packet = Header { flags, data_offset: 0, stream, window: 1, seq, ack: 0 }.encode();
    lab.network.on(i, |peer, now| {
        peer.swarm.handle_datagrams(SocketId::MAIN, from.into(), &packet, packet.len(), now);
        peer.swarm.end_of_batch(now);
    });
    packet.len()
}

fn victim() -> SocketAddrV4 {
    SocketAddrV4::new([90, 0, 0, 1].into(), 5000)
}

/// Who makes a relayed stream believe that its peer is at a victim's address has three bytes sent there for each of his, however
/// often it is tried, and a second later all goes through the relay again.
#[test]
fn a_forged_direct_way_gets_three_bytes_for_one_and_costs_no_connection() {
    let mut lab = Lab::new(4, 0.0);
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![lab.key]);
    lab.connected(a, b, Duration::from_secs(5)).unwrap();
    assert!(lab.carries(a, b));
    let conn = lab.network.open(a)[0];
    lab.network.send_frame(a, conn, &[7; 8_000_000]);
    lab.network.run(Duration::from_millis(300));
    let to_victim = Rc::new(Cell::new(0));
    let count = to_victim.clone();
    lab.network.tap = Some(Box::new(move |datagram| {
        let len = if datagram.to == victim() { datagram.bytes.len() } else { 0 };
        count.set(count.get() + len);
        true
    }));
    let sent = |lab: &Lab| lab.network.machines[a].swarm.udx.stats(conn.stream());
    let sent = |lab: &Lab| sent(lab).unwrap().bytes_sent;
    let before = sent(&lab);
    let forged = forge_from(&mut lab, a, conn.stream(), victim());
    let leads_to = lab.network.machines[a].swarm.udx.remote(conn.stream());
    assert_eq!(leads_to, Some(victim().into()));
    lab.network.run(Duration::from_millis(1900));
    assert!(lab.is_relayed(a) && lab.is_relayed(b));
    assert!(sent(&lab) - before > 100_000);
    let all = |n: &Network| n.frames(b).iter().any(|frame| frame.len() == 8_000_000);
    assert!(lab.network.run_until(Duration::from_secs(30), all).is_some());
    assert!((1..=3 * forged).contains(&to_victim.get()), "{} bytes", to_victim.get());
    lab.network.send_frame(a, conn, &[7; 1_000_000]);
    lab.network.run(Duration::from_secs(100));
    assert!((1..=3 * forged).contains(&to_victim.get()), "{} bytes", to_victim.get());
}

/// Both could go directly, and one is made to believe that its peer is at a victim's address.
#[test]
fn a_forged_direct_way_keeps_nobody_from_the_true_one() {
    for kinds in [(Kind::Port, Kind::Sym), (Kind::Sym, Kind::Port)] {
        for seed in 11..14 {
            let mut lab = Lab::new(seed, 0.0);
            let a = lab.sharer(kinds.0, vec![]);
            let b = lab.reader(kinds.1, vec![lab.key]);
            let leg = |n: &Network| {
                let swarm = &n.machines[a].swarm;
                let mut streams = swarm.connections.streams().into_iter();
                streams.find(|stream| swarm.udx.leg(*stream).is_some())
            };
            lab.network.run_until(Duration::from_secs(5), |n| leg(n).is_some()).unwrap();
            let stream = leg(&lab.network).unwrap();
            forge_from(&mut lab, a, stream, victim());
            lab.network.run(Duration::from_secs(150));
            let closed = [a, b].map(|i| lab.network.closed(i).len());
            assert_eq!(closed, [0, 0], "{kinds:?}, {seed}");
            assert!(!lab.is_relayed(a) && !lab.is_relayed(b), "{kinds:?}, {seed}");
            assert!(lab.carries(a, b));
        }
    }
}

/// Whoever named it, and wherever it is: it only costs time.
#[test]
fn a_relay_that_passes_nothing_on_keeps_nobody_apart_who_has_a_direct_way() {
    for kind in [Kind::Port, Kind::Full, Kind::Addr] {
        let mut lab = Lab::with_black_hole(3);
        lab.network.every_link(|link| link.latency = Duration::from_millis(60));
        lab.relay_seeds();
        let a = lab.sharer(Kind::Sym, vec![]);
        let b = behind(&mut lab.network, kind, 2, vec![]);
        // The relay is half way.
        for (from, to) in [a, b].into_iter().flat_map(|i| [(i, lab.relay), (lab.relay, i)]) {
            lab.network.link(from, to).cfg.latency = Duration::from_millis(30);
        }
        lab.network.join(b, TOPIC, CLIENT);
        let took = lab.meet(a, b, Duration::from_secs(60));
        println!("a seed: {kind:?}: {took:?}");
        assert!(took.is_some_and(|took| took < Duration::from_secs(3)), "{kind:?}: {took:?}");
        assert!(!lab.is_relayed(a) || !lab.is_relayed(b), "{kind:?}");
    }
    for by_sharer in [true, false] {
        let mut lab = Lab::with_black_hole(3);
        let named = |yes| if yes { vec![lab.key] } else { vec![] };
        let (of_a, of_b) = (named(by_sharer), named(!by_sharer));
        let a = lab.sharer(Kind::Sym, of_a);
        let b = lab.reader(Kind::Port, of_b);
        let took = lab.meet(a, b, Duration::from_secs(60));
        println!("named by the sharer: {by_sharer}: {took:?}");
        assert!(took.is_some_and(|took| took < Duration::from_secs(3)), "{by_sharer}: {took:?}");
        assert!(lab.carries(a, b));
    }
}

#[test]
fn a_race_of_black_hole_and_punch_never_hangs() {
    let kinds = [Kind::Open, Kind::Full, Kind::Addr, Kind::Port, Kind::Cgnat, Kind::Sym];
    let mut longest = Duration::ZERO;
    for seed in 0..crate::sim::cases(18).cases as u64 {
        let mut lab = Lab::with_black_hole(seed);
        let latency = Duration::from_millis([5, 20, 60, 150][seed as usize % 4]);
        lab.network.every_link(|link| (link.latency, link.loss) = (latency, 0.02));
        let a = kinds[seed as usize % kinds.len()];
        let b = kinds[(seed as usize / 3) % (kinds.len() - 1)];
        let names = |side: u64| if seed & 1 == side { vec![lab.key] } else { vec![] };
        let (of_a, of_b) = (names(0), names(1));
        let (a, b) = (lab.sharer(a, of_a), lab.reader(b, of_b));
        let took = lab.meet(a, b, Duration::from_secs(20));
        longest = longest.max(took.unwrap_or_else(|| panic!("seed {seed} hangs")));
        assert!(lab.carries(a, b), "seed {seed}");
    }
    println!("{longest:?}");
}

/// There is no direct way. The nearest seed pairs and passes nothing on, another one is honest.
#[test]
fn a_relay_through_which_nothing_was_heard_is_not_named_again() {
    let mut lab = Lab::with_black_hole(6);
    let honest = behind(&mut lab.network, Kind::Open, 101, vec![]);
    relays(&mut lab.network, honest, RelayLimits::default());
    lab.network.join(honest, TOPIC, SERVER);
    lab.relay_seeds();
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = behind(&mut lab.network, Kind::Sym, 2, vec![]);
    for (from, to) in [(b, lab.relay), (lab.relay, b)] {
        lab.network.link(from, to).cfg.latency = Duration::from_millis(2);
    }
    lab.network.join(b, TOPIC, CLIENT);
    let took = lab.meet(a, b, Duration::from_secs(60));
    println!("{took:?}");
    assert!(took.is_some_and(|took| took < Duration::from_secs(15)), "{took:?}");
}

/// Whoever had noted it for absent, again and again, looks at it anew.
#[test]
fn those_who_need_a_relay_meet_soon_after_it_is_back() {
    for (seed, seeds) in [(5, true), (6, true), (7, true), (5, false), (6, false), (7, false)] {
        let mut lab = Lab::new(seed, 0.0);
        if seeds {
            lab.relay_seeds();
        }
        let a = lab.sharer(Kind::Sym, vec![]);
        let b = lab.reader(Kind::Sym, if seeds { vec![] } else { vec![lab.key] });
        assert!(lab.meet(a, b, Duration::from_secs(20)).is_some(), "{seed}");
        let hour = Duration::from_secs(3600);
        lab.network.freeze(lab.relay, hour);
        lab.network.run(hour);
        let took = lab.meet(a, b, Duration::from_secs(120));
        assert!(took.is_some(), "{seed}, as a seed: {seeds}");
    }
}

/// What people are told: through whom it goes, and how fast just now.
#[test]
fn both_ends_and_the_relay_know_how_fast_it_goes() {
    let mut lab = Lab::new(5, 0.0);
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![lab.key]);
    assert!(lab.connected(a, b, Duration::from_secs(20)).is_some());
    let r = lab.relay;
    let status = |lab: &mut Lab, i: usize| {
        lab.network.on(i, |peer, now| peer.swarm.measure(now));
        lab.network.machines[i].swarm.status()
    };
    assert_eq!(status(&mut lab, a).relaying, None);
    let idle = status(&mut lab, r).relaying.unwrap();
    assert_eq!((idle.key, idle.customers, idle.pairs), (lab.key, 2, 1));
    // A megabyte a second.
    let [conn, other] = [a, b].map(|i| lab.network.open(i)[0]);
    for _ in 0..100 {
        lab.network.send_frame(a, conn, &[7; 100_000]);
        lab.network.on(b, |peer, _| peer.swarm.consumed(other, 100_000));
        lab.network.run(Duration::from_millis(100));
    }
    let near = |rate: u64| (900_000..1_100_000).contains(&rate);
    let (sender, reader) = (status(&mut lab, a), status(&mut lab, b));
    let (sent, got) = (&sender.connections[0], &reader.connections[0]);
    assert!(near(sent.sending) && sent.receiving < 1000, "{sent:?}");
    assert!(near(got.receiving) && got.sending < 1000, "{got:?}");
    assert_eq!((sent.relay, got.relay), (Some(lab.key), Some(lab.key)));
    let relay = status(&mut lab, r).relaying.unwrap();
    assert!(
        relay.passed > 10_000_000 && (950_000..1_200_000).contains(&relay.passing),
        "{relay:?}"
    );
    lab.network.run(Duration::from_secs(10));
    let (sender, relay) = (status(&mut lab, a), status(&mut lab, r).relaying.unwrap());
    assert!(sender.connections[0].sending < 1000 && relay.passing < 1000, "{sender:?} {relay:?}");
}
