//! Hyperblobs: file contents as runs of blocks in an append-only log that holds nothing else.
//!
//! A [`BlobId`] says where a content lies. [`Blobs::reader`] reads any part of it, from local blocks at
//! once or by asking peers; [`Blobs::writer`] cuts what it is given into 64 KiB blocks and appends them
//! group by group, so that no file is ever in memory as a whole. Ids come from whoever writes the drive:
//! one that does not fit its blocks is an error of that file, never a panic.
//!
//! Source: hyperblobs/index.js

mod block_map;
mod id;
mod maps;
mod open;
mod patch;
mod reader;
mod update;
mod writer;

pub use block_map::{BlockMap, MAX_ENTRIES, MAX_MAP_BLOCKS, MapEntry};
pub use id::{BlobId, MAX_BLOCK};
pub use maps::Allowance;
pub use reader::Reader;
pub use writer::{Cutter, Writer};

use open::OpenReaders;

use super::source::{BlockLog, BlockSource, SourceError};
use crate::lease::Lease;
use crate::lock::Baton;
use std::io::Read;
use std::sync::Arc;

/// Bytes of a block, except the last one of a blob.
pub const BLOCK_SIZE: u64 = 1 << 16;

/// Why a blob could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What the drive says about the content and what its blocks hold do not fit together.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
    #[error("the file's block map has version {0}, this program knows version 0")]
    MapVersion(u64),
    /// Someone else appended to the core while a writer was open.
    #[error("the drive was changed by something else at the same moment: try again")]
    Raced,
    #[error("the drive cannot be changed here")]
    ReadOnly,
    /// The right to write was taken back.
    #[error("it was called off")]
    CalledOff,
    /// Reading the new content failed.
    #[error("reading the new content: {0}")]
    Input(Arc<std::io::Error>),
}

pub type Result<T> = std::result::Result<T, BlobError>;

/// A core of file contents. Clones share the writer's lock.
#[derive(Clone)]
pub struct Blobs {
    source: Arc<dyn BlockSource>,
    log: Option<Arc<dyn BlockLog>>,
    /// Held by a writer: a blob's blocks must lie in a row.
    turn: Arc<Baton>,
    lease: Option<Lease>,
    open: Arc<OpenReaders>,
}

impl Blobs {
    pub fn new(source: Arc<dyn BlockSource>) -> Self {
        Self { source, log: None, turn: Arc::default(), lease: None, open: Arc::default() }
    }

    pub fn writable(log: Arc<dyn BlockLog>) -> Self {
        let source: Arc<dyn BlockSource> = log.clone();
        Self { source, log: Some(log), turn: Arc::default(), lease: None, open: Arc::default() }
    }

    pub fn source(&self) -> &Arc<dyn BlockSource> {
        &self.source
    }

    /// Content of a blob. `size` is what [`Blobs::map_size`] told earlier for a block map; without it the
    /// reader cannot tell its size until it has read the map.
    pub fn reader(&self, id: BlobId, size: Option<u64>) -> Reader {
        let reader = Reader::new(Arc::clone(&self.source), id, size);
        self.open.add(&reader);
        reader
    }

    /// What is being read now: whose blocks must not go.
    pub fn open_ids(&self) -> Vec<BlobId> {
        self.open.ids()
    }

    /// Whether every block of a blob is here, as far as the core says; nothing of its content is read.
    pub fn is_here(&self, id: &BlobId) -> bool {
        if !self.source.has_all(id.block_offset..id.block_end()) {
            return false;
        }
        let map = if id.block_map { maps::load_map_local(&*self.source, id) } else { Ok(None) };
        match map {
            Ok(Some(map)) => (0..map.len())
                .filter_map(|at| map.entry(at))
                .all(|entry| self.source.has_all(entry.block..entry.block.saturating_add(1))),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// The block map that a blob with `block_map` set holds.
    pub async fn map(&self, id: &BlobId) -> Result<BlockMap> {
        maps::load_map(&*self.source, id).await
    }

    /// Bytes of the content of a blob with `block_map` set, which its block map tells.
    pub async fn map_size(&self, id: &BlobId) -> Result<u64> {
        maps::load_size(&*self.source, id).await
    }

    /// The same if all blocks of the map are here, and the allowance is enough to read them.
    pub async fn map_size_local(
        &self,
        id: &BlobId,
        allowance: &mut Allowance,
    ) -> Result<Option<u64>> {
        maps::load_size_local(&*self.source, id, allowance).await
    }

    /// The same, written with this right alone: its writers fail after the end of that.
    pub fn under(&self, lease: &Lease) -> Self {
        Self { lease: Some(lease.clone()), ..self.clone() }
    }

    /// Starts writing. Blocks while another writer is open.
    pub fn writer(&self) -> Result<Writer<'_>> {
        let log = self.log.as_ref().ok_or(BlobError::ReadOnly)?;
        Writer::new(log, &self.turn, self.lease.as_ref())
    }

    /// The same for what takes long: others who want to write are let in between, see [`Writer`].
    pub fn polite_writer(&self) -> Result<Writer<'_>> {
        Ok(self.writer()?.be_polite())
    }

    /// Appends a content.
    pub fn put(&self, content: impl Read) -> Result<BlobId> {
        let mut writer = self.writer()?;
        let id = writer.put(content)?;
        writer.flush()?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests;
