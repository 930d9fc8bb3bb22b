//! A mount on a temporary directory that is gone when it is dropped.

use crate::required::available;
use crate::volume::TestVolume;
use hdrive::fs::{End, MountError, MountOptions, Mounted, mount};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long something that must happen is waited for: longer than any machine is busy. That something happens at once is
/// asserted by what has not happened meanwhile, never by the time it took.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A deadline of requests that no test lives to see.
pub const NO_DEADLINE: Duration = Duration::from_secs(3600);

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

pub fn fuse_is_here() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    available("/dev/fuse", device.is_ok())
}

pub fn mounted(volume: &Arc<TestVolume>) -> Option<TestMount> {
    mounted_with(volume, &MountOptions::default())
}

pub fn mounted_with(volume: &Arc<TestVolume>, options: &MountOptions) -> Option<TestMount> {
    if !fuse_is_here() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = mounted_at(volume, dir.path(), options);
    Some(TestMount { mounted, dir })
}

pub fn mounted_at(volume: &Arc<TestVolume>, point: &Path, options: &MountOptions) -> Mounted {
    mount(volume.clone(), point, options, runtime().handle().clone())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Until nobody has it open any more: what another test starts has all that is open here for a moment, before it becomes
/// another program.
pub fn unmounted_clean(mut unmount: impl FnMut() -> Result<(), MountError>) {
    soon("a clean unmount", || match unmount() {
        Err(MountError::InUse { .. }) => false,
        done => {
            done.unwrap_or_else(|error| panic!("{error}"));
            true
        }
    });
}

/// Returns when the mount is over.
pub fn ended(mounted: &Mounted) -> End {
    let end = async { tokio::time::timeout(PATIENCE, mounted.ended()).await };
    runtime().block_on(end).expect("the mount ends")
}

/// What `work` gives, on a thread of its own: who waits for ever there fails here.
pub fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (told, answer) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || told.send(work()));
    match answer.recv_timeout(PATIENCE) {
        Ok(answer) => answer,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("not in time: {what}"),
        Err(_) => panic!("{what}: {:?}", worker.join().map(drop)),
    }
}

/// Bytes that differ everywhere.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Tries until it holds; the kernel is told of changes by a thread of its own.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
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

    /// Returns when it has ended.
    pub fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        soon("the end of a child", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // One that cannot be killed ends with the mount, which may be dropped only after this.
        let started = Instant::now();
        while self.0.try_wait().is_ok_and(|status| status.is_none())
            && started.elapsed() < Duration::from_secs(1)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(result.unwrap_err().raw_os_error().unwrap())
}
