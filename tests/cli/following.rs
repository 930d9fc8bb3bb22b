//! What becomes of a drive when its folder is moved, emptied, replaced, or written in places.

use crate::common::*;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::Duration;

fn names(lab: &Lab, key: &str) -> Vec<String> {
    let done = lab.run("alice", &["ls", "-r", key]);
    done.text().lines().map(String::from).collect()
}

fn has(lab: &Lab, key: &str, name: &str) {
    eventually(name, PATIENCE, || names(lab, key).contains(&name.to_string()).then_some(()));
}

fn content_bytes(lab: &Lab, key: &str) -> u64 {
    let info: Value =
        serde_json::from_str(lab.run("alice", &["info", key, "--json"]).text().trim()).unwrap();
    info["blobs"]["bytes"].as_u64().unwrap_or_else(|| panic!("{info}"))
}

fn end(mut share: Hdrive) -> String {
    share.signal(Signal::SIGINT);
    share.wait(PATIENCE);
    share.errors()
}

#[test]
fn a_folder_that_is_moved_away_empties_nothing_and_is_followed_when_it_is_back() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for name in ["a", "b", "c"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let (mut share, key) = lab.share("alice", &folder);
    let bytes = content_bytes(&lab, &key);
    fs::rename(&folder, lab.path("away")).unwrap();
    share.told("cannot be followed");
    assert_eq!(names(&lab, &key), ["a", "b", "c"]);

    // Another folder in its place: what is in it is followed, what is not stays.
    fs::create_dir(&folder).unwrap();
    share.told("is empty: the drive keeps what it lacks");
    assert_eq!(names(&lab, &key), ["a", "b", "c"]);
    fs::write(folder.join("new"), "new").unwrap();
    has(&lab, &key, "new");
    assert_eq!(names(&lab, &key), ["a", "b", "c", "new"]);

    fs::remove_dir_all(&folder).unwrap();
    fs::rename(lab.path("away"), &folder).unwrap();
    fs::write(folder.join("d"), "d").unwrap();
    eventually("the old folder alone", PATIENCE, || {
        (names(&lab, &key) == ["a", "b", "c", "d"]).then_some(())
    });
    assert_eq!(content_bytes(&lab, &key), bytes + 4, "nothing was appended again");
    // It is watched again.
    fs::write(folder.join("e"), "e").unwrap();
    has(&lab, &key, "e");
    // What is deleted in it is deleted.
    fs::remove_file(folder.join("a")).unwrap();
    eventually("the deletion", PATIENCE, || {
        (names(&lab, &key) == ["b", "c", "d", "e"]).then_some(())
    });
    let told = end(share);
    // Once each time that it goes; the second time it may be back before that is seen.
    assert!((1..=2).contains(&told.matches("cannot be followed").count()), "{told}");
    assert!(told.contains("is back and followed again"), "{told}");
}

#[test]
fn a_start_with_an_empty_or_another_folder_deletes_nothing_unless_it_is_meant() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for name in ["a", "b", "c", "d"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let (share, key) = lab.share("alice", &folder);
    end(share);

    for name in ["a", "b", "c", "d"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let (share, _) = lab.share("alice", &folder);
    assert_eq!(names(&lab, &key), ["a", "b", "c", "d"]);
    let told = end(share);
    assert!(told.contains("is empty") && told.contains("--replace"), "{told}");

    fs::remove_dir(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("x"), "x").unwrap();
    let (share, _) = lab.share("alice", &folder);
    assert_eq!(names(&lab, &key), ["a", "b", "c", "d", "x"]);
    end(share);

    let mut share = lab.spawn("alice", &["share", text(&folder), "--replace"]);
    share.line("shared: ");
    assert_eq!(names(&lab, &key), ["x"]);
    end(share);

    // Gone altogether: what it held is served.
    fs::rename(&folder, lab.path("away")).unwrap();
    let (share, again) = lab.share("alice", &folder);
    assert_eq!((again, names(&lab, &key)), (key.clone(), vec!["x".to_string()]));
    fs::rename(lab.path("away"), &folder).unwrap();
    fs::write(folder.join("y"), "y").unwrap();
    has(&lab, &key, "y");
    end(share);
    assert_eq!(lab.run("alice", &["share", text(&lab.path("never"))]).code, 3);
}

#[test]
fn a_drive_that_is_mounted_in_the_folder_is_not_shared_with_it() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "x").unwrap();
    fs::create_dir(folder.join("mnt")).unwrap();
    let (share, key) = lab.share("alice", &folder);
    let mut mount = lab.spawn("bob", &["mount", &key, text(&folder.join("mnt"))]);
    mount.line("mounted: ");
    eventually("the mount", PATIENCE, || folder.join("mnt/file").exists().then_some(()));
    fs::write(folder.join("more"), "x").unwrap();
    has(&lab, &key, "more");
    end(share);
    let mut share = lab.spawn("alice", &["share", text(&folder), "--cross-mounts"]);
    share.line("shared: ");
    assert_eq!(names(&lab, &key), ["file", "mnt/", "more"]);
    assert_eq!(lab.run("alice", &["share", text(&folder.join("mnt"))]).code, 2);
    let told = end(share);
    assert!(told.contains("a drive is mounted here"), "{told}");
    assert_eq!(end(mount), "");
}

