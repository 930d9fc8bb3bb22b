//! What the filesystem needs from a drive, and nothing else.
//!
//! `filesystem.rs` and everything above it speaks only this; `drive.rs` implements it for a Hyperdrive.
//! Answers that are here are given at once ([`MaybeLater::Now`]); answers that a peer must be asked for come
//! as a future ([`MaybeLater::Later`]), so that the caller can free the FUSE thread first.

use crate::path::DrivePath;
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Why a volume could not answer; `errno.rs` maps each to its number.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VolumeError {
    #[error("no such file or directory")]
    NotFound,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    /// No peer sent what is missing within the read timeout.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The volume is being unmounted.
    #[error("closed")]
    Closed,
    #[error("read-only drive")]
    ReadOnly,
    #[error("it exists")]
    Exists,
    #[error("directory not empty")]
    NotEmpty,
    /// A folder into itself, say.
    #[error("impossible")]
    Impossible,
    /// No drive can hold such a name.
    #[error("a name that no drive can hold")]
    Name,
    /// It, or what is in it, would have a longer path than a drive holds.
    #[error("a path would be too long")]
    NameTooLong,
    #[error("too large")]
    TooLarge,
    #[error("no space left: {0}")]
    NoSpace(String),
    /// Local storage or an entry is damaged; the text says what.
    #[error("{0}")]
    Io(String),
}

pub type Result<T> = std::result::Result<T, VolumeError>;

/// A result that is here, or the promise of one. A promise ends by itself within the read timeout.
pub enum MaybeLater<T, E = VolumeError> {
    Now(std::result::Result<T, E>),
    Later(BoxFuture<std::result::Result<T, E>>),
}

impl<T, E> From<std::result::Result<T, E>> for MaybeLater<T, E> {
    fn from(result: std::result::Result<T, E>) -> Self {
        Self::Now(result)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One name of a volume, as plain data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// Bytes of content (length of the target for a link, 0 for a directory).
    pub size: u64,
    /// Permission bits; setuid, setgid and sticky count only if it is `verbatim`.
    pub mode: u16,
    /// Modification time in milliseconds since 1970.
    pub mtime_ms: i64,
    /// Nanoseconds after that.
    pub mtime_ns: u32,
    /// To whom it belongs; none is whoever has the volume mounted.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Of a device.
    pub rdev: u32,
    /// Target of a link, as stored.
    pub target: Option<String>,
    /// It was made here, so that a link's target and the special bits of the mode mean what they say.
    pub verbatim: bool,
    /// Changes whenever content or attributes do: the sequence number of the entry's record.
    pub revision: u64,
    /// What stays when it is renamed, and is the number of its inode if it can be: names with the same one are hard
    /// links. 0 if it has none.
    pub id: u64,
    /// Names that it has; 0 if that is not told.
    pub links: u32,
    /// False while the size is a guess, because only a peer can tell it. The kernel must not believe it then.
    pub sure: bool,
}

impl Entry {
    /// A directory; drives keep nothing of it but that something is below it.
    pub fn directory() -> Self {
        Self {
            kind: Kind::Directory,
            size: 0,
            mode: 0o755,
            mtime_ms: 0,
            mtime_ns: 0,
            uid: None,
            gid: None,
            rdev: 0,
            target: None,
            verbatim: false,
            revision: 0,
            id: 0,
            links: 1,
            sure: true,
        }
    }
}

/// What `statfs` and the xattrs of the root tell.
#[derive(Debug, Clone, Default)]
pub struct VolumeInfo {
    /// z-base-32 key.
    pub key: String,
    pub version: u64,
    /// Bytes of all files.
    pub bytes: u64,
    pub files: u64,
}

/// Names whose entry, or whose directory listing, is no longer what the kernel may have cached.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Added, replaced or removed; directories that appeared or vanished with them included.
    pub paths: Vec<DrivePath>,
}

