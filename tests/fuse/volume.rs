//! A volume in memory that can be told to be slow, silent, wrong or about to change.

use bytes::Bytes;
use hdrive::fs::volume::{
    BoxFuture, Changes, Entry, FileContent, Kind, MaybeLater, Result, Volume, VolumeError,
    VolumeInfo,
};
use hdrive::path::DrivePath;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Cut of the blocks that reads come in.
pub const BLOCK: usize = 65536;

/// How a name or a content behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Here,
    /// A peer has it and takes that long.
    After(Duration),
    /// No peer has it: the volume gives up after that long.
    Missing(Duration),
    /// Never answers at all, not even that it gave up.
    Never,
    /// Asked for the name, the handler waits itself, and its thread with it, until [`TestVolume::let_go`].
    Stuck,
    /// The same when the directory is listed for the first time.
    StuckList,
    /// The handler panics.
    Panic,
    /// The promise panics.
    LatePanic,
    /// Only the first bytes are here; the rest is missing as in `Missing`.
    Partly(u64, Duration),
}

#[derive(Clone)]
struct Item {
    entry: Entry,
    bytes: Bytes,
    reading: Behaviour,
    looking: Behaviour,
}

#[derive(Default)]
struct State {
    items: BTreeMap<DrivePath, Item>,
    revision: u64,
    /// Names told by `list` that no path can have.
    impossible: Vec<String>,
}

type Listener = Box<dyn Fn(Changes) + Send + Sync>;

pub struct TestVolume {
    state: Mutex<State>,
    listeners: Mutex<Vec<Listener>>,
    frozen: AtomicBool,
    closed: watch::Sender<bool>,
    gone_on: watch::Sender<bool>,
    counts: Arc<Counts>,
}

/// What was asked of the volume.
#[derive(Default)]
pub struct Counts {
    pub reads: AtomicU64,
    pub lookups: AtomicU64,
    pub lists: AtomicU64,
    /// Handlers that were stuck, or are.
    pub stuck: AtomicU64,
    /// Where the reads began that waited for a peer.
    pub waits: Mutex<Vec<u64>>,
    /// Farthest byte that a prefetch asked for.
    pub prefetched: AtomicU64,
}

pub fn path(text: &str) -> DrivePath {
    DrivePath::from_user(text).unwrap()
}

impl TestVolume {
    pub fn new() -> Arc<Self> {
        Self::build(false)
    }

    pub fn frozen() -> Arc<Self> {
        Self::build(true)
    }

    fn build(frozen: bool) -> Arc<Self> {
        let volume = Self {
            state: Mutex::default(),
            listeners: Mutex::default(),
            frozen: AtomicBool::new(frozen),
            closed: watch::Sender::new(false),
            gone_on: watch::Sender::new(false),
            counts: Arc::default(),
        };
        volume.put("/", Kind::Directory, Bytes::new(), None);
        Arc::new(volume)
    }

