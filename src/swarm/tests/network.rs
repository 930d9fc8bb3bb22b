//! Whole networks in virtual time: full nodes of a DHT and peers on it, over a path that loses and delays.
//! A run is replayed from its seed.

use super::super::*;
use crate::crypto::KeyPair;
use crate::sim::{Link, LinkConfig, epoch};
use crate::swarm::hyperdht::ConnectError;
use std::net::Ipv4Addr;

const TOPIC: Topic = Topic([7; 32]);
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const BOTH: JoinOptions = JoinOptions { server: true, client: true };

/// A datagram under way.
#[derive(Clone)]
struct Parcel {
    from: SocketAddrV4,
    to: SocketAddrV4,
    bytes: Vec<u8>,
}

struct Network {
    now: Instant,
    swarms: Vec<Swarm>,
    events: Vec<Vec<SwarmEvent>>,
    link: Link<Parcel>,
    seed: u64,
    /// Machines that stand still until then, and what has come for them meanwhile.
    frozen: BTreeMap<usize, (Instant, Vec<Parcel>)>,
}

/// What a socket keeps for a process that does not read; 212,992 bytes by Linux' default, counted as whole
/// pages for small datagrams.
const SOCKET_QUEUE: usize = 250;

/// All behind one router, each machine with an address of its own.
fn addr(i: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, i as u8 + 1), 4000)
}

impl Network {
    /// Four full nodes of a DHT.
    fn new(seed: u64, loss: f64) -> Self {
        Self::of_nodes(4, seed, loss)
    }

    fn of_nodes(nodes: usize, seed: u64, loss: f64) -> Self {
        let config = LinkConfig { loss, latency: Duration::from_millis(3), ..Default::default() };
        let link = Link::new(config, seed);
        let (swarms, events, frozen) = (vec![], vec![], BTreeMap::new());
        let mut network = Self { now: epoch(), swarms, events, link, seed, frozen };
        for _ in 0..nodes {
            network.add(true);
            network.run(Duration::from_secs(10));
        }
        network
    }

    fn add(&mut self, persistent: bool) -> usize {
        let i = self.swarms.len();
        let config = self.config(i, persistent);
        let rng = StdRng::seed_from_u64(self.seed << 8 | i as u64);
        self.swarms.push(Swarm::new(config, rng, self.now));
        self.events.push(vec![]);
        i
    }

    fn config(&self, i: usize, persistent: bool) -> SwarmConfig {
        SwarmConfig {
            key_pair: KeyPair::from_seed(&[self.seed as u8 ^ (i as u8) << 4; 32]),
            bootstrap: if i == 0 { vec![] } else { vec![addr(0)] },
            persistent,
            address: persistent.then(|| addr(i)),
            local_addresses: vec![addr(i)],
            unix_ms: 0,
            limits: Limits::default(),
        }
    }

