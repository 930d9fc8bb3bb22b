//! All that changes of a file, behind its lock.

use super::layout::{Layout, Origin};
use super::ranges::Ranges;
use super::record::{MAX_RECORD, Record};
use super::{Base, LocalError, MAX_SIZE, Rebased, Recorded, Result};
use crate::hyper::core::storage::{CoreFiles, Storage, StoredFile};
use crate::key::DiscoveryKey;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are of no use are given back in pieces of this or more. A hole makes the next sync one of the whole file,
/// where little would else have been copied.
const WORTH_FREEING: u64 = 64 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(super) struct State {
    pub(super) staging: DiscoveryKey,
    /// The staging file, from the first write on.
    pub(super) files: Option<Arc<CoreFiles>>,
    pub(super) base: Option<Base>,
    pub(super) layout: Layout,
    /// Where the staging file may hold what is not in the layout.
    pub(super) stale: Ranges,
    pub(super) mtime: i128,
    pub(super) generation: u64,
    /// The generation of the last change before the end.
    pub(super) rewritten: u64,
    /// See [`super::LocalFile::record_version`].
    pub(super) version: u64,
    /// What the last record made of this staging file says; from the first on the device may have one.
    described: Option<Described>,
}

/// How far a record describes the file; all that was written below is in it as long as the version is its own.
#[derive(Debug, Clone, Copy)]
struct Described {
    size: u64,
    open: bool,
}

/// A piece of a read.
pub(super) enum Part {
    Here(Bytes),
    Base(Range<u64>),
}

impl State {
    pub(super) fn new(staging: DiscoveryKey, base: Option<Base>, layout: Layout) -> Self {
        Self {
            staging,
            files: None,
            base,
            layout,
            stale: Ranges::default(),
            mtime: 0,
            generation: 0,
            rewritten: 0,
            version: 0,
            described: None,
        }
    }

    pub(super) fn recover(
        record: Record,
        storage: &Arc<dyn Storage>,
        base: Option<Base>,
    ) -> Result<Self> {
        let Record { staging, mut layout, mtime, open, .. } = record;
        let files = storage.files(&staging);
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
        let state = Self::new(staging, base, layout);
        Ok(Self { files: Some(files), stale, mtime, described, ..state })
    }

