//! The directory to mount on: found, judged, and freed of what an earlier life left there.

use super::claim::Claim;
use super::errno::MountError;
use super::pin::{Pin, Probe};
use super::place::{not_there, resolve, unlisted};
use super::unmount::detach_held;
use crate::mountinfo::{self, MountEntry};
use std::path::Path;

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
    let has_fuse = || Ok(top(&point)?.as_ref().is_some_and(is_fuse));
    if has_fuse()? {
        return Ok(());
    }
    match judge(&point, nonempty) {
        // Since then.
        Err(_) if has_fuse()? => Ok(()),
        judged => judged,
    }
}

fn free(point: &Path, nonempty: bool) -> Result<(), MountError> {
    for _ in 0..MAX_STACK {
        let looked = top(point)?;
        if looked.as_ref().is_some_and(is_fuse) && clear(point)? {
            continue;
        }
        let judged = judge(point, nonempty);
        // What was judged may be a mount that came after the look.
        if judged.is_ok() || top(point)? == looked {
            return judged;
        }
    }
    judge(point, nonempty)
}

fn top(point: &Path) -> Result<Option<MountEntry>, MountError> {
    mountinfo::top_at(point).map_err(unlisted)
}

fn is_fuse(mount: &MountEntry) -> bool {
    mount.is_ours() || mount.kind.starts_with("fuse")
}

/// Takes a dead mount of ours away, or finds another than was looked at: then it is to be looked at once more. False if
/// there is a live filesystem to mount on.
fn clear(point: &Path) -> Result<bool, MountError> {
    // Held, for another process may clear it at the same time, and mount.
    let pin = Pin::at(point).map_err(|source| not_there(point, source))?;
    let held = pin.mount().map_err(unlisted)?;
    let Some(mount) = held.filter(|held| held.path == point && is_fuse(held)) else {
        return Ok(true);
    };
    let ours = mount.is_ours();
    match pin.probe() {
        Probe::Alive if ours => Err(MountError::AlreadyMounted(point.into())),
        Probe::Alive => Ok(false),
        Probe::Silent => Err(MountError::Silent(point.into())),
        Probe::Dead if !ours => Err(MountError::ForeignDead {
            path: point.into(),
            kind: mount.kind,
            source_name: mount.source,
        }),
        Probe::Dead => {
            tracing::info!(mount_point = %point.display(), "clearing a dead mount");
            detach_held(pin)?;
            Ok(true)
        }
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
