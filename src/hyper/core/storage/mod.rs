//! Where cores live: records that commit together, and two sparse files per core.
//!
//! [`Storage`] is what the rest of the program sees. *Records* are small and mutable (heads, bitfield
//! pages, keys, names); a commit changes any number of them, of any number of cores, or none. *Files* hold
//! what hashes up to a signed root: stored blocks at their tree byte offset, and tree nodes of 40 bytes at
//! 40 × tree index.
//!
//! | durability | after a crash |
//! |---|---|
//! | [`Durability::Buffered`] | this commit and all later ones may be gone, in that order, never one of the middle |
//! | [`Durability::Durable`] | this commit and all before it are there, and the file bytes they speak of |
//!
//! The order behind that promise: file bytes are written, then the commit is made. A durable commit first makes
//! the files durable that any commit since the last durable one spoke of: it syncs them, or, where only a little
//! was written, puts a copy of that into the same transaction ([`redo`]). [`staged`] keeps the order, over a
//! [`Medium`]: [`memory`], [`disk`], or the crash simulator of the tests.
//!
//! | file | holds |
//! |---|---|
//! | `staged`, `redo` | the order behind the promise; small durable writes |
//! | `disk`, `database`, `layout`, `removal` | a store in a directory: its database, where files are, how they go |
//! | `file`, `fd_pool`, `holes`, `direct` | the files of a core: few open at once, space given back, long writes |
//! | `private`, `identity`, `stamp`, `turn`, `witness` | that it is its owner's alone, and the one that was left here |
//! | `records` | keys and whatever else is small |
//! | `memory`, `crash` | stores for tests |

#[cfg(test)]
pub mod crash;
mod database;
mod direct;
pub mod disk;
mod fd_pool;
mod file;
mod holes;
mod identity;
mod layout;
pub mod memory;
mod private;
mod records;
mod redo;
mod removal;
mod staged;
mod stamp;
mod turn;
mod witness;

pub use disk::open_disk;
pub use file::{CoreFiles, StoredFile};
pub use memory::memory;
pub use private::{NAMES, keep_private};
pub use records::Records;
pub use staged::Staged;
pub use stamp::{CoreStamp, FileStamp};
pub use witness::{Doubt, Doubts};

use crate::key::DiscoveryKey;
use identity::Replaced;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

pub type Result<T> = std::result::Result<T, StorageError>;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing that was acknowledged is lost; the same call works once there is room. Never of a sync that failed,
    /// whatever it said: see [`Self::Unsynced`].
    #[error("no space left on the device: cannot {op} {what}")]
    DiskFull { op: &'static str, what: String },
    /// What the store is told from a copy by cannot be written: nothing is changed.
    #[error("cannot change the store without noting it in {witness}: {source}")]
    Unnoted { witness: String, source: io::Error },
    /// Somebody put other files in the place of those that are open, or removed them: nothing is changed.
    #[error(
        "files of the store {store} were replaced or removed while hdrive had them open, and nothing was changed: end \
         what runs on this store (`hdrive status` shows it) and start hdrive again"
    )]
    Replaced { store: String },
    /// The byte offset is beyond what the file system can address.
    #[error("{what} would grow beyond what the file system can hold")]
    TooLarge { what: String },
    #[error("cannot {op} {what}: {source}")]
    Io { op: &'static str, what: String, source: io::Error },
    /// The database file is not one, or is damaged beyond its own repair.
    #[error("the store's database {path} is damaged: {reason}")]
    DamagedDatabase { path: String, reason: String },
    /// Another user's directory, or file.
    #[error(
        "the store {store} belongs to user {owner}{what}, this is {me}: run hdrive as {owner}, or use \
         another store with --store"
    )]
    NotOurs { store: String, what: String, owner: String, me: String },
    /// A record does not decode.
    #[error("the record {key} in table {table:?} of the store is damaged: {reason}")]
    DamagedRecord { table: Table, key: String, reason: String },
    /// A transaction failed and may be on the device all the same, which the next opening finds out.
    #[error("{}; hdrive must be started again to find out what has been stored", .0.cause())]
    Unsure(Box<StorageError>),
    /// What was written could not be made durable. The kernel may have dropped it, and says that all is well the next
    /// time it is asked, so nothing is tried again, for want of room neither.
    #[error("{0}; the store takes no changes until hdrive is started again")]
    Unsynced(Box<StorageError>),
    /// It was [`Self::Unsynced`] or [`Self::Unsure`] earlier.
    #[error(
        "an earlier sync to the device failed; the store takes no changes until it is reopened"
    )]
    SyncFailed,
}

