//! Peers that wait for a free dial: the higher priority first, random inside one priority.
//!
//! Every pump of the swarm asks for the next; a stranger can fill the queue. So nothing here goes through
//! all of it: explicit peers, dialled even where there are enough others, have a queue of their own, and so have those
//! of each topic. Of topics with few peers the one comes next that had its turn the longest ago, so that who announces
//! thousands under one of them does not keep the others waiting.

use super::peer_info::PeerInfo;
use super::priority::{Priority, Slot};
use crate::key::{PublicKey, Topic};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, SocketAddrV4};

/// Whom to dial.
#[derive(Debug)]
pub struct Dial {
    pub remote: PublicKey,
    pub relay_addresses: Vec<SocketAddrV4>,
    /// Where it is on a local network.
    pub near: Option<SocketAddr>,
    /// Where it says that it is itself.
    pub told: Vec<SocketAddr>,
    pub explicit: bool,
}

/// With so many connected peers a topic is in no hurry any more. One or two may be readers who wait as well.
const ENOUGH: usize = 3;

/// Where those begin in a queue who were dialled in vain.
const AGAIN: Slot = (Reverse(Priority::Low), 0);

/// Where those begin who do not come first: who is new on a local network does, and anybody there can say so of any
/// number of keys.
const SECOND: Slot = (Reverse(Priority::High), 0);

/// Of whom the next to be dialled is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Of the [hopeful](PeerInfo::is_hopeful), those of topics that have [few](ENOUGH) peers or none.
    Sought,
    /// Of all the hopeful.
    Hopeful,
    /// Of the others.
    Again,
}

/// Who waits under one topic.
#[derive(Debug)]
struct Waiting {
    peers: BTreeMap<Slot, PublicKey>,
    /// When it had its turn last, on the queue's own clock.
    turn: u64,
}

/// The queue. Each waiting [`PeerInfo`] knows its slot.
#[derive(Debug, Default)]
pub(super) struct DialQueue {
    explicit: BTreeMap<Slot, PublicKey>,
    others: BTreeMap<Slot, PublicKey>,
    /// Waiting peers of each topic.
    of_topic: BTreeMap<Topic, Waiting>,
    /// Peers of each topic that are connected.
    company: BTreeMap<Topic, usize>,
    /// Topics with few, for which a hopeful one waits, by their last turn.
    lonely: BTreeSet<(u64, Topic)>,
    turns: u64,
    /// The last was one of those who come first: if there are always more of them others have every second turn.
    was_first: bool,
}

impl DialQueue {
    pub fn len(&self) -> usize {
        self.explicit.len() + self.others.len()
    }

    /// Whether a peer of `topic` waits.
    pub fn has(&self, topic: &Topic) -> bool {
        self.of_topic.contains_key(topic)
    }

    /// Who comes next; of the explicit ones if `only_explicit`.
    pub fn first(&self, turn: Turn, only_explicit: bool) -> Option<PublicKey> {
        let hopeful = |queue: &BTreeMap<Slot, PublicKey>| {
            let second = || queue.range(SECOND..AGAIN).next();
            let first = self.was_first.then(second).flatten().or(queue.range(..AGAIN).next());
            first.map(|(slot, key)| (*slot, *key))
        };
        let of = |queue: &BTreeMap<Slot, PublicKey>| match turn {
            Turn::Sought => None,
            Turn::Hopeful => hopeful(queue),
            Turn::Again => queue.range(AGAIN..).next().map(|(slot, key)| (*slot, *key)),
        };
        if turn == Turn::Sought && !only_explicit {
            let (_, topic) = self.lonely.first()?;
            return hopeful(&self.of_topic.get(topic)?.peers).map(|(_, key)| key);
        }
        let others = of(&self.others).filter(|_| !only_explicit);
        let both = of(&self.explicit).into_iter().chain(others);
        both.min_by_key(|(slot, _)| *slot).map(|(_, key)| key)
    }

    /// The topic whose peer comes next has had its turn.
    pub fn turned(&mut self) {
        let Some((_, topic)) = self.lonely.pop_first() else { return };
        self.turns += 1;
        if let Some(waiting) = self.of_topic.get_mut(&topic) {
            waiting.turn = self.turns;
        }
        self.review(&topic);
    }

    /// `peer` comes next.
    pub fn took(&mut self, peer: &PeerInfo) {
        self.was_first = peer.queued.is_some_and(|slot| slot < SECOND);
    }

    /// `peer`, who does not wait so far, waits from now on.
    pub fn add(&mut self, key: PublicKey, peer: &mut PeerInfo, chance: u64) {
        let slot = (Reverse(peer.priority()), chance);
        peer.queued = Some(slot);
        self.queue(peer.explicit).insert(slot, key);
        peer.topics.iter().for_each(|topic| self.topic_added(*topic, slot, key));
    }

    /// `peer` waits no more. Does nothing if it did not.
    pub fn remove(&mut self, peer: &mut PeerInfo) {
        if let Some(slot) = peer.queued.take() {
            self.queue(peer.explicit).remove(&slot);
            peer.topics.iter().for_each(|topic| self.topic_removed(topic, &slot));
        }
    }

    /// `peer` becomes an explicit one, or ceases to be.
    pub fn set_explicit(&mut self, peer: &mut PeerInfo, explicit: bool) {
        if let Some(slot) = peer.queued
            && let Some(key) = self.queue(peer.explicit).remove(&slot)
        {
            self.queue(explicit).insert(slot, key);
        }
        peer.explicit = explicit;
    }

