//! Mounting, unmounting, and what is left when a process is killed.

use crate::common::{fuse_is_here, mounted, mounted_with, runtime, soon};
use crate::volume::TestVolume;
use hdrive::fs::{How, MountError, MountOptions, mount, unmount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Directory that a child of this test program mounts on until it is killed.
const CHILD: &str = "HDRIVE_TEST_MOUNT";

/// Directory that a child of this test program unmounts.
const CHILD_UNMOUNT: &str = "HDRIVE_TEST_UNMOUNT";

/// Not a test of its own: the body of the child.
#[test]
fn child_that_mounts() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let volume = TestVolume::new();
    volume.file("/f", "from the child");
    let options = MountOptions::default();
    let result = mount(volume, Path::new(&dir), &options, runtime().handle().clone());
    match result {
        Ok(mounted) => {
            println!("\nmounted");
            let end =
                async { tokio::time::timeout(Duration::from_secs(60), mounted.ended()).await };
            let _ = runtime().block_on(end);
        }
        Err(error) => println!("\nerror: {error}"),
    }
}

/// Not a test of its own: unmounts what a user mounted.
#[test]
fn child_that_unmounts() {
    let Some(dir) = std::env::var_os(CHILD_UNMOUNT) else { return };
    let how = if std::env::var_os("LAZY").is_some() { How::Lazy } else { How::Clean };
    match unmount(Path::new(&dir), how) {
        Ok(()) => println!("\nunmounted"),
        Err(error) => println!("\nerror: {error}"),
    }
}

pub fn child_command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "mount::child_that_mounts", "mount::child_that_unmounts"]);
    command.args(["--nocapture", "--test-threads=1"]);
    command
}

fn child_at(dir: &Path) -> Child {
    let mut child = child_command().env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find(|line| line == "mounted" || line.contains("error:"));
    assert_eq!(said.as_deref(), Some("mounted"));
    child
}

fn kill_9(mut child: Child) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_dead_mount_heals_itself() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Killed while in use, twice, and once more on top.
    let child = child_at(dir.path());
    let held = File::open(dir.path().join("f")).unwrap();
    kill_9(child);
    assert!(nix::sys::statvfs::statvfs(dir.path()).is_err());
    kill_9(child_at(dir.path()));

    let volume = TestVolume::new();
    volume.file("/f", "alive");
    let mounted =
        mount(volume, dir.path(), &MountOptions::default(), runtime().handle().clone()).unwrap();
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
    kill_9(child_at(dir.path()));
    unmount(dir.path(), How::Clean).unwrap();
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
    let child = child_at(dir.path());
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    let second =
        mount(TestVolume::new(), dir.path(), &MountOptions::default(), runtime().handle().clone());
    assert!(matches!(second.err(), Some(MountError::Silent(_))));
    unmount(dir.path(), How::Lazy).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    kill(pid, Signal::SIGCONT).unwrap();
    kill_9(child);
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
    let mounted =
        mount(volume, &point, &MountOptions::default(), runtime().handle().clone()).unwrap();
    assert_eq!(fs::read(point.join("f")).unwrap(), b"x");
    unmount(&point, How::Clean).unwrap();
    runtime().block_on(mounted.ended());
}

#[test]
fn an_unmount_from_outside_is_noticed() {
    let volume = TestVolume::new();
    let Some(mount) = mounted(&volume) else { return };
    let status = Command::new("umount").arg(mount.dir.path()).status().unwrap();
    assert!(status.success());
    let ended = async { tokio::time::timeout(Duration::from_secs(2), mount.mounted.ended()).await };
    runtime().block_on(ended).unwrap();
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
    runtime().block_on(mount.mounted.ended());
}

#[test]
fn root_gets_a_wider_read_ahead() {
    if !nix::unistd::geteuid().is_root() {
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
    let handle = runtime().handle().clone();
    let mounted = hdrive::fs::mount(volume, &point, &options, handle).unwrap();
    std::fs::rename(&before, &after).unwrap();
    assert_eq!(std::fs::read(after.join("mnt/a")).unwrap(), b"x");
    mounted.unmount(How::Clean).unwrap();
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
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let start = || child_command().env(CHILD, dir.path()).stdout(Stdio::piped()).spawn();
        let mut children: Vec<_> = (0..4).map(|_| start().unwrap()).collect();
        let said = |child: &mut Child| {
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let said = lines.map(Result::unwrap);
            let mut said = said.filter(|line| line == "mounted" || line.contains("error:"));
            said.next().unwrap()
        };
        let said: Vec<String> = children.iter_mut().map(said).collect();
        children.into_iter().for_each(kill_9);
        unmount(dir.path(), How::Clean).unwrap();
        assert_eq!(said.iter().filter(|said| *said == "mounted").count(), 1, "{said:?}");
        let others = said.iter().filter(|said| said.contains("is a mounted drive already"));
        assert_eq!(others.count(), 3, "{said:?}");
    }
}
