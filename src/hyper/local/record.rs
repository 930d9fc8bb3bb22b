//! What is needed after a crash, alone or beside a staging file.
//!
//! | field | layout |
//! |---|---|
//! | version | uint 1 |
//! | flags | uint: 1 a base, 2 its blob is a block map, 4 open, 8 inline |
//! | staging id, unless inline | \[32\] |
//! | base, by flag | uint block offset, byte offset, block length, byte length, size of the content |
//! | cut, size | uint, uint |
//! | mtime | nanoseconds since 1970, i128 (LE) |
//! | written, then holes | uint n, n times {uint gap since the last end, uint length} |
//! | content, if inline | bytes of the written ranges, one after the other, up to the end |
//!
//! *Open* means that whatever the staging file holds past `size` is a part of the file: see [`super::LocalFile::record`].
//! *Inline* is never open, and nothing of it was written beyond the first [`SMALL`] bytes.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::layout::Layout;
use super::ranges::Ranges;
use super::{MAX_SIZE, SMALL};
use crate::codec::{DecodeError, Put, Reader, Result};
use crate::hyper::blobs::BlobId;
use crate::key::DiscoveryKey;

/// Bytes of a record at most. A file that was changed in so many places is published instead.
pub const MAX_RECORD: usize = 1 << 20;

const VERSION: u64 = 1;
const BASE: u64 = 1;
const MAPPED: u64 = 2;
const OPEN: u64 = 4;
const INLINE: u64 = 8;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kept: Kept,
    /// The blob of the base, and the size of its content.
    pub base: Option<(BlobId, u64)>,
    pub layout: Layout,
    pub mtime: i128,
}

/// Where what was written is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In the record: the bytes of the written ranges, one after the other.
    Inline(Vec<u8>),
    /// In the staging file of this id.
    File { id: DiscoveryKey, open: bool },
}

impl Record {
    /// None if it would be longer than [`MAX_RECORD`].
    pub fn encode(&self) -> Option<Vec<u8>> {
        let Layout { size, cut, written, holes } = &self.layout;
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let mapped = self.base.is_some_and(|(id, _)| id.block_map);
        let mut out = Vec::new();
        out.put_uint(VERSION);
        let (kept, staging) = match &self.kept {
            Kept::Inline(_) => (INLINE, None),
            Kept::File { id, open } => (flag(*open, OPEN), Some(id)),
        };
        out.put_uint(flag(self.base.is_some(), BASE) | flag(mapped, MAPPED) | kept);
        if let Some(id) = staging {
            out.put(&id.0);
        }
        if let Some((id, size)) = self.base {
            let BlobId { block_offset, byte_offset, block_length, byte_length, .. } = id;
            for n in [block_offset, byte_offset, block_length, byte_length, size] {
                out.put_uint(n);
            }
        }
        out.put_uint(*cut);
        out.put_uint(*size);
        out.put(&self.mtime.to_le_bytes());
        for ranges in [written, holes] {
            out.put_uint(ranges.len() as u64);
            let mut last = 0;
            for range in ranges.iter() {
                out.put_uint(range.start - last);
                out.put_uint(range.end - range.start);
                last = range.end;
                if out.len() > MAX_RECORD {
                    return None;
                }
            }
        }
        if let Kept::Inline(bytes) = &self.kept {
            out.put(bytes);
        }
        (out.len() <= MAX_RECORD).then_some(out)
    }

    /// # Errors
    /// Whatever [`Self::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_RECORD {
            return Err(DecodeError::Invalid("length of the record"));
        }
        let mut r = Reader::new(bytes);
        if r.uint()? != VERSION {
            return Err(DecodeError::Invalid("version of the record"));
        }
        let flags = r.uint()?;
        let is = |flag| flags & flag != 0;
        if flags > (BASE | MAPPED | OPEN | INLINE) || (is(OPEN) && is(INLINE)) {
            return Err(DecodeError::Invalid("flags"));
        }
        let staging = if is(INLINE) { None } else { Some(DiscoveryKey(r.fixed()?)) };
        let base = match is(BASE) {
            false if is(MAPPED) => return Err(DecodeError::Invalid("flags")),
            false => None,
            true => Some((blob_id(&mut r, is(MAPPED))?, r.uint()?)),
        };
        let (cut, size) = (r.uint()?, r.uint()?);
        if cut > size || cut > base.map_or(0, |(_, size)| size) || size > MAX_SIZE {
            return Err(DecodeError::Invalid("size"));
        }
        let mtime = i128::from_le_bytes(r.fixed()?);
        let written = ranges(&mut r, size)?;
        let holes = ranges(&mut r, cut)?;
        let apart = holes.iter().all(|hole| written.gaps(hole.clone()) == [hole]);
        let kept = match staging {
            Some(id) => Kept::File { id, open: is(OPEN) },
            None if written.end() > SMALL => return Err(DecodeError::Invalid("range")),
            None => Kept::Inline(r.take(written.bytes() as usize)?.to_vec()),
        };
        if !apart || !r.is_empty() {
            return Err(DecodeError::Invalid("record"));
        }
        let layout = Layout { size, cut, written, holes };
        Ok(Self { kept, base, layout, mtime })
    }
}

