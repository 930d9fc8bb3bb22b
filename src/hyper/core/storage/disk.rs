//! A store in a directory: one redb database and two sparse files per core.
//!
//! ```text
//! store.redb                        records; every transaction is durable
//! witness                           when that was changed last, and by what: see [`super::witness`]
//! cores/<2 hex>/<62 hex>.blocks     stored blocks at their tree byte offset
//! cores/<2 hex>/<62 hex>.tree       nodes of 40 bytes at 40 × tree index
//! ```
//! The hex digits are the discovery key's. A core file exists from its first write on, and is opened at
//! its first use.

use super::database::{self, definition, named, next_turn, or_empty, read_turn};
use super::direct::Direct;
use super::fd_pool::{Access, FdPool, Handle, Home};
use super::holes;
use super::layout;
use super::private::keep_private;
use super::witness::{Doubts, Witness};
use super::{
    FileKind, FileStamp, Medium, RawFile, Result, Staged, Storage, StorageError, Table, Writes,
};
use crate::key::DiscoveryKey;
use crate::lock::lock;
use nix::sys::uio::pwritev;
use redb::{Database, ReadableDatabase};
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Slices that one `pwritev` takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// Bytes given to one call at most (a slice is not divided for it). Measured on ext4 with 6.18: in calls of
/// 1 MiB a thread writes 4.5 GB/s into the page cache, in calls of 4 MiB 0.5 to 0.8.
const MAX_CALL: usize = 1 << 20;

/// Opens or creates the store in `dir`.
///
/// # Errors
/// [`StorageError::DamagedDatabase`] if the database is not one or fails its checks; [`StorageError::Io`]
/// with kind `ResourceBusy` if another process has it open.
pub fn open_disk(dir: &Path) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(Staged::new(DiskMedium::open(dir)?)?))
}

/// A directory.
pub struct DiskMedium {
    dir: PathBuf,
    /// `None` after an error that redb does not go on from, until it could be opened again.
    database: Mutex<Option<Opened>>,
    home: Arc<Home>,
    witness: Witness,
    /// It was told that the store can only be read.
    told: AtomicBool,
    /// A sync of the database failed: it is not changed any more.
    unsynced: Arc<AtomicBool>,
    pool: Arc<FdPool>,
    direct: Arc<Direct>,
}

#[derive(Clone)]
struct Opened {
    database: Arc<Database>,
    /// There was no room to open it, or that could not be noted: changes would stay in memory.
    scratch: bool,
}

impl DiskMedium {
    pub fn open(dir: &Path) -> Result<Self> {
        keep_private(dir)?;
        let path = database_path(dir);
        // Before anything is changed: what is noted of a store is its last owner's as long as that has it open.
        if database::hold(&path).is_none() {
            return Err(named(&path, "open", redb::Error::DatabaseAlreadyOpen));
        }
        let new = database::make(&path).map_err(|e| named(&path, "make", e))?;
        let witness = Witness::open(dir, &path, new);
        if witness.was_left_open() {
            // Perhaps because it could not be synced. What is in memory only is not to be built upon.
            let file = File::open(&path);
            database::forget_cached(&file.map_err(|e| named(&path, "open", e.into()))?);
        }
        let medium = Self {
            dir: dir.to_path_buf(),
            database: Mutex::new(None),
            home: Arc::new(Home::at(path)),
            witness,
            told: AtomicBool::new(false),
            unsynced: Arc::default(),
            pool: Arc::new(FdPool::new()),
            direct: Arc::new(Direct::new(dir)),
        };
        medium.database(false)?;
        // Not before it is open: opening alone may make it another file.
        medium.check_place()?;
        Ok(medium)
    }

    fn path(&self) -> PathBuf {
        database_path(&self.dir)
    }

