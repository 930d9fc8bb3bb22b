//! A content of which is known where it differs from an older one: what follows costs the change.
//!
//! [`Writer::update`] compares all of both, since it is told nothing. Here blocks that no change touches are kept without
//! being read, the others are compared, and what follows is the same: see [`super::update`].
//!
//! Where the blocks of a blob without a map begin is asked of the core's tree, once for each; from then on the map tells.
//! A map has no more than [`MAX_ENTRIES`] blocks, of 64 KiB 32 GiB. A blob with more of them can be kept as it is or grow
//! in place, and no map can grow beyond: any other change makes it a blob that is written anew, by [`Writer::put`].

use super::block_map::{BlockMap, MAX_ENTRIES, MAX_MAP_BLOCKS, MapEntry};
use super::maps::load_map_local;
use super::update::Plan;
use super::writer::input;
use super::{BlobError, BlobId, Result, Writer};
use crate::hyper::source::BlockSource;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

impl Writer<'_> {
    /// Takes a content of `size` bytes that is the one of `old`, as far as that goes, but for the ranges `changed`, which
    /// are in order and apart. Only those are read, with the rest of their blocks. None, and nothing is taken, where
    /// [`Writer::put`] is to do it: most of it is new, or the map of the old one is not here or would be too long.
    pub fn patch(
        &mut self,
        old: &BlobId,
        changed: &[Range<u64>],
        size: u64,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<BlobId>> {
        let first = changed.first().map_or(size, |range| range.start);
        if !old.block_map && first.min(size) >= old.byte_length {
            let tail = size - old.byte_length;
            if tail == 0 {
                return Ok(Some(*old));
            }
            if let Some(longer) = self.grow(old, tail, content)? {
                return Ok(Some(longer));
            }
        }
        // An empty map would be longer than nothing.
        let plan = if size == 0 { None } else { self.plan(old, changed, size, content)? };
        match plan {
            Some(plan) => self.apply(old, plan, content).map(Some),
            None => Ok(None),
        }
    }

    fn plan(
        &self,
        old: &BlobId,
        changed: &[Range<u64>],
        size: u64,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<Plan>> {
        let log = self.log();
        let Some(entries) = old_entries(&**log, old)? else { return Ok(None) };
        let mut plan = Plan::new();
        let mut old_size = 0;
        let mut buf = Vec::new();
        for MapEntry { block, start, length } in entries {
            let end = start + length;
            old_size = end;
            if length == 0 {
                plan.pass_empty();
            } else if start >= size {
                plan.leave_out();
            } else if end > size {
                plan.replace(size - start);
            } else if !touches(changed, start..end) {
                plan.keep(block, length);
            } else {
                content.seek(SeekFrom::Start(start)).map_err(input)?;
                buf.clear();
                (&mut *content).take(length).read_to_end(&mut buf).map_err(input)?;
                let same = log.try_block(block)?.is_some_and(|bytes| buf == bytes);
                log.release(block);
                match same {
                    true => plan.keep(block, length),
                    false => plan.replace(length),
                }
            }
            if plan.is_much(size) {
                return Ok(None);
            }
        }
        Ok(plan.end(size.saturating_sub(old_size), size, self.can_grow(old)))
    }
}

fn touches(changed: &[Range<u64>], range: Range<u64>) -> bool {
    let at = changed.partition_point(|changed| changed.end <= range.start);
    changed.get(at).is_some_and(|changed| changed.start < range.end)
}

/// The blocks of a content in order, and where they begin. None if there are more than a map can name, or what tells is
/// not here.
fn old_entries(log: &dyn BlockSource, old: &BlobId) -> Result<Option<Vec<MapEntry>>> {
    let most = if old.block_map { MAX_MAP_BLOCKS } else { MAX_ENTRIES as u64 };
    if old.block_length > most || old.block_end() > log.length() {
        return Ok(None);
    }
    if old.block_map {
        let map = load_map_local(log, old)?;
        return Ok(map.map(|map: BlockMap| (0..map.len()).filter_map(|at| map.entry(at)).collect()));
    }
    let mut entries = Vec::with_capacity(old.block_length as usize);
    let mut start = old.byte_offset;
    for block in old.block_offset..old.block_end() {
        let Some(end) = log.byte_offset(block + 1)? else { return Ok(None) };
        let length = end.saturating_sub(start);
        entries.push(MapEntry { block, start: start - old.byte_offset, length });
        start = end;
    }
    let first = log.byte_offset(old.block_offset)?;
    match first == Some(old.byte_offset) && start - old.byte_offset == old.byte_length {
        true => Ok(Some(entries)),
        false => Err(BlobError::Damaged("its blocks hold other bytes than it claims")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "one range may be changed")]
    use super::super::{BLOCK_SIZE, Blobs};
    use super::*;
    use crate::hyper::source::memory::MemoryLog;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::io::{self, Cursor};
    use std::sync::Arc;

    /// A content that counts what is read of it.
    struct Counted<C>(C, u64);

    impl<C: Read> Read for Counted<C> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.read(buf)?;
            self.1 += n as u64;
            Ok(n)
        }
    }

    impl<C: Seek> Seek for Counted<C> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 251 + i * 7) as u8).collect()
    }

    struct Case {
        log: Arc<MemoryLog>,
        blobs: Blobs,
    }

    impl Case {
        fn new() -> Self {
            let log = MemoryLog::new();
            Self { blobs: Blobs::writable(log.clone()), log }
        }

        /// The blob of a patch, and the bytes that it appended and read.
        fn patch(
            &self,
            old: &BlobId,
            changed: &[Range<u64>],
            size: u64,
            content: impl Read + Seek,
        ) -> (Option<BlobId>, u64, u64) {
            let before = self.log.byte_length();
            let mut writer = self.blobs.writer().unwrap();
            let mut content = Counted(content, 0);
            let id = writer.patch(old, changed, size, &mut content).unwrap();
            writer.flush().unwrap();
            (id, self.log.byte_length() - before, content.1)
        }

        fn read(&self, id: BlobId) -> Vec<u8> {
            self.blobs.reader(id, None).read_local(0, usize::MAX).unwrap().unwrap().concat()
        }
    }

    #[test]
    fn a_small_change_of_a_large_file_costs_itself() {
        let c = Case::new();
        let size = 256 << 20;
        let block = Bytes::from(vec![0; BLOCK_SIZE as usize]);
        let mut id = c.blobs.put_blocks(vec![block; size / BLOCK_SIZE as usize]).unwrap();
        let mut data = vec![0; size];
        for at in [100_000_000, 200_000_000, 100_000_500] {
            data[at..at + 4096].fill(7);
            let range = at as u64..at as u64 + 4096;
            let (next, appended, read) = c.patch(&id, &[range], size as u64, Cursor::new(&data));
            id = next.unwrap();
            assert!(appended <= 2 * BLOCK_SIZE + 4096 * 9, "{appended}");
            assert!(read <= 4 * BLOCK_SIZE, "{read}");
        }
        assert!(c.read(id) == data);
        let same =
            c.patch(&id, &[0..70_000, 5_000_000..5_000_001], size as u64, Cursor::new(&data));
        assert_eq!((same.0, same.1), (Some(id), 0), "the same bytes were written again");
    }

    #[test]
    fn what_is_cut_at_a_border_or_grows_in_place_costs_nothing_else() {
        let c = Case::new();
        let mut data = content(300_000);
        let id = c.blobs.put(&data[..]).unwrap();
        let (cut, appended, read) = c.patch(&id, &[], 131_072, Cursor::new(&data[..131_072]));
        assert_eq!((cut.unwrap().block_length, appended, read), (2, 0, 0));
        data.extend(content(1000));
        let (grown, appended, read) =
            c.patch(&id, &[300_000..301_000], 301_000, Cursor::new(&data));
        assert_eq!((grown.unwrap().block_map, appended, read), (false, 1000, 1000));
        assert!(c.read(grown.unwrap()) == data);
        assert_eq!(c.patch(&grown.unwrap(), &[], 301_000, Cursor::new(&data)).0, grown);
        data[..200_000].fill(5);
        assert_eq!(c.patch(&id, &[0..200_000], 300_000, Cursor::new(&data[..300_000])).0, None);
    }

    #[test]
    fn beyond_what_a_map_can_name_a_blob_grows_in_place_or_is_written_anew() {
        let block = Bytes::from(vec![0; BLOCK_SIZE as usize]);
        let blocks = MAX_ENTRIES as u64 + 1;
        let log = MemoryLog::from_blocks(vec![block; blocks as usize]);
        let c = Case { blobs: Blobs::writable(log.clone()), log };
        let byte_length = blocks * BLOCK_SIZE;
        let id = BlobId { block_length: blocks, byte_length, ..BlobId::default() };
        let zeros = || Zeros { at: 0, size: byte_length + 10 };
        assert_eq!(c.patch(&id, &[5..6], byte_length, zeros()), (None, 0, 0));
        let (grown, appended, _) =
            c.patch(&id, &[byte_length..byte_length + 10], byte_length + 10, zeros());
        assert_eq!((grown.unwrap().byte_length, appended), (byte_length + 10, 10));
    }

    /// A large file without a byte.
    struct Zeros {
        at: u64,
        size: u64,
    }

    impl Read for Zeros {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = (self.size - self.at).min(buf.len() as u64) as usize;
            buf[..n].fill(0);
            self.at += n as u64;
            Ok(n)
        }
    }

    impl Seek for Zeros {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                SeekFrom::Current(by) => self.at.saturating_add_signed(by),
                SeekFrom::End(by) => self.size.saturating_add_signed(by),
            };
            Ok(self.at)
        }
    }

    /// What a patch may append: the old blocks that are changed or cut, what is behind them, and a map.
    fn most(c: &Case, old: &BlobId, changed: &[Range<u64>], size: u64) -> u64 {
        let entries = old_entries(&*c.log, old).unwrap().unwrap();
        let old_size = entries.last().map_or(0, |last| last.start + last.length);
        let hit = entries.iter().filter(|entry| {
            let end = entry.start + entry.length;
            touches(changed, entry.start..end) || (entry.start < size && size < end)
        });
        let replaced: u64 = hit.map(|entry| entry.length).sum();
        let entries = entries.len() as u64 + size / BLOCK_SIZE + 2;
        replaced + size.saturating_sub(old_size) + entries * 20
    }

    proptest! {
        /// Whatever is done to a content, what is read is what it became, and costs what was changed.
        #[test]
        fn any_row_of_changes_reads_back(
            edits in proptest::collection::vec(
                (0usize..700_000, 0usize..90_000, 0u8..5, 0u64..3_000, any::<bool>()), 1..10)
        ) {
            let c = Case::new();
            let mut data = content(500_000);
            let mut id = c.blobs.put(&data[..]).unwrap();
            for (at, len, kind, slop, between) in edits {
                let old_len = data.len();
                let from = at.min(old_len);
                let to = (from + len).min(old_len);
                let mut changed = vec![from as u64..to as u64];
                match kind {
                    0 => data.truncate(from),
                    1 => data.extend(content(len)),
                    2 => data[from..to].iter_mut().for_each(|b| *b = b.wrapping_add(1)),
                    3 => data[from..to].fill(9),
                    // Told to be changed, and is not.
                    _ => {}
                }
                if kind < 2 {
                    changed = vec![old_len as u64..data.len().max(old_len) as u64];
                }
                changed[0].start = changed[0].start.saturating_sub(slop);
                changed.retain(|range| !range.is_empty());
                if between {
                    c.blobs.put(&b"between"[..]).unwrap();
                }
                let size = data.len() as u64;
                let most = most(&c, &id, &changed, size);
                let (next, appended, _) = c.patch(&id, &changed, size, Cursor::new(&data));
                prop_assert!(appended <= most, "{} > {}", appended, most);
                if kind == 4 {
                    prop_assert_eq!(next, Some(id));
                }
                id = match next {
                    Some(next) => next,
                    None => c.blobs.put(&data[..]).unwrap(),
                };
                prop_assert!(c.read(id) == data);
                if id.block_map {
                    let map = crate::hyper::bee::run(c.blobs.map(&id)).unwrap();
                    prop_assert_eq!(map.size(), size);
                }
            }
        }
    }
}
