//! Reads any part of one content.
//!
//! A blob id tells the first block and the number of bytes, but not where the other blocks begin: a writer
//! may cut them as it likes. The reference seeks in the Merkle tree for every read, a round trip before
//! the one for the block. Here the block of an offset is found by, in this order:
//!
//! 1. the start of the blob, or the border where the last read ended;
//! 2. a guess, if the blob may be made of 64 KiB blocks: that block is fetched at once, and the tree nodes
//!    that came with it confirm where it starts;
//! 3. the tree nodes that are here, by bisection;
//! 4. a seek.
//!
//! Pieces are slices of the blocks, nothing is copied. A block that was read to its end is released: whoever reads
//! a file through keeps the bytes (the kernel does for a mount), and memory is better spent on what is ahead.
//!
//! Source: hyperblobs/lib/streams.js

use super::maps::{load_map, load_map_local};
use super::{BLOCK_SIZE, BlobError, BlobId, BlockMap, MAX_MAP_BLOCKS, Result};
use crate::hyper::source::{self, BlockSource};
use bytes::Bytes;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// Blocks that one read asks for at a time. It bounds what a file of one-byte blocks can make us hold.
const WINDOW: u64 = 256;

/// Blocks that one prefetch asks for: 256 MiB where they have their usual size.
const MAX_PREFETCH: u64 = 4096;

const MISPLACED: BlobError = BlobError::Damaged("its bytes do not begin where its blocks do");

/// Content of a blob; see the module. Clones are the same reader.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    source: Arc<dyn BlockSource>,
    id: BlobId,
    /// Size as told by whoever opened it; none for a block map that nobody has read.
    size: Option<u64>,
    map: OnceLock<BlockMap>,
    /// The block touched last.
    border: Mutex<Option<Span>>,
}

/// A reader that may be gone.
pub(super) struct WeakReader(Weak<Inner>);

impl WeakReader {
    /// What is read, if anybody still does.
    pub fn id(&self) -> Option<BlobId> {
        self.0.upgrade().map(|inner| inner.id)
    }
}

/// A block and the part of the content that it holds.
#[derive(Debug, Clone, Copy)]
struct Span {
    block: u64,
    start: u64,
    end: u64,
}

/// The pieces of a read as they come together.
struct Pieces {
    found: Vec<Bytes>,
    next: u64,
    end: u64,
}

impl Pieces {
    fn is_complete(&self) -> bool {
        self.next >= self.end
    }

    /// Takes what the read needs of a block that starts at `start`; tells whether that is its rest.
    fn take(&mut self, block: &Bytes, start: u64) -> bool {
        let from = (self.next - start) as usize;
        let to = (self.end - start).min(block.len() as u64) as usize;
        if from < to {
            self.found.push(block.slice(from..to));
            self.next = start + to as u64;
        }
        to == block.len()
    }
}

impl Reader {
    pub(super) fn new(source: Arc<dyn BlockSource>, id: BlobId, size: Option<u64>) -> Self {
        let size = size.or((!id.block_map).then_some(id.byte_length));
        let (map, border) = (OnceLock::new(), Mutex::new(None));
        Self(Arc::new(Inner { source, id, size, map, border }))
    }

    pub(super) fn downgrade(&self) -> WeakReader {
        WeakReader(Arc::downgrade(&self.0))
    }

    /// Bytes of the content as far as they are known; see [`Self::known_size`].
    pub fn size(&self) -> u64 {
        self.known_size().unwrap_or(0)
    }

    /// Bytes of the content; none for a block map that nobody has read yet.
    pub fn known_size(&self) -> Option<u64> {
        self.0.map.get().map(BlockMap::size).or(self.0.size)
    }

    /// Bytes of the content, fetching the block map if only that tells them.
    pub async fn learn_size(&self) -> Result<u64> {
        match self.known_size() {
            Some(size) => Ok(size),
            None => Ok(self.0.map().await?.size()),
        }
    }

