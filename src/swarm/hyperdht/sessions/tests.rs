//! What clients can make a server do, who say of themselves and of others what they like.

use super::*;
use crate::crypto::KeyPair;
use crate::sim::epoch;
use crate::swarm::dht_rpc::{Rpc, RpcConfig};
use crate::swarm::hyperdht::event::DhtConfig;
use crate::swarm::hyperdht::event::PUNCH_WAIT;
use crate::swarm::hyperdht::messages::Mode;
use crate::swarm::hyperdht::turns::Sort;
use rand::SeedableRng;
use rand::rngs::StdRng;

const HASH: [u8; 64] = [5; 64];

fn at(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new([20, 0, 0, host].into(), port)
}

/// Behind a NAT that shows everybody the same address.
fn net(now: Instant) -> Net {
    let mut net = net_at(Some(at(9, 9)), now);
    (0..2).for_each(|_| net.rpc.sample(at(9, 9)));
    assert_eq!(net.nat_verdict().0, Firewall::Consistent);
    net
}

/// And one that shows each another port.
fn random_net(now: Instant) -> Net {
    let mut net = net_at(None, now);
    (1..5).for_each(|port| net.rpc.sample(at(9, port)));
    assert_eq!(net.nat_verdict().0, Firewall::Random);
    net
}

fn net_at(address: Option<SocketAddrV4>, now: Instant) -> Net {
    let config =
        RpcConfig { bootstrap: vec![at(1, 1)], persistent: false, address, allow_bogons: false };
    let rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
    let config = DhtConfig::new(KeyPair::from_seed(&[1; 32]), vec![at(1, 1)]);
    let mut net = Net::new(rpc, config, StdRng::seed_from_u64(2), now);
    sent(&mut net);
    net
}

/// Where something was sent.
fn sent(net: &mut Net) -> Vec<SocketAddrV4> {
    std::iter::from_fn(|| net.rpc.poll_transmit()).map(|transmit| transmit.to).collect()
}

/// What a client says whom the relay sees at `peer`, and the answer.
fn say(
    sessions: &mut Sessions,
    payload: &HolepunchPayload,
    trusted: bool,
    (net, now): (&mut Net, Instant),
) -> Option<HolepunchPayload> {
    let secure = SecurePayload::new(holepunch_secret(&HASH), [7; 32]);
    let payload = secure.seal(payload, [1; 24]);
    let m = PeerHolepunch { mode: Mode::FromRelay, id: 0, payload, peer: Some(at(3, 3)) };
    sessions.on_message(&m, trusted, net, now).map(|sealed| secure.open(&sealed).unwrap())
}

fn client(host: u8, trusted: bool) -> Client {
    let by = trusted.then(|| at(2, 2));
    Client { host: *at(host, 0).ip(), by, firewall: Firewall::Unknown }
}

fn begun(net: &mut Net, now: Instant) -> Sessions {
    let mut sessions = Sessions::default();
    sessions.begin(&HASH, 1, client(3, true), net, now);
    sessions
}

fn told(firewall: Firewall, addresses: &[SocketAddrV4]) -> HolepunchPayload {
    HolepunchPayload { addresses: Some(addresses.to_vec()), ..HolepunchPayload::said(firewall) }
}

/// Datagrams to each host until all is over.
fn run(sessions: &mut Sessions, net: &mut Net) -> BTreeMap<std::net::Ipv4Addr, usize> {
    let mut hosts = BTreeMap::new();
    while let Some(at) = sessions.poll_timeout() {
        sessions.handle_timeout(net, at);
        sent(net).into_iter().for_each(|to| *hosts.entry(*to.ip()).or_default() += 1);
    }
    hosts
}

#[test]
fn clients_at_a_time_are_bounded() {
    let now = epoch();
    let (mut net, mut sessions) = (net(now), Sessions::default());
    for stream in 0..1000 {
        sessions.begin(&HASH, stream, client(stream as u8, true), &mut net, now);
    }
    assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
    run(&mut sessions, &mut net);
    assert!(sessions.by_id.is_empty(), "they end without a word of anybody");
}

