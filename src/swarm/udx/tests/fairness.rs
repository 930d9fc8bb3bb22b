//! One stream beside a TCP connection on the same bottleneck.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a full segment of the neighbour, without the headers that the link adds.
const SEGMENT: usize = 1472;
/// Nothing is sent again before this.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);

/// A TCP sender with CUBIC, as far as its share of a path goes (RFC 9438): segments are numbers, each arrival is
/// acknowledged, three later arrivals show a loss, and what is lost is sent again under a new number.
struct Cubic {
    cwnd: f64,
    threshold: f64,
    before_loss: f64,
    epoch: Option<Instant>,
    /// What Reno would have, in the region where CUBIC is slower.
    reno: f64,
    next: u64,
    /// On their way, with the time they left.
    flying: BTreeMap<u64, Instant>,
    /// A loss below this number belongs to one that was answered already.
    recovery: u64,
    rtt: f64,
    heard: Instant,
}

impl Cubic {
    fn new(now: Instant) -> Self {
        Self {
            cwnd: 10.0,
            threshold: f64::MAX,
            before_loss: 0.0,
            epoch: None,
            reno: 0.0,
            next: 0,
            flying: BTreeMap::new(),
            recovery: 0,
            rtt: 0.0,
            heard: now,
        }
    }

    fn may_send(&self) -> bool {
        (self.flying.len() as f64) < self.cwnd.max(1.0)
    }

    fn send(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.flying.insert(number, now);
        number
    }

    fn deadline(&self) -> Instant {
        self.heard + MIN_TIMEOUT.max(Duration::from_secs_f64(self.rtt * 2.0))
    }

    fn acknowledged(&mut self, number: u64, now: Instant) {
        let Some(sent) = self.flying.remove(&number) else { return };
        self.heard = now;
        let rtt = (now - sent).as_secs_f64();
        self.rtt = if self.rtt == 0.0 { rtt } else { self.rtt * 0.875 + rtt * 0.125 };
        let lost: BTreeSet<u64> =
            self.flying.range(..number.saturating_sub(2)).map(|(n, _)| *n).collect();
        if let Some(newest) = lost.last().copied() {
            self.flying.retain(|n, _| !lost.contains(n));
            if newest >= self.recovery {
                self.recovery = self.next;
                self.before_loss =
                    if self.cwnd < self.before_loss { self.cwnd * 0.85 } else { self.cwnd };
                self.cwnd = (self.cwnd * 0.7).max(2.0);
                (self.threshold, self.reno, self.epoch) = (self.cwnd, self.cwnd, Some(now));
                return;
            }
        }
        if number < self.recovery {
            return;
        }
        if self.cwnd < self.threshold {
            self.cwnd += 1.0;
            return;
        }
        self.reno += 0.53 / self.cwnd;
        let since = self.epoch.map_or(0.0, |at| (now - at).as_secs_f64()) + self.rtt;
        let turn = (self.before_loss * 0.3 / 0.4).cbrt();
        let target = 0.4 * (since - turn).powi(3) + self.before_loss;
        let target = target.clamp(self.cwnd, self.cwnd * 1.5);
        self.cwnd = (self.cwnd + (target - self.cwnd) / self.cwnd).max(self.reno);
    }

    fn timed_out(&mut self, now: Instant) {
        self.flying.clear();
        self.threshold = (self.cwnd / 2.0).max(2.0);
        (self.before_loss, self.cwnd, self.heard) = (self.cwnd, 1.0, now);
        (self.recovery, self.reno, self.epoch) = (self.next, 1.0, Some(now));
    }
}

#[derive(Clone)]
enum Datagram {
    Ours(Vec<u8>),
    Theirs(u64),
}

/// Our stream from `a` to `b`, and the neighbour's connection over the same link.
struct Beside {
    now: Instant,
    a: Side,
    b: Side,
    tcp: Cubic,
    tcp_bytes: u64,
    tcp_from: Instant,
    shared: Link<Datagram>,
    back: Link<Datagram>,
}

impl Beside {
    /// The neighbour starts `after` our stream.
    fn new(rate_mbit: u64, rtt_ms: u64, queue_ms: u64, after: Duration, seed: u64) -> Self {
        let now = epoch();
        let latency = Duration::from_micros(rtt_ms * 500);
        let rate = rate_mbit * 125_000;
        let queue = (rate * queue_ms / 1000) as usize;
        let there = LinkConfig { rate: Some(rate), queue, latency, ..LinkConfig::default() };
        let back = LinkConfig { latency, ..LinkConfig::default() };
        let mut this = Self {
            now,
            a: Side::new(seed),
            b: Side::new(seed ^ 0xffff),
            tcp: Cubic::new(now),
            tcp_bytes: 0,
            tcp_from: now + after,
            shared: Link::new(there, seed),
            back: Link::new(back, seed + 1),
        };
        let opts = ConnectOptions::default();
        for (side, id, remote, port) in [(&mut this.a, A, B, 2), (&mut this.b, B, A, 1)] {
            side.udx.open(Some(id)).unwrap();
            side.udx.connect(id, SocketId::MAIN, remote, address(port), opts.clone(), now);
        }
        this.a.total = u64::MAX / 2;
        this
    }

