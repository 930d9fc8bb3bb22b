//! Open files, the most recently used ones: a store has more files than a process may have open.

use super::identity::Identity;
use super::{layout, private};
use crate::descriptors;
use crate::lock::lock;
use lru::LruCache;
use rustix::fs::fstatfs;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Descriptors of a process that serves nobody yet: its database, sockets, threads that wait.
const OTHERS: u64 = 32;
/// Fewer are of no use; more cost memory of the kernel for files that are hardly looked at.
const MIN_OPEN: u64 = 4;
const MAX_OPEN: u64 = 4096;

/// The type of a file system of layers, which copies a file when it is opened to be changed.
const OVERLAYFS: i64 = 0x794c_7630;

/// Files open at a time where a process may have `limit`: half of what is left. Commands, mounts and peers share the rest.
fn share_of(limit: u64) -> NonZeroUsize {
    let files = (limit.saturating_sub(OTHERS) / 2).clamp(MIN_OPEN, MAX_OPEN);
    NonZeroUsize::new(files as usize).unwrap_or(NonZeroUsize::MIN)
}

/// What to ask for a file by. However often it is closed and opened again meanwhile, it is the same file.
pub(super) struct Handle {
    path: PathBuf,
    /// That of the descriptor which only reads.
    number: u64,
    /// That of the one which changes the file too, and of the one which writes past the page cache.
    change: u64,
    direct: u64,
    identity: Identity,
    /// Whether the store is where it was.
    home: Arc<Home>,
    /// It is opened to be changed, and not only to be read, for something was to be changed in it.
    changes: AtomicBool,
}

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Change,
    /// And made where there is none.
    Create,
}

impl Handle {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is at the path, if anything is.
    ///
    /// # Errors
    /// `Replaced` if that is not the file that was there at the first look.
    pub(super) fn look(&self) -> io::Result<Option<Metadata>> {
        self.identity.look(self.store(), &self.path)
    }

    /// What the open file is after a change of ours.
    pub(super) fn was_changed(&self, open: &Metadata) {
        self.identity.was_changed(open);
    }

    fn store(&self) -> &Path {
        layout::store_of(&self.path)
    }

    /// The file was opened to be changed for the first time; `before` is what it was. A file system of layers copies it
    /// then, perhaps under another number, and perhaps to one that knows only seconds.
    fn admit_copied(&self, file: &File, before: Option<&Metadata>) -> io::Result<()> {
        let meta = file.metadata()?;
        let is_copy = before.is_some_and(|before| {
            (before.dev(), before.ino()) != (meta.dev(), meta.ino())
                && (before.len(), before.mtime()) == (meta.len(), meta.mtime())
                && [0, before.mtime_nsec()].contains(&meta.mtime_nsec())
        });
        if is_copy && fstatfs(file)?.f_type == OVERLAYFS {
            self.identity.was_copied(&meta);
        }
        self.identity.admit(self.store(), &meta)
    }
}

/// Where the files of a store are.
pub(super) struct Home {
    /// Its database.
    path: PathBuf,
    identity: Identity,
}

impl Home {
    /// That of the store whose database is at `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, identity: Identity::default() }
    }

    /// # Errors
    /// `Replaced` if the database is not the one that was there the first time.
    pub(super) fn check(&self) -> io::Result<()> {
        let store = self.path.parent().unwrap_or(&self.path);
        self.identity.look(store, &self.path).map(drop)
    }
}

/// Hands out open files by their handles and closes those not used for longest.
pub(super) struct FdPool {
    open: Mutex<LruCache<u64, Arc<File>>>,
    next: AtomicU64,
}

impl FdPool {
    pub(super) fn new() -> Self {
        let open = LruCache::new(share_of(descriptors::limit()));
        Self { open: Mutex::new(open), next: AtomicU64::new(0) }
    }

