//! A mount that is written, and everything else that happens to its drive meanwhile: commands, a share, forgetting, ends.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

/// A new drive of `store`, mounted to be written.
fn written(lab: &Lab, store: &str, more: &[&str]) -> (Mounted, String) {
    let made = lab.run(store, &["create", "notes"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let told = String::from_utf8(made.stdout).unwrap();
    let key = told.lines().find_map(|line| line.strip_prefix("key: ")).unwrap();
    (again(lab, store, more), key.to_string())
}

fn again(lab: &Lab, store: &str, more: &[&str]) -> Mounted {
    lab.mount_alone(store, "notes", &[&["-o", "rw"], more].concat())
}

fn done(lab: &Lab, store: &str, args: &[&str]) -> Done {
    let done = lab.run(store, args);
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    done
}

/// What the drive has at `path`, for others.
fn published(lab: &Lab, path: &str) -> Option<String> {
    let cat = lab.run("alice", &["cat", &format!("notes/{path}")]);
    (cat.code == 0).then(|| String::from_utf8_lossy(&cat.stdout).into_owned())
}

fn read(at: &Path, name: &str) -> Option<String> {
    fs::read_to_string(at.join(name)).ok()
}

fn put(lab: &Lab, name: &str, content: &str) -> Done {
    let file = lab.path("put");
    fs::write(&file, content).unwrap();
    done(lab, "alice", &["put", &format!("notes/{name}"), text(&file)])
}

#[test]
fn what_a_command_does_shows_in_the_mount_and_what_is_saved_there_comes_before() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice", &[]);
    let at = &mount.at;
    fs::write(at.join("saved"), "in the mount").unwrap();
    put(&lab, "saved", "by a command, and longer");
    assert_eq!(read(at, "saved").as_deref(), Some("by a command, and longer"), "it came after");
    let log = done(&lab, "alice", &["log", "notes"]);
    let log = String::from_utf8_lossy(&log.stdout).matches("saved").count();
    assert!(log >= 2, "what was saved is a version of its own");
    put(&lab, "new/file", "new");
    assert_eq!(read(at, "new/file").as_deref(), Some("new"));
    fs::write(at.join("new/beside"), "beside").unwrap();
    done(&lab, "alice", &["rm", "-r", "notes/new"]);
    assert!(!at.join("new").exists(), "what was saved there before went with it");
    // Open and not written: it is theirs, also for who has it open.
    let open = OpenOptions::new().read(true).write(true).open(at.join("saved")).unwrap();
    put(&lab, "saved", "once more");
    let mut bytes = [0; 9];
    eventually("the open file", PATIENCE, || {
        open.read_at(&mut bytes, 0).ok()?;
        (&bytes == b"once more").then_some(())
    });
    drop(open);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        published(&lab, "saved").as_deref(),
        Some("once more"),
        "closing it changed nothing"
    );
    // Open and written: it is the mount's, and the command says so.
    let open = OpenOptions::new().write(true).open(at.join("saved")).unwrap();
    open.write_all_at(b"MINE", 0).unwrap();
    let told = put(&lab, "saved", "lost?");
    assert!(told.stderr.contains("/saved is being written in a mount"), "{}", told.stderr);
    assert_eq!(read(at, "saved").as_deref(), Some("MINE more"));
    drop(open);
    eventually("the mount's own", PATIENCE, || {
        (published(&lab, "saved")? == "MINE more").then_some(())
    });
    let log = done(&lab, "alice", &["log", "notes"]);
    let log = String::from_utf8_lossy(&log.stdout).matches("saved").count();
    assert!(log >= 5, "what the command put is a version all the same");
}

#[test]
fn a_folder_is_put_while_the_mount_writes_to_the_same() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice", &[]);
    let folder = lab.folder("put");
    for n in 0..300 {
        fs::write(folder.join(format!("theirs-{n}")), format!("theirs {n}")).unwrap();
    }
    fs::create_dir(mount.at.join("both")).unwrap();
    let at = mount.at.join("both");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut n = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) || n < 50 {
            fs::write(at.join(format!(".tmp-{n}")), format!("ours {n}")).unwrap();
            fs::rename(at.join(format!(".tmp-{n}")), at.join(format!("ours-{n}"))).unwrap();
            n += 1;
        }
        n
    });
    for _ in 0..3 {
        done(&lab, "alice", &["put", "notes/both", text(&folder)]);
        for n in 0..300 {
            fs::write(folder.join(format!("theirs-{n}")), format!("theirs {n} again")).unwrap();
        }
    }
    drop(stop);
    let ours = writer.join().unwrap();
    File::open(&mount.at).unwrap().sync_all().unwrap();
    let check = |at: &Path| {
        let found = fs::read_dir(at.join("both")).unwrap().count();
        assert_eq!(found, ours + 300);
        for n in 0..ours {
            assert_eq!(read(at, &format!("both/ours-{n}")), Some(format!("ours {n}")));
        }
        for n in 0..300 {
            let found = read(at, &format!("both/theirs-{n}"));
            assert_eq!(found, Some(format!("theirs {n} again")));
        }
    };
    check(&mount.at);
    drop(mount);
    check(&again(&lab, "alice", &[]).at);
}

