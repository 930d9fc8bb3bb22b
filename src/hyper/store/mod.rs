//! Corestore: every core of a store, opened once, found by name, by key or by discovery key.
//!
//! A store has one primary key; cores made by name have key pairs derived from it (`names.rs`). Cores
//! known by key alone are readers. An open core stays open for as long as somebody holds its handle, and until the
//! next [`Store::close_unused`].
//!
//! Source: corestore/index.js

pub mod names;

use super::cache::BlockCache;
use super::core::manifest::Manifest;
use super::core::storage::{Records, Storage, Writes};
use super::core::{Core, CoreError, CreateOptions, Secrecy, SharedCore};
use super::local::is_staging;
use super::session::{CoreHandle, Patience, Wish};
use crate::crypto::KeyPair;
use crate::key::{CoreKey, DiscoveryKey};
use crate::lock::lock;
pub use names::Namespace;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;

/// All cores of one directory.
pub struct Store {
    storage: Arc<dyn Storage>,
    primary: [u8; 32],
    open: Mutex<BTreeMap<DiscoveryKey, CoreHandle>>,
    cache: Arc<BlockCache>,
    wishes: mpsc::UnboundedSender<Wish>,
    patience: Patience,
}

impl Store {
    /// Opens the store on `storage` and makes its primary key the first time.
    pub fn open(
        storage: Arc<dyn Storage>,
        cache: Arc<BlockCache>,
        wishes: mpsc::UnboundedSender<Wish>,
        patience: Patience,
    ) -> Result<Self, CoreError> {
        let primary = Records::new(storage.clone()).primary_key()?;
        Ok(Self { storage, primary, open: Mutex::default(), cache, wishes, patience })
    }

    /// The small records of the store.
    pub fn records(&self) -> Records {
        Records::new(self.storage.clone())
    }

    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The key pair of core `name` in `space`; the same each time.
    pub fn key_pair(&self, space: &Namespace, name: &str) -> KeyPair {
        names::key_pair(&self.primary, space, name)
    }

    /// The writable core `name` in `space`, made if it does not exist.
    pub fn named(
        &self,
        space: &Namespace,
        name: &str,
        encryption_key: Option<[u8; 32]>,
    ) -> Result<CoreHandle, CoreError> {
        let pair = self.key_pair(space, name);
        let manifest = Manifest::single(pair.public());
        self.signed(manifest, pair, encryption_key)
    }

    /// The core of `manifest`, writable with `pair`.
    pub fn signed(
        &self,
        manifest: Manifest,
        pair: KeyPair,
        encryption_key: Option<[u8; 32]>,
    ) -> Result<CoreHandle, CoreError> {
        self.open_with(CreateOptions {
            key: manifest.key(),
            manifest: Some(manifest),
            key_pair: Some(pair),
            encryption_key,
        })
    }

    /// The core with this key: whatever of it is here, and the rest from peers.
    pub fn by_key(
        &self,
        key: CoreKey,
        encryption_key: Option<[u8; 32]>,
    ) -> Result<CoreHandle, CoreError> {
        self.open_with(CreateOptions { key, manifest: None, key_pair: None, encryption_key })
    }

    /// Takes what is said of the encryption of an open core.
    pub fn say_secrecy(&self, core: &CoreHandle, said: Secrecy) -> Result<(), CoreError> {
        let news = core.core().say_secrecy(said)?;
        self.forget_plain(core, news);
        Ok(())
    }

    /// Takes what the content of a core has proven of its encryption.
    pub fn settle_secrecy(
        &self,
        core: &CoreHandle,
        key: Option<[u8; 32]>,
    ) -> Result<(), CoreError> {
        let news = core.core().settle_secrecy(key)?;
        self.forget_plain(core, news);
        Ok(())
    }

    /// Blocks in memory were opened with what was believed before.
    fn forget_plain(&self, core: &CoreHandle, news: bool) {
        if news {
            let id = core.core().id();
            self.cache.remove_core(id);
        }
    }

    /// Whether this store has the secret key of a core.
    pub fn writes(&self, key: &CoreKey) -> Result<bool, CoreError> {
        let core = self.stored(&key.discovery_key())?;
        Ok(core.is_some_and(|core| core.core().key_pair().is_some()))
    }

    fn open_with(&self, options: CreateOptions) -> Result<CoreHandle, CoreError> {
        let mut open = self.lock();
        let id = options.key.discovery_key();
        if let Some(handle) = open.get(&id) {
            handle.core().learn(options)?;
            return Ok(handle.clone());
        }
        let core = Core::create(&self.storage, options)?;
        Ok(self.keep(&mut open, core))
    }

