//! A set of byte offsets, kept as ranges that never touch.

use std::collections::BTreeMap;
use std::ops::Range;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Start → end of each.
    ends: BTreeMap<u64, u64>,
}

/// What goes on at an offset, and up to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It is in the set, and so is all before this.
    Inside(u64),
    /// It is not, nor is anything before this; [`u64::MAX`] where nothing follows.
    Outside(u64),
}

impl Ranges {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One past the last offset; 0 of an empty set.
    pub fn end(&self) -> u64 {
        self.ends.last_key_value().map_or(0, |(_, &end)| end)
    }

    /// How many offsets are in the set.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    pub fn run(&self, at: u64) -> Run {
        if let Some((_, &end)) = self.ends.range(..=at).next_back()
            && end > at
        {
            return Run::Inside(end);
        }
        Run::Outside(self.ends.range(at..).next().map_or(u64::MAX, |(&start, _)| start))
    }

    /// Whether all of a range is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty() || matches!(self.run(range.start), Run::Inside(end) if end >= range.end)
    }

    /// What of a range is not in the set.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut at, mut gaps) = (range.start, Vec::new());
        while at < range.end {
            match self.run(at) {
                Run::Inside(end) => at = end,
                Run::Outside(next) => {
                    gaps.push(at..next.min(range.end));
                    at = next;
                }
            }
        }
        gaps
    }

    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &its_end)) = self.ends.range(..=start).next_back()
            && its_end >= start
        {
            start = before;
        }
        while let Some((&joined, &its_end)) = self.ends.range(start..=end).next() {
            end = end.max(its_end);
            self.ends.remove(&joined);
        }
        self.ends.insert(start, end);
    }

    /// Takes a range out, and tells what of it was in.
    pub fn remove(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let before = self.ends.range(..range.start).next_back();
        let first =
            before.filter(|&(_, &end)| end > range.start).map_or(range.start, |(&at, _)| at);
        let hit: Vec<_> = self.ends.range(first..range.end).map(|(&at, &end)| at..end).collect();
        for Range { start, end } in &hit {
            self.ends.remove(start);
            if *start < range.start {
                self.ends.insert(*start, range.start);
            }
            if *end > range.end {
                self.ends.insert(range.end, *end);
            }
        }
        hit.into_iter().map(|hit| hit.start.max(range.start)..hit.end.min(range.end)).collect()
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<T: IntoIterator<Item = Range<u64>>>(ranges: T) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set(ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 1..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (put, at, len) in ops {
                let range = at..at + len;
                let gaps = ranges.gaps(range.clone());
                let outside: Vec<u64> = range.clone().filter(|at| !model.contains(at)).collect();
                prop_assert_eq!(gaps.into_iter().flatten().collect::<Vec<_>>(), outside.clone());
                prop_assert_eq!(ranges.contains(&range), outside.is_empty());
                if put {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    let inside: Vec<u64> = range.clone().filter(|at| model.remove(at)).collect();
                    let removed = ranges.remove(range);
                    prop_assert_eq!(removed.into_iter().flatten().collect::<Vec<_>>(), inside);
                }
                prop_assert!(ranges.iter().flatten().eq(model.iter().copied()));
                let all: Vec<_> = ranges.iter().collect();
                prop_assert!(all.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert_eq!(ranges.bytes(), model.len() as u64);
                prop_assert_eq!(ranges.end(), model.last().map_or(0, |last| last + 1));
                for at in 0..90 {
                    let is = model.contains(&at);
                    let other = (at..90).find(|at| model.contains(at) != is);
                    prop_assert_eq!(ranges.run(at), match is {
                        true => Run::Inside(other.unwrap()),
                        false => Run::Outside(other.unwrap_or(u64::MAX)),
                    });
                }
            }
        }
    }
}
