//! The files of one core, with names for errors and a memory of what is not synced yet.

use super::{FileKind, Medium, RawFile, Result, StorageError};
use crate::key::{DiscoveryKey, short};
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};

/// Both files of a core.
pub struct CoreFiles {
    /// Stored blocks, each at its tree byte offset.
    pub blocks: StoredFile,
    /// Nodes, 40 bytes each at 40 × tree index.
    pub tree: StoredFile,
}

impl CoreFiles {
    pub(super) fn new(medium: &dyn Medium, core: &DiscoveryKey) -> Self {
        let file = |kind, what| StoredFile {
            name: format!("the {what} of core {}", short(&core.0)),
            raw: medium.file(core, kind),
            dirty: AtomicBool::new(false),
        };
        Self { blocks: file(FileKind::Blocks, "blocks"), tree: file(FileKind::Tree, "tree") }
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) -> Result<()> {
        self.blocks.sync()?;
        self.tree.sync()
    }
}

/// A file of a core.
pub struct StoredFile {
    name: String,
    raw: Box<dyn RawFile>,
    /// Set after a write has returned, so that a sync that clears it covers that write.
    dirty: AtomicBool,
}

impl StoredFile {
    /// Fills as much of `buf` as the file has from `offset`; returns how much that was.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.raw.read_at(offset, buf).map_err(|e| StorageError::io("read", &self.name, e))
    }

    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_slices_at(offset, &mut [IoSlice::new(bytes)])
    }

    /// Writes the slices one after the other from `offset`.
    pub fn write_slices_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> Result<()> {
        self.changing("write", || self.raw.write_at(offset, slices))
    }

    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        self.changing("punch a hole in", || self.raw.punch(offset, len))
    }

    pub fn truncate(&self, len: u64) -> Result<()> {
        self.changing("truncate", || self.raw.truncate(len))
    }

    pub fn sync(&self) -> Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.raw.sync().map_err(|e| {
            self.dirty.store(true, Ordering::Release);
            StorageError::io("sync", &self.name, e)
        })
    }

    fn changing(&self, op: &'static str, act: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        let done = act();
        // A failed write may have written a part.
        self.dirty.store(true, Ordering::Release);
        done.map_err(|e| StorageError::io(op, &self.name, e))
    }
}
