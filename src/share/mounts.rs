//! Where other filesystems are mounted below a shared folder.
//!
//! A share ends where another filesystem begins: what is mounted there may be a network away, may be gone
//! tomorrow, or may be a drive that this very program mounted. Bind mounts are mounts as well.

use crate::mountinfo::{self, MountEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Mount points below a folder, with what is mounted at each: later ones lie over earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(BTreeMap<PathBuf, Vec<MountEntry>>);

impl Mounts {
    /// Those below `folder`, which has no links in it.
    ///
    /// # Errors
    /// When nobody knows what is mounted: then nothing may be looked at.
    pub fn below(folder: &Path) -> io::Result<Self> {
        let mut below: BTreeMap<PathBuf, Vec<MountEntry>> = BTreeMap::new();
        for mount in mountinfo::mounts()? {
            if mount.path != folder && mount.path.starts_with(folder) {
                below.entry(mount.path.clone()).or_default().push(mount);
            }
        }
        Ok(Self(below))
    }

    /// What is on top there.
    pub fn at(&self, path: &Path) -> Option<&MountEntry> {
        self.0.get(path)?.last()
    }

    /// Where they are.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where something was mounted or unmounted between the two.
    pub fn changed<'a>(&'a self, later: &'a Self) -> BTreeSet<&'a Path> {
        let both = self.0.keys().chain(later.0.keys());
        both.filter(|at| self.0.get(*at) != later.0.get(*at)).map(PathBuf::as_path).collect()
    }
}

/// Whether `path` lies on a drive that hdrive mounted.
pub fn is_on_own_mount(path: &Path) -> io::Result<bool> {
    let mounts = mountinfo::mounts()?;
    let over = |above: &Path| mounts.iter().rfind(|mount| mount.path == above);
    Ok(path.ancestors().find_map(over).is_some_and(MountEntry::is_ours))
}

/// Something mounted for a test, until it is dropped.
#[cfg(test)]
pub(super) struct Bind(PathBuf);

#[cfg(test)]
impl Bind {
    /// Shows `folder` at `at` as well. None, and told, where that is not allowed.
    pub(super) fn over(folder: &Path, at: &Path) -> Option<Self> {
        let (flags, none) = (nix::mount::MsFlags::MS_BIND, None::<&str>);
        match nix::mount::mount(Some(folder), at, none, flags, none) {
            Ok(()) => Some(Self(at.to_path_buf())),
            Err(error) => {
                eprintln!("left out: nothing can be mounted here: {error}");
                None
            }
        }
    }
}

#[cfg(test)]
impl Drop for Bind {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_a_folder_counts() {
        assert!(Mounts::below(Path::new("/")).unwrap().at(Path::new("/proc")).is_some());
        let dir = tempfile::tempdir().unwrap();
        assert!(Mounts::below(&dir.path().canonicalize().unwrap()).unwrap().is_empty());
        assert!(!is_on_own_mount(dir.path()).unwrap());
    }

    #[test]
    fn what_is_mounted_over_something_or_instead_of_it_is_a_change() {
        let entry = |id, path: &str, root: &str| MountEntry {
            id,
            device: (0, 1),
            root: root.into(),
            path: path.into(),
            kind: "ext4".into(),
            source: "/dev/sda1".into(),
        };
        let mounts = |entries: &[MountEntry]| {
            let mut below: BTreeMap<PathBuf, Vec<MountEntry>> = BTreeMap::new();
            for entry in entries {
                below.entry(entry.path.clone()).or_default().push(entry.clone());
            }
            Mounts(below)
        };
        let before = mounts(&[entry(1, "/f/a", "/"), entry(2, "/f/b", "/")]);
        assert!(before.changed(&before.clone()).is_empty());
        let over = mounts(&[entry(1, "/f/a", "/"), entry(2, "/f/b", "/"), entry(3, "/f/a", "/x")]);
        assert_eq!(before.changed(&over), BTreeSet::from([Path::new("/f/a")]));
        assert_eq!(over.at(Path::new("/f/a")).unwrap().id, 3);
        let other = mounts(&[entry(1, "/f/a", "/y"), entry(4, "/f/c", "/")]);
        let all = ["/f/a", "/f/b", "/f/c"].map(Path::new);
        assert_eq!(before.changed(&other), BTreeSet::from(all));
    }
}
