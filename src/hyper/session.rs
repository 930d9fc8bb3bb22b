//! The async handle of an open core: a local answer at once, or a wish to the replicator and a wait.
//!
//! A [`CoreHandle`] is cheap to clone and may be used from any thread. What is in memory or on disk is
//! answered by the calling thread under the core's lock. What is not becomes a [`Wish`] to the thread
//! that owns the replication hub; that thread calls [`CoreHandle::on_block`] and its siblings when
//! something arrived, which wakes whoever waits. No wait is without an end: see [`Patience`].
//!
//! Source: hypercore/index.js (sessions)

mod append;
mod hints;

use super::cache::BlockCache;
use super::core::storage::Durability;
use super::core::tree::SeekResult;
use super::core::{Core, SharedCore};
use super::source::{Append, BlockLog, BlockSource, BoxFuture, SourceError};
use crate::key::{CoreKey, DiscoveryKey};
use append::Appending;
use bytes::Bytes;
use hints::Hints;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// What a handle asks of the thread that owns the replication hub.
#[derive(Debug)]
pub enum Wish {
    Attach {
        handle: CoreHandle,
        downloading: bool,
        small_blocks: bool,
    },
    Block {
        core: DiscoveryKey,
        index: u64,
        urgent: bool,
    },
    ForgetBlock {
        core: DiscoveryKey,
        index: u64,
    },
    Range {
        core: DiscoveryKey,
        id: u64,
        range: Range<u64>,
        linear: bool,
    },
    ForgetRange {
        core: DiscoveryKey,
        id: u64,
    },
    Seek {
        core: DiscoveryKey,
        bytes: u64,
    },
    /// To be told when the head is what the connected peers have.
    Update {
        core: DiscoveryKey,
    },
    /// Local blocks were appended, truncated or cleared.
    Changed {
        core: DiscoveryKey,
    },
}

/// How long a wait may last.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// With a peer connected, or while peers are still being looked for.
    pub read: Duration,
    /// With no peer connected after discovery has finished a round.
    pub lonely: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { read: Duration::from_secs(30), lonely: Duration::from_secs(1) }
    }
}

/// Who could still send something for a core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Peers with an open channel for it.
    pub peers: usize,
    /// A round of discovery has ended, so that no peer means there is none.
    pub discovered: bool,
    /// Times that all open peers had told their length and what they offered was applied.
    pub syncs: u64,
    /// That goes for the peers that are open now.
    pub synced: bool,
}

/// Length and fork as they change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub length: u64,
    pub fork: u64,
}

/// The longest wait for a proof that a block exists at all.
const UPGRADE_WAIT: Duration = Duration::from_secs(3);

/// Prefetched ranges that may be outstanding for one core; the oldest is dropped beyond that.
const MAX_PREFETCHES: usize = 64;

/// Prefetched blocks in a row from which on they are a range; fewer are hints, each for itself. A range costs
/// the hub a look for every request it makes, so a thousand of one block each would be slow.
const MIN_RUN: usize = 16;

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
    /// Held by whoever appends.
    appending: Mutex<()>,
    version: watch::Sender<Version>,
    reach: watch::Sender<Reach>,
    ranges: AtomicU64,
    closed: watch::Sender<bool>,
    /// Why the local store did not take what a peer sent, the last time that happened.
    failure: watch::Sender<String>,
}

#[derive(Default)]
struct Waiters {
    blocks: HashMap<u64, Vec<oneshot::Sender<()>>>,
    ranges: HashMap<u64, oneshot::Sender<()>>,
    seeks: HashMap<u64, Vec<oneshot::Sender<()>>>,
    prefetches: VecDeque<u64>,
    hints: Hints,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not take the mount with it; the data behind is valid at every await point.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            appending: Mutex::default(),
            version: watch::Sender::new(version),
            reach: watch::Sender::new(Reach::default()),
            ranges: AtomicU64::new(1),
            closed: watch::Sender::new(false),
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

    /// Opens channels for this core on all connections, now and later.
    pub fn attach(&self, downloading: bool, small_blocks: bool) {
        self.wish(Wish::Attach { handle: self.clone(), downloading, small_blocks });
    }

