//! What the keys of a drive's bee stand for.
//!
//! | key | what |
//! |---|---|
//! | `files`, a zero byte, path | a file or a link; value: [`super::Entry`] |
//! | `hdrive`, a zero byte, `dirs`, a zero byte, path | a folder that stays though nothing is in it; value: `{}` |
//!
//! The reference knows only the first kind: a folder is there as long as something is in it. It reads, lists,
//! watches and mirrors the range of `files` alone, so the second kind is invisible to it, and travels with the bee
//! all the same. Where it does read everything (the length of the blobs) it wants JSON, hence the value.

use crate::path::{DrivePath, PathError};
use bytes::Bytes;

/// What the keys of files begin with.
pub(super) const FILES: &[u8] = b"files\0";
/// What the keys of kept folders begin with.
const DIRS: &[u8] = b"hdrive\0dirs\0";
/// The value of a kept folder. Whatever stands there is taken.
pub(super) const KEPT: &[u8] = b"{}";

/// What a key of the bee names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// A file or a link.
    Leaf(DrivePath),
    /// A folder that stays though nothing is in it.
    Kept(DrivePath),
}

/// The key of a file or link.
pub(super) fn leaf_key(path: &DrivePath) -> Bytes {
    [FILES, path.as_str().as_bytes()].concat().into()
}

/// The key of a kept folder.
pub(super) fn kept_key(path: &DrivePath) -> Bytes {
    [DIRS, path.as_str().as_bytes()].concat().into()
}

/// What a bee key stands for. `None` for keys of other programs.
pub(super) fn parse(key: &[u8]) -> Option<Result<Name, PathError>> {
    let (path, name): (_, fn(DrivePath) -> Name) = match key.strip_prefix(FILES) {
        Some(path) => (path, Name::Leaf),
        None => (key.strip_prefix(DIRS)?, Name::Kept),
    };
    let path = std::str::from_utf8(path).map_err(|_| PathError::BadName);
    Some(path.and_then(DrivePath::from_entry_key).map(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_names_and_back() {
        let path = DrivePath::from_user("/a/b").unwrap();
        assert_eq!(parse(&leaf_key(&path)), Some(Ok(Name::Leaf(path.clone()))));
        assert_eq!(parse(&kept_key(&path)), Some(Ok(Name::Kept(path))));
        assert_eq!(parse(b"hdrive\0other\0/a"), None);
        assert!(parse(b"hdrive\0dirs\0/../a").unwrap().is_err());
        assert!(parse(b"files\0/\xff").unwrap().is_err());
    }

    #[test]
    fn kept_folders_lie_outside_the_range_of_files() {
        let after = [&FILES[..FILES.len() - 1], b"\x01"].concat();
        assert!(kept_key(&DrivePath::root())[..] > after[..]);
    }
}