#[test]
fn what_was_synced_before_a_crash_comes_before_what_a_command_does_after_it() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _) = written(&lab, "alice", &[]);
    let file = File::create(mount.at.join("file")).unwrap();
    file.write_all_at(b"synced", 0).unwrap();
    file.sync_all().unwrap();
    mount.process.signal(Signal::SIGKILL);
    mount.process.wait(PATIENCE);
    drop(file);
    let other = File::create(lab.path("other")).unwrap();
    drop(other);
    put(&lab, "file", "put later");
    assert_eq!(published(&lab, "file").as_deref(), Some("put later"));
    let mount = again(&lab, "alice", &[]);
    assert_eq!(read(&mount.at, "file").as_deref(), Some("put later"));
    let log = done(&lab, "alice", &["log", "notes"]);
    assert!(String::from_utf8_lossy(&log.stdout).matches("file").count() >= 2);
}

#[test]
fn a_log_is_published_while_it_grows() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, key) = written(&lab, "alice", &["--publish-after", "0.3"]);
    fs::write(mount.at.join("first"), "").unwrap();
    let peer = lab.mount("bob", &key, &[]);
    let mut log = OpenOptions::new().create(true).append(true).open(mount.at.join("log")).unwrap();
    let (begun, mut seen, mut n) = (Instant::now(), 0, 0);
    while seen < 5 {
        assert!(begun.elapsed() < PATIENCE, "{seen} states of {n} lines were seen");
        log.write_all(format!("line {n}\n").as_bytes()).unwrap();
        n += 1;
        let Some(now) = read(&peer.at, "log") else { continue };
        let lines: Vec<_> = now.lines().collect();
        assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("line {n}")), "{now}");
        seen += usize::from(lines.len() > seen * 3);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_share_and_a_mount_that_is_written_exclude_each_other() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice", &[]);
    let folder = lab.folder("folder");
    fs::write(folder.join("file"), "shared").unwrap();
    let share = ["share", text(&folder), "--name", "notes", "--replace"];
    let refused = lab.run("alice", &share);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("is mounted to be written"), "{}", refused.stderr);
    fs::write(mount.at.join("still"), "written").unwrap();
    drop(mount);
    let mut sharing = lab.spawn("alice", &share);
    sharing.line("shared: ");
    let mut mount = lab.mount_alone("alice", "notes", &["-o", "rw"]);
    mount.process.told("mounted read-only");
    assert_eq!(read(&mount.at, "file").as_deref(), Some("shared"));
    assert!(fs::write(mount.at.join("new"), "").is_err());
}

#[test]
fn nothing_is_left_of_a_drive_that_is_forgotten() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, key) = written(&lab, "alice", &[]);
    let file = File::create(mount.at.join("file")).unwrap();
    file.write_all_at(&pattern(1, 300_000), 0).unwrap();
    file.sync_all().unwrap();
    let refused = lab.run("alice", &["forget", "--yes", "notes"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    mount.process.signal(Signal::SIGKILL);
    mount.process.wait(PATIENCE);
    drop(file);
    let _ = Command::new("fusermount3").args(["-uz", text(&mount.at)]).output();
    done(&lab, "alice", &["forget", "--yes", &key]);
    let mut left = Vec::new();
    files_below(&lab.path("alice"), &mut left);
    let large: Vec<_> = left.iter().filter(|(_, size)| *size >= 200_000).collect();
    let large: Vec<_> = large.iter().filter(|(name, _)| !name.contains("redb")).collect();
    assert!(large.is_empty(), "{large:?}");
}

fn files_below(dir: &Path, found: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        match meta.is_dir() {
            true => files_below(&entry.path(), found),
            false => found.push((entry.path().display().to_string(), meta.len())),
        }
    }
}

#[test]
fn what_a_record_leans_on_is_not_cleared() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mut mount, _) = written(&lab, "alice", &[]);
    let content = pattern(1, 400_000);
    fs::write(mount.at.join("file"), &content).unwrap();
    File::open(&mount.at).unwrap().sync_all().unwrap();
    let file = OpenOptions::new().write(true).open(mount.at.join("file")).unwrap();
    file.write_all_at(b"changed", 1000).unwrap();
    file.sync_all().unwrap();
    // From here on nothing but the record names what it was changed from.
    put(&lab, "file", "theirs");
    let mut wanted = content;
    wanted[1000..1007].copy_from_slice(b"changed");
    done(&lab, "alice", &["gc", "notes"]);
    assert!(fs::read(mount.at.join("file")).unwrap() == wanted);
    mount.process.signal(Signal::SIGKILL);
    mount.process.wait(PATIENCE);
    drop(file);
    done(&lab, "alice", &["gc", "notes"]);
    let mount = again(&lab, "alice", &[]);
    assert!(fs::read(mount.at.join("file")).unwrap() == wanted);
}