    /// From now on nothing changes any more.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// Whether the size of a file is known; what it is taken for is one byte as long as it is not.
    pub fn sure(&self, at: &str, sure: bool) {
        let mut state = self.state.lock().unwrap();
        let item = state.items.get_mut(&path(at)).unwrap();
        item.entry.sure = sure;
        item.entry.size = if sure { item.bytes.len() as u64 } else { 1 };
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn put(&self, at: &str, kind: Kind, bytes: Bytes, target: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let entry = Entry {
            kind,
            size: bytes.len() as u64,
            mode: if kind == Kind::Directory { 0o755 } else { 0o644 },
            mtime_ms: 1_600_000_000_000 + revision as i64 * 1000,
            mtime_ns: 0,
            uid: None,
            gid: None,
            rdev: 0,
            target: target.map(str::to_owned),
            verbatim: false,
            revision,
            id: 0,
            links: 1,
            sure: true,
        };
        let mut dir = path(at).parent();
        while let Some(parent) = dir {
            dir = parent.parent();
            state.items.entry(parent).or_insert_with(|| Item {
                entry: Entry {
                    kind: Kind::Directory,
                    size: 0,
                    mode: 0o755,
                    mtime_ms: 0,
                    mtime_ns: 0,
                    uid: None,
                    gid: None,
                    rdev: 0,
                    target: None,
                    verbatim: false,
                    revision,
                    id: 0,
                    links: 1,
                    sure: true,
                },
                bytes: Bytes::new(),
                reading: Behaviour::Here,
                looking: Behaviour::Here,
            });
        }
        let item = Item { entry, bytes, reading: Behaviour::Here, looking: Behaviour::Here };
        state.items.insert(path(at), item);
    }

    pub fn file(&self, at: &str, bytes: impl Into<Bytes>) {
        self.put(at, Kind::File, bytes.into(), None);
    }

    pub fn dir(&self, at: &str) {
        self.put(at, Kind::Directory, Bytes::new(), None);
    }

    pub fn link(&self, at: &str, target: &str) {
        self.put(at, Kind::Symlink, Bytes::new(), Some(target));
    }

    pub fn reading(&self, at: &str, behaviour: Behaviour) {
        self.state.lock().unwrap().items.get_mut(&path(at)).unwrap().reading = behaviour;
    }

    pub fn looking(&self, at: &str, behaviour: Behaviour) {
        self.state.lock().unwrap().items.get_mut(&path(at)).unwrap().looking = behaviour;
    }

    pub fn mode(&self, at: &str, mode: u16) {
        self.state.lock().unwrap().items.get_mut(&path(at)).unwrap().entry.mode = mode;
    }

    pub fn impossible_name(&self, name: &str) {
        self.state.lock().unwrap().impossible.push(name.to_owned());
    }

    /// Somebody else removes the path and what lies below it.
    pub fn remove(&self, at: &str) {
        let below = format!("{at}/");
        let mut gone = Vec::new();
        self.state.lock().unwrap().items.retain(|key, _| {
            let goes = key.as_str() == at || key.as_str().starts_with(&below);
            if goes {
                gone.push(key.clone());
            }
            !goes
        });
        self.tell(gone);
    }

    /// Somebody else made these changes.
    pub fn changed(&self, paths: &[&str]) {
        self.tell(paths.iter().map(|at| path(at)).collect());
    }

    /// Lets those that are stuck go on.
    pub fn let_go(&self) {
        self.gone_on.send_replace(true);
    }

    fn stick(&self) {
        while !*self.gone_on.borrow() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn tell(&self, paths: Vec<DrivePath>) {
        for listener in self.listeners.lock().unwrap().iter() {
            listener(Changes { paths: paths.clone() });
        }
    }

    fn names(&self, dir: &DrivePath) -> Vec<(String, Entry)> {
        let state = self.state.lock().unwrap();
        let children = state.items.iter().filter(|(key, _)| key.parent().as_ref() == Some(dir));
        let mut names: Vec<(String, Entry)> =
            children.map(|(key, item)| (key.name().to_owned(), item.entry.clone())).collect();
        if let Some((_, first)) = names.first().cloned() {
            names.extend(state.impossible.iter().map(|name| (name.clone(), first.clone())));
        }
        names
    }

    fn item(&self, at: &DrivePath) -> Option<Item> {
        self.state.lock().unwrap().items.get(at).cloned()
    }
}

/// The answer as `behaviour` has it.
fn behave<T: Send + 'static>(
    behaviour: Behaviour,
    mut closed: watch::Receiver<bool>,
    value: Result<T>,
) -> MaybeLater<T> {
    match behaviour {
        Behaviour::Here | Behaviour::Partly(..) | Behaviour::Stuck | Behaviour::StuckList => {
            MaybeLater::Now(value)
        }
        Behaviour::Panic => panic!("told to panic"),
        Behaviour::LatePanic => MaybeLater::Later(Box::pin(async { panic!("told to panic late") })),
        Behaviour::Never => MaybeLater::Later(Box::pin(std::future::pending())),
        Behaviour::After(time) | Behaviour::Missing(time) => {
            MaybeLater::Later(Box::pin(async move {
                tokio::select! {
                    () = tokio::time::sleep(time) => match behaviour {
                        Behaviour::Missing(_) => Err(VolumeError::TimedOut("no peer has it".into())),
                        _ => value,
                    },
                    _ = closed.wait_for(|closed| *closed) => Err(VolumeError::Closed),
                }
            }))
        }
    }
}

impl Volume for TestVolume {
    fn info(&self) -> VolumeInfo {
        let state = self.state.lock().unwrap();
        let files = state.items.values().filter(|item| item.entry.kind == Kind::File);
        VolumeInfo {
            key: "k".repeat(52),
            version: state.revision,
            bytes: files.clone().map(|item| item.entry.size).sum(),
            files: files.count() as u64,
        }
    }