#[test]
fn who_has_not_the_key_of_the_handshake_is_not_answered() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = Sessions::default();
    sessions.begin(&[6; 64], 1, client(3, true), &mut net, now);
    let payload = told(Firewall::Consistent, &[at(4, 4)]);
    assert_eq!(say(&mut sessions, &payload, true, (&mut net, now)), None);
    assert_eq!(sent(&mut net), []);
}

/// Whoever names addresses of others makes us send each of them hardly anything.
#[test]
fn named_addresses_get_a_few_punches() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let victims: Vec<_> = (10..200).map(|host| at(host, 4)).collect();
    let payload = HolepunchPayload { punching: true, ..told(Firewall::Consistent, &victims) };
    let answer = say(&mut sessions, &payload, true, (&mut net, now)).unwrap();
    assert!(answer.punching);
    let hosts = run(&mut sessions, &mut net);
    assert_eq!((hosts.len(), hosts.values().max()), (8, Some(&2)), "{hosts:?}");
}

/// Ports are tried only at a host that has shown, through a relay of ours, that it receives there.
#[test]
fn ports_are_tried_of_a_host_that_has_echoed_our_token() {
    let now = epoch();
    for (trusted, echoes) in [(true, true), (true, false), (false, true)] {
        let mut net = net(now);
        let mut sessions = begun(&mut net, now);
        let hello = told(Firewall::Random, &[at(3, 0)]);
        let answer = say(&mut sessions, &hello, true, (&mut net, now)).unwrap();
        let remote_token = answer.token.filter(|_| echoes);
        let ask = HolepunchPayload { punching: true, round: 1, remote_token, ..hello };
        let answer = say(&mut sessions, &ask, trusted, (&mut net, now)).unwrap();
        let proven = trusted && echoes;
        assert_eq!(answer.error == NoisePayload::ERROR_NONE, proven);
        let hosts = run(&mut sessions, &mut net);
        // And not without an end.
        assert_eq!(hosts.get(at(3, 0).ip()).copied(), proven.then_some(1750), "{hosts:?}");
    }
}

#[test]
fn a_token_is_given_through_our_relays_only() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let hello = told(Firewall::Consistent, &[at(3, 3)]);
    assert_eq!(say(&mut sessions, &hello, false, (&mut net, now)).unwrap().token, None);
}

fn ask(round: u64, addresses: &[SocketAddrV4]) -> HolepunchPayload {
    HolepunchPayload { punching: true, round, ..told(Firewall::Consistent, addresses) }
}

/// What is sent when each datagram is answered by a punch from where it went.
fn echoed(sessions: &mut Sessions, net: &mut Net, now: Instant) -> usize {
    let mut all = 0;
    loop {
        let to = sent(net);
        if to.is_empty() || all > 10_000 {
            return all;
        }
        all += to.len();
        for from in to {
            sessions.on_punch(SocketId::MAIN, from, net, now);
        }
    }
}

/// Two that answer each other, or one that answers itself, come to an end.
#[test]
fn punches_that_answer_punches_end() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    say(&mut sessions, &ask(1, &[at(4, 4)]), true, (&mut net, now));
    let mut all = 0;
    for second in 0..60 {
        let now = now + Duration::from_secs(second);
        sessions.handle_timeout(&mut net, now);
        all += echoed(&mut sessions, &mut net, now);
        let again = ask(2 + second, &[at(4, 4)]);
        say(&mut sessions, &again, true, (&mut net, now));
    }
    assert_eq!(all, 2 + ANSWERS as usize, "those of the rounds, and answers");
}

#[test]
fn nothing_is_sent_to_ourselves() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let answer = say(&mut sessions, &ask(1, &[at(9, 9)]), true, (&mut net, now)).unwrap();
    assert!(answer.punching);
    sessions.on_punch(SocketId::MAIN, at(9, 9), &mut net, now);
    assert_eq!(run(&mut sessions, &mut net), BTreeMap::new());
}

