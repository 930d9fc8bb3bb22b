//! Mapped files: a program runs from the mount.

use crate::common::mounted;
use crate::volume::{Behaviour, TestVolume};
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
