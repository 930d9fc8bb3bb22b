//! What is in a local folder now: every name that a drive can hold, with what tells a change.

use super::beneath::Beneath;
use super::errors::{is_gone, is_link, is_of_the_moment};
use super::meta::{Meta, is_one_mount};
use super::place::locate;
use super::rules::{Judge, Rules, Verdict};
use super::stores::FileId;
use crate::codec::MAX_INT;
use crate::path::DrivePath;
use rustix::fs::{Dir, readlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Permission bits that let others read a file, and get into a folder.
const OTHERS_READ: u32 = 0o044;
const OTHERS_ENTER: u32 = 0o011;

const MOVING: &str = "something is being mounted or unmounted here: it is looked at again";
const BECOMING: &str = "it became something else at this moment: it is looked at again";

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
    /// The number of the mount it was found in; see [`Meta`].
    pub mount: u64,
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
        let meta = Meta::of(file)?;
        match meta.is_file() {
            true => Ok(Self::of(&meta)),
            false => Err(io::Error::other("it is no file any more")),
        }
    }

    fn of(meta: &Meta) -> Self {
        let mtime_ms = milliseconds(meta.mtime.0, meta.mtime.1);
        Self { size: meta.size, mode: meta.mode, mtime_ms, stamp: Stamp::of(meta) }
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
    fn of(meta: &Meta) -> Self {
        let Meta { file, mount, ctime_ns, names, .. } = *meta;
        Self { file, mount, ctime_ns, names }
    }

    /// Whether both are of one file, whatever it holds.
    pub fn is_of(&self, other: &Self) -> bool {
        self.file == other.file && self.is_beside(other)
    }

    /// Whether both were found in one mount.
    pub fn is_beside(&self, other: &Self) -> bool {
        is_one_mount((self.mount, self.file), (other.mount, other.file))
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
    /// Those of `unknown` that changed during the scan, and where it could not be read what is to be left out: they are
    /// to be looked at again soon.
    pub again: Vec<DrivePath>,
    /// Why nothing was looked at.
    pub blind: Option<String>,
}

impl Scan {
    /// Nobody knows what is there.
    fn unseen(start: &DrivePath, folder: &Path, error: &io::Error) -> Self {
        let mut scan = Self { blind: Some(error.to_string()), ..Self::default() };
        scan.skip(folder, error);
        scan.unknown.push(start.clone());
        scan
    }

    /// What the drive holds there stays.
    fn lose(&mut self, path: DrivePath, full: &Path, error: &io::Error) {
        if is_of_the_moment(error) {
            self.again.push(path.clone());
        }
        self.skip(full, error);
        self.unknown.push(path);
    }

    fn is_moving(&mut self, path: DrivePath, full: &Path) {
        self.skip(full, MOVING);
        self.again.push(path.clone());
        self.unknown.push(path);
    }

    fn skip(&mut self, path: &Path, why: impl ToString) {
        self.skipped.push((path.to_path_buf(), why.to_string()));
    }
}

/// Everything at and below `start` (the root for the whole folder), but for stores of drives.
pub fn scan(folder: &Path, start: &DrivePath) -> Scan {
    scan_by(&Rules::all(folder), start)
}

/// Everything at and below `start` that `rules` share.
pub fn scan_by(rules: &Rules, start: &DrivePath) -> Scan {
    match rules.hold() {
        Ok(held) => scan_in(rules, &held, start),
        Err(error) if is_gone(&error) => Scan::default(),
        Err(error) => Scan::unseen(start, rules.folder(), &error),
    }
}

/// The same in the folder that is held. A path that does not exist, or that only a symbolic link leads to, gives an
/// empty scan. Special files and names that no drive can hold are left out and told; a folder that cannot be read is
/// told too, and what the drive holds below it is not taken for deleted. No more is what was mounted or unmounted
/// during the scan.
pub fn scan_in(rules: &Rules, held: &Beneath, start: &DrivePath) -> Scan {
    let judge = match rules.begin() {
        Ok(judge) => judge,
        Err(error) => return Scan::unseen(start, rules.folder(), &error),
    };
    let mut walk = Walk::new(rules, held, judge);
    walk.begin(start);
    while let Some(listed) = walk.todo.pop() {
        walk.list(listed);
    }
    walk.end()
}

/// A scan on its way.
struct Walk<'a> {
    held: &'a Beneath,
    folder: &'a Path,
    judge: Judge<'a>,
    scan: Scan,
    todo: Vec<Listed>,
    start: DrivePath,
    /// All that were listed, but for the root.
    folders: Vec<DrivePath>,
}

