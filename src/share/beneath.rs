//! A folder that is held open, and what lies below it, whatever became of its path or of a name since it was looked at:
//! links are followed in no part of a path, no mount is crossed that must not be, and nothing waits for a writer.
//!
//! `openat2` does that in one call. Where the kernel or a sandbox does not know it, the path is walked name by name.

use super::meta::Meta;
use crate::path::DrivePath;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A folder is held, not looked into.
const PASSED: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const LISTED: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// See the module.
pub struct Beneath {
    folder: OwnedFd,
    meta: Meta,
    cross_mounts: bool,
}

impl Beneath {
    /// # Errors
    /// When there is no folder, or it cannot be looked at.
    pub fn new(folder: &Path, cross_mounts: bool) -> io::Result<Self> {
        let folder = openat(CWD, folder, PASSED, Mode::empty())?;
        let meta = Meta::of(&folder)?;
        Ok(Self { folder, meta, cross_mounts })
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whether `path` leads to this folder now.
    pub fn is_at(&self, path: &Path) -> bool {
        let now = Meta::at(CWD, path);
        now.is_ok_and(|now| now.file == self.meta.file && now.is_beside(&self.meta))
    }

    /// Opens what is at `path`, for reading. Who looks at it afterwards must ask whether it is a file.
    ///
    /// # Errors
    /// When it cannot be opened; `CrossesDevices` if it is mounted and mounts are not crossed.
    pub fn open(&self, path: &DrivePath) -> io::Result<File> {
        Ok(self.reach(path, READ)?.into())
    }

    /// Opens a folder to list it.
    ///
    /// # Errors
    /// The same.
    pub fn list(&self, path: &DrivePath) -> io::Result<OwnedFd> {
        self.reach(path, LISTED)
    }

    /// Holds a folder that perhaps cannot be listed.
    ///
    /// # Errors
    /// The same.
    pub fn hold(&self, path: &DrivePath) -> io::Result<OwnedFd> {
        self.reach(path, PASSED)
    }

    fn reach(&self, path: &DrivePath, flags: OFlags) -> io::Result<OwnedFd> {
        let below = path.as_str().trim_start_matches('/');
        let below = if below.is_empty() { "." } else { below };
        let mut resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::NO_XDEV, !self.cross_mounts);
        let opened = match openat2(&self.folder, below, flags, Mode::empty(), resolve) {
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags),
            opened => opened,
        };
        Ok(opened?)
    }

    /// The same without `openat2`: each folder on the way is held before its names are looked at.
    fn walk(&self, path: &DrivePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut names = path.names().peekable();
        if names.peek().is_none() {
            return openat(&self.folder, ".", flags, Mode::empty());
        }
        let mut held: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() { PASSED } else { flags };
            let above = held.as_ref().map_or(self.folder.as_fd(), OwnedFd::as_fd);
            held = Some(self.step(above, name, flags)?);
        }
        held.ok_or(Errno::NOENT)
    }

    fn step(&self, above: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let opened = openat(above, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
        if !self.cross_mounts {
            let error = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
            let (above, now) = (Meta::of(above).map_err(error)?, Meta::of(&opened).map_err(error)?);
            if !now.is_beside(&above) {
                return Err(Errno::XDEV);
            }
        }
        Ok(opened)
    }
}

impl AsFd for Beneath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_became_a_link_is_not_opened_with_or_without_openat2() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("shared"), dir.path().join("outside"));
        fs::create_dir_all(folder.join("real/deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "mine").unwrap();
        fs::write(folder.join("real/deep/file"), "shown").unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), folder.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("dir")).unwrap();
        std::os::unix::fs::symlink("real", folder.join("inner")).unwrap();
        let beneath = Beneath::new(&folder, false).unwrap();
        let path = |name: &str| DrivePath::from_user(name).unwrap();
        let opens = |name: &str| {
            let walked = beneath.walk(&path(name), READ).map(File::from);
            [beneath.open(&path(name)), walked.map_err(io::Error::from)]
        };
        for file in opens("/real/deep/file") {
            assert_eq!(io::read_to_string(file.unwrap()).unwrap(), "shown");
        }
        for name in ["/link", "/dir/secret", "/inner/deep/file", "/none", "/real/deep/file/x", "/"]
        {
            for file in opens(name) {
                let read = file.and_then(io::read_to_string);
                assert!(read.is_err(), "{name}: {read:?}");
            }
        }
    }

    #[test]
    fn mounts_are_crossed_only_where_that_is_wanted() {
        let path = |name: &str| DrivePath::from_user(name).unwrap();
        for (cross, wanted) in [(true, true), (false, false)] {
            let root = Beneath::new(Path::new("/"), cross).unwrap();
            assert_eq!(root.hold(&path("/proc/sys")).is_ok(), wanted);
            assert_eq!(root.open(&path("/proc/version")).is_ok(), wanted);
            assert_eq!(root.walk(&path("/proc/version"), READ).is_ok(), wanted);
            assert!(root.list(&DrivePath::root()).is_ok());
            assert!(root.walk(&DrivePath::root(), LISTED).is_ok());
        }
    }

    #[test]
    fn what_is_held_is_the_same_folder_wherever_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (at, away) = (dir.path().join("at"), dir.path().join("away"));
        fs::create_dir(&at).unwrap();
        fs::write(at.join("file"), "mine").unwrap();
        let held = Beneath::new(&at, false).unwrap();
        assert!(held.is_at(&at));
        fs::rename(&at, &away).unwrap();
        fs::create_dir(&at).unwrap();
        fs::write(at.join("file"), "another's").unwrap();
        assert!(!held.is_at(&at) && held.is_at(&away));
        let file = held.open(&DrivePath::from_user("/file").unwrap()).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "mine");
    }
}
