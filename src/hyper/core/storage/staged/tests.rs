//! How much it costs to open many cores, a database without room for copies, and syncs that fail.

use super::super::crash::CrashMedium;
use super::super::memory::MemoryMedium;
use super::*;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

const DK: DiscoveryKey = DiscoveryKey([1; 32]);

fn put(store: &dyn Storage, n: u8, durability: Durability) -> Result<()> {
    put_bytes(store, n, 1000, durability)
}

/// Processor time of this thread, whatever else the machine does.
fn cpu() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// What opening cores after an unclean end does to the storage: a look and a buffered commit each.
fn open_cores(count: u32) -> Duration {
    let store = Staged::new(MemoryMedium::default()).unwrap();
    let started = cpu();
    for i in 0..count {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&i.to_be_bytes());
        let files = store.files(&DiscoveryKey(key));
        assert!(store.scan(Table::Bits, &key).unwrap().is_empty());
        let mut writes = Writes::default();
        writes.put(Table::Heads, key, vec![7; 150]);
        store.commit(writes, &[&files], Durability::Buffered).unwrap();
    }
    cpu() - started
}

#[test]
fn four_times_the_cores_take_about_four_times_as_long() {
    let (mut few, mut many) = (Duration::MAX, Duration::MAX);
    // Whatever else the machine does makes one of them slower now and then.
    for _ in 0..8 {
        few = few.min(open_cores(2_000));
        many = many.min(open_cores(8_000));
        println!("2,000 cores: {few:?}, 8,000 cores: {many:?}");
        if many < 9 * few {
            return;
        }
    }
    panic!("{few:?} and {many:?}");
}

/// A database that has no room for copies of what is written to files.
#[derive(Default)]
struct Narrow(MemoryMedium);

impl Medium for Narrow {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.0.scan(table, prefix)
    }

    fn apply(&self, writes: &Writes) -> Result<()> {
        let copies = writes.iter().filter(|(table, _)| *table == Table::Redo);
        if copies.flat_map(|(_, records)| records.values()).any(Option::is_some) {
            return Err(StorageError::DiskFull { op: "write", what: "the database".into() });
        }
        self.0.apply(writes)
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn super::super::RawFile> {
        self.0.file(core, kind)
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
        self.0.remove_file(core, kind)
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        self.0.cores_with_files()
    }
}

#[test]
fn what_has_no_room_with_copies_is_committed_without_them() {
    let store = Staged::new(Narrow::default()).unwrap();
    let files = store.files(&DiscoveryKey([1; 32]));
    for round in 0..3u8 {
        files.blocks.write_at(u64::from(round), &[round]).unwrap();
        let mut writes = Writes::default();
        writes.put(Table::Heads, vec![1], vec![round]);
        store.commit(writes, &[&files], Durability::Durable).unwrap();
        assert_eq!(store.medium.get(Table::Heads, &[1]).unwrap(), Some(vec![round]));
    }
}

fn put_bytes(store: &dyn Storage, n: u8, count: usize, durability: Durability) -> Result<()> {
    let files = store.files(&DK);
    files.blocks.write_at(u64::from(n) * 1000, &vec![n; count])?;
    let mut writes = Writes::default();
    writes.put(Table::Records, [n], vec![n]);
    store.commit(writes, &[&files], durability)
}

/// More than is kept as a copy, so that a durable commit syncs the file.
const MUCH: usize = 100_000;

const SYNC_ERRORS: [io::ErrorKind; 3] =
    [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::Other];

#[test]
fn nothing_is_committed_after_a_sync_that_failed_whatever_it_said() {
    for kind in SYNC_ERRORS {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        medium.fail_sync(kind);
        let error = put_bytes(&store, 2, MUCH, Durability::Durable).unwrap_err();
        assert!(matches!(error, StorageError::Unsynced(_)), "{kind}: {error}");
        assert!(!error.is_disk_full() && !error.is_unwritable(), "{kind}: tried again");
        for durability in [Durability::Durable, Durability::Buffered] {
            let next = put(&store, 3, durability);
            assert!(matches!(next, Err(StorageError::SyncFailed)), "{kind}: {next:?}");
        }
        let other = store.remove_files(&DiscoveryKey([2; 32]));
        assert!(matches!(other, Err(StorageError::SyncFailed)), "{kind}: {other:?}");
        drop(store);
        assert_eq!(medium.scan(Table::Records, b"").unwrap().len(), 1, "{kind}");
    }
}

#[test]
fn files_that_are_synced_for_want_of_room_are_as_well() {
    for kind in SYNC_ERRORS {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        medium.fail_sync(kind);
        medium.set_full_once();
        let mut writes = Writes::default();
        writes.put(Table::Records, [2], vec![2]);
        let error = store.commit(writes, &[], Durability::Durable).unwrap_err();
        assert!(matches!(error, StorageError::Unsynced(_)), "{kind}: {error}");
        drop(store);
        assert_eq!(medium.scan(Table::Records, b"").unwrap().len(), 1, "{kind}");
    }
}

