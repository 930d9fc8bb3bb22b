//! Reading and writing contents over memory logs. The reference's vectors are in `drive/tests.rs`.

use super::*;
use crate::hyper::bee::run;
use crate::hyper::source::memory::MemoryLog;
use bytes::Bytes;
use proptest::prelude::*;

/// What tests append, in one go.
impl Blobs {
    /// See [`Writer::extend`].
    pub fn extend(&self, id: &BlobId, content: impl Read) -> Result<Option<BlobId>> {
        let mut writer = self.writer()?;
        let longer = writer.extend(id, content)?;
        writer.flush()?;
        Ok(longer)
    }

    /// Appends a block map. Its blocks must be in the core already.
    pub fn put_map(&self, map: &BlockMap) -> Result<BlobId> {
        if map.len() > MAX_ENTRIES {
            return Err(BlobError::Damaged("its block map is too large"));
        }
        let mut writer = self.writer()?;
        let id = writer.put_blocks(map.encode())?;
        writer.flush()?;
        Ok(BlobId { block_map: true, ..id })
    }

    /// Appends blocks as they are: one block each, whatever their sizes.
    pub fn put_blocks(&self, blocks: impl IntoIterator<Item = Bytes>) -> Result<BlobId> {
        let mut writer = self.writer()?;
        let id = writer.put_blocks(blocks)?;
        writer.flush()?;
        Ok(id)
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 + i * 7) as u8).collect()
}

fn joined(pieces: Vec<Bytes>) -> Vec<u8> {
    pieces.concat()
}

/// A core with something before and behind the blob, and the blob cut at `sizes`.
fn odd_blob(sizes: &[usize]) -> (Arc<MemoryLog>, BlobId, Vec<u8>) {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    blobs.put(&b"before"[..]).unwrap();
    let data = content(sizes.iter().sum());
    let mut at = 0;
    let id = blobs
        .put_blocks(sizes.iter().map(|size| {
            at += size;
            Bytes::copy_from_slice(&data[at - size..at])
        }))
        .unwrap();
    blobs.put(&b"behind"[..]).unwrap();
    (log, id, data)
}

#[test]
fn contents_are_cut_at_64_kib_and_appended_at_once() {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    for len in [0, 1, 65535, 65536, 65537, 3 * 65536, 10 << 20] {
        let before = (log.length(), log.byte_length(), log.appends());
        let data = content(len);
        let id = blobs.put(&data[..]).unwrap();
        assert_eq!((id.block_offset, id.byte_offset), (before.0, before.1));
        assert_eq!((id.block_length, id.byte_length), (len.div_ceil(65536) as u64, len as u64));
        assert_eq!(log.appends() - before.2, u64::from(len > 0), "{len}");
        let reader = blobs.reader(id, None);
        assert_eq!(joined(reader.read_local(0, len + 1).unwrap().unwrap()), data);
        assert_eq!(joined(run(reader.read(0, usize::MAX)).unwrap()), data);
    }
}

#[test]
fn several_contents_can_share_one_append() {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    let mut writer = blobs.writer().unwrap();
    let ids: Vec<BlobId> = (0..50).map(|i| writer.put(&content(i * 100)[..]).unwrap()).collect();
    writer.flush().unwrap();
    drop(writer);
    assert_eq!(log.appends(), 1);
    for (i, id) in ids.into_iter().enumerate() {
        let pieces = blobs.reader(id, None).read_local(0, 1 << 20).unwrap().unwrap();
        assert_eq!(joined(pieces), content(i * 100));
    }
}

#[test]
fn a_failing_input_appends_no_id() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("gone"))
        }
    }
    let blobs = Blobs::writable(MemoryLog::new());
    let error = blobs.put((&content(100)[..]).chain(Broken)).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn a_core_that_grew_meanwhile_gets_no_blob() {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    let mut writer = blobs.writer().unwrap();
    writer.put(&b"abc"[..]).unwrap();
    log.append(vec![Bytes::from_static(b"x")]).unwrap();
    assert!(matches!(writer.flush(), Err(BlobError::Raced)));
}

