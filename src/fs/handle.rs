//! Open files and open directories, by number.

use super::body::Body;
use super::inode::Ino;
use super::lock;
use super::prefetch::Prefetch;
use super::volume::FileContent;
use super::volume::FileWriter;
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

/// An open file: what is read, the same as all who have it open, and where its own reader is.
pub struct OpenFile {
    pub ino: Ino,
    body: Arc<Body>,
    /// It is open to be written.
    writer: Option<Arc<dyn FileWriter>>,
    prefetch: Mutex<Prefetch>,
    failure: Mutex<Option<(Range<u64>, Instant)>>,
}

impl OpenFile {
    pub fn new(ino: Ino, body: Arc<Body>) -> Self {
        let (prefetch, failure) = Default::default();
        Self { ino, body, writer: None, prefetch, failure }
    }

    /// One that is open to be written.
    pub fn to_write(ino: Ino, body: Arc<Body>, writer: Arc<dyn FileWriter>) -> Self {
        Self { writer: Some(writer), ..Self::new(ino, body) }
    }

    pub fn writer(&self) -> Option<&Arc<dyn FileWriter>> {
        self.writer.as_ref()
    }

    /// See [`Body::content`].
    pub fn content(&self) -> Arc<dyn FileContent> {
        self.body.content()
    }

    /// Notes a read of `content` and starts fetching what will be read next.
    pub fn read_ahead(&self, content: &dyn FileContent, offset: u64, len: u64) {
        let next = lock(&self.prefetch).observe(offset, len, content.size().unwrap_or(u64::MAX));
        if let Some(range) = next {
            content.prefetch(range.start, range.end - range.start);
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

    pub fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        read(&self.open).values().any(|value| is(value))
    }

    pub fn is_empty(&self) -> bool {
        read(&self.open).is_empty()
    }

    pub fn remove(&self, id: HandleId) -> Option<Arc<T>> {
        write(&self.open).remove(&id)
    }
}
