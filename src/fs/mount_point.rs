//! The directory to mount on: found, judged, and freed of what an earlier life left there.

use super::claim::Claim;
use super::errno::MountError;
use super::place::{not_there, resolve};
use super::unmount::{How, detach};
use crate::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long a mount that is already there may take to answer before it counts as hanging.
const PROBE: Duration = Duration::from_secs(2);
/// Dead mounts that are cleared one above the other; each kill and remount in between left one.
const MAX_STACK: usize = 16;

/// Makes `path` ready to mount on and returns it without links in it. As long as that is held nobody else mounts there.
///
/// A dead mount of ours (its process was killed) is detached first. One that answers is never touched.
///
/// # Errors
/// [`MountError`], each with what to do.
pub fn prepare(path: &Path, nonempty: bool) -> Result<Claim, MountError> {
    let mut claim = Claim::new(resolve(path)?)?;
    free(claim.point(), nonempty)?;
    claim.lock();
    // Whoever had the lock until now may have mounted.
    free(claim.point(), nonempty)?;
    Ok(claim)
}

/// Looks for what makes a mount on `path` fail, and touches nothing. Whether a mount that is there ends in a moment, or
/// is dead, is not asked.
///
/// # Errors
/// [`MountError`], each with what to do.
pub fn check(path: &Path, nonempty: bool) -> Result<(), MountError> {
    let point = resolve(path)?;
    match top(&point)? {
        Some(mount) if mount.is_ours() || mount.kind.starts_with("fuse") => Ok(()),
        _ => judge(&point, nonempty),
    }
}

fn free(point: &Path, nonempty: bool) -> Result<(), MountError> {
    for _ in 0..MAX_STACK {
        let Some(mount) = top(point)? else { break };
        if !clear(point, &mount)? {
            break;
        }
    }
    judge(point, nonempty)
}

fn top(point: &Path) -> Result<Option<MountEntry>, MountError> {
    mountinfo::top_at(point)
        .map_err(|source| MountError::Io { what: "/proc/self/mountinfo".into(), source })
}

/// Takes a dead mount of ours away; false if there is a live filesystem to mount on.
fn clear(point: &Path, mount: &MountEntry) -> Result<bool, MountError> {
    let ours = mount.is_ours();
    if !ours && !mount.kind.starts_with("fuse") {
        return Ok(false);
    }
    match probe(point) {
        Probe::Alive if ours => Err(MountError::AlreadyMounted(point.into())),
        Probe::Alive => Ok(false),
        Probe::Silent => Err(MountError::Silent(point.into())),
        Probe::Dead if !ours => Err(MountError::ForeignDead {
            path: point.into(),
            kind: mount.kind.clone(),
            source_name: mount.source.clone(),
        }),
        Probe::Dead => {
            tracing::info!(mount_point = %point.display(), "clearing a dead mount");
            detach(point, How::Lazy)?;
            Ok(true)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Alive,
    /// Its process is gone.
    Dead,
    /// Its process does not answer.
    Silent,
}

/// Asks the filesystem at `point` whether it lives. `statfs` is never answered from a cache.
pub fn probe(point: &Path) -> Probe {
    let (answer, answered) = mpsc::channel();
    let path = point.to_owned();
    // On its own thread, for one that hangs cannot be called off.
    let thread = std::thread::Builder::new().name("hdrive-probe".into());
    let spawned = thread.spawn(move || {
        let _ = answer.send(nix::sys::statfs::statfs(&path).err());
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

fn judge(point: &Path, nonempty: bool) -> Result<(), MountError> {
    let metadata = std::fs::metadata(point).map_err(|source| not_there(point, source))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(point.into()));
    }
    if nonempty {
        return Ok(());
    }
    let mut names = std::fs::read_dir(point).map_err(|source| not_there(point, source))?;
    if names.next().is_some() { Err(MountError::NotEmpty(point.into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_a_mount_point_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(prepare(&dir.path().join("none"), false), Err(MountError::Missing(_))));
        assert!(matches!(prepare(&file, false), Err(MountError::NotADirectory(_))));
        assert!(matches!(prepare(&file.join("x"), false), Err(MountError::NotADirectory(_))));
        assert!(matches!(prepare(dir.path(), false), Err(MountError::NotEmpty(_))));
        assert!(prepare(dir.path(), true).is_ok());
    }

    #[test]
    fn links_to_the_mount_point_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
        let found = prepare(&dir.path().join("link/"), false).unwrap();
        assert_eq!(found.point(), real.canonicalize().unwrap());
        assert!(prepare(&dir.path().join("loop"), false).is_err());
    }
}
