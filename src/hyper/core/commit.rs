//! Committing: our own appends, and what peers sent.

use super::encryption::BlockCipher;
use super::record::{encode_head, page_key};
use super::storage::{CoreFiles, Durability, Records, Storage, StorageError, Table, Writes};
use super::tree::{Batch, Head, Node};
use super::writer::histories_record;
use super::{Core, CoreError, Dirty, MAX_BLOCK_SIZE, Result};
use crate::crypto::hash;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Blocks below this size are copied together before they are written.
const SMALL: usize = 8 << 10;

/// An append that is hashed, encrypted and signed, and that no record speaks of yet.
pub struct Prepared {
    /// Fork and length of the head it extends.
    pub(super) base: (u64, u64),
    /// Byte offset of the first of `blocks`.
    pub(super) offset: u64,
    pub(super) head: Head,
    pub(super) nodes: Vec<Node>,
    /// What is yet to be written: nothing if the blocks were staged.
    pub(super) blocks: Vec<Bytes>,
}

impl Prepared {
    /// Index of the first block.
    pub fn first(&self) -> u64 {
        self.base.1
    }
}

/// Commits appends to several cores in one transaction: all or none.
///
/// # Errors
/// No core has changed after an error. [`CoreError::Stale`] if a core changed since its append was prepared.
pub fn commit(
    storage: &Arc<dyn Storage>,
    appends: &mut [(&mut Core, Prepared)],
    durability: Durability,
) -> Result<()> {
    commit_also(storage, appends, Writes::default(), durability)
}

/// The same, and other records of the store with them.
pub fn commit_also(
    storage: &Arc<dyn Storage>,
    appends: &mut [(&mut Core, Prepared)],
    mut writes: Writes,
    durability: Durability,
) -> Result<()> {
    for (core, prepared) in appends.iter_mut() {
        core.write_append(prepared)?;
    }
    let mut dirty = Vec::with_capacity(appends.len());
    for (core, prepared) in appends.iter_mut() {
        let (first, end) = (prepared.first(), prepared.head.length);
        core.bits.set_range(first..end, true);
        core.dirty.head = true;
        dirty.push(core.stage(&prepared.head, &mut writes));
    }
    let files: Vec<_> = appends.iter().map(|(core, _)| core.files.clone()).collect();
    let files: Vec<_> = files.iter().collect();
    let done = storage.commit(writes, &files, durability);
    for ((core, prepared), dirty) in appends.iter_mut().zip(dirty) {
        if done.is_ok() {
            core.head = std::mem::take(&mut prepared.head);
            core.are_known(prepared.first()..core.head.length);
        } else {
            let unsure = done.as_ref().is_err_and(StorageError::is_unsure);
            core.claimed.fetch_or(unsure, Ordering::AcqRel);
            core.bits.set_range(prepared.first()..prepared.head.length, false);
            core.unstage(dirty);
        }
    }
    Ok(done?)
}

/// What a commit took as written, to be put back if it was not.
pub(super) struct Staged {
    dirty: Dirty,
    pages: BTreeSet<u64>,
}

impl Core {
    /// Appends blocks with one signature and one commit; returns the index of the first. Whoever may be asked
    /// for these blocks by others must append durably: a length that was shown to anyone must not be lost.
    pub fn append(&mut self, blocks: &[Bytes], durability: Durability) -> Result<u64> {
        self.append_also(blocks, Writes::default(), durability)
    }

    /// The same, and other records of the store with them.
    pub fn append_also(
        &mut self,
        blocks: &[Bytes],
        also: Writes,
        durability: Durability,
    ) -> Result<u64> {
        let prepared = self.prepare_append(blocks)?;
        let first = prepared.first();
        let storage = self.storage.clone();
        commit_also(&storage, &mut [(self, prepared)], also, durability)?;
        Ok(first)
    }

