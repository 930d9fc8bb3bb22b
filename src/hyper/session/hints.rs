//! Blocks and ranges that were asked for ahead of need and are not here yet.
//!
//! A hint lives in the hub as a wish that nobody waits for; this is the list by which it is taken back when
//! it was never fulfilled and newer ones need its place.

use std::collections::{HashSet, VecDeque};

/// Blocks of one core that may be hinted at a time: two windows of a bee's walk and as many nodes of its next
/// level, and some room.
const MAX_HINTS: usize = 16_384;

/// Ranges ahead of readers that may be outstanding for one core; the oldest is dropped beyond that.
const MAX_RANGES: usize = 64;

#[derive(Default)]
pub(super) struct Hints {
    open: HashSet<u64>,
    /// In order of age; some have been fulfilled since.
    order: VecDeque<u64>,
    /// Numbers of ranges, oldest first.
    ranges: VecDeque<u64>,
}

impl Hints {
    /// Takes a range in; the one that gives way for it, if there are too many.
    pub fn add_range(&mut self, id: u64) -> Option<u64> {
        self.ranges.push_back(id);
        if self.ranges.len() > MAX_RANGES { self.ranges.pop_front() } else { None }
    }

    /// The range is here.
    pub fn end_range(&mut self, id: u64) {
        self.ranges.retain(|&range| range != id);
    }

    /// Somebody reads ahead.
    pub fn has_ranges(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Takes a block in. False if it is hinted already.
    pub fn add(&mut self, block: u64) -> bool {
        let new = self.open.insert(block);
        if new {
            self.order.push_back(block);
        }
        new
    }

    /// The block is here.
    pub fn fulfil(&mut self, block: u64) {
        self.open.remove(&block);
        if self.open.is_empty() {
            self.order.clear();
        }
    }

    /// The oldest hint, if there are too many; it is forgotten.
    pub fn excess(&mut self) -> Option<u64> {
        // Fulfilled ones at the head go as well, so that the order does not grow with all that was ever read.
        while let Some(&oldest) = self.order.front()
            && (self.open.len() > MAX_HINTS || !self.open.contains(&oldest))
        {
            self.order.pop_front();
            if self.open.remove(&oldest) {
                return Some(oldest);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_fulfilled_ones_take_no_room() {
        let mut hints = Hints::default();
        let last = MAX_HINTS as u64;
        assert!((0..last).all(|block| hints.add(block)) && !hints.add(5));
        assert_eq!(hints.excess(), None);
        hints.fulfil(0);
        hints.fulfil(2);
        assert!(hints.add(last) && hints.add(last + 1) && hints.add(last + 2));
        assert_eq!(hints.excess(), Some(1));
        assert_eq!(hints.excess(), None);
        assert!(hints.order.len() <= MAX_HINTS);
    }
}
