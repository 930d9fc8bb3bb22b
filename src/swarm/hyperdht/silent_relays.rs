//! Relays that paired us with a peer and passed nothing on, or that we went to for it and that were none: they are not named
//! again for that peer for a while, and others are preferred to them.
//!
//! Such a relay may be there to keep peers apart, or have used up what it gives; or the peer said nothing. So one through
//! which another peer was heard since is no worse than others, but for the one that was not.

use super::HyperDht;
use crate::key::PublicKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long it is not named: several tries of a pair without it, and no longer than an honest one is out of bytes.
const REST: Duration = Duration::from_secs(60);

/// Pairs of a relay and a peer that are remembered, the latest: one needs 10 s to become one of them.
const MAX_PAIRS: usize = 256;

#[derive(Debug)]
struct Pair {
    relay: PublicKey,
    peer: PublicKey,
    until: Instant,
    /// Nobody was heard through the relay since.
    doubted: bool,
}

#[derive(Debug, Default)]
pub struct SilentRelays(VecDeque<Pair>);

impl SilentRelays {
    /// Nothing of `peer` came through the relay.
    pub fn note(&mut self, relay: PublicKey, peer: PublicKey, now: Instant) {
        self.0.retain(|pair| pair.until > now && (pair.relay, pair.peer) != (relay, peer));
        if self.0.len() == MAX_PAIRS {
            self.0.pop_front();
        }
        self.0.push_back(Pair { relay, peer, until: now + REST, doubted: true });
    }

    /// Something of `peer` came through it.
    pub fn heard(&mut self, relay: &PublicKey, peer: &PublicKey) {
        self.0.retain(|pair| (pair.relay, pair.peer) != (*relay, *peer));
        let of_relay = self.0.iter_mut().filter(|pair| pair.relay == *relay);
        of_relay.for_each(|pair| pair.doubted = false);
    }

    /// Whether a relay is not to be named for `peer`.
    pub fn has(&self, relay: &PublicKey, peer: &PublicKey, now: Instant) -> bool {
        self.lately(now).any(|pair| (pair.relay, pair.peer) == (*relay, *peer))
    }

    /// Whether any relay passed nothing on from `peer`.
    pub fn has_any_of(&self, peer: &PublicKey, now: Instant) -> bool {
        self.lately(now).any(|pair| pair.peer == *peer)
    }

    /// Whether another relay is to be preferred.
    pub fn is_doubted(&self, relay: &PublicKey, now: Instant) -> bool {
        self.lately(now).any(|pair| pair.relay == *relay && pair.doubted)
    }

    fn lately(&self, now: Instant) -> impl Iterator<Item = &Pair> {
        self.0.iter().filter(move |pair| pair.until > now)
    }
}

impl HyperDht {
    pub fn silent_relays(&self) -> &SilentRelays {
        &self.net.silent_relays
    }

    pub fn silent_relays_mut(&mut self) -> &mut SilentRelays {
        &mut self.net.silent_relays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn a_relay_is_shunned_for_the_peer_and_doubted_until_another_is_heard() {
        let (mut relays, now) = (SilentRelays::default(), epoch());
        let [relay, peer, other] = [1, 2, 3].map(|n| PublicKey([n; 32]));
        relays.note(relay, peer, now);
        assert!(relays.has(&relay, &peer, now) && relays.is_doubted(&relay, now));
        assert!(!relays.has(&relay, &other, now) && !relays.has_any_of(&other, now));
        relays.heard(&relay, &other);
        assert!(relays.has(&relay, &peer, now) && !relays.is_doubted(&relay, now));
        assert!(!relays.has(&relay, &peer, now + REST));
        relays.heard(&relay, &peer);
        assert!(!relays.has_any_of(&peer, now));
    }

    #[test]
    fn no_more_pairs_are_kept_than_may_be() {
        let (mut relays, now) = (SilentRelays::default(), epoch());
        for n in 0..2 * MAX_PAIRS {
            relays.note(PublicKey([n as u8; 32]), PublicKey([(n >> 8) as u8; 32]), now);
        }
        assert_eq!(relays.0.len(), MAX_PAIRS);
    }
}
