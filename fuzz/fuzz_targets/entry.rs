//! Entries of a drive, and records of its folders and special nodes: JSON that any program wrote. What is understood keeps
//! every field when written again, and says the same when it is said anew.
#![no_main]

use hdrive::hyper::drive::{Entry, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut record = Record::decode(bytes);
    let (kind, stat, xattrs) = (record.kind(), record.stat(), record.xattrs());
    record.set_stat(&stat);
    record.set_xattrs(&xattrs);
    let record = Record::decode(&record.encode());
    assert_eq!((record.kind(), record.stat(), record.xattrs()), (kind, stat, xattrs));
    let Ok(entry) = Entry::decode(bytes) else { return };
    let again = entry.encode();
    assert_eq!(Entry::decode(&again).ok().as_ref(), Some(&entry));
    assert_eq!(Entry::decode(&again).map(|e| e.encode()).ok(), Some(again));
    let mut same = entry.clone();
    same.set_stat(&entry.stat());
    same.set_xattrs(&entry.xattrs());
    assert_eq!((same.stat(), same.xattrs()), (entry.stat(), entry.xattrs()));
});
