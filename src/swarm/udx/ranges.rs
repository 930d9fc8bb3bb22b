//! A set of packet numbers kept as sorted ranges.
//!
//! The receiver reports one as SACK blocks; the sender keeps one so that a block that was reported before
//! costs one binary search instead of a walk over its packets.

use std::collections::VecDeque;

/// Disjoint, non-touching, ascending half-open ranges.
#[derive(Debug, Default)]
pub struct RangeSet {
    ranges: VecDeque<(u64, u64)>,
}

impl RangeSet {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// Adds `start..end`, joining what it touches.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // Nearly every insertion extends the last range.
        if let Some(last) = self.ranges.back_mut()
            && last.0 <= start
            && start <= last.1
        {
            last.1 = last.1.max(end);
            return;
        }
        let first = self.ranges.partition_point(|r| r.1 < start);
        let behind = self.ranges.partition_point(|r| r.0 <= end);
        if first == behind {
            self.ranges.insert(first, (start, end));
            return;
        }
        let start = start.min(self.ranges[first].0);
        let end = end.max(self.ranges[behind - 1].1);
        self.ranges[first] = (start, end);
        self.ranges.drain(first + 1..behind);
    }

    /// Forgets every number below `limit`.
    pub fn remove_below(&mut self, limit: u64) {
        while let Some(front) = self.ranges.front_mut() {
            if front.1 > limit {
                front.0 = front.0.max(limit);
                return;
            }
            self.ranges.pop_front();
        }
    }

    /// The first part of `start..end` that is not in the set.
    pub fn first_missing(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let i = self.ranges.partition_point(|r| r.1 <= start);
        let Some(&(s, e)) = self.ranges.get(i) else {
            return (start < end).then_some((start, end));
        };
        if start < s {
            return (start < end).then_some((start, end.min(s)));
        }
        // `start` is inside this range; ranges never touch, so what follows its end is missing.
        let next = self.ranges.get(i + 1).map_or(u64::MAX, |r| r.0);
        (e < end).then_some((e, end.min(next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers(ops in proptest::collection::vec((0u64..60, 0u64..8), 0..60), cut in 0u64..70) {
            let mut ranges = RangeSet::default();
            let mut model = BTreeSet::new();
            for (start, len) in ops {
                let mut at = start;
                let mut new = Vec::new();
                while let Some((s, e)) = ranges.first_missing(at, start + len) {
                    new.extend(s..e);
                    at = e;
                }
                let expected: Vec<_> = (start..start + len).filter(|n| !model.contains(n)).collect();
                prop_assert_eq!(new, expected);
                ranges.insert(start, start + len);
                model.extend(start..start + len);
            }
            ranges.remove_below(cut);
            model.retain(|n| *n >= cut);
            prop_assert_eq!(ranges.iter().flat_map(|(s, e)| s..e).collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            let list: Vec<_> = ranges.iter().collect();
            prop_assert!(list.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
