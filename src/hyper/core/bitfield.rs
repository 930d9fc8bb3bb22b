//! Which blocks are here: a bit per block, in pages of 32768 bits, and the length without a hole.
//!
//! Pages that are all zeros do not exist and pages that are all ones take no words, so memory goes with
//! the number of *ragged* pages: a core may speak of 2^40 blocks. Bit i of the field is
//! `word[i / 32] >> (i % 32) & 1`, in memory, on the wire and in a raw stored page.
//!
//! A stored page is one of:
//!
//! | first byte | then | meaning |
//! |---|---|---|
//! | 0 | 1024 words, u32 LE | raw |
//! | 1 | uint lengths of runs: zeros, ones, zeros, … which add up to 32768 | runs |
//!
//! Source: hypercore/lib/bitfield.js

use crate::codec::{self, DecodeError, Put, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Bits of a page.
pub const PAGE_BITS: u64 = 32768;
const WORDS: usize = 1024;

type Words = Box<[u32; WORDS]>;

#[derive(Clone)]
enum Page {
    Full,
    /// The words and how many bits are set: more than none, fewer than all.
    Mixed(Words, u32),
}

/// A sparse set of block indexes.
#[derive(Clone, Default)]
pub struct Bitfield {
    pages: BTreeMap<u64, Page>,
    contiguous: u64,
    count: u64,
    dirty: BTreeSet<u64>,
}

fn words_of(page: &Page) -> Words {
    match page {
        Page::Full => Box::new([u32::MAX; WORDS]),
        Page::Mixed(words, _) => words.clone(),
    }
}

/// The bits of word `word` that lie in `bits`, both within one page.
fn mask(word: usize, bits: &Range<u64>) -> u32 {
    let base = word as u64 * 32;
    let from = bits.start.saturating_sub(base).min(32);
    let to = bits.end.saturating_sub(base).min(32);
    let below = |n: u64| if n >= 32 { u32::MAX } else { (1 << n) - 1 };
    below(to) & !below(from)
}

impl Bitfield {
    pub fn get(&self, index: u64) -> bool {
        // Most readers hold a prefix, so that most questions end here.
        if index < self.contiguous {
            return true;
        }
        match self.pages.get(&(index / PAGE_BITS)) {
            None => false,
            Some(Page::Full) => true,
            Some(Page::Mixed(words, _)) => {
                let bit = index % PAGE_BITS;
                words[bit as usize / 32] >> (bit % 32) & 1 == 1
            }
        }
    }

    /// Blocks held from 0 without a hole.
    pub fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Blocks held.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sets or clears a range. Returns how many bits changed.
    pub fn set_range(&mut self, range: Range<u64>, value: bool) -> u64 {
        let before = self.count;
        if value {
            let mut start = range.start;
            while start < range.end {
                let end = ((start / PAGE_BITS + 1) * PAGE_BITS).min(range.end);
                self.set_in_page(start / PAGE_BITS, start..end, true);
                start = end;
            }
            if range.start <= self.contiguous && self.contiguous < range.end {
                self.contiguous = self.next_unset(range.end);
            }
            return self.count - before;
        }
        if range.start < range.end {
            // Only pages that exist have anything to clear.
            let pages = range.start / PAGE_BITS..=(range.end - 1) / PAGE_BITS;
            let numbers: Vec<u64> = self.pages.range(pages).map(|(number, _)| *number).collect();
            for number in numbers {
                let base = number * PAGE_BITS;
                let bits = range.start.max(base)..range.end.min(base + PAGE_BITS);
                self.set_in_page(number, bits, false);
            }
            self.contiguous = self.contiguous.min(range.start);
        }
        before - self.count
    }

    pub fn set(&mut self, index: u64, value: bool) -> bool {
        self.set_range(index..index + 1, value) == 1
    }

    /// `bits` lies within the page.
    fn set_in_page(&mut self, number: u64, bits: Range<u64>, value: bool) {
        let base = number * PAGE_BITS;
        let bits = bits.start - base..bits.end - base;
        let (mut words, old) = match self.pages.remove(&number) {
            Some(Page::Full) if value => {
                self.pages.insert(number, Page::Full);
                return;
            }
            Some(Page::Full) => (Box::new([u32::MAX; WORDS]), PAGE_BITS as u32),
            Some(Page::Mixed(words, ones)) => (words, ones),
            None if value => (Box::new([0; WORDS]), 0),
            None => return,
        };
        let mut ones = old;
        for word in (bits.start / 32) as usize..bits.end.div_ceil(32) as usize {
            let mask = mask(word, &bits);
            let was = words[word].count_ones();
            words[word] = if value { words[word] | mask } else { words[word] & !mask };
            ones = ones + words[word].count_ones() - was;
        }
        self.count = self.count + u64::from(ones) - u64::from(old);
        if ones != old {
            self.dirty.insert(number);
        }
        match ones {
            0 => self.pages.remove(&number),
            n if u64::from(n) == PAGE_BITS => self.pages.insert(number, Page::Full),
            n => self.pages.insert(number, Page::Mixed(words, n)),
        };
    }

    /// The first index at or after `from` that is not set.
    pub fn next_unset(&self, from: u64) -> u64 {
        let mut index = from.max(if from < self.contiguous { self.contiguous } else { 0 });
        loop {
            let number = index / PAGE_BITS;
            match self.pages.get(&number) {
                None => return index,
                Some(Page::Full) => {}
                Some(Page::Mixed(words, _)) => {
                    if let Some(bit) = find(words, index % PAGE_BITS, u32::MAX) {
                        return number * PAGE_BITS + bit;
                    }
                }
            }
            index = (number + 1) * PAGE_BITS;
        }
    }

    /// The first index at or after `from` that is set.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        for (&number, page) in self.pages.range(from / PAGE_BITS..) {
            let base = number * PAGE_BITS;
            let start = from.saturating_sub(base);
            match page {
                Page::Full => return Some(base + start),
                Page::Mixed(words, _) => {
                    if let Some(bit) = find(words, start, 0) {
                        return Some(base + bit);
                    }
                }
            }
        }
        None
    }

    /// How many bits of a range are set.
    pub fn count_range(&self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        let pages = self.pages.range(range.start / PAGE_BITS..=(range.end - 1) / PAGE_BITS);
        let in_page = |(number, page): (&u64, &Page)| {
            let base = number * PAGE_BITS;
            let bits = range.start.saturating_sub(base)..(range.end - base).min(PAGE_BITS);
            match page {
                Page::Full => bits.end - bits.start,
                Page::Mixed(words, _) => (bits.start as usize / 32..bits.end.div_ceil(32) as usize)
                    .map(|word| u64::from((words[word] & mask(word, &bits)).count_ones()))
                    .sum(),
            }
        };
        pages.map(in_page).sum()
    }

    /// The words that hold `start..start + len`, with `start` rounded down and the end rounded up to a word.
    pub fn words(&self, start: u64, len: u64) -> Vec<u32> {
        let first = start / 32;
        let last = start.saturating_add(len).div_ceil(32);
        (first..last.max(first))
            .map(|word| match self.pages.get(&(word / WORDS as u64)) {
                None => 0,
                Some(Page::Full) => u32::MAX,
                Some(Page::Mixed(words, _)) => words[(word % WORDS as u64) as usize],
            })
            .collect()
    }

    /// Numbers of the pages that changed since they were last taken.
    pub fn take_dirty(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.dirty)
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Puts page numbers back that [`Self::take_dirty`] gave, after their storing failed.
    pub fn mark_dirty(&mut self, pages: impl IntoIterator<Item = u64>) {
        self.dirty.extend(pages);
    }

    /// The stored form of a page; `None` if no bit of it is set.
    pub fn encode_page(&self, number: u64) -> Option<Vec<u8>> {
        let page = self.pages.get(&number)?;
        let mut runs = vec![1];
        let words = words_of(page);
        let (mut at, mut skip) = (0, 0);
        while at < PAGE_BITS && runs.len() < 512 {
            let end = find(&words, at, skip).unwrap_or(PAGE_BITS);
            runs.put_uint(end - at);
            (at, skip) = (end, !skip);
        }
        if at == PAGE_BITS {
            return Some(runs);
        }
        let mut raw = Vec::with_capacity(1 + WORDS * 4);
        raw.put_u8(0);
        words.iter().for_each(|word| raw.put_u32(*word));
        Some(raw)
    }

    /// Takes a stored page in. The page must not have been there.
    ///
    /// # Errors
    /// If the bytes are not a page.
    pub fn decode_page(&mut self, number: u64, bytes: &[u8]) -> codec::Result<()> {
        if number > u64::MAX / PAGE_BITS - 1 {
            return Err(DecodeError::Invalid("page number"));
        }
        let base = number * PAGE_BITS;
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            0 => {
                for word in 0..WORDS as u64 {
                    let mut bits = reader.u32()?;
                    while bits != 0 {
                        let first = bits.trailing_zeros();
                        let run = (bits >> first).trailing_ones();
                        let from = base + word * 32 + u64::from(first);
                        self.set_in_page(number, from..from + u64::from(run), true);
                        bits &= !(mask(0, &(u64::from(first)..u64::from(first + run))));
                    }
                }
            }
            1 => {
                let (mut at, mut ones) = (0, false);
                while at < PAGE_BITS {
                    let run = reader.uint()?;
                    if run > PAGE_BITS - at {
                        return Err(DecodeError::Invalid("run of a bitfield page"));
                    }
                    if ones && run > 0 {
                        self.set_in_page(number, base + at..base + at + run, true);
                    }
                    at += run;
                    ones = !ones;
                }
            }
            _ => return Err(DecodeError::Invalid("kind of bitfield page")),
        }
        self.dirty.remove(&number);
        if self.contiguous / PAGE_BITS >= number {
            self.contiguous = self.next_unset(self.contiguous);
        }
        Ok(())
    }
}

