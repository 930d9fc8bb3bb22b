//! Links against a look at all names.

use super::*;
use crate::hyper::bee::run;
use crate::hyper::blobs::BlobId;
use crate::hyper::drive::leaf::{Content, File};
use crate::hyper::drive::tests::{fixture, path};
use crate::hyper::drive::{Entry, Stat};
use proptest::prelude::*;

/// A file of one of some contents.
fn file(seq: u64, id: u64, content: u64) -> Leaf {
    let blob = BlobId { block_length: 1, byte_length: content, ..BlobId::default() };
    let stat = Stat { id, mode: 0o644, ..Stat::default() };
    Leaf::File(File { seq, stat, ..File::of(Content::Blob(blob)) })
}

fn names(index: &DriveIndex, id: u64) -> Vec<String> {
    index.links(id).map(ToString::to_string).collect()
}

fn id_at(index: &DriveIndex, at: &str) -> u64 {
    index.id_of(&path(at), index.node(&path(at)).unwrap().leaf().unwrap())
}

#[test]
fn names_with_one_id_and_one_content_are_one_file() {
    let f = fixture(None);
    let put = |names: &[(&str, u64, u64)]| {
        let mut batch = f.drive.batch().unwrap();
        for (name, id, content) in names {
            let blob = BlobId { block_length: 1, byte_length: *content, ..BlobId::default() };
            let mut entry = Entry::file(blob);
            entry.set_stat(&Stat { id: *id, ..entry.stat() });
            batch.put(&path(name), &entry).unwrap();
        }
        batch.flush().unwrap();
    };
    put(&[("/a", 7, 1), ("/d/b", 7, 1), ("/c", 8, 1), ("/e", 0, 1), ("/f", 0, 1)]);
    let index = run(f.drive.index()).unwrap();
    assert_eq!(names(&index, 7), ["/a", "/d/b"]);
    let counts = [0, 7, 8, 9].map(|id| index.link_count(id));
    assert_eq!((counts, names(&index, 8).len(), names(&index, 0).len()), ([1, 2, 1, 1], 0, 0));
    // As a program does that copies what it does not know, and then writes the copy.
    put(&[("/copy", 7, 2)]);
    let (index, _) = run(f.drive.refresh(&index)).unwrap();
    assert_eq!(names(&index, 7), ["/a", "/d/b"]);
    assert_eq!((id_at(&index, "/a"), id_at(&index, "/copy")), (7, 0));
    // What it wrote is not what the others are, also when it wrote the oldest.
    put(&[("/a", 7, 3)]);
    let (index, _) = run(f.drive.refresh(&index)).unwrap();
    assert_eq!((index.link_count(7), id_at(&index, "/d/b"), id_at(&index, "/a")), (1, 7, 0));
}

#[test]
fn a_second_name_and_moves_cost_no_look_at_all_names() {
    let mut index = DriveIndex::default();
    index.make_dir(&path("/d"));
    index.set(&path("/d/a"), file(1, 7, 1));
    index.link(&path("/d/a"), &path("/b"));
    index.move_to(&path("/d"), &path("/e"));
    assert_eq!(names(&index, 7), ["/b", "/e/a"]);
    let before = index.clone();
    index.take(&path("/b"));
    assert_eq!((index.link_count(7), names(&index, 7).len()), (1, 0));
    assert_eq!(before.link_count(7), 2, "the old version stays");
    index.take(&path("/e/a"));
    assert_eq!(index.links.known(), (vec![], vec![]));
}

#[test]
fn what_has_no_ids_pays_nothing() {
    let mut index = DriveIndex::default();
    for n in 0..1000 {
        index.set(&path(&format!("/{n}")), file(n, 0, 1));
    }
    assert!(index.links.ids.groups.is_empty() && index.links.shared.is_empty());
}

#[derive(Debug, Clone)]
enum Op {
    Set(u8, u64, u64),
    Link(u8, u8),
    Take(u8),
    Move(u8, u8),
}

/// Names in two folders, and in the root.
fn at(n: u8) -> DrivePath {
    path(["/a", "/b", "/c", "/x/a", "/x/b", "/x/c", "/y/a", "/y/b", "/y/c"][usize::from(n)])
}

