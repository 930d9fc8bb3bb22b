//! What an index makes of a drive's names, also of drives that nobody should have written.

use super::edit::{DIRS_PER_NAME, FREE_DIRS};
use super::*;
use crate::hyper::bee::run;
use crate::hyper::blobs::BlockMap;
use crate::hyper::drive::sizes::Sizes;
use crate::hyper::drive::tests::{Fixture, fixture, path};
use crate::hyper::drive::{Drive, DriveError, Entry};
use crate::hyper::source::memory::MemoryLog;
use crate::hyper::source::{BlockSource, BoxFuture, SourceError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every path that is shown, with the seq of its file; none for a directory.
fn shown(index: &DriveIndex) -> BTreeMap<DrivePath, Option<u64>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![DrivePath::root()];
    while let Some(at) = todo.pop() {
        let dir = index.list(&at).unwrap();
        let mut names: Vec<&str> = dir.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert!(dir.iter().map(|(name, _)| name).eq(names), "in order");
        for (name, node) in dir.iter() {
            let path = at.join(name).unwrap();
            match node.shown() {
                Found::Directory(_) => {
                    todo.push(path.clone());
                    out.insert(path, None);
                }
                Found::File(file) => drop(out.insert(path, Some(file.seq))),
                Found::Link(link) => drop(out.insert(path, Some(link.seq))),
                Found::Special(node) => drop(out.insert(path, Some(node.seq))),
            }
        }
    }
    out
}

fn load(f: &Fixture) -> DriveIndex {
    run(f.drive.index()).unwrap()
}

fn refresh(f: &Fixture, old: &DriveIndex) -> (DriveIndex, Vec<String>) {
    let (index, changed) = run(f.drive.refresh(old)).unwrap();
    let mut changed: Vec<String> = changed.iter().map(|path| path.to_string()).collect();
    changed.sort();
    (index, changed)
}

fn put_raw(f: &Fixture, key: &[u8], value: &str) {
    let mut batch = f.drive.bee().batch().unwrap();
    batch.put(key.to_vec(), value.to_owned()).unwrap();
    batch.flush().unwrap();
}

fn delete(f: &Fixture, name: &str) {
    let mut batch = f.drive.batch().unwrap();
    assert!(batch.delete(&path(name)).unwrap());
    batch.flush().unwrap();
}

#[test]
fn directories_come_and_go_with_their_files() {
    let f = fixture(None);
    let index = load(&f);
    assert_eq!((index.version(), index.files()), (1, 0));
    assert!(index.list(&DrivePath::root()).unwrap().is_empty());
    f.put("/a/b/c.txt", b"123");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/a", "/a/b", "/a/b/c.txt"]);
    assert_eq!((index.files(), index.bytes()), (1, 3));
    f.put("/a/b/c.txt", b"12345");
    f.put("/a/d", b"");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/a/b/c.txt", "/a/d"]);
    assert_eq!((index.files(), index.bytes()), (2, 5));
    delete(&f, "/a/b/c.txt");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/a/b", "/a/b/c.txt"]);
    assert!(index.lookup(&path("/a/b")).is_none());
    let (_, changed) = refresh(&f, &index);
    assert!(changed.is_empty());
}

#[test]
fn a_file_waits_behind_a_directory_of_its_name() {
    let f = fixture(None);
    f.put("/f", b"file");
    let index = load(&f);
    f.put("/f/g", b"in it");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/f", "/f/g"]);
    assert!(matches!(index.lookup(&path("/f")), Some(Found::Directory(_))));
    delete(&f, "/f/g");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/f", "/f/g"]);
    assert!(matches!(index.lookup(&path("/f")), Some(Found::File(_))));
    f.put("/f/g", b"in it");
    let (index, _) = refresh(&f, &index);
    delete(&f, "/f");
    let (index, changed) = refresh(&f, &index);
    assert!(changed.is_empty(), "what was hidden is gone unseen");
    assert_eq!(shown(&index).len(), 2);
}

fn change(f: &Fixture, change: impl FnOnce(&mut crate::hyper::drive::Batch)) {
    let mut batch = f.drive.batch().unwrap();
    change(&mut batch);
    batch.flush().unwrap();
}