    /// A peer that waits at `slot` was found under one more topic.
    pub fn topic_added(&mut self, topic: Topic, slot: Slot, key: PublicKey) {
        let turn = self.turns;
        let new = || Waiting { peers: BTreeMap::new(), turn };
        self.of_topic.entry(topic).or_insert_with(new).peers.insert(slot, key);
        self.review(&topic);
    }

    /// A peer that waits at `slot` is no peer of `topic` any more.
    pub fn topic_removed(&mut self, topic: &Topic, slot: &Slot) {
        let Some(waiting) = self.of_topic.get_mut(topic) else { return };
        waiting.peers.remove(slot);
        if waiting.peers.is_empty() {
            self.lonely.remove(&(waiting.turn, *topic));
            self.of_topic.remove(topic);
        } else {
            self.review(topic);
        }
    }

    /// A peer of `topic` is connected.
    pub fn joined(&mut self, topic: Topic) {
        *self.company.entry(topic).or_default() += 1;
        self.review(&topic);
    }

    /// One is no more.
    pub fn parted(&mut self, topic: &Topic) {
        let Some(company) = self.company.get_mut(topic) else { return };
        *company -= 1;
        if *company == 0 {
            self.company.remove(topic);
        }
        self.review(topic);
    }

    /// Notes whether `topic` is one of those with few peers for which a hopeful one waits.
    fn review(&mut self, topic: &Topic) {
        let Some(waiting) = self.of_topic.get(topic) else { return };
        let hopeful = waiting.peers.first_key_value().is_some_and(|(slot, _)| *slot < AGAIN);
        let place = (waiting.turn, *topic);
        if hopeful && self.company.get(topic).is_none_or(|company| *company < ENOUGH) {
            self.lonely.insert(place);
        } else {
            self.lonely.remove(&place);
        }
    }

    fn queue(&mut self, explicit: bool) -> &mut BTreeMap<Slot, PublicKey> {
        if explicit { &mut self.explicit } else { &mut self.others }
    }
}

#[cfg(test)]
mod tests {
    use super::{ENOUGH, Turn};
    use crate::key::{PublicKey, Topic};
    use crate::sim::epoch;
    use crate::swarm::peers::Peers;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn thousands_under_one_topic_keep_those_of_another_waiting_for_no_more_than_a_turn() {
        let mut rng = StdRng::seed_from_u64(1);
        let key = |n: u32| PublicKey(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
        let (mut peers, now) = (Peers::new(key(0), &mut rng), epoch());
        let [flooded, other] = [Topic([1; 32]), Topic([2; 32])];
        for n in 1..3000 {
            peers.found(key(n), vec![], flooded, false, now, &mut rng);
        }
        peers.found(key(3000), vec![], other, false, now, &mut rng);
        peers.found(key(3001), vec![], other, false, now, &mut rng);
        let next = |peers: &mut Peers| peers.next_dial(Turn::Sought, false, now).unwrap().remote;
        let four: Vec<_> = (0..4).map(|_| next(&mut peers)).collect();
        assert!(four.contains(&key(3000)) && four.contains(&key(3001)));
        // A topic that has enough peers waits for those that have few.
        for n in 4000..4000 + ENOUGH as u32 {
            assert!(peers.is_due(Turn::Sought, false), "{n}");
            peers.found(key(n), vec![], flooded, false, now, &mut rng);
            peers.connected(key(n), true, now);
        }
        assert!(!peers.is_due(Turn::Sought, false) && peers.is_due(Turn::Hopeful, false));
        peers.disconnected(key(4000), true, |_| true, now, &mut rng);
        assert!(peers.is_due(Turn::Sought, false));
    }

    #[test]
    fn what_is_counted_of_those_who_wait_is_true_whatever_happens() {
        let mut rng = StdRng::seed_from_u64(1);
        let key = |n: u8| PublicKey([n; 32]);
        let (mut peers, now) = (Peers::new(key(0), &mut rng), epoch());
        let topic = |n: u32| Topic([n as u8; 32]);
        for _ in 0..20_000 {
            let (who, of) = (key(rng.random_range(1..12)), topic(rng.random_range(0..4)));
            match rng.random_range(0..12) {
                0..=3 => peers.found(who, vec![], of, false, now, &mut rng),
                4 => peers.join_explicit(who, now, &mut rng),
                5 => peers.leave_explicit(&who, now),
                6 => peers.leave_topic(&of, now),
                7 => peers.connecting(who, now),
                8 => peers.disconnected(who, true, |_| true, now, &mut rng),
                9 => peers.ban(who, now, now),
                _ => {
                    let turn = [Turn::Sought, Turn::Hopeful, Turn::Again][rng.random_range(0..3)];
                    let dial = peers.next_dial(turn, of == topic(0), now);
                    assert!(dial.is_none_or(|dial| dial.explicit || of != topic(0)));
                }
            }
            let queued: Vec<_> = peers.iter().filter(|peer| peer.is_queued()).collect();
            assert_eq!(queued.len(), peers.queued());
            let turns = [Turn::Hopeful, Turn::Again].map(|turn| peers.is_due(turn, false));
            assert_eq!(turns[0] || turns[1], !queued.is_empty());
            assert!(turns[0] || !peers.is_due(Turn::Sought, false));
            for of in (0..4).map(topic) {
                let waits = queued.iter().any(|peer| peer.topics.contains(&of));
                assert_eq!(waits, peers.is_queued(&of));
            }
            assert_eq!(peers.iter().filter(|peer| peer.explicit).count(), peers.explicit());
        }
    }
}
