//! What a scan finds, and what it must not.

use super::super::mounts::Bind;
use super::*;

fn paths(scan: &Scan) -> Vec<&str> {
    scan.found.iter().map(|l| l.path.as_str()).collect()
}

#[test]
fn files_and_links_are_found_and_what_no_drive_can_hold_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("a/b")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("a/b/file"), "12345").unwrap();
    fs::write(at("top"), "").unwrap();
    std::os::unix::fs::symlink("b/file", at("a/link")).unwrap();
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"bad-\xff")), "").unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();

    let scan_all = scan(dir.path(), &DrivePath::root());
    assert_eq!(paths(&scan_all), ["/a/b/file", "/a/link", "/top"]);
    assert_eq!(scan_all.found[0].kind, LocalKind::File { size: 5 });
    assert_eq!(scan_all.found[1].kind, LocalKind::Symlink { target: "b/file".into() });
    assert_eq!(scan_all.skipped.len(), 2);

    let part = scan(dir.path(), &DrivePath::from_user("/a/b").unwrap());
    assert_eq!(paths(&part), ["/a/b/file"]);
    let gone = scan(dir.path(), &DrivePath::from_user("/nothing/here").unwrap());
    assert!(gone.found.is_empty() && gone.unknown.is_empty());
}

#[test]
fn what_lies_behind_a_link_is_not_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("outside/deep")).unwrap();
    fs::write(dir.path().join("outside/deep/secret"), "x").unwrap();
    let folder = dir.path().join("shared");
    fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
    for behind in ["/link/deep", "/link/deep/secret"] {
        let behind = scan(&folder, &DrivePath::from_user(behind).unwrap());
        assert!(behind.found.is_empty() && behind.unknown.is_empty(), "{behind:?}");
    }
    assert_eq!(paths(&scan(&folder, &DrivePath::root())), ["/link"]);
}

/// Of the very filesystem, so that no device tells.
#[test]
fn what_is_mounted_during_a_scan_is_neither_found_nor_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, private) = (dir.path().join("shared"), dir.path().join("private"));
    fs::create_dir_all(folder.join("zz/deep")).unwrap();
    fs::create_dir(&private).unwrap();
    fs::write(folder.join("zz/mine"), "x").unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    fs::write(private.join("secret"), "x").unwrap();
    let zz = DrivePath::from_user("/zz").unwrap();
    for cross_mounts in [false, true] {
        let rules = Rules::of_share(&folder, &[], cross_mounts, None).unwrap();
        let held = rules.hold().unwrap();
        // How many folders are listed before: none, the root.
        for before in 0..=1 {
            let mut walk = Walk::new(&rules, &held, rules.begin().unwrap());
            walk.begin(&DrivePath::root());
            for _ in 0..before {
                let listed = walk.todo.pop().unwrap();
                walk.list(listed);
            }
            let Some(_mount) = Bind::over(&private, &folder.join("zz")) else { return };
            while let Some(listed) = walk.todo.pop() {
                walk.list(listed);
            }
            let scan = walk.end();
            assert_eq!(paths(&scan), ["/file"], "{cross_mounts} {before}");
            assert_eq!((&scan.unknown, &scan.again), (&vec![zz.clone()], &vec![zz.clone()]));
            // A look that begins later finds a mount that was there before it.
            let later = scan_in(&rules, &held, &DrivePath::root());
            let found = if cross_mounts { vec!["/file", "/zz/secret"] } else { vec!["/file"] };
            assert_eq!(paths(&later), found);
            assert!(later.again.is_empty());
            let below = scan_in(&rules, &held, &zz.join("deep").unwrap());
            assert!(below.found.is_empty());
        }
    }
}

#[test]
fn times_that_some_filesystems_can_hold_do_not_overflow() {
    assert_eq!(milliseconds(1_700_000_000, 123_999_999), 1_700_000_000_123);
    assert_eq!(milliseconds(-1, 500_000_000), -500);
    assert_eq!(milliseconds(i64::MAX, 999_999_999), (1 << 53) - 1);
    assert_eq!(milliseconds(i64::MIN, 0), 1 - (1 << 53));
}

/// What was mounted in it before lies below, where nobody gets to it: the folder that is there now is a folder of the share.
#[test]
fn a_mount_that_lies_under_a_later_one_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
    for name in ["shared/sub", "over/sub", "other"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("over/sub/file"), "x").unwrap();
    let Some(_inner) = Bind::over(&at("other"), &at("shared/sub")) else { return };
    let _over = Bind::over(&at("over"), &at("shared")).unwrap();
    for cross_mounts in [false, true] {
        let rules = Rules::of_share(&at("shared"), &[], cross_mounts, None).unwrap();
        let scan = scan_by(&rules, &DrivePath::root());
        assert_eq!(paths(&scan), ["/sub/file"], "{cross_mounts}");
        assert!(scan.crossed.is_empty() && scan.unknown.is_empty(), "{scan:?}");
    }
}

/// With the path of its folder before it, a path of a drive may be longer than the kernel takes in one call.
#[test]
fn what_lies_deeper_than_a_path_reaches_is_found_with_its_patterns() {
    use super::super::patterns::IGNORE_FILE;
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("f".repeat(200));
    fs::create_dir(&folder).unwrap();
    let opened =
        |at: BorrowedFd<'_>, name: &str, flags| openat(at, name, flags, Mode::RWXU).unwrap();
    let listed = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut deepest = openat(CWD, &folder, listed, Mode::empty()).unwrap();
    let name = "d".repeat(250);
    for _ in 0..16 {
        mkdirat(&deepest, &name, Mode::RWXU).unwrap();
        deepest = opened(deepest.as_fd(), &name, listed);
    }
    for (name, content) in [("file", "deep"), ("secret", "mine"), (IGNORE_FILE, "secret\n")] {
        let file = opened(deepest.as_fd(), name, OFlags::CREATE | OFlags::WRONLY);
        io::Write::write_all(&mut fs::File::from(file), content.as_bytes()).unwrap();
    }
    let rules = Rules::of_share(&folder, &[], false, None).unwrap();
    let base = format!("/{}", vec![name; 16].join("/"));
    for start in [DrivePath::root(), DrivePath::from_user(&base).unwrap()] {
        let scan = scan_by(&rules, &start);
        let found: Vec<&str> =
            paths(&scan).iter().map(|path| path.rsplit('/').next().unwrap()).collect();
        assert_eq!(found, [IGNORE_FILE, "file"]);
        assert!(scan.warnings.is_empty() && scan.closed.is_empty(), "{:?}", scan.warnings);
        let held = rules.hold().unwrap();
        let content = io::read_to_string(held.open(&scan.found[1].path).unwrap()).unwrap();
        assert_eq!(content, "deep");
    }
    let full = locate(&folder, &DrivePath::from_user(&format!("{base}/file")).unwrap());
    assert!(full.as_os_str().len() > 4096 && fs::metadata(&full).is_err());
    // tempfile removes by whole paths.
    let removed = std::process::Command::new("rm").arg("-r").arg(&folder).status().unwrap();
    assert!(removed.success());
}
