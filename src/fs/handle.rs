//! Open files and open directories, by number.

use super::inode::Ino;
use super::lock;
use super::prefetch::Prefetch;
use super::volume::FileContent;
use crate::lock::{read, write};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// How long a timeout answers for reads of the same bytes that follow at once. The kernel asks page by page
/// for what its read-ahead did not get: without this a caller would wait twice.
const FAILURE_LASTS: Duration = Duration::from_millis(500);

/// Number of an open file or directory; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// An open file: one content at one revision, and where its reader is.
pub struct OpenFile {
    pub ino: Ino,
    pub content: Arc<dyn FileContent>,
    prefetch: Mutex<Prefetch>,
    failure: Mutex<Option<(Range<u64>, Instant)>>,
}

impl OpenFile {
    pub fn new(ino: Ino, content: Arc<dyn FileContent>) -> Self {
        Self { ino, content, prefetch: Mutex::default(), failure: Mutex::default() }
    }

    /// Notes a read and starts fetching what will be read next.
    pub fn read_ahead(&self, offset: u64, len: u64) {
        let next =
            lock(&self.prefetch).observe(offset, len, self.content.size().unwrap_or(u64::MAX));
        if let Some(range) = next {
            self.content.prefetch(range.start, range.end - range.start);
        }
    }

    /// Notes that these bytes did not come in time.
    pub fn note_timeout(&self, offset: u64, len: u64) {
        *lock(&self.failure) = Some((offset..offset.saturating_add(len), Instant::now()));
    }

    /// Whether a wait for these bytes has only just failed.
    pub fn just_timed_out(&self, offset: u64, len: u64) -> bool {
        lock(&self.failure).as_ref().is_some_and(|(range, at)| {
            offset < range.end
                && offset.saturating_add(len) > range.start
                && at.elapsed() < FAILURE_LASTS
        })
    }
}

/// Handles the kernel holds, each until it releases it.
pub struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<HandleId, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub fn insert(&self, value: T) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed));
        write(&self.open).insert(id, Arc::new(value));
        id
    }

    pub fn get(&self, id: HandleId) -> Option<Arc<T>> {
        read(&self.open).get(&id).cloned()
    }

    pub fn is_empty(&self) -> bool {
        read(&self.open).is_empty()
    }

    pub fn remove(&self, id: HandleId) -> Option<Arc<T>> {
        write(&self.open).remove(&id)
    }
}
