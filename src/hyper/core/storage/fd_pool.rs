//! Open files, the most recently used ones: a store has more files than a process may have open.

use super::private;
use crate::lock::lock;
use lru::LruCache;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Files open at a time. Half of the usual limit of 1024 descriptors, which sockets and mounts share.
const MAX_OPEN: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// Hands out open files by number and closes those not used for longest.
pub(super) struct FdPool {
    open: Mutex<LruCache<u64, Arc<File>>>,
    next: AtomicU64,
}

impl FdPool {
    pub(super) fn new() -> Self {
        Self { open: Mutex::new(LruCache::new(MAX_OPEN)), next: AtomicU64::new(0) }
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
        let (file, new) = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => (file, false),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if !create => return Ok(None),
            Err(_) => (create_file(path)?, true),
        };
        Ok(Some((self.add(number, file), new)))
    }

    /// The same file, which must exist, opened for writes past the page cache.
    pub(super) fn direct(&self, number: u64, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.known(number) {
            return Ok(file);
        }
        let flags = nix::fcntl::OFlag::O_DIRECT.bits();
        Ok(self.add(number, OpenOptions::new().write(true).custom_flags(flags).open(path)?))
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
