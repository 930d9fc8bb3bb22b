//! Tree nodes on disk, behind a cache of pages that is written back.
//!
//! The tree file holds 40 bytes per node at 40 × tree index: size (u64 LE), hash; zeros mean "not here". It is
//! read and written in pages of 128 nodes, which in the in-order numbering are 64 blocks and the six levels
//! above them: going through a core block by block stays within a handful of pages. New nodes wait in memory
//! until [`NodeStore::flush`], which every commit calls first, so storing a block costs no call for its nodes.
//!
//! The file may hold nodes past the head, left by a change that was never committed: [`View`] hides them.

use super::storage::{CoreFiles, Storage, StorageError};
use super::tree::{Node, NodeSource};
use crate::hyper::flat_tree as flat;
use lru::LruCache;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// Nodes of a page.
const PAGE_NODES: u64 = 128;
const NODE_BYTES: u64 = 40;
const PAGE_BYTES: u64 = PAGE_NODES * NODE_BYTES;

/// Pages kept per core: 1.3 MB, enough for a path to the root of any core and the neighbourhoods that some
/// dozens of readers are in.
const MAX_PAGES: usize = 256;

type Page = Box<[u8; PAGE_BYTES as usize]>;

/// The nodes of one core.
pub(super) struct NodeStore {
    storage: Arc<dyn Storage>,
    files: Arc<CoreFiles>,
    cache: RefCell<Cache>,
    /// What is changed only brings the file back to the records: see [`Self::mending`].
    mending: Cell<bool>,
}

struct Cache {
    pages: LruCache<u64, Page>,
    /// Pages to be written, and which nodes of them.
    dirty: BTreeMap<u64, Range<u64>>,
}

impl Cache {
    fn mark(&mut self, number: u64, nodes: Range<u64>) {
        let range = self.dirty.entry(number).or_insert(nodes.clone());
        *range = range.start.min(nodes.start)..range.end.max(nodes.end);
    }
}

impl NodeStore {
    pub(super) fn new(storage: Arc<dyn Storage>, files: Arc<CoreFiles>) -> Self {
        let cache = Cache { pages: LruCache::unbounded(), dirty: BTreeMap::new() };
        Self { storage, files, cache: RefCell::new(cache), mending: Cell::new(false) }
    }

    /// While a core is mended after an unclean end its file may be changed before the session is noted, which a full
    /// disk or a store that is only read does not allow: until the core's record says otherwise every opening mends it again.
    pub(super) fn mending(&self, mending: bool) {
        self.mending.set(mending);
    }

    fn begin_session(&self) -> Result<(), StorageError> {
        match self.storage.begin_session() {
            Err(error) if error.leaves_it_readable() && self.mending.get() => Ok(()),
            done => done.map(drop),
        }
    }

