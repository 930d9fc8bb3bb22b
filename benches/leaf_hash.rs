//! Hashing four blocks of 64 KiB side by side, in bytes per second of one core, wherever on the stack it happens.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hdrive::crypto::hash::{Hash, leaves};
use std::hint::black_box;

const BLOCK: usize = 64 * 1024;

/// Hashes `bytes` further down the stack.
fn below(bytes: usize, blocks: &[Vec<u8>]) -> Vec<Hash> {
    if bytes == 0 {
        return leaves(blocks);
    }
    let mut frame = [0u8; 16];
    black_box(&mut frame);
    let hashes = below(bytes.saturating_sub(16), blocks);
    black_box(&mut frame);
    hashes
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("leaf_hash");
    let blocks: Vec<_> = (0..4).map(|i| vec![i; BLOCK]).collect();
    group.throughput(Throughput::Bytes(blocks.len() as u64 * BLOCK as u64));
    for depth in (0..512).step_by(16) {
        group.bench_function(format!("{depth} down"), |b| b.iter(|| below(depth, &blocks)));
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
