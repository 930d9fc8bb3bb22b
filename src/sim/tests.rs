//! The virtual network itself, with machines that only echo and count.

mod nat;

use super::*;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Sends what it is told to at its time, keeps what comes, and answers a datagram that begins with `?`.
#[derive(Default)]
struct Echo {
    plan: Agenda<(SocketAddrV4, Vec<u8>)>,
    out: Vec<(SocketAddrV4, Vec<u8>)>,
    heard: Vec<(Instant, Vec<u8>)>,
    /// Datagrams that were read at once.
    batches: Vec<usize>,
}

impl Machine for Echo {
    fn receive(&mut self, datagrams: &[Datagram], now: Instant) {
        self.batches.push(datagrams.len());
        for datagram in datagrams {
            self.heard.push((now, datagram.bytes.clone()));
            if datagram.bytes[0] == b'?' {
                self.out.push((datagram.from, b"!".to_vec()));
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some(sent) = self.plan.pop(now) {
            self.out.push(sent);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.plan.next()
    }

    fn transmit(&mut self, _: Instant, out: &mut Vec<Outgoing>) {
        out.extend(self.out.drain(..).map(|(to, bytes)| Outgoing::new(to, bytes)));
    }
}

fn addr(n: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, n), 1)
}

fn two(pattern: LinkConfig) -> Net<Echo> {
    let mut net = Net::new(pattern, 1);
    net.add(addr(0), Echo::default());
    net.add(addr(1), Echo::default());
    net
}

fn say(net: &mut Net<Echo>, from: usize, to: u8, bytes: &[u8]) {
    net.on(from, |echo, _| echo.out.push((addr(to), bytes.to_vec())));
}

/// When machine `i` heard something, since the beginning.
fn times(net: &Net<Echo>, i: usize) -> Vec<Duration> {
    net.machines[i].heard.iter().map(|(at, _)| *at - net.start).collect()
}

#[test]
fn time_jumps_to_what_happens_next_and_stops_where_it_was_told_to() {
    let mut net = two(LinkConfig { latency: 10 * MS, ..LinkConfig::default() });
    let at = net.now + 5 * MS;
    net.machines[0].plan.put(at, (addr(1), b"?".to_vec()));
    let took = net.run_until(Duration::from_secs(3600), |net| !net.machines[0].heard.is_empty());
    assert_eq!((took, net.elapsed()), (Some(25 * MS), 25 * MS));
    assert_eq!((times(&net, 1), net.machines[0].heard[0].1.clone()), (vec![15 * MS], vec![b'!']));
    net.run(MS);
    assert_eq!((net.elapsed(), net.step()), (26 * MS, false));
    assert_eq!((net.datagrams, net.datagrams_of(0)), (2, 2));
}

#[test]
fn a_bottleneck_makes_packets_wait_and_drops_what_does_not_fit() {
    let rate = LinkConfig { rate: Some(1000), queue: 350, latency: MS, ..LinkConfig::default() };
    let mut net = two(rate);
    (0..5).for_each(|_| say(&mut net, 0, 1, &[0; 72]));
    net.run(Duration::from_secs(1));
    assert_eq!(times(&net, 1), [101 * MS, 201 * MS, 301 * MS]);
    assert_eq!(net.link(0, 1).stats.overflowed, 2);
    // The way back is a link of its own.
    assert_eq!(net.link(1, 0).stats.sent, 0);
}

#[test]
fn loss_doubles_and_overtaking_happen_as_often_as_they_are_set() {
    let mut net = two(LinkConfig { loss: 0.25, ..LinkConfig::default() });
    let counts = |net: &mut Net<Echo>| {
        for n in 0..1000u16 {
            say(net, 0, 1, &n.to_be_bytes());
            net.run(MS);
        }
        net.run(Duration::from_secs(1));
        let heard: Vec<Vec<u8>> = net.machines[1].heard.drain(..).map(|(_, bytes)| bytes).collect();
        (heard.len(), heard.windows(2).filter(|w| w[0] > w[1]).count())
    };
    let (heard, overtaken) = counts(&mut net);
    assert!((700..800).contains(&heard) && overtaken == 0, "{heard} {overtaken}");
    net.every_link(|link| (link.loss, link.duplicate, link.reorder) = (0.0, 0.5, 0.1));
    let (heard, overtaken) = counts(&mut net);
    assert!((1400..1600).contains(&heard) && (50..300).contains(&overtaken), "{heard} {overtaken}");
}

#[test]
fn a_run_is_replayed_from_its_seed() {
    let run = |seed| {
        let pattern = LinkConfig { loss: 0.5, jitter: 20 * MS, ..LinkConfig::default() };
        let mut net = Net::new(pattern, seed);
        for n in 0..2 {
            net.add(addr(n), Echo::default());
        }
        for _ in 0..50 {
            say(&mut net, 0, 1, b"?");
            net.run(MS);
        }
        net.run(Duration::from_secs(1));
        (times(&net, 0), times(&net, 1))
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn who_stands_still_reads_everything_at_once_and_who_is_down_nothing() {
    let mut net = two(LinkConfig { latency: MS, ..LinkConfig::default() });
    let late = net.now + 10 * MS;
    net.machines[1].plan.put(late, (addr(0), b"late".to_vec()));
    net.settle();
    net.freeze(1, 50 * MS);
    (0..300).for_each(|_| say(&mut net, 0, 1, b"?"));
    net.run(100 * MS);
    // A socket keeps so many; then the timer, and one answer to each.
    assert_eq!(net.machines[1].batches, [250]);
    assert_eq!(times(&net, 1)[0], 50 * MS);
    let heard: Vec<&[u8]> = net.machines[0].heard.iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!((heard.len(), heard[250], times(&net, 0)[250]), (251, &b"late"[..], 51 * MS));

    let soon = net.now + MS;
    net.down(1);
    net.machines[1].plan.put(soon, (addr(0), b"!".to_vec()));
    say(&mut net, 0, 1, b"?");
    net.run(50 * MS);
    assert_eq!((net.machines[1].heard.len(), net.machines[0].heard.len()), (250, 251));
    net.up(1);
    net.run(50 * MS);
    assert_eq!((net.machines[1].heard.len(), net.machines[0].heard.len()), (250, 252));
}

#[test]
fn a_tap_sees_changes_and_drops_what_leaves() {
    let mut net = two(LinkConfig::default());
    net.tap = Some(Box::new(|datagram| {
        datagram.bytes.push(b'+');
        datagram.bytes[0] != b'x'
    }));
    ["x", "y"].into_iter().for_each(|text| say(&mut net, 0, 1, text.as_bytes()));
    assert_eq!(net.under_way(0, 1), 1);
    net.run(Duration::from_secs(1));
    assert_eq!(net.machines[1].heard.len(), 1);
    assert_eq!(net.machines[1].heard[0].1, b"y+");
}
