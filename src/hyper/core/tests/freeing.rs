//! Space of blocks that were cleared: given back in steps, also by whoever comes after a kill.

use super::*;
use crate::hyper::core::storage::open_disk;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const BLOCK: usize = 64 << 10;

fn large(n: u64) -> Bytes {
    Bytes::from(vec![(n as u8).wrapping_add(1); BLOCK])
}

/// Bytes that the files of blocks in a store take.
fn space(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => space(&entry.path()),
        meta if entry.path().extension().is_some_and(|end| end == "blocks") => meta.blocks() * 512,
        _ => 0,
    };
    entries.map(size).sum()
}

fn free(core: &mut Core) -> usize {
    let (mut next, mut steps) = (Some(0), 0);
    while let Some(from) = next {
        let step = core.free_missing(from).unwrap();
        assert!(step.failed.is_none());
        (next, steps) = (step.next, steps + 1);
    }
    steps
}

#[test]
fn what_a_killed_process_had_no_time_for_is_freed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    let all: Vec<Bytes> = (0..64).map(large).collect();
    core.append(&all, Durability::Durable).unwrap();
    let odd: Vec<_> = (0..64).filter(|n| n % 2 == 1).map(|n| n..n + 1).collect();
    assert_eq!(core.forget_blocks(&odd).unwrap(), 32);
    let key = *core.discovery_key();
    drop(core);
    let before = space(dir.path());
    assert!(before >= (64 * BLOCK) as u64, "{before}");
    let mut core = Core::open(&storage, &key).unwrap().unwrap();
    assert_eq!(core.forget_blocks(&[]).unwrap(), 0);
    assert!(free(&mut core) > 1, "others get at the core in between");
    let after = space(dir.path());
    assert!(after <= before / 2 + BLOCK as u64, "{after} of {before}");
    assert_eq!(free(&mut core), 1, "there is nothing left to do");
    for n in 0..64 {
        assert_eq!(core.get(n).unwrap(), (n % 2 == 0).then(|| large(n)));
    }
}

#[test]
fn a_block_that_came_back_meanwhile_stays() {
    let mut core = writer(&memory());
    core.append(&blocks(0..100), Durability::Buffered).unwrap();
    let mut copy = reader(&memory(), &core);
    upgrade(&mut copy, &core);
    for i in 0..100 {
        fetch(&mut copy, &core, i);
    }
    let (place, size) = copy.span(12).unwrap();
    assert_eq!(copy.forget_blocks(&[10..20, 30..40, 99..100]).unwrap(), 21);
    fetch(&mut copy, &core, 15);
    free(&mut copy);
    let mut bytes = vec![1; size as usize];
    copy.files.blocks.read_at(place, &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0));
    assert_reads(&copy, 15..16);
    for i in (10..20).chain(30..40).chain(99..100) {
        fetch(&mut copy, &core, i);
    }
    assert_reads(&copy, 0..100);
}

#[test]
#[ignore = "measures"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn how_long_a_reader_waits_for_freeing() {
    use std::time::{Duration, Instant};
    let dir = on_disk();
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    let all: Vec<Bytes> = (0..6_000).map(|n| large(n).slice(..4 << 10)).collect();
    core.append(&all, Durability::Durable).unwrap();
    let odd: Vec<_> = (0..6_000).filter(|n| n % 2 == 1).map(|n| n..n + 1).collect();
    let core = Mutex::new(core);
    let (began, longest) = (Instant::now(), Mutex::new(Duration::ZERO));
    std::thread::scope(|scope| {
        let freeing = scope.spawn(|| {
            core.lock().unwrap().forget_blocks(&odd).unwrap();
            println!("committed after {:?}", began.elapsed());
            let mut next = Some(0);
            while let Some(from) = next {
                next = core.lock().unwrap().free_missing(from).unwrap().next;
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        while !freeing.is_finished() {
            let asked = Instant::now();
            core.lock().unwrap().get(2).unwrap();
            let mut longest = longest.lock().unwrap();
            *longest = asked.elapsed().max(*longest);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    println!("3,000 runs in {:?}, the longest wait {:?}", began.elapsed(), longest.lock().unwrap());
}
