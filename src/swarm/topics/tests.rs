//! When topics are asked for, in virtual time.

use super::*;
use crate::sim::epoch;
use rand::SeedableRng;
use std::time::Duration;

const TOPIC: Topic = Topic([1; 32]);
const CLIENT: JoinOptions = JoinOptions { server: false, client: true };
const SERVER: JoinOptions = JoinOptions { server: true, client: false };
const BOTH: JoinOptions = JoinOptions { server: true, client: true };

/// Topics whose queries end at once with `found` peers, in virtual time.
struct Alone {
    topics: Topics,
    rng: StdRng,
    now: Instant,
    start: Instant,
    queries: u64,
    has_peer: bool,
    /// Nodes that store an announcement.
    stored: usize,
    /// Seconds since the start, and what was asked.
    log: Vec<(u64, Action)>,
}

impl Alone {
    fn new() -> Self {
        let now = epoch();
        let rng = StdRng::seed_from_u64(1);
        let (mut topics, log) = (Topics::default(), Vec::new());
        topics.may_announce(now);
        Self { topics, rng, now, start: now, queries: 0, has_peer: false, stored: 20, log }
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            self.round();
            match self.topics.poll_timeout() {
                Some(at) if at <= end => self.now = at,
                _ => break,
            }
        }
        self.now = end;
    }

    fn round(&mut self) {
        let has_peer = self.has_peer;
        while let Some((topic, action)) = self.topics.poll(self.now, |_| has_peer) {
            self.log.push(((self.now - self.start).as_secs(), action));
            if matches!(action, Action::Cancel(_)) {
                continue;
            }
            self.queries += 1;
            let id = QueryId(self.queries);
            self.topics.started(topic, action, id);
            if action == Action::Announce {
                self.topics.stored(id, self.stored);
            }
            self.topics.finished(id, |_| has_peer, self.now, &mut self.rng);
        }
    }

    fn times(&self) -> Vec<u64> {
        self.log.iter().map(|&(at, _)| at).collect()
    }
}

/// Somebody new has come, who knows of no round before; nor is a glance what he waits for.
#[test]
fn a_topic_that_is_joined_again_is_looked_up_at_once() {
    let mut alone = Alone::new();
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.run(2);
    alone.log.clear();
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.round();
    assert_eq!(alone.log, [(2, Action::Lookup)]);
    let quick = alone.topics.poll_timeout().unwrap();
    assert_eq!(alone.topics.poll(quick, |_| false), Some((TOPIC, Action::Glance)));
    alone.topics.started(TOPIC, Action::Glance, QueryId(99));
    alone.topics.join(TOPIC, CLIENT, quick);
    let cancel = Action::Cancel(QueryId(99));
    let next = |topics: &mut Topics| topics.poll(quick, |_| false).map(|(_, action)| action);
    assert_eq!(next(&mut alone.topics), Some(cancel));
    assert_eq!(next(&mut alone.topics), Some(Action::Lookup));
    // A whole round that is under way is as good as a new one.
    alone.topics.started(TOPIC, Action::Lookup, QueryId(100));
    alone.topics.join(TOPIC, CLIENT, quick);
    assert_eq!(next(&mut alone.topics), None);
}

#[test]
fn a_client_without_peers_looks_again_at_growing_intervals() {
    let mut alone = Alone::new();
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.run(500);
    assert_eq!(alone.times(), [0, 1, 3, 7, 15, 31, 63, 127, 247, 367, 487]);
}

#[test]
fn a_client_with_a_peer_looks_every_ten_to_twelve_minutes() {
    let mut alone = Alone::new();
    alone.has_peer = true;
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.run(3600);
    let times = alone.times();
    assert!((5..=6).contains(&(times.len() - 1)), "{times:?}");
    assert!(times.windows(2).all(|w| (600..=720).contains(&(w[1] - w[0]))), "{times:?}");
}

#[test]
fn losing_the_last_peer_starts_a_lookup_soon() {
    let mut alone = Alone::new();
    alone.has_peer = true;
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.run(100);
    alone.has_peer = false;
    alone.topics.lonely(&TOPIC, alone.now);
    alone.run(5);
    assert_eq!(alone.times(), [0, 101, 102, 104]);
}

#[test]
fn nothing_is_announced_before_there_are_relays() {
    let mut alone = Alone::new();
    alone.topics = Topics::default();
    alone.topics.join(TOPIC, SERVER, alone.now);
    alone.run(5);
    assert!(alone.log.is_empty() && alone.topics.is_server());
    alone.topics.may_announce(alone.now);
    alone.run(5);
    assert_eq!(alone.log, [(5, Action::Announce)]);
}

