//! The open drives of a node, who uses each, and what follows from that.
//!
//! Whoever works with a drive holds a [`DriveUse`]; dropping it, on whatever path, ends the use. While a drive is
//! used by somebody who serves it, it is announced; while anybody looks for its peers, its topic is joined. The
//! drive of the last use closes: its topic is left, its cores leave the hub, and the store lets go of them with its
//! next look ([`Store::close_unused`]). One that was only read stays for [`LINGER`], so that a row of commands
//! does not look for its peers each time; one that was served goes at once, since whoever ends a share means it.

use super::chronicle;
use super::cores::Cores;
use super::discovery::Discovery;
use super::lock;
use crate::hyper::drive::{LiveDrive, LiveError};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::{BlockSource, SourceError};
use crate::hyper::store::Store;
use crate::key::{CoreKey, Topic};
use crate::swarm::JoinOptions;
use crate::swarm::driver::NetworkHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A drive that was read stays open for this long after its last use.
const LINGER: Duration = Duration::from_secs(5);

/// A drive is opened by key and, if fixed, by version.
pub type DriveId = (CoreKey, Option<u64>);

/// What a drive is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// For what is here of it.
    Local,
    /// To be read: its peers are looked for.
    Read,
    /// To be served: it is announced as well.
    Serve,
}

/// An open drive as a person may want to see it.
pub struct DriveState {
    pub drive: Arc<LiveDrive>,
    pub version: Option<u64>,
    pub served: bool,
    /// Commands, mounts and shares that use it; with none it is about to close.
    pub uses: usize,
    /// The oldest version that a command which reads may still want something of.
    pub since: Option<u64>,
}

/// See the module.
pub struct Drives {
    store: Arc<Store>,
    discovery: Arc<Discovery>,
    cores: Arc<Cores>,
    runtime: Handle,
    network: OnceLock<NetworkHandle>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    drives: BTreeMap<DriveId, Opened>,
    /// Joined topics, by the drive's key.
    topics: BTreeMap<CoreKey, JoinOptions>,
    /// Counts openings, ends of uses and closings, so that a timer knows whether it is still meant.
    turns: u64,
}

struct Opened {
    drive: Arc<LiveDrive>,
    task: JoinHandle<()>,
    /// The cores that it was introduced with; one may be named twice.
    cores: Arc<Mutex<Vec<CoreHandle>>>,
    uses: usize,
    /// Versions of the names when those began who read; they stay with what they saw first.
    since: Vec<u64>,
    serving: usize,
    /// Somebody looked for its peers.
    joined: bool,
    /// Tells this opening of the drive from others.
    opening: u64,
    /// When the last use ended, in turns.
    idle: u64,
}

/// A drive for as long as this lives.
pub struct DriveUse {
    drives: Arc<Drives>,
    drive: Arc<LiveDrive>,
    id: DriveId,
    opening: u64,
    purpose: Purpose,
    since: Option<u64>,
}

impl Deref for DriveUse {
    type Target = LiveDrive;

    fn deref(&self) -> &LiveDrive {
        &self.drive
    }
}

impl Drop for DriveUse {
    fn drop(&mut self) {
        self.drives.end_use(self);
    }
}

impl Open {
    /// In which roles the topic of a drive is to be joined; all versions of it share one.
    fn wanted(&self, key: CoreKey) -> Option<JoinOptions> {
        let of_key =
            || self.drives.iter().filter(|((k, _), _)| *k == key).map(|(_, opened)| opened);
        let server = of_key().any(|opened| opened.serving > 0);
        of_key().any(|opened| opened.joined).then_some(JoinOptions { server, client: true })
    }
}

impl Drives {
    /// Call it inside the runtime that the drives are to be followed in.
    pub fn new(store: Arc<Store>, discovery: Arc<Discovery>, cores: Arc<Cores>) -> Arc<Self> {
        Arc::new(Self {
            store,
            discovery,
            cores,
            runtime: Handle::current(),
            network: OnceLock::new(),
            open: Mutex::default(),
        })
    }

