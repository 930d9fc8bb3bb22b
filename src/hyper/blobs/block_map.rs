//! Block maps: content as a list of blocks from anywhere in the core, so that files can share blocks and a
//! change in the middle of a large file need not write the rest again.
//!
//! Each map block is `uint version = 0`, `uint n`, then n times `uint block index, uint byte length`. The
//! content is the listed blocks, each whole, in order.
//!
//! Source: hyperblobs/lib/block-map.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::{BlobError, Result};
use crate::codec::{MAX_INT, Put, Reader};
use bytes::Bytes;
use std::ops::Range;

/// Entries that the reference puts into one map block.
pub const ENTRIES_PER_BLOCK: usize = 8192;
/// Blocks a map may have; the reference refuses more.
pub const MAX_MAP_BLOCKS: u64 = 64;
/// Entries a map may have; it bounds an open file's map to 8 MiB.
pub const MAX_ENTRIES: usize = ENTRIES_PER_BLOCK * MAX_MAP_BLOCKS as usize;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockMap {
    blocks: Vec<u64>,
    /// Where in the content each block ends.
    ends: Vec<u64>,
}

/// A block of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Block index in the core.
    pub block: u64,
    /// Where in the content it starts.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

impl BlockMap {
    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Appends a block to the content. An error when the map or the content is full.
    pub fn push(&mut self, block: u64, length: u64) -> Result<()> {
        let end = longer(self.len(), self.size(), length)?;
        self.blocks.push(block);
        self.ends.push(end);
        Ok(())
    }

    /// Entry number `at`.
    pub fn entry(&self, at: usize) -> Option<MapEntry> {
        let before = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let (&block, &end, &start) =
            (self.blocks.get(at)?, self.ends.get(at)?, before.unwrap_or(&0));
        Some(MapEntry { block, start, length: end.saturating_sub(start) })
    }

    /// Numbers of the entries that hold the bytes `start..end` of the content.
    pub fn covering(&self, start: u64, end: u64) -> Range<usize> {
        let first = self.ends.partition_point(|&block_end| block_end <= start);
        let last = self.ends.partition_point(|&block_end| block_end < end);
        first..(last + 1).min(self.len()).max(first)
    }

    /// Reads the blocks of a map.
    pub fn decode(blocks: &[Bytes]) -> Result<Self> {
        let mut map = Self::default();
        for block in blocks {
            map.decode_block(block)?;
        }
        Ok(map)
    }

    /// Reads the map's next block.
    pub fn decode_block(&mut self, block: &[u8]) -> Result<()> {
        for_each_entry(block, |block, length| self.push(block, length))
    }

    /// The blocks of this map, as the reference writes them. An empty map has none.
    pub fn encode(&self) -> Vec<Bytes> {
        let entries: Vec<MapEntry> = (0..self.len()).filter_map(|at| self.entry(at)).collect();
        let encode = |entries: &[MapEntry]| {
            let mut out = Vec::with_capacity(10 + entries.len() * 10);
            out.put_uint(0);
            out.put_uint(entries.len() as u64);
            for entry in entries {
                out.put_uint(entry.block);
                out.put_uint(entry.length);
            }
            Bytes::from(out)
        };
        entries.chunks(ENTRIES_PER_BLOCK).map(encode).collect()
    }
}

/// What a map tells of its content's size, for whoever needs no more of it: many may be read at a time.
#[derive(Debug, Default)]
pub struct MapSize {
    entries: usize,
    bytes: u64,
}

impl MapSize {
    /// Reads the map's next block. Errors are those of [`BlockMap::decode_block`].
    pub fn decode_block(&mut self, block: &[u8]) -> Result<()> {
        for_each_entry(block, |_, length| {
            self.bytes = longer(self.entries, self.bytes, length)?;
            self.entries += 1;
            Ok(())
        })
    }

    /// Bytes of the content as far as the map was read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The size of a content of `entries` blocks and `size` bytes with one more block. An error when it is full.
fn longer(entries: usize, size: u64, length: u64) -> Result<u64> {
    let end = size.saturating_add(length);
    match entries >= MAX_ENTRIES || end > MAX_INT {
        true => Err(BlobError::Damaged("its block map is too large")),
        false => Ok(end),
    }
}

fn for_each_entry(block: &[u8], mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    const DAMAGED: BlobError = BlobError::Damaged("its block map cannot be read");
    let mut reader = Reader::new(block);
    match reader.uint().map_err(|_| DAMAGED)? {
        0 => {}
        version => return Err(BlobError::MapVersion(version)),
    }
    for _ in 0..reader.count(2).map_err(|_| DAMAGED)? {
        let block = reader.uint().map_err(|_| DAMAGED)?;
        each(block, reader.uint().map_err(|_| DAMAGED)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn map(entries: &[(u64, u64)]) -> BlockMap {
        let mut map = BlockMap::default();
        for &(block, length) in entries {
            map.push(block, length).unwrap();
        }
        map
    }

    proptest! {
        #[test]
        fn a_map_round_trips_and_finds_every_byte(
            entries in proptest::collection::vec((0..1u64 << 40, 0u64..5), 0..60)
        ) {
            let map = map(&entries);
            prop_assert_eq!(&BlockMap::decode(&map.encode()).unwrap(), &map);
            let mut size = MapSize::default();
            map.encode().iter().try_for_each(|block| size.decode_block(block)).unwrap();
            prop_assert_eq!(size.bytes(), map.size());
            let owners: Vec<usize> = entries.iter().enumerate()
                .flat_map(|(i, &(_, length))| std::iter::repeat_n(i, length as usize)).collect();
            for start in 0..owners.len() {
                for end in start + 1..=owners.len() {
                    let found = map.covering(start as u64, end as u64);
                    prop_assert_eq!((found.start, found.end - 1), (owners[start], owners[end - 1]));
                }
            }
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = BlockMap::decode(&[bytes.into()]);
        }
    }

    #[test]
    fn later_versions_and_too_many_entries_are_refused() {
        let decode = |bytes: &[u8]| BlockMap::decode(&[Bytes::copy_from_slice(bytes)]);
        assert!(matches!(decode(&[1, 0]), Err(BlobError::MapVersion(1))));
        assert!(decode(&[0, 2, 1, 1]).is_err());
        assert!(decode(&[]).is_err());
        let full = map(&vec![(1, 1); ENTRIES_PER_BLOCK]).encode().remove(0);
        let many = vec![full; MAX_MAP_BLOCKS as usize];
        assert_eq!(BlockMap::decode(&many).unwrap().len(), MAX_ENTRIES);
        assert!(
            BlockMap::decode(&[many, vec![Bytes::from_static(&[0, 1, 1, 1])]].concat()).is_err()
        );
    }
}
