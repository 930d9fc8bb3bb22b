//! Which blocks a peer says it has.
//!
//! A peer announces a contiguous start, ranges, and bitfields of up to 2 097 152 blocks. Whole pages are
//! kept as runs, so that "all of 2^40" costs one entry, and only mixed pages as bits. What a peer can
//! make us keep is bounded by [`MAX_PAGES`] and [`MAX_RUNS`]; what does not fit is taken as not there,
//! and a want asks for it again.
//!
//! Source: hypercore/lib/replicator.js:onrange, onbitfield; hypercore/lib/remote-bitfield.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;

/// Blocks of a page: 4096 bytes of bits, as in the reference.
const PAGE: u64 = 32_768;
const WORDS: usize = (PAGE / 64) as usize;
/// Mixed pages of one peer and core: 4 MiB of bits, 33 million blocks.
const MAX_PAGES: usize = 1024;
/// Runs of full pages of one peer and core.
const MAX_RUNS: usize = 1024;

type Bits = Box<[u64; WORDS]>;

#[derive(Debug, Default)]
pub struct RemoteBitfield {
    contiguous: u64,
    /// Mixed pages by number.
    pages: BTreeMap<u64, Bits>,
    /// Runs of full pages: first → one past the last. No run holds a page that is in `pages`.
    runs: BTreeMap<u64, u64>,
    /// Bytes that may be held, if fewer than the bounds allow.
    room: Option<usize>,
}

/// What a page and a run cost, about.
const PAGE_BYTES: usize = WORDS * 8 + 64;
const RUN_BYTES: usize = 64;

impl RemoteBitfield {
    /// Bytes that this holds.
    pub fn held(&self) -> usize {
        self.pages.len() * PAGE_BYTES + self.runs.len() * RUN_BYTES
    }

    /// Bytes that may be added from now on.
    pub fn set_room(&mut self, bytes: usize) {
        self.room = Some(self.held().saturating_add(bytes));
    }

    fn fits(&self, bytes: usize) -> bool {
        self.room.is_none_or(|room| self.held() + bytes <= room)
    }

