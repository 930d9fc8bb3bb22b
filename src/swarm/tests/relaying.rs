//! Peers that need a relay, and those that only think so.

use super::super::hyperdht::{Agreed, Relays};
use super::super::secret_stream::noise::SessionKeys;
use super::super::*;
use super::sim::{Network, Peer};
use crate::sim::{Kind, LinkConfig};
use std::time::Duration;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };

/// Some nodes of a DHT with ways of 20 ms, and a relay.
struct Lab {
    network: Network,
    relay: usize,
    key: PublicKey,
}

/// A swarm behind NATs of a kind.
fn behind(network: &mut Network, kind: Kind, n: u8, relays: Vec<PublicKey>) -> usize {
    let i = network.machines.len();
    let (realm, ip) = network.place(kind, n);
    let inner = SocketAddrV4::new(ip, 4000);
    let config = SwarmConfig { local_addresses: vec![inner], relays, ..network.config(i, false) };
    let peer = Peer::new(config, network.seed << 8 | i as u64, network.now);
    network.add_in(realm, inner, peer)
}

impl Lab {
    fn new(seed: u64, loss: f64) -> Self {
        let ms = Duration::from_millis;
        let pattern = LinkConfig { loss, latency: ms(20), jitter: ms(5), ..LinkConfig::default() };
        let mut network = Network::of_nodes(8, seed, pattern, Duration::from_secs(5));
        let relay = behind(&mut network, Kind::Open, 100, vec![]);
        let pair = Arc::new(KeyPair::from_seed(&[seed as u8; 32]));
        let key = PublicKey(pair.public());
        network.on(relay, |peer, now| {
            peer.swarm.set_relay(Some((pair, RelayLimits::default())), now);
        });
        network.run(Duration::from_secs(10));
        Self { network, relay, key }
    }

    /// Who shares, settled.
    fn sharer(&mut self, kind: Kind, relays: Vec<PublicKey>) -> usize {
        let sharer = behind(&mut self.network, kind, 1, relays);
        self.network.join(sharer, TOPIC, SERVER);
        self.network.run(Duration::from_secs(10));
        sharer
    }

    fn reader(&mut self, kind: Kind, relays: Vec<PublicKey>) -> usize {
        let reader = behind(&mut self.network, kind, 2, relays);
        self.network.join(reader, TOPIC, CLIENT);
        reader
    }

    /// How long it takes until both are connected.
    fn connected(&mut self, a: usize, b: usize, within: Duration) -> Option<Duration> {
        self.network.run_until(within, |n| n.open(b).len() == 1 && n.open(a).len() == 1)
    }

    /// Whether the connection of `i` goes through a relay.
    fn is_relayed(&self, i: usize) -> bool {
        let status = self.network.machines[i].swarm.status();
        status.connections.iter().any(|c| c.relay == Some(self.key))
    }

    /// Sends from `a` to `b` and back what takes many packets, and looks whether it comes.
    fn carries(&mut self, a: usize, b: usize) -> bool {
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
        lab.network.join(lab.relay, TOPIC, SERVER);
        lab.network.run(Duration::from_secs(5));
        let a = lab.sharer(kinds.0, vec![]);
        let b = lab.reader(kinds.1, vec![]);
        let keys = [a, b].map(|i| lab.network.key(i));
        let meet = |n: &Network| {
            let sees = |i: usize, key| {
                let status = n.machines[i].swarm.status();
                status.connections.iter().any(|c| c.open && c.remote == key)
            };
            sees(a, keys[1]) && sees(b, keys[0])
        };
        let took = lab.network.run_until(Duration::from_secs(20), meet);
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

/// Who makes a relayed stream believe that its peer is at a victim's address has a few packets sent there, and a second later
/// all goes through the relay again.
#[test]
fn a_forged_direct_way_gets_a_few_packets_and_costs_no_connection() {
    use super::super::udx::packet::{Header, flag};
    let mut lab = Lab::new(4, 0.0);
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![lab.key]);
    lab.connected(a, b, Duration::from_secs(5)).unwrap();
    assert!(lab.carries(a, b));
    let conn = lab.network.open(a)[0];
    lab.network.send_frame(a, conn, &[7; 8_000_000]);
    lab.network.run(Duration::from_millis(300));
    let victim = SocketAddr::from(([90, 0, 0, 1], 5000));
    let stream = conn.stream();
    let header =
        Header { flags: flag::HEARTBEAT, data_offset: 0, stream, window: 1, seq: 0, ack: 0 };
    let packet = header.encode();
    let sent = |lab: &Lab| lab.network.machines[a].swarm.udx.stats(stream).unwrap().bytes_sent;
    lab.network.on(a, |peer, now| {
        peer.swarm.handle_datagrams(SocketId::MAIN, victim, &packet, packet.len(), now);
        peer.swarm.end_of_batch(now);
        assert_eq!(peer.swarm.udx.remote(stream), Some(victim));
    });
    let before = sent(&lab);
    lab.network.run(Duration::from_millis(900));
    let went = sent(&lab) - before;
    assert!(went <= 16 << 10, "{went} bytes");
    lab.network.run(Duration::from_secs(1));
    assert!(lab.is_relayed(a) && lab.is_relayed(b));
    assert!(sent(&lab) - before > 100_000);
    let all = |n: &Network| n.frames(b).iter().any(|frame| frame.len() == 8_000_000);
    assert!(lab.network.run_until(Duration::from_secs(30), all).is_some());
}
