//! What was done to a bee, block by block.
//!
//! Source: hyperbee/iterators/history.js

use super::{Bee, BeeError, Entry, Result, entry};

/// Blocks that are asked for ahead.
const AHEAD: u64 = 512;

/// One operation of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Entry),
    /// The value is empty.
    Delete(Entry),
}

/// A walk along the log; see [`Bee::history`].
pub struct History {
    bee: Bee,
    next: u64,
    asked: u64,
}

impl History {
    pub(super) fn new(bee: Bee, from: u64) -> Self {
        let next = from.max(1);
        Self { bee, next, asked: next }
    }

    /// The next operation; `None` at the end of the version.
    pub async fn next(&mut self) -> Result<Option<Change>> {
        let (seq, version) = (self.next, self.bee.version());
        if seq >= version {
            return Ok(None);
        }
        if self.asked < version && seq + AHEAD / 2 >= self.asked {
            let end = version.min(seq + AHEAD);
            self.bee.source.prefetch_range(self.asked, end);
            self.asked = end;
        }
        let block = self.bee.block(seq).await?;
        self.next += 1;
        let deletion = block.is_deletion(seq).map_err(|what| BeeError::Damaged { seq, what })?;
        let entry = entry(seq, &block);
        Ok(Some(if deletion { Change::Delete(entry) } else { Change::Put(entry) }))
    }
}
