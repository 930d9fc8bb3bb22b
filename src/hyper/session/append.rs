//! Appending to an open core: a few blocks at once, or a long content piece by piece.
//!
//! A long append is hashed by its caller while a thread of its own writes what came before to the disk. Whoever
//! appends waits for its turn; the core itself is locked only to begin and to commit. Where a drive is written, its names
//! are committed together with the contents that they name.

use super::{CoreHandle, storage};
use crate::hyper::core::storage::{Durability, StorageError, Writes};
use crate::hyper::core::{Piece, Staging, commit, commit_also};
use crate::hyper::source::{Append, BlockLog, SourceError};
use crate::lock::Taken;
use bytes::Bytes;
use std::any::Any;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Pieces that wait for the writing thread, besides the one that it writes. One is enough to keep both busy.
const WAITING_PIECES: usize = 1;

/// Pieces below this many bytes are written by the caller while no thread runs yet.
const SMALL_PIECE: usize = 1 << 20;

/// See [`crate::hyper::source::BlockLog::begin`].
pub(super) struct Appending {
    handle: CoreHandle,
    // Ends before `staging`, which takes back what was written.
    writer: Option<PieceWriter>,
    staging: Staging,
    /// Bytes are missing: nothing of this may be committed any more.
    failed: bool,
    _turn: Taken,
}

impl Appending {
    pub(super) fn begin(handle: CoreHandle) -> Result<Self, SourceError> {
        let turn = handle.0.appending.take();
        let staging = handle.core().begin_append().map_err(storage)?;
        Ok(Self { handle, writer: None, staging, failed: false, _turn: turn })
    }
}

impl Append for Appending {
    fn push(&mut self, blocks: Vec<Bytes>) -> Result<(), SourceError> {
        let bytes: usize = blocks.iter().map(Bytes::len).sum();
        let piece = self.staging.push(&blocks).map_err(storage)?;
        match &self.writer {
            None if bytes < SMALL_PIECE => piece.write().map_err(storage),
            Some(writer) => writer.write(piece),
            None => self.writer.insert(PieceWriter::start()?).write(piece),
        }
        .map_err(|error| {
            self.failed = true;
            self.finish_writing().err().unwrap_or(error)
        })
    }

    fn commit(&mut self) -> Result<u64, SourceError> {
        self.commit_beside(None)
    }

    fn commit_with(
        &mut self,
        other: &dyn BlockLog,
        blocks: Vec<Bytes>,
        also: Writes,
    ) -> Result<u64, SourceError> {
        let any: &dyn Any = other;
        match any.downcast_ref::<CoreHandle>().filter(|other| self.handle.is_beside(other)) {
            Some(core) => self.commit_beside(Some((core, blocks, also))),
            None => {
                let first = self.commit()?;
                other.append_also(blocks, also)?;
                Ok(first)
            }
        }
    }
}

impl Appending {
    /// Commits what was pushed, and with it blocks of another core of the store.
    fn commit_beside(
        &mut self,
        beside: Option<(&CoreHandle, Vec<Bytes>, Writes)>,
    ) -> Result<u64, SourceError> {
        if self.failed {
            return Err(storage("what was to be appended could not be written"));
        }
        self.failed = true;
        self.finish_writing()?;
        let store = self.handle.core().storage().clone();
        // Without the core, which others may read meanwhile; the commit finds little left to do.
        store.sync_files(self.staging.files()).map_err(storage)?;
        let other = beside.as_ref().map(|(other, ..)| *other);
        let _turn = beside.as_ref().map(|(other, ..)| other.0.appending.take());
        let first = {
            // Contents before names, here as everywhere.
            let mut core = self.handle.core();
            let prepared = core.prepare_staged(&mut self.staging).map_err(storage)?;
            let first = prepared.first();
            match beside {
                None => commit(&store, &mut [(&mut core, prepared)], Durability::Durable),
                Some((other, blocks, records)) => {
                    let mut other = other.core();
                    let also = other.prepare_append(&blocks).map_err(storage)?;
                    let both = &mut [(&mut *core, prepared), (&mut *other, also)];
                    commit_also(&store, both, records, Durability::Durable)
                }
            }
            .map_err(storage)?;
            core.restart_staging(&mut self.staging);
            first
        };
        self.failed = false;
        self.handle.announce_change();
        if let Some(other) = other {
            other.announce_change();
        }
        Ok(first)
    }

    /// Waits until everything pushed is written.
    fn finish_writing(&mut self) -> Result<(), SourceError> {
        self.writer.take().map_or(Ok(()), PieceWriter::finish)
    }
}

/// A thread that writes pieces, until the first that fails.
struct PieceWriter {
    pieces: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<Result<(), StorageError>>>,
}

impl PieceWriter {
    fn start() -> Result<Self, SourceError> {
        let (pieces, next) = sync_channel::<Piece>(WAITING_PIECES);
        let work = move || next.into_iter().try_for_each(|piece| piece.write());
        let thread = crate::threads::spawn("append", work);
        Ok(Self { pieces: Some(pieces), thread: Some(thread.map_err(storage)?) })
    }

    /// Hands a piece on; waits while the thread is behind. An error says no more than that the thread has ended.
    fn write(&self, piece: Piece) -> Result<(), SourceError> {
        let sent = self.pieces.as_ref().and_then(|pieces| pieces.send(piece).ok());
        sent.ok_or_else(|| storage("writing has stopped"))
    }

    /// Waits for what was handed on, and tells how that went.
    fn finish(mut self) -> Result<(), SourceError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), SourceError> {
        self.pieces = None;
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(storage(error)),
            Some(Err(_)) => Err(storage("the writing thread panicked")),
        }
    }
}

impl Drop for PieceWriter {
    fn drop(&mut self) {
        // What it writes is being given up; that it no longer writes is what counts.
        let _ = self.join();
    }
}
