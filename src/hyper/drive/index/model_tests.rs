//! The index against a map of paths.

use super::*;
use crate::hyper::bee::run;
use crate::hyper::drive::tests::{fixture, path};
use crate::hyper::drive::{Entry, SpecialKind, Stat};
use proptest::prelude::*;

/// What is shown at a path.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shown {
    /// With the number of the record that says something of it.
    Folder(Option<u64>),
    /// With its number.
    Leaf(u64),
}

/// Every path that is shown.
fn shown(index: &DriveIndex) -> BTreeMap<DrivePath, Shown> {
    let mut out = BTreeMap::new();
    let mut todo = vec![DrivePath::root()];
    while let Some(at) = todo.pop() {
        let dir = index.list(&at).unwrap();
        out.insert(at.clone(), Shown::Folder(dir.attributes().map(|own| own.seq)));
        for (name, node) in dir.iter() {
            let path = at.join(name).unwrap();
            match node.shown() {
                Found::Directory(_) => todo.push(path),
                _ => drop(out.insert(path, Shown::Leaf(node.leaf().unwrap().seq()))),
            }
        }
    }
    out
}

/// Directories below `dir`, by counting.
fn count_dirs(dir: &Dir) -> u64 {
    dir.iter().filter_map(|(_, node)| node.dir()).map(|dir| 1 + count_dirs(dir)).sum()
}

/// What a drive says, each with the number that says it.
#[derive(Default)]
struct Model {
    files: BTreeMap<DrivePath, u64>,
    nodes: BTreeMap<DrivePath, u64>,
    /// None where the record says nothing.
    kept: BTreeMap<DrivePath, Option<u64>>,
}

impl Model {
    /// Files, special nodes where there are none, and every directory above one, which wins over it; then kept
    /// directories with those above, unless a leaf is in the way.
    fn shown(&self) -> BTreeMap<DrivePath, Shown> {
        let folder = |path: DrivePath| {
            let said = self.kept.get(&path).copied().flatten();
            (path, Shown::Folder(said))
        };
        let above = |path: &DrivePath| -> Vec<DrivePath> {
            std::iter::successors(path.parent(), DrivePath::parent).collect()
        };
        let leaves = self.nodes.iter().chain(&self.files);
        let mut want: BTreeMap<DrivePath, Shown> =
            leaves.clone().map(|(path, seq)| (path.clone(), Shown::Leaf(*seq))).collect();
        want.extend(leaves.flat_map(|(path, _)| above(path)).map(folder));
        want.extend([folder(DrivePath::root())]);
        for path in self.kept.keys() {
            let way = [above(path), vec![path.clone()]].concat();
            if !way.iter().any(|dir| matches!(want.get(dir), Some(Shown::Leaf(_)))) {
                want.extend(way.into_iter().map(folder));
            }
        }
        want
    }
}

proptest! {
    #![proptest_config(crate::sim::cases(60))]

    #[test]
    fn an_index_is_what_its_paths_say(
        rounds in proptest::collection::vec(
            proptest::collection::vec(("[ab](/[abc]){0,3}", 0u8..8), 1..12), 1..12)
    ) {
        let f = fixture(None);
        let (mut index, mut model) = (run(f.drive.index()).unwrap(), Model::default());
        let mut private = Record::default();
        private.set_stat(&Stat { mode: 0o700, ..private.stat() });
        for round in rounds {
            let before = shown(&index);
            let mut batch = f.drive.batch().unwrap();
            for (name, step) in round {
                let path = path(&format!("/{name}"));
                let seq = batch.bee.version();
                match step {
                    0 => {
                        model.files.insert(path.clone(), seq);
                        batch.put(&path, &Entry::default()).unwrap();
                    }
                    1 => {
                        let was = model.files.remove(&path).is_some();
                        prop_assert_eq!(batch.delete(&path).unwrap(), was);
                    }
                    2 => {
                        let is_new = !model.kept.contains_key(&path);
                        prop_assert_eq!(batch.keep_dir(&path).unwrap(), is_new);
                        model.kept.entry(path).or_default();
                    }
                    3 => {
                        let was = model.kept.remove(&path).is_some();
                        prop_assert_eq!(batch.forget_dir(&path).unwrap(), was);
                    }
                    4 => {
                        batch.put_node(&path, &Record::special(SpecialKind::Fifo)).unwrap();
                        model.nodes.insert(path, seq);
                    }
                    5 => {
                        let was = model.nodes.remove(&path).is_some();
                        prop_assert_eq!(batch.delete_node(&path).unwrap(), was);
                    }
                    6 => {
                        batch.put_dir(&path, &private).unwrap();
                        model.kept.insert(path, Some(seq));
                    }
                    _ => {
                        batch.put_dir(&path, &Record::default()).unwrap();
                        model.kept.insert(path, None);
                    }
                }
            }
            batch.flush().unwrap();
            let (next, changed) = run(f.drive.refresh(&index)).unwrap();
            let want = model.shown();
            prop_assert_eq!(&shown(&next), &want);
            let loaded = run(f.drive.index()).unwrap();
            prop_assert_eq!(&shown(&loaded), &want);
            prop_assert_eq!((loaded.dirs, loaded.kept), (next.dirs, next.kept));
            prop_assert_eq!(next.dirs, count_dirs(&next.root));
            let mut told = next.kept_below(&DrivePath::root());
            told.sort();
            prop_assert!(told.iter().eq(model.kept.keys()));
            let leaves: BTreeSet<_> = model.files.keys().chain(model.nodes.keys()).collect();
            prop_assert_eq!(next.files(), leaves.len() as u64);
            prop_assert_eq!(&shown(&index), &before, "the old version stays");
            let all: BTreeSet<&DrivePath> = before.keys().chain(want.keys()).collect();
            let really = all.into_iter().filter(|path| before.get(*path) != want.get(*path));
            let mut changed: Vec<&DrivePath> = changed.iter().collect();
            changed.sort();
            prop_assert!(changed.into_iter().eq(really));
            index = next;
        }
    }
}