pub trait Volume: Send + Sync + 'static {
    /// Never touches the network.
    fn info(&self) -> VolumeInfo;
    /// Whether no entry and no content will change any more while mounted: a fixed version of which everything is
    /// known. It may become true. The kernel may then cache for days and files need not be opened.
    fn frozen(&self) -> bool {
        false
    }
    /// How it is changed; none if it is not.
    fn writable(&self) -> Option<&dyn Writable> {
        None
    }
    /// The entry at `path`; `None` when there is none.
    fn lookup(&self, path: &DrivePath) -> MaybeLater<Option<Entry>>;
    /// Name and entry of everything directly in `dir`, in name order.
    fn list(&self, dir: &DrivePath) -> MaybeLater<Arc<Vec<(String, Entry)>>>;
    /// Content of the file that `lookup` just told; it stays readable when the name changes.
    fn open(&self, path: &DrivePath) -> MaybeLater<Arc<dyn FileContent>>;
    /// Bytes of `path` (all below it for a directory) that are in the local store, for `user.hdrive.cached`.
    fn cached_bytes(&self, path: &DrivePath) -> u64;
    /// Calls `listener` on each change made by others, after `lookup` and `list` answer with the new
    /// state. The listener only queues and never blocks.
    fn subscribe(&self, listener: Box<dyn Fn(Changes) + Send + Sync>);
    /// Ends every wait with [`VolumeError::Closed`].
    fn close(&self);
}

/// Content of one file at one revision.
pub trait FileContent: Send + Sync + 'static {
    /// None as long as only a peer can tell it; reads then tell where the end is.
    fn size(&self) -> Option<u64>;
    /// [`Entry::revision`] of the entry this is the content of. A reader that knows another revision looks
    /// the name up again, so that size and bytes always belong together.
    fn revision(&self) -> u64;
    /// `offset..offset+len` cut at the end of the file, if every byte is here; `None` if not.
    fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>>;
    /// The same, fetching what is missing. Dropping the future gives up the wait, not the bytes on their way.
    fn read(&self, offset: u64, len: usize) -> BoxFuture<Result<Vec<Bytes>>>;
    /// Starts fetching `offset..offset+len`; a hint.
    fn prefetch(&self, offset: u64, len: u64);
}

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
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// What something new is like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fresh {
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u16,
    /// To whom it belongs; none is whoever has the volume mounted.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// How a volume is changed. Every change is seen at once by whoever asks the volume next. What is to survive a power cut has
/// to be synced: [`Writable::sync`], [`FileWriter::sync`].
pub trait Writable: Send + Sync {
    /// Makes an empty file and opens it.
    fn create(&self, path: &DrivePath, new: &Fresh) -> Result<Arc<dyn FileWriter>>;
    /// Opens a file to write it. All who have it open have the same content.
    fn open(&self, path: &DrivePath) -> Result<Arc<dyn FileWriter>>;
    fn make_dir(&self, path: &DrivePath, new: &Fresh) -> Result<()>;
    fn make_link(&self, path: &DrivePath, target: &str, new: &Fresh) -> Result<()>;
    /// Makes a pipe, a socket or a device of this number.
    fn make_special(&self, path: &DrivePath, kind: Kind, rdev: u32, new: &Fresh) -> Result<()>;
    /// Lets a range of `to` have the same bytes as that range of the file at `from` without copying them. How many bytes that
    /// was done for: none where it cannot be.
    fn share(&self, from: &DrivePath, to: &DrivePath, range: Range<u64>) -> Result<u64>;
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
    /// `ask` is called when what the kernel keeps of files that are being written is to come here, and waits for that. It
    /// answers whether it is still of use.
    fn on_flush(&self, ask: Box<dyn Fn() -> bool + Send + Sync>);
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
    /// The time of what was written; it need not survive a power cut.
    fn touch(&self, mtime: SystemTime);
    fn mtime(&self) -> SystemTime;
    /// The next byte at or after `offset` that was written; or the next that was not.
    fn next_data(&self, offset: u64) -> Option<u64>;
    fn next_hole(&self, offset: u64) -> Option<u64>;
    /// Resolves when it is durable; `path` is where it is, none if it has no name any more.
    fn sync(&self, path: Option<&DrivePath>) -> BoxFuture<Result<()>>;
}
