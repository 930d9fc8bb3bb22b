//! Extended attributes: what is known of a file beyond POSIX.
//!
//! They are read by name and not listed: programs that copy what is listed (`cp -a`, `rsync -X`, `tar --xattrs`) would
//! carry the key of this drive onto files that are somewhere else.

use super::errno::{FsError, Result};
use super::volume::Volume;
use crate::path::DrivePath;

/// The drive's key in z-base-32.
const KEY: &str = "user.hdrive.key";
/// The version that is shown, in decimal.
const VERSION: &str = "user.hdrive.version";
/// Bytes of the file, or of everything below the directory, that are in the local store, in decimal.
const CACHED: &str = "user.hdrive.cached";

/// Whether it is one that is made up here, and never stored.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("user.hdrive.")
}

/// Value of the attribute `name` of what is at `path`; none of what is unlinked.
///
/// # Errors
/// [`FsError::NoAttribute`] for every other name; those of the system too (`security.capability`, ACLs).
pub fn get(volume: &dyn Volume, path: Option<&DrivePath>, name: &[u8]) -> Result<String> {
    match (std::str::from_utf8(name), path) {
        (Ok(KEY), _) => Ok(volume.info().key),
        (Ok(VERSION), _) => Ok(volume.info().version.to_string()),
        (Ok(CACHED), Some(path)) => Ok(volume.cached_bytes(path).to_string()),
        _ => Err(FsError::NoAttribute),
    }
}
