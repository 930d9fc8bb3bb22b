//! Entries of a drive: JSON that any program wrote. What is understood keeps every field when written again.
#![no_main]

use hdrive::hyper::drive::Entry;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::decode(bytes) else { return };
    let again = entry.encode();
    assert_eq!(Entry::decode(&again).ok().as_ref(), Some(&entry));
    assert_eq!(Entry::decode(&again).map(|e| e.encode()).ok(), Some(again));
});
