//! Tests of told addresses.

use super::*;
use crate::sim::epoch;
use rand::SeedableRng;

const TOPIC: Topic = Topic([1; 32]);
const READ: JoinOptions = JoinOptions { server: false, client: true };
const SERVE: JoinOptions = JoinOptions { server: true, client: true };

fn told(n: u8, options: JoinOptions) -> Told {
    let mut told = Told::new(PublicKey([n; 32]), StdRng::seed_from_u64(n.into()), epoch());
    told.join(TOPIC, options, epoch());
    told
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn sent(told: &mut Told) -> Vec<(SocketAddr, Vec<u8>)> {
    std::iter::from_fn(|| told.poll_transmit()).collect()
}

fn pass(bytes: &[u8], to: &mut Told, from: SocketAddr, now: Instant) {
    to.handle(from, &Message::decode(bytes).unwrap(), now);
}

/// Runs until `end`, and tells when something was sent.
fn run(told: &mut Told, now: &mut Instant, end: Instant, connected: bool) -> Vec<Instant> {
    let mut times = Vec::new();
    while let Some(next) = told.poll_timeout().filter(|at| *at <= end) {
        *now = next.max(*now);
        told.handle_timeout(|_| connected, *now);
        times.extend(sent(told).iter().map(|_| *now));
    }
    *now = end;
    times
}

#[test]
fn who_serves_the_topic_answers_and_is_found_there() {
    for address in ["192.168.7.7:4000", "[fd00::7]:4000", "127.0.0.1:9"] {
        let (mut reader, mut sharer, now) = (told(1, READ), told(2, SERVE), epoch());
        reader.tell([at(address)], None, now);
        reader.handle_timeout(|_| false, now);
        let [(to, asked)] = &sent(&mut reader)[..] else { panic!() };
        assert_eq!(*to, at(address));
        pass(asked, &mut sharer, at("1.2.3.4:5"), now);
        let [(back, reply)] = &sent(&mut sharer)[..] else { panic!() };
        assert_eq!((*back, reply.len() < asked.len()), (at("1.2.3.4:5"), true));
        // From elsewhere it is nobody's.
        pass(reply, &mut reader, at("1.1.1.1:1"), now);
        assert_eq!(reader.poll_found(), None);
        pass(reply, &mut reader, *to, now);
        let found = Found { key: PublicKey([2; 32]), addr: *to, topic: TOPIC };
        assert_eq!(reader.poll_found(), Some(found));
        pass(reply, &mut reader, *to, now);
        assert_eq!(reader.poll_found(), None, "once");
    }
}

#[test]
fn who_does_not_serve_it_or_has_another_says_nothing() {
    let now = epoch();
    let asked = Message::inquiry(&TOPIC, [7; 16]).encode();
    let mut other = told(3, READ);
    other.join(Topic([2; 32]), SERVE, now);
    pass(&asked, &mut other, at("1.2.3.4:5"), now);
    assert_eq!(sent(&mut other), []);
}

#[test]
fn a_forged_reply_finds_nobody() {
    let (mut reader, now) = (told(1, READ), epoch());
    reader.tell([at("1.2.3.4:5")], None, now);
    reader.handle_timeout(|_| false, now);
    let (to, asked) = sent(&mut reader).remove(0);
    let Some(Message::Inquiry { nonce, .. }) = Message::decode(&asked) else { panic!() };
    let another = Reply::new(&Topic([9; 32]), nonce, &PublicKey([2; 32]));
    let old = Reply::new(&TOPIC, [9; 16], &PublicKey([2; 32]));
    for forged in [another, old] {
        reader.handle(to, &Message::Reply(forged), now);
    }
    assert_eq!(reader.poll_found(), None);
}

#[test]
fn an_address_that_does_not_answer_is_asked_ever_more_seldom_and_for_ever() {
    let (mut reader, mut now) = (told(1, READ), epoch());
    reader.tell([at("1.2.3.4:5")], None, now);
    let times = run(&mut reader, &mut now, epoch() + Duration::from_secs(600), false);
    let pauses: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.is_sorted() && pauses.first() == Some(&FIRST_PAUSE), "{pauses:?}");
    assert_eq!((times.len(), pauses.last()), (26, Some(&LAST_PAUSE)));
    reader.hurry(now);
    let end = now + Duration::from_secs(1);
    assert_eq!(run(&mut reader, &mut now, end, false).len(), 3);
    reader.leave(&TOPIC);
    assert_eq!(reader.poll_timeout(), None);
}

