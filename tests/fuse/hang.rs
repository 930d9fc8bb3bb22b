//! Nothing hangs: what no peer has ends in time, and callers that are killed die.

use crate::common::{NO_DEADLINE, Running, TestMount, ended, errno, in_time, mounted_with, soon};
use crate::volume::{Behaviour, TestVolume};
use hdrive::fs::{End, How, MountOptions};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A mount that waits for peers until it is told not to.
fn patient(volume: &Arc<TestVolume>) -> Option<TestMount> {
    mounted_with(volume, &MountOptions { deadline: NO_DEADLINE, ..MountOptions::default() })
}

fn somebody_waits(mount: &TestMount) {
    soon("a request that waits", || mount.mounted.waiting() != 0);
}

#[test]
fn a_missing_block_is_a_timeout_and_not_twice() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Missing(Duration::from_millis(300)));
    let Some(mount) = patient(&volume) else { return };

    let started = Instant::now();
    let at = mount.at("f");
    assert_eq!(in_time("the timeout", move || errno(fs::read(at))), Errno::ETIMEDOUT);
    assert!(started.elapsed() >= Duration::from_millis(290));
    let waits = volume.counts().waits.lock().unwrap();
    assert_eq!(waits.iter().filter(|offset| **offset == 0).count(), 1, "{waits:?}");
}

#[test]
fn a_volume_that_never_answers_is_given_up_on() {
    let volume = TestVolume::new();
    volume.file("/f", "x");
    volume.file("/n", "x");
    volume.reading("/f", Behaviour::Never);
    volume.looking("/n", Behaviour::Never);
    let options = MountOptions { deadline: Duration::from_millis(200), ..MountOptions::default() };
    let Some(mount) = mounted_with(&volume, &options) else { return };

    let (read, looked) = (mount.at("f"), mount.at("n"));
    assert_eq!(in_time("the read", move || errno(fs::read(read))), Errno::ETIMEDOUT);
    assert_eq!(in_time("the lookup", move || errno(fs::metadata(looked))), Errno::ETIMEDOUT);
}

#[test]
fn names_and_sizes_are_there_while_bytes_are_not() {
    let volume = TestVolume::new();
    volume.file("/d/f", vec![1; 5 << 20]);
    volume.reading("/d/f", Behaviour::Never);
    let Some(mount) = patient(&volume) else { return };
    let mut reader = Running::new("cat", &[], &mount.at("d/f"));
    somebody_waits(&mount);

    let (dir, file, top) = (mount.at("d"), mount.at("d/f"), mount.at(""));
    in_time("names and sizes", move || {
        assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
        assert_eq!(fs::metadata(file).unwrap().len(), 5 << 20);
        nix::sys::statvfs::statvfs(&top).unwrap();
    });
    assert!(mount.mounted.waiting() != 0 && reader.runs());
}

#[test]
fn what_is_here_can_be_read_beside_what_is_missing() {
    let volume = TestVolume::new();
    volume.file("/f", vec![7; 1 << 20]);
    volume.reading("/f", Behaviour::Partly(200_000, Duration::from_millis(100)));
    let Some(mount) = patient(&volume) else { return };

    let file = fs::File::open(mount.at("f")).unwrap();
    let mut buf = vec![0; 150_000];
    file.read_exact_at(&mut buf, 0).unwrap();
    let missing = in_time("the timeout", move || errno(file.read_exact_at(&mut buf, 500_000)));
    assert_eq!(missing, Errno::ETIMEDOUT);
}

#[test]
fn killed_callers_die_whatever_they_wait_for() {
    let volume = TestVolume::new();
    volume.file("/bytes", vec![1; 1 << 20]);
    volume.reading("/bytes", Behaviour::Never);
    volume.file("/name", "x");
    volume.looking("/name", Behaviour::Never);
    let Some(mount) = patient(&volume) else { return };

    let (bytes, name) = (mount.at("bytes"), mount.at("name"));
    let input = format!("if={}", bytes.display());
    let direct = ["iflag=direct", "bs=4096", "count=1", "of=/dev/null"];
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        for (what, program, args, path) in [
            ("read", "cat", &[][..], bytes.as_path()),
            ("lookup", "stat", &[], &name),
            ("direct read", "dd", &direct, input.as_ref()),
        ] {
            if what == "direct read" && signal == Signal::SIGINT {
                // dd takes this one for a question.
                continue;
            }
            // One after the other: what waits is this one.
            let mut caller = Running::new(program, args, path);
            somebody_waits(&mount);
            kill(Pid::from_raw(caller.0.id() as i32), signal).unwrap();
            let status = caller.ends();
            assert_eq!(status.signal(), Some(signal as i32), "{what}: {status}");
            soon("nothing waits any more", || mount.mounted.waiting() == 0);
        }
    }
}

#[test]
fn a_mount_with_waiting_callers_can_be_taken_away() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Never);
    let Some(mount) = patient(&volume) else { return };
    let mut reader = Running::new("cat", &[], &mount.at("f"));
    somebody_waits(&mount);

    let busy = mount.mounted.unmount(How::Clean).unwrap_err().to_string();
    assert!(busy.contains(&format!("cat ({})", reader.0.id())), "{busy}");
    assert!(reader.runs());
    mount.mounted.unmount(How::Lazy).unwrap();
    assert!(!reader.ends().success());
    assert_eq!(ended(&mount.mounted), End::Unmounted);
    assert_eq!(fs::read_dir(mount.dir.path()).unwrap().count(), 0);
}

#[test]
fn dropping_a_mount_in_use_is_no_wait() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Never);
    let Some(mount) = patient(&volume) else { return };
    let mut reader = Running::new("cat", &[], &mount.at("f"));
    somebody_waits(&mount);
    in_time("the end of a mount", move || drop(mount));
    assert!(!reader.ends().success());
}
