//! What a refresh finds is what a load finds, whatever the drive's owner wrote, and in whatever order.

use super::edit::{DIRS_PER_NAME, FREE_DIRS};
use super::*;
use crate::hyper::bee::run;
use crate::hyper::blobs::BlockMap;
use crate::hyper::drive::record::Attributes;
use crate::hyper::drive::tests::{Fixture, fixture, path};
use proptest::prelude::*;

/// Everything that an index knows, those behind a directory of the same name included.
#[derive(Debug, PartialEq)]
struct Known {
    leaves: Vec<(DrivePath, Leaf)>,
    kept: Vec<(DrivePath, Option<Attributes>)>,
    hidden: BTreeMap<DrivePath, Box<Special>>,
    numbers: [u128; 6],
    unsized_files: BTreeSet<DrivePath>,
    links: super::links::Known,
}

fn known(index: &DriveIndex) -> Known {
    let mut leaves = Vec::new();
    let mut todo = vec![(DrivePath::root(), &index.root)];
    while let Some((at, dir)) = todo.pop() {
        for (name, node) in dir.iter() {
            let path = at.join(name).unwrap();
            leaves.extend(node.leaf().map(|leaf| (path.clone(), leaf.clone())));
            todo.extend(node.dir().map(|dir| (path, dir)));
        }
    }
    let mut kept = index.kept_below(&DrivePath::root());
    kept.sort();
    let own = |path: &DrivePath| index.dir(path).unwrap().attributes().cloned();
    let kept = kept.into_iter().map(|path| (path.clone(), own(&path))).collect();
    let counts = [index.dirs, index.kept, index.files(), index.left_out, index.crowded];
    let [dirs, kept_dirs, files, left_out, crowded] = counts.map(u128::from);
    let numbers = [dirs, kept_dirs, files, left_out, crowded, index.bytes];
    let (hidden, unsized_files) = (index.hidden.clone(), index.unsized_files.clone());
    Known { leaves, kept, hidden, numbers, unsized_files, links: index.links.known() }
}

/// Changes the drive by these keys; no value deletes.
fn step(f: &Fixture, steps: &[(Vec<u8>, Option<String>)]) {
    let mut batch = f.drive.bee().batch().unwrap();
    for (key, value) in steps {
        match value {
            Some(value) => batch.put(key.clone(), value.clone()).unwrap(),
            None => drop(batch.delete(key.clone()).unwrap()),
        }
    }
    batch.flush().unwrap();
}

fn refreshed(f: &Fixture, old: &DriveIndex) -> DriveIndex {
    run(f.drive.refresh(old)).unwrap().0
}

fn loaded(f: &Fixture) -> DriveIndex {
    run(f.drive.index()).unwrap()
}

fn entry(id: &BlobId) -> String {
    bearing(id, "null")
}

fn bearing(id: &BlobId, own: &str) -> String {
    let blob = id.to_json();
    format!(
        r#"{{"executable":true,"linkname":null,"blob":{blob},"metadata":{{"mtime":5,"hdrive":{own}}}}}"#
    )
}

/// A block map of `n` blocks of 50 bytes each, in the drive.
fn map_of(f: &Fixture, n: usize) -> BlobId {
    let mut map = BlockMap::default();
    (0..n).for_each(|_| map.push(0, 50).unwrap());
    f.drive.blobs().put_map(&map).unwrap()
}

fn leaf_key(name: &str) -> Vec<u8> {
    format!("files\0{name}").into_bytes()
}

#[test]
fn a_file_with_another_block_map_has_its_size_though_the_first_told_none() {
    let f = fixture(None);
    // Its blocks are nowhere.
    let lost = BlobId {
        block_offset: 9,
        block_length: 2,
        byte_offset: 0,
        byte_length: 84,
        block_map: true,
    };
    step(&f, &[(leaf_key("/a"), Some(entry(&lost)))]);
    let index = loaded(&f);
    assert_eq!((index.unsized_files(), index.bytes()), (1, 84));
    step(&f, &[(leaf_key("/a"), Some(entry(&map_of(&f, 3))))]);
    let index = refreshed(&f, &index);
    assert_eq!((index.unsized_files(), index.bytes()), (0, 150));
}

#[test]
fn what_goes_beyond_a_number_comes_off_again() {
    let f = fixture(None);
    let huge = BlobId { block_length: 1 << 30, byte_length: 1 << 52, ..BlobId::default() };
    let keys = (0..5000).map(|i| leaf_key(&format!("/{i}")));
    let keys: Vec<_> = keys.map(|key| (key, Some(entry(&huge)))).collect();
    step(&f, &keys);
    let index = loaded(&f);
    assert_eq!(index.bytes(), u64::MAX);
    let gone: Vec<_> = keys[1..].iter().map(|(key, _)| (key.clone(), None)).collect();
    step(&f, &gone);
    let index = refreshed(&f, &index);
    assert_eq!((index.files(), index.bytes()), (1, 1 << 52));
}

/// `n` names that lie 2000 folders deep.
fn deep(first: char, n: u64) -> Vec<(Vec<u8>, Option<String>)> {
    let name = |i| leaf_key(&format!("/{first}{i:04}{}", "/d".repeat(2000)));
    (0..n).map(|i| (name(i), Some("{}".to_owned()))).collect()
}

