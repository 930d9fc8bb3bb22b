//! An append in pieces: bytes go to the file as they come, past the head where nobody looks, and one commit makes
//! them blocks.
//!
//! That keeps a long import out of memory and its commits few. [`Staging`] belongs to one core, which takes no
//! other append, no truncation and no longer log of a peer until it ends, so that what lies past the head has one
//! owner. Dropped without a commit it leaves
//! nothing behind; after a crash [`super::scrub`] takes its bytes away.

use super::commit::{Prepared, grow, write_blocks};
use super::encryption::BlockCipher;
use super::storage::{CoreFiles, StorageError};
use super::tree::Batch;
use super::{Core, CoreError, Result};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module.
pub struct Staging {
    files: Arc<CoreFiles>,
    cipher: Option<Arc<BlockCipher>>,
    /// Fork and length of the head that it extends, and that head's bytes.
    base: (u64, u64),
    base_bytes: u64,
    batch: Batch,
    /// Something was pushed since the start or the last commit, whatever became of it.
    unsettled: bool,
    /// Set in the core while this lives.
    busy: Arc<AtomicBool>,
    /// The core's, see there.
    claimed: Arc<AtomicBool>,
}

/// Blocks that are hashed and yet to be written. Pieces may be written in any order and by any thread, all of
/// them before the commit.
pub struct Piece {
    files: Arc<CoreFiles>,
    offset: u64,
    blocks: Vec<Bytes>,
}

impl Piece {
    pub fn write(&self) -> std::result::Result<(), StorageError> {
        write_blocks(&self.files, self.offset, &self.blocks)
    }
}

impl Core {
    /// Starts an append in pieces.
    ///
    /// # Errors
    /// [`CoreError::Busy`] while another one is under way.
    pub fn begin_append(&self) -> Result<Staging> {
        self.check_writer()?;
        self.check_following()?;
        self.give_up_tail()?;
        if self.appending.swap(true, Ordering::AcqRel) {
            return Err(CoreError::Busy);
        }
        let staging = Staging {
            files: self.files.clone(),
            cipher: self.cipher.clone(),
            base: (self.head.fork, self.head.length),
            base_bytes: self.head.byte_length(),
            batch: Batch::new(&self.head),
            unsettled: false,
            busy: self.appending.clone(),
            claimed: self.claimed.clone(),
        };
        // So that the next start, should this one end badly, looks for what lies past the head.
        self.storage.begin_session()?;
        Ok(staging)
    }

    /// Signs what was staged. All pieces must have been written; the commit makes them durable.
    pub fn prepare_staged(&self, staging: &mut Staging) -> Result<Prepared> {
        let batch = std::mem::replace(&mut staging.batch, Batch::new(&self.head));
        let offset = batch.byte_length();
        let (head, nodes) = self.finish(batch)?;
        Ok(Prepared { base: staging.base, offset, head, nodes, blocks: Vec::new() })
    }

    /// Lets a staging whose last commit is done go on from the core's head.
    pub fn restart_staging(&self, staging: &mut Staging) {
        staging.batch = Batch::new(&self.head);
        staging.base = (self.head.fork, self.head.length);
        staging.base_bytes = self.head.byte_length();
        staging.unsettled = false;
    }
}

impl Staging {
    /// Hashes blocks, and encrypts them where the core is. The piece is the caller's to write.
    pub fn push(&mut self, blocks: &[Bytes]) -> Result<Piece> {
        self.unsettled = true;
        let offset = self.batch.byte_length();
        let blocks = grow(&mut self.batch, self.base.0, self.cipher.as_deref(), blocks)?;
        Ok(Piece { files: self.files.clone(), offset, blocks })
    }

    pub fn files(&self) -> &Arc<CoreFiles> {
        &self.files
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Where a head on the device may speak of them they stay; the next opening looks which it is.
        if self.unsettled
            && !self.claimed.load(Ordering::Acquire)
            && let Err(error) = self.files.blocks.truncate(self.base_bytes)
            // Who wrote them was told that; they are in no file of the store.
            && !error.is_replaced()
        {
            tracing::warn!("bytes of an unfinished append stay in the store: {error}");
        }
        self.busy.store(false, Ordering::Release);
    }
}
