//! What a hostile host of the local network can do, and what it cannot.

use super::*;
use crate::sim::epoch;
use rand::SeedableRng;

const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const TOPIC: Topic = Topic([7; 32]);

fn addr(n: u8) -> SocketAddr {
    ([192, 168, 1, n], 4000).into()
}

fn link(n: u8) -> Link {
    Link { interface: 3, addr: addr(n), prefix: 24 }
}

/// The machine at [`addr`] `n`.
fn lan(n: u8, now: Instant) -> Lan {
    let rng = StdRng::seed_from_u64(n.into());
    let mut lan = Lan::new(Arc::new(KeyPair::from_seed(&[n; 32])), rng, now);
    lan.set_links(vec![link(n)], now);
    lan
}

fn key(n: u8) -> PublicKey {
    PublicKey(KeyPair::from_seed(&[n; 32]).public())
}

fn sent(lan: &mut Lan) -> Vec<LanTransmit> {
    std::iter::from_fn(|| lan.poll_transmit()).collect()
}

/// What it calls to all when it is time.
fn calls(lan: &mut Lan, now: Instant) -> Vec<Vec<u8>> {
    lan.handle_timeout(now + GATHER);
    let sent = sent(lan);
    assert!(sent.iter().all(|transmit| transmit.to == transmit.link.group()));
    sent.into_iter().map(|transmit| transmit.bytes).collect()
}

/// A reader (1) that called, a sharer (2) of the same, and the call.
fn reader_and_sharer(now: Instant) -> (Lan, Lan, Vec<u8>) {
    let (mut reader, mut sharer) = (lan(1, now), lan(2, now));
    reader.join(TOPIC, CLIENT, now);
    sharer.join(TOPIC, SERVER, now);
    calls(&mut sharer, now);
    let call = calls(&mut reader, now).remove(0);
    (reader, sharer, call)
}

fn answer_to(sharer: &mut Lan, call: &[u8], from: SocketAddr, now: Instant) -> Option<Vec<u8>> {
    assert!(sharer.handle_datagram(from, call, now));
    let mut sent = sent(sharer);
    assert!(sent.len() <= 1 && sent.iter().all(|transmit| transmit.to == from));
    Some(sent.pop()?.bytes)
}

#[test]
fn a_call_is_answered_by_who_has_what_it_is_for() {
    let now = epoch();
    let (mut reader, mut sharer, call) = reader_and_sharer(now);
    let answer = answer_to(&mut sharer, &call, addr(1), now).unwrap();
    reader.handle_datagram(addr(2), &answer, now);
    let found = Neighbour { key: key(2), addr: addr(2), topics: vec![TOPIC] };
    assert_eq!(reader.poll_found(), Some(found));
    // Neither the topic nor who they are can be read.
    for secret in [&TOPIC.0[..8], &key(1).0[..8], &key(2).0[..8]] {
        assert!(![&call, &answer].iter().any(|b| b.windows(8).any(|bytes| bytes == secret)));
    }
}

#[test]
fn hosts_without_an_address_but_the_link_s_own_meet_by_it() {
    let now = epoch();
    let (mut reader, mut sharer) = (lan(1, now), lan(2, now));
    // Each has another number for its interface.
    let at = |n: u8, interface: u32| -> SocketAddr {
        format!("[fe80::{n}%{interface}]:4000").parse().unwrap()
    };
    for (lan, n, interface) in [(&mut reader, 1, 3), (&mut sharer, 2, 7)] {
        let ipv6 = Link { interface, addr: at(n, interface), prefix: 64 };
        lan.set_links(vec![link(n), ipv6], now);
    }
    reader.join(TOPIC, CLIENT, now);
    sharer.join(TOPIC, SERVER, now);
    calls(&mut sharer, now);
    reader.handle_timeout(now + GATHER);
    let [_, call] = &sent(&mut reader)[..] else { panic!("one to each group") };
    assert_eq!((call.to, call.link.interface), (GROUP6.into(), 3));
    assert_eq!(answer_to(&mut sharer, &call.bytes, at(1, 8), now), None, "of another interface");
    let answer = answer_to(&mut sharer, &call.bytes, at(1, 7), now).unwrap();
    reader.handle_datagram(at(2, 3), &answer, now);
    let found = Neighbour { key: key(2), addr: at(2, 3), topics: vec![TOPIC] };
    assert_eq!(reader.poll_found(), Some(found));
}