/// A folder to list.
struct Listed {
    path: DrivePath,
    meta: Meta,
    /// Others cannot get at the folder above it.
    hidden: bool,
}

impl<'a> Walk<'a> {
    fn new(rules: &'a Rules, held: &'a Beneath, judge: Judge<'a>) -> Self {
        let (scan, todo, folders) = (Scan::default(), Vec::new(), Vec::new());
        let start = DrivePath::root();
        Self { held, folder: rules.folder(), judge, scan, todo, start, folders }
    }

    fn end(self) -> Scan {
        let Self { mut judge, scan: mut result, start, folders, .. } = self;
        result.found.sort_by(|a, b| a.path.cmp(&b.path));
        result.empty = without_content(folders, &result);
        (result.closed, result.warnings) = (judge.unknown(), judge.warnings());
        // As far as this was a look at them.
        let above = |dir: &DrivePath| {
            std::iter::successors(Some(start.clone()), DrivePath::parent).any(|above| above == *dir)
        };
        let unread = judge.unread().into_iter();
        result.again.extend(unread.map(|dir| if above(&dir) { start.clone() } else { dir }));
        result
    }

    fn begin(&mut self, start: &DrivePath) {
        self.start = start.clone();
        let Some(parent) = start.parent() else {
            let meta = *self.held.meta();
            return self.take(None, &meta, start.clone(), meta, false);
        };
        let full = locate(self.folder, start);
        match self.judge.reaches(start) {
            Ok(Verdict::Shared) => {}
            Ok(Verdict::Hidden(_)) => return self.scan.unknown.push(start.clone()),
            Ok(Verdict::Excluded | Verdict::Refused(_)) => return,
            Err(error) => return self.scan.lose(start.clone(), &full, &error),
        }
        let above = self.held.hold(&parent).and_then(|fd| Ok((Meta::of(&fd)?, fd)));
        match above {
            Ok((meta, fd)) => self.name(&fd, &meta, start.clone(), false),
            Err(error) if is_gone(&error) || is_link(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.scan.is_moving(start.clone(), &full);
            }
            Err(error) => self.scan.lose(start.clone(), &full, &error),
        }
    }

    /// Looks at a name of a folder, which is held. What is mounted and not shared is not looked at: it may be away.
    fn name(&mut self, folder: impl AsFd, above: &Meta, path: DrivePath, hidden: bool) {
        let full = locate(self.folder, &path);
        if let Some(verdict) = self.judge.hidden(&full) {
            return self.leave(verdict, path, &full);
        }
        match Meta::at(&folder, path.name()) {
            Ok(meta) => self.take(Some(folder.as_fd()), above, path, meta, hidden),
            Err(error) if is_gone(&error) => {}
            Err(error) => self.scan.lose(path, &full, &error),
        }
    }

    /// Takes what a name is, if it is shared. `folder` is the one it is in; none for the root.
    fn take(
        &mut self,
        folder: Option<BorrowedFd<'_>>,
        above: &Meta,
        path: DrivePath,
        meta: Meta,
        hidden: bool,
    ) {
        let full = locate(self.folder, &path);
        let known = self.judge.mounts().at(&full).is_some();
        // A mount point that lies under another mount is none here.
        let mounted = if meta.mount == 0 { known } else { !meta.is_beside(above) };
        if mounted && !known {
            return self.scan.is_moving(path, &full);
        }
        match self.judge.judge(&path, &full, &meta) {
            Ok(Verdict::Shared) => {}
            Ok(verdict) => return self.leave(verdict, path, &full),
            Err(error) => return self.scan.lose(path, &full, &error),
        }
        if meta.is_dir() {
            if mounted {
                self.scan.crossed.push(path.clone());
            }
            return self.todo.push(Listed { path, meta, hidden });
        }
        if let Some(folder) = folder
            && let Some(kind) = kind(folder, &path, &full, &meta, &mut self.scan)
        {
            let private = meta.is_file() && (hidden || meta.mode & OTHERS_READ == 0);
            let Look { mode, mtime_ms, stamp, .. } = Look::of(&meta);
            self.scan.found.push(Local { path, kind, mode, mtime_ms, stamp, private });
        }
    }

