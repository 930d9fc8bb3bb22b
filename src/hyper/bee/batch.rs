//! A group of changes to a bee, appended as one.
//!
//! The tree is changed in memory; blocks are encoded at the flush. Each operation becomes one block, and a
//! tree node is stored in the block of the last operation that touched it, so a batch is far smaller than
//! the same operations one by one. Only its last block is a version that can be checked out.
//!
//! Source: hyperbee/index.js (Batch)

use super::node::{Encoder, Link};
use super::tree::{Index, Load, NodeId, Tree};
use super::{Bee, BeeError, Entry, Header, Result, Writer, to_node};
use crate::hyper::source::BlockLog;
use bytes::Bytes;
use std::cmp::Ordering;
use std::sync::MutexGuard;

struct Operation {
    key: Bytes,
    value: Option<Bytes>,
    index: Index,
}

/// See [`Bee::batch`]. Dropping it forgets the changes.
pub struct Batch<'a> {
    bee: &'a Bee,
    writer: &'a Writer,
    /// The header, if it is still to be written.
    header: Option<Bytes>,
    /// Core length without and with that header.
    length: u64,
    base: u64,
    operations: Vec<Operation>,
    tree: Tree,
    /// Set by the first operation that appends.
    root: Option<NodeId>,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(bee: &'a Bee, writer: &'a Writer, turn: MutexGuard<'a, ()>) -> Self {
        let length = bee.source.length();
        let header = (length == 0).then(|| Header::new(writer.metadata.clone()).encode().into());
        Self {
            bee,
            writer,
            header,
            length,
            base: length.max(1),
            operations: Vec::new(),
            tree: Tree::default(),
            root: None,
            _turn: turn,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The version the bee will have after the flush.
    pub fn version(&self) -> u64 {
        self.base + self.operations.len() as u64
    }

    /// The entry of `key`, this batch's changes included.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Entry>> {
        let Some(root) = self.root else {
            return if self.header.is_some() { Ok(None) } else { self.bee.get_local(key) };
        };
        let mut allow = never;
        let (tree, mut load) = self.split(&mut allow);
        let Some(seq) = tree.find(root, key, &mut load)? else { return Ok(None) };
        load.entry(seq).map(Some)
    }

    /// Sets `key`, also when it has that value already, as Hyperdrive does.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.put_if(key, value, |_| true).map(drop)
    }

    /// Sets `key` unless it is there and `allow` says no to its present entry. Whether it was set.
    pub fn put_if(
        &mut self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        mut allow: impl FnMut(&Entry) -> bool,
    ) -> Result<bool> {
        let (key, seq) = (key.into(), self.version());
        let root = self.open_root()?;
        let (tree, mut load) = self.split(&mut allow);
        let Some(root) = tree.put(root, seq, &key, &mut load)? else { return Ok(false) };
        self.append(root, key, Some(value.into()));
        Ok(true)
    }

    /// Takes `key` out. Whether it was there.
    pub fn delete(&mut self, key: impl Into<Bytes>) -> Result<bool> {
        self.delete_if(key, |_| true)
    }

    /// Takes `key` out if it is there and `allow` says yes to its entry.
    pub fn delete_if(
        &mut self,
        key: impl Into<Bytes>,
        mut allow: impl FnMut(&Entry) -> bool,
    ) -> Result<bool> {
        let key = key.into();
        let root = self.open_root()?;
        let (tree, mut load) = self.split(&mut allow);
        let Some(root) = tree.delete(root, &key, &mut load)? else { return Ok(false) };
        self.append(root, key, None);
        Ok(true)
    }

    /// Appends everything with one signature and returns the new version. Without changes nothing is
    /// appended.
    pub fn flush(self) -> Result<u64> {
        self.flush_by(|log, blocks| Ok(log.append(blocks).map(drop)?))
    }

    /// The same by another hand, which appends the blocks to the log as one: together with what they name, say.
    pub fn flush_by<E: From<BeeError>>(
        mut self,
        append: impl FnOnce(&dyn BlockLog, Vec<Bytes>) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        let version = self.version();
        if !self.is_empty() {
            let blocks = self.take_blocks();
            self.check_base()?;
            append(&*self.writer.log, blocks)?;
        }
        Ok(version)
    }

    /// The blocks that a flush would append, for a caller that commits several cores at once and keeps
    /// this batch, which is empty afterwards, until that is done.
    pub fn take_blocks(&mut self) -> Vec<Bytes> {
        let mut blocks: Vec<Bytes> = self.header.take().into_iter().collect();
        let mut encoder = Encoder::default();
        let count = self.operations.len();
        for (i, mut operation) in self.operations.drain(..).enumerate() {
            if i + 1 < count {
                self.tree.compact(&mut operation.index, self.base + i as u64);
            }
            for id in operation.index.iter().flatten() {
                encoder.level(self.tree.keys(*id), self.tree.links(*id));
            }
            blocks.push(encoder.finish(&operation.key, operation.value.as_deref()));
        }
        (self.tree, self.root) = (Tree::default(), None);
        blocks
    }

    /// The links in the blocks count from `length`: a core that someone else appended to meanwhile must not get them.
    fn check_base(&self) -> Result<()> {
        match self.bee.source.length() == self.length {
            true => Ok(()),
            false => Err(BeeError::Raced),
        }
    }

    fn append(&mut self, root: NodeId, key: Bytes, value: Option<Bytes>) {
        let index = self.tree.emit(root, self.version());
        self.root = Some(root);
        self.operations.push(Operation { key, value, index });
    }

    /// The root to work on. Until the first operation appends, each starts from the stored tree: marks
    /// that a refused one left must not be written.
    fn open_root(&mut self) -> Result<NodeId> {
        if let Some(root) = self.root {
            return Ok(root);
        }
        let stored = (self.base > 1).then(|| Link { seq: self.base - 1, offset: 0 });
        let mut allow = never;
        let (tree, mut load) = self.split(&mut allow);
        *tree = Tree::default();
        tree.root(stored, &mut load)
    }

    fn split<'b>(
        &'b mut self,
        allow: &'b mut dyn FnMut(&Entry) -> bool,
    ) -> (&'b mut Tree, Loader<'b>) {
        let loader = Loader { bee: self.bee, base: self.base, operations: &self.operations, allow };
        (&mut self.tree, loader)
    }
}

