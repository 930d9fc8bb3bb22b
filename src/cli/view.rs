//! What a process sees of the file systems: the same path may be another file in another mount namespace, or under another
//! root. A command is run by the owner of its store, which must see what its user sees.

use super::args::Command;
use super::exit::{Exit, Failure, Result};
use rustix::fs::{AtFlags, CWD, StatxFlags, stat, statx};
use serde::{Deserialize, Serialize};

/// See the module. Equal where all paths mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Device and inode of the mount namespace; none where nobody knows.
    namespace: Option<(u64, u64)>,
    /// Those of the root.
    root: Option<(u64, u64)>,
    /// The number of the mount that the root is in: another bind mount of it has other mounts below.
    mount: Option<u64>,
}

impl View {
    /// That of this process.
    pub fn own() -> Self {
        #[allow(clippy::useless_conversion, reason = "their width differs by machine")]
        let id = |path: &str| stat(path).ok().map(|meta| (meta.st_dev.into(), meta.st_ino.into()));
        let mount = statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID).ok();
        let mount = mount.filter(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0);
        Self {
            namespace: id("/proc/self/ns/mnt"),
            root: id("/"),
            mount: mount.map(|found| found.stx_mnt_id),
        }
    }

    /// An error if `command`, typed in this view, names files that its owner, in another, would look for elsewhere.
    pub fn check(&self, command: &Command, owner: &Self) -> Result {
        let names_files = match command {
            Command::Share(_) | Command::Mount(_) | Command::Get(_) => true,
            Command::Put(put) => !put.reads_stdin(),
            _ => false,
        };
        if !names_files || self == owner {
            return Ok(());
        }
        let text = format!(
            "process {}, which works on the store, sees other files than this command does (it runs in another mount \
             namespace, or under another root): end it first, or use another store with --store",
            std::process::id()
        );
        Err(Failure::new(Exit::Failed, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn only_what_names_files_has_to_see_the_same() {
        let here = View::own();
        assert!(here.root.is_some());
        let elsewhere = View { namespace: Some((0, 0)), ..here.clone() };
        let other_mount = View { mount: here.mount.map(|id| id + 1).or(Some(0)), ..here.clone() };
        let key = "k".repeat(52);
        let allowed = |words: &[&str], view: &View| {
            let typed =
                Cli::typed(std::iter::once(&"hdrive").chain(words).map(Into::into)).unwrap();
            view.check(&typed.command, &here).is_ok()
        };
        for words in
            [&["share", "x"][..], &["put", "d", "x"], &["get", &key], &["mount", &key, "x"]]
        {
            assert!(allowed(words, &here), "{words:?}");
            assert!(!allowed(words, &elsewhere), "{words:?}");
            assert!(!allowed(words, &other_mount), "{words:?}");
        }
        for words in [&["put", "d/x", "-"][..], &["cat", &key], &["seed", &key], &["status"]] {
            assert!(allowed(words, &elsewhere), "{words:?}");
        }
    }
}
