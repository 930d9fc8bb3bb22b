//! mount(8) and fstab start a mount. The machine's own fstab is not touched.

use crate::common::*;
use crate::input::NOBODYS;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program under the name by which mount(8) calls it.
fn helper(lab: &Lab) -> PathBuf {
    let helper = lab.path("mount.hdrive");
    symlink(env!("CARGO_BIN_EXE_hdrive"), &helper).unwrap();
    helper
}

/// Runs a program as mount(8) does at a start of the machine: nobody has a home.
fn start(lab: &Lab, program: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HDRIVE_BOOTSTRAP", &lab.bootstrap).env("HDRIVE_LOCAL", "127.0.0.1:0");
    run(command)
}

/// The line of a mount, with its flags and source.
fn entry(at: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = format!(" {} ", at.display());
    mounts.lines().find(|line| line.contains(&at)).map(str::to_string)
}

#[test]
fn mount_calls_it_by_its_name_or_through_mount_fuse() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let (helper, at, store) = (helper(&lab), lab.folder("mnt"), lab.path("bob"));
    let copy = lab.folder("copied").join("mount.hdrive");
    fs::copy(env!("CARGO_BIN_EXE_hdrive"), &copy).unwrap();
    let options = format!("rw,noexec,nosymfollow,_netdev,user=ann,store={}", store.display());
    let hdrive = Path::new(env!("CARGO_BIN_EXE_hdrive"));
    for (program, args) in [
        (helper.as_path(), &[&key, text(&at), "-n", "-o", &options, "-t", "hdrive"][..]),
        (copy.as_path(), &[&key, text(&at), "-o", &options]),
        (hdrive, &[&key, text(&at), "-o", &options]),
    ] {
        let done = start(&lab, program, args);
        assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
        let content = eventually("the file", PATIENCE, || fs::read_to_string(at.join("file")).ok());
        assert_eq!(content, "content");
        let entry = entry(&at).unwrap();
        let has = |word: &str| entry.split([' ', ',']).any(|part| part == word);
        assert!(["noexec", "nosymfollow", "ro", key.as_str()].iter().all(|w| has(w)), "{entry}");
        assert_eq!(
            run({
                let mut umount = Command::new("umount");
                umount.arg(&at);
                umount
            })
            .code,
            0
        );
        let ended = || (!store.join("socket").exists()).then_some(());
        eventually("the end of the process", PATIENCE, ended);
    }
}

