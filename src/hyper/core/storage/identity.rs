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

/// Device and inode of the file that was there at the first look, or was made since; none where there was none so far.
#[derive(Default)]
pub(super) struct Identity(Mutex<Option<(u64, u64)>>);

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
        let found = found.map(|meta| (meta.dev(), meta.ino()));
        match *lock(&self.0) {
            Some(first) if found != Some(first) => {
                Err(io::Error::other(Replaced { store: store.display().to_string() }))
            }
            _ => Ok(()),
        }
    }

    /// The same of a file that is there, which the others are to be if it is the first.
    pub(super) fn admit(&self, store: &Path, found: &Metadata) -> io::Result<()> {
        lock(&self.0).get_or_insert((found.dev(), found.ino()));
        self.check(store, Some(found))
    }

    /// Takes a copy for the file that it is a copy of.
    pub(super) fn was_copied(&self, copy: &Metadata) {
        *lock(&self.0) = Some((copy.dev(), copy.ino()));
    }
}
