//! Where a stored block is, so that it can be read without the core's lock.

use super::encryption::BlockCipher;
use super::storage::{CoreFiles, StorageError};
use super::{CoreError, Result};
use crate::crypto::{Hash, hash};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The whereabouts of a stored block.
pub struct BlockPlace {
    pub(super) files: Arc<CoreFiles>,
    pub(super) cipher: Option<Arc<BlockCipher>>,
    pub(super) block: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) generation: (Arc<AtomicU64>, u64),
    /// The hash that its bytes must have, where they were not looked at since the core was opened.
    pub(super) expected: Option<Hash>,
}

/// What was found at a block's place.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The plaintext.
    Block(Bytes),
    /// Blocks were taken away since it was located: locate it again.
    Moved,
    /// Something else, or nothing.
    Lost,
}

impl BlockPlace {
    /// Reads the block. What was found is to be told to [`Core::judge`](super::Core::judge) if [`Self::is_doubtful`]
    /// or if it is lost.
    pub fn read(&self) -> Result<Reading> {
        let read = self.read_bytes();
        if !self.is_current() {
            return Ok(Reading::Moved);
        }
        match read? {
            Some(stored) => Ok(Reading::Block(self.open(stored)?)),
            None => Ok(Reading::Lost),
        }
    }

    /// Whether the block is there.
    pub fn is_there(&self) -> Result<bool> {
        Ok(self.read_bytes()?.is_some())
    }

    /// Whether its bytes are looked at before they are used.
    pub fn is_doubtful(&self) -> bool {
        self.expected.is_some()
    }

    /// Whether no blocks were taken away since it was located.
    pub(super) fn is_current(&self) -> bool {
        let (generation, then) = &self.generation;
        generation.load(Ordering::Acquire) == *then
    }

    /// The block as stored. `None` if that is not what is there.
    pub(super) fn read_bytes(&self) -> Result<Option<Bytes>> {
        let bytes = read_exact(&self.files, self.offset, self.size)?;
        let is_right = |bytes: &Vec<u8>| self.expected.is_none_or(|leaf| hash::leaf(bytes) == leaf);
        Ok(bytes.filter(is_right).map(Bytes::from))
    }

    pub(super) fn open(&self, stored: Bytes) -> Result<Bytes> {
        open(self.cipher.as_deref(), self.block, stored)
    }
}

pub(super) fn open(cipher: Option<&BlockCipher>, block: u64, stored: Bytes) -> Result<Bytes> {
    match cipher {
        None => Ok(stored),
        Some(cipher) => {
            let plain = cipher.decrypt(block, &stored).ok_or(CoreError::NotEncrypted(block))?;
            Ok(plain.into())
        }
    }
}

/// `None` if the file ends before `offset + size`.
pub(super) fn read_exact(
    files: &CoreFiles,
    offset: u64,
    size: u64,
) -> std::result::Result<Option<Vec<u8>>, StorageError> {
    let mut bytes = vec![0; size as usize];
    let n = files.blocks.read_at(offset, &mut bytes)?;
    Ok((n == bytes.len()).then_some(bytes))
}
