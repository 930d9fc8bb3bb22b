//! Ways in which something was lost.

use super::*;
use crate::hyper::core::storage::{Durability, Records};
use crate::hyper::drive::Xattrs;
use crate::hyper::local::is_staging;

/// What had the name before was moved away, which nothing but the record of the new one made durable.
#[test]
fn a_log_that_was_rotated_is_not_lost_when_the_new_one_is_synced() {
    let bench = Bench::new();
    bench.write("/log", b"old");
    bench.draft.publish(Which::Closed).unwrap();
    bench.rename("/log", "/log.1");
    bench.synced("/log", b"new");
    are(bench.again().here(), &[("/log", "new"), ("/log.1", "old")]);
}

#[test]
fn two_synced_files_that_had_one_name_are_both_there_after_an_end() {
    let bench = Bench::new();
    let first = bench.synced("/a", b"first");
    bench.rename("/a", "/b");
    bench.synced("/a", b"second");
    are(bench.again().here(), &[("/a", "second"), ("/b", "first")]);
    bench.editor.close(&first);
    let bench = Bench::new();
    bench.synced("/a", b"first");
    bench.editor.remove(&path("/a")).unwrap();
    bench.synced("/a", b"second");
    are(bench.again().here(), &[("/a", "second")]);
    let bench = Bench::new();
    bench.synced("/a", b"first");
    bench.rename("/a", "/b");
    bench.editor.make_dir(&path("/a")).unwrap();
    bench.synced("/a/c", b"second");
    are(bench.again().here(), &[("/a", ""), ("/a/c", "second"), ("/b", "first")]);
}

#[test]
fn a_synced_file_where_a_folder_was_published_is_there_after_an_end() {
    let bench = Bench::new();
    bench.editor.make_dir(&path("/d")).unwrap();
    bench.write("/d/f", b"in it");
    bench.write("/g", b"a file");
    bench.draft.publish(Which::Closed).unwrap();
    bench.rename("/d", "/e");
    bench.synced("/d", b"synced");
    bench.editor.remove(&path("/g")).unwrap();
    bench.editor.make_dir(&path("/g")).unwrap();
    bench.synced("/g/h", b"synced");
    let wanted = [("/d", "synced"), ("/e", ""), ("/e/f", "in it"), ("/g", ""), ("/g/h", "synced")];
    are(bench.again().here(), &wanted);
}

/// `rename` while it is open, then `fsync` of the folder.
#[test]
fn a_synced_file_that_was_moved_has_its_new_name_once_names_are_published() {
    let bench = Bench::new();
    bench.write("/f", b"old");
    bench.draft.publish(Which::Closed).unwrap();
    bench.synced("/f.tmp", b"new");
    bench.rename("/f.tmp", "/f");
    bench.draft.publish(Which::Closed).unwrap();
    are(bench.again().here(), &[("/f", "new")]);
    let file = bench.editor.open(&path("/f")).unwrap();
    file.write(0, b"NEW").unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    bench.rename("/f", "/g");
    bench.draft.publish(Which::Closed).unwrap();
    are(bench.again().here(), &[("/g", "NEW")]);
}

#[test]
fn all_names_of_a_synced_file_have_its_content_after_an_end() {
    let bench = Bench::new();
    bench.write("/a", b"old");
    bench.editor.link(&path("/a"), &path("/b"), 7).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    let file = bench.editor.open(&path("/a")).unwrap();
    file.write(0, b"new").unwrap();
    bench.draft.sync(&path("/b"), &file).unwrap();
    let again = bench.again();
    are(again.here(), &[("/a", "new"), ("/b", "new")]);
    again.draft.publish(Which::Closed).unwrap();
    are(again.seen(), &[("/a", "new"), ("/b", "new")]);
    let names = again.again().draft.names();
    assert_eq!(names.link_count(names.leaf(&path("/a")).unwrap().stat().id), 2);
}

