//! What the store notes of a changed file, and the file that it makes of it.
#![no_main]

use bytes::Bytes;
use hdrive::hyper::blobs::Blobs;
use hdrive::hyper::core::storage::memory;
use hdrive::hyper::local::{Kept, LocalFile, Memory, Record};
use hdrive::hyper::source::memory::MemoryLog;
use hdrive_fuzz::now;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    let again = record.encode().expect("a record that was read is not too long");
    assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
    let storage = memory();
    // As much as is cheap of what it says was written.
    let end = record.layout.written.end().min(1 << 20);
    if let (Kept::File { id, .. }, Some(last)) = (&record.kept, end.checked_sub(1)) {
        storage.files(id).blocks.write_at(last, &[1]).expect("there is room");
    }
    let blobs = Blobs::new(MemoryLog::from_blocks([Bytes::copy_from_slice(bytes)]));
    let memory = Memory::new(1000);
    let Ok(file) = LocalFile::from_record(7, bytes, &storage, &memory, &blobs) else { return };
    let middle = file.size() / 2;
    for at in [0, middle, file.size()] {
        let _ = now(file.read(at, 1000));
        let _ = (file.next_data(at), file.next_hole(at));
    }
    let _ = file.changed();
    let _ = file.write(middle, b"written");
    file.punch(middle..middle + 100);
    let _ = file.truncate(middle + 1);
    assert!(file.size() == middle + 1);
    let record = file.record();
    assert!(record.is_none_or(|record| Record::decode(&record.bytes).is_ok()));
    drop(file);
    assert_eq!(memory.taken(), 0);
});