#[test]
fn a_punch_is_answered_to_whom_we_punch_and_nobody_else() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    say(&mut sessions, &told(Firewall::Consistent, &[at(4, 4)]), true, (&mut net, now));
    assert!(!sessions.on_punch(SocketId::MAIN, at(4, 4), &mut net, now), "nobody asked for it");
    say(&mut sessions, &ask(1, &[at(4, 4)]), true, (&mut net, now));
    assert!(sessions.on_punch(SocketId(7), at(4, 4), &mut net, now));
    assert!(!sessions.on_punch(SocketId(7), at(4, 5), &mut net, now), "a stranger");
    assert_eq!(sent(&mut net), [at(4, 4)]);
}

/// When a session is over of which something is said each 8 s.
fn life(said: impl Fn(u64) -> HolepunchPayload) -> Duration {
    let start = epoch();
    let mut net = net(start);
    let mut sessions = begun(&mut net, start);
    for second in 0.. {
        let now = start + Duration::from_secs(second);
        sessions.handle_timeout(&mut net, now);
        if sessions.by_id.is_empty() {
            return now - start;
        }
        if second % 8 == 0 {
            say(&mut sessions, &said(second), true, (&mut net, now));
        }
    }
    unreachable!()
}

#[test]
fn a_session_ends_however_much_is_said() {
    let talks = |round| HolepunchPayload { round, ..told(Firewall::Consistent, &[at(3, 3)]) };
    assert_eq!(life(talks), LIFE);
    let copy = |_| HolepunchPayload { round: 1, ..told(Firewall::Consistent, &[at(3, 3)]) };
    assert_eq!(life(copy), WAIT, "what was said before counts for nothing");
    assert!(life(|_| ask(1, &[at(4, 4)])) < Duration::from_secs(15), "nothing is proven");
}

#[test]
fn an_older_round_changes_nothing() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let hello = told(Firewall::Consistent, &[at(4, 4)]);
    let hello = HolepunchPayload { round: 5, ..hello };
    say(&mut sessions, &hello, true, (&mut net, now));
    let answer = say(&mut sessions, &ask(4, &[at(5, 5)]), true, (&mut net, now)).unwrap();
    assert!(!answer.punching);
}

#[test]
fn messages_are_answered_so_often() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let mut answered = 0;
    for round in 0..1000 {
        let hello = HolepunchPayload {
            round,
            remote_address: Some(at(9, 9)),
            ..told(Firewall::Consistent, &[])
        };
        answered += u32::from(say(&mut sessions, &hello, true, (&mut net, now)).is_some());
    }
    assert_eq!((answered, sent(&mut net).len()), (MESSAGES, QUICK as usize));
}

/// One host does not keep others out, nor does who comes by no relay of ours, in whose name ever.
#[test]
fn of_many_those_of_one_host_go_first() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = Sessions::default();
    let begin = |sessions: &mut Sessions, stream, client, net: &mut Net| {
        sessions.begin(&HASH, stream, client, net, now);
    };
    (0..10).for_each(|n| begin(&mut sessions, n, client(100 + n as u8, true), &mut net));
    (10..1000).for_each(|n| begin(&mut sessions, n, client(3, true), &mut net));
    assert_eq!(sessions.by_id.len(), 10 + MAX_OF_HOST);
    (1000..5000).for_each(|n| {
        let forged = Client { host: Ipv4Addr::from(0x0900_0000 + n), ..client(0, false) };
        begin(&mut sessions, n, forged, &mut net);
    });
    let streams = sessions.by_id.values().map(|session| session.stream);
    assert_eq!(streams.filter(|stream| *stream < 10).count(), 10);
    assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
}

