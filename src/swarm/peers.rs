//! Every peer that is remembered, and who is dialled next.
//!
//! The queue gives the higher [priority](PeerInfo::priority) first and is random inside one priority, so that peers of
//! one topic do not all dial the same server first.
//!
//! Source: hyperswarm/index.js:_handlePeer, _requeue

mod near;

use super::dial_queue::{Dial, DialQueue, Turn};
use super::peer_info::PeerInfo;
use super::retry::{Delay, RetryTimer};
use crate::key::{PublicKey, Topic};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Records kept. One round of one topic brings up to 1024, all of which a stranger may have invented. When
/// there is no room, those that nothing is to be done for make it.
const MAX_PEERS: usize = 4096;

/// Memberships (a peer found under a topic) remembered, of all peers together. Those of connected peers are
/// kept beyond it, or topics that they serve would look for peers for ever.
const MAX_MEMBERSHIPS: usize = 65_536;

/// Memberships of one peer: somebody may share many drives, but not name every peer under all of ours.
const MAX_TOPICS: usize = 16_384;

/// A connection that lasted this long was a good one: failures before it are forgotten.
const MIN_CONNECTION_TIME: Duration = Duration::from_secs(15);

/// Failures in a row after which a peer is left alone until it is found again.
const MAX_ATTEMPTS: u32 = 3;

/// The same for an explicit peer, dialled again at shorter intervals meanwhile.
const MAX_EXPLICIT_ATTEMPTS: u32 = 5;

/// Addresses of one peer that are remembered.
const MAX_TOLD: usize = 4;

/// A peer that was given up may be tried again this long after its last failure if a quick lookup,
/// which repeats within seconds, still finds it.
const GIVEN_UP_PAUSE: Duration = Duration::from_secs(30);

/// Every known peer, the dial queue and the retry timer.
#[derive(Debug)]
pub struct Peers {
    /// Never dialled, never accepted.
    own: PublicKey,
    peers: BTreeMap<PublicKey, PeerInfo>,
    queue: DialQueue,
    timer: RetryTimer,
    /// Topics of all peers, counted once for each.
    memberships: usize,
    /// Peers that are explicit.
    explicit: usize,
}

impl Peers {
    pub fn new(own: PublicKey, rng: &mut StdRng) -> Self {
        let timer = RetryTimer::new(rng);
        let (peers, queue) = (BTreeMap::new(), DialQueue::default());
        Self { own, peers, queue, timer, memberships: 0, explicit: 0 }
    }

    pub fn get(&self, key: &PublicKey) -> Option<&PeerInfo> {
        self.peers.get(key)
    }

    /// Joined topics under which a peer was found.
    pub fn topics(&self, key: &PublicKey) -> Vec<Topic> {
        self.peers.get(key).map_or_else(Vec::new, |peer| peer.topics.iter().copied().collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &PeerInfo> {
        self.peers.values()
    }

    /// A dial failed.
    pub fn failed(&mut self, key: &PublicKey, why: &str) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.failure = Some(why.to_string());
        }
    }

    /// Peers known.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Peers waiting for a free dial.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether a peer of `topic` waits for a free dial.
    pub fn is_queued(&self, topic: &Topic) -> bool {
        self.queue.has(topic)
    }

    /// Number of explicit peers.
    pub fn explicit(&self) -> usize {
        self.explicit
    }

    /// Whether a connection with `key` is refused.
    pub fn is_refused(&self, key: &PublicKey, now: Instant) -> bool {
        *key == self.own || self.peers.get(key).is_some_and(|peer| peer.is_banned(now))
    }

    /// A lookup of `topic` found `key`. A `quick` lookup, repeated within seconds, does not make a peer
    /// that just failed look new.
    pub fn found(
        &mut self,
        key: PublicKey,
        relay_addresses: Vec<SocketAddrV4>,
        topic: Topic,
        quick: bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let Some(peer) = self.upsert(key, now) else { return };
        let moved = peer.relay_addresses != relay_addresses;
        peer.relay_addresses = relay_addresses;
        self.consider(key, topic, quick, moved, now, rng);
    }

