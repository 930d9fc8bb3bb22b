//! Entries of a drive as attributes of the kernel, and how long it may believe them.

use super::inode::{Ino, Inodes, Times};
use super::link::shown_target;
use super::volume::{Entry, Kind};
use crate::path::DrivePath;
use fuser::{FileAttr, FileType, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel believes names and attributes of a live drive. Every change is told to it, so this
/// bounds only the harm of a lost message.
const LIVE_TTL: Duration = Duration::from_secs(60);
/// The same at a fixed version, where nothing changes.
const FROZEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Unit of `st_blocks`.
const SECTOR: u64 = 512;

/// What `stat` shows of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    pub size: u64,
    pub mode: u16,
    pub mtime_ms: i64,
    /// Nanoseconds after that.
    pub mtime_ns: u32,
    /// See [`Entry::uid`].
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub rdev: u32,
    /// What is known of other times.
    pub times: Times,
    /// 0 once the last name is gone. Directories have 1, which tells tree walkers that the number says nothing
    /// about subdirectories.
    pub nlink: u32,
    /// See [`Entry::sure`].
    pub sure: bool,
}

impl Attr {
    /// None of what is not in the table.
    pub fn of(inodes: &Inodes, ino: Ino) -> Option<Self> {
        let node = inodes.get(ino)?;
        // Of other kinds nothing depends on where they are, and to find that out takes a climb.
        let path = if node.entry.kind == Kind::Symlink { inodes.path(ino) } else { None };
        let nlink = if ino == Ino::ROOT { 1 } else { node.links() };
        let times = node.times.as_deref().copied().unwrap_or_default();
        Some(Self { times, ..Self::of_entry(ino, path.as_deref(), &node.entry, nlink) })
    }

    fn of_entry(ino: Ino, path: Option<&DrivePath>, entry: &Entry, nlink: u32) -> Self {
        let size = match (entry.kind, path, &entry.target) {
            (Kind::Directory, ..) => 0,
            // As long as what readlink answers.
            (Kind::Symlink, _, Some(target)) if entry.verbatim => target.len() as u64,
            (Kind::Symlink, Some(path), Some(target)) => {
                shown_target(path, target).map_or(0, |shown| shown.len() as u64)
            }
            (Kind::Symlink, ..) => 0,
            // The kernel takes a negative size for a broken filesystem.
            (Kind::File, ..) => entry.size.min(i64::MAX as u64),
            _ => 0,
        };
        let mode = match entry.kind {
            Kind::Symlink => 0o777,
            _ if entry.verbatim => entry.mode & 0o7777,
            _ => entry.mode & 0o777,
        };
        Self {
            ino,
            kind: entry.kind,
            size,
            mode,
            mtime_ms: entry.mtime_ms,
            mtime_ns: entry.mtime_ns,
            uid: entry.uid,
            gid: entry.gid,
            rdev: entry.rdev,
            times: Times::default(),
            nlink,
            sure: entry.sure,
        }
    }
}

/// Whose files they are of which nothing else is said: the same for a whole mount.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub uid: u32,
    pub gid: u32,
    /// Whether what is said of others is shown.
    pub owners: bool,
    /// Whether the kernel keeps everybody but the owner and root out by itself.
    pub private: bool,
}

impl Look {
    /// How long an answer holds; not at all if it is not lasting.
    pub fn ttl(lasting: bool, frozen: bool) -> Duration {
        match (lasting, frozen) {
            (false, _) => Duration::ZERO,
            (true, false) => LIVE_TTL,
            (true, true) => FROZEN_TTL,
        }
    }

    pub fn file_attr(&self, attr: &Attr) -> FileAttr {
        let stored = system_time(attr.mtime_ms) + Duration::from_nanos(attr.mtime_ns.into());
        let Times { atime, ctime, mtime } = attr.times;
        let time = mtime.unwrap_or(stored);
        FileAttr {
            ino: INodeNo(attr.ino.0),
            size: attr.size,
            blocks: attr.size.div_ceil(SECTOR),
            atime: atime.unwrap_or(time),
            mtime: time,
            ctime: ctime.unwrap_or(time),
            crtime: time,
            kind: file_type(attr.kind),
            perm: if self.private && attr.ino == Ino::ROOT { attr.mode & 0o700 } else { attr.mode },
            nlink: attr.nlink,
            uid: attr.uid.filter(|_| self.owners).unwrap_or(self.uid),
            gid: attr.gid.filter(|_| self.owners).unwrap_or(self.gid),
            rdev: attr.rdev,
            blksize: 4096,
            flags: 0,
        }
    }

    /// What is to be noted of the owner of something that this caller makes.
    pub fn owner(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        let note = |own, id| (self.owners && own != id).then_some(id);
        (note(self.uid, uid), note(self.gid, gid))
    }

    /// Attributes of "there is no such name", which the kernel remembers too.
    pub fn nothing(&self) -> FileAttr {
        let nothing = Attr {
            ino: Ino(0),
            kind: Kind::File,
            size: 0,
            mode: 0,
            mtime_ms: 0,
            mtime_ns: 0,
            uid: None,
            gid: None,
            rdev: 0,
            times: Times::default(),
            nlink: 0,
            sure: true,
        };
        self.file_attr(&nothing)
    }
}

pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time that std cannot hold is shown as 1970.
fn system_time(ms: i64) -> SystemTime {
    let distance = Duration::from_millis(ms.unsigned_abs());
    let time =
        if ms < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Entry {
        Entry {
            kind,
            size: 1000,
            mode: 0o4755,
            mtime_ms: -1500,
            mtime_ns: 0,
            uid: None,
            gid: None,
            rdev: 0,
            target: None,
            verbatim: false,
            revision: 0,
            id: 0,
            links: 1,
            sure: true,
        }
    }

    #[test]
    fn special_bits_are_shown_of_what_was_made_here_alone() {
        let path = DrivePath::from_user("/a").unwrap();
        let attr = Attr::of_entry(Ino(2), Some(&path), &entry(Kind::File), 1);
        let shown = Look { uid: 7, gid: 8, owners: true, private: false }.file_attr(&attr);
        assert_eq!((shown.perm, shown.uid, shown.gid), (0o755, 7, 8));
        let own = Entry { verbatim: true, ..entry(Kind::File) };
        assert_eq!(Attr::of_entry(Ino(2), Some(&path), &own, 1).mode, 0o4755);
        assert_eq!((shown.size, shown.blocks), (1000, 2));
        assert_eq!(shown.mtime, UNIX_EPOCH - Duration::from_millis(1500));
    }

    #[test]
    fn a_link_is_as_long_as_what_it_shows() {
        let path = DrivePath::from_user("/a/l").unwrap();
        let link = Entry { target: Some("/x".into()), ..entry(Kind::Symlink) };
        assert_eq!(Attr::of_entry(Ino(2), Some(&path), &link, 1).size, 4);
    }

    #[test]
    fn the_root_of_a_private_mount_lets_nobody_else_in() {
        let root = Attr::of_entry(Ino::ROOT, None, &entry(Kind::Directory), 1);
        let look = Look { uid: 7, gid: 8, owners: true, private: true };
        assert_eq!(look.file_attr(&root).perm, 0o700);
        assert_eq!(look.file_attr(&Attr { ino: Ino(2), ..root }).perm, 0o755);
    }

    #[test]
    fn hostile_times_do_no_harm() {
        for ms in [i64::MIN, i64::MAX, 0] {
            let _ = system_time(ms);
        }
    }
}
