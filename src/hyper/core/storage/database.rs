//! The database file of a store: made whole or not at all, and opened to read where there is no room to write.
//!
//! A new database comes to be under another name, so that a first start which finds no room leaves nothing that
//! looks like a store. One that was whole is opened on a full disk as well: what opening it has to write then goes
//! to memory ([`Scratch`]), and the first change that is asked for tries the file again.

use super::private::FILE;
use super::turn::{self, LastTurn};
use super::{StorageError, Table};
use crate::lock::lock;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use redb::backends::FileBackend;
use redb::{
    BackendError, Builder, Database, DatabaseError, ReadableDatabase, ReadableTable,
    StorageBackend, TableDefinition, WriteTransaction,
};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::ops::Bound;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Bytes of database pages kept in memory.
const DATABASE_CACHE: usize = 16 << 20;

/// What every whole redb file begins with. redb writes it last.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(DATABASE_CACHE);
    // Without the check redb trusts a file that was closed in order, and panics on a damaged one.
    builder.set_check_integrity_on_open(true);
    builder
}

pub(super) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Cores => "cores",
        Table::Heads => "heads",
        Table::Bits => "bits",
        Table::Records => "records",
        Table::Meta => "meta",
        Table::Redo => "redo",
    })
}

/// An error of redb by what was being done to which file.
pub(super) fn named(path: &Path, op: &'static str, error: redb::Error) -> StorageError {
    let path = path.display().to_string();
    match error {
        redb::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => {
            StorageError::DamagedDatabase { path, reason: e.to_string() }
        }
        redb::Error::Io(e) => StorageError::io(op, path, e),
        redb::Error::DatabaseAlreadyOpen => {
            StorageError::io(op, path, io::Error::from(io::ErrorKind::ResourceBusy))
        }
        e @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            StorageError::io(op, path, io::Error::other(e.to_string()))
        }
        other => StorageError::DamagedDatabase { path, reason: other.to_string() },
    }
}

/// Keeps others from opening a database that is closed; none if somebody has it open. redb locks it like this, too.
pub(super) fn hold(path: &Path) -> Option<io::Result<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(Err(error)),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        // On a file system that has no locks nobody can tell.
        Err(TryLockError::Error(_)) | Ok(()) => Some(Ok(file)),
    }
}

/// Opens the database of a store; `unsynced` is set when the device refuses to sync it.
pub(super) fn open(path: &Path, unsynced: &Arc<AtomicBool>) -> Result<Database, redb::Error> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() == 0 {
        // It is not to be made here.
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    }
    let backend = Watched { file: FileBackend::new(file)?, unsynced: Arc::clone(unsynced) };
    Ok(builder().create_with_backend(backend)?)
}

/// Lets what is read next come from the device: what could not be written to it stays in memory, and looks whole.
pub(super) fn forget_cached(file: &File) {
    // Where that cannot be asked for there is nothing better.
    if let Err(error) = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!("what is cached of a file cannot be let go: {error}");
    }
}

/// A file that remembers that a sync of it failed. redb's errors do not tell that from a lack of room.
#[derive(Debug)]
struct Watched {
    file: FileBackend,
    unsynced: Arc<AtomicBool>,
}

type Bounds = Bound<u64>;

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.unsynced.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bounds, end: Bounds) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bounds, end: Bounds) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bounds, end: Bounds) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bounds, end: Bounds) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bounds, end: Bounds) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bounds, end: Bounds) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Opens it without changing the file; what is written is lost.
pub(super) fn open_scratch(path: &Path) -> Result<Database, redb::Error> {
    Ok(builder().create_with_backend(Scratch::new(File::open(path)?)?)?)
}

/// Makes the database if there is none, or only the beginning of one. Whether it did.
pub(super) fn make(path: &Path) -> Result<bool, redb::Error> {
    if path.exists() && !was_never_whole(path)? {
        return Ok(false);
    }
    let beside = path.with_extension("redb.new");
    let made = make_at(&beside).and_then(|()| Ok(fs::rename(&beside, path)?));
    if made.is_err() {
        let _ = fs::remove_file(&beside);
    }
    made?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(true)
}

fn make_at(path: &Path) -> Result<(), redb::Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(FILE).open(path)?;
    let database = builder().create_with_backend(FileBackend::new(file)?)?;
    database.begin_write()?.commit()?;
    database.close().map_err(redb::Error::from)?;
    Ok(File::open(path)?.sync_all()?)
}

/// An earlier version of this program began it where there was no room: it has no beginning, and no core has a
/// file beside it.
fn was_never_whole(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut head)?;
    let begun = head.iter().any(|&byte| byte != 0);
    let cores = path.with_file_name("cores");
    let empty = |dir: &Path| fs::read_dir(dir).map_or(true, |mut names| names.next().is_none());
    Ok(!begun && empty(&cores))
}