    /// Blocks that the peer has without a hole from 0.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    pub fn has(&self, block: u64) -> bool {
        block < self.contiguous
            || match self.pages.get(&(block / PAGE)) {
                Some(bits) => bits.get(word_of(block)).is_some_and(|w| w >> (block % 64) & 1 == 1),
                None => self.run_end(block / PAGE).is_some(),
            }
    }

    /// The first block in `from..end` that the peer has.
    pub fn next_set(&self, from: u64, end: u64) -> Option<u64> {
        if from >= end {
            return None;
        }
        if self.has(from) {
            return Some(from);
        }
        let run = self.runs.range(from / PAGE + 1..).next().map(|(page, _)| page * PAGE);
        let last = run.unwrap_or(end).min(end).div_ceil(PAGE);
        let bits = self.pages.range(from / PAGE..last).find_map(|(page, bits)| {
            first_set(bits, from.saturating_sub(page * PAGE)).map(|i| page * PAGE + i)
        });
        bits.or(run).filter(|block| *block < end)
    }

    /// A range message that is not a drop.
    pub fn set_range(&mut self, start: u64, length: u64) {
        if start == 0 {
            self.contiguous = self.contiguous.max(length);
        } else {
            self.fill(start, start.saturating_add(length), true);
        }
    }

    /// A range message that drops. What lies above it and was known by the contiguous start only is
    /// forgotten.
    pub fn drop_range(&mut self, start: u64, length: u64) {
        self.contiguous = self.contiguous.min(start);
        self.fill(start, start.saturating_add(length), false);
    }

    /// A bitfield message: `words` tell about the blocks from `start`, which is a multiple of 32.
    pub fn overwrite(&mut self, start: u64, words: &[u32]) {
        if !start.is_multiple_of(32) {
            return;
        }
        self.contiguous = self.contiguous.min(start);
        let mut block = start;
        let mut words = words;
        while !words.is_empty() {
            let in_page = ((PAGE - block % PAGE) / 32) as usize;
            let (now, later) = words.split_at(in_page.min(words.len()));
            self.overwrite_page(block, now);
            block += 32 * now.len() as u64;
            words = later;
        }
    }

    /// Overwrites words inside one page.
    fn overwrite_page(&mut self, start: u64, words: &[u32]) {
        let page = start / PAGE;
        if words.len() == (PAGE / 32) as usize && words.iter().all(|w| *w == u32::MAX) {
            return self.fill(page * PAGE, (page + 1) * PAGE, true);
        }
        let all_zero = words.iter().all(|w| *w == 0);
        if all_zero && !self.pages.contains_key(&page) && self.run_end(page).is_none() {
            return;
        }
        let Some(bits) = self.page_mut(page) else { return };
        for (i, word) in words.iter().enumerate() {
            let at = (start % PAGE / 32) as usize + i;
            if let Some(w) = bits.get_mut(at / 2) {
                let shift = 32 * (at % 2);
                *w = *w & !(0xffff_ffff << shift) | u64::from(*word) << shift;
            }
        }
        self.tidy(page);
    }

    fn fill(&mut self, start: u64, end: u64, on: bool) {
        if start >= end {
            return;
        }
        let (first, last) = (start.div_ceil(PAGE), end / PAGE);
        if start / PAGE == end / PAGE {
            return self.fill_in_page(start, end, on);
        }
        if start < first * PAGE {
            self.fill_in_page(start, first * PAGE, on);
        }
        if first < last {
            self.fill_pages(first, last, on);
        }
        if last * PAGE < end {
            self.fill_in_page(last * PAGE, end, on);
        }
    }

    fn fill_in_page(&mut self, start: u64, end: u64, on: bool) {
        let page = start / PAGE;
        let here = self.pages.contains_key(&page);
        if !here && (self.run_end(page).is_some() == on) {
            return; // full and to be set, or empty and to be cleared
        }
        let Some(bits) = self.page_mut(page) else { return };
        let (start, end) = (start - page * PAGE, end - page * PAGE);
        for at in (start / 64)..end.div_ceil(64) {
            let low = start.saturating_sub(at * 64).min(64);
            let high = (end - at * 64).min(64);
            let mask = (u64::MAX << low) & (u64::MAX >> (64 - high));
            if let Some(w) = bits.get_mut(at as usize) {
                *w = if on { *w | mask } else { *w & !mask };
            }
        }
        // Looking at all words for every single bit would make a flood of them slow.
        if end - start > 64 || end == PAGE {
            self.tidy(page);
        }
    }

    fn fill_pages(&mut self, first: u64, last: u64, on: bool) {
        let stale: Vec<u64> = self.pages.range(first..last).map(|(page, _)| *page).collect();
        for page in stale {
            self.pages.remove(&page);
        }
        let (mut first, mut last) = (first, last);
        if on {
            // Join with runs that touch.
            while let Some((&s, &e)) =
                self.runs.range(..=last).next_back().filter(|(_, e)| **e >= first)
            {
                self.runs.remove(&s);
                (first, last) = (first.min(s), last.max(e));
            }
            if self.runs.len() < MAX_RUNS && self.fits(RUN_BYTES) {
                self.runs.insert(first, last);
            }
            return;
        }
        while let Some((&s, &e)) = self.runs.range(..last).next_back().filter(|(_, e)| **e > first)
        {
            self.runs.remove(&s);
            if s < first {
                self.runs.insert(s, first);
            }
            if e > last && self.runs.len() < MAX_RUNS {
                self.runs.insert(last, e);
            }
        }
    }

    /// The bits of a page, made from its run or from nothing. `None` if the peer has used up its pages.
    fn page_mut(&mut self, page: u64) -> Option<&mut Bits> {
        if !self.pages.contains_key(&page) {
            if self.pages.len() >= MAX_PAGES || !self.fits(PAGE_BYTES) {
                return None;
            }
            let full = self.run_end(page).is_some();
            if full {
                self.fill_pages(page, page + 1, false);
            }
            self.pages.insert(page, Box::new([if full { u64::MAX } else { 0 }; WORDS]));
        }
        self.pages.get_mut(&page)
    }

    /// Turns a page that became full into a run and drops one that became empty.
    fn tidy(&mut self, page: u64) {
        let Some(bits) = self.pages.get(&page) else { return };
        if bits.iter().all(|w| *w == u64::MAX) {
            self.fill_pages(page, page + 1, true);
        } else if bits.iter().all(|w| *w == 0) {
            self.pages.remove(&page);
        }
    }

    /// End of the run that holds `page`.
    fn run_end(&self, page: u64) -> Option<u64> {
        self.runs.range(..=page).next_back().map(|(_, end)| *end).filter(|end| page < *end)
    }
}

