//! All topics we joined, and whose round comes next.
//!
//! Rounds queue: at most [`MAX_ROUNDS`] run at a time, so that a thousand topics do not ask all at once.
//!
//! Source: hyperswarm/lib/peer-discovery.js (the queue is ours)

use super::topic::{Action, JoinOptions, Joined, Query, Round, Slot, TopicStatus};
use crate::key::{PublicKey, Topic};
use crate::swarm::dht_rpc::QueryId;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Rounds at a time. Each keeps up to 20 requests in flight, as many together as the DHT node sends at once:
/// more would only make those wait that somebody waits for. A thousand topics need a minute or two.
const MAX_ROUNDS: usize = 8;
/// First looks of a reader, somebody waits for them, that need not queue behind those.
const MAX_URGENT: usize = 8;

/// Peers counted per round; more are dialled all the same, but not remembered here.
const MAX_FOUND: usize = 1024;

/// A peer that a round has found.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerFound {
    pub topic: Topic,
    /// By a quick round.
    pub quick: bool,
    /// No node has named it in this round before.
    pub first: bool,
}

/// All joined topics, and those being left.
#[derive(Debug, Default)]
pub struct Topics {
    topics: BTreeMap<Topic, Joined>,
    queries: BTreeMap<QueryId, Topic>,
    cancelled: Vec<QueryId>,
    /// Topics that wait for their next round, and those of them that somebody waits for.
    due: BTreeSet<Slot>,
    urgent: BTreeSet<Slot>,
    /// We have relays that can be announced.
    may_announce: bool,
}

impl Topics {
    /// Joins `topic`, or changes the roles in which it is joined; a round starts at once.
    pub fn join(&mut self, topic: Topic, options: JoinOptions, now: Instant) {
        let joined = self.topics.entry(topic).or_insert_with(|| Joined::new(options, now));
        let full = |round: &Query| round.action != Action::Glance;
        if joined.options == options && !joined.left && joined.query.as_ref().is_some_and(full) {
            return;
        }
        joined.rejoin(options, now);
        self.drop_query(&topic);
        self.schedule(&topic);
    }

    /// Leaves `topic`: looks no more, and withdraws what was announced.
    pub fn leave(&mut self, topic: &Topic, now: Instant) {
        self.drop_query(topic);
        let Some(joined) = self.topics.get_mut(topic) else { return };
        (joined.left, joined.refresh_at, joined.quick_at) = (true, now, None);
        if joined.sent {
            self.schedule(topic);
        } else {
            self.remove(topic);
        }
    }