    /// The nodes of a tree of `length` blocks.
    pub(super) fn view(&self, length: u64) -> View<'_> {
        View { nodes: self, length }
    }

    /// The node as it is in the file, whatever the head says.
    pub(super) fn get(&self, index: u64) -> Result<Option<Node>, StorageError> {
        self.with_page(index / PAGE_NODES, false, |page| decode(index, slot(page, index)))
    }

    /// Keeps a node in memory until the next flush.
    pub(super) fn put(&self, node: &Node) -> Result<(), StorageError> {
        let number = node.index / PAGE_NODES;
        self.with_page(number, true, |page| {
            let slot = slot_mut(page, node.index);
            slot[..8].copy_from_slice(&node.size.to_le_bytes());
            slot[8..].copy_from_slice(&node.hash);
        })?;
        self.cache.borrow_mut().mark(number, node.index..node.index + 1);
        Ok(())
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.cache.borrow().dirty.is_empty()
    }

    /// Runs `act` on a page, which is read first if it is not in memory. `changes` tells that it is to be dirty.
    fn with_page<T>(
        &self,
        number: u64,
        changes: bool,
        act: impl FnOnce(&mut Page) -> T,
    ) -> Result<T, StorageError> {
        let cache = &mut *self.cache.borrow_mut();
        if let Some(page) = cache.pages.get_mut(&number) {
            return Ok(act(page));
        }
        if cache.pages.len() >= MAX_PAGES {
            match self.make_room(cache) {
                // A full disk must not stop reading; a page too many is the next to go.
                Err(error) if changes => return Err(error),
                _ => {}
            }
        }
        let mut page: Page = Box::new([0; PAGE_BYTES as usize]);
        // An index that no file reaches: a page of nothing.
        if let Some(offset) = number.checked_mul(PAGE_BYTES).filter(|&at| at < i64::MAX as u64) {
            self.files.tree.read_at(offset, &mut page[..])?;
        }
        let result = act(&mut page);
        cache.pages.put(number, page);
        Ok(result)
    }

    /// Drops the least recently used page that need not be written; writes all where there is none.
    fn make_room(&self, cache: &mut Cache) -> Result<(), StorageError> {
        let clean = |cache: &Cache| {
            cache.pages.iter().rev().map(|(n, _)| *n).find(|n| !cache.dirty.contains_key(n))
        };
        let mut oldest = clean(cache);
        if oldest.is_none() {
            self.write_all(cache)?;
            oldest = clean(cache);
        }
        if let Some(number) = oldest {
            cache.pages.pop(&number);
        }
        Ok(())
    }

    /// Writes everything that waits. Runs of pages go in one call.
    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.write_all(&mut self.cache.borrow_mut())
    }

    fn write_all(&self, cache: &mut Cache) -> Result<(), StorageError> {
        while let Some((&first, _)) = cache.dirty.first_key_value() {
            self.write_run(cache, first..first + 1)?;
        }
        Ok(())
    }

    /// Writes a dirty page and the dirty pages that follow it.
    fn write_run(&self, cache: &mut Cache, mut run: Range<u64>) -> Result<(), StorageError> {
        self.begin_session()?;
        while cache.dirty.contains_key(&run.end) {
            run.end += 1;
        }
        let (pages, dirty) = (&cache.pages, &cache.dirty);
        let page = |number| pages.peek(&number).map_or(&[][..], |page| &page[..]);
        // Of the first and the last page only what changed; what lies between is in memory as well.
        let from = dirty.get(&run.start).map_or(0, |nodes| nodes.start);
        let to = dirty.get(&(run.end - 1)).map_or(from, |nodes| nodes.end);
        let byte = |node: u64, page: u64| ((node - page * PAGE_NODES) * NODE_BYTES) as usize;
        let mut slices: Vec<_> = run.clone().map(|number| IoSlice::new(page(number))).collect();
        if let Some(last) = slices.last_mut() {
            *last = IoSlice::new(&page(run.end - 1)[..byte(to, run.end - 1)]);
        }
        if let Some(first) = slices.first_mut() {
            let len = first.len();
            *first = IoSlice::new(&page(run.start)[byte(from, run.start)..len]);
        }
        self.files.tree.write_slices_at(from * NODE_BYTES, &mut slices)?;
        run.for_each(|number| {
            cache.dirty.remove(&number);
        });
        Ok(())
    }

    /// Whether the file has room for nodes right of the first `length` blocks.
    pub(super) fn reach_past(&self, length: u64) -> Result<bool, StorageError> {
        self.files.tree.reaches((2 * length).saturating_mul(NODE_BYTES).saturating_add(1))
    }

    /// Forgets the nodes that are not part of the tree's first `length` blocks.
    pub(super) fn truncate(&self, length: u64) -> Result<(), StorageError> {
        self.begin_session()?;
        let end = 2 * length;
        self.cut_cache(end);
        self.files.tree.truncate(end.saturating_mul(NODE_BYTES))?;
        if length == 0 {
            return Ok(());
        }
        // What is left to forget starts before the cut and reaches past it: ancestors of the last leaf.
        let mut at = 2 * (length - 1);
        while at <= flat::MAX_INDEX {
            if at < end && flat::right_span(at) >= end {
                self.erase(at..at + 1)?;
            }
            at = flat::parent(at);
        }
        Ok(())
    }

    fn cut_cache(&self, end: u64) {
        let cache = &mut *self.cache.borrow_mut();
        let behind: Vec<u64> =
            cache.pages.iter().map(|(n, _)| *n).filter(|n| n * PAGE_NODES >= end).collect();
        for number in behind {
            cache.pages.pop(&number);
            cache.dirty.remove(&number);
        }
        if let Some(page) = cache.pages.peek_mut(&(end / PAGE_NODES)) {
            page[(end % PAGE_NODES * NODE_BYTES) as usize..].fill(0);
        }
    }

    /// Forgets the nodes of a range of tree indexes.
    pub(super) fn erase(&self, range: Range<u64>) -> Result<(), StorageError> {
        let whole = range.start.div_ceil(PAGE_NODES)..range.end / PAGE_NODES;
        if whole.start < whole.end {
            {
                let cache = &mut *self.cache.borrow_mut();
                let inside: Vec<u64> =
                    cache.pages.iter().map(|(n, _)| *n).filter(|n| whole.contains(n)).collect();
                for number in inside {
                    cache.pages.pop(&number);
                    cache.dirty.remove(&number);
                }
            }
            self.begin_session()?;
            let bytes = (whole.end - whole.start).saturating_mul(PAGE_BYTES);
            self.files.tree.punch(whole.start.saturating_mul(PAGE_BYTES), bytes)?;
            self.erase_in_page(range.start..whole.start * PAGE_NODES)?;
            return self.erase_in_page(whole.end * PAGE_NODES..range.end);
        }
        let middle = (whole.start * PAGE_NODES).clamp(range.start, range.end);
        self.erase_in_page(range.start..middle)?;
        self.erase_in_page(middle..range.end)
    }

    fn erase_in_page(&self, range: Range<u64>) -> Result<(), StorageError> {
        if range.is_empty() {
            return Ok(());
        }
        let number = range.start / PAGE_NODES;
        let from = (range.start % PAGE_NODES * NODE_BYTES) as usize;
        let len = ((range.end - range.start) * NODE_BYTES) as usize;
        let changed = self.with_page(number, true, |page| {
            let slots = &mut page[from..from + len];
            let changed = slots.iter().any(|&byte| byte != 0);
            slots.fill(0);
            changed
        })?;
        if changed {
            self.cache.borrow_mut().mark(number, range);
        }
        Ok(())
    }
}

