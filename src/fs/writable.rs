//! What the filesystem needs of a volume that can be changed.
//!
//! Every change is seen at once by whoever asks the volume next. What a call promises over a power cut it promises by
//! [`Writable::sync`] and [`FileWriter::sync`] alone.

use super::volume::{BoxFuture, FileContent, Kind, Result};
use crate::path::DrivePath;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// What a rename does with what is at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rename {
    /// Takes its place.
    Replace,
    /// Nothing may be there.
    NoReplace,
    /// It comes to where the other was.
    Exchange,
}

/// What is to become of a name's attributes; none stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changed {
    /// Permission bits, setuid, setgid and sticky.
    pub mode: Option<u16>,
    pub mtime: Option<SystemTime>,
}

/// See the module.
pub trait Writable: Send + Sync {
    /// Makes an empty file and opens it.
    fn create(&self, path: &DrivePath, mode: u16) -> Result<Arc<dyn FileWriter>>;
    /// Opens a file to write it. All who have it open have the same content.
    fn open(&self, path: &DrivePath) -> Result<Arc<dyn FileWriter>>;
    fn make_dir(&self, path: &DrivePath, mode: u16) -> Result<()>;
    fn make_link(&self, path: &DrivePath, target: &str) -> Result<()>;
    /// Makes a pipe, a socket or a device of this number.
    fn make_special(&self, path: &DrivePath, kind: Kind, mode: u16, rdev: u32) -> Result<()>;
    /// One more name, `to`, for what is at `from`; `id` is its number.
    fn link(&self, from: &DrivePath, to: &DrivePath, id: u64) -> Result<()>;
    /// Extended attributes of what is at `path`.
    fn xattrs(&self, path: &DrivePath) -> Result<Vec<(String, Vec<u8>)>>;
    fn set_xattr(&self, path: &DrivePath, name: &str, value: Option<&[u8]>) -> Result<()>;
    fn rename(&self, from: &DrivePath, to: &DrivePath, how: Rename) -> Result<()>;
    /// Takes a file or a link out.
    fn remove(&self, path: &DrivePath) -> Result<()>;
    /// Takes an empty folder out.
    fn remove_dir(&self, path: &DrivePath) -> Result<()>;
    fn set(&self, path: &DrivePath, changed: &Changed) -> Result<()>;
    /// Whether anybody else here is to hear of what is written.
    fn is_shared(&self) -> bool;
    /// Somebody wrote to the file at `path`: others who have the volume mounted are to know.
    fn wrote(&self, path: &DrivePath);
    /// Resolves when all names, and all files that nobody has open, are durable.
    fn sync(&self) -> BoxFuture<Result<()>>;
    /// Bytes of the disk that are free, and that it has.
    fn room(&self) -> (u64, u64);
}

/// A file that is open to be written; it is no more when this is dropped.
pub trait FileWriter: FileContent {
    /// To be read by all who have it open, without keeping it open to be written.
    fn content(&self) -> Arc<dyn FileContent>;
    /// All of it, or an error and nothing.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// The same at the end, wherever that is.
    fn append(&self, bytes: &[u8]) -> Result<()>;
    /// Cuts it, or lets it grow with zeros.
    fn truncate(&self, size: u64) -> Result<()>;
    /// Makes a range read as zeros.
    fn punch(&self, range: Range<u64>);
    /// Lets it reach to the end of a range.
    fn allocate(&self, range: Range<u64>, keep_size: bool) -> Result<()>;
    fn set_mtime(&self, mtime: SystemTime);
    fn mtime(&self) -> SystemTime;
    /// The next byte at or after `offset` that was written; or the next that was not.
    fn next_data(&self, offset: u64) -> Option<u64>;
    fn next_hole(&self, offset: u64) -> Option<u64>;
    /// Resolves when it is durable; `path` is where it is, none if it has no name any more.
    fn sync(&self, path: Option<&DrivePath>) -> BoxFuture<Result<()>>;
}
