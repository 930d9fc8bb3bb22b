//! What was written to a small file lies in memory, until it grows or is published.
//!
//! Most files that programs make are small, and are published or gone a moment later: for each the disk would make a
//! staging file and remove it. [`Memory`] is the room for all such files of a draft; where there is none, a file has a
//! staging file from the start.

use super::ranges::Ranges;
use crate::hyper::blobs::BLOCK_SIZE;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// No byte in memory has an offset as large as this. A file of so many is one block of its blob.
pub const SMALL: u64 = BLOCK_SIZE;

/// Room for so many bytes, shared by many files.
pub struct Memory {
    most: usize,
    taken: AtomicUsize,
}

impl Memory {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: AtomicUsize::new(0) })
    }

    #[cfg(test)]
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Bytes that files take of it. It can be more than there was room for: see [`Buffer::restored`].
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let with = |taken: usize| taken.checked_add(bytes).filter(|&all| all <= self.most);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The beginning of a file up to the last byte that was written, each byte at its own offset. What the bytes are where
/// nothing was written tells nothing.
pub(super) struct Buffer {
    memory: Arc<Memory>,
    /// Whoever reads shares them; they are copied if they are written meanwhile.
    bytes: Bytes,
    taken: usize,
}

impl Buffer {
    pub fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: memory.clone(), bytes: Bytes::new(), taken: 0 }
    }

    /// What a record holds of these ranges, one after the other. A start takes up what is in the store, be there room for
    /// it or not: all of it was read, and no disk can fail it now.
    pub fn restored(memory: &Arc<Memory>, written: &Ranges, mut kept: &[u8]) -> Self {
        let mut bytes = vec![0; written.end() as usize];
        for Range { start, end } in written.iter() {
            let (now, later) = kept.split_at((end - start) as usize);
            bytes[start as usize..end as usize].copy_from_slice(now);
            kept = later;
        }
        let taken = bytes.len();
        memory.taken.fetch_add(taken, Ordering::Relaxed);
        Self { memory: memory.clone(), bytes: bytes.into(), taken }
    }

    /// Writes it, if that is among the first [`SMALL`] bytes and there is room.
    pub fn write(&mut self, range: &Range<u64>, new: &[u8]) -> bool {
        if range.end > SMALL {
            return false;
        }
        let (start, end) = (range.start as usize, range.end as usize);
        if end > self.taken {
            // A file that grows by little pieces is not copied for each.
            let most = end.max((2 * self.taken).min(SMALL as usize));
            if !self.memory.take(most - self.taken) {
                return false;
            }
            self.taken = most;
        }
        let mut bytes = Vec::from(std::mem::take(&mut self.bytes));
        bytes.reserve_exact(self.taken - bytes.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(new);
        self.bytes = bytes.into();
        true
    }

    /// A range that was written.
    pub fn get(&self, range: &Range<u64>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    /// The same, which nothing changes any more.
    pub fn share(&self, range: &Range<u64>) -> Bytes {
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    /// Nothing from `end` on is of use any more.
    pub fn cut(&mut self, end: u64) {
        if end < self.bytes.len() as u64 {
            self.bytes = Bytes::copy_from_slice(&self.bytes[..end as usize]);
            self.memory.give_back(self.taken - self.bytes.len());
            self.taken = self.bytes.len();
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.memory.give_back(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_no_more_than_there_is() {
        let memory = Memory::new(100_000);
        let mut one = Buffer::new(&memory);
        let mut other = Buffer::new(&memory);
        assert!(one.write(&(10..20), &[1; 10]));
        assert_eq!(memory.taken(), 20);
        assert!(!one.write(&(SMALL - 1..SMALL + 1), &[1; 2]));
        assert!(one.write(&(SMALL - 1..SMALL), &[2]));
        assert!(!other.write(&(0..40_000), &[3; 40_000]));
        one.cut(11);
        assert_eq!((memory.taken(), one.get(&(10..11))), (11, &[1][..]));
        assert!(other.write(&(0..40_000), &[3; 40_000]));
        let shared = other.share(&(5..7));
        assert!(other.write(&(6..7), &[4]));
        assert_eq!((&shared[..], other.get(&(5..7))), (&[3, 3][..], &[3, 4][..]));
        let written = [0..2, 5..6].into_iter().collect();
        let restored = Buffer::restored(&memory, &written, &[1, 2, 3]);
        assert_eq!((restored.get(&(0..2)), restored.get(&(5..6))), (&[1, 2][..], &[3][..]));
        drop((one, other, restored));
        assert_eq!(memory.taken(), 0);
    }

    #[test]
    fn little_pieces_are_not_copied_for_each() {
        let memory = Memory::new(SMALL as usize);
        let mut buffer = Buffer::new(&memory);
        let mut places = std::collections::BTreeSet::new();
        for at in 0..SMALL {
            assert!(buffer.write(&(at..at + 1), &[at as u8]));
            places.insert(buffer.taken);
        }
        assert_eq!((places.len(), memory.taken()), (17, SMALL as usize));
    }
}
