//! Decoded blocks of one bee, least recently used first out.

use super::node::Block;
use lru::LruCache;
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes of keys, values and indexes that are kept. A bee of ten thousand files is about 3 MB.
const MAX_BYTES: usize = 4 << 20;

/// What an entry costs beyond its bytes: the block's struct, the list's and the table's share.
const OVERHEAD: usize = 200;

/// Keyed by fork and seq, so that blocks from before a truncation are never found again.
pub(super) struct BlockCache {
    inner: Mutex<Inner>,
}

struct Inner {
    blocks: LruCache<(u64, u64), Arc<Block>>,
    bytes: usize,
}

impl Default for BlockCache {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { blocks: LruCache::unbounded(), bytes: 0 }) }
    }
}

impl BlockCache {
    pub(super) fn get(&self, fork: u64, seq: u64) -> Option<Arc<Block>> {
        self.lock().blocks.get(&(fork, seq)).cloned()
    }

    pub(super) fn insert(&self, fork: u64, seq: u64, block: Arc<Block>) {
        let inner = &mut *self.lock();
        inner.bytes += block.size() + OVERHEAD;
        if let Some((_, old)) = inner.blocks.push((fork, seq), block) {
            inner.bytes -= old.size() + OVERHEAD;
        }
        while inner.bytes > MAX_BYTES {
            let Some((_, old)) = inner.blocks.pop_lru() else { break };
            inner.bytes -= old.size() + OVERHEAD;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        crate::lock::lock(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::bee::node::Encoder;

    #[test]
    fn it_stays_within_its_bytes() {
        let cache = BlockCache::default();
        for seq in 0..1000 {
            let raw = Encoder::default().finish(&[1; 10_000], None);
            cache.insert(0, seq, Arc::new(Block::decode(&raw).unwrap()));
        }
        let inner = cache.lock();
        assert!(inner.bytes <= MAX_BYTES && inner.blocks.len() > 300, "{}", inner.bytes);
    }
}
