//! What names cost: an import in one batch, the index of a drive, and keeping it up.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hdrive::hyper::blobs::BlobId;
use hdrive::hyper::drive::{Drive, DriveIndex, Entry};
use hdrive::hyper::source::memory::MemoryLog;
use hdrive::path::DrivePath;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const FILES: usize = 10_000;

fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("a memory log never makes anyone wait"),
    }
}

fn path(i: usize) -> DrivePath {
    DrivePath::from_user(&format!("dir{:03}/file-{i:06}.txt", i % 100)).expect("a plain path")
}

fn import(drive: &Drive) {
    let mut entry = Entry::file(BlobId { block_length: 1, byte_length: 9, ..BlobId::default() });
    entry.set_mtime_ms(1_700_000_000_123);
    let mut batch = drive.batch().expect("writable");
    for i in 0..FILES {
        batch.put(&path(i), &entry).expect("all blocks are here");
    }
    batch.flush().expect("appended");
}

fn empty() -> Drive {
    Drive::writable(MemoryLog::new(), MemoryLog::new(), None)
}

fn full() -> (Drive, DriveIndex) {
    let drive = empty();
    import(&drive);
    let index = run(drive.index()).expect("a sound drive");
    (drive, index)
}

fn names(c: &mut Criterion) {
    let mut group = c.benchmark_group("10,000 files");
    group.sample_size(20);
    group.bench_function("import in one batch", |b| {
        b.iter_batched(empty, |drive| import(&drive), BatchSize::LargeInput);
    });
    let (drive, index) = full();
    group.bench_function("load the index", |b| b.iter(|| run(drive.index())));
    group.bench_function("put one file and refresh", |b| {
        let mut index = index.clone();
        b.iter(|| {
            drive.put(&path(5), &b"x"[..], Entry::default()).expect("appended");
            index = run(drive.refresh(&index)).expect("a sound drive").0;
        });
    });
    group.bench_function("look up", |b| {
        let path = path(5000);
        b.iter(|| black_box(index.lookup(black_box(&path))).is_some());
    });
    group.finish();
}

fn contents(c: &mut Criterion) {
    let drive = empty();
    let blobs = drive.blobs();
    let data = Bytes::from(vec![7u8; 64 << 20]);
    c.bench_function("put 64 MiB", |b| {
        b.iter_batched(empty, |drive| drive.blobs().put(&data[..]), BatchSize::PerIteration);
    });
    let reader = blobs.reader(blobs.put(&data[..]).expect("appended"), None);
    c.bench_function("read 128 KiB here", |b| {
        let mut offset = 0;
        b.iter(|| {
            offset = (offset + (128 << 10)) % data.len() as u64;
            reader.read_local(offset, 128 << 10)
        });
    });
}

criterion_group!(benches, names, contents);
criterion_main!(benches);
