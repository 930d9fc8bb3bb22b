//! Mapped files: a program runs from the mount.

use crate::common::{Running, ended, mounted, soon};
use crate::required::available;
use crate::volume::{Behaviour, TestVolume};
use hdrive::fs::{End, How, MountError, unmount};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_program_runs_from_the_mount() {
    let volume = TestVolume::new();
    volume.file("/bin/echo", std::fs::read("/bin/echo").unwrap());
    volume.mode("/bin/echo", 0o755);
    volume.reading("/bin/echo", Behaviour::After(Duration::from_millis(2)));
    let Some(mount) = mounted(&volume) else { return };

    let output = Command::new(mount.at("bin/echo")).arg("mapped").output().unwrap();
    assert_eq!(output.stdout, b"mapped\n");
}

#[test]
fn noexec_forbids_it() {
    let volume = TestVolume::new();
    volume.file("/echo", std::fs::read("/bin/echo").unwrap());
    volume.mode("/echo", 0o755);
    let options = hdrive::fs::MountOptions { noexec: true, noatime: true, ..Default::default() };
    let Some(mount) = crate::common::mounted_with(&volume, &options) else { return };
    assert!(Command::new(mount.at("echo")).output().is_err());
}

/// Who has only mapped a file has no descriptor of it any more: a library, say.
#[test]
fn who_only_maps_a_file_is_named() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut mapped = maps.lines().filter_map(|line| line.split(' ').next_back());
    let library = mapped.find(|file| file.contains("/libgcc_s.so"));
    if !available("a program with a shared library", library.is_some()) {
        return;
    }
    let volume = TestVolume::new();
    volume.file("/library.so", std::fs::read(library.unwrap()).unwrap());
    let Some(mount) = mounted(&volume) else { return };
    let mut sleep = Command::new("sleep");
    sleep.arg("300").env("LD_PRELOAD", mount.at("library.so"));
    let sleep = Running(sleep.spawn().unwrap());
    let maps = format!("/proc/{}/maps", sleep.0.id());
    // It runs once its own memory is as it shall be.
    let has_begun = || {
        let maps = std::fs::read_to_string(&maps).unwrap();
        maps.contains("/library.so") && maps.contains("/libc.so")
    };
    soon("the library", has_begun);
    let named = format!("({})", sleep.0.id());
    soon("its name", || {
        let error = unmount(mount.mounted.mount_point(), How::Clean).unwrap_err();
        assert!(matches!(&error, MountError::InUse { .. }), "{error}");
        error.to_string().contains(&named)
    });
    assert!(mount.mounted.end().unwrap(), "it was in use");
    drop(sleep);
    assert_eq!(ended(&mount.mounted), End::Unmounted);
}
