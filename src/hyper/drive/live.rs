//! A drive that keeps itself current: finds its cores, holds the index of its names, follows its writer.
//!
//! [`LiveDrive::follow`] is the loop; whoever opens the drive runs it as a task. It waits for the first
//! verified length, reads the header, opens the core of the contents, loads the index, and then, on each new
//! version, brings the index up to date and tells the listeners which paths changed. With a fixed version
//! it stops when that is whole. A drive that its peers say is empty is shown as that.
//!
//! A new index replaces the old one in one step: a reader sees one version or the next, never a mixture.
#![expect(clippy::disallowed_methods, reason = "its waits are those of callers, in real time")]

mod follow;

use super::{BlobsCore, Drive, DriveError, DriveIndex, FileReader, Found, secret};
use crate::hyper::bee::{Bee, BeeError, Metadata};
use crate::hyper::blobs::{BlobError, BlobId, Blobs};
use crate::hyper::core::CoreError;
use crate::hyper::session::CoreHandle;
use crate::hyper::source::{BlockLog, BlockSource, SourceError};
use crate::hyper::store::Store;
use crate::key::CoreKey;
use crate::lock::lock;
use crate::path::DrivePath;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Encryption keys kept until block 0 tells which is right: one user's, and those of his next tries.
const MAX_OFFERED: usize = 8;

/// Answers whether it still listens; called with no paths it is only asked that.
type Listener = Box<dyn Fn(&[DrivePath]) -> bool + Send + Sync>;

/// Why a drive cannot be shown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LiveError {
    #[error("no peer has it: nobody who shares this drive could be found")]
    NoPeers,
    #[error("it could not be loaded in time: {0}")]
    TimedOut(String),
    #[error("no such file or directory: {0}")]
    NotFound(DrivePath),
    #[error("{0} is a folder")]
    IsADirectory(DrivePath),
    #[error("{0} is a link, not a file")]
    NotAFile(DrivePath),
    #[error("{0} is a pipe, a socket or a device, not a file")]
    Special(DrivePath),
    #[error("the drive cannot be changed here: its secret key is in the store that made it")]
    ReadOnly,
    #[error("the drive is encrypted: pass --encryption-key")]
    Encrypted,
    /// An encryption key was given that is not the drive's.
    #[error("{0}")]
    EncryptionKey(Arc<CoreError>),
    #[error(transparent)]
    Drive(#[from] DriveError),
    #[error("the local store: {0}")]
    Store(Arc<CoreError>),
}

impl From<CoreError> for LiveError {
    fn from(error: CoreError) -> Self {
        match error {
            CoreError::OtherEncryptionKey | CoreError::Unencrypted => {
                Self::EncryptionKey(Arc::new(error))
            }
            error => Self::Store(Arc::new(error)),
        }
    }
}

impl LiveError {
    /// Whether trying again cannot help as long as the drive stays as it is.
    fn is_final(&self) -> bool {
        match self {
            Self::Encrypted | Self::EncryptionKey(_) => true,
            Self::Drive(DriveError::Bee(error)) => !matches!(error, BeeError::Source(_)),
            Self::Drive(error) => {
                matches!(error, DriveError::ContentKey | DriveError::ForeignContents)
            }
            _ => false,
        }
    }

    /// Whether something of it that should be here was lost, and nobody sent it.
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Drive(
                DriveError::Bee(BeeError::Source(SourceError::Lost(_)))
                    | DriveError::Blob(BlobError::Source(SourceError::Lost(_)))
            )
        )
    }
}

/// What is known of the content so far.
#[derive(Clone, Default)]
struct Known {
    index: Option<Arc<DriveIndex>>,
    /// What the last try to load it met.
    problem: Option<LiveError>,
    /// At which length the last try ended; none while one is under way. What is here may take its time to be loaded,
    /// whether anybody else has it or not.
    tried: Option<u64>,
}

impl Known {
    /// The index, or why there will be none.
    fn decided(
        &self,
        enough: impl Fn(&DriveIndex) -> bool,
    ) -> Option<Result<Arc<DriveIndex>, LiveError>> {
        match (&self.index, &self.problem) {
            (Some(index), _) if enough(index) => Some(Ok(index.clone())),
            (_, Some(problem)) if problem.is_final() => Some(Err(problem.clone())),
            _ => None,
        }
    }
}