    pub fn leave_all(&mut self, now: Instant) {
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            self.leave(&topic, now);
        }
    }

    /// Whether any topic is to be announced.
    pub fn is_server(&self) -> bool {
        self.topics.values().any(|joined| joined.options.server && !joined.left)
    }

    /// We listen: announcements, held back until now, may name our relays.
    pub fn may_announce(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.may_announce, true) {
            self.topics.values_mut().for_each(|joined| joined.announce_soon(now));
            self.schedule_all();
        }
    }

    /// Whether nothing is joined nor being withdrawn.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn is_joined(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|joined| !joined.left)
    }

    /// Everything due now, again: the network changed.
    pub fn refresh(&mut self, now: Instant) {
        for joined in self.topics.values_mut() {
            joined.refresh(now);
        }
        self.schedule_all();
    }

    /// The topic has no peer any more: look soon.
    pub fn lonely(&mut self, topic: &Topic, now: Instant) {
        if let Some(joined) = self.topics.get_mut(topic)
            && joined.options.client
            && !joined.left
        {
            joined.lonely(now);
            self.schedule(topic);
        }
    }

    /// The next thing to ask the DHT for. `Some` other than a cancellation must be answered by
    /// [`Self::started`]. `has_peer` tells whether a topic has a connection.
    pub fn poll(
        &mut self,
        now: Instant,
        has_peer: impl Fn(&Topic) -> bool,
    ) -> Option<(Topic, Action)> {
        if let Some(query) = self.cancelled.pop() {
            return Some((Topic([0; 32]), Action::Cancel(query)));
        }
        loop {
            let (_, topic) = self.next_slot().filter(|(at, _)| *at <= now)?;
            let joined = self.topics.get_mut(&topic)?;
            if joined.refresh_at > now {
                joined.quick_at = None;
                if std::mem::take(&mut joined.once_more) || !has_peer(&topic) {
                    return Some((topic, Action::Glance));
                }
                joined.skip_glance();
            } else {
                match joined.round(self.may_announce) {
                    Some(action) => return Some((topic, action)),
                    None => joined.skip_round(now),
                }
            }
            self.schedule(&topic);
        }
    }

    /// `action` for `topic` runs as `id`.
    pub fn started(&mut self, topic: Topic, action: Action, id: QueryId) {
        let Some(joined) = self.topics.get_mut(&topic) else { return };
        joined.query = Some(Query { id, action, found: BTreeSet::new(), stored: 0 });
        joined.sent |= action == Action::Announce;
        self.queries.insert(id, topic);
        self.schedule(&topic);
    }

    /// A query found `peer`: what that means, if it is to be dialled.
    pub fn peer_found(&mut self, query: QueryId, peer: PublicKey) -> Option<PeerFound> {
        let topic = *self.queries.get(&query)?;
        let joined = self.topics.get_mut(&topic)?;
        let round = joined.query.as_mut().filter(|round| round.id == query)?;
        let first = round.found.len() >= MAX_FOUND || round.found.insert(peer);
        let quick = round.action == Action::Glance;
        (joined.options.client && !joined.left).then_some(PeerFound { topic, quick, first })
    }

    /// The announcement of a query was stored at so many nodes.
    pub fn stored(&mut self, query: QueryId, nodes: usize) {
        let topic = self.queries.get(&query);
        let round = topic.and_then(|t| self.topics.get_mut(t)).and_then(|j| j.query.as_mut());
        if let Some(round) = round.filter(|round| round.id == query) {
            round.stored = nodes;
        }
    }

    /// A query ended. Schedules the next round of its topic.
    pub fn finished(
        &mut self,
        query: QueryId,
        has_peer: impl Fn(&Topic) -> bool,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<Round> {
        let topic = self.queries.remove(&query)?;
        let joined = self.topics.get_mut(&topic)?;
        let round = joined.query.take_if(|round| round.id == query)?;
        if round.action == Action::Unannounce {
            (joined.sent, joined.announced) = (false, false);
            if joined.left {
                self.remove(&topic);
            } else {
                self.schedule(&topic); // its roles changed: the round they ask for is due at once
            }
            return None;
        }
        joined.after_round(&round, has_peer(&topic), now, rng);
        if self.may_announce {
            joined.announce_soon(now);
        }
        let announced = joined.announced;
        self.schedule(&topic);
        Some(Round { topic, found: round.found.len(), announced })
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_slot().map(|(at, _)| at)
    }

    pub fn status(&self) -> Vec<TopicStatus> {
        let joined = self.topics.iter().filter(|(_, joined)| !joined.left);
        joined
            .map(|(&topic, d)| TopicStatus {
                topic,
                options: d.options,
                announced: d.announced,
                found: d.found,
                rounds: d.rounds,
            })
            .collect()
    }

    /// The round that comes next, if there is room for one.
    fn next_slot(&self) -> Option<Slot> {
        let running = self.queries.len();
        let urgent = self.urgent.first().filter(|_| running < MAX_ROUNDS + MAX_URGENT);
        let other = self.due.first().filter(|_| running < MAX_ROUNDS);
        // Both are due now or later: what somebody waits for is never later than now.
        urgent.or(other).copied()
    }

    fn schedule(&mut self, topic: &Topic) {
        self.unschedule(topic);
        let Some(joined) = self.topics.get_mut(topic) else { return };
        let Some(at) = joined.next_at(self.may_announce) else { return };
        joined.slot = Some((at, *topic));
        let queue = if joined.is_urgent() { &mut self.urgent } else { &mut self.due };
        queue.insert((at, *topic));
    }

    fn unschedule(&mut self, topic: &Topic) {
        if let Some(slot) = self.topics.get_mut(topic).and_then(|joined| joined.slot.take()) {
            self.due.remove(&slot);
            self.urgent.remove(&slot);
        }
    }

    fn schedule_all(&mut self) {
        for topic in self.topics.keys().copied().collect::<Vec<_>>() {
            self.schedule(&topic);
        }
    }

    fn remove(&mut self, topic: &Topic) {
        self.unschedule(topic);
        self.topics.remove(topic);
    }

    fn drop_query(&mut self, topic: &Topic) {
        if let Some(round) = self.topics.get_mut(topic).and_then(|d| d.query.take()) {
            self.queries.remove(&round.id);
            self.cancelled.push(round.id);
        }
    }
}

#[cfg(test)]
mod tests {
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
            let (mut topics, mut rng, start) =
                (Topics::default(), StdRng::seed_from_u64(1), epoch());
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
}
