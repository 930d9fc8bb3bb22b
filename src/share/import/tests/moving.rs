//! Folders that become others while they are imported.

use super::super::super::beneath::Beneath;
use super::super::super::mounts::Bind;
use super::*;
use std::cell::Cell;

/// Larger than a group of files may be in memory, so that reading it is told.
const LARGE: usize = 300_000;

impl Shared {
    fn new_at(cross_mounts: bool) -> Self {
        let s = Self::new();
        fs::create_dir(s.at("f")).unwrap();
        let rules = Rules::of_share(&s.at("f"), &[], cross_mounts, None).unwrap();
        Self { rules, ..s }
    }

    /// Imports everything; `act` is called once, when some of the first large file was read.
    fn sync_while(&self, act: impl Fn()) -> Report {
        let held = self.rules.hold().unwrap();
        let once = Cell::new(true);
        let import = Import {
            drive: &self.drive,
            index: &self.index(),
            rules: &self.rules,
            ledger: &self.ledger,
            trust: Trust::Full,
            resting: &BTreeSet::new(),
            held: &held,
            in_parts: false,
            still: &|| Beneath::is_at(&held, self.rules.folder()),
            progress: &|done, _| {
                if done > 0 && once.take() {
                    act();
                }
            },
            cancelled: &|| false,
        };
        let report = import.run(&[DrivePath::root()]).unwrap();
        assert!(!once.get(), "nothing was read");
        report
    }
}

fn again(report: &Report) -> Vec<&str> {
    report.again.iter().map(DrivePath::as_str).collect()
}

#[test]
fn a_file_of_another_mount_is_not_taken_for_the_one_that_was_found() {
    for cross_mounts in [false, true] {
        let s = Shared::new_at(cross_mounts);
        let other = s.at("other");
        for dir in [s.at("f/sub"), other.clone()] {
            fs::create_dir(dir).unwrap();
        }
        fs::write(s.at("f/a"), vec![1; LARGE]).unwrap();
        for (dir, fill) in [(s.at("f/sub"), 2), (other.clone(), 3)] {
            fs::write(dir.join("large"), vec![fill; LARGE]).unwrap();
            fs::write(dir.join("small"), [fill]).unwrap();
        }
        fs::write(s.at("f/z"), "z").unwrap();
        let mount = Cell::new(None);
        let report = s.sync_while(|| mount.set(Bind::over(&other, &s.at("f/sub"))));
        let Some(mount) = mount.take() else { return };
        assert_eq!(s.names(), ["/a", "/z"], "{cross_mounts}");
        assert_eq!(again(&report), ["/sub/large", "/sub/small"]);
        let appended = s.blobs.byte_length();
        assert_eq!(appended, LARGE as u64 + 1, "not even their bytes");
        drop(mount);
        s.sync();
        assert_eq!(s.names(), ["/a", "/sub/large", "/sub/small", "/z"]);
        assert_eq!((s.content("/sub/small"), s.content("/sub/large")), (vec![2], vec![2; LARGE]));
    }
}

#[test]
fn what_is_deleted_below_what_was_mounted_meanwhile_stays() {
    let s = Shared::new_at(false);
    fs::create_dir(s.at("f/sub")).unwrap();
    fs::create_dir(s.at("other")).unwrap();
    fs::write(s.at("f/sub/gone"), "x").unwrap();
    fs::write(s.at("f/gone"), "x").unwrap();
    s.sync();
    fs::remove_file(s.at("f/sub/gone")).unwrap();
    fs::remove_file(s.at("f/gone")).unwrap();
    fs::write(s.at("f/a"), vec![1; LARGE]).unwrap();
    let mount = Cell::new(None);
    let report = s.sync_while(|| mount.set(Bind::over(&s.at("other"), &s.at("f/sub"))));
    let Some(_mount) = mount.take() else { return };
    assert_eq!(s.names(), ["/a", "/sub/gone"]);
    assert!(again(&report).contains(&"/sub/gone"), "{:?}", report.again);
}

