//! Cost per byte, on the real clock. Run with `cargo test --release udx::tests::bench -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use super::*;

struct Count(u64);

impl Sink for Count {
    fn data(&mut self, _: u32, payload: &[u8]) {
        self.0 += payload.len() as u64;
    }
}

/// Moves `total` bytes between two machines in memory; GB/s.
fn in_memory(total: u64, opts: &ConnectOptions, acks_per_batch: usize) -> f64 {
    let start = Instant::now();
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
        while written < total && a.queued(A) < 512 << 10 {
            a.write(A, chunk.clone(), Instant::now()).unwrap();
            written += chunk.len() as u64;
        }
        let now = Instant::now();
        while let Some(transmit) = a.poll_transmit(now, &mut buf, 44) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            for (i, datagram) in buf.chunks(size).enumerate() {
                b.handle_datagram(SocketId::MAIN, address(1), datagram, now, &mut sink);
                if i % acks_per_batch == acks_per_batch - 1 {
                    b.end_of_batch(now);
                    while b.poll_transmit(now, &mut back, 1).is_some() {
                        a.handle_datagram(SocketId::MAIN, address(2), &back, now, &mut Count(0));
                    }
                }
            }
            b.end_of_batch(now);
        }
        while b.poll_transmit(now, &mut back, 1).is_some() {
            a.handle_datagram(SocketId::MAIN, address(2), &back, now, &mut Count(0));
        }
        let now = Instant::now();
        a.end_of_batch(now);
        if a.poll_timeout().is_some_and(|at| at <= now) {
            a.handle_timeout(now);
        }
        while a.poll_event().is_some() {}
    }
    let secs = start.elapsed().as_secs_f64();
    println!("{:?}", a.stats(A).unwrap());
    total as f64 / secs / 1e9
}

#[test]
#[ignore = "a measurement"]
fn memory_to_memory() {
    let large = ConnectOptions { max_datagram: MAX_DATAGRAM, ..ConnectOptions::default() };
    for round in 0..3 {
        println!(
            "{round}: 1472 bytes: {:.2} GB/s",
            in_memory(2 << 30, &ConnectOptions::default(), 1000)
        );
        println!(
            "{round}: 1472 bytes, ack for each packet: {:.2} GB/s",
            in_memory(1 << 30, &ConnectOptions::default(), 1)
        );
        println!("{round}: large: {:.2} GB/s", in_memory(4 << 30, &large, 1000));
    }
}
