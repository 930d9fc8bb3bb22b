//! Targets of symbolic links, shown so that following one never leaves the mount.
//!
//! A drive's absolute target means the root of the *drive*; the kernel would take it as the root of the
//! machine. So it is shown relative to the link. A relative target is shown as stored, unless a `..` in it
//! climbs above the drive's root or follows a name: those are resolved on paper, as the reference does, with
//! `..` at the root staying at the root. What is shown is then `../` at most as often as the link lies deep,
//! followed by names: the kernel cannot get out by it, whatever other links are on the way.

use super::errno::FsError;
use crate::path::DrivePath;
use std::borrow::Cow;

/// The longest target the kernel takes, in bytes, less its terminating NUL.
const MAX_TARGET: usize = 4095;

/// What `readlink` answers for the link at `path` with the stored `target`.
///
/// # Errors
/// [`FsError::BadTarget`] for a NUL, [`FsError::NameTooLong`] when the kernel could not take it.
pub fn shown_target<'a>(path: &DrivePath, target: &'a str) -> Result<Cow<'a, str>, FsError> {
    if target.contains('\0') {
        return Err(FsError::BadTarget);
    }
    let depth = path.names().count().saturating_sub(1);
    let shown = if is_plain(target, depth) {
        Cow::Borrowed(target)
    } else {
        Cow::Owned(resolved(path, target, depth))
    };
    if shown.len() > MAX_TARGET { Err(FsError::NameTooLong) } else { Ok(shown) }
}

/// Relative, with every `..` in front and no more of them than directories above the link.
fn is_plain(target: &str, depth: usize) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut ups = 0;
    let mut named = false;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if named => return false,
            ".." => ups += 1,
            _ => named = true,
        }
    }
    ups <= depth
}

/// The target from the drive's root, then written from the link's directory.
fn resolved(path: &DrivePath, target: &str, depth: usize) -> String {
    let here: Vec<&str> = path.names().take(depth).collect();
    let mut there = if target.starts_with('/') { Vec::new() } else { here.clone() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(there.pop()),
            name => there.push(name),
        }
    }
    let common = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
    let ups = std::iter::repeat_n("..", depth - common);
    let parts: Vec<&str> = ups.chain(there.into_iter().skip(common)).collect();
    if parts.is_empty() { ".".into() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(path: &str, target: &str) -> String {
        shown_target(&DrivePath::from_user(path).unwrap(), target).unwrap().into_owned()
    }

    #[test]
    fn harmless_targets_stay_as_stored() {
        for target in ["b", "./b", "b/c//d", "../x", ".././x", "", "b/"] {
            assert_eq!(shown("/a/l", target), target);
        }
    }

    #[test]
    fn absolute_targets_mean_the_root_of_the_drive() {
        assert_eq!(shown("/l", "/x/y"), "x/y");
        assert_eq!(shown("/a/b/l", "/x"), "../../x");
        assert_eq!(shown("/a/b/l", "/a/c"), "../c");
        assert_eq!(shown("/a/b/l", "/a/b"), ".");
        assert_eq!(shown("/l", "/"), ".");
        assert_eq!(shown("/a/l", "/../../etc/passwd"), "../etc/passwd");
    }

    #[test]
    fn nothing_climbs_above_the_root() {
        assert_eq!(shown("/l", "../../etc/passwd"), "etc/passwd");
        assert_eq!(shown("/a/l", "../../../etc"), "../etc");
        // `dir` might be a link to somewhere less deep.
        assert_eq!(shown("/a/b/l", "dir/../../../etc"), "../../etc");
        assert_eq!(shown("/a/l", "dir/../x"), "x");
    }

    #[test]
    fn what_the_kernel_cannot_take_is_refused() {
        let path = DrivePath::from_user("/a/l").unwrap();
        assert!(matches!(shown_target(&path, "a\0b"), Err(FsError::BadTarget)));
        assert!(matches!(shown_target(&path, &"n/".repeat(2048)), Err(FsError::NameTooLong)));
    }

    proptest! {
        #[test]
        fn every_shown_target_stays_inside(
            path in "(/[ab]{1,2}){1,4}",
            target in "/?((\\.\\.|\\.|[ab])/){0,7}(\\.\\.|[ab])?",
        ) {
            let path = DrivePath::from_user(&path).unwrap();
            let shown = shown_target(&path, &target).unwrap();
            prop_assert!(!shown.starts_with('/'));
            let mut depth = path.names().count() as i64 - 1;
            let mut named = false;
            for part in shown.split('/') {
                match part {
                    "" | "." => {}
                    ".." => { prop_assert!(!named); depth -= 1; }
                    _ => named = true,
                }
                prop_assert!(depth >= 0);
            }
        }
    }
}
