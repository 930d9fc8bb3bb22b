//! A whole drive behind a mount: what its writer keeps is there for programs that read it.

use crate::common::{PATIENCE, fuse_is_here, runtime};
use crate::required::available;
use hdrive::fs::{DriveVolume, MountOptions, mount};
use hdrive::hyper::cache::BlockCache;
use hdrive::hyper::core::storage;
use hdrive::hyper::drive::{Drive, Entry, LiveDrive};
use hdrive::hyper::session::Patience;
use hdrive::hyper::store::{Namespace, Store};
use hdrive::path::DrivePath;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A drive of our own in a new store, kept current.
fn own_drive(dir: &Path) -> Arc<LiveDrive> {
    let (wishes, _) = tokio::sync::mpsc::unbounded_channel();
    let cache = Arc::new(BlockCache::new(16 << 20));
    let storage = storage::open_disk(dir).unwrap();
    let store = Arc::new(Store::open(storage, cache, wishes, Patience::default()).unwrap());
    let db = store.named(&Namespace::ROOT, "db", None).unwrap();
    let live = Arc::new(LiveDrive::open(store, db.key(), None, None, |_| {}).unwrap());
    let follower = live.clone();
    runtime().spawn(async move { follower.follow().await });
    live
}

/// Writes what is below `folder`, empty folders too.
fn import(drive: &Drive, folder: &Path, at: &DrivePath) {
    let mut empty = true;
    for item in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        empty = false;
        let path = at.join(item.file_name().to_str().unwrap()).unwrap();
        if item.file_type().unwrap().is_dir() {
            import(drive, &item.path(), &path);
        } else {
            let content = fs::read(item.path()).unwrap();
            drive.put(&path, &content[..], Entry::default()).unwrap();
        }
    }
    if empty {
        let mut batch = drive.batch().unwrap();
        batch.keep_dir(at).unwrap();
        batch.flush().unwrap();
    }
}

fn git(dir: &Path, args: &[&str]) -> bool {
    let mut git = Command::new("git");
    git.args([
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "safe.directory=*",
        "-c",
        "init.defaultBranch=main",
    ]);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", dir).env("GIT_CONFIG_COUNT", "1");
    git.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    git.args(args).current_dir(dir).status().is_ok_and(|status| status.success())
}

#[test]
fn a_git_repository_clones_from_a_mount() {
    if !fuse_is_here() || !available("git", Command::new("git").arg("--version").output().is_ok()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    assert!(git(&source, &["init", "-q"]));
    fs::write(source.join("file"), "content").unwrap();
    assert!(git(&source, &["add", "."]) && git(&source, &["commit", "-qm", "first"]));
    // Everything of `refs` lies in one packed file now, and the folder is empty.
    assert!(git(&source, &["gc", "-q"]));

    let live = own_drive(&dir.path().join("store"));
    let drive = runtime().block_on(live.drive()).unwrap();
    import(&drive, &source, &DrivePath::root());
    runtime().block_on(live.current(PATIENCE)).unwrap();
    let point = dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let volume = Arc::new(DriveVolume::new(Arc::new(live), false, PATIENCE));
    let mounted =
        mount(volume, &point, &MountOptions::default(), runtime().handle().clone()).unwrap();
    assert!(point.join(".git/refs/heads").is_dir());
    let clone = dir.path().join("clone");
    assert!(git(dir.path(), &["clone", "-q", point.to_str().unwrap(), clone.to_str().unwrap()]));
    assert_eq!(fs::read_to_string(clone.join("file")).unwrap(), "content");
    drop(mounted);
}
