//! Where other filesystems are mounted below a shared folder.
//!
//! A share ends where another filesystem begins: what is mounted there may be a network away, may be gone
//! tomorrow, or may be a drive that this very program mounted. Bind mounts are mounts as well. What lies under a later mount
//! of a folder above it is none: nobody gets there.

use crate::mountinfo::{self, MountEntry};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
        Ok(Self::of(&mountinfo::mounts()?, folder))
    }

    fn of(mounts: &[MountEntry], folder: &Path) -> Self {
        let tree = Tree::new(mounts);
        let is_below = |mount: &&MountEntry| mount.path != folder && mount.path.starts_with(folder);
        let points: BTreeSet<&Path> =
            mounts.iter().filter(is_below).map(|mount| mount.path.as_path()).collect();
        let seen = points.into_iter().map(|at| (at.to_path_buf(), tree.at(at)));
        Self(seen.filter(|(_, mounts)| !mounts.is_empty()).collect())
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
    Ok(Tree::new(&mounts).walk(path).0.is_some_and(MountEntry::is_ours))
}

/// How mounts lie in each other.
struct Tree<'a> {
    /// Of each mount point the mount that it is in, none at the top, and the one that was made there.
    in_it: HashMap<(Option<u64>, &'a Path), &'a MountEntry>,
}

impl<'a> Tree<'a> {
    fn new(mounts: &'a [MountEntry]) -> Self {
        let known: HashMap<u64, &MountEntry> =
            mounts.iter().map(|mount| (mount.id, mount)).collect();
        let place = |mount: &'a MountEntry| {
            // What lies above the root of this process is not listed.
            let above = known.get(&mount.parent).filter(|above| above.id != mount.id);
            ((above.map(|above| above.id), mount.path.as_path()), mount)
        };
        Self { in_it: mounts.iter().map(place).collect() }
    }

    /// The mount that one is in at `path`, and those of them that were made just there, from the lowest up.
    fn walk(&self, path: &Path) -> (Option<&'a MountEntry>, Vec<MountEntry>) {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        let (mut now, mut here): (Option<&MountEntry>, _) = (None, Vec::new());
        for at in ancestors {
            here.clear();
            while let Some(over) = self.in_it.get(&(now.map(|mount| mount.id), at)) {
                // Each is stepped into once, whatever the kernel may list.
                if here.iter().any(|mount: &MountEntry| mount.id == over.id) {
                    break;
                }
                here.push((*over).clone());
                now = Some(over);
            }
        }
        (now, here)
    }

    fn at(&self, path: &Path) -> Vec<MountEntry> {
        self.walk(path).1
    }
}

/// Something mounted for a test, until it is dropped.
#[cfg(test)]
pub(super) struct Bind(PathBuf);

#[cfg(test)]
impl Bind {
    /// Shows `folder` at `at` as well. None, and told, where that is not allowed and a test may be left out.
    pub(super) fn over(folder: &Path, at: &Path) -> Option<Self> {
        let (flags, none) = (nix::mount::MsFlags::MS_BIND, None::<&str>);
        let done = nix::mount::mount(Some(folder), at, none, flags, none);
        let mounted = crate::required::available("the right to mount", done.is_ok());
        mounted.then(|| Self(at.to_path_buf()))
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
            parent: 0,
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

    #[test]
    fn a_mount_that_lies_under_a_later_one_is_not_there() {
        let entry = |id, parent, path: &str| MountEntry {
            id,
            parent,
            device: (0, 1),
            root: "/".into(),
            path: path.into(),
            kind: "ext4".into(),
            source: "/dev/sda1".into(),
        };
        let all = [
            entry(1, 0, "/"),
            entry(2, 1, "/f/sub"),
            entry(3, 1, "/f"),
            entry(4, 3, "/f/own"),
            entry(5, 4, "/f/own"),
            entry(6, 1, "/f/own"),
        ];
        let below = |mounts: &[MountEntry]| {
            let mounts = Mounts::of(mounts, Path::new("/f"));
            let id = |at: &Path| (at.to_path_buf(), mounts.at(at).unwrap().id);
            mounts.paths().map(id).collect::<Vec<_>>()
        };
        assert_eq!(below(&all), [("/f/own".into(), 5)]);
        let before = [all[0].clone(), all[1].clone(), all[5].clone()];
        let both = [("/f/own".into(), 6), ("/f/sub".into(), 2)];
        assert_eq!(below(&before), both);
        // The root of a container need be no mount itself.
        assert_eq!(below(&before[1..]), both);
    }

    #[test]
    fn what_the_kernel_lists_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        for name in ["f/sub", "over/sub", "other"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let Some(_inner) = Bind::over(&at("other"), &at("f/sub")) else { return };
        assert!(Mounts::below(&at("f")).unwrap().at(&at("f/sub")).is_some());
        let _outer = Bind::over(&at("over"), &at("f")).unwrap();
        assert!(Mounts::below(&at("f")).unwrap().is_empty());
        let _again = Bind::over(&at("other"), &at("f/sub")).unwrap();
        assert!(Mounts::below(&at("f")).unwrap().at(&at("f/sub")).is_some());
    }
}
