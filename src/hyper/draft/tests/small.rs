//! Small files, which lie in memory; and what many of them cost, by hand:
//! `cargo test --release --lib hyper::draft::tests::small -- --ignored --nocapture`

use super::*;
use crate::hyper::core::storage::open_disk;
use crate::hyper::local::{SMALL, is_staging};
use std::time::Instant;

#[test]
fn a_small_file_is_synced_without_a_staging_file_and_a_large_one_keeps_its_own() {
    let bench = Bench::new();
    let staged = || {
        let files = bench.storage.cores_with_files().unwrap();
        files.iter().filter(|(id, _)| is_staging(id)).count()
    };
    let make = |name: &str| {
        let file = bench.editor.create(&path(name), 0o644, time(1)).unwrap();
        file.write(0, b"synced").unwrap();
        bench.draft.sync(&path(name), &file).unwrap();
        file
    };
    let (moved, synced) = (make("/moved"), make("/synced"));
    assert_eq!(staged(), 0);
    moved.write(SMALL, b"not synced").unwrap();
    synced.write(SMALL, b"synced").unwrap();
    bench.draft.sync(&path("/synced"), &synced).unwrap();
    assert_eq!(staged(), 2);
    // The next start.
    Draft::clean(&bench.storage).unwrap();
    assert_eq!(staged(), 1);
    let again = bench.again();
    let large = [&b"synced"[..], &[0; SMALL as usize - 6], b"synced"].concat();
    assert_eq!(again.here()[&path("/moved")], Node::File(b"synced".into(), 0o644));
    assert_eq!(again.here()[&path("/synced")], Node::File(large, 0o644));
    again.draft.publish(Which::Closed).unwrap();
    assert_eq!(again.seen(), again.here());
}

const FILES: usize = 10_000;

/// In folders of a hundred.
fn name(n: usize) -> DrivePath {
    path(&format!("/d{:02}/f{n:05}", n / 100))
}

#[test]
#[ignore = "measures"]
#[expect(clippy::disallowed_methods, reason = "measures")]
fn ten_thousand_files_of_a_kilobyte() {
    for in_memory in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::of(open_disk(dir.path()).unwrap());
        let storage = &bench.storage;
        // What takes all the memory there is.
        let others: Vec<_> = (0..super::super::MAX_IN_MEMORY / SMALL as usize)
            .filter(|_| !in_memory)
            .map(|_| LocalFile::new(storage, &bench.draft.memory, None))
            .inspect(|file| file.write(SMALL - 1, b"!").unwrap())
            .collect();
        for n in 0..FILES / 100 {
            bench.editor.make_dir(&path(&format!("/d{n:02}"))).unwrap();
        }
        let begin = Instant::now();
        for n in 0..FILES {
            let file = bench.editor.create(&name(n), 0o644, time(1)).unwrap();
            file.write(0, &[n as u8; 1024]).unwrap();
            file.touch(5_000_000);
            bench.editor.close(&file);
        }
        let written = begin.elapsed();
        bench.draft.publish(Which::Closed).unwrap();
        let published = begin.elapsed() - written;
        // The second publication is the one that removes staging files.
        bench.write("/last", b"last");
        bench.draft.publish(Which::Closed).unwrap();
        let removed = begin.elapsed() - written - published;
        assert_eq!(bench.seen().len(), FILES + FILES / 100 + 1);
        println!(
            "in memory: {in_memory}: written {written:?}, published {published:?}, then {removed:?}"
        );

        let begin = Instant::now();
        const SYNCED: usize = 200;
        for n in 0..SYNCED {
            let file = bench.editor.open(&name(n)).unwrap();
            file.write(0, &[1; 100]).unwrap();
            bench.draft.sync(&name(n), &file).unwrap();
        }
        println!("    {SYNCED} of them changed and synced {:?}", begin.elapsed());
        drop(others);
    }
}
