//! Relays that did not pair us with a peer in time, or were none, or passed nothing on, or no more: they are not named again
//! for that peer for a while, longer each time, and others are preferred to them.
//!
//! Such a relay may be there to keep peers apart, or have used up what it gives; or the peer said nothing. So one through
//! which another peer was heard since is no worse than others, but for the one that was not; and one that could not even be
//! reached is as good as ever once it is seen to be there.

use super::HyperDht;
use crate::key::PublicKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long it is not named after the first time, doubled each time after; and the most.
const FIRST_REST: Duration = Duration::from_secs(10);
const LAST_REST: Duration = Duration::from_secs(600);
/// The most for one that could not be reached: it may be back at any time, and asking costs a look-up.
const LAST_ABSENCE: Duration = Duration::from_secs(60);

/// How long others are preferred to it: no longer than an honest one is out of bytes.
const DOUBT: Duration = Duration::from_secs(60);

/// Pairs of a relay and a peer that are remembered, the latest: one needs a second to become one of them.
const MAX_PAIRS: usize = 256;

#[derive(Debug)]
struct Pair {
    relay: PublicKey,
    peer: PublicKey,
    noted: Instant,
    times: u32,
    /// The relay was not to be reached, which says nothing of what it passes on.
    absent: bool,
    /// Nobody was heard through the relay since.
    doubted: bool,
}

impl Pair {
    fn rests(&self, now: Instant) -> bool {
        let rest = FIRST_REST * 2u32.saturating_pow(self.times.saturating_sub(1)).min(1024);
        now < self.noted + rest.min(if self.absent { LAST_ABSENCE } else { LAST_REST })
    }

    fn is_recent(&self, now: Instant) -> bool {
        now < self.noted + DOUBT
    }
}

#[derive(Debug, Default)]
pub struct SilentRelays(VecDeque<Pair>);

impl SilentRelays {
    /// Nothing of `peer` came through the relay.
    pub fn note(&mut self, relay: PublicKey, peer: PublicKey, now: Instant) {
        self.enter(relay, peer, false, now);
    }

    /// The relay was not to be reached.
    pub fn note_absent(&mut self, relay: PublicKey, peer: PublicKey, now: Instant) {
        self.enter(relay, peer, true, now);
    }

    /// The relay is there.
    pub fn is_there(&mut self, relay: &PublicKey) {
        self.0.retain(|pair| pair.relay != *relay || !pair.absent);
    }

    /// Whether it was found nowhere, or is no relay, as far as we know.
    pub fn is_absent(&self, relay: &PublicKey) -> bool {
        self.0.iter().any(|pair| pair.relay == *relay && pair.absent)
    }

    fn enter(&mut self, relay: PublicKey, peer: PublicKey, absent: bool, now: Instant) {
        let before = self.pair(&relay, &peer).filter(|pair| pair.absent == absent);
        let times = before.map_or(0, |pair| pair.times).saturating_add(1);
        self.0.retain(|pair| (pair.relay, pair.peer) != (relay, peer));
        if self.0.len() == MAX_PAIRS {
            self.0.pop_front();
        }
        self.0.push_back(Pair { relay, peer, noted: now, times, absent, doubted: true });
    }

    /// Something of `peer` came through it.
    pub fn heard(&mut self, relay: &PublicKey, peer: &PublicKey) {
        self.0.retain(|pair| (pair.relay, pair.peer) != (*relay, *peer));
        let of_relay = self.0.iter_mut().filter(|pair| pair.relay == *relay);
        of_relay.for_each(|pair| pair.doubted = false);
    }

    /// Whether a relay is not to be named for `peer`.
    pub fn has(&self, relay: &PublicKey, peer: &PublicKey, now: Instant) -> bool {
        self.pair(relay, peer).is_some_and(|pair| pair.rests(now))
    }

    /// How often a relay was of no help for `peer` since it last was.
    pub fn times(&self, relay: &PublicKey, peer: &PublicKey) -> u32 {
        self.pair(relay, peer).map_or(0, |pair| pair.times)
    }

    /// Relays that were of no help for `peer` lately.
    pub fn of(&self, peer: &PublicKey, now: Instant) -> usize {
        self.0.iter().filter(|pair| pair.peer == *peer && pair.is_recent(now)).count()
    }

    /// Whether another relay is to be preferred.
    pub fn is_doubted(&self, relay: &PublicKey, now: Instant) -> bool {
        self.0.iter().any(|pair| pair.relay == *relay && pair.doubted && pair.is_recent(now))
    }

    fn pair(&self, relay: &PublicKey, peer: &PublicKey) -> Option<&Pair> {
        self.0.iter().find(|pair| (pair.relay, pair.peer) == (*relay, *peer))
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
        assert!(!relays.has(&relay, &other, now) && relays.of(&other, now) == 0);
        relays.heard(&relay, &other);
        assert!(relays.has(&relay, &peer, now) && !relays.is_doubted(&relay, now));
        assert!(!relays.has(&relay, &peer, now + FIRST_REST));
        relays.heard(&relay, &peer);
        assert_eq!((relays.of(&peer, now), relays.times(&relay, &peer)), (0, 0));
    }

    #[test]
    fn a_relay_that_is_no_help_again_and_again_rests_for_longer_each_time() {
        let (mut relays, mut now) = (SilentRelays::default(), epoch());
        let [relay, peer] = [1, 2].map(|n| PublicKey([n; 32]));
        for rest in [1, 2, 4, 8, 16, 32].map(|n| n * FIRST_REST).into_iter().chain([LAST_REST; 2]) {
            relays.note(relay, peer, now);
            let almost = now + rest - Duration::from_millis(1);
            assert!(relays.has(&relay, &peer, almost) && !relays.has(&relay, &peer, now + rest));
            now += rest;
        }
        assert!(relays.times(&relay, &peer) == 8 && !relays.is_doubted(&relay, now));
    }

    #[test]
    fn a_relay_that_was_away_rests_no_longer_than_that() {
        let (mut relays, now) = (SilentRelays::default(), epoch());
        let [relay, peer, other] = [1, 2, 3].map(|n| PublicKey([n; 32]));
        (0..9).for_each(|_| relays.note_absent(relay, peer, now));
        relays.note(relay, other, now);
        let longest = now + LAST_ABSENCE;
        assert!(relays.has(&relay, &peer, now) && !relays.has(&relay, &peer, longest));
        relays.is_there(&relay);
        assert!(!relays.has(&relay, &peer, now) && relays.has(&relay, &other, now));
        // Of what it does when it is there it is judged anew.
        (0..9).for_each(|_| relays.note_absent(relay, peer, now));
        relays.note(relay, peer, now);
        assert_eq!(relays.times(&relay, &peer), 1);
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