#[test]
fn who_cannot_announce_yet_looks_meanwhile() {
    let mut alone = Alone::new();
    alone.topics = Topics::default();
    alone.topics.join(TOPIC, BOTH, alone.now);
    alone.run(5);
    let looks = [(0, Action::Lookup), (1, Action::Glance), (3, Action::Glance)];
    assert_eq!(alone.log, looks);
    // Relays come, while nothing is asked, or while a look is under way.
    for under_way in [false, true] {
        let mut alone = Alone::new();
        alone.topics = Topics::default();
        alone.topics.join(TOPIC, BOTH, alone.now);
        if under_way {
            alone.now += Duration::from_secs(2);
            let (topic, action) = alone.topics.poll(alone.now, |_| false).unwrap();
            alone.topics.started(topic, action, QueryId(99));
            alone.topics.may_announce(alone.now);
            assert_eq!(alone.topics.poll(alone.now, |_| false), None);
            alone.topics.finished(QueryId(99), |_| true, alone.now, &mut alone.rng).unwrap();
        } else {
            alone.run(5);
            alone.log.clear();
            alone.topics.may_announce(alone.now);
        }
        alone.has_peer = true;
        alone.round();
        let at = (alone.now - alone.start).as_secs();
        assert_eq!(alone.log, [(at, Action::Announce)], "{under_way}");
        alone.run(500);
        // One look for those who announced themselves at the same moment, and no more.
        assert_eq!(alone.log[1..], [(at + 1, Action::Glance)], "{under_way}");
    }
}

#[test]
fn leaving_withdraws_what_was_announced() {
    let mut alone = Alone::new();
    alone.topics.join(TOPIC, SERVER, alone.now);
    alone.run(1);
    alone.topics.leave(&TOPIC, alone.now);
    assert!(!alone.topics.is_joined(&TOPIC));
    assert!(!alone.topics.is_empty());
    alone.round();
    assert!(alone.topics.is_empty());
    assert_eq!(alone.log, [(0, Action::Announce), (1, Action::Unannounce)]);
}

#[test]
fn a_server_that_becomes_a_client_withdraws_and_looks() {
    let mut alone = Alone::new();
    alone.has_peer = true;
    alone.topics.join(TOPIC, SERVER, alone.now);
    alone.run(1);
    alone.topics.join(TOPIC, CLIENT, alone.now);
    alone.run(1);
    let asked: Vec<_> = alone.log.iter().map(|&(_, action)| action).collect();
    assert_eq!(asked, [Action::Announce, Action::Unannounce, Action::Lookup]);
}

#[test]
fn changing_roles_stops_the_running_query() {
    let mut alone = Alone::new();
    alone.topics.join(TOPIC, CLIENT, alone.now);
    let (topic, action) = alone.topics.poll(alone.now, |_| false).unwrap();
    alone.topics.started(topic, action, QueryId(7));
    alone.topics.join(TOPIC, SERVER, alone.now);
    assert_eq!(alone.topics.peer_found(QueryId(7), PublicKey([1; 32])), None);
    let next: Vec<_> = std::iter::from_fn(|| alone.topics.poll(alone.now, |_| false))
        .map(|(_, action)| action)
        .take(2)
        .collect();
    assert_eq!(next, [Action::Cancel(QueryId(7)), Action::Announce]);
}

#[test]
fn only_a_client_dials_what_it_finds() {
    for (options, dials) in [(CLIENT, true), (SERVER, false)] {
        let mut alone = Alone::new();
        alone.topics.join(TOPIC, options, alone.now);
        let (topic, action) = alone.topics.poll(alone.now, |_| false).unwrap();
        alone.topics.started(topic, action, QueryId(1));
        let found = alone.topics.peer_found(QueryId(1), PublicKey([1; 32]));
        assert_eq!(found.is_some(), dials);
        let round = alone.topics.finished(QueryId(1), |_| false, alone.now, &mut alone.rng);
        assert_eq!(round.map(|r| r.found), Some(1));
    }
}

#[test]
fn of_many_topics_each_has_its_turn_though_all_are_due_again_and_again() {
    for every in [15, 60] {
        let (mut topics, mut rng, start) = (Topics::default(), StdRng::seed_from_u64(1), epoch());
        topics.may_announce(start);
        for n in 0..1000u32 {
            topics.join(Topic(crate::crypto::hash::hash(&[&n.to_le_bytes()])), SERVER, start);
        }
        let (mut running, mut id, mut refreshed) = (Vec::new(), 0, 0);
        for ms in (0..300_000u64).step_by(50) {
            let now = start + Duration::from_millis(ms);
            if ms / 1000 / every > refreshed {
                refreshed = ms / 1000 / every;
                topics.refresh(now);
            }
            running.retain(|&(at, query)| {
                if at <= now {
                    topics.stored(query, 20);
                    topics.finished(query, |_| false, now, &mut rng);
                }
                at > now
            });
            while let Some((topic, action)) = topics.poll(now, |_| false) {
                id += 1;
                topics.started(topic, action, QueryId(id));
                running.push((now + Duration::from_millis(700), QueryId(id)));
            }
        }
        let rounds: Vec<_> = topics.status().iter().map(|topic| topic.rounds).collect();
        let (least, most) = (rounds.iter().min().unwrap(), rounds.iter().max().unwrap());
        assert!(*least >= 3 && most - least <= 1, "every {every} s: {least} to {most} rounds");
    }
}