    /// Hashes, encrypts and signs blocks to be appended.
    pub fn prepare_append(&self, blocks: &[Bytes]) -> Result<Prepared> {
        self.check_writer()?;
        let base = (self.head.fork, self.head.length);
        let mut batch = Batch::new(&self.head);
        let offset = batch.byte_length();
        let blocks = grow(&mut batch, base.0, self.cipher.as_deref(), blocks)?;
        let (head, nodes) = self.finish(batch)?;
        Ok(Prepared { base, offset, head, nodes, blocks })
    }

    /// The head that a batch brings, signed, and its nodes.
    pub(super) fn finish(&self, batch: Batch) -> Result<(Head, Vec<Node>)> {
        let (mut head, nodes) = batch.finish();
        head.signature = match nodes.is_empty() {
            true => self.head.signature.clone(),
            false => self.sign(&head)?,
        };
        Ok((head, nodes))
    }

    pub(super) fn sign(&self, head: &Head) -> Result<Vec<u8>> {
        let pair = self.identity.key_pair.as_ref();
        let verifier = self.identity.verifier.as_ref();
        let signature = verifier.zip(pair).and_then(|(verifier, pair)| verifier.sign(head, pair));
        signature.ok_or(CoreError::ReadOnly)
    }

    /// Puts bytes and nodes of an append into the files. They lie past the head, where nobody looks.
    fn write_append(&mut self, prepared: &Prepared) -> Result<()> {
        self.check_following()?;
        if prepared.base != (self.head.fork, self.head.length) {
            return Err(CoreError::Stale);
        }
        if !prepared.blocks.is_empty() && self.appending.load(Ordering::Acquire) {
            return Err(CoreError::Busy);
        }
        self.give_up_tail()?;
        write_blocks(&self.files, prepared.offset, &prepared.blocks)?;
        for node in &prepared.nodes {
            self.nodes.put(node)?;
        }
        Ok(self.nodes.flush()?)
    }

    /// Puts everything that the store does not have yet into `writes`, with `head` as the core's head. Nodes
    /// must have been flushed.
    pub(super) fn stage(&mut self, head: &Head, writes: &mut Writes) -> Staged {
        self.commits += 1;
        let core = self.discovery_key;
        if self.dirty.identity {
            writes.put(Table::Cores, *core.as_bytes(), self.identity.encode());
        }
        self.dirty.head |= self.begin_stamp();
        if self.dirty.head {
            let stamp = self.stamp();
            writes.put(Table::Heads, *core.as_bytes(), encode_head(head, self.session, stamp));
        }
        if self.dirty.split {
            Records::change(writes, &histories_record(&core), Some(Vec::new()));
        }
        let pages = self.bits.take_dirty();
        for &page in &pages {
            match self.bits.encode_page(page) {
                Some(bytes) => writes.put(Table::Bits, page_key(&core, page), bytes),
                None => writes.delete(Table::Bits, page_key(&core, page)),
            }
        }
        Staged { dirty: std::mem::take(&mut self.dirty), pages }
    }

    /// [`Self::stage`] with the head that the core has.
    pub(super) fn stage_own(&mut self, writes: &mut Writes) -> Staged {
        self.stage(&self.head.clone(), writes)
    }

    pub(super) fn unstage(&mut self, staged: Staged) {
        self.dirty.identity |= staged.dirty.identity;
        self.dirty.head |= staged.dirty.head;
        self.dirty.split |= staged.dirty.split;
        self.dirty.fetched |= staged.dirty.fetched;
        self.bits.mark_dirty(staged.pages);
    }

    /// Whether the store does not have everything yet.
    pub fn has_changes(&self) -> bool {
        let Dirty { identity, head, split, .. } = self.dirty;
        let files = self.nodes.is_dirty()
            || self.files.are_touched()
            || self.soundness.borrow().is_settled();
        identity || head || split || self.bits.is_dirty() || files
    }

