//! What a peer says may concern every wish that waits, and saying it costs the peer ten bytes.
//!
//! So a look at a few parked wishes is taken at once, and a look at many of them now and then: what was said meanwhile
//! is put together.

use super::replica::Replica;
use std::time::{Duration, Instant};

/// Parked blocks, and seeks, that are looked at without ado.
const FEW: usize = 64;
/// More are looked at this often at most.
const STIR_EVERY: Duration = Duration::from_millis(200);

impl Replica {
    /// Peers may have blocks of `start..end` now.
    pub fn stir(&mut self, now: Instant, start: u64, end: u64) {
        let many = self.blocks.has_parked(FEW, start, end) || self.seeks.len() > FEW;
        if many && self.stirred.is_some_and(|last| now < last + STIR_EVERY) {
            let (low, high) = self.to_stir.unwrap_or((start, end));
            self.to_stir = Some((low.min(start), high.max(end)));
            return;
        }
        if many {
            self.stirred = Some(now);
        }
        self.blocks.unpark(start, end);
        self.seeks_due = true;
    }

    /// Looks at what was put off, when it is time.
    pub fn stir_rest(&mut self, now: Instant) {
        if let Some((start, end)) = self.to_stir.take() {
            self.stir(now, start, end);
        }
    }
}
