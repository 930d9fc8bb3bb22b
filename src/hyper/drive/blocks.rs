//! A set of blocks, kept as runs: what a drive's entries name, or what may be given back.

use std::collections::BTreeMap;
use std::ops::Range;

/// See the module. Memory follows the number of runs, not of blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSet {
    /// Start and end of runs that neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
}

impl BlockSet {
    /// Adds a run of blocks.
    pub fn insert(&mut self, blocks: Range<u64>) {
        let Range { mut start, mut end } = blocks;
        if start >= end {
            return;
        }
        if let Some((&before, &until)) = self.runs.range(..=start).next_back()
            && until >= start
        {
            (start, end) = (before, end.max(until));
        }
        while let Some((&next, &until)) = self.runs.range(start..=end).next() {
            self.runs.remove(&next);
            end = end.max(until);
        }
        self.runs.insert(start, end);
    }

    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    /// Runs of `within` that are not in the set.
    pub fn gaps(&self, within: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut from = within.start;
        for run in self.runs() {
            if run.start >= within.end {
                break;
            }
            if run.start > from {
                gaps.push(from..run.start);
            }
            from = from.max(run.end);
        }
        if from < within.end {
            gaps.push(from..within.end);
        }
        gaps
    }

    /// The set without the blocks from `end` on.
    pub fn below(&self, end: u64) -> Self {
        let cut = |run: Range<u64>| (run.start < end).then(|| (run.start, run.end.min(end)));
        Self { runs: self.runs().filter_map(cut).collect() }
    }

    /// Number of blocks.
    pub fn len(&self) -> u64 {
        self.runs().map(|run| run.end - run.start).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// One past the last block.
    pub fn end(&self) -> u64 {
        self.runs.last_key_value().map_or(0, |(_, &end)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_and_its_gaps_are_the_rest(
            runs in proptest::collection::vec((0..60u64, 0..9u64), 0..20), end in 0..80u64
        ) {
            let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
            for (start, len) in runs {
                set.insert(start..start + len);
                model.extend(start..start + len);
            }
            let of = |runs: Vec<Range<u64>>| runs.into_iter().flatten().collect::<BTreeSet<u64>>();
            prop_assert_eq!(of(set.runs().collect()), model.clone());
            prop_assert_eq!((set.len(), set.is_empty()), (model.len() as u64, model.is_empty()));
            prop_assert_eq!(set.end(), model.last().map_or(0, |last| last + 1));
            let gaps = (0..end).filter(|block| !model.contains(block)).collect::<BTreeSet<u64>>();
            prop_assert_eq!(of(set.gaps(0..end)), gaps);
            let below = model.range(..end).copied().collect::<BTreeSet<u64>>();
            prop_assert_eq!(of(set.below(end).runs().collect()), below);
            let runs: Vec<_> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
