//! One raw block as header and as only node of a bee.
#![no_main]

use bytes::Bytes;
use hdrive::hyper::bee::{Bee, Header, RangeOptions};
use hdrive::hyper::source::memory::MemoryLog;
use hdrive_fuzz::now;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let raw = Bytes::copy_from_slice(bytes);
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
    let bee = Bee::new(MemoryLog::from_blocks([raw.clone(), raw]));
    let _ = now(bee.header());
    let _ = now(bee.get(b"key"));
    let _ = now(bee.range(RangeOptions::default()).next());
});