fn blob_id(r: &mut Reader<'_>, block_map: bool) -> Result<BlobId> {
    let (block_offset, byte_offset) = (r.uint()?, r.uint()?);
    let (block_length, byte_length) = (r.uint()?, r.uint()?);
    let id = BlobId { block_offset, byte_offset, block_length, byte_length, block_map };
    id.check().map_err(|_| DecodeError::Invalid("blob id"))?;
    Ok(id)
}

/// Ranges below `end`, as they are written.
fn ranges(r: &mut Reader<'_>, end: u64) -> Result<Ranges> {
    let mut ranges = Ranges::default();
    let mut at = 0u64;
    for n in 0..r.count(2)? {
        let (gap, len) = (r.uint()?, r.uint()?);
        let start = at.saturating_add(gap);
        at = start.saturating_add(len);
        if len == 0 || (gap == 0 && n > 0) || at > end {
            return Err(DecodeError::Invalid("range"));
        }
        ranges.insert(start..at);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use proptest::prelude::*;

    fn record(written: Ranges) -> Record {
        let layout = Layout { size: 1 << 40, cut: 0, written, holes: Ranges::default() };
        let kept = Kept::File { id: DiscoveryKey([7; 32]), open: false };
        Record { kept, base: None, layout, mtime: 0 }
    }

    proptest! {
        #[test]
        fn a_record_comes_back(
            ops in proptest::collection::vec((0u8..4, 0u64..10_000, 1u64..500), 0..40),
            base: bool, mapped: bool, inline: bool, open: bool, mtime: i128,
        ) {
            let mut layout = Layout::of_base(if base { 5_000 } else { 0 });
            for (op, at, len) in ops {
                match op {
                    0 | 1 => layout.write(at..at + len),
                    2 => drop(layout.punch(at.min(layout.size)..(at + len).min(layout.size))),
                    _ => drop(layout.truncate(at)),
                }
            }
            let id = BlobId { block_offset: 7, block_length: 1, byte_length: 5_000, block_map: mapped, byte_offset: 1 << 40 };
            let base = base.then_some((id, 5_000));
            let kept = match inline {
                true => Kept::Inline((0..layout.written.bytes()).map(|n| n as u8).collect()),
                false => Kept::File { id: DiscoveryKey([7; 32]), open },
            };
            let record = Record { kept, base, layout, mtime };
            let bytes = record.encode().unwrap();
            prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
            for cut in (0..bytes.len()).filter(|cut| *cut < 300 || bytes.len() - cut < 20) {
                prop_assert!(Record::decode(&bytes[..cut]).is_err());
            }
            prop_assert!(Record::decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_decode_as_they_would_be_written_or_not(
            mut bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..160), version: bool,
        ) {
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = 1;
            }
            if let Ok(record) = Record::decode(&bytes) {
                let again = record.encode().unwrap();
                prop_assert_eq!(Record::decode(&again).unwrap(), record);
            }
        }
    }

    #[test]
    fn a_record_is_never_longer_than_its_bound() {
        let ranges = |n: u64| (0..n).map(|at| at * 2..at * 2 + 1).collect();
        let fits = record(ranges(MAX_RECORD as u64 / 2 - 100)).encode().unwrap();
        assert!(Record::decode(&fits).is_ok());
        assert_eq!(record(ranges(MAX_RECORD as u64 / 2)).encode(), None);
    }

    #[test]
    fn an_inline_record_is_of_a_small_file_and_not_open() {
        let inline = |end| {
            let kept = Kept::Inline(vec![1, 2]);
            let written = Ranges::from_iter([0..1, end - 1..end]);
            Record { kept, ..record(written) }.encode().unwrap()
        };
        let mut small = inline(SMALL);
        assert!(Record::decode(&small).is_ok());
        assert!(Record::decode(&inline(SMALL + 1)).is_err());
        small[1] |= OPEN as u8;
        assert!(Record::decode(&small).is_err());
    }
}