#[test]
fn another_folder_in_its_place_is_not_imported_with_it() {
    let s = Shared::new_at(false);
    fs::create_dir_all(s.at("f/sub")).unwrap();
    fs::create_dir_all(s.at("o/sub")).unwrap();
    fs::write(s.at("f/a.bin"), vec![1; LARGE]).unwrap();
    fs::write(s.at("f/sub/file"), "mine").unwrap();
    fs::write(s.at("o/sub/file"), "not mine").unwrap();
    let report = s.sync_while(|| {
        fs::rename(s.at("f"), s.at("f.old")).unwrap();
        fs::rename(s.at("o"), s.at("f")).unwrap();
    });
    assert!(report.refused && s.names().is_empty(), "{:?}", s.names());
    // Nor is one that was there for a moment only.
    fs::rename(s.at("f"), s.at("o")).unwrap();
    fs::rename(s.at("f.old"), s.at("f")).unwrap();
    fs::write(s.at("f/b.bin"), vec![2; LARGE]).unwrap();
    let turns = Cell::new(0);
    let held = s.rules.hold().unwrap();
    let swap = |from: &str, to: &str| fs::rename(s.at(from), s.at(to)).unwrap();
    let import = Import {
        drive: &s.drive,
        index: &s.index(),
        rules: &s.rules,
        ledger: &s.ledger,
        trust: Trust::Full,
        resting: &BTreeSet::new(),
        held: &held,
        in_parts: false,
        still: &|| held.is_at(s.rules.folder()),
        progress: &|_, _| {
            turns.set(turns.get() + 1);
            match turns.get() {
                1 => (swap("f", "f.old"), swap("o", "f")),
                2 => (swap("f", "o"), swap("f.old", "f")),
                _ => ((), ()),
            };
        },
        cancelled: &|| false,
    };
    assert!(!import.run(&[DrivePath::root()]).unwrap().refused);
    assert!(turns.get() >= 2);
    assert_eq!(s.content("/sub/file"), b"mine");
}

#[test]
fn what_is_to_be_left_out_is_asked_until_it_is_published() {
    let s = Shared::new_at(false);
    fs::create_dir(s.at("f/z-dir")).unwrap();
    fs::write(s.at("f/a"), vec![1; LARGE]).unwrap();
    for name in ["f/b", "f/z-secret", "f/z-dir/file"] {
        fs::write(s.at(name), name).unwrap();
    }
    std::os::unix::fs::symlink("b", s.at("f/z-link")).unwrap();
    fs::create_dir(s.at("f/z-empty")).unwrap();
    let report = s.sync_while(|| {
        fs::write(s.at("f/.hdriveignore"), "z-*\n").unwrap();
    });
    assert_eq!(s.names(), ["/a", "/b"]);
    assert!(s.index().kept_below(&DrivePath::root()).is_empty());
    assert!(report.again.is_empty(), "the file itself is looked at again: {report:?}");
}

#[test]
fn a_file_that_another_was_renamed_over_is_read_in_its_place() {
    let s = Shared::new_at(false);
    fs::write(s.at("f/a"), vec![1; LARGE]).unwrap();
    fs::write(s.at("f/large"), vec![2; LARGE]).unwrap();
    fs::write(s.at("f/small"), "old").unwrap();
    fs::write(s.at("f/gone"), "old").unwrap();
    let report = s.sync_while(|| {
        fs::write(s.at("new"), vec![3; LARGE + 1]).unwrap();
        fs::rename(s.at("new"), s.at("f/large")).unwrap();
        fs::write(s.at("new"), "new").unwrap();
        fs::rename(s.at("new"), s.at("f/small")).unwrap();
        fs::remove_file(s.at("f/gone")).unwrap();
    });
    assert_eq!(s.names(), ["/a", "/large", "/small"]);
    assert_eq!((s.content("/small"), s.content("/large")), (b"new".into(), vec![3; LARGE + 1]));
    assert_eq!(again(&report), ["/gone"]);
    assert_eq!(s.blobs.byte_length(), 2 * LARGE as u64 + 1 + 3);
}

/// It says "input/output error" as long as something is mounted over it.
#[test]
fn a_file_that_cannot_be_read_for_a_moment_is_looked_at_again() {
    let s = Shared::new_at(true);
    for name in ["f/small", "f/other"] {
        fs::write(s.at(name), name).unwrap();
    }
    let memory = PathBuf::from("/proc/self/mem");
    let Some(mount) = Bind::over(&memory, &s.at("f/small")) else { return };
    let report = s.sync();
    assert_eq!((s.names(), again(&report)), (vec!["/other".into()], vec!["/small"]), "{report:?}");
    assert!(report.skipped.iter().any(|(path, _)| path.ends_with("small")));
    drop(mount);
    assert!(s.sync_at("/small").again.is_empty());
    assert_eq!(s.names(), ["/other", "/small"]);
}
