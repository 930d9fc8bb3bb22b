//! What is changed in memory against a map of paths, and what is said of it against a load.

use super::*;
use crate::hyper::drive::index::Found;
use crate::hyper::drive::{Extended, Link, SpecialKind, Stat, Time, Xattrs};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn leaf(n: u64) -> Leaf {
    Leaf::Link(Link { seq: n, stat: Stat::default(), xattrs: None, target: "t".into() })
}

fn node(n: u64) -> Leaf {
    let (kind, stat) = (SpecialKind::Fifo, Stat::default());
    Leaf::Special(Box::new(Special { seq: n, kind, stat, xattrs: None }))
}

/// What a drive says: leaves, special nodes and records.
#[derive(Default)]
struct Said {
    leaves: BTreeMap<DrivePath, Leaf>,
    nodes: BTreeMap<DrivePath, Special>,
    records: BTreeMap<DrivePath, Attributes>,
}

fn hear<T: Clone + PartialEq>(said: &mut BTreeMap<DrivePath, T>, steps: &[(DrivePath, Option<T>)]) {
    for (path, now) in steps {
        let before = match now {
            Some(now) => said.insert(path.clone(), now.clone()),
            None => said.remove(path),
        };
        assert!(before != *now, "{path} is as it was");
    }
}

impl Said {
    fn hear(&mut self, steps: &Steps) {
        hear(&mut self.leaves, &steps.leaves);
        hear(&mut self.nodes, &steps.nodes);
        hear(&mut self.records, &steps.records);
    }

    fn index(&self) -> DriveIndex {
        let mut index = DriveIndex::default();
        for (path, leaf) in &self.leaves {
            assert!(index.insert(path, leaf.clone(), u64::MAX));
        }
        for (path, own) in &self.records {
            assert!(index.keep_recorded(path, own.clone().boxed(), u64::MAX));
        }
        for (path, node) in &self.nodes {
            assert!(index.insert_node(path, Box::new(node.clone()), u64::MAX));
        }
        index
    }
}

/// What is shown under a name.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shown {
    /// With its mode.
    Folder(u16),
    /// With its number.
    Leaf(u64),
    Node(u64),
}

