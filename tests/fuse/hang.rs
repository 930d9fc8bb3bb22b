//! Nothing hangs: what no peer has ends in time, and callers that are killed die.

use crate::common::{Running, errno, mounted, mounted_with};
use crate::volume::{Behaviour, TestVolume};
use hdrive::fs::{How, MountOptions};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long a killed caller may still live, with room for a busy machine.
const SOON: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 150 });

#[test]
fn a_missing_block_is_a_timeout_and_not_twice() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Missing(Duration::from_millis(300)));
    let Some(mount) = mounted(&volume) else { return };

    let started = Instant::now();
    let error = errno(fs::read(mount.at("f")));
    let took = started.elapsed();
    assert_eq!(error, Errno::ETIMEDOUT);
    assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(580), "{took:?}");
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

    let started = Instant::now();
    assert_eq!(errno(fs::read(mount.at("f"))), Errno::ETIMEDOUT);
    assert_eq!(errno(fs::metadata(mount.at("n"))), Errno::ETIMEDOUT);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn names_and_sizes_are_there_while_bytes_are_not() {
    let volume = TestVolume::new();
    volume.file("/d/f", vec![1; 5 << 20]);
    volume.reading("/d/f", Behaviour::Never);
    let Some(mount) = mounted(&volume) else { return };
    let _reader = Running::new("cat", &[], &mount.at("d/f"));
    while mount.mounted.waiting() == 0 {
        std::thread::yield_now();
    }

    let started = Instant::now();
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), 1);
    assert_eq!(fs::metadata(mount.at("d/f")).unwrap().len(), 5 << 20);
    nix::sys::statvfs::statvfs(mount.mounted.mount_point()).unwrap();
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
}

#[test]
fn what_is_here_can_be_read_beside_what_is_missing() {
    let volume = TestVolume::new();
    volume.file("/f", vec![7; 1 << 20]);
    volume.reading("/f", Behaviour::Partly(200_000, Duration::from_millis(100)));
    let Some(mount) = mounted(&volume) else { return };

    let file = fs::File::open(mount.at("f")).unwrap();
    let mut buf = vec![0; 150_000];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(errno(file.read_exact_at(&mut buf, 500_000)), Errno::ETIMEDOUT);
}

#[test]
fn killed_callers_die_whatever_they_wait_for() {
    let volume = TestVolume::new();
    volume.file("/bytes", vec![1; 1 << 20]);
    volume.reading("/bytes", Behaviour::Never);
    volume.file("/name", "x");
    volume.looking("/name", Behaviour::Never);
    let Some(mount) = mounted(&volume) else { return };

    let direct = ["iflag=direct", "bs=4096", "count=1", "of=/dev/null"];
    let input = format!("if={}", mount.at("bytes").display());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let callers = [
            ("read", Running::new("cat", &[], &mount.at("bytes"))),
            ("lookup", Running::new("stat", &[], &mount.at("name"))),
            ("direct read", Running::new("dd", &direct, input.as_ref())),
        ];
        for (what, mut caller) in callers {
            while mount.mounted.waiting() == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(60));
            if what == "direct read" && signal == Signal::SIGINT {
                // dd takes this one for a question.
                continue;
            }
            let took = caller.dies_of(signal);
            eprintln!("{what} died of {signal} after {took:?}");
            assert!(took < SOON, "{what} lived {took:?} after {signal}");
        }
        crate::common::soon("nothing waits any more", || mount.mounted.waiting() == 0);
    }
}

#[test]
fn a_mount_with_waiting_callers_can_be_taken_away() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Never);
    let Some(mount) = mounted(&volume) else { return };
    let mut reader = Running::new("cat", &[], &mount.at("f"));
    while mount.mounted.waiting() == 0 {
        std::thread::yield_now();
    }

    let busy = mount.mounted.unmount(How::Clean).unwrap_err().to_string();
    assert!(busy.contains("in use by cat ("), "{busy}");
    let started = Instant::now();
    mount.mounted.unmount(How::Lazy).unwrap();
    reader.0.wait().unwrap();
    crate::common::runtime().block_on(mount.mounted.ended());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(fs::read_dir(mount.dir.path()).unwrap().count(), 0);
}

#[test]
fn dropping_a_mount_in_use_is_no_wait() {
    let volume = TestVolume::new();
    volume.file("/f", vec![1; 1 << 20]);
    volume.reading("/f", Behaviour::Never);
    let Some(mount) = mounted(&volume) else { return };
    let _reader = Running::new("cat", &[], &mount.at("f"));
    while mount.mounted.waiting() == 0 {
        std::thread::yield_now();
    }
    let started = Instant::now();
    drop(mount);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