/// See the module.
pub struct LiveDrive {
    store: Arc<Store>,
    db: CoreHandle,
    bee: Bee,
    /// Encryption keys that somebody passed before it could be told whether they are right.
    offered: Mutex<Vec<[u8; 32]>>,
    /// One more was passed.
    nudge: Notify,
    at: Option<u64>,
    opened: OnceLock<(Drive, CoreHandle)>,
    known: watch::Sender<Known>,
    listeners: Mutex<Vec<Listener>>,
    introduce: Box<dyn Fn(&CoreHandle) + Send + Sync>,
}

impl LiveDrive {
    /// Opens the drive with this key; `at` fixes the version, or the last whole one before it. Each of its cores is passed to `introduce` when
    /// it is opened. Run [`Self::follow`] next.
    pub fn open(
        store: Arc<Store>,
        key: CoreKey,
        secret: Option<[u8; 32]>,
        at: Option<u64>,
        introduce: impl Fn(&CoreHandle) + Send + Sync + 'static,
    ) -> Result<Self, LiveError> {
        let db = store.by_key(key, None)?;
        secret::offer_key(&store, &db, secret)?;
        introduce(&db);
        db.attach(true, true);
        let bee = if db.writable() {
            Bee::writable(Arc::new(db.clone()), Some(Metadata::default()))
        } else {
            Bee::new(Arc::new(db.clone()))
        };
        Ok(Self {
            store,
            db,
            bee,
            offered: Mutex::new(secret.into_iter().collect()),
            nudge: Notify::new(),
            at,
            opened: OnceLock::new(),
            known: watch::Sender::default(),
            listeners: Mutex::default(),
            introduce: Box::new(introduce),
        })
    }

    /// For one more user of the open drive who passes an encryption key: a wrong one is an error at once.
    pub fn offer_key(&self, key: Option<[u8; 32]>) -> Result<(), LiveError> {
        secret::offer_key(&self.store, &self.db, key)?;
        let mut offered = self.offered();
        let new = key.filter(|key| !offered.contains(key));
        offered.extend(new);
        let excess = offered.len().saturating_sub(MAX_OFFERED);
        offered.drain(..excess);
        if key.is_some() {
            self.known.send_modify(|known| known.problem = None);
            self.nudge.notify_one();
        }
        Ok(())
    }