#[test]
fn the_last_blob_can_grow_in_place() {
    let blobs = Blobs::writable(MemoryLog::new());
    let id = blobs.put(&b"line1\n"[..]).unwrap();
    let id = blobs.extend(&id, &b"line2\n"[..]).unwrap().unwrap();
    let pieces = blobs.reader(id, None).read_local(3, 6).unwrap().unwrap();
    assert_eq!(joined(pieces), b"e1\nlin");
    blobs.put(&b"other"[..]).unwrap();
    assert_eq!(blobs.extend(&id, &b"line3\n"[..]).unwrap(), None);
}

#[test]
fn a_far_block_is_guessed_without_a_seek() {
    let log = MemoryLog::new();
    let data = content(40 * 65536 + 99);
    let id = Blobs::writable(log.clone()).put(&data[..]).unwrap();
    let far = MemoryLog::sparse(&log);
    let reader = Blobs::new(far.clone()).reader(id, None);
    for (offset, len) in [(20 * 65536 + 5, 100), (7 * 65536 - 10, 20), (40 * 65536, 4096)] {
        assert!(reader.read_local(offset as u64, len).unwrap().is_none());
        let pieces = run(reader.read(offset as u64, len)).unwrap();
        assert_eq!(joined(pieces), &data[offset..data.len().min(offset + len)]);
        assert!(reader.read_local(offset as u64, len).unwrap().is_some());
    }
    assert_eq!((far.seeks(), far.waits()), (0, 4));
}

#[test]
fn a_wrong_guess_costs_a_seek_and_not_the_data() {
    // As many blocks as 64 KiB ones would be, but cut elsewhere.
    let (log, id, data) = odd_blob(&[65537, 65536, 65535, 65000, 65535]);
    let far = MemoryLog::sparse(&log);
    let reader = Blobs::new(far.clone()).reader(id, None);
    for offset in [65536, 65537, 131072, 200_000, 70_000, 0, 327_142] {
        let pieces = run(reader.read(offset as u64, 3000)).unwrap();
        assert_eq!(joined(pieces), &data[offset..data.len().min(offset + 3000)], "{offset}");
    }
    let far = MemoryLog::sparse(&odd_blob(&[1000; 300]).0);
    let reader = Blobs::new(far.clone()).reader(odd_blob(&[1000; 300]).1, None);
    run(reader.read(150_500, 10)).unwrap();
    assert_eq!(far.seeks(), 1);
}

#[test]
fn a_sequential_reader_of_odd_blocks_seeks_at_most_once() {
    let (log, id, data) = odd_blob(&[3000; 100]);
    let far = MemoryLog::sparse(&log);
    let reader = Blobs::new(far.clone()).reader(id, None);
    let mut read = Vec::new();
    while read.len() < data.len() {
        read.extend(joined(run(reader.read(read.len() as u64, 4096)).unwrap()));
    }
    assert_eq!(read, data);
    assert!(far.seeks() <= 1, "{}", far.seeks());
}

#[test]
fn prefetch_asks_for_the_blocks_that_a_read_needs() {
    let log = MemoryLog::new();
    let data = content(10 * 65536);
    let blobs = Blobs::writable(log.clone());
    let id = blobs.put(&data[..]).unwrap();
    let mut map = BlockMap::default();
    for block in [3, 1, 3] {
        map.push(block, 65536).unwrap();
    }
    let mapped = blobs.put_map(&map).unwrap();
    let far = MemoryLog::sparse(&log);
    let reader = Blobs::new(far.clone()).reader(id, None);
    reader.prefetch(65000, 1000);
    assert_eq!(far.hinted(), 2);
    assert!(reader.read_local(65000, 1000).unwrap().is_some());
    reader.prefetch(9 * 65536, 1 << 30);
    assert_eq!(far.hinted(), 3);
    let reader = Blobs::new(far.clone()).reader(mapped, Some(map.size()));
    reader.prefetch(0, 10);
    reader.prefetch(0, 3 * 65536);
    assert_eq!(far.hinted(), 5);
    assert!(reader.read_local(0, 3 * 65536).unwrap().is_some());
}