/// `umount` and `mount` of another, empty disk in the folder: nobody deleted anything.
#[test]
fn another_disk_at_a_mount_point_in_the_folder_empties_nothing() {
    if !mounts_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let at = folder.join("m");
    fs::create_dir(&at).unwrap();
    fs::write(folder.join("file"), "mine").unwrap();
    let fill = || ["a", "b", "c"].map(|name| fs::write(at.join(name), name).unwrap());
    let inner = Place::tmpfs(&at).unwrap();
    fill();
    let share = |more: &[&str]| {
        let args = [&["share", text(&folder), "--cross-mounts"], more].concat();
        let mut share = lab.spawn("alice", &args);
        let key = share.line("key: ");
        share.line("shared: ");
        (share, key)
    };
    let all = ["file", "m/", "m/a", "m/b", "m/c"];
    let (mut running, key) = share(&[]);
    assert_eq!(names(&lab, &key), all);
    drop(inner);
    let inner = Place::tmpfs(&at).unwrap();
    running.told("another filesystem is mounted");
    assert_eq!(names(&lab, &key), all, "live");
    fs::write(at.join("strange"), "x").unwrap();
    // What is written after it, twice, so that no look at both is on its way any more.
    for name in ["new", "newer"] {
        fs::write(folder.join(name), "new").unwrap();
        has(&lab, &key, name);
    }
    assert_eq!(names(&lab, &key), ["file", "m/", "m/a", "m/b", "m/c", "new", "newer"]);
    let told = end(running);
    assert!(told.contains("warning: ") && told.contains("another filesystem is mounted"), "{told}");

    // At a start as well, until at least half of it is there.
    drop(inner);
    let inner = Place::tmpfs(&at).unwrap();
    let (running, _) = share(&[]);
    assert_eq!(names(&lab, &key), ["file", "m/", "m/a", "m/b", "m/c", "new", "newer"]);
    end(running);
    fill();
    fs::remove_file(at.join("a")).unwrap();
    let (running, _) = share(&[]);
    assert_eq!(names(&lab, &key), ["file", "m/", "m/b", "m/c", "new", "newer"]);
    fs::remove_file(at.join("b")).unwrap();
    eventually("what is deleted on it", PATIENCE, || {
        (names(&lab, &key) == ["file", "m/", "m/c", "new", "newer"]).then_some(())
    });
    end(running);

    drop(inner);
    let _inner = Place::tmpfs(&at).unwrap();
    let (running, _) = share(&["--replace"]);
    assert_eq!(names(&lab, &key), ["file", "m/", "new", "newer"]);
    end(running);
}

#[test]
fn a_disk_that_is_mounted_over_the_folder_or_gone_from_it_changes_nothing() {
    if !mounts_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir(folder.join("disk")).unwrap();
    fs::write(folder.join("file"), "mine").unwrap();
    let inner = Place::tmpfs(&folder.join("disk")).unwrap();
    fs::write(folder.join("disk/far"), "far").unwrap();
    let (share, key) = lab.share("alice", &folder);
    assert!(!names(&lab, &key).contains(&"disk/far".to_string()), "mounts are not crossed");
    let told = end(share);
    assert!(told.contains("another filesystem is mounted"), "{told}");

    let mut share = lab.spawn("alice", &["share", text(&folder), "--cross-mounts"]);
    share.line("shared: ");
    assert_eq!(names(&lab, &key), ["disk/", "disk/far", "file"]);
    drop(inner);
    share.told("nothing is mounted there any more");
    assert_eq!(names(&lab, &key), ["disk/", "disk/far", "file"]);

    let over = Place::tmpfs(&folder).unwrap();
    fs::write(folder.join("other"), "another disk").unwrap();
    share.told("cannot be followed");
    assert_eq!(names(&lab, &key), ["disk/", "disk/far", "file"]);
    drop(over);
    fs::write(folder.join("new"), "new").unwrap();
    has(&lab, &key, "new");
    assert_eq!(names(&lab, &key), ["disk/", "disk/far", "file", "new"]);
    end(share);
}

