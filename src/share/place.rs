//! Where in the folder a path of the drive lies, and the other way round.

use crate::path::DrivePath;
use std::path::{Path, PathBuf};

/// Where `path` of the drive lies below `folder`.
pub fn locate(folder: &Path, path: &DrivePath) -> PathBuf {
    folder.join(path.as_str().trim_start_matches('/'))
}

/// The drive path of a local one; none outside `folder` or where a name cannot be one of a drive.
pub fn drive_path(folder: &Path, full: &Path) -> Option<DrivePath> {
    let below = full.strip_prefix(folder).ok()?.to_str()?;
    if below.is_empty() {
        return Some(DrivePath::root());
    }
    DrivePath::from_entry_key(&format!("/{below}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_paths_map_to_drive_paths_and_back() {
        let folder = Path::new("/f");
        let path = drive_path(folder, Path::new("/f/a/b")).unwrap();
        assert_eq!(path.as_str(), "/a/b");
        assert_eq!(locate(folder, &path), Path::new("/f/a/b"));
        assert_eq!(drive_path(folder, folder), Some(DrivePath::root()));
        assert_eq!(drive_path(folder, Path::new("/elsewhere")), None);
    }
}