#[test]
fn lying_ids_and_maps_are_errors() {
    let log = MemoryLog::new();
    let blobs = Blobs::writable(log.clone());
    let honest = blobs.put(&content(200_000)[..]).unwrap();
    let lie = |id: BlobId| {
        let reader = blobs.reader(id, None);
        assert!(run(reader.read(0, 1 << 20)).is_err(), "{id:?}");
        assert!(reader.read_local(0, 1 << 20).is_err(), "{id:?}");
    };
    lie(BlobId { byte_length: 200_001, ..honest });
    lie(BlobId { block_length: 90, byte_length: 1 << 20, ..honest });
    lie(BlobId { block_offset: 1 << 40, ..honest });
    let reader = blobs.reader(BlobId { byte_offset: 77, ..honest }, None);
    assert!(run(reader.read(100_000, 10)).is_err());
    let mut map = BlockMap::default();
    map.push(0, 65535).unwrap();
    lie(blobs.put_map(&map).unwrap());
    lie(BlobId { block_length: 65, block_map: true, ..honest });
    let block = blobs.put_blocks([Bytes::from_static(&[1, 0])]).unwrap();
    lie(BlobId { block_map: true, ..block });
}

proptest! {
    #![proptest_config(crate::sim::cases(64))]

    #[test]
    fn any_cut_reads_like_the_whole(
        sizes in proptest::collection::vec(
            prop_oneof![0usize..40, 65530usize..65540, Just(65536usize)], 1..12),
        reads in proptest::collection::vec((any::<u32>(), 1usize..100_000), 1..12),
    ) {
        let (log, id, data) = odd_blob(&sizes);
        let far = MemoryLog::sparse(&log);
        let local = Blobs::new(log).reader(id, None);
        let remote = Blobs::new(far).reader(id, None);
        for (at, len) in reads {
            let offset = at as usize % (data.len() + 2);
            let want = data.get(offset..data.len().min(offset + len)).unwrap_or_default();
            prop_assert_eq!(joined(run(remote.read(offset as u64, len)).unwrap()), want);
            prop_assert_eq!(joined(local.read_local(offset as u64, len).unwrap().unwrap()), want);
        }
    }

    #[test]
    fn any_map_reads_like_its_blocks(
        picks in proptest::collection::vec(0usize..6, 0..40),
        reads in proptest::collection::vec((any::<u16>(), 1usize..500), 1..8),
    ) {
        let sizes = [10, 0, 33, 1, 200, 7];
        let (log, id, data) = odd_blob(&sizes);
        let (mut map, mut want) = (BlockMap::default(), Vec::new());
        for pick in picks {
            map.push(id.block_offset + pick as u64, sizes[pick] as u64).unwrap();
            let start: usize = sizes[..pick].iter().sum();
            want.extend_from_slice(&data[start..start + sizes[pick]]);
        }
        let blobs = Blobs::writable(log.clone());
        let id = blobs.put_map(&map).unwrap();
        prop_assert_eq!(run(blobs.map(&id)).unwrap(), map);
        let local = blobs.reader(id, None);
        let remote = Blobs::new(MemoryLog::sparse(&log)).reader(id, Some(want.len() as u64));
        prop_assert_eq!(remote.size(), want.len() as u64);
        for (at, len) in reads {
            let offset = at as usize % (want.len() + 1);
            let part = &want[offset..want.len().min(offset + len)];
            prop_assert_eq!(joined(local.read_local(offset as u64, len).unwrap().unwrap()), part);
            prop_assert_eq!(joined(run(remote.read(offset as u64, len)).unwrap()), part);
        }
        prop_assert_eq!(local.size(), want.len() as u64);
    }
}
