//! Targets of symbolic links.
//!
//! In a drive an absolute target means the drive's root, which no kernel knows. So a link is shown with a
//! target relative to its own directory, and stored as it was written.

use crate::path::DrivePath;
use std::borrow::Cow;

/// The target as a link at `path` must show it: relative ones as they are, absolute ones climbing to the
/// root first.
pub fn shown_target<'a>(path: &DrivePath, target: &'a str) -> Cow<'a, str> {
    let Some(rest) = target.strip_prefix('/') else { return Cow::Borrowed(target) };
    let rest = rest.trim_start_matches('/');
    let depth = path.names().count().saturating_sub(1);
    let mut shown = "../".repeat(depth);
    shown.push_str(rest);
    if rest.is_empty() {
        shown = if depth == 0 { ".".into() } else { shown.trim_end_matches('/').into() };
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_targets_climb_to_the_root_of_the_drive() {
        for (path, target, want) in [
            ("/link-rel", "src/lib/b.txt", "src/lib/b.txt"),
            ("/bin/link-abs", "/README.md", "../README.md"),
            ("/a/b/c", "/x/y", "../../x/y"),
            ("/l", "/x", "x"),
            ("/l", "/", "."),
            ("/a/l", "//", ".."),
        ] {
            assert_eq!(shown_target(&DrivePath::from_user(path).unwrap(), target), want);
        }
    }
}