    fn frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    fn lookup(&self, at: &DrivePath) -> MaybeLater<Option<Entry>> {
        self.counts.lookups.fetch_add(1, Ordering::Relaxed);
        let item = self.item(at);
        if item.as_ref().is_some_and(|item| item.looking == Behaviour::Stuck) {
            self.counts.stuck.fetch_add(1, Ordering::Relaxed);
            self.stick();
        }
        match item {
            Some(item) => behave(item.looking, self.closed.subscribe(), Ok(Some(item.entry))),
            None => MaybeLater::Now(Ok(None)),
        }
    }

    fn list(&self, dir: &DrivePath) -> MaybeLater<Arc<Vec<(String, Entry)>>> {
        self.counts.lists.fetch_add(1, Ordering::Relaxed);
        let sticks = self.item(dir).is_some_and(|item| item.looking == Behaviour::StuckList);
        let listed = self.names(dir);
        if sticks && self.counts.stuck.fetch_add(1, Ordering::Relaxed) == 0 {
            self.stick();
        }
        MaybeLater::Now(Ok(Arc::new(listed)))
    }

    fn open(&self, at: &DrivePath) -> MaybeLater<Arc<dyn FileContent>> {
        match self.item(at) {
            Some(item) => MaybeLater::Now(Ok(Arc::new(TestContent {
                bytes: item.bytes,
                size: item.entry.sure.then_some(item.entry.size),
                revision: item.entry.revision,
                behaviour: item.reading,
                closed: self.closed.subscribe(),
                counts: self.counts.clone(),
            }))),
            None => MaybeLater::Now(Err(VolumeError::NotFound)),
        }
    }

    fn cached_bytes(&self, at: &DrivePath) -> u64 {
        let below = format!("{}/", at.as_str().trim_end_matches('/'));
        let state = self.state.lock().unwrap();
        let all = state.items.iter();
        all.filter(|(key, _)| *key == at || key.as_str().starts_with(&below))
            .map(|(_, item)| item.bytes.len() as u64)
            .sum()
    }

    fn subscribe(&self, listener: Listener) {
        self.listeners.lock().unwrap().push(listener);
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}

struct TestContent {
    bytes: Bytes,
    size: Option<u64>,
    revision: u64,
    behaviour: Behaviour,
    closed: watch::Receiver<bool>,
    counts: Arc<Counts>,
}

impl TestContent {
    /// As blocks of a drive come: cut at multiples of [`BLOCK`].
    fn slices(&self, offset: u64, len: usize) -> Vec<Bytes> {
        let mut at = offset as usize;
        let end = (at + len).min(self.bytes.len());
        let mut parts = Vec::new();
        while at < end {
            let stop = end.min((at / BLOCK + 1) * BLOCK);
            parts.push(self.bytes.slice(at..stop));
            at = stop;
        }
        parts
    }
}

impl FileContent for TestContent {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        match self.behaviour {
            Behaviour::Here => Ok(Some(self.slices(offset, len))),
            Behaviour::Panic => panic!("told to panic"),
            Behaviour::Partly(here, _) if offset + len as u64 <= here => {
                Ok(Some(self.slices(offset, len)))
            }
            _ => Ok(None),
        }
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<Result<Vec<Bytes>>> {
        self.counts.waits.lock().unwrap().push(offset);
        let behaviour = match self.behaviour {
            Behaviour::Partly(_, time) => Behaviour::Missing(time),
            other => other,
        };
        match behave(behaviour, self.closed.clone(), Ok(self.slices(offset, len))) {
            MaybeLater::Now(result) => Box::pin(async { result }),
            MaybeLater::Later(future) => future,
        }
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.counts.prefetched.fetch_max(offset + len, Ordering::Relaxed);
    }
}
