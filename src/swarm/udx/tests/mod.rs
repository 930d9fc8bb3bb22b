//! Two multiplexers and a simulated path between them.

mod bench;
mod bounds;
mod challenge;
mod detour;
mod fairness;
mod flow;
mod hostile;
mod legs;
mod lifecycle;
mod loopback;
mod narrow;
mod path;
mod queued;
mod reflection;
mod scarcity;
mod shared;
mod vectors;

use crate::swarm::socket::ipv4;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::SeedableRng;

use super::packet::flag;
use super::*;
use crate::sim::{Datagram, LinkConfig, Machine, Net, Outgoing, epoch};

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

fn address(port: u16) -> SocketAddr {
    home(port).into()
}

/// The same, as the virtual network knows it.
fn home(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

struct Side {
    id: u32,
    udx: Udx,
    sink: Collect,
    events: Vec<UdxEvent>,
    /// Written so far, and the total to write.
    written: u64,
    total: u64,
    end_when_written: bool,
    max_segments: usize,
    /// Fragments that came, by the number of their datagram.
    parts: BTreeMap<u32, BTreeMap<u8, Vec<u8>>>,
    cuts: u32,
    /// Every packet holds whole frames, which are opened at once, as are messages.
    opens: bool,
    /// What comes is the start of a frame that has no end so far.
    long_frame: bool,
}

/// What the fragments of a datagram begin with, in the place of IP.
const FRAGMENT: u8 = 0x45;

/// The most that one of them carries.
const PART: usize = 1000;

impl Side {
    fn new(id: u32, seed: u64) -> Self {
        let udx = Udx::new(StdRng::seed_from_u64(seed), UdxConfig::default());
        Self {
            id,
            udx,
            sink: Collect::new(),
            events: Vec::new(),
            written: 0,
            total: 0,
            end_when_written: false,
            max_segments: 16,
            parts: BTreeMap::new(),
            cuts: 0,
            opens: false,
            long_frame: false,
        }
    }

    /// Takes a datagram apart as a router does.
    fn cut(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.cuts += 1;
        let count = datagram.len().div_ceil(PART) as u8;
        let head = |i| [&[FRAGMENT], &self.cuts.to_le_bytes()[..], &[i, count]].concat();
        (0..count).zip(datagram.chunks(PART)).map(|(i, part)| [&head(i), part].concat()).collect()
    }

    /// The datagram that a fragment completes.
    fn join(&mut self, fragment: &[u8]) -> Option<Vec<u8>> {
        let [_, a, b, c, d, i, count, part @ ..] = fragment else { return None };
        let number = u32::from_le_bytes([*a, *b, *c, *d]);
        let parts = self.parts.entry(number).or_default();
        parts.insert(*i, part.to_vec());
        let whole = parts.len() == usize::from(*count);
        whole.then(|| self.parts.remove(&number).unwrap().into_values().flatten().collect())
    }

    fn connect(&mut self, remote: u32, to: SocketAddr, opts: ConnectOptions, now: Instant) {
        self.udx.open(Some(self.id)).unwrap();
        self.udx.connect(self.id, SocketId::MAIN, remote, to, opts, now);
    }

    /// Keeps the write queue filled until the total is written.
    fn feed(&mut self, now: Instant) {
        while self.written < self.total && self.udx.unsent(self.id) < 1 << 20 {
            let len = (self.total - self.written).min(65_536) as usize;
            if self.udx.write(self.id, payload(self.written, len), now).is_err() {
                return;
            }
            self.written += len as u64;
            if self.end_when_written && self.written == self.total {
                self.udx.end(self.id);
            }
        }
    }

    fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            UdxEvent::Closed { reason, .. } => Some(*reason),
            _ => None,
        })
    }
}

/// Streams [`A`], of machine 0, and [`B`], of machine 1, joined by a path.
type Pair = Net<Side>;

impl Machine for Side {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        for Datagram { socket, from, bytes, .. } in datagrams {
            let socket = SocketId(u32::from(*socket));
            let joined = if bytes.first() == Some(&FRAGMENT) { self.join(bytes) } else { None };
            let bytes = joined.as_ref().unwrap_or(bytes);
            self.udx.handle_datagram(socket, (*from).into(), bytes, now, &mut self.sink);
        }
        if self.opens && self.sink.intact && !self.long_frame {
            self.udx.opened(self.id, 0, now);
        }
        self.udx.end_of_batch(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.udx.handle_timeout(now);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.udx.poll_timeout()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        self.feed(now);
        let (mut buf, most) = (Vec::new(), self.max_segments);
        while let Some(transmit) = self.udx.poll_transmit(now, &mut buf, most) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            assert!(!buf.is_empty() && buf.len() <= MAX_BURST && buf.len().div_ceil(size) <= most);
            let Transmit { socket, ttl, .. } = transmit;
            let to = ipv4(transmit.to).expect("no IPv6 there");
            let one = |bytes| Outgoing { socket: socket.0 as u16, to, bytes, ttl };
            if transmit.in_parts {
                assert_eq!(size, buf.len());
                out.extend(self.cut(&buf).into_iter().map(one));
                continue;
            }
            out.extend(buf.chunks(size).map(|datagram| one(datagram.to_vec())));
        }
        while let Some(event) = self.udx.poll_event() {
            if let UdxEvent::Message { id, socket, from, payload } = &event
                && self.opens
                && !payload.is_empty()
            {
                self.udx.heard_from(*id, (*socket, *from), payload.len(), now);
            }
            self.events.push(event);
        }
    }
}

impl Pair {
    fn of_links(ab: LinkConfig, ba: LinkConfig, seed: u64) -> Self {
        let mut pair = Self::new(ab, seed);
        pair.add(home(1), Side::new(A, seed));
        pair.add(home(2), Side::new(B, seed ^ 0xffff));
        pair.link(1, 0).cfg = ba;
        pair
    }

    fn connected(ab: LinkConfig, ba: LinkConfig, seed: u64) -> Self {
        Self::connected_with(ab, ba, seed, &ConnectOptions::default())
    }

    fn connected_with(ab: LinkConfig, ba: LinkConfig, seed: u64, opts: &ConnectOptions) -> Self {
        let mut pair = Self::of_links(ab, ba, seed);
        let back = ConnectOptions {
            initial_seq: opts.initial_ack,
            initial_ack: opts.initial_seq,
            ..opts.clone()
        };
        let now = pair.now;
        pair.machines[0].connect(B, address(2), opts.clone(), now);
        pair.machines[1].connect(A, address(1), back, now);
        pair
    }

    fn end_when_written(&mut self) {
        self.machines.iter_mut().for_each(|side| side.end_when_written = true);
    }
}
