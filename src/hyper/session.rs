//! The async handle of an open core: a local answer at once, or a wish to the replicator and a wait.
//!
//! A [`CoreHandle`] is cheap to clone and may be used from any thread. What is in memory or on disk is
//! answered by the calling thread under the core's lock. What is not becomes a [`Wish`] to the thread
//! that owns the replication hub; that thread calls [`CoreHandle::on_block`] and its siblings when
//! something arrived, which wakes whoever waits. Who waits to read does so until a deadline at the latest (see
//! [`Patience`]); a [download](CoreHandle::download) lasts for as long as its caller wants it.
//!
//! | file | what |
//! |---|---|
//! | `wish.rs` | what is asked of the hub |
//! | `waiters.rs` | who waits for what, and takes it back by going |
//! | `reach.rs` | who could be asked, and waits for the newest head |
//! | `hints.rs` | what was asked ahead of need |
//! | `source.rs`, `append.rs` | the handle as a source of blocks, and as a log to append to |
//!
//! Source: hypercore/index.js (sessions)

mod append;
mod hints;
mod reach;
mod source;
mod waiters;
mod wish;

use super::cache::BlockCache;
use super::core::storage::StorageError;
use super::core::{Core, CoreError, SharedCore};
use super::source::{BoxFuture, SourceError};
use crate::key::{CoreKey, DiscoveryKey};
use crate::lock::{Baton, lock};
use bytes::Bytes;
use hints::Hints;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use waiters::{Awaited, Waiters};

pub use reach::Reach;
pub use waiters::{Patience, with_patience};
pub use wish::Wish;

/// Length and fork as they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub length: u64,
    pub fork: u64,
}

/// Blocks from this size on are cached as they arrived; they nearly fill their frame.
const MIN_ARRIVED: usize = 32 << 10;

#[derive(Clone)]
pub struct CoreHandle(Arc<Inner>);

struct Inner {
    key: CoreKey,
    discovery_key: DiscoveryKey,
    core: SharedCore,
    cache: Arc<BlockCache>,
    /// The core's number in the cache.
    id: u64,
    wishes: mpsc::UnboundedSender<Wish>,
    patience: Patience,
    waiters: Mutex<Waiters>,
    hints: Mutex<Hints>,
    /// Held by whoever appends.
    appending: Arc<Baton>,
    version: watch::Sender<Version>,
    reach: watch::Sender<Reach>,
    ranges: AtomicU64,
    /// Why nothing comes any more.
    ended: watch::Sender<Option<SourceError>>,
    /// Why the local store did not take what a peer sent, the last time that happened.
    failure: watch::Sender<String>,
}

impl std::fmt::Debug for CoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CoreHandle({})", crate::key::short(&self.0.key.0))
    }
}

impl CoreHandle {
    pub fn new(
        core: SharedCore,
        cache: Arc<BlockCache>,
        wishes: mpsc::UnboundedSender<Wish>,
        patience: Patience,
    ) -> Self {
        let (key, discovery_key, id, version) = {
            let core = lock(&core);
            let version = Version { length: core.length(), fork: core.fork() };
            (*core.key(), *core.discovery_key(), core.id(), version)
        };
        Self(Arc::new(Inner {
            key,
            discovery_key,
            core,
            cache,
            id,
            wishes,
            patience,
            waiters: Mutex::default(),
            hints: Mutex::default(),
            appending: Arc::default(),
            version: watch::Sender::new(version),
            reach: watch::Sender::new(Reach::default()),
            ranges: AtomicU64::new(1),
            ended: watch::Sender::default(),
            failure: watch::Sender::default(),
        }))
    }

    pub fn key(&self) -> CoreKey {
        self.0.key
    }

    pub fn discovery_key(&self) -> DiscoveryKey {
        self.0.discovery_key
    }

    pub fn shared(&self) -> SharedCore {
        self.0.core.clone()
    }

