//! The files of one core, with names for errors and a memory of what is not synced yet.

use super::{CoreStamp, FileKind, FileStamp, Medium, RawFile, Result, StorageError};
use crate::key::{DiscoveryKey, short};
use crate::lock::lock;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes since the last sync that are kept as a copy: as much as a small change to a drive writes. A block of
/// file content is above it.
const MAX_COPIED: usize = 48 << 10;

/// Both files of a core.
pub struct CoreFiles {
    pub(super) core: DiscoveryKey,
    /// Stored blocks, each at its tree byte offset.
    pub blocks: StoredFile,
    /// Nodes, 40 bytes each at 40 × tree index.
    pub tree: StoredFile,
}

impl CoreFiles {
    pub(super) fn new(medium: &dyn Medium, core: &DiscoveryKey) -> Self {
        let file = |kind, what| StoredFile {
            name: format!("a file of the store ({what} of {})", short(&core.0)),
            raw: medium.file(core, kind),
            unsynced: Mutex::default(),
            touched: AtomicBool::new(false),
            watch: Mutex::default(),
            opened: AtomicBool::new(false),
        };
        Self {
            core: *core,
            blocks: file(FileKind::Blocks, "blocks"),
            tree: file(FileKind::Tree, "tree"),
        }
    }

    /// Whether either was changed since a stamp of them was last [begun](Self::begin_stamp).
    pub fn are_touched(&self) -> bool {
        self.blocks.touched.load(Ordering::Acquire) || self.tree.touched.load(Ordering::Acquire)
    }

    /// Whether they need a new stamp, which is to be taken after this: what is changed later needs another.
    pub fn begin_stamp(&self) -> bool {
        let blocks = self.blocks.touched.swap(false, Ordering::AcqRel);
        self.tree.touched.swap(false, Ordering::AcqRel) || blocks
    }

    /// What the files are before any is opened.
    pub fn first_stamp(&self) -> Result<CoreStamp> {
        Ok(CoreStamp { blocks: self.blocks.first_stamp()?, tree: self.tree.first_stamp()? })
    }

    /// # Errors
    /// [`StorageError::Replaced`] if what is at their paths is not what is open: then nothing that was written to them
    /// may be vouched for.
    pub fn check_place(&self) -> Result<()> {
        self.stamp().map(drop)
    }

    /// What the files are now.
    pub fn stamp(&self) -> Result<CoreStamp> {
        Ok(CoreStamp { blocks: self.blocks.stamp()?, tree: self.tree.stamp()? })
    }

    /// Whether somebody else was seen to have changed or replaced either since it was first looked at.
    pub fn are_meddled_with(&self) -> bool {
        lock(&self.blocks.watch).meddled || lock(&self.tree.watch).meddled
    }

    pub(super) fn file(&self, kind: FileKind) -> &StoredFile {
        match kind {
            FileKind::Blocks => &self.blocks,
            FileKind::Tree => &self.tree,
        }
    }
}

/// A file of a core.
pub struct StoredFile {
    name: String,
    raw: Box<dyn RawFile>,
    /// Noted after a write has returned, so that a sync which takes the note covers that write.
    unsynced: Mutex<Unsynced>,
    /// The file was changed since it was last looked what it is.
    touched: AtomicBool,
    watch: Mutex<Watch>,
    /// It was looked at when it was opened to be changed: see [`Self::open_to_change`].
    opened: AtomicBool,
}

/// Whether the file is what we left, looked at before and after each change of ours, so that what somebody else does in
/// between is never taken for a part of it.
#[derive(Default)]
struct Watch {
    /// Changes of ours under way; what the file is meanwhile tells nothing.
    changing: u32,
    /// What it was when we looked last, or after the last change.
    seen: Option<FileStamp>,
    meddled: bool,
}

impl Watch {
    /// `now` is what is at the file's path.
    fn look(&mut self, now: FileStamp) {
        if self.changing == 0 {
            self.meddled |= self.seen.is_some_and(|seen| seen != now);
            self.seen = Some(now);
        }
    }
}

/// What was written since the last sync.
#[derive(Default)]
pub(super) enum Unsynced {
    #[default]
    Nothing,
    /// All of it: offsets and bytes, in order.
    Copied(Vec<(u64, Vec<u8>)>),
    TooMuch,
}

impl Unsynced {
    fn note(&mut self, offset: u64, slices: &[IoSlice<'_>]) {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let before = match self {
            Self::TooMuch => return,
            Self::Nothing => 0,
            Self::Copied(writes) => writes.iter().map(|(_, bytes)| bytes.len()).sum(),
        };
        if before + total > MAX_COPIED {
            *self = Self::TooMuch;
            return;
        }
        let mut bytes = Vec::with_capacity(total);
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        match self {
            Self::Copied(writes) => writes.push((offset, bytes)),
            _ => *self = Self::Copied(vec![(offset, bytes)]),
        }
    }
}

