//! Which of two connections with one peer stays: both sides may have dialled at once.

use super::Swarm;
use super::connections::Phase;
use super::event::Closed;
use crate::key::PublicKey;
use std::time::{Duration, Instant};

/// How long our own dial may take to come about once the peer's dial has come to us.
const DIAL_GRACE: Duration = Duration::from_secs(1);

impl Swarm {
    /// Whether an accepted connection waits for the outcome of our own dial to the same peer, which is the one to
    /// stay if it comes to be. It does so only where our first packet may have reached the peer, who then
    /// knows of two; and not for long.
    pub(super) fn waits_for_dial(&mut self, stream: u32, remote: PublicKey, now: Instant) -> bool {
        let own = PublicKey(self.key_pair.public());
        let Some(dial) = self.connections.by_key(&remote) else { return false };
        if !dial.initiator || dial.id.stream() == stream || own < remote {
            return false;
        }
        let (Phase::Waiting { until } | Phase::Unproven { until }) = &mut dial.phase else {
            return false;
        };
        *until = (*until).min(now + DIAL_GRACE);
        let until = *until;
        self.connections.note_deadline(until);
        true
    }

    /// Whether an accepted connection may stay beside, that is instead of, the one that counts for the same
    /// peer. On a true tie the one opened by the greater public key survives, on both sides; a
    /// connection that has carried bytes both ways is outdated: its peer must have lost it.
    pub(super) fn wins(&mut self, stream: u32, remote: PublicKey, now: Instant) -> bool {
        let own = PublicKey(self.key_pair.public());
        let Some(existing) = self.connections.by_key(&remote) else { return true };
        let other = existing.id.stream();
        let outdated = existing.has_read && existing.has_written;
        // The peer does not know of it, and it may come to nothing.
        let not_begun = matches!(existing.phase, Phase::Dialling { .. });
        if outdated || not_begun || own < remote {
            // First, so that no other one steps in.
            self.connections.claim_key(stream);
            self.destroy(other, Closed::Duplicate, now);
            return true;
        }
        self.keep_alive(other, now);
        false
    }
}
