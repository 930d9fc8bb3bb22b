//! A content that takes the place of an older one: only what the older one lacks is appended.
//!
//! The new content is compared with the blocks of the old one, along their borders. What follows is the cheapest
//! of these:
//!
//! | the new content | appended | names |
//! |---|---|---|
//! | is the old one | nothing | the old blob |
//! | ends at a border of the old one | nothing | a part of the old blob |
//! | begins with the old one, the last blob of the core | what is new | the old blob, grown |
//! | shares half of its bytes or more | blocks that changed, and a block map | the map |
//! | is another | nothing: it is left to [`Writer::put`] | |
//!
//! The comparison appends nothing: whoever reads a content that may change can ask after it, and before [`Writer::apply`],
//! whether that is what it was.
//!
//! A block map costs about 8 bytes a block. Programs older than hyperblobs 2.9 cannot read it.

use super::block_map::{BlockMap, MAX_ENTRIES, MAX_MAP_BLOCKS};
use super::writer::input;
use super::{BLOCK_SIZE, BlobError, BlobId, Cutter, Result, Writer};
use crate::hyper::source::BlockSource;
use std::io::{Read, Seek, SeekFrom};

/// Blocks that are shorter than usual, in a row at the end of a content, after which they are put together. A file
/// that grows line by line would else end as one block a line, each of which costs a reader a request.
const MAX_SHORT: usize = 256;

/// One stretch of the new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// This block of the core, whole.
    Keep { block: u64, length: u64 },
    /// As many bytes that are nowhere yet.
    New(u64),
}

/// How a content can be made of an older one.
#[derive(Debug, Default)]
pub struct Plan {
    steps: Vec<Step>,
    /// Bytes to append, without a map.
    appended: u64,
    /// Bytes behind what corresponds to the old content.
    tail: u64,
    /// Every block of the old content is in it, and nothing else but the tail.
    whole: bool,
    /// The same of its first blocks, without a tail.
    cut: bool,
}

