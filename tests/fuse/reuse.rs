//! What the kernel and other processes do to a mount point meanwhile: nobody takes away what is not theirs.

use crate::child::Mounting;
use crate::common::{
    Running, TestMount, ended, fuse_is_here, in_time, mounted, mounted_at, runtime, soon,
};
use crate::required::available;
use crate::volume::{Behaviour, TestVolume};
use hdrive::fs::{End, How, MountError, MountOptions, Mounted, mount};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::stat;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

/// A mount on `point` whose device has this number: the kernel gives it to the next one, if no other test is faster.
fn mounted_as(point: &Path, device: u64) -> Mounted {
    let volume = TestVolume::new();
    volume.file("/second", "still here");
    let mut second = None;
    soon("the number once more", || {
        drop(second.take());
        second = Some(mounted_at(&volume, point, &MountOptions::default()));
        stat(point).unwrap().st_dev == device
    });
    second.unwrap()
}

#[test]
fn a_mount_that_is_gone_takes_no_other_of_the_same_number_with_it() {
    let root = nix::unistd::geteuid().is_root();
    if !available("root", root) {
        return;
    }
    let volume = TestVolume::new();
    volume.file("/n", "x");
    volume.looking("/n", Behaviour::Stuck);
    let Some(TestMount { mounted: first, dir }) = mounted(&volume) else { return };
    let device = stat(dir.path()).unwrap().st_dev;
    // One of its threads is late, so that it has not noticed yet.
    let _caller = Running::new("stat", &[], &dir.path().join("n"));
    soon("a thread that is late", || volume.counts().stuck.load(Ordering::Relaxed) == 1);
    soon("an unmount from outside", || umount2(dir.path(), MntFlags::MNT_FORCE).is_ok());

    let second = mounted_as(dir.path(), device);
    let is_there = || fs::read(dir.path().join("second")).is_ok_and(|text| text == b"still here");
    assert!(!first.has_open_files());
    first.unmount(How::Clean).unwrap();
    assert!(is_there(), "after a clean unmount");
    first.unmount(How::Lazy).unwrap();
    assert!(is_there(), "after a lazy one");
    drop(first);
    assert!(is_there(), "after its end");
    volume.let_go();
    drop(second);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_whose_connection_was_ended_is_taken_away() {
    let volume = TestVolume::new();
    volume.file("/f", "x");
    let Some(TestMount { mounted, dir }) = mounted(&volume) else { return };
    let minor = nix::sys::stat::minor(stat(dir.path()).unwrap().st_dev);
    let connections = tempfile::tempdir().unwrap();
    let none = None::<&str>;
    let shown =
        nix::mount::mount(none, connections.path(), Some("fusectl"), MsFlags::empty(), none);
    if !available("the connections of FUSE", shown.is_ok()) {
        return;
    }
    let told = fs::write(connections.path().join(format!("{minor}/abort")), "1");
    umount2(connections.path(), MntFlags::MNT_DETACH).unwrap();
    told.unwrap();
    assert_eq!(ended(&mounted), End::Broken);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a dead mount is left");
}

/// The mount point is a directory of a drive, so that whoever looks into it can be held.
#[test]
fn who_finds_a_mount_point_full_since_another_mounted_there_meanwhile_says_so() {
    let root = nix::unistd::geteuid().is_root();
    if !fuse_is_here() || !available("root", root) {
        return;
    }
    let volume = TestVolume::new();
    volume.file("/d/x", "x");
    volume.looking("/d", Behaviour::StuckList);
    let Some(outer) = mounted(&volume) else { return };
    let point = outer.at("d");

    let (at, handle) = (point.clone(), runtime().handle().clone());
    let first = std::thread::spawn(move || {
        mount(TestVolume::new(), &at, &MountOptions::default(), handle).map(drop)
    });
    soon("a look into it", || volume.counts().stuck.load(Ordering::Relaxed) == 1);
    let mut other = Mounting::start_over(&point);
    assert_eq!(other.says(), "mounted");
    volume.let_go();
    let failed = in_time("the mount", move || first.join().unwrap()).unwrap_err();
    assert!(matches!(failed, MountError::AlreadyMounted(_)), "{failed}");
    // The same before anything is done.
    drop(other);
    assert!(matches!(hdrive::fs::check_mount_point(&point, false), Err(MountError::NotEmpty(_))));
}