    pub fn versions(&self) -> watch::Receiver<Version> {
        self.0.version.subscribe()
    }

    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.0.reach.subscribe()
    }

    /// Tells waiters who can be asked; called by the owner of discovery and of the hub.
    pub fn set_reach(&self, change: impl FnOnce(&mut Reach)) {
        self.0.reach.send_modify(change);
    }

    /// Ends every wait on this core with [`SourceError::Closed`].
    pub fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Waits until every connected peer has told its length and what it offered is here: the head is
    /// current. False if that did not happen within `limit`, or if nobody is there to ask.
    pub async fn update(&self, limit: Duration) -> bool {
        let mut reach = self.reach();
        let current = async {
            loop {
                // The hub answers when all have told who are connected, be it that our channel is only
                // just on its way to them; at once if nobody is.
                let before = reach.borrow().syncs;
                self.wish(Wish::Update { core: self.0.discovery_key });
                let told = |r: &Reach| r.syncs > before && (r.synced || r.peers == 0);
                let Reach { peers, discovered, .. } = *reach.wait_for(told).await.ok()?;
                if peers > 0 || discovered {
                    return Some(peers > 0);
                }
                reach.wait_for(|r| r.peers > 0 || r.discovered).await.ok()?;
            }
        };
        tokio::time::timeout(limit, current).await.ok().flatten().unwrap_or(false)
    }

    /// Resolves when discovery has ended a round and for [`Patience::lonely`] no peer has been there.
    pub async fn deserted(&self) {
        let mut reach = self.reach();
        loop {
            if reach.wait_for(|r| r.peers == 0 && r.discovered).await.is_err() {
                return std::future::pending().await;
            }
            let company = reach.wait_for(|r| r.peers > 0);
            if tokio::time::timeout(self.0.patience.lonely, company).await.is_err() {
                return;
            }
        }
    }

    /// Fetches `range` and resolves when all of it is here. Dropping the future ends the wish.
    pub fn download(
        &self,
        range: Range<u64>,
        linear: bool,
    ) -> BoxFuture<'static, Result<(), SourceError>> {
        let handle = self.clone();
        Box::pin(async move {
            if lock(&handle.0.core).next_missing(range.clone()).is_none() {
                return Ok(());
            }
            let id = handle.0.ranges.fetch_add(1, Ordering::Relaxed);
            let (done, wait) = oneshot::channel();
            lock(&handle.0.waiters).ranges.insert(id, done);
            let _guard = RangeGuard { handle: &handle, id };
            handle.wish(Wish::Range { core: handle.discovery_key(), id, range, linear });
            let mut closed = handle.0.closed.subscribe();
            tokio::select! {
                done = wait => done.map_err(|_| SourceError::Closed),
                failed = handle.failed() => Err(failed),
                _ = closed.wait_for(|c| *c) => Err(SourceError::Closed),
            }
        })
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
        let wanted = {
            let waiters = lock(&self.0.waiters);
            waiters.blocks.contains_key(&index) || !waiters.prefetches.is_empty()
        };
        // Of an encrypted core the plaintext is cached, by whoever decrypts it first. A small block would keep
        // the frame that it came in.
        if wanted && stored.len() >= MIN_ARRIVED && self.core().padding() == 0 {
            self.0.cache.insert(self.0.id, index, stored);
        }
    }

    /// A verified block arrived.
    pub fn on_block(&self, index: u64) {
        let woken = {
            let mut waiters = lock(&self.0.waiters);
            waiters.hints.fulfil(index);
            waiters.blocks.remove(&index)
        };
        for waiter in woken.into_iter().flatten() {
            let _ = waiter.send(());
        }
    }

    /// All blocks of a range are here.
    pub fn on_range(&self, id: u64) {
        let mut waiters = lock(&self.0.waiters);
        waiters.prefetches.retain(|&p| p != id);
        if let Some(waiter) = waiters.ranges.remove(&id) {
            let _ = waiter.send(());
        }
    }

    /// The nodes that a seek needed are here.
    pub fn on_seek(&self, bytes: u64) {
        let woken = lock(&self.0.waiters).seeks.remove(&bytes);
        for waiter in woken.into_iter().flatten() {
            let _ = waiter.send(());
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

    fn wish(&self, wish: Wish) {
        // The hub's thread is gone only at shutdown; waits then end by `closed`.
        let _ = self.0.wishes.send(wish);
    }

    /// Waits for `woken`, for the deadline, for loneliness or for the end, whichever is first.
    async fn wait(&self, woken: oneshot::Receiver<()>, what: u64) -> Result<(), SourceError> {
        let deadline = Instant::now() + self.0.patience.read;
        let mut closed = self.0.closed.subscribe();
        tokio::select! {
            biased;
            done = woken => done.map_err(|_| SourceError::Closed),
            _ = closed.wait_for(|c| *c) => Err(SourceError::Closed),
            failed = self.failed() => Err(failed),
            () = sleep_until(deadline) => Err(SourceError::TimedOut(what)),
            () = self.deserted() => Err(SourceError::TimedOut(what)),
        }
    }

    async fn fetch(self, index: u64) -> Result<Bytes, SourceError> {
        self.reaches(index).await?;
        loop {
            let (done, woken) = oneshot::channel();
            // Registered before the look, so that a block that arrives in between wakes us.
            let first = {
                let mut waiters = lock(&self.0.waiters);
                let list = waiters.blocks.entry(index).or_default();
                list.retain(|w| !w.is_closed());
                list.push(done);
                list.len() == 1
            };
            let _guard = BlockGuard { handle: &self, index };
            if let Some(block) = self.try_block(index)? {
                return Ok(block);
            }
            if first {
                self.wish(Wish::Block { core: self.0.discovery_key, index, urgent: true });
            }
            self.wait(woken, index).await?;
        }
    }

    /// Waits until the verified length covers block `index`. An entry may name blocks of another core whose
    /// own upgrade is still on its way; one that names blocks no peer knows of must not wait for long.
    async fn reaches(&self, index: u64) -> Result<(), SourceError> {
        let mut versions = self.versions();
        let mut closed = self.0.closed.subscribe();
        tokio::select! {
            biased;
            _ = versions.wait_for(|version| version.length > index) => Ok(()),
            _ = closed.wait_for(|c| *c) => Err(SourceError::Closed),
            () = self.deserted() => Err(SourceError::TimedOut(index)),
            () = tokio::time::sleep(UPGRADE_WAIT.min(self.0.patience.read)) => {
                Err(SourceError::OutOfRange { index, length: self.length() })
            }
        }
    }
}

impl CoreHandle {
    /// Asks for a few blocks that nobody waits for yet.
    fn hint(&self, blocks: Range<u64>) {
        let core = self.0.discovery_key;
        let missing: Vec<u64> = {
            let here = self.core();
            blocks.filter(|&index| index < here.length() && !here.has(index)).collect()
        };
        for index in missing {
            let (new, excess) = {
                let mut waiters = lock(&self.0.waiters);
                (waiters.hints.add(index), waiters.hints.excess())
            };
            if new {
                self.wish(Wish::Block { core, index, urgent: false });
            }
            if let Some(index) = excess {
                self.wish(Wish::ForgetBlock { core, index });
            }
        }
    }
}

/// Ends the wish for a block when its last waiter is gone.
struct BlockGuard<'a> {
    handle: &'a CoreHandle,
    index: u64,
}

