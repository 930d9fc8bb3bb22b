//! Throughput on a real disk, printed: `cargo test --release --lib speed -- --ignored --nocapture`.

use super::super::storage::open_disk;
use super::*;
use std::time::Instant;

fn report(what: &str, bytes: u64, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{what}: {:.0} MB/s, {:.1} ms", bytes as f64 / 1e6 / seconds, seconds * 1e3);
}

#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods)]
fn speed_of_a_gigabyte() {
    const BLOCK: usize = 64 << 10;
    const TOTAL: u64 = 1 << 30;
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let storage = open_disk(&dir.path().join("a")).unwrap();
    let there = open_disk(&dir.path().join("b")).unwrap();
    let data = Bytes::from((0..64u64 << 20).map(|i| (i * i >> 7) as u8).collect::<Vec<u8>>());
    let batch: Vec<Bytes> =
        (0..data.len() / BLOCK).map(|i| data.slice(i * BLOCK..(i + 1) * BLOCK)).collect();

    let mut core = writer(&storage);
    let start = Instant::now();
    for _ in 0..TOTAL / data.len() as u64 {
        core.append(&batch, Durability::Buffered).unwrap();
    }
    report("import, buffered", TOTAL, start);
    core.flush(Durability::Durable).unwrap();
    report("import, with the sync at the end", TOTAL, start);

    let start = Instant::now();
    for i in 0..core.length() {
        assert_eq!(core.get(i).unwrap().unwrap().len(), BLOCK);
    }
    report("read, block by block", TOTAL, start);
    let start = Instant::now();
    let mut at = 0;
    while at < core.length() {
        at += core.get_run(at, 64, 1 << 20).unwrap().len() as u64;
    }
    report("read, 1 MiB runs", TOTAL, start);

    let mut copy = reader(&there, &core);
    upgrade(&mut copy, &core);
    let (mut proving, mut applying, mut hashing) = (0.0, 0.0, 0.0);
    for index in 0..core.length() {
        let block = Some(NodeRequest { index, nodes: copy.missing_nodes(index).unwrap() });
        let start = Instant::now();
        let answer = proof(&core, Request { block, ..Request::default() });
        proving += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let leaf = crate::crypto::hash::leaf(&answer.block.as_ref().unwrap().value);
        hashing += start.elapsed().as_secs_f64();
        let start = Instant::now();
        copy.apply_proof(&answer, Some(leaf)).unwrap();
        applying += start.elapsed().as_secs_f64();
    }
    let rate = |seconds: f64| TOTAL as f64 / 1e6 / seconds;
    println!(
        "prove {:.0} MB/s, hash {:.0}, apply {:.0}",
        rate(proving),
        rate(hashing),
        rate(applying)
    );
    let start = Instant::now();
    copy.flush(Durability::Durable).unwrap();
    report("flush of the copy", 0, start);
    let key = *copy.discovery_key();
    drop((copy, there));
    let start = Instant::now();
    let there = open_disk(&dir.path().join("b")).unwrap();
    let copy = Core::open(&there, &key).unwrap().unwrap();
    report("reopen", 0, start);
    assert_eq!(copy.contiguous_length(), core.length());
}

#[test]
#[ignore = "measures"]
#[allow(clippy::disallowed_methods)]
fn speed_of_small_appends() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    let small: Vec<Bytes> = (0..10_000u32).map(|i| Bytes::from(vec![i as u8; 120])).collect();
    let start = Instant::now();
    core.append(&small, Durability::Durable).unwrap();
    report("10,000 small blocks in one batch, durable", 1_200_000, start);
    let start = Instant::now();
    for block in &small {
        core.append(std::slice::from_ref(block), Durability::Buffered).unwrap();
    }
    report("10,000 small appends, buffered", 1_200_000, start);
    let start = Instant::now();
    for block in &small[..200] {
        core.append(std::slice::from_ref(block), Durability::Durable).unwrap();
    }
    report("200 small appends, durable", 0, start);
    let start = Instant::now();
    for i in 0..2000u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&i.to_le_bytes());
        Core::create(&storage, CreateOptions::reader(CoreKey(key))).unwrap();
    }
    report("2,000 cores created", 0, start);
    drop((core, storage));
    let start = Instant::now();
    let storage = open_disk(dir.path()).unwrap();
    report("store reopened", 0, start);
    let start = Instant::now();
    for key in storage::Records::new(storage.clone()).cores().unwrap() {
        Core::open(&storage, &key).unwrap().unwrap();
    }
    report("2,001 cores opened", 0, start);
}