/// A turn is free again as soon as there is nothing more to try.
#[test]
fn a_turn_ends_when_all_was_tried() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let hello = told(Firewall::Random, &[at(3, 0)]);
    let remote_token = say(&mut sessions, &hello, true, (&mut net, now)).unwrap().token;
    let ask = HolepunchPayload { punching: true, round: 1, remote_token, ..hello };
    assert!(say(&mut sessions, &ask, true, (&mut net, now)).unwrap().punching);
    let free = |net: &mut Net, now| {
        let turn = net.punching.take(Role::Server, Sort::Ports(*at(3, 0).ip()), now);
        turn.map(|turn| net.punching.give_back(turn)).is_some()
    };
    let mut now = now;
    while let Some(at) = sessions.poll_timeout().filter(|at| *at < epoch() + PUNCH_WAIT) {
        now = at;
        sessions.handle_timeout(&mut net, now);
        if sent(&mut net).is_empty() {
            break;
        }
        assert!(!free(&mut net, now));
    }
    assert!(now < epoch() + Duration::from_secs(9));
    // And what the host may get is there again.
    assert!(!free(&mut net, now) && free(&mut net, now + Duration::from_secs(15)));
    assert_eq!(sessions.by_id.len(), 1, "a punch may still come");
}

#[test]
fn an_error_or_the_end_of_the_server_gives_all_back() {
    let now = epoch();
    for by_error in [true, false] {
        let mut net = net(now);
        let mut sessions = begun(&mut net, now);
        say(&mut sessions, &ask(1, &[at(4, 4)]), true, (&mut net, now));
        if by_error {
            let error = HolepunchPayload { error: 1, round: 2, ..ask(2, &[]) };
            let answer = say(&mut sessions, &error, true, (&mut net, now)).unwrap();
            assert_eq!(answer.error, NoisePayload::ERROR_ABORTED);
        } else {
            sessions.end_all(&mut net);
        }
        assert_eq!((sessions.by_id.len(), sessions.poll_timeout()), (0, None));
    }
}

#[test]
fn nothing_is_punched_into_our_local_networks_or_at_once_to_who_names_another_address_of_ours() {
    let now = epoch();
    let mut net = net(now);
    let mut sessions = begun(&mut net, now);
    let inside = [[192, 168, 1, 1], [127, 0, 0, 1], [10, 0, 0, 1]];
    let inside = inside.map(|host| SocketAddrV4::new(host.into(), 4000));
    let ask = HolepunchPayload { remote_address: Some(at(9, 8)), ..ask(1, &inside) };
    say(&mut sessions, &ask, true, (&mut net, now)).unwrap();
    assert_eq!(sent(&mut net), [], "it opened its side towards somebody else");
    inside.iter().for_each(|from| {
        sessions.on_punch(SocketId::MAIN, *from, &mut net, now);
    });
    assert_eq!(run(&mut sessions, &mut net), BTreeMap::new());
    let hello = told(Firewall::Consistent, &[]);
    let hello = HolepunchPayload { remote_address: Some(at(9, 9)), ..hello };
    let mut sessions = begun(&mut net, now);
    say(&mut sessions, &hello, true, (&mut net, now)).unwrap();
    assert_eq!(sent(&mut net), [at(3, 3)]);
}

/// Who asks in vain again and again opens sockets of ours some times, and then as many in eight seconds.
#[test]
fn a_client_that_ends_what_it_begins_does_not_have_many_sockets_opened() {
    let start = epoch();
    let mut net = random_net(start);
    let mut opened = 0;
    for ms in (0..30_000).step_by(100) {
        let now = start + Duration::from_millis(ms);
        let mut sessions = begun(&mut net, now);
        let hello = told(Firewall::Consistent, &[at(3, 3)]);
        let remote_token = say(&mut sessions, &hello, true, (&mut net, now)).unwrap().token;
        let ask = HolepunchPayload { remote_token, ..ask(1, &[at(3, 3)]) };
        let answer = say(&mut sessions, &ask, true, (&mut net, now)).unwrap();
        opened += usize::from(answer.punching);
        let error = HolepunchPayload { error: 1, round: 2, ..ask };
        say(&mut sessions, &error, true, (&mut net, now));
        // They are closed a second later.
        if ms % 1000 == 0 {
            let closed = std::mem::take(&mut net.retired).len();
            net.punching.closed(closed);
        }
        sent(&mut net);
    }
    assert!((5..=9).contains(&opened), "{opened}");
}