    fn settle(&mut self) {
        for (i, swarm) in self.swarms.iter_mut().enumerate() {
            let mut buf = Vec::new();
            while let Some(transmit) = swarm.poll_transmit(self.now, &mut buf, 10) {
                let size = transmit.segment_size.unwrap_or(buf.len());
                for bytes in buf.chunks(size.max(1)) {
                    let parcel = Parcel { from: addr(i), to: transmit.to, bytes: bytes.to_vec() };
                    self.link.send(self.now, bytes.len(), parcel);
                }
            }
            while let Some(event) = swarm.poll_event() {
                self.events[i].push(event);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`, at most for `time`. Answers how long it took, if it came to be.
    fn run_until(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (start, end) = (self.now, self.now + time);
        loop {
            self.settle();
            if done(self) {
                return Some(self.now - start);
            }
            let frozen = &self.frozen;
            let timers = self.swarms.iter_mut().enumerate();
            let timers = timers.filter(|(i, _)| !frozen.contains_key(i));
            let timers = timers.filter_map(|(_, swarm)| swarm.poll_timeout());
            let thaws = frozen.values().map(|(until, _)| *until);
            let next = timers.chain(thaws).chain(self.link.next_arrival()).min();
            let Some(at) = next.filter(|&at| at <= end) else { break };
            self.now = self.now.max(at);
            self.thaw();
            while let Some(parcel) = self.link.receive(self.now) {
                let to = usize::from(parcel.to.ip().octets()[3]) - 1;
                match self.frozen.get_mut(&to) {
                    Some((_, queue)) if queue.len() < SOCKET_QUEUE => queue.push(parcel),
                    Some(_) => {}
                    None => self.deliver(to, &[parcel]),
                }
            }
            for (i, swarm) in self.swarms.iter_mut().enumerate() {
                let awake = !self.frozen.contains_key(&i);
                if awake && swarm.poll_timeout().is_some_and(|at| at <= self.now) {
                    swarm.handle_timeout(self.now);
                }
            }
        }
        self.now = end;
        None
    }

    fn deliver(&mut self, to: usize, parcels: &[Parcel]) {
        let Some(swarm) = self.swarms.get_mut(to) else { return };
        for Parcel { from, bytes, .. } in parcels {
            swarm.handle_datagrams(SocketId::MAIN, *from, bytes, bytes.len(), self.now);
        }
        swarm.end_of_batch(self.now);
    }

    /// Machine `i` stands still: it reads nothing, and its timers come late and all at once.
    fn freeze(&mut self, i: usize, time: Duration) {
        self.settle();
        self.frozen.insert(i, (self.now + time, vec![]));
    }

    /// Those whose time has come read what is in their sockets; their timers follow.
    fn thaw(&mut self) {
        let now = self.now;
        let over = self.frozen.iter().filter(|(_, (until, _))| *until <= now);
        for i in over.map(|(&i, _)| i).collect::<Vec<_>>() {
            let (_, queue) = self.frozen.remove(&i).unwrap_or((now, vec![]));
            self.deliver(i, &queue);
        }
    }

    fn join(&mut self, i: usize, options: JoinOptions) {
        self.swarms[i].join(TOPIC, options, self.now);
    }

    /// Connections of `i` that its owner knows of.
    fn open(&self, i: usize) -> Vec<ConnId> {
        let mut open = Vec::new();
        for event in &self.events[i] {
            match event {
                SwarmEvent::Connected { conn, .. } => open.push(*conn),
                SwarmEvent::Closed { conn, .. } => open.retain(|c| c != conn),
                _ => {}
            }
        }
        open
    }

    /// Whether `i` got a frame of this content.
    fn heard(&self, i: usize, data: &[u8]) -> bool {
        self.frames(i).contains(&data)
    }

    fn frames(&self, i: usize) -> Vec<&[u8]> {
        fn frame(event: &SwarmEvent) -> Option<&[u8]> {
            match event {
                SwarmEvent::Frame { data, .. } => Some(&data[..]),
                _ => None,
            }
        }
        self.events[i].iter().filter_map(frame).collect()
    }

    /// Sends over the only connection of `i`, and sees that it arrives at `to`.
    fn send(&mut self, i: usize, to: usize, data: &[u8]) {
        let conn = self.open(i)[0];
        self.swarms[i].send(conn, FrameBuf::from(data), self.now);
        let arrived = |n: &Self| n.frames(to).last() == Some(&data);
        let took = self.run_until(Duration::from_secs(60), arrived);
        assert!(took.is_some(), "seed {}: {} bytes never came", self.seed, data.len());
    }
}

#[test]
fn a_client_finds_a_server_and_they_talk() {
    for (seed, loss) in (0..6).map(|seed| (seed, 0.02 * seed as f64)) {
        let mut network = Network::new(seed, loss);
        let (a, b) = (network.add(false), network.add(false));
        network.join(a, SERVER);
        network.run(Duration::from_secs(15));
        network.join(b, CLIENT);
        let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
        let took = network.run_until(Duration::from_secs(60), both);
        let took = took.unwrap_or_else(|| panic!("seed {seed}: no connection"));
        assert!(loss > 0.0 || took < Duration::from_millis(200), "seed {seed}: {took:?}");
        network.send(b, a, b"what have you got?");
        network.send(a, b, &vec![seed as u8; 300_000]);
    }
}

#[test]
fn mounting_before_sharing_connects_within_seconds() {
    let mut network = Network::new(1, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    network.join(b, CLIENT);
    network.run(Duration::from_secs(20));
    let nobody = |e: &SwarmEvent| matches!(e, SwarmEvent::Settled { connected: 0, .. });
    assert!(network.events[b].iter().any(nobody));
    network.join(a, SERVER);
    let took = network.run_until(Duration::from_secs(60), |n| !n.open(b).is_empty());
    assert!(took.is_some_and(|took| took < Duration::from_secs(20)), "{took:?}");
}

#[test]
fn a_server_counts_as_announced_once_a_node_holds_its_record() {
    let link = Link::new(LinkConfig::default(), 1);
    let (now, frozen) = (epoch(), BTreeMap::new());
    let mut network = Network { now, swarms: vec![], events: vec![], link, seed: 1, frozen };
    let server = network.add(false);
    let config = SwarmConfig { bootstrap: vec![addr(1)], ..network.config(server, false) };
    network.swarms[server] = Swarm::new(config, StdRng::seed_from_u64(1), network.now);
    network.join(server, SERVER);
    let announced = |n: &Network| {
        let done = |e: &SwarmEvent| matches!(e, SwarmEvent::Round { announced: true, .. });
        n.events[server].iter().any(done)
    };
    assert_eq!(network.run_until(Duration::from_secs(60), announced), None, "nobody is there");
    network.add(true);
    let took = network.run_until(Duration::from_secs(60), announced);
    assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "{took:?}");
}

#[test]
fn a_swarm_whose_nodes_are_still_looked_up_asks_nobody_and_then_gets_on() {
    let mut network = Network::new(5, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    network.join(a, SERVER);
    network.run(Duration::from_secs(5));
    let config = SwarmConfig { bootstrap: vec![], ..network.config(b, false) };
    network.swarms[b] = Swarm::new(config, StdRng::seed_from_u64(7), network.now);
    network.swarms[b].await_bootstrap();
    network.join(b, CLIENT);
    network.run(Duration::from_secs(8));
    let settled = |e: &SwarmEvent| matches!(e, SwarmEvent::Settled { .. });
    assert!(!network.events[b].iter().any(settled), "nobody was asked, so nothing is known");
    // The resolver gives up: whoever waits is told that nobody was found.
    let now = network.now;
    network.swarms[b].set_bootstrap(vec![], now);
    network.run(Duration::from_secs(2));
    assert!(network.events[b].iter().any(settled));
    // The network comes up.
    let now = network.now;
    network.swarms[b].set_bootstrap(vec![addr(0)], now);
    let took = network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty());
    assert!(took.is_some_and(|took| took < Duration::from_secs(1)), "{took:?}");
}

#[test]
fn peers_that_all_look_and_announce_end_with_one_connection_each() {
    for seed in 0..3 {
        let mut network = Network::new(seed, 0.01);
        let peers: Vec<usize> = (0..4).map(|_| network.add(false)).collect();
        for &i in &peers {
            network.join(i, BOTH);
        }
        network.run(Duration::from_secs(90));
        for &i in &peers {
            assert_eq!(network.open(i).len(), 3, "seed {seed}, peer {i}");
        }
    }
}

#[test]
fn a_server_that_restarts_under_its_key_is_found_again() {
    let mut network = Network::new(2, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    network.join(a, SERVER);
    network.run(Duration::from_secs(5));
    network.join(b, CLIENT);
    network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty()).unwrap();
    // Its process dies and comes back, knowing nothing but its key.
    let config = network.config(a, false);
    network.swarms[a] = Swarm::new(config, StdRng::seed_from_u64(99), network.now);
    network.events[a].clear();
    network.join(a, SERVER);
    let again = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
    let took = network.run_until(Duration::from_secs(60), again);
    assert!(took.is_some_and(|took| took < Duration::from_secs(30)), "{took:?}");
    network.send(a, b, b"back");
}

#[test]
fn a_share_is_found_again_soon_after_the_only_nodes_of_the_dht_were_restarted() {
    // Away for a while, and back so soon that it was never missed.
    for (nodes, away) in [(1, 15), (1, 40), (1, 0), (2, 15), (2, 0)] {
        let mut network = Network::of_nodes(nodes, 3, 0.0);
        let a = network.add(false);
        network.join(a, SERVER);
        network.run(Duration::from_secs(62));
        for i in 0..nodes {
            network.freeze(i, Duration::from_secs(1000));
        }
        network.run(Duration::from_secs(away));
        network.frozen.clear();
        for i in 0..nodes {
            let config = network.config(i, true);
            network.swarms[i] = Swarm::new(config, StdRng::seed_from_u64(99), network.now);
        }
        network.run(Duration::from_secs(40));
        let b = network.add(false);
        network.join(b, CLIENT);
        let found = network.run_until(Duration::from_secs(5), |n| n.open(b).len() == 1);
        assert!(found.is_some(), "{nodes} nodes, away for {away} s");
        // And no more is sent for ever after than before.
        let rounds = |n: &Network| n.swarms[a].status().topics[0].rounds;
        let before = rounds(&network);
        network.run(Duration::from_secs(500));
        assert_eq!(rounds(&network), before);
    }
}

/// A machine that wakes up talks to its peer again within this: the longest an old connection takes to be
/// found dead, and the first retry after it.
const BACK_AGAIN: Duration = Duration::from_secs(25);

/// `who` of a server and a client stand still for `time`; afterwards what either says reaches the other.
fn stand_still(seed: u64, who: &[usize], time: Duration) {
    let mut network = Network::new(seed, 0.005 * (seed % 4) as f64);
    let (a, b) = (network.add(false), network.add(false));
    network.join(a, BOTH);
    network.run(Duration::from_secs(5));
    network.join(b, BOTH);
    let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
    network.run_until(Duration::from_secs(60), both).unwrap();
    // At any point of the keep-alive, or while there is much under way.
    network.run(Duration::from_millis(631 * (seed % 9)));
    if seed.is_multiple_of(2) {
        let conn = network.open(a)[0];
        network.swarms[a].send(conn, FrameBuf::from(&[7; 300_000][..]), network.now);
    }
    let all = [a, b];
    who.iter().for_each(|&i| network.freeze(all[i], time));
    network.run(time);
    let what = format!("seed {seed}: {who:?} stood still for {time:?}");
    let start = network.now;
    let mut attempt = 0u64;
    // Whoever talks does so every second; a connection that has died takes no notice of it.
    while !(network.heard(a, b"x") && network.heard(b, b"x")) {
        assert!(network.now - start < BACK_AGAIN, "{what}: {:?}", network.events);
        for i in all {
            for conn in network.open(i) {
                network.swarms[i].send(conn, FrameBuf::from(&b"x"[..]), network.now);
            }
        }
        attempt += 1;
        network.run(start + Duration::from_secs(attempt) - network.now);
    }
    network.run(Duration::from_secs(60));
    assert_eq!((network.open(a).len(), network.open(b).len()), (1, 1), "{what}");
}

#[test]
fn whoever_stood_still_is_back_within_seconds() {
    let times = [1, 5, 13, 20, 40, 180, 900];
    for (seed, (secs, who)) in times
        .into_iter()
        .flat_map(|t| [&[0][..], &[1], &[0, 1]].map(|w| (t, w)))
        .cycle()
        .take(84)
        .enumerate()
    {
        stand_still(seed as u64, who, Duration::from_secs(secs));
    }
}

#[test]
fn a_peer_that_stands_still_while_it_connects_is_back_within_seconds() {
    for seed in 0..40 {
        let mut network = Network::new(seed, 0.0);
        let (a, b) = (network.add(false), network.add(false));
        network.join(a, BOTH);
        network.run(Duration::from_secs(5));
        network.join(b, BOTH);
        // The whole way to an open connection is less than this.
        network.run(Duration::from_millis(2 * seed));
        let time = Duration::from_secs([1, 5, 12, 30][seed as usize % 4]);
        let who = [a, b][(seed / 4) as usize % 2];
        network.freeze(who, time);
        network.run(time);
        let both = |n: &Network| n.open(a).len() == 1 && n.open(b).len() == 1;
        let took = network.run_until(BACK_AGAIN, both);
        assert!(took.is_some(), "seed {seed}: {who} for {time:?}: {:?}", network.events);
        network.run(Duration::from_secs(40));
        assert!(both(&network), "seed {seed}: {:?}", network.events);
        network.send(a, b, b"here I am");
    }
}

#[test]
fn a_banned_peer_gets_no_answer_and_is_welcome_afterwards() {
    let mut network = Network::new(3, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    let key = PublicKey(network.config(b, false).key_pair.public());
    network.join(a, SERVER);
    network.run(Duration::from_secs(5));
    let now = network.now;
    network.swarms[a].ban(key, now + Duration::from_secs(60), now);
    network.join(b, CLIENT);
    network.run(Duration::from_secs(50));
    assert!(network.open(b).is_empty());
    let failed = |e: &SwarmEvent| match e {
        SwarmEvent::DialFailed { why, .. } => Some(why.clone()),
        _ => None,
    };
    let why: Vec<String> = network.events[b].iter().filter_map(failed).collect();
    assert!(
        !why.is_empty()
            && why.iter().all(|why| *why == ConnectError::PeerConnectionFailed.to_string()),
        "{why:?}"
    );
    let took = network.run_until(Duration::from_secs(200), |n| !n.open(b).is_empty());
    assert!(took.is_some());
}

#[test]
fn a_connection_is_let_go_when_its_topic_is_left_and_not_before() {
    let mut network = Network::new(4, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    network.join(a, SERVER);
    network.run(Duration::from_secs(5));
    network.join(b, CLIENT);
    network.run_until(Duration::from_secs(10), |n| !n.open(b).is_empty()).unwrap();
    let conn = network.open(b)[0];
    let topic = Topic([8; 32]);
    network.swarms[b].join(topic, CLIENT, network.now);
    network.swarms[b].leave(&topic, network.now);
    network.swarms[b].release(conn, network.now);
    network.run(Duration::from_secs(5));
    assert_eq!(network.open(b), [conn], "its peer was found under a topic that is joined");

    network.swarms[b].leave(&TOPIC, network.now);
    assert_eq!(network.open(b), [conn], "whoever uses it may go on");
    network.swarms[b].release(conn, network.now);
    network.run(Duration::from_secs(60));
    assert!(network.open(a).is_empty() && network.open(b).is_empty());
    // Nobody is dialled again, and nothing of the topic is left.
    let connected = |e: &&SwarmEvent| matches!(e, SwarmEvent::Connected { .. });
    assert_eq!(network.events[b].iter().filter(connected).count(), 1);
    assert!(network.swarms[b].status().topics.is_empty());
}

#[test]
fn it_is_told_how_the_peers_of_a_topic_stand() {
    let mut network = Network::new(5, 0.0);
    let (a, b) = (network.add(false), network.add(false));
    let reach = |n: &Network| n.swarms[b].status().reachability.get(&TOPIC).cloned().unwrap();
    network.join(b, CLIENT);
    network.run(Duration::from_secs(5));
    assert_eq!(reach(&network), Reachability::default());
    let key = PublicKey(network.config(b, false).key_pair.public());
    network.join(a, SERVER);
    network.run(Duration::from_secs(5));
    // It does not answer us.
    let until = network.now + Duration::from_secs(60);
    network.swarms[a].ban(key, until, network.now);
    network.run(Duration::from_secs(25));
    let refused = reach(&network);
    assert_eq!((refused.connected, refused.failed), (0, 1), "{refused:?}");
    assert_eq!(refused.why, Some(ConnectError::PeerConnectionFailed.to_string()));
    network.run_until(Duration::from_secs(200), |n| !n.open(b).is_empty()).unwrap();
    let found = reach(&network);
    assert_eq!((found.connected, found.failed, found.why), (1, 0, None));
}
