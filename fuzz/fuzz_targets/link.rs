//! Keys, links and paths as people paste them: what is understood says the same when written again.
#![no_main]

use hdrive::key::{DriveLink, parse_key, z32};
use hdrive::path::DrivePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = parse_key(text) {
        assert_eq!(parse_key(&z32(&key)), Ok(key));
    }
    let _ = text.parse::<DriveLink>();
    if let Ok(path) = DrivePath::from_user(text) {
        assert_eq!(DrivePath::from_user(&path.to_string()).as_ref(), Ok(&path));
    }
    if let Ok(path) = DrivePath::from_entry_key(text) {
        assert_eq!(path.to_string(), text);
    }
});