/// A table that no commit has created yet is an empty one.
pub(super) fn or_empty<T>(
    table: std::result::Result<T, redb::TableError>,
) -> std::result::Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The turn of a database; none if an older version of this program wrote it.
pub(super) fn read_turn(database: &Database) -> std::result::Result<Option<LastTurn>, redb::Error> {
    let table = or_empty(database.begin_read()?.open_table(definition(Table::Meta)))?;
    let Some(table) = table else { return Ok(None) };
    Ok(table.get(turn::KEY)?.and_then(|value| LastTurn::decode(value.value())))
}

/// Gives a transaction its turn.
pub(super) fn next_turn(
    transaction: &WriteTransaction,
) -> std::result::Result<LastTurn, redb::Error> {
    let mut meta = transaction.open_table(definition(Table::Meta))?;
    let last = meta.get(turn::KEY)?.and_then(|value| LastTurn::decode(value.value()));
    let next = LastTurn::next(last);
    meta.insert(turn::KEY, next.encode().as_slice())?;
    Ok(next)
}

/// Bytes per page of [`Scratch`].
const PAGE: u64 = 4096;

/// A file that is read, with the writes to it kept in memory.
struct Scratch {
    file: File,
    state: Mutex<Pages>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

struct Pages {
    written: BTreeMap<u64, Box<[u8]>>,
    len: u64,
    /// Bytes from here on are not the file's: it was cut, or it ends.
    file_end: u64,
}

impl Scratch {
    fn new(file: File) -> Result<Self, DatabaseError> {
        let len = file.metadata().map_err(redb::StorageError::from)?.len();
        let state = Pages { written: BTreeMap::new(), len, file_end: len };
        Ok(Self { file, state: Mutex::new(state) })
    }

    fn page(&self, number: u64, file_end: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize];
        let from = number * PAGE;
        let len = file_end.saturating_sub(from).min(PAGE) as usize;
        self.file.read_exact_at(&mut page[..len], from)?;
        Ok(page.into())
    }
}

impl StorageBackend for Scratch {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.state).len)
    }

    fn read(&self, mut offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = lock(&self.state);
        let mut rest = out;
        while !rest.is_empty() {
            let start = (offset % PAGE) as usize;
            let n = rest.len().min(PAGE as usize - start);
            let (now, later) = rest.split_at_mut(n);
            match state.written.get(&(offset / PAGE)) {
                Some(page) => now.copy_from_slice(&page[start..start + n]),
                None => {
                    let page = self.page(offset / PAGE, state.file_end)?;
                    now.copy_from_slice(&page[start..start + n]);
                }
            }
            rest = later;
            offset += n as u64;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        if len < state.len {
            state.file_end = state.file_end.min(len);
            state.written.retain(|number, _| number * PAGE < len);
            if let Some(page) = state.written.get_mut(&(len / PAGE)) {
                page[(len % PAGE) as usize..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.len = state.len.max(offset + data.len() as u64);
        while !data.is_empty() {
            let (number, start) = (offset / PAGE, (offset % PAGE) as usize);
            let n = data.len().min(PAGE as usize - start);
            if !state.written.contains_key(&number) {
                let page = self.page(number, state.file_end)?;
                state.written.insert(number, page);
            }
            if let Some(page) = state.written.get_mut(&number) {
                page[start..start + n].copy_from_slice(&data[..n]);
            }
            data = &data[n..];
            offset += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

    fn put(database: &Database, key: &[u8], value: &[u8]) {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TABLE).unwrap().insert(key, value).unwrap();
        transaction.commit().unwrap();
    }

    fn get(database: &Database, key: &[u8]) -> Option<Vec<u8>> {
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        table.get(key).unwrap().map(|value| value.value().to_vec())
    }

    #[test]
    fn the_beginning_of_a_database_is_made_anew_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        for begun in [vec![], vec![0; 5], vec![0; 100_000]] {
            fs::write(&path, begun).unwrap();
            assert!(make(&path).unwrap());
            let database = open(&path, &Arc::default()).unwrap();
            put(&database, b"a", b"1");
            drop(database);
            assert!(!make(&path).unwrap());
        }
        assert!(!dir.path().join("store.redb.new").exists());
        // Cores without a beginning: something else has happened here.
        fs::write(&path, vec![0; 100_000]).unwrap();
        fs::create_dir_all(dir.path().join("cores/aa")).unwrap();
        assert!(!make(&path).unwrap());
        assert!(open(&path, &Arc::default()).is_err());
    }

    #[test]
    fn a_scratch_database_reads_and_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        make(&path).unwrap();
        let database = open(&path, &Arc::default()).unwrap();
        (0..200u8).for_each(|i| put(&database, &[i], &[i; 500]));
        let unclean = fs::read(&path).unwrap();
        drop(database);
        for bytes in [unclean, fs::read(&path).unwrap()] {
            fs::write(&path, &bytes).unwrap();
            let scratch = open_scratch(&path).unwrap();
            (0..200u8).for_each(|i| assert_eq!(get(&scratch, &[i]), Some(vec![i; 500])));
            (0..200u8).for_each(|i| put(&scratch, &[i], &[7; 2000]));
            assert_eq!(get(&scratch, &[3]), Some(vec![7; 2000]));
            drop(scratch);
            assert!(fs::read(&path).unwrap() == bytes);
        }
    }
}
