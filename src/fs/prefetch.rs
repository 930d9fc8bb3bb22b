//! Read-ahead of one open file: who reads in order gets more than was asked for.
//!
//! The kernel reads ahead too, but at most a few requests; over a network that is too little in flight. The
//! window is four times what was read in order so far, up to [`MAX_WINDOW`]: never is more fetched in vain than
//! four times what somebody wanted. A jump starts anew.

use std::ops::Range;

/// The most that is fetched ahead of a reader, in bytes: 16 MiB is 0.13 s at 1 Gbit/s.
pub const MAX_WINDOW: u64 = 16 << 20;
/// Bytes ahead for each byte read in order. With two, the pipe of 100 Mbit/s and 50 ms ran dry behind the first read.
const AHEAD: u64 = 4;
/// How far a read may lie from where the last one ended and still count as in order, in bytes: the kernel
/// sends several requests at once and several threads take them, so they arrive shuffled.
const SLACK: u64 = 2 << 20;
/// The least worth asking for, in bytes, except at the end of the file.
const MIN_ISSUE: u64 = 256 << 10;

/// Where one reader is.
#[derive(Debug, Default)]
pub struct Prefetch {
    /// End of the farthest read of this run.
    expected: u64,
    /// Bytes read in order.
    run: u64,
    /// End of what was asked for ahead.
    issued: u64,
}

impl Prefetch {
    /// Notes a read of `len` bytes at `offset` and tells what to fetch now, if anything.
    pub fn observe(&mut self, offset: u64, len: u64, size: u64) -> Option<Range<u64>> {
        let end = offset.saturating_add(len).min(size);
        if offset.abs_diff(self.expected) > SLACK {
            *self = Self { expected: end, run: 0, issued: end };
            return None;
        }
        self.run = self.run.saturating_add(end.saturating_sub(self.expected.max(offset)));
        self.expected = self.expected.max(end);
        let window = self.run.saturating_mul(AHEAD).min(MAX_WINDOW);
        let target = self.expected.saturating_add(window).min(size);
        let start = self.issued.max(self.expected);
        let ahead = target.saturating_sub(start);
        // Asking in steps of an eighth of the window keeps the pipe full without a call for each read.
        if ahead == 0 || (ahead < MIN_ISSUE.max(window / 8) && target < size) {
            return None;
        }
        self.issued = target;
        Some(start..target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;
    const STEP: u64 = 128 << 10;

    fn read_on(prefetch: &mut Prefetch, from: u64, count: u64) -> u64 {
        let mut fetched = 0;
        for i in 0..count {
            if let Some(range) = prefetch.observe(from + i * STEP, STEP, SIZE) {
                assert!(range.start >= from + (i + 1) * STEP, "never what was just read");
                assert!(range.end <= SIZE);
                fetched += range.end - range.start;
            }
        }
        fetched
    }

    #[test]
    fn the_window_grows_with_what_was_read() {
        let mut prefetch = Prefetch::default();
        let first = read_on(&mut prefetch, 0, 1);
        assert!(first <= AHEAD * STEP);
        read_on(&mut prefetch, STEP, 200);
        let ahead = prefetch.issued - prefetch.expected;
        assert!(ahead > MAX_WINDOW * 3 / 4 && ahead <= MAX_WINDOW, "{ahead}");
    }

    #[test]
    fn nothing_is_asked_for_twice() {
        let mut prefetch = Prefetch::default();
        let fetched = read_on(&mut prefetch, 0, 1000);
        assert!(fetched <= 1000 * STEP + MAX_WINDOW);
    }

    #[test]
    fn shuffled_requests_are_still_in_order() {
        let mut prefetch = Prefetch::default();
        for pair in 0..50 {
            prefetch.observe((2 * pair + 1) * STEP, STEP, SIZE);
            prefetch.observe(2 * pair * STEP, STEP, SIZE);
        }
        assert!(prefetch.issued > 100 * STEP + (8 << 20));
    }

    #[test]
    fn a_jump_resets_and_random_reads_fetch_next_to_nothing() {
        let mut prefetch = Prefetch::default();
        read_on(&mut prefetch, 0, 200);
        assert_eq!(prefetch.observe(900 << 20, 4096, SIZE), None);
        let mut fetched = 0;
        for i in 0..1000u64 {
            let offset = (i * 7_919_000_003) % (SIZE - 4096);
            fetched += prefetch.observe(offset, 4096, SIZE).map_or(0, |r| r.end - r.start);
        }
        assert!(fetched <= 2 * 4096 * 1000, "{fetched}");
    }

    #[test]
    fn the_end_of_the_file_is_the_end() {
        let mut prefetch = Prefetch::default();
        assert_eq!(prefetch.observe(0, 4096, 6000), Some(4096..6000));
        assert_eq!(prefetch.observe(4096, 4096, 6000), None);
        assert_eq!(Prefetch::default().observe(0, 4096, 0), None);
    }
}
