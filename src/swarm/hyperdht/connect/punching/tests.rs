//! What servers, and relays that say who they are, can make a client do.

use super::*;
use crate::crypto::KeyPair;
use crate::sim::epoch;
use crate::swarm::dht_rpc::message::{Message, error};
use crate::swarm::dht_rpc::{Rpc, RpcConfig, Transmit};
use crate::swarm::hyperdht::event::DhtConfig;
use rand::SeedableRng;
use rand::rngs::StdRng;

const HASH: [u8; 64] = [5; 64];
const SERVER: u8 = 30;

fn at(host: u8) -> SocketAddrV4 {
    SocketAddrV4::new([20, 0, 0, host].into(), 4000)
}

/// Behind a NAT that shows everybody the same address.
fn net(now: Instant) -> Net {
    let config = RpcConfig {
        bootstrap: vec![at(1)],
        persistent: false,
        address: Some(at(9)),
        allow_bogons: false,
    };
    let rpc = Rpc::new(config, StdRng::seed_from_u64(1), now);
    let config = DhtConfig::new(KeyPair::from_seed(&[1; 32]), vec![at(1)]);
    let mut net = Net::new(rpc, config, StdRng::seed_from_u64(2), now);
    (0..2).for_each(|_| net.rpc.sample(at(9)));
    sent(&mut net);
    net
}

fn sent(net: &mut Net) -> Vec<Transmit> {
    std::iter::from_fn(|| net.rpc.poll_transmit()).collect()
}

/// An attempt that the relay at `at(via)` led to [`SERVER`], which names those relays.
fn begun(relays: &[SocketAddrV4], net: &mut Net, now: Instant) -> Punch {
    let relays = relays.iter().map(|relay| RelayInfo { relay: *relay, peer: at(SERVER) }).collect();
    let info = HolepunchInfo { id: 1, relays };
    let to = (at(SERVER), at(2));
    Punch::start(ConnectId(1), NodeId([3; 32]), &HASH, info, to, net, now).expect("a relay")
}

fn secure() -> SecurePayload {
    SecurePayload::new(holepunch_secret(&HASH), [7; 32])
}

/// Whom we asked, and what we said.
fn said(net: &mut Net) -> Vec<(SocketAddrV4, HolepunchPayload)> {
    let said = |transmit: Transmit| {
        let Ok(Message::Request(request)) = Message::decode(&transmit.bytes) else { return None };
        let m = PeerHolepunch::decode(request.value.as_deref()?).ok()?;
        Some((transmit.to, secure().open(&m.payload)?))
    };
    sent(net).into_iter().filter_map(said).collect()
}

fn reply(mode: Mode, peer: Option<SocketAddrV4>, payload: &HolepunchPayload) -> Reply {
    let m = PeerHolepunch { mode, id: 1, payload: secure().seal(payload, [1; 24]), peer };
    Reply {
        from: at(2),
        id: None,
        to: at(9),
        token: None,
        closer: vec![],
        error: error::NONE,
        value: Some(m.encode()),
        rtt: Duration::ZERO,
    }
}

fn hears(
    punch: &mut Punch,
    payload: &HolepunchPayload,
    net: &mut Net,
    now: Instant,
) -> Result<(), ConnectError> {
    punch.on_answer(Some(&reply(Mode::Reply, None, payload)), net, now)
}

/// What a server says whose NAT is of that kind.
fn told(firewall: Firewall, host: u8) -> HolepunchPayload {
    let addresses = Some(vec![at(host)]);
    HolepunchPayload { token: Some([8; 32]), addresses, ..HolepunchPayload::said(firewall) }
}

#[test]
fn three_relays_of_a_server_are_asked_that_names_sixteen() {
    let now = epoch();
    let mut net = net(now);
    let mut relays: Vec<_> = (40..55).map(at).collect();
    relays.insert(0, SocketAddrV4::new([192, 168, 1, 1].into(), 4000));
    let mut punch = begun(&relays, &mut net, now);
    let mut asked = said(&mut net);
    while punch.on_answer(None, &mut net, now).is_ok() {
        asked.extend(said(&mut net));
    }
    let asked: Vec<_> = asked.into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, [at(40), at(41)], "one of three is no node");
}

