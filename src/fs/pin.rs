//! A mount held by a descriptor.
//!
//! The kernel gives the number of a mount, that of its device, and of course its path to the next one at once. What was
//! looked at is taken away only if it is the same still, and that a descriptor tells: as long as it is open its mount
//! keeps its number, and by it nothing else is unmounted. Nothing is asked of the file system when it is opened. The mount
//! counts as in use meanwhile, so this is for those that are taken away lazily.

use crate::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a mount that is already there may take to answer before it counts as hanging.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Alive,
    /// Its process is gone.
    Dead,
    /// Its process does not answer.
    Silent,
}

/// See the module. Held is what lies at a path, which need not be the root of a mount.
pub struct Pin(Arc<File>);

impl Pin {
    /// Holds what is on top at `path`, which has no links in it.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        Ok(Self(Arc::new(file)))
    }

    /// The mount that is held. None if it is not mounted any more.
    ///
    /// # Errors
    /// Those of reading `/proc`.
    pub fn mount(&self) -> io::Result<Option<MountEntry>> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        let id: u64 = id.ok_or_else(|| io::Error::other("no number of a mount"))?;
        Ok(mountinfo::mounts()?.into_iter().find(|mount| mount.id == id))
    }

    /// Asks the filesystem whether it lives. `statfs` is never answered from a cache.
    pub fn probe(&self) -> Probe {
        let (answer, answered) = mpsc::channel();
        let held = self.0.clone();
        // On its own thread, for one that hangs cannot be called off.
        let thread = std::thread::Builder::new().name("hdrive-probe".into());
        let spawned = thread.spawn(move || {
            let error = nix::sys::statfs::fstatfs(&*held).err();
            drop(held);
            let _ = answer.send(error);
        });
        if spawned.is_err() {
            return Probe::Silent;
        }
        match answered.recv_timeout(PROBE) {
            Ok(Some(Errno::ENOTCONN | Errno::ECONNABORTED)) => Probe::Dead,
            Ok(_) => Probe::Alive,
            Err(_) => Probe::Silent,
        }
    }

    /// A path that leads to it as long as it is held, whatever lies at its own.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
