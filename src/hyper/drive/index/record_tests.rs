//! What is said of folders, and special nodes, in an index that is loaded or refreshed.

use super::*;
use crate::hyper::bee::run;
use crate::hyper::drive::tests::{Fixture, fixture, path};
use crate::hyper::drive::{Batch, DIR_MODE, Extended, SpecialKind, Stat, Time, Xattrs};

fn change(
    f: &Fixture,
    old: &DriveIndex,
    change: impl FnOnce(&mut Batch),
) -> (DriveIndex, Vec<String>) {
    let mut batch = f.drive.batch().unwrap();
    change(&mut batch);
    batch.flush().unwrap();
    let (index, changed) = run(f.drive.refresh(old)).unwrap();
    let mut changed: Vec<String> = changed.iter().map(|path| path.to_string()).collect();
    changed.sort();
    (index, changed)
}

fn record(mode: u16) -> Record {
    let mut record = Record::default();
    record.set_stat(&Stat { id: 7, mtime: Time::new(5, 6), mode, ..Stat::default() });
    record
}

#[test]
fn a_folder_has_what_its_record_says_until_that_goes() {
    let f = fixture(None);
    f.put("/a/b", b"1");
    let index = run(f.drive.index()).unwrap();
    let stat = |index: &DriveIndex, at: &str| index.list(&path(at)).unwrap().stat();
    assert_eq!(stat(&index, "/a"), Stat { mode: DIR_MODE, ..Stat::default() });
    let mut with_xattrs = record(0o1777);
    let mut xattrs = Xattrs::default();
    xattrs.set("user.a", b"b".to_vec()).unwrap();
    with_xattrs.set_xattrs(&xattrs);
    let root = DrivePath::root();
    let (index, changed) = change(&f, &index, |batch| {
        batch.put_dir(&path("/a"), &with_xattrs).unwrap();
        batch.put_dir(&root, &record(0o700)).unwrap();
    });
    assert_eq!((changed, index.left_out()), (vec!["/".into(), "/a".into()], 0));
    assert_eq!(stat(&index, "/a"), with_xattrs.stat());
    assert_eq!(index.list(&root).unwrap().stat().mode, 0o700);
    let own = index.list(&path("/a")).unwrap().attributes().unwrap();
    assert_eq!(own.xattrs.as_deref(), Some(&Extended::Stored));
    assert_eq!(run(f.drive.record_at(own.seq)).unwrap().xattrs(), xattrs);
    // The record stays with the folder when it loses its last name.
    let (index, changed) =
        change(&f, &index, |batch| assert!(batch.delete(&path("/a/b")).unwrap()));
    assert_eq!((changed, stat(&index, "/a").id), (vec!["/a/b".into()], 7));
    let (index, changed) = change(&f, &index, |batch| {
        assert!(!batch.keep_dir(&path("/a")).unwrap(), "kept already");
        assert!(batch.forget_dir(&root).unwrap());
    });
    assert_eq!((changed, index.list(&root).unwrap().attributes()), (vec!["/".into()], None));
    let (index, changed) =
        change(&f, &index, |batch| assert!(batch.forget_dir(&path("/a")).unwrap()));
    assert_eq!((changed, index.dirs, index.kept), (vec!["/a".into()], 0, 0));
}

#[test]
fn a_special_node_waits_behind_a_file_of_its_name() {
    let f = fixture(None);
    let at = path("/run/pipe");
    let device = Record::special(SpecialKind::Char { major: 1, minor: 3 });
    let index = run(f.drive.index()).unwrap();
    let (index, changed) = change(&f, &index, |batch| batch.put_node(&at, &device).unwrap());
    assert_eq!((changed, index.files()), (vec!["/run".into(), "/run/pipe".into()], 1));
    let Some(Found::Special(node)) = index.lookup(&at) else { panic!() };
    assert_eq!((node.kind, node.stat.mode), (SpecialKind::Char { major: 1, minor: 3 }, 0o644));
    assert_eq!(run(f.drive.record_at(node.seq)).unwrap(), device);
    // As a program does that does not know of special nodes.
    f.put("/run/pipe", b"file");
    let (index, changed) = change(&f, &index, |_| {});
    assert_eq!((changed, index.files(), index.bytes()), (vec!["/run/pipe".into()], 1, 4));
    assert!(matches!(index.lookup(&at), Some(Found::File(_))));
    let (index, _) = change(&f, &index, |batch| assert!(batch.delete(&at).unwrap()));
    assert!(matches!(index.lookup(&at), Some(Found::Special(_))));
    f.put("/run/pipe", b"file");
    let (index, changed) = change(&f, &index, |batch| assert!(batch.remove(&at).unwrap()));
    assert_eq!((changed, index.files()), (vec!["/run".into(), "/run/pipe".into()], 0));
    assert!(index.lookup(&at).is_none() && index.hidden.is_empty());
}

#[test]
fn what_replaces_a_file_that_hid_a_node_is_said_of_both() {
    let f = fixture(None);
    let at = path("/a");
    let index = run(f.drive.index()).unwrap();
    let fifo = Record::special(SpecialKind::Fifo);
    let (index, _) = change(&f, &index, |batch| batch.put_node(&at, &fifo).unwrap());
    f.put("/a", b"file");
    let (index, _) = change(&f, &index, |_| {});
    let mut draft = index.clone();
    draft.move_to(&at, &path("/b"));
    let steps = index.steps_to(&draft);
    assert_eq!(steps.nodes, [(at.clone(), None)], "or it were seen again");
    assert_eq!(steps.leaves.len(), 2);
}
