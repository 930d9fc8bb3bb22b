//! A device that takes its time: what must not wait for it.

use super::super::*;
use crate::hyper::core::storage::memory::MemoryMedium;
use crate::hyper::core::storage::{FileKind, Medium, RawFile, Result, Staged, Table, Writes};
use crate::hyper::store::Namespace;
use std::io::{self, IoSlice};
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A store in memory whose device may hang, and that counts how often it was asked to sync its note.
struct Hanging {
    inner: MemoryMedium,
    hangs: Arc<RwLock<()>>,
    syncs: Arc<AtomicUsize>,
}

struct HangingFile(Box<dyn RawFile>, Arc<RwLock<()>>);

impl Medium for Hanging {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.scan(table, prefix)
    }

    fn apply(&self, writes: &Writes) -> Result<()> {
        self.inner.apply(writes)
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
        Box::new(HangingFile(self.inner.file(core, kind), self.hangs.clone()))
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
        self.inner.remove_file(core, kind)
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        self.inner.cores_with_files()
    }

    fn sync_witness(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }
}

impl RawFile for HangingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, bufs)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.punch(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.1.read());
        self.0.sync()
    }
}

/// Else a power cut after a slow sync would look like a copy of the store.
#[expect(clippy::await_holding_lock, reason = "the device that waits for it is another thread")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_note_of_the_store_does_not_wait_for_files() {
    let (hangs, syncs) = (Arc::default(), Arc::default());
    let medium =
        Hanging { inner: Default::default(), hangs: Arc::clone(&hangs), syncs: Arc::clone(&syncs) };
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Staged::new(medium).unwrap());
    let node = Node::start_on(storage, NodeConfig::new(dir.path())).await.unwrap();
    let core = node.store().named(&Namespace::ROOT, "slow", None).unwrap();
    {
        let mut staging = core.core().begin_append().unwrap();
        staging.push(&[vec![7; 100_000].into()]).unwrap().write().unwrap();
    }
    let device = hangs.write().unwrap();
    assert!(core.core().has_changes());
    tokio::time::sleep(2 * FLUSH_EVERY).await;
    let before = syncs.load(Ordering::Relaxed);
    tokio::time::sleep(3 * FLUSH_EVERY).await;
    let after = syncs.load(Ordering::Relaxed);
    drop(device);
    assert!(after >= before + 2, "{before} {after}");
}
