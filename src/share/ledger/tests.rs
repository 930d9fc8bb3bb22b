//! What is remembered of files, contents and names.

use super::*;
use crate::hyper::core::storage::memory;
use crate::share::stores::FileId;

fn path(name: &str) -> DrivePath {
    DrivePath::from_user(name).unwrap()
}

fn stamp(ino: u64, ctime_ns: i64) -> Stamp {
    Stamp { file: FileId { dev: 1, ino }, mount: 1, ctime_ns, names: 1 }
}

#[test]
fn of_contents_with_one_print_the_newest_are_kept_in_mind() {
    let mut known = Known::default();
    for block in 0..30 {
        known.insert(1, block);
        known.insert(2, 7);
    }
    assert_eq!(known.of(1), (30 - MAX_ALIKE as u64..30).rev().collect::<Vec<_>>());
    assert_eq!((known.of(2), known.of(3)), (vec![7], vec![]));
    known.insert(1, 20);
    assert_eq!((known.of(1)[0], known.of(1).len()), (20, MAX_ALIKE));
}

#[test]
fn what_was_noted_comes_back_and_each_drive_has_its_own() {
    let storage = memory();
    let ledger = Ledger::new(storage.clone(), CoreKey([1; 32]));
    let seen = Seen::of(&stamp(7, 1_000), 10 * RACY_NS);
    ledger.note(&path("/a"), seen);
    assert_eq!(ledger.seen(&path("/a")).unwrap(), Some(seen));
    let id = BlobId {
        block_offset: 5,
        byte_offset: 9,
        block_length: 2,
        byte_length: 70_000,
        block_map: true,
    };
    ledger.note_content(&[3; 16], &id);
    let here = Identity::of(Path::new("/")).unwrap();
    ledger.note_crossed(&path("/m"), &here);
    ledger.write().unwrap();

    let again = Ledger::new(storage.clone(), CoreKey([1; 32]));
    assert_eq!(again.seen(&path("/a")).unwrap(), Some(seen));
    assert_eq!(again.contents(&[3; 16]).unwrap(), [id]);
    let near = [3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4];
    assert_eq!(again.contents(&near).unwrap(), []);
    assert_eq!(again.crossed().unwrap(), BTreeMap::from([(path("/m"), Some(here))]));
    again.forget_crossed().unwrap();
    assert!(again.crossed().unwrap().is_empty());
    let other = Ledger::new(storage.clone(), CoreKey([2; 32]));
    assert_eq!(
        (other.seen(&path("/a")).unwrap(), other.contents(&[3; 16]).unwrap()),
        (None, vec![])
    );

    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::of(dir.path()).unwrap();
    let root = SharedRoot { path: dir.path().to_path_buf(), identity };
    again.set_root(&root).unwrap();
    assert_eq!(Ledger::roots(&storage).unwrap(), [(CoreKey([1; 32]), root)]);
    assert_eq!(other.root().unwrap(), None);

    other.note(&path("/a"), seen);
    other.write().unwrap();
    storage.commit(again.removal().unwrap(), &[], Durability::Durable).unwrap();
    let again = Ledger::new(storage.clone(), CoreKey([1; 32]));
    assert_eq!((again.seen(&path("/a")).unwrap(), again.root().unwrap()), (None, None));
    assert_eq!(other.seen(&path("/a")).unwrap(), Some(seen));
    storage.commit(other.removal().unwrap(), &[], Durability::Durable).unwrap();
    assert!(storage.scan(Table::Records, b"").unwrap().is_empty());
}

#[test]
fn a_file_that_just_changed_is_not_taken_for_known() {
    let now = 100 * RACY_NS;
    assert!(Seen::of(&stamp(7, 5), now).is(&stamp(7, 5)));
    assert!(!Seen::of(&stamp(7, 5), now).is(&stamp(8, 5)));
    assert!(!Seen::of(&stamp(7, 5), now).is(&stamp(7, 6)));
    assert!(!Seen::of(&stamp(7, now - 1), now).is(&stamp(7, now - 1)));
}

#[test]
fn names_of_an_inode_are_found_once_in_the_records() {
    let ledger = Ledger::new(memory(), CoreKey([1; 32]));
    ledger.note(&path("/old"), Seen::of(&stamp(7, 5), 0));
    ledger.note(&path("/other"), Seen::of(&stamp(8, 5), 0));
    ledger.write().unwrap();
    let names = ledger.names_of(&HashSet::from([7])).unwrap();
    assert_eq!(names, BTreeSet::from([path("/old")]));
    ledger.note_links([(7, &path("/new"))].into_iter(), false);
    let names = ledger.names_of(&HashSet::from([7])).unwrap();
    assert_eq!(names, BTreeSet::from([path("/new"), path("/old")]));
}
