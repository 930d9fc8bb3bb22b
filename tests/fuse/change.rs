//! The drive changes while it is mounted.

use crate::common::{mounted, pattern, soon};
use crate::volume::TestVolume;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

#[test]
fn a_replaced_file_shows_its_new_content() {
    let volume = TestVolume::new();
    volume.file("/f", "old content");
    let Some(mount) = mounted(&volume) else { return };
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"old content");
    let number = fs::metadata(mount.at("f")).unwrap().ino();
    // The kernel tells of a close when it likes; until then the file counts as open and the name moves on.
    soon("the close", || !mount.mounted.has_open_files());

    volume.file("/f", "new");
    volume.changed(&["/f"]);
    soon("the new content", || fs::read(mount.at("f")).unwrap() == b"new");
    let metadata = fs::metadata(mount.at("f")).unwrap();
    assert_eq!((metadata.len(), metadata.ino()), (3, number));
}

#[test]
fn who_has_a_file_open_reads_what_was_opened() {
    let volume = TestVolume::new();
    let (old, new) = (pattern(3 << 20), vec![b'n'; 2 << 20]);
    volume.file("/f", old.clone());
    let Some(mount) = mounted(&volume) else { return };
    let mut file = File::open(mount.at("f")).unwrap();
    let mut half = vec![0; 1 << 20];
    file.read_exact(&mut half).unwrap();

    volume.file("/f", new.clone());
    volume.changed(&["/f"]);
    soon("the new content", || fs::read(mount.at("f")).unwrap() == new);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert_eq!([half, rest].concat(), old);
    assert_eq!(file.metadata().unwrap().len(), old.len() as u64);
    soon("the link count", || file.metadata().unwrap().nlink() == 0);
    assert_ne!(fs::metadata(mount.at("f")).unwrap().ino(), file.metadata().unwrap().ino());
    // Closed and opened again, the name has its usual content.
    drop(file);
    assert_eq!(fs::read(mount.at("f")).unwrap(), new);
}

#[test]
fn names_come_and_go() {
    let volume = TestVolume::new();
    volume.file("/d/a", "a");
    let Some(mount) = mounted(&volume) else { return };
    let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert!(!mount.at("d/b").exists());
    assert!(!mount.at("e/f/g").exists());
    assert_eq!(names(&mount.at("d")), 1);

    volume.file("/d/b", "b");
    volume.file("/e/f/g", "g");
    volume.changed(&["/d/b", "/e", "/e/f", "/e/f/g"]);
    soon("the new file", || mount.at("d/b").exists());
    soon("the new directories", || mount.at("e/f/g").exists());
    soon("the new listing", || names(&mount.at("d")) == 2);

    let open = File::open(mount.at("d/a")).unwrap();
    volume.remove("/d");
    soon("the end of a file", || !mount.at("d/b").exists());
    soon("the end of a directory", || !mount.at("d").exists());
    soon("the listing of the root", || names(&mount.at("")) == 1);
    let mut buf = [0; 1];
    open.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"a");
}

#[test]
fn a_name_may_become_something_else() {
    let volume = TestVolume::new();
    volume.file("/x", "file");
    let Some(mount) = mounted(&volume) else { return };
    assert_eq!(fs::read(mount.at("x")).unwrap(), b"file");

    volume.dir("/x");
    volume.file("/x/inside", "inside");
    volume.changed(&["/x", "/x/inside"]);
    soon("a directory", || mount.at("x").is_dir());
    assert_eq!(fs::read(mount.at("x/inside")).unwrap(), b"inside");

    volume.remove("/x");
    volume.file("/y", "other");
    volume.link("/x", "y");
    volume.changed(&["/x", "/y"]);
    soon("a link", || fs::read(mount.at("x")).is_ok_and(|bytes| bytes == b"other"));

    volume.file("/z", "third");
    volume.link("/x", "z");
    volume.changed(&["/x", "/z"]);
    soon("another target", || fs::read(mount.at("x")).is_ok_and(|bytes| bytes == b"third"));
}

/// Readers hammer a file and a name that change all the time: each read is whole, of one content, and the
/// last state is the one that stays.
#[test]
fn no_reader_ever_sees_a_mixture() {
    let volume = TestVolume::new();
    let content = |round: u8| vec![round; 200_000 + 1000 * usize::from(round)];
    volume.file("/f", content(0));
    let Some(mount) = mounted(&volume) else { return };
    let done = std::sync::atomic::AtomicBool::new(false);

    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok(mut file) = File::open(mount.at("f")) else { continue };
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).unwrap();
                    let Some(first) = bytes.first() else { continue };
                    assert!(bytes.iter().all(|byte| byte == first), "mixed content");
                }
            });
        }
        for round in 1..=100 {
            volume.file("/f", content(round));
            volume.changed(&["/f"]);
            if round % 3 == 0 {
                volume.remove("/gone");
            } else {
                volume.file("/gone", "x");
                volume.changed(&["/gone"]);
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
            let _ = fs::metadata(mount.at("gone"));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    soon("the last content", || fs::read(mount.at("f")).unwrap() == content(100));
    soon("the last name", || mount.at("gone").exists());
}