fn slot(page: &Page, index: u64) -> &[u8] {
    let at = (index % PAGE_NODES * NODE_BYTES) as usize;
    &page[at..at + NODE_BYTES as usize]
}

fn slot_mut(page: &mut Page, index: u64) -> &mut [u8] {
    let at = (index % PAGE_NODES * NODE_BYTES) as usize;
    &mut page[at..at + NODE_BYTES as usize]
}

fn decode(index: u64, slot: &[u8]) -> Option<Node> {
    let (size, hash) = slot.split_first_chunk()?;
    let hash = hash.try_into().ok()?;
    (hash != [0; 32]).then(|| Node { index, size: u64::from_le_bytes(*size), hash })
}

/// The nodes that belong to a tree of some length.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    nodes: &'a NodeStore,
    length: u64,
}

impl NodeSource for View<'_> {
    fn node(&self, index: u64) -> io::Result<Option<Node>> {
        if flat::end(index) > self.length {
            return Ok(None);
        }
        self.nodes.get(index).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::super::storage::crash::CrashMedium;
    use super::super::storage::{Staged, memory};
    use super::*;
    use crate::key::DiscoveryKey;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn store() -> (Arc<dyn Storage>, NodeStore) {
        let storage = memory();
        let files = storage.files(&DiscoveryKey([3; 32]));
        (storage.clone(), NodeStore::new(storage, files))
    }

    fn node(index: u64) -> Node {
        Node { index, size: index * 3, hash: [index as u8 | 1; 32] }
    }

    #[test]
    fn more_pages_than_fit_are_written_back() {
        let (storage, nodes) = store();
        for page in 0..3 * MAX_PAGES as u64 {
            nodes.put(&node(page * PAGE_NODES + page % PAGE_NODES)).unwrap();
        }
        nodes.flush().unwrap();
        assert!(!nodes.is_dirty());
        let again = NodeStore::new(storage.clone(), storage.files(&DiscoveryKey([3; 32])));
        for page in 0..3 * MAX_PAGES as u64 {
            let index = page * PAGE_NODES + page % PAGE_NODES;
            assert_eq!(again.get(index).unwrap(), Some(node(index)));
            assert_eq!(nodes.get(index ^ 1).unwrap(), None);
        }
        assert_eq!(again.get(u64::MAX).unwrap(), None);
    }

    #[test]
    fn a_full_disk_does_not_stop_reading() {
        let medium = CrashMedium::default();
        let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
        let nodes = NodeStore::new(storage.clone(), storage.files(&DiscoveryKey([3; 32])));
        let pages = MAX_PAGES as u64;
        (0..2 * pages).for_each(|page| nodes.put(&node(page * PAGE_NODES)).unwrap());
        nodes.flush().unwrap();
        medium.set_full(true);
        let refused = (0..2 * pages).find(|page| nodes.put(&node(page * PAGE_NODES + 1)).is_err());
        assert_eq!(refused, Some(pages));
        for page in (0..2 * pages).chain(0..2 * pages) {
            let index = page * PAGE_NODES;
            assert_eq!(nodes.get(index).unwrap(), Some(node(index)));
        }
        assert!(nodes.cache.borrow().pages.len() <= MAX_PAGES + 1);
        medium.set_full(false);
        (0..2 * pages).for_each(|page| nodes.put(&node(page * PAGE_NODES + 1)).unwrap());
        nodes.flush().unwrap();
        assert!(nodes.cache.borrow().pages.len() <= MAX_PAGES + 1);
        let again = NodeStore::new(storage.clone(), storage.files(&DiscoveryKey([3; 32])));
        for page in 0..2 * pages {
            let index = page * PAGE_NODES;
            assert_eq!(again.get(index).unwrap(), Some(node(index)));
            assert_eq!(again.get(index + 1).unwrap(), Some(node(index + 1)));
        }
    }

    #[test]
    fn a_view_ends_with_its_tree() {
        let (_, nodes) = store();
        (0..8).for_each(|index| nodes.put(&node(index)).unwrap());
        assert_eq!(nodes.view(4).node(3).unwrap(), Some(node(3)));
        assert_eq!(nodes.view(3).node(3).unwrap(), None);
        assert_eq!(nodes.view(3).node(4).unwrap(), Some(node(4)));
        nodes.truncate(3).unwrap();
        let left: Vec<u64> = (0..8).filter(|&i| nodes.get(i).unwrap().is_some()).collect();
        assert_eq!(left, [0, 1, 2, 4]);
    }

    proptest! {
        #![proptest_config(crate::sim::cases(40))]
        #[test]
        fn nodes_are_a_map(ops in proptest::collection::vec((0u8..5, 0u64..2000, 0u64..900), 1..60)) {
            let (storage, nodes) = store();
            let mut model: BTreeMap<u64, Node> = BTreeMap::new();
            for (op, at, len) in ops {
                match op {
                    0 | 1 => for index in (at..at + len).step_by(7) {
                        nodes.put(&node(index)).unwrap();
                        model.insert(index, node(index));
                    },
                    2 => nodes.flush().unwrap(),
                    3 => {
                        nodes.erase(at..at + len).unwrap();
                        model.retain(|index, _| !(at..at + len).contains(index));
                    }
                    _ => {
                        nodes.truncate(at).unwrap();
                        model.retain(|&index, _| flat::right_span(index) < 2 * at);
                    }
                }
            }
            nodes.flush().unwrap();
            let again = NodeStore::new(storage.clone(), storage.files(&DiscoveryKey([3; 32])));
            for index in 0..3000 {
                prop_assert_eq!(nodes.get(index).unwrap(), model.get(&index).copied());
                prop_assert_eq!(again.get(index).unwrap(), model.get(&index).copied());
            }
        }
    }
}
