//! A drive mounted to be written, and a folder of the ordinary disk beside it.

use super::percent;
use crate::common::{Lab, Mounted, available, fuse_available};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// What failed, and what was said of it.
pub type Failed = BTreeMap<String, String>;

/// See the module.
pub struct Ground {
    pub mount: Mounted,
    pub beside: TempDir,
    pub lab: Lab,
    /// Of the drive.
    pub key: String,
}

/// The store that writes.
pub const STORE: &str = "alice";

impl Ground {
    /// None where nothing can be mounted.
    pub fn new() -> Option<Self> {
        if !fuse_available() {
            return None;
        }
        let lab = Lab::new();
        let beside = tempfile::tempdir().unwrap();
        for dir in [lab.dir.path(), beside.path()] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let made = lab.run(STORE, &["create", "notes"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        let told = made.text();
        let key = told.lines().find_map(|line| line.strip_prefix("key: ")).unwrap().to_string();
        let mount = mounted(&lab);
        Some(Self { mount, beside, lab, key })
    }

    /// Runs a suite in a folder of the mount and one of the disk: what fails on the mount alone, and is not in `known`
    /// (the beginning of a name, and why), is a failure.
    pub fn compare(&self, known: &[(&str, &str)], suite: impl Fn(&Path) -> Failed) {
        let mut worse = suite(&self.mount.at);
        for (start, _) in known {
            if !worse.keys().any(|name| name.starts_with(start)) {
                println!("{start} does not fail any more: take it off the list");
            }
        }
        worse.retain(|name, said| {
            let why = known.iter().find(|(start, _)| name.starts_with(start));
            why.inspect(|(_, why)| println!("{name} fails, as known ({why}): {said}")).is_none()
        });
        if worse.is_empty() && percent().is_none() {
            return;
        }
        for (name, said) in suite(self.beside.path()) {
            if worse.remove(&name).is_some() {
                println!("{name} fails on the ordinary disk too: {said}");
            }
        }
        for (name, said) in &worse {
            println!("{name} fails on the mount alone:\n{said}\n");
        }
        assert!(worse.is_empty(), "on the mount alone: {:?}", worse.keys().collect::<Vec<_>>());
    }
}

pub fn mounted(lab: &Lab) -> Mounted {
    lab.mount_alone(STORE, "notes", &["-o", "rw", "--allow-other"])
}

/// Whether what a package brings is at `path`.
pub fn has(path: &str) -> bool {
    available(path, Path::new(path).exists())
}
