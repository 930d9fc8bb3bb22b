use super::*;
use crate::crypto::KeyPair;
use crate::sim::epoch;
use crate::swarm::hyperdht::signatures::sign_mutable;
use crate::swarm::hyperdht::value_store::VALUE_AGE;
use rand::SeedableRng;

const FROM: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(1, 2, 3, 4), 5);
const NODE: NodeId = NodeId([8; 32]);
const TOKEN: [u8; 32] = [6; 32];

fn pair(n: u8) -> KeyPair {
    KeyPair::from_seed(&[n; 32])
}

fn record(pair: &KeyPair) -> PeerRecord {
    PeerRecord { public_key: PublicKey(pair.public()), relay_addresses: vec![FROM; 5] }
}

fn announce(records: &mut Records, target: &NodeId, pair: &KeyPair, now: Instant) -> bool {
    let place = Place { target, node: &NODE, token: &TOKEN };
    let value = place.announce(record(pair), pair).encode();
    records.announce(place, &value, FROM, now)
}

fn found(records: &Records, target: &NodeId) -> Vec<PublicKey> {
    let mut rng = StdRng::seed_from_u64(1);
    let Some(value) = records.lookup(target, &mut rng) else { return Vec::new() };
    LookupReply::decode(&value).unwrap().peers.iter().map(|p| p.public_key).collect()
}

#[test]
fn a_topic_keeps_each_key_once_and_forgets_on_demand() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let topic = NodeId([7; 32]);
    for n in [1, 2, 1] {
        assert!(announce(&mut records, &topic, &pair(n), now));
    }
    assert_eq!(found(&records, &topic).len(), 2);
    let place = Place { target: &topic, node: &NODE, token: &TOKEN };
    let value = place.unannounce(&pair(1)).encode();
    assert!(!records.unannounce(Place { token: &[0; 32], ..place }, &value), "other token");
    assert!(records.unannounce(place, &value));
    assert_eq!(found(&records, &topic), [PublicKey(pair(2).public())]);
}

#[test]
fn records_carry_three_relays_at_most() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let topic = NodeId([7; 32]);
    announce(&mut records, &topic, &pair(1), now);
    let value = records.lookup(&topic, &mut StdRng::seed_from_u64(1)).unwrap();
    assert_eq!(LookupReply::decode(&value).unwrap().peers[0].relay_addresses.len(), 3);
}

#[test]
fn announcing_the_own_key_makes_a_route() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let own = NodeId(hash::hash(&[&pair(1).public()]));
    assert!(announce(&mut records, &own, &pair(1), now));
    assert_eq!(records.route(&own).unwrap().relay, FROM);
    assert_eq!(found(&records, &own).len(), 1);
    records.forget(&own, &PublicKey(pair(1).public()));
    assert!(records.route(&own).is_none());
}

#[test]
fn unsigned_and_foreign_announcements_are_not_stored() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let topic = NodeId([7; 32]);
    let place = Place { target: &topic, node: &NODE, token: &TOKEN };
    let mut forged = place.announce(record(&pair(1)), &pair(2));
    assert!(!records.announce(place, &forged.encode(), FROM, now));
    forged.signature = None;
    assert!(!records.announce(place, &forged.encode(), FROM, now));
    assert!(!records.announce(place, &[1, 2, 3], FROM, now));
    assert!(records.is_empty());
}

#[test]
fn announcements_fade_unless_made_again() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let topic = NodeId([7; 32]);
    announce(&mut records, &topic, &pair(1), now);
    announce(&mut records, &topic, &pair(2), now);
    let later = now + RECORD_AGE / 2;
    records.handle_timeout(later);
    announce(&mut records, &topic, &pair(2), later);
    assert_eq!(found(&records, &topic).len(), 2);
    records.handle_timeout(now + RECORD_AGE);
    assert_eq!(found(&records, &topic), [PublicKey(pair(2).public())]);
}

#[test]
fn a_lookup_shows_some_of_many_records() {
    let now = epoch();
    let mut records = Records::new(0, now);
    for n in 0..100 {
        let peer = record(&KeyPair::from_seed(&hash::hash(&[&[n]])));
        records.announce_own(&NodeId([7; 32]), &peer, now);
    }
    assert_eq!(found(&records, &NodeId([7; 32])).len(), SHOWN);
}

