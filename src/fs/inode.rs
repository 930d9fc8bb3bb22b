//! Inodes: what the kernel knows by number.
//!
//! A node has a folder and a name in it, or several: hard links. Where it lies is found by climbing, so a folder is
//! moved by moving its node alone, and everything below keeps its number. For that a folder stays in the table as
//! long as a name in it is known, also when the kernel has forgotten it.
//!
//! The number of a new node is the id of its entry if it has one and nobody else has that number, else a hash of the
//! path at which it is first seen: the same after a remount either way. A name keeps its number when its entry is
//! replaced by others, unless somebody has the file open: they go on reading what they opened, under the old
//! number, and the name gets a new one. So one number never shows two contents to one reader, and the page
//! cache of the kernel, which is per number, never mixes them.

mod node;

pub use node::{Node, Times};

use super::volume::{Entry, FileContent, Kind};
use crate::crypto::hash::hash;
use crate::path::{DrivePath, MAX_PATH};
use node::{Name, Sought};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// No path has more names.
const MAX_DEPTH: usize = MAX_PATH / 2;

/// Number of an inode; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    pub const ROOT: Self = Self(1);
}

/// What [`Inodes::bind`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Same(Ino),
    /// The name was not known. The inode may be: then it has one more name.
    New(Ino),
    /// The same number, another entry.
    Replaced(Ino),
    /// Another number; the old one lives on for those who hold it.
    Moved {
        old: Ino,
        new: Ino,
    },
}

impl Bound {
    pub fn ino(self) -> Ino {
        match self {
            Self::Same(ino) | Self::New(ino) | Self::Replaced(ino) => ino,
            Self::Moved { new, .. } => new,
        }
    }
}

/// All inodes of one mount.
///
/// What is in it: the root, what the kernel knows or has open, and the folders above that, all the way up. Of a node
/// that [`Inodes::bind`] made and that is not held then, [`Inodes::settle`] makes an end.
pub struct Inodes {
    nodes: HashMap<Ino, Node>,
    by_name: HashMap<Name, Ino>,
    /// Where folders are, as it was found out since one of them moved.
    folders: RefCell<HashMap<Ino, Arc<DrivePath>>>,
    number: fn(&DrivePath, u32) -> u64,
    /// See [`Inodes::sizes_are_told_once`].
    told_once: bool,
}

impl Inodes {
    pub fn new(root: Entry) -> Self {
        Self::with_numbers(root, path_hash)
    }

    /// With another hash, for tests of collisions.
    fn with_numbers(root: Entry, number: fn(&DrivePath, u32) -> u64) -> Self {
        let mut node = Node::new(root);
        // The kernel knows the root without asking and never forgets it.
        node.lookups = 1;
        Self {
            nodes: HashMap::from([(Ino::ROOT, node)]),
            by_name: HashMap::new(),
            folders: RefCell::new(only_root()),
            number,
            told_once: false,
        }
    }

    /// The kernel asks for the size of a file only once, and then knows it by what it writes itself. What others make of
    /// the file needs another number, so that the kernel takes it for another file.
    pub fn sizes_are_told_once(&mut self) {
        self.told_once = true;
    }

    // ---- what is where ----

    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// What `name` in `parent` is known as.
    pub fn child(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.by_name.get(&(parent, name) as &dyn Sought).copied()
    }

    pub fn at(&self, path: &DrivePath) -> Option<Ino> {
        path.names().try_fold(Ino::ROOT, |at, name| self.child(at, name))
    }

    /// The folder that `ino` lies in; none for the root and for what is unlinked.
    pub fn parent(&self, ino: Ino) -> Option<Ino> {
        self.get(ino)?.names.iter().next().map(|name| name.parent)
    }

    /// Where `ino` is, or one of the places; none if no name leads there.
    pub fn path(&self, ino: Ino) -> Option<Arc<DrivePath>> {
        let node = self.get(ino)?;
        if node.entry.kind == Kind::Directory {
            return self.folder(ino);
        }
        let path = |name: &Name| self.folder(name.parent)?.join(&name.text).ok();
        node.names.iter().find_map(path).map(Arc::new)
    }

