//! Whether what the files hold is what was verified when it was put there.
//!
//! A bit says that a block is here, and its bytes are given to readers and peers without being hashed again. That is
//! right as long as nobody but us wrote to the files. They may have been put back from a backup, copied while they were
//! written, cut or punched, or the database alone may have been put back: then there are zeros, or the bytes of another
//! time, where a bit says that a block is. So a core's record holds what its files were when they held all that it
//! speaks of ([`CoreStamp`]). Where they are something else when the core is opened:
//!
//! - the tree is hashed up to the roots at once, for everything else rests on it ([`super::scrub`]);
//! - blocks that lie in holes, or past the end of the file, are looked at at once, so that counts are right;
//! - every other block is hashed before its first use, be it by a reader or by a peer. Until all have been, the record
//!   says of the files that they are not known, and the next opening does the same.
//!
//! Somebody may do the same while the core is open. So the files are looked at before and after each change of ours
//! (`storage::file`): where they are not what we left, the record says no more that they are known, and the next opening
//! looks at everything. Where what is at their paths is another file, or none, no change is made (`storage::identity`).
//!
//! A block that is not what it should be is not here any more, and is asked of peers like any other. The same goes for
//! one whose bytes or nodes turn out to be missing at any other time.
//!
//! What lies past the head of a core of ours in a store that may be an older copy is left alone until the core grows: it
//! may be what a newer copy of the database speaks of.

use super::bitfield::Bitfield;
use super::place::{self, BlockPlace};
use super::storage::CoreStamp;
use super::tree::{self, Node, NodeSource};
use super::{Core, Result};
use crate::crypto::{Hash, hash};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Somebody was told that files were changed while they were open. A process has one store, and whoever does something
/// to its files does it to many.
static TOLD_MEDDLING: AtomicBool = AtomicBool::new(false);

/// What is known of a core's files besides what its records say.
#[derive(Default)]
pub(super) struct Soundness {
    /// Blocks that are here by their bits, and were not looked at since the core was opened.
    unproven: Bitfield,
    /// Blocks that turned out not to be here.
    lost: Vec<u64>,
    /// Blocks that were said to be here when the core was opened, or turned out not to be later.
    claimed: Bitfield,
    /// Somebody was told of that.
    told: bool,
    /// What the files were when we looked last after a change of ours.
    stamp: Option<CoreStamp>,
    /// All blocks have been looked at since the record was written last.
    settled: bool,
    /// What lies past the head may be of use to a newer copy of the records.
    pub(super) foreign_tail: bool,
}

impl Soundness {
    /// Nothing of these blocks need be looked at any more.
    fn prove(&mut self, blocks: Range<u64>) {
        if self.unproven.count() > 0 {
            self.unproven.set_range(blocks, false);
            self.settled |= self.unproven.count() == 0;
        }
    }

    pub(super) fn give_up_tail(&mut self) {
        self.settled |= std::mem::take(&mut self.foreign_tail);
    }

    fn tell_meddling() {
        if !TOLD_MEDDLING.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "files of the store were changed by somebody else while hdrive had them open; what is in them is \
                 checked when hdrive is started again"
            );
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }
}

impl Core {
    /// Whether the files are what the record says that they were.
    pub(super) fn has_own_files(&mut self, stamp: Option<CoreStamp>) -> bool {
        // Of a core of which nothing is known there are none, whoever wrote the record.
        let stamp = stamp.or((self.head.length == 0).then(CoreStamp::default));
        // Looked at whatever the record says: what is done to them from here on is not what we leave.
        let found = self.files.first_stamp().ok();
        let is_own = stamp.is_some() && stamp == found;
        self.soundness.get_mut().stamp = stamp.filter(|_| is_own);
        is_own
    }

    /// Whether the record is to say something else of the files than it does.
    pub(super) fn begin_stamp(&mut self) -> bool {
        let (touched, soundness) = (self.files.begin_stamp(), self.soundness.get_mut());
        let anew = touched | std::mem::take(&mut soundness.settled);
        if anew {
            soundness.stamp = None;
        }
        anew
    }

    /// What the record is to say of the files: nothing as long as something of them is not known. What somebody else did
    /// to them since we changed them last is not vouched for.
    pub(super) fn stamp(&self) -> Option<CoreStamp> {
        let soundness = &mut *self.soundness.borrow_mut();
        if soundness.unproven.count() > 0 || soundness.foreign_tail {
            return None;
        }
        if soundness.stamp.is_none() {
            // Tells as well whether they are what we left.
            let now = self.files.stamp().ok();
            soundness.stamp = now.filter(|_| !self.files.are_meddled_with());
            if now.is_some() && soundness.stamp.is_none() {
                Soundness::tell_meddling();
            }
        }
        soundness.stamp
    }

    /// From here on every block that is here is hashed before its first use; those without bytes are given up. The tree
    /// must be known to be right. `claimed` are the blocks that were said to be here.
    pub(super) fn doubt_blocks(&mut self, claimed: Bitfield) -> Result<()> {
        for block in self.blocks_in_holes()? {
            self.bits.set(block, false);
        }
        self.tell_loss(claimed.count_range(0..self.head.length) - self.bits.count());
        let soundness = self.soundness.get_mut();
        soundness.unproven = self.bits.clone();
        soundness.claimed = claimed;
        Ok(())
    }

    /// Whether a block should be here and is not, as far as that can be told: ours should all be.
    pub fn is_lost(&self, block: u64) -> bool {
        let claimed = || self.writable || self.soundness.borrow().claimed.get(block);
        block < self.head.length && !self.bits.get(block) && claimed()
    }

