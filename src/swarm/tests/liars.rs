//! Nodes of the DHT, relays and peers that lie about others.

use super::super::connections::{CONFIRM_WAIT, PLACE_WAIT};
use super::super::hyperdht::{Agreed, RelayOffer, Relays};
use super::super::relay::controls::Control;
use super::super::relay::messages::{PROTOCOLS, Pair};
use super::super::secret_stream::frame::Sealer;
use super::super::secret_stream::noise::SessionKeys;
use super::super::udx::packet::{Header, flag};
use super::super::udx::{ConnectOptions, Sink, UdxConfig};
use super::super::*;
use super::relaying::{CLIENT, Lab, SERVER, TOPIC, behind};
use super::sim::Script;
use crate::codec::FrameBuf;
use crate::sim::{Kind, Outgoing};
use crate::swarm::dht_rpc::message::Message;
use crate::swarm::dht_rpc::{Request, Response};
use crate::swarm::hyperdht::messages::{Mode, PeerHandshake, command};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// What a node does that sends the handshakes of clients on to the server at `host`, as soon as it knows its port, in its
/// own name; and that, if it is `bold`, tells the client what it was answered.
fn in_its_own_name(host: Ipv4Addr, bold: bool) -> Script {
    let (mut server, mut clients) = (None, Vec::new());
    Box::new(move |datagram, out| {
        if *datagram.from.ip() == host {
            server = Some(datagram.from);
        }
        match Message::decode(&datagram.bytes) {
            Ok(Message::Request(request))
                if !request.internal && request.command == command::PEER_HANDSHAKE =>
            {
                let value = request.value.as_deref().unwrap_or_default();
                let Ok(m) = PeerHandshake::decode(value) else { return };
                if let (Some(to), Mode::FromClient) = (server, m.mode) {
                    if !bold {
                        let (nonce, target, noise) = ([1; 16], request.target.unwrap(), m.noise);
                        let hurried = inquiry::Message::Handshake { nonce, target, noise };
                        return out.push(Outgoing::new(to, hurried.encode()));
                    }
                    // Under a number of its own.
                    let own = Request {
                        tid: 40_000 + clients.len() as u16,
                        to,
                        id: None,
                        ..request.clone()
                    };
                    out.push(Outgoing::new(to, own.encode()));
                    clients.push((own.tid, request.tid, datagram.from));
                }
            }
            Ok(Message::Response(response)) if bold => {
                let asked = clients.iter().find(|(own, ..)| *own == response.tid);
                let value = response.value.as_deref().and_then(|v| PeerHandshake::decode(v).ok());
                if let (Some((_, tid, client)), Some(m)) = (asked, value) {
                    let m = PeerHandshake { peer: server, ..m };
                    let (tid, to, value) = (*tid, *client, Some(m.encode()));
                    let lie = Response { tid, to, value, token: None, closer: vec![], ..response };
                    out.push(Outgoing::new(*client, lie.encode()));
                }
            }
            _ => {}
        }
    })
}

/// How long two behind such routers take, where two nodes of eight, nearer than the others, do so.
fn beside_two_in_their_own_name(seed: u64, bold: bool) -> Option<Duration> {
    let mut lab = Lab::new(seed, 0.0);
    for liar in [2, 3] {
        lab.network.machines[liar].script = Some(in_its_own_name([80, 0, 1, 1].into(), bold));
    }
    let a = lab.sharer(Kind::Port, vec![]);
    let b = behind(&mut lab.network, Kind::Port, 2, vec![]);
    for liar in [2, 3] {
        for (from, to) in [a, b].into_iter().flat_map(|i| [(i, liar), (liar, i)]) {
            lab.network.link(from, to).cfg.latency = Duration::from_millis(5);
        }
    }
    lab.network.run(Duration::from_secs(3));
    lab.network.join(b, TOPIC, CLIENT);
    lab.meet(a, b, Duration::from_secs(60))
}

#[test]
fn a_node_that_sends_handshakes_on_in_its_own_name_keeps_nobody_apart() {
    for bold in [false, true] {
        for seed in 1..9 {
            let took = beside_two_in_their_own_name(seed, bold);
            println!("{bold} {seed}: {took:?}");
            assert!(
                took.is_some_and(|took| took < Duration::from_secs(2)),
                "{bold} {seed}: {took:?}"
            );
        }
    }
}

