//! Errors of the filesystem and the one table that turns them into errno.

use super::volume::VolumeError;
use fuser::Errno;
use std::path::PathBuf;

/// Why an operation on a mounted drive failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FsError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("name too long")]
    NameTooLong,
    /// Nobody may, whatever the permissions are.
    #[error("not permitted")]
    NotPermitted,
    #[error("not supported")]
    Unsupported,
    #[error("nothing there")]
    NoData,
    #[error("invalid argument")]
    Invalid,
    /// The inode is not what its name stands for any more: the kernel looks the name up again and retries.
    #[error("stale inode")]
    Stale,
    #[error("unknown handle")]
    BadHandle,
    #[error("not a symbolic link")]
    NotALink,
    /// The stored target cannot be shown as a path.
    #[error("unusable link target")]
    BadTarget,
    #[error("no such attribute")]
    NoAttribute,
    #[error("result too large for the caller's buffer")]
    Range,
    /// The caller was killed while waiting.
    #[error("interrupted")]
    Interrupted,
    /// A handler panicked.
    #[error("internal error")]
    Panicked,
}

pub type Result<T> = std::result::Result<T, FsError>;

impl FsError {
    /// What the caller of the system call sees.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Volume(error) => volume_errno(error),
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::NotPermitted => Errno::EPERM,
            Self::Unsupported => Errno::EOPNOTSUPP,
            Self::NoData => Errno::ENXIO,
            Self::Invalid => Errno::EINVAL,
            Self::Stale => Errno::ESTALE,
            Self::BadHandle => Errno::EBADF,
            Self::NotALink => Errno::EINVAL,
            Self::BadTarget => Errno::EIO,
            Self::NoAttribute => Errno::NO_XATTR,
            Self::Range => Errno::ERANGE,
            Self::Interrupted => Errno::EINTR,
            Self::Panicked => Errno::EIO,
        }
    }

    /// Logs what a user may want to know of; names that are not there are no news.
    pub fn log(&self, op: &'static str) {
        match self {
            Self::Volume(VolumeError::Io(why)) => tracing::warn!(op, why, "input/output error"),
            Self::Volume(VolumeError::TimedOut(why)) => tracing::info!(op, why, "timed out"),
            Self::Panicked => tracing::error!(op, "a handler panicked; the request got EIO"),
            other => tracing::debug!(op, error = %other, "failed"),
        }
    }
}

fn volume_errno(error: &VolumeError) -> Errno {
    match error {
        VolumeError::NotFound => Errno::ENOENT,
        VolumeError::NotADirectory => Errno::ENOTDIR,
        VolumeError::IsADirectory => Errno::EISDIR,
        VolumeError::TimedOut(_) => Errno::ETIMEDOUT,
        VolumeError::Closed => Errno::ENODEV,
        VolumeError::ReadOnly => Errno::EROFS,
        VolumeError::Exists => Errno::EEXIST,
        VolumeError::NotEmpty => Errno::ENOTEMPTY,
        VolumeError::Impossible => Errno::EINVAL,
        VolumeError::Name => Errno::EILSEQ,
        VolumeError::NameTooLong => Errno::ENAMETOOLONG,
        VolumeError::TooLarge => Errno::EFBIG,
        VolumeError::NoSpace(_) => Errno::ENOSPC,
        VolumeError::Io(_) => Errno::EIO,
    }
}

/// Why a mount or unmount failed; each text names the thing and the next step.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error(
        "/dev/fuse does not exist: load it with `modprobe fuse` (in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN)"
    )]
    NoDevice,
    #[error(
        "/dev/fuse may not be opened (mode {mode:04o}): {install} sets it to 0666; or mount as root"
    )]
    DeviceForbidden { mode: u32, install: String },
    #[error("fusermount3 was not found, which an ordinary user needs to mount: {install}")]
    NoHelper { install: String },
    #[error("{} has no setuid bit, so it cannot mount for an ordinary user: reinstall it ({install}) or mount as root", helper.display())]
    HelperNotSetuid { helper: PathBuf, install: String },
    #[error(
        "allow_other and allow_root need the line `user_allow_other` in /etc/fuse.conf when an ordinary user mounts"
    )]
    AllowOther,
    #[error("mounting on {} is not permitted here: a container needs --cap-add SYS_ADMIN --device /dev/fuse (and often --security-opt apparmor=unconfined)", .0.display())]
    NotPermitted(PathBuf),
    #[error("mount point {} does not exist: create it with `mkdir -p`", .0.display())]
    Missing(PathBuf),
    #[error("mount point {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("mount point {} is not empty, and the mount would hide what is there: use an empty directory, or the option nonempty", .0.display())]
    NotEmpty(PathBuf),
    #[error("mount point {} may not be used by this user: {why}", path.display())]
    Forbidden { path: PathBuf, why: String },
    #[error(
        "{} is a place of an automounter, which would wait for this mount, and this mount for it: mount it without one \
         (in fstab without x-systemd.automount)",
        .0.display()
    )]
    Automounter(PathBuf),
    #[error("{} is a mounted drive already: unmount it first with `hdrive umount`", .0.display())]
    AlreadyMounted(PathBuf),
    #[error("another mount on {} is under way: try again when it is done", .0.display())]
    Claimed(PathBuf),
    #[error("{} is a mounted drive whose process does not answer: `hdrive umount --lazy` takes it away", .0.display())]
    Silent(PathBuf),
    #[error("{} is a dead mount of something else ({kind} from {source_name}): unmount it first", path.display())]
    ForeignDead { path: PathBuf, kind: String, source_name: String },
    #[error("mount option {option}: {why}")]
    BadOption { option: String, why: String },
    #[error("{} is not a mount point", .0.display())]
    NotMounted(PathBuf),
    #[error("{} is not a drive but {kind} from {source_name}", path.display())]
    NotOurs { path: PathBuf, kind: String, source_name: String },
    #[error(
        "the drive mounted on {} is covered by another mount ({kind} from {source_name} on {}), so it cannot be unmounted: \
         unmount that one first",
        path.display(), cover.display()
    )]
    Covered { path: PathBuf, cover: PathBuf, kind: String, source_name: String },
    #[error("{} was mounted outside of this user namespace, and can be unmounted only there", .0.display())]
    Locked(PathBuf),
    #[error("{} is in use{}: close what uses it, or use --lazy", path.display(), users(by))]
    InUse { path: PathBuf, by: Vec<String> },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

fn users(by: &[String]) -> String {
    if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) }
}
