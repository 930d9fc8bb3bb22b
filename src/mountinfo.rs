//! What is mounted where, as `/proc/self/mountinfo` tells it: reading it touches no mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Type of our mounts.
pub const KIND: &str = "fuse.hdrive";
/// Source of our mounts, unless the user names another.
pub const SOURCE: &str = "hdrive";

/// Type of what an automounter watches, to mount there whatever is asked for.
const AUTOMOUNTER: &str = "autofs";

/// One mount of this process' mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Its number; a later mount may have it again.
    pub id: u64,
    /// The number of the mount that it was made in.
    pub parent: u64,
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// What of the filesystem is seen there.
    pub root: PathBuf,
    pub path: PathBuf,
    pub kind: String,
    pub source: String,
}

impl MountEntry {
    /// Whether this program made it, now or in an earlier life.
    pub fn is_ours(&self) -> bool {
        self.kind == KIND || (self.kind.starts_with("fuse") && self.source == SOURCE)
    }

    /// Whether whoever touches a path in it waits until an automounter has mounted something there.
    pub fn is_of_automounter(&self) -> bool {
        self.kind == AUTOMOUNTER
    }
}

/// All mounts, in the order they were made.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount whose root one sees at `path`, which holds no links. Another may have been made later for the same path, and
/// lie in what is covered.
///
/// # Errors
/// Those of [`mounts`].
pub fn top_at(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(over(path)?.filter(|mount| mount.path == path))
}

/// The mount that `path`, which holds no links, lies in or is the root of, as a walk from the root finds it.
///
/// # Errors
/// Those of [`mounts`].
pub fn over(path: &Path) -> io::Result<Option<MountEntry>> {
    Ok(over_in(&mounts()?, path).cloned())
}

/// [`over`], in a list of [`mounts`].
pub fn over_in<'a>(mounts: &'a [MountEntry], path: &Path) -> Option<&'a MountEntry> {
    let is_in = |mount: &MountEntry, outer: &MountEntry| {
        mount.parent == outer.id && mount.id != mount.parent
    };
    // A walk begins in the root, whatever was mounted over that since.
    let is_walked_into = |mount: &MountEntry| mount.path != Path::new("/");
    let mut over: Option<&MountEntry> = None;
    // As many steps as there are mounts; more would be a circle, which only a torn list can have.
    for _ in mounts {
        let next = mounts.iter().filter(|mount| path.starts_with(&mount.path));
        let next = next.filter(|mount| match over {
            Some(outer) => is_in(mount, outer) && is_walked_into(mount),
            // Below a root that is no mount, several have parents that cannot be seen.
            None => !mounts.iter().any(|outer| is_in(mount, outer)),
        });
        match next.min_by_key(|mount| mount.path.components().count()) {
            Some(next) => over = Some(next),
            None => break,
        }
    }
    over
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw`; any number of fields before the dash.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |at: usize| {
        fields.get(at).map(|field| String::from_utf8_lossy(&unescaped(field)).into_owned())
    };
    let device = text(2)?;
    let (major, minor) = device.split_once(':')?;
    Some(MountEntry {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: OsString::from_vec(unescaped(fields.get(3)?)).into(),
        path: OsString::from_vec(unescaped(fields.get(4)?)).into(),
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
    })
}

/// Space, tab, newline and backslash come as `\` and three octal digits.
pub fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| byte == b'\\' && is_octal(digits));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0u32, |sum, d| sum * 8 + u32::from(d - b'0'));
                out.push(value as u8);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

fn is_octal(digits: &[u8]) -> bool {
    digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = br"36 35 0:45 / /mnt/a\040b rw,nosuid shared:1 master:2 - fuse.hdrive hdrive ro";
        let mount = parse(line).unwrap();
        assert_eq!(mount.path, Path::new("/mnt/a b"));
        assert_eq!((mount.device, mount.is_ours()), ((0, 45), true));
        assert_eq!((mount.id, mount.parent, mount.root.as_path()), (36, 35, Path::new("/")));
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:45 / /mnt rw"), None);
    }

    #[test]
    fn other_filesystems_are_not_ours() {
        let mount = parse(b"1 2 0:5 / /m rw - fuse.sshfs me@there: rw").unwrap();
        assert!(!mount.is_ours());
        let mount = parse(b"1 2 0:5 / /m rw - tmpfs hdrive rw").unwrap();
        assert!(!mount.is_ours());
    }

    #[test]
    fn a_path_lies_in_the_mount_that_one_sees_there() {
        let text = "20 30 0:1 / /proc rw - proc proc rw
            30 1 0:2 / / rw - ext4 disk rw
            31 30 0:3 / /mnt/a rw - autofs systemd-1 rw,direct
            32 31 0:4 / /mnt/a rw - fuse.hdrive hdrive ro
            33 30 0:5 / /net rw - autofs map rw,indirect
            34 30 0:6 / /hid/den rw - autofs map rw
            35 30 0:7 / /hid rw - tmpfs none rw
            36 30 0:8 / /mnt/b rw - autofs systemd-1 rw,direct
            37 30 0:9 / / rw - tmpfs over-the-root rw";
        let mounts: Vec<_> =
            text.lines().filter_map(|line| parse(line.trim_start().as_bytes())).collect();
        for (path, id) in [
            ("/", 30),
            ("/proc/self", 20),
            ("/mnt", 30),
            ("/mnt/a", 32),
            ("/mnt/ab", 30),
            ("/mnt/b", 36),
            ("/net/some", 33),
            ("/hid/den", 35),
        ] {
            assert_eq!(over_in(&mounts, Path::new(path)).unwrap().id, id, "{path}");
        }
        // A root that is no mount of its own shows no mount there.
        let below = &mounts[2..8];
        assert_eq!(over_in(below, Path::new("/mnt/b")).unwrap().id, 36);
        assert_eq!(over_in(below, Path::new("/mnt")), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(top_at(Path::new("/")).unwrap().is_some());
    }
}