    /// The first block of the range that is here and must be looked at before it is used.
    pub fn next_unproven(&self, range: Range<u64>) -> Option<u64> {
        let first = self.soundness.borrow().unproven.next_set(range.start);
        first.filter(|&block| block < range.end)
    }

    /// The hash that the bytes of a block must have, if they must be looked at.
    pub(super) fn expected(&self, block: u64) -> Result<Option<Hash>> {
        match self.soundness.borrow().unproven.get(block) {
            true => Ok(self.leaf(block)?.map(|leaf| leaf.hash)),
            false => Ok(None),
        }
    }

    fn leaf(&self, block: u64) -> Result<Option<Node>> {
        let root = self.head.roots.iter().find(|root| root.index == 2 * block);
        match root {
            Some(root) => Ok(Some(*root)),
            None => Ok(self.view().node(2 * block)?),
        }
    }

    /// Whether what was read at a block's place is the block. One that is not will not be here after [`Self::heed`].
    pub fn judge(&self, place: &BlockPlace, is_there: bool) {
        // Located before blocks were taken away: it says nothing of what is there now.
        if !place.is_current() {
            return;
        }
        match is_there {
            true if place.expected.is_none() => {}
            true => self.soundness.borrow_mut().prove(place.block..place.block + 1),
            false => self.note_lost(place.block),
        }
    }

    pub(super) fn note_lost(&self, block: u64) {
        self.soundness.borrow_mut().lost.push(block);
    }

    /// Gives up blocks that turned out not to be here, and says which.
    pub fn heed(&mut self) -> Vec<u64> {
        let soundness = self.soundness.get_mut();
        let mut lost = std::mem::take(&mut soundness.lost);
        lost.retain(|&block| self.bits.set(block, false));
        if lost.is_empty() {
            return lost;
        }
        for &block in &lost {
            soundness.prove(block..block + 1);
            soundness.claimed.set(block, true);
        }
        // Nobody who located one before may trust what he reads there, which may be written meanwhile.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cursor.take();
        self.next_write = None;
        self.tell_loss(lost.len() as u64);
        lost
    }

    fn tell_loss(&mut self, blocks: u64) {
        if blocks > 0 && !std::mem::replace(&mut self.soundness.get_mut().told, true) {
            tracing::debug!(core = ?self.discovery_key, blocks, "not what the store should hold");
            tracing::warn!(
                "a part of what this store held is missing or damaged, as after a backup was put back; it is asked of \
                 peers again"
            );
        }
    }

    /// These blocks were written by us, or are not here any more.
    pub(super) fn are_known(&mut self, blocks: Range<u64>) {
        let soundness = self.soundness.get_mut();
        soundness.lost.retain(|block| !blocks.contains(block));
        soundness.prove(blocks);
    }

    /// Whether there is anything past the head that a newer copy of the records may speak of.
    pub(super) fn has_foreign_tail(&self) -> Result<bool> {
        let is_copy = self.storage.doubts().copied.is_some();
        if !is_copy || !self.writable {
            return Ok(false);
        }
        let blocks = self.files.blocks.reaches(self.head.byte_length().saturating_add(1))?;
        Ok(blocks || self.nodes.reach_past(self.head.length)?)
    }

    /// To be called before anything is written past the head.
    pub(super) fn give_up_tail(&self) -> Result<()> {
        if self.soundness.borrow().foreign_tail {
            self.nodes.truncate(self.head.length)?;
            self.files.blocks.truncate(self.head.byte_length())?;
            self.soundness.borrow_mut().give_up_tail();
        }
        Ok(())
    }

    /// Blocks whose bytes are holes, in part or all of them, or past the end of the file, and that are not zeros.
    fn blocks_in_holes(&self) -> Result<Vec<u64>> {
        let mut lost = Vec::new();
        let mut cursor = tree::SpanCursor::default();
        let mut zeros = HashMap::new();
        let mut data = Some(0..0);
        let mut next = self.bits.next_set(0);
        while let Some(block) = next.filter(|&block| block < self.head.length) {
            next = self.bits.next_set(block + 1);
            let Some((offset, size)) = cursor.span(&self.head, &self.view(), block)? else {
                lost.push(block);
                continue;
            };
            let end = offset.saturating_add(size);
            while let Some(run) = data.as_ref().filter(|run| run.end <= offset) {
                data = self.files.blocks.data_after(offset.max(run.end))?;
            }
            if size == 0 || data.as_ref().is_some_and(|run| run.start <= offset && end <= run.end) {
                continue;
            }
            let leaf = self.leaf(block)?.map(|leaf| leaf.hash);
            let in_hole = data.as_ref().is_none_or(|run| end <= run.start);
            let there = match in_hole {
                // A file of zeros may be one hole: of each size they are hashed once.
                true if self.files.blocks.reaches(end)? => {
                    let zero = || hash::leaf(&vec![0; size as usize]);
                    leaf == Some(*zeros.entry(size).or_insert_with(zero))
                }
                true => false,
                false => {
                    let bytes = place::read_exact(&self.files, offset, size)?;
                    bytes.is_some_and(|bytes| leaf == Some(hash::leaf(&bytes)))
                }
            };
            if !there {
                lost.push(block);
            }
        }
        Ok(lost)
    }

    /// The bytes of a block that is here, looked at if they must be.
    pub(super) fn read_here(&self, block: u64) -> Result<Option<(BlockPlace, Bytes)>> {
        let Some(place) = self.locate(block)? else { return Ok(None) };
        let bytes = place.read_bytes()?;
        self.judge(&place, bytes.is_some());
        Ok(bytes.map(|bytes| (place, bytes)))
    }
}
