//! What opening costs, and when a drive that nobody uses closes.

use super::*;
use crate::hyper::cache::BlockCache;
use crate::hyper::core::message::{NodeRequest, Request, UpgradeRequest};
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{self, FileKind, Medium, RawFile, Staged, Table, Writes};
use crate::hyper::core::{Provable, storage::memory};
use crate::hyper::drive::fix_key;
use crate::hyper::session::Patience;
use crate::hyper::source::BlockLog;
use crate::hyper::store::Namespace;
use crate::key::DiscoveryKey;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

const SECRET: [u8; 32] = [1; 32];

/// Counts how often blocks are read.
#[derive(Clone, Default)]
struct Counting {
    inner: CrashMedium,
    reads: Arc<AtomicUsize>,
}

impl Medium for Counting {
    fn get(&self, table: Table, key: &[u8]) -> storage::Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> storage::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.scan(table, prefix)
    }

    fn apply(&self, writes: &Writes) -> storage::Result<()> {
        self.inner.apply(writes)
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
        let file = self.inner.file(core, kind);
        match kind {
            FileKind::Blocks => Box::new(CountedFile { file, reads: self.reads.clone() }),
            FileKind::Tree => file,
        }
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> storage::Result<()> {
        self.inner.remove_file(core, kind)
    }

    fn cores_with_files(&self) -> storage::Result<Vec<(DiscoveryKey, u64)>> {
        self.inner.cores_with_files()
    }
}

struct CountedFile {
    file: Box<dyn RawFile>,
    reads: Arc<AtomicUsize>,
}

impl RawFile for CountedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.file.write_at(offset, bufs)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

fn store(storage: Arc<dyn storage::Storage>) -> Arc<Store> {
    let (wishes, nobody) = mpsc::unbounded_channel();
    std::mem::forget(nobody);
    let cache = Arc::new(BlockCache::new(1 << 20));
    Arc::new(Store::open(storage, cache, wishes, Patience::default()).unwrap())
}

fn drives(store: Arc<Store>) -> Arc<Drives> {
    let (wishes, nobody) = mpsc::unbounded_channel();
    std::mem::forget(nobody);
    Drives::new(store, Arc::default(), Arc::new(Cores::new(wishes)))
}

/// The names of a drive of somebody else with nothing but its first block, which is encrypted, as a peer sends them.
fn take_encrypted(into: &Store) -> CoreHandle {
    let theirs = store(memory());
    let db = theirs.named(&Namespace::ROOT.child(b"drive"), "db", None).unwrap();
    fix_key(&theirs, &db, Some(SECRET)).unwrap();
    db.append(vec![crate::hyper::bee::Header::new(None).encode().into()]).unwrap();
    let here = into.by_key(db.key(), None).unwrap();
    let request = Request {
        block: Some(NodeRequest { index: 0, nodes: 0 }),
        upgrade: Some(UpgradeRequest { start: 0, length: 1 }),
        manifest: true,
        ..Request::default()
    };
    let Provable::Proof(proof) = db.core().create_proof(&request).unwrap() else { panic!() };
    here.core().apply_proof(&proof, None).unwrap();
    here.on_version();
    here
}

#[tokio::test]
async fn whoever_opens_a_drive_offers_its_key_once_as_whoever_joins_does() {
    let medium = Counting::default();
    let store = store(Arc::new(Staged::new(medium.clone()).unwrap()));
    let db = take_encrypted(&store);
    let drives = drives(store);
    let mut uses = Vec::new();
    let mut reads = || {
        let before = medium.reads.load(Ordering::Relaxed);
        // The drive's own task is of this thread and has had no turn when the use is here.
        uses.push(drives.use_drive((db.key(), None), Some(SECRET), Purpose::Local).unwrap());
        medium.reads.load(Ordering::Relaxed) - before
    };
    let (opens, joins) = (reads(), reads());
    assert!(joins > 0, "its first block tells whether the key is right");
    assert_eq!(opens, joins);
}

#[tokio::test]
async fn a_drive_lingers_after_its_last_use_and_not_after_the_one_before() {
    let drives = drives(store(memory()));
    let id = (CoreKey([1; 32]), None);
    let use_it = || {
        drop(drives.use_drive(id, None, Purpose::Local).unwrap());
        lock(&drives.open).drives[&id].idle
    };
    // The timers of both are on their way, and that of the first fires first.
    let (first, last) = (use_it(), use_it());
    drives.close(id, first);
    assert_eq!(drives.states().len(), 1, "it was used again since");
    let used = drives.use_drive(id, None, Purpose::Local).unwrap();
    drives.close(id, last);
    assert_eq!(drives.states().len(), 1, "it is in use");
    drop(used);
    let last = lock(&drives.open).drives[&id].idle;
    drives.close(id, last);
    assert!(drives.states().is_empty());
}
