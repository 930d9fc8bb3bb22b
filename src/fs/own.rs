//! The mount that a session of this process serves, found again wherever it is.
//!
//! It is known by the number of its device, which is that of no other mount as long as the session's connection to the
//! kernel lives: the kernel ends the connection first, then the file system, and then gives the number to the next mount,
//! of whatever process. So a mount of that number is looked for, and only then the connection is asked.

use super::errno::MountError;
use super::pin::{Pin, Probe};
use super::place::unlisted;
use super::unmount::{How, LOOKS, covered, detach_clean, detach_held, failed};
use crate::mountinfo::{self, KIND, MountEntry, over_in};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Copies of one mount that are taken away with it, so that there is an end if somebody makes more all the time.
const MAX_COPIES: usize = 1000;
/// So long a mount whose connection has ended may still be there though somebody is unmounting it.
const FORCED: Duration = Duration::from_millis(400);

/// See the module.
#[derive(Clone)]
pub struct OwnMount {
    /// As it was when it was made.
    entry: MountEntry,
    /// The session's connection, which ends when nobody holds it any more: only the session does.
    connection: Weak<OwnedFd>,
}

impl OwnMount {
    /// The one that was just made at `point`, where nobody else mounts a drive meanwhile. None if it is not there.
    pub fn made_at(point: &Path, connection: &Arc<OwnedFd>) -> Option<Self> {
        let entry = mountinfo::top_at(point).ok().flatten().filter(|seen| seen.kind == KIND)?;
        Some(Self { entry, connection: Arc::downgrade(connection) })
    }

    /// Whether the kernel still asks through the connection: then the number of the device is ours, and was all along.
    pub fn lives(&self) -> bool {
        let Some(connection) = self.connection.upgrade() else { return false };
        let mut asked = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        let told = poll(&mut asked, PollTimeout::ZERO);
        // Who cannot tell takes nothing away.
        told.is_ok() && asked[0].revents().is_some_and(|told| !told.contains(PollFlags::POLLERR))
    }

    /// Major and minor number of its device, which are those of another mount once this one does not live.
    pub fn device(&self) -> (u32, u32) {
        self.entry.device
    }

    /// Where it is, if it lives and nothing lies above it.
    pub fn place(&self) -> Option<PathBuf> {
        let seen = self.seen().ok().flatten()?;
        self.lives().then_some(seen.path)
    }

    /// Where it is if it lives, whatever lies above it: in the place where it was made, and where it was copied to.
    ///
    /// # Errors
    /// Those of [`mountinfo::mounts`].
    pub fn places(&self) -> io::Result<(Option<PathBuf>, Vec<PathBuf>)> {
        let mut places = (None, Vec::new());
        let mounts = mountinfo::mounts()?;
        if self.lives() {
            for mount in mounts.into_iter().filter(|mount| self.is_of_this_device(mount)) {
                match mount.id == self.entry.id {
                    true => places.0 = Some(mount.path),
                    false => places.1.push(mount.path),
                }
            }
        }
        Ok(places)
    }

    /// What there is to unmount: it, or a copy of it where it was unmounted itself. Of one that does not live any more it may
    /// be another's that has its number now.
    pub(super) fn seen(&self) -> Result<Option<MountEntry>, MountError> {
        let mounts = mountinfo::mounts().map_err(unlisted)?;
        let is_it = |mount: &&MountEntry| self.is_of_this_device(mount);
        let own = mounts.iter().filter(is_it).find(|mount| mount.id == self.entry.id);
        let mut cover = None;
        // What a copy covers is taken away after the copy.
        for mount in own.into_iter().chain(mounts.iter().filter(is_it)) {
            let Some(over) = over_in(&mounts, &mount.path) else { continue };
            if is_it(&over) {
                return Ok(Some(over.clone()));
            }
            cover = cover.or(Some(covered(&mount.path, over)));
            if own.is_some() {
                break;
            }
        }
        cover.map_or(Ok(None), Err)
    }

    fn is_of_this_device(&self, mount: &MountEntry) -> bool {
        mount.device == self.entry.device && mount.kind == self.entry.kind
    }

    /// Unmounts it, if it is there, and its copies, which would be dead without this process. Tells where it was.
    ///
    /// # Errors
    /// [`MountError::Covered`], and those of [`super::unmount()`].
    pub fn detach(&self, how: How) -> Result<Option<PathBuf>, MountError> {
        let mut was = None;
        for _ in 0..MAX_COPIES {
            let seen = self.seen();
            // What was seen has its number, and it is its own if it lives still.
            if !self.lives() {
                break;
            }
            let Some(seen) = seen? else { break };
            match how {
                // By its path: held, it would be in use.
                How::Clean => detach_clean(&seen, LOOKS)?,
                How::Lazy => match self.pinned(&seen.path) {
                    Ok(Some(pin)) if self.lives() => detach_held(pin)?,
                    // It is somewhere else by now, or ended.
                    Ok(_) => continue,
                    Err(_) if !self.lives() => break,
                    Err(error) => return Err(failed(&seen.path, error)),
                },
            }
            was.get_or_insert(seen.path);
        }
        Ok(was)
    }

    /// Takes it away when nobody serves it any more, and tells whether it was still there: nobody had unmounted it then.
    pub fn clear(&self) -> bool {
        if self.lives() {
            return !matches!(self.detach(How::Lazy), Ok(None));
        }
        // The connection was ended from outside, and the mount is there still, but dead. `umount -f` ends the one before it
        // takes the other away.
        let begun = Instant::now();
        let seen = loop {
            match self.seen() {
                Ok(None) => return false,
                Ok(Some(_)) if begun.elapsed() < FORCED => std::thread::sleep(FORCED / 20),
                Ok(seen) => break seen,
                // Whether what is covered is dead cannot be seen; its number is hardly another's so soon.
                Err(error) => return matches!(error, MountError::Covered { .. }),
            }
        };
        let pin = seen.and_then(|seen| self.pinned(&seen.path).ok().flatten());
        let dead = pin.filter(|pin| pin.probe() == Probe::Dead);
        let was_there = dead.is_some();
        if let Some(pin) = dead {
            let _ = detach_held(pin);
        }
        was_there
    }

    /// Holds what is at `place`, if it has the number of this mount.
    fn pinned(&self, place: &Path) -> io::Result<Option<Pin>> {
        let pin = Pin::at(place)?;
        let held = pin.mount()?;
        Ok(held.is_some_and(|held| self.is_of_this_device(&held)).then_some(pin))
    }
}
