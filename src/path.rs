//! Paths inside a drive, normalised once at the edge and trusted below it.

use std::fmt;

/// The longest name of one file or directory, as on every Linux filesystem, in bytes.
pub const MAX_NAME: usize = 255;
/// The longest path, in bytes; the kernel's own limit.
pub const MAX_PATH: usize = 4096;

/// Why a text is not a path of a drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a name in it is longer than 255 bytes or the path longer than 4096")]
    TooLong,
    #[error("it holds an empty name, '.', '..' or a NUL")]
    BadName,
}

/// A path from the drive's root: `/` or `/a/b`, no empty, `.` or `..` component, no trailing slash, no NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DrivePath(String);

/// Whether `name` can be one component of a path.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MAX_NAME
        && !name.bytes().any(|b| b == 0 || b == b'/')
}

impl DrivePath {
    pub fn root() -> Self {
        Self("/".into())
    }

    /// The path a drive's key names: it must begin with `/` and have valid components only. Nothing is
    /// repaired, so two keys never name the same path.
    pub fn from_entry_key(key: &str) -> Result<Self, PathError> {
        let rest = key.strip_prefix('/').ok_or(PathError::BadName)?;
        if key.len() > MAX_PATH || rest.split('/').any(|name| name.len() > MAX_NAME) {
            return Err(PathError::TooLong);
        }
        if !rest.split('/').all(valid_name) {
            return Err(PathError::BadName);
        }
        Ok(Self(key.into()))
    }

    /// A path as a person types it: leading, trailing and doubled slashes and `.` do not matter, `..` is
    /// resolved but does not leave the root.
    pub fn from_user(text: &str) -> Result<Self, PathError> {
        let mut names: Vec<&str> = Vec::new();
        for name in text.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop().ok_or(PathError::BadName)?;
                }
                _ => names.push(name),
            }
        }
        if names.is_empty() {
            return Ok(Self::root());
        }
        Self::from_entry_key(&format!("/{}", names.join("/")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directory this lies in; none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rsplit_once('/') {
            Some(("", _)) | None => Some(Self::root()),
            Some((dir, _)) => Some(Self(dir.into())),
        }
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.len() > MAX_NAME {
            return Err(PathError::TooLong);
        }
        if !valid_name(name) {
            return Err(PathError::BadName);
        }
        let base = if self.is_root() { "" } else { self.as_str() };
        if base.len() + 1 + name.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        Ok(Self(format!("{base}/{name}")))
    }

    /// Where this lies once `from` is at `to`; none if it does not lie there.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(from.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| Self(format!("{}{rest}", to.0)))
    }

    /// The components from the root down.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }
}

impl fmt::Display for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_escape_or_collide_are_refused() {
        for key in ["", "/", "a", "/a/", "//a", "/a//b", "/../x", "/a/..", "/./a", "/a\0b"] {
            assert!(DrivePath::from_entry_key(key).is_err(), "{key:?}");
        }
        assert!(DrivePath::from_entry_key(&format!("/{}", "n".repeat(256))).is_err());
        assert!(DrivePath::from_entry_key("/a/b c/ü").is_ok());
    }

    #[test]
    fn user_paths_are_forgiven_but_stay_inside() {
        assert_eq!(DrivePath::from_user("a//b/./c/").unwrap().as_str(), "/a/b/c");
        assert_eq!(DrivePath::from_user("").unwrap(), DrivePath::root());
        assert_eq!(DrivePath::from_user("/a/../b").unwrap().as_str(), "/b");
        assert!(DrivePath::from_user("../b").is_err());
    }

    #[test]
    fn parent_and_join_are_inverse() {
        let p = DrivePath::from_user("/a/b").unwrap();
        assert_eq!(p.parent().unwrap().join(p.name()).unwrap(), p);
        assert_eq!(p.parent().unwrap().parent().unwrap(), DrivePath::root());
    }
}