#[test]
fn where_our_own_calls_do_not_come_back_a_firewall_keeps_them() {
    let now = epoch();
    let mut lan = lan(1, now);
    let hearing = |lan: &Lan| lan.status()[0].hearing;
    lan.join(TOPIC, SERVER, now);
    for _ in 0..ASKED {
        let at = lan.poll_timeout().unwrap();
        assert_eq!((calls(&mut lan, at).len(), hearing(&lan)), (1, Hearing::Unknown));
    }
    let at = lan.poll_timeout().unwrap();
    assert!(at < now + Duration::from_secs(2), "it is known soon");
    lan.handle_timeout(at);
    assert_eq!(hearing(&lan), Hearing::Unheard);
    // It goes on to call, and the firewall is opened.
    for _ in 0..20 {
        let at = lan.poll_timeout().unwrap();
        assert_eq!(calls(&mut lan, at).len(), 1);
    }
    let at = lan.poll_timeout().unwrap();
    let call = calls(&mut lan, at).remove(0);
    lan.handle_datagram(addr(3), &call, at);
    assert_eq!(hearing(&lan), Hearing::Unheard, "what is sent to one comes in as an answer");
    lan.handle_call(addr(1), &call, at);
    assert_eq!(hearing(&lan), Hearing::Heard);
    lan.set_links(vec![link(5)], at);
    assert_eq!(hearing(&lan), Hearing::Unknown, "another network");
}

/// The next call of a machine, when it is time.
fn next_call(lan: &mut Lan) -> (Vec<u8>, Instant) {
    let at = lan.next_at.unwrap();
    lan.handle_timeout(at);
    (sent(lan).pop().unwrap().bytes, at)
}

fn is_loud(call: &[u8]) -> bool {
    let Some(Message::Call(call)) = Message::decode(call) else { panic!() };
    call.roles.loud
}

#[test]
fn who_was_not_answered_is_answered_so_that_everybody_hears_it() {
    let now = epoch();
    let (mut reader, mut sharer, first) = reader_and_sharer(now);
    sharer.handle_call(addr(1), &first, now);
    let [answer] = &sent(&mut sharer)[..] else { panic!("none but the reader hears it") };
    assert!(!is_loud(&first) && answer.to == addr(1), "a firewall keeps it");

    let (second, at) = next_call(&mut reader);
    sharer.handle_call(addr(1), &second, at);
    let [to_one, to_all] = &sent(&mut sharer)[..] else { panic!() };
    assert!(is_loud(&second) && to_one.to == addr(1), "before the other: the reader will write");
    assert_eq!((to_all.to, to_all.link), (GROUP.into(), link(2)));
    assert_eq!(to_all.bytes, to_one.bytes, "it tells nothing more");
    let mut other = lan(3, at);
    other.join(TOPIC, CLIENT, at);
    calls(&mut other, at);
    for hearer in [&mut reader, &mut other] {
        hearer.handle_call(addr(2), &to_all.bytes, at);
    }
    let found = Neighbour { key: key(2), addr: addr(2), topics: vec![TOPIC] };
    assert_eq!(reader.poll_found(), Some(found));
    assert!(other.poll_found().is_none() && sent(&mut other).is_empty(), "it is not for them");

    // What everybody heard does not show that the firewall lets in the rest; what came to it alone does.
    let (third, at) = next_call(&mut reader);
    sharer.handle_call(addr(1), &third, at);
    assert!(is_loud(&third));
    reader.handle_datagram(addr(2), &sent(&mut sharer)[0].bytes, at);
    let (fourth, at) = next_call(&mut reader);
    assert!(!is_loud(&fourth));
    let (fifth, _) = next_call(&mut reader);
    assert!(is_loud(&fifth), "nobody answered the fourth");
    // Who sends a loud call to one host alone has it tell nobody else.
    assert!(answer_to(&mut sharer, &fourth, addr(1), at).is_some());
    assert!(answer_to(&mut sharer, &fifth, addr(1), at).is_some());
}

#[test]
fn who_has_something_and_was_not_called_back_is_called_so_that_everybody_hears_it() {
    let now = epoch();
    let (mut reader, mut sharer) = (lan(1, now), lan(2, now));
    reader.join(TOPIC, CLIENT, now);
    sharer.join(TOPIC, SERVER, now);
    calls(&mut reader, now);
    calls(&mut sharer, now);
    let (second, at) = next_call(&mut sharer);
    reader.handle_call(addr(2), &second, at);
    let [to_one, to_all] = &sent(&mut reader)[..] else { panic!() };
    assert!(is_loud(&second) && !is_loud(&to_all.bytes));
    assert_eq!((to_one.to, to_all.to, &to_one.bytes), (addr(2), GROUP.into(), &to_all.bytes));
    sharer.handle_call(addr(1), &to_all.bytes, at);
    let [answer] = &sent(&mut sharer)[..] else { panic!("to the reader alone") };
    reader.handle_datagram(addr(2), &answer.bytes, at);
    assert!(reader.poll_found().is_some());
    let (third, at) = next_call(&mut sharer);
    assert!(is_loud(&third));
    sharer.handle_datagram(addr(1), &to_one.bytes, at);
    assert!(!is_loud(&next_call(&mut sharer).0), "it was called back");
}

