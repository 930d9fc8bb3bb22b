//! Taking blocks away: truncation by the writer, following a fork, clearing.
//!
//! The records lose them first, durably; only then may their bytes be freed or overwritten.

use super::storage::{Durability, Writes};
use super::tree::{self, Head, Reorg};
use super::{Core, CoreError, Result};
use std::ops::Range;
use std::sync::atomic::Ordering;

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

    /// Follows a fork that was verified. Durable.
    pub(super) fn install_reorg(&mut self, reorg: &Reorg) -> Result<()> {
        self.replace_head(reorg.head.clone(), reorg.ancestors)?;
        for node in &reorg.nodes {
            self.nodes.put(node)?;
        }
        // A kept block must be readable from now on, also by whoever opens the core after us.
        self.nodes.flush()?;
        Ok(())
    }

    /// Makes `head` the core's head, of which the first `kept` blocks are ours still.
    fn replace_head(&mut self, head: Head, kept: u64) -> Result<()> {
        let end = tree::byte_offset(&self.head, &self.view(), 2 * kept)?;
        let gone = self.set_ranges(kept..u64::MAX);
        let old = std::mem::replace(&mut self.head, head);
        self.dirty.head = true;
        if let Err(error) = self.commit_removal(&gone) {
            self.head = old;
            return Err(error);
        }
        self.nodes.truncate(kept)?;
        if let Some(end) = end {
            self.files.blocks.truncate(end)?;
        }
        Ok(())
    }

    /// Gives back the space of blocks; they can be fetched again. The tree keeps their hashes. Durable.
    /// Returns how many blocks were here.
    pub fn clear(&mut self, range: Range<u64>) -> Result<u64> {
        self.clear_all(&[range])
    }

    /// [`Self::clear`] for many ranges in one commit.
    pub fn clear_all(&mut self, ranges: &[Range<u64>]) -> Result<u64> {
        let gone: Vec<_> = ranges.iter().flat_map(|range| self.set_ranges(range.clone())).collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let mut spans = Vec::with_capacity(gone.len());
        for blocks in &gone {
            let (start, _) = self.span(blocks.start)?;
            let (last, size) = self.span(blocks.end - 1)?;
            spans.push(start..last + size);
        }
        let before = self.bits.count();
        self.commit_removal(&gone)?;
        for span in spans {
            self.files.blocks.punch(span.start, span.end - span.start)?;
        }
        Ok(before - self.bits.count())
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

    /// Commits durably that these blocks are not here, along with the head.
    fn commit_removal(&mut self, gone: &[Range<u64>]) -> Result<()> {
        self.nodes.flush()?;
        // From here on nobody who located a block before may trust what is read.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.cursor.take();
        self.next_write = None;
        for blocks in gone {
            self.bits.set_range(blocks.clone(), false);
        }
        let mut writes = Writes::default();
        let staged = self.stage_own(&mut writes);
        let done = self.storage.commit(writes, &[&self.files], Durability::Durable);
        if done.is_err() {
            for blocks in gone {
                self.bits.set_range(blocks.clone(), true);
            }
            self.unstage(staged);
        }
        Ok(done?)
    }
}
