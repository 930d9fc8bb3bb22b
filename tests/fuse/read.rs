//! open, read, release.

use crate::common::{errno, mounted, mounted_with, pattern, runtime, soon};
use crate::volume::{BLOCK, Behaviour, TestVolume};
use hdrive::fs::MountOptions;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[test]
fn every_range_is_what_it_should_be() {
    let volume = TestVolume::new();
    let bytes = pattern(10 * BLOCK + 123);
    volume.file("/f", bytes.clone());
    volume.file("/empty", "");
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(fs::read(mount.at("f")).unwrap(), bytes);
    assert_eq!(fs::read(mount.at("empty")).unwrap(), b"");
    let file = File::open(mount.at("f")).unwrap();
    for (offset, len) in
        [(0, 1), (BLOCK - 1, 2), (3 * BLOCK, BLOCK), (7, 5 * BLOCK), (10 * BLOCK, 123)]
    {
        let mut buf = vec![0; len];
        file.read_exact_at(&mut buf, offset as u64).unwrap();
        assert_eq!(buf, bytes[offset..offset + len], "{offset}+{len}");
    }
    let mut buf = [0; 100];
    assert_eq!(file.read_at(&mut buf, bytes.len() as u64 - 10).unwrap(), 10);
    assert_eq!(file.read_at(&mut buf, bytes.len() as u64 + 10).unwrap(), 0);
}

#[test]
fn direct_reads_are_the_same() {
    let volume = TestVolume::new();
    let bytes = pattern(5 * BLOCK + 100);
    volume.file("/f", bytes.clone());
    let Some(mount) = mounted(&volume) else { return };

    let direct = nix::fcntl::OFlag::O_DIRECT.bits();
    let file = File::options().read(true).custom_flags(direct).open(mount.at("f")).unwrap();
    let mut buf = vec![0; 8 * BLOCK];
    let len = file.read_at(&mut buf, 4096).unwrap();
    assert_eq!(buf[..len], bytes[4096..]);
}

#[test]
fn what_peers_send_late_arrives() {
    let volume = TestVolume::new();
    let bytes = pattern(20 * BLOCK);
    volume.file("/f", bytes.clone());
    volume.reading("/f", Behaviour::After(Duration::from_millis(20)));
    let Some(mount) = mounted(&volume) else { return };
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let path = mount.at("f");
            std::thread::spawn(move || fs::read(path).unwrap())
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), bytes);
    }
    soon("nothing waits any more", || mount.mounted.waiting() == 0);
}

#[test]
fn a_second_read_asks_nothing() {
    let volume = TestVolume::new();
    volume.file("/f", pattern(1 << 20));
    let Some(mount) = mounted(&volume) else { return };

    fs::read(mount.at("f")).unwrap();
    let reads = volume.counts().reads.load(Ordering::Relaxed);
    for _ in 0..5 {
        fs::read(mount.at("f")).unwrap();
    }
    assert_eq!(volume.counts().reads.load(Ordering::Relaxed), reads);
}

#[test]
fn readers_in_order_are_read_ahead_of_and_others_are_not() {
    let volume = TestVolume::new();
    volume.file("/film", vec![1; 64 << 20]);
    volume.file("/base", vec![1; 64 << 20]);
    let Some(mount) = mounted(&volume) else { return };

    let base = File::open(mount.at("base")).unwrap();
    let mut buf = vec![0; 4096];
    for i in 1..50u64 {
        base.read_exact_at(&mut buf, (i * 37 % 64) << 20).unwrap();
    }
    assert!(volume.counts().prefetched.load(Ordering::Relaxed) == 0);

    let film = File::open(mount.at("film")).unwrap();
    let mut buf = vec![0; 12 << 20];
    film.read_exact_at(&mut buf, 0).unwrap();
    let ahead = volume.counts().prefetched.load(Ordering::Relaxed);
    assert!(ahead >= 24 << 20, "{ahead}");
}

#[test]
fn a_frozen_volume_needs_no_open() {
    let volume = TestVolume::frozen();
    let bytes = pattern(3 * BLOCK + 1);
    volume.file("/d/f", bytes.clone());
    volume.file("/late", bytes.clone());
    volume.reading("/late", Behaviour::After(Duration::from_millis(20)));
    let Some(mount) = mounted(&volume) else { return };

    assert_eq!(fs::read(mount.at("d/f")).unwrap(), bytes);
    assert_eq!(fs::read(mount.at("late")).unwrap(), bytes);
    let reads = volume.counts().reads.load(Ordering::Relaxed);
    assert_eq!(fs::read(mount.at("d/f")).unwrap(), bytes);
    assert_eq!(volume.counts().reads.load(Ordering::Relaxed), reads);
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 1);
}

#[test]
fn one_thread_is_enough() {
    let volume = TestVolume::new();
    let bytes = pattern(9 * BLOCK);
    volume.file("/f", bytes.clone());
    volume.reading("/f", Behaviour::After(Duration::from_millis(5)));
    let options = MountOptions { threads: 1, ..MountOptions::default() };
    let Some(mount) = mounted_with(&volume, &options) else { return };
    assert_eq!(fs::read(mount.at("f")).unwrap(), bytes);
    let _ = runtime();
}

#[test]
fn a_file_of_unknown_size_is_never_read_as_empty() {
    let volume = TestVolume::new();
    let bytes = pattern(200_000);
    volume.file("/map", bytes.clone());
    volume.file("/late", bytes.clone());
    for name in ["/map", "/late"] {
        volume.sure(name, false);
    }
    volume.reading("/map", Behaviour::Missing(Duration::from_millis(50)));
    volume.reading("/late", Behaviour::After(Duration::from_millis(50)));
    let Some(mount) = mounted(&volume) else { return };
    assert_eq!(std::fs::metadata(mount.at("map")).unwrap().len(), 1);
    assert_eq!(errno(std::fs::read(mount.at("map"))), nix::errno::Errno::ETIMEDOUT);
    assert_eq!(std::fs::read(mount.at("late")).unwrap(), bytes, "to where its end really is");

    // Somebody has the map: no look of before counts.
    volume.reading("/map", Behaviour::Here);
    volume.sure("/map", true);
    assert_eq!(std::fs::metadata(mount.at("map")).unwrap().len(), 200_000, "without being told");
    assert_eq!(std::fs::read(mount.at("map")).unwrap(), bytes);
    volume.changed(&["/map"]);
    soon("the size", || std::fs::metadata(mount.at("map")).unwrap().len() == 200_000);
}

#[test]
fn a_version_that_is_found_late_fills_the_mount_and_is_kept_then() {
    let volume = TestVolume::new();
    let Some(mount) = mounted(&volume) else { return };
    assert_eq!(std::fs::read_dir(mount.at("")).unwrap().count(), 0);
    assert!(std::fs::metadata(mount.at("a")).is_err());
    volume.file("/a", "found");
    volume.freeze();
    volume.changed(&["/a", "/"]);
    soon("the file", || std::fs::read(mount.at("a")).is_ok_and(|bytes| bytes == b"found"));
    assert_eq!(std::fs::read_dir(mount.at("")).unwrap().count(), 1);
    let before = volume.counts().lookups.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(std::fs::read(mount.at("a")).unwrap(), b"found");
    }
    assert!(volume.counts().lookups.load(Ordering::Relaxed) <= before + 2);
}
