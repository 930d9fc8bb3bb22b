//! The names of a drive while it is changed here: one after the other, as a file system does, each at the cost of the
//! folders above it; and what the drive has to say so that others see the same.
//!
//! A folder of a drive is there because of what is in it, or because it is *kept*. One that is made here is kept, and so
//! is one that loses its last name: it goes when it is removed. Of empty ones the drive says so in a record, and of those
//! that have attributes of their own.

use super::DriveIndex;
use crate::hyper::drive::dir::{Dir, Node, differences};
use crate::hyper::drive::leaf::Leaf;
use crate::hyper::drive::names::Name;
use crate::hyper::drive::record::{Attributes, Special};
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is different between two versions of a drive's names.
#[derive(Debug, Default)]
pub struct Steps {
    /// What the entry of a name says from now on; none where there is no file or link any more.
    pub leaves: Vec<(DrivePath, Option<Leaf>)>,
    /// The special node that a name stands for; none where there is none any more.
    pub nodes: Vec<(DrivePath, Option<Special>)>,
    /// What the record of a folder says; none where there is none any more.
    pub records: Vec<(DrivePath, Option<Attributes>)>,
    /// Folders that came here with another's mark of having a record, and whether they have one.
    marks: Vec<(DrivePath, bool)>,
}

impl Steps {
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.nodes.is_empty() && self.records.is_empty()
    }

    /// Notes what has to be said of a folder itself.
    fn folder(&mut self, path: &DrivePath, before: Option<&Dir>, after: Option<&Dir>) {
        let had = before.filter(|dir| dir.recorded);
        let alone = |dir: &Dir| dir.kept && dir.is_empty() && !path.is_root();
        let has = after.filter(|dir| had.is_some() || dir.own.is_some() || alone(dir));
        if had.map(Dir::attributes) != has.map(Dir::attributes) {
            let says = has.map(|dir| dir.attributes().cloned().unwrap_or_default());
            self.records.push((path.clone(), says));
        }
        if after.is_some_and(|dir| dir.recorded != has.is_some()) {
            self.marks.push((path.clone(), has.is_some()));
        }
    }
}

impl DriveIndex {
    /// Sets the file, link or special node at `path`, in a folder that is there.
    pub fn set(&mut self, path: &DrivePath, leaf: Leaf) {
        self.insert(path, leaf, u64::MAX);
        // One that it replaced does not come back.
        self.hidden.remove(path);
        self.settle_links();
    }

    /// Makes a folder.
    pub fn make_dir(&mut self, path: &DrivePath) {
        self.keep(path, u64::MAX);
    }

    /// Sets what is said of a folder that is there. Its [`Attributes::seq`] is that of the record whose extended attributes
    /// it has.
    pub fn set_dir_attributes(&mut self, path: &DrivePath, attributes: Attributes) {
        if self.dir(path).is_none() {
            return;
        }
        let dir = self.dir_mut(path);
        let new = u64::from(!dir.kept);
        (dir.own, dir.kept) = (attributes.boxed(), true);
        self.kept += new;
    }

    /// Takes the file, link, special node or empty folder at `path` out. The folder that it lies in stays.
    pub fn take(&mut self, path: &DrivePath) {
        let Some(node) = self.cut_out(path) else { return };
        if let Some(leaf) = node.leaf() {
            self.bytes -= leaf.size();
            self.links.change(path, leaf.stat().id, 0);
            self.settle_links();
            self.unsized_files.remove(path);
        }
        if let Some(dir) = node.dir() {
            debug_assert!(dir.is_empty());
            self.dirs -= 1;
            self.kept -= u64::from(dir.kept);
        }
    }

    /// Moves what is at `from`, with all that is in it, to `to`, where nothing is. Not into itself.
    pub fn move_to(&mut self, from: &DrivePath, to: &DrivePath) {
        let Some(node) = self.cut_out(from) else { return };
        let leaves = leaves(&node);
        let (above, name) = split(to);
        let mut dir = Arc::make_mut(&mut self.root);
        for name in above {
            dir.leaves += leaves;
            dir = dir.open(name);
        }
        dir.leaves += leaves;
        dir.replace(name, Some(node));
        self.links.move_to(from, to);
        if !self.unsized_files.is_empty() {
            let moved = |path: &DrivePath| path.moved(from, to);
            let moved: Vec<_> = self
                .unsized_files
                .iter()
                .filter_map(|path| Some((path.clone(), moved(path)?)))
                .collect();
            for (old, new) in moved {
                self.unsized_files.remove(&old);
                self.unsized_files.insert(new);
            }
        }
    }

    /// Takes what is at `path` out as it is. The folder that it was in is kept if nothing else is in it.
    fn cut_out(&mut self, path: &DrivePath) -> Option<Node> {
        let node = self.node(path)?.clone();
        self.hidden.retain(|hidden, _| hidden.moved(path, path).is_none());
        let leaves = leaves(&node);
        let (above, name) = split(path);
        let is_root = above.is_empty();
        let mut dir = Arc::make_mut(&mut self.root);
        for name in above {
            dir.leaves -= leaves;
            dir = dir.open(name);
        }
        dir.leaves -= leaves;
        dir.replace(name, None);
        if !is_root && dir.is_empty() && !dir.kept {
            dir.kept = true;
            self.kept += 1;
        }
        Some(node)
    }