    /// Opens a drive, or takes part in one that is open. Peers are looked for once the network runs.
    pub fn use_drive(
        self: &Arc<Self>,
        id: DriveId,
        secret: Option<[u8; 32]>,
        purpose: Purpose,
    ) -> Result<DriveUse, LiveError> {
        let mut open = lock(&self.open);
        match open.drives.get(&id) {
            Some(opened) => opened.drive.offer_key(secret)?,
            // Opening it looks at the key as well.
            None => {
                let opened = self.open(&mut open, id, secret)?;
                open.drives.insert(id, opened);
            }
        }
        let Some(opened) = open.drives.get_mut(&id) else { return Err(LiveError::NoPeers) };
        opened.uses += 1;
        let since = (purpose == Purpose::Read).then(|| {
            // An index that is not loaded yet will be of this length or a later one.
            let index = opened.drive.index();
            index.map_or_else(|| opened.drive.db().length(), |index| index.version())
        });
        opened.since.extend(since);
        opened.serving += usize::from(purpose == Purpose::Serve);
        opened.joined |= purpose >= Purpose::Read;
        let (drive, opening) = (opened.drive.clone(), opened.opening);
        if purpose >= Purpose::Read && drive.db().reach().borrow().peers == 0 {
            self.look_again(&mut open, id.0);
        }
        self.settle(&mut open, id.0);
        Ok(DriveUse { drives: self.clone(), drive, id, opening, purpose, since })
    }

    fn open(
        &self,
        open: &mut Open,
        (key, at): DriveId,
        secret: Option<[u8; 32]>,
    ) -> Result<Opened, LiveError> {
        let topic = Topic::from(key.discovery_key());
        let cores = Arc::new(Mutex::new(Vec::new()));
        let introduced = cores.clone();
        let (used, discovery) = (self.cores.clone(), self.discovery.clone());
        let introduce = move |core: &CoreHandle| {
            used.take(core);
            lock(&introduced).push(core.clone());
            discovery.watch(topic, core.clone());
        };
        let drive = Arc::new(LiveDrive::open(self.store.clone(), key, secret, at, introduce)?);
        let follower = drive.clone();
        let store = self.store.clone();
        let task = self.runtime.spawn(async move {
            let chronicle = chronicle::follow(&store, follower.db());
            tokio::join!(follower.follow(), chronicle, tell_two_histories(follower.db()));
        });
        open.turns += 1;
        let (opening, idle) = (open.turns, open.turns);
        Ok(Opened {
            drive,
            task,
            cores,
            uses: 0,
            since: Vec::new(),
            serving: 0,
            joined: false,
            opening,
            idle,
        })
    }

