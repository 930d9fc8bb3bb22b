//! Whether a file of the store is still the one that was looked at first.
//!
//! Descriptors outlive names. Where the file at the path was put there by somebody else, or is gone, what is written to
//! the one that was opened is lost with its descriptor; and a descriptor that is opened later is another file's, of which
//! nothing is known. So both are refused, until the store is opened anew.

use crate::lock::lock;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

/// The file that was there at the first look, or was made since; none where there was none so far.
#[derive(Default)]
pub(super) struct Identity(Mutex<Option<First>>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct First {
    /// Device and inode.
    number: (u64, u64),
    /// What it was when it was looked at. Of a file that nobody has opened some file systems forget the inode, and give it
    /// another: the same file is what was changed and written last at the same moment, which nobody can set.
    was: (u64, [i64; 4]),
}

impl First {
    fn of(meta: &Metadata) -> Self {
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Self { number: (meta.dev(), meta.ino()), was: (meta.size(), times) }
    }

    fn is(&self, found: &Self) -> bool {
        found.number == self.number || found.number.0 == self.number.0 && found.was == self.was
    }
}

/// What an [`io::Error`] holds where another file, or none, is at the path of an opened one.
#[derive(Debug, thiserror::Error)]
#[error("files of the store {store} were replaced or removed")]
pub(super) struct Replaced {
    pub(super) store: String,
}

impl Identity {
    /// What is at the path, if anything is.
    ///
    /// # Errors
    /// [`Replaced`] if that is not the file that was there at the first look.
    pub(super) fn look(&self, store: &Path, path: &Path) -> io::Result<Option<Metadata>> {
        let found = match std::fs::metadata(path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            found => Some(found?),
        };
        match &found {
            Some(meta) => self.admit(store, meta)?,
            None => self.check(store, None)?,
        }
        Ok(found)
    }

    pub(super) fn check(&self, store: &Path, found: Option<&Metadata>) -> io::Result<()> {
        let mut first = lock(&self.0);
        match (&mut *first, found.map(First::of)) {
            (None, _) => Ok(()),
            (Some(first), Some(found)) if first.is(&found) => {
                first.number = found.number;
                Ok(())
            }
            _ => Err(io::Error::other(Replaced { store: store.display().to_string() })),
        }
    }

    /// The same of a file that is there, which the others are to be if it is the first.
    pub(super) fn admit(&self, store: &Path, found: &Metadata) -> io::Result<()> {
        lock(&self.0).get_or_insert(First::of(found));
        self.check(store, Some(found))
    }

    /// What the open file is after a change of ours.
    pub(super) fn was_changed(&self, open: &Metadata) {
        let open = First::of(open);
        if let Some(first) = lock(&self.0).as_mut().filter(|first| first.number == open.number) {
            *first = open;
        }
    }

    /// Takes a copy for the file that it is a copy of.
    pub(super) fn was_copied(&self, copy: &Metadata) {
        *lock(&self.0) = Some(First::of(copy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_with_another_number_is_the_same_if_nothing_else_of_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"ours").unwrap();
        let identity = Identity::default();
        let meta = identity.look(dir.path(), &path).unwrap().unwrap();
        // As if the file system had given it another one since.
        let forget = || lock(&identity.0).as_mut().unwrap().number.1 += 1;
        forget();
        identity.admit(dir.path(), &meta).unwrap();
        assert_eq!(lock(&identity.0).unwrap().number.1, meta.ino());
        fs::write(&path, b"ours, changed").unwrap();
        identity.was_changed(&fs::metadata(&path).unwrap());
        forget();
        identity.look(dir.path(), &path).unwrap();
        fs::write(&path, b"theirs").unwrap();
        identity.look(dir.path(), &path).unwrap();
        forget();
        assert!(identity.look(dir.path(), &path).is_err());
    }
}
