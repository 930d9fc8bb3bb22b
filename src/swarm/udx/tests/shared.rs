//! Two of our streams on one bottleneck.

use super::flow::path;
use super::*;

/// The ids of the second stream have this bit.
const SECOND: u32 = 0x10000;

/// When it begins to send.
const BEGINS: Duration = Duration::from_secs(3);

/// Two streams, each a machine of its own, at one end of a link.
struct Two {
    sides: [Side; 2],
    /// When the second begins to send, if it is still to.
    from: Option<Instant>,
}

impl Machine for Two {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        for (side, bit) in self.sides.iter_mut().zip([0, SECOND]) {
            let is_its = |datagram: &&Datagram| {
                packet::stream_id(&datagram.bytes).is_some_and(|id| id & SECOND == bit)
            };
            let its: Vec<_> = datagrams.iter().filter(is_its).cloned().collect();
            if !its.is_empty() {
                side.receive(&its, now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        for side in &mut self.sides {
            if side.poll_timeout().is_some_and(|at| at <= now) {
                side.handle_timeout(now);
            }
        }
        if self.from.take_if(|at| *at <= now).is_some() {
            self.sides[1].total = u64::MAX / 2;
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let from = self.from;
        self.sides.iter_mut().filter_map(Side::poll_timeout).chain(from).min()
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        self.sides.iter_mut().for_each(|side| side.transmit(now, out));
    }
}

/// A link and two streams on it, of which the second begins to send three seconds after the first.
fn two((mut there, mut back): (LinkConfig, LinkConfig), seed: u64) -> Net<Two> {
    (there.jitter, back.jitter) = (Duration::from_micros(500), Duration::from_micros(500));
    let mut net = Net::new(back, seed);
    let (now, from) = (net.now, net.now + BEGINS);
    for (id, remote, port, to) in [(A, B, 1, 2), (B, A, 2, 1)] {
        let sides = [0, SECOND].map(|bit| {
            let mut side = Side::new(id | bit, seed ^ u64::from(id | bit));
            side.connect(remote | bit, address(to), ConnectOptions::default(), now);
            side
        });
        net.add(home(port), Two { sides, from: (id == A).then_some(from) });
    }
    net.link(0, 1).cfg = there;
    net.machines[0].sides[0].total = u64::MAX / 2;
    net
}

/// Share of the second stream in the payload over `secs` seconds, once both had ten seconds to find theirs; and what of the
/// link is used.
fn second_of_two(config: (LinkConfig, LinkConfig), secs: u64, seed: u64) -> (f64, f64) {
    let bytes = config.0.rate.unwrap() as f64 * secs as f64;
    let mut net = two(config, seed);
    net.run(BEGINS + Duration::from_secs(10));
    let taken = |net: &Net<Two>| [0, 1].map(|i| net.machines[1].sides[i].sink.bytes as f64);
    let before = taken(&net);
    net.run(Duration::from_secs(secs));
    let after = taken(&net);
    let [first, second] = [0, 1].map(|i| after[i] - before[i]);
    (second / (first + second), (first + second) / bytes)
}

#[test]
fn two_streams_share_a_link() {
    for (rate, rtt, queue, loss, least) in [
        (20, 40, 20, 0.0, 0.4),
        (20, 40, 100, 0.0, 0.4),
        (20, 10, 20, 0.0, 0.4),
        (100, 50, 100, 0.01, 0.4),
        // It takes half a minute there.
        (100, 200, 100, 0.01, 0.3),
    ] {
        for seed in 0..4 {
            let (second, used) = second_of_two(path(rate, rtt, queue, loss), 20, seed);
            let context = format!("{rate} Mbit/s, {rtt} ms, queue {queue} ms, loss {loss}");
            println!("{context}: {second:.2} {used:.2}");
            assert!((least..=1.0 - least).contains(&second), "{context}: {second}");
            assert!(used >= 0.9, "{context}: {used}");
        }
    }
}

#[test]
fn a_start_beside_another_stream_drops_no_more_than_it_takes_to_notice() {
    for seed in 0..8 {
        let mut net = two(path(20, 40, 20, 0.0), seed);
        net.run(BEGINS);
        let before = net.link(0, 1).stats.overflowed;
        net.run(Duration::from_secs(3));
        let overflowed = net.link(0, 1).stats.overflowed - before;
        println!("{overflowed} packets dropped");
        // Of 5,000, and 100 fill pipe and queue.
        assert!(overflowed < 180, "{overflowed}");
    }
}
