//! The next version of a drive of ours, while programs work on it.
//!
//! A [`Draft`] holds the names twice: as they are *published*, and as they are *now*. Every change is made to the second
//! at once, at the cost of the change; what differs is published in one step ([`Draft::publish`]): contents first, then
//! one batch of the bee that names them, one commit for both cores. So others see each file whole, and a save by way of a
//! rename as one step.
//!
//! | file | holds |
//! |---|---|
//! | `absorb` | what others do to the drive meanwhile |
//! | `edit` | what a file system does with names, with its rules |
//! | `publish` | what is said to others, and when it may be |
//! | `spool` | what survives a power cut before it is published |
//! | `end` | an end that cannot publish |
//!
//! A file that is open to be written, or that is not published yet, has a [`LocalFile`] in its leaf. It travels with the
//! leaf wherever that is moved, so nothing here knows the paths of open files.

mod absorb;
mod edit;
mod end;
mod publish;
mod spool;
#[cfg(test)]
mod tests;

pub use edit::{EditError, Editor, Rename, Set};
pub use end::listed;
pub use publish::Which;

use super::bee::BeeError;
use super::blobs::BlobError;
use super::core::storage::{Storage, StorageError};
use super::drive::{Drive, DriveError, DriveIndex, Extended, Found, Leaf, Steps, Xattrs};
use super::local::{Base, LocalError, LocalFile, Memory};
use super::source::SourceError;
use crate::key::CoreKey;
use crate::lock::{lock, read};
use crate::path::DrivePath;
use publish::Publishing;
use spool::Spool;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// Bytes of small files that are in memory before they are published: some ten thousand files that are unpacked at once.
const MAX_IN_MEMORY: usize = 32 << 20;

/// Why what was changed could not be published or made durable.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error("the local store: {0}")]
    Storage(#[from] StorageError),
    /// See [`Draft::end`].
    #[error(
        "{0}; what was changed is kept in the store, and published when the drive is worked on again"
    )]
    Kept(Box<DraftError>),
    /// See [`Draft::end`].
    #[error("{cause}; what was changed last is lost of {}", end::listed(lost))]
    Lost { cause: Box<DraftError>, lost: Vec<DrivePath> },
}

impl DraftError {
    /// Whether it works once there is room.
    pub fn is_disk_full(&self) -> bool {
        let source = match self {
            Self::Storage(error) | Self::Local(LocalError::Storage(error)) => {
                return error.is_disk_full();
            }
            Self::Kept(cause) | Self::Lost { cause, .. } => return cause.is_disk_full(),
            Self::Blob(BlobError::Source(error))
            | Self::Drive(DriveError::Blob(BlobError::Source(error)))
            | Self::Drive(DriveError::Bee(BeeError::Source(error))) => error,
            _ => return false,
        };
        matches!(source, SourceError::DiskFull(_))
    }
}

/// See the module.
pub struct Draft {
    key: CoreKey,
    drive: Drive,
    storage: Arc<dyn Storage>,
    /// For what is written to small files.
    memory: Arc<Memory>,
    names: RwLock<Names>,
    /// Held through a publication.
    publishing: Mutex<Publishing>,
    /// Others may have changed the drive since that was looked at.
    behind: AtomicBool,
    /// What is in the store of files that are not published. Taken after `publishing`, before `names`.
    spool: Mutex<Spool>,
    listeners: Mutex<Vec<(u64, Listener)>>,
    flushers: Mutex<Vec<Flusher>>,
    next_editor: AtomicU64,
    /// Rung when there is something to be published.
    bell: Box<dyn Fn() + Send + Sync>,
}

/// Answers whether it still listens; called with no paths it is only asked that.
pub type Listener = Box<dyn Fn(&[DrivePath]) -> bool + Send + Sync>;

/// Sees to it that what was written comes here, and waits for it. Answers whether it is still of use.
pub type Flusher = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone)]
struct Names {
    /// What others see.
    published: DriveIndex,
    /// What is here.
    now: DriveIndex,
    /// Files without a name, of which the store may have a record.
    gone: Vec<Arc<LocalFile>>,
    /// By the bee block of an entry that was published from here, the number that its content had here before.
    revisions: HashMap<u64, u64>,
}

impl Names {
    /// What stays the same as long as nobody but this draft changes a content, also through its publication.
    fn revision(&self, leaf: &Leaf) -> u64 {
        match leaf.local() {
            Some(local) => local.revision,
            None => self.revisions.get(&leaf.seq()).copied().unwrap_or(leaf.seq()),
        }
    }

    /// What is here and not what others see.
    fn steps(&self) -> Steps {
        self.published.steps_to(&self.now)
    }

    /// Takes the file, the link or the empty folder at `path` out.
    fn take(&mut self, path: &DrivePath) {
        if let Some(leaf) = self.now.leaf(path)
            && let Some(local) = leaf.local()
            // Under another name it lives on.
            && self.now.link_count(self.now.id_of(path, leaf)) < 2
        {
            self.gone.push(Arc::clone(&local.file));
        }
        self.now.take(path);
    }
}

