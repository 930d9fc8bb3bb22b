//! The content of a changed file at one generation, for whoever publishes it.

use super::state::State;
use super::{LocalError, LocalFile, Result};
use crate::hyper::blobs::BlobId;
use crate::lock::read;
use bytes::Bytes;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

/// See the module. It copies nothing: once a byte of it is changed in the file, to read it is an error
/// ([`Self::is_whole`] tells). What is only added to the end does no harm.
pub struct Snapshot {
    file: Arc<LocalFile>,
    generation: u64,
    size: u64,
    mtime: i128,
    base: Option<BlobId>,
    changed: Vec<Range<u64>>,
    at: u64,
}

impl Snapshot {
    pub(super) fn new(file: &Arc<LocalFile>, state: &State) -> Self {
        Self {
            file: file.clone(),
            generation: state.generation,
            size: state.layout.size,
            mtime: state.mtime,
            base: state.base.as_ref().map(|base| base.id),
            changed: state.layout.changed(),
            at: 0,
        }
    }

    /// To be told to [`LocalFile::rebase`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Nanoseconds since 1970.
    pub fn mtime(&self) -> i128 {
        self.mtime
    }

    /// The blob that it was changed from.
    pub fn base(&self) -> Option<BlobId> {
        self.base
    }

    /// Where it is not that blob, in order and apart: what `blobs::Writer::patch` asks for.
    pub fn changed(&self) -> &[Range<u64>] {
        &self.changed
    }

    /// Whether the file begins with it.
    pub fn is_whole(&self) -> bool {
        read(&self.file.state).rewritten <= self.generation
    }

    /// Whether nothing at all was changed since, be it a time.
    pub fn is_current(&self) -> bool {
        read(&self.file.state).generation == self.generation
    }

    /// All of it, if it lies in memory in one piece: one block, which is not copied.
    pub fn block(&self) -> Result<Option<Bytes>> {
        let state = read(&self.file.state);
        match state.rewritten <= self.generation {
            true => Ok(state.block(self.size)),
            false => Err(LocalError::Changed),
        }
    }

    fn fill(&self, buf: &mut [u8]) -> Result<()> {
        let state = read(&self.file.state);
        match state.rewritten <= self.generation {
            true => state.fill(self.at, buf),
            false => Err(LocalError::Changed),
        }
    }
}

impl Read for Snapshot {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.size.saturating_sub(self.at).min(buf.len() as u64) as usize;
        self.fill(&mut buf[..n]).map_err(io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Snapshot {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