    /// The network runs: what was opened before joins now.
    pub fn go_online(&self, network: NetworkHandle) {
        let mut open = lock(&self.open);
        let _ = self.network.set(network);
        let keys: Vec<CoreKey> = open.drives.keys().map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.settle(&mut open, key));
    }

    /// Somebody new wants a drive that nobody was there for: that nobody was found before, be it a second ago, says nothing
    /// of now. Who is announced need not look, for others find it.
    fn look_again(&self, open: &mut Open, key: CoreKey) {
        let (wanted, joined) = (open.wanted(key), open.topics.get(&key).copied());
        if joined.is_some() && (joined != wanted || joined.is_some_and(|joined| !joined.server)) {
            self.discovery.look_again(Topic::from(key.discovery_key()));
            open.topics.remove(&key);
        }
    }

    /// Brings the topic of a drive into the roles that its uses ask for.
    fn settle(&self, open: &mut Open, key: CoreKey) {
        let Some(network) = self.network.get() else { return };
        let topic = Topic::from(key.discovery_key());
        let (wanted, joined) = (open.wanted(key), open.topics.get(&key).copied());
        if wanted == joined {
            return;
        }
        match wanted {
            Some(options) => {
                network.join(topic, options);
                open.topics.insert(key, options);
            }
            None => {
                network.leave(topic);
                open.topics.remove(&key);
            }
        }
        if joined.is_some_and(|joined| joined.server) {
            self.discovery.withdrawn(topic);
        }
    }

    fn end_use(self: &Arc<Self>, ended: &DriveUse) {
        let DriveUse { id, opening, purpose, since, .. } = *ended;
        let mut open = lock(&self.open);
        open.turns += 1;
        let turn = open.turns;
        let Some(opened) = open.drives.get_mut(&id).filter(|opened| opened.opening == opening)
        else {
            return;
        };
        opened.uses -= 1;
        if let Some(at) = opened.since.iter().position(|&version| Some(version) == since) {
            opened.since.remove(at);
        }
        opened.serving -= usize::from(purpose == Purpose::Serve);
        let unused = opened.uses == 0;
        if unused {
            opened.idle = turn;
        }
        self.settle(&mut open, id.0);
        drop(open);
        match (unused, purpose) {
            (false, _) => {}
            (true, Purpose::Serve) => self.close(id, turn),
            (true, _) => {
                let drives = self.clone();
                self.runtime.spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    drives.close(id, turn);
                });
            }
        }
    }

    /// Closes a drive whose last use ended in this turn, unless somebody uses it again.
    fn close(self: &Arc<Self>, id: DriveId, turn: u64) {
        let mut open = lock(&self.open);
        let idle = |opened: &Opened| opened.uses == 0 && opened.idle == turn;
        if !open.drives.get(&id).is_some_and(idle) {
            return;
        }
        let Some(opened) = open.drives.remove(&id) else { return };
        open.turns += 1;
        self.settle(&mut open, id.0);
        drop(open);
        tracing::debug!(drive = %crate::key::short(&id.0.0), "closed: nobody uses it");
        let drives = self.clone();
        self.runtime.spawn(async move {
            // It may introduce a core until it has ended.
            opened.task.abort();
            let _ = opened.task.await;
            chronicle::note(&drives.store, opened.drive.db());
            drives.cores.give_back(std::mem::take(&mut *lock(&opened.cores)));
            let open = lock(&drives.open);
            if !open.drives.keys().any(|(key, _)| *key == id.0) {
                drives.discovery.forget(Topic::from(id.0.discovery_key()));
            }
        });
    }

    /// What is in use now.
    pub fn in_use(&self) -> BTreeSet<DriveId> {
        used(&lock(&self.open)).collect()
    }

    /// Does it if nothing is in use but these, which stays so meanwhile. None if something is.
    pub fn if_only<T>(&self, known: &BTreeSet<DriveId>, act: impl FnOnce() -> T) -> Option<T> {
        let open = lock(&self.open);
        let only = used(&open).all(|id| known.contains(&id));
        only.then(act)
    }

    /// Counts openings, ends of uses and closings.
    pub fn uses_ever(&self) -> u64 {
        lock(&self.open).turns
    }

    /// The drives that are open now.
    pub fn states(&self) -> Vec<DriveState> {
        let state = |((_, version), opened): (&DriveId, &Opened)| DriveState {
            drive: opened.drive.clone(),
            version: *version,
            served: opened.serving > 0,
            uses: opened.uses,
            since: opened.since.iter().min().copied(),
        };
        lock(&self.open).drives.iter().map(state).collect()
    }

    /// Closes a drive now if nobody uses it any more. False if somebody does.
    pub fn close_unused(self: &Arc<Self>, key: CoreKey) -> bool {
        let idle: Vec<_> = {
            let open = lock(&self.open);
            let of_key = || open.drives.iter().filter(|((k, _), _)| *k == key);
            if of_key().any(|(_, opened)| opened.uses > 0) {
                return false;
            }
            of_key().map(|(id, opened)| (*id, opened.idle)).collect()
        };
        idle.into_iter().for_each(|(id, turn)| self.close(id, turn));
        true
    }

    /// Ends all waits, and all drives.
    pub fn shutdown(&self) {
        for opened in std::mem::take(&mut lock(&self.open).drives).into_values() {
            opened.drive.close();
            opened.task.abort();
            chronicle::note(&self.store, opened.drive.db());
        }
    }
}

fn used(open: &Open) -> impl Iterator<Item = DriveId> {
    open.drives.iter().filter(|(_, opened)| opened.uses > 0).map(|(id, _)| *id)
}

/// Says once that what is newest of a drive cannot be told.
async fn tell_two_histories(db: &CoreHandle) {
    let mut reach = db.reach();
    if reach.wait_for(|reach| reach.two_histories).await.is_ok() {
        tracing::error!("drive {}: {}", db.key(), SourceError::TwoHistories);
    }
}

#[cfg(test)]
#[path = "drives/tests.rs"]
mod tests;
