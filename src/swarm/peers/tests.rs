//! Who is dialled when, and what strangers cannot fill.

use super::*;
use crate::sim::epoch;
use crate::swarm::secret_stream::vectors;
use rand::SeedableRng;

const TOPIC: Topic = Topic([9; 32]);

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn peers() -> (Peers, StdRng, Instant) {
    let mut rng = StdRng::seed_from_u64(1);
    (Peers::new(key(0), &mut rng), rng, epoch())
}

/// Whoever is dialled next.
fn next(peers: &mut Peers, now: Instant) -> Option<Dial> {
    let turns = [Turn::Sought, Turn::Hopeful, Turn::Again].into_iter();
    turns.filter_map(|turn| peers.next_dial(turn, false, now)).next()
}

#[test]
fn priorities_of_the_vectors() {
    for case in vectors()["hyperswarm"]["priority"].as_array().unwrap() {
        let (mut peers, mut rng, now) = peers();
        let [tried, proven] = ["tried", "proven"].map(|flag| case[flag].as_bool().unwrap());
        let attempts = case["attempts"].as_u64().unwrap() as u32;
        peers.upsert(key(1), now).unwrap().attempts = attempts;
        peers.enqueue(key(1), now, &mut rng);
        assert_eq!(peers.queued() == 1, case["enqueues"].as_bool().unwrap(), "{case}");
        let info = PeerInfo { attempts, tried, proven, ..PeerInfo::default() };
        assert_eq!(info.priority() as u64, case["priority"].as_u64().unwrap(), "{case}");
    }
}

#[test]
fn a_found_peer_is_dialled_once() {
    let (mut peers, mut rng, now) = peers();
    peers.found(key(1), vec![], TOPIC, false, now, &mut rng);
    peers.found(key(1), vec![], TOPIC, false, now, &mut rng);
    peers.found(key(0), vec![], TOPIC, false, now, &mut rng);
    assert_eq!(next(&mut peers, now).unwrap().remote, key(1));
    peers.connecting(key(1), now);
    peers.found(key(1), vec![], TOPIC, false, now, &mut rng);
    assert!(next(&mut peers, now).is_none());
}

#[test]
fn a_peer_that_fails_is_tried_four_times_and_then_left_until_found_again() {
    let (mut peers, mut rng, start) = peers();
    peers.found(key(1), vec![], TOPIC, false, start, &mut rng);
    let mut now = start;
    let mut dials = 0;
    while next(&mut peers, now).is_some() {
        dials += 1;
        peers.connecting(key(1), now);
        peers.disconnected(key(1), true, |_| true, now, &mut rng);
        let Some(at) = peers.poll_timeout() else { break };
        now = at;
        peers.handle_timeout(now, &mut rng);
    }
    assert_eq!(dials, 4);
    assert!(now - start > Duration::from_secs(20), "{:?}", now - start);
    peers.found(key(1), vec![], TOPIC, true, now, &mut rng);
    assert!(next(&mut peers, now).is_none(), "a quick lookup is no news");
    now += GIVEN_UP_PAUSE;
    peers.found(key(1), vec![], TOPIC, true, now, &mut rng);
    assert!(next(&mut peers, now).is_some());
}

#[test]
fn nobody_is_retried_once_the_topic_is_left() {
    let (mut peers, mut rng, now) = peers();
    peers.found(key(1), vec![], TOPIC, false, now, &mut rng);
    next(&mut peers, now).unwrap();
    peers.connected(key(1), true, now);
    peers.disconnected(key(1), true, |_| false, now, &mut rng);
    assert_eq!(peers.poll_timeout(), None);
}

#[test]
fn an_explicit_peer_is_never_given_up() {
    let (mut peers, mut rng, mut now) = peers();
    peers.join_explicit(key(1), now, &mut rng);
    for _ in 0..20 {
        assert!(next(&mut peers, now).unwrap().explicit);
        peers.connecting(key(1), now);
        peers.disconnected(key(1), true, |_| false, now, &mut rng);
        now = peers.poll_timeout().unwrap();
        peers.handle_timeout(now, &mut rng);
    }
}

#[test]
fn a_banned_peer_is_refused_until_the_ban_ends() {
    let (mut peers, mut rng, now) = peers();
    peers.found(key(1), vec![], TOPIC, false, now, &mut rng);
    let until = now + Duration::from_secs(60);
    peers.ban(key(1), until, now);
    assert!(next(&mut peers, now).is_none());
    assert!(peers.is_refused(&key(1), now));
    assert!(!peers.is_refused(&key(1), until));
    assert!(peers.is_refused(&key(0), now), "our own key");
}

#[test]
fn invented_peers_fill_no_memory() {
    let (mut peers, mut rng, now) = peers();
    for i in 0..2 * MAX_PEERS as u32 {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&i.to_le_bytes());
        peers.found(PublicKey(key), vec![], TOPIC, false, now, &mut rng);
    }
    assert_eq!(peers.len(), MAX_PEERS);
}

#[test]
fn a_peer_of_many_drives_is_known_under_all_and_strangers_fill_no_memory_with_topics() {
    let (mut peers, mut rng, now) = peers();
    let topic = |n: usize| Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
    peers.connected(key(1), true, now);
    for n in 0..1000 {
        peers.found(key(1), vec![], topic(n), false, now, &mut rng);
    }
    assert_eq!(peers.get(&key(1)).unwrap().topics.len(), 1000);
    for n in 0..MAX_MEMBERSHIPS + 5 {
        peers.found(key(2 + (n % 100) as u8), vec![], topic(n / 100), false, now, &mut rng);
    }
    let all = |peers: &Peers| peers.peers.values().map(|p| p.topics.len()).sum::<usize>();
    assert_eq!((all(&peers), peers.memberships), (MAX_MEMBERSHIPS, MAX_MEMBERSHIPS));
    peers.found(key(1), vec![], topic(70_000), false, now, &mut rng);
    assert_eq!(peers.get(&key(1)).unwrap().topics.len(), 1001, "connected: always");
    peers.leave_topic(&topic(0), now);
    assert_eq!((all(&peers), peers.memberships), (MAX_MEMBERSHIPS - 100, MAX_MEMBERSHIPS - 100));
}
