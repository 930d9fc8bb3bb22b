//! Which contents are being read, so that nobody takes their blocks away.

use super::BlobId;
use super::reader::{Reader, WeakReader};
use std::sync::{Mutex, MutexGuard};

/// Readers that were handed out and are still held.
#[derive(Default)]
pub(super) struct OpenReaders(Mutex<List>);

#[derive(Default)]
struct List {
    readers: Vec<WeakReader>,
    /// The list is looked through when it has grown to this: each reader costs a constant time.
    sweep_at: usize,
}

/// The list is not looked through below this.
const MIN_SWEEP: usize = 64;

impl OpenReaders {
    pub fn add(&self, reader: &Reader) {
        let mut list = self.lock();
        if list.readers.len() >= list.sweep_at.max(MIN_SWEEP) {
            list.readers.retain(|reader| reader.id().is_some());
            list.sweep_at = 2 * list.readers.len();
        }
        list.readers.push(reader.downgrade());
    }

    pub fn ids(&self) -> Vec<BlobId> {
        self.lock().readers.iter().filter_map(WeakReader::id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        crate::lock::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::blobs::Blobs;
    use crate::hyper::source::memory::MemoryLog;

    #[test]
    fn a_reader_is_known_while_it_is_held_and_the_list_stays_short() {
        let blobs = Blobs::new(MemoryLog::new());
        let id = |n| BlobId { block_offset: n, block_length: 1, ..BlobId::default() };
        let kept = blobs.reader(id(7), None);
        for n in 0..10_000 {
            drop(blobs.clone().reader(id(n), None));
        }
        assert_eq!(blobs.open_ids(), [id(7)]);
        assert!(blobs.open.lock().readers.len() <= MIN_SWEEP);
        drop(kept);
        assert!(blobs.open_ids().is_empty());
    }
}