#[test]
fn what_mount_cannot_have_is_told() {
    let lab = Lab::new();
    let (helper, at) = (helper(&lab), lab.folder("mnt"));
    let store = format!("store={}", lab.path("bob").display());
    let done = start(&lab, &helper, &[NOBODYS, text(&at), "-o", &format!("frobnicate,{store}")]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(done.stderr.contains("frobnicate"), "{}", done.stderr);
    let done = start(&lab, &helper, &[NOBODYS, text(&at), "-o", "rw"]);
    assert_eq!(done.code, 2, "{}", done.stderr);
    assert!(done.stderr.contains("store=DIR"), "{}", done.stderr);
    let done = start(&lab, &helper, &[NOBODYS, text(&at), "-f", "-o", &format!("rw,{store}")]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(entry(&at).is_none());
    assert_eq!(start(&lab, &helper, &[NOBODYS]).code, 2);
}

/// Whoever starts something in the background repeats only what is stamped.
#[test]
fn words_that_are_wrong_are_told_in_the_background_too() {
    let lab = Lab::new();
    let mut command = lab.command("bob", &["mount", "--frobnicate"]);
    command.env("HDRIVE_DAEMON", "1");
    let done = run(command);
    assert_eq!(done.code, 2, "{}", done.stderr);
    let said = |line: &str| line.contains(" UTC hdrive[");
    assert!(!done.stderr.is_empty() && done.stderr.lines().all(said), "{}", done.stderr);
}

/// The place of an automounter, which counts as gone as soon as anybody has asked it for a mount.
fn automounted(at: &Path) -> Option<Place> {
    let (_, requests) = std::io::pipe().unwrap();
    let group = nix::unistd::getpgrp();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&requests);
    Place::of("autofs", at, &format!("fd={fd},pgrp={group},minproto=5,maxproto=5,direct"))
}

fn was_asked(at: &Path) -> bool {
    entry(at).unwrap().contains(",fd=-1,")
}

/// It would wait for the mount, and the mount for it.
#[test]
fn a_place_of_an_automounter_is_refused_and_not_touched() {
    if !fuse_available() {
        return;
    }
    let lab = Lab::new();
    let (helper, at, store) = (helper(&lab), lab.folder("mnt"), lab.path("bob"));
    let place = automounted(&at);
    if !available("an automounter's place", place.is_some()) {
        return;
    }
    let link = lab.path("link");
    symlink(&at, &link).unwrap();
    let options = format!("store={},x-systemd.automount", store.display());
    let told = "without x-systemd.automount";
    let mut tries = vec![(start(&lab, &helper, &[NOBODYS, text(&at), "-o", &options]), told)];
    for point in [&at, &link] {
        tries.push((lab.run("bob", &["mount", "--daemon", NOBODYS, text(point)]), told));
        tries.push((lab.run("bob", &["umount", text(point)]), "not a drive but autofs"));
    }
    for (done, told) in tries {
        assert_eq!(done.code, 5, "{}", done.stderr);
        assert!(done.stderr.contains(told), "{}", done.stderr);
    }
    // What leads out of it again does not lead into it.
    let done = lab.run("bob", &["mount", NOBODYS, text(&at.join(".."))]);
    assert_eq!(done.code, 5, "{}", done.stderr);
    assert!(done.stderr.contains(&format!("{} is not empty", lab.dir.path().display())));
    let done = lab.run("bob", &["umount", text(&at.join("../mnt"))]);
    assert!(done.stderr.contains("not a drive but autofs"), "{}", done.stderr);
    assert!(!was_asked(&at));
    drop(place);
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
}

/// The real mount(8), with an fstab of its own and the helper in a /sbin that only it sees.
#[test]
fn a_line_of_fstab_is_mounted_once() {
    let unshare = || {
        run({
            let mut unshare = Command::new("unshare");
            unshare.args(["-m", "true"]);
            unshare
        })
    };
    let is_root = nix::unistd::geteuid().is_root();
    if !fuse_available() || !available("a mount namespace", is_root && unshare().code == 0) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder("shared");
    fs::write(folder.join("file"), "content").unwrap();
    let (_share, key) = lab.share("alice", &folder);
    let (helper, at, store) = (helper(&lab), lab.folder("mnt"), lab.path("bob"));
    let (fstab, at) = (lab.path("fstab"), text(&at));
    let line = format!("{key} {at} hdrive store={},_netdev,nofail 0 0\n", store.display());
    fs::write(&fstab, line).unwrap();
    let script = format!(
        "set -e; mount -t tmpfs none /sbin; ln -s {helper} /sbin/mount.hdrive
         mount -T {fstab} -a; mount -T {fstab} -a
         n=0; until cat {at}/file; do n=$((n + 1)); test $n -lt 500; sleep 0.1; done
         grep -c ' {at} ' /proc/self/mountinfo
         umount {at}; ! grep -q ' {at} ' /proc/self/mountinfo",
        helper = helper.display(),
        fstab = fstab.display(),
    );
    let done = start(&lab, Path::new("/usr/bin/unshare"), &["-m", "sh", "-c", &script]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.text().ends_with("content1\n"), "{}: {}", done.text(), done.stderr);
}

/// mount(8) adds what is typed to what stands in fstab.
#[test]
fn what_is_typed_counts_more_than_what_stands_in_fstab_and_errors_are_of_options() {
    let lab = Lab::new();
    let (helper, at, store) = (helper(&lab), lab.folder("mnt"), lab.path("bob"));
    let options = |more: &str| format!("store={},{more}", store.display());
    let fail = |more: &str, code: i32, told: &str| {
        let done = start(&lab, &helper, &[NOBODYS, text(&at), "-o", &options(more)]);
        assert_eq!(done.code, code, "{more}: {}", done.stderr);
        let flag = done.stderr.contains("--read-timeout");
        assert!(done.stderr.contains(told) && !flag, "{more}: {}", done.stderr);
    };
    fail("read_timeout=5s,read_timeout=soon", 2, "'soon' for '-o read_timeout'");
    // The first is one that would fail, as would a mount here.
    fail("read_timeout=soon,read_timeout=5s,frobnicate", 2, "-o frobnicate");
    fail("remount,noatime", 2, "-o remount: a mounted drive keeps its options");
    assert!(entry(&at).is_none());
}