#[test]
fn a_relay_that_the_server_does_not_name_is_not_asked() {
    let now = epoch();
    let mut net = net(now);
    let mut punch = begun(&[at(40), at(41)], &mut net, now);
    hears(&mut punch, &told(Firewall::Consistent, SERVER), &mut net, now).unwrap();
    let asked: Vec<_> = said(&mut net).into_iter().map(|(to, what)| (to, what.punching)).collect();
    assert_eq!(asked, [(at(40), false), (at(40), true)]);
}

#[test]
fn a_server_that_never_knows_its_nat_is_probed_some_times() {
    let start = epoch();
    let mut net = net(start);
    let mut punch = begun(&[at(2)], &mut net, start);
    let (mut probes, mut now) = (said(&mut net).len(), start);
    while hears(&mut punch, &told(Firewall::Unknown, SERVER), &mut net, now).is_ok() {
        now = punch.poll_timeout().unwrap();
        punch.handle_timeout(&mut net, now).unwrap();
        probes += said(&mut net).len();
    }
    assert_eq!(probes, PROBES as usize);
}

/// Up to what follows the probe.
fn asking(firewall: Firewall, host: u8, net: &mut Net, now: Instant) -> (Punch, HolepunchPayload) {
    let mut punch = begun(&[at(2), at(40)], net, now);
    hears(&mut punch, &told(firewall, host), net, now).unwrap();
    let (to, ask) = said(net).pop().unwrap();
    assert!(to == at(2) && ask.punching && ask.remote_token == Some([8; 32]));
    (punch, ask)
}

/// Its answer to the ask.
fn granted(ask: &HolepunchPayload, firewall: Firewall, host: u8) -> HolepunchPayload {
    let remote_token = ask.token;
    HolepunchPayload { punching: true, round: ask.round, remote_token, ..told(firewall, host) }
}

#[test]
fn ports_are_tried_of_the_host_that_echoes_our_token() {
    let now = epoch();
    for (host, token, ok) in [(SERVER, true, true), (SERVER, false, false), (77, true, false)] {
        let mut net = net(now);
        let (mut punch, ask) = asking(Firewall::Random, host, &mut net, now);
        let mut answer = granted(&ask, Firewall::Random, host);
        answer.remote_token = answer.remote_token.filter(|_| token);
        assert_eq!(hears(&mut punch, &answer, &mut net, now).is_ok(), ok, "{host} {token}");
        punch.end(&mut net);
    }
}

#[test]
fn what_is_no_answer_of_a_relay_is_none() {
    let now = epoch();
    let mut net = net(now);
    let mut punch = begun(&[at(2)], &mut net, now);
    let wrong = reply(Mode::FromServer, None, &told(Firewall::Consistent, SERVER));
    assert_eq!(punch.on_answer(Some(&wrong), &mut net, now), Err(ConnectError::HolepunchFailed));
}

#[test]
fn an_ask_that_is_lost_goes_through_another_relay() {
    let now = epoch();
    let mut net = net(now);
    let (mut punch, _) = asking(Firewall::Consistent, SERVER, &mut net, now);
    punch.on_answer(None, &mut net, now).unwrap();
    let (to, ask) = said(&mut net).pop().unwrap();
    assert!(to == at(40) && ask.punching);
    assert_eq!(punch.on_answer(None, &mut net, now), Err(ConnectError::HolepunchFailed));
}

#[test]
fn a_server_that_took_another_socket_is_asked_there() {
    let now = epoch();
    let mut net = net(now);
    let mut punch = begun(&[at(2)], &mut net, now);
    sent(&mut net);
    let moved = SocketAddrV4::new(*at(SERVER).ip(), 5000);
    let answer = reply(Mode::Reply, Some(moved), &told(Firewall::Consistent, SERVER));
    punch.on_answer(Some(&answer), &mut net, now).unwrap();
    assert_eq!(sent(&mut net).first().map(|transmit| transmit.to), Some(moved));
    assert_eq!((punch.server, punch.via), (moved, (at(2), moved)));
}