    pub(super) fn base_size(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.size)
    }

    pub(super) fn only_appended(&self) -> bool {
        self.layout.begins_with_base(self.base_size())
    }

    /// What a read is made of. All but the base's is read already.
    pub(super) fn parts(&self, offset: u64, len: usize) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for (origin, range) in self.layout.stretches(offset..offset.saturating_add(len as u64)) {
            let len = (range.end - range.start) as usize;
            match origin {
                Origin::Base => parts.push(Part::Base(range)),
                Origin::Staged => {
                    let mut bytes = vec![0; len];
                    self.read_staged(range.start, &mut bytes)?;
                    parts.push(Part::Here(bytes.into()));
                }
                Origin::Zeros => {
                    let pieces = (0..len).step_by(ZEROS.len()).map(|at| ZEROS.len().min(len - at));
                    parts.extend(pieces.map(|n| Part::Here(Bytes::from_static(&ZEROS[..n]))));
                }
            }
        }
        Ok(parts)
    }

    /// Fills `buf` from `offset`, all of which is in the file.
    pub(super) fn fill(&self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        for (origin, range) in self.layout.stretches(range) {
            let (now, later) = buf.split_at_mut((range.end - range.start) as usize);
            match origin {
                Origin::Staged => self.read_staged(range.start, now)?,
                Origin::Zeros => now.fill(0),
                Origin::Base => {
                    let pieces = self.read_base_local(range)?.ok_or(LocalError::NotHere)?;
                    now.copy_from_slice(&pieces.concat());
                }
            }
            buf = later;
        }
        Ok(())
    }

    pub(super) fn read_base_local(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        self.base.as_ref().ok_or(LocalError::Lost)?.read_local(range)
    }

    fn read_staged(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let files = self.files.as_ref().ok_or(LocalError::Lost)?;
        match files.blocks.read_at(offset, buf)? == buf.len() {
            true => Ok(()),
            false => Err(LocalError::Lost),
        }
    }

    /// A change of the content; `rewrites` unless it is behind all that there was.
    fn changed(&mut self, rewrites: bool) {
        self.generation += 1;
        if rewrites {
            self.rewritten = self.generation;
        }
    }

    pub(super) fn write(
        &mut self,
        storage: &Arc<dyn Storage>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= MAX_SIZE);
        let range = offset..end.ok_or(LocalError::TooLarge)?;
        let files = self.files.get_or_insert_with(|| storage.files(&self.staging));
        let done = files.blocks.write_at(offset, bytes);
        self.changed(offset < self.layout.size);
        if !self.is_described(&range) {
            self.version += 1;
        }
        match done {
            Ok(()) => {
                self.stale.remove(range.clone());
                self.layout.write(range);
                Ok(())
            }
            Err(error) => {
                // Some of it may be there, and past the end it must not be taken for the file's.
                let past_end = range.end > self.layout.size;
                self.version += u64::from(past_end);
                for gap in self.layout.written.gaps(range) {
                    self.stale.insert(gap);
                }
                Err(error.into())
            }
        }
    }

    /// Whether the last record still says all that is to be known once this range is written.
    fn is_described(&self, range: &Range<u64>) -> bool {
        self.described.is_some_and(|Described { size, open }| {
            let below = range.start.min(size)..range.end.min(size);
            (open || range.end <= size) && self.layout.written.contains(&below)
        })
    }

    pub(super) fn truncate(&mut self, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(LocalError::TooLarge);
        }
        if size != self.layout.size {
            self.changed(size < self.layout.size);
            self.version += 1;
            let gone = self.layout.truncate(size);
            self.discard(gone);
        }
        Ok(())
    }

    pub(super) fn share(&mut self, base: &Base, range: Range<u64>) -> bool {
        let size = self.layout.size;
        let is_same = self.base.as_ref().map_or(size == 0, |own| own.id == base.id);
        let is_before = self.layout.cut == size && self.layout.begins_with_base(size);
        if !is_same || !is_before || range.start != size || range.end > base.size {
            return false;
        }
        self.base.get_or_insert_with(|| base.clone());
        self.changed(false);
        self.version += 1;
        (self.layout.size, self.layout.cut) = (range.end, range.end);
        true
    }

    pub(super) fn punch(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.layout.size);
        if !range.is_empty() {
            self.changed(true);
            self.version += 1;
            let gone = self.layout.punch(range);
            self.discard(gone);
        }
    }

    pub(super) fn set_mtime(&mut self, mtime: i128, told: bool) {
        if mtime != self.mtime {
            self.mtime = mtime;
            self.changed(false);
        }
        self.version += u64::from(told);
    }

    pub(super) fn rebase(&mut self, generation: u64, base: Base) -> Rebased {
        let size = self.layout.size;
        let is_other = generation == self.generation && base.size != size;
        if self.rewritten > generation || base.size > size || is_other {
            return Rebased::Refused;
        }
        let gone = self.layout.rebase(base.size);
        self.base = Some(base);
        self.version += 1;
        if size > self.base_size() {
            self.discard(gone);
            return Rebased::Grown;
        }
        let used = self.files.take().map(|_| self.staging);
        // A file that was removed never comes back under its id.
        self.staging = super::fresh_staging();
        (self.stale, self.described) = (Ranges::default(), None);
        Rebased::Whole(used)
    }

    pub(super) fn record(&mut self) -> Option<Recorded> {
        let Self { staging, ref layout, mtime, version, .. } = *self;
        // Each range takes two bytes or more: what cannot fit need not be copied.
        if 2 * (layout.written.len() + layout.holes.len()) > MAX_RECORD {
            return None;
        }
        let described = Described { size: layout.size, open: self.stale.end() <= layout.size };
        let base = self.base.as_ref().map(|base| (base.id, base.size));
        let open = described.open;
        let bytes = Record { staging, base, layout: layout.clone(), mtime, open }.encode()?;
        self.described = Some(described);
        Some(Recorded { version, bytes })
    }

    /// The staging file holds this for nothing.
    fn discard(&mut self, gone: Vec<Range<u64>>) {
        gone.into_iter().for_each(|range| self.stale.insert(range));
        // A record that was made may be on the device, and speak of it.
        if self.described.is_none() {
            self.free();
        }
    }

    /// Gives back what the staging file holds for nothing. What cannot be given back stays out of sight.
    pub(super) fn free(&mut self) {
        let Some(files) = &self.files else { return };
        let end = self.layout.written.end();
        if self.stale.end() > end && files.blocks.truncate(end).is_ok() {
            self.stale.remove(end..u64::MAX);
        }
        let long = self.stale.iter().filter(|range| range.end - range.start >= WORTH_FREEING);
        for range in long.collect::<Vec<_>>() {
            if files.blocks.punch(range.start, range.end - range.start).is_ok() {
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