#[test]
fn attributes_are_as_durable_as_the_content_that_is_synced() {
    let bench = Bench::new();
    let file = bench.synced("/f", b"content");
    let mut xattrs = Xattrs::default();
    xattrs.set("user.x", b"y".to_vec()).unwrap();
    bench.editor.set_xattrs(&path("/f"), xattrs.clone()).unwrap();
    bench.draft.sync(&path("/f"), &file).unwrap();
    assert_eq!(bench.again().draft.xattrs(&path("/f")).unwrap(), xattrs);
}

fn staged(bench: &Bench) -> usize {
    let files = bench.storage.cores_with_files().unwrap();
    files.iter().filter(|(id, _)| is_staging(id)).count()
}

/// On a full disk room is made by deleting, and nothing else may follow.
#[test]
fn what_is_staged_takes_no_room_once_it_is_published_or_removed() {
    IN_MEMORY.set(0);
    let bench = Bench::new();
    bench.write("/f", b"content");
    bench.write("/g", b"content");
    assert_eq!(staged(&bench), 2);
    bench.editor.remove(&path("/g")).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(staged(&bench), 0);
}

#[test]
fn of_a_file_that_was_emptied_and_written_anew_no_half_is_found() {
    let (bench, old) = (Bench::new(), vec![1; 100_000]);
    let file = bench.synced("/f", &old);
    file.truncate(0).unwrap();
    file.write(0, b"new").unwrap();
    let found = |bench: &Bench| bench.again().here().remove(&path("/f")).unwrap();
    assert_eq!(found(&bench), Node::File(old, 0o644), "as it was synced");
    bench.draft.sync(&path("/f"), &file).unwrap();
    assert_eq!(found(&bench), Node::File(b"new".into(), 0o644));
    assert_eq!(staged(&bench), 0, "what was staged is gone");
}

#[test]
fn nothing_is_left_of_a_drive_that_was_forgotten() {
    IN_MEMORY.set(0);
    let bench = Bench::new();
    bench.synced("/f", b"content");
    let (writes, _) = Draft::removal(&bench.storage, &CoreKey([2; 32])).unwrap();
    assert!(writes.is_empty(), "of another drive");
    let (writes, _) = Draft::removal(&bench.storage, &bench.draft.key()).unwrap();
    bench.storage.commit(writes, &[], Durability::Durable).unwrap();
    Draft::clean(&bench.storage).unwrap();
    assert_eq!(staged(&bench), 0);
}

#[test]
fn nothing_is_deleted_where_a_record_makes_no_sense() {
    IN_MEMORY.set(0);
    let bench = Bench::new();
    bench.synced("/f", b"content");
    let records = Records::new(bench.storage.clone());
    let durable = Durability::Durable;
    let (name, _) = records.records("draft/").unwrap().remove(0);
    records.put_record(&name, b"of a later version", durable).unwrap();
    Draft::clean(&bench.storage).unwrap();
    assert_eq!(staged(&bench), 1);
}

#[test]
fn a_folder_is_not_moved_where_what_is_in_it_would_have_too_long_a_path() {
    let bench = Bench::new();
    let (long, short) = (path(&format!("/{}", "n".repeat(200))), path("/n"));
    bench.editor.make_dir(&short).unwrap();
    bench.editor.make_dir(&path("/o")).unwrap();
    let mut at = short.clone();
    while let Ok(deeper) = at.join(&"d".repeat(255)) {
        bench.editor.make_dir(&deeper).unwrap();
        at = deeper;
    }
    bench.editor.make_dir(&at.join(&"d".repeat(200)).unwrap()).unwrap();
    let moved = |from, to, how| bench.editor.rename(from, to, how);
    assert_eq!(moved(&short, &long, Rename::Replace), Err(EditError::TooLong));
    bench.editor.make_dir(&long).unwrap();
    assert_eq!(moved(&short, &long, Rename::Exchange), Err(EditError::TooLong));
    assert_eq!(moved(&long, &short, Rename::Exchange), Err(EditError::TooLong));
    moved(&short, &path("/o"), Rename::Exchange).unwrap();
    bench.draft.publish(Which::Closed).unwrap();
    assert_eq!(bench.seen(), bench.here());
}
