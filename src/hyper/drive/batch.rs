//! Changes to a drive's names, appended as one.
//!
//! A reader sees all changes of a batch or none. Contents must be in the blobs core before an entry
//! names them.

use super::names::{kept_key, leaf_key, node_key};
use super::{Entry, Record, Result};
use crate::hyper::bee;
use crate::hyper::blobs::{BlobError, Writer};
use crate::hyper::core::storage::Writes;
use crate::lease::Lease;
use crate::path::DrivePath;

/// See [`super::Drive::batch`]. Dropping it forgets the changes.
pub struct Batch<'a> {
    pub(super) bee: bee::Batch<'a>,
    pub(super) lease: Option<Lease>,
}

impl Batch<'_> {
    /// Sets the entry at `path`.
    pub fn put(&mut self, path: &DrivePath, entry: &Entry) -> Result<()> {
        Ok(self.bee.put(leaf_key(path), entry.encode())?)
    }

    /// Takes an entry of a file or link out. Whether there was one.
    pub fn delete(&mut self, path: &DrivePath) -> Result<bool> {
        Ok(self.bee.delete(leaf_key(path))?)
    }

    /// Takes out what is at `path`, file, link or special node. Whether there was something.
    pub fn remove(&mut self, path: &DrivePath) -> Result<bool> {
        // A file may hide a node, which were seen after it.
        Ok(self.delete(path)? | self.delete_node(path)?)
    }

    /// Makes the special node at `path`. It is seen unless there is a file or link.
    pub fn put_node(&mut self, path: &DrivePath, record: &Record) -> Result<()> {
        Ok(self.bee.put(node_key(path), record.encode())?)
    }

    /// Takes a special node out. Whether there was one.
    pub fn delete_node(&mut self, path: &DrivePath) -> Result<bool> {
        Ok(self.bee.delete(node_key(path))?)
    }

    /// Keeps a folder, as [`Self::keep_dir`] does, and says of it what `record` does; of the root too.
    pub fn put_dir(&mut self, path: &DrivePath, record: &Record) -> Result<()> {
        Ok(self.bee.put(kept_key(path), record.encode())?)
    }

    /// Makes a folder that is there though nothing is in it. Whether it was not kept yet. The root always is, and
    /// a file or link of the same name, or of a name above it, goes first: then the folder is not seen.
    pub fn keep_dir(&mut self, path: &DrivePath) -> Result<bool> {
        if path.is_root() || self.bee.get(&kept_key(path))?.is_some() {
            return Ok(false);
        }
        self.put_dir(path, &Record::default())?;
        Ok(true)
    }

    /// Lets a folder go as soon as nothing is in it, and with it what is said of it. Whether it was kept.
    pub fn forget_dir(&mut self, path: &DrivePath) -> Result<bool> {
        Ok(self.bee.delete(kept_key(path))?)
    }

    /// The bee block that the next change becomes.
    pub fn next(&self) -> u64 {
        self.bee.version()
    }

    pub fn is_empty(&self) -> bool {
        self.bee.is_empty()
    }

    /// Appends all changes and returns the new version.
    pub fn flush(self) -> Result<u64> {
        let Some(lease) = self.lease else { return Ok(self.bee.flush()?) };
        let flushed = lease.during(|| self.bee.flush()).ok_or(BlobError::CalledOff)?;
        Ok(flushed?)
    }

    /// The same, together with the contents that `contents` has taken: they are there if, and only if, the names are, and
    /// both for the price of one commit.
    /// Records of the store go with them.
    pub fn flush_with(self, contents: Option<&mut Writer<'_>>, also: Writes) -> Result<u64> {
        self.bee.flush_by(|names, blocks| match contents {
            Some(contents) => Ok(contents.flush_with(names, blocks, also)?),
            None => Ok(names.append_also(blocks, also).map(drop).map_err(BlobError::from)?),
        })
    }
}
