//! What is in a local folder now: every name that a drive can hold, with what tells a change.

use super::place::locate;
use super::rules::{Judge, Rules, Verdict};
use super::stores::FileId;
use crate::codec::MAX_INT;
use crate::path::DrivePath;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Permission bits that let others read a file, and get into a folder.
const OTHERS_READ: u32 = 0o044;
const OTHERS_ENTER: u32 = 0o011;

/// One file or link of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub path: DrivePath,
    pub kind: LocalKind,
    /// Permission bits.
    pub mode: u32,
    /// Milliseconds since 1970.
    pub mtime_ms: i64,
    pub stamp: Stamp,
    /// Nobody but its owner can read it here.
    pub private: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalKind {
    File { size: u64 },
    Symlink { target: String },
}

/// Which inode it is, and when that changed last, in whatever way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub file: FileId,
    /// Nanoseconds since 1970. Programs cannot set it.
    pub ctime_ns: i64,
    /// How many names the inode has, in the folder or elsewhere.
    pub names: u64,
}

/// What a file is when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Milliseconds since 1970.
    pub mtime_ms: i64,
    pub stamp: Stamp,
}

impl Look {
    /// # Errors
    /// When it is no file any more.
    pub fn at(file: &fs::File) -> io::Result<Self> {
        let meta = file.metadata()?;
        match meta.is_file() {
            true => Ok(Self::of(&meta)),
            false => Err(io::Error::other("it is no file any more")),
        }
    }

    fn of(meta: &fs::Metadata) -> Self {
        let mtime_ms = milliseconds(meta.mtime(), meta.mtime_nsec());
        Self { size: meta.size(), mode: meta.mode() & 0o777, mtime_ms, stamp: Stamp::of(meta) }
    }
}

impl Local {
    /// Bytes of the content; none for a link.
    pub fn size(&self) -> u64 {
        match self.kind {
            LocalKind::File { size } => size,
            LocalKind::Symlink { .. } => 0,
        }
    }

    /// What it was when it was found.
    pub fn look(&self) -> Look {
        Look { size: self.size(), mode: self.mode, mtime_ms: self.mtime_ms, stamp: self.stamp }
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        let ctime_ns = meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec());
        Self { file: FileId::of(meta), ctime_ns, names: meta.nlink() }
    }
}

/// The outcome of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// In path order.
    pub found: Vec<Local>,
    /// Folders with nothing in them that is shared, in path order; never the root.
    pub empty: Vec<DrivePath>,
    /// Names that were left out, each with the reason, for a warning.
    pub skipped: Vec<(PathBuf, String)>,
    /// Paths that exist but could not be looked at: what is in the drive below them stays.
    pub unknown: Vec<DrivePath>,
    /// Folders of which it is not known what is to be left out: nothing new in them may be shared.
    pub closed: Vec<DrivePath>,
    /// What is wrong with the files that say what is left out.
    pub warnings: Vec<(PathBuf, String)>,
    /// Mount points that were crossed.
    pub crossed: Vec<DrivePath>,
}

impl Scan {
    fn skip(&mut self, path: &Path, why: impl ToString) {
        self.skipped.push((path.to_path_buf(), why.to_string()));
    }
}

/// Everything at and below `start` (the root for the whole folder), but for stores of drives.
pub fn scan(folder: &Path, start: &DrivePath) -> Scan {
    scan_by(&Rules::all(folder), start)
}

/// Everything at and below `start` that `rules` share. A path that does not exist, or that only a
/// symbolic link leads to, gives an empty scan. Special files and names that no drive can hold are left out and told; a
/// folder that cannot be read is told too, and what the drive holds below it is not taken for deleted.
pub fn scan_by(rules: &Rules, start: &DrivePath) -> Scan {
    let folder = rules.folder();
    let mut result = Scan::default();
    let mut judge = rules.begin();
    let reached = within_folders(folder, start) && {
        let verdict = judge.reaches(start);
        if matches!(verdict, Verdict::Hidden(_)) {
            result.unknown.push(start.clone());
        }
        verdict == Verdict::Shared
    };
    // With each path, whether others can get at its folder.
    let mut todo = if reached { vec![(start.clone(), false)] } else { Vec::new() };
    let mut folders = Vec::new();
    while let Some((path, hidden)) = todo.pop() {
        let full = locate(folder, &path);
        let (verdict, meta) = match look(&mut judge, &path, &full) {
            Ok(looked) => looked,
            Err(error) if is_gone(&error) => continue,
            Err(error) => {
                result.skip(&full, error);
                result.unknown.push(path);
                continue;
            }
        };
        match verdict {
            Verdict::Shared => {}
            Verdict::Excluded => continue,
            Verdict::Refused(why) => {
                result.skip(&full, why);
                continue;
            }
            Verdict::Hidden(why) => {
                result.skip(&full, why);
                result.unknown.push(path);
                continue;
            }
        }
        let Some(meta) = meta else { continue };
        if meta.is_dir() {
            if judge.mounts().at(&full).is_some() {
                result.crossed.push(path.clone());
            }
            match children(&full, &path, &mut result) {
                Ok(names) => {
                    let hidden = hidden || !path.is_root() && meta.mode() & OTHERS_ENTER == 0;
                    todo.extend(names.into_iter().map(|name| (name, hidden)));
                    if !path.is_root() {
                        folders.push(path);
                    }
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    result.skip(&full, error);
                    result.unknown.push(path);
                }
            }
            continue;
        }
        if let Some(kind) = kind(&full, &meta, &mut result) {
            let private = meta.is_file() && (hidden || meta.mode() & OTHERS_READ == 0);
            let Look { mode, mtime_ms, stamp, .. } = Look::of(&meta);
            result.found.push(Local { path, kind, mode, mtime_ms, stamp, private });
        }
    }
    result.found.sort_by(|a, b| a.path.cmp(&b.path));
    result.empty = without_content(folders, &result);
    (result.closed, result.warnings) = (judge.unknown(), judge.warnings());
    result
}

