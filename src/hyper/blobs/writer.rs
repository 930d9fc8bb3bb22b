//! Appends contents to a blobs core, cut into blocks.
//!
//! A [`Writer`] holds the core's turn and may take many contents; their blocks are appended in groups of
//! [`GROUP`] bytes, each with one signature and one commit, and the rest on [`Writer::flush`]. A writer
//! that is dropped before leaves at most blocks that nothing names.
//!
//! Source: hyperblobs/lib/streams.js (BlobWriteStream)

use super::{BLOCK_SIZE, BlobError, BlobId, Result};
use crate::hyper::source::BlockLog;
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::{Arc, MutexGuard};

/// Bytes that are collected before they are appended. Large enough to make signature and commit cheap,
/// small enough to be held in memory by several writers.
const GROUP: u64 = 4 << 20;

/// See the module.
pub struct Writer<'a> {
    log: &'a Arc<dyn BlockLog>,
    /// Blocks and bytes of the core once everything pending is appended.
    length: u64,
    byte_length: u64,
    pending: Vec<Bytes>,
    pending_bytes: u64,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(log: &'a Arc<dyn BlockLog>, turn: MutexGuard<'a, ()>) -> Self {
        let (length, byte_length) = (log.length(), log.byte_length());
        Self { log, length, byte_length, pending: Vec::new(), pending_bytes: 0, _turn: turn }
    }

    /// Takes a whole content and tells where it will be. It is in the core after the next flush.
    pub fn put(&mut self, content: impl Read) -> Result<BlobId> {
        self.collect(Cutter::new(content).map(|block| block.map_err(input)))
    }

    /// The same for blocks that are cut already.
    pub fn put_blocks(&mut self, blocks: impl IntoIterator<Item = Bytes>) -> Result<BlobId> {
        self.collect(blocks.into_iter().map(Ok))
    }

    /// See [`super::Blobs::extend`].
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

    /// Appends what is still pending.
    pub fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let blocks = self.take_blocks();
        let first = self.length - blocks.len() as u64;
        if self.log.length() != first || self.log.append(blocks)? != first {
            return Err(BlobError::Raced);
        }
        Ok(())
    }

    /// The blocks that a flush would append, for a caller that commits several cores at once and keeps
    /// this writer until that is done.
    pub fn take_blocks(&mut self) -> Vec<Bytes> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending)
    }

    fn collect(&mut self, blocks: impl Iterator<Item = Result<Bytes>>) -> Result<BlobId> {
        let (block_offset, byte_offset) = (self.length, self.byte_length);
        for block in blocks {
            let block = block?;
            self.length += 1;
            self.byte_length += block.len() as u64;
            self.pending_bytes += block.len() as u64;
            self.pending.push(block);
            if self.pending_bytes >= GROUP {
                self.flush()?;
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

fn input(error: io::Error) -> BlobError {
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