impl StorageError {
    /// Names an I/O error by what was being done to what.
    pub fn io(op: &'static str, what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        let source = match source.downcast() {
            Ok(Replaced { store }) => return Self::Replaced { store },
            Err(source) => source,
        };
        match source.kind() {
            _ if is_full(&source) => Self::DiskFull { op, what },
            io::ErrorKind::FileTooLarge => Self::TooLarge { what },
            _ => Self::Io { op, what, source },
        }
    }

    /// Whether what was asked may have happened all the same.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Unsure(_))
    }

    /// It only follows from an earlier error, which was told.
    pub fn is_echo(&self) -> bool {
        matches!(self, Self::SyncFailed)
    }

    /// What went wrong, for who is about to end anyway.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Unsure(cause) | Self::Unsynced(cause) => cause.cause(),
            error => error,
        }
    }

    /// Somebody else has it open.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }

    /// See [`Self::Replaced`].
    pub fn is_replaced(&self) -> bool {
        matches!(self, Self::Replaced { .. })
    }

    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::Unnoted { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// The store could not be opened to be changed; what is in it can be read all the same.
    pub fn leaves_it_readable(&self) -> bool {
        self.is_unwritable() || matches!(self, Self::Unsynced(_) | Self::SyncFailed)
    }

    /// The store cannot be changed as it is; what is in it can be read all the same.
    pub fn is_unwritable(&self) -> bool {
        self.is_disk_full() || matches!(self, Self::Unnoted { .. })
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How much a commit promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Buffered,
    Durable,
}

/// The kinds of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Discovery key → core key, manifest, key pair, encryption key.
    Cores,
    /// Discovery key → fork, length, roots, signature.
    Heads,
    /// Discovery key and page number (u64, big-endian) → bitfield page.
    Bits,
    /// Names of drives, the primary key and other small things of the store.
    Records,
    /// The store's own bookkeeping.
    Meta,
    /// Small writes to files, to be repeated after an unclean end.
    Redo,
}

/// Records to put (`Some`) or delete (`None`), the last word per key.
#[derive(Debug, Clone, Default)]
pub struct Writes {
    tables: BTreeMap<Table, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    bytes: usize,
}

impl Writes {
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) {
        self.set(table, key.into(), Some(value));
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.set(table, key.into(), None);
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.tables.entry(table).or_default().insert(key, value);
    }

    /// Adds `later`, which wins where both name a key.
    pub fn merge(&mut self, later: Writes) {
        self.bytes += later.bytes;
        for (table, records) in later.tables {
            self.tables.entry(table).or_default().extend(records);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Bytes put so far, overwritten ones included: a bound for memory, not a size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes back what was put into a table; what is deleted there stays deleted.
    fn take_back_puts(&mut self, table: Table) {
        if let Some(records) = self.tables.get_mut(&table) {
            records.retain(|_, value| value.is_none());
        }
    }

    /// What this says about a key: nothing, deleted, or its value.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Option<&Vec<u8>>> {
        self.tables.get(&table)?.get(key).map(Option::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Table, &BTreeMap<Vec<u8>, Option<Vec<u8>>>)> {
        self.tables.iter().map(|(table, records)| (*table, records))
    }

    /// What this says about keys of a table that start with `prefix`.
    fn within(&self, table: Table, prefix: &[u8]) -> Self {
        let mut some = Self::default();
        if let Some(records) = self.tables.get(&table) {
            let from = records.range(prefix.to_vec()..);
            for (key, value) in from.take_while(|(key, _)| key.starts_with(prefix)) {
                some.set(table, key.clone(), value.clone());
            }
        }
        some
    }

    /// Lays the records whose key starts with `prefix` over `base`.
    fn overlay(&self, table: Table, prefix: &[u8], base: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        let Some(records) = self.tables.get(&table) else { return };
        let from = records.range(prefix.to_vec()..);
        for (key, value) in from.take_while(|(key, _)| key.starts_with(prefix)) {
            match value {
                Some(value) => base.insert(key.clone(), value.clone()),
                None => base.remove(key),
            };
        }
    }
}

/// Sessions of a store: a number per opening that wrote anything, and whether the last one ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// The number of this opening; greater than any before.
    pub current: u64,
    /// The latest opening that was not closed in order, 0 for none; what it left in tree files beyond its
    /// last durable commit is anyone's guess.
    pub unclean: u64,
}

/// One store: many cores, one set of records.
pub trait Storage: Send + Sync {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Records whose key starts with `prefix`, in key order.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Makes the writes, all or nothing. `files` are those whose bytes the writes speak of.
    ///
    /// # Errors
    /// Nothing of this commit is visible after an error; commits before it stand. After
    /// [`StorageError::Unsure`] it may be there when the store is opened next, so nothing that it speaks of may
    /// be destroyed; the store takes no more changes.
    fn commit(
        &self,
        writes: Writes,
        files: &[&Arc<CoreFiles>],
        durability: Durability,
    ) -> Result<()>;

