//! Hyperdrive: a tree of files in two cores, a bee with the names and a blobs core with the contents.
//!
//! A [`Drive`] reads and writes entries; [`DriveIndex`] holds all names of one version in memory for those
//! who look things up often. [`BlobsCore`] tells which core holds the contents. To these both cores are
//! [`BlockSource`]s, wherever their blocks are. A [`LiveDrive`] is a drive whose cores are in a store, and it knows
//! whether there is anybody to ask for what they lack.
//!
//! Key of a file: `files`, a zero byte, the path with its leading slash. Value: [`Entry`]. Folders are there
//! because of what is in them; one that is empty, or of which more is said, has a key of its own (`names`), and so have
//! special nodes. The reference does not see those. Other keys of the bee are left alone.
//!
//! Source: hyperdrive/index.js

mod attributes;
mod batch;
mod blocks;
mod dir;
mod entry;
mod index;
mod keys;
mod leaf;
mod live;
mod named;
mod names;
mod past;
mod record;
mod secret;
mod sizes;
mod xattrs;

pub use crate::hyper::blobs::Reader as FileReader;
pub use attributes::{MODE_BITS, Owner, Stat, Time};
pub use batch::Batch;
pub use blocks::BlockSet;
pub use dir::{Dir, Node};
pub use entry::{Entry, EntryError};
pub use index::{DriveIndex, Found, Steps};
pub use keys::BlobsCore;
pub use leaf::{Content, File, Leaf, Link, Local};
pub use live::{LiveDrive, LiveError};
pub use named::Named;
pub use past::Past;
pub use record::{Attributes, DIR_MODE, Record, Special, SpecialKind};
pub use secret::{check_readable, fix_key};
pub use xattrs::{Extended, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS, XattrError, Xattrs};

use super::bee::{Bee, BeeError, Metadata};
use super::blobs::{BlobError, BlobId, Blobs};
use super::source::{BlockLog, BlockSource};
use crate::key::CoreKey;
use crate::lease::Lease;
use crate::path::DrivePath;
use std::io::Read;
use std::sync::Arc;

/// Why a drive could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DriveError {
    #[error(transparent)]
    Bee(#[from] BeeError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the file is damaged: {0}")]
    Entry(#[from] EntryError),
    #[error("the file is damaged: {0}")]
    Damaged(Arc<str>),
    #[error("the drive's header holds no usable key of its contents")]
    ContentKey,
    #[error(
        "the drive names contents that are not its own but another drive's of this store: it is \
         damaged, or whoever wrote it means harm"
    )]
    ForeignContents,
}

pub type Result<T> = std::result::Result<T, DriveError>;

/// A drive, or one version of it. Clones share caches and writer's locks.
#[derive(Clone)]
pub struct Drive {
    bee: Bee,
    blobs: Blobs,
    lease: Option<Lease>,
}

impl Drive {
    pub fn new(bee: Bee, blobs: Blobs) -> Self {
        Self { bee, blobs, lease: None }
    }

    /// A drive to read.
    pub fn reader(db: Arc<dyn BlockSource>, blobs: Arc<dyn BlockSource>) -> Self {
        Self::new(Bee::new(db), Blobs::new(blobs))
    }

    /// A drive to write. `content_feed` goes into the header of a new drive whose blobs core is
    /// [`BlobsCore::Named`]; elsewhere it is none.
    pub fn writable(
        db: Arc<dyn BlockLog>,
        blobs: Arc<dyn BlockLog>,
        content_feed: Option<CoreKey>,
    ) -> Self {
        let content_feed = content_feed.map(|key| key.0.to_vec());
        let metadata = Metadata { content_feed, user_data: None };
        Self::new(Bee::writable(db, Some(metadata)), Blobs::writable(blobs))
    }

    /// The same, written with this right alone: after the end of that no content is appended and no name written.
    pub fn under(&self, lease: &Lease) -> Self {
        let blobs = self.blobs.under(lease);
        Self { bee: self.bee.clone(), blobs, lease: Some(lease.clone()) }
    }

    pub fn bee(&self) -> &Bee {
        &self.bee
    }

    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The version of the names; contents are never changed, only added.
    pub fn version(&self) -> u64 {
        self.bee.version()
    }

    /// The drive as it was at `version`, to be read. See [`Bee::checkout`] and [`Bee::whole_version`].
    pub fn checkout(&self, version: u64) -> Self {
        let blobs = Blobs::new(Arc::clone(self.blobs.source()));
        Self::new(self.bee.checkout(version), blobs)
    }

    /// All names of this version.
    pub async fn index(&self) -> Result<DriveIndex> {
        Ok(DriveIndex::load(&self.bee, &self.blobs).await?)
    }

    /// The index of the present version from an older one, and what changed.
    pub async fn refresh(&self, old: &DriveIndex) -> Result<(DriveIndex, Vec<DrivePath>)> {
        Ok(DriveIndex::refresh(old, &self.bee, &self.blobs).await?)
    }

    /// Content of a file, as others see it.
    pub fn open(&self, file: &File) -> Result<FileReader> {
        self.open_content(&file.content)
    }

    fn open_content(&self, content: &Content) -> Result<FileReader> {
        match content {
            Content::Blob(id) => Ok(self.blobs.reader(*id, None)),
            Content::Mapped(mapped) => Ok(self.blobs.reader(mapped.0, mapped.1)),
            Content::Damaged(why) => Err(DriveError::Damaged(Arc::clone(why))),
            Content::Local(local) => match &local.published {
                Some(content) => self.open_content(content),
                None => Ok(self.blobs.reader(BlobId::default(), None)),
            },
        }
    }

    /// The entry in this bee block, which is here.
    pub fn local_entry(&self, seq: u64) -> Result<Entry> {
        Ok(Entry::decode(&self.bee.local_entry(seq)?.value)?)
    }

    /// The record in this bee block, which is here, of a folder or special node.
    pub fn local_record(&self, seq: u64) -> Result<Record> {
        Ok(Record::decode(&self.bee.local_entry(seq)?.value))
    }

    /// The entry in this bee block: what a leaf of the index says in short.
    pub async fn entry_at(&self, seq: u64) -> Result<Entry> {
        Ok(Entry::decode(&self.bee.entry(seq).await?.value)?)
    }

    /// The record in this bee block, of a folder or special node.
    pub async fn record_at(&self, seq: u64) -> Result<Record> {
        Ok(Record::decode(&self.bee.entry(seq).await?.value))
    }

    /// Starts a group of changes. Blocks while another one is open.
    pub fn batch(&self) -> Result<Batch<'_>> {
        Ok(Batch { bee: self.bee.batch()?, lease: self.lease.clone() })
    }

    /// Writes a file: first the content, then an entry like `entry` that names it. Returns the new
    /// version. For many files, use [`Blobs::writer`] and one [`Drive::batch`].
    pub fn put(&self, path: &DrivePath, content: impl Read, mut entry: Entry) -> Result<u64> {
        entry.blob = Some(self.blobs.put(content)?);
        let mut batch = self.batch()?;
        batch.put(path, &entry)?;
        batch.flush()
    }
}

#[cfg(test)]
mod tests;
