//! Mounts that another lies over, and paths that lead to a mount in a roundabout way: what one sees at a path counts, not
//! what was last mounted there.

use crate::child::Mounting;
use crate::common::{fuse_is_here, mounted_at, unmounted_clean};
use crate::required::available;
use crate::volume::TestVolume;
use hdrive::fs::{How, MountError, MountOptions, Mounted, unmount};
use nix::mount::{MntFlags, MsFlags, umount2};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

fn of_root() -> bool {
    fuse_is_here() && available("root", nix::unistd::geteuid().is_root())
}

/// A tmpfs that is gone when it is dropped, with all that is mounted in it.
struct Cover(PathBuf);

impl Cover {
    fn on(at: PathBuf) -> Self {
        let none = None::<&str>;
        nix::mount::mount(Some("cover"), &at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        // Else nothing can be moved out of it or into it.
        nix::mount::mount(none, &at, none, MsFlags::MS_PRIVATE, none).unwrap();
        fs::write(at.join("marked"), "x").unwrap();
        Self(at)
    }

    fn is_there(&self) -> bool {
        self.0.join("marked").exists()
    }
}

impl Drop for Cover {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn drive_at(point: &Path) -> Mounted {
    fs::create_dir_all(point).unwrap();
    let volume = TestVolume::new();
    volume.file("/f", "alive");
    mounted_at(&volume, point, &MountOptions::default())
}

fn base() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    (dir, base)
}

fn is_covered(done: Result<(), MountError>, at: &Path, by: &Path) -> bool {
    let error = done.unwrap_err();
    let MountError::Covered { path, cover, .. } = &error else { panic!("{error}") };
    path == at && cover == by
}

#[test]
fn a_mount_below_another_is_told_and_its_place_is_free() {
    if !of_root() {
        return;
    }
    let (_dir, base) = base();
    let (a, point) = (base.join("a"), base.join("a/b"));
    let first = drive_at(&point);
    let cover = Cover::on(a.clone());
    for made in [false, true] {
        if made {
            fs::create_dir(&point).unwrap();
        }
        for how in [How::Clean, How::Lazy] {
            assert!(is_covered(unmount(&point, how), &point, &a), "{how:?}, {made}");
        }
    }
    let second = drive_at(&point);
    assert_eq!(fs::read(point.join("f")).unwrap(), b"alive");
    assert!(is_covered(first.unmount(How::Clean), &point, &point));
    assert_eq!(fs::read(point.join("f")).unwrap(), b"alive", "the other drive is taken away");
    unmounted_clean(|| second.unmount(How::Clean));
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);

    // Right on it.
    let upon = Cover::on(point.clone());
    for how in [How::Clean, How::Lazy] {
        assert!(is_covered(unmount(&point, how), &point, &point));
        assert!(upon.is_there());
    }
    drop((upon, cover));
    assert_eq!(fs::read(point.join("f")).unwrap(), b"alive");
    unmounted_clean(|| unmount(&point, How::Clean));
    assert!(matches!(unmount(&point, How::Clean), Err(MountError::NotMounted(_))));
}

#[test]
fn a_file_system_that_was_moved_over_a_drive_is_left() {
    if !of_root() {
        return;
    }
    let (_dir, base) = base();
    let _all = Cover::on(base.clone());
    let (x, moved) = (base.join("x"), base.join("moved"));
    fs::create_dir(&x).unwrap();
    let _cover = Cover::on(x.clone());
    fs::create_dir(x.join("b")).unwrap();
    let mut other = Cover::on(x.join("b"));
    let point = moved.join("b");
    let drive = drive_at(&point);
    let none = None::<&str>;
    nix::mount::mount(Some(&x), &moved, none, MsFlags::MS_MOVE, none).unwrap();
    other.0.clone_from(&point);
    for how in [How::Clean, How::Lazy] {
        assert!(is_covered(drive.unmount(how), &point, &point));
        assert!(other.is_there(), "{how:?} took it");
    }
    drop(drive);
    assert!(other.is_there());
    drop(other);
    umount2(&moved, MntFlags::MNT_DETACH).unwrap();
    // What the covered one left.
    unmounted_clean(|| unmount(&point, How::Clean));
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
}

#[test]
fn a_drive_is_unmounted_with_its_copies_also_under_one() {
    if !of_root() {
        return;
    }
    let (_dir, base) = base();
    let point = base.join("m");
    let copy = base.join("copy");
    fs::create_dir(&copy).unwrap();
    let drive = drive_at(&point);
    for at in [&point, &copy] {
        let none = None::<&str>;
        nix::mount::mount(Some(&point), at, none, MsFlags::MS_BIND, none).unwrap();
    }
    drop(drive);
    for at in [&point, &copy] {
        assert_eq!(fs::read_dir(at).unwrap().count(), 0);
    }
}

/// The look at a path and the unmount are two things. What comes in between comes a little sooner after each time that it was
/// too late, and a little later after each time that it was too early: so it comes all around that moment.
#[test]
fn what_comes_between_the_look_and_the_unmount_is_left() {
    if !of_root() {
        return;
    }
    /// Microseconds.
    const STEP: i64 = 5;
    let (_dir, base) = base();
    let point = base.join("m");
    let (mut pause, mut late, mut early) = (0_i64, 0, 0);
    // A sleep would be too long.
    let pauses = |micros: i64| {
        let begun = Instant::now();
        while (begun.elapsed().as_micros() as i64) < micros {}
    };
    for round in 0..200 {
        let drive = drive_at(&point);
        let at_once = std::sync::Barrier::new(2);
        let (done, cover) = std::thread::scope(|scope| {
            let cover = scope.spawn(|| {
                at_once.wait();
                pauses(pause);
                Cover::on(point.clone())
            });
            at_once.wait();
            pauses(-pause);
            // As if it were somebody else's.
            let done = unmount(&point, How::Clean);
            (done, cover.join().unwrap())
        });
        assert!(cover.is_there(), "taken away in round {round}");
        match done {
            Ok(()) => (late, pause) = (late + 1, pause - STEP),
            Err(MountError::Covered { .. }) => (early, pause) = (early + 1, pause + STEP),
            // Another test has it open for a moment.
            Err(MountError::InUse { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        drop(cover);
        drop(drive);
        assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    }
    assert!(late > 0 && early > 0, "{late} came after the unmount, {early} before");
}

#[test]
fn a_way_back_out_of_a_folder_leads_to_its_mount() {
    if !fuse_is_here() {
        return;
    }
    let (_dir, base) = base();
    let (point, way) = (base.join("dt"), base.join("dt/d/.."));
    fs::create_dir_all(point.join("d")).unwrap();
    let volume = TestVolume::new();
    volume.file("/d/f", "x");
    let options = MountOptions { nonempty: true, ..MountOptions::default() };
    let drive = mounted_at(&volume, &way, &options);
    assert_eq!(drive.mount_point(), point);
    unmounted_clean(|| drive.unmount(How::Clean));
    assert_eq!(fs::read_dir(point.join("d")).unwrap().count(), 0);
    assert!(!fs::exists(point.join("d/f")).unwrap());
    drop(drive);

    Mounting::start_over(&way).kill_9_mounted();
    unmounted_clean(|| unmount(&way, How::Clean));
    assert!(fs::exists(point.join("d")).unwrap());
}
