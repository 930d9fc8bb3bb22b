//! A store for tests that loses power, gets killed or runs full at any point.
//!
//! Each file has a durable image and the changes since its last sync. Every change, sync and database
//! transaction is one operation; [`CrashMedium::stop_after`] makes all of them fail from a chosen one on, and
//! [`CrashMedium::fail_transactions`] lets single transactions report an error, whether or not they land.
//! [`CrashMedium::after_power_loss`] then gives the medium as the next start could find it: of the changes
//! not synced, any subset, each possibly torn at a sector. [`CrashMedium::after_kill`] keeps all changes to
//! files, as the page cache does when only the process dies.

use super::memory::{MemoryRecords, SparseBytes, sum_by_core};
use super::{FileKind, Medium, RawFile, Result, StorageError, Table, Writes};
use crate::key::DiscoveryKey;
use crate::lock::lock;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, mpsc};

/// Torn writes end at a multiple of this.
const SECTOR: u64 = 512;

type FileName = (DiscoveryKey, FileKind);

/// A medium that stops where it is told to. Clones share it.
#[derive(Clone, Default)]
pub struct CrashMedium(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    records: MemoryRecords,
    files: BTreeMap<FileName, CrashFile>,
    /// Operations done so far.
    operations: u64,
    stop_after: Option<u64>,
    /// Whether the transaction that the stop interrupts is durable nevertheless.
    last_lands: bool,
    full: bool,
    /// Transactions yet to report an error that is none of the stop, and whether they land.
    failing: (u32, bool),
    /// What the next sync of a file fails with.
    failing_sync: Option<io::ErrorKind>,
    /// The operation that fails, and with what.
    failing_at: Option<(u64, io::ErrorKind)>,
    held_sync: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
    full_once: bool,
}

#[derive(Clone, Default)]
struct CrashFile {
    durable: SparseBytes,
    live: SparseBytes,
    since_sync: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Punch(u64, u64),
    Truncate(u64),
}

impl Change {
    fn apply(&self, bytes: &mut SparseBytes) {
        match self {
            Self::Write(offset, data) => bytes.write_at(*offset, data),
            Self::Punch(offset, len) => bytes.punch(*offset, *len),
            Self::Truncate(len) => bytes.truncate(*len),
        }
    }

    /// The change cut short at a random sector boundary.
    fn torn(&self, rng: &mut StdRng) -> Self {
        match self {
            Self::Write(offset, data) => {
                let cut = rng.random_range(0..=data.len() as u64);
                let end = (offset + cut) / SECTOR * SECTOR;
                Self::Write(*offset, data[..end.saturating_sub(*offset) as usize].to_vec())
            }
            whole => whole.clone(),
        }
    }
}

impl CrashMedium {
    /// Lets `operations` more operations succeed and none after them. If the first that fails is a
    /// transaction, `last_lands` says whether it became durable all the same.
    pub fn stop_after(&self, operations: u64, last_lands: bool) {
        let mut inner = lock(&self.0);
        inner.stop_after = Some(inner.operations + operations);
        inner.last_lands = last_lands;
    }

    /// From now on (or no longer) there is no room: writes and transactions fail, the rest works.
    pub fn set_full(&self, full: bool) {
        lock(&self.0).full = full;
    }

    /// The next `count` transactions report an error; with `land` they become durable nevertheless. The machine
    /// goes on.
    pub fn fail_transactions(&self, count: u32, land: bool) {
        lock(&self.0).failing = (count, land);
    }

    /// The next sync of a file fails once, and its changes are lost as by the kernel: no later sync makes them durable,
    /// while whoever reads still sees them.
    pub fn fail_sync(&self, error: io::ErrorKind) {
        lock(&self.0).failing_sync = Some(error);
    }

    /// After so many operations more one fails with this, of whatever kind it is; the machine goes on.
    pub fn fail_after(&self, operations: u64, error: io::ErrorKind) {
        let mut inner = lock(&self.0);
        inner.failing_at = Some((inner.operations + operations + 1, error));
    }

    /// The next sync of a file tells that it has begun, and waits to be told to go on.
    pub fn hold_sync(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((begun, is_begun), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
        lock(&self.0).held_sync = Some((begun, may_go_on));
        (is_begun, go_on)
    }

    /// The next transaction finds no room.
    pub fn set_full_once(&self) {
        lock(&self.0).full_once = true;
    }

    pub fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    /// What is left when the power fails now.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        self.restart(|file| {
            let mut bytes = file.durable.clone();
            for change in &file.since_sync {
                match rng.random_range(0..4) {
                    0 => {}
                    1 => change.torn(&mut rng).apply(&mut bytes),
                    _ => change.apply(&mut bytes),
                }
            }
            CrashFile { durable: bytes.clone(), live: bytes, since_sync: Vec::new() }
        })
    }

    /// What is left when the process dies now and the machine does not.
    pub fn after_kill(&self) -> Self {
        self.restart(CrashFile::clone)
    }

    fn restart(&self, mut survives: impl FnMut(&CrashFile) -> CrashFile) -> Self {
        let inner = lock(&self.0);
        let files = inner.files.iter().map(|(name, file)| (*name, survives(file))).collect();
        let records = inner.records.clone();
        Self(Arc::new(Mutex::new(Inner { records, files, ..Inner::default() })))
    }
}