impl StoredFile {
    /// Fills as much of `buf` as the file has from `offset`; returns how much that was.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.raw.read_at(offset, buf).map_err(|e| StorageError::io("read", &self.name, e))
    }

    /// Whether the file goes on up to `end`.
    pub fn reaches(&self, end: u64) -> Result<bool> {
        match end.checked_sub(1) {
            Some(last) => Ok(self.read_at(last, &mut [0])? == 1),
            None => Ok(true),
        }
    }

    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_slices_at(offset, &mut [IoSlice::new(bytes)])
    }

    /// Writes the slices one after the other from `offset`.
    pub fn write_slices_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> Result<()> {
        self.watched("write", || {
            // The writing consumes its slices, the note is of all of them.
            let done = self.raw.write_at(offset, &mut slices.to_vec());
            // A failed write may have written a part, which is past what any commit speaks of.
            lock(&self.unsynced).note(offset, slices);
            done
        })
    }

    /// Whether a hole in this range would give anything back.
    pub fn holds(&self, offset: u64, len: u64) -> Result<bool> {
        self.raw.holds(offset, len).map_err(|e| StorageError::io("read", &self.name, e))
    }

    /// The next run of bytes at or after `offset` that is no hole; none up to the end.
    pub fn data_after(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.raw.data_after(offset).map_err(|e| StorageError::io("read", &self.name, e))
    }

    fn stamp(&self) -> Result<FileStamp> {
        let now = self.raw.stamp().map_err(|e| StorageError::io("read", &self.name, e))?;
        lock(&self.watch).look(now);
        Ok(now)
    }

    fn first_stamp(&self) -> Result<FileStamp> {
        let found = self.raw.stamp().map_err(|e| StorageError::io("read", &self.name, e))?;
        lock(&self.watch).seen = Some(found);
        Ok(found)
    }

    /// Before its first change: opening alone may change the file, where a file system copies what is opened to be
    /// changed (overlayfs), and that is nobody's meddling.
    fn open_to_change(&self) -> std::io::Result<()> {
        if self.opened.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut watch = lock(&self.watch);
        if !self.opened.load(Ordering::Acquire) {
            watch.look(self.raw.stamp()?);
            self.raw.open_to_change()?;
            watch.seen = Some(self.raw.stamp_of_open()?);
            self.opened.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Changes the file, unless another one is where it was, or none: what is in a file without a name is lost.
    fn watched(
        &self,
        op: &'static str,
        change: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<()> {
        let failed = |e| StorageError::io(op, &self.name, e);
        self.open_to_change().map_err(failed)?;
        {
            let mut watch = lock(&self.watch);
            watch.look(self.raw.stamp().map_err(failed)?);
            watch.changing += 1;
        }
        let done = change();
        self.touched.store(true, Ordering::Release);
        let mut watch = lock(&self.watch);
        watch.changing -= 1;
        if watch.changing == 0 {
            let left = self.raw.stamp_of_open();
            watch.meddled |= left.is_err();
            watch.seen = left.ok();
        }
        done.map_err(failed)
    }

    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.freeing("punch a hole in", || self.raw.punch(offset, len))
    }

    /// Cuts the file at `len` if it is longer.
    pub fn truncate(&self, len: u64) -> Result<()> {
        // After an unclean end every core is cut; those that need it are few, and only they need a sync.
        if self.read_at(len, &mut [0])? == 0 {
            return Ok(());
        }
        self.freeing("truncate", || self.raw.truncate(len))
    }

    /// Freed ranges come back after a crash at worst. But the copies of what was written before must not be
    /// put over what is written there later, so such a file is synced as a whole.
    fn freeing(&self, op: &'static str, act: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        self.watched(op, || {
            let done = act();
            *lock(&self.unsynced) = Unsynced::TooMuch;
            done
        })
    }

    /// Makes everything durable that was written before, if anything was that no commit has seen to. Tells
    /// whether the device was asked.
    pub(super) fn sync(&self) -> Result<bool> {
        match self.take_unsynced() {
            Unsynced::Nothing => Ok(false),
            _ => self.sync_raw().map(|()| true),
        }
    }

    /// [`Self::sync`], whatever the notes say. Nothing is durable in a file that is not where it was.
    pub(super) fn sync_raw(&self) -> Result<()> {
        let synced = self.raw.stamp().and_then(|_| self.raw.sync());
        synced.and_then(|()| self.raw.stamp()).map(drop).map_err(|e| {
            *lock(&self.unsynced) = Unsynced::TooMuch;
            StorageError::io("sync", &self.name, e)
        })
    }

    /// What a durable commit must see to.
    pub(super) fn take_unsynced(&self) -> Unsynced {
        std::mem::take(&mut *lock(&self.unsynced))
    }

    /// Puts copies back that were taken and did not become durable.
    pub(super) fn put_back(&self, mut copies: Vec<(u64, Vec<u8>)>) {
        let mut unsynced = lock(&self.unsynced);
        *unsynced = match std::mem::take(&mut *unsynced) {
            Unsynced::TooMuch => Unsynced::TooMuch,
            Unsynced::Nothing => Unsynced::Copied(copies),
            Unsynced::Copied(later) => {
                copies.extend(later);
                Unsynced::Copied(copies)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// Is copied when it is opened to be written.
    #[derive(Default)]
    struct CopiedUp {
        is_open: AtomicBool,
    }

    impl RawFile for CopiedUp {
        fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, _offset: u64, _bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
            self.open_to_change()
        }

        fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn truncate(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn stamp(&self) -> io::Result<FileStamp> {
            let copy = FileStamp::of(&std::fs::metadata("/")?);
            Ok(if self.is_open.load(Ordering::Relaxed) { copy } else { FileStamp::default() })
        }

        fn open_to_change(&self) -> io::Result<()> {
            self.is_open.store(true, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn what_opening_a_file_does_to_it_is_nobodys_meddling() {
        let file = StoredFile {
            name: "a file".into(),
            raw: Box::<CopiedUp>::default(),
            unsynced: Mutex::default(),
            touched: AtomicBool::new(false),
            watch: Mutex::default(),
            opened: AtomicBool::new(false),
        };
        assert_eq!(file.first_stamp().unwrap(), FileStamp::default());
        file.read_at(0, &mut [0]).unwrap();
        assert_eq!(
            file.stamp().unwrap(),
            FileStamp::default(),
            "to read it is no reason to copy it"
        );
        file.write_at(0, b"bytes").unwrap();
        file.stamp().unwrap();
        assert!(!lock(&file.watch).meddled);
    }
}