    fn folder(&self, dir: Ino) -> Option<Arc<DrivePath>> {
        let mut folders = self.folders.borrow_mut();
        let mut below: Vec<(Ino, &Name)> = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if let Some(path) = folders.get(&at) {
                break path.clone();
            }
            let name = self.get(at)?.names.iter().next()?;
            below.push((at, name));
            if below.len() > MAX_DEPTH {
                return None;
            }
            at = name.parent;
        };
        while let Some((ino, name)) = below.pop() {
            path = Arc::new(path.join(&name.text).ok()?);
            folders.insert(ino, path.clone());
        }
        Some(path)
    }

    /// Whether `dir` is `ino` or somewhere below it.
    fn lies_in(&self, dir: Ino, ino: Ino) -> bool {
        let mut at = Some(dir);
        while let Some(here) = at {
            if here == ino {
                return true;
            }
            at = self.parent(here);
        }
        false
    }

    // ---- numbers ----

    /// The number that a lookup of `name` in `parent` would give for `entry` now; none if no path leads there.
    pub fn number(&self, parent: Ino, name: &str, entry: &Entry) -> Option<Ino> {
        self.child(parent, name).or_else(|| self.new_number(parent, name, entry))
    }

    fn new_number(&self, parent: Ino, name: &str, entry: &Entry) -> Option<Ino> {
        let path = self.path(parent)?.join(name).ok()?;
        match self.number_by_id(entry) {
            // No folder comes to lie in itself, whatever a drive says.
            Some(ino) if entry.kind != Kind::Directory || !self.lies_in(parent, ino) => Some(ino),
            _ => Some(self.free_number(&path)),
        }
    }

    /// The entry's own number, if it is nobody's or that of the same thing under another name. Others' numbers are
    /// hashes that may be equal to it, and ids are what the writer of a drive says.
    fn number_by_id(&self, entry: &Entry) -> Option<Ino> {
        let ino = Ino(entry.id);
        if ino <= Ino::ROOT {
            return None;
        }
        let free = self.get(ino).is_none_or(|node| {
            let one_name = entry.kind == Kind::Directory;
            node.entry.id == entry.id && node.can_become(entry) && !(one_name && node.is_linked())
        });
        free.then_some(ino)
    }

    fn free_number(&self, path: &DrivePath) -> Ino {
        (0..=u32::MAX)
            .map(|salt| Ino((self.number)(path, salt)))
            .find(|ino| *ino > Ino::ROOT && !self.nodes.contains_key(ino))
            .expect("fewer inodes than numbers")
    }

    // ---- what the volume tells ----

    /// Makes `name` in `parent` stand for `entry`. The inode found or made is not yet counted as looked up.
    ///
    /// None, and nothing is done, if no path leads there: `parent` is gone.
    pub fn bind(&mut self, parent: Ino, name: &str, entry: Entry) -> Option<Bound> {
        let Some(old) = self.child(parent, name) else {
            let ino = self.new_number(parent, name, &entry)?;
            self.insert(ino, parent, name, entry);
            return Some(Bound::New(ino));
        };
        if let Some(bound) = self.rebind(old, &entry) {
            return Some(bound);
        }
        let new = self.new_number(parent, name, &entry)?;
        self.lose(parent, name);
        self.insert(new, parent, name, entry);
        self.settle(old);
        Some(Bound::Moved { old, new })
    }

    /// The same by path. None if the folder is not known.
    pub fn bind_at(&mut self, path: &DrivePath, entry: Entry) -> Option<Bound> {
        match path.parent() {
            Some(parent) => self.bind(self.at(&parent)?, path.name(), entry),
            None => self.rebind(Ino::ROOT, &entry),
        }
    }

    /// Gives `ino` another entry if it is the same for whoever knows it, else nothing.
    fn rebind(&mut self, ino: Ino, entry: &Entry) -> Option<Bound> {
        let node = self.get(ino)?;
        if node.entry == *entry {
            return Some(Bound::Same(ino));
        }
        let keeps = || {
            let is_same = entry.revision == node.entry.revision;
            node.can_become(entry) && (is_same || !self.told_once || !node.is_told_file())
        };
        if ino != Ino::ROOT && !(self.is_still(ino, node, entry) && keeps()) {
            return None;
        }
        self.get_mut(ino)?.entry = entry.clone();
        Some(Bound::Replaced(ino))
    }

    /// Whether a name of `ino` that is `entry` now still stands for it, and not for a file that has a number of its
    /// own. What has no id takes over a number with the name, but not from other names.
    fn is_still(&self, ino: Ino, node: &Node, entry: &Entry) -> bool {
        if entry.id == node.entry.id || entry.id == ino.0 {
            return true;
        }
        node.names.len() == 1 && self.number_by_id(entry).is_none()
    }

    fn insert(&mut self, ino: Ino, parent: Ino, name: &str, entry: Entry) {
        match self.nodes.get_mut(&ino) {
            Some(node) => node.entry = entry,
            None => drop(self.nodes.insert(ino, Node::new(entry))),
        }
        self.attach(ino, parent, name);
    }

    // ---- changes from here, once the volume has made them, and before it is asked anything else ----

    /// What is at `from` is at `to` now, each a folder and a name in it; what was at `to` has lost that name. Two names
    /// of one file both stay, as rename(2) wants it.
    ///
    /// False, and nothing is done, if a folder would come to lie in itself, or the folder of `to` is not known.
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) -> bool {
        let moved = self.child(from.0, from.1);
        if self.get(to.0).is_none() || moved.is_some_and(|ino| self.lies_in(to.0, ino)) {
            return false;
        }
        if moved.is_some() && moved == self.child(to.0, to.1) {
            return true;
        }
        let replaced = self.lose(to.0, to.1);
        if let Some(ino) = self.detach(from.0, from.1) {
            self.attach(ino, to.0, to.1);
        }
        replaced.into_iter().chain([from.0, to.0]).for_each(|ino| self.settle(ino));
        true
    }

    /// What is at `a` is at `b` now and the other way round.
    ///
    /// False, and nothing is done, if a folder would come to lie in itself, or one of both folders is not known.
    pub fn exchange(&mut self, a: (Ino, &str), b: (Ino, &str)) -> bool {
        let loops = |name: (Ino, &str), dir| {
            self.child(name.0, name.1).is_some_and(|ino| self.lies_in(dir, ino))
        };
        if self.get(a.0).is_none() || self.get(b.0).is_none() || loops(a, b.0) || loops(b, a.0) {
            return false;
        }
        let (at_a, at_b) = (self.detach(a.0, a.1), self.detach(b.0, b.1));
        for (ino, to) in [(at_a, b), (at_b, a)] {
            if let Some(ino) = ino {
                self.attach(ino, to.0, to.1);
            }
        }
        [a.0, b.0].into_iter().for_each(|ino| self.settle(ino));
        true
    }

    /// `ino` has one more name; what had it has lost it.
    ///
    /// False, and nothing is done, for a folder, and if `ino` or `parent` is not known.
    pub fn link(&mut self, ino: Ino, parent: Ino, name: &str) -> bool {
        let can = self.get(ino).is_some_and(|node| node.entry.kind != Kind::Directory);
        if !can || self.get(parent).is_none() {
            return false;
        }
        if self.child(parent, name) == Some(ino) {
            return true;
        }
        let replaced = self.lose(parent, name);
        self.attach(ino, parent, name);
        if let Some(node) = self.get_mut(ino)
            && node.entry.links > 0
        {
            node.entry.links += 1;
        }
        replaced.into_iter().for_each(|ino| self.settle(ino));
        true
    }

    /// The name is gone; its inode, which is told, lives on for those who hold it, and under its other names.
    pub fn unlink(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let ino = self.lose(parent, name)?;
        self.settle(ino);
        self.settle(parent);
        Some(ino)
    }

    /// The same by path.
    pub fn unlink_at(&mut self, path: &DrivePath) -> Option<Ino> {
        self.unlink(self.at(&path.parent()?)?, path.name())
    }

    /// The file is changed: it is `entry` now and reads `content`, for all who have it open too. The bytes are still
    /// those that the kernel may hold in its page cache.
    pub fn renew(&mut self, ino: Ino, entry: Entry, content: Arc<dyn FileContent>) {
        let Some(node) = self.get_mut(ino) else { return };
        node.pages = node.pages.map(|_| entry.revision);
        node.entry = entry;
        if let Some(body) = &node.body {
            body.exchange(content);
        }
    }

    /// Gives a file that the kernel knows another number, under all its names, each a folder and a name in it: to the
    /// kernel it is another file then. Who has the old one open keeps that. None, and nothing is done, if there is no need.
    pub fn renumber(&mut self, ino: Ino) -> Option<Vec<(Ino, String)>> {
        let node = self.get(ino).filter(|node| node.is_told_file())?;
        let names: Vec<Name> = node.names.iter().cloned().collect();
        let (entry, path) = (node.entry.clone(), self.path(ino)?);
        let new = self.free_number(&path);
        self.nodes.insert(new, Node::new(entry));
        for Name { parent, text } in &names {
            self.detach(*parent, text);
            self.attach(new, *parent, text);
        }
        self.settle(ino);
        Some(names.into_iter().map(|name| (name.parent, name.text.to_string())).collect())
    }

    /// A name that is free becomes one of `ino`.
    fn attach(&mut self, ino: Ino, parent: Ino, name: &str) {
        let name = Name { parent, text: name.into() };
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names.add(name.clone());
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.below += 1;
        }
        self.by_name.insert(name, ino);
    }

    fn detach(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let (name, ino) = self.by_name.remove_entry(&(parent, name) as &dyn Sought)?;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names.remove(&name);
            if node.below > 0 {
                // All below it are somewhere else.
                *self.folders.get_mut() = only_root();
            } else if node.entry.kind == Kind::Directory {
                self.folders.get_mut().remove(&ino);
            }
        }
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.below -= 1;
        }
        Some(ino)
    }

    /// As [`Inodes::detach`], for good: the drive has one name less.
    fn lose(&mut self, parent: Ino, name: &str) -> Option<Ino> {
        let ino = self.detach(parent, name)?;
        if let Some(node) = self.get_mut(ino) {
            node.entry.links = node.entry.links.saturating_sub(1);
        }
        Some(ino)
    }

    // ---- who holds what ----

    /// The kernel was told of `ino` once more.
    pub fn remember(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_add(1);
        }
    }

    /// The kernel forgot `count` of the times it was told.
    pub fn forget(&mut self, ino: Ino, count: u64) {
        if ino == Ino::ROOT {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            if !node.is_known() {
                self.settle(ino);
            }
        }
    }

    /// A file or directory was opened.
    pub fn hold(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handles = node.handles.saturating_add(1);
        }
    }

    /// A file or directory was closed.
    pub fn release(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.handles = node.handles.saturating_sub(1);
        if node.handles == 0 {
            node.body = None;
            self.settle(ino);
        }
    }

    /// Drops `ino` if nobody knows it, and then the folders above that were only kept for it.
    pub fn settle(&mut self, ino: Ino) {
        if self.get(ino).is_none_or(Node::is_known) {
            return;
        }
        let mut unknown = vec![ino];
        while let Some(ino) = unknown.pop() {
            let Some(node) = self.nodes.remove(&ino) else { continue };
            if node.entry.kind == Kind::Directory {
                self.folders.get_mut().remove(&ino);
            }
            for name in node.names.iter() {
                self.by_name.remove(name);
                let Some(parent) = self.nodes.get_mut(&name.parent) else { continue };
                parent.below -= 1;
                if !parent.is_known() {
                    unknown.push(name.parent);
                }
            }
        }
    }
}

fn only_root() -> HashMap<Ino, Arc<DrivePath>> {
    HashMap::from([(Ino::ROOT, Arc::new(DrivePath::root()))])
}

/// 64 bits of BLAKE2b: nobody who names files can make many of them collide, which would make each probe
/// for a free number long.
fn path_hash(path: &DrivePath, salt: u32) -> u64 {
    let digest = hash(&[&salt.to_le_bytes(), path.as_str().as_bytes()]);
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
