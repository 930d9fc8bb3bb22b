//! Blocks in memory, the most recently used ones up to a number of bytes, for all cores of a process.

use crate::lock::lock;
use bytes::Bytes;
use lru::LruCache;
use std::sync::{Mutex, MutexGuard};

/// What an entry costs beyond its bytes: key, links, table slot.
const OVERHEAD: usize = 128;

/// An LRU of plaintext blocks by (core id, block index). Its methods lock it briefly.
pub struct BlockCache {
    inner: Mutex<Inner>,
    limit: usize,
}

struct Inner {
    blocks: LruCache<(u64, u64), Bytes>,
    used: usize,
}

impl BlockCache {
    /// A cache of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { inner: Mutex::new(Inner { blocks: LruCache::unbounded(), used: 0 }), limit }
    }

    pub fn get(&self, core: u64, block: u64) -> Option<Bytes> {
        self.lock().blocks.get(&(core, block)).cloned()
    }

    /// Keeps a block, and forgets the least recently used ones if it takes the room. A block larger than
    /// an eighth of the cache is not kept: it would cost too many others.
    pub fn insert(&self, core: u64, block: u64, bytes: Bytes) {
        let cost = bytes.len() + OVERHEAD;
        if cost > self.limit / 8 {
            return;
        }
        let mut inner = self.lock();
        inner.used += cost;
        if let Some(old) = inner.blocks.put((core, block), bytes) {
            inner.used -= old.len() + OVERHEAD;
        }
        while inner.used > self.limit {
            let Some((_, old)) = inner.blocks.pop_lru() else { break };
            inner.used -= old.len() + OVERHEAD;
        }
    }

    pub fn remove(&self, core: u64, block: u64) {
        let mut inner = self.lock();
        if let Some(old) = inner.blocks.pop(&(core, block)) {
            inner.used -= old.len() + OVERHEAD;
        }
    }

    /// Forgets a core, after a truncation or when it is closed.
    pub fn remove_core(&self, core: u64) {
        let mut inner = self.lock();
        let gone: Vec<_> =
            inner.blocks.iter().map(|(key, _)| *key).filter(|key| key.0 == core).collect();
        for key in gone {
            if let Some(old) = inner.blocks.pop(&key) {
                inner.used -= old.len() + OVERHEAD;
            }
        }
    }

    /// Bytes in use, entries' own cost included.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_go_first() {
        let cache = BlockCache::new(10 * (100 + OVERHEAD));
        let block = |n: u8| Bytes::from(vec![n; 100]);
        for n in 0..10 {
            cache.insert(1, n, block(n as u8));
        }
        assert_eq!(cache.used(), cache.limit);
        assert_eq!(cache.get(1, 0), Some(block(0)));
        cache.insert(2, 0, block(77));
        assert_eq!((cache.get(1, 1), cache.get(1, 0)), (None, Some(block(0))));
        cache.insert(1, 0, block(9));
        assert_eq!(cache.used(), cache.limit);
        cache.remove(1, 0);
        cache.remove_core(1);
        assert_eq!((cache.get(1, 5), cache.get(2, 0)), (None, Some(block(77))));
        cache.remove_core(2);
        cache.insert(3, 0, Bytes::from(vec![0; 1000]));
        assert_eq!(cache.used(), 0);
    }
}