/// Somebody who holds the drive says that the key of an honest other is its relay: nobody goes there.
#[test]
fn whose_key_a_peer_offers_as_its_relay_is_left_alone() {
    let mut lab = Lab::new(6, 0.0);
    let other = behind(&mut lab.network, Kind::Open, 70, vec![]);
    lab.network.join(other, Topic([99; 32]), SERVER);
    lab.network.run(Duration::from_secs(5));
    let (key, by) = (lab.network.key(other), lab.network.key(lab.relay));
    let own = RelayOffer::new(&KeyPair::from_seed(&[6; 32]), &by);
    lab.network
        .on(lab.relay, |peer, _| peer.swarm.dht.offer_relay(Some(RelayOffer { key, ..own })));
    lab.relay_seeds();
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![]);
    lab.meet(a, b, Duration::from_secs(60));
    assert_eq!(lab.network.connected(other), []);
    for i in [a, b] {
        assert!(lab.network.machines[i].swarm.connections.iter().all(|c| c.offers.is_none()));
    }
}

/// The nearest seed has a relay that nobody can reach, another one is honest.
#[test]
fn a_relay_that_is_none_is_not_named_again() {
    let mut lab = Lab::new(6, 0.0);
    let (by, nobody) = (lab.network.key(lab.relay), KeyPair::from_seed(&[77; 32]));
    let offer = RelayOffer::new(&nobody, &by);
    lab.network.on(lab.relay, |peer, _| peer.swarm.dht.offer_relay(Some(offer)));
    let honest = behind(&mut lab.network, Kind::Open, 101, vec![]);
    super::relaying::relays(&mut lab.network, honest, RelayLimits::default());
    lab.network.join(honest, TOPIC, SERVER);
    lab.relay_seeds();
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = behind(&mut lab.network, Kind::Sym, 2, vec![]);
    for (from, to) in [(b, lab.relay), (lab.relay, b)] {
        lab.network.link(from, to).cfg.latency = Duration::from_millis(2);
    }
    lab.network.join(b, TOPIC, CLIENT);
    let took = lab.meet(a, b, Duration::from_secs(120));
    println!("{took:?}");
    assert!(took.is_some_and(|took| took < Duration::from_secs(4)), "{took:?}");
}

/// A stream of a customer to the relay of a lab, by hand.
struct Customer {
    lab: Lab,
    udx: Udx,
    sealer: Sealer,
    /// The numbers of the stream, there and here.
    local_id: u32,
    stream: u32,
    key: PublicKey,
    now: Instant,
}

impl Customer {
    fn new() -> Self {
        let mut lab = Lab::new(7, 0.0);
        let (now, to) = (lab.network.now, lab.network.addr(lab.relay).into());
        let remote = PublicKey(KeyPair::from_seed(&[88; 32]).public());
        let (local_id, stream) = (0x10_0000, 0x20_0000);
        let keys = |tx, rx, initiator| SessionKeys { tx, rx, hash: [9; 64], remote, initiator };
        let (agreed, relays) = (keys([4; 32], [3; 32], false), Relays::default());
        let (dial, big_datagrams, remote_id) = (None, false, stream);
        let agreed = Agreed { keys: agreed, local_id, remote_id, dial, big_datagrams, relays };
        lab.network.machines[lab.relay].swarm.accept_customer(agreed, now);
        let mut udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
        udx.open(Some(stream)).unwrap();
        udx.connect(stream, SocketId::MAIN, local_id, to, ConnectOptions::default(), now);
        let sealer = Sealer::new(&keys([3; 32], [4; 32], true), [1; 24]);
        udx.write(stream, sealer.header().to_vec().into(), now).unwrap();
        Self { lab, udx, sealer, local_id, stream, key: remote, now }
    }

    fn say(&mut self, frame: FrameBuf) {
        let bytes = self.sealer.seal(frame).unwrap();
        self.udx.write(self.stream, bytes, self.now).unwrap();
    }

    fn relay(&mut self) -> &mut Swarm {
        &mut self.lab.network.machines[self.lab.relay].swarm
    }

    /// Asks for both halves of a pair, which is passed on from then on.
    fn pair(&mut self) {
        let mux = crate::mux::Mux::new(PROTOCOLS);
        let mut control = Control { mux, channel: None, serves: false };
        control.open(&self.key.0);
        for initiator in [true, false] {
            control.say_pair(&Pair { initiator, token: [5; 32], id: 77, seq: 0 });
        }
        while let Some(frame) = control.mux.poll_transmit() {
            self.say(frame);
        }
    }