/// What the rules say of a name, and what it is. What is mounted and not shared is not looked at: it may be away.
fn look(
    judge: &mut Judge<'_>,
    path: &DrivePath,
    full: &Path,
) -> io::Result<(Verdict, Option<fs::Metadata>)> {
    if let Some(hidden) = judge.hidden(full) {
        return Ok((hidden, None));
    }
    let meta = fs::symlink_metadata(full)?;
    Ok((judge.judge(path, full, &meta), Some(meta)))
}

/// What a file or link is in a drive; none, and told, if it is something else.
fn kind(full: &Path, meta: &fs::Metadata, result: &mut Scan) -> Option<LocalKind> {
    if meta.is_file() {
        return Some(LocalKind::File { size: meta.size() });
    }
    if !meta.is_symlink() {
        result.skip(full, "sockets, pipes and devices have no place in a drive");
        return None;
    }
    match fs::read_link(full).map(|target| target.into_os_string().into_string()) {
        Ok(Ok(target)) => return Some(LocalKind::Symlink { target }),
        Ok(Err(_)) => result.skip(full, "the target of this link is not UTF-8"),
        Err(error) => result.skip(full, error),
    }
    None
}

/// Those of `folders` below which nothing was found.
fn without_content(mut folders: Vec<DrivePath>, scan: &Scan) -> Vec<DrivePath> {
    let names = scan.found.iter().map(|local| &local.path).chain(&scan.unknown);
    let (mut filled, mut last) = (BTreeSet::new(), None);
    for path in names {
        // Names of one folder follow each other.
        let above = path.as_str().rsplit_once('/').map(|(above, _)| above);
        if above != last {
            filled.extend(path.parent());
            last = above;
        }
    }
    // Deeper ones first, so that a folder that holds an empty one is not empty itself.
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.names().count()));
    let mut empty = Vec::new();
    for folder in folders {
        if !filled.contains(&folder) {
            empty.push(folder.clone());
        }
        filled.extend(folder.parent());
    }
    empty.sort();
    empty
}

/// Whether all names above `path` are folders themselves. A link among them would lead out of what is shared.
fn within_folders(folder: &Path, path: &DrivePath) -> bool {
    let parents = std::iter::successors(path.parent(), DrivePath::parent);
    parents.filter(|above| !above.is_root()).all(|above| {
        // What cannot be looked at is judged when it is read.
        fs::symlink_metadata(locate(folder, &above)).map_or(true, |meta| meta.is_dir())
    })
}

/// A file's time; one that no JavaScript number can hold is the nearest that can.
fn milliseconds(seconds: i64, nanoseconds: i64) -> i64 {
    let most = MAX_INT as i64;
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000).clamp(-most, most)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn children(full: &Path, path: &DrivePath, result: &mut Scan) -> io::Result<Vec<DrivePath>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(full)? {
        let entry = entry?;
        match entry.file_name().into_string().map(|name| path.join(&name)) {
            Ok(Ok(path)) => names.push(path),
            Ok(Err(error)) => result.skip(&entry.path(), error),
            Err(_) => result.skip(&entry.path(), "this name is not UTF-8"),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn paths(scan: &Scan) -> Vec<&str> {
        scan.found.iter().map(|l| l.path.as_str()).collect()
    }

    #[test]
    fn files_and_links_are_found_and_what_no_drive_can_hold_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("a/b/file"), "12345").unwrap();
        fs::write(at("top"), "").unwrap();
        std::os::unix::fs::symlink("b/file", at("a/link")).unwrap();
        fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"bad-\xff")), "").unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();

        let scan_all = scan(dir.path(), &DrivePath::root());
        assert_eq!(paths(&scan_all), ["/a/b/file", "/a/link", "/top"]);
        assert_eq!(scan_all.found[0].kind, LocalKind::File { size: 5 });
        assert_eq!(scan_all.found[1].kind, LocalKind::Symlink { target: "b/file".into() });
        assert_eq!(scan_all.skipped.len(), 2);

        let part = scan(dir.path(), &DrivePath::from_user("/a/b").unwrap());
        assert_eq!(paths(&part), ["/a/b/file"]);
        let gone = scan(dir.path(), &DrivePath::from_user("/nothing/here").unwrap());
        assert!(gone.found.is_empty() && gone.unknown.is_empty());
    }

    #[test]
    fn what_lies_behind_a_link_is_not_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/deep")).unwrap();
        fs::write(dir.path().join("outside/deep/secret"), "x").unwrap();
        let folder = dir.path().join("shared");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink("../outside", folder.join("link")).unwrap();
        for behind in ["/link/deep", "/link/deep/secret"] {
            let behind = scan(&folder, &DrivePath::from_user(behind).unwrap());
            assert!(behind.found.is_empty() && behind.unknown.is_empty(), "{behind:?}");
        }
        assert_eq!(paths(&scan(&folder, &DrivePath::root())), ["/link"]);
    }

    #[test]
    fn times_that_some_filesystems_can_hold_do_not_overflow() {
        assert_eq!(milliseconds(1_700_000_000, 123_999_999), 1_700_000_000_123);
        assert_eq!(milliseconds(-1, 500_000_000), -500);
        assert_eq!(milliseconds(i64::MAX, 999_999_999), (1 << 53) - 1);
        assert_eq!(milliseconds(i64::MIN, 0), 1 - (1 << 53));
    }
}