/// The first bit at or after `from` whose word differs from `skip` (all zeros or all ones) there.
fn find(words: &Words, from: u64, skip: u32) -> Option<u64> {
    let mut word = from as usize / 32;
    let mut bits = (*words.get(word)? ^ skip) & !(mask(0, &(0..from % 32)));
    while bits == 0 {
        word += 1;
        bits = *words.get(word)? ^ skip;
    }
    Some(word as u64 * 32 + u64::from(bits.trailing_zeros()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::unhex;
    use proptest::prelude::*;

    #[test]
    fn vectors() {
        let text =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/hypercore.json"));
        let all: serde_json::Value = serde_json::from_str(text).unwrap();
        let vector = &all["bitfield"];
        let mut field = Bitfield::default();
        for bit in vector["set_bits"].as_array().unwrap() {
            match (bit.as_u64(), bit.as_str()) {
                (Some(bit), _) => assert!(field.set(bit, true)),
                (_, Some("40000..40099")) => assert_eq!(field.set_range(40000..40100, true), 100),
                other => panic!("{other:?}"),
            }
        }
        let page = unhex(vector["first_40_bytes_of_page_0"].as_str().unwrap()).unwrap();
        let words = |from, len| -> Vec<u8> {
            field.words(from, len).iter().flat_map(|word| word.to_le_bytes()).collect()
        };
        assert_eq!(words(0, 320), page);
        // As a bitfield message: start, count of words, words.
        for (name, start, len) in [
            ("want_0_2097152_at_length_310", 0, 310),
            ("want_unaligned_start_70_length_50", 70, 50),
        ] {
            let want = &vector[name][0];
            let mut message = Vec::new();
            message.put_uint(start / 32 * 32);
            message.put_uint(field.words(start, len).len() as u64);
            message.put(&words(start, len));
            assert_eq!(message, unhex(want["message_hex"].as_str().unwrap()).unwrap(), "{name}");
        }
        assert_eq!(field.contiguous(), 2);
        assert_eq!(field.next_set(301), Some(40000));
        assert_eq!(field.next_unset(31), 34);
    }

    #[test]
    fn huge_claims_cost_nothing() {
        let mut field = Bitfield::default();
        field.set(1 << 40, true);
        assert_eq!(field.set_range(0..1 << 40, false), 0);
        assert_eq!(field.count_range(0..u64::MAX), 1);
        assert_eq!(field.next_set(0), Some(1 << 40));
        field.set_range(0..3 * PAGE_BITS + 5, true);
        assert_eq!(field.contiguous(), 3 * PAGE_BITS + 5);
        assert_eq!(field.encode_page(1).unwrap().len(), 5);
    }

    fn check(field: &Bitfield, model: &[bool]) {
        let held = |i: usize| model.get(i).copied().unwrap_or(false);
        assert_eq!(field.count(), model.iter().filter(|&&b| b).count() as u64);
        let contiguous = (0..).find(|&i| !held(i)).unwrap();
        assert_eq!(field.contiguous(), contiguous as u64);
        for probe in (0..model.len()).step_by(997) {
            assert_eq!(field.get(probe as u64), held(probe));
            let unset = (probe..).find(|&i| !held(i)).unwrap();
            assert_eq!(field.next_unset(probe as u64), unset as u64);
            let set = (probe..model.len()).find(|&i| held(i)).map(|i| i as u64);
            assert_eq!(field.next_set(probe as u64), set);
            let count = model[probe..].iter().filter(|&&b| b).count() as u64;
            assert_eq!(field.count_range(probe as u64..model.len() as u64), count);
        }
    }

    proptest! {
        #![proptest_config(crate::sim::cases(64))]
        #[test]
        fn a_bitfield_is_a_vector_of_bools(ops in proptest::collection::vec(
            (0u64..100_000, prop_oneof![0u64..50, 0u64..70_000], any::<bool>()), 1..20)) {
            let (mut field, mut model) = (Bitfield::default(), vec![false; 170_000]);
            for (start, len, value) in ops {
                let changed = model[start as usize..(start + len) as usize]
                    .iter_mut()
                    .filter_map(|b| (std::mem::replace(b, value) != value).then_some(()))
                    .count();
                prop_assert_eq!(field.set_range(start..start + len, value), changed as u64);
            }
            check(&field, &model);
            let mut stored = Bitfield::default();
            for page in field.take_dirty() {
                if let Some(bytes) = field.encode_page(page) {
                    stored.decode_page(page, &bytes).unwrap();
                }
            }
            prop_assert!(!stored.is_dirty());
            check(&stored, &model);
        }

        #[test]
        fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Bitfield::default().decode_page(3, &bytes);
        }
    }
}
