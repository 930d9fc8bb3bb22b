//! The folder at the top of a share: whether it is still the one that was shared.
//!
//! A path says little. A disk that is not mounted leaves an empty folder, a renamed folder leaves nothing, and another
//! one may be made in its place; none of that means that the user deleted what was shared. So a folder is known by its
//! [`Identity`], which is kept in the store, and looked at before and after each scan.

use super::beneath::Beneath;
use super::stores::FileId;
use crate::codec::{Put, Reader};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Which directory it is, through renames and restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub file: FileId,
    /// The filesystem's own number, which most take from their UUID; 0 where there is none.
    filesystem: u64,
    /// When it was made, in nanoseconds since 1970; 0 where the filesystem does not say. Inode numbers are used again.
    born: u64,
}

impl Identity {
    /// # Errors
    /// When there is no directory, or it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Self::of_open(openat(CWD, path, flags, Mode::empty())?)
    }

    /// # Errors
    /// When it cannot be looked at.
    pub fn of_held(folder: &Beneath) -> io::Result<Self> {
        Self::of_open(folder.as_fd().try_clone_to_owned()?)
    }

    fn of_open(folder: OwnedFd) -> io::Result<Self> {
        let filesystem = rustix::fs::fstatvfs(&folder).map(|stat| stat.f_fsid).unwrap_or(0);
        let meta = fs::File::from(folder).metadata()?;
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |age| age.as_nanos() as u64);
        Ok(Self { file: FileId::of(&meta), filesystem, born })
    }

    /// Whether both are on one filesystem. Device numbers change when the machine is started, and a filesystem need not
    /// have a number.
    pub fn is_beside(&self, other: &Self) -> bool {
        match (self.filesystem, other.filesystem) {
            (a, b) if a != 0 && b != 0 => a == b,
            _ => self.file.dev == other.file.dev,
        }
    }

    /// Whether both are the same directory.
    pub fn is(&self, other: &Self) -> bool {
        let born = self.born == other.born || self.born == 0 || other.born == 0;
        self.file.ino == other.file.ino && born && self.is_beside(other)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.file.dev, self.file.ino, self.filesystem, self.born] {
            out.put_u64(number);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut next = || reader.u64().ok();
        let (dev, ino) = (next()?, next()?);
        Some(Self { file: FileId { dev, ino }, filesystem: next()?, born: next()? })
    }
}

/// What is at the path of a share now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The folder that was shared.
    Same,
    /// Another folder, on the same filesystem: it was made anew, or moved there.
    Replaced,
    /// A folder of another filesystem: a disk was mounted over it, or is missing.
    Elsewhere,
    /// No folder that can be looked at.
    Missing(String),
}

/// The root of a share.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    known: Identity,
}

impl Root {
    pub fn new(path: PathBuf, known: Identity) -> Self {
        Self { path, known }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn standing(&self) -> Standing {
        let opened = fs::read_dir(&self.path).and_then(|_| Identity::of(&self.path));
        match opened {
            Ok(now) if now.is(&self.known) => Standing::Same,
            Ok(now) if now.is_beside(&self.known) => Standing::Replaced,
            Ok(_) => Standing::Elsewhere,
            Err(error) => Standing::Missing(error.to_string()),
        }
    }

    /// What is there now, to be compared later.
    pub fn now(&self) -> Option<Identity> {
        Identity::of(&self.path).ok()
    }

    /// Takes the folder that is there for the one that is shared.
    pub fn adopt(&mut self, identity: Identity) {
        self.known = identity;
    }

    pub fn known(&self) -> Identity {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_again_and_no_other_is_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (at, away) = (dir.path().join("at"), dir.path().join("away"));
        fs::create_dir(&at).unwrap();
        let first = Identity::of(&at).unwrap();
        assert_eq!(Identity::decode(&first.encode()), Some(first));
        let root = Root::new(at.clone(), first);
        assert_eq!(root.standing(), Standing::Same);

        fs::rename(&at, &away).unwrap();
        assert!(matches!(root.standing(), Standing::Missing(_)));
        fs::create_dir(&at).unwrap();
        assert_eq!(root.standing(), Standing::Replaced);
        fs::remove_dir(&at).unwrap();
        std::os::unix::fs::symlink(&away, &at).unwrap();
        assert!(matches!(root.standing(), Standing::Missing(_)), "a link is no folder");
        fs::remove_file(&at).unwrap();
        fs::rename(&away, &at).unwrap();
        assert_eq!(root.standing(), Standing::Same);
    }

    #[test]
    fn another_filesystem_is_told_from_another_folder() {
        let id =
            |dev, ino, filesystem, born| Identity { file: FileId { dev, ino }, filesystem, born };
        let known = id(1, 2, 7, 100);
        assert!(known.is(&id(9, 2, 7, 100)), "device numbers change when a machine starts");
        assert!(!known.is(&id(1, 2, 7, 101)), "the inode was used again");
        assert!(known.is_beside(&id(1, 3, 7, 1)));
        assert!(!known.is_beside(&id(1, 2, 8, 100)));
        assert!(known.is(&id(1, 2, 0, 0)));
        assert!(!known.is(&id(3, 2, 0, 100)));
    }
}