    /// The bytes `offset..offset + len`, cut at the end, if every block of them is here.
    pub fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        if self.0.id.block_map {
            return match self.0.local_map()? {
                Some(map) => self.0.read_map_local(map, offset, len),
                None => Ok(None),
            };
        }
        self.0.read_plain_local(offset, len)
    }

    /// The same, fetching what is missing.
    pub fn read(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = Result<Vec<Bytes>>> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move {
            if inner.id.block_map {
                let map = inner.map().await?;
                return inner.read_map(map, offset, len).await;
            }
            inner.read_plain(offset, len).await
        }
    }

    /// Starts fetching `offset..offset + len`; a hint.
    pub fn prefetch(&self, offset: u64, len: u64) {
        let Inner { source, id, .. } = &*self.0;
        let end = offset.saturating_add(len).min(self.known_size().unwrap_or(u64::MAX));
        if id.block_map {
            match self.0.local_map() {
                Ok(Some(map)) => {
                    let entries = map.covering(offset, end).filter_map(|at| map.entry(at));
                    source.prefetch(
                        &entries
                            .map(|entry| entry.block)
                            .take(MAX_PREFETCH as usize)
                            .collect::<Vec<_>>(),
                    );
                }
                _ if id.block_length <= MAX_MAP_BLOCKS => {
                    source.prefetch_range(id.block_offset, id.block_end());
                }
                _ => {}
            }
        } else if offset < end {
            // Exact for blocks of 64 KiB; near enough for others.
            let scale = id.byte_length.div_ceil(id.block_length.max(1)).max(1);
            let unit = if self.0.is_uniform() { BLOCK_SIZE } else { scale };
            let first = id.block_offset + offset / unit;
            source
                .prefetch_range(first, (id.block_offset + end.div_ceil(unit)).min(id.block_end()));
        }
    }
}

impl Inner {
    fn pieces(&self, offset: u64, len: usize, size: u64) -> Pieces {
        let end = offset.saturating_add(len as u64).min(size);
        Pieces { found: Vec::new(), next: offset.min(end), end }
    }

    // Plain blobs.

    /// Whether the numbers allow for blocks of 64 KiB with a shorter last one.
    fn is_uniform(&self) -> bool {
        self.id.block_length == self.id.byte_length.div_ceil(BLOCK_SIZE)
    }