/// The server is reminded of us while we wait, and a late answer to that is not taken for one to the ask.
#[test]
fn who_waits_for_a_turn_is_heard_of_and_gives_up_in_the_end() {
    let start = epoch();
    let mut net = net(start);
    let (mut punch, ask) = asking(Firewall::Random, SERVER, &mut net, start);
    let later = HolepunchPayload {
        error: NoisePayload::ERROR_TRY_LATER,
        round: ask.round,
        ..HolepunchPayload::said(Firewall::Random)
    };
    let mut now = start;
    while hears(&mut punch, &later, &mut net, now).is_ok() {
        now = punch.poll_timeout().unwrap();
        punch.handle_timeout(&mut net, now).unwrap();
        let [(_, ask)] = &said(&mut net)[..] else { panic!("not asked again") };
        assert!(ask.punching);
        let stale = HolepunchPayload { round: ask.round - 1, ..told(Firewall::Random, SERVER) };
        hears(&mut punch, &stale, &mut net, now).unwrap();
        assert!(matches!(punch.stage, Stage::Asking(_)));
    }
    assert!(now - start >= PATIENCE && punch.put_off() == Some(start));
    punch.end(&mut net);
}

#[test]
fn a_server_is_reminded_while_others_have_their_turn() {
    let start = epoch();
    let mut net = net(start);
    let (first, _) = asking(Firewall::Random, SERVER, &mut net, start);
    let mut second = begun(&[at(2)], &mut net, start);
    hears(&mut second, &told(Firewall::Random, SERVER), &mut net, start).unwrap();
    said(&mut net);
    let mut heard = 0;
    while let Some(now) = second.poll_timeout().filter(|at| *at < start + Duration::from_secs(20)) {
        second.handle_timeout(&mut net, now).unwrap();
        for (_, reminder) in said(&mut net) {
            assert!(!reminder.punching, "one at a time is tried of a host");
            heard += 1;
        }
    }
    assert_eq!(heard, 4);
    // A punch from any port of the host is for whoever has the turn.
    let port = SocketAddrV4::new(*at(SERVER).ip(), 7);
    assert!(!second.is_at(&port));
    first.end(&mut net);
    let now = second.poll_timeout().unwrap();
    second.handle_timeout(&mut net, now).unwrap();
    assert!(matches!(second.stage, Stage::Asking(_)));
    second.end(&mut net);
}

/// Whoever names a host in many records gets it no more than a peer of the reference sends.
#[test]
fn many_keys_that_name_one_host_get_it_little() {
    let start = epoch();
    let mut net = net(start);
    let mut at_victim = 0;
    let (mut now, end) = (start, start + Duration::from_secs(60));
    while now < end {
        let mut punch = begun(&[at(2)], &mut net, now);
        hears(&mut punch, &told(Firewall::Random, SERVER), &mut net, now).unwrap();
        loop {
            let all = sent(&mut net);
            at_victim += all.iter().filter(|transmit| transmit.to.ip() == at(SERVER).ip()).count();
            if matches!(punch.stage, Stage::Asking(_)) {
                let token = Some(punch.secure.token(at(SERVER).ip()));
                let ask =
                    HolepunchPayload { round: punch.round - 1, token, ..told(Firewall::Random, 1) };
                let answer = granted(&ask, Firewall::Random, SERVER);
                hears(&mut punch, &answer, &mut net, now).unwrap();
            }
            let Some(at) = punch.poll_timeout() else { break };
            now = now.max(at);
            if now >= end || punch.handle_timeout(&mut net, now).is_err() {
                break;
            }
        }
        punch.end(&mut net);
    }
    assert!((1750..=3800).contains(&at_victim), "{at_victim}");
}