    fn leave(&mut self, verdict: Verdict, path: DrivePath, full: &Path) {
        match verdict {
            Verdict::Shared | Verdict::Excluded => {}
            Verdict::Refused(why) => self.scan.skip(full, why),
            Verdict::Hidden(why) => {
                self.scan.skip(full, why);
                self.scan.unknown.push(path);
            }
        }
    }

    fn list(&mut self, Listed { path, meta, hidden }: Listed) {
        let full = locate(self.folder, &path);
        let opened = self.held.list(&path).and_then(|fd| Ok((Meta::of(&fd)?, fd)));
        let (now, fd) = match opened {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return,
            Err(error) if is_link(&error) || error.kind() == io::ErrorKind::CrossesDevices => {
                return self.scan.is_moving(path, &full);
            }
            Err(error) => return self.scan.lose(path, &full, &error),
        };
        if !now.is_beside(&meta) {
            return self.scan.is_moving(path, &full);
        }
        // Another folder was put in its place.
        if now.file != meta.file {
            match self.judge.judge(&path, &full, &now) {
                Ok(Verdict::Shared) => {}
                Ok(verdict) => return self.leave(verdict, path, &full),
                Err(error) => return self.scan.lose(path, &full, &error),
            }
        }
        let hidden = hidden || !path.is_root() && now.mode & OTHERS_ENTER == 0;
        let listed = children(fd, &full, &path, &mut self.scan);
        let looked = listed.and_then(|(dir, names)| {
            let folder = dir.fd()?;
            names.into_iter().for_each(|name| self.name(folder, &now, name, hidden));
            Ok(())
        });
        match looked {
            Ok(()) if !path.is_root() => self.folders.push(path),
            Ok(()) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => self.scan.lose(path, &full, &error),
        }
    }
}

/// What a file or link is in a drive; none, and told, if it is something else.
fn kind(
    folder: impl AsFd,
    path: &DrivePath,
    full: &Path,
    meta: &Meta,
    result: &mut Scan,
) -> Option<LocalKind> {
    if meta.is_file() {
        return Some(LocalKind::File { size: meta.size });
    }
    if !meta.is_symlink() {
        result.skip(full, "sockets, pipes and devices have no place in a drive");
        return None;
    }
    match readlinkat(folder, path.name(), Vec::new()).map(|target| target.into_string()) {
        Ok(Ok(target)) => return Some(LocalKind::Symlink { target }),
        Ok(Err(_)) => result.skip(full, "the target of this link is not UTF-8"),
        Err(Errno::NOENT) => {}
        Err(Errno::INVAL) => result.lose(path.clone(), full, &io::Error::other(BECOMING)),
        Err(error) => result.lose(path.clone(), full, &error.into()),
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

/// A file's time; one that no JavaScript number can hold is the nearest that can.
fn milliseconds(seconds: i64, nanoseconds: i64) -> i64 {
    let most = MAX_INT as i64;
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000).clamp(-most, most)
}

/// The names in a folder.
fn children(
    folder: OwnedFd,
    full: &Path,
    path: &DrivePath,
    result: &mut Scan,
) -> io::Result<(Dir, Vec<DrivePath>)> {
    let (mut dir, mut names) = (Dir::new(folder)?, Vec::new());
    while let Some(entry) = dir.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match std::str::from_utf8(name).map(|name| path.join(name)) {
            Ok(Ok(path)) => names.push(path),
            Ok(Err(error)) => result.skip(&full.join(OsStr::from_bytes(name)), error),
            Err(_) => result.skip(&full.join(OsStr::from_bytes(name)), "this name is not UTF-8"),
        }
    }
    Ok((dir, names))
}

#[cfg(test)]
mod tests;
