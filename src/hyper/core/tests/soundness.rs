//! Files that are not the ones that were left: put back, copied, punched, cut, written to.

use super::super::commit::write_blocks;
use super::super::storage::open_disk;
use super::*;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LENGTH: u64 = 200;

/// Every block is 8 KiB, so that holes have room in them.
fn large(range: Range<u64>) -> Vec<Bytes> {
    range.map(|i| Bytes::from(vec![1 + i as u8; 8 << 10])).collect()
}

fn file(dir: &Path, core: &Core, end: &str) -> PathBuf {
    let name = crate::key::hex(core.discovery_key().as_bytes());
    dir.join("cores").join(&name[..2]).join(format!("{}.{end}", &name[2..]))
}

/// A writer's store with a core of large blocks, closed in order; its directory and files.
#[expect(clippy::disallowed_methods, reason = "the clock of the file system must tick")]
fn written() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    core.append(&large(0..LENGTH), Durability::Durable).unwrap();
    let (blocks, tree) = (file(dir.path(), &core, "blocks"), file(dir.path(), &core, "tree"));
    drop(core);
    // The clock of a file system ticks every few milliseconds.
    std::thread::sleep(Duration::from_millis(30));
    (dir, blocks, tree)
}

fn all_unproven(core: &Core) -> u64 {
    (0..LENGTH).filter(|&i| core.next_unproven(i..i + 1).is_some()).count() as u64
}

/// No read gives anything but the block, and what is here can be read.
fn assert_no_wrong_byte(core: &mut Core) -> Vec<u64> {
    let mut missing = Vec::new();
    for (i, want) in large(0..LENGTH).into_iter().enumerate() {
        let i = i as u64;
        let request =
            Request { block: Some(NodeRequest { index: i, nodes: 0 }), ..Default::default() };
        let served = match core.create_proof(&request).unwrap() {
            Provable::Proof(proof) => Some(proof.block.unwrap().value),
            other => {
                assert!(matches!(other, Provable::NotHere), "{other:?}");
                None
            }
        };
        let read = core.get(i).unwrap();
        core.heed();
        assert_eq!((&served, read.is_some()), (&read, core.has(i)), "block {i}");
        match read {
            Some(bytes) => assert_eq!(bytes, want, "block {i}"),
            None => missing.push(i),
        }
    }
    missing
}

#[test]
fn a_store_that_was_closed_or_killed_is_believed() {
    let (dir, ..) = written();
    for _ in 0..2 {
        let mut core = writer(&open_disk(dir.path()).unwrap());
        assert_eq!(core.next_unproven(0..LENGTH), None);
        core.clear(3..4).unwrap();
        core.clear(7..9).unwrap();
        drop(core);
        let mut core = writer(&open_disk(dir.path()).unwrap());
        assert_eq!(core.next_unproven(0..LENGTH), None);
        core.append(&large(0..3), Durability::Durable).unwrap();
    }
    // Killed after a commit.
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    core.append(&large(0..3), Durability::Durable).unwrap();
    std::mem::forget(core);
    let core = writer(&storage);
    assert_eq!(core.next_unproven(0..LENGTH), None);
}

