//! Appends contents to a blobs core, cut into blocks.
//!
//! A [`Writer`] has the core to itself and may take many contents. Their blocks are written as they come;
//! they are in the core after [`Writer::flush`], with one signature and one commit. A writer that is dropped
//! before leaves nothing.
//!
//! Source: hyperblobs/lib/streams.js (BlobWriteStream)

use super::{BLOCK_SIZE, BlobError, BlobId, Result};
use crate::hyper::core::storage::Writes;
use crate::hyper::source::{Append, BlockLog, SourceError};
use crate::lease::Lease;
use crate::lock::{Taken, lock};
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

/// Bytes that are handed on at a time: enough for the disk, little enough to be held a few times.
const PIECE: u64 = 4 << 20;

/// Bytes after which what was handed on is committed without being told to. That bounds what the next start
/// after a crash throws away, and the tree nodes held in memory: 2 MiB.
const MAX_UNCOMMITTED: u64 = 1 << 30;

/// See the module.
pub struct Writer<'a> {
    log: &'a Arc<dyn BlockLog>,
    core: Arc<Mutex<Option<Held>>>,
    /// Blocks and bytes of the core once everything is appended.
    length: u64,
    byte_length: u64,
    /// Blocks since the last commit, in order, and of those what was not handed on yet.
    uncommitted: u64,
    uncommitted_bytes: u64,
    pending: Vec<Bytes>,
    pending_bytes: u64,
}

/// The core. Whoever ends the right to write takes it away, and with it what is not committed.
struct Held {
    append: Box<dyn Append + Send>,
    _turn: Taken,
}

/// Takes it away when dropped.
struct TakesAway(Arc<Mutex<Option<Held>>>);

impl Drop for TakesAway {
    fn drop(&mut self) {
        lock(&self.0).take();
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        lock(&self.core).take();
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        log: &'a Arc<dyn BlockLog>,
        turn: Taken,
        lease: Option<&Lease>,
    ) -> Result<Self> {
        let append = Arc::clone(log).begin()?;
        let core = Arc::new(Mutex::new(Some(Held { append, _turn: turn })));
        if lease.is_some_and(|lease| !lease.hold(TakesAway(Arc::clone(&core)))) {
            return Err(BlobError::CalledOff);
        }
        Ok(Self {
            log,
            core,
            length: log.length(),
            byte_length: log.byte_length(),
            uncommitted: 0,
            uncommitted_bytes: 0,
            pending: Vec::new(),
            pending_bytes: 0,
        })
    }

    /// What is in the core already.
    pub(super) fn log(&self) -> &'a Arc<dyn BlockLog> {
        self.log
    }

    /// Blocks of the core once everything taken is appended.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Takes a whole content and tells where it will be. It is in the core after the next flush.
    pub fn put(&mut self, content: impl Read) -> Result<BlobId> {
        self.collect(Cutter::new(content).map(|block| block.map_err(input)))
    }

    /// The same for blocks that are cut already.
    pub fn put_blocks(&mut self, blocks: impl IntoIterator<Item = Bytes>) -> Result<BlobId> {
        self.collect(blocks.into_iter().map(Ok))
    }

    /// Makes a blob longer without writing it again, if it is the last thing in the core. `None` if it is not, or is a
    /// block map.
    pub fn extend(&mut self, id: &BlobId, content: impl Read) -> Result<Option<BlobId>> {
        if id.block_map || id.block_end() != self.length {
            return Ok(None);
        }
        let more = self.put(content)?;
        Ok(Some(BlobId {
            block_length: id.block_length + more.block_length,
            byte_length: id.byte_length + more.byte_length,
            ..*id
        }))
    }

    /// Appends everything taken so far.
    pub fn flush(&mut self) -> Result<()> {
        match self.uncommitted {
            0 => Ok(()),
            _ => self.commit(|append| append.commit()),
        }
    }

    fn commit(
        &mut self,
        commit: impl FnOnce(&mut (dyn Append + Send)) -> std::result::Result<u64, SourceError>,
    ) -> Result<()> {
        self.hand_on()?;
        let first = self.length - self.uncommitted;
        if self.with(commit)? != first {
            return Err(BlobError::Raced);
        }
        (self.uncommitted, self.uncommitted_bytes) = (0, 0);
        Ok(())
    }

    /// The same, and appends `blocks` to the log that names what was taken: see [`Append::commit_with`].
    pub fn flush_with(
        &mut self,
        names: &dyn BlockLog,
        blocks: Vec<Bytes>,
        also: Writes,
    ) -> Result<()> {
        match self.uncommitted {
            // It may have been called off all the same.
            0 => self.with(|_| names.append_also(blocks, also).map(drop)),
            _ => self.commit(|append| append.commit_with(names, blocks, also)),
        }
    }

    /// Nobody takes the core away meanwhile.
    fn with<T>(
        &self,
        write: impl FnOnce(&mut (dyn Append + Send)) -> std::result::Result<T, SourceError>,
    ) -> Result<T> {
        let mut core = lock(&self.core);
        let held = core.as_mut().ok_or(BlobError::CalledOff)?;
        Ok(write(&mut *held.append)?)
    }

    fn hand_on(&mut self) -> Result<()> {
        self.pending_bytes = 0;
        match std::mem::take(&mut self.pending) {
            pending if pending.is_empty() => Ok(()),
            pending => self.with(|append| append.push(pending)),
        }
    }

    fn collect(&mut self, blocks: impl Iterator<Item = Result<Bytes>>) -> Result<BlobId> {
        let (block_offset, byte_offset) = (self.length, self.byte_length);
        for block in blocks {
            let block = block?;
            let size = block.len() as u64;
            self.length += 1;
            self.byte_length += size;
            self.uncommitted += 1;
            self.uncommitted_bytes += size;
            self.pending_bytes += size;
            self.pending.push(block);
            if self.uncommitted_bytes >= MAX_UNCOMMITTED {
                self.flush()?;
            } else if self.pending_bytes >= PIECE {
                self.hand_on()?;
            }
        }
        Ok(BlobId {
            block_offset,
            byte_offset,
            block_length: self.length - block_offset,
            byte_length: self.byte_length - byte_offset,
            block_map: false,
        })
    }
}

pub(super) fn input(error: io::Error) -> BlobError {
    BlobError::Input(Arc::new(error))
}

/// Cuts a stream into blocks of [`BLOCK_SIZE`] bytes; the last may be shorter.
pub struct Cutter<R> {
    content: R,
    done: bool,
}

impl<R: Read> Cutter<R> {
    pub fn new(content: R) -> Self {
        Self { content, done: false }
    }
}

impl<R: Read> Iterator for Cutter<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut block = Vec::with_capacity(BLOCK_SIZE as usize);
        let read = (&mut self.content).take(BLOCK_SIZE).read_to_end(&mut block);
        self.done = read.is_err() || (block.len() as u64) < BLOCK_SIZE;
        match read {
            Err(error) => Some(Err(error)),
            Ok(0) => None,
            Ok(_) => {
                // A short block must not keep 64 KiB in memory for as long as someone holds it.
                block.shrink_to_fit();
                Some(Ok(block.into()))
            }
        }
    }
}
