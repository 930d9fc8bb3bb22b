//! Where the bytes of a changed file come from: its staging file, its base, or nowhere.

use super::ranges::{Ranges, Run};
use std::ops::Range;

/// See the module. Nothing reaches past `size`; `holes` lie below `cut`, where nothing was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the file.
    pub size: u64,
    /// The base shows below this: the least of its size and all that the file has had since.
    pub cut: u64,
    /// In the staging file, each at its own offset.
    pub written: Ranges,
    /// Zeros over the base.
    pub holes: Ranges,
}

/// Who has a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Staged,
    Base,
    Zeros,
}

impl Layout {
    /// All of a base.
    pub fn of_base(size: u64) -> Self {
        Self { size, cut: size, ..Self::default() }
    }

    /// The stretch that begins at `at`, up to `end` at most.
    fn stretch(&self, at: u64, end: u64) -> (Origin, u64) {
        let end = match self.written.run(at) {
            Run::Inside(until) => return (Origin::Staged, until.min(end)),
            Run::Outside(next) => next.min(end),
        };
        if at >= self.cut {
            return (Origin::Zeros, end);
        }
        match self.holes.run(at) {
            Run::Inside(until) => (Origin::Zeros, until.min(end)),
            Run::Outside(next) => (Origin::Base, next.min(self.cut).min(end)),
        }
    }

    /// The stretches of a range in order, cut at the end of the file.
    pub fn stretches(&self, range: Range<u64>) -> impl Iterator<Item = (Origin, Range<u64>)> {
        let (mut at, end) = (range.start, range.end.min(self.size));
        std::iter::from_fn(move || {
            let start = at;
            (start < end).then(|| {
                let (origin, until) = self.stretch(start, end);
                at = until;
                (origin, start..until)
            })
        })
    }

    /// What is not the base's, joined.
    pub fn changed(&self) -> Vec<Range<u64>> {
        let mut changed: Vec<Range<u64>> = Vec::new();
        let stretches = self.stretches(0..self.size);
        for (_, range) in stretches.filter(|(origin, _)| *origin != Origin::Base) {
            match changed.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => changed.push(range),
            }
        }
        changed
    }

    /// Whether the first `size` bytes are those of a base of that size.
    pub fn begins_with_base(&self, size: u64) -> bool {
        let written_past = matches!(self.written.run(0), Run::Outside(next) if next >= size);
        self.cut == size && self.holes.is_empty() && (size == 0 || written_past)
    }

    /// The first byte at or after `at` that was written or is the base's. None if there is none.
    pub fn next_data(&self, at: u64) -> Option<u64> {
        let mut stretches = self.stretches(at..self.size);
        stretches.find(|(origin, _)| *origin != Origin::Zeros).map(|(_, range)| range.start)
    }

    /// The first at or after `at` that is neither; one follows the last byte. None past the end.
    pub fn next_hole(&self, at: u64) -> Option<u64> {
        let mut stretches = self.stretches(at..self.size);
        let hole = stretches.find(|(origin, _)| *origin == Origin::Zeros);
        (at < self.size).then(|| hole.map_or(self.size, |(_, range)| range.start))
    }

    pub fn write(&mut self, range: Range<u64>) {
        self.size = self.size.max(range.end);
        self.holes.remove(range.clone());
        self.written.insert(range);
    }

    /// Tells what of the staging file counts no more.
    pub fn truncate(&mut self, size: u64) -> Vec<Range<u64>> {
        self.size = size;
        self.cut = self.cut.min(size);
        self.holes.remove(size..u64::MAX);
        self.written.remove(size..u64::MAX)
    }

    /// The same.
    pub fn punch(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        self.holes.insert(range.start..range.end.min(self.cut));
        self.written.remove(range)
    }

    /// The first `size` bytes are those of another base now. Tells what of the staging file counts no more.
    pub fn rebase(&mut self, size: u64) -> Vec<Range<u64>> {
        self.cut = size;
        self.holes = Ranges::default();
        self.written.remove(0..size)
    }
}