#[test]
fn a_refresh_token_renews_once_and_passes_on() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let first = [1; 32];
    let second = hash::hash(&[&first]);
    let target = NodeId([7; 32]);
    let entry = Refresh {
        target,
        public_key: PublicKey(pair(1).public()),
        encoded: record(&pair(1)).encode(),
        own: false,
    };
    records.note_refresh(second, entry, *FROM.ip(), now);
    let renew = |token| Announce { refresh: Some(token), ..Announce::default() }.encode();
    let place = Place { target: &target, node: &NODE, token: &TOKEN };
    assert!(!records.announce(place, &renew([9; 32]), FROM, now));
    assert!(records.announce(place, &renew(first), FROM, now));
    assert!(!records.announce(place, &renew(first), FROM, now), "once");
    assert_eq!(found(&records, &target).len(), 1);
}

#[test]
fn mutable_values_only_move_forward() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let public_key = PublicKey(pair(1).public());
    let target = NodeId(hash::hash(&[&public_key.0]));
    let put = |seq, text: &str| {
        MutablePut { public_key, value: sign_mutable(seq, text.into(), &pair(1)) }.encode()
    };
    assert_eq!(records.mutable_put(&target, &put(2, "a"), *FROM.ip(), now), Some(Stored::Ok));
    let reused = Some(Stored::Error(error::SEQ_REUSED));
    assert_eq!(records.mutable_put(&target, &put(2, "b"), *FROM.ip(), now), reused);
    let low = Some(Stored::Error(error::SEQ_TOO_LOW));
    assert_eq!(records.mutable_put(&target, &put(1, "c"), *FROM.ip(), now), low);
    assert_eq!(records.mutable_put(&target, &put(3, "d"), *FROM.ip(), now), Some(Stored::Ok));
    let forged = MutableValue { seq: 9, ..sign_mutable(3, b"d".to_vec(), &pair(1)) };
    let forged = MutablePut { public_key, value: forged }.encode();
    assert_eq!(records.mutable_put(&target, &forged, *FROM.ip(), now), None, "unsigned");
    for len in [0, MAX_VALUE + 1] {
        let put = put(9, &"x".repeat(len));
        assert_eq!(records.mutable_put(&target, &put, *FROM.ip(), now), None, "{len}");
    }
    assert_eq!(
        records.mutable_put(&NODE, &put(3, "d"), *FROM.ip(), now),
        None,
        "under its key only"
    );
    assert_eq!(records.mutable_get(&target, &[4]), Some(None));
    let value = records.mutable_get(&target, &[3]).unwrap().unwrap();
    assert_eq!(MutableValue::decode(&value).unwrap().value, b"d");
    assert_eq!(records.mutable_get(&target, &[]), None);
}

#[test]
fn immutable_values_are_kept_under_their_hash() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let target = NodeId(hash::hash(&[b"hello"]));
    assert_eq!(records.immutable_put(&NODE, b"hello", *FROM.ip(), now), None);
    assert_eq!(records.immutable_put(&target, b"hello", *FROM.ip(), now), Some(Stored::Ok));
    assert_eq!(records.immutable_get(&target).as_deref(), Some(&b"hello"[..]));
    let big = vec![0; MAX_VALUE + 1];
    assert_eq!(records.immutable_put(&NodeId(hash::hash(&[&big])), &big, *FROM.ip(), now), None);
}

#[test]
fn no_host_fills_the_store_with_values_and_both_kinds_fade() {
    let now = epoch();
    let mut records = Records::new(0, now);
    let other = Ipv4Addr::new(5, 6, 7, 8);
    let put = |records: &mut Records, n: u32, from| {
        let value = [&n.to_le_bytes()[..], &[0; 1000]].concat();
        let put = records.immutable_put(&NodeId(hash::hash(&[&value])), &value, from, now);
        put == Some(Stored::Ok)
    };
    let kept = (0..2000).filter(|&n| put(&mut records, n, *FROM.ip())).count();
    assert!((500..1000).contains(&kept), "{kept}");
    assert!(put(&mut records, 3000, other));
    let put = |records: &mut Records, n: u32, from| {
        let pair = KeyPair::from_seed(&hash::hash(&[&n.to_le_bytes()]));
        let public_key = PublicKey(pair.public());
        let put = MutablePut { public_key, value: sign_mutable(1, vec![0; 1000], &pair) };
        let target = NodeId(hash::hash(&[&public_key.0]));
        records.mutable_put(&target, &put.encode(), from, now) == Some(Stored::Ok)
    };
    let kept = (0..1000).filter(|&n| put(&mut records, n, *FROM.ip())).count();
    assert!((500..1000).contains(&kept), "{kept}");
    assert!(put(&mut records, 3000, other));
    let mut at = now;
    while !records.is_empty() {
        at = records.poll_timeout().unwrap();
        records.handle_timeout(at);
    }
    assert_eq!(at, now + VALUE_AGE);
}

