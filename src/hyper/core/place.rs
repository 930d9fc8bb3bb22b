//! Where a stored block is, so that it can be read without the core's lock.

use super::encryption::BlockCipher;
use super::storage::{CoreFiles, StorageError};
use super::{CoreError, Result};
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
}

impl BlockPlace {
    /// The block as stored. `None` if blocks were taken away since it was located: then locate it again.
    pub fn read_stored(&self) -> Result<Option<Bytes>> {
        let read = self.read_bytes();
        let (generation, then) = &self.generation;
        if generation.load(Ordering::Acquire) != *then { Ok(None) } else { read.map(Some) }
    }

    /// The plaintext, on the same terms.
    pub fn read(&self) -> Result<Option<Bytes>> {
        self.read_stored()?.map(|stored| self.open(stored)).transpose()
    }

    pub(super) fn read_bytes(&self) -> Result<Bytes> {
        let bytes = read_exact(&self.files, self.offset, self.size)?;
        bytes.map(Bytes::from).ok_or(CoreError::MissingBytes(self.block))
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
fn read_exact(
    files: &CoreFiles,
    offset: u64,
    size: u64,
) -> std::result::Result<Option<Vec<u8>>, StorageError> {
    let mut bytes = vec![0; size as usize];
    let n = files.blocks.read_at(offset, &mut bytes)?;
    Ok((n == bytes.len()).then_some(bytes))
}