#[test]
fn what_changes_in_a_large_file_is_all_that_is_appended() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let mut log = pattern(1, 20_000_000);
    let mut big = pattern(2, 20 << 20);
    fs::write(folder.join("log"), &log).unwrap();
    fs::write(folder.join("big"), &big).unwrap();
    let (share, key) = lab.share("alice", &folder);
    let mut before = content_bytes(&lab, &key);
    let mut cost = |what: &str, (name, wanted): (&str, &[u8]), most: u64| {
        eventually(what, PATIENCE, || {
            (lab.run("alice", &["cat", &format!("{key}/{name}")]).stdout == wanted).then_some(())
        });
        // A look that is under way when the last byte is there ends before a later file is seen.
        fs::write(folder.join(what), "").unwrap();
        has(&lab, &key, what);
        let now = content_bytes(&lab, &key);
        let cost = now - before;
        eprintln!("{what}: {cost} bytes appended");
        assert!(cost <= most, "{what}: {cost} bytes appended, more than {most}");
        before = now;
    };

    for _ in 0..10 {
        let line = b"one more line of a log that grows\n";
        fs::File::options().append(true).open(folder.join("log")).unwrap().write_all(line).unwrap();
        log.extend(line);
        sleep(Duration::from_millis(300));
    }
    cost("ten lines of a log", ("log", &log), 100_000);

    let mut file = fs::File::options().write(true).open(folder.join("big")).unwrap();
    for i in 0..20 {
        let at = i * 1_000_000;
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[i as u8; 4096]).unwrap();
        big[at..at + 4096].fill(i as u8);
        sleep(Duration::from_millis(100));
    }
    drop(file);
    cost("twenty writes of 4 KiB", ("big", &big), 2 * 40 * 65536);

    let download = pattern(3, 25 << 20);
    let mut file = fs::File::create(folder.join("download")).unwrap();
    for piece in download.chunks(download.len().div_ceil(100)) {
        file.write_all(piece).unwrap();
        sleep(Duration::from_millis(60));
    }
    drop(file);
    cost("a download of 25 MiB", ("download", &download), 2 * (25 << 20));
    for (name, wanted) in [("log", log), ("big", big)] {
        let got = lab.run("alice", &["cat", &format!("{key}/{name}")]);
        assert!(got.stdout == wanted, "{name}");
    }
    end(share);
}

#[test]
fn a_hard_link_follows_what_is_written_through_its_other_name() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir(folder.join("deep")).unwrap();
    fs::write(folder.join("deep/first"), "old").unwrap();
    fs::hard_link(folder.join("deep/first"), folder.join("second")).unwrap();
    fs::write(folder.join("a\\b"), "x").unwrap();
    let (share, key) = lab.share("alice", &folder);
    fs::write(folder.join("second"), "new").unwrap();
    fs::write(folder.join("later\\"), "x").unwrap();
    eventually("the other name", PATIENCE, || {
        (lab.run("alice", &["cat", &format!("{key}/deep/first")]).text() == "new").then_some(())
    });
    assert_eq!(names(&lab, &key), ["deep/", "deep/first", "second"]);
    let told = end(share);
    assert!(
        told.contains("a\\b") && told.contains("later\\") && told.contains("backslash"),
        "{told}"
    );
    let done = lab.run("alice", &["put", &key, text(&folder.join("second"))]);
    assert_eq!(done.code, 1);
}