impl Draft {
    /// Goes on from `published`, the newest version of the drive, and from what an earlier end left in the spool.
    /// `bell` is rung at each change that is to be published, and must only note that.
    pub fn open(
        key: CoreKey,
        drive: Drive,
        storage: Arc<dyn Storage>,
        published: DriveIndex,
        bell: impl Fn() + Send + Sync + 'static,
    ) -> Result<Arc<Self>, DraftError> {
        Self::with_memory(key, drive, storage, published, bell, MAX_IN_MEMORY)
    }

    fn with_memory(
        key: CoreKey,
        drive: Drive,
        storage: Arc<dyn Storage>,
        published: DriveIndex,
        bell: impl Fn() + Send + Sync + 'static,
        memory: usize,
    ) -> Result<Arc<Self>, DraftError> {
        let now = published.clone();
        let draft = Arc::new(Self {
            key,
            drive,
            storage,
            memory: Memory::new(memory),
            names: RwLock::new(Names {
                published,
                now,
                gone: Vec::new(),
                revisions: HashMap::new(),
            }),
            publishing: Mutex::default(),
            spool: Mutex::default(),
            behind: AtomicBool::new(false),
            listeners: Mutex::default(),
            flushers: Mutex::default(),
            next_editor: AtomicU64::new(0),
            bell: Box::new(bell),
        });
        draft.recover()?;
        Ok(draft)
    }

    pub fn key(&self) -> CoreKey {
        self.key
    }

    /// The names as they are here.
    pub fn names(&self) -> DriveIndex {
        read(&self.names).now.clone()
    }

    /// An answer from the names as they are here.
    pub fn with_names<T>(&self, answer: impl FnOnce(&DriveIndex) -> T) -> T {
        answer(&read(&self.names).now)
    }

    /// The same, and what tells which content a leaf of them has: a number that changes when others change it, and stays
    /// through all that is done here.
    pub fn with_revisions<T>(
        &self,
        answer: impl FnOnce(&DriveIndex, &dyn Fn(&Leaf) -> u64) -> T,
    ) -> T {
        let names = read(&self.names);
        answer(&names.now, &|leaf| names.revision(leaf))
    }

    /// The extended attributes of what is at `path`.
    pub fn xattrs(&self, path: &DrivePath) -> Result<Xattrs, DraftError> {
        let (seq, xattrs, is_record) = self.with_names(|names| match names.lookup(path) {
            Some(Found::Directory(dir)) => {
                let own = dir.attributes();
                (own.map_or(0, |own| own.seq), own.and_then(|own| own.xattrs.clone()), true)
            }
            _ => match names.leaf(path) {
                Some(leaf) => (leaf.seq(), leaf.xattrs().cloned(), leaf.special().is_some()),
                None => (0, None, false),
            },
        });
        Ok(match xattrs.as_deref() {
            None => Xattrs::default(),
            Some(Extended::Set(xattrs)) => xattrs.clone(),
            Some(Extended::Stored) if is_record => self.drive.local_record(seq)?.xattrs(),
            Some(Extended::Stored) => self.drive.local_entry(seq)?.xattrs(),
        })
    }

    /// Whether something was written to the file at `path` that is not published.
    pub fn is_written(&self, path: &DrivePath) -> bool {
        self.with_names(|names| {
            let local = names.leaf(path).and_then(Leaf::local);
            local.is_some_and(|local| !local.file.is_base())
        })
    }

    /// The drive as others see it.
    pub fn drive(&self) -> &Drive {
        &self.drive
    }

    /// Somebody who changes it, and hears of the changes of all others.
    pub fn editor(self: &Arc<Self>, listener: Option<Listener>) -> Editor {
        let id = self.next_editor.fetch_add(1, Ordering::Relaxed);
        if let Some(listener) = listener {
            lock(&self.listeners).push((id, listener));
        }
        Editor::new(self.clone(), id)
    }

    /// Somebody else keeps what is written for a while: the kernel, for a mount.
    pub fn on_flush(&self, flusher: Flusher) {
        lock(&self.flushers).push(flusher);
    }

    /// What was written is here after that, whoever kept it. It waits for others, but not for ever.
    pub fn gather(&self) {
        lock(&self.flushers).retain(|flush| flush());
    }

    /// How many listen to each other's changes.
    pub fn editors(&self) -> usize {
        lock(&self.listeners).len()
    }

    fn tell(&self, editor: u64, changed: &[DrivePath]) {
        lock(&self.listeners).retain(|(id, listens)| *id == editor || listens(changed));
    }

    fn new_file(&self, base: Option<Base>) -> LocalFile {
        LocalFile::new(&self.storage, &self.memory, base)
    }
}
