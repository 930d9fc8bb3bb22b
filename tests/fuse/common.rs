//! A mount on a temporary directory that is gone when it is dropped.

use crate::volume::TestVolume;
use hdrive::fs::{MountOptions, Mounted, mount};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub struct TestMount {
    // Dropped in this order: the mount before its directory.
    pub mounted: Mounted,
    pub dir: TempDir,
}

impl TestMount {
    pub fn at(&self, below: &str) -> PathBuf {
        self.mounted.mount_point().join(below)
    }
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

/// Whether a test that needs `why` may run; says so if not.
pub fn can(why: &str, possible: bool) -> bool {
    if !possible {
        let required = std::env::var_os("HDRIVE_REQUIRE_FUSE").is_some_and(|value| value == "1");
        assert!(!required, "HDRIVE_REQUIRE_FUSE=1 but {why} is not to be had");
        eprintln!("SKIPPED: {why} is not to be had");
    }
    possible
}

pub fn fuse_is_here() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    can("/dev/fuse", device.is_ok())
}

pub fn mounted(volume: &Arc<TestVolume>) -> Option<TestMount> {
    mounted_with(volume, &MountOptions::default())
}

pub fn mounted_with(volume: &Arc<TestVolume>, options: &MountOptions) -> Option<TestMount> {
    if !fuse_is_here() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = mount(volume.clone(), dir.path(), options, runtime().handle().clone()).unwrap();
    Some(TestMount { mounted, dir })
}

/// Bytes that differ everywhere.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Tries until it holds; the kernel is told of changes by a thread of its own.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(5), "not within 5 s: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A child that is killed when dropped.
pub struct Running(pub Child);

impl Running {
    pub fn new(program: &str, args: &[&str], path: &Path) -> Self {
        let child = Command::new(program)
            .args(args)
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// How long the child still lives after `signal`.
    pub fn dies_of(&mut self, signal: nix::sys::signal::Signal) -> Duration {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let sent = Instant::now();
        nix::sys::signal::kill(pid, signal).unwrap();
        self.0.wait().unwrap();
        sent.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
}
