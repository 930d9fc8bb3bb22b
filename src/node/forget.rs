//! Takes a drive out of the store, with its bytes and, where it is our own, its secret key.
//!
//! It is there or it is gone, wherever the process is killed: the records of both cores, the names and all notes go in
//! one transaction, which also says whose files are to be deleted (`hyper::core::storage::removal`).

use super::contents::Survey;
use super::{Node, NodeError, on_disk};
use crate::hyper::core::CoreError;
use crate::hyper::core::storage::{StorageError, Writes};
use crate::hyper::draft::Draft;
use crate::key::{CoreKey, DiscoveryKey};
use crate::lock::lock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a drive that nobody uses any more is waited for to close.
const CLOSING: Duration = Duration::from_secs(5);

/// What was taken away.
#[derive(Debug, Clone, Default)]
pub struct Forgotten {
    /// Its local names.
    pub names: Vec<String>,
    /// It was our own: nobody can write it any more.
    pub own: bool,
    /// Why some of it could not be opened, if it could not: then its contents may still be there.
    pub closed: Option<String>,
}

/// Why a drive stays.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    #[error("this store holds nothing of it")]
    Unknown,
    #[error("it is in use by a command, a mount or a share")]
    InUse,
    #[error("it is still held, by a command or by one that was called off and waits for its disk")]
    Held,
    #[error("it holds the contents of another drive of this store: forget that one first")]
    Contents,
    #[error("nothing was removed")]
    GivenUp,
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What goes with a drive.
struct Doomed {
    key: CoreKey,
    cores: Vec<DiscoveryKey>,
    own: bool,
    closed: Option<String>,
}

/// Whether what is stored makes no sense, and will not at another time.
fn is_damage(error: &NodeError) -> bool {
    matches!(
        error,
        NodeError::Core(
            CoreError::Storage(StorageError::DamagedRecord { .. }) | CoreError::MissingNodes(_)
        )
    )
}

/// What else goes with a drive, as it is when that is removed.
pub type Also = Arc<dyn Fn() -> Result<Writes, StorageError> + Send + Sync>;

impl Node {
    /// Removes both cores of a drive, its names and its notes. Of both only what no other drive of the
    /// store has, in whatever part: see `super::contents`.
    ///
    /// # Errors
    /// Nothing was removed. [`ForgetError::GivenUp`] if `given_up` came before it began; it is not cut after that.
    pub async fn forget(
        self: &Arc<Self>,
        key: CoreKey,
        also: Also,
        given_up: impl Future<Output = ()>,
    ) -> Result<Forgotten, ForgetError> {
        tokio::pin!(given_up);
        let give_up = Instant::now() + CLOSING;
        loop {
            let doomed = tokio::select! {
                doomed = self.doomed(key, give_up) => doomed?,
                () = &mut given_up => return Err(ForgetError::GivenUp),
            };
            let (node, also) = (self.clone(), also.clone());
            let removed = on_disk(move || node.remove(&doomed, &*also)).await?;
            if let Some(forgotten) = removed {
                return Ok(forgotten);
            }
            // Whoever opened it meanwhile may be another look at all drives, and lets it go.
            if Instant::now() > give_up {
                return Err(ForgetError::InUse);
            }
        }
    }

    /// What is to be removed, all of it closed.
    async fn doomed(
        self: &Arc<Self>,
        key: CoreKey,
        give_up: Instant,
    ) -> Result<Doomed, ForgetError> {
        // Whoever looked at either core as at a drive lets it linger.
        let let_go = |key| match self.drives.close_unused(key) {
            true => Ok(()),
            false => Err(ForgetError::InUse),
        };
        let_go(key)?;
        let db = key.discovery_key();
        let is_named = || Ok::<_, NodeError>(self.names()?.iter().any(|(_, named)| *named == key));
        let stored = match self.stored(db).await {
            Ok(Some(stored)) => stored,
            Ok(None) => {
                // An older version of this program, killed while it forgot a drive, may have left the name.
                let doomed = Doomed { key, cores: Vec::new(), own: true, closed: None };
                return if is_named()? { Ok(doomed) } else { Err(ForgetError::Unknown) };
            }
            // It is of no use to whoever has its contents in it, and cannot be asked for its own.
            Err(error) if is_damage(&error) => {
                let closed = Some(error.to_string());
                return Ok(Doomed { key, cores: vec![db], own: is_named()?, closed });
            }
            Err(error) => return Err(error.into()),
        };
        let own = stored.core().writable();
        let mut survey = Survey::default();
        if !self.is_only(key, &db, &mut survey).await? {
            return Err(ForgetError::Contents);
        }
        let (mut cores, mut closed) = (vec![db], None);
        match self.contents_of(&stored).await {
            Ok(None) => {}
            Ok(Some(blobs)) => {
                if self.is_only(key, &blobs.discovery_key(), &mut survey).await? {
                    let_go(blobs.key())?;
                    cores.push(blobs.discovery_key());
                }
            }
            Err(error) if is_damage(&error) => {
                closed = Some(error.to_string());
                // What is our own is so by its key.
                if let Ok(Some(blobs)) = self.contents_key(&stored).await
                    && self.is_only(key, &blobs.discovery_key(), &mut survey).await?
                {
                    let_go(blobs)?;
                    cores.push(blobs.discovery_key());
                }
            }
            Err(error) => return Err(error.into()),
        }
        drop(stored);
        self.until_closed(&cores, give_up).await?;
        Ok(Doomed { key, cores, own, closed })
    }

    /// None if somebody has opened some of it.
    fn remove(
        &self,
        doomed: &Doomed,
        also: &dyn Fn() -> Result<Writes, StorageError>,
    ) -> Result<Option<Forgotten>, NodeError> {
        let _names = lock(&self.names);
        let mut writes = also()?;
        // Nobody works on it: whoever does has it open.
        let storage = self.store.storage();
        let (drafts, staged) = Draft::removal(storage, &doomed.key)?;
        writes.merge(drafts);
        let names = self.give_up_names(doomed.key, &mut writes)?;
        let removed = self.store.remove(&doomed.cores, writes)?;
        // What a crash leaves of them nothing names: it goes at the next draft.
        for staging in staged.iter().filter(|_| removed) {
            storage.remove_files(staging)?;
        }
        let (own, closed) = (doomed.own, doomed.closed.clone());
        Ok(removed.then_some(Forgotten { names, own, closed }))
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

    async fn until_closed(
        &self,
        cores: &[DiscoveryKey],
        give_up: Instant,
    ) -> Result<(), ForgetError> {
        loop {
            self.store.close_unused();
            if !self.store.are_used(cores) {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(ForgetError::Held);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
#[path = "forget/tests.rs"]
pub(super) mod tests;
