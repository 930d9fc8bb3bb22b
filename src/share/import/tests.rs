//! Imports of real folders into drives in memory.

mod moving;
mod resting;

use super::super::scan::Scan;
use super::changes::leaves_below;
use super::*;
use crate::hyper::core::storage::memory;
use crate::hyper::source::BlockSource;
use crate::hyper::source::memory::MemoryLog;
use crate::key::CoreKey;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

struct Shared {
    dir: tempfile::TempDir,
    drive: Drive,
    blobs: Arc<MemoryLog>,
    rules: Rules,
    ledger: Ledger,
}

impl Shared {
    fn new() -> Self {
        let (db, blobs) = (Arc::new(MemoryLog::default()), Arc::new(MemoryLog::default()));
        let drive = Drive::writable(db, blobs.clone(), None);
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules::of_share(dir.path(), &["*.tmp".into()], false, None).unwrap();
        let ledger = Ledger::new(memory(), CoreKey([1; 32]));
        Self { dir, drive, blobs, rules, ledger }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn index(&self) -> DriveIndex {
        if self.drive.bee().source().length() == 0 {
            return DriveIndex::default();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.drive.index()).unwrap()
    }

    fn sync(&self) -> Report {
        self.sync_at("/")
    }

    fn sync_at(&self, path: &str) -> Report {
        self.sync_as(&[path], Trust::Full)
    }

    fn sync_as(&self, paths: &[&str], trust: Trust) -> Report {
        let import = Import {
            drive: &self.drive,
            index: &self.index(),
            rules: &self.rules,
            ledger: &self.ledger,
            trust,
            resting: &BTreeSet::new(),
            held: &self.rules.hold().unwrap(),
            in_parts: false,
            still: &|| true,
            progress: &|_, _| {},
            cancelled: &|| false,
        };
        let paths: Vec<_> = paths.iter().map(|path| DrivePath::from_user(path).unwrap()).collect();
        import.run(&paths).unwrap()
    }

    /// Bytes of contents that `act` and a look at these paths cost.
    fn cost(&self, paths: &[&str], act: impl FnOnce()) -> u64 {
        let before = self.blobs.byte_length();
        act();
        self.sync_as(paths, Trust::Full);
        self.blobs.byte_length() - before
    }

    fn names(&self) -> Vec<String> {
        let index = self.index();
        leaves_below(&index, &DrivePath::root()).into_keys().map(|p| p.to_string()).collect()
    }

    fn content(&self, path: &str) -> Vec<u8> {
        let index = self.index();
        let Some(Found::File(file)) = index.lookup(&DrivePath::from_user(path).unwrap()) else {
            panic!("{path} is no file")
        };
        let reader = self.drive.open(file).unwrap();
        reader.read_local(0, reader.size() as usize).unwrap().unwrap().concat()
    }
}

#[test]
fn a_second_import_writes_nothing_and_a_change_writes_just_that() {
    let s = Shared::new();
    fs::create_dir_all(s.at("a/b")).unwrap();
    fs::write(s.at("a/b/one"), "1").unwrap();
    fs::write(s.at("two"), vec![7; 100_000]).unwrap();
    std::os::unix::fs::symlink("a/b/one", s.at("link")).unwrap();
    assert_eq!(s.sync().written, 3);
    assert_eq!(s.names(), ["/a/b/one", "/link", "/two"]);
    assert_eq!(s.content("/two"), vec![7; 100_000]);
    let again = s.sync();
    assert_eq!((again.written, again.removed, again.files), (0, 0, 3));

    fs::write(s.at("a/b/one"), "11").unwrap();
    fs::remove_file(s.at("link")).unwrap();
    let third = s.sync();
    assert_eq!((third.written, third.removed), (1, 1));
    assert_eq!(s.content("/a/b/one"), b"11");
}

#[test]
fn renames_touches_and_modes_append_no_content() {
    let s = Shared::new();
    fs::write(s.at("old"), vec![1; 200_000]).unwrap();
    s.sync();
    let length = s.blobs.length();
    fs::rename(s.at("old"), s.at("new")).unwrap();
    assert_eq!(s.sync().removed, 1);
    fs::set_permissions(s.at("new"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(s.sync().written, 1);
    fs::File::open(s.at("new")).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(s.sync().written, 1);
    assert_eq!(s.blobs.length(), length);
    assert_eq!(s.content("/new"), vec![1; 200_000]);
}

#[test]
fn a_file_that_becomes_a_folder_and_back_is_followed() {
    let s = Shared::new();
    fs::write(s.at("x"), "file").unwrap();
    s.sync();
    fs::remove_file(s.at("x")).unwrap();
    fs::create_dir(s.at("x")).unwrap();
    fs::write(s.at("x/y"), "inside").unwrap();
    s.sync_at("/x");
    assert_eq!(s.names(), ["/x/y"]);
    fs::remove_dir_all(s.at("x")).unwrap();
    fs::write(s.at("x"), "again").unwrap();
    s.sync_at("/x");
    assert_eq!(s.names(), ["/x"]);
    fs::remove_file(s.at("x")).unwrap();
    s.sync_at("/x");
    assert!(s.names().is_empty());
}

#[test]
fn a_folder_that_cannot_be_read_is_told_and_not_taken_for_deleted() {
    let scan = Scan { unknown: vec![DrivePath::from_user("/locked").unwrap()], ..Scan::default() };
    let s = Shared::new();
    fs::create_dir(s.at("locked")).unwrap();
    fs::write(s.at("locked/kept"), "1").unwrap();
    fs::write(s.at("gone"), "2").unwrap();
    s.sync();
    let index = s.index();
    let import = Import {
        drive: &s.drive,
        index: &index,
        rules: &s.rules,
        ledger: &s.ledger,
        trust: Trust::Full,
        resting: &BTreeSet::new(),
        held: &s.rules.hold().unwrap(),
        in_parts: false,
        still: &|| true,
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    let (mut changes, mut gone) = (Vec::new(), Vec::new());
    let root = DrivePath::root();
    let mut report = Report::default();
    import.compare(&root, &HashSet::new(), &scan, &mut changes, &mut gone, &mut report).unwrap();
    assert!(changes.is_empty());
    assert_eq!(gone, [DrivePath::from_user("/gone").unwrap()]);
}

#[test]
fn content_that_comes_back_or_is_copied_is_not_appended_again() {
    let s = Shared::new();
    fs::write(s.at("photo"), vec![5; 300_000]).unwrap();
    fs::write(s.at("note"), "small").unwrap();
    s.sync();
    fs::copy(s.at("photo"), s.dir.path().join("away.tmp")).unwrap();
    fs::remove_file(s.at("photo")).unwrap();
    fs::remove_file(s.at("note")).unwrap();
    assert_eq!(s.sync().removed, 2);
    let cost = s.cost(&["/"], || {
        fs::copy(s.at("away.tmp"), s.at("photo")).unwrap();
        fs::copy(s.at("away.tmp"), s.at("another")).unwrap();
        fs::write(s.at("note"), "small").unwrap();
    });
    assert_eq!(cost, 0);
    assert_eq!(s.content("/another"), vec![5; 300_000]);
    // The same ends, another middle.
    let mut other = vec![5; 300_000];
    other[150_000] = 6;
    fs::write(s.at("third"), &other).unwrap();
    s.sync();
    assert_eq!(s.content("/third"), other);
}

#[test]
fn an_edit_in_the_middle_and_a_growing_log_cost_what_changed() {
    let s = Shared::new();
    let mut data: Vec<u8> = (0..5_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    fs::write(s.at("log"), &data).unwrap();
    s.sync();
    for _ in 0..10 {
        data.extend(b"one line\n");
        assert_eq!(s.cost(&["/log"], || fs::write(s.at("log"), &data).unwrap()), 9);
    }
    fs::write(s.at("other"), "in between").unwrap();
    s.sync();
    data[10_000_000] ^= 1;
    let cost = s.cost(&["/log"], || fs::write(s.at("log"), &data).unwrap());
    assert!(cost < 70_000, "{cost}");
    data.extend(b"one line\n");
    let cost = s.cost(&["/log"], || fs::write(s.at("log"), &data).unwrap());
    assert!(cost < 4_000, "{cost}");
    let index = s.index();
    let Some(Found::File(file)) = index.lookup(&DrivePath::from_user("/log").unwrap()) else {
        panic!("no log")
    };
    assert_eq!(file.size(), data.len() as u64);
    assert_eq!(s.content("/log"), data);
    assert_eq!(s.sync().written, 0, "a second look finds nothing");
}

#[test]
fn a_file_replaced_by_one_of_the_same_size_and_time_is_seen() {
    let s = Shared::new();
    let set = |name: &str, text: &str| {
        fs::write(s.at(name), text).unwrap();
        fs::File::open(s.at(name)).unwrap().set_modified(UNIX_EPOCH).unwrap();
    };
    set("file", "old");
    s.sync();
    set("new", "new");
    fs::rename(s.at("new"), s.at("file")).unwrap();
    assert_eq!(s.sync().written, 1, "after a restart");
    assert_eq!(s.content("/file"), b"new");
    set("file", "wow");
    assert_eq!(s.sync_at("/file").written, 1, "told by inotify");
    assert_eq!(s.content("/file"), b"wow");
}

#[test]
fn every_name_of_an_inode_follows_its_content() {
    let s = Shared::new();
    fs::create_dir(s.at("deep")).unwrap();
    fs::write(s.at("deep/first"), "1").unwrap();
    s.sync();
    fs::hard_link(s.at("deep/first"), s.at("second")).unwrap();
    s.sync_at("/second");
    fs::write(s.at("second"), "twice").unwrap();
    s.sync_at("/second");
    assert_eq!(s.content("/deep/first"), b"twice");
    fs::write(s.at("deep/first"), "and back").unwrap();
    s.sync_at("/deep");
    assert_eq!(s.content("/second"), b"and back");
}

#[test]
fn empty_folders_are_kept_as_long_as_they_are_empty() {
    let s = Shared::new();
    let kept = || s.index().kept_below(&DrivePath::root());
    let path = |name| DrivePath::from_user(name).unwrap();
    fs::create_dir_all(s.at("refs/heads")).unwrap();
    fs::create_dir_all(s.at("refs/tags")).unwrap();
    s.sync();
    assert_eq!(s.index().kept_below(&DrivePath::root()).len(), 2);
    assert_eq!(s.sync().written, 0);
    fs::write(s.at("refs/heads/main"), "x").unwrap();
    s.sync_at("/refs/heads/main");
    assert_eq!(kept(), [path("/refs/tags")]);
    fs::remove_file(s.at("refs/heads/main")).unwrap();
    s.sync_at("/refs/heads/main");
    assert_eq!(kept().len(), 2, "it is empty again");
    fs::remove_dir_all(s.at("refs")).unwrap();
    s.sync_at("/refs");
    assert!(kept().is_empty());
}

#[test]
fn folders_above_one_that_was_removed_are_still_there() {
    let s = Shared::new();
    let kept = || {
        let mut kept = s.index().kept_below(&DrivePath::root());
        kept.sort();
        kept
    };
    let path = |name| DrivePath::from_user(name).unwrap();
    fs::create_dir_all(s.at("ed/a/b/c")).unwrap();
    s.sync();
    assert_eq!(kept(), [path("/ed/a/b/c")]);
    for (gone, left) in [("ed/a/b/c", "/ed/a/b"), ("ed/a/b", "/ed/a"), ("ed/a", "/ed")] {
        fs::remove_dir(s.at(gone)).unwrap();
        s.sync_at(&format!("/{gone}"));
        assert_eq!(kept(), [path(left)], "{gone}");
    }
    fs::create_dir_all(s.at("ed/x/y")).unwrap();
    s.sync_at("/ed/x");
    assert_eq!(kept(), [path("/ed/x/y")]);
    // One that left for elsewhere, together with where it went.
    fs::rename(s.at("ed/x/y"), s.at("y")).unwrap();
    s.sync_as(&["/ed/x/y", "/y"], Trust::Full);
    assert_eq!(kept(), [path("/ed/x"), path("/y")]);
    fs::write(s.at("ed/x/file"), "1").unwrap();
    s.sync_at("/ed/x/file");
    assert_eq!(kept(), [path("/y")]);
    // A file and its folder at once.
    fs::remove_dir_all(s.at("ed/x")).unwrap();
    s.sync_as(&["/ed/x/file", "/ed/x"], Trust::Full);
    assert_eq!(kept(), [path("/ed"), path("/y")]);
    fs::create_dir_all(s.at("y/z")).unwrap();
    s.sync_at("/y/z");
    assert_eq!(kept(), [path("/ed"), path("/y/z")]);
    assert_eq!(s.sync().written, 0);
}

/// At a start nobody knows what the file said.
#[test]
fn nothing_new_is_shared_where_the_patterns_cannot_be_read() {
    let s = Shared::new();
    let patterns = s.at("a/.hdriveignore");
    fs::create_dir_all(s.at("a/deep")).unwrap();
    fs::write(&patterns, "secret\n").unwrap();
    for name in ["a/old", "a/gone", "a/deep/secret", "b"] {
        fs::write(s.at(name), "1").unwrap();
    }
    s.sync();
    let before = ["/a/.hdriveignore", "/a/gone", "/a/old", "/b"];
    assert_eq!(s.names(), before);

    let s = Shared { rules: Rules::of_share(s.dir.path(), &[], false, None).unwrap(), ..s };
    fs::write(&patterns, b"secret\n\xff\n").unwrap();
    fs::write(s.at("a/old"), "changed").unwrap();
    fs::remove_file(s.at("a/gone")).unwrap();
    for name in ["a/new", "a/deep/new", "c"] {
        fs::write(s.at(name), "1").unwrap();
    }
    for (at, again) in [("/a/new", "/a/new"), ("/a/deep/secret", "/a/deep/secret"), ("/", "/a")] {
        let report = s.sync_at(at);
        assert!(report.again.contains(&DrivePath::from_user(again).unwrap()), "{report:?}");
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        assert!(report.warnings[0].0.ends_with("a/.hdriveignore"));
    }
    assert_eq!(s.names(), ["/a/.hdriveignore", "/a/old", "/b", "/c"]);
    assert_eq!(s.content("/a/old"), b"changed");
    fs::write(&patterns, "secret\n").unwrap();
    assert!(s.sync().warnings.is_empty());
    let all = ["/a/.hdriveignore", "/a/deep/new", "/a/new", "/a/old", "/b", "/c"];
    assert_eq!(s.names(), all);

    // While it runs, what it said before counts.
    fs::remove_file(&patterns).unwrap();
    std::os::unix::fs::symlink("nowhere", &patterns).unwrap();
    fs::write(s.at("a/newer"), "1").unwrap();
    let report = s.sync();
    assert_eq!(report.warnings.len(), 1);
    assert!(report.again.contains(&DrivePath::from_user("/a").unwrap()), "{report:?}");
    let names = s.names();
    assert!(names.contains(&"/a/newer".into()), "{names:?}");
    assert!(!names.contains(&"/a/deep/secret".into()), "{names:?}");
}

#[test]
fn paths_below_another_are_not_looked_at_twice() {
    let paths = ["/a/b/c", "/a", "/a-b", "/a/b", "/z/y"].map(|p| DrivePath::from_user(p).unwrap());
    let found = topmost(&paths);
    let names: Vec<&str> = found.iter().map(DrivePath::as_str).collect();
    assert_eq!(names, ["/a", "/a-b", "/z/y"]);
    let s = Shared::new();
    fs::create_dir_all(s.at("a/b")).unwrap();
    fs::write(s.at("a/b/c"), vec![1; 1000]).unwrap();
    s.sync_as(&["/a", "/a/b", "/a/b/c"], Trust::Full);
    assert_eq!((s.blobs.length(), s.blobs.byte_length()), (1, 1000));
}

#[test]
fn what_another_folder_lacks_stays() {
    let s = Shared::new();
    for name in ["a", "b", "c", "d"] {
        fs::write(s.at(name), name).unwrap();
    }
    s.sync();
    for name in ["a", "b", "c", "d"] {
        fs::remove_file(s.at(name)).unwrap();
    }
    assert_eq!(s.sync_as(&["/"], Trust::IfAny).kept, 4);
    fs::write(s.at("new"), "new").unwrap();
    for trust in [Trust::IfHalf, Trust::Additions] {
        let report = s.sync_as(&["/"], trust);
        assert_eq!((report.kept, report.removed), (4, 0), "{trust:?}");
    }
    assert!(s.sync_as(&["/"], Trust::OnlyHalf).refused);
    assert_eq!(s.names(), ["/a", "/b", "/c", "/d", "/new"]);
    // A name that was told is another matter.
    fs::remove_file(s.at("new")).unwrap();
    s.sync_as(&["/new"], Trust::Additions);
    for name in ["a", "b"] {
        fs::write(s.at(name), name).unwrap();
    }
    assert_eq!(s.sync_as(&["/"], Trust::IfHalf).removed, 2);
    assert_eq!(s.names(), ["/a", "/b"]);
}

#[test]
fn what_was_added_from_another_folder_is_no_evidence_for_it() {
    let s = Shared::new();
    fs::write(s.at("mine"), "1").unwrap();
    s.sync();
    fs::remove_file(s.at("mine")).unwrap();
    for name in ["x", "y", "z"] {
        fs::write(s.at(name), name).unwrap();
    }
    for trust in [Trust::IfHalf, Trust::Additions, Trust::IfHalf] {
        assert_eq!(s.sync_as(&["/"], trust).kept, 1, "{trust:?}");
        assert_eq!(s.names(), ["/mine", "/x", "/y", "/z"]);
    }
    s.ledger.forget_guests().unwrap();
    assert_eq!(s.sync_as(&["/"], Trust::IfHalf).removed, 1);
}

#[test]
fn a_folder_that_moved_while_it_was_looked_at_changes_nothing() {
    let s = Shared::new();
    fs::write(s.at("a"), "1").unwrap();
    s.sync();
    fs::remove_file(s.at("a")).unwrap();
    let index = s.index();
    let import = Import {
        drive: &s.drive,
        index: &index,
        rules: &s.rules,
        ledger: &s.ledger,
        trust: Trust::Full,
        resting: &BTreeSet::new(),
        held: &s.rules.hold().unwrap(),
        in_parts: false,
        still: &|| false,
        progress: &|_, _| {},
        cancelled: &|| false,
    };
    assert!(import.run(&[DrivePath::root()]).unwrap().refused);
    assert_eq!(s.names(), ["/a"]);
}

#[test]
fn secrets_are_counted_and_the_keys_of_a_store_never_shared() {
    let s = Shared::new();
    let private = |name: &str| fs::set_permissions(s.at(name), fs::Permissions::from_mode(0o600));
    fs::write(s.at("key"), "x").unwrap();
    private("key").unwrap();
    fs::create_dir(s.at("hidden")).unwrap();
    fs::write(s.at("hidden/file"), "x").unwrap();
    fs::set_permissions(s.at("hidden"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(s.at("open"), "x").unwrap();
    fs::write(s.at("out.tmp"), "x").unwrap();
    private("out.tmp").unwrap();
    assert_eq!(s.sync().private, 2);
    assert_eq!(s.sync_at("/key").private, 0, "it is public already");

    let storage = crate::hyper::core::storage::open_disk(s.dir.path()).unwrap();
    crate::hyper::core::storage::Records::new(storage.clone()).primary_key().unwrap();
    drop(storage);
    fs::rename(s.at("store.redb"), s.at("old.bak")).unwrap();
    private("old.bak").unwrap();
    let report = s.sync();
    let is_private = |name: &String| {
        let meta = fs::metadata(s.at(&name[1..])).unwrap();
        meta.mode() & 0o044 == 0 || name.starts_with("/hidden") || name.starts_with("/cores")
    };
    let private = s.names().iter().filter(|name| is_private(name)).count();
    assert_eq!(report.private, private as u64, "what is left out is not public: {:?}", s.names());
    assert!(!s.names().contains(&"/old.bak".to_string()), "{:?}", s.names());
    assert!(report.skipped.iter().any(|(path, _)| path.ends_with("old.bak")));
}

#[test]
fn a_content_that_is_not_here_any_more_is_taken_from_the_folder_again() {
    let s = Shared::new();
    let large: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(s.at("kept"), "1").unwrap();
    fs::write(s.at("lost"), &large).unwrap();
    let mut mapped = large.clone();
    fs::write(s.at("mapped"), &mapped).unwrap();
    s.sync();
    mapped[150_000] ^= 1;
    fs::write(s.at("mapped"), &mapped).unwrap();
    s.sync();
    let untouched = || {
        for name in ["kept", "lost", "mapped"] {
            let look = Look::at(&fs::File::open(s.at(name)).unwrap()).unwrap();
            let seen = Seen::of(&look.stamp, i64::MAX);
            s.ledger.note(&DrivePath::from_user(name).unwrap(), seen);
        }
    };
    untouched();
    assert_eq!((s.sync().written, s.blobs.length()), (0, 1 + 7 + 2), "one block and a map");

    s.blobs.clear(7);
    assert_eq!(s.sync().written, 2, "both have the last block of it");
    assert!(s.content("/lost") == large && s.content("/mapped") == mapped);
    untouched();
    assert_eq!(s.sync().written, 0);
}
