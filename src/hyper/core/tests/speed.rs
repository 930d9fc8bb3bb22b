//! Throughput on a real disk, printed: `cargo test --release --lib speed -- --ignored --nocapture`.

use super::super::storage::open_disk;
use super::*;
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// A start on the wall clock and on this thread's, which other work on the machine does not slow down.
#[derive(Clone, Copy)]
struct Start(Instant, Duration);

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[allow(clippy::disallowed_methods, reason = "measures real time")]
fn clock() -> Start {
    Start(Instant::now(), thread_time())
}

fn report(what: &str, bytes: u64, since: Start) {
    let (wall, cpu) = (since.0.elapsed(), thread_time() - since.1);
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    let (w, c) = (wall.as_secs_f64() * 1e3, cpu.as_secs_f64() * 1e3);
    println!("{what}: {w:.1} ms, {:.0} MB/s; thread {c:.1} ms, {:.0} MB/s", rate(wall), rate(cpu));
}

const BLOCK: usize = 64 << 10;
const TOTAL: u64 = 1 << 30;

fn import(storage: &Arc<dyn Storage>, core: &mut Core, blocks: &[Bytes], batch: usize) {
    let start = clock();
    let (mut preparing, mut committing) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TOTAL as usize / BLOCK / blocks.len() {
        for batch in blocks.chunks(batch) {
            let from = thread_time();
            let prepared = core.prepare_append(batch).unwrap();
            preparing += thread_time() - from;
            let from = thread_time();
            commit(storage, &mut [(&mut *core, prepared)], Durability::Buffered).unwrap();
            committing += thread_time() - from;
        }
    }
    report(&format!("import, buffered, by {batch} blocks"), TOTAL, start);
    println!("of the thread's time: preparing {preparing:?}, committing {committing:?}");
    core.flush(Durability::Durable).unwrap();
    report("import, with the sync at the end", TOTAL, start);
}

#[test]
#[ignore = "measures"]
fn speed_of_a_gigabyte() {
    let dir = on_disk();
    let storage = open_disk(&dir.path().join("a")).unwrap();
    let there = open_disk(&dir.path().join("b")).unwrap();
    let data = Bytes::from((0..64u64 << 20).map(|i| ((i * i) >> 7) as u8).collect::<Vec<u8>>());
    let all: Vec<Bytes> =
        (0..data.len() / BLOCK).map(|i| data.slice(i * BLOCK..(i + 1) * BLOCK)).collect();

    // Several times: the first pays for pages of memory that the machine has never used.
    for (seed, batch) in [(11, 64), (12, 16), (13, 256)] {
        let pair = KeyPair::from_seed(&[seed; 32]);
        let mut core = Core::create(&storage, CreateOptions::writer(pair)).unwrap();
        import(&storage, &mut core, &all, batch);
        core.clear(0..u64::MAX).unwrap();
    }
    let mut core = writer(&storage);
    import(&storage, &mut core, &all, 64);

    let start = clock();
    for i in 0..core.length() {
        assert_eq!(core.get(i).unwrap().unwrap().len(), BLOCK);
    }
    report("read, block by block", TOTAL, start);
    let mut copy = reader(&there, &core);
    upgrade(&mut copy, &core);
    let (mut proving, mut applying, mut hashing) = (0.0, 0.0, 0.0);
    for index in 0..core.length() {
        let block = Some(NodeRequest { index, nodes: copy.missing_nodes(index).unwrap() });
        let start = clock();
        let answer = proof(&core, Request { block, ..Request::default() });
        proving += (thread_time() - start.1).as_secs_f64();
        let start = clock();
        let leaf = crate::crypto::hash::leaf(&answer.block.as_ref().unwrap().value);
        hashing += (thread_time() - start.1).as_secs_f64();
        let start = clock();
        copy.apply_proof(&answer, Some(leaf)).unwrap();
        applying += (thread_time() - start.1).as_secs_f64();
    }
    let rate = |seconds: f64| TOTAL as f64 / 1e6 / seconds;
    println!(
        "prove {:.0} MB/s, hash {:.0}, apply {:.0}",
        rate(proving),
        rate(hashing),
        rate(applying)
    );
    let start = clock();
    copy.flush(Durability::Durable).unwrap();
    report("flush of the copy", 0, start);
    let key = *copy.discovery_key();
    drop((copy, there));
    let start = clock();
    let there = open_disk(&dir.path().join("b")).unwrap();
    let copy = Core::open(&there, &key).unwrap().unwrap();
    report("reopen", 0, start);
    assert_eq!(copy.contiguous_length(), core.length());
}

#[test]
#[ignore = "measures"]
fn speed_of_small_appends() {
    let dir = on_disk();
    let storage = open_disk(dir.path()).unwrap();
    let mut core = writer(&storage);
    let small: Vec<Bytes> = (0..10_000u32).map(|i| Bytes::from(vec![i as u8; 120])).collect();
    let start = clock();
    core.append(&small, Durability::Durable).unwrap();
    report("10,000 small blocks in one batch, durable", 1_200_000, start);
    let start = clock();
    for block in &small {
        core.append(std::slice::from_ref(block), Durability::Buffered).unwrap();
    }
    report("10,000 small appends, buffered", 1_200_000, start);
    let start = clock();
    for block in &small[..200] {
        core.append(std::slice::from_ref(block), Durability::Durable).unwrap();
    }
    report("200 small appends, durable", 0, start);
    let start = clock();
    for i in 0..2000u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&i.to_le_bytes());
        Core::create(&storage, CreateOptions::reader(CoreKey(key))).unwrap();
    }
    report("2,000 cores created", 0, start);
    drop((core, storage));
    let start = clock();
    let storage = open_disk(dir.path()).unwrap();
    report("store reopened", 0, start);
    let start = clock();
    for key in storage::Records::new(storage.clone()).cores().unwrap() {
        Core::open(&storage, &key).unwrap().unwrap();
    }
    report("2,001 cores opened", 0, start);
}
