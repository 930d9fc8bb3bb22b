//! A mount held by a descriptor.
//!
//! The kernel gives the number of a mount, that of its device, and of course its path to the next one at once. What was
//! looked at is taken away only if it is the same still, and that a descriptor tells: as long as it is open its mount
//! keeps its number, and by it nothing else is unmounted. Nothing is asked of the file system when it is opened. The mount
//! counts as in use meanwhile, so this is for those that are taken away lazily.

use super::errno::MountError;
use super::place::unlisted;
use super::unmount::{How, detach_as_user, failed};
use crate::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
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

    /// Unmounts what is held, lazily, if it is mounted still.
    ///
    /// # Errors
    /// Those of [`super::unmount()`].
    pub fn detach(self) -> Result<(), MountError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        match umount2(&path, MntFlags::MNT_DETACH) {
            // It is mounted no more.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EPERM) => self.detach_as_user(),
            Err(errno) => Err(failed(&path, errno.into())),
        }
    }

    fn detach_as_user(self) -> Result<(), MountError> {
        let Some(mount) = self.mount().map_err(unlisted)? else { return Ok(()) };
        detach_as_user(&mount, How::Lazy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::required::available;
    use nix::mount::{MsFlags, mount};

    fn tmpfs(at: &Path) -> bool {
        let mounted = mount(Some("test"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>);
        available("the right to mount", mounted.is_ok())
    }

    #[test]
    fn only_what_is_held_is_taken_away_though_another_has_its_place_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        if !tmpfs(&at) {
            return;
        }
        let first = Pin::at(&at).unwrap();
        let listed = first.mount().unwrap().unwrap();
        assert_eq!((listed.path.as_path(), listed.kind.as_str()), (at.as_path(), "tmpfs"));
        assert_eq!(first.probe(), Probe::Alive);
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(first.mount().unwrap(), None);

        assert!(tmpfs(&at));
        std::fs::write(at.join("second"), "x").unwrap();
        first.detach().unwrap();
        assert!(at.join("second").exists(), "another mount was taken away");
        Pin::at(&at).unwrap().detach().unwrap();
        assert!(!at.join("second").exists());
        // A folder that is no mount is nothing to take away.
        Pin::at(&at).unwrap().detach().unwrap();
        assert!(mountinfo::top_at(&at).unwrap().is_none());
    }
}
