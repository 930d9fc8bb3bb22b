//! Options of a mount, and `-o` as mount(8) and fstab pass it.

use super::errno::MountError;
use std::time::Duration;

/// How long a request may wait in all if the volume itself does not end it.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(35);
/// The kernel's own read-ahead for a mount made by root, in KiB; its default of 128 costs a third of the
/// speed, and more makes each fault of a mapped file fetch too much.
const DEFAULT_READ_AHEAD_KIB: u32 = 1024;
/// More loops than this gained nothing when measured on two processors.
const MAX_THREADS: usize = 4;

/// Who besides the mounting user may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    #[default]
    Owner,
    OwnerAndRoot,
    Everybody,
}

/// How a drive is mounted. `nosuid`, `nodev` and `default_permissions` are always on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub access: Access,
    /// Whether it can be changed.
    pub writable: bool,
    /// Mount over a directory that is not empty.
    pub nonempty: bool,
    pub noexec: bool,
    pub noatime: bool,
    /// Symbolic links are shown and not followed.
    pub nosymfollow: bool,
    /// Owner of everything that is shown; the mounting user if none.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// The last resort: no request waits longer, whatever the volume does. Keep it above the volume's own
    /// read timeout.
    pub deadline: Duration,
    /// The kernel's read-ahead in KiB, where it may be set (root).
    pub read_ahead_kib: u32,
    /// What `df` and `findmnt` show as the source.
    pub source: String,
}

impl Default for MountOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            access: Access::Owner,
            writable: false,
            nonempty: false,
            noexec: false,
            noatime: false,
            nosymfollow: false,
            uid: None,
            gid: None,
            threads: processors.clamp(2, MAX_THREADS),
            deadline: DEFAULT_DEADLINE,
            read_ahead_kib: DEFAULT_READ_AHEAD_KIB,
            source: crate::mountinfo::SOURCE.into(),
        }
    }
}

/// Options of mount(8) and fstab that say nothing to a drive, or nothing that is not so anyway. mount.fuse
/// passes `dev` and `suid` whether anybody asked for them or not; they stay off.
const IGNORED: [&str; 33] = [
    "defaults",
    "rw",
    "ro",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "loud",
    "silent",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
];

/// The single options of an `-o` text.
pub fn split_options(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|option| !option.is_empty())
}

impl MountOptions {
    /// Applies one option; false if it is not known here, so that a caller can try its own first or after.
    ///
    /// # Errors
    /// [`MountError::BadOption`] for a value that cannot be.
    pub fn apply(&mut self, option: &str) -> Result<bool, MountError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match (name, value) {
            ("allow_other", None) => self.access = Access::Everybody,
            ("allow_root", None) => self.access = Access::OwnerAndRoot,
            ("nonempty", None) => self.nonempty = true,
            // One may stand in fstab and the other be typed: the last counts.
            ("noexec" | "exec", None) => self.noexec = name == "noexec",
            ("noatime" | "atime", None) => self.noatime = name == "noatime",
            ("nosymfollow" | "symfollow", None) => self.nosymfollow = name == "nosymfollow",
            ("default_permissions", None) => {}
            ("uid", Some(value)) => self.uid = Some(number(name, value)?),
            ("gid", Some(value)) => self.gid = Some(number(name, value)?),
            ("threads", Some(value)) => self.threads = number::<usize>(name, value)?.clamp(1, 64),
            ("read_ahead_kb", Some(value)) => self.read_ahead_kib = number(name, value)?,
            ("fsname", Some(value)) if !value.is_empty() => self.source = value.to_owned(),
            // The type is always fuse.hdrive: a dead mount is known by it.
            ("subtype", Some(_)) => {}
            ("comment" | "user", Some(_)) => {}
            (name, None) if IGNORED.contains(&name) => {}
            (name, _) if name.starts_with("x-") || name.starts_with("X-") => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn number<T: std::str::FromStr>(option: &str, value: &str) -> Result<T, MountError> {
    value.parse().map_err(|_| MountError::BadOption {
        option: option.to_owned(),
        why: format!("{value:?} is not a number it can have"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of an `-o` text, and those that are unknown.
    fn parse(text: &str) -> Result<(MountOptions, Vec<&str>), MountError> {
        let (mut options, mut unknown) = (MountOptions::default(), Vec::new());
        for option in split_options(text) {
            if !options.apply(option)? {
                unknown.push(option);
            }
        }
        Ok((options, unknown))
    }

    #[test]
    fn what_mount_passes_is_understood() {
        let text = "rw,noexec,nosymfollow,nosuid,nodev,dev,suid,relatime,_netdev,user=ann,x-systemd.automount,\
                    allow_other,default_permissions,uid=7,gid=8,fsname=hyper:x";
        let (options, unknown) = parse(text).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(options.access, Access::Everybody);
        assert!(options.noexec && options.nosymfollow);
        assert_eq!((options.uid, options.gid), (Some(7), Some(8)));
        assert_eq!(options.source, "hyper:x");
        assert_eq!(parse("").unwrap().0, MountOptions::default());
    }

    #[test]
    fn the_last_of_two_that_exclude_each_other_counts() {
        let (options, unknown) = parse("noexec,noatime,symfollow,exec,atime,nosymfollow").unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(!options.noexec && !options.noatime && options.nosymfollow);
    }

    #[test]
    fn every_unknown_option_is_named() {
        let (_, unknown) = parse("ro,frobnicate,allow_root,depth=3").unwrap();
        assert_eq!(unknown, ["frobnicate", "depth=3"]);
        // A known name with a value it does not take is no better.
        assert_eq!(parse("ro=1").unwrap().1, ["ro=1"]);
    }

    #[test]
    fn bad_values_are_told_with_their_option() {
        let error = parse("uid=me").unwrap_err();
        assert!(error.to_string().starts_with("mount option uid: \"me\""), "{error}");
    }
}
