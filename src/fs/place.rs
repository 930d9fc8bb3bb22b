//! Paths of mount points, which may be of dead mounts that nothing can look at, or of an automounter's.
//!
//! An automounter (autofs, and systemd with it) is woken by whoever touches its place, and lets all wait until it has
//! mounted there, but for the processes of its own group. What goes to the background leaves that group: it would wait
//! for the mount that it is to make, and could not be killed.

use super::errno::MountError;
use crate::mountinfo::{self, MountEntry};
use nix::errno::Errno;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Links that are followed to a dead mount, as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// The path without links and `..`. The last component may be a dead mount, which nothing can look at.
///
/// It is walked step by step: what `..` leads out of again is not walked into, so that neither a dead mount nor an
/// automounter there matters.
///
/// # Errors
/// [`MountError::Automounter`] before the place of one is touched, and others, each with what to do.
pub fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let path = std::path::absolute(path).map_err(|source| at(path, source))?;
    // The next step last.
    let mut steps = steps_of(&path);
    let mut found = PathBuf::from("/");
    let mut links = 0;
    while let Some(step) = steps.pop() {
        if step == "/" {
            found = step.into();
            continue;
        }
        if step == ".." {
            found.pop();
            continue;
        }
        let next = found.join(&step);
        let is_last = steps.is_empty();
        let is_left = steps.last().is_some_and(|step| step == "..");
        if is_last || is_left {
            let over = mountinfo::over(&next).map_err(unlisted)?;
            let is_automounted = over.as_ref().is_some_and(MountEntry::is_of_automounter);
            if is_automounted && is_last {
                return Err(MountError::Automounter(next));
            }
            // A link is no root of a mount.
            if is_left && (is_automounted || over.is_some_and(|over| over.path == next)) {
                found = next;
                continue;
            }
        }
        match std::fs::read_link(&next) {
            Ok(_) if links == MAX_LINKS => return Err(at(&path, Errno::ELOOP.into())),
            Ok(target) => {
                links += 1;
                steps.extend(steps_of(&target));
            }
            Err(error) if is(&error, &[Errno::ENOENT]) => {
                return Err(MountError::Missing(
                    steps.iter().rev().fold(next, |at, it| at.join(it)),
                ));
            }
            // No link.
            Err(error) if is(&error, &[Errno::EINVAL]) => {
                let is_no_folder = || next.symlink_metadata().is_ok_and(|it| !it.is_dir());
                if is_left && is_no_folder() {
                    return Err(MountError::NotADirectory(next));
                }
                found = next;
            }
            Err(_) if is_last || is_left => found = next,
            Err(error) => return Err(not_there(&path, error)),
        }
    }
    Ok(found)
}

fn steps_of(path: &Path) -> Vec<OsString> {
    let steps = path.components().rev().filter(|step| *step != Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

/// Why there is nothing to mount on.
pub fn not_there(path: &Path, error: io::Error) -> MountError {
    if is(&error, &[Errno::ENOENT]) {
        MountError::Missing(path.into())
    } else if is(&error, &[Errno::ENOTDIR]) {
        MountError::NotADirectory(path.into())
    } else if is(&error, &[Errno::EACCES, Errno::EPERM]) {
        MountError::Forbidden { path: path.into(), why: error.to_string() }
    } else {
        at(path, error)
    }
}

/// What is mounted could not be told.
pub fn unlisted(source: io::Error) -> MountError {
    at(Path::new("/proc/self/mountinfo"), source)
}

fn at(path: &Path, source: io::Error) -> MountError {
    MountError::Io { what: path.display().to_string(), source }
}

fn is(error: &io::Error, any: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| any.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_walked_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("a/b/c")).unwrap();
        std::fs::create_dir(base.join("x")).unwrap();
        std::fs::write(base.join("file"), "").unwrap();
        for (link, target) in [
            ("x/up", ".."),
            ("x/to-c", "../a/b/c"),
            ("x/dot", "../a/."),
            ("abs", base.join("a/b").to_str().unwrap()),
            ("none", "gone/on"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, base.join(link)).unwrap();
        }
        for path in [
            "a/b/..",
            "a/b/../",
            "a/../x",
            "a/b/../../a",
            "x/up",
            "x/up/a",
            "x/up/..",
            "x/to-c/..",
            "x/to-c/../..",
            "x/dot",
            "abs/../b",
            "abs/c/..",
            "./a/.",
            "a/b/../../../..",
            "../../../../../../..",
        ] {
            let path = base.join(path);
            assert_eq!(resolve(&path).unwrap(), path.canonicalize().unwrap(), "{}", path.display());
        }
        assert!(matches!(resolve(&base.join("file/..")), Err(MountError::NotADirectory(_))));
        assert!(matches!(resolve(&base.join("no/..")), Err(MountError::Missing(_))));
        let Err(MountError::Missing(missing)) = resolve(&base.join("none/x")) else { panic!() };
        assert_eq!(missing, base.join("gone/on/x"));
        assert!(resolve(&base.join("loop/..")).is_err());
        assert_eq!(resolve(Path::new("/..")).unwrap(), Path::new("/"));
    }
}
