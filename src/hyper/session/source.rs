//! An open core as a source of blocks and a log: what is here at once, the rest by a wish and a wait.

use super::append::Appending;
use super::waiters::Awaited;
use super::wish::Wish;
use super::{CoreHandle, lock, storage};
use crate::hyper::core::storage::{Durability, Writes};
use crate::hyper::core::tree::SeekResult;
use crate::hyper::core::{BlockPlace, Reading};
use crate::hyper::source::{Append, BlockLog, BlockSource, BoxFuture, SourceError};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Prefetched blocks in a row from which on they are a range; fewer are hints, each for itself. A range costs
/// the hub a look for every request it makes, so a thousand of one block each would be slow.
const MIN_RUN: usize = 16;

/// Blocks that are looked at in one go; between two the caller may give up.
const LOOKS: usize = 64;

impl BlockSource for CoreHandle {
    fn length(&self) -> u64 {
        self.0.version.borrow().length
    }

    fn fork(&self) -> u64 {
        self.0.version.borrow().fork
    }

    fn byte_length(&self) -> u64 {
        self.core().byte_length()
    }

    fn has(&self, index: u64) -> bool {
        self.core().has(index)
    }

    /// What was not looked at yet is looked at, so that this is true.
    fn has_all(&self, blocks: Range<u64>) -> bool {
        let mut next = Some(blocks.start);
        loop {
            {
                let core = self.core();
                if blocks.end > core.length() || core.next_missing(blocks.clone()).is_some() {
                    return false;
                }
                next = next.and_then(|from| core.next_unproven(from..blocks.end));
            }
            let Some(from) = next else { return true };
            match self.look_at_some(from..blocks.end) {
                Ok(more) => next = more,
                Err(_) => return false,
            }
        }
    }

    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError> {
        self.check_history()?;
        if let Some(block) = self.0.cache.get(self.0.id, index) {
            return Ok(Some(block));
        }
        // Blocks that a clear takes away between the look and the read are looked for once more.
        let mut block = None;
        for _ in 0..2 {
            let (place, lost) = {
                let mut core = self.core();
                if index >= core.length() && core.writable() {
                    return Err(SourceError::OutOfRange { index, length: core.length() });
                }
                let place = core.locate(index).map_err(storage)?;
                let lost = if place.is_none() { core.heed() } else { Vec::new() };
                (place, lost)
            };
            let Some(place) = place else {
                self.announce_lost(lost);
                return Ok(None);
            };
            let reading = place.read().map_err(storage)?;
            if place.is_doubtful() || reading == Reading::Lost {
                self.judge(&place, reading != Reading::Lost);
            }
            match reading {
                Reading::Block(bytes) => {
                    block = Some(bytes);
                    break;
                }
                Reading::Moved => {}
                Reading::Lost => return Ok(None),
            }
        }
        if let Some(block) = &block {
            self.0.cache.insert(self.0.id, index, block.clone());
        }
        Ok(block)
    }

    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>> {
        match self.try_block(index) {
            Ok(Some(block)) => Box::pin(std::future::ready(Ok(block))),
            Ok(None) => Box::pin(self.clone().fetch(index)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn prefetch(&self, indexes: &[u64]) {
        let mut start = 0;
        while let Some(&first) = indexes.get(start) {
            let run = indexes[start..].iter().zip(first..).take_while(|(i, n)| **i == *n).count();
            match run {
                MIN_RUN.. => self.prefetch_range(first, first + run as u64),
                _ => self.hint(first..first + run as u64),
            }
            start += run;
        }
    }

    fn prefetch_range(&self, start: u64, end: u64) {
        let Some(first) = self.core().next_missing(start..end) else { return };
        let core = self.0.discovery_key;
        let id = self.next_range();
        if let Some(id) = lock(&self.0.hints).add_range(id) {
            self.wish(Wish::ForgetRange { core, id });
        }
        self.wish(Wish::Range { core, id, range: first..end, linear: true });
    }

    fn release(&self, index: u64) {
        self.0.cache.remove(self.0.id, index);
    }

    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>> {
        let handle = self.clone();
        Box::pin(async move {
            loop {
                handle.check_history()?;
                let mut waiter = handle.waiter(Awaited::Seek(byte));
                match handle.core().seek(byte).map_err(storage)? {
                    SeekResult::Found { block, offset } => return Ok((block, offset)),
                    SeekResult::Need { .. } => {}
                    SeekResult::PastEnd => {
                        let length = handle.length();
                        return Err(SourceError::OutOfRange { index: length, length });
                    }
                }
                waiter.ask(Wish::Seek { core: handle.discovery_key(), bytes: byte });
                waiter.wait(byte).await?;
            }
        })
    }

    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError> {
        self.core().block_offset(index).map_err(storage)
    }
}

impl BlockLog for CoreHandle {
    fn writable(&self) -> bool {
        self.core().writable()
    }

    fn append(&self, blocks: Vec<Bytes>) -> Result<u64, SourceError> {
        self.append_also(blocks, Writes::default())
    }

    fn append_also(&self, blocks: Vec<Bytes>, also: Writes) -> Result<u64, SourceError> {
        if !self.writable() {
            return Err(SourceError::ReadOnly);
        }
        let first = {
            let _turn = self.0.appending.take();
            self.core().append_also(&blocks, also, Durability::Durable).map_err(storage)?
        };
        self.announce_change();
        Ok(first)
    }

    fn begin(self: Arc<Self>) -> Result<Box<dyn Append + Send>, SourceError> {
        if !self.writable() {
            return Err(SourceError::ReadOnly);
        }
        Ok(Box::new(Appending::begin((*self).clone())?))
    }
}

impl CoreHandle {
    /// Takes note whether a block is what was found at its place.
    fn judge(&self, place: &BlockPlace, is_there: bool) {
        let lost = {
            let mut core = self.core();
            core.judge(place, is_there);
            core.heed()
        };
        self.announce_lost(lost);
    }

    /// Blocks turned out not to be here.
    fn announce_lost(&self, lost: Vec<u64>) {
        for block in lost {
            self.announce_cleared(block..block + 1);
        }
    }

    /// Looks at what is here of a range and was not looked at yet, so that it can be said whether all of it is here.
    pub async fn look_at(&self, range: Range<u64>) -> Result<(), SourceError> {
        let mut next = self.core().next_unproven(range.clone());
        while let Some(first) = next {
            let (handle, end) = (self.clone(), range.end);
            let look = tokio::task::spawn_blocking(move || handle.look_at_some(first..end));
            next = look.await.map_err(|_| SourceError::Closed)??;
        }
        Ok(())
    }

    /// Looks at a few blocks; gives the next that is to be looked at.
    fn look_at_some(&self, range: Range<u64>) -> Result<Option<u64>, SourceError> {
        let mut from = range.start;
        for _ in 0..LOOKS {
            let (place, lost) = {
                let mut core = self.core();
                let Some(block) = core.next_unproven(from..range.end) else { return Ok(None) };
                from = block + 1;
                (core.locate(block).map_err(storage)?, core.heed())
            };
            self.announce_lost(lost);
            if let Some(place) = place {
                let is_there = place.is_there().map_err(storage)?;
                self.judge(&place, is_there);
            }
        }
        Ok(self.core().next_unproven(from..range.end))
    }

    async fn fetch(self, index: u64) -> Result<Bytes, SourceError> {
        self.reaches(index).await?;
        loop {
            // Registered before the look, so that a block that arrives in between wakes us.
            let mut waiter = self.waiter(Awaited::Block(index));
            if let Some(block) = self.try_block(index)? {
                return Ok(block);
            }
            waiter.ask(Wish::Block { core: self.discovery_key(), index, urgent: true });
            // Which the local store did not take, but for that nobody has to wait longer.
            let patience = self.patience();
            let lost = self.core().is_lost(index);
            let limit = if lost { self.0.patience.lost.min(patience) } else { patience };
            match waiter.wait_within(index, limit).await {
                Ok(Some(block)) => return Ok(block),
                Ok(None) => {}
                Err(SourceError::TimedOut(_)) if lost => return Err(SourceError::Lost(index)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for a few blocks that nobody waits for yet.
    fn hint(&self, blocks: Range<u64>) {
        let core = self.0.discovery_key;
        let missing: Vec<u64> = {
            let here = self.core();
            blocks.filter(|&index| index < here.length() && !here.has(index)).collect()
        };
        for index in missing {
            let (new, excess) = {
                let mut hints = lock(&self.0.hints);
                (hints.add(index), hints.excess())
            };
            if new {
                self.wish(Wish::Block { core, index, urgent: false });
            }
            if let Some(index) = excess {
                self.wish(Wish::ForgetBlock { core, index });
            }
        }
    }
}
