//! Who may write a core of ours: a store that knows all that was ever published from it.
//!
//! An append to an older copy gives numbers to blocks that others have already, and the log forks. So a core whose
//! store is [in doubt](super::storage::Doubt) takes no append until somebody has asked the peers and says
//! [`Core::trust`], and so does one of which a peer proves a longer log than is here: what it was about to append
//! was made from an old state.
//!
//! A core of which a peer proves that its writer signed another history takes none, today and after the next start, until
//! somebody says which of the two goes on ([`Core::trust_all`]). Who only looks at it goes on with what is here.
//!
//! The contents of a drive go with its names: as long as those are in doubt, a longer log of the contents is taken only
//! where somebody asks for it ([`Core::waits_for_names`]). Else they may be another history's than the names.

use super::storage::{Durability, Records, Storage, StorageError, Writes};
use super::{Core, CoreError, Result, WriterDoubt};
use crate::key::{DiscoveryKey, hex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The record of which doubts of the store a core was cleared: their numbers.
pub(super) fn trusted_record(core: &DiscoveryKey) -> String {
    format!("trusted/{}", hex(core.as_bytes()))
}

/// The record that two histories of a core were signed; nothing is in it.
pub(super) fn histories_record(core: &DiscoveryKey) -> String {
    format!("{HISTORIES}{}", hex(core.as_bytes()))
}

const HISTORIES: &str = "two-histories/";

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
    ///
    /// # Errors
    /// [`CoreError::InDoubt`] if a peer has just proven another history.
    pub fn trust(&mut self) -> Result<()> {
        if self.doubt == Some(WriterDoubt::TwoHistories) {
            return Err(CoreError::InDoubt(WriterDoubt::TwoHistories));
        }
        if let Some(WriterDoubt::Store(_)) = self.doubt {
            let records = Records::new(self.storage.clone());
            let cleared = cleared_of(&self.storage);
            records.put_record(&self.trusted_record(), &cleared, Durability::Durable)?;
        }
        self.outgrown = false;
        self.set_doubt(None);
        Ok(())
    }

    /// Somebody knows that the store is the newest copy, and that its histories are those that go on. Cores that are open
    /// have to be told each, afterwards: see [`Core::trust_store`].
    pub fn trust_all(storage: &Arc<dyn Storage>) -> Result<()> {
        storage.settle_doubts();
        let mut writes = Writes::default();
        for (name, _) in Records::new(storage.clone()).records(HISTORIES)? {
            Records::change(&mut writes, &name, None);
        }
        match writes.is_empty() {
            true => Ok(()),
            false => Ok(storage.commit(writes, &[], Durability::Durable)?),
        }
    }

    /// The store was settled as a whole, and this core takes part in that.
    ///
    /// # Errors
    /// It stays in doubt.
    pub fn trust_store(&mut self) -> Result<()> {
        if self.doubt == Some(WriterDoubt::TwoHistories) {
            self.dirty.split = false;
            // What a flush is about to record is not meant any more.
            self.commits += 1;
            let mut writes = Writes::default();
            Records::change(&mut writes, &histories_record(&self.discovery_key), None);
            self.storage.commit(writes, &[], Durability::Durable)?;
        }
        self.set_doubt(None);
        Ok(())
    }

    /// A peer has proven that the writer signed another history. Whether it is ours, which is then to be written no
    /// more; the next flush remembers that.
    pub fn find_two_histories(&mut self) -> bool {
        if self.writable && self.doubt != Some(WriterDoubt::TwoHistories) {
            self.dirty.split = true;
            self.set_doubt(Some(WriterDoubt::TwoHistories));
        }
        self.writable
    }

    /// Whether it is to take no longer log of a peer by itself: it holds the contents of names that are in doubt.
    pub fn waits_for_names(&self) -> bool {
        self.names_doubted.as_ref().is_some_and(|doubted| doubted.load(Ordering::Acquire))
    }

    /// Whether it is in doubt, for the contents that go with it.
    pub fn doubted(&self) -> Arc<AtomicBool> {
        self.doubted.clone()
    }

    /// It holds the contents of a drive of ours; whether its names are [`Self::doubted`].
    pub fn goes_with(&mut self, names_doubted: Arc<AtomicBool>) {
        self.names_doubted = Some(names_doubted);
    }

    pub(super) fn set_doubt(&mut self, doubt: Option<WriterDoubt>) {
        self.doubt = doubt;
        self.doubted.store(doubt.is_some(), Ordering::Release);
    }

    /// The doubt of the store, if this core was not cleared of it.
    pub(super) fn inherited_doubt(&self) -> Result<Option<WriterDoubt>> {
        let records = Records::new(self.storage.clone());
        if !self.writable {
            return Ok(None);
        }
        if records.get_record(&histories_record(&self.discovery_key))?.is_some() {
            return Ok(Some(WriterDoubt::TwoHistories));
        }
        let doubts = self.storage.doubts();
        if doubts.gravest().is_none() {
            return Ok(None);
        }
        let cleared = records.get_record(&self.trusted_record())?;
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
