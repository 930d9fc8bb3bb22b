//! The names of a drive while it is changed here: one after the other, as a file system does, each at the cost of the
//! folders above it; and what the drive has to say so that others see the same.
//!
//! A folder of a drive is there because of what is in it, or because it is *kept*. One that is made here is kept, and so
//! is one that loses its last name: it goes when it is removed. Only of empty ones the drive says so in a record.

use super::DriveIndex;
use crate::hyper::drive::dir::{Dir, Node, differences};
use crate::hyper::drive::leaf::Leaf;
use crate::hyper::drive::names::Name;
use crate::path::DrivePath;
use std::sync::Arc;

/// What is different between two versions of a drive's names.
#[derive(Debug, Default)]
pub struct Steps {
    /// What a name stands for from now on; none where there is no file or link any more.
    pub leaves: Vec<(DrivePath, Option<Leaf>)>,
    /// Whether there is a record that a folder is kept.
    pub records: Vec<(DrivePath, bool)>,
    /// Folders that came here with another's mark of having a record, and whether they have one.
    marks: Vec<(DrivePath, bool)>,
}

impl Steps {
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty() && self.records.is_empty()
    }
}

impl DriveIndex {
    /// Sets the file or link at `path`, in a folder that is there.
    pub fn set(&mut self, path: &DrivePath, leaf: Leaf) {
        self.insert(path, leaf, u64::MAX);
    }

    /// Makes a folder.
    pub fn make_dir(&mut self, path: &DrivePath) {
        self.keep(path, u64::MAX);
    }

