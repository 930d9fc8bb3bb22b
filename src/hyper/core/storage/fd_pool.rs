//! Open files, the most recently used ones: a store has more files than a process may have open.

use super::private;
use crate::descriptors;
use crate::lock::lock;
use lru::LruCache;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Descriptors of a process that serves nobody yet: its database, sockets, threads that wait.
const OTHERS: u64 = 32;
/// Fewer are of no use; more cost memory of the kernel for files that are hardly looked at.
const MIN_OPEN: u64 = 4;
const MAX_OPEN: u64 = 4096;

/// Files open at a time where a process may have `limit`: half of what is left. Commands, mounts and peers share the rest.
fn share_of(limit: u64) -> NonZeroUsize {
    let files = (limit.saturating_sub(OTHERS) / 2).clamp(MIN_OPEN, MAX_OPEN);
    NonZeroUsize::new(files as usize).unwrap_or(NonZeroUsize::MIN)
}

/// Hands out open files by number and closes those not used for longest.
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

    /// A number to ask for a file by.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The open file; `None` if it does not exist and `create` is not set. The flag tells that it is new.
    pub(super) fn get(
        &self,
        number: u64,
        path: &Path,
        create: bool,
    ) -> io::Result<Option<(Arc<File>, bool)>> {
        if let Some(file) = self.known(number) {
            return Ok(Some((file, false)));
        }
        let existing = || OpenOptions::new().read(true).write(true).open(path);
        let (file, new) = match self.open(existing) {
            Ok(file) => (file, false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if !create => return Ok(None),
            Err(_) => (self.open(|| create_file(path))?, true),
        };
        Ok(Some((self.add(number, file), new)))
    }

    /// The same file, which must exist, opened for writes past the page cache.
    pub(super) fn direct(&self, number: u64, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.known(number) {
            return Ok(file);
        }
        let flags = nix::fcntl::OFlag::O_DIRECT.bits();
        let open = || OpenOptions::new().write(true).custom_flags(flags).open(path);
        Ok(self.add(number, self.open(open)?))
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

    pub(super) fn close(&self, number: u64) {
        let _closed = lock(&self.open).pop(&number);
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
    use super::*;
    use std::cell::Cell;

    #[test]
    fn files_share_what_a_process_may_have() {
        let sizes = [0, 32, 48, 256, 1024, 1 << 20, u64::MAX].map(|limit| share_of(limit).get());
        assert_eq!(sizes, [4, 4, 8, 112, 496, 4096, 4096]);
    }

    #[test]
    fn the_oldest_files_are_closed_when_no_descriptor_is_free() {
        let pool = FdPool::with_limit(1024);
        let dir = tempfile::tempdir().unwrap();
        let path = |n: u64| dir.path().join(n.to_string());
        for n in 0..10 {
            pool.get(n, &path(n), true).unwrap();
        }
        let tries = Cell::new(0);
        let short = |error: nix::errno::Errno, times: u32| {
            tries.set(tries.get() + 1);
            if tries.get() > times { Ok(()) } else { Err(io::Error::from(error)) }
        };
        pool.open(|| short(nix::errno::Errno::EMFILE, 3)).unwrap();
        assert_eq!(pool.open_files(), 7);
        assert!((0..3).all(|n| pool.known(n).is_none()) && pool.known(9).is_some());
        // What else fails is no reason.
        tries.set(0);
        assert!(pool.open(|| short(nix::errno::Errno::EACCES, 1)).is_err());
        assert_eq!((pool.open_files(), tries.get()), (7, 1));
        tries.set(0);
        assert!(pool.open(|| short(nix::errno::Errno::ENFILE, 100)).is_err());
        assert_eq!(pool.open_files(), 0);
    }
}
