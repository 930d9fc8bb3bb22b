//! The joint of the two wings: a store of drives on a network of peers.
//!
//! A [`Node`] owns everything one process does for a store. It knows drives and topics, and nothing of
//! commands and mounts. The network starts when the first drive needs it; until then nothing is sent.

#![allow(clippy::disallowed_methods, reason = "where the machines meet the clock and the runtime")]

mod aside;
mod backlog;
mod chronicle;
mod claims;
mod contents;
mod cores;
mod discovery;
mod drafts;
mod drive_names;
mod drives;
mod forget;
mod gc;
mod offenders;
mod online;
mod pump;
mod ties;
mod told;
mod wish_ids;
mod writer;

pub use chronicle::{Seen, last_until, out_of_order};
pub use contents::Survey;
pub use drafts::{Drafting, QUIET, Trouble};
pub use drives::{DriveId, DriveState, DriveUse, Purpose};
pub use forget::{ForgetError, Forgotten};
pub use gc::{Garbage, GcError, Keep, StoredDrive, StoredDrives};
pub use online::{PortWish, Relaying};

use crate::hyper::cache::BlockCache;
use crate::hyper::core::storage::{self, Storage, StorageError};
use crate::hyper::core::{Core, CoreError};
use crate::hyper::draft::DraftError;
use crate::hyper::drive::{LiveDrive, LiveError};
use crate::hyper::replication::PeerInfo;
use crate::hyper::session::Patience;
use crate::hyper::store::Store;
use crate::key::{CoreKey, DiscoveryKey, PublicKey, Topic};
use crate::lock::lock;
use crate::swarm::SwarmStatus;
use crate::swarm::driver::BootstrapNode;
use claims::{Claims, Turns};
pub use claims::{Clearing, Turn, Writer, Writing};
use cores::Cores;
use discovery::Discovery;
use drafts::Drafts;
use drives::Drives;
use online::{Offline, Online};
use pump::Question;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

/// What is downloaded becomes durable this often; a crash costs at most as much of it to fetch again.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Directory of the store; it exists.
    pub store: PathBuf,
    /// DHT nodes to start from.
    pub bootstrap: Vec<BootstrapNode>,
    /// Local address of this peer; port 0 for any.
    pub local: SocketAddrV4,
    /// Bytes of verified blocks kept in memory.
    pub cache_memory: u64,
    pub patience: Patience,
    /// Relays to go through where there is no direct way.
    pub relays: Vec<PublicKey>,
    /// Look for peers on the local networks as well.
    pub lan: bool,
    /// Somebody knows that this store is the newest copy, whatever it looks like.
    pub trust_store: bool,
}

impl NodeConfig {
    pub fn new(store: &Path) -> Self {
        Self {
            store: store.to_path_buf(),
            bootstrap: Vec::new(),
            local: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0),
            cache_memory: 64 << 20,
            patience: Patience::default(),
            relays: Vec::new(),
            lan: false,
            trust_store: false,
        }
    }
}

/// Why a node could not do something.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("the store {path}: {source}")]
    Store { path: PathBuf, source: CoreError },
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error(transparent)]
    Drive(#[from] LiveError),
    /// What was changed could not be published.
    #[error("{0}")]
    Draft(Arc<DraftError>),
    #[error("cannot open a UDP socket at {at}: {source}")]
    Socket { at: SocketAddrV4, source: std::io::Error },
    #[error("{0}")]
    Thread(std::io::Error),
    #[error("{FAULT}")]
    Fault,
    #[error("the process that works on the store ends")]
    Ends,
    #[error(
        "drive {key}: this store is older than what was published: a peer has more of the drive than was here. \
         Nothing was written. The store is being brought up to date from that peer; run the command again"
    )]
    Outdated { key: CoreKey },
    #[error(
        "drive {key}: this store is a copy or was restored from one, and no peer could be asked whether a newer \
         version was published: writing now could split the drive for its readers. Nothing was written. Run the \
         command again while somebody who has the drive is online; if you know that this is the newest copy, pass \
         --trust-store"
    )]
    Unasked { key: CoreKey },
    #[error(
        "drive {key}: two different histories of it were published, by this store and by a copy of it, and its readers \
         can follow only one of them. Nothing was written. Decide which copy of the store goes on: `hdrive forget {key}` \
         in the other one, and pass --trust-store once in this one; or make a new drive with `hdrive create` and put the \
         files there"
    )]
    TwoHistories { key: CoreKey },
}