fn op() -> impl Strategy<Value = Op> {
    let n = || 0..9u8;
    prop_oneof![
        4 => (n(), 0..4u64, 0..2u64).prop_map(|(n, id, content)| Op::Set(n, id, content)),
        3 => (n(), n()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => n().prop_map(Op::Take),
        2 => (n(), n()).prop_map(|(from, to)| Op::Move(from, to)),
    ]
}

proptest! {
    #![proptest_config(crate::sim::cases(300))]

    #[test]
    fn links_are_what_a_look_at_all_names_says(ops in proptest::collection::vec(op(), 0..60)) {
        let mut index = DriveIndex::default();
        let mut model = BTreeMap::<DrivePath, Leaf>::new();
        let mut folders = ["/x", "/y"].map(path);
        folders.iter().for_each(|dir| index.make_dir(dir));
        for (seq, op) in (1..).zip(ops) {
            match op {
                Op::Set(n, id, content) => {
                    index.set(&at(n), file(seq, id, content));
                    model.insert(at(n), file(seq, id, content));
                }
                Op::Link(from, to) => {
                    let Some(leaf) = model.get(&at(from)).cloned() else { continue };
                    if from == to || leaf.stat().id == 0 {
                        continue;
                    }
                    index.link(&at(from), &at(to));
                    model.insert(at(to), leaf);
                }
                Op::Take(n) => {
                    index.take(&at(n));
                    model.remove(&at(n));
                }
                // Each folder to the name of the other.
                Op::Move(from, to) if from == to => {
                    let [x, y] = folders.clone();
                    let aside = path("/aside");
                    for (from, to) in [(&x, &aside), (&y, &x), (&aside, &y)] {
                        index.move_to(from, to);
                        model = model.into_iter()
                            .map(|(path, leaf)| (path.moved(from, to).unwrap_or(path), leaf))
                            .collect();
                    }
                    folders = [x, y];
                }
                Op::Move(from, to) => {
                    if model.contains_key(&at(to)) {
                        continue;
                    }
                    index.move_to(&at(from), &at(to));
                    if let Some(leaf) = model.remove(&at(from)) {
                        model.insert(at(to), leaf);
                    }
                }
            }
            let mut bearers = BTreeMap::<u64, Vec<(&DrivePath, &Leaf)>>::new();
            for (path, leaf) in model.iter().filter(|(_, leaf)| leaf.stat().id != 0) {
                bearers.entry(leaf.stat().id).or_default().push((path, leaf));
            }
            prop_assert_eq!(&index.links.known().0, &bearers.keys().copied().collect::<Vec<_>>());
            for id in 0..4 {
                let mut all = bearers.remove(&id).unwrap_or_default();
                all.sort_by_key(|(path, leaf)| (leaf.seq(), *path));
                let one = all.first().map(|(_, leaf)| *leaf);
                let mut links: Vec<&DrivePath> = Vec::new();
                for (path, leaf) in all {
                    let is_link = one.is_some_and(|one| leaf.is_one_with(one));
                    prop_assert_eq!(index.id_of(path, leaf), if is_link { id } else { 0 });
                    links.extend(is_link.then_some(path));
                }
                links.sort();
                prop_assert_eq!(index.link_count(id), links.len().max(1));
                if links.len() > 1 {
                    prop_assert_eq!(index.links(id).collect::<Vec<_>>(), links);
                } else {
                    prop_assert_eq!(index.links(id).count(), 0);
                }
            }
        }
    }

    #[test]
    fn ids_are_a_set(
        loaded in proptest::collection::vec(0..2000u64, 0..900),
        steps in proptest::collection::vec((0..2000u64, any::<bool>()), 0..3000),
    ) {
        let (mut ids, mut model) = (Ids::default(), BTreeSet::new());
        let twice = |id: &&u64| loaded.iter().filter(|other| other == id).count() > 1;
        prop_assert!(ids.fill(loaded.clone()).iter().eq(&loaded.iter().filter(twice).copied().collect::<BTreeSet<_>>()));
        model.extend(loaded);
        for (id, put) in steps {
            match put {
                true => prop_assert_eq!(ids.insert(id), model.insert(id)),
                false => {
                    ids.remove(id);
                    model.remove(&id);
                }
            }
        }
        let all = ids.groups.iter().flat_map(|group| group.iter());
        prop_assert!(all.eq(&model));
        prop_assert!(ids.groups.iter().all(|group| !group.is_empty() && group.len() <= GROUP));
    }
}
