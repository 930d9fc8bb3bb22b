//! Two multiplexers and a simulated path between them.

mod bench;
mod bounds;
mod fairness;
mod flow;
mod hostile;
mod lifecycle;
mod loopback;
mod vectors;

use std::net::Ipv4Addr;
use std::time::Duration;

use rand::SeedableRng;

use super::*;
use crate::sim::{Link, LinkConfig, epoch};

const A: u32 = 0x1111;
const B: u32 = 0x2222;

/// The bytes of every test stream repeat after this many.
const PERIOD: usize = 1 << 24;

/// The byte at an offset of every test stream.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// A bit more than a period of it.
fn source() -> &'static Bytes {
    static SOURCE: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
    SOURCE.get_or_init(|| (0..PERIOD + (4 << 20)).map(pattern).collect())
}

fn payload(from: u64, len: usize) -> Bytes {
    let start = from as usize % PERIOD;
    source().slice(start..start + len)
}

/// Counts what a stream delivers and compares it with the pattern.
struct Collect {
    bytes: u64,
    intact: bool,
}

impl Collect {
    fn new() -> Self {
        Self { bytes: 0, intact: true }
    }
}

impl Sink for Collect {
    fn data(&mut self, _: u32, payload: &[u8]) {
        let start = self.bytes as usize % PERIOD;
        self.intact &= payload == &source()[start..start + payload.len()];
        self.bytes += payload.len() as u64;
    }
}

fn address(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

struct Side {
    udx: Udx,
    sink: Collect,
    events: Vec<UdxEvent>,
    /// Written so far, and the total to write.
    written: u64,
    total: u64,
}

impl Side {
    fn new(seed: u64) -> Self {
        let udx = Udx::new(StdRng::seed_from_u64(seed), UdxConfig::default());
        Self { udx, sink: Collect::new(), events: Vec::new(), written: 0, total: 0 }
    }

    fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            UdxEvent::Closed { reason, .. } => Some(*reason),
            _ => None,
        })
    }
}

/// Streams [`A`] and [`B`] joined by a path.
struct Pair {
    now: Instant,
    start: Instant,
    a: Side,
    b: Side,
    ab: Link<Vec<u8>>,
    ba: Link<Vec<u8>>,
    max_segments: usize,
    end_when_written: bool,
}

impl Pair {
    fn new(ab: LinkConfig, ba: LinkConfig, seed: u64) -> Self {
        let now = epoch();
        Self {
            now,
            start: now,
            a: Side::new(seed),
            b: Side::new(seed ^ 0xffff),
            ab: Link::new(ab, seed.wrapping_mul(3)),
            ba: Link::new(ba, seed.wrapping_mul(5) + 1),
            max_segments: 16,
            end_when_written: false,
        }
    }

    fn connected(ab: LinkConfig, ba: LinkConfig, seed: u64) -> Self {
        Self::connected_with(ab, ba, seed, &ConnectOptions::default())
    }

    fn connected_with(ab: LinkConfig, ba: LinkConfig, seed: u64, opts: &ConnectOptions) -> Self {
        let mut pair = Self::new(ab, ba, seed);
        let back = ConnectOptions {
            initial_seq: opts.initial_ack,
            initial_ack: opts.initial_seq,
            ..opts.clone()
        };
        for (side, id, remote, port, opts) in
            [(&mut pair.a, A, B, 2, opts), (&mut pair.b, B, A, 1, &back)]
        {
            side.udx.open(Some(id)).unwrap();
            side.udx.connect(id, SocketId::MAIN, remote, address(port), opts.clone(), pair.now);
        }
        pair
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Keeps the write queue of a side filled until its total is written.
    fn feed(side: &mut Side, id: u32, end: bool, now: Instant) {
        while side.written < side.total && side.udx.queued(id) < 1 << 20 {
            let len = (side.total - side.written).min(65_536) as usize;
            if side.udx.write(id, payload(side.written, len), now).is_err() {
                return;
            }
            side.written += len as u64;
            if end && side.written == side.total {
                side.udx.end(id);
            }
        }
    }

    fn flush(side: &mut Side, link: &mut Link<Vec<u8>>, now: Instant, max_segments: usize) {
        let mut buf = Vec::new();
        while let Some(transmit) = side.udx.poll_transmit(now, &mut buf, max_segments) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            assert!(
                !buf.is_empty()
                    && buf.len() <= MAX_BURST
                    && buf.len().div_ceil(size) <= max_segments
            );
            for datagram in buf.chunks(size) {
                link.send(now, datagram.len(), datagram.to_vec());
            }
        }
        while let Some(event) = side.udx.poll_event() {
            side.events.push(event);
        }
    }

    fn drain(&mut self) {
        let now = self.now;
        Self::feed(&mut self.a, A, self.end_when_written, now);
        Self::feed(&mut self.b, B, self.end_when_written, now);
        Self::flush(&mut self.a, &mut self.ab, now, self.max_segments);
        Self::flush(&mut self.b, &mut self.ba, now, self.max_segments);
    }

    fn receive(side: &mut Side, link: &mut Link<Vec<u8>>, now: Instant, port: u16) {
        let mut any = false;
        while let Some(datagram) = link.receive(now) {
            side.udx.handle_datagram(SocketId::MAIN, address(port), &datagram, now, &mut side.sink);
            any = true;
        }
        if any {
            side.udx.end_of_batch(now);
        }
    }

    /// When the next thing happens.
    fn next_event(&mut self) -> Option<Instant> {
        let next = [
            self.ab.next_arrival(),
            self.ba.next_arrival(),
            self.a.udx.poll_timeout(),
            self.b.udx.poll_timeout(),
        ];
        next.into_iter().flatten().min()
    }

    /// Jumps to the next thing that happens; false if nothing ever will.
    fn step(&mut self) -> bool {
        self.drain();
        let Some(next) = self.next_event() else { return false };
        self.now = self.now.max(next);
        let now = self.now;
        Self::receive(&mut self.b, &mut self.ab, now, 1);
        Self::receive(&mut self.a, &mut self.ba, now, 2);
        for side in [&mut self.a, &mut self.b] {
            if side.udx.poll_timeout().is_some_and(|at| at <= now) {
                side.udx.handle_timeout(now);
            }
        }
        self.drain();
        true
    }

    /// Runs until `done` or the time is over; true if done.
    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if self.now > end || !self.step() {
                return false;
            }
        }
        true
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        while self.next_event().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }
}