    /// Commits what waits in memory: bits and heads that came from peers. Durable, it also makes everything
    /// durable that was committed before; that waits for the device, so a busy core had better be flushed with
    /// [`Self::begin_flush`].
    pub fn flush(&mut self, durability: Durability) -> Result<()> {
        if !self.has_changes() && durability == Durability::Buffered {
            return Ok(());
        }
        self.check_following()?;
        self.nodes.flush()?;
        let mut writes = Writes::default();
        let staged = self.stage_own(&mut writes);
        let done = self.storage.commit(writes, &[&self.files], durability);
        if done.is_err() {
            self.unstage(staged);
        }
        Ok(done?)
    }

    /// First step of a durable flush that does not hold the core while its files are synced:
    ///
    /// ```text
    /// let flush = core.lock().begin_flush()?;   // None: nothing to do
    /// let synced = flush.sync();                // slow, no lock
    /// core.lock().finish_flush(flush, synced)?;
    /// ```
    pub fn begin_flush(&mut self) -> Result<Option<Flush>> {
        // What comes while a fork is being stored waits for the next flush.
        if !self.has_changes() || self.following {
            return Ok(None);
        }
        self.nodes.flush()?;
        let mut writes = Writes::default();
        let staged = self.stage_own(&mut writes);
        let (storage, files) = (self.storage.clone(), self.files.clone());
        Ok(Some(Flush { writes, staged, storage, files, commits: self.commits }))
    }

    /// Last step: commits what the files were synced for. What came in between waits for the next flush.
    pub fn finish_flush(
        &mut self,
        flush: Flush,
        synced: std::result::Result<(), StorageError>,
    ) -> Result<()> {
        let Flush { writes, staged, commits, files, .. } = flush;
        let synced = synced.and_then(|()| files.check_place());
        if commits != self.commits || synced.is_err() {
            // The store has newer records than this snapshot; the next flush takes a new one.
            self.unstage(staged);
            return Ok(synced?);
        }
        let done = self.storage.commit(writes, &[], Durability::Durable);
        if done.is_err() {
            self.unstage(staged);
        }
        Ok(done?)
    }
}

/// A durable flush under way.
pub struct Flush {
    writes: Writes,
    staged: Staged,
    storage: Arc<dyn Storage>,
    files: Arc<CoreFiles>,
    commits: u64,
}

impl Flush {
    /// Waits until the device has the files' bytes.
    pub fn sync(&self) -> std::result::Result<(), StorageError> {
        self.storage.sync_files(&self.files)
    }
}

/// Appends blocks to a batch and returns them as they are stored: encrypted where the core is.
pub(super) fn grow(
    batch: &mut Batch,
    fork: u64,
    cipher: Option<&BlockCipher>,
    blocks: &[Bytes],
) -> Result<Vec<Bytes>> {
    if let Some(block) = blocks.iter().find(|block| block.len() as u64 > MAX_BLOCK_SIZE) {
        return Err(CoreError::BlockTooLarge(block.len() as u64));
    }
    let stored: Vec<Bytes> = match cipher {
        Some(cipher) => (batch.length()..)
            .zip(blocks)
            .map(|(index, block)| cipher.encrypt(index, fork, block).into())
            .collect(),
        None => blocks.to_vec(),
    };
    for (block, leaf) in stored.iter().zip(hash::leaves(&stored)) {
        batch.push(block.len() as u64, leaf);
    }
    Ok(stored)
}

/// Writes blocks one after the other from a byte offset.
pub(super) fn write_blocks(
    files: &CoreFiles,
    mut offset: u64,
    blocks: &[Bytes],
) -> std::result::Result<(), StorageError> {
    let total: usize = blocks.iter().map(Bytes::len).sum();
    if total == 0 {
        return Ok(());
    }
    if total / blocks.len() >= SMALL {
        let mut slices: Vec<_> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        return files.blocks.write_slices_at(offset, &mut slices);
    }
    let mut joined = Vec::with_capacity(total.min(4 << 20));
    for block in blocks {
        if joined.len() + block.len() > joined.capacity() && !joined.is_empty() {
            files.blocks.write_at(offset, &joined)?;
            offset += joined.len() as u64;
            joined.clear();
        }
        joined.extend_from_slice(block);
    }
    files.blocks.write_at(offset, &joined)
}