#[test]
fn a_full_disk_is_told_and_what_could_not_be_published_is_kept() {
    if !fuse_available() || !mounts_available() {
        return;
    }
    let lab = Lab::new();
    let store = lab.folder("alice");
    let _disk = Place::of("tmpfs", &store, "size=64m").unwrap();
    let (mut mount, _) = written(&lab, "alice", &[]);
    fs::write(mount.at.join("before"), "before").unwrap();
    File::open(&mount.at).unwrap().sync_all().unwrap();
    let large = pattern(5, 24 << 20);
    let file = File::create(mount.at.join("large")).unwrap();
    file.write_all_at(&large, 0).unwrap();
    let filler = store.join("filler");
    fs::write(&filler, vec![1; 32 << 20]).unwrap();
    drop(file);
    mount.process.told("not published since");
    let status = || String::from_utf8(done(&lab, "alice", &["status"]).stdout).unwrap();
    let told = status();
    assert!(
        told.lines().any(|line| line.starts_with("mount: ") && line.ends_with(" rw")),
        "{told}"
    );
    assert!(told.contains("not published since") && told.contains("pace"), "{told}");
    assert!(fs::read(mount.at.join("large")).unwrap() == large);
    // There is no room for what was written, but for a record of it.
    mount.process.signal(Signal::SIGTERM);
    let end = mount.process.wait(PATIENCE);
    let said = mount.process.errors();
    assert_ne!(end.code(), Some(0), "{said}");
    assert!(said.contains("what was changed is kept in the store"), "{said}");
    drop(mount);
    fs::remove_file(&filler).unwrap();
    let mut mount = again(&lab, "alice", &[]);
    assert!(fs::read(mount.at.join("large")).unwrap() == large);
    fs::write(&filler, vec![1; 1 << 20]).unwrap();
    assert_eq!(read(&mount.at, "before").as_deref(), Some("before"));
    eventually("its publication", PATIENCE, || published(&lab, "large").map(drop));
    assert!(!status().contains("not published"));
    mount.process.signal(Signal::SIGTERM);
    assert_eq!(mount.process.wait(PATIENCE).code(), Some(0));
}

/// Leaves files open and dirty, ends the mount in some way, and finds all of it the next time.
fn keeps_all(lab: &Lab, mut mount: Mounted, end: impl FnOnce(&mut Mounted)) {
    fs::create_dir(mount.at.join("dir")).unwrap();
    let large = pattern(2, 3_000_000);
    let file = File::create(mount.at.join("dir/large")).unwrap();
    file.write_all_at(&large, 0).unwrap();
    let mut log = OpenOptions::new().create(true).append(true).open(mount.at.join("log")).unwrap();
    log.write_all(b"never synced").unwrap();
    fs::write(mount.at.join("closed"), "a moment ago").unwrap();
    fs::rename(mount.at.join("closed"), mount.at.join("renamed")).unwrap();
    end(&mut mount);
    drop((file, log, mount));
    assert_eq!(published(lab, "log").as_deref(), Some("never synced"));
    let mount = again(lab, "alice", &[]);
    assert!(fs::read(mount.at.join("dir/large")).unwrap() == large);
    assert_eq!(read(&mount.at, "log").as_deref(), Some("never synced"));
    assert_eq!(read(&mount.at, "renamed").as_deref(), Some("a moment ago"));
    assert!(!mount.at.join("closed").exists());
}

#[test]
fn an_end_by_a_signal_loses_nothing_of_open_files() {
    if !fuse_available() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let lab = Lab::new();
        let (mount, _) = written(&lab, "alice", &[]);
        keeps_all(&lab, mount, |mount| {
            mount.process.signal(signal);
            // Of files that are open it waits for the end, unless it is asked twice.
            std::thread::sleep(Duration::from_millis(200));
            if !mount.process.has_ended() {
                mount.process.signal(signal);
            }
            mount.process.wait(PATIENCE);
        });
    }
}

#[test]
fn an_unmount_by_others_loses_nothing_of_open_files() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (mount, _) = written(&lab, "alice", &[]);
    keeps_all(&lab, mount, |mount| {
        let done = Command::new("umount").args(["-l", text(&mount.at)]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    });
}

#[test]
fn the_next_owner_of_the_store_has_all_that_was_written() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    done(&lab, "alice", &["create", "other"]);
    let beside = lab.folder("beside");
    let mut owner = lab.spawn("alice", &["mount", "other", text(&beside)]);
    owner.line("mounted: ");
    let (mut mount, _) = written(&lab, "alice", &[]);
    let large = pattern(2, 3_000_000);
    fs::write(mount.at.join("closed"), "closed").unwrap();
    let file = File::create(mount.at.join("open")).unwrap();
    file.write_all_at(&large, 0).unwrap();
    owner.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    owner.signal(Signal::SIGTERM);
    owner.wait(PATIENCE);
    drop(file);
    eventually("the mount at the next owner", PATIENCE, || {
        (fs::read(mount.at.join("open")).ok()? == large).then_some(())
    });
    assert_eq!(read(&mount.at, "closed").as_deref(), Some("closed"));
    fs::write(mount.at.join("after"), "it goes on").unwrap();
    mount.process.signal(Signal::SIGINT);
    mount.process.wait(PATIENCE);
    assert_eq!(published(&lab, "after").as_deref(), Some("it goes on"));
}