    /// The open database; opens it again if an error had closed it. To be written it must be the file's.
    fn database(&self, to_write: bool) -> Result<Arc<Database>> {
        let mut slot = lock(&self.database);
        if let Some(opened) = slot.as_ref().filter(|opened| !(to_write && opened.scratch)) {
            return Ok(opened.database.clone());
        }
        *slot = None;
        let opened = match self.open_noted() {
            Err(error) if !to_write && error.leaves_it_readable() => {
                if !error.is_disk_full() && !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the store is only read: {error}");
                }
                self.open_scratch()?
            }
            opened => opened?,
        };
        Ok(slot.insert(opened).database.clone())
    }

    /// Opens the file, which changes it, and notes that.
    fn open_noted(&self) -> Result<Opened> {
        self.check_synced()?;
        self.witness.opening().map_err(|e| self.unnoted(e))?;
        let database = database::open(&self.path(), &self.unsynced);
        let database = Arc::new(database.map_err(|e| self.failed("open", e))?);
        let turn = read_turn(&database).map_err(|e| self.failed("read", e))?;
        self.witness.opened(turn, false).map_err(|e| self.unnoted(e))?;
        Ok(Opened { database, scratch: false })
    }

    fn open_scratch(&self) -> Result<Opened> {
        let database = database::open_scratch(&self.path());
        let database = Arc::new(database.map_err(|e| self.failed("open", e))?);
        let turn = read_turn(&database).map_err(|e| self.failed("read", e))?;
        self.witness.opened(turn, true).map_err(|e| self.unnoted(e))?;
        Ok(Opened { database, scratch: true })
    }

    fn check_synced(&self) -> Result<()> {
        match self.unsynced.load(Ordering::Acquire) {
            true => Err(StorageError::SyncFailed),
            false => Ok(()),
        }
    }

    fn failed(&self, op: &'static str, error: redb::Error) -> StorageError {
        let error = named(&self.path(), op, error);
        match self.unsynced.load(Ordering::Acquire) {
            true => StorageError::Unsynced(Box::new(error)),
            false => error,
        }
    }

    /// What the store is told from a copy by cannot be written.
    fn unnoted(&self, error: io::Error) -> StorageError {
        StorageError::Unnoted { witness: self.witness.path().display().to_string(), source: error }
    }

    /// Runs `act` on the database. redb refuses everything after an I/O error, a full disk among them, so
    /// such a database is closed, and opened anew by the next call: its file holds the last durable state.
    fn with<T>(
        &self,
        op: &'static str,
        to_write: bool,
        act: impl FnOnce(&Database) -> std::result::Result<T, redb::Error>,
    ) -> Result<T> {
        let database = self.database(to_write)?;
        act(&database).map_err(|error| {
            *lock(&self.database) = None;
            self.failed(op, error)
        })
    }
}

fn database_path(dir: &Path) -> PathBuf {
    dir.join("store.redb")
}