/// What is told of a panic, whose own words are for who mends it.
pub const FAULT: &str = "it met a fault of hdrive itself: please report it";

impl NodeError {
    /// Work on another thread or task that came to no result.
    fn of_task(error: JoinError) -> Self {
        if error.is_panic() { Self::Fault } else { Self::Ends }
    }
}

impl NodeError {
    /// The store is open in another process, be it one that is on its way out.
    pub fn is_busy(&self) -> bool {
        let Self::Store { source: CoreError::Storage(error), .. } = self else { return false };
        error.is_busy()
    }

    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Core(CoreError::Storage(error)) if error.is_disk_full())
    }
}

impl From<DraftError> for NodeError {
    fn from(error: DraftError) -> Self {
        Self::Draft(Arc::new(error))
    }
}

impl From<StorageError> for NodeError {
    fn from(error: StorageError) -> Self {
        Self::Core(error.into())
    }
}

pub struct Node {
    config: NodeConfig,
    store: Arc<Store>,
    discovery: Arc<Discovery>,
    cores: Arc<Cores>,
    drives: Arc<Drives>,
    /// What is wished for before the network starts, taken by it.
    offline: Mutex<Option<Offline>>,
    /// Nothing in it once the node is shut down.
    online: OnceCell<Option<Online>>,
    /// Where peers may be, told before the network runs.
    told: Mutex<told::Told>,
    /// Held by who looks at names and then changes them.
    names: Mutex<()>,
    claims: Claims,
    turns: Turns,
    drafts: Drafts,
    flusher: JoinHandle<((), ())>,
    /// By how many it is asked to be a relay.
    relaying: Mutex<usize>,
    /// By how many a port of the gateway is wanted.
    port_wishes: Mutex<usize>,
}

impl Node {
    /// Opens the store.
    pub async fn start(config: NodeConfig) -> Result<Arc<Self>, NodeError> {
        let path = &config.store;
        let storage = storage::open_disk(path)
            .map_err(|error| NodeError::Store { path: path.clone(), source: error.into() })?;
        Self::start_on(storage, config).await
    }

    /// The same on a storage that is open.
    async fn start_on(
        storage: Arc<dyn Storage>,
        config: NodeConfig,
    ) -> Result<Arc<Self>, NodeError> {
        let failed = |source| NodeError::Store { path: config.store.clone(), source };
        if config.trust_store {
            Core::trust_all(&storage).map_err(failed)?;
        }
        let cache = Arc::new(BlockCache::new(config.cache_memory as usize));
        let (wish, wishes) = mpsc::unbounded_channel();
        let cores = Arc::new(Cores::new(wish.clone()));
        let store = Store::open(storage, cache, wish, config.patience).map_err(failed)?;
        let store = Arc::new(store);
        let discovery = Arc::<Discovery>::default();
        let drives = Drives::new(store.clone(), discovery.clone(), cores.clone());
        let (flushed, noted) = (store.clone(), store.clone());
        let flusher = tokio::spawn(async {
            tokio::join!(flush_now_and_then(flushed), sync_witness_now_and_then(noted))
        });
        Ok(Arc::new(Self {
            config,
            store,
            discovery,
            cores,
            drives,
            offline: Mutex::new(Some(Offline::start(wishes))),
            online: OnceCell::new(),
            told: Mutex::default(),
            names: Mutex::default(),
            claims: Claims::default(),
            turns: Turns::default(),
            drafts: Drafts::default(),
            flusher,
            relaying: Mutex::new(0),
            port_wishes: Mutex::new(0),
        }))
    }

    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Somebody knows that this store is the newest copy, whatever it looks like, and that its drives go on from here. What
    /// peers have more of them is taken all the same.
    pub async fn trust_store(&self) -> Result<(), NodeError> {
        let store = self.store.clone();
        on_disk(move || {
            // Before the cores: one that is opened meanwhile inherits nothing any more.
            Core::trust_all(store.storage())?;
            Ok(store.handles().iter().try_for_each(|handle| handle.core().trust_store())?)
        })
        .await
    }

    /// The drive with this key for as long as the answer is held, found among peers; with `serve` it is announced
    /// as well.
    pub async fn drive(
        self: &Arc<Self>,
        key: CoreKey,
        secret: Option<[u8; 32]>,
        at: Option<u64>,
        serve: bool,
    ) -> Result<DriveUse, NodeError> {
        let purpose = if serve { Purpose::Serve } else { Purpose::Read };
        let drive = self.open_drive((key, at), secret, purpose).await?;
        self.online().await?;
        Ok(drive)
    }