impl Drop for BlockGuard<'_> {
    fn drop(&mut self) {
        let mut waiters = lock(&self.handle.0.waiters);
        let Some(list) = waiters.blocks.get_mut(&self.index) else { return };
        list.retain(|w| !w.is_closed());
        if list.is_empty() {
            waiters.blocks.remove(&self.index);
            let core = self.handle.0.discovery_key;
            self.handle.wish(Wish::ForgetBlock { core, index: self.index });
        }
    }
}

struct RangeGuard<'a> {
    handle: &'a CoreHandle,
    id: u64,
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        if lock(&self.handle.0.waiters).ranges.remove(&self.id).is_some() {
            let core = self.handle.0.discovery_key;
            self.handle.wish(Wish::ForgetRange { core, id: self.id });
        }
    }
}

fn storage(error: impl std::fmt::Display) -> SourceError {
    SourceError::Storage(error.to_string())
}

impl BlockSource for CoreHandle {
    fn length(&self) -> u64 {
        self.0.version.borrow().length
    }

    fn fork(&self) -> u64 {
        self.0.version.borrow().fork
    }

    fn byte_length(&self) -> u64 {
        self.core().byte_length()
    }

    fn has(&self, index: u64) -> bool {
        self.core().has(index)
    }

    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError> {
        if let Some(block) = self.0.cache.get(self.0.id, index) {
            return Ok(Some(block));
        }
        // Blocks that a clear takes away between the look and the read are looked for once more.
        let mut block = None;
        for _ in 0..2 {
            let place = {
                let core = self.core();
                if index >= core.length() && core.writable() {
                    return Err(SourceError::OutOfRange { index, length: core.length() });
                }
                core.locate(index).map_err(storage)?
            };
            let Some(place) = place else { return Ok(None) };
            block = place.read().map_err(storage)?;
            if block.is_some() {
                break;
            }
        }
        if let Some(block) = &block {
            self.0.cache.insert(self.0.id, index, block.clone());
        }
        Ok(block)
    }

    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>> {
        match self.try_block(index) {
            Ok(Some(block)) => Box::pin(std::future::ready(Ok(block))),
            Ok(None) => Box::pin(self.clone().fetch(index)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn prefetch(&self, indexes: &[u64]) {
        let mut start = 0;
        while let Some(&first) = indexes.get(start) {
            let run = indexes[start..].iter().zip(first..).take_while(|(i, n)| **i == *n).count();
            match run {
                MIN_RUN.. => self.prefetch_range(first, first + run as u64),
                _ => self.hint(first..first + run as u64),
            }
            start += run;
        }
    }

    fn prefetch_range(&self, start: u64, end: u64) {
        let Some(first) = self.core().next_missing(start..end) else { return };
        let id = self.0.ranges.fetch_add(1, Ordering::Relaxed);
        let core = self.0.discovery_key;
        let oldest = {
            let mut waiters = lock(&self.0.waiters);
            waiters.prefetches.push_back(id);
            (waiters.prefetches.len() > MAX_PREFETCHES)
                .then(|| waiters.prefetches.pop_front())
                .flatten()
        };
        if let Some(id) = oldest {
            self.wish(Wish::ForgetRange { core, id });
        }
        self.wish(Wish::Range { core, id, range: first..end, linear: true });
    }

    fn release(&self, index: u64) {
        self.0.cache.remove(self.0.id, index);
    }

    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>> {
        let handle = self.clone();
        Box::pin(async move {
            loop {
                let (done, woken) = oneshot::channel();
                lock(&handle.0.waiters).seeks.entry(byte).or_default().push(done);
                match handle.core().seek(byte).map_err(storage)? {
                    SeekResult::Found { block, offset } => return Ok((block, offset)),
                    SeekResult::Need { .. } => {}
                    SeekResult::PastEnd => {
                        let length = handle.length();
                        return Err(SourceError::OutOfRange { index: length, length });
                    }
                }
                handle.wish(Wish::Seek { core: handle.0.discovery_key, bytes: byte });
                handle.wait(woken, byte).await?;
            }
        })
    }

    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError> {
        self.core().block_offset(index).map_err(storage)
    }
}

impl BlockLog for CoreHandle {
    fn writable(&self) -> bool {
        self.core().writable()
    }

    fn append(&self, blocks: Vec<Bytes>) -> Result<u64, SourceError> {
        if !self.writable() {
            return Err(SourceError::ReadOnly);
        }
        let first = {
            let _turn = lock(&self.0.appending);
            self.core().append(&blocks, Durability::Durable).map_err(storage)?
        };
        self.announce_change();
        Ok(first)
    }

    fn begin(&self) -> Result<Box<dyn Append + '_>, SourceError> {
        if !self.writable() {
            return Err(SourceError::ReadOnly);
        }
        Ok(Box::new(Appending::begin(self)?))
    }
}

#[cfg(test)]
mod tests;