#[test]
fn a_call_that_another_host_sends_again_gets_no_answer() {
    let now = epoch();
    let (_, mut sharer, call) = reader_and_sharer(now);
    assert_eq!(answer_to(&mut sharer, &call, addr(3), now), None);
    let other_port = SocketAddr::new(addr(1).ip(), 4001);
    assert_eq!(answer_to(&mut sharer, &call, other_port, now), None);
}

#[test]
fn no_answer_counts_in_anothers_place_or_twice_or_late() {
    let now = epoch();
    let (mut reader, mut sharer, call) = reader_and_sharer(now);
    let answer = answer_to(&mut sharer, &call, addr(1), now).unwrap();
    // From where it was not given, and for whom it was not.
    reader.handle_datagram(addr(3), &answer, now);
    let mut other = lan(4, now);
    other.join(TOPIC, CLIENT, now);
    calls(&mut other, now);
    other.handle_datagram(addr(2), &answer, now);
    assert!(reader.poll_found().is_none() && other.poll_found().is_none());
    let late = now + ANSWER_WAIT + GATHER;
    reader.handle_timeout(late);
    reader.handle_datagram(addr(2), &answer, late);
    assert!(reader.poll_found().is_none());
}

#[test]
fn who_knows_the_topic_cannot_say_that_another_key_is_where_he_is() {
    let now = epoch();
    let (mut reader, _, call) = reader_and_sharer(now);
    let Some(Message::Call(call)) = Message::decode(&call) else { panic!() };
    // He has an answer of the other for himself.
    let mut rng = StdRng::seed_from_u64(9);
    let own = Ends { caller: addr(3), answerer: addr(2) };
    let of = (call.nonce, call.part);
    let got = Answer::new(&KeyPair::from_seed(&[2; 32]), of, &[(0, TOPIC)], own, &mut rng).unwrap();
    reader.handle_datagram(addr(3), &got.encode(), now);
    reader.handle_datagram(addr(2), &got.encode(), now);
    assert!(reader.poll_found().is_none());
}

#[test]
fn who_is_no_neighbour_is_not_heard() {
    let now = epoch();
    let (_, mut sharer, _) = reader_and_sharer(now);
    for from in [[8, 8, 8, 8], [192, 168, 2, 1], [127, 0, 0, 1]] {
        let from = SocketAddr::from((from, 4000));
        let mut far = lan(1, now);
        far.set_links(vec![Link { addr: from, ..link(1) }], now);
        far.topics.insert(TOPIC, Joined::new(CLIENT, now));
        let roles = Roles { seek: true, ..Roles::default() };
        let link = Link { addr: from, ..link(1) };
        let call = far.call(roles, ([1; 16], 0), vec![TOPIC], link, now);
        assert_eq!(answer_to(&mut sharer, &call, from, now), None, "{from}");
    }
    // Nor are we heard where our own address is public.
    let mut public = lan(1, now);
    let addr = ([8, 8, 8, 9], 4000).into();
    public.set_links(vec![Link { interface: 1, addr, prefix: 24 }], now);
    public.join(TOPIC, CLIENT, now);
    assert!(public.poll_timeout().is_none() && calls(&mut public, now).is_empty());
}

#[test]
fn nobody_gets_more_than_one_and_a_half_times_what_he_sent() {
    let now = epoch();
    let (mut reader, mut sharer) = (lan(1, now), lan(2, now));
    for n in 0..200u8 {
        reader.join(Topic([n; 32]), CLIENT, now);
        sharer.join(Topic([n; 32]), SERVER, now);
    }
    calls(&mut sharer, now);
    let calls = calls(&mut reader, now);
    assert_eq!(calls.len(), 4);
    for call in &calls {
        let answer = answer_to(&mut sharer, call, addr(1), now).unwrap();
        assert!(2 * answer.len() <= 3 * call.len(), "{} {}", answer.len(), call.len());
        reader.handle_datagram(addr(2), &answer, now);
    }
    let found = std::iter::from_fn(|| reader.poll_found()).map(|found| found.topics.len());
    assert_eq!(found.sum::<usize>(), 200);
}

/// Calls that hit, from one host or from many, for `seconds`, half of them loud. Answers how many were answered, and how many
/// so that everybody hears it.
fn flood(
    sharer: &mut Lan,
    hosts: u8,
    each_second: u32,
    seconds: u32,
    start: Instant,
) -> (u32, u32) {
    let (mut answered, mut spread) = (0, 0);
    for n in 0..each_second * seconds {
        let now = start + Duration::from_secs(1) * n / each_second;
        let from = addr(10 + (n % u32::from(hosts)) as u8);
        let mut nonce = [0; 16];
        nonce[..4].copy_from_slice(&n.to_le_bytes());
        let tags = vec![Tagger::new(nonce, from).tag(&TOPIC)];
        let roles = Roles { seek: true, have: true, loud: n / u32::from(hosts) % 2 == 0 };
        let call = Call { roles, part: 0, nonce, tags };
        sharer.handle_call(from, &call.encode(&mut StdRng::seed_from_u64(1)), now);
        let (to_one, to_all): (Vec<_>, Vec<_>) =
            sent(sharer).into_iter().partition(|transmit| transmit.to == from);
        assert!(to_all.len() <= to_one.len());
        answered += to_one.len() as u32;
        spread += to_all.len() as u32;
    }
    (answered, spread)
}