/// Everything that is shown, with what it is.
fn shown(index: &DriveIndex) -> Vec<(DrivePath, Shown)> {
    let (mut all, mut todo) = (Vec::new(), vec![DrivePath::root()]);
    while let Some(at) = todo.pop() {
        let dir = index.list(&at).unwrap();
        all.push((at.clone(), Shown::Folder(dir.stat().mode)));
        for (name, node) in dir.iter() {
            let path = at.join(name).unwrap();
            match node.shown() {
                Found::Directory(_) => todo.push(path),
                Found::Link(link) => all.push((path, Shown::Leaf(link.seq))),
                Found::Special(node) => all.push((path, Shown::Node(node.seq))),
                Found::File(_) => unreachable!("the test has none"),
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn counts(index: &DriveIndex) -> (u64, u64, u128) {
    (index.files(), index.dirs, index.bytes)
}

#[derive(Debug, Clone)]
enum Op {
    Set(DrivePath),
    MakeNode(DrivePath),
    MakeDir(DrivePath),
    /// The mode of a folder.
    Mode(DrivePath, u16),
    Take(DrivePath),
    Move(DrivePath, DrivePath),
    Publish,
    /// Another program puts a file of this name, or a folder's record, knowing nothing of the draft.
    Foreign(DrivePath, u16),
}

fn path() -> impl Strategy<Value = DrivePath> {
    proptest::collection::vec(0..3u8, 1..4).prop_map(|names| {
        let names: Vec<String> = names.iter().map(u8::to_string).collect();
        DrivePath::from_user(&names.join("/")).unwrap()
    })
}

fn op() -> impl Strategy<Value = Op> {
    let mode = || prop_oneof![Just(0o755), Just(0o700), Just(0o1777)];
    prop_oneof![
        4 => path().prop_map(Op::Set),
        2 => path().prop_map(Op::MakeNode),
        4 => path().prop_map(Op::MakeDir),
        2 => (path(), mode()).prop_map(|(path, mode)| Op::Mode(path, mode)),
        1 => mode().prop_map(|mode| Op::Mode(DrivePath::root(), mode)),
        3 => path().prop_map(Op::Take),
        4 => (path(), path()).prop_map(|(from, to)| Op::Move(from, to)),
        1 => Just(Op::Publish),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::Foreign(path, mode)),
    ]
}

type Model = BTreeMap<DrivePath, Shown>;

fn is_dir(model: &Model, path: &DrivePath) -> bool {
    matches!(model.get(path), Some(Shown::Folder(_)))
}

/// What a file system lets pass, as the model does it.
fn allowed(model: &Model, op: &Op) -> bool {
    let is_dir = |path: &DrivePath| is_dir(model, path);
    let in_dir = |path: &DrivePath| path.parent().is_some_and(|dir| is_dir(&dir));
    let below =
        |dir: &DrivePath| model.keys().any(|path| path.moved(dir, dir).is_some() && path != dir);
    match op {
        Op::Set(path) => in_dir(path) && !is_dir(path),
        Op::MakeDir(path) | Op::MakeNode(path) => in_dir(path) && !model.contains_key(path),
        Op::Mode(path, _) => is_dir(path),
        Op::Take(path) => model.contains_key(path) && !below(path),
        Op::Move(from, to) => {
            let into_itself = to.moved(from, from).is_some();
            model.contains_key(from) && in_dir(to) && !model.contains_key(to) && !into_itself
        }
        Op::Publish => true,
        Op::Foreign(path, _) => in_dir(path) && !is_dir(path),
    }
}

proptest! {
    #![proptest_config(crate::sim::cases(400))]

    /// The drive, after it was told the steps, shows what the draft shows, to whoever loads it.
    #[test]
    fn what_is_said_is_what_was_done(ops in proptest::collection::vec(op(), 0..60)) {
        let mut model = Model::from([(DrivePath::root(), Shown::Folder(0o755))]);
        let mut said = Said::default();
        let (mut before, mut draft) = (DriveIndex::default(), DriveIndex::default());
        for (n, op) in (1..).zip(ops.into_iter().chain([Op::Publish])) {
            if !allowed(&model, &op) {
                continue;
            }
            match op {
                Op::Set(path) => {
                    draft.set(&path, leaf(n));
                    model.insert(path, Shown::Leaf(n));
                }
                Op::MakeNode(path) => {
                    draft.set(&path, node(n));
                    model.insert(path, Shown::Node(n));
                }
                Op::MakeDir(path) => {
                    draft.make_dir(&path);
                    model.insert(path, Shown::Folder(0o755));
                }
                Op::Mode(path, mode) => {
                    let mut own = draft.list(&path).unwrap().attributes().cloned().unwrap_or_default();
                    own.stat.mode = mode;
                    draft.set_dir_attributes(&path, own);
                    model.insert(path, Shown::Folder(mode));
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
                Op::Publish | Op::Foreign(..) => {
                    let steps = before.steps_to(&draft);
                    said.hear(&steps);
                    draft.said(&steps);
                    prop_assert!(draft.steps_to(&draft.clone()).is_empty());
                    before = draft.clone();
                    let loaded = said.index();
                    prop_assert_eq!(shown(&loaded), shown(&draft));
                    prop_assert_eq!(counts(&loaded), counts(&draft));
                    prop_assert!(loaded.steps_to(&draft).is_empty());
                    prop_assert!(draft.steps_to(&loaded).is_empty());
                    if let Op::Foreign(path, mode) = op {
                        said.leaves.insert(path.clone(), leaf(n));
                        model.insert(path.clone(), Shown::Leaf(n));
                        let above = path.parent().unwrap();
                        let stat = Stat { mode, ..Stat::default() };
                        said.records.insert(above.clone(), Attributes { seq: n, stat, xattrs: None });
                        model.insert(above, Shown::Folder(mode));
                        draft = said.index();
                        before = draft.clone();
                    }
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

#[test]
fn what_a_folder_has_goes_with_it_and_is_said_where_it_is() {
    let path = |text: &str| DrivePath::from_user(text).unwrap();
    let stat = Stat { id: 7, mtime: Time::new(1, 2), mode: 0o2750, ..Stat::default() };
    let mut xattrs = Xattrs::default();
    xattrs.set("a", vec![1]).unwrap();
    let own = Attributes { seq: 9, stat, xattrs: Extended::set(xattrs) };
    let mut before = DriveIndex::default();
    before.make_dir(&path("a"));
    before.set(&path("a/f"), leaf(1));
    let mut draft = before.clone();
    draft.set_dir_attributes(&path("a"), own.clone());
    draft.set_dir_attributes(&path("nowhere"), own.clone());
    draft.move_to(&path("a"), &path("b"));
    let dir = draft.list(&path("b")).unwrap();
    assert_eq!((dir.stat(), dir.attributes()), (stat, Some(&own)));
    let mut steps = before.steps_to(&draft);
    assert_eq!(steps.records, [(path("b"), Some(own.clone()))], "also though it is not empty");
    draft.said(&steps);
    let before = draft.clone();
    // What goes without saying; there was a record, and it stays.
    draft.set_dir_attributes(&path("b"), Attributes { seq: 10, ..Attributes::default() });
    assert_eq!(draft.list(&path("b")).unwrap().attributes(), None);
    steps = before.steps_to(&draft);
    assert_eq!(steps.records, [(path("b"), Some(Attributes::default()))]);
    draft.said(&steps);
    draft.take(&path("b/f"));
    let before = draft.clone();
    draft.take(&path("b"));
    assert_eq!(before.steps_to(&draft).records, [(path("b"), None)]);
}