#[test]
fn a_kept_directory_stays_when_its_last_file_goes() {
    let f = fixture(None);
    f.put("/refs/heads/main", b"1");
    change(&f, |batch| {
        assert!(batch.keep_dir(&path("/refs/tags")).unwrap());
        assert!(batch.keep_dir(&path("/refs/heads")).unwrap());
        assert!(!batch.keep_dir(&path("/refs/heads")).unwrap(), "kept already");
        assert!(!batch.keep_dir(&DrivePath::root()).unwrap());
    });
    let index = load(&f);
    assert_eq!(index.files(), 1);
    delete(&f, "/refs/heads/main");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/refs/heads/main"]);
    assert!(index.list(&path("/refs/heads")).unwrap().is_empty());
    let mut kept = index.kept_below(&DrivePath::root());
    kept.sort();
    assert_eq!(kept, [path("/refs/heads"), path("/refs/tags")]);
    assert_eq!(index.kept_below(&path("/refs/tags")), [path("/refs/tags")]);
    change(&f, |batch| assert!(batch.forget_dir(&path("/refs/heads")).unwrap()));
    change(&f, |batch| assert!(batch.forget_dir(&path("/refs/tags")).unwrap()));
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/refs", "/refs/heads", "/refs/tags"]);
    assert_eq!((index.dirs, index.kept, shown(&index).len()), (0, 0, 0));
}

#[test]
fn a_kept_directory_never_hides_a_file() {
    let f = fixture(None);
    change(&f, |batch| assert!(batch.keep_dir(&path("/a/b")).unwrap()));
    let index = load(&f);
    // As a program does that does not know of kept directories.
    f.put("/a", b"file");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/a", "/a/b"]);
    assert!(matches!(index.lookup(&path("/a")), Some(Found::File(_))));
    assert!(index.lookup(&path("/a/b")).is_none() && index.list(&path("/a/b")).is_none());
    assert_eq!(index.kept_below(&path("/a")), [path("/a/b")], "to be cleared away with the rest");
    f.put("/a/b/c", b"file");
    let (index, _) = refresh(&f, &index);
    assert!(matches!(index.lookup(&path("/a")), Some(Found::Directory(_))));
}

#[test]
fn a_few_bytes_of_deep_names_do_not_fill_the_memory() {
    let f = fixture(None);
    let names = 2 * FREE_DIRS / 2000;
    change(&f, |batch| {
        for i in 0..names {
            batch.put(&path(&format!("/{i:04}{}", "/d".repeat(2000))), &Entry::default()).unwrap();
        }
    });
    let index = load(&f);
    assert!(index.files() > 0 && index.files() + index.left_out() == names);
    assert!(index.dirs <= FREE_DIRS + DIRS_PER_NAME * names, "{}", index.dirs);
    let (fresh, old) = (index.files(), index.left_out());
    // Shallow names have room all the same, and what was left out is uncounted when it goes.
    f.put("/1/2/3", b"");
    let last = format!("/{:04}{}", names - 1, "/d".repeat(2000));
    delete(&f, &last);
    let (index, changed) = refresh(&f, &index);
    assert_eq!((index.files(), index.left_out(), changed.len()), (fresh + 1, old - 1, 3));
}

#[test]
fn hostile_names_are_left_out_and_counted() {
    let f = fixture(None);
    f.put("/good", b"1");
    let bad: [&[u8]; 9] = [
        b"files\0",
        b"files\0/",
        b"files\0relative",
        b"files\0/../../etc/passwd",
        b"files\0/a//b",
        b"files\0/a/",
        b"files\0/nul\0name",
        b"files\0/\xff\xfe",
        b"files\0/./x",
    ];
    for key in bad {
        put_raw(&f, key, "{}");
    }
    let index = load(&f);
    assert_eq!((index.files(), index.left_out()), (1, 9));
    let before = index.clone();
    put_raw(&f, b"files\0/a/..", "{}");
    put_raw(&f, b"files\0/a/..", "{}");
    let (index, changed) = refresh(&f, &index);
    assert_eq!((index.left_out(), changed.len()), (10, 0));
    let mut batch = f.drive.bee().batch().unwrap();
    batch.delete("files\0/a/..").unwrap();
    batch.delete("files\0/").unwrap();
    batch.flush().unwrap();
    assert_eq!(refresh(&f, &index).0.left_out(), 8);
    assert_eq!(shown(&before).len(), 1);
}

