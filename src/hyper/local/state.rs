//! All that changes of a file, behind its lock.

use super::layout::{Layout, Origin};
use super::memory::{Buffer, Memory};
use super::record::{Kept, MAX_RECORD, Record};
use super::staging::StagingFile;
use super::{Base, LocalError, MAX_SIZE, Rebased, Recorded, Result};
use crate::hyper::core::storage::Storage;
use crate::key::DiscoveryKey;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(super) struct State {
    memory: Arc<Memory>,
    pub(super) staged: Staged,
    /// Staging files that only records speak of.
    pub(super) left: Vec<DiscoveryKey>,
    pub(super) base: Option<Base>,
    pub(super) layout: Layout,
    pub(super) mtime: i128,
    pub(super) generation: u64,
    /// The generation of the last change before the end.
    pub(super) rewritten: u64,
    /// The generation of the last change that was not an append, but for the time.
    pub(super) otherwise: u64,
    /// See [`super::LocalFile::record_version`].
    pub(super) version: u64,
}

/// Where what was written lies.
pub(super) enum Staged {
    /// In memory, and in the record once there is one.
    Memory(Buffer),
    File(StagingFile),
}

/// A piece of a read.
pub(super) enum Part {
    Here(Bytes),
    Base(Range<u64>),
}

impl State {
    pub(super) fn new(memory: &Arc<Memory>, base: Option<Base>, layout: Layout) -> Self {
        Self {
            memory: memory.clone(),
            staged: Staged::Memory(Buffer::new(memory)),
            left: Vec::new(),
            base,
            layout,
            mtime: 0,
            generation: 0,
            rewritten: 0,
            otherwise: 0,
            version: 0,
        }
    }

    pub(super) fn recover(
        record: Record,
        storage: &Arc<dyn Storage>,
        memory: &Arc<Memory>,
        base: Option<Base>,
    ) -> Result<Self> {
        let Record { kept, mut layout, mtime, .. } = record;
        let staged = match kept {
            Kept::Inline(bytes) => {
                Staged::Memory(Buffer::restored(memory, &layout.written, &bytes))
            }
            Kept::File { id, open } => {
                Staged::File(StagingFile::found(storage, (id, open), &mut layout)?)
            }
        };
        Ok(Self { staged, mtime, ..Self::new(memory, base, layout) })
    }

    /// The staging file, if there is one.
    pub(super) fn file(&self) -> Option<&StagingFile> {
        match &self.staged {
            Staged::Memory(_) => None,
            Staged::File(file) => Some(file),
        }
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
                Origin::Staged => parts.push(Part::Here(self.staged.share(&range)?)),
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
                Origin::Staged => self.staged.read(&range, now)?,
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

    /// The first `size` bytes, if they lie in memory in one piece.
    pub(super) fn block(&self, size: u64) -> Option<Bytes> {
        match &self.staged {
            Staged::Memory(buffer) if self.layout.written.contains(&(0..size)) => {
                Some(buffer.share(&(0..size)))
            }
            _ => None,
        }
    }

    pub(super) fn read_base_local(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        self.base.as_ref().ok_or(LocalError::Lost)?.read_local(range)
    }

    /// A change of the content; `rewrites` unless it is behind all that there was.
    fn changed(&mut self, rewrites: bool) {
        self.generation += 1;
        self.otherwise = self.generation;
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
        let Layout { size, ref written, .. } = self.layout;
        let done = match &mut self.staged {
            Staged::Memory(buffer) => {
                if !buffer.write(&range, bytes) {
                    let file = StagingFile::filled(storage, (buffer, written), (offset, bytes))?;
                    self.staged = Staged::File(file);
                }
                Ok(())
            }
            Staged::File(file) => file.write(&range, bytes, written),
        };
        if !self.file().is_some_and(|file| file.is_described(&range, written)) {
            self.version += 1;
        }
        // What may be past the end must not be taken for the file's.
        self.version += u64::from(done.is_err() && range.end > size);
        self.changed(offset < size);
        if done.is_ok() {
            self.layout.write(range);
        }
        done
    }

    pub(super) fn truncate(&mut self, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(LocalError::TooLarge);
        }
        if size != self.layout.size {
            self.changed(size < self.layout.size);
            self.version += 1;
            let gone = self.layout.truncate(size);
            match self.file().filter(|file| size == 0 && file.is_recorded()).map(|file| file.id) {
                // Nothing of a new content is to be found in the old one after a crash.
                Some(recorded) => {
                    self.left.push(recorded);
                    self.staged = Staged::Memory(Buffer::new(&self.memory));
                }
                None => self.staged.discard(gone, &self.layout),
            }
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
            self.staged.discard(gone, &self.layout);
        }
    }

    pub(super) fn set_mtime(&mut self, mtime: i128, told: bool) {
        if mtime != self.mtime {
            self.mtime = mtime;
            self.generation += 1;
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
            self.staged.discard(gone, &self.layout);
            return Rebased::Grown;
        }
        let used = self.file().map(|file| file.id);
        self.staged = Staged::Memory(Buffer::new(&self.memory));
        Rebased::Whole(used)
    }

    pub(super) fn replace(&mut self, base: Base) -> bool {
        if !self.only_appended() || self.layout.size != self.base_size() {
            return false;
        }
        self.changed(true);
        self.version += 1;
        self.layout = Layout::of_base(base.size);
        self.base = Some(base);
        true
    }

    pub(super) fn record(&mut self) -> Option<Recorded> {
        let Self { ref layout, mtime, version, .. } = *self;
        // Each range takes two bytes or more: what cannot fit need not be copied.
        if 2 * (layout.written.len() + layout.holes.len()) > MAX_RECORD {
            return None;
        }
        let kept = match &self.staged {
            Staged::Memory(buffer) => {
                let written = layout.written.iter().map(|range| buffer.get(&range));
                Kept::Inline(written.collect::<Vec<_>>().concat())
            }
            Staged::File(file) => Kept::File { id: file.id, open: file.can_be_open(layout.size) },
        };
        let base = self.base.as_ref().map(|base| (base.id, base.size));
        let record = Record { kept, base, layout: layout.clone(), mtime };
        let bytes = record.encode()?;
        if let (Staged::File(file), Kept::File { open, .. }) = (&mut self.staged, record.kept) {
            file.describe(self.layout.size, open);
        }
        Some(Recorded { version, bytes })
    }

    /// What only older records knew gives its space back.
    pub(super) fn free(&mut self) {
        if let Staged::File(file) = &mut self.staged {
            file.free(&self.layout.written);
        }
    }
}

impl Staged {
    /// A range that was written.
    fn share(&self, range: &Range<u64>) -> Result<Bytes> {
        match self {
            Self::Memory(buffer) => Ok(buffer.share(range)),
            Self::File(file) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read(range.start, &mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// The same, into a place of that size.
    fn read(&self, range: &Range<u64>, buf: &mut [u8]) -> Result<()> {
        match self {
            Self::Memory(buffer) => buf.copy_from_slice(buffer.get(range)),
            Self::File(file) => file.read(range.start, buf)?,
        }
        Ok(())
    }

    /// These are not in the layout any more.
    fn discard(&mut self, gone: Vec<Range<u64>>, layout: &Layout) {
        match self {
            // A record has its own copy.
            Self::Memory(buffer) => buffer.cut(layout.written.end()),
            Self::File(file) => file.discard(gone, &layout.written),
        }
    }
}
