//! Peers that broke the rules, by key: a few offences and they are not talked to for a while.

use crate::key::PublicKey;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Offences after which a peer is banned. One may be bad luck with a disk; a liar does not stop at three.
const MAX_OFFENCES: u32 = 3;
const BAN: Duration = Duration::from_secs(600);
/// Offences older than this are forgiven.
const MEMORY: Duration = Duration::from_secs(3600);
/// Peers remembered; the oldest is forgotten beyond that. Keys cost a peer nothing.
const MAX_OFFENDERS: usize = 1024;

#[derive(Default)]
pub struct Offenders {
    /// Key, offences, the last one; oldest first.
    known: VecDeque<(PublicKey, u32, Instant)>,
}

impl Offenders {
    /// Counts an offence; the end of the ban if this was one too many.
    pub fn offence(&mut self, peer: PublicKey, now: Instant) -> Option<Instant> {
        self.known.retain(|(_, _, last)| now.saturating_duration_since(*last) < MEMORY);
        let before = self.known.iter().position(|(key, ..)| *key == peer);
        let count =
            before.and_then(|at| self.known.remove(at)).map_or(0, |(_, count, _)| count) + 1;
        if count >= MAX_OFFENCES {
            return Some(now + BAN);
        }
        if self.known.len() >= MAX_OFFENDERS {
            self.known.pop_front();
        }
        self.known.push_back((peer, count, now));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_offence_bans_and_old_ones_are_forgiven() {
        let mut offenders = Offenders::default();
        let (peer, now) = (PublicKey([1; 32]), Instant::now());
        assert!(offenders.offence(peer, now).is_none());
        assert!(offenders.offence(peer, now).is_none());
        assert!(offenders.offence(PublicKey([2; 32]), now).is_none());
        assert_eq!(offenders.offence(peer, now), Some(now + BAN));

        let peer = PublicKey([3; 32]);
        offenders.offence(peer, now);
        offenders.offence(peer, now);
        assert!(offenders.offence(peer, now + MEMORY * 2).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut offenders = Offenders::default();
        for i in 0..5000u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&i.to_le_bytes());
            offenders.offence(PublicKey(key), Instant::now());
        }
        assert_eq!(offenders.known.len(), MAX_OFFENDERS);
    }
}