#[test]
fn which_names_have_room_does_not_hang_on_the_order_they_came_in() {
    let f = fixture(None);
    let shallow = (0..1000).map(|i| (leaf_key(&format!("/s{i}")), Some("{}".to_owned())));
    let shallow: Vec<_> = shallow.collect();
    let gone = |steps: &[(Vec<u8>, Option<String>)]| -> Vec<_> {
        steps.iter().map(|(key, _)| (key.clone(), None)).collect()
    };
    let full = FREE_DIRS / 2000;
    let more = 1000 * DIRS_PER_NAME / 2000;
    let mut index = loaded(&f);
    let rounds = [
        (shallow.clone(), false),
        // Before the others in order, and with room only because of them.
        (deep('a', full + more), false),
        (deep('z', 2), true),
        (gone(&deep('a', 3)), false),
        (gone(&shallow), true),
        (gone(&deep('a', full + more)), false),
    ];
    for (round, (steps, crowded)) in rounds.into_iter().enumerate() {
        step(&f, &steps);
        index = refreshed(&f, &index);
        assert_eq!(index.left_out() > 0, crowded, "{round}");
        assert!(known(&index) == known(&loaded(&f)), "{round}");
    }
    assert_eq!(index.files(), 2);
    assert!(index.lookup(&path("/z0000")).is_some());
}

/// A part of a name; some cannot be one.
const PARTS: &[&str] =
    &["/a", "/b", "/c", "/a/b", "/..", "/.", "/", "", "b", "\0", "/\u{7f}", "/é", "/a/../b"];

fn key() -> impl Strategy<Value = Vec<u8>> {
    let parts = proptest::collection::vec(prop::sample::select(PARTS), 0..4);
    let of = prop_oneof![6 => Just("files\0"), 2 => Just("hdrive\0dirs\0"), 3 => Just("hdrive\0nodes\0"), 1 => Just("")];
    let named = (of, parts).prop_map(|(of, parts)| format!("{of}{}", parts.concat()).into_bytes());
    prop_oneof![15 => named, 1 => proptest::collection::vec(any::<u8>(), 0..8)]
}

#[derive(Debug, Clone)]
enum Value {
    Gone,
    Text(String),
    Link(u8),
    /// A folder's or special node's.
    Record(&'static str),
    Blob(BlobId),
    /// One of two contents, under one of two ids.
    Bearing(u8, u8),
    /// The block map of so many blocks that is there.
    Map(usize),
}

fn id() -> impl Strategy<Value = BlobId> {
    let small = || prop_oneof![4 => 0..130u64, 1 => any::<u64>()];
    (small(), small(), small(), small(), any::<bool>()).prop_map(
        |(block_offset, byte_offset, block_length, byte_length, block_map)| BlobId {
            block_offset,
            byte_offset,
            block_length,
            byte_length,
            block_map,
        },
    )
}

const RECORDS: &[&str] = &[
    "{}",
    r#"{"type":"fifo"}"#,
    r#"{"type":"char","dev":[1,3],"mode":438,"id":"7"}"#,
    r#"{"type":"door"}"#,
    r#"{"mode":448,"xattrs":{"a":"YQ=="}}"#,
    r#"{"mtime":5,"ns":[5,1],"id":"7"}"#,
];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => Just(Value::Gone),
        1 => "[ -~]{0,9}".prop_map(Value::Text),
        1 => any::<u8>().prop_map(Value::Link),
        4 => prop::sample::select(RECORDS).prop_map(Value::Record),
        4 => id().prop_map(Value::Blob),
        3 => (0usize..4).prop_map(Value::Map),
        8 => (7..9u8, 0..2u8).prop_map(|(id, map)| Value::Bearing(id, map)),
    ]
}

proptest! {
    #![proptest_config(crate::sim::cases(200))]

    #[test]
    fn a_refresh_finds_what_a_load_finds(
        rounds in proptest::collection::vec(
            proptest::collection::vec((key(), value()), 0..12), 1..6)
    ) {
        let f = fixture(None);
        let maps: Vec<_> = (0..4).map(|n| map_of(&f, n)).collect();
        let mut index = loaded(&f);
        for round in rounds {
            let steps = round.into_iter().map(|(key, value)| {
                let value = match value {
                    Value::Gone => None,
                    Value::Text(text) => Some(text),
                    Value::Record(text) => Some(text.to_owned()),
                    Value::Link(to) => Some(format!(r#"{{"linkname":"{to}"}}"#)),
                    Value::Blob(id) => Some(entry(&id)),
                    Value::Bearing(id, map) => {
                        let own = format!(r#"{{"id":"{id}"}}"#);
                        Some(bearing(&maps[usize::from(map)], &own))
                    }
                    Value::Map(n) => Some(entry(&maps[n])),
                };
                (key, value)
            });
            step(&f, &steps.collect::<Vec<_>>());
            index = refreshed(&f, &index);
            prop_assert_eq!(known(&index), known(&loaded(&f)));
        }
    }
}