    /// Opens a drive on a thread that may wait for the disk: cores are looked through after an unclean end.
    async fn open_drive(
        &self,
        id: drives::DriveId,
        secret: Option<[u8; 32]>,
        purpose: Purpose,
    ) -> Result<DriveUse, NodeError> {
        let drives = self.drives.clone();
        on_disk(move || Ok(drives.use_drive(id, secret, purpose)?)).await
    }

    /// The same without looking for peers: what is here.
    pub async fn drive_offline(
        &self,
        key: CoreKey,
        secret: Option<[u8; 32]>,
        at: Option<u64>,
    ) -> Result<DriveUse, NodeError> {
        self.open_drive((key, at), secret, Purpose::Local).await
    }

    /// Makes the caller the one that brings a drive up to a folder, until the claim is dropped.
    ///
    /// # Errors
    /// Who writes the drive already.
    pub fn claim_following(&self, key: CoreKey) -> Result<Writing, Writer> {
        self.claims.follow(key)
    }

    /// Keeps the drive from being made to follow a folder, until the claim is dropped; none if it is followed by a share.
    pub fn claim_changing(&self, key: CoreKey) -> Option<Writing> {
        self.claims.change(key)
    }

    /// To be had from the look at a drive of ours until the contents that are written have names: they are not
    /// cleared meanwhile.
    pub async fn turn_to_write(&self, key: CoreKey) -> Turn {
        self.turns.write(key).await
    }

    /// To be had while a drive is looked through and cleared; none if it is being written and goes on to be.
    pub async fn turn_to_clear(&self, key: CoreKey) -> Option<Clearing> {
        self.turns.clear(key, claims::PATIENCE).await
    }

    /// When versions of a drive were first here, as far as that was noted.
    pub fn seen(&self, key: CoreKey) -> Result<Vec<Seen>, NodeError> {
        Ok(chronicle::seen(&self.store, &key)?)
    }

    /// Notes that the present version of a drive was written just now.
    pub fn note_version(&self, drive: &LiveDrive) {
        chronicle::note(&self.store, drive.db());
    }

    /// Drives that are open now.
    pub fn open_drives(&self) -> Vec<DriveState> {
        self.drives.states()
    }

    /// The peers of a core; none while offline.
    pub async fn peers(&self, core: DiscoveryKey) -> Vec<PeerInfo> {
        let Some(online) = self.running() else { return Vec::new() };
        let (answer, peers) = oneshot::channel();
        let _ = online.questions.send(Question { core, answer });
        peers.await.unwrap_or_default()
    }

    /// The state of the network; none while offline.
    pub async fn network_status(&self) -> Option<SwarmStatus> {
        self.running()?.network.status().await
    }

    /// Waits until the first announcement of a topic is out, or until `limit` is over.
    pub async fn announced(&self, topic: Topic, limit: Duration) -> bool {
        self.discovery.announced(topic, limit).await
    }

    /// Ends all waits, leaves the network in good order, and makes everything durable.
    pub async fn shutdown(&self) {
        self.drives.shutdown();
        self.flusher.abort();
        self.go_offline().await;
        let store = self.store.clone();
        let work = move || store.flush().and_then(|()| Ok(store.storage().sync()?));
        let flushed = tokio::task::spawn_blocking(work).await;
        // Where a change was refused, who asked for it was told, and a core tells what is lost with it.
        if let Ok(Err(error)) = flushed
            && !error.is_echo()
            && !error.is_refusal()
        {
            tracing::error!("the store could not be written at the end: {}", error.cause());
        }
    }
}

/// Does what may wait for the disk, on a thread that nobody else waits for.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, NodeError> {
    tokio::task::spawn_blocking(work).await.map_err(NodeError::of_task)?
}

/// Tells once what keeps the store from being written, until that changes.
async fn flush_now_and_then(store: Arc<Store>) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        let store = store.clone();
        let work = move || {
            let flushed = store.flush();
            store.close_unused();
            flushed
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => told.clear(),
            Ok(Err(error)) => {
                let problem = error.to_string();
                if problem != told {
                    tracing::error!("the store cannot be written: {problem}");
                    told = problem;
                }
            }
            Err(_) => return,
        }
    }
}

/// Makes the store's note of its last change durable, whatever else waits for the device: it must not lag behind.
async fn sync_witness_now_and_then(store: Arc<Store>) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        let store = store.clone();
        if tokio::task::spawn_blocking(move || store.storage().sync_witness()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
