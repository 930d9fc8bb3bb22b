//! What must be there after a kill: what was synced, and not touched since by an operation on a name that leads there; and
//! of contents those alone that some file had at some time.

use super::operation::{Mode, Operation, Slot};
use super::side::{Seen, Side};
use crate::common::sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Default)]
pub struct Promises {
    kept: BTreeMap<PathBuf, Promise>,
    /// Contents that any file ever had, by their hashes.
    contents: BTreeMap<String, Vec<u8>>,
}

enum Promise {
    /// One of these contents: the one that was synced, and those written since.
    File(BTreeSet<String>),
    Directory,
    Link(PathBuf),
}

impl Promises {
    /// All that is there is there for good: it was unmounted, or is what a kill left.
    pub fn everything(&mut self, disk: &Side) {
        self.kept.clear();
        self.synced(disk, |_| true);
    }

    fn synced(&mut self, disk: &Side, is_kept: impl Fn(&Path) -> bool) {
        for (path, seen) in disk.tree().into_iter().filter(|(path, _)| is_kept(path)) {
            self.note(&path, disk);
            let promise = match seen {
                Seen::File { hash, .. } => Promise::File([hash].into()),
                Seen::Directory { .. } => Promise::Directory,
                Seen::Link(target) => Promise::Link(target),
                Seen::Broken(why) => panic!("{}: {why}", path.display()),
            };
            self.kept.insert(path, promise);
        }
    }

    /// Takes note of an operation that was done.
    pub fn follow(&mut self, operation: &Operation, ok: bool, disk: &Side) {
        match *operation {
            Operation::Write { slot, .. }
            | Operation::SetLen(slot, _)
            | Operation::Punch { slot, .. }
            | Operation::Allocate { slot, .. }
            | Operation::Open(slot, _, Mode::Truncate) => self.changed(slot, disk),
            Operation::Open(_, name, Mode::CreateNew | Mode::Write | Mode::Append) => {
                // It may be a new one.
                self.note(Path::new(name), disk);
            }
            Operation::Save { name, .. } | Operation::SetLenByName(name, _) => {
                self.changed_names(disk);
                self.note(Path::new(name), disk);
            }
            Operation::Sync(slot) if ok => {
                let names = disk.names(slot);
                // Of several names that may not all be known to others yet.
                if let [name] = &names[..] {
                    let hash = self.had(disk.content(name).unwrap());
                    self.kept.insert(name.clone(), Promise::File([hash].into()));
                }
            }
            Operation::SyncNames if ok => {
                self.synced(disk, |path| !disk.is_open(path));
            }
            Operation::Copy(_, to) => {
                self.changed_names(disk);
                self.note(Path::new(to), disk);
            }
            Operation::Replace { name, len, byte } => {
                // Under the second name it was there, whatever became of it.
                self.had(vec![byte; len]);
                self.touched(&[name], disk);
            }
            Operation::MakeDir(name) | Operation::RemoveDir(name) | Operation::Remove(name)
                if ok =>
            {
                self.touched(&[name], disk);
            }
            Operation::Symlink(_, name) if ok => self.touched(&[name], disk),
            Operation::Rename(from, to)
            | Operation::Exchange(from, to)
            | Operation::RenameNew(from, to)
            | Operation::Link(from, to)
                if ok =>
            {
                self.touched(&[from, to], disk);
            }
            _ => {}
        }
    }

    /// The file in a slot has another content, under all its names.
    fn changed(&mut self, slot: Slot, disk: &Side) {
        for name in disk.names(slot) {
            self.note(&name, disk);
        }
        disk.content_of_open(slot).into_iter().for_each(|content| drop(self.had(content)));
    }

    /// A link may have led anywhere.
    fn changed_names(&mut self, disk: &Side) {
        let names: Vec<PathBuf> = self.kept.keys().cloned().collect();
        for name in names {
            self.note(&name, disk);
        }
    }

    /// What is at a path now may be there later.
    fn note(&mut self, name: &Path, disk: &Side) {
        let Some(content) = disk.content(name) else { return };
        // Emptied, then written.
        let hashes = [self.had(Vec::new()), self.had(content)];
        if let Some(Promise::File(contents)) = self.kept.get_mut(name) {
            contents.extend(hashes);
        }
    }

    /// Some file had this content. Its hash.
    fn had(&mut self, content: Vec<u8>) -> String {
        let hash = sha256(&content);
        self.contents.insert(hash.clone(), content);
        hash
    }

    /// Whether a content is one of `all`, or a mixture of them: what was written after a sync may be there in part.
    fn explains<'a>(&'a self, content: &[u8], all: impl Iterator<Item = &'a String>) -> bool {
        let all: Vec<&Vec<u8>> = all.filter_map(|hash| self.contents.get(hash)).collect();
        let has = |(at, byte): (usize, &u8)| all.iter().any(|known| known.get(at) == Some(byte));
        all.iter().any(|known| known.len() == content.len()) && content.iter().enumerate().all(has)
    }

    /// Nothing is known of what is at these paths, or below, or by what they led to.
    fn touched(&mut self, names: &[&str], disk: &Side) {
        let links: Vec<PathBuf> = disk
            .tree()
            .into_iter()
            .filter(|(_, seen)| matches!(seen, Seen::Link(_)))
            .map(|(path, _)| path)
            .collect();
        let by_a_link = |name: &Path| links.iter().any(|link| name.starts_with(link));
        if names.iter().any(|name| by_a_link(Path::new(name))) {
            self.kept.clear();
        }
        for name in names {
            self.kept.retain(|path, _| !path.starts_with(name));
        }
        for name in disk.tree().into_keys() {
            if names.iter().any(|touched| name.starts_with(touched)) {
                self.note(&name, disk);
            }
        }
    }

    /// What is not as it was promised.
    pub fn broken(&self, here: &Side) -> Vec<String> {
        let mut broken = Vec::new();
        let tree = here.tree();
        for (path, promise) in &self.kept {
            let name = path.display();
            match (promise, tree.get(path)) {
                (Promise::File(contents), Some(Seen::File { size, .. })) => {
                    if !self.explains(&here.content(path).unwrap(), contents.iter()) {
                        broken
                            .push(format!("{name}: no content since it was synced ({size} bytes)"));
                    }
                }
                (Promise::Directory, Some(Seen::Directory { .. })) => {}
                (Promise::Link(target), Some(Seen::Link(found))) if target == found => {}
                (_, found) => broken.push(format!("{name}: was synced, and there is {found:?}")),
            }
        }
        for (path, seen) in tree {
            if let Seen::File { hash, size, .. } = seen
                && !self.contents.contains_key(&hash)
                && !self.explains(&here.content(&path).unwrap(), self.contents.keys())
            {
                broken.push(format!("{}: no file ever had this ({size} bytes)", path.display()));
            }
        }
        broken
    }
}