#[test]
fn bytes_of_another_time_are_not_read() {
    type Case = (&'static str, fn(&File), Range<u64>);
    fn punch(file: &File) {
        let mode = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        nix::fcntl::fallocate(file, mode, 50_000, 40_000).unwrap();
    }
    let cases: [Case; 5] = [
        ("other bytes", |file| file.write_all_at(&[0xee; 3], 100_000).unwrap(), 12..13),
        ("zeros", |file| file.write_all_at(&[0; 9000], 8192).unwrap(), 1..3),
        ("hole", punch, 6..11),
        ("cut", |file| file.set_len(1_000_000).unwrap(), 122..LENGTH),
        (
            "grown again",
            |file| {
                file.set_len(1_000_000).unwrap();
                file.set_len(LENGTH * 8192).unwrap();
            },
            122..LENGTH,
        ),
    ];
    for (name, damage, lost) in cases {
        let (dir, blocks, _) = written();
        damage(&File::options().write(true).open(&blocks).unwrap());
        let mut core = writer(&open_disk(dir.path()).unwrap());
        if name == "hole" || name == "cut" || name == "grown again" {
            assert_eq!(LENGTH - core.blocks_here(), lost.end - lost.start, "{name}: at once");
        }
        assert!(all_unproven(&core) > 0);
        assert_eq!(assert_no_wrong_byte(&mut core), lost.clone().collect::<Vec<_>>(), "{name}");
        assert_eq!(core.next_unproven(0..LENGTH), None, "{name}");
        drop(core);
        // All of it was looked at, and that is remembered.
        let core = writer(&open_disk(dir.path()).unwrap());
        assert_eq!(core.next_unproven(0..LENGTH), None, "{name}");
        assert_eq!(core.blocks_here(), LENGTH - (lost.end - lost.start), "{name}");
    }
}

#[test]
fn a_doubt_lasts_until_every_block_was_looked_at() {
    let (dir, blocks, _) = written();
    File::options().write(true).open(&blocks).unwrap().write_all_at(&[9], 0).unwrap();
    for i in 5..8 {
        let core = writer(&open_disk(dir.path()).unwrap());
        assert_eq!(all_unproven(&core), LENGTH);
        core.get(i).unwrap().unwrap();
        assert_eq!(all_unproven(&core), LENGTH - 1);
    }
    let mut core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!(assert_no_wrong_byte(&mut core), [0]);
}

#[test]
fn zeros_that_became_holes_are_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    let zeros = Bytes::from(vec![0; 8 << 10]);
    let mixed = [large(0..1), vec![zeros; 8], large(1..3)].concat();
    core.append(&mixed, Durability::Durable).unwrap();
    let blocks = file(dir.path(), &core, "blocks");
    drop(core);
    let sparse = std::process::Command::new("cp")
        .args(["--sparse=always"])
        .args([&blocks, &dir.path().join("copy")])
        .status();
    assert!(sparse.unwrap().success());
    fs::rename(dir.path().join("copy"), &blocks).unwrap();
    let core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!(core.blocks_here(), 11);
    for (i, want) in (0..).zip(mixed) {
        assert_eq!(core.get(i).unwrap(), Some(want));
    }
}

/// Its nodes are missing, or of another tree: the blocks below are not here, and the core goes on.
#[test]
fn a_tree_of_another_time_is_not_believed() {
    for cut in [0, 400, 40 * 130, 40 * 300] {
        let (dir, _, tree) = written();
        let whole = fs::read(&tree).unwrap();
        fs::write(&tree, &whole[..cut]).unwrap();
        let mut core = writer(&open_disk(dir.path()).unwrap());
        let missing = assert_no_wrong_byte(&mut core);
        assert!(!missing.is_empty() && missing.len() as u64 == LENGTH - core.blocks_here());
        core.append(&large(0..5), Durability::Durable).unwrap();
        assert_eq!(core.get(LENGTH).unwrap().unwrap(), large(0..1)[0]);
    }
    let (dir, _, tree) = written();
    File::options().write(true).open(&tree).unwrap().write_all_at(&[7; 900], 2000).unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    assert!(!assert_no_wrong_byte(&mut core).is_empty());
}

/// What was given up is fetched, and what was fetched needs no look.
#[test]
fn what_is_lost_is_fetched_from_a_peer() {
    let source_dir = tempfile::tempdir().unwrap();
    let mut source = writer(&open_disk(source_dir.path()).unwrap());
    source.append(&large(0..LENGTH), Durability::Durable).unwrap();
    let (dir, blocks, tree) = written();
    fs::write(&tree, &fs::read(&tree).unwrap()[..40 * 300]).unwrap();
    File::options().write(true).open(&blocks).unwrap().write_all_at(&[9; 20_000], 0).unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    for block in assert_no_wrong_byte(&mut core) {
        assert!(fetch(&mut core, &source, block).new_block);
    }
    assert!(assert_no_wrong_byte(&mut core).is_empty());
    drop(core);
    let core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!((core.next_unproven(0..LENGTH), core.blocks_here()), (None, LENGTH));
}

/// An older database that was opened by mistake leaves what the newest speaks of.
#[test]
fn an_older_database_does_not_cut_what_it_does_not_know() {
    let (dir, ..) = written();
    let database = dir.path().join("store.redb");
    let older = fs::read(&database).unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    core.append(&large(0..50), Durability::Durable).unwrap();
    drop(core);
    let newest = fs::read(&database).unwrap();
    fs::write(&database, older).unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!((core.length(), assert_no_wrong_byte(&mut core)), (LENGTH, vec![]));
    drop(core);
    fs::write(&database, newest).unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!((core.length(), assert_no_wrong_byte(&mut core)), (LENGTH + 50, vec![]));
    for (i, want) in (LENGTH..).zip(large(0..50)) {
        assert_eq!(core.get(i).unwrap(), Some(want));
    }
}

