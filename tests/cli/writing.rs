//! A mount that is written: what programs do to it, who sees it when, and what an end leaves.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

/// A new drive of `store`, mounted to be written.
fn written(lab: &Lab, store: &str) -> (Mounted, String) {
    let made = lab.run(store, &["create", "notes"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let told = String::from_utf8(made.stdout).unwrap();
    let key = told.lines().find_map(|line| line.strip_prefix("key: ")).unwrap();
    (lab.mount_alone(store, "notes", &["-o", "rw"]), key.to_string())
}

fn again(lab: &Lab, store: &str) -> Mounted {
    lab.mount_alone(store, "notes", &["-o", "rw"])
}

#[test]
fn programs_work_on_it_and_a_javascript_peer_reads_it_all() {
    if !fuse_available() || !js_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, key) = written(&lab, "alice");
    let at = &mount.at;
    fs::write(at.join("first"), "1").unwrap();
    let mut log = OpenOptions::new().append(true).open(at.join("first")).unwrap();
    log.write_all(b"2").unwrap();
    assert_eq!(fs::read(at.join("first")).unwrap(), b"12", "before it is closed");
    drop(log);
    fs::create_dir_all(at.join("a/b")).unwrap();
    let big = pattern(1, 300_000);
    fs::write(at.join("a/b/.tmp"), &big).unwrap();
    fs::rename(at.join("a/b/.tmp"), at.join("a/b/big")).unwrap();
    fs::hard_link(at.join("a/b/big"), at.join("a/same")).unwrap();
    let (one, two) =
        (fs::metadata(at.join("a/b/big")).unwrap(), fs::metadata(at.join("a/same")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    let mut file = OpenOptions::new().write(true).open(at.join("a/same")).unwrap();
    file.seek(SeekFrom::Start(70_000)).unwrap();
    file.write_all(b"changed").unwrap();
    drop(file);
    let mut changed = big.clone();
    changed[70_000..70_007].copy_from_slice(b"changed");
    assert_eq!(fs::read(at.join("a/b/big")).unwrap(), changed, "by the other name");
    let number = fs::metadata(at.join("a/b/big")).unwrap().ino();
    fs::rename(at.join("a"), at.join("moved")).unwrap();
    assert_eq!(fs::metadata(at.join("moved/b/big")).unwrap().ino(), number);
    fs::set_permissions(at.join("moved/same"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("moved/b/big", at.join("link")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    let mut gone = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(at.join("gone"))
        .unwrap();
    gone.write_all(b"still here").unwrap();
    fs::remove_file(at.join("gone")).unwrap();
    gone.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    gone.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), gone.metadata().unwrap().nlink()), ("still here", 0));
    assert_eq!(fs::read_dir(at).unwrap().count(), 4);
    let error = fs::write(at.join("back\\slash"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EILSEQ as i32));
    File::open(at).unwrap().sync_all().unwrap();
    let mut js = lab.js();
    let key = hdrive::key::hex(&hdrive::key::parse_key(&key).unwrap());
    js.call("open", json!({"key": key}));
    let listed = eventually("all of it at the peer", PATIENCE, || {
        let listed = js.call("list", json!({"key": key}));
        let names = listed["entries"].as_array()?.len();
        (names == 4).then_some(listed)
    });
    let hash = |name: &str| {
        let files = listed["entries"].as_array().unwrap();
        let file = files.iter().find(|file| file["path"] == name).unwrap();
        file["sha256"].as_str().unwrap_or_default().to_string()
    };
    assert_eq!(hash("/first"), sha256(b"12"));
    assert_eq!(hash("/moved/b/big"), sha256(&changed));
    assert_eq!(hash("/moved/same"), sha256(&changed));
}

fn synced(at: &Path, name: &str, content: &[u8]) -> File {
    let file = File::create(at.join(name)).unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync_all().unwrap();
    file
}

#[test]
fn what_was_synced_is_there_after_the_process_was_killed() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _) = written(&lab, "alice");
    let content = pattern(3, 200_000);
    for round in 0..5 {
        let at = mount.at.clone();
        let name = format!("kept-{round}");
        // Open until the end, so that it was never published.
        let file = synced(&at, &name, &content);
        file.write_all_at(b"and on", 100).unwrap();
        file.sync_data().unwrap();
        let other = File::create(at.join("other")).unwrap();
        other.write_all_at(format!("{round}").as_bytes(), 0).unwrap();
        // Whoever has it open.
        File::open(at.join("other")).unwrap().sync_all().unwrap();
        fs::write(at.join("closed"), format!("{round}")).unwrap();
        File::open(&at).unwrap().sync_all().unwrap();
        mount.process.signal(Signal::SIGKILL);
        mount.process.wait(PATIENCE);
        drop((file, other));
        mount = again(&lab, "alice");
        let mut wanted = content.clone();
        wanted[100..106].copy_from_slice(b"and on");
        for earlier in 0..=round {
            let found = fs::read(mount.at.join(format!("kept-{earlier}"))).unwrap();
            assert!(found == wanted, "round {round}: kept-{earlier}");
        }
        for name in ["closed", "other"] {
            assert_eq!(fs::read_to_string(mount.at.join(name)).unwrap(), format!("{round}"));
        }
    }
}

#[test]
fn every_name_of_a_file_is_read_after_another_mount() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _) = written(&lab, "alice");
    fs::write(mount.at.join("b"), "content").unwrap();
    fs::hard_link(mount.at.join("b"), mount.at.join("c")).unwrap();
    fs::hard_link(mount.at.join("b"), mount.at.join("a")).unwrap();
    stop(mount.process);
    mount = again(&lab, "alice");
    for name in ["c", "b", "a"] {
        assert_eq!(fs::read_to_string(mount.at.join(name)).unwrap(), "content", "{name}");
    }
    fs::write(mount.at.join("c"), "other").unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read_to_string(mount.at.join(name)).unwrap(), "other", "{name}");
    }
}

