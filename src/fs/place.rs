//! Paths of mount points, which may be of dead mounts that nothing can look at, or of an automounter's.
//!
//! An automounter (autofs, and systemd with it) is woken by whoever touches its place, and lets all wait until it has
//! mounted there, but for the processes of its own group. What goes to the background leaves that group: it would wait
//! for the mount that it is to make, and could not be killed.

use super::errno::MountError;
use crate::mountinfo;
use nix::errno::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Links that are followed to a dead mount, as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// The path without links. The last component may be a dead mount, which nothing can look at.
///
/// # Errors
/// [`MountError::Automounter`] before the place of one is touched, and others, each with what to do.
pub fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let mut path = std::path::absolute(path).map_err(|source| at(path, source))?;
    for _ in 0..MAX_LINKS {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(path);
        };
        let dir = parent.canonicalize().map_err(|source| not_there(&path, source))?;
        let last = dir.join(name);
        let over = mountinfo::over(&last)
            .map_err(|source| MountError::Io { what: "/proc/self/mountinfo".into(), source })?;
        if over.is_some_and(|over| over.is_of_automounter()) {
            return Err(MountError::Automounter(last));
        }
        match std::fs::read_link(&last) {
            Ok(target) => path = dir.join(target),
            Err(error) if is(&error, &[Errno::ENOENT]) => return Err(MountError::Missing(path)),
            Err(_) => return Ok(last),
        }
    }
    Err(at(&path, Errno::ELOOP.into()))
}

/// Why there is nothing to mount on.
pub fn not_there(path: &Path, error: io::Error) -> MountError {
    if is(&error, &[Errno::ENOENT]) {
        MountError::Missing(path.into())
    } else if is(&error, &[Errno::ENOTDIR]) {
        MountError::NotADirectory(path.into())
    } else if is(&error, &[Errno::EACCES, Errno::EPERM]) {
        MountError::Forbidden { path: path.into(), why: error.to_string() }
    } else {
        at(path, error)
    }
}

fn at(path: &Path, source: io::Error) -> MountError {
    MountError::Io { what: path.display().to_string(), source }
}

fn is(error: &io::Error, any: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| any.contains(&Errno::from_raw(code)))
}