/// A reader whose older database was put back holds nodes past its head that nobody has verified.
#[test]
fn nothing_past_the_head_counts_once_it_grows() {
    for length in [0u64, 20] {
        let dir = tempfile::tempdir().unwrap();
        let mut source = writer(&memory());
        source.append(&large(0..20), Durability::Buffered).unwrap();
        let mut core = reader(&open_disk(dir.path()).unwrap(), &source);
        let tree = file(dir.path(), &core, "tree");
        if length > 0 {
            upgrade(&mut core, &source);
            for block in 0..20 {
                fetch(&mut core, &source, block);
            }
        }
        drop(core);
        // Nodes of nothing.
        fs::create_dir_all(tree.parent().unwrap()).unwrap();
        let tree = File::options().write(true).create(true).truncate(false).open(&tree).unwrap();
        tree.write_all_at(&[7; 4000], (80 * length).max(40) - 40).unwrap();
        let mut core = reader(&open_disk(dir.path()).unwrap(), &source);
        source.append(&large(20..60), Durability::Buffered).unwrap();
        upgrade(&mut core, &source);
        (length..60).for_each(|block| assert!(fetch(&mut core, &source, block).new_block));
        for (i, want) in (0..).zip(large(0..60)) {
            assert_eq!(core.get(i).unwrap(), Some(want));
        }
    }
}

#[test]
fn what_others_do_to_the_files_meanwhile_is_not_vouched_for() {
    let (dir, blocks, _) = written();
    let storage = open_disk(dir.path()).unwrap();
    let core = writer(&storage);
    File::options().write(true).open(&blocks).unwrap().write_all_at(&[9], 8192 * 5).unwrap();
    core.get(1).unwrap();
    drop((core, storage));
    let mut core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!(assert_no_wrong_byte(&mut core), [5]);
}

#[test]
fn files_without_a_stamp_are_looked_at() {
    let (dir, ..) = written();
    let storage = open_disk(dir.path()).unwrap();
    let key = *writer(&storage).discovery_key();
    let record = storage.get(Table::Heads, key.as_bytes()).unwrap().unwrap();
    let mut writes = Writes::default();
    // As a version wrote it that knew of none.
    writes.put(Table::Heads, *key.as_bytes(), record[..record.len() - 65].to_vec());
    storage.commit(writes, &[], Durability::Durable).unwrap();
    let mut core = Core::open(&storage, &key).unwrap().unwrap();
    assert_eq!(all_unproven(&core), LENGTH);
    assert!(assert_no_wrong_byte(&mut core).is_empty());
}

/// Whatever is done to the files while they are open, and whatever of ours comes after it, or before it in the same
/// commit: the next opening looks.
#[test]
#[expect(clippy::disallowed_methods, reason = "the clock of the file system must tick")]
fn our_next_change_does_not_vouch_for_what_others_did() {
    type Meddling = (&'static str, fn(&Path, &[u8]));
    let meddlings: [Meddling; 3] = [
        ("written in place", |path, old| {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(&old[..old.len().min(40_000)], 0).unwrap();
        }),
        ("put back by a rename", |path, old| {
            fs::write(path.with_extension("new"), old).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("gone", |path, _| fs::remove_file(path).unwrap()),
    ];
    for (name, meddle) in meddlings {
        for first in 0..4 {
            for of_tree in [false, true] {
                let (dir, blocks, tree) = written();
                let path = if of_tree { &tree } else { &blocks };
                let old = vec![7; fs::read(path).unwrap().len()];
                let storage = open_disk(dir.path()).unwrap();
                let mut core = writer(&storage);
                match first {
                    0 => {}
                    1 => assert!(core.append(&large(0..3), Durability::Durable).is_ok()),
                    2 => assert!(core.clear(20..30).is_ok()),
                    // Not committed yet.
                    _ => {
                        let prepared = core.prepare_append(&large(0..3)).unwrap();
                        write_blocks(&core.files, prepared.offset, &prepared.blocks).unwrap();
                        core.nodes.put(&prepared.nodes[0]).unwrap();
                        core.nodes.flush().unwrap();
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
                meddle(path, &old);
                for _ in 0..2 {
                    let done = core.append(&large(0..2), Durability::Durable);
                    assert_eq!(done.is_err(), name != "written in place", "{name}, {first}");
                }
                drop((core, storage));
                let mut core = writer(&open_disk(dir.path()).unwrap());
                let missing = assert_no_wrong_byte(&mut core);
                assert!(missing.contains(&3), "{name}, {first}, {of_tree}: {missing:?}");
            }
        }
    }
}
