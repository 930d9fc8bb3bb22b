//! Opens files below a folder, whatever became of a name since it was looked at: links are followed in no part of
//! the path, and nothing waits for a writer.
//!
//! `openat2` does that in one call. Where the kernel or a sandbox does not know it, the path is walked name by name.

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

/// A folder that is held open.
pub struct Beneath(OwnedFd);

impl Beneath {
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, folder, PASSED, Mode::empty())?))
    }

    /// Opens what is at `path`, for reading. Who looks at it afterwards must ask whether it is a file.
    pub fn open(&self, path: &DrivePath) -> io::Result<File> {
        let below = path.as_str().trim_start_matches('/');
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let opened = match openat2(&self.0, below, READ, Mode::empty(), resolve) {
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => walk(self.0.as_fd(), path),
            opened => opened,
        };
        Ok(opened?.into())
    }
}

/// The same without `openat2`: each folder on the way is held before its names are looked at.
fn walk(folder: BorrowedFd<'_>, path: &DrivePath) -> Result<OwnedFd, Errno> {
    let mut held: Option<OwnedFd> = None;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { PASSED } else { READ };
        let above = held.as_ref().map_or(folder, OwnedFd::as_fd);
        held = Some(openat(above, name, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    held.ok_or(Errno::ISDIR)
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
        let beneath = Beneath::new(&folder).unwrap();
        let path = |name: &str| DrivePath::from_user(name).unwrap();
        let opens = |name: &str| {
            let walked = walk(beneath.0.as_fd(), &path(name)).map(File::from);
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
}
