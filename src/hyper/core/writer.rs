//! Who may write a core of ours: a store that knows all that was ever published from it.
//!
//! An append to an older copy gives numbers to blocks that others have already, and the log forks. So a core whose
//! store is [in doubt](super::storage::Doubt) takes no append until somebody has asked the peers and says
//! [`Core::trust`], and so does one of which a peer proves a longer log than is here: what it was about to append
//! was made from an old state.

use super::storage::{Doubt, Records, Storage, StorageError};
use super::{Core, CoreError, Result};
use crate::key::{DiscoveryKey, hex};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a core of ours takes no append. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterDoubt {
    /// A peer had more of it than we had.
    Outgrown,
    /// The store may be older than what was published.
    Store(Doubt),
}

impl std::fmt::Display for WriterDoubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Outgrown => {
                "this store is older than what was published: a peer had more of the drive, which has been \
                 brought up to date; nothing was written, run the command again"
            }
            Self::Store(_) => {
                "this store may be older than what was published: nothing was written, peers must be asked first"
            }
        })
    }
}

/// The record of which doubts of the store a core was cleared: their numbers.
pub(super) fn trusted_record(core: &DiscoveryKey) -> String {
    format!("trusted/{}", hex(core.as_bytes()))
}

/// What is recorded for a core that is cleared of all doubts that there are now.
pub(super) fn cleared_of(storage: &Arc<dyn Storage>) -> Vec<u8> {
    storage.doubts().numbers().flat_map(u64::to_le_bytes).collect()
}

impl Core {
    /// Why nothing may be appended before peers were asked; `None` if it may, or if the core is not ours.
    pub fn doubt(&self) -> Option<WriterDoubt> {
        self.doubt.or(self.outgrown.then_some(WriterDoubt::Outgrown))
    }

    /// Whether a peer's longer log was taken since this was last asked.
    pub fn take_outgrown(&mut self) -> bool {
        std::mem::take(&mut self.outgrown)
    }

    /// Peers were asked, or somebody takes the blame: the core may be written. This is remembered.
    pub fn trust(&mut self) -> Result<()> {
        if let Some(WriterDoubt::Store(_)) = self.doubt {
            let records = Records::new(self.storage.clone());
            let cleared = cleared_of(&self.storage);
            records.put_record(&self.trusted_record(), &cleared, super::Durability::Durable)?;
        }
        (self.doubt, self.outgrown) = (None, false);
        Ok(())
    }

    /// Somebody knows that the store is the newest copy: its doubt was settled, and this core takes part in that.
    pub fn trust_store(&mut self) {
        self.doubt = None;
    }

    /// The doubt of the store, if this core was not cleared of it.
    pub(super) fn inherited_doubt(&self) -> Result<Option<WriterDoubt>> {
        let doubts = self.storage.doubts();
        if !self.writable || doubts.gravest().is_none() {
            return Ok(None);
        }
        let cleared = Records::new(self.storage.clone()).get_record(&self.trusted_record())?;
        let cleared = cleared.unwrap_or_default();
        let numbers = cleared.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let left = doubts.but(&numbers.collect::<Vec<_>>());
        Ok(left.gravest().map(WriterDoubt::Store))
    }

    fn trusted_record(&self) -> String {
        trusted_record(&self.discovery_key)
    }

    /// Takes note that a peer's longer log was taken.
    pub(super) fn outgrown(&mut self) {
        self.outgrown |= self.writable;
    }

    /// # Errors
    /// [`CoreError::ReadOnly`], [`CoreError::InDoubt`].
    pub(super) fn check_writer(&self) -> Result<()> {
        match self.doubt() {
            _ if !self.writable => Err(CoreError::ReadOnly),
            Some(doubt) => Err(CoreError::InDoubt(doubt)),
            None => self.check_claim(),
        }
    }

    /// What lies past the head may be blocks for whoever opens the core next: it is not to be written over.
    fn check_claim(&self) -> Result<()> {
        match self.claimed.load(Ordering::Acquire) {
            true => Err(StorageError::SyncFailed.into()),
            false => Ok(()),
        }
    }

    /// Whether what lies past the head is nobody's: not while an append puts its bytes there, or a fork is being stored.
    ///
    /// # Errors
    /// [`CoreError::Busy`], and where the head on the device may be longer than ours.
    pub(super) fn check_tail(&self) -> Result<()> {
        self.check_claim()?;
        self.check_following()?;
        match self.appending.load(Ordering::Acquire) {
            true => Err(CoreError::Busy),
            false => Ok(()),
        }
    }
}
