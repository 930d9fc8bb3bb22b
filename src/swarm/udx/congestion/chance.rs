//! What a path loses by chance, and what is sent more for that.
//!
//! BBR paces at the rate that is delivered at best. A path that loses one packet of twenty whatever is sent then delivers a
//! twentieth less than it could for seven eighths of the time. So the rate is raised by what gets lost while the link has
//! room: with no queue, and where the pace was that of the estimate or less for a while, for what a push loses was too much.
//! A link that only drops what is too much (a policer) loses nothing at such a pace.

use super::RateSample;

/// Bytes after which what was seen counts half.
const MEMORY: u64 = 8 << 20;
/// No judgement on less than this.
const LEAST: u64 = 1 << 20;
/// What gets lost and is not sent more, for a pace that leaves nothing to spare keeps whatever queue there is; and what more
/// may be sent at most.
const SPARED: f64 = 0.01;
const MOST: f64 = 0.08;

#[derive(Debug, Default)]
pub(super) struct Chance {
    lost: u64,
    delivered: u64,
}

impl Chance {
    /// Takes note of a sample of a time when the link has room.
    pub(super) fn note(&mut self, sample: &RateSample) {
        self.lost += sample.lost;
        self.delivered += sample.acked;
        if self.delivered > MEMORY {
            (self.lost, self.delivered) = (self.lost / 2, self.delivered / 2);
        }
    }

    /// How many times as much has to be sent so that what is wanted arrives.
    pub(super) fn factor(&self) -> f64 {
        if self.delivered < LEAST {
            return 1.0;
        }
        1.0 + (self.lost as f64 / self.delivered as f64 - SPARED).clamp(0.0, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_lost_is_sent_more_within_bounds() {
        let mut chance = Chance::default();
        let sample = |acked, lost| RateSample { acked, lost, ..RateSample::default() };
        chance.note(&sample(LEAST / 2, LEAST / 2));
        assert_eq!(chance.factor(), 1.0);
        for _ in 0..200 {
            chance.note(&sample(95_000, 5_000));
        }
        assert!((1.04..1.06).contains(&chance.factor()), "{}", chance.factor());
        chance.note(&sample(0, 1 << 30));
        assert_eq!(chance.factor(), 1.0 + MOST);
    }
}