fn never(_: &Entry) -> bool {
    false
}

/// Keys and nodes of the batch's own operations, and of the stored blocks below them.
struct Loader<'a> {
    bee: &'a Bee,
    base: u64,
    operations: &'a [Operation],
    allow: &'a mut dyn FnMut(&Entry) -> bool,
}

impl Loader<'_> {
    fn own(&self, seq: u64) -> Option<&Operation> {
        self.operations.get(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }

    fn entry(&self, seq: u64) -> Result<Entry> {
        match self.own(seq) {
            Some(Operation { key, value, .. }) => {
                Ok(Entry { seq, key: key.clone(), value: value.clone().unwrap_or_default() })
            }
            None => Ok(super::entry(seq, &*self.bee.local_block(seq)?)),
        }
    }
}

impl Load for Loader<'_> {
    fn node(&mut self, link: Link) -> Result<(Vec<u64>, Vec<Link>)> {
        let node = to_node(link, &*self.bee.local_block(link.seq)?)?;
        Ok((node.keys, node.children))
    }

    fn compare(&mut self, key: &[u8], seq: u64) -> Result<Ordering> {
        match self.own(seq) {
            Some(operation) => Ok(key.cmp(&operation.key)),
            None => Ok(key.cmp(&self.bee.local_block(seq)?.key)),
        }
    }

    fn refuse(&mut self, seq: u64) -> Result<bool> {
        let entry = self.entry(seq)?;
        Ok(!(self.allow)(&entry))
    }
}