impl Medium for DiskMedium {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with("read", false, |database| {
            let Some(table) = or_empty(database.begin_read()?.open_table(definition(table)))?
            else {
                return Ok(None);
            };
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.with("read", false, |database| {
            let Some(table) = or_empty(database.begin_read()?.open_table(definition(table)))?
            else {
                return Ok(Vec::new());
            };
            let mut found = Vec::new();
            for record in table.range(prefix..)? {
                let (key, value) = record?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn apply(&self, writes: &Writes) -> Result<()> {
        self.check_synced()?;
        self.check_place()?;
        self.witness.ready().map_err(|e| self.unnoted(e))?;
        let done = self.with("write", true, |database| {
            let transaction = database.begin_write()?;
            let turn = next_turn(&transaction)?;
            for (table, records) in writes.iter() {
                let mut table = transaction.open_table(definition(table))?;
                for (key, value) in records {
                    match value {
                        Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                        None => table.remove(key.as_slice())?,
                    };
                }
            }
            transaction.commit()?;
            Ok(turn)
        });
        self.witness.changed(done.as_ref().ok());
        done.map(drop)
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
        Box::new(DiskFile {
            handle: self.pool.handle(layout::path(&self.dir, core, kind), self.home.clone()),
            pool: self.pool.clone(),
            direct: self.direct.clone(),
            created: AtomicBool::new(false),
        })
    }

    fn check_place(&self) -> Result<()> {
        let found = self.home.check();
        found.map_err(|e| StorageError::io("write", self.path().display().to_string(), e))
    }

    fn doubts(&self) -> Doubts {
        self.witness.doubts()
    }

    fn settle_doubts(&self) {
        if self.check_place().is_ok() {
            self.witness.settle();
        }
    }

    fn sync_witness(&self) {
        // The note at the path of a store that was moved away is another store's.
        if self.check_place().is_ok() {
            self.witness.sync();
        }
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
        let path = layout::path(&self.dir, core, kind);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", path.display().to_string(), e))
            }
            _ => Ok(()),
        }
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        let failed = |e| StorageError::io("read", self.dir.display().to_string(), e);
        layout::cores(&self.dir).map_err(failed)
    }
}

impl Drop for DiskMedium {
    fn drop(&mut self) {
        // Closing it changes the file for the last time.
        let closed = lock(&self.database).take().is_some();
        // Of one that could not be synced nobody knows how it is on the device: it was not closed in order.
        if closed && self.check_synced().is_ok() && self.check_place().is_ok() {
            // From then on another may open it, and note that: where one has, nothing is to be noted of ours.
            if let Some(_held) = database::hold(&self.path()) {
                self.witness.close();
            }
        }
    }
}

struct DiskFile {
    handle: Handle,
    pool: Arc<FdPool>,
    direct: Arc<Direct>,
    /// The directory does not durably know the file yet.
    created: AtomicBool,
}

impl DiskFile {
    fn existing(&self) -> io::Result<Option<Arc<File>>> {
        Ok(self.pool.get(&self.handle, Access::Read)?.map(|(file, _)| file))
    }

    fn changeable(&self) -> io::Result<Option<Arc<File>>> {
        Ok(self.pool.get(&self.handle, Access::Change)?.map(|(file, _)| file))
    }

    fn writable(&self) -> io::Result<Arc<File>> {
        let found = self.pool.get(&self.handle, Access::Create)?;
        let (file, new) = found.ok_or(io::ErrorKind::NotFound)?;
        if new {
            self.created.store(true, Ordering::Release);
        }
        Ok(file)
    }
}

impl RawFile for DiskFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.existing()? else { return Ok(0) };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let end = offset.checked_add(total as u64).and_then(|end| i64::try_from(end).ok());
        if end.is_none() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let file = self.writable()?;
        if self.direct.takes(total)
            && let Ok(direct) = self.pool.direct(&self.handle)
            && self.direct.write(&direct, &file, offset, bufs)?
        {
            return Ok(());
        }
        if let [buf] = bufs {
            for (at, part) in (offset..).step_by(MAX_CALL).zip(buf.chunks(MAX_CALL)) {
                file.write_all_at(part, at)?;
            }
            return Ok(());
        }
        let mut rest = bufs;
        // Leading empty slices would read as "nothing was written".
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let batch = call_len(rest);
            let n = match pwritev(&*file, &rest[..batch], offset as i64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            offset += n as u64;
            IoSlice::advance_slices(&mut rest, n);
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let Some(file) = self.changeable()? else { return Ok(()) };
        let end = file.metadata()?.len().min(offset.saturating_add(len));
        if offset >= end {
            return Ok(());
        }
        holes::punch(&file, offset, end)
    }

    fn holds(&self, offset: u64, len: u64) -> io::Result<bool> {
        let Some(file) = self.existing()? else { return Ok(false) };
        holes::holds(&file, offset, len)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let Some(file) = self.existing()? else { return Ok(None) };
        holes::data_after(&file, offset)
    }

    fn stamp(&self) -> io::Result<FileStamp> {
        Ok(self.handle.look()?.as_ref().map_or(FileStamp::default(), FileStamp::of))
    }

    fn open_to_change(&self) -> io::Result<()> {
        self.changeable().map(drop)
    }

    fn stamp_of_open(&self) -> io::Result<FileStamp> {
        let Some(file) = self.existing()? else { return Ok(FileStamp::default()) };
        let open = file.metadata()?;
        self.handle.was_changed(&open);
        Ok(FileStamp::of(&open))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let Some(file) = self.changeable()? else { return Ok(()) };
        if file.metadata()?.len() > len { file.set_len(len) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let Some(file) = self.existing()? else { return Ok(()) };
        file.sync_data()?;
        if self.created.swap(false, Ordering::AcqRel) {
            // The file's name, its directory's name and that one's: each lives in the next one up.
            for dir in self.handle.path().ancestors().skip(1).take(3) {
                let synced = self.pool.open(|| File::open(dir)).and_then(|dir| dir.sync_all());
                synced.inspect_err(|_| {
                    self.created.store(true, Ordering::Release);
                })?;
            }
        }
        Ok(())
    }

    fn forget_cached(&self) -> io::Result<()> {
        if let Some(file) = self.existing()? {
            database::forget_cached(&file);
        }
        Ok(())
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        self.pool.close(&self.handle);
    }
}

/// How many of the slices go into one call.
fn call_len(slices: &[IoSlice<'_>]) -> usize {
    let mut total = 0;
    let fits = |slice: &&IoSlice<'_>| {
        total += slice.len();
        total <= MAX_CALL
    };
    slices.iter().take(MAX_SLICES).take_while(fits).count().max(1)
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
