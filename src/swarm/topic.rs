//! One topic we joined, and when it is announced or looked up again.
//!
//! A *server* of a topic announces itself under it, a *client* looks for those who did. Announcing
//! looks up on its way, so one round of a topic is one query. A full round comes every 10 to 12 minutes, and
//! soon again if no node stored the announcement. Between them a client without a peer glances at a few of the
//! nodes it knows after 1 s, 2 s, 4 s … up to [`QUICK_MAX`], so that mounting a drive just before it is shared
//! does not wait for the next full round. Who is announced needs that only at first, and once whoever is connected:
//! others may have announced themselves at the same moment, and peers that come later find us. As long as nothing can be
//! announced, for want of relays, who would do both looks: that is how a mount begins.
//!
//! Source: hyperswarm/lib/peer-discovery.js (quick rounds are ours)

use crate::key::{PublicKey, Topic};
use crate::swarm::dht_rpc::QueryId;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time between full rounds, and what is added to it at random.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
const REFRESH_JITTER_MS: u64 = 120_000;

/// First wait of a client without a peer; doubles with every fruitless round.
const QUICK_MIN: Duration = Duration::from_secs(1);
/// Longest such wait. A glance costs three requests.
const QUICK_MAX: Duration = Duration::from_secs(120);

/// First and longest wait after an announcement that no node stored; doubles in between.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// In which roles a topic is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinOptions {
    /// Announce ourselves.
    pub server: bool,
    /// Look for others and dial them.
    pub client: bool,
}

/// What to ask the DHT for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Announce,
    Lookup,
    /// Look at a few of the nodes that the last lookup found.
    Glance,
    Unannounce,
    /// Stop this query: its topic was left or changed roles.
    Cancel(QueryId),
}

/// A finished round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub topic: Topic,
    /// Different peers it found.
    pub found: usize,
    /// At least one node stored our record when it was last announced.
    pub announced: bool,
}

/// A round under way.
#[derive(Debug)]
pub(super) struct Query {
    pub id: QueryId,
    pub action: Action,
    pub found: BTreeSet<PublicKey>,
    /// Nodes that stored our record.
    pub stored: usize,
}

/// One topic.
#[derive(Debug)]
pub(super) struct Joined {
    pub options: JoinOptions,
    /// A node may hold a record of us: one was sent, whether it was stored or not.
    pub sent: bool,
    /// A node stored our record at the last announcement.
    pub announced: bool,
    /// We left it; what was announced is still to be withdrawn.
    pub left: bool,
    pub query: Option<Query>,
    /// When the next full round is due.
    pub refresh_at: Instant,
    /// When the next quick one is, while there is no peer.
    pub quick_at: Option<Instant>,
    /// The next quick one is made whoever is connected: others may have announced themselves while we did.
    pub once_more: bool,
    pub quick_wait: Duration,
    pub retry_wait: Duration,
    pub found: usize,
    pub rounds: u64,
    /// No round has ended since it was joined last.
    pub begins: bool,
    /// When the last full round ended.
    pub last_round: Option<Instant>,
    /// Its place among those that wait.
    pub slot: Option<Slot>,
}

/// When a round is due, and of which topic.
pub(super) type Slot = (Instant, Topic);

impl Joined {
    /// Just joined: its first round is due.
    pub fn new(options: JoinOptions, now: Instant) -> Self {
        Self {
            options,
            sent: false,
            announced: false,
            left: false,
            query: None,
            refresh_at: now,
            quick_at: None,
            once_more: false,
            quick_wait: QUICK_MIN,
            retry_wait: RETRY_MIN,
            found: 0,
            rounds: 0,
            begins: true,
            last_round: None,
            slot: None,
        }
    }

    /// Everything starts over at `now`: it was joined again, perhaps in other roles.
    pub fn rejoin(&mut self, options: JoinOptions, now: Instant) {
        (self.options, self.left, self.refresh_at, self.begins) = (options, false, now, true);
        (self.quick_at, self.quick_wait, self.retry_wait) = (None, QUICK_MIN, RETRY_MIN);
    }

