//! opendir, readdir, readdirplus.

use crate::common::{mounted, soon};
use crate::volume::TestVolume;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::process::Command;
use std::sync::atomic::Ordering;

fn names(dir: impl AsRef<std::path::Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_name_is_told_once() {
    let volume = TestVolume::new();
    let wanted: Vec<String> = (0..5000).map(|i| format!("file number {i:05}")).collect();
    for name in &wanted {
        volume.file(&format!("/big/{name}"), "x");
    }
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(names(mount.at("big")), wanted);
    // Again from the kernel's cache, and with attributes.
    assert_eq!(names(mount.at("big")), wanted);
    let listed = Command::new("ls").arg("-la").arg(mount.at("big")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 5000 + 3);
}

#[test]
fn a_second_listing_asks_nothing() {
    let volume = TestVolume::new();
    volume.file("/d/a", "x");
    let Some(mount) = mounted(&volume) else { return };

    names(mount.at("d"));
    let looked = volume.counts().lookups.load(Ordering::Relaxed);
    for entry in fs::read_dir(mount.at("d")).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    assert!(volume.counts().lookups.load(Ordering::Relaxed) <= looked + 1);
}

#[test]
fn numbers_and_types_agree_with_stat() {
    let volume = TestVolume::new();
    volume.file("/a", "x");
    volume.dir("/b");
    volume.link("/c", "a");
    let Some(mount) = mounted(&volume) else { return };

    for entry in fs::read_dir(mount.at("")).unwrap() {
        let entry = entry.unwrap();
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(entry.ino(), metadata.ino());
        assert_eq!(entry.file_type().unwrap(), metadata.file_type());
    }
}

#[test]
fn names_that_would_escape_are_left_out() {
    let volume = TestVolume::new();
    volume.file("/ok", "x");
    for name in ["..", ".", "", "a/b", "nul\0", &"n".repeat(256)] {
        volume.impossible_name(name);
    }
    let Some(mount) = mounted(&volume) else { return };
    assert_eq!(names(mount.at("")), ["ok"]);
    // Asking for attributes first makes the kernel use the other kind of request.
    let listed = Command::new("ls").arg("-l").arg(mount.at("")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2);
}

#[test]
fn a_directory_read_across_a_change_tells_no_name_twice() {
    let volume = TestVolume::new();
    for i in 0..3000 {
        volume.file(&format!("/d/{i:04}"), "x");
    }
    let Some(mount) = mounted(&volume) else { return };

    let mut seen = BTreeSet::new();
    for (i, entry) in fs::read_dir(mount.at("d")).unwrap().enumerate() {
        assert!(seen.insert(entry.unwrap().file_name()));
        if i == 100 {
            volume.file("/d/0000 first", "x");
            volume.changed(&["/d/0000 first"]);
            volume.remove("/d/2999");
        }
    }
    for i in 0..2999 {
        assert!(seen.contains(std::ffi::OsStr::new(&format!("{i:04}"))), "{i}");
    }
    soon("the new listing", || {
        let names = names(mount.at("d"));
        names.len() == 3000 && names[1] == "0000 first"
    });
}