#[test]
fn who_is_connected_is_not_asked_until_he_is_lost() {
    let (mut reader, mut sharer, mut now) = (told(1, READ), told(2, SERVE), epoch());
    reader.tell([at("1.2.3.4:5")], None, now);
    let ask = |reader: &mut Told, sharer: &mut Told, now| {
        reader.handle_timeout(|_| false, now);
        for (to, asked) in sent(reader) {
            pass(&asked, sharer, at("9.9.9.9:9"), now);
            sent(sharer).iter().for_each(|(_, reply)| pass(reply, reader, to, now));
        }
        reader.poll_found().is_some()
    };
    assert!(ask(&mut reader, &mut sharer, now));
    let end = now + Duration::from_secs(3600);
    assert_eq!(run(&mut reader, &mut now, end, true), []);
    reader.lost(&PublicKey([2; 32]), now);
    now = reader.poll_timeout().unwrap();
    assert!(now - end <= Duration::from_secs(1) && ask(&mut reader, &mut sharer, now));
}

#[test]
fn what_others_make_us_do_is_bounded() {
    let (mut sharer, now) = (told(2, SERVE), epoch());
    let asked = Message::inquiry(&TOPIC, [7; 16]).encode();
    let mut replies = 0;
    for n in 0..10_000 {
        pass(&asked, &mut sharer, at(&format!("[2001:db8::{:x}]:5", n % 1000)), now);
        replies += sent(&mut sharer).len();
    }
    assert_eq!(replies as f64, HEARD_OF_HOST.burst, "all of them are one host");
    for n in 0..100_000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + n).into(), 5);
        pass(&asked, &mut sharer, from, now);
        replies += sent(&mut sharer).len();
    }
    assert!(replies as f64 <= HEARD.burst);
    // Of what is there again those of a flood do not get all.
    let mut reached = 0;
    for tenth in 1..=100u32 {
        let now = now + Duration::from_millis(100 * u64::from(tenth));
        for n in 0..1000u32 {
            let from =
                SocketAddr::new(std::net::Ipv4Addr::from(0x0c00_0000 + tenth * 1000 + n).into(), 5);
            pass(
                &Message::inquiry(&Topic([9; 32]), [n as u8; 16]).encode(),
                &mut sharer,
                from,
                now,
            );
        }
        pass(&asked, &mut sharer, at("9.9.9.9:5"), now);
        reached += sent(&mut sharer).len();
    }
    assert!(reached >= 30, "{reached} of 100");
    // Nobody takes what is sent.
    let (mut sharer, mut reader) = (told(2, SERVE), told(1, READ));
    for n in 0..1000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + n).into(), 5);
        pass(&asked, &mut sharer, from, now);
        reader.tell([from], None, now);
    }
    reader.handle_timeout(|_| false, now);
    assert_eq!(reader.addresses.len(), MAX_ADDRESSES);
    assert!(sharer.out.len() <= MAX_QUEUED && reader.out.len() <= MAX_QUEUED);
    assert_eq!(reader.asks.len(), MAX_ADDRESSES);
}

/// For each inquiry all topics that are served are hashed.
#[test]
fn what_inquiries_have_hashed_is_bounded_however_much_is_served() {
    const SERVED: u32 = 1000;
    let (mut sharer, start) = (told(2, SERVE), epoch());
    for n in 1..SERVED {
        sharer.join(Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()])), SERVE, start);
    }
    let asked = Message::inquiry(&TOPIC, [7; 16]).encode();
    let mut looked_at = 0;
    for n in 0..5000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from(0x0b00_0000 + n).into(), 5);
        pass(&asked, &mut sharer, from, start + Duration::from_millis(n.into()) / 5);
        looked_at += sent(&mut sharer).len();
    }
    let hashed = looked_at as f64 * f64::from(SERVED);
    assert!(hashed > 0.0 && hashed <= HASHED.burst + HASHED.rate, "{looked_at} in a second");
}

