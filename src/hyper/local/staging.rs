//! The staging file: what was written to a file that is not small, in a sparse file of the store.

use super::layout::Layout;
use super::memory::Buffer;
use super::ranges::Ranges;
use super::{LocalError, MAX_SIZE, Result};
use crate::crypto::sign;
use crate::hyper::core::storage::{CoreFiles, Storage, StoredFile};
use crate::key::DiscoveryKey;
use std::ops::Range;
use std::sync::Arc;

/// What the id of every staging file begins with, so that it is told from the files of a core.
const STAGING: &[u8; 16] = b"hdrive staging \0";

/// Bytes that are of no use are given back in pieces of this or more. A hole makes the next sync one of the whole file,
/// where little would else have been copied.
const WORTH_FREEING: u64 = 64 << 10;

/// An id that nothing ever had. A file that was removed never comes back under its own.
fn fresh() -> DiscoveryKey {
    let mut id = sign::random();
    id[..STAGING.len()].copy_from_slice(STAGING);
    DiscoveryKey(id)
}

/// Whether the files of this id in a store are a staging file.
pub fn is_staging(id: &DiscoveryKey) -> bool {
    id.0.starts_with(STAGING)
}

/// See the module. Each byte lies at its own offset.
pub(super) struct StagingFile {
    pub id: DiscoveryKey,
    pub files: Arc<CoreFiles>,
    /// Where it may hold what is not in the layout.
    stale: Ranges,
    /// What the last record that names it says; from the first on the device may have one.
    described: Option<Described>,
}

/// How far a record describes the file; all that was written below is in it as long as the version is its own.
#[derive(Debug, Clone, Copy)]
struct Described {
    size: u64,
    open: bool,
}

impl StagingFile {
    /// A new one with what was written so far in memory, and with `bytes`, which are written now. After an error there is
    /// none, and what is in memory is as it was.
    pub fn filled(
        storage: &Arc<dyn Storage>,
        (buffer, written): (&Buffer, &Ranges),
        (offset, bytes): (u64, &[u8]),
    ) -> Result<Self> {
        let id = fresh();
        let files = storage.files(&id);
        let fill = || {
            for range in written.iter() {
                files.blocks.write_at(range.start, buffer.get(&range))?;
            }
            files.blocks.write_at(offset, bytes)
        };
        if let Err(error) = fill() {
            drop(files);
            // Else it takes its space until the next start.
            let _ = storage.remove_files(&id);
            return Err(error.into());
        }
        Ok(Self { id, files, stale: Ranges::default(), described: None })
    }

    /// The one that a record names, as it is found; an *open* one may tell of a larger file.
    pub fn found(
        storage: &Arc<dyn Storage>,
        (id, open): (DiscoveryKey, bool),
        layout: &mut Layout,
    ) -> Result<Self> {
        let files = storage.files(&id);
        let end = end_of(&files.blocks)?;
        if end < layout.written.end() {
            return Err(LocalError::Lost);
        }
        let described = Some(Described { size: layout.size, open });
        if open && end > layout.size {
            layout.write(layout.size..end);
        }
        let stale = layout.written.gaps(0..end).into_iter().collect();
        // Of what is read here an earlier process may not have seen to all: the next commit does.
        files.blocks.punch(end, 1)?;
        Ok(Self { id, files, stale, described })
    }

    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.files.blocks.read_at(offset, buf)? == buf.len() {
            true => Ok(()),
            false => Err(LocalError::Lost),
        }
    }

    /// Writes it, where `written` is already.
    pub fn write(&mut self, range: &Range<u64>, bytes: &[u8], written: &Ranges) -> Result<()> {
        let done = self.files.blocks.write_at(range.start, bytes);
        match done {
            Ok(()) => drop(self.stale.remove(range.clone())),
            // Some of it may be there.
            Err(_) => {
                written.gaps(range.clone()).into_iter().for_each(|gap| self.stale.insert(gap))
            }
        }
        Ok(done?)
    }

    /// Whether the last record still says all that is to be known once this range is written, besides `written`.
    pub fn is_described(&self, range: &Range<u64>, written: &Ranges) -> bool {
        self.described.is_some_and(|Described { size, open }| {
            let below = range.start.min(size)..range.end.min(size);
            (open || range.end <= size) && written.contains(&below)
        })
    }

    /// Whether a record may be on the device that names it.
    pub fn is_recorded(&self) -> bool {
        self.described.is_some()
    }

    /// Whether a record of a file of this size can be open: see [`super::LocalFile::record`].
    pub fn can_be_open(&self, size: u64) -> bool {
        self.stale.end() <= size
    }

    /// There is such a record.
    pub fn describe(&mut self, size: u64, open: bool) {
        self.described = Some(Described { size, open });
    }

    /// It holds these for nothing. `written` is what it does not.
    pub fn discard(&mut self, gone: Vec<Range<u64>>, written: &Ranges) {
        gone.into_iter().for_each(|range| self.stale.insert(range));
        // A record that was made may be on the device, and speak of it.
        if self.described.is_none() {
            self.free(written);
        }
    }

    /// Gives back what it holds for nothing. What cannot be given back stays out of sight.
    pub fn free(&mut self, written: &Ranges) {
        let end = written.end();
        if self.stale.end() > end && self.files.blocks.truncate(end).is_ok() {
            self.stale.remove(end..u64::MAX);
        }
        let long = self.stale.iter().filter(|range| range.end - range.start >= WORTH_FREEING);
        for range in long.collect::<Vec<_>>() {
            if self.files.blocks.punch(range.start, range.end - range.start).is_ok() {
                self.stale.remove(range);
            }
        }
    }
}

/// Bytes of a file.
fn end_of(file: &StoredFile) -> Result<u64> {
    let (mut low, mut high) = (0, 1);
    while high < MAX_SIZE && file.reaches(high)? {
        (low, high) = (high, high * 2);
    }
    // It reaches to `low`, and not to `high`, as far as a file may.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match file.reaches(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    Ok(low)
}