#[test]
fn without_rw_and_where_a_share_follows_it_is_read_only() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, key) = written(&lab, "alice");
    fs::write(mount.at.join("file"), "content").unwrap();
    File::open(&mount.at).unwrap().sync_all().unwrap();
    let read_only = |at: &Path| {
        let error = fs::write(at.join("new"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EROFS as i32));
    };
    let follower = lab.mount("bob", &key, &["-o", "rw"]);
    read_only(&follower.at);
    drop(mount);
    let mount = lab.mount("alice", "notes", &[]);
    read_only(&mount.at);
    drop(mount);
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("carol", &folder);
    let mut shared = lab.mount("carol", &key, &["-o", "rw"]);
    read_only(&shared.at);
    shared.process.told("mounted read-only");
}

#[test]
fn two_mounts_of_it_and_a_peer_see_what_is_saved() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, key) = written(&lab, "alice");
    fs::write(mount.at.join("file"), "one").unwrap();
    let beside = lab.folder("beside");
    let mut second = lab.spawn("alice", &["mount", "notes", text(&beside), "-o", "rw"]);
    second.line("mounted: ");
    let peer = lab.mount("bob", &key, &[]);
    for (from, to, word) in [(&mount.at, &beside, "two"), (&beside, &mount.at, "three")] {
        fs::write(from.join("file"), word).unwrap();
        let same = |at: &Path| (fs::read_to_string(at.join("file")).ok()? == word).then_some(());
        eventually("the other mount", PATIENCE, || same(to));
        eventually("the peer", PATIENCE, || same(&peer.at));
    }
}

#[test]
fn what_is_written_to_a_file_that_stays_open_is_published_soon() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice");
    let mut open = File::create(mount.at.join("f")).unwrap();
    open.write_all(b"one").unwrap();
    let begun = Instant::now();
    while lab.run("alice", &["cat", "notes/f"]).stdout != b"one" {
        assert!(begun.elapsed() < Duration::from_secs(15), "the kernel keeps it");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn files_belong_to_whom_they_are_given() {
    if !fuse_available() || !nix::unistd::geteuid().is_root() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice");
    let at = mount.at.clone();
    fs::write(at.join("f"), "x").unwrap();
    fs::create_dir(at.join("d")).unwrap();
    fs::set_permissions(at.join("f"), fs::Permissions::from_mode(0o6755)).unwrap();
    std::os::unix::fs::chown(at.join("f"), Some(7), Some(8)).unwrap();
    std::os::unix::fs::chown(at.join("d"), None, Some(9)).unwrap();
    fs::set_permissions(at.join("d"), fs::Permissions::from_mode(0o2775)).unwrap();
    fs::write(at.join("d/in"), "x").unwrap();
    fs::create_dir(at.join("d/below")).unwrap();
    let seen = |name: &str| {
        let meta = fs::metadata(at.join(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let all = || ["f", "d", "d/in", "d/below"].map(seen);
    let want = [(7, 8, 0o755), (0, 9, 0o2775), (0, 9, 0o644), (0, 9, 0o2755)];
    assert_eq!(all(), want);
    drop(mount);
    let mount = again(&lab, "alice");
    assert_eq!(mount.at, at);
    assert_eq!(all(), want, "after another mount");
}

#[test]
fn a_copy_within_the_mount_has_the_same_bytes() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice");
    let at = &mount.at;
    let all = pattern(5, 20_000_000);
    fs::write(at.join("f"), &all).unwrap();
    // As it is being published, and when it is.
    for name in ["at once", "later"] {
        // By copy_file_range(2).
        assert_eq!(fs::copy(at.join("f"), at.join(name)).unwrap(), 20_000_000);
        assert!(fs::read(at.join(name)).unwrap() == all, "{name}");
        let synced = File::open(at.join(name)).unwrap();
        synced.sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
    }
    assert!(lab.run("alice", &["cat", "notes/later"]).stdout == all);
}