impl Inner {
    /// Counts an operation; false if the medium has stopped.
    fn step(&mut self) -> bool {
        self.operations += 1;
        self.stop_after.is_none_or(|last| self.operations <= last)
    }

    /// What the operation that is counted last is to fail with.
    fn fault(&mut self) -> Option<io::ErrorKind> {
        self.failing_at.filter(|(at, _)| *at == self.operations).map(|(_, error)| error)
    }
}

fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Medium for CrashMedium {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(lock(&self.0).records.get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(lock(&self.0).records.scan(table, prefix))
    }

    fn apply(&self, writes: &Writes) -> Result<()> {
        let mut inner = lock(&self.0);
        let running = inner.step();
        if running && (inner.full || std::mem::take(&mut inner.full_once)) {
            let full = io::ErrorKind::StorageFull.into();
            return Err(StorageError::io("write", "the simulated database", full));
        }
        if let Some(error) = inner.fault() {
            return Err(StorageError::io("write", "the simulated database", error.into()));
        }
        if running && inner.failing.0 > 0 {
            inner.failing.0 -= 1;
            if inner.failing.1 {
                inner.records.apply(writes);
            }
            return Err(StorageError::io(
                "write",
                "the simulated database",
                io::Error::other("trouble"),
            ));
        }
        if running || (inner.last_lands && inner.stop_after == Some(inner.operations - 1)) {
            inner.records.apply(writes);
        }
        if running {
            return Ok(());
        }
        Err(StorageError::io("write", "the simulated database", stopped()))
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
        Box::new(CrashHandle { medium: self.clone(), name: (*core, kind) })
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
        let mut inner = lock(&self.0);
        if !inner.step() {
            return Err(StorageError::io("remove", "a simulated file", stopped()));
        }
        if let Some(error) = inner.fault() {
            return Err(StorageError::io("remove", "a simulated file", error.into()));
        }
        inner.files.remove(&(*core, kind));
        Ok(())
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        let inner = lock(&self.0);
        let bytes = inner.files.iter().map(|((core, _), file)| (*core, file.live.bytes()));
        Ok(sum_by_core(bytes))
    }
}

struct CrashHandle {
    medium: CrashMedium,
    name: FileName,
}

impl CrashHandle {
    fn change(&self, change: Change, needs_room: bool) -> io::Result<()> {
        let mut inner = lock(&self.medium.0);
        if !inner.step() {
            return Err(stopped());
        }
        if inner.full && needs_room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(error) = inner.fault() {
            return Err(error.into());
        }
        let file = inner.files.entry(self.name).or_default();
        change.apply(&mut file.live);
        file.since_sync.push(change);
        Ok(())
    }
}

