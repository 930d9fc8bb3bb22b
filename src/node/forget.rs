//! Takes a drive out of the store, with its bytes and, where it is our own, its secret key.

use super::contents::Survey;
use super::{NAMES, Node, NodeError, chronicle};
use crate::hyper::core::storage::Durability;
use crate::key::{CoreKey, DiscoveryKey};
use std::time::Duration;

/// How often a name was given up, so that the key pair of the next drive called so is another one.
const GENERATIONS: &str = "forgotten/";

/// How long a drive that nobody uses any more is waited for to close.
const CLOSING: Duration = Duration::from_secs(5);

/// What was taken away.
#[derive(Debug, Clone, Default)]
pub struct Forgotten {
    /// Its local names.
    pub names: Vec<String>,
    /// It was our own: nobody can write it any more.
    pub own: bool,
}

/// Why a drive stays.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("this store holds nothing of it")]
    Unknown,
    #[error("it is in use by a command, a mount or a share")]
    InUse,
    #[error("it holds the contents of another drive of this store: forget that one first")]
    Contents,
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl Node {
    /// Removes both cores of a drive, its names and its notes. Of both only what no other drive of the
    /// store has, in whatever part: see `super::contents`.
    pub async fn forget(&self, key: CoreKey) -> Result<Forgotten, ForgetError> {
        if !self.drives.close_unused(key) {
            return Err(ForgetError::InUse);
        }
        let stored = self.stored_drive(key).await?.ok_or(ForgetError::Unknown)?;
        let own = stored.db.core().writable();
        let db = stored.db.discovery_key();
        let mut survey = Survey::default();
        if !self.is_only(key, &db, &mut survey).await? {
            return Err(ForgetError::Contents);
        }
        let mut doomed = vec![db];
        if let Some(blobs) = &stored.blobs
            && self.is_only(key, &blobs.discovery_key(), &mut survey).await?
        {
            doomed.push(blobs.discovery_key());
        }
        drop(stored);
        self.until_closed(&doomed).await?;
        // The core of the names goes first, or nothing does: somebody may have opened the drive just now. A name that
        // is left behind then is one of a drive that was forgotten; see `create_drive`.
        if !self.store.remove(&db).map_err(NodeError::from)? {
            return Err(ForgetError::InUse);
        }
        let names: Vec<String> =
            self.names()?.into_iter().filter(|(_, k)| *k == key).map(|(name, _)| name).collect();
        for name in &names {
            self.note_forgotten(name)?;
            let record = format!("{NAMES}{name}");
            self.store.records().remove_record(&record).map_err(NodeError::from)?;
        }
        chronicle::forget(&self.store, &key).map_err(NodeError::from)?;
        for core in doomed.iter().filter(|core| **core != db) {
            // Whoever opened it meanwhile is another look at all drives, and lets it go.
            self.until_closed(&[*core]).await?;
            if !self.store.remove(core).map_err(NodeError::from)? {
                return Err(ForgetError::InUse);
            }
        }
        Ok(Forgotten { names, own })
    }

    /// Notes durably that a drive of this name was forgotten, so that the name never gives its key pair again.
    pub(super) fn note_forgotten(&self, name: &str) -> Result<u64, NodeError> {
        let next = self.generation(name)? + 1;
        let record = format!("{GENERATIONS}{name}");
        self.store.records().put_record(&record, &next.to_le_bytes(), Durability::Durable)?;
        Ok(next)
    }

    /// How many drives of this name were forgotten.
    pub(super) fn generation(&self, name: &str) -> Result<u64, NodeError> {
        let record = self.store.records().get_record(&format!("{GENERATIONS}{name}"))?;
        Ok(record.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// Whether no other drive of the store has its contents in this core: a header may name any.
    async fn is_only(
        &self,
        key: CoreKey,
        core: &DiscoveryKey,
        survey: &mut Survey,
    ) -> Result<bool, NodeError> {
        let sharers = self.drives_in(core, survey).await?;
        if sharers.drives.iter().any(|drive| drive.key() != key) {
            return Ok(false);
        }
        match sharers.closed {
            None => Ok(true),
            // What cannot be opened may be a drive that needs the core, unless that was made for this one or is of
            // names.
            Some(_) if sharers.owner == Some(key) => Ok(true),
            Some(_) if *core == key.discovery_key() && self.holds_names(key).await? => Ok(true),
            Some(error) => Err(error),
        }
    }

    async fn until_closed(&self, cores: &[DiscoveryKey]) -> Result<(), ForgetError> {
        let give_up = tokio::time::Instant::now() + CLOSING;
        loop {
            self.store.close_unused();
            let open = self.store.handles();
            if !open.iter().any(|handle| cores.contains(&handle.discovery_key())) {
                return Ok(());
            }
            drop(open);
            if tokio::time::Instant::now() > give_up {
                return Err(ForgetError::InUse);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
