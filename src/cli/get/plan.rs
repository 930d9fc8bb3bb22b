//! What a download makes, and where: folders before what is in them.

use crate::fs::shown_target;
use crate::hyper::drive::{Dir, File, Found, Leaf};
use crate::path::{DrivePath, MAX_NAME};
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Default)]
pub struct Plan {
    pub folders: Vec<Folder>,
    pub files: Vec<Item>,
    pub links: Vec<Link>,
    pub bytes: u64,
    /// Files whose name is that of a folder as well, and the names they get.
    pub renamed: Vec<(DrivePath, String)>,
    /// Pipes, sockets and devices.
    pub left_out: Vec<DrivePath>,
}

pub struct Folder {
    pub path: DrivePath,
    pub to: PathBuf,
}

#[derive(Clone)]
pub struct Item {
    pub path: DrivePath,
    pub file: File,
    /// As far as it is known.
    pub size: u64,
    pub to: PathBuf,
}

pub struct Link {
    pub path: DrivePath,
    /// What is written, or why nothing is.
    pub target: Result<String, String>,
    pub to: PathBuf,
}

impl Plan {
    pub fn file(&mut self, path: DrivePath, file: &File, to: PathBuf) {
        // What a drive says its files hold may be more than a number can.
        self.bytes = self.bytes.saturating_add(file.size());
        let size = file.size();
        self.files.push(Item { path, file: file.clone(), size, to });
    }

    /// A link alone, without the folder it lies in.
    pub fn link(&mut self, path: DrivePath, link: &crate::hyper::drive::Link, to: PathBuf) {
        let base = path.parent().unwrap_or_else(DrivePath::root);
        self.links.push(Link { target: written_target(&base, &path, &link.target), path, to });
    }

    /// A folder with everything in it.
    pub fn folder(&mut self, path: &DrivePath, dir: &Dir, to: PathBuf) {
        self.below(path, path, dir, to);
    }

    fn below(&mut self, base: &DrivePath, path: &DrivePath, dir: &Dir, to: PathBuf) {
        self.folders.push(Folder { path: path.clone(), to: to.clone() });
        for (name, node) in dir.iter() {
            // Names were checked when the index was made: none leads out of the destination.
            let Ok(path) = path.join(name) else { continue };
            match node.shown() {
                Found::Directory(below) => {
                    self.below(base, &path, below, to.join(name));
                    if let Some(leaf) = node.leaf() {
                        let other = other_name(name, |name| dir.get(name).is_some());
                        self.renamed.push((path.clone(), other.clone()));
                        self.leaf(base, path, leaf, to.join(other));
                    }
                }
                _ => {
                    if let Some(leaf) = node.leaf() {
                        self.leaf(base, path, leaf, to.join(name));
                    }
                }
            }
        }
    }

    /// Sends everything below another folder than `from`.
    pub fn move_to(&mut self, from: &Path, to: &Path) {
        let folders = self.folders.iter_mut().map(|folder| &mut folder.to);
        let files = self.files.iter_mut().map(|item| &mut item.to);
        let links = self.links.iter_mut().map(|link| &mut link.to);
        for place in folders.chain(files).chain(links) {
            if let Ok(below) = place.strip_prefix(from) {
                *place = match below.as_os_str().is_empty() {
                    true => to.to_path_buf(),
                    false => to.join(below),
                };
            }
        }
    }

    fn leaf(&mut self, base: &DrivePath, path: DrivePath, leaf: &Leaf, to: PathBuf) {
        match leaf {
            Leaf::File(file) => self.file(path, file, to),
            Leaf::Link(link) => {
                let target = written_target(base, &path, &link.target);
                self.links.push(Link { path, target, to });
            }
            Leaf::Special(_) => self.left_out.push(path),
        }
    }
}

/// The target that a link at `path` gets when `base` becomes a local folder: as a mount shows it, absolute ones
/// relative to the link. One that leads out of what is downloaded is not written: there it would name a file of
/// this machine.
fn written_target(base: &DrivePath, path: &DrivePath, target: &str) -> Result<String, String> {
    let unusable = "no file system takes its target";
    let shown = shown_target(path, target).map_err(|_| unusable)?;
    let depth = path.names().count() - base.names().count() - 1;
    if shown.split('/').filter(|part| *part == "..").count() <= depth {
        return Ok(shown.into_owned());
    }
    // It climbs out of the folder; perhaps it comes back.
    let mut there: Vec<&str> = path.names().collect();
    there.pop();
    for part in shown.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(there.pop()),
            name => there.push(name),
        }
    }
    let folder: Vec<&str> = base.names().collect();
    let Some(inside) = there.strip_prefix(&folder[..]) else {
        return Err(format!("this link leads out of {base}, to '{target}'"));
    };
    let place =
        path.names().skip(folder.len()).try_fold(DrivePath::root(), |to, name| to.join(name));
    let place = place.map_err(|_| unusable)?;
    let target = format!("/{}", inside.join("/"));
    shown_target(&place, &target).map(Into::into).map_err(|_| unusable.into())
}

/// A name for a file beside the folder of its name.
fn other_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2u64..).map(|n| format!(" (file {n})"));
    let endings = std::iter::once(" (file)".to_string()).chain(numbered);
    let names = endings.map(|ending| {
        let mut end = MAX_NAME.saturating_sub(ending.len()).min(name.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{ending}", &name[..end])
    });
    names.into_iter().find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::blobs::BlobId;
    use crate::hyper::drive::Content;

    fn path(text: &str) -> DrivePath {
        DrivePath::from_user(text).unwrap()
    }

    #[test]
    fn files_that_claim_more_bytes_than_a_number_holds_are_planned_all_the_same() {
        let id = BlobId { byte_length: u64::MAX / 2 + 1, ..BlobId::default() };
        let file = File::of(Content::Blob(id));
        let mut plan = Plan::default();
        for name in ["a", "b"] {
            plan.file(path(name), &file, PathBuf::from(name));
        }
        assert_eq!((plan.files.len(), plan.bytes), (2, u64::MAX));
    }

    #[test]
    fn links_stay_in_what_is_downloaded() {
        let written = |base, at, target| written_target(&path(base), &path(at), target);
        let ok = |text: &str| Ok(text.to_string());
        assert_eq!(written("/", "/a/l", "/etc/passwd"), ok("../etc/passwd"));
        assert_eq!(written("/", "/l", "../../etc/passwd"), ok("etc/passwd"));
        assert_eq!(written("/a", "/a/l", "b"), ok("b"));
        assert_eq!(written("/a", "/a/b/l", "/a/x"), ok("../x"));
        assert_eq!(written("/a", "/a/b/l", "../../a/x"), ok("../x"));
        for (base, at, target) in [
            ("/a", "/a/l", "/etc"),
            ("/a", "/a/l", "../b"),
            ("/a/b", "/a/b/l", "/a/x"),
            ("/", "/l", "a\0"),
        ] {
            assert!(written(base, at, target).is_err(), "{at} -> {target}");
        }
    }

    #[test]
    fn other_names_are_free_and_never_too_long() {
        assert_eq!(other_name("x", |_| false), "x (file)");
        assert_eq!(other_name("x", |name| name == "x (file)"), "x (file 2)");
        let long = "ü".repeat(127);
        for name in [&long, "n", &"n".repeat(255)] {
            assert!(other_name(name, |_| false).len() <= MAX_NAME);
        }
    }
}
