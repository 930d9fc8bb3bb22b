//! How an index is changed name by name, and how far it may grow.

use super::{DriveIndex, TOO_MANY, WARNINGS};
use crate::hyper::bee::{Bee, BeeError, Difference};
use crate::hyper::drive::dir::{Dir, Node};
use crate::hyper::drive::leaf::Leaf;
use crate::hyper::drive::names::{self, Name};
use crate::hyper::drive::record::{Attributes, Record, Special};
use crate::path::DrivePath;
use std::sync::Arc;

/// Directories that a drive may have beyond [`DIRS_PER_NAME`] for each of its names.
pub(super) const FREE_DIRS: u64 = 1 << 16;

/// Directories that a name may bring along, all names taken together. A directory costs about 300 bytes of memory and
/// two of the drive, so that without a bound a few megabytes of deep names would fill the machine.
pub(super) const DIRS_PER_NAME: u64 = 8;

/// Directories that so many names may have.
pub(super) fn room_of(names: u64) -> u64 {
    FREE_DIRS.saturating_add(names.saturating_mul(DIRS_PER_NAME))
}

impl DriveIndex {
    /// Brings the index up to a newer bee. Where not all names have room, it depends on all of them which have: then it
    /// says no, and has to be loaded.
    pub(super) async fn apply_difference(
        &mut self,
        bee: &Bee,
        from: u64,
    ) -> Result<bool, BeeError> {
        if self.crowded > 0 {
            return Ok(false);
        }
        // There cannot be more names than that.
        let room = room_of(self.names() + bee.version().saturating_sub(from));
        // Every block that the newer tree does not share lies in what was appended.
        bee.source().prefetch_range(from.max(1), bee.version());
        let mut diff = bee.diff(&bee.checkout(from));
        while let Some(Difference { left, right }) = diff.next().await? {
            let key = match left.as_ref().or(right.as_ref()).map(|entry| &entry.key) {
                Some(key) => key.clone(),
                None => continue,
            };
            let name = match (names::parse(&key), &left) {
                (None, _) => continue,
                (Some(Ok(name)), _) => name,
                (Some(Err(error)), Some(_)) if right.is_none() => {
                    self.leave_out(&String::from_utf8_lossy(&key), &error);
                    continue;
                }
                (Some(Err(_)), Some(_)) => continue,
                (Some(Err(_)), None) => {
                    self.left_out = self.left_out.saturating_sub(1);
                    continue;
                }
            };
            let has_room = match (&name, left) {
                (Name::Leaf(path), Some(new)) => {
                    self.insert(path, Leaf::decode(new.seq, &new.value), room)
                }
                (Name::Kept(path), Some(new)) => {
                    self.keep_recorded(path, Record::decode(&new.value).folder(new.seq), room)
                }
                (Name::Node(path), Some(new)) => match Record::decode(&new.value).node(new.seq) {
                    Some(node) => self.insert_node(path, node, room),
                    None => {
                        self.remove(&name);
                        true
                    }
                },
                (name, None) => {
                    self.remove(name);
                    true
                }
            };
            if !has_room {
                return Ok(false);
            }
        }
        self.settle_links();
        Ok(self.dirs <= room_of(self.names()))
    }

    /// Names that the drive has something for.
    fn names(&self) -> u64 {
        self.files() + self.kept + self.hidden.len() as u64
    }

    pub(super) fn crowd_out(&mut self, path: &DrivePath) {
        self.crowded += 1;
        self.leave_out(path.as_str(), &TOO_MANY);
    }

    pub(super) fn leave_out(&mut self, name: &str, error: &dyn std::fmt::Display) {
        self.left_out += 1;
        if self.left_out <= WARNINGS {
            let name: String = name.chars().take(200).collect();
            tracing::warn!("the name {name:?} is left out: {error}");
        }
    }

    /// Whether the directories above `path`, and with `itself` the one there, are no more than `room` with the others.
    fn has_room(&self, path: &DrivePath, itself: bool, room: u64) -> bool {
        let depth = path.names().count() + usize::from(itself);
        let mut there = 1;
        let mut dir = &self.root;
        for name in path.names() {
            match dir.get(name).and_then(Node::dir) {
                Some(below) => dir = below,
                None => break,
            }
            there += 1;
        }
        let more = depth.saturating_sub(there) as u64;
        more == 0 || self.dirs + more <= room
    }