impl Writer<'_> {
    /// Takes a content that replaces the one of `old`. See the module; it may be read twice. None, and nothing is taken,
    /// if most of it is new or the old one is not all here.
    pub fn update(
        &mut self,
        old: &BlobId,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<BlobId>> {
        match self.compare(old, content)? {
            Some(plan) => self.apply(old, plan, content).map(Some),
            None => Ok(None),
        }
    }

    /// Takes a content that was compared with the one of `old`: what is new of it is read once more.
    pub fn apply(
        &mut self,
        old: &BlobId,
        plan: Plan,
        content: &mut (impl Read + Seek),
    ) -> Result<BlobId> {
        if plan.whole && plan.tail == 0 {
            return Ok(*old);
        }
        if plan.cut && !old.block_map {
            let kept = plan.steps.iter().map(|step| step.length());
            return Ok(BlobId {
                block_length: plan.steps.len() as u64,
                byte_length: kept.sum(),
                ..*old
            });
        }
        let kept = plan.steps.len() - usize::from(plan.tail > 0);
        if plan.whole
            && kept as u64 == old.block_length
            && let Some(longer) = self.grow(old, plan.tail, content)?
        {
            return Ok(longer);
        }
        self.put_plan(plan.steps, content)
    }

    /// Lets a blob grow in place by the next `tail` bytes, where it can and does not end in too many short blocks.
    pub(super) fn grow(
        &mut self,
        old: &BlobId,
        tail: u64,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<BlobId>> {
        let short = old.block_length.saturating_sub(old.byte_length.div_ceil(BLOCK_SIZE));
        if !self.can_grow(old) || short >= MAX_SHORT as u64 {
            return Ok(None);
        }
        content.seek(SeekFrom::Start(old.byte_length)).map_err(input)?;
        self.extend(old, content.take(tail))
    }

    /// How a content can be made of the one of `old`. None when more than half is new, or the old blocks are not all here.
    pub fn compare(
        &mut self,
        old: &BlobId,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<Plan>> {
        let size = content.seek(SeekFrom::End(0)).map_err(input)?;
        content.seek(SeekFrom::Start(0)).map_err(input)?;
        let log = self.log();
        let Some(blocks) = old_blocks(&**log, old)? else { return Ok(None) };
        let mut plan = Plan::new();
        let (mut at, mut old_size) = (0, 0);
        let mut buf = Vec::with_capacity(BLOCK_SIZE as usize);
        for &block in &blocks {
            self.make_way()?;
            let Some(bytes) = log.try_block(block)? else { return Ok(None) };
            log.release(block);
            self.count(bytes.len() as u64);
            old_size += bytes.len() as u64;
            if bytes.is_empty() {
                plan.pass_empty();
                continue;
            }
            if at >= size {
                plan.leave_out();
                continue;
            }
            buf.clear();
            let n = content.take(bytes.len() as u64).read_to_end(&mut buf).map_err(input)? as u64;
            at = if n == 0 { size } else { at + n };
            if buf == bytes {
                plan.keep(block, n);
            } else if n > 0 {
                plan.replace(n);
            }
            if plan.is_much(size) {
                return Ok(None);
            }
        }
        if !old.block_map && old_size != old.byte_length {
            return Err(BlobError::Damaged("its blocks hold other bytes than it claims"));
        }
        let grows = self.can_grow(old);
        Ok(plan.end(size.saturating_sub(at), size, grows))
    }

    /// Whether a blob is the core's last, and not a map: it can grow in place.
    pub(super) fn can_grow(&self, old: &BlobId) -> bool {
        !old.block_map && old.block_end() == self.length()
    }

    /// Appends what is new, and a map of everything.
    fn put_plan(&mut self, steps: Vec<Step>, content: &mut (impl Read + Seek)) -> Result<BlobId> {
        content.seek(SeekFrom::Start(0)).map_err(input)?;
        let mut map = BlockMap::default();
        for step in joined(steps) {
            match step {
                Step::Keep { block, length } => {
                    content.seek(SeekFrom::Current(length as i64)).map_err(input)?;
                    map.push(block, length)?;
                }
                Step::New(length) => {
                    for block in Cutter::new((&mut *content).take(length)) {
                        let block = block.map_err(input)?;
                        let length = block.len() as u64;
                        map.push(self.put_blocks([block])?.block_offset, length)?;
                    }
                }
            }
        }
        let id = self.put_blocks(map.encode())?;
        Ok(BlobId { block_map: true, ..id })
    }
}

impl Plan {
    pub(super) fn new() -> Self {
        Self { whole: true, cut: true, ..Self::default() }
    }

    /// The old content's next block is in the new one.
    pub(super) fn keep(&mut self, block: u64, length: u64) {
        self.steps.push(Step::Keep { block, length });
    }

    /// As many new bytes are where it was.
    pub(super) fn replace(&mut self, length: u64) {
        (self.whole, self.cut) = (false, false);
        self.appended += length;
        self.steps.push(Step::New(length));
    }

    /// It is behind the end.
    pub(super) fn leave_out(&mut self) {
        self.whole = false;
    }

    /// It has no bytes: the blocks that are kept may be none in a row.
    pub(super) fn pass_empty(&mut self) {
        self.cut = false;
    }

    /// Whether too much of a content of `size` bytes is new.
    pub(super) fn is_much(&self, size: u64) -> bool {
        self.appended * 2 > size
    }

    /// That was the old content; `tail` bytes follow. None if that does not pay, or a map cannot name it.
    pub(super) fn end(mut self, tail: u64, size: u64, can_grow: bool) -> Option<Self> {
        self.tail = tail;
        self.appended += tail;
        if tail > 0 {
            self.cut = false;
            self.steps.push(Step::New(tail));
        }
        let entries: u64 = self.steps.iter().map(Step::entries).sum();
        let fits = entries <= MAX_ENTRIES as u64;
        let much = self.is_much(size) || size <= BLOCK_SIZE;
        let free = self.appended == 0 && (self.whole || self.cut);
        // What grew in place at the core's end costs its new bytes, however many they are.
        (free || self.whole && can_grow || fits && !much).then_some(self)
    }
}

impl Step {
    /// Of a map, at most.
    fn entries(&self) -> u64 {
        match *self {
            Self::Keep { .. } => 1,
            Self::New(length) => length.div_ceil(BLOCK_SIZE),
        }
    }

    fn length(&self) -> u64 {
        match *self {
            Self::Keep { length, .. } | Self::New(length) => length,
        }
    }
}

/// Puts new stretches that follow each other together, and too many short blocks at the end with them.
fn joined(mut steps: Vec<Step>) -> Vec<Step> {
    let is_short = |step: &Step| step.length() < BLOCK_SIZE || matches!(step, Step::New(_));
    let short = steps.iter().rev().take_while(|step| is_short(step)).count();
    if short > MAX_SHORT {
        let run = steps.split_off(steps.len() - short);
        steps.push(Step::New(run.iter().map(Step::length).sum()));
    }
    let mut joined: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        match (joined.last_mut(), step) {
            (Some(Step::New(before)), Step::New(length)) => *before += length,
            (_, step) => joined.push(step),
        }
    }
    joined
}

/// The blocks of a content in order. None if there are more than a map can name, or its map is not here.
fn old_blocks(log: &dyn BlockSource, old: &BlobId) -> Result<Option<Vec<u64>>> {
    let most = if old.block_map { MAX_MAP_BLOCKS } else { MAX_ENTRIES as u64 };
    if old.block_length > most || old.block_end() > log.length() {
        return Ok(None);
    }
    let blocks = old.block_offset..old.block_end();
    if !old.block_map {
        return Ok(Some(blocks.collect()));
    }
    let mut map = Vec::new();
    for block in blocks {
        let Some(bytes) = log.try_block(block)? else { return Ok(None) };
        map.push(bytes);
    }
    let map = BlockMap::decode(&map)?;
    let entries = (0..map.len()).filter_map(|at| map.entry(at));
    Ok(Some(entries.map(|entry| entry.block).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::Blobs;
    use super::*;
    use crate::hyper::source::memory::MemoryLog;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::io::Cursor;
    use std::sync::Arc;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 251 + i * 7) as u8).collect()
    }

    fn update(blobs: &Blobs, old: &BlobId, data: &[u8]) -> BlobId {
        let mut writer = blobs.writer().unwrap();
        let updated = writer.update(old, &mut Cursor::new(data)).unwrap();
        let id = updated.unwrap_or_else(|| writer.put(data).unwrap());
        writer.flush().unwrap();
        drop(writer);
        let reader = blobs.reader(id, None);
        let read = reader.read_local(0, 1 << 30).unwrap().unwrap().concat();
        if id.block_map {
            let map = crate::hyper::bee::run(blobs.map(&id)).unwrap();
            assert_eq!(map.size(), data.len() as u64);
            let reader = blobs.reader(id, Some(map.size()));
            assert_eq!(reader.read_local(0, 1 << 30).unwrap().unwrap().concat(), data);
        } else {
            assert_eq!(read, data);
        }
        id
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

        /// Bytes that an update appended.
        fn cost(&self, old: &BlobId, data: &[u8]) -> (BlobId, u64) {
            let before = self.log.byte_length();
            let id = update(&self.blobs, old, data);
            (id, self.log.byte_length() - before)
        }
    }

    #[test]
    fn the_same_content_and_a_part_up_to_a_border_cost_nothing() {
        let c = Case::new();
        let data = content(300_000);
        let id = c.blobs.put(&data[..]).unwrap();
        assert_eq!(c.cost(&id, &data), (id, 0));
        let (cut, cost) = c.cost(&id, &data[..131_072]);
        assert_eq!((cut.block_length, cut.byte_length, cost), (2, 131_072, 0));
        assert_eq!(c.cost(&id, &[]).1, 0);
    }

    #[test]
    fn a_few_changed_blocks_of_a_large_content_cost_themselves() {
        let c = Case::new();
        let mut data = content(10 << 20);
        let mut id = c.blobs.put(&data[..]).unwrap();
        for round in 0..20 {
            data[round * 500_000..][..100].fill(round as u8);
            let (next, cost) = c.cost(&id, &data);
            assert!(next.block_map && cost < 2 * 65536 + 2000, "{cost}");
            id = next;
        }
        data.truncate(9_000_000);
        assert!(c.cost(&id, &data).1 < 70_000);
    }

    #[test]
    fn what_grows_costs_what_it_grew_by_wherever_it_lies() {
        let c = Case::new();
        let mut data = content(2_000_000);
        let mut id = c.blobs.put(&data[..]).unwrap();
        for _ in 0..3 {
            data.extend(b"one more line\n");
            let (next, cost) = c.cost(&id, &data);
            assert_eq!((next.block_map, cost), (false, 14));
            id = next;
        }
        c.blobs.put(&b"another file"[..]).unwrap();
        let mut total = 0;
        for _ in 0..1000 {
            data.extend(b"one more line\n");
            let (next, cost) = c.cost(&id, &data);
            assert!(next.block_map);
            (id, total) = (next, total + cost);
        }
        assert!(total < 2_000_000, "{total}");
        let map = crate::hyper::bee::run(c.blobs.map(&id)).unwrap();
        assert!(map.len() <= 2_000_000 / 65536 + 2 + MAX_SHORT, "{}", map.len());
    }

    #[test]
    fn a_log_that_grows_in_place_does_not_end_as_one_block_a_line() {
        let c = Case::new();
        let mut data = Vec::new();
        let mut id = c.blobs.put(&data[..]).unwrap();
        let before = c.log.byte_length();
        for _ in 0..2000 {
            data.extend(content(100));
            id = c.cost(&id, &data).0;
        }
        let blocks = match id.block_map {
            true => crate::hyper::bee::run(c.blobs.map(&id)).unwrap().len(),
            false => id.block_length as usize,
        };
        assert!(blocks <= MAX_SHORT + 4, "{blocks}");
        let cost = c.log.byte_length() - before;
        assert!(cost < 20 * data.len() as u64, "{cost} for {}", data.len());
    }

    #[test]
    fn a_cut_behind_a_block_without_bytes_is_no_part_of_the_old_blob() {
        let c = Case::new();
        let blocks = [&b"0123456789"[..], b"", b"abcdefghij", b"klm"].map(Bytes::from_static);
        let id = c.blobs.put_blocks(blocks).unwrap();
        update(&c.blobs, &id, b"0123456789abcdefghij");
    }

    #[test]
    fn another_content_is_written_as_a_plain_blob() {
        let c = Case::new();
        let id = c.blobs.put(&content(1 << 20)[..]).unwrap();
        let other: Vec<u8> = content(1 << 20).iter().map(|b| !b).collect();
        assert!(!update(&c.blobs, &id, &other).block_map);
        assert!(!update(&c.blobs, &id, b"short").block_map);
    }

    proptest! {
        /// Whatever is done to a content, what is read is what was given.
        #[test]
        fn any_row_of_edits_reads_back(
            edits in proptest::collection::vec((0usize..400_000, 0usize..150_000, 0u8..5, any::<bool>()), 1..8)
        ) {
            let c = Case::new();
            let mut data = content(300_000);
            let mut id = c.blobs.put(&data[..]).unwrap();
            for (at, len, kind, between) in edits {
                let at = at.min(data.len());
                let end = (at + len).min(data.len());
                match kind {
                    0 => data.truncate(at),
                    1 => data.extend(content(len)),
                    2 => data[at..end].iter_mut().for_each(|b| *b = b.wrapping_add(1)),
                    3 => drop(data.drain(at..end)),
                    _ => drop(data.splice(at..at, content(len / 100))),
                }
                if between {
                    c.blobs.put(&b"between"[..]).unwrap();
                }
                id = update(&c.blobs, &id, &data);
            }
        }
    }
}
