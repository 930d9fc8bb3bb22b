//! One stream beside a TCP connection on the same bottleneck.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a full segment of the neighbour, without the headers that the link adds.
const SEGMENT: usize = 1472;
/// Nothing is sent again before this.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// On a path that is even like clockwork both senders move in step, and a packet more or less decides which of them finds
/// the queue full: the shares say nothing of those on a real path, where they are half as large or twice.
const JITTER: Duration = Duration::from_millis(1);

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

/// Who shares a host with an end of our stream: the neighbour's sender, or its receiver, which acknowledges.
struct Host {
    ours: Side,
    tcp: Option<Cubic>,
    from: Instant,
    taken: u64,
    acks: Vec<Vec<u8>>,
}

/// Segments of the neighbour are told from ours by what they begin with.
const MARK: &[u8] = b"neighbour";

fn segment(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = [MARK, &number.to_le_bytes()].concat();
    bytes.resize(len, 0);
    bytes
}

impl Host {
    fn new(ours: Side, tcp: Option<Cubic>, from: Instant) -> Self {
        Self { ours, tcp, from, taken: 0, acks: vec![] }
    }

    fn neighbour(&mut self, segment: &[u8], now: Instant) {
        let number = u64::from_le_bytes(segment[..8].try_into().unwrap());
        if let Some(tcp) = &mut self.tcp {
            tcp.acknowledged(number, now);
        } else {
            self.taken += SEGMENT as u64;
            self.acks.push(self::segment(number, 40));
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.tcp.as_ref().map(|tcp| tcp.deadline().max(self.from))
    }
}

impl Machine for Host {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        let ours = |datagram: &&Datagram| !datagram.bytes.starts_with(MARK);
        let (ours, theirs): (Vec<_>, Vec<_>) = datagrams.iter().partition(ours);
        theirs.into_iter().for_each(|datagram| self.neighbour(&datagram.bytes[MARK.len()..], now));
        let ours: Vec<Datagram> = ours.into_iter().cloned().collect();
        if !ours.is_empty() {
            self.ours.receive(&ours, now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(tcp) = self.tcp.as_mut().filter(|tcp| self.from <= now && tcp.deadline() <= now)
        {
            tcp.timed_out(now);
        }
        if self.ours.poll_timeout().is_some_and(|at| at <= now) {
            self.ours.handle_timeout(now);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.ours.poll_timeout().into_iter().chain(self.deadline()).min()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        self.ours.transmit(now, out);
        if let Some(tcp) = self.tcp.as_mut().filter(|_| now >= self.from) {
            while tcp.may_send() {
                out.push(Outgoing::new(home(2), segment(tcp.send(now), SEGMENT)));
            }
        }
        out.extend(self.acks.drain(..).map(|ack| Outgoing::new(home(1), ack)));
    }
}

/// Our stream and the neighbour's connection from host 0 to host 1.
type Beside = Net<Host>;

impl Beside {
    /// The neighbour starts `after` our stream.
    fn beside(rate_mbit: u64, rtt_ms: u64, queue_ms: u64, after: Duration, seed: u64) -> Self {
        let latency = Duration::from_micros(rtt_ms * 500);
        let rate = rate_mbit * 125_000;
        let queue = (rate * queue_ms / 1000) as usize;
        let back = LinkConfig { latency, jitter: JITTER, ..LinkConfig::default() };
        let there = LinkConfig { rate: Some(rate), queue, ..back.clone() };
        let mut this = Self::new(back, seed);
        let (now, opts) = (this.now, ConnectOptions::default());
        let (mut a, mut b) = (Side::new(A, seed), Side::new(B, seed ^ 0xffff));
        a.connect(B, address(2), opts.clone(), now);
        b.connect(A, address(1), opts, now);
        let from = now + after;
        this.add(home(1), Host::new(a, Some(Cubic::new(now)), from));
        this.add(home(2), Host::new(b, None, from));
        this.link(0, 1).cfg = there;
        this.machines[0].ours.total = u64::MAX / 2;
        this
    }

    /// Shares of the link over `secs` seconds: ours, theirs.
    fn shares(&mut self, secs: u64) -> (f64, f64) {
        let taken = |this: &Self| (this.machines[1].ours.sink.bytes, this.machines[1].taken);
        let before = taken(self);
        self.run(Duration::from_secs(secs));
        let after = taken(self);
        let total = (self.link(0, 1).cfg.rate.unwrap() * secs) as f64;
        ((after.0 - before.0) as f64 / total, (after.1 - before.1) as f64 / total)
    }
}

/// Shares of a link of `rate` Mbit/s once both had ten seconds to find theirs.
fn shares_beside_tcp(rate: u64, rtt_ms: u64, queue_ms: u64, seed: u64) -> (f64, f64) {
    let mut beside = Beside::beside(rate, rtt_ms, queue_ms, Duration::from_secs(3), seed);
    beside.run(Duration::from_secs(10));
    let shares = beside.shares(30);
    println!("{rate} Mbit/s, {rtt_ms} ms, queue {queue_ms} ms: ours, TCP's {shares:.2?}");
    shares
}

#[test]
fn a_tcp_connection_beside_us_keeps_its_share() {
    const SEEDS: u64 = 4;
    for (rtt, queue) in [(10, 20), (10, 100), (40, 20), (40, 100)] {
        // Who has more for half a minute is partly chance.
        let shares: Vec<_> =
            (0..SEEDS).map(|seed| shares_beside_tcp(20, rtt, queue, seed)).collect();
        let ours = shares.iter().map(|(ours, _)| ours).sum::<f64>() / SEEDS as f64;
        let theirs = shares.iter().map(|(_, theirs)| theirs).sum::<f64>() / SEEDS as f64;
        assert!(theirs >= 0.3 && ours >= 0.3, "{ours} {theirs}");
        assert!(shares.iter().all(|(_, theirs)| *theirs >= 0.25), "{shares:?}");
    }
}

#[test]
fn a_tcp_connection_beside_us_lives_on_a_fast_path() {
    // With a short queue it needs longer to climb there than we leave it, and has 0.2 to 0.4.
    for (queue, least) in [(20, 0.18), (100, 0.3)] {
        let (ours, theirs) = shares_beside_tcp(100, 50, queue, 1);
        assert!(theirs >= least && ours >= 0.3, "{ours} {theirs}");
    }
}

#[test]
fn a_tcp_connection_beside_us_lives_on_a_long_path_with_a_short_queue() {
    let (ours, theirs) = shares_beside_tcp(20, 100, 20, 2);
    assert!(theirs >= 0.2 && ours >= 0.28, "{ours} {theirs}");
}

#[test]
fn what_a_neighbour_leaves_is_taken_within_seconds() {
    let mut beside = Beside::beside(20, 40, 20, Duration::ZERO, 1);
    beside.run(Duration::from_secs(10));
    beside.machines[0].from = beside.now + Duration::from_secs(3600);
    beside.run(Duration::from_secs(3));
    let (ours, _) = beside.shares(10);
    assert!(ours >= 0.93, "{ours}");
}