    /// Takes the file, the link or the empty folder at `path` out. The folder that it lies in stays.
    pub fn take(&mut self, path: &DrivePath) {
        let Some(node) = self.cut_out(path) else { return };
        if let Some(leaf) = node.leaf() {
            self.bytes -= leaf.size();
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

    /// Takes a node out as it is. The folder that it was in is kept if nothing else is in it.
    fn cut_out(&mut self, path: &DrivePath) -> Option<Node> {
        let node = self.node(path)?.clone();
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
        let mut todo = vec![(DrivePath::root(), &self.root, &next.root)];
        while let Some((path, old, new)) = todo.pop() {
            if Arc::ptr_eq(old, new) {
                continue;
            }
            differences(old, new, |name, old, new| {
                // The names of an index can be joined.
                let Ok(path) = path.join(name) else { return };
                let (before, after) = (old.and_then(Node::leaf), new.and_then(Node::leaf));
                if before != after {
                    steps.leaves.push((path.clone(), after.cloned()));
                }
                let (before, after) = (old.and_then(Node::dir), new.and_then(Node::dir));
                let had = before.is_some_and(|dir| dir.recorded);
                let has = after.is_some_and(|dir| had || dir.kept && dir.is_empty());
                if had != has {
                    steps.records.push((path.clone(), has));
                }
                if after.is_some_and(|dir| dir.recorded != has) {
                    steps.marks.push((path.clone(), has));
                }
                if before.is_some() || after.is_some() {
                    todo.push((path, before.unwrap_or(&none), after.unwrap_or(&none)));
                }
            });
        }
        steps
    }

    /// Makes these steps, as far as nothing else is in their way by now.
    pub fn take_steps(&mut self, steps: &Steps) {
        for (path, leaf) in &steps.leaves {
            match leaf {
                Some(leaf) => self.set(path, leaf.clone()),
                None => self.remove(&Name::Leaf(path.clone())),
            }
        }
        for (path, kept) in &steps.records {
            match kept {
                true => self.make_dir(path),
                false => self.remove(&Name::Kept(path.clone())),
            }
        }
    }

    /// Others have seen `leaf` at `path` since, or that nothing is there.
    pub fn hear(&mut self, path: &DrivePath, leaf: Option<Leaf>) {
        match leaf {
            Some(leaf) => self.set(path, leaf),
            None => self.remove(&Name::Leaf(path.clone())),
        }
    }

    /// The drive has a record since that a folder is kept, or none.
    pub fn hear_record(&mut self, path: &DrivePath, kept: bool) {
        match kept {
            true => drop(self.keep_recorded(path, u64::MAX)),
            false => self.remove(&Name::Kept(path.clone())),
        }
    }

    /// It is the index of this version of the drive.
    pub fn set_version(&mut self, version: u64) {
        self.version = version;
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
mod tests {
    use super::*;
    use crate::hyper::drive::index::Found;
    use crate::hyper::drive::{Link, Stat};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn leaf(n: u64) -> Leaf {
        Leaf::Link(Link { seq: n, stat: Stat::default(), xattrs: None, target: "t".into() })
    }

    /// What a drive says: leaves and records.
    #[derive(Default)]
    struct Said {
        leaves: BTreeMap<DrivePath, Leaf>,
        records: BTreeSet<DrivePath>,
    }

    impl Said {
        fn hear(&mut self, steps: &Steps) {
            for (path, leaf) in &steps.leaves {
                match leaf {
                    Some(leaf) => drop(self.leaves.insert(path.clone(), leaf.clone())),
                    None => assert!(self.leaves.remove(path).is_some(), "{path} was not there"),
                }
            }
            for (path, has) in &steps.records {
                let changed = if *has {
                    self.records.insert(path.clone())
                } else {
                    self.records.remove(path)
                };
                assert!(changed, "{path} {has}");
            }
        }

        fn index(&self) -> DriveIndex {
            let mut index = DriveIndex::default();
            for (path, leaf) in &self.leaves {
                assert!(index.insert(path, leaf.clone(), u64::MAX));
            }
            for path in &self.records {
                assert!(index.keep_recorded(path, u64::MAX));
            }
            index
        }
    }

    /// Everything that is shown, with what it is: the number of a leaf, 0 for a folder.
    fn shown(index: &DriveIndex) -> Vec<(DrivePath, u64)> {
        let (mut all, mut todo) = (Vec::new(), vec![DrivePath::root()]);
        while let Some(at) = todo.pop() {
            for (name, node) in index.list(&at).unwrap().iter() {
                let path = at.join(name).unwrap();
                match node.shown() {
                    Found::Directory(_) => {
                        all.push((path.clone(), 0));
                        todo.push(path);
                    }
                    Found::Link(link) => all.push((path, link.seq)),
                    Found::File(_) => unreachable!("the test has none"),
                }
            }
        }
        all.sort();
        all
    }

    fn counts(index: &DriveIndex) -> (u64, u64, u128) {
        (index.files(), index.dirs, index.bytes)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Set(DrivePath),
        MakeDir(DrivePath),
        Take(DrivePath),
        Move(DrivePath, DrivePath),
        Publish,
    }

    fn path() -> impl Strategy<Value = DrivePath> {
        proptest::collection::vec(0..3u8, 1..4).prop_map(|names| {
            let names: Vec<String> = names.iter().map(u8::to_string).collect();
            DrivePath::from_user(&names.join("/")).unwrap()
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => path().prop_map(Op::Set),
            4 => path().prop_map(Op::MakeDir),
            3 => path().prop_map(Op::Take),
            4 => (path(), path()).prop_map(|(from, to)| Op::Move(from, to)),
            1 => Just(Op::Publish),
        ]
    }

    /// What a file system lets pass, as the model does it.
    fn allowed(model: &BTreeMap<DrivePath, u64>, op: &Op) -> bool {
        let is_dir = |path: &DrivePath| path.is_root() || model.get(path) == Some(&0);
        let in_dir = |path: &DrivePath| path.parent().is_some_and(|dir| is_dir(&dir));
        let below = |dir: &DrivePath| {
            model.keys().any(|path| path.moved(dir, dir).is_some() && path != dir)
        };
        match op {
            Op::Set(path) => in_dir(path) && !is_dir(path),
            Op::MakeDir(path) => in_dir(path) && !model.contains_key(path),
            Op::Take(path) => model.contains_key(path) && !below(path),
            Op::Move(from, to) => {
                let into_itself = to.moved(from, from).is_some();
                model.contains_key(from) && in_dir(to) && !model.contains_key(to) && !into_itself
            }
            Op::Publish => true,
        }
    }

    proptest! {
        /// The drive, after it was told the steps, shows what the draft shows, to whoever loads it.
        #[test]
        fn what_is_said_is_what_was_done(ops in proptest::collection::vec(op(), 0..60)) {
            let (mut said, mut model) = (Said::default(), BTreeMap::<DrivePath, u64>::new());
            let (mut before, mut draft) = (DriveIndex::default(), DriveIndex::default());
            for (n, op) in (1..).zip(ops.into_iter().chain([Op::Publish])) {
                if !allowed(&model, &op) {
                    continue;
                }
                match op {
                    Op::Set(path) => {
                        draft.set(&path, leaf(n));
                        model.insert(path, n);
                    }
                    Op::MakeDir(path) => {
                        draft.make_dir(&path);
                        model.insert(path, 0);
                    }
                    Op::Take(path) => {
                        draft.take(&path);
                        model.remove(&path);
                    }
                    Op::Move(from, to) => {
                        draft.move_to(&from, &to);
                        let moved: Vec<_> = model.iter()
                            .filter_map(|(path, n)| Some((path.clone(), path.moved(&from, &to)?, *n)))
                            .collect();
                        for (old, new, n) in moved {
                            model.remove(&old);
                            model.insert(new, n);
                        }
                    }
                    Op::Publish => {
                        let steps = before.steps_to(&draft);
                        said.hear(&steps);
                        draft.said(&steps);
                        prop_assert!(draft.steps_to(&draft.clone()).is_empty());
                        before = draft.clone();
                        let loaded = said.index();
                        prop_assert_eq!(shown(&loaded), shown(&draft));
                        prop_assert_eq!(counts(&loaded), counts(&draft));
                        prop_assert!(loaded.steps_to(&draft).is_empty());
                    }
                }
                let want: Vec<_> = model.iter().map(|(path, n)| (path.clone(), *n)).collect();
                prop_assert_eq!(shown(&draft), want);
            }
        }
    }

    #[test]
    fn a_folder_of_many_names_is_moved_at_once_and_said_name_by_name() {
        let path = |text: &str| DrivePath::from_user(text).unwrap();
        let mut before = DriveIndex::default();
        before.make_dir(&path("a"));
        for n in 1..=1000 {
            before.set(&path(&format!("a/{n}")), leaf(n));
        }
        let mut draft = before.clone();
        draft.move_to(&path("a"), &path("b"));
        let (old, new) = (before.list(&path("a")).unwrap(), draft.list(&path("b")).unwrap());
        assert!(Arc::ptr_eq(old, new), "nothing in it was touched");
        assert_eq!(before.steps_to(&draft).leaves.len(), 2000);
    }
}
