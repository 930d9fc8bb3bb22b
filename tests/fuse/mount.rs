//! Mounting, unmounting, and what is left when a process is killed.

use crate::child::Mounting;
use crate::common::{
    ended, fuse_is_here, in_time, mounted, mounted_at, mounted_with, runtime, soon, unmounted_clean,
};
use crate::required::available;
use crate::volume::TestVolume;
use hdrive::fs::{End, How, MountError, MountOptions, mount, unmount};
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_dead_mount_heals_itself() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Killed while in use, twice, and once more on top.
    let child = Mounting::at(dir.path());
    let held = File::open(dir.path().join("f")).unwrap();
    child.kill_9();
    assert!(nix::sys::statvfs::statvfs(dir.path()).is_err());
    Mounting::at(dir.path()).kill_9();

    let volume = TestVolume::new();
    volume.file("/f", "alive");
    let mounted = mounted_at(&volume, dir.path(), &MountOptions::default());
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"alive");
    drop(mounted);
    drop(held);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Mounting::at(dir.path()).kill_9();
    unmounted_clean(|| unmount(dir.path(), How::Clean));
    assert!(matches!(unmount(dir.path(), How::Clean), Err(MountError::NotMounted(_))));
}

#[test]
fn a_live_mount_is_never_touched() {
    let volume = TestVolume::new();
    volume.file("/f", "x");
    let Some(first) = mounted(&volume) else { return };
    let again = mount(
        volume.clone(),
        first.dir.path(),
        &MountOptions::default(),
        runtime().handle().clone(),
    );
    assert!(matches!(again.err(), Some(MountError::AlreadyMounted(_))));
    assert_eq!(fs::read(first.at("f")).unwrap(), b"x");
}

#[test]
fn a_stopped_mount_is_told_and_can_be_taken_away() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let child = Mounting::at(dir.path());
    child.stop();
    let point = dir.path().to_path_buf();
    let handle = runtime().handle().clone();
    let second = in_time("the look at what is there", move || {
        mount(TestVolume::new(), &point, &MountOptions::default(), handle)
    });
    assert!(matches!(second.err(), Some(MountError::Silent(_))));
    let point = dir.path().to_path_buf();
    in_time("the unmount", move || unmount(&point, How::Lazy)).unwrap();
    child.kill_9();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_point_with_strange_letters_works() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("a b\\c,d\té");
    fs::create_dir(&point).unwrap();
    let volume = TestVolume::new();
    volume.file("/f", "x");
    let mounted = mounted_at(&volume, &point, &MountOptions::default());
    assert_eq!(fs::read(point.join("f")).unwrap(), b"x");
    unmounted_clean(|| unmount(&point, How::Clean));
    assert_eq!(ended(&mounted), End::Unmounted);
}

#[test]
fn an_unmount_from_outside_is_noticed() {
    let volume = TestVolume::new();
    let Some(mount) = mounted(&volume) else { return };
    let status = Command::new("umount").arg(mount.dir.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(ended(&mount.mounted), End::Unmounted);
    // A second end is none.
    mount.mounted.unmount(How::Clean).unwrap();
}

#[test]
fn a_mount_in_use_is_left_or_taken_lazily() {
    let volume = TestVolume::new();
    volume.file("/f", "still here");
    let Some(mount) = mounted(&volume) else { return };
    let mut file = File::open(mount.at("f")).unwrap();

    let error = mount.mounted.unmount(How::Clean).unwrap_err();
    assert!(matches!(&error, MountError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&format!("({})", std::process::id())), "{error}");
    mount.mounted.unmount(How::Lazy).unwrap();
    assert!(!mount.at("f").exists());
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    drop(file);
    assert_eq!(ended(&mount.mounted), End::Unmounted);
}

/// A look is a use at just that moment, and takes the mark of the unmount away.
#[test]
fn a_mount_that_somebody_only_looks_at_is_unmounted_clean() {
    let volume = TestVolume::new();
    volume.file("/f", "x");
    for round in 0..20 {
        let Some(mount) = mounted(&volume) else { return };
        let (file, looks, over) = (mount.at("f"), AtomicU64::new(0), AtomicBool::new(false));
        let done = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    looks.fetch_add(fs::metadata(&file).is_ok().into(), Ordering::Relaxed);
                    // Without a pause nobody gets in between on a busy machine.
                    thread::sleep(Duration::from_millis(1));
                }
            });
            soon("a look", || looks.load(Ordering::Relaxed) > 10);
            let done = mount.mounted.unmount(How::Clean);
            over.store(true, Ordering::Relaxed);
            done
        });
        done.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

#[test]
fn root_gets_a_wider_read_ahead() {
    if !available("root", nix::unistd::geteuid().is_root()) {
        return;
    }
    let volume = TestVolume::new();
    let options = MountOptions { read_ahead_kib: 2048, ..MountOptions::default() };
    let Some(mount) = mounted_with(&volume, &options) else { return };
    let device = nix::sys::stat::stat(mount.mounted.mount_point()).unwrap().st_dev;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let read_ahead = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    soon("the value", || fs::read_to_string(&read_ahead).unwrap().trim() == "2048");
}

#[test]
fn a_mount_whose_parent_was_renamed_is_unmounted_where_it_is() {
    if !fuse_is_here() {
        return;
    }
    let volume = TestVolume::new();
    volume.file("/a", "x");
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("before"), dir.path().join("after"));
    let point = before.join("mnt");
    std::fs::create_dir_all(&point).unwrap();
    let options = MountOptions::default();
    let mounted = mounted_at(&volume, &point, &options);
    std::fs::rename(&before, &after).unwrap();
    assert_eq!(std::fs::read(after.join("mnt/a")).unwrap(), b"x");
    unmounted_clean(|| mounted.unmount(How::Clean));
    assert_eq!(std::fs::read_dir(after.join("mnt")).unwrap().count(), 0, "no dead mount is left");
    drop(mounted);
}

/// Between the look at the point and the mount another may come.
#[test]
fn of_many_mounts_on_one_point_at_once_one_is_made() {
    if !fuse_is_here() {
        return;
    }
    for _ in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let at_once = std::sync::Barrier::new(4);
        let try_one = || {
            at_once.wait();
            let handle = runtime().handle().clone();
            mount(TestVolume::new(), dir.path(), &MountOptions::default(), handle)
        };
        let tries: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4).map(|_| scope.spawn(try_one)).collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for failed in tries.iter().filter_map(|one| one.as_ref().err()) {
            assert!(matches!(failed, MountError::AlreadyMounted(_)), "{failed}");
        }
        assert_eq!(tries.iter().filter(|one| one.is_ok()).count(), 1);
        drop(tries);
        assert!(matches!(unmount(dir.path(), How::Clean), Err(MountError::NotMounted(_))));
    }
}

#[test]
fn of_many_processes_that_mount_on_one_point_one_does() {
    if !fuse_is_here() {
        return;
    }
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        // What one takes for dead and takes away may be what another mounted meanwhile.
        if round % 2 == 1 {
            Mounting::at(dir.path()).kill_9();
        }
        let mut children: Vec<_> = (0..4).map(|_| Mounting::start(dir.path())).collect();
        let said: Vec<String> = children.iter_mut().map(Mounting::says).collect();
        children.into_iter().for_each(Mounting::kill_9);
        unmounted_clean(|| unmount(dir.path(), How::Clean));
        assert_eq!(said.iter().filter(|said| *said == "mounted").count(), 1, "{said:?}");
        let others = said.iter().filter(|said| said.contains("is a mounted drive already"));
        assert_eq!(others.count(), 3, "{said:?}");
    }
}