#[test]
fn folders_that_change_places_are_both_followed() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for name in ["p", "q"] {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("file"), name).unwrap();
    }
    let (share, key) = lab.share("alice", &folder);
    let (p, q) = (folder.join("p"), folder.join("q"));
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(rustix::fs::CWD, &p, rustix::fs::CWD, &q, flags).unwrap();
    has(&lab, &key, "p/file");
    fs::write(p.join("later"), "in p").unwrap();
    fs::write(q.join("later"), "in q").unwrap();
    has(&lab, &key, "p/later");
    has(&lab, &key, "q/later");
    end(share);
}

#[test]
fn patterns_leave_files_out_and_a_dry_run_shares_nothing() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir_all(folder.join("target/debug")).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    for name in ["a", "b.log", "secret.key", "target/debug/bin"] {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::write(folder.join(".hdriveignore"), "*.log\ntarget/\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    let dry = lab.run("alice", &["share", text(&folder), "--dry-run", "--exclude", "*.key"]);
    assert_eq!(
        (dry.code, dry.text().as_str()),
        (0, ".hdriveignore\na\nempty/\nwould share: 2 files, 15 bytes\n")
    );
    assert!(dry.stderr.contains("1 file that only the owner could read"), "{}", dry.stderr);
    assert!(lab.run("alice", &["info", text(&folder)]).code != 0, "no drive was made");

    let mut share = lab.spawn("alice", &["share", text(&folder), "--exclude", "*.key"]);
    let key = share.line("key: ");
    share.line("shared: ");
    let without_folder = |names: Vec<String>| {
        names.into_iter().filter(|name| !name.ends_with('/')).collect::<Vec<_>>()
    };
    assert_eq!(without_folder(names(&lab, &key)), [".hdriveignore", "a"]);
    // Patterns are followed as well.
    fs::write(folder.join(".hdriveignore"), "target/\na\n").unwrap();
    eventually("the new patterns", PATIENCE, || {
        (without_folder(names(&lab, &key)) == [".hdriveignore", "b.log"]).then_some(())
    });
    let told = end(share);
    assert_eq!(told.matches("only the owner could read").count(), 1, "{told}");
    let bad = lab.run("alice", &["share", text(&folder), "--exclude", "[z-a]"]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);
}

/// Editors save a file by renaming another over it, or empty it before they fill it.
#[test]
fn patterns_that_are_away_for_a_moment_publish_nothing() {
    let lab = Lab::new();
    let folder = lab.folder("shared");
    let patterns = folder.join(".hdriveignore");
    fs::write(&patterns, "secret\n").unwrap();
    fs::write(folder.join("secret"), "mine").unwrap();
    let (share, key) = lab.share("alice", &folder);
    // Patterns of another folder that are taken away at this moment count for as long as those of any; once they do
    // not, what they left out is shared. Where nobody holds them open nothing else is waited for.
    let grace = |dir: &str| {
        let dir = folder.join(dir);
        fs::create_dir(&dir).unwrap();
        let patterns = dir.join(".hdriveignore");
        fs::write(&patterns, "hidden\n").unwrap();
        fs::write(dir.join("hidden"), "x").unwrap();
        fs::write(dir.join("seen"), "x").unwrap();
        let name = |name: &str| format!("{}/{name}", dir.file_name().unwrap().to_str().unwrap());
        has(&lab, &key, &name("seen"));
        fs::remove_file(&patterns).unwrap();
        has(&lab, &key, &name("hidden"));
    };
    let mut before = 0;
    let mut stays_out = |after: &str| {
        before += 1;
        let name = format!("file{before}");
        fs::write(folder.join(&name), "x").unwrap();
        has(&lab, &key, &name);
        assert!(!names(&lab, &key).contains(&"secret".to_string()), "{after}");
    };
    fs::rename(&patterns, lab.path("patterns")).unwrap();
    stays_out("moved away");
    fs::rename(lab.path("patterns"), &patterns).unwrap();
    stays_out("back");
    let mut held = fs::File::create(&patterns).unwrap();
    grace("first");
    stays_out("emptied, and held open");
    held.write_all(b"secret\n").unwrap();
    drop(held);
    stays_out("written");
    fs::write(&patterns, b"secret\n\xff").unwrap();
    grace("second");
    stays_out("no text");
    fs::remove_file(&patterns).unwrap();
    has(&lab, &key, "secret");
    let told = end(share);
    assert_eq!(told.matches("is not UTF-8").count(), 1, "{told}");
}

#[test]
fn a_store_is_never_shared_whatever_its_path() {
    let lab = Lab::new();
    let home = lab.folder("home");
    fs::write(home.join("file"), "x").unwrap();
    // The store lies in the home, and both are reached through links.
    symlink(&home, lab.path("link")).unwrap();
    let done = lab.run("link/.store", &["share", text(&lab.path("link"))]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(done.stderr.contains("holds the store itself"), "{}", done.stderr);
    let done = lab.run("link/.store", &["share", text(&home)]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    let done = lab.run("bob", &["share", text(&home.join(".store"))]);
    assert_eq!(done.code, 2, "{}", done.stderr);

    // Nor is it put into a drive.
    assert_eq!(lab.run("bob", &["create", "mine"]).code, 0);
    let inside = home.join(".store/store.redb");
    for (n, source) in [&home, &home.join(".store"), &inside].into_iter().enumerate() {
        let done = lab.run("bob", &["put", &format!("mine/x{n}"), text(source)]);
        assert_eq!(done.code, 1, "{source:?}: {}", done.stderr);
        assert!(done.stderr.contains("secret keys are never shared"), "{}", done.stderr);
    }
    assert_eq!(lab.run("bob", &["ls", "-r", "mine"]).text(), "x0/\nx0/file\n");

    // Another store in the folder, and a copy of its database under another name.
    fs::create_dir(home.join("backup")).unwrap();
    fs::copy(home.join(".store/store.redb"), home.join("backup/copy.db")).unwrap();
    let (share, key) = lab.share("alice", &home);
    let shared = names(&lab, &key);
    assert!(
        !shared.iter().any(|name| name.contains("store") || name.contains("copy")),
        "{shared:?}"
    );
    let told = end(share);
    assert_eq!(told.matches("looks like a store of drives").count(), 1, "{told}");
    assert_eq!(told.matches("database of a store").count(), 1, "{told}");
}

#[test]
fn a_drive_has_one_writer_and_a_folder_one_drive() {
    let lab = Lab::new();
    let (folder, other) = (lab.folder("shared"), lab.folder("other"));
    fs::write(folder.join("file"), "x").unwrap();
    let (share, key) = lab.share("alice", &folder);
    let refused = |args: &[&str], why: &str| {
        let done = lab.run("alice", args);
        assert_eq!(done.code, 1, "{args:?}: {}", done.stderr);
        assert!(done.stderr.contains(why), "{args:?}: {}", done.stderr);
    };
    refused(&["share", text(&folder)], "is being shared already");
    refused(&["share", text(&folder), "--name", "again"], "is shared already, as the drive");
    let changes = [vec!["put", &key, "/etc/hostname"], vec!["rm", &key]];
    refused(&changes[0], "follows the folder");
    end(share);
    refused(&changes[0], "follows the folder");
    refused(&["rm", &format!("{key}/file")], "follows the folder");
    refused(&["share", text(&folder), "--name", "again"], "is shared already, as the drive");

    assert_eq!(lab.run("alice", &["create", "mine"]).code, 0);
    assert_eq!(lab.run("alice", &["put", "mine/kept", text(&folder.join("file"))]).code, 0);
    refused(&["share", text(&other), "--name", "mine"], "holds files that were put into it");
    assert_eq!(lab.run("alice", &["cat", "mine/kept"]).text(), "x");
    refused(&["share", text(&other), "--name", text(&folder)], "choose another --name");

    // A folder that was moved goes on with its drive.
    fs::rename(&folder, lab.path("moved")).unwrap();
    let moved = lab.path("moved");
    refused(&["share", text(&moved)], "pass --name");
    let mut share = lab.spawn("alice", &["share", text(&moved), "--name", text(&folder)]);
    assert_eq!(share.line("key: "), key);
    share.line("shared: ");
    end(share);
    refused(&["put", &key, "/etc/hostname"], text(&moved));
}

/// A kernel that gives few watches: what it cannot watch is polled, what it can is told at once.
#[test]
fn folders_beyond_the_limit_of_watches_are_polled() {
    let limit = "/proc/sys/user/max_inotify_watches";
    let enter = ["--user", "--map-root-user", "sh", "-c"];
    let set = format!("echo 4 > {limit}");
    let can = std::process::Command::new("unshare").args(enter).arg(&set).status();
    if !available("a user namespace", can.is_ok_and(|status| status.success())) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    for i in 0..12 {
        fs::create_dir(folder.join(format!("d{i:02}"))).unwrap();
    }
    let hdrive = lab.command("alice", &["share", text(&folder)]);
    let mut command = std::process::Command::new("unshare");
    command.args(enter).arg(format!("{set} && exec \"$@\"")).arg("sh");
    command.arg(hdrive.get_program()).args(hdrive.get_args());
    for (name, value) in hdrive.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut share = Hdrive::spawn(command);
    let key = share.line("key: ");
    share.line("shared: ");
    fs::write(folder.join("top"), "x").unwrap();
    has(&lab, &key, "top");
    for i in 0..12 {
        fs::write(folder.join(format!("d{i:02}/file")), "x").unwrap();
    }
    eventually("every folder", PATIENCE, || (names(&lab, &key).len() == 25).then_some(()));
    let told = end(share);
    assert_eq!(told.matches("max_user_watches").count(), 1, "{told}");
}

/// As docs/SEMANTICS.md says it: the kernel tells nothing of what is written through a mapping before that is gone.
#[test]
fn what_is_written_through_a_mapping_is_seen_when_it_is_unmapped() {
    let here = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !available("python3", here) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("mapped"), "old content").unwrap();
    let (share, key) = lab.share("alice", &folder);
    let program = "import mmap, sys
with open(sys.argv[1], 'r+b') as file: mapping = mmap.mmap(file.fileno(), 0)
mapping[0:3] = b'new'
print('written', flush=True)
sys.stdin.read()
mapping.close()
sys.stdin.close()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", program]).arg(folder.join("mapped"));
    python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut said = [0; 8];
    std::io::Read::read_exact(python.stdout.as_mut().unwrap(), &mut said).unwrap();
    fs::write(folder.join("later"), "").unwrap();
    has(&lab, &key, "later");
    let content = || lab.run("alice", &["cat", &format!("{key}/mapped")]).text();
    assert_eq!(
        content(),
        "old content",
        "if this is seen now, docs/SEMANTICS.md says less than it may"
    );
    drop(python.stdin.take());
    assert!(python.wait().unwrap().success());
    let seen = || (content() == "new content").then_some(());
    eventually("what was written", PATIENCE, seen);
    end(share);
}

/// What is written through a mapping changes no time of the file where the page was written before and is not on the
/// disk yet: such a file is looked at once more when it is closed.
#[test]
fn what_is_written_through_a_mapping_again_after_it_was_read_is_seen_at_the_end() {
    let here = std::process::Command::new("python3").arg("--version").output().is_ok();
    if !available("python3", here) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::create_dir(folder.join("before")).unwrap();
    fs::write(folder.join("before/mapped"), "old content").unwrap();
    let (share, key) = lab.share("alice", &folder);
    let program = "import mmap, os, sys
file = open(sys.argv[1], 'r+b')
mapping = mmap.mmap(file.fileno(), 0)
mapping[0:3] = b'new'
print('written', flush=True)
sys.stdin.readline()
before = os.fstat(file.fileno())
mapping[0:3] = b'NEW'
after = os.fstat(file.fileno())
print('same' if before.st_ctime_ns == after.st_ctime_ns else 'changed', flush=True)
sys.stdin.readline()
mapping.close()
file.close()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", program]).arg(folder.join("before/mapped"));
    python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut python = python.spawn().unwrap();
    let mut told = std::io::BufReader::new(python.stdout.take().unwrap());
    let mut told = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut told, &mut line).unwrap();
        line
    };
    let mut go_on = || std::io::Write::write_all(python.stdin.as_mut().unwrap(), b"\n").unwrap();
    let content = || lab.run("alice", &["cat", &format!("{key}/after/mapped")]).text();
    assert_eq!(told(), "written\n");
    // Long enough ago that the file is believed to be what its times say; then it is read, and they stay.
    std::thread::sleep(Duration::from_secs(3));
    fs::rename(folder.join("before"), folder.join("after")).unwrap();
    eventually("what was written", PATIENCE, || (content() == "new content").then_some(()));
    go_on();
    println!("its times are the {}", told());
    go_on();
    assert!(python.wait().unwrap().success());
    eventually("what was written again", PATIENCE, || (content() == "NEW content").then_some(()));
    end(share);
}
