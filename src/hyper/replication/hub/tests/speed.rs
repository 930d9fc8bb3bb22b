//! How fast blocks go through. Run with `cargo test --release -- --ignored --nocapture speed`.

use super::*;
use nix::time::{ClockId, clock_gettime};

/// Processor time of this thread, so that a busy machine does not spoil the figure.
pub fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// `count` blocks of `size` bytes from one hub to another, both in this thread.
fn transfer(count: u64, size: usize, together: usize) {
    let mut answers = Vec::new();
    let w = share(writer_of(0));
    let blocks: Vec<Bytes> = (0..count).map(|i| vec![i as u8; size].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    let mut sim = Sim::new(2);
    let r = reader();
    sim.attach(0, &w);
    let options = AttachOptions { downloading: true, small_blocks: size < 4096 };
    let now = sim.now;
    let core = sim.hubs[1].attach(r.clone(), options, now);
    let (client, server) = sim.connect(1, 0, MS);
    sim.run(Duration::from_secs(1));
    let now = sim.now;
    sim.hubs[1].want_range(core, 0..count, true, now);
    // A clock of its own for each side, so that the receiver's share is known.
    let (mut down, mut up) = (Duration::ZERO, Duration::ZERO);
    loop {
        let clock = cpu();
        let asked: Vec<FrameBuf> =
            std::iter::from_fn(|| sim.hubs[1].poll_transmit()).map(|(_, f)| f).collect();
        down += cpu() - clock;
        if asked.is_empty() {
            break;
        }
        for frame in asked {
            let bytes = Bytes::copy_from_slice(frame.payload());
            let clock = cpu();
            sim.hubs[0].handle_frame(server, bytes, now);
            up += cpu() - clock;
        }
        loop {
            let clock = cpu();
            sim.hubs[0].handle_queued(server, 0, now);
            let answer = sim.hubs[0].poll_transmit();
            up += cpu() - clock;
            let more = answer.is_some();
            answers.extend(
                answer
                    .map(|(_, frame)| Bytes::from(frame.into_inner()).slice(FrameBuf::HEADROOM..)),
            );
            if more && answers.len() < together {
                continue;
            }
            let clock = cpu();
            sim.hubs[1].handle_frames(client, &answers, now);
            answers.clear();
            while sim.hubs[1].poll_event().is_some() {}
            down += cpu() - clock;
            if !more {
                break;
            }
        }
    }
    assert_eq!(here(&r), count);
    let bytes = (count * size as u64) as f64 / 1e6;
    println!(
        "{count} blocks of {size}: receive {:.0} MB/s ({:.1} us each), send {:.0} MB/s ({:.1} us each)",
        bytes / down.as_secs_f64(),
        down.as_secs_f64() * 1e6 / count as f64,
        bytes / up.as_secs_f64(),
        up.as_secs_f64() * 1e6 / count as f64,
    );
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    transfer(8192, 65_536, 1);
    transfer(8192, 65_536, 16);
    transfer(50_000, 300, 16);
    transfer(1000, 1 << 20, 4);
}