    /// What the drive has to say so that it has the names of `next` instead of these, which are what it says now.
    pub fn steps_to(&self, next: &Self) -> Steps {
        let mut steps = Steps::default();
        let none = Arc::new(Dir::default());
        steps.folder(&DrivePath::root(), Some(&self.root), Some(&next.root));
        let mut todo = vec![(DrivePath::root(), &self.root, &next.root)];
        while let Some((path, old, new)) = todo.pop() {
            if Arc::ptr_eq(old, new) {
                continue;
            }
            differences(old, new, |name, old, new| {
                // The names of an index can be joined.
                let Ok(path) = path.join(name) else { return };
                let (before, after) = (self.said_of(&path, old), next.said_of(&path, new));
                if before.0 != after.0 {
                    steps.leaves.push((path.clone(), after.0.cloned()));
                }
                if before.1 != after.1 {
                    steps.nodes.push((path.clone(), after.1.cloned()));
                }
                let (before, after) = (old.and_then(Node::dir), new.and_then(Node::dir));
                steps.folder(&path, before.map(|dir| &**dir), after.map(|dir| &**dir));
                if before.is_some() || after.is_some() {
                    todo.push((path, before.unwrap_or(&none), after.unwrap_or(&none)));
                }
            });
        }
        steps
    }

    /// Adds to the steps from `before` to here what keeps the folders of `unsaid`, names of which nothing is said yet: a
    /// folder in which there is nothing else would not be there for others, nor after an end.
    pub fn keep_folders(&self, unsaid: &[DrivePath], before: &Self, steps: &mut Steps) {
        let mut counts: BTreeMap<DrivePath, u64> = BTreeMap::new();
        for path in unsaid {
            for above in std::iter::successors(path.parent(), DrivePath::parent) {
                *counts.entry(above).or_default() += 1;
            }
        }
        let folders: BTreeSet<DrivePath> = unsaid.iter().filter_map(DrivePath::parent).collect();
        for path in folders.into_iter().filter(|path| !path.is_root()) {
            let Some(dir) = self.dir(&path) else { continue };
            // One that came from elsewhere may bear the mark of what it was there.
            let recorded = before.dir(&path).is_some_and(|dir| dir.recorded);
            if Some(&dir.leaves) == counts.get(&path) && dir.own.is_none() && !recorded {
                steps.records.push((path.clone(), Some(Attributes::default())));
                steps.marks.push((path, true));
            }
        }
    }

    /// Makes these steps, as far as nothing else is in their way by now.
    pub fn take_steps(&mut self, steps: &Steps) {
        for (path, leaf) in &steps.leaves {
            match leaf {
                Some(leaf) => self.set(path, leaf.clone()),
                None => self.remove(&Name::Leaf(path.clone())),
            }
        }
        for (path, node) in &steps.nodes {
            self.hear_node(path, node.clone());
        }
        for (path, own) in &steps.records {
            match own {
                Some(own) => {
                    self.make_dir(path);
                    self.set_dir_attributes(path, own.clone());
                }
                None => self.remove(&Name::Kept(path.clone())),
            }
        }
    }

    /// The drive has this entry at `path` by now, or none.
    pub fn hear(&mut self, path: &DrivePath, leaf: Option<Leaf>) {
        match leaf {
            Some(leaf) => drop(self.insert(path, leaf, u64::MAX)),
            None => self.remove(&Name::Leaf(path.clone())),
        }
    }

    /// The drive has this special node at `path` by now, or none.
    pub fn hear_node(&mut self, path: &DrivePath, node: Option<Special>) {
        match node {
            Some(node) => drop(self.insert_node(path, Box::new(node), u64::MAX)),
            None => self.remove(&Name::Node(path.clone())),
        }
    }

    /// The drive has this record of the folder at `path` by now, or none.
    pub fn hear_record(&mut self, path: &DrivePath, own: Option<Attributes>) {
        match own {
            Some(own) => drop(self.keep_recorded(path, own.boxed(), u64::MAX)),
            None => self.remove(&Name::Kept(path.clone())),
        }
    }

    /// It is the index of this version of the drive.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    /// The entry and the special node that the drive has for a name.
    fn said_of<'a>(
        &'a self,
        path: &DrivePath,
        node: Option<&'a Node>,
    ) -> (Option<&'a Leaf>, Option<&'a Special>) {
        match node.and_then(Node::leaf) {
            Some(Leaf::Special(node)) => (None, Some(node)),
            leaf => (leaf, self.hidden.get(path).map(|node| &**node)),
        }
    }

    /// The drive says by now what these steps are.
    pub fn said(&mut self, steps: &Steps) {
        for (path, has) in &steps.marks {
            self.dir_mut(path).recorded = *has;
        }
    }
}

fn leaves(node: &Node) -> u64 {
    node.dir().map_or(0, |dir| dir.leaves) + u64::from(node.leaf().is_some())
}

/// The names above the last one, and that.
fn split(path: &DrivePath) -> (Vec<&str>, &str) {
    let mut names: Vec<&str> = path.names().collect();
    let last = names.pop().unwrap_or_default();
    (names, last)
}

#[cfg(test)]
mod tests;