    fn flush(side: &mut Side, link: &mut Link<Datagram>, now: Instant) {
        let mut buf = Vec::new();
        while let Some(transmit) = side.udx.poll_transmit(now, &mut buf, 16) {
            let size = transmit.segment_size.unwrap_or(buf.len());
            for datagram in buf.chunks(size) {
                link.send(now, datagram.len(), Datagram::Ours(datagram.to_vec()));
            }
        }
        while side.udx.poll_event().is_some() {}
    }

    fn drain(&mut self) {
        let now = self.now;
        Pair::feed(&mut self.a, A, false, now);
        Self::flush(&mut self.a, &mut self.shared, now);
        Self::flush(&mut self.b, &mut self.back, now);
        while now >= self.tcp_from && self.tcp.may_send() {
            let number = self.tcp.send(now);
            self.shared.send(now, SEGMENT, Datagram::Theirs(number));
        }
    }

    fn step(&mut self) {
        let tcp = if self.now < self.tcp_from { self.tcp_from } else { self.tcp.deadline() };
        let times = [
            self.shared.next_arrival(),
            self.back.next_arrival(),
            self.a.udx.poll_timeout(),
            self.b.udx.poll_timeout(),
            Some(tcp),
        ];
        let now = times.into_iter().flatten().min().unwrap().max(self.now);
        self.now = now;
        while let Some(datagram) = self.shared.receive(now) {
            match datagram {
                Datagram::Ours(bytes) => {
                    let sink = &mut self.b.sink;
                    self.b.udx.handle_datagram(SocketId::MAIN, address(1), &bytes, now, sink);
                    self.b.udx.end_of_batch(now);
                }
                Datagram::Theirs(number) => {
                    self.tcp_bytes += SEGMENT as u64;
                    self.back.send(now, 40, Datagram::Theirs(number));
                }
            }
        }
        while let Some(datagram) = self.back.receive(now) {
            match datagram {
                Datagram::Ours(bytes) => {
                    let sink = &mut self.a.sink;
                    self.a.udx.handle_datagram(SocketId::MAIN, address(2), &bytes, now, sink);
                    self.a.udx.end_of_batch(now);
                }
                Datagram::Theirs(number) => self.tcp.acknowledged(number, now),
            }
        }
        if self.tcp_from <= now && self.tcp.deadline() <= now {
            self.tcp.timed_out(now);
        }
        for udx in [&mut self.a.udx, &mut self.b.udx] {
            if udx.poll_timeout().is_some_and(|at| at <= now) {
                udx.handle_timeout(now);
            }
        }
        self.drain();
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        while self.now < end {
            self.step();
        }
    }

    /// Shares of the link over `secs` seconds: ours, theirs.
    fn shares(&mut self, secs: u64) -> (f64, f64) {
        let (ours, theirs) = (self.b.sink.bytes, self.tcp_bytes);
        self.run_for(Duration::from_secs(secs));
        let total = (self.shared.cfg.rate.unwrap() * secs) as f64;
        let of = |now: u64, before: u64| (now - before) as f64 / total;
        (of(self.b.sink.bytes, ours), of(self.tcp_bytes, theirs))
    }
}

/// Shares of a link of `rate` Mbit/s once both had ten seconds to find theirs.
fn shares_beside_tcp(rate: u64, rtt_ms: u64, queue_ms: u64, seed: u64) -> (f64, f64) {
    let mut beside = Beside::new(rate, rtt_ms, queue_ms, Duration::from_secs(3), seed);
    beside.run_for(Duration::from_secs(10));
    let shares = beside.shares(30);
    println!("{rate} Mbit/s, {rtt_ms} ms, queue {queue_ms} ms: ours, TCP's {shares:.2?}");
    shares
}

#[test]
fn a_tcp_connection_beside_us_keeps_its_share() {
    for (rate, rtt) in [(20, 10), (20, 40), (100, 50)] {
        for queue in [20, 100] {
            let (ours, theirs) = shares_beside_tcp(rate, rtt, queue, 1);
            assert!(theirs >= 0.28 && ours >= 0.28, "{ours} {theirs}");
        }
    }
}

#[test]
fn a_tcp_connection_beside_us_lives_on_a_long_path_with_a_short_queue() {
    let (ours, theirs) = shares_beside_tcp(20, 100, 20, 2);
    assert!(theirs >= 0.2 && ours >= 0.28, "{ours} {theirs}");
}

#[test]
fn what_a_neighbour_leaves_is_taken_within_seconds() {
    let mut beside = Beside::new(20, 40, 20, Duration::ZERO, 1);
    beside.run_for(Duration::from_secs(10));
    beside.tcp_from = beside.now + Duration::from_secs(3600);
    beside.run_for(Duration::from_secs(3));
    let (ours, _) = beside.shares(10);
    assert!(ours >= 0.93, "{ours}");
}
