//! Reads block maps, or no more than their sizes.
//!
//! Whoever writes a drive may let any number of names have maps of any [`MAX_MAP_BLOCKS`] blocks, each as large as a
//! block can be. So a block is decoded before the next is read: nonsense ends at its first block, and no more than
//! one is held for a size. Between blocks others get their turn on the thread.

use super::block_map::MapSize;
use super::{BlobError, BlobId, BlockMap, MAX_MAP_BLOCKS, Result};
use crate::hyper::source::{self, BlockSource};
use bytes::Bytes;
use std::ops::Range;

/// Blocks of a map that are fetched side by side, after the first.
const WINDOW: u64 = 16;

/// Bytes of maps that are read before others get their turn on the thread: about a tenth of a millisecond's work.
const TURN: usize = 256 << 10;

/// What a read costs beside its bytes, in bytes.
const READ: usize = 1 << 10;

/// What may be read of maps that are here, and how much of a turn is left.
pub struct Allowance {
    left: usize,
    turn: usize,
}

impl Allowance {
    /// About `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes, turn: TURN }
    }

    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Reads a block of a map and lets it go; one without sense costs as much.
    async fn decode(&mut self, size: &mut MapSize, block: Bytes) -> Result<()> {
        let (decoded, cost) = (size.decode_block(&block), block.len().saturating_add(READ));
        drop(block);
        self.left = self.left.saturating_sub(cost);
        self.turn = self.turn.saturating_sub(cost);
        if self.turn == 0 {
            self.turn = TURN;
            tokio::task::yield_now().await;
        }
        decoded
    }
}

fn map_blocks(id: &BlobId) -> Result<Range<u64>> {
    if id.block_length > MAX_MAP_BLOCKS {
        return Err(BlobError::Damaged("its block map is too large"));
    }
    Ok(id.block_offset..id.block_end())
}

/// Fetches and reads a block map.
pub(super) async fn load_map(source: &dyn BlockSource, id: &BlobId) -> Result<BlockMap> {
    let mut map = BlockMap::default();
    let mut rest = map_blocks(id)?;
    let mut window = 1;
    while !rest.is_empty() {
        let end = rest.end.min(rest.start + window);
        for block in source::blocks(source, rest.start..end).await? {
            map.decode_block(&block)?;
        }
        (rest.start, window) = (end, WINDOW);
    }
    Ok(map)
}

/// Reads a block map if all of it is here.
pub(super) fn load_map_local(source: &dyn BlockSource, id: &BlobId) -> Result<Option<BlockMap>> {
    let mut map = BlockMap::default();
    for block in map_blocks(id)? {
        let Some(bytes) = source.try_block(block)? else { return Ok(None) };
        map.decode_block(&bytes)?;
    }
    Ok(Some(map))
}

/// Fetches a block map for the size of its content.
pub(super) async fn load_size(source: &dyn BlockSource, id: &BlobId) -> Result<u64> {
    let mut allowance = Allowance::new(usize::MAX);
    let mut size = MapSize::default();
    for block in map_blocks(id)? {
        let bytes = match source.try_block(block)? {
            Some(bytes) => bytes,
            None => source.block(block).await?,
        };
        allowance.decode(&mut size, bytes).await?;
        if block == id.block_offset && id.block_length > 1 {
            source.prefetch_range(block + 1, id.block_end());
        }
    }
    Ok(size.bytes())
}

/// The size of a content if all of its block map is here and the allowance is enough to read it.
pub(super) async fn load_size_local(
    source: &dyn BlockSource,
    id: &BlobId,
    allowance: &mut Allowance,
) -> Result<Option<u64>> {
    let mut size = MapSize::default();
    for block in map_blocks(id)? {
        if allowance.is_spent() {
            return Ok(None);
        }
        let Some(bytes) = source.try_block(block)? else { return Ok(None) };
        allowance.decode(&mut size, bytes).await?;
    }
    Ok(Some(size.bytes()))
}