#[test]
fn where_a_key_points_only_its_own_topic_is_asked_for() {
    let (mut reader, now, other) = (told(1, READ), epoch(), Topic([2; 32]));
    reader.join(other, READ, now);
    reader.tell([at("1.2.3.4:5")], Some(other), now);
    reader.handle_timeout(|_| false, now);
    let [(_, asked)] = &sent(&mut reader)[..] else { panic!() };
    let Some(Message::Inquiry { nonce, tag }) = Message::decode(asked) else { panic!() };
    assert_eq!(tag, inquiry::tag(&other, &nonce));
    reader.join(Topic([3; 32]), READ, now);
    assert_eq!(reader.asks.len(), 1);
    // Unless a person names it too.
    reader.tell([at("1.2.3.4:5")], None, now);
    assert_eq!(reader.asks.len(), 3);
}

#[test]
fn nobody_is_asked_where_nobody_can_be() {
    let mut reader = told(1, READ);
    let nowhere = ["0.0.0.0:5", "255.255.255.255:5", "224.0.0.1:5", "1.2.3.4:0", "[ff02::1]:5"];
    reader.tell(nowhere.map(at), None, epoch());
    assert_eq!(reader.addresses.len(), 0);
}

#[test]
fn one_host_is_asked_so_much_whatever_its_ports() {
    let (mut reader, start) = (told(1, READ), epoch());
    reader.tell((1..=60).map(|port| SocketAddr::from(([1, 2, 3, 4], port))), None, start);
    let mut now = start;
    let within = |times: &[Instant], seconds| {
        let end = start + Duration::from_secs(seconds);
        times.iter().filter(|at| **at <= end).count() as f64
    };
    let times = run(&mut reader, &mut now, start + Duration::from_secs(20), false);
    for seconds in [0, 1, 5, 20] {
        let most = ASKED.burst + ASKED.rate * seconds as f64;
        assert!(within(&times, seconds) <= most, "{seconds}: {}", within(&times, seconds));
    }
    assert!(within(&times, 20) > ASKED.burst, "all have their turn");
}

#[test]
fn a_network_that_changes_all_the_time_has_nobody_asked_all_the_time() {
    let (mut reader, mut now) = (told(1, READ), epoch());
    reader.tell([at("1.2.3.4:5")], None, now);
    let end = now + Duration::from_secs(1000);
    run(&mut reader, &mut now, end, false);
    let mut asked = |seconds: u64, hurry: bool| {
        if hurry {
            reader.hurry(now);
        }
        let end = now + Duration::from_secs(seconds);
        run(&mut reader, &mut now, end, false).len()
    };
    let often = asked(2, true);
    assert!(often >= 3, "{often}");
    let again: usize = (0..20).map(|_| asked(2, true)).sum();
    assert!(again <= 5, "{again}: the pauses go on growing");
    asked(HURRY_PAUSE.as_secs(), false);
    assert!(asked(2, true) >= 3);
}

#[test]
fn hints_of_topics_that_are_not_looked_for_go_first_and_what_people_named_stays() {
    let (mut told, now) = (told(1, READ), epoch());
    told.tell([at("9.9.9.9:9")], None, now);
    told.tell([at("8.8.8.8:8")], Some(TOPIC), now);
    for n in 0..2 * MAX_HINTED as u32 {
        let addr = SocketAddr::from((std::net::Ipv4Addr::from(0x0100_0000 + n), 5));
        told.tell([addr], Some(Topic([9; 32])), now);
    }
    assert_eq!(told.addresses.len(), MAX_HINTED + 1);
    assert!(told.addresses.iter().any(|place| place.of == Some(TOPIC)));
    (0..100).for_each(|n| told.tell([SocketAddr::from(([7, 7, 7, 7], 1 + n))], None, now));
    assert_eq!(told.addresses.iter().filter(|place| place.of.is_none()).count(), MAX_ADDRESSES);
    assert!(!told.addresses.iter().any(|place| place.addr == at("9.9.9.9:9")), "told first");
}
