//! Peers that wait for a free dial: the higher priority first, random inside one priority.
//!
//! Every pump of the swarm asks for the next and counts; a stranger can fill the queue. So nothing here goes through
//! all of it: explicit peers, dialled even where there are enough others, have a queue of their own, and those of
//! each topic are counted.

use super::peer_info::{PeerInfo, Priority};
use crate::key::{PublicKey, Topic};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// Whom to dial.
#[derive(Debug)]
pub struct Dial {
    pub remote: PublicKey,
    pub relay_addresses: Vec<SocketAddrV4>,
    pub explicit: bool,
}

/// A place in the queue.
pub(super) type Slot = (Reverse<Priority>, u64);

/// The queue. Each waiting [`PeerInfo`] knows its slot.
#[derive(Debug, Default)]
pub(super) struct DialQueue {
    explicit: BTreeMap<Slot, PublicKey>,
    others: BTreeMap<Slot, PublicKey>,
    /// Waiting peers of each topic.
    of_topic: BTreeMap<Topic, usize>,
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
    pub fn first(&self, only_explicit: bool) -> Option<PublicKey> {
        let others = self.others.first_key_value().filter(|_| !only_explicit);
        let both = self.explicit.first_key_value().into_iter().chain(others);
        both.min_by_key(|(slot, _)| **slot).map(|(_, key)| *key)
    }

    /// `peer`, who does not wait so far, waits from now on.
    pub fn add(&mut self, key: PublicKey, peer: &mut PeerInfo, chance: u64) {
        let slot = (Reverse(peer.priority()), chance);
        peer.queued = Some(slot);
        self.queue(peer.explicit).insert(slot, key);
        peer.topics.iter().for_each(|topic| self.topic_added(*topic));
    }

    /// `peer` waits no more. Does nothing if it did not.
    pub fn remove(&mut self, peer: &mut PeerInfo) {
        if let Some(slot) = peer.queued.take() {
            self.queue(peer.explicit).remove(&slot);
            peer.topics.iter().for_each(|topic| self.topic_removed(topic));
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

    /// A peer that waits was found under one more topic.
    pub fn topic_added(&mut self, topic: Topic) {
        *self.of_topic.entry(topic).or_default() += 1;
    }

    /// A peer that waits is no peer of `topic` any more.
    pub fn topic_removed(&mut self, topic: &Topic) {
        if let Some(count) = self.of_topic.get_mut(topic) {
            *count -= 1;
            if *count == 0 {
                self.of_topic.remove(topic);
            }
        }
    }

    fn queue(&mut self, explicit: bool) -> &mut BTreeMap<Slot, PublicKey> {
        if explicit { &mut self.explicit } else { &mut self.others }
    }
}

#[cfg(test)]
mod tests {
    use crate::key::{PublicKey, Topic};
    use crate::sim::epoch;
    use crate::swarm::peers::Peers;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

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
                    let dial = peers.next_dial(of == topic(0), now);
                    assert!(dial.is_none_or(|dial| dial.explicit || of != topic(0)));
                }
            }
            let queued: Vec<_> = peers.iter().filter(|peer| peer.is_queued()).collect();
            assert_eq!(queued.len(), peers.queued());
            for of in (0..4).map(topic) {
                let waits = queued.iter().any(|peer| peer.topics.contains(&of));
                assert_eq!(waits, peers.is_queued(&of));
            }
            assert_eq!(peers.iter().filter(|peer| peer.explicit).count(), peers.explicit());
        }
    }
}
