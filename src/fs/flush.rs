//! Has the kernel write what it keeps of files that somebody has open for long.
//!
//! What is written to a mount that lets the kernel keep it comes here when the file is closed or synced, else when the
//! kernel likes, half a minute later say. Others are to see it sooner, so the kernel is asked now and then.
//!
//! Who asks waits for answers that this process gives. If it were killed meanwhile, and the one who waits had the
//! connection to the kernel, the connection would never end, nor the process. So the thread that asks has a table of open
//! files for itself, with none of the process's.

use super::filesystem::Filesystem;
use crate::threads;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, fstat, major, minor};
use nix::unistd::close;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often the kernel is asked, while somebody has a file open to be written.
const EVERY: Duration = Duration::from_secs(1);
/// The longest that somebody waits who asks for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Standard input, output and error are below it.
const FIRST_OWN: RawFd = 3;

/// The thread goes on as long as this is held.
pub struct Flusher(Sender<Sender<()>>);

impl Flusher {
    /// For the mount of this device that was made at `point`.
    pub fn start(fs: &Arc<Filesystem>, point: PathBuf, device: (u32, u32)) -> io::Result<Self> {
        let (ask, asked) = channel();
        let fs = Arc::downgrade(fs);
        threads::spawn("hdrive-flush", move || match leave_files() {
            Ok(()) => run(&fs, &point, device, &asked),
            Err(error) => tracing::debug!(%error, "what the kernel keeps is not asked for"),
        })?;
        Ok(Self(ask))
    }

    /// Waits until the kernel has written what it keeps, but not for ever.
    pub fn flush(&self) {
        let (done, is_done) = channel();
        if self.0.send(done).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}

fn run(fs: &Weak<Filesystem>, point: &Path, device: (u32, u32), asked: &Receiver<Sender<()>>) {
    loop {
        // Dropped when it is done.
        let _done = match asked.recv_timeout(EVERY) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(fs) = fs.upgrade() else { return };
        if !fs.is_being_written() {
            continue;
        }
        drop(fs);
        // Somebody has a file open, so that this keeps nobody from unmounting it. Where it was moved, the kernel takes
        // its time.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(root) = open(point, flags, Mode::empty()) else { continue };
        let own = fstat(&root).is_ok_and(|at| (major(at.st_dev), minor(at.st_dev)) == wide(device));
        if own && let Err(error) = rustix::fs::syncfs(&root) {
            tracing::debug!(%error, "what the kernel keeps was not written");
        }
    }
}

fn wide((major, minor): (u32, u32)) -> (u64, u64) {
    (major.into(), minor.into())
}

/// From now on this thread has no open file of the process, and the process none of it.
fn leave_files() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FILES)?;
    let open = std::fs::read_dir("/proc/thread-self/fd")?;
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| *number >= FIRST_OWN).collect::<Vec<_>>() {
        // The one by which they were listed is closed already.
        let _ = close(number);
    }
    Ok(())
}
