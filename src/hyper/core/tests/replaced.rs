//! Files that somebody else put in the place of those that are open, or removed.

use super::super::storage::{StorageError, open_disk};
use super::*;
use std::fs;
use std::path::{Path, PathBuf};

const LENGTH: u64 = 20;

/// Blocks that no commit keeps a copy of.
fn large(range: Range<u64>) -> Vec<Bytes> {
    range.map(|i| Bytes::from(vec![1 + i as u8; 64 << 10])).collect()
}

/// A file of the only core.
fn file(dir: &Path, end: &str) -> PathBuf {
    let dirs = fs::read_dir(dir.join("cores")).unwrap();
    let mut files = dirs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    files
        .find_map(|file| {
            Some(file.unwrap().path()).filter(|path| path.extension() == Some(end.as_ref()))
        })
        .unwrap()
}

/// Does something to files of a store.
type Swap = fn(&Path);

fn swap(path: &Path) {
    let copy = path.with_extension("copy");
    assert!(
        std::process::Command::new("cp").arg("-a").args([path, &copy]).status().unwrap().success()
    );
    fs::rename(path, path.with_extension("old")).unwrap();
    fs::rename(copy, path).unwrap();
}

const SWAPS: [(&str, Swap); 5] = [
    ("all", |dir| swap(&dir.join("cores"))),
    ("blocks", |dir| swap(&file(dir, "blocks"))),
    ("tree", |dir| swap(&file(dir, "tree"))),
    ("gone", |dir| fs::remove_dir_all(dir.join("cores")).unwrap()),
    ("no folder", |dir| {
        fs::rename(dir.join("cores"), dir.join("away")).unwrap();
        fs::write(dir.join("cores"), b"").unwrap();
    }),
];

fn assert_replaced<T: std::fmt::Debug>(name: &str, dir: &Path, done: Result<T>) {
    let Err(CoreError::Storage(error @ StorageError::Replaced { .. })) = done else {
        panic!("{name}: {done:?}");
    };
    let text = error.to_string();
    assert!(text.contains(dir.to_str().unwrap()) && text.contains("start hdrive again"), "{text}");
}

#[test]
fn nothing_is_changed_where_the_files_were_replaced() {
    type Change = (&'static str, fn(&mut Core) -> Result<()>);
    let changes: [Change; 5] = [
        ("append", |core| core.append(&large(0..2), Durability::Durable).map(drop)),
        ("append small", |core| core.append(&blocks(0..2), Durability::Durable).map(drop)),
        ("pieces", |core| staging::append_pieces(core, &large(0..5))),
        ("clear", |core| core.clear(3..9).map(drop)),
        ("truncate", |core| core.truncate(3, core.fork() + 1)),
    ];
    for (swap_name, swap) in SWAPS {
        for (name, change) in changes {
            let name = format!("{name}, {swap_name}");
            let dir = tempfile::tempdir().unwrap();
            let storage = open_disk(dir.path()).unwrap();
            let mut core = writer(&storage);
            core.append(&large(0..LENGTH), Durability::Durable).unwrap();
            swap(dir.path());
            for _ in 0..2 {
                assert_replaced(&name, dir.path(), change(&mut core));
                assert_eq!((core.length(), core.blocks_here()), (LENGTH, LENGTH), "{name}");
            }
            // What is there can be read, and what is not cannot be taken for it.
            assert_eq!(core.get(5).unwrap().as_ref(), large(5..6).first());
            drop((core, storage));
            if swap_name == "no folder" {
                fs::remove_file(dir.path().join("cores")).unwrap();
            }
            let mut core = writer(&open_disk(dir.path()).unwrap());
            let is_whole = !["gone", "no folder"].contains(&swap_name);
            assert_eq!(core.length(), LENGTH, "{name}");
            assert_eq!(core.get(5).unwrap().is_some(), is_whole, "{name}");
            core.append(&large(0..2), Durability::Durable).unwrap();
        }
    }
}

/// What was written before goes nowhere either, whatever wrote it and whatever would acknowledge it.
#[test]
fn nothing_is_acknowledged_where_the_files_were_replaced_meanwhile() {
    let mut source = writer(&memory());
    source.append(&large(0..LENGTH), Durability::Buffered).unwrap();
    for (name, swap) in SWAPS {
        // An append in pieces, of which no more is written.
        let dir = tempfile::tempdir().unwrap();
        let storage = open_disk(dir.path()).unwrap();
        let mut core = writer(&storage);
        core.append(&large(0..2), Durability::Durable).unwrap();
        let mut staging = core.begin_append().unwrap();
        staging.push(&large(2..9)).unwrap().write().unwrap();
        let prepared = core.prepare_staged(&mut staging).unwrap();
        swap(dir.path());
        let done = commit(&storage, &mut [(&mut core, prepared)], Durability::Durable);
        assert_replaced(&format!("{name} staged"), dir.path(), done);
        assert_eq!(core.length(), 2);

        // What a peer sent, flushed in both ways, and an append to another core that would make it durable.
        let dir = tempfile::tempdir().unwrap();
        let storage = open_disk(dir.path()).unwrap();
        let mut core = reader(&storage, &source);
        upgrade(&mut core, &source);
        (0..9).for_each(|block| assert!(fetch(&mut core, &source, block).new_block));
        core.nodes.flush().unwrap();
        let flush = core.begin_flush().unwrap().unwrap();
        swap(dir.path());
        let synced = flush.sync();
        assert_replaced(&format!("{name} finish"), dir.path(), core.finish_flush(flush, synced));
        assert_replaced(name, dir.path(), core.flush(Durability::Durable));
        let block = Some(NodeRequest { index: 12, nodes: core.missing_nodes(12).unwrap() });
        let proof = proof(&source, Request { block, ..Request::default() });
        match core.apply_proof(&proof, None) {
            Err(ApplyError::Unstored(error)) => assert_replaced::<()>(name, dir.path(), Err(error)),
            // Its nodes wait in memory.
            done => assert!(name == "tree" && done.is_ok(), "{name}: {done:?}"),
        }
        assert_replaced(name, dir.path(), core.flush(Durability::Durable));
    }
}

/// Of a store that was replaced as a whole the database is another as well.
#[test]
fn nothing_is_acknowledged_in_a_database_that_was_replaced() {
    for is_gone in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let storage = open_disk(&store).unwrap();
        let mut core = writer(&storage);
        core.append(&large(0..2), Durability::Durable).unwrap();
        if is_gone {
            fs::rename(&store, dir.path().join("away")).unwrap();
        } else {
            swap(&store);
        }
        let other = CreateOptions::writer(key_pair(7));
        assert_replaced("new", &store, Core::create(&storage, other.clone()).map(drop));
        let made = Core::create_all(&storage, vec![(other, Secrecy::Unknown)], Writes::default());
        assert_replaced("new", &store, made.map(drop));
        drop((core, storage));
        assert_eq!(store.exists(), !is_gone);
    }
}