    /// It was found under `topic`: dials it, unless there is a reason not to.
    fn consider(
        &mut self,
        key: PublicKey,
        topic: Topic,
        quick: bool,
        moved: bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        self.note_membership(key, topic);
        let connected = self.peers.get(&key).is_some_and(|peer| peer.connected);
        let Some(peer) = self.peers.get_mut(&key).filter(|_| !connected) else { return };
        let rested = peer.disconnected_at.is_none_or(|at| now >= at + GIVEN_UP_PAUSE);
        let fresh = !quick || moved || (!peer.waiting && rested);
        if fresh && (moved || rested) && std::mem::take(&mut peer.tried) {
            // It may have come back, and is one of the hopeful again. That it is found under one more topic is no
            // sign of life.
            self.queue.remove(peer);
        }
        if fresh && (!peer.client || !peer.is_hopeful()) {
            peer.reset();
        } else if peer.waiting {
            return;
        }
        self.enqueue(key, now, rng);
    }

    /// `key` says that it has `topic` and is at `addr`, where we were told to ask. Who says so is there: he is dialled as if
    /// he never was.
    pub fn found_at(
        &mut self,
        key: PublicKey,
        addr: SocketAddr,
        topic: Topic,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let Some(peer) = self.upsert(key, now) else { return };
        peer.told.retain(|known| *known != addr);
        peer.told.insert(0, addr);
        peer.told.truncate(MAX_TOLD);
        self.note_membership(key, topic);
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| !peer.connected) else { return };
        self.queue.remove(peer);
        (peer.tried, peer.attempts) = (false, 0);
        self.enqueue(key, now, rng);
    }

    /// Keeps a connection to `key` until [`Self::leave_explicit`].
    pub fn join_explicit(&mut self, key: PublicKey, now: Instant, rng: &mut StdRng) {
        if let Some(peer) = self.upsert(key, now) {
            let (news, connected) = (!peer.explicit, peer.connected);
            if let Some(peer) = self.peers.get_mut(&key).filter(|_| news) {
                self.queue.set_explicit(peer, true);
                self.explicit += 1;
            }
            if !connected {
                self.enqueue(key, now, rng);
            }
        }
    }

    pub fn leave_explicit(&mut self, key: &PublicKey, now: Instant) {
        if let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.explicit) {
            self.queue.set_explicit(peer, false);
            self.explicit -= 1;
            if peer.topics.is_empty() {
                self.queue.remove(peer);
            }
            self.forget_maybe(key, now);
        }
    }

    /// The topic is left: who was only found under it is dialled no more.
    pub fn leave_topic(&mut self, topic: &Topic, now: Instant) {
        let mut unwanted = Vec::new();
        for (key, peer) in &mut self.peers {
            if !peer.topics.remove(topic) {
                continue;
            }
            self.memberships -= 1;
            if let Some(slot) = &peer.queued {
                self.queue.topic_removed(topic, slot);
            }
            if peer.open {
                self.queue.parted(topic);
            }
            if peer.topics.is_empty() && !peer.explicit {
                self.queue.remove(peer);
                unwanted.push(*key);
            }
        }
        unwanted.iter().for_each(|key| self.forget_maybe(key, now));
    }

    /// Whether somebody waits whose turn it may be.
    pub fn is_due(&self, turn: Turn, only_explicit: bool) -> bool {
        self.queue.first(turn, only_explicit).is_some()
    }

    /// Takes the next peer to dial off the queue; only an explicit one if `only_explicit`.
    pub fn next_dial(&mut self, turn: Turn, only_explicit: bool, now: Instant) -> Option<Dial> {
        loop {
            let key = self.queue.first(turn, only_explicit)?;
            let peer = self.peers.get_mut(&key)?;
            if turn == Turn::Sought {
                self.queue.turned();
            }
            self.queue.took(peer);
            self.queue.remove(peer);
            if !peer.connected && !peer.is_banned(now) {
                let near = peer.near.filter(|_| !peer.near_is_silent);
                let relay_addresses = peer.relay_addresses.clone();
                let (told, explicit) = (peer.told.clone(), peer.explicit);
                return Some(Dial { remote: key, relay_addresses, near, told, explicit });
            }
        }
    }

    /// A dial or an accepted connection is under way; from here on there is no second one.
    pub fn connecting(&mut self, key: PublicKey, now: Instant) {
        if let Some(peer) = self.upsert(key, now) {
            peer.connected = true;
            self.dequeue(&key);
        }
    }

    /// The connection is open; `client` if we dialled it.
    pub fn connected(&mut self, key: PublicKey, client: bool, now: Instant) {
        self.connecting(key, now);
        if let Some(peer) = self.peers.get_mut(&key) {
            (peer.client, peer.failure, peer.unreachable) = (client, None, false);
            if !std::mem::replace(&mut peer.open, true) {
                peer.topics.iter().for_each(|topic| self.queue.joined(*topic));
            }
            if client {
                (peer.proven, peer.tried) = (true, false);
                peer.connected_at = Some(now);
            }
        }
    }

    /// A connection or a dial ended. One that we dialled (`client`) is retried after a while if the
    /// peer still shares a topic of `joined` with us.
    pub fn disconnected(
        &mut self,
        key: PublicKey,
        client: bool,
        joined: impl Fn(&Topic) -> bool,
        now: Instant,
        rng: &mut StdRng,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.connected = false;
        peer.disconnected_at = Some(now);
        if std::mem::take(&mut peer.open) {
            peer.topics.iter().for_each(|topic| self.queue.parted(topic));
        }
        if client {
            let lasted = peer.connected_at.take().map(|at| now - at);
            peer.tried |= lasted.is_none();
            if lasted.is_some_and(|time| time >= MIN_CONNECTION_TIME) {
                peer.attempts = 0;
            }
            peer.attempts = peer.attempts.saturating_add(1);
            let wanted = peer.explicit || peer.topics.iter().any(joined);
            if wanted && !peer.is_banned(now) && !peer.waiting {
                peer.waiting = true;
                if peer.explicit && peer.attempts < MAX_EXPLICIT_ATTEMPTS {
                    self.timer.add_at(key, now + Duration::from_secs(peer.attempts.into()));
                } else if let Some(delay) = Delay::of(peer.attempts, peer.proven, peer.explicit) {
                    self.timer.add(key, delay, now, rng);
                } else {
                    peer.waiting = false;
                }
            }
        }
        self.forget_maybe(&key, now);
    }

    /// It answered, but there was no way to it.
    pub fn set_unreachable(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.unreachable = true;
        }
    }

    /// Those that share a topic with `key`, are there, and could not be reached.
    pub fn unreachable_beside(&self, key: &PublicKey) -> Vec<PublicKey> {
        let Some(topics) = self.peers.get(key).map(|peer| &peer.topics) else { return Vec::new() };
        let waits = |peer: &PeerInfo| {
            peer.unreachable && !peer.connected && !peer.topics.is_disjoint(topics)
        };
        self.peers.iter().filter(|(_, peer)| waits(peer)).map(|(key, _)| *key).collect()
    }

    /// There is a new way to try: it is dialled again at once, as if it had not failed.
    pub fn hurry(&mut self, key: &PublicKey, now: Instant, rng: &mut StdRng) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| !peer.connected) else { return };
        if peer.explicit || !peer.topics.is_empty() {
            self.queue.remove(peer);
            (peer.attempts, peer.tried) = (0, false);
            self.enqueue(*key, now, rng);
        }
    }

    /// It is there, and could not be reached by chance: the first time it is dialled again at once.
    pub fn once_more(&mut self, key: &PublicKey, now: Instant, rng: &mut StdRng) {
        if self.peers.get(key).is_some_and(|peer| peer.attempts == 1 && !peer.connected) {
            self.enqueue(*key, now, rng);
        }
    }

    /// Its dial ends for others that wait: it did not answer so far, and is dialled again when they have been.
    pub fn put_back(&mut self, key: PublicKey, now: Instant, rng: &mut StdRng) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        (peer.connected, peer.tried, peer.disconnected_at) = (false, true, Some(now));
        if peer.explicit || !peer.topics.is_empty() {
            self.enqueue(key, now, rng);
        }
        self.forget_maybe(&key, now);
    }

    /// It could not be dialled just now, which says nothing about it.
    pub fn defer(&mut self, key: PublicKey, now: Instant, rng: &mut StdRng) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.connected = false;
        if peer.explicit || !peer.topics.is_empty() {
            self.enqueue(key, now, rng);
        }
        self.forget_maybe(&key, now);
    }

    /// Is left alone until it is found again: its connection, about to end, was of no use.
    pub fn set_aside(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            (peer.attempts, peer.connected_at) = (MAX_ATTEMPTS, None);
        }
    }

    /// Refuses `key` until `until`.
    pub fn ban(&mut self, key: PublicKey, until: Instant, now: Instant) {
        if let Some(peer) = self.upsert(key, now) {
            peer.banned_until = Some(until);
            self.dequeue(&key);
        }
    }

    /// Queues the peers whose wait is over.
    pub fn handle_timeout(&mut self, now: Instant, rng: &mut StdRng) {
        while let Some(key) = self.timer.pop(now) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.waiting = false;
                // Its topics may have been left meanwhile.
                let wanted = peer.explicit || !peer.topics.is_empty();
                if wanted && !peer.connected {
                    self.enqueue(key, now, rng);
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timer.poll_timeout()
    }

    /// Dials nobody any more.
    pub fn stop(&mut self) {
        self.timer.clear();
        (self.queue, self.explicit) = (DialQueue::default(), 0);
        for peer in self.peers.values_mut() {
            (peer.waiting, peer.queued, peer.explicit) = (false, None, false);
        }
    }

    fn enqueue(&mut self, key: PublicKey, now: Instant, rng: &mut StdRng) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.explicit && peer.attempts > MAX_ATTEMPTS && peer.attempts >= MAX_EXPLICIT_ATTEMPTS {
            peer.attempts = MAX_ATTEMPTS;
        }
        let tired = peer.attempts > MAX_ATTEMPTS && !peer.explicit;
        if tired || peer.queued.is_some() || peer.is_banned(now) {
            self.forget_maybe(&key, now);
            return;
        }
        self.queue.add(key, peer, rng.random());
    }

    fn dequeue(&mut self, key: &PublicKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            self.queue.remove(peer);
        }
    }

    fn note_membership(&mut self, key: PublicKey, topic: Topic) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let room = self.memberships < MAX_MEMBERSHIPS || peer.connected;
        if room && peer.topics.len() < MAX_TOPICS && peer.topics.insert(topic) {
            self.memberships += 1;
            if let Some(slot) = peer.queued {
                self.queue.topic_added(topic, slot, key);
            }
            if peer.open {
                self.queue.joined(topic);
            }
        }
    }

    /// The record of `key`, made if there is room; `None` for ourselves.
    fn upsert(&mut self, key: PublicKey, now: Instant) -> Option<&mut PeerInfo> {
        if key == self.own {
            return None;
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&key) {
            self.peers.retain(|_, peer| !peer.is_forgettable(now));
            self.memberships = self.peers.values().map(|peer| peer.topics.len()).sum();
            if self.peers.len() >= MAX_PEERS {
                return None;
            }
        }
        Some(self.peers.entry(key).or_default())
    }

    fn forget_maybe(&mut self, key: &PublicKey, now: Instant) {
        // A given-up peer is kept for the pause after its last failure, so that a lookup that repeats
        // within seconds does not take it for a new one.
        let forget = |peer: &PeerInfo| {
            peer.is_forgettable(now)
                && peer.disconnected_at.is_none_or(|at| now >= at + GIVEN_UP_PAUSE)
        };
        if self.peers.get(key).is_some_and(forget)
            && let Some(peer) = self.peers.remove(key)
        {
            self.memberships -= peer.topics.len();
        }
    }
}

#[cfg(test)]
mod tests;