    /// The core with this discovery key if it is open or stored: what a peer may ask us to serve.
    pub fn stored(&self, id: &DiscoveryKey) -> Result<Option<CoreHandle>, CoreError> {
        let mut open = self.lock();
        if let Some(handle) = open.get(id) {
            return Ok(Some(handle.clone()));
        }
        let core = Core::open(&self.storage, id)?;
        Ok(core.map(|core| self.keep(&mut open, core)))
    }

    fn keep(&self, open: &mut BTreeMap<DiscoveryKey, CoreHandle>, core: Core) -> CoreHandle {
        let id = *core.discovery_key();
        let shared: SharedCore = Arc::new(Mutex::new(core));
        let handle =
            CoreHandle::new(shared, self.cache.clone(), self.wishes.clone(), self.patience);
        open.insert(id, handle.clone());
        handle
    }

    /// All open cores.
    pub fn handles(&self) -> Vec<CoreHandle> {
        self.lock().values().cloned().collect()
    }

    /// Makes what is only in memory durable (heads and bits of downloaded blocks). A core is held for the transaction, and
    /// not while its files are synced, which takes longer. Every core is tried; the first error is returned.
    pub fn flush(&self) -> Result<(), CoreError> {
        let mut result = Ok(());
        for handle in self.handles() {
            let flushed = Self::flush_core(&handle);
            if result.is_ok() {
                result = flushed;
            }
        }
        result
    }

    /// Closes the cores whose handles nobody holds any more, hub included. What is not durable yet waits for the
    /// next time.
    pub fn close_unused(&self) {
        // Under the lock a handle that only the list holds cannot be given to anybody.
        self.lock().retain(|_, handle| {
            let closing = handle.is_unused() && !handle.core().has_changes();
            if closing {
                self.cache.remove_core(handle.core().id());
            }
            !closing
        });
    }

    /// Whether somebody holds the handle of one of these cores.
    pub fn are_used(&self, ids: &[DiscoveryKey]) -> bool {
        let open = self.lock();
        ids.iter().filter_map(|id| open.get(id)).any(|handle| !handle.is_unused())
    }

    /// Makes cores of which the store has nothing yet, and `writes`: all or nothing, durably. None if it has something
    /// of one.
    pub fn create(
        &self,
        all: Vec<(CreateOptions, Secrecy)>,
        writes: Writes,
    ) -> Result<Option<Vec<CoreHandle>>, CoreError> {
        // Under the lock, so that nobody makes one meanwhile.
        let mut open = self.lock();
        for (options, _) in &all {
            let id = options.key.discovery_key();
            if open.contains_key(&id) || Core::is_stored(&self.storage, &id)? {
                return Ok(None);
            }
        }
        let cores = Core::create_all(&self.storage, all, writes)?;
        Ok(Some(cores.into_iter().map(|core| self.keep(&mut open, core)).collect()))
    }

    /// Deletes cores with their bytes, and makes `writes`: all or nothing, durably. False if somebody has one open.
    /// What of them is in memory only is lost, as by an unclean end: on a full disk it could not be written.
    pub fn remove(&self, ids: &[DiscoveryKey], writes: Writes) -> Result<bool, CoreError> {
        // Under the lock, so that nobody opens one meanwhile.
        let mut open = self.lock();
        let used = |id| open.get(id).is_some_and(|handle| !handle.is_unused());
        if ids.iter().any(used) {
            return Ok(false);
        }
        for handle in ids.iter().filter_map(|id| open.remove(id)) {
            self.cache.remove_core(handle.core().id());
        }
        Core::remove_all(&self.storage, ids, writes).map(|()| true)
    }

    /// Deletes files that no core has a record of: of cores that an end came before, or an older version of this
    /// program left. Returns their bytes; with `only_look` they stay. None where the store may be an older copy: then
    /// they may be what is newer.
    pub fn remove_strays(&self, only_look: bool) -> Result<Option<u64>, CoreError> {
        if self.storage.doubts().copied.is_some() {
            return Ok(None);
        }
        let mut freed = 0;
        for (id, bytes) in self.storage.cores_with_files()? {
            // Under the lock, so that nobody makes the core meanwhile.
            let open = self.lock();
            let staged = is_staging(&id);
            if staged || open.contains_key(&id) || Core::is_stored(&self.storage, &id)? {
                continue;
            }
            if !only_look {
                self.storage.remove_files(&id)?;
            }
            freed += bytes;
        }
        Ok(Some(freed))
    }

    fn flush_core(handle: &CoreHandle) -> Result<(), CoreError> {
        let Some(flush) = handle.core().begin_flush()? else { return Ok(()) };
        let synced = flush.sync();
        handle.core().finish_flush(flush, synced)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiscoveryKey, CoreHandle>> {
        lock(&self.open)
    }
}
