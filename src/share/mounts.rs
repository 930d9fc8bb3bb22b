//! Where other filesystems are mounted below a shared folder.
//!
//! A share ends where another filesystem begins: what is mounted there may be a network away, may be gone
//! tomorrow, or may be a drive that this very program mounted. Bind mounts are mounts as well.

use crate::mountinfo::{self, MountEntry};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Mount points below a folder, with what is on top at each. None are known where `/proc` is not mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(BTreeMap<PathBuf, MountEntry>);

impl Mounts {
    /// Those below `folder`, which has no links in it.
    pub fn below(folder: &Path) -> Self {
        let all = mountinfo::mounts().unwrap_or_default().into_iter();
        let below = all.filter(|mount| mount.path != folder && mount.path.starts_with(folder));
        // Later ones lie over earlier ones.
        Self(below.map(|mount| (mount.path.clone(), mount)).collect())
    }

    pub fn at(&self, path: &Path) -> Option<&MountEntry> {
        self.0.get(path)
    }

    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether `path` lies on a drive that hdrive mounted.
pub fn is_on_own_mount(path: &Path) -> io::Result<bool> {
    let mounts = mountinfo::mounts()?;
    let over = |above: &Path| mounts.iter().rfind(|mount| mount.path == above);
    Ok(path.ancestors().find_map(over).is_some_and(MountEntry::is_ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_a_folder_counts() {
        assert!(Mounts::below(Path::new("/")).at(Path::new("/proc")).is_some());
        let dir = tempfile::tempdir().unwrap();
        assert!(Mounts::below(&dir.path().canonicalize().unwrap()).is_empty());
        assert!(!is_on_own_mount(dir.path()).unwrap());
    }
}