    /// The core itself, for as long as the guard lives. Hold it briefly and never across an await.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.0.core)
    }

    /// Whether another core lies in the same store.
    fn is_beside(&self, other: &Self) -> bool {
        let store = |handle: &Self| Arc::as_ptr(handle.core().storage()).cast::<()>();
        !Arc::ptr_eq(&self.0, &other.0) && store(self) == store(other)
    }

    /// Opens channels for this core to all peers of its topics, now and later.
    pub fn attach(&self, downloading: bool, small_blocks: bool) {
        self.wish(Wish::Attach { handle: self.clone(), downloading, small_blocks });
    }

    pub fn versions(&self) -> watch::Receiver<Version> {
        self.0.version.subscribe()
    }

    /// Whether nobody holds it but whoever asks.
    pub fn is_unused(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.core) == 1
    }

    /// Ends every wait on this core with [`SourceError::Closed`].
    pub fn close(&self) {
        self.0.ended.send_replace(Some(SourceError::Closed));
    }

    /// Peers have two histories, both signed. A reader stops: what it has may be of one and
    /// what it gets of the other. A writer has one of them and writes it no more.
    pub fn on_two_histories(&self) {
        if !self.core().find_two_histories() {
            self.0.ended.send_replace(Some(SourceError::TwoHistories));
        }
    }

    /// Refuses to read what may be of two histories.
    ///
    /// # Errors
    /// [`SourceError::TwoHistories`] if it is.
    pub fn check_history(&self) -> Result<(), SourceError> {
        match &*self.0.ended.borrow() {
            Some(SourceError::TwoHistories) => Err(SourceError::TwoHistories),
            _ => Ok(()),
        }
    }

    /// Resolves when nothing comes any more, with the reason.
    async fn ended(&self) -> SourceError {
        let mut ended = self.0.ended.subscribe();
        let reason = ended.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or(SourceError::Closed)
    }

    /// Fetches `range` and resolves when all of it is here. Dropping the future ends the wish.
    pub fn download(
        &self,
        range: Range<u64>,
        linear: bool,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let handle = self.clone();
        Box::pin(async move {
            handle.look_at(range.clone()).await?;
            if lock(&handle.0.core).next_missing(range.clone()).is_none() {
                return Ok(());
            }
            let id = handle.next_range();
            let mut waiter = handle.waiter(Awaited::Range(id));
            waiter.ask(Wish::Range { core: handle.discovery_key(), id, range, linear });
            waiter.came().await.map(drop)
        })
    }

    /// A number for a range that no other has.
    fn next_range(&self) -> u64 {
        self.0.ranges.fetch_add(1, Ordering::Relaxed)
    }

    /// What a peer sent could not be stored (the disk is full, say): whoever waits for it is told why.
    pub fn on_storage_failure(&self, why: String) {
        self.0.failure.send_replace(why);
    }

    /// Resolves when the local store next fails.
    async fn failed(&self) -> SourceError {
        let mut failure = self.0.failure.subscribe();
        match failure.changed().await {
            Ok(()) => SourceError::Storage(failure.borrow().clone()),
            Err(_) => SourceError::Closed,
        }
    }

    /// The stored bytes of a verified block, which [`Self::on_block`] follows. Kept if somebody here is about to
    /// read them; a core that is merely copied should not fill the cache.
    pub fn on_arrived(&self, index: u64, stored: Bytes) {
        let wanted = lock(&self.0.waiters).is_awaited(Awaited::Block(index))
            || lock(&self.0.hints).has_ranges();
        // Of an encrypted core the plaintext is cached, by whoever decrypts it first. A small block would keep
        // the frame that it came in.
        if wanted && stored.len() >= MIN_ARRIVED && self.core().padding() == 0 {
            self.0.cache.insert(self.0.id, index, stored);
        }
    }

    /// A verified block arrived.
    pub fn on_block(&self, index: u64) {
        lock(&self.0.hints).fulfil(index);
        self.wake(Awaited::Block(index), None);
    }

    /// The stored bytes of a verified block that is not kept, for the local store did not take it: whoever waits is given
    /// them.
    pub fn on_unstored(&self, index: u64, stored: Bytes) {
        lock(&self.0.hints).fulfil(index);
        let opened = self.core().open_value(index, stored);
        match opened {
            Ok(block) => self.wake(Awaited::Block(index), Some(block)),
            Err(error) => self.on_storage_failure(error.to_string()),
        }
    }

    /// A wish that was not taken: whoever waits for what it asked is told.
    pub fn on_refused(&self, wish: &Wish) {
        let what = match wish {
            Wish::Block { index, .. } => {
                lock(&self.0.hints).fulfil(*index);
                Awaited::Block(*index)
            }
            Wish::Range { id, .. } => {
                lock(&self.0.hints).end_range(*id);
                Awaited::Range(*id)
            }
            Wish::Seek { bytes, .. } => Awaited::Seek(*bytes),
            _ => return,
        };
        // A waiter whose other end has gone was refused.
        drop(lock(&self.0.waiters).came(what));
    }

    /// All blocks of a range are here.
    pub fn on_range(&self, id: u64) {
        lock(&self.0.hints).end_range(id);
        self.wake(Awaited::Range(id), None);
    }

    /// The nodes that a seek needed are here.
    pub fn on_seek(&self, bytes: u64) {
        self.wake(Awaited::Seek(bytes), None);
    }

    fn wake(&self, what: Awaited, bytes: Option<Bytes>) {
        let woken = lock(&self.0.waiters).came(what);
        for waiter in woken {
            let _ = waiter.send(bytes.clone());
        }
    }

    /// Length or fork changed, here or by a peer's proof. A new fork forgets cached blocks.
    pub fn on_version(&self) {
        let now = {
            let core = self.core();
            Version { length: core.length(), fork: core.fork() }
        };
        self.0.version.send_if_modified(|known| {
            if known.fork != now.fork {
                self.0.cache.remove_core(self.0.id);
            }
            std::mem::replace(known, now) != now
        });
    }

    /// Tells the hub and all watchers that local code changed the core.
    pub fn announce_change(&self) {
        self.on_version();
        self.wish(Wish::Changed { core: self.0.discovery_key });
    }

    /// Tells the hub that local code gave up blocks, so that peers hear it and do not ask for them.
    pub fn announce_cleared(&self, blocks: Range<u64>) {
        for index in blocks.start..blocks.end.min(self.core().length()) {
            self.0.cache.remove(self.0.id, index);
        }
        self.wish(Wish::Cleared { core: self.0.discovery_key, blocks });
    }

    fn wish(&self, wish: Wish) {
        // The hub's thread is gone only at shutdown; waits then end by `closed`.
        let _ = self.0.wishes.send(wish);
    }
}

fn storage(error: impl std::fmt::Display + 'static) -> SourceError {
    let text = error.to_string();
    let any: &dyn std::any::Any = &error;
    let stored = match any.downcast_ref() {
        Some(CoreError::Storage(error)) => Some(error),
        _ => any.downcast_ref::<StorageError>(),
    };
    match stored.is_some_and(StorageError::is_disk_full) {
        true => SourceError::DiskFull(text),
        false => SourceError::Storage(text),
    }
}

#[cfg(test)]
mod tests;
