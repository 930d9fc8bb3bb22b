//! Cost per byte, on the real clock. Run with `cargo test --release udx::tests::bench -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use super::*;

struct Count(u64);

impl Sink for Count {
    fn data(&mut self, _: u32, payload: &[u8]) {
        self.0 += payload.len() as u64;
    }
}

/// Seconds this thread has computed: what counts on a machine that does other things, too.
pub(super) fn cpu() -> f64 {
    use nix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(time).as_secs_f64()
}

fn acknowledge(a: &mut Udx, b: &mut Udx, back: &mut Vec<u8>) {
    while b.poll_transmit(Instant::now(), back, 1).is_some() {
        a.handle_datagram(SocketId::MAIN, address(2), back, Instant::now(), &mut Count(0));
    }
}

/// Moves `total` bytes between two machines in memory; GB per second of computing for both together.
fn in_memory(total: u64, opts: &ConnectOptions, packets_per_ack: usize) -> f64 {
    let start = Instant::now();
    let began = cpu();
    let mut a = Udx::new(StdRng::seed_from_u64(1), UdxConfig::default());
    let mut b = Udx::new(StdRng::seed_from_u64(2), UdxConfig::default());
    a.open(Some(A));
    b.open(Some(B));
    a.connect(A, SocketId::MAIN, B, address(2), opts.clone(), start);
    b.connect(B, SocketId::MAIN, A, address(1), opts.clone(), start);
    let chunk = payload(0, 65_536);
    let (mut buf, mut back, mut sink) = (Vec::new(), Vec::new(), Count(0));
    let mut written = 0;
    while sink.0 < total {
        while written < total && a.unsent(A) < 512 << 10 {
            a.write(A, chunk.clone(), Instant::now()).unwrap();
            written += chunk.len() as u64;
        }
        while let Some(transmit) = a.poll_transmit(Instant::now(), &mut buf, 44) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            let now = Instant::now();
            for batch in buf.chunks(size * packets_per_ack) {
                for datagram in batch.chunks(size) {
                    b.handle_datagram(SocketId::MAIN, address(1), datagram, now, &mut sink);
                }
                b.end_of_batch(now);
                acknowledge(&mut a, &mut b, &mut back);
            }
        }
        let now = Instant::now();
        a.end_of_batch(now);
        if a.poll_timeout().is_some_and(|at| at <= now) {
            a.handle_timeout(now);
        }
        while a.poll_event().is_some() {}
    }
    println!(
        "{:.2} GB/s wall, {:?}",
        total as f64 / start.elapsed().as_secs_f64() / 1e9,
        a.stats(A).unwrap()
    );
    total as f64 / (cpu() - began) / 1e9
}

#[test]
#[ignore = "a measurement"]
fn memory_to_memory() {
    let plain = ConnectOptions::default();
    let large = ConnectOptions { max_datagram: MAX_DATAGRAM, ..ConnectOptions::default() };
    for (what, opts, packets_per_ack) in [
        ("1472 bytes", &plain, 44),
        ("1472 bytes, an ack for each", &plain, 1),
        ("large", &large, 2),
    ] {
        for _ in 0..2 {
            println!("{what}: {:.2} GB per CPU second", in_memory(2 << 30, opts, packets_per_ack));
        }
    }
}
