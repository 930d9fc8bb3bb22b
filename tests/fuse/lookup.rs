//! lookup, getattr, access.

use crate::common::{NO_DEADLINE, errno, in_time, mounted, mounted_with, soon};
use crate::volume::{Behaviour, TestVolume};
use hdrive::fs::{How, MountOptions};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::Ordering;

#[test]
fn attributes_are_those_of_the_entry() {
    let volume = TestVolume::new();
    volume.file("/docs/a.txt", "hello");
    volume.mode("/docs/a.txt", 0o640);
    let Some(mount) = mounted(&volume) else { return };

    let file = fs::metadata(mount.at("docs/a.txt")).unwrap();
    assert_eq!((file.len(), file.blocks(), file.nlink()), (5, 1, 1));
    assert_eq!(file.permissions().mode(), 0o100640);
    assert_eq!(file.uid(), nix::unistd::geteuid().as_raw());
    assert!(file.mtime() > 1_600_000_000);
    let dir = fs::metadata(mount.at("docs")).unwrap();
    assert!(dir.is_dir());
    assert_eq!(fs::metadata(mount.at("")).unwrap().ino(), 1);
}

#[test]
fn special_bits_never_count() {
    let volume = TestVolume::new();
    volume.file("/sh", "x");
    volume.mode("/sh", 0o6755);
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(fs::metadata(mount.at("sh")).unwrap().mode() & 0o7777, 0o755);
    let here = mount.mounted.mount_point().to_str().unwrap().to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(&here)).unwrap();
    for option in ["nosuid", "nodev", "ro", "fuse.hdrive hdrive"] {
        assert!(line.contains(option), "{option} in {line}");
    }
}

#[test]
fn names_that_cannot_be_are_not_there() {
    let volume = TestVolume::new();
    volume.file("/a", "x");
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(errno(fs::metadata(mount.at("none"))), Errno::ENOENT);
    assert_eq!(errno(fs::metadata(mount.at("a/b"))), Errno::ENOTDIR);
    assert_eq!(errno(fs::metadata(mount.at(&"n".repeat(256)))), Errno::ENAMETOOLONG);
    let strange = mount.mounted.mount_point().join(OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(errno(fs::metadata(strange)), Errno::ENOENT);
}

#[test]
fn missing_names_are_asked_for_once() {
    let volume = TestVolume::new();
    let Some(mount) = mounted(&volume) else { return };

    let _ = fs::metadata(mount.at("none"));
    let asked = volume.counts().lookups.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(errno(fs::metadata(mount.at("none"))), Errno::ENOENT);
    }
    assert_eq!(volume.counts().lookups.load(Ordering::Relaxed), asked);
}

#[test]
fn numbers_are_the_same_in_every_mount() {
    let volume = TestVolume::new();
    volume.file("/a/b", "x");
    let Some(first) = mounted(&volume) else { return };
    let Some(second) = mounted(&volume) else { return };

    let number = |mount: &crate::common::TestMount| fs::metadata(mount.at("a/b")).unwrap().ino();
    assert_eq!(number(&first), number(&second));
}

#[test]
fn a_lookup_that_waits_holds_up_no_other() {
    let volume = TestVolume::new();
    volume.file("/slow", "x");
    volume.file("/fast", "x");
    volume.looking("/slow", Behaviour::Never);
    let options = MountOptions { deadline: NO_DEADLINE, ..MountOptions::default() };
    let Some(mount) = mounted_with(&volume, &options) else { return };

    let (slow, fast) = (mount.at("slow"), mount.at("fast"));
    let waiting = std::thread::spawn(move || errno(fs::metadata(slow)));
    soon("a lookup that waits", || mount.mounted.waiting() == 1);
    assert_eq!(in_time("another lookup", move || fs::metadata(fast).unwrap().len()), 1);
    assert_eq!(mount.mounted.waiting(), 1);
    assert!(!waiting.is_finished());
    mount.mounted.unmount(How::Lazy).unwrap();
    assert_eq!(in_time("its end", move || waiting.join().unwrap()), Errno::ENODEV);
}

#[test]
fn nothing_can_be_changed() {
    let volume = TestVolume::new();
    volume.file("/a", "x");
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(errno(fs::write(mount.at("a"), "y")), Errno::EROFS);
    assert_eq!(errno(fs::write(mount.at("new"), "y")), Errno::EROFS);
    assert_eq!(errno(fs::create_dir(mount.at("d"))), Errno::EROFS);
    assert_eq!(errno(fs::remove_file(mount.at("a"))), Errno::EROFS);
    assert_eq!(errno(fs::rename(mount.at("a"), mount.at("b"))), Errno::EROFS);
    let open = fs::OpenOptions::new().read(true).write(true).open(mount.at("a"));
    assert_eq!(errno(open), Errno::EROFS);
}