    /// Opens something. Where no descriptor is free, files that are here are closed for it, one by one.
    pub(super) fn open<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if descriptors::is_short(&error) => {
                    // Its last user may be at work with it yet; then the next one goes too.
                    let oldest = lock(&self.open).pop_lru();
                    drop(oldest.ok_or(error)?);
                }
                opened => return opened,
            }
        }
    }

    pub(super) fn handle(&self, path: PathBuf, home: Arc<Home>) -> Handle {
        let number = self.next.fetch_add(3, Ordering::Relaxed);
        let (identity, changes) = (Identity::default(), AtomicBool::new(false));
        Handle { path, number, change: number + 1, direct: number + 2, identity, home, changes }
    }

    /// The open file; `None` if it does not exist and is not to be made. The flag tells that it is new.
    ///
    /// It is opened to be changed only when it is to be: opening alone makes a file system of layers (overlayfs) copy the
    /// file, which may hold a hundred gigabytes.
    ///
    /// # Errors
    /// `Replaced` if it is not the file that was there at the first look, or there is none any more.
    pub(super) fn get(
        &self,
        handle: &Handle,
        access: Access,
    ) -> io::Result<Option<(Arc<File>, bool)>> {
        let did_change = handle.changes.load(Ordering::Acquire);
        let changes = did_change || access != Access::Read;
        // Under numbers of their own: who opens it to read meanwhile puts nothing in the way of a change.
        let number = if changes { handle.change } else { handle.number };
        if let Some(file) = self.known(number) {
            return Ok(Some((file, false)));
        }
        let path = &handle.path;
        let before = handle.look()?;
        let existing = || OpenOptions::new().read(true).write(changes).open(path);
        let (file, new) = match self.open(existing) {
            Ok(file) => (file, false),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => {
                handle.identity.check(handle.store(), None)?;
                if access != Access::Create {
                    return Ok(None);
                }
                // Not in whatever lies below the place of a store that is away.
                handle.home.check()?;
                (self.open(|| create_file(path))?, true)
            }
        };
        match changes != did_change {
            true => handle.admit_copied(&file, before.as_ref())?,
            false => handle.identity.admit(handle.store(), &file.metadata()?)?,
        }
        if changes && !handle.changes.swap(true, Ordering::AcqRel) {
            let _closed = lock(&self.open).pop(&handle.number);
        }
        Ok(Some((self.add(number, file), new)))
    }

    /// The same file, which must exist, opened for writes past the page cache.
    pub(super) fn direct(&self, handle: &Handle) -> io::Result<Arc<File>> {
        if let Some(file) = self.known(handle.direct) {
            return Ok(file);
        }
        let flags = nix::fcntl::OFlag::O_DIRECT.bits();
        let open = || OpenOptions::new().write(true).custom_flags(flags).open(&handle.path);
        let file = self.open(open)?;
        handle.identity.admit(handle.store(), &file.metadata()?)?;
        Ok(self.add(handle.direct, file))
    }

    fn known(&self, number: u64) -> Option<Arc<File>> {
        lock(&self.open).get(&number).cloned()
    }

    fn add(&self, number: u64, file: File) -> Arc<File> {
        let file = Arc::new(file);
        // Closing what falls out happens here, outside the lock.
        let _closed = lock(&self.open).push(number, file.clone());
        file
    }

    pub(super) fn close(&self, handle: &Handle) {
        for number in [handle.number, handle.change, handle.direct] {
            let _closed = lock(&self.open).pop(&number);
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(limit: u64) -> Self {
        Self { open: Mutex::new(LruCache::new(share_of(limit))), next: AtomicU64::new(0) }
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        lock(&self.open).len()
    }
}

fn create_file(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        private::create_dirs(parent)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(private::FILE).open(path)
}

#[cfg(test)]
mod tests {
    use super::super::identity::Replaced;
    use super::*;
    use std::cell::Cell;

    fn home(dir: &Path) -> Arc<Home> {
        let database = dir.join("database");
        std::fs::write(&database, b"").unwrap();
        let home = Home::at(database);
        home.check().unwrap();
        Arc::new(home)
    }

    #[test]
    fn files_share_what_a_process_may_have() {
        let sizes = [0, 32, 48, 256, 1024, 1 << 20, u64::MAX].map(|limit| share_of(limit).get());
        assert_eq!(sizes, [4, 4, 8, 112, 496, 4096, 4096]);
    }

    #[test]
    fn the_oldest_files_are_closed_when_no_descriptor_is_free() {
        let pool = FdPool::with_limit(1024);
        let dir = tempfile::tempdir().unwrap();
        let handles: Vec<_> = (0..10)
            .map(|n| pool.handle(dir.path().join(n.to_string()), home(dir.path())))
            .collect();
        for handle in &handles {
            pool.get(handle, Access::Create).unwrap();
        }
        let is_open = |n: usize| pool.known(handles[n].change).is_some();
        let tries = Cell::new(0);
        let short = |error: nix::errno::Errno, times: u32| {
            tries.set(tries.get() + 1);
            if tries.get() > times { Ok(()) } else { Err(io::Error::from(error)) }
        };
        pool.open(|| short(nix::errno::Errno::EMFILE, 3)).unwrap();
        assert_eq!(pool.open_files(), 7);
        assert!(!(0..3).any(is_open) && is_open(9));
        // What else fails is no reason.
        tries.set(0);
        assert!(pool.open(|| short(nix::errno::Errno::EACCES, 1)).is_err());
        assert_eq!((pool.open_files(), tries.get()), (7, 1));
        tries.set(0);
        assert!(pool.open(|| short(nix::errno::Errno::ENFILE, 100)).is_err());
        assert_eq!(pool.open_files(), 0);
    }

    #[test]
    fn a_file_that_is_opened_again_is_the_same_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let is_replaced = |error: io::Error| error.downcast::<Replaced>().is_ok();
        let pool = FdPool::with_limit(1024);
        let handle = pool.handle(path.clone(), home(dir.path()));
        assert!(
            pool.get(&handle, Access::Read).unwrap().is_none() && handle.look().unwrap().is_none()
        );
        assert!(pool.get(&handle, Access::Create).unwrap().unwrap().1);
        pool.close(&handle);
        assert!(!pool.get(&handle, Access::Create).unwrap().unwrap().1);
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        for is_there in [false, true] {
            if is_there {
                std::fs::write(&path, b"another").unwrap();
            }
            // An open one goes on to be read, one that was closed is not to be had any more, nor made anew.
            assert!(pool.get(&handle, Access::Read).is_ok());
            assert!(is_replaced(handle.look().unwrap_err()));
            pool.close(&handle);
            for access in [Access::Read, Access::Change, Access::Create] {
                assert!(is_replaced(pool.get(&handle, access).unwrap_err()));
            }
            assert!(pool.direct(&handle).is_err());
            assert_eq!(path.exists(), is_there);
            std::fs::rename(dir.path().join("away"), &path).unwrap();
            assert!(pool.get(&handle, Access::Read).is_ok() && handle.look().is_ok());
            std::fs::rename(&path, dir.path().join("away")).unwrap();
        }
    }

    #[test]
    fn a_file_that_was_only_looked_at_is_known_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"ours").unwrap();
        let is_replaced = |error: io::Error| error.downcast::<Replaced>().is_ok();
        let (pool, of) = (FdPool::with_limit(1024), |path: &Path| path.with_extension("away"));
        let handle = pool.handle(path.clone(), home(dir.path()));
        assert!(handle.look().unwrap().is_some());
        std::fs::rename(&path, of(&path)).unwrap();
        for is_there in [false, true] {
            if is_there {
                std::fs::write(&path, b"another").unwrap();
            }
            for access in [Access::Read, Access::Change, Access::Create] {
                assert!(is_replaced(pool.get(&handle, access).unwrap_err()), "{access:?}");
                assert_eq!(path.exists(), is_there);
            }
        }
        std::fs::rename(of(&path), &path).unwrap();
        assert!(pool.get(&handle, Access::Read).unwrap().is_some());
    }

    #[test]
    fn a_file_is_opened_to_be_changed_when_it_is_to_be() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), b"ours").unwrap();
        let pool = FdPool::with_limit(1024);
        let handle = pool.handle(dir.path().join("file"), home(dir.path()));
        let get = |access| pool.get(&handle, access).unwrap().unwrap().0;
        assert!(get(Access::Read).write_all_at(b"not", 0).is_err());
        get(Access::Change).write_all_at(b"now", 0).unwrap();
        pool.close(&handle);
        // Whoever reads next takes the descriptor that was opened to change it, and so does the next change.
        get(Access::Read).write_all_at(b"too", 0).unwrap();
    }

    #[test]
    fn a_reader_that_comes_late_puts_nothing_in_the_way_of_a_change() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"ours").unwrap();
        let pool = FdPool::with_limit(1024);
        let handle = pool.handle(path.clone(), home(dir.path()));
        let late = File::open(&path).unwrap();
        let changes = || pool.get(&handle, Access::Change).unwrap().unwrap().0;
        changes().write_all_at(b"now", 0).unwrap();
        pool.add(handle.number, late);
        changes().write_all_at(b"too", 0).unwrap();
    }

    #[test]
    fn nothing_is_made_where_the_store_is_away() {
        let dir = tempfile::tempdir().unwrap();
        let (path, pool) = (dir.path().join("cores/file"), FdPool::with_limit(1024));
        let handle = pool.handle(path.clone(), home(dir.path()));
        std::fs::remove_file(dir.path().join("database")).unwrap();
        assert!(pool.get(&handle, Access::Create).is_err() && !path.parent().unwrap().exists());
    }
}
