//! What tests mount besides drives: each is gone again when it is dropped.

use super::available;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something that is mounted until this is dropped.
pub struct Place(PathBuf);

impl Place {
    /// A file system without a device; `None` where it is not allowed or not known, which is printed.
    pub fn of(kind: &str, at: &Path, options: &str) -> Option<Self> {
        Self::mount(Path::new("none"), at, Some(kind), MsFlags::empty(), Some(options))
    }

    pub fn tmpfs(at: &Path) -> Option<Self> {
        Self::of("tmpfs", at, "")
    }

    /// One place shown in another.
    pub fn bind(what: &Path, at: &Path) -> Option<Self> {
        Self::mount(what, at, None, MsFlags::MS_BIND, None)
    }

    /// The file system in a file.
    pub fn image(image: &Path, at: &Path) -> Option<Self> {
        let done = Command::new("mount").args(["-o", "loop"]).args([image, at]).output();
        done.is_ok_and(|done| done.status.success()).then(|| Self(at.to_path_buf()))
    }

    fn mount(
        what: &Path,
        at: &Path,
        kind: Option<&str>,
        flags: MsFlags,
        options: Option<&str>,
    ) -> Option<Self> {
        match mount(Some(what), at, kind, flags, options) {
            Ok(()) => Some(Self(at.to_path_buf())),
            Err(error) => {
                eprintln!("{}: nothing can be mounted here: {error}", at.display());
                None
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

pub fn mounts_available() -> bool {
    let dir = tempfile::tempdir().unwrap();
    available("the right to mount", Place::tmpfs(dir.path()).is_some())
}
