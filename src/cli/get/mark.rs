//! The mark of an unfinished download, by which the next one knows the folder that it may go on in.

use super::super::target::Target;
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};
use std::path::Path;

/// Tells a folder that an unfinished download made from one of the user. An attribute of the folder: where a file
/// system has none, what was begun is a folder like any other.
pub struct Mark(String);

const ATTRIBUTE: &str = "user.hdrive.unfinished";

impl Mark {
    pub fn of(target: &Target) -> Self {
        Self(format!("{}{}", target.key, target.path))
    }

    pub fn set(&self, folder: &Path) {
        let _ = setxattr(folder, ATTRIBUTE, self.0.as_bytes(), XattrFlags::empty());
    }

    pub fn clear(&self, folder: &Path) {
        if self.is_on(folder) {
            let _ = removexattr(folder, ATTRIBUTE);
        }
    }

    pub fn is_on(&self, folder: &Path) -> bool {
        let mut value = vec![0; self.0.len() + 1];
        let read = getxattr(folder, ATTRIBUTE, &mut value[..]);
        read.is_ok_and(|n| value[..n] == *self.0.as_bytes())
    }
}
