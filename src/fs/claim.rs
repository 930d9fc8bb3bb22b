//! A mount point that somebody is about to mount on: until it is mounted, or not, nobody else tries.
//!
//! Between the look at a mount point and the mount another may come, and the kernel mounts one above the other. In this
//! process a list keeps them apart; other processes, of other stores, by a lock of the directory itself, which lies
//! below the mount when it is made: who waited for it looks once more.

use super::errno::MountError;
use crate::lock::lock;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long another mount on the same point is waited for: it looks at the point, which takes two seconds if a mount
/// is there that hangs.
const WAIT: Duration = Duration::from_secs(5);
/// How long a lock of the directory is waited for. It may be another program's, for a reason of its own, so the mount
/// goes on without it.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(2);
/// How often it is tried.
const LOOK: Duration = Duration::from_millis(5);

static CLAIMED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct Claim {
    point: PathBuf,
    lock: Option<Flock<File>>,
}

impl Claim {
    /// Claims `point`, which holds no links, in this process.
    ///
    /// # Errors
    /// [`MountError::Claimed`] if another mount there takes too long.
    pub fn new(point: PathBuf) -> Result<Self, MountError> {
        let give_up = Instant::now() + WAIT;
        while !lock(&CLAIMED).insert(point.clone()) {
            if Instant::now() > give_up {
                return Err(MountError::Claimed(point));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Self { point, lock: None })
    }

    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Claims it before other processes too. What lies at the point may be another now than when it was looked at.
    pub fn lock(&mut self) {
        // Where it may not be read, or its file system has no locks, the point is checked and no more.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_DIRECTORY.bits());
        let Ok(mut directory) = options.open(&self.point) else { return };
        let give_up = Instant::now() + WAIT_FOR_LOCK;
        loop {
            match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    self.lock = Some(lock);
                    return;
                }
                Err((file, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < give_up => {
                    directory = file;
                }
                Err(_) => return,
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock goes first: who is next in this process would wait for it.
        self.lock = None;
        lock(&CLAIMED).remove(&self.point);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_waited_for_and_a_lock_of_another_program_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Claim::new(dir.path().into()).unwrap();
        first.lock();
        let point = dir.path().to_path_buf();
        let second = std::thread::spawn(move || {
            let begun = Instant::now();
            let _claim = Claim::new(point).unwrap();
            begun.elapsed()
        });
        std::thread::sleep(Duration::from_millis(100));
        drop(first);
        assert!(second.join().unwrap() >= Duration::from_millis(50));

        let held = Flock::lock(File::open(dir.path()).unwrap(), FlockArg::LockExclusive);
        let _held = held.map_err(|(_, errno)| errno).unwrap();
        let begun = Instant::now();
        let mut third = Claim::new(dir.path().into()).unwrap();
        third.lock();
        assert!(third.lock.is_none() && begun.elapsed() >= WAIT_FOR_LOCK);
    }
}