    /// Sets the file, link or special node at `path`; a file or link hides a node that was there. Whether there was room
    /// for the directories above it, `room` for all.
    pub(super) fn insert(&mut self, path: &DrivePath, leaf: Leaf, room: u64) -> bool {
        if !self.has_room(path, false, room) {
            return false;
        }
        let unsized_file = leaf.is_unsized();
        let old = self.node(path).and_then(Node::leaf);
        let hides = old.and_then(Leaf::special).filter(|_| leaf.special().is_none()).cloned();
        let (old, id) = (old.map(Leaf::size), old.map_or(0, |old| old.stat().id));
        self.links.change(path, id, leaf.stat().id);
        if let Some(node) = hides {
            self.hidden.insert(path.clone(), Box::new(node));
        }
        self.bytes = self.bytes - old.unwrap_or(0) + leaf.size();
        let mut made = 0;
        let mut dir = Arc::make_mut(&mut self.root);
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            dir.leaves += u64::from(old.is_none());
            if names.peek().is_none() {
                dir.set_leaf(name, leaf);
                break;
            }
            made += u64::from(dir.get(name).and_then(Node::dir).is_none());
            dir = dir.open(name);
        }
        self.dirs += made;
        if unsized_file {
            self.unsized_files.insert(path.clone());
        } else {
            self.unsized_files.remove(path);
        }
        true
    }

    /// Sets a special node, behind the file or link of its name if there is one. Whether there was room.
    pub(super) fn insert_node(&mut self, path: &DrivePath, node: Box<Special>, room: u64) -> bool {
        if self.node(path).and_then(Node::leaf).is_some_and(|leaf| leaf.special().is_none()) {
            self.hidden.insert(path.clone(), node);
            return true;
        }
        self.insert(path, Leaf::Special(node), room)
    }

    /// Keeps the directory at `path`. Whether there was room for it.
    pub(super) fn keep(&mut self, path: &DrivePath, room: u64) -> bool {
        if !self.has_room(path, true, room) {
            return false;
        }
        let mut made = 0;
        let mut dir = Arc::make_mut(&mut self.root);
        for name in path.names() {
            made += u64::from(dir.get(name).and_then(Node::dir).is_none());
            dir = dir.open(name);
        }
        self.kept += u64::from(!dir.kept);
        dir.kept = true;
        self.dirs += made;
        true
    }

    /// The same where the drive has a record of that, which says this of it.
    pub(super) fn keep_recorded(
        &mut self,
        path: &DrivePath,
        own: Option<Box<Attributes>>,
        room: u64,
    ) -> bool {
        let kept = self.keep(path, room);
        if kept {
            let dir = self.dir_mut(path);
            (dir.recorded, dir.own) = (true, own);
        }
        kept
    }

    /// The directory at `path`, made if there is none.
    pub(super) fn dir_mut(&mut self, path: &DrivePath) -> &mut Dir {
        path.names().fold(Arc::make_mut(&mut self.root), Dir::open)
    }

    /// Takes a name out, and with it the directories that it alone kept in being.
    pub(super) fn remove(&mut self, name: &Name) {
        let (path, leaf) = match name {
            Name::Kept(path) => {
                if !self.dir(path).is_some_and(|dir| dir.kept) {
                    return;
                }
                self.kept -= 1;
                if path.is_root() {
                    return Arc::make_mut(&mut self.root).let_go();
                }
                (path, 0)
            }
            Name::Leaf(path) | Name::Node(path) => {
                let Some(leaf) = self.node(path).and_then(Node::leaf) else { return };
                let (is_node, bytes) = (leaf.special().is_some(), leaf.size());
                let id = leaf.stat().id;
                let hidden = self.hidden.remove(path);
                if matches!(name, Name::Node(_)) != is_node {
                    return;
                }
                if let Some(node) = hidden {
                    // It has its place.
                    self.insert(path, Leaf::Special(node), u64::MAX);
                    return;
                }
                self.bytes -= bytes;
                self.links.change(path, id, 0);
                self.unsized_files.remove(path);
                (path, 1)
            }
        };
        let names: Vec<&str> = path.names().collect();
        let (depth, rest) = self.cut(&names, leaf == 0);
        let gone = names[depth..].len() - 1 + usize::from(leaf == 0 && !has_dir(&rest));
        self.dirs = self.dirs.saturating_sub(gone as u64);
        let mut dir = Arc::make_mut(&mut self.root);
        for name in &names[..depth] {
            dir.leaves -= leaf;
            dir = dir.open(name);
        }
        dir.leaves -= leaf;
        dir.replace(names[depth], rest);
    }

    /// Where to cut so that the leaf of `names`, or the directory's being kept, is gone: how deep the name lies that
    /// changes, and what stays under it.
    fn cut(&self, names: &[&str], kept: bool) -> (usize, Option<Node>) {
        let mut way = vec![&self.root];
        for name in names {
            way.extend(way[way.len() - 1].get(name).and_then(Node::dir));
        }
        let last = names.len() - 1;
        let mut depth = last;
        loop {
            let rest = match way[depth].get(names[depth]) {
                Some(Node::Both(dir, _)) if depth == last && !kept => {
                    Some(Node::Directory(dir.clone()))
                }
                Some(node) if depth == last && kept && !way[last + 1].is_empty() => {
                    let mut dir = Dir::clone(way[last + 1]);
                    dir.let_go();
                    Some(node.with_dir(dir))
                }
                Some(Node::Both(_, leaf)) => Some(Node::Leaf((**leaf).clone())),
                _ => None,
            };
            if rest.is_some() || depth == 0 || way[depth].len() > 1 || way[depth].kept {
                return (depth, rest);
            }
            depth -= 1;
        }
    }
}

fn has_dir(node: &Option<Node>) -> bool {
    node.as_ref().is_some_and(|node| node.dir().is_some())
}