    fn read_plain_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        let mut pieces = self.pieces(offset, len, self.id.byte_length);
        if pieces.is_complete() {
            return Ok(Some(pieces.found));
        }
        let Some((mut block, mut start)) = self.locate_local(offset)? else { return Ok(None) };
        let mut passed = Vec::new();
        while !pieces.is_complete() {
            self.check_inside(block)?;
            let Some(bytes) = self.source.try_block(block)? else { return Ok(None) };
            if pieces.take(&bytes, start) {
                passed.push(block);
            }
            (block, start) = self.passed(block, start, &bytes);
        }
        // Not before the read is sure to be answered from here.
        passed.into_iter().for_each(|block| self.source.release(block));
        Ok(Some(pieces.found))
    }

    async fn read_plain(&self, offset: u64, len: usize) -> Result<Vec<Bytes>> {
        let mut pieces = self.pieces(offset, len, self.id.byte_length);
        if pieces.is_complete() {
            return Ok(pieces.found);
        }
        // The answers bring the tree nodes that tell whether the guess is right.
        let (first, ready) = match self.guess(&pieces) {
            Some(blocks) => (blocks.start, source::blocks(&*self.source, blocks).await?),
            None => (0, Vec::new()),
        };
        let (mut block, mut start) = self.locate(offset).await?;
        while !pieces.is_complete() {
            self.check_inside(block)?;
            let guessed = block.checked_sub(first).and_then(|at| ready.get(at as usize..));
            let fetched = match guessed {
                Some(rest) if !rest.is_empty() => rest.to_vec(),
                _ => {
                    let count =
                        self.blocks_for(pieces.end - start).min(self.id.block_end() - block);
                    source::blocks(&*self.source, block..block + count).await?
                }
            };
            for bytes in fetched {
                if pieces.take(&bytes, start) {
                    self.source.release(block);
                }
                (block, start) = self.passed(block, start, &bytes);
                if pieces.is_complete() {
                    break;
                }
            }
        }
        Ok(pieces.found)
    }

    /// The blocks that hold a read, if they are where they seem to be.
    fn guess(&self, pieces: &Pieces) -> Option<std::ops::Range<u64>> {
        let first = self.id.block_offset + pieces.next / BLOCK_SIZE;
        let end = self.id.block_offset + pieces.end.div_ceil(BLOCK_SIZE);
        self.is_uniform().then(|| first..end.min(first + WINDOW))
    }

    /// About how many blocks hold the next `bytes`.
    fn blocks_for(&self, bytes: u64) -> u64 {
        let size = self.id.byte_length.div_ceil(self.id.block_length.max(1)).max(1);
        bytes.div_ceil(size).clamp(1, WINDOW)
    }

    async fn locate(&self, offset: u64) -> Result<(u64, u64)> {
        if let Some(place) = self.locate_local(offset)? {
            return Ok(place);
        }
        let (block, inside) = self.source.seek(self.id.byte_offset + offset).await?;
        tracing::trace!(offset, block, "block found by seek");
        match offset.checked_sub(inside) {
            Some(start) if block >= self.id.block_offset => Ok((block, start)),
            _ => Err(MISPLACED),
        }
    }

    /// The block that holds `offset` or one shortly before it, and where it starts in the content.
    fn locate_local(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        match *self.lock_border() {
            Some(span) if span.start <= offset && offset < span.end => {
                return Ok(Some((span.block, span.start)));
            }
            Some(span) if span.end == offset => return Ok(Some((span.block + 1, span.end))),
            _ => {}
        }
        if offset < BLOCK_SIZE.min(self.id.byte_length.div_ceil(self.id.block_length.max(1))) {
            return Ok(Some((self.id.block_offset, 0)));
        }
        if self.is_uniform() {
            let start = offset - offset % BLOCK_SIZE;
            let block = self.id.block_offset + offset / BLOCK_SIZE;
            if self.start_of(block)? == Some(start) {
                return Ok(Some((block, start)));
            }
        }
        self.bisect(offset)
    }

    /// Finds the last block that starts at or before `offset`, by tree nodes that are here.
    fn bisect(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        if self.start_of(self.id.block_offset)?.is_some_and(|start| start != 0) {
            return Err(MISPLACED);
        }
        let (mut low, mut start) = (self.id.block_offset, 0);
        let mut high = self.id.block_end();
        while high - low > 1 {
            let mid = low + (high - low) / 2;
            match self.start_of(mid)? {
                None => return Ok(None),
                Some(found) if found <= offset => (low, start) = (mid, found),
                Some(_) => high = mid,
            }
        }
        Ok(Some((low, start)))
    }

    /// Where in the content a block starts, if the tree nodes to tell are here.
    fn start_of(&self, block: u64) -> Result<Option<u64>> {
        let Some(byte) = self.source.byte_offset(block)? else { return Ok(None) };
        let start = byte.checked_sub(self.id.byte_offset);
        start.map(Some).ok_or(MISPLACED)
    }

    fn check_inside(&self, block: u64) -> Result<()> {
        match block < self.id.block_end() {
            true => Ok(()),
            false => Err(BlobError::Damaged("its blocks hold fewer bytes than it claims")),
        }
    }

    /// Remembers a block that was read, for whoever reads on; tells the next one.
    fn passed(&self, block: u64, start: u64, bytes: &Bytes) -> (u64, u64) {
        let end = start + bytes.len() as u64;
        *self.lock_border() = Some(Span { block, start, end });
        (block + 1, end)
    }

    fn lock_border(&self) -> std::sync::MutexGuard<'_, Option<Span>> {
        crate::lock::lock(&self.border)
    }

    // Block maps.

    fn local_map(&self) -> Result<Option<&BlockMap>> {
        if self.map.get().is_none() {
            let Some(map) = load_map_local(&*self.source, &self.id)? else { return Ok(None) };
            let _ = self.map.set(map);
        }
        Ok(self.map.get())
    }

    async fn map(&self) -> Result<&BlockMap> {
        if self.map.get().is_none() {
            let _ = self.map.set(load_map(&*self.source, &self.id).await?);
        }
        self.map.get().ok_or(BlobError::Damaged("its block map cannot be read"))
    }

    fn read_map_local(
        &self,
        map: &BlockMap,
        offset: u64,
        len: usize,
    ) -> Result<Option<Vec<Bytes>>> {
        let mut pieces = self.pieces(offset, len, map.size());
        for at in map.covering(pieces.next, pieces.end) {
            let Some(entry) = map.entry(at) else { break };
            let Some(bytes) = self.source.try_block(entry.block)? else { return Ok(None) };
            check_length(&bytes, entry.length)?;
            let _ = pieces.take(&bytes, entry.start);
        }
        Ok(Some(pieces.found))
    }

    async fn read_map(&self, map: &BlockMap, offset: u64, len: usize) -> Result<Vec<Bytes>> {
        let mut pieces = self.pieces(offset, len, map.size());
        let mut entries = map.covering(pieces.next, pieces.end).filter_map(|at| map.entry(at));
        loop {
            let window: Vec<_> = entries.by_ref().take(WINDOW as usize).collect();
            if window.is_empty() {
                return Ok(pieces.found);
            }
            let blocks = window.iter().map(|entry| entry.block);
            let blocks = source::blocks(&*self.source, blocks).await?;
            for (bytes, entry) in blocks.iter().zip(&window) {
                check_length(bytes, entry.length)?;
                let _ = pieces.take(bytes, entry.start);
            }
        }
    }
}

fn check_length(bytes: &Bytes, length: u64) -> Result<()> {
    match bytes.len() as u64 == length {
        true => Ok(()),
        false => Err(BlobError::Damaged("a block has another size than its block map says")),
    }
}