/// Of a file that another thread syncs for long, the commit of a record that speaks of it is not made before that
/// has ended well.
#[test]
fn a_commit_waits_for_the_sync_of_what_it_speaks_of() {
    for fails in [false, true] {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        let files = store.files(&DK);
        files.blocks.write_at(0, &[7; 100_000]).unwrap();
        let mut writes = Writes::default();
        writes.put(Table::Records, [1], vec![1]);
        store.commit(writes, &[&files], Durability::Buffered).unwrap();
        if fails {
            medium.fail_sync(io::ErrorKind::StorageFull);
        }
        let (begun, go_on) = medium.hold_sync();
        std::thread::scope(|scope| {
            let syncing = scope.spawn(|| store.sync_files(&files));
            begun.recv().unwrap();
            let (committed, is_committed) = mpsc::channel();
            let store = &store;
            scope.spawn(move || {
                let mut writes = Writes::default();
                writes.put(Table::Records, [2], vec![2]);
                committed.send(store.commit(writes, &[], Durability::Durable)).unwrap();
            });
            let early = is_committed.recv_timeout(Duration::from_millis(50));
            go_on.send(()).unwrap();
            assert!(early.is_err(), "committed before it was durable");
            assert_eq!(syncing.join().unwrap().is_err(), fails);
            assert_eq!(is_committed.recv().unwrap().is_err(), fails);
        });
        let found = medium.scan(Table::Records, b"").unwrap().len();
        assert_eq!(found, if fails { 0 } else { 2 });
    }
}

#[test]
fn copies_of_an_earlier_start_never_come_back() {
    let medium = CrashMedium::default();
    let store = Staged::new(medium.clone()).unwrap();
    put(&store, 1, Durability::Durable).unwrap();
    // On a full disk their deletion waits.
    let after = medium.after_kill();
    after.set_full(true);
    let store = Staged::new(after.clone()).unwrap();
    after.set_full(false);
    // It is written over what they speak of, and the first transaction has no room for copies.
    let files = store.files(&DK);
    files.tree.write_at(0, &[1; 100]).unwrap();
    files.blocks.write_at(1000, &[9; 1000]).unwrap();
    let mut writes = Writes::default();
    writes.put(Table::Records, [2], vec![2]);
    after.set_full_once();
    store.commit(writes, &[&files], Durability::Durable).unwrap();
    let store = Staged::new(after.after_kill()).unwrap();
    let mut buf = [0; 1000];
    store.files(&DK).blocks.read_at(1000, &mut buf).unwrap();
    assert_eq!(buf, [9; 1000], "an old copy was written over it");
}

#[test]
fn a_sync_that_fails_at_the_end_is_told() {
    for kind in SYNC_ERRORS {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        medium.fail_sync(kind);
        assert!(store.close().is_err_and(|error| !was_told(&error)), "{kind}");
        assert!(store.close().is_err_and(|error| was_told(&error)), "{kind}");
    }
}

#[test]
fn what_cannot_be_repeated_is_read_and_not_changed() {
    for kind in SYNC_ERRORS {
        let medium = CrashMedium::default();
        let store = Staged::new(medium.clone()).unwrap();
        put(&store, 1, Durability::Durable).unwrap();
        std::mem::forget(store);
        let copies = medium.scan(Table::Redo, b"").unwrap().len();
        assert!(copies > 0);
        medium.fail_sync(kind);
        let store = Staged::new(medium.clone()).unwrap();
        assert!(!store.is_repeated(&DK) && store.is_repeated(&DiscoveryKey([2; 32])), "{kind}");
        assert_eq!(store.scan(Table::Records, b"").unwrap().len(), 1, "{kind}");
        let next = put(&store, 3, Durability::Durable);
        assert!(matches!(next, Err(StorageError::SyncFailed)), "{kind}: {next:?}");
        std::mem::forget(store);
        assert_eq!(medium.scan(Table::Redo, b"").unwrap().len(), copies, "{kind}");
        // It is repeated when that is possible.
        let store = Staged::new(medium.clone()).unwrap();
        assert!(store.is_repeated(&DK) && put(&store, 3, Durability::Durable).is_ok(), "{kind}");
    }
}

#[test]
fn what_a_failed_sync_lost_is_written_again_by_the_next_start() {
    let medium = CrashMedium::default();
    let store = Staged::new(medium.clone()).unwrap();
    put(&store, 1, Durability::Durable).unwrap();
    medium.fail_sync(io::ErrorKind::StorageFull);
    drop(store);
    assert!(!medium.scan(Table::Redo, b"").unwrap().is_empty(), "its only good copy");
    let after = medium.after_kill();
    drop(Staged::new(after.clone()).unwrap());
    let store = Staged::new(after.after_power_loss(1)).unwrap();
    let mut buf = [0; 1000];
    store.files(&DK).blocks.read_at(1000, &mut buf).unwrap();
    assert_eq!(buf, [1; 1000]);
}
