//! What bee, blobs and drive read from and append to: a log of plaintext blocks.
//!
//! The session of an open core implements both traits; tests implement them over a vector.

pub mod local;
pub mod memory;

use crate::hyper::core::storage::Writes;
use bytes::Bytes;
use std::any::Any;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a block could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// No peer answered in time.
    #[error("a part of it did not arrive in time: no connected peer sent it")]
    TimedOut(u64),
    /// It was here, or should be, and no peer answered in time.
    #[error(
        "a part of it is missing from this store, as after an incomplete backup was put back, and no peer sent it: \
         try again while somebody who has the drive can be reached, or put a complete backup back"
    )]
    Lost(u64),
    /// The index is at or past the length.
    #[error("a part of it is past the end of what was published (part {index} of {length})")]
    OutOfRange { index: u64, length: u64 },
    /// The core was closed (unmount, shutdown) while waiting.
    #[error("the drive was closed")]
    Closed,
    /// So much is asked for already, with nobody to ask yet, that this was not taken.
    #[error("too much is being asked for, and the network does not run yet: try again later")]
    Refused,
    /// Appending without the secret key.
    #[error("the drive cannot be changed here")]
    ReadOnly,
    /// The writer went on from an old copy of its store: peers have two versions of the same blocks.
    #[error(
        "two different histories of it were published under the same key, and it cannot be told which one is right: \
         ask who writes it"
    )]
    TwoHistories,
    /// Local storage failed or holds damaged data.
    #[error("local storage: {0}")]
    Storage(String),
    /// Local storage has no room; once it has, the same call works.
    #[error("local storage: {0}")]
    DiskFull(String),
}

/// Blocks of a core, local or fetched. Blocks come decrypted and verified.
pub trait BlockSource: Send + Sync + 'static {
    /// Length in blocks, as verified.
    fn length(&self) -> u64;
    fn fork(&self) -> u64;
    /// Sum of plaintext block sizes.
    fn byte_length(&self) -> u64;
    /// The block if it is here, without waiting for anyone.
    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError>;
    /// Whether the block is here. Worth overriding where that is cheaper than reading it.
    fn has(&self, index: u64) -> bool {
        matches!(self.try_block(index), Ok(Some(_)))
    }
    /// Whether all of these blocks are here.
    fn has_all(&self, mut blocks: Range<u64>) -> bool {
        blocks.all(|index| self.has(index))
    }
    /// The block; asks peers for it and waits up to the source's own deadline.
    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>>;
    /// Starts fetching these blocks side by side and returns at once. A hint: bounded, may be ignored.
    fn prefetch(&self, indexes: &[u64]);
    /// Starts fetching `start..end` in order.
    fn prefetch_range(&self, start: u64, end: u64) {
        self.prefetch(&(start..end).collect::<Vec<_>>());
    }
    /// The block was read to its end and handed on: memory for it is better used otherwise. A hint.
    fn release(&self, _index: u64) {}
    /// The block that holds plaintext byte `byte` of the core, and the offset inside it.
    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>>;
    /// Plaintext byte offset at which block `index` starts, if the tree nodes to tell are here.
    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError>;
}

/// A source that can be appended to. One call is one signature and one commit.
pub trait BlockLog: BlockSource + Any {
    fn writable(&self) -> bool;
    /// Appends the blocks and returns the index of the first.
    fn append(&self, blocks: Vec<Bytes>) -> Result<u64, SourceError>;
    /// The same, and other records of the store that the log is in, at the same moment. A log that is in none has no use
    /// for them.
    fn append_also(&self, blocks: Vec<Bytes>, _also: Writes) -> Result<u64, SourceError> {
        self.append(blocks)
    }
    /// Starts a long append. Waits while another append is under way; others wait until this one is dropped.
    fn begin(self: Arc<Self>) -> Result<Box<dyn Append + Send>, SourceError>;
}

/// A long append: any number of blocks that nobody sees, and nobody has to hold, before they are committed.
/// Dropped, it takes back what is not committed.
pub trait Append {
    /// Takes more blocks. They may still be on their way to the disk when this returns.
    fn push(&mut self, blocks: Vec<Bytes>) -> Result<(), SourceError>;
    /// Appends all blocks pushed since the last commit, durably, and returns the index of the first. More may
    /// follow.
    fn commit(&mut self) -> Result<u64, SourceError>;
    /// The same, and appends `blocks` to another log, which has them only if this one has its own. Logs of one store have
    /// both at one moment, for the price of one, and `also` with them.
    fn commit_with(
        &mut self,
        other: &dyn BlockLog,
        blocks: Vec<Bytes>,
        also: Writes,
    ) -> Result<u64, SourceError> {
        let first = self.commit()?;
        other.append_also(blocks, also)?;
        Ok(first)
    }
}

/// The blocks of these indexes, in the order asked. What is not here is asked for side by side, so that
/// many cost one round trip. Keep the list short (a read, not a file): every block is held until the last
/// one is there.
pub async fn blocks(
    source: &dyn BlockSource,
    indexes: impl IntoIterator<Item = u64>,
) -> Result<Vec<Bytes>, SourceError> {
    let mut found = Vec::new();
    let mut pending = Vec::new();
    for (place, index) in indexes.into_iter().enumerate() {
        let here = source.try_block(index)?;
        if here.is_none() {
            pending.push((place, source.block(index)));
        }
        found.push(here.unwrap_or_default());
    }
    poll_fn(|cx| {
        let mut failed = None;
        pending.retain_mut(|(place, block)| match block.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(bytes)) => {
                found[*place] = bytes;
                false
            }
            Poll::Ready(Err(error)) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if pending.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await?;
    Ok(found)
}
