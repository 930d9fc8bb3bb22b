//! Block maps, and reads through one whose entries lie about the blocks.
#![no_main]

use bytes::Bytes;
use hdrive::hyper::blobs::{BlobId, Blobs, BlockMap};
use hdrive::hyper::source::memory::MemoryLog;
use hdrive_fuzz::now;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let raw = Bytes::copy_from_slice(bytes);
    if let Ok(map) = BlockMap::decode(std::slice::from_ref(&raw)) {
        assert_eq!(BlockMap::decode(&map.encode()).ok(), Some(map.clone()));
        for at in map.covering(1, map.size()) {
            assert!(map.entry(at).is_some());
        }
    }
    let data = [Bytes::from_static(b"0123456789"), Bytes::from_static(b"abcdef"), raw];
    let blobs = Blobs::new(MemoryLog::from_blocks(data));
    let id = BlobId {
        block_offset: 2,
        byte_offset: 16,
        block_length: 1,
        byte_length: bytes.len() as u64,
        block_map: true,
    };
    let Ok(map) = now(blobs.map(&id)) else { return };
    let reader = blobs.reader(id, Some(map.size()));
    let _ = now(reader.read(0, 100));
    let _ = now(reader.read(map.size() / 2, 10));
});