#[test]
fn floods_have_bounds_for_each_host_and_in_all_and_leave_room_for_others() {
    let start = epoch();
    let (_, mut sharer, _) = reader_and_sharer(start);
    let (one, spread) = flood(&mut sharer, 1, 1000, 10, start);
    assert!(one <= 96 + 8 * 10 + 1, "{one} of one host");
    assert!((1..=32 + 1 + 1).contains(&spread), "{spread} of one host are heard by everybody");
    let (_, mut sharer, _) = reader_and_sharer(start);
    let (all, spread) = flood(&mut sharer, 200, 5000, 10, start);
    assert!(all <= 256 + 64 * 10 + 1, "{all} of all");
    assert!((1..=64 + 2 * 10 + 1).contains(&spread), "{spread} of all are heard by everybody");
    assert!(sharer.heard.len() <= MAX_HEARD && sharer.called.len() <= MAX_CALLED);
    // While it goes on, an honest one that calls again and again is heard.
    let mut after = start + Duration::from_secs(10);
    let heard = (0..40u8).any(|n| {
        flood(&mut sharer, 200, 5000, 1, after);
        after += Duration::from_secs(1);
        let mut reader = lan(1, after);
        reader.rng = StdRng::seed_from_u64(100 + u64::from(n));
        reader.join(TOPIC, CLIENT, after);
        let call = calls(&mut reader, after).remove(0);
        answer_to(&mut sharer, &call, addr(1), after).is_some()
    });
    assert!(heard);
}

/// For each round of calls all topics that are joined are hashed.
#[test]
fn what_calls_have_hashed_is_bounded_however_much_is_shared() {
    let start = epoch();
    let (_, mut sharer, _) = reader_and_sharer(start);
    for n in 1..2000u32 {
        sharer.join(Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()])), SERVER, start);
    }
    // Of 384 that may be answered in two seconds.
    let (looked_at, _) = flood(&mut sharer, 200, 500, 2, start);
    assert!((1..=32 + 25 * 2).contains(&looked_at), "{looked_at}");
}

#[test]
fn what_strangers_send_fills_nothing() {
    let now = epoch();
    let (mut reader, mut sharer, call) = reader_and_sharer(now);
    let Some(Message::Call(call)) = Message::decode(&call) else { panic!() };
    let mut rng = StdRng::seed_from_u64(1);
    for n in 0..20_000u32 {
        let from = SocketAddr::from(([192, 168, 1, (n % 250) as u8], n as u16 | 1));
        let pair = KeyPair::from_seed(&[(n % 40) as u8 + 50; 32]);
        let ends = Ends { caller: addr(1), answerer: from };
        let of = (call.nonce, call.part);
        let answer = Answer::new(&pair, of, &[(0, TOPIC)], ends, &mut rng).unwrap();
        reader.handle_datagram(from, &answer.encode(), now);
        let mut junk = vec![0; rng.random_range(0..800)];
        rng.fill_bytes(&mut junk);
        junk.splice(0..0, b"HDL1".iter().copied());
        reader.handle_datagram(from, &junk, now);
        sharer.handle_datagram(from, &junk, now);
    }
    let found = std::iter::from_fn(|| reader.poll_found()).count();
    assert!((1..=512).contains(&found), "{found}");
    assert!(sent(&mut sharer).is_empty());
}

#[test]
fn of_very_many_topics_all_are_called_in_time() {
    let now = epoch();
    let (mut reader, mut sharer) = (lan(1, now), lan(2, now));
    let topic = |n: u32| Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
    for n in 0..5000 {
        reader.join(topic(n), CLIENT, now);
    }
    sharer.join(topic(4321), SERVER, now);
    sharer.join(topic(17), SERVER, now);
    let (mut at, mut answered) = (now, 0);
    while at < now + Duration::from_secs(3) {
        at = reader.poll_timeout().unwrap();
        reader.handle_timeout(at);
        let calls = sent(&mut reader);
        assert!(calls.len() <= MAX_PARTS, "{}", calls.len());
        for call in calls {
            sharer.handle_datagram(addr(1), &call.bytes, at);
            answered += sent(&mut sharer).iter().filter(|t| t.to == addr(1)).count();
        }
    }
    assert!(answered >= 2, "{answered}");
}
