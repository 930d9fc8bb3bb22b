//! Sealing and opening 64 KiB frames, in bytes per second of one core.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hdrive::codec::FrameBuf;
use hdrive::key::PublicKey;
use hdrive::swarm::secret_stream::frame::{Opener, Sealer};
use hdrive::swarm::secret_stream::noise::SessionKeys;

const BLOCK: usize = 64 * 1024;

fn keys(initiator: bool) -> SessionKeys {
    SessionKeys { tx: [1; 32], rx: [1; 32], hash: [0; 64], remote: PublicKey([0; 32]), initiator }
}

fn frame() -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(BLOCK);
    frame.grow(BLOCK).fill(7);
    frame
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("secret_stream");
    group.throughput(Throughput::Bytes(BLOCK as u64));
    let mut sealer = Sealer::new(&keys(true), [0; 24]);
    let mut opener = Opener::new(&keys(false));
    opener.feed(&sealer.header());
    group.bench_function("seal", |b| {
        let mut sealer = Sealer::new(&keys(true), [0; 24]);
        b.iter_batched(frame, |frame| sealer.seal(frame), BatchSize::SmallInput);
    });
    group.bench_function("open, in datagrams of 1452", |b| {
        b.iter_batched(
            || sealer.seal(frame()).unwrap(),
            |wire| {
                wire.chunks(1452).for_each(|piece| opener.feed(piece));
                opener.next().unwrap()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
