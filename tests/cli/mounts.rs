//! A mount process from its start to its end, whoever ends it.

use crate::common::*;
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn shared(lab: &Lab) -> (Hdrive, String) {
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    lab.share("alice", &folder)
}

fn content(at: &Path) -> String {
    eventually("the file", PATIENCE, || fs::read_to_string(at.join("file")).ok())
}

fn is_dead(at: &Path) -> bool {
    let error = fs::read_dir(at).err().and_then(|error| error.raw_os_error());
    error == Some(nix::errno::Errno::ENOTCONN as i32)
}

#[test]
fn a_mount_left_dead_is_repaired_by_the_next_and_taken_away_by_umount() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    for _ in 0..2 {
        let mut mount = lab.mount("bob", &key, &[]);
        assert_eq!(content(&mount.at), "content");
        mount.process.signal(Signal::SIGKILL);
        mount.process.wait(PATIENCE);
        assert!(is_dead(&mount.at));
    }
    let at = lab.path("mnt-bob");
    let done = lab.run("bob", &["umount", "--lazy", text(&at)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    assert_eq!(lab.run("bob", &["umount", text(&at)]).code, 3, "nothing is there any more");
}

#[test]
fn a_mount_ends_quietly_whoever_ends_it() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    type End = fn(&Lab, &Mounted);
    let ends: [(&str, End); 4] = [
        ("Ctrl-C", |_, mount| mount.process.signal(Signal::SIGINT)),
        ("SIGTERM", |_, mount| mount.process.signal(Signal::SIGTERM)),
        ("umount(8)", |_, mount| {
            let status = std::process::Command::new("umount").arg(&mount.at).status();
            assert!(status.unwrap().success());
        }),
        ("hdrive umount", |lab, mount| {
            assert_eq!(lab.run("bob", &["umount", text(&mount.at)]).code, 0);
        }),
    ];
    for (name, end) in ends {
        let mut mount = lab.mount("bob", &key, &[]);
        assert_eq!(content(&mount.at), "content");
        end(&lab, &mount);
        assert_eq!(mount.process.wait(PATIENCE).code(), Some(0), "{name}");
        assert_eq!(mount.process.errors(), "", "{name}");
        assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0, "{name}");
    }
}

/// The end of a session must touch nothing that has its place by then.
#[test]
fn the_late_end_of_a_mount_leaves_the_next_one_there() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let mut first = lab.mount("bob", &key, &[]);
    content(&first.at);
    let mut held = fs::File::open(first.path("file")).unwrap();
    assert_eq!(lab.run("bob", &["umount", "--lazy", text(&first.at)]).code, 0);

    let mut second = lab.spawn("carol", &["mount", &key, text(&first.at)]);
    second.line("mounted: ");
    assert_eq!(content(&first.at), "content");
    let mut text_of_old = String::new();
    held.read_to_string(&mut text_of_old).unwrap();
    assert_eq!(text_of_old, "content");
    drop(held);
    assert_eq!(first.process.wait(PATIENCE).code(), Some(0));
    assert_eq!(first.process.errors(), "");
    assert_eq!(fs::read_to_string(first.path("file")).unwrap(), "content");
}

#[test]
fn a_daemon_returns_when_mounted_and_ends_with_umount() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let at = lab.folder("mnt");
    let done = lab.run("bob", &["mount", &key, text(&at), "--daemon", "--json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mounted: serde_json::Value = serde_json::from_str(done.text().trim()).unwrap();
    assert_eq!(mounted["mounted"], text(&at));
    assert_eq!(content(&at), "content");
    let mode = fs::metadata(lab.path("bob")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "a store holds secret keys");

    let status = lab.run("bob", &["status", "--json"]).text();
    let status: serde_json::Value = serde_json::from_str(status.trim()).unwrap();
    let pid = status["pid"].as_u64().unwrap();
    assert_eq!(status["mounts"][0]["mountpoint"], text(&at));
    assert_eq!(lab.run("bob", &["umount", text(&at)]).code, 0);
    eventually("the end of the daemon", PATIENCE, || {
        // Nobody may collect it here: one that has ended has no command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.is_empty().then_some(())
    });
    assert_eq!(fs::read_to_string(lab.path("bob/daemon.log")).unwrap(), "");
}

#[test]
fn a_daemon_that_cannot_mount_says_why() {
    let lab = Lab::new();
    let key = crate::input::NOBODYS;
    let at = lab.path("missing");
    let done = lab.run("bob", &["mount", key, text(&at), "--daemon"]);
    if !fuse_available() {
        return;
    }
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains("mkdir -p"), "{}", done.stderr);
}

#[test]
fn a_version_is_mounted_by_a_stranger_as_it_was() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let info = lab.run("alice", &["info", "--json", &key]).text();
    let info: serde_json::Value = serde_json::from_str(info.trim()).unwrap();
    let version = info["version"].as_u64().unwrap();
    fs::write(lab.path("shared/file"), "changed content").unwrap();
    fs::write(lab.path("shared/later"), "x").unwrap();
    let now = lab.mount("carol", &key, &[]);
    eventually("the change", PATIENCE, || fs::metadata(now.path("later")).ok());
    assert_eq!(content(&now.at), "changed content");
    let then = lab.mount("bob", &key, &["--at", &version.to_string()]);
    assert_eq!(content(&then.at), "content");
    assert!(!then.path("later").exists());
}

#[test]
fn writing_to_a_mount_is_refused_as_read_only() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let mount = lab.mount("bob", &key, &[]);
    content(&mount.at);
    let read_only = Some(nix::errno::Errno::EROFS as i32);
    assert_eq!(fs::write(mount.path("new"), "x").unwrap_err().raw_os_error(), read_only);
    assert_eq!(fs::remove_file(mount.path("file")).unwrap_err().raw_os_error(), read_only);
    assert_eq!(fs::create_dir(mount.path("dir")).unwrap_err().raw_os_error(), read_only);
}

#[test]
fn status_tells_which_mount_is_of_a_version() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (_share, key) = shared(&lab);
    let _live = lab.mount("alice", &key, &[]);
    let at = lab.folder("second");
    let mut fixed = lab.spawn("alice", &["mount", &key, text(&at), "--at", "1"]);
    fixed.line("mounted: ");
    let status = lab.run("alice", &["status"]).text();
    for what in ["mount: ", "drive: "] {
        let of = |fixed: bool| {
            let lines = status.lines().filter(|line| line.starts_with(what));
            lines.filter(|line| line.contains(" --at 1") == fixed).count()
        };
        assert_eq!((of(true), of(false)), (1, 1), "{status}");
    }
}