#[test]
fn senseless_entries_are_files_that_cannot_be_read() {
    let f = fixture(None);
    for (name, value) in [
        ("/text", "hello"),
        (
            "/absurd",
            r#"{"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":999999999999}}"#,
        ),
        ("/link", r#"{"linkname":7}"#),
        (
            "/map",
            r#"{"blob":{"blockOffset":0,"byteOffset":0,"blockLength":9000000000000000,"byteLength":9,"blockMap":true}}"#,
        ),
    ] {
        put_raw(&f, &[b"files\0", name.as_bytes()].concat(), value);
    }
    put_raw(&f, b"files\0/null", r#"{"executable":true}"#);
    let index = load(&f);
    for name in ["/text", "/absurd", "/link", "/map"] {
        let Some(Found::File(file)) = index.lookup(&path(name)) else { panic!("{name}") };
        assert_eq!(file.size(), 0);
        assert!(matches!(f.drive.open(file), Err(DriveError::Damaged(_))), "{name}");
    }
    let Some(Found::File(file)) = index.lookup(&path("/null")) else { panic!() };
    assert_eq!((file.size(), file.stat.mode), (0, 0o755));
    assert!(f.drive.open(file).unwrap().read_local(0, 9).unwrap().unwrap().is_empty());
}

#[test]
fn two_thousand_directories_deep_is_no_problem() {
    let f = fixture(None);
    let deep = "/d".repeat(2000);
    f.put(&deep, b"x");
    f.put(&format!("{}/other", "/d".repeat(1000)), b"x");
    // A thread with little stack.
    let walk = move || {
        let index = load(&f);
        assert_eq!(index.files(), 2);
        let old = index.clone();
        delete(&f, &deep);
        let (index, changed) = refresh(&f, &index);
        assert_eq!((changed.len(), shown(&index).len()), (1000, 1001));
        drop(old);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(walk).unwrap().join().unwrap();
}

#[test]
fn block_maps_tell_sizes_once_they_are_here() {
    let f = fixture(None);
    let blobs = f.drive.blobs();
    for i in 0..20u8 {
        let id = blobs.put(&[i; 50][..]).unwrap();
        let mut map = BlockMap::default();
        map.push(id.block_offset, 50).unwrap();
        map.push(id.block_offset, 50).unwrap();
        let id = blobs.put_map(&map).unwrap();
        let mut batch = f.drive.batch().unwrap();
        batch.put(&path(&format!("/m{i:02}")), &Entry::file(id)).unwrap();
        batch.flush().unwrap();
    }
    let far = MemoryLog::sparse(&f.content);
    let drive = Drive::reader(MemoryLog::sparse(&f.db), far.clone());
    far.lose(3);
    let index = run(drive.index()).unwrap();
    assert_eq!((index.unsized_files(), far.waits()), (20, 0), "names do not wait for maps");
    let Some(Found::File(file)) = index.lookup(&path("/m01")) else { panic!() };
    assert!(file.known_size().is_none() && file.size() > 0, "not taken for empty");
    let wait = async {
        let mut sizes = Sizes::default();
        sizes.look(&index, drive.blobs());
        let (index, changed) = index.with_sizes(sizes.next(drive.blobs()).await);
        assert_eq!((index.unsized_files(), index.bytes(), changed.len()), (1, 1906, 19));
        assert!(sizes.is_settled(), "one failed and is asked for again later");
        // Another peer comes that has it.
        let there = Drive::reader(f.db.clone(), f.content.clone());
        sizes.peers_changed(there.blobs());
        let (index, changed) = index.with_sizes(sizes.next(there.blobs()).await);
        assert_eq!((index.unsized_files(), index.bytes()), (0, 2000));
        assert_eq!(changed, [path("/m01")]);
        let Some(Found::File(file)) = index.lookup(&path("/m01")) else { panic!() };
        assert_eq!(file.known_size(), Some(100));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(wait);
    // Whoever has the maps knows the sizes with the names.
    assert_eq!(load(&f).bytes(), 2000);
}

/// A log that counts how often a block is read.
struct Counted(Arc<MemoryLog>, AtomicU64);

impl BlockSource for Counted {
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn fork(&self) -> u64 {
        self.0.fork()
    }
    fn byte_length(&self) -> u64 {
        self.0.byte_length()
    }
    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.try_block(index)
    }
    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.block(index)
    }
    fn prefetch(&self, indexes: &[u64]) {
        self.0.prefetch(indexes);
    }
    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>> {
        self.0.seek(byte)
    }
    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError> {
        self.0.byte_offset(index)
    }
}

/// Loads a drive of 500 names whose maps have 64 blocks like `block`, from the one of the name's number times
/// `apart` on. Tells how many sizes and damages are known and the blocks read, first of the load and then of all, and
/// how often another task had its turn meanwhile.
#[expect(clippy::disallowed_methods, reason = "another task, to see that it has its turn")]
fn load_maps(block: &Bytes, apart: u64) -> [(usize, u64); 3] {
    let f = fixture(None);
    let mut batch = f.drive.batch().unwrap();
    for i in 0..500 {
        let (block_offset, byte_length) = (apart * i, 64 * block.len() as u64);
        let byte_offset = block_offset * block.len() as u64;
        let id =
            BlobId { block_offset, block_length: 64, byte_offset, byte_length, block_map: true };
        batch.put(&path(&format!("/{i}")), &Entry::file(id)).unwrap();
    }
    batch.flush().unwrap();
    let content = MemoryLog::from_blocks(vec![block.clone(); 600]);
    let content = Arc::new(Counted(content, AtomicU64::new(0)));
    let drive = Drive::reader(f.db.clone(), content.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let turns = Arc::new(AtomicU64::new(0));
        let other = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                other.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let mut index = drive.index().await.unwrap();
        let loaded = (500 - index.unsized_files(), content.1.load(Ordering::Relaxed));
        let turns = turns.load(Ordering::Relaxed);
        other.abort();
        let mut sizes = Sizes::default();
        sizes.look(&index, drive.blobs());
        while index.unsized_files() > 0 {
            (index, _) = index.with_sizes(sizes.next(drive.blobs()).await);
        }
        [loaded, (500, content.1.load(Ordering::Relaxed)), (0, turns)]
    })
}

#[test]
fn block_maps_cost_no_more_than_a_load_may_read() {
    // Maps of nothing in blocks as large as one likes; the drive's owner shows one to all names, or many.
    let empty = Bytes::from(vec![0; 512 << 10]);
    let [loaded, all, (_, turns)] = load_maps(&empty, 0);
    assert_eq!((loaded, all), ((500, 64), (500, 64)), "one map is read once");
    assert!(turns >= 64, "others had {turns} turns");
    let [(known, read), (_, all), _] = load_maps(&empty, 1);
    assert!((1..=2).contains(&known) && read <= 128, "{known} sizes from {read} blocks");
    assert_eq!(all, 64 * (500 - known as u64) + read, "the others follow");
    let nonsense = Bytes::from(vec![9; 512 << 10]);
    let [(known, read), (_, all), _] = load_maps(&nonsense, 1);
    assert!(known < 130 && read == known as u64, "{known} sizes from {read} blocks");
    assert_eq!(all, 500, "nonsense ends at its first block");
}

#[test]
fn after_a_truncation_no_old_number_is_trusted() {
    let f = fixture(None);
    f.put("/a", b"1");
    f.put("/b", b"1");
    let index = load(&f);
    f.db.truncate(2);
    f.put("/b", b"2");
    let (index, changed) = refresh(&f, &index);
    assert_eq!(changed, ["/a", "/b"]);
    assert_eq!(index.files(), 2);
}

#[test]
fn a_far_drive_loads_and_refreshes_in_few_round_trips() {
    let f = fixture(None);
    let mut batch = f.drive.batch().unwrap();
    for i in 0..3000 {
        batch.put(&path(&format!("/d{:02}/f{i:04}", i % 50)), &Entry::default()).unwrap();
    }
    batch.flush().unwrap();
    let (db, content) = (MemoryLog::sparse(&f.db), MemoryLog::sparse(&f.content));
    let drive = Drive::reader(db.clone(), content);
    let index = run(drive.index()).unwrap();
    assert_eq!(index.files(), 3000);
    for i in 0..200 {
        f.put(&format!("/d00/new{i}"), b"");
    }
    db.update();
    let before = db.waits();
    assert!(before <= 2, "{before}");
    let (index, changed) = run(drive.refresh(&index)).unwrap();
    assert_eq!((index.files(), changed.len()), (3200, 200));
    assert_eq!(db.waits(), before);
}