/// What was acknowledged and is only in the file that was replaced, and in the copy of it in the database, is put into the
/// file that is there.
#[test]
fn small_writes_outlive_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut core = writer(&open_disk(dir.path()).unwrap());
    core.append(&large(0..2), Durability::Durable).unwrap();
    drop(core);
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    let (blocks, old) = (file(dir.path(), "blocks"), dir.path().join("old"));
    fs::copy(&blocks, &old).unwrap();
    let small = super::blocks(0..1);
    core.append(&small, Durability::Durable).unwrap();
    fs::rename(&old, &blocks).unwrap();
    drop((core, storage));
    let core = writer(&open_disk(dir.path()).unwrap());
    assert_eq!(core.get(2).unwrap().as_ref(), small.first());
}

/// What was not opened before is not taken for missing, nor is what stands in its place taken for it.
#[test]
fn a_store_that_is_away_for_a_while_loses_nothing() {
    let above = tempfile::tempdir().unwrap();
    let (dir, away) = (above.path().join("store"), above.path().join("away"));
    let mut core = writer(&open_disk(&dir).unwrap());
    core.append(&large(0..LENGTH), Durability::Durable).unwrap();
    drop(core);
    for other in [false, true] {
        let storage = open_disk(&dir).unwrap();
        let mut core = writer(&storage);
        fs::rename(&dir, &away).unwrap();
        if other {
            drop(writer(&open_disk(&dir).unwrap()));
        }
        for block in 0..3 {
            assert_replaced("read", &dir, core.get(block));
        }
        let done = Core::open(&storage, core.discovery_key());
        assert_replaced("opened", &dir, done.map(drop));
        assert!(core.heed().is_empty());
        if other {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::rename(&away, &dir).unwrap();
        assert_eq!(core.get(5).unwrap().as_ref(), large(5..6).first());
        core.append(&large(0..1), Durability::Durable).unwrap();
        drop((core, storage));
        let core = writer(&open_disk(&dir).unwrap());
        assert_eq!(core.blocks_here(), core.length(), "{other}");
    }
}

#[test]
fn a_file_that_was_replaced_before_its_first_use_is_not_used() {
    for (name, swap) in SWAPS {
        let dir = tempfile::tempdir().unwrap();
        let mut core = writer(&open_disk(dir.path()).unwrap());
        core.append(&large(0..LENGTH), Durability::Durable).unwrap();
        drop(core);
        let storage = open_disk(dir.path()).unwrap();
        let mut core = writer(&storage);
        swap(dir.path());
        if name != "tree" {
            assert_replaced(name, dir.path(), core.get(5));
        }
        assert_replaced(name, dir.path(), core.append(&large(0..2), Durability::Durable));
    }
}