    /// A full round is due, and after one that comes to nothing the next one soon. It counts as due since the last one,
    /// so that of many topics those come first that waited longest: or, with this again and again, some would
    /// never have a turn.
    pub fn refresh(&mut self, now: Instant) {
        self.refresh_at = self.refresh_at.min(self.last_round.unwrap_or(now));
        (self.quick_wait, self.retry_wait) = (QUICK_MIN, RETRY_MIN);
    }

    /// There is no peer any more: a look is due soon.
    pub fn lonely(&mut self, now: Instant) {
        self.quick_wait = QUICK_MIN;
        self.quick_at = Some(now + QUICK_MIN);
    }

    /// A glance was due and is not needed, as there is a peer.
    pub fn skip_glance(&mut self) {
        self.quick_wait = QUICK_MIN;
    }

    /// A full round was due at `now`, and there is nothing to ask for.
    pub fn skip_round(&mut self, now: Instant) {
        self.refresh_at = now + REFRESH_INTERVAL;
    }

    pub fn next_at(&self, may_announce: bool) -> Option<Instant> {
        let held = !may_announce && self.options.server && self.round(may_announce).is_none();
        if self.query.is_some() || held {
            return None;
        }
        Some(self.quick_at.map_or(self.refresh_at, |quick| quick.min(self.refresh_at)))
    }

    /// Somebody waits for the first round of a reader.
    pub fn is_urgent(&self) -> bool {
        self.begins && !self.options.server && self.round(false) == Some(Action::Lookup)
    }

    /// It can be announced now, and has not been: that is due.
    pub fn announce_soon(&mut self, now: Instant) {
        if self.options.server && !self.left && !self.sent {
            self.refresh_at = now;
        }
    }

    /// Notes what a round came to, and when the next ones are due.
    pub fn after_round(&mut self, round: &Query, has_peer: bool, now: Instant, rng: &mut StdRng) {
        (self.found, self.rounds, self.begins) = (round.found.len(), self.rounds + 1, false);
        if round.action == Action::Announce {
            self.once_more = self.options.client && !self.announced && round.stored > 0;
            self.announced = round.stored > 0;
        }
        if round.action != Action::Glance {
            let jitter = Duration::from_millis(rng.random_range(0..REFRESH_JITTER_MS));
            self.refresh_at = now + REFRESH_INTERVAL + jitter;
            self.last_round = Some(now);
        }
        if round.action == Action::Announce && round.stored == 0 {
            self.refresh_at = now + self.retry_wait.mul_f64(rng.random_range(0.8..1.2));
            self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
        } else {
            self.retry_wait = RETRY_MIN;
        }
        // Who comes later than we do finds our record.
        let findable = self.options.server && self.announced && self.quick_wait >= QUICK_MAX;
        if self.once_more {
            self.quick_wait = QUICK_MIN;
        }
        if self.once_more || self.options.client && !has_peer && !findable {
            self.quick_at = Some(now + self.quick_wait);
            self.quick_wait = (self.quick_wait * 2).min(QUICK_MAX);
        }
    }

    pub fn round(&self, may_announce: bool) -> Option<Action> {
        let JoinOptions { server, client } = self.options;
        match (server && !self.left, client && !self.left, self.sent) {
            (true, client, _) if !may_announce => client.then_some(Action::Lookup),
            (true, _, _) => Some(Action::Announce),
            (false, _, true) => Some(Action::Unannounce),
            (false, true, false) => Some(Action::Lookup),
            (false, false, false) => None,
        }
    }
}

/// What to know about a joined topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicStatus {
    pub topic: Topic,
    pub options: JoinOptions,
    pub announced: bool,
    /// Peers found by the last round.
    pub found: usize,
    /// Rounds finished.
    pub rounds: u64,
}
