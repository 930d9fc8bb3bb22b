//! How many files this process may have open at a time.
//!
//! The usual limit of 1024 is one that a process may raise by itself, up to another that an administrator set. Who
//! keeps many files open goes by what there is.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io;

/// Where the limit cannot be told.
const USUAL: u64 = 1024;

/// Free descriptors without which no command comes far: an owner that serves nobody yet has two dozen open.
const NEEDED: usize = 24;

/// Raises the limit as far as this process may, and tells whether there is room to begin at all.
///
/// # Errors
/// What to tell a person: there is not.
pub fn make_room() -> Result<(), String> {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Programs that this one starts take no harm: none of them waits with select(2).
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let opened: io::Result<Vec<File>> = (0..NEEDED).map(|_| File::open("/dev/null")).collect();
    match opened {
        Err(error) if is_short(&error) => Err(format!(
            "too few files may be open at once here, {}: `ulimit -n 1024` allows more",
            limit()
        )),
        // Without that device, say: whatever needs it tells.
        _ => Ok(()),
    }
}

/// Descriptors that this process may have.
pub fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL, |(soft, _)| soft)
}

/// Whether an error says that no descriptor is free, in this process or on this machine.
pub fn is_short(error: &io::Error) -> bool {
    let short = [nix::errno::Errno::EMFILE, nix::errno::Errno::ENFILE];
    error.raw_os_error().is_some_and(|code| short.iter().any(|errno| *errno as i32 == code))
}
