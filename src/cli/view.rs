//! What a process sees of the file systems: the same path may be another file in another mount namespace, or under another
//! root. A command is run by the owner of its store, which must see what its user sees.
//!
//! Another namespace in which the same is mounted in the same places shows the same files. What is mounted in one from then
//! on is not seen in the other, so a mount needs the very same namespace.

use super::args::Command;
use super::exit::{Exit, Failure, Result};
use crate::crypto::hash::{Hash, hash};
use rustix::fs::{AtFlags, CWD, StatxFlags, stat, statx};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// See the module. Equal where all paths mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Device and inode of the mount namespace; none where nobody knows.
    namespace: Option<(u64, u64)>,
    /// Those of the root.
    root: Option<(u64, u64)>,
    /// The number of the mount that the root is in: another bind mount of it has other mounts below.
    mount: Option<u64>,
    /// What is mounted where below the root, at this moment.
    table: Option<Hash>,
}

impl View {
    /// That of this process.
    pub fn own() -> Self {
        #[allow(clippy::useless_conversion, reason = "their width differs by machine")]
        let id = |path: &str| stat(path).ok().map(|meta| (meta.st_dev.into(), meta.st_ino.into()));
        let mount = statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID).ok();
        let mount = mount.filter(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0);
        let mounts = std::fs::read("/proc/self/mountinfo").ok();
        Self {
            namespace: id("/proc/self/ns/mnt"),
            root: id("/"),
            mount: mount.map(|found| found.stx_mnt_id),
            table: mounts.and_then(|mounts| table(&String::from_utf8_lossy(&mounts))),
        }
    }

    /// An error if `command`, typed in this view, names files that its owner, this process, would look for elsewhere.
    pub fn check(&self, command: &Command) -> Result {
        if !names_files(command) || self.suits(command, &Self::own()) {
            return Ok(());
        }
        let text = format!(
            "process {}, which works on the store, sees other files than this command does (it runs in another mount \
             namespace, or under another root): end it first, or use another store with --store",
            std::process::id()
        );
        Err(Failure::new(Exit::Failed, text))
    }

    fn suits(&self, command: &Command, owner: &Self) -> bool {
        let place = |view: &Self| (view.namespace, view.root, view.mount);
        if place(self) == place(owner) {
            return true;
        }
        self.namespace != owner.namespace
            && self.root == owner.root
            && self.table.is_some()
            && self.table == owner.table
            && !matches!(command, Command::Mount(_))
    }
}

fn names_files(command: &Command) -> bool {
    match command {
        Command::Share(_) | Command::Mount(_) | Command::Get(_) => true,
        Command::Put(put) => !put.reads_stdin(),
        _ => false,
    }
}

/// What decides which file a path is, of the lines of a `mountinfo`: what is mounted where, and upon what. The numbers and
/// the order of mounts differ in every namespace, and how they pass mounts on does. `/proc` itself is left out: each PID
/// namespace has its own.
fn table(mounts: &str) -> Option<Hash> {
    let line = |line| {
        let fields: Vec<&str> = str::split(line, ' ').collect();
        let [id, parent, device, root, point, ..] = fields[..] else { return None };
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1)?;
        Some((id, (parent, format!("{root} {device} {point} {kind}\n"))))
    };
    let mounts: HashMap<&str, (&str, String)> = mounts.lines().map(line).collect::<Option<_>>()?;
    let with_parents = |id: &&str| {
        let upwards = std::iter::successors(mounts.get(id), |(parent, _)| mounts.get(parent));
        // No mount has more above it than there are.
        upwards.take(mounts.len()).map(|(_, line)| line.as_str()).collect::<String>()
    };
    let shown = mounts.iter().filter(|(_, (_, line))| !line.ends_with(" /proc proc\n"));
    let mut lines: Vec<String> = shown.map(|(id, _)| with_parents(id)).collect();
    lines.sort_unstable();
    Some(hash(&[lines.join("\n").as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn only_what_names_files_has_to_see_the_same() {
        let here = View::own();
        assert!(here.root.is_some());
        let copied = View { namespace: Some((0, 0)), ..here.clone() };
        let elsewhere = View { table: table(ONE), ..copied.clone() };
        let blind = View { table: None, ..copied.clone() };
        let other_mount = View { mount: here.mount.map(|id| id + 1).or(Some(0)), ..here.clone() };
        let key = "k".repeat(52);
        let allowed = |words: &[&str], view: &View| {
            let typed =
                Cli::typed(std::iter::once(&"hdrive").chain(words).map(Into::into)).unwrap();
            !names_files(&typed.command) || view.suits(&typed.command, &here)
        };
        for words in
            [&["share", "x"][..], &["put", "d", "x"], &["get", &key], &["mount", &key, "x"]]
        {
            assert!(allowed(words, &here), "{words:?}");
            assert!(!allowed(words, &elsewhere), "{words:?}");
            assert!(!allowed(words, &blind), "{words:?}");
            assert!(!allowed(words, &other_mount), "{words:?}");
            let other_root = View { root: Some((0, 0)), ..copied.clone() };
            assert!(!allowed(words, &other_root), "{words:?}");
            assert_eq!(allowed(words, &copied), words[0] != "mount", "{words:?}");
        }
        for words in [&["put", "d/x", "-"][..], &["cat", &key], &["seed", &key], &["status"]] {
            assert!(allowed(words, &elsewhere), "{words:?}");
        }
    }

    const ONE: &str = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                       22 21 0:30 / /a rw - tmpfs a rw\n\
                       23 22 0:31 / /a/b rw - tmpfs b rw\n\
                       24 21 0:22 / /proc rw - proc proc rw\n";

    #[test]
    fn what_is_mounted_where_is_the_same_whatever_its_numbers() {
        let same = "94 80 8:1 / / ro - ext4 /dev/sda1 ro\n\
                    95 94 0:22 / /proc rw - proc proc rw\n\
                    99 95 0:50 / /proc rw - proc proc rw\n\
                    98 97 0:31 / /a/b rw master:3 - tmpfs b rw\n\
                    97 94 0:30 / /a rw propagate_from:2 master:1 - tmpfs a rw\n";
        assert!(table(ONE).is_some());
        assert_eq!(table(ONE), table(same));
        let covered = same.replace("98 97", "98 94");
        let others = [
            ("0:31", "0:32"),
            ("0:31 / ", "0:31 /sub "),
            ("/a/b", "/a/c"),
            ("- tmpfs b", "- ramfs b"),
            ("95 94 0:22 / /proc", "95 94 0:22 / /proc2"),
        ];
        for (from, to) in others {
            assert!(same.contains(from));
            assert_ne!(table(ONE), table(&same.replace(from, to)), "{from} {to}");
        }
        assert_ne!(table(ONE), table(&covered), "it lies below what is mounted over it");
        // Round in a circle, or of another kind.
        assert!(table("1 2 0:1 / / rw - a b c\n2 1 0:1 / / rw - a b c\n").is_some());
        assert_eq!((table("1 2 3"), table("1 2 0:1 / / rw")), (None, None));
    }
}
