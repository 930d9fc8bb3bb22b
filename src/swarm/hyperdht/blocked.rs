//! Keys whose handshakes get no answer for a while.

use crate::key::PublicKey;
use std::collections::BTreeMap;
use std::time::Instant;

/// Keys that get no answer at a time; of more, the one whose time is over first gets one again. A key costs a
/// stranger nothing, so there is no end to them.
const MAX_BLOCKED: usize = 1024;

/// The keys, and until when.
#[derive(Debug, Default)]
pub(super) struct Blocked(BTreeMap<PublicKey, Instant>);

impl Blocked {
    pub fn add(&mut self, key: PublicKey, until: Instant, now: Instant) {
        self.0.retain(|_, until| *until > now);
        self.0.insert(key, until);
        if self.0.len() > MAX_BLOCKED
            && let Some((&first, _)) = self.0.iter().min_by_key(|(_, until)| **until)
        {
            self.0.remove(&first);
        }
    }

    pub fn has(&self, key: &PublicKey, now: Instant) -> bool {
        self.0.get(key).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;
    use std::time::Duration;

    fn key(n: usize) -> PublicKey {
        PublicKey(crate::crypto::hash::hash(&[&n.to_le_bytes()]))
    }

    #[test]
    fn a_block_ends_and_the_first_to_end_makes_room() {
        let (now, second) = (epoch(), Duration::from_secs(1));
        let mut blocked = Blocked::default();
        for n in 0..=MAX_BLOCKED {
            blocked.add(key(n), now + second * (n as u32 + 10), now);
        }
        assert_eq!(blocked.0.len(), MAX_BLOCKED);
        assert!(!blocked.has(&key(0), now) && blocked.has(&key(1), now));
        assert!(!blocked.has(&key(1), now + second * 11));
    }
}
