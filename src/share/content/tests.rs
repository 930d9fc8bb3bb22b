//! Files that are equal, and files that change while they are read.

use super::super::ledger::Torn;
use super::super::scan::scan_by;
use super::*;
use crate::hyper::core::storage::memory;
use crate::hyper::source::BlockSource;
use crate::hyper::source::memory::MemoryLog;
use crate::key::CoreKey;
use crate::path::DrivePath;
use std::cell::Cell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

struct Folder {
    dir: tempfile::TempDir,
    log: Arc<MemoryLog>,
    blobs: Blobs,
    ledger: Ledger,
    rules: Rules,
}

impl Folder {
    fn new() -> Self {
        let log = Arc::new(MemoryLog::default());
        let (blobs, ledger) =
            (Blobs::writable(log.clone()), Ledger::new(memory(), CoreKey([1; 32])));
        let dir = tempfile::tempdir().unwrap();
        let rules = Rules::all(dir.path());
        Self { dir, log, blobs, ledger, rules }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Takes all files, in the order of their names; `reading` is called whenever some of one has been read.
    fn store(&self, reading: &dyn Fn()) -> Vec<Stored> {
        self.store_while(&|_| reading())
    }

    /// The same; how far that is, is told.
    fn store_while(&self, reading: &dyn Fn(u64)) -> Vec<Stored> {
        let found = scan_by(&self.rules, &DrivePath::root()).found;
        let wanted: Vec<_> =
            found.iter().map(|local| Wanted { local, name: &local.path, old: None }).collect();
        let contents = Contents {
            blobs: &self.blobs,
            ledger: &self.ledger,
            rules: &self.rules,
            held: &self.rules.hold().unwrap(),
            allowed: &|_| true,
            progress: reading,
            cancelled: &|| false,
            all_or_nothing: false,
        };
        contents
            .store(self.blobs.writer().unwrap(), &wanted)
            .unwrap()
            .into_iter()
            .map(Option::unwrap)
            .collect()
    }

    fn content(&self, stored: &Stored) -> Vec<u8> {
        let Stored::Blob(id, ..) = stored else { panic!("{stored:?}") };
        let reader = self.blobs.reader(*id, None);
        let size = crate::hyper::bee::run(reader.learn_size()).unwrap();
        reader.read_local(0, size as usize).unwrap().unwrap().concat()
    }
}

#[test]
fn equal_files_of_one_import_are_appended_once() {
    let f = Folder::new();
    let large: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    // The same ends and size, another middle.
    let mut other = large.clone();
    other[200_000] ^= 1;
    let files = [("a", &large), ("b", &large), ("c", &other), ("d", &large)];
    files.iter().for_each(|(name, content)| fs::write(f.at(name), content).unwrap());
    for name in ["e", "f", "g"] {
        fs::write(f.at(name), "small").unwrap();
    }
    let stored = f.store(&|| ());
    assert_eq!(f.log.byte_length(), 2 * large.len() as u64 + 5);
    for (stored, (_, content)) in stored.iter().zip(files) {
        assert!(f.content(stored) == *content);
    }
    assert!(stored[4..].iter().all(|stored| f.content(stored) == b"small"));
    // And those of another import.
    let again = f.store(&|| ());
    assert_eq!(f.log.byte_length(), 2 * large.len() as u64 + 5);
    assert!(f.content(&again[3]) == large && f.content(&again[2]) == other);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    let f = Folder::new();
    fs::write(f.at("file"), vec![b'a'; 1_000_000]).unwrap();
    let once = Cell::new(true);
    let stored = f.store(&|| {
        if once.take() {
            fs::write(f.at("file"), vec![b'b'; 900_000]).unwrap();
        }
    });
    assert!(f.content(&stored[0]) == vec![b'b'; 900_000]);
    let Stored::Blob(_, look, _) = stored[0] else { unreachable!() };
    assert_eq!(look.size, 900_000);
}

#[test]
fn of_a_file_that_is_written_over_and_over_no_mixture_is_taken() {
    let f = Folder::new();
    fs::write(f.at("file"), vec![0; 200_000]).unwrap();
    fs::write(f.at("other"), "other").unwrap();
    let n = Cell::new(0);
    let stored = f.store(&|| {
        n.set(n.get() + 1);
        let file = fs::OpenOptions::new().write(true).open(f.at("file")).unwrap();
        file.write_all_at(&vec![n.get(); 200_000], 0).unwrap();
    });
    assert!(matches!(stored[0], Stored::Unsteady), "{:?}", stored[0]);
    assert_eq!(f.content(&stored[1]), b"other");
}

#[test]
fn what_is_written_without_a_pause_is_not_even_read() {
    let f = Folder::new();
    fs::write(f.at("file"), vec![0; 200_000]).unwrap();
    let (file, end) = (f.at("file"), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let ended = end.clone();
    let writer = std::thread::spawn(move || {
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            file.write_all_at(b"x", 100).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    // On a busy machine the writer may have to wait.
    let unread = (0..5).any(|_| {
        let told = Cell::new(0);
        let stored = f.store(&|| told.set(told.get() + 1));
        matches!(stored[0], Stored::Unsteady) && told.get() == 1
    });
    end.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    assert!(unread);
}

#[test]
fn a_file_that_grows_all_the_time_is_taken_as_far_as_it_was_at_one_moment() {
    let f = Folder::new();
    let content: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(f.at("log"), &content).unwrap();
    let grown = std::cell::RefCell::new(content);
    let stored = f.store(&|| {
        use std::io::Write;
        let mut log = fs::OpenOptions::new().append(true).open(f.at("log")).unwrap();
        log.write_all(b"line\n").unwrap();
        grown.borrow_mut().extend(b"line\n");
    });
    let taken = f.content(&stored[0]);
    assert!(taken.len() >= 200_000 && grown.borrow().starts_with(&taken));
    let Stored::Blob(_, _, seen) = stored[0] else { unreachable!() };
    let now = Look::at(&File::open(f.at("log")).unwrap()).unwrap();
    assert!(!seen.is(&now.stamp), "it is looked at again");
}

#[test]
fn what_is_called_off_appends_nothing_where_it_is_all_or_nothing() {
    let f = Folder::new();
    fs::write(f.at("a"), "first").unwrap();
    fs::write(f.at("b"), vec![1; 300_000]).unwrap();
    let found = scan_by(&f.rules, &DrivePath::root()).found;
    let wanted: Vec<_> =
        found.iter().map(|local| Wanted { local, name: &local.path, old: None }).collect();
    let (off, begun) = (Cell::new(false), Cell::new(0));
    let store = |all_or_nothing| {
        let contents = Contents {
            blobs: &f.blobs,
            ledger: &f.ledger,
            rules: &f.rules,
            held: &f.rules.hold().unwrap(),
            allowed: &|_| true,
            progress: &|_| {
                begun.set(begun.get() + 1);
                off.set(off.get() || begun.get() == 2);
            },
            cancelled: &|| off.get(),
            all_or_nothing,
        };
        contents.store(f.blobs.writer().unwrap(), &wanted).unwrap()
    };
    let stored = store(true);
    assert!(stored[0].is_some() && stored[1].is_none(), "{stored:?}");
    assert_eq!(f.log.length(), 0);

    fs::remove_file(f.at("b")).unwrap();
    std::os::unix::fs::symlink("a", f.at("b")).unwrap();
    off.set(false);
    let stored = store(true);
    assert!(matches!(stored[1], Some(Stored::Unread(_))), "{stored:?}");
    assert!(stored[0].is_some());
    assert_eq!(f.log.length(), 1, "one that cannot be read does not hinder the others");
}

/// So many that they are read ahead.
#[test]
fn of_many_files_each_has_its_own_content_whatever_happens_to_some() {
    let f = Folder::new();
    let name = |n: usize| format!("file{n:04}");
    let content = |n: usize| -> Vec<u8> {
        (0..n * 37 % 3000).flat_map(|i| ((i + n % 250) as u16).to_le_bytes()).collect()
    };
    for n in 0..700 {
        fs::write(f.at(&name(n)), content(n)).unwrap();
    }
    fs::write(f.at("file0100"), vec![9; 200_000]).unwrap();
    fs::write(f.at("file0101"), b"redb\x1a\x0a\xa9\x0d\x0a records primary").unwrap();
    std::thread::sleep(TICK);
    let begun = Cell::new(true);
    let stored = f.store(&|| {
        if begun.take() {
            fs::write(f.at("file0600"), "changed").unwrap();
            fs::remove_file(f.at("file0601")).unwrap();
        }
    });
    assert!(matches!(stored[101], Stored::Secret), "{:?}", stored[101]);
    assert!(matches!(stored[601], Stored::Moved), "{:?}", stored[601]);
    assert!(f.content(&stored[100]) == vec![9; 200_000]);
    assert_eq!(f.content(&stored[600]), b"changed");
    for n in (0..700).filter(|n| ![100, 101, 600, 601].contains(n)) {
        assert!(f.content(&stored[n]) == content(n), "{n}");
    }
}

/// Each would take half a second alone.
#[test]
fn what_is_written_all_the_time_is_waited_for_together() {
    let f = Folder::new();
    let busy: Vec<PathBuf> = (0..100).map(|n| f.at(&format!("busy-{n:02}"))).collect();
    busy.iter().for_each(|path| fs::write(path, "0").unwrap());
    fs::write(f.at("calm"), "calm").unwrap();
    // On a busy machine the writers may have to wait.
    let unsteady = (0..5).any(|_| {
        let (stored, took) = store_while_written(&f, &busy);
        assert_eq!(f.content(&stored[100]), b"calm");
        // Half of what they would take one after the other.
        assert!(took < Duration::from_secs(25), "{took:?}");
        stored.iter().any(|stored| matches!(stored, Stored::Unsteady))
    });
    assert!(unsteady);
}

/// Takes all files while these are written, and how long that took.
fn store_while_written(f: &Folder, busy: &[PathBuf]) -> (Vec<Stored>, Duration) {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for some in busy.chunks(25) {
            let done = &done;
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    some.iter().for_each(|path| fs::write(path, "1").unwrap());
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        let started = std::time::Instant::now();
        let stored = f.store(&|| ());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (stored, started.elapsed())
    })
}

/// A disk of a virtual machine that grows: what is added makes no log of it.
#[test]
fn a_file_that_grows_and_is_written_over_costs_one_reading() {
    let f = Folder::new();
    let size = 2 << 20;
    fs::write(f.at("file"), vec![1; size]).unwrap();
    let n = Cell::new(0);
    let mut first = 0;
    for _ in 0..4 {
        let stored = f.store(&|| {
            n.set(n.get() + 1);
            let file = fs::OpenOptions::new().write(true).open(f.at("file")).unwrap();
            file.write_all_at(&[n.get() as u8], (n.get() * 7919) % size as u64).unwrap();
            file.write_all_at(b"more", size as u64 + 4 * n.get()).unwrap();
        });
        assert!(matches!(stored[0], Stored::Unsteady), "{:?}", stored[0]);
        if first == 0 {
            first = f.log.byte_length();
        }
        assert_eq!(f.log.byte_length(), first);
    }
    assert!(first <= size as u64 + 4, "{first}");
}

/// Writes a byte in the middle of a file.
fn scribble(path: &std::path::Path, n: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[n as u8], 65536 * (n * 7 % 60) + n).unwrap();
}

#[test]
fn a_large_file_that_never_rests_costs_one_reading_at_the_most() {
    let f = Folder::new();
    let size = 4 << 20;
    fs::write(f.at("file"), vec![1; size]).unwrap();
    let n = Cell::new(0);
    let store = |f: &Folder| {
        let stored = f.store(&|| {
            n.set(n.get() + 1);
            scribble(&f.at("file"), n.get());
        });
        assert!(matches!(stored[0], Stored::Unsteady), "{:?}", stored[0]);
        f.log.byte_length()
    };
    let first = store(&f);
    assert!(first <= 2 << 20, "the reading goes on though it is known to be torn: {first}");
    for _ in 0..3 {
        assert_eq!(store(&f), first);
    }
    // Nor after a start.
    f.ledger.write().unwrap();
    let f = Folder { ledger: f.ledger.again(), ..f };
    assert_eq!(store(&f), first);
    // When it rests it is stored.
    std::thread::sleep(Duration::from_secs(1));
    let stored = f.store(&|| ());
    assert!(f.content(&stored[0]) == fs::read(f.at("file")).unwrap());
    assert_eq!(f.log.byte_length(), first + size as u64);
    assert_eq!(f.ledger.torn(&DrivePath::from_user("/file").unwrap()).unwrap(), Torn::default());
}

/// A writer who waits just as long as one reading takes.
#[test]
fn a_file_that_is_written_whenever_it_was_found_to_rest_must_rest_longer_and_longer() {
    let f = Folder::new();
    let size = 4 << 20;
    fs::write(f.at("file"), vec![0; size]).unwrap();
    let (n, whole) = (Cell::new(0), Cell::new(true));
    let (mut torn, mut last) = (0, 0);
    for _ in 0..12 {
        let stored = f.store_while(&|at| {
            // All of it is another, in the middle of the reading after each that went to its end.
            if at >= size as u64 / 2 && whole.take() {
                n.set(n.get() + 1);
                fs::write(f.at("file"), vec![n.get(); size]).unwrap();
            }
            whole.set(whole.get() || at == size as u64);
        });
        assert!(!matches!(stored[0], Stored::Blob(..)), "{:?}", stored[0]);
        torn += u32::from(f.log.byte_length() > last);
        last = f.log.byte_length();
    }
    assert!(torn <= 2, "{torn} readings were stored, {last} bytes");
}

#[test]
fn what_came_to_nothing_is_what_the_next_reading_is_compared_with() {
    let f = Folder::new();
    let content: Vec<u8> = (0..1u32 << 20).flat_map(u32::to_le_bytes).collect();
    fs::write(f.at("file"), &content).unwrap();
    // At the very end of the first reading, which is not seen before.
    let n = Cell::new(0);
    let stored = f.store_while(&|at| {
        if at == content.len() as u64 {
            n.set(n.get() + 1);
            scribble(&f.at("file"), n.get());
        }
    });
    assert!(matches!(stored[0], Stored::Unsteady), "{:?}", stored[0]);
    let before = f.log.byte_length();
    assert_eq!(before, content.len() as u64);
    std::thread::sleep(Duration::from_secs(1));
    let stored = f.store(&|| ());
    assert!(f.content(&stored[0]) == fs::read(f.at("file")).unwrap());
    let cost = f.log.byte_length() - before;
    assert!(cost < 65536 * 8 && cost > 0, "{cost}");
}