/// One of our relays lies: it brings clients of many hosts, 14 a second, who all ask to punch and are told to wait.
struct Liars {
    sessions: Sessions,
    net: Net,
    now: Instant,
    host: u32,
}

impl Liars {
    fn new() -> Self {
        let now = epoch();
        Self { sessions: Sessions::default(), net: net(now), now, host: 0x2000_0000 }
    }

    fn begin(&mut self, host: Ipv4Addr, by: u8) -> u64 {
        let id = self.sessions.next_id();
        let client = Client { host, by: Some(at(by, 2)), firewall: Firewall::Unknown };
        self.sessions.begin(&HASH, id as u32 + 1, client, &mut self.net, self.now);
        id
    }

    fn say(
        &mut self,
        id: u64,
        host: Ipv4Addr,
        payload: &HolepunchPayload,
    ) -> Option<HolepunchPayload> {
        let secure = SecurePayload::new(holepunch_secret(&HASH), [7; 32]);
        let payload = secure.seal(payload, [1; 24]);
        let peer = Some(SocketAddrV4::new(host, 3));
        let m = PeerHolepunch { mode: Mode::FromRelay, id, payload, peer };
        let answer = self.sessions.on_message(&m, true, &mut self.net, self.now)?;
        secure.open(&answer)
    }

    fn lie(&mut self) {
        self.host += 1;
        let host = Ipv4Addr::from(self.host);
        let (id, there) = (self.begin(host, 2), [SocketAddrV4::new(host, 7)]);
        let hello = HolepunchPayload { round: 1, ..told(Firewall::Random, &there) };
        let remote_token = self.say(id, host, &hello).and_then(|answer| answer.token);
        let ask = HolepunchPayload { round: 2, punching: true, remote_token, ..hello };
        self.say(id, host, &ask);
    }

    fn run(&mut self, times: u32) {
        for _ in 0..times {
            self.now += Duration::from_millis(70);
            self.sessions.handle_timeout(&mut self.net, self.now);
            sent(&mut self.net);
            self.lie();
        }
    }
}

#[test]
fn who_a_lying_relay_brings_pushes_nobody_out_whom_another_one_knows() {
    let honest: Ipv4Addr = [99, 0, 0, 1].into();
    let punches = ask(2, &[SocketAddrV4::new(honest, 7)]);
    // By another relay; first by the liar, and then by another one; by the liar alone.
    for way in 0..3 {
        let mut liars = Liars::new();
        liars.run(300);
        assert_eq!(liars.sessions.by_id.len(), MAX_SESSIONS);
        let mut lost = 0;
        for _ in 0..20 {
            let id = liars.begin(honest, if way == 0 { 4 } else { 2 });
            if way == 1 {
                liars.sessions.told_again(id as u32 + 1, honest, at(4, 2));
            }
            let hello = told(Firewall::Consistent, &[]);
            assert!(liars.say(id, honest, &hello).is_some());
            // The path is long, and then it is not its turn for long.
            liars.run(100);
            lost += usize::from(liars.say(id, honest, &punches).is_none());
        }
        assert_eq!(lost, 0, "way {way}");
    }
}

#[test]
fn who_waits_goes_before_who_is_punched_to() {
    let mut liars = Liars::new();
    let honest: Ipv4Addr = [99, 0, 0, 1].into();
    let id = liars.begin(honest, 2);
    let ask = ask(2, &[SocketAddrV4::new(honest, 7)]);
    assert!(liars.say(id, honest, &ask).is_some_and(|answer| answer.punching));
    for n in 0..1000 {
        liars.begin(Ipv4Addr::from(0x3000_0000 + n), 2);
    }
    assert!(liars.sessions.by_id.contains_key(&id));
}
