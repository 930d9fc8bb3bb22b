//! What a name of a folder stands for at one moment, and on which mount that lies.

use super::stores::FileId;
use rustix::fs::{AtFlags, FileType, Stat, Statx, StatxFlags, fstat, makedev, statat, statx};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// `STATX_MNT_ID_UNIQUE`, since Linux 6.8: the number of a mount that no later one has again.
const UNIQUE_MOUNT: StatxFlags = StatxFlags::from_bits_retain(0x4000);
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID).union(UNIQUE_MOUNT);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub file: FileId,
    /// The number of its mount; 0 where the kernel does not say (before Linux 5.8). The device tells less: a bind mount
    /// has that of what it shows, and some filesystems have several in one mount.
    pub mount: u64,
    kind: FileType,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    pub names: u64,
    pub mtime: (i64, i64),
    pub ctime_ns: i64,
}

impl Meta {
    /// What `name` of a folder is; a link is itself.
    ///
    /// # Errors
    /// When it is nothing, or cannot be looked at.
    pub fn at(folder: impl AsFd, name: impl AsRef<Path>) -> io::Result<Self> {
        let (name, flags) = (name.as_ref(), AtFlags::SYMLINK_NOFOLLOW);
        match statx(&folder, name, flags, WANTED) {
            Ok(found) => Ok(Self::of_statx(&found)),
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::of_stat(&statat(folder, name, flags)?)),
            Err(error) => Err(error.into()),
        }
    }

    /// What is open.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        match statx(&file, c"", AtFlags::EMPTY_PATH, WANTED) {
            Ok(found) => Ok(Self::of_statx(&found)),
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::of_stat(&fstat(file)?)),
            Err(error) => Err(error.into()),
        }
    }

    fn of_statx(found: &Statx) -> Self {
        let says = StatxFlags::from_bits_retain(found.stx_mask);
        let numbered = says.intersects(StatxFlags::MNT_ID.union(UNIQUE_MOUNT));
        Self {
            file: FileId {
                dev: makedev(found.stx_dev_major, found.stx_dev_minor),
                ino: found.stx_ino,
            },
            mount: if numbered { found.stx_mnt_id } else { 0 },
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: u32::from(found.stx_mode) & 0o777,
            size: found.stx_size,
            names: found.stx_nlink.into(),
            mtime: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into()),
            ctime_ns: nanoseconds(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec.into()),
        }
    }

    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "they differ by machine"
    )]
    fn of_stat(found: &Stat) -> Self {
        Self {
            file: FileId { dev: found.st_dev.into(), ino: found.st_ino.into() },
            mount: 0,
            kind: FileType::from_raw_mode(found.st_mode),
            mode: found.st_mode & 0o777,
            size: found.st_size.max(0) as u64,
            names: found.st_nlink.into(),
            mtime: (found.st_mtime as i64, found.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(found.st_ctime as i64, found.st_ctime_nsec as i64),
        }
    }

    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Whether both are in one mount, as far as the kernel says.
    pub fn is_beside(&self, other: &Self) -> bool {
        is_one_mount((self.mount, self.file), (other.mount, other.file))
    }
}

/// Whether two files, each with the number of its mount, are in one mount. Where mounts have no numbers the device must do.
pub fn is_one_mount(a: (u64, FileId), b: (u64, FileId)) -> bool {
    match (a.0, b.0) {
        (0, _) | (_, 0) => a.1.dev == b.1.dev,
        (a, b) => a == b,
    }
}

fn nanoseconds(seconds: i64, more: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_says_what_the_standard_library_says_and_tells_mounts_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "12345").unwrap();
        let meta = fs::symlink_metadata(&file).unwrap();
        let by_stat = Meta::of_stat(&statat(CWD, &file, AtFlags::SYMLINK_NOFOLLOW).unwrap());
        let by_name = Meta::at(CWD, &file).unwrap();
        assert_eq!(Meta::of(fs::File::open(&file).unwrap()).unwrap(), by_name);
        assert_eq!(Meta { mount: 0, ..by_name }, by_stat);
        assert_eq!(by_name.file, FileId::of(&meta));
        assert_eq!((by_name.size, by_name.names), (5, 1));
        assert_eq!(by_name.mode, meta.mode() & 0o777);
        assert_eq!(by_name.mtime, (meta.mtime(), meta.mtime_nsec()));
        assert!(by_name.is_file() && !by_name.is_dir());

        let proc = Meta::at(CWD, "/proc").unwrap();
        assert!(
            !proc.is_beside(&by_name) && by_name.is_beside(&Meta::at(CWD, dir.path()).unwrap())
        );
    }
}