fn word_of(block: u64) -> usize {
    (block % PAGE / 64) as usize
}

fn first_set(bits: &Bits, from: u64) -> Option<u64> {
    let first = (from / 64) as usize;
    bits.iter().enumerate().skip(first).find_map(|(i, word)| {
        let masked = if i == first { word & u64::MAX << (from % 64) } else { *word };
        (masked != 0).then(|| i as u64 * 64 + u64::from(masked.trailing_zeros()))
    })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Op {
        Set(u64, u64),
        Drop(u64, u64),
        Words(u64, Vec<u32>),
    }

    const SPAN: u64 = 4 * PAGE;

    fn op() -> impl Strategy<Value = Op> {
        let len = prop_oneof![1..5u64, 1..SPAN];
        let word = prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
        let words = prop_oneof![
            proptest::collection::vec(word, 0..40),
            Just(vec![u32::MAX; 1500]),
            Just(vec![0; 1500]),
        ];
        prop_oneof![
            (0..SPAN, len.clone()).prop_map(|(s, l)| Op::Set(s, l)),
            (0..SPAN, len).prop_map(|(s, l)| Op::Drop(s, l)),
            (0..SPAN / 32, words).prop_map(|(s, w)| Op::Words(s * 32, w)),
        ]
    }

    proptest! {
        #![proptest_config(crate::sim::cases(64))]
        #[test]
        fn agrees_with_a_set_of_numbers(ops in proptest::collection::vec(op(), 1..12), at in 0..SPAN) {
            let mut field = RemoteBitfield::default();
            let (mut contiguous, mut set) = (0, BTreeSet::new());
            for op in ops {
                match op {
                    Op::Set(s, l) => {
                        field.set_range(s, l);
                        if s == 0 { contiguous = contiguous.max(l) } else { set.extend(s..s + l) }
                    }
                    Op::Drop(s, l) => {
                        field.drop_range(s, l);
                        contiguous = contiguous.min(s);
                        set.retain(|i| !(s..s + l).contains(i));
                    }
                    Op::Words(s, w) => {
                        field.overwrite(s, &w);
                        contiguous = contiguous.min(s);
                        for i in 0..32 * w.len() as u64 {
                            if w[(i / 32) as usize] >> (i % 32) & 1 == 1 { set.insert(s + i); } else { set.remove(&(s + i)); }
                        }
                    }
                }
            }
            let has = |i: u64| i < contiguous || set.contains(&i);
            for i in (0..3 * SPAN).step_by(97).chain([at]) {
                prop_assert_eq!(field.has(i), has(i), "{}", i);
            }
            let want = (at..2 * SPAN).find(|i| has(*i));
            prop_assert_eq!(field.next_set(at, 2 * SPAN), want);
        }
    }

    #[test]
    fn a_range_of_all_numbers_costs_one_entry() {
        let mut field = RemoteBitfield::default();
        field.set_range(1, 1 << 53);
        field.set_range(77, u64::MAX);
        assert!(field.has(1 << 40));
        assert!(field.pages.len() <= 2 && field.runs.len() == 1);
    }

    #[test]
    fn scattered_bits_are_bounded() {
        let mut field = RemoteBitfield::default();
        for i in 0..10_000 {
            field.set_range(1 + i * PAGE, 1);
            field.set_range(i * 2 * PAGE, PAGE);
        }
        assert!(field.pages.len() <= MAX_PAGES && field.runs.len() <= MAX_RUNS);
    }
}
