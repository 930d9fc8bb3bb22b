//! A store in a directory: what it holds, what it refuses, and what it says.

use super::super::Durability;
use super::*;

fn key(n: u8) -> DiscoveryKey {
    DiscoveryKey([n; 32])
}

#[test]
fn records_and_files_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_disk(dir.path()).unwrap();
    let files = store.files(&key(1));
    let mut slices = [IoSlice::new(b""), IoSlice::new(b"ab"), IoSlice::new(b"cd")];
    files.blocks.write_slices_at(5, &mut slices).unwrap();
    let mut writes = Writes::default();
    writes.put(Table::Records, *b"a", b"1".to_vec());
    writes.put(Table::Records, *b"b", b"2".to_vec());
    store.commit(writes, &[&files], Durability::Buffered).unwrap();
    assert_eq!(store.get(Table::Records, b"a").unwrap(), Some(b"1".to_vec()));
    drop((store, files));

    let store = open_disk(dir.path()).unwrap();
    assert_eq!(store.scan(Table::Records, b"").unwrap().len(), 2);
    let mut buf = [9; 12];
    assert_eq!(store.files(&key(1)).blocks.read_at(0, &mut buf).unwrap(), 9);
    assert_eq!(&buf[..9], b"\0\0\0\0\0abcd");
}

#[test]
fn punching_keeps_the_rest_and_missing_files_are_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_disk(dir.path()).unwrap();
    let file = &store.files(&key(2)).blocks;
    file.punch(0, 10).unwrap();
    file.truncate(0).unwrap();
    assert_eq!(file.read_at(0, &mut [0; 4]).unwrap(), 0);
    file.write_at(0, &[7; 10_000]).unwrap();
    file.punch(10, 9_000).unwrap();
    file.punch(9_990, 50).unwrap();
    let mut buf = [1; 10_001];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 10_000);
    assert!(buf[..10].iter().chain(&buf[9_010..9_990]).all(|&b| b == 7));
    assert!(buf[10..9_010].iter().chain(&buf[9_990..10_000]).all(|&b| b == 0));
    assert!(!dir.path().join("cores/03").exists());
}

#[test]
fn a_damaged_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("store.redb"), vec![0x5a; 100_000]).unwrap();
    let error = open_disk(dir.path()).err().unwrap();
    assert!(matches!(error, StorageError::DamagedDatabase { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"));
}

#[test]
fn any_damaged_page_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open_disk(dir.path()).unwrap();
    let mut writes = Writes::default();
    for i in 0..500u32 {
        writes.put(Table::Bits, i.to_be_bytes(), vec![i as u8; 50]);
    }
    store.commit(writes, &[], Durability::Durable).unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let used: Vec<usize> =
        (0..good.len() / 512).filter(|n| good[n * 512..][..512].iter().any(|&b| b != 0)).collect();
    for sector in used.iter().step_by(1 + used.len() / 60) {
        let mut bad = good.clone();
        bad[sector * 512..][..512].fill(0xa5);
        std::fs::write(&path, &bad).unwrap();
        if let Ok(store) = open_disk(dir.path())
            && let Ok(records) = store.scan(Table::Bits, b"")
        {
            assert!(records.iter().all(|(_, value)| value.len() == 50));
        }
    }
}

fn put(medium: &DiskMedium, key: u8) -> Result<()> {
    let mut writes = Writes::default();
    writes.put(Table::Records, [key], vec![key]);
    medium.apply(&writes)
}

#[test]
fn a_database_that_could_not_be_synced_is_read_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let medium = DiskMedium::open(dir.path()).unwrap();
    put(&medium, 1).unwrap();
    // As its file does when it is told so.
    medium.unsynced.store(true, Ordering::Release);
    *lock(&medium.database) = None;
    let before = std::fs::read(medium.path()).unwrap();
    assert!(matches!(put(&medium, 2), Err(StorageError::SyncFailed)));
    assert_eq!(medium.get(Table::Records, &[1]).unwrap(), Some(vec![1]));
    let full = redb::Error::Io(io::ErrorKind::StorageFull.into());
    let error = medium.failed("write", full);
    assert!(matches!(error, StorageError::Unsynced(_)) && !error.is_disk_full(), "{error}");
    drop(medium);
    assert!(std::fs::read(database_path(dir.path())).unwrap() == before);
    let path = database_path(dir.path());
    assert!(Witness::open(dir.path(), &path, false).was_left_open());
    // The next start goes on from what the device has.
    let medium = DiskMedium::open(dir.path()).unwrap();
    put(&medium, 2).unwrap();
    assert_eq!(medium.doubts(), Doubts::default());
}

#[test]
fn a_store_without_a_note_is_read_where_none_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let medium = DiskMedium::open(dir.path()).unwrap();
    put(&medium, 1).unwrap();
    drop(medium);
    let note = dir.path().join("witness");
    std::fs::remove_file(&note).unwrap();
    let before = std::fs::read(database_path(dir.path())).unwrap();
    // `late`: whether that shows only once the database is open.
    for late in [false, true] {
        let in_the_way = if late { &note } else { &dir.path().join("witness.new") };
        std::fs::create_dir_all(in_the_way.join("in it")).unwrap();
        let medium = DiskMedium::open(dir.path()).unwrap();
        assert_eq!(medium.get(Table::Records, &[1]).unwrap(), Some(vec![1]), "{late}");
        let same = std::fs::read(database_path(dir.path())).unwrap() == before;
        assert!(late || same, "changed before that could be noted");
        let done = put(&medium, 2);
        match late {
            true => assert!(matches!(done, Err(StorageError::Unnoted { .. })), "{done:?}"),
            // In place there is a way.
            false => done.unwrap(),
        }
        drop(medium);
        std::fs::remove_dir_all(in_the_way).unwrap();
        let _ = std::fs::remove_file(&note);
    }
    // What failed once may go the next time.
    let medium = DiskMedium::open(dir.path()).unwrap();
    put(&medium, 2).unwrap();
}

#[test]
fn a_second_opener_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open_disk(dir.path()).unwrap();
    let error = open_disk(dir.path()).err().unwrap();
    assert!(
        matches!(error, StorageError::Io { ref source, .. }
        if source.kind() == io::ErrorKind::ResourceBusy),
        "{error}"
    );
}

#[test]
fn open_files_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut medium = DiskMedium::open(dir.path()).unwrap();
    medium.pool = Arc::new(FdPool::with_limit(1024));
    let files: Vec<_> = (0..700u64)
        .map(|i| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&i.to_be_bytes());
            medium.file(&DiscoveryKey(key), FileKind::Tree)
        })
        .collect();
    assert_eq!(medium.pool.open_files(), 0);
    for (i, file) in files.iter().enumerate() {
        file.write_at(0, &mut [IoSlice::new(&i.to_le_bytes())]).unwrap();
    }
    assert_eq!(medium.pool.open_files(), 496);
    for (i, file) in files.iter().enumerate() {
        let mut buf = [0; 8];
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 8);
        assert_eq!(usize::from_le_bytes(buf), i);
        file.sync().unwrap();
    }
    drop(files);
    assert_eq!(medium.pool.open_files(), 0);
}
