//! Where in the folder a path of the drive lies, and the other way round.

use crate::path::DrivePath;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The kernel takes so many bytes of path in one call, and a last one that ends it.
const MAX_CALL: usize = 4095;
/// Longer paths are walked in steps of less than this, plus the name that begins below it.
const STEP: usize = 2048;

/// Where `path` of the drive lies below `folder`.
pub fn locate(folder: &Path, path: &DrivePath) -> PathBuf {
    folder.join(path.as_str().trim_start_matches('/'))
}

/// The drive path of a local one; none outside `folder` or where a name cannot be one of a drive.
pub fn drive_path(folder: &Path, full: &Path) -> Option<DrivePath> {
    let below = full.strip_prefix(folder).ok()?.to_str()?;
    if below.is_empty() {
        return Some(DrivePath::root());
    }
    DrivePath::from_entry_key(&format!("/{below}")).ok()
}

/// A path to give to the kernel.
pub struct Near {
    path: PathBuf,
    _held: Option<OwnedFd>,
}

impl Near {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What `full` leads to, also where that is too long for one call, as a path of the drive may be with that of its
/// folder before it: the end of it, from a folder on that is held.
pub fn near(full: &Path) -> Near {
    let short = full.as_os_str().len() <= MAX_CALL;
    let near = if short { None } else { walk(full) };
    // Else the kernel tells that it is too long.
    near.unwrap_or_else(|| Near { path: full.to_path_buf(), _held: None })
}

fn walk(full: &Path) -> Option<Near> {
    let mut held: Option<OwnedFd> = None;
    let mut step = PathBuf::new();
    for name in full {
        if step.as_os_str().len() > STEP {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = held.as_ref().map_or(CWD, |held| held.as_fd());
            held = Some(openat(from, &step, flags, Mode::empty()).ok()?);
            step = PathBuf::new();
        }
        step.push(name);
    }
    let from = format!("/proc/self/fd/{}", held.as_ref()?.as_raw_fd());
    Some(Near { path: Path::new(&from).join(step), _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_map_to_drive_paths_and_back() {
        let folder = Path::new("/f");
        let path = drive_path(folder, Path::new("/f/a/b")).unwrap();
        assert_eq!(path.as_str(), "/a/b");
        assert_eq!(locate(folder, &path), Path::new("/f/a/b"));
        assert_eq!(drive_path(folder, folder), Some(DrivePath::root()));
        assert_eq!(drive_path(folder, Path::new("/elsewhere")), None);
    }
}