impl RawFile for CrashHandle {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let inner = lock(&self.medium.0);
        Ok(inner.files.get(&self.name).map_or(0, |file| file.live.read_at(offset, buf)))
    }

    fn write_at(&self, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.change(Change::Write(offset, bytes), true)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Punch(offset, len), false)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Truncate(len), false)
    }

    fn sync(&self) -> io::Result<()> {
        let held = lock(&self.medium.0).held_sync.take();
        if let Some((begun, go_on)) = held {
            let _ = begun.send(());
            let _ = go_on.recv();
        }
        let mut inner = lock(&self.medium.0);
        if !inner.step() {
            return Err(stopped());
        }
        let failing = inner.failing_sync.take().or_else(|| inner.fault());
        let file = inner.files.entry(self.name).or_default();
        for change in std::mem::take(&mut file.since_sync) {
            if failing.is_none() {
                change.apply(&mut file.durable);
            }
        }
        failing.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn forget_cached(&self) -> io::Result<()> {
        let mut inner = lock(&self.medium.0);
        if let Some(file) =
            inner.files.get_mut(&self.name).filter(|file| file.since_sync.is_empty())
        {
            file.live = file.durable.clone();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, Session, Staged, Storage};
    use super::*;

    const DK: DiscoveryKey = DiscoveryKey([1; 32]);

    fn put(store: &dyn Storage, n: u8, durability: Durability) -> Result<()> {
        let files = store.files(&DK);
        files.blocks.write_at(u64::from(n) * 1000, &[n; 1000])?;
        let mut writes = Writes::default();
        writes.put(Table::Records, [n], vec![n]);
        store.commit(writes, &[&files], durability)
    }

    #[test]
    fn commits_survive_in_order_and_with_their_bytes() {
        for stop in 0..40 {
            for lands in [false, true] {
                let medium = CrashMedium::default();
                let store = Staged::new(medium.clone()).unwrap();
                medium.stop_after(stop, lands);
                let mut acknowledged = 0;
                for n in 1..=12 {
                    let durable = n % 3 == 0;
                    let kind = if durable { Durability::Durable } else { Durability::Buffered };
                    match put(&store, n, kind) {
                        Ok(()) if durable => acknowledged = n,
                        Ok(()) => {}
                        Err(_) => break,
                    }
                }
                for (i, after) in
                    [medium.after_kill(), medium.after_power_loss(stop)].into_iter().enumerate()
                {
                    let store = Staged::new(after).unwrap();
                    let found = store.scan(Table::Records, b"").unwrap();
                    let numbers: Vec<u8> = found.iter().map(|(key, _)| key[0]).collect();
                    let want: Vec<u8> = (1..=numbers.len() as u8).collect();
                    assert_eq!(numbers, want, "stop {stop} way {i}");
                    assert!(numbers.len() >= acknowledged.into());
                    for n in numbers {
                        let mut buf = [0; 1000];
                        let files = store.files(&DK);
                        files.blocks.read_at(u64::from(n) * 1000, &mut buf).unwrap();
                        assert_eq!(buf, [n; 1000], "stop {stop} way {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_full_disk_loses_nothing_and_passes() {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        put(&store, 2, Durability::Buffered).unwrap();
        medium.set_full(true);
        assert!(put(&store, 3, Durability::Durable).unwrap_err().is_disk_full());
        assert!(store.sync().unwrap_err().is_disk_full());
        assert_eq!(store.scan(Table::Records, b"").unwrap().len(), 2);
        medium.set_full(false);
        put(&store, 4, Durability::Durable).unwrap();
        let store = Staged::new(medium.after_power_loss(1)).unwrap();
        let keys: Vec<u8> =
            store.scan(Table::Records, b"").unwrap().iter().map(|(key, _)| key[0]).collect();
        assert_eq!(keys, [1, 2, 4]);
    }

    #[test]
    fn a_store_that_was_killed_is_read_on_a_full_disk_and_copies_do_not_come_back() {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        let after = medium.after_kill();
        assert!(!after.scan(Table::Redo, b"").unwrap().is_empty());
        after.set_full(true);
        let store = Staged::new(after.clone()).unwrap();
        let mut buf = [0; 1000];
        assert_eq!(store.files(&DK).blocks.read_at(1000, &mut buf).unwrap(), 1000);
        assert_eq!(buf, [1; 1000]);
        after.set_full(false);
        put(&store, 2, Durability::Durable).unwrap();
        store.files(&DK).blocks.write_at(1000, &[9; 1000]).unwrap();
        let after = after.after_kill();
        let store = Staged::new(after).unwrap();
        store.files(&DK).blocks.read_at(1000, &mut buf).unwrap();
        assert_eq!(buf, [9; 1000], "an old copy was written over it");
    }

    #[test]
    fn what_is_removed_on_a_full_disk_is_not_written_again_by_the_next_start() {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        medium.set_full(true);
        let _ = store.remove_files(&DK);
        let after = medium.after_kill();
        after.set_full(true);
        let store = Staged::new(after.clone()).unwrap();
        after.set_full(false);
        put(&store, 2, Durability::Durable).unwrap();
    }

    #[test]
    fn a_transaction_that_landed_with_an_error_is_the_last_until_the_next_start() {
        for land in [false, true] {
            let medium = CrashMedium::default();
            let store = Staged::new(medium.clone()).unwrap();
            put(&store, 1, Durability::Durable).unwrap();
            put(&store, 2, Durability::Buffered).unwrap();
            medium.fail_transactions(1, land);
            let done = put(&store, 3, Durability::Durable);
            let next = put(&store, 4, Durability::Durable);
            assert!(done.is_err_and(|e| e.is_unsure() == land));
            match land {
                true => assert!(matches!(next, Err(StorageError::SyncFailed))),
                false => next.unwrap(),
            }
            let store = Staged::new(medium.after_power_loss(1)).unwrap();
            let found = store.scan(Table::Records, b"").unwrap();
            let keys: Vec<u8> = found.iter().map(|(key, _)| key[0]).collect();
            assert_eq!(keys, if land { [1, 2, 3] } else { [1, 2, 4] });
        }
    }

    #[test]
    fn an_unclean_end_is_remembered() {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        assert_eq!(store.session().unclean, 0);
        store.begin_session().unwrap();
        let after = medium.after_kill();
        drop(store);
        assert_eq!(Staged::new(medium).unwrap().session().unclean, 0);
        let store = Staged::new(after.clone()).unwrap();
        assert_eq!(store.session(), Session { current: 2, unclean: 1 });
        store.begin_session().unwrap();
        drop(store);
        // A core that session 2 did not open is still as session 1 left it.
        assert_eq!(Staged::new(after).unwrap().session(), Session { current: 3, unclean: 1 });
    }
}