    /// 50 ms, in which it is at `from`, and hears what is sent there if it is `there`.
    fn run(&mut self, from: SocketAddr, there: bool) {
        self.now += Duration::from_millis(50);
        let (now, relay) = (self.now, self.lab.relay);
        let addr = self.lab.network.addr(relay).into();
        let swarm = &mut self.lab.network.machines[relay].swarm;
        self.udx.handle_timeout(now);
        let mut buf = Vec::new();
        while self.udx.poll_transmit(now, &mut buf, 1).is_some() {
            swarm.handle_datagrams(SocketId::MAIN, from, &buf, buf.len(), now);
        }
        swarm.handle_timeout(now);
        swarm.end_of_batch(now);
        while let Some(transmit) = swarm.poll_transmit(now, &mut buf, 1) {
            if there && transmit.to == from {
                self.udx.handle_datagram(SocketId::MAIN, addr, &buf, now, &mut Ignore);
                self.udx.end_of_batch(now);
            }
        }
    }

    fn legs(&mut self) -> usize {
        let id = self.local_id;
        self.relay().relay.as_ref().unwrap().server.legs(id).count()
    }

    fn is_proven(&mut self) -> bool {
        let id = self.local_id;
        self.relay().controls.table.by_stream(id).unwrap().proven
    }
}

struct Ignore;

impl Sink for Ignore {
    fn data(&mut self, _: u32, _: &[u8]) {}
}

/// A customer whose first packets come in the name of a victim, and then from where it is: what it had joined in the
/// victim's name leads there no more.
#[test]
fn a_customer_that_was_at_a_victims_before_has_no_leg_there() {
    let [victim, real] = [90, 91].map(|host| SocketAddr::from(([host, 0, 0, 1], 5000)));
    let mut customer = Customer::new();
    customer.pair();
    // Blind at first.
    (0..60).for_each(|_| customer.run(victim, false));
    assert_eq!((customer.legs(), customer.is_proven()), (2, false));
    customer.udx.beat(customer.stream);
    for _ in 0..340 {
        customer.run(real, true);
        if customer.is_proven() {
            break;
        }
    }
    assert_eq!((customer.legs(), customer.is_proven()), (0, true));
}

/// Nobody has a seat for long who says nothing with his keys, as who copies a first packet; nor who never shows where he
/// is, though legs are joined for him and something comes in his name now and then.
#[test]
fn a_customer_that_does_not_show_who_or_where_it_is_does_not_stay() {
    let [victim, real] = [90, 91].map(|host| SocketAddr::from(([host, 0, 0, 1], 5000)));
    let mut customer = Customer::new();
    let id = customer.local_id;
    let mut stays = |seconds: u64| {
        (0..20 * seconds).for_each(|_| customer.run(real, true));
        customer.relay().controls.has(id)
    };
    assert!(stays(CONFIRM_WAIT.as_secs() - 1) && !stays(2));

    let mut customer = Customer::new();
    customer.pair();
    (0..60).for_each(|_| customer.run(victim, false));
    // His own stream has given up by now, and he speaks so seldom that ours cannot ask often enough to do so.
    customer.udx = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let (flags, stream) = (flag::HEARTBEAT, id);
    let beat = Header { flags, data_offset: 0, stream, window: 4 << 20, seq: 3, ack: 0 }.encode();
    let begun = customer.now;
    while customer.relay().controls.has(id) {
        assert!(customer.now < begun + PLACE_WAIT);
        let (now, relay) = (customer.now, customer.relay());
        relay.handle_datagrams(SocketId::MAIN, victim, &beat, beat.len(), now);
        relay.end_of_batch(now);
        (0..80).for_each(|_| customer.run(victim, false));
    }
    assert!(customer.now > begun + PLACE_WAIT / 2, "{:?}", customer.now - begun);
}

#[test]
fn a_customer_that_says_too_much_at_once_is_none() {
    let at = SocketAddr::from(([91, 0, 0, 1], 5000));
    for (len, stays) in [(1000, true), (100_000, false)] {
        let mut customer = Customer::new();
        (0..20).for_each(|_| customer.run(at, true));
        let id = customer.local_id;
        assert!(customer.relay().controls.has(id));
        // Of a channel that nobody opened, which counts for nothing.
        let mut frame = vec![0; len];
        frame[0] = 99;
        customer.say(FrameBuf::from(&frame[..]));
        (0..20).for_each(|_| customer.run(at, true));
        assert_eq!(customer.relay().controls.has(id), stays, "{len} bytes");
    }
}