    fn offered(&self) -> MutexGuard<'_, Vec<[u8; 32]>> {
        lock(&self.offered)
    }

    pub fn key(&self) -> CoreKey {
        self.db.key()
    }

    /// The core of the names; its key is the drive's.
    pub fn db(&self) -> &CoreHandle {
        &self.db
    }

    /// The core of the contents, once it is known.
    pub fn blobs(&self) -> Option<&CoreHandle> {
        self.opened.get().map(|(_, blobs)| blobs)
    }

    pub fn writable(&self) -> bool {
        self.at.is_none() && self.db.writable()
    }

    /// The newest index that is complete.
    pub fn index(&self) -> Option<Arc<DriveIndex>> {
        self.known.borrow().index.clone()
    }

    /// Calls `listener` with the changed paths after each change, until it answers false. The first load counts
    /// as one.
    pub fn subscribe(&self, listener: impl Fn(&[DrivePath]) -> bool + Send + Sync + 'static) {
        let mut listeners = lock(&self.listeners);
        // A drive may see many mounts come and go before it changes.
        listeners.retain(|listens| listens(&[]));
        listeners.push(Box::new(listener));
    }

    /// Waits for the index: any version of it that is here, else until it has been fetched.
    ///
    /// # Errors
    /// [`LiveError::NoPeers`] when nothing is here and nobody was found; [`LiveError::TimedOut`].
    pub async fn ready(&self, limit: Duration) -> Result<Arc<DriveIndex>, LiveError> {
        self.wait_for(limit, |_| true).await
    }

    /// Waits for the index of the newest version that the connected peers have. With no peer it is the
    /// newest version that is here. Of a drive of our own it is that in any case: who goes on from an older one
    /// undoes what came since.
    pub async fn current(&self, limit: Duration) -> Result<Arc<DriveIndex>, LiveError> {
        let started = tokio::time::Instant::now();
        if !self.db.writable() {
            self.db.update(limit).await;
        } else if self.db.length() == 0 {
            return Ok(Arc::default());
        }
        // A fixed version is the nearest that the drive has.
        let length = if self.at.is_some() { 0 } else { self.db.length() };
        let left = limit.saturating_sub(started.elapsed());
        match self.wait_for(left, |index| index.version() >= length).await {
            // An older version is better than none to who only reads.
            Err(error) if !self.writable() => self.index().ok_or(error),
            found => found,
        }
    }

    /// The version that was asked for, if another is shown.
    pub fn other_version(&self) -> Option<(u64, u64)> {
        let (asked, shown) = (self.at?, self.index()?.version());
        (asked != shown && shown > 0).then_some((asked, shown))
    }

    /// Why the drive cannot be shown, if that is for good.
    pub fn problem(&self) -> Option<LiveError> {
        self.known.borrow().decided(|_| true).and_then(Result::err)
    }

    /// Waits for [`Self::problem`].
    pub async fn failed(&self) -> LiveError {
        let mut known = self.known.subscribe();
        let failed =
            known.wait_for(|known| known.decided(|_| true).is_some_and(|decided| decided.is_err()));
        match failed.await.ok().and_then(|known| known.problem.clone()) {
            Some(problem) => problem,
            None => std::future::pending().await,
        }
    }

    /// Waits until those who know the drive have said that nothing is in it.
    pub async fn empty(&self) {
        let mut known = self.known.subscribe();
        let empty =
            known.wait_for(|known| known.index.as_ref().is_some_and(|index| index.version() == 0));
        if empty.await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits for the first version that is shown.
    pub async fn shown(&self) {
        let mut known = self.known.subscribe();
        let shown =
            known.wait_for(|known| known.index.as_ref().is_some_and(|index| index.version() > 0));
        if shown.await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the sizes of all files are known, or until `limit` is over: block maps may still be on their way
    /// when the names are here.
    pub async fn sized(&self, limit: Duration) -> bool {
        let mut known = self.known.subscribe();
        let sized = known
            .wait_for(|known| known.index.as_ref().is_some_and(|index| index.unsized_files() == 0));
        tokio::time::timeout(limit, sized).await.is_ok_and(|sized| sized.is_ok())
    }

    async fn wait_for(
        &self,
        limit: Duration,
        enough: impl Fn(&DriveIndex) -> bool,
    ) -> Result<Arc<DriveIndex>, LiveError> {
        let mut known = self.known.subscribe();
        let found = known.wait_for(|known| known.decided(&enough).is_some());
        let alone = async {
            self.db.deserted().await;
            self.tried().await;
        };
        // Whoever is there was asked.
        let lost = async {
            let mut known = self.known.subscribe();
            let lost = |known: &Known| {
                let at_end = known.tried == Some(self.db.length());
                at_end && known.problem.as_ref().is_some_and(LiveError::is_loss)
            };
            if known.wait_for(lost).await.is_err() {
                std::future::pending().await
            }
        };
        let late = async {
            tokio::time::sleep(limit).await;
            if self.writable() {
                // All of it should be here.
                self.tried().await;
            }
        };
        tokio::select! {
            biased;
            found = found => {
                found.ok().and_then(|known| known.decided(&enough)).unwrap_or(Err(LiveError::NoPeers))
            }
            () = alone => Err(self.loss().unwrap_or(LiveError::NoPeers)),
            () = lost => Err(self.loss().unwrap_or(LiveError::NoPeers)),
            () = late => {
                let problem = self.known.borrow().problem.as_ref().map(ToString::to_string);
                let waiting = match self.db.reach().borrow().peers {
                    0 => "no peer was found yet".to_string(),
                    n => format!("{n} peer(s) connected, none sent what is missing"),
                };
                Err(LiveError::TimedOut(problem.unwrap_or(waiting)))
            }
        }
    }

    /// What the last try missed, if that should be here.
    fn loss(&self) -> Option<LiveError> {
        self.known.borrow().problem.clone().filter(LiveError::is_loss)
    }

    /// Whether names that should be here are not, so that peers must be asked for them.
    pub async fn lacks_names(&self) -> Result<bool, LiveError> {
        let all = 0..self.db.length();
        self.db.look_at(all.clone()).await.map_err(BeeError::from).map_err(DriveError::from)?;
        Ok(self.db.core().next_missing(all).is_some())
    }

    /// Waits until what is here was tried to be shown. Such a try ends: what it misses it asks of peers, each block for
    /// so long.
    async fn tried(&self) {
        let mut known = self.known.subscribe();
        let tried = known.wait_for(|known| known.tried == Some(self.db.length()));
        if tried.await.is_err() {
            std::future::pending().await
        }
    }

    /// The drive with both its cores; waits for the header where that is needed to find the second.
    pub async fn drive(&self) -> Result<Drive, LiveError> {
        if let Some((drive, _)) = self.opened.get() {
            return Ok(drive.clone());
        }
        let header = match self.db.length() {
            0 if self.db.writable() => None,
            _ => {
                self.db.block(0).await.map_err(BeeError::from).map_err(DriveError::from)?;
                let offered = self.offered().clone();
                secret::settle(&self.store, &self.db, &offered)?;
                Some(self.bee.header().await.map_err(DriveError::from)?)
            }
        };
        let manifest = self.db.core().manifest().cloned();
        let found = BlobsCore::of(&self.db.key(), manifest.as_ref(), header.as_ref())?;
        let (store, db) = (self.store.clone(), self.db.clone());
        // On a thread that may wait for the disk: a long core is looked through after an unclean end.
        let open = tokio::task::spawn_blocking(move || secret::contents(&store, &db, found));
        let blobs = open
            .await
            .map_err(|_| BeeError::from(SourceError::Closed))
            .map_err(DriveError::from)??;
        if self.db.writable() {
            let doubted = self.db.core().doubted();
            blobs.core().goes_with(doubted);
        }
        (self.introduce)(&blobs);
        blobs.attach(true, false);
        let contents = if blobs.writable() {
            Blobs::writable(Arc::new(blobs.clone()))
        } else {
            Blobs::new(Arc::new(blobs.clone()))
        };
        let drive = Drive::new(self.bee.clone(), contents);
        Ok(self.opened.get_or_init(|| (drive, blobs)).0.clone())
    }

    /// The core of the contents of a drive that is encrypted with a key nobody gave, to be held and served unread;
    /// none where only the names tell which it is.
    pub async fn unread_contents(&self) -> Result<Option<CoreHandle>, LiveError> {
        let (store, db) = (self.store.clone(), self.db.clone());
        let open = tokio::task::spawn_blocking(move || secret::unread_contents(&store, &db));
        let opened = open.await.map_err(|_| BeeError::from(SourceError::Closed));
        let Some(blobs) = opened.map_err(DriveError::from)?? else { return Ok(None) };
        (self.introduce)(&blobs);
        blobs.attach(true, false);
        Ok(Some(blobs))
    }

    /// Content of the file at `path` in `index`.
    pub fn content_in(
        &self,
        index: &DriveIndex,
        path: &DrivePath,
    ) -> Result<FileReader, LiveError> {
        let file = match index.lookup(path) {
            Some(Found::File(file)) => file,
            Some(Found::Directory(_)) => return Err(LiveError::IsADirectory(path.clone())),
            Some(Found::Link(_)) => return Err(LiveError::NotAFile(path.clone())),
            Some(Found::Special(_)) => return Err(LiveError::Special(path.clone())),
            None => return Err(LiveError::NotFound(path.clone())),
        };
        let (drive, _) = self.opened.get().ok_or_else(|| LiveError::NotFound(path.clone()))?;
        Ok(drive.open(file)?)
    }

    /// Contents that are open, of whatever version.
    pub fn open_contents(&self) -> Vec<BlobId> {
        self.opened.get().map(|(drive, _)| drive.blobs().open_ids()).unwrap_or_default()
    }

    /// Ends every wait on the drive's cores.
    pub fn close(&self) {
        self.db.close();
        if let Some(blobs) = self.blobs() {
            blobs.close();
        }
    }
}