#[test]
fn a_bump_from_the_future_is_ignored() {
    let now = epoch();
    let mut records = Records::new(1_000_000, now);
    let topic = NodeId([7; 32]);
    records.bump(&topic, 1_000_000 + MAX_BUMP_DRIFT_MS + 1, *FROM.ip(), now);
    assert_eq!(records.bumps.get(&topic), None);
    records.bump(&topic, 1_000_000 + MAX_BUMP_DRIFT_MS, *FROM.ip(), now);
    records.bump(&topic, 5, *FROM.ip(), now);
    assert_eq!(records.bumps.get(&topic), Some(&(1_000_000 + MAX_BUMP_DRIFT_MS)));
}
#[test]
fn no_host_takes_the_tokens_and_bumps_of_others() {
    let now = epoch();
    let mut records = Records::new(1_000_000, now);
    let other = Ipv4Addr::new(5, 6, 7, 8);
    let numbered = |n: u32| hash::hash(&[&n.to_le_bytes()]);
    let entry = |n| Refresh {
        target: NodeId(numbered(n)),
        public_key: PublicKey([1; 32]),
        encoded: vec![0; 51],
        own: false,
    };
    records.note_refresh(numbered(0), entry(0), other, now);
    records.bump(&NodeId(numbered(0)), 7, other, now);
    for n in 1..2 * MAX_ENTRIES as u32 {
        records.note_refresh(numbered(n), entry(n), *FROM.ip(), now);
        records.bump(&NodeId(numbered(n)), 7, *FROM.ip(), now);
    }
    assert!(records.refreshes.get(&NodeId(numbered(0))).is_some());
    assert!(records.bumps.get(&NodeId(numbered(0))).is_some());
    assert_eq!(records.refreshes.len(), 1 + MAX_SOURCE_ENTRIES);
    assert_eq!(records.bumps.len(), 1 + MAX_SOURCE_ENTRIES);
    records.handle_timeout(now + RECORD_AGE);
    assert_eq!((records.refreshes.len(), records.bumps.len()), (0, 0));
    assert_eq!(records.poll_timeout(), None);
}

#[test]
fn an_announcement_that_is_refused_bumps_nothing() {
    let now = epoch();
    let mut records = Records::new(1_000_000, now);
    let topic = NodeId([7; 32]);
    // The host has all that it may have.
    let large = Record { public_key: PublicKey([1; 32]), encoded: vec![0; 100_000] };
    let mut full = 0u32;
    while records.announcements.put(
        NodeId(hash::hash(&[&full.to_le_bytes()])),
        large.clone(),
        Some(*FROM.ip()),
        now,
    ) {
        full += 1;
    }
    let small = Record { public_key: PublicKey([1; 32]), encoded: vec![0; 51] };
    while records.announcements.put(
        NodeId(hash::hash(&[&full.to_le_bytes()])),
        small.clone(),
        Some(*FROM.ip()),
        now,
    ) {
        full += 1;
    }
    let place = Place { target: &topic, node: &NODE, token: &TOKEN };
    let mut announce = place.announce(record(&pair(1)), &pair(1));
    announce.bump = 1_000_000;
    assert!(!records.announce(place, &announce.encode(), FROM, now));
    assert_eq!(records.bumps.get(&topic), None);
    let from = SocketAddrV4::new(Ipv4Addr::new(5, 6, 7, 8), 9);
    assert!(records.announce(place, &announce.encode(), from, now));
    assert_eq!(records.bumps.get(&topic), Some(&1_000_000));
}
