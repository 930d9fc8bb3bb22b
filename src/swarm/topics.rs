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
mod tests;
