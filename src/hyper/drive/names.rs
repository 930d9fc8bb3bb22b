//! What the keys of a drive's bee stand for.
//!
//! | key | what |
//! |---|---|
//! | `files`, a zero byte, path | a file or a link; value: [`super::Entry`] |
//! | `hdrive`, a zero byte, `dirs`, a zero byte, path | a folder that stays though nothing is in it, and what is said of it; value: [`super::Record`] |
//! | `hdrive`, a zero byte, `nodes`, a zero byte, path | a pipe, a socket or a device; value: [`super::Record`] |
//!
//! The reference knows only the first kind: a folder is there as long as something is in it. It reads, lists,
//! watches and mirrors the range of `files` alone, so the others are invisible to it, and travel with the bee
//! all the same. Where it does read everything (the length of the blobs) it wants JSON, hence the value.

use crate::path::{DrivePath, PathError};
use bytes::Bytes;

/// What the keys of files begin with.
pub(super) const FILES: &[u8] = b"files\0";
/// What the keys of kept folders begin with.
const DIRS: &[u8] = b"hdrive\0dirs\0";
/// What the keys of special nodes begin with.
const NODES: &[u8] = b"hdrive\0nodes\0";

/// What a key of the bee names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// A file or a link.
    Leaf(DrivePath),
    /// A folder that stays though nothing is in it. The root does in any case; it has a record if there is something to
    /// say of it.
    Kept(DrivePath),
    /// A special node.
    Node(DrivePath),
}

/// The key of a file or link.
pub(super) fn leaf_key(path: &DrivePath) -> Bytes {
    [FILES, path.as_str().as_bytes()].concat().into()
}

/// The key of a kept folder.
pub(super) fn kept_key(path: &DrivePath) -> Bytes {
    [DIRS, path.as_str().as_bytes()].concat().into()
}

/// The key of a special node.
pub(super) fn node_key(path: &DrivePath) -> Bytes {
    [NODES, path.as_str().as_bytes()].concat().into()
}

/// What a bee key stands for. `None` for keys of other programs.
pub(super) fn parse(key: &[u8]) -> Option<Result<Name, PathError>> {
    let (path, name): (_, fn(DrivePath) -> Name) = if let Some(path) = key.strip_prefix(FILES) {
        (path, Name::Leaf)
    } else if let Some(path) = key.strip_prefix(NODES) {
        (path, Name::Node)
    } else {
        (key.strip_prefix(DIRS)?, Name::Kept)
    };
    if key.strip_prefix(DIRS) == Some(b"/") {
        return Some(Ok(Name::Kept(DrivePath::root())));
    }
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
        assert_eq!(parse(&kept_key(&path)), Some(Ok(Name::Kept(path.clone()))));
        assert_eq!(parse(&node_key(&path)), Some(Ok(Name::Node(path))));
        let root = DrivePath::root();
        assert_eq!(parse(&kept_key(&root)), Some(Ok(Name::Kept(root.clone()))));
        assert!(
            parse(&leaf_key(&root)).unwrap().is_err() && parse(&node_key(&root)).unwrap().is_err()
        );
        assert_eq!(parse(b"hdrive\0other\0/a"), None);
        assert!(parse(b"hdrive\0dirs\0/../a").unwrap().is_err());
        assert!(parse(b"files\0/\xff").unwrap().is_err());
    }

    #[test]
    fn kept_folders_and_special_nodes_lie_outside_the_range_of_files() {
        let after = [&FILES[..FILES.len() - 1], b"\x01"].concat();
        assert!(kept_key(&DrivePath::root())[..] > after[..]);
        assert!(node_key(&DrivePath::root())[..] > after[..]);
    }
}
