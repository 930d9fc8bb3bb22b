//! Taking blocks away: truncation by the writer and clearing; [`super::follow`] does it for a fork.
//!
//! The records lose them first, durably; only then may their bytes be freed or overwritten. Freeing many takes long,
//! so it goes in steps ([`Core::free_missing`]), between which others get at the core. It goes by what is missing, not
//! by what was cleared: what a killed process had no time for is freed by the next one.

use super::commit::Staged;
use super::storage::{CoreFiles, Durability, Storage, Writes};
use super::tree::{self, Head};
use super::{Core, CoreError, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Holes punched in one step. One takes 0.25 ms on ext4, and up to 3 while others keep the disk busy.
const STEP_HOLES: usize = 4;
/// Gaps looked at in one step, most of which have nothing to free.
const STEP_GAPS: usize = 1024;
/// Blocks freed by one hole at most; with the blocks of files 256 MiB.
const HOLE_BLOCKS: u64 = 4096;

/// How far freeing came.
#[derive(Debug, Default)]
pub struct FreeStep {
    /// The block to go on from, if there is more.
    pub next: Option<u64>,
    /// The first hole that could not be punched; the others were tried.
    pub failed: Option<CoreError>,
}

impl Core {
    /// Cuts the core at `length` blocks and signs that as `fork`, which must be above the current one. Durable.
    ///
    /// # Errors
    /// [`CoreError::BadTruncate`] if the core is shorter or its fork not lower.
    pub fn truncate(&mut self, length: u64, fork: u64) -> Result<()> {
        self.check_writer()?;
        self.check_tail()?;
        let at = &self.head;
        let bad = CoreError::BadTruncate { to: length, fork, length: at.length, at: at.fork };
        if fork <= at.fork {
            return Err(bad);
        }
        let roots = tree::truncated_roots(at, &self.view(), length)?.ok_or(bad)?;
        let mut head = Head { fork, length, roots, signature: Vec::new() };
        head.signature = self.sign(&head)?;
        self.replace_head(head, length)
    }

    /// Makes `head` the core's head, of which the first `kept` blocks are ours still.
    fn replace_head(&mut self, head: Head, kept: u64) -> Result<()> {
        let end = self.raw_offset(kept)?;
        let gone = kept..u64::MAX;
        let mut removal = self.begin_removal(&[gone], Some(&head))?;
        let done = removal.commit();
        self.end_removal(removal, done)?;
        self.cut(head, kept, end)
    }

    /// Takes a head that the store has, of which the first `kept` blocks are ours; their bytes end at `end`.
    pub(super) fn cut(&mut self, head: Head, kept: u64, end: Option<u64>) -> Result<()> {
        self.head = head;
        self.nodes.truncate(kept)?;
        self.soundness.get_mut().give_up_tail();
        match end {
            Some(end) => Ok(self.files.blocks.truncate(end)?),
            None => Ok(()),
        }
    }

    /// Gives back the space of blocks; they can be fetched again. The tree keeps their hashes. Durable.
    /// Returns how many blocks were here.
    pub fn clear(&mut self, range: Range<u64>) -> Result<u64> {
        let cleared = self.forget_blocks(&[range])?;
        let (mut next, mut failed) = (Some(0).filter(|_| cleared > 0), None);
        while let Some(from) = next {
            let step = self.free_missing(from)?;
            next = step.next;
            failed = failed.or(step.failed);
        }
        failed.map_or(Ok(cleared), Err)
    }

    /// Commits durably that these blocks are not here, and all else that is in memory. Their bytes are still to be
    /// [freed](Self::free_missing). Returns how many were here.
    pub fn forget_blocks(&mut self, ranges: &[Range<u64>]) -> Result<u64> {
        self.check_following()?;
        let before = self.bits.count();
        let mut removal = self.begin_removal(ranges, None)?;
        let done = removal.commit();
        self.end_removal(removal, done)?;
        Ok(before - self.bits.count())
    }

    /// One step of giving back the space of what is not here, from block `from` on. Only after
    /// [`Self::forget_blocks`]: the device must not say that it is here.
    pub fn free_missing(&mut self, mut from: u64) -> Result<FreeStep> {
        // The device says until then that what a fork takes away is here.
        self.check_following()?;
        let length = self.head.length;
        let mut step = FreeStep::default();
        let mut holes = 0;
        for _ in 0..STEP_GAPS {
            let start = self.bits.next_unset(from);
            if start >= length {
                return Ok(step);
            }
            if holes == STEP_HOLES {
                break;
            }
            let end = self.bits.next_set(start).unwrap_or(length).min(length);
            from = end;
            let Some(first) = self.gap_start(start)? else { continue };
            let cut = start.saturating_add(HOLE_BLOCKS);
            let last = match end {
                end if cut < end
                    && let Some(last) = self.raw_offset(cut)? =>
                {
                    from = cut;
                    last
                }
                end if end == length => self.head.byte_length(),
                end => self.span(end)?.0,
            };
            let len = last.saturating_sub(first);
            if self.files.blocks.holds(first, len)? {
                holes += 1;
                if let Err(error) = self.files.blocks.punch(first, len) {
                    step.failed.get_or_insert(error.into());
                }
            }
        }
        step.next = Some(from);
        Ok(step)
    }

    /// Where the bytes of a block that is not here would begin, if that can be told.
    fn gap_start(&self, block: u64) -> Result<Option<u64>> {
        match block.checked_sub(1).filter(|&before| self.bits.get(before)) {
            Some(before) => self.span(before).map(|(offset, size)| Some(offset + size)),
            None => self.raw_offset(block),
        }
    }

    pub(super) fn raw_offset(&self, block: u64) -> Result<Option<u64>> {
        Ok(tree::byte_offset(&self.head, &self.view(), 2 * block)?)
    }

    /// The runs of blocks within a range that are here.
    fn set_ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = Vec::new();
        let mut from = range.start;
        while let Some(start) = self.bits.next_set(from).filter(|&start| start < range.end) {
            let end = self.bits.next_unset(start).min(range.end);
            runs.push(start..end);
            from = end;
        }
        runs
    }

    /// First step of taking blocks away: they are not here any more, and the caller is to commit that, with `head` as
    /// the core's head if there is another.
    pub(super) fn begin_removal(
        &mut self,
        ranges: &[Range<u64>],
        head: Option<&Head>,
    ) -> Result<Removal> {
        self.nodes.flush()?;
        // From here on nobody who located a block before may trust what is read.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cursor.take();
        self.next_write = None;
        let gone: Vec<_> = ranges.iter().flat_map(|range| self.set_ranges(range.clone())).collect();
        for blocks in &gone {
            self.bits.set_range(blocks.clone(), false);
        }
        let mut writes = Writes::default();
        self.dirty.head |= head.is_some();
        let head = head.unwrap_or(&self.head).clone();
        let staged = self.stage(&head, &mut writes);
        let (storage, files) = (self.storage.clone(), self.files.clone());
        Ok(Removal { gone, writes, staged, storage, files })
    }

    /// Last step: where the commit failed they are here still.
    pub(super) fn end_removal(&mut self, removal: Removal, done: Result<()>) -> Result<()> {
        if done.is_err() {
            for blocks in removal.gone {
                self.bits.set_range(blocks, true);
            }
            self.unstage(removal.staged);
        } else {
            removal.gone.into_iter().for_each(|blocks| self.are_known(blocks));
        }
        done
    }
}

/// Blocks that the core does not show any more, and that the device may still say to be here.
pub(super) struct Removal {
    gone: Vec<Range<u64>>,
    writes: Writes,
    staged: Staged,
    storage: Arc<dyn Storage>,
    files: Arc<CoreFiles>,
}

impl Removal {
    /// Commits durably that they are not. Needs no lock on the core, and waits for the device.
    pub(super) fn commit(&mut self) -> Result<()> {
        let writes = std::mem::take(&mut self.writes);
        Ok(self.storage.commit(writes, &[&self.files], Durability::Durable)?)
    }
}