    /// Makes everything committed so far durable.
    fn sync(&self) -> Result<()> {
        self.commit(Writes::default(), &[], Durability::Durable)
    }

    /// Waits until the device has what was written to a core's files; slow, and needs no lock of the caller's.
    fn sync_files(&self, files: &Arc<CoreFiles>) -> Result<()>;

    /// The files of a core. Nothing is opened or created before the first read or write.
    fn files(&self, core: &DiscoveryKey) -> Arc<CoreFiles>;

    /// Makes the writes durable, which delete every record of some cores, and deletes the files of those. What an end
    /// in between leaves of the files goes at the next opening.
    ///
    /// # Errors
    /// Nothing has changed then. Files that cannot be deleted now are no error: they wait for the next opening.
    fn remove_cores(&self, cores: &[DiscoveryKey], writes: Writes) -> Result<()>;

    /// Deletes what there may be of the files of a core that has no record.
    fn remove_files(&self, core: &DiscoveryKey) -> Result<()>;

    /// The cores that have a file, be it without any record, with the bytes that both take.
    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>>;

    fn session(&self) -> Session;

    /// Whether the files of a core hold all that was committed: after an unclean end some of it may have to be written
    /// again, which may fail.
    fn is_repeated(&self, core: &DiscoveryKey) -> bool;

    /// # Errors
    /// [`StorageError::Replaced`] if the store is not where it was: then what is not there says nothing of its files.
    fn check_place(&self) -> Result<()>;

    /// Why this store may be older than what was published from it.
    fn doubts(&self) -> Doubts;

    /// Ends them for all cores.
    fn settle_doubts(&self);

    /// Makes durable what this store is told from an older copy by, if that has changed. Slow.
    fn sync_witness(&self);

    /// Notes durably that this opening changes files; to be called before the first write to a tree file, or
    /// past the end of the blocks, whose content after a crash no commit vouches for. Costs nothing the second
    /// time.
    fn begin_session(&self) -> Result<Session>;
}

/// Which of a core's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// Stored blocks, each at its tree byte offset.
    Blocks,
    /// Nodes, 40 bytes each at 40 × tree index: size (u64 LE), hash; zeros mean "not here".
    Tree,
}

/// A sparse file. What was never written, or was punched, reads as zeros up to the end.
pub trait RawFile: Send + Sync {
    /// Fills as much of `buf` as the file has from `offset`; returns how much that was.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes the slices one after the other.
    fn write_at(&self, offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes a range read as zeros and gives its space back where the file system can.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Whether the range may take space, be it without bytes of use: a look that is cheaper than a hole.
    fn holds(&self, _offset: u64, _len: u64) -> io::Result<bool> {
        Ok(true)
    }
    /// The next run of bytes at or after `offset` that is no hole, as far as that can be told; none up to the end.
    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok(Some(offset..u64::MAX))
    }
    /// What is at the file's path now, which must be what was there at the first look. On a medium where nobody else
    /// changes files it is always the same.
    fn stamp(&self) -> io::Result<FileStamp> {
        Ok(FileStamp::default())
    }
    /// Opens it for changes, if it exists, which may change what it is; see [`Self::stamp`].
    fn open_to_change(&self) -> io::Result<()> {
        Ok(())
    }
    /// The same of the file that is open, which it is from here on if it is there, wherever its name has gone since.
    fn stamp_of_open(&self) -> io::Result<FileStamp> {
        self.stamp()
    }
    /// Cuts the file at `len` if it is longer.
    fn truncate(&self, len: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
    /// After a [sync](Self::sync): lets what is read next come from the device, where the medium has one. Pages that an
    /// earlier sync failed to write may be gone from there, and be whole in memory.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What keeps bytes: records that apply all or nothing and durably, and raw files.
pub trait Medium: Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// All or nothing, and durable when it returns.
    fn apply(&self, writes: &Writes) -> Result<()>;
    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile>;
    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()>;
    /// See [`Storage::cores_with_files`].
    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>>;
    /// See [`Storage::check_place`]; what nobody can move is always there.
    fn check_place(&self) -> Result<()> {
        Ok(())
    }
    /// See [`Storage::doubts`]; for media that nobody can copy there are none.
    fn doubts(&self) -> Doubts {
        Doubts::default()
    }
    fn settle_doubts(&self) {}
    /// See [`Storage::sync_witness`].
    fn sync_witness(&self) {}
}
