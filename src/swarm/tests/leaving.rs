//! When a relay is left, and what becomes of the two whose relay or whose peer left them.

use super::super::udx::packet::flag;
use super::super::*;
use super::relaying::{Lab, behind, forge, forge_from, relays};
use super::sim::Network;
use crate::sim::Kind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const STEP: Duration = Duration::from_millis(50);

/// Where nobody is, each time another place.
fn stranger(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new([90, 0, (n >> 8) as u8, n as u8].into(), 5000)
}

/// Both say something every quarter of a second, `during` is done before each step: the longest silence of either
/// direction, and how often a connection ended.
pub(super) fn silence(
    lab: &mut Lab,
    (a, b): (usize, usize),
    time: Duration,
    mut during: impl FnMut(&mut Lab, u32),
) -> (Duration, usize) {
    let (mut last, mut longest) = ([lab.network.elapsed(); 2], Duration::ZERO);
    let mut had = [a, b].map(|i| lab.network.frames(i).len());
    for step in 0..time.div_duration_f64(STEP) as u32 {
        during(lab, step);
        if step % 5 == 0 {
            for i in [a, b] {
                if let Some(conn) = lab.network.open(i).last().copied() {
                    lab.network.send_frame(i, conn, &[1; 100]);
                }
            }
        }
        lab.network.run(STEP);
        for (k, i) in [a, b].into_iter().enumerate() {
            let (has, now) = (lab.network.frames(i).len(), lab.network.elapsed());
            longest = longest.max(now - last[k]);
            if has > had[k] {
                (had[k], last[k]) = (has, now);
            }
        }
    }
    (longest, [a, b].map(|i| lab.network.closed(i).len()).iter().sum())
}

/// One side's trial of the direct way comes to nothing, for what it asked got lost, and the other's does not.
#[test]
fn whose_peer_went_to_the_direct_way_does_not_wait_on_a_dead_leg() {
    let kinds = [
        (Kind::Port, Kind::Port),
        (Kind::Open, Kind::Port),
        (Kind::Port, Kind::Sym),
        (Kind::Sym, Kind::Port),
        (Kind::Addr, Kind::Full),
    ];
    // Those of forty that took longer before: up to half a minute, or for good.
    let cases = crate::sim::cases(8).cases as u64;
    for (latency, loss, seeds) in [(250, 0.05, 8..8 + cases), (100, 0.1, 0..cases)] {
        let mut all = Vec::new();
        for seed in seeds {
            let (of_a, of_b) = kinds[seed as usize % kinds.len()];
            let mut lab = Lab::new(seed + 100, 0.0);
            let a = lab.sharer(of_a, vec![]);
            let latency = Duration::from_millis(latency);
            lab.network.every_link(|link| (link.latency, link.loss) = (latency, loss));
            let b = lab.reader(of_b, vec![lab.key]);
            lab.connected(a, b, Duration::from_secs(60)).unwrap();
            let (longest, closed) = silence(&mut lab, (a, b), Duration::from_secs(60), |_, _| {});
            all.push((longest, closed, seed));
        }
        println!("{latency} ms, {loss}: {all:?}");
        let fine = |(longest, closed, _): &_| *longest < Duration::from_secs(6) && *closed == 0;
        assert!(all.iter().all(fine), "{latency} ms, {loss}: {all:?}");
    }
}

/// Whoever knows the ids of their streams says again and again that either is elsewhere, once a second or faster.
#[test]
fn forged_packets_neither_end_nor_silence_those_who_have_a_direct_way() {
    for (of_a, of_b) in [(Kind::Port, Kind::Sym), (Kind::Sym, Kind::Port)] {
        for (seed, every) in [(11, 4), (13, 4), (16, 20), (18, 20)] {
            let mut lab = Lab::new(seed, 0.0);
            let (a, b) = (lab.sharer(of_a, vec![]), lab.reader(of_b, vec![lab.key]));
            let leg = |n: &Network, i: usize| {
                let swarm = &n.machines[i].swarm;
                let mut streams = swarm.connections.streams().into_iter();
                streams.find(|stream| swarm.udx.leg(*stream).is_some())
            };
            let any = |n: &Network| leg(n, a).or(leg(n, b)).is_some();
            lab.network.run_until(Duration::from_secs(5), any).unwrap();
            let mut n = 0;
            let forge = |lab: &mut Lab, step| {
                for i in [a, b] {
                    if step % every == 0
                        && let Some(stream) = leg(&lab.network, i)
                    {
                        n += 1;
                        forge_from(lab, i, stream, stranger(n));
                    }
                }
            };
            let (longest, closed) = silence(&mut lab, (a, b), Duration::from_secs(40), forge);
            println!("{of_a:?} {of_b:?}, {seed}: {longest:?}");
            assert!(closed == 0 && longest < ms(1500), "{of_a:?} {of_b:?}, {seed}: {longest:?}");
            assert!(!lab.is_relayed(a) && !lab.is_relayed(b), "{of_a:?} {of_b:?}, {seed}");
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Somebody said that the peer is elsewhere. When the relay ends, another one is at hand, and the way that was told is no way.
#[test]
fn who_was_told_a_forged_way_does_not_go_there_when_the_relay_ends() {
    for seed in 21..24 {
        let mut lab = Lab::new(seed, 0.0);
        let second = behind(&mut lab.network, Kind::Open, 101, vec![]);
        let other = relays(&mut lab.network, second, RelayLimits::default());
        let a = lab.sharer(Kind::Sym, vec![]);
        let b = lab.reader(Kind::Sym, vec![lab.key, other]);
        lab.connected(a, b, Duration::from_secs(5)).unwrap();
        assert!(lab.carries(a, b));
        let stream = lab.network.open(b)[0].stream();
        forge_from(&mut lab, b, stream, stranger(1));
        lab.network.run(Duration::from_secs(2));
        let relay = if lab.is_relayed(a) { lab.relay } else { second };
        lab.network.on(relay, |peer, now| peer.swarm.set_relay(None, now));
        let (longest, _) = silence(&mut lab, (a, b), Duration::from_secs(8), |_, _| {});
        println!("{longest:?}");
        assert!(longest < Duration::from_secs(2), "{seed}: {longest:?}");
    }
}

/// Who has left takes the legs of both away.
#[test]
fn both_leave_the_relay_once_both_are_settled_and_not_before() {
    for seed in 1..4 {
        let mut lab = Lab::new(seed, 0.0);
        let (a, b) = (lab.sharer(Kind::Sym, vec![]), lab.reader(Kind::Port, vec![lab.key]));
        let settled = |n: &Network, i: usize| {
            let swarm = &n.machines[i].swarm;
            n.open(i).first().is_some_and(|conn| swarm.udx.is_settled(conn.stream()))
        };
        let relayed = |n: &Network, i: usize| !n.machines[i].swarm.relayed.is_empty();
        lab.connected(a, b, Duration::from_secs(10)).unwrap();
        let gone = |n: &Network| {
            let left = [a, b].map(|i| !relayed(n, i));
            assert!(!left[0] && !left[1] || settled(n, a) && settled(n, b), "{seed}");
            left[0] && left[1]
        };
        assert!(lab.network.run_until(Duration::from_secs(10), gone).is_some(), "{seed}");
    }
}

/// A stream of a machine that has a leg.
fn with_leg(n: &Network, i: usize) -> Option<u32> {
    let swarm = &n.machines[i].swarm;
    let conn = n.open(i).last()?.stream();
    swarm.udx.leg(conn).is_some().then_some(conn)
}

/// The direct way dies when one of both is settled. It hears the other through the relay, where it does not lead to.
#[test]
fn a_direct_way_that_dies_before_both_are_settled_costs_a_moment() {
    let cases = [
        (0, Kind::Port, Kind::Port),
        (3, Kind::Sym, Kind::Port),
        (4, Kind::Addr, Kind::Full),
        (5, Kind::Cgnat, Kind::Port),
        (8, Kind::Port, Kind::Sym),
    ];
    for (seed, of_a, of_b) in cases {
        let mut lab = Lab::new(seed + 100, 0.0);
        let a = lab.sharer(of_a, vec![]);
        lab.network.every_link(|link| (link.latency, link.loss) = (ms(100), 0.05));
        let b = lab.reader(of_b, vec![lab.key]);
        lab.connected(a, b, Duration::from_secs(60)).unwrap();
        let settled = |n: &Network| {
            let is = |i| with_leg(n, i).map(|s| n.machines[i].swarm.udx.is_settled(s));
            matches!((is(a), is(b)), (Some(a), Some(b)) if a != b)
        };
        let mut half = false;
        silence(&mut lab, (a, b), Duration::from_secs(5), |lab, _| {
            if !half && settled(&lab.network) {
                half = true;
                let inner = [a, b].map(|i| *lab.network.addr(i).ip());
                let outer = [1, 2].map(|n| Ipv4Addr::new(80, 0, n, 1));
                lab.network.tap = Some(Box::new(move |d| {
                    !(inner.contains(d.from.ip()) && outer.contains(d.to.ip()))
                }));
            }
        });
        assert!(half, "{seed}");
        let (longest, closed) = silence(&mut lab, (a, b), Duration::from_secs(30), |_, _| {});
        println!("{seed}: {longest:?}");
        assert!(closed == 0 && longest < Duration::from_secs(6), "{seed}: {longest:?}, {closed}");
    }
}

/// Whoever knows the id of a stream says that it ends, from anywhere: also from where the peer is looked for because of that.
#[test]
fn nobody_but_the_peer_ends_a_stream_that_has_a_leg() {
    let mut lab = Lab::new(7, 0.0);
    let (a, b) = (lab.sharer(Kind::Sym, vec![]), lab.reader(Kind::Sym, vec![lab.key]));
    lab.connected(a, b, Duration::from_secs(10)).unwrap();
    lab.network.run(Duration::from_secs(5));
    let stream = with_leg(&lab.network, a).unwrap();
    for seq in [1 << 8, 1 << 30, 3 << 30] {
        forge(&mut lab, a, stream, stranger(1), (flag::DESTROY, seq));
        lab.network.run(ms(50));
    }
    assert!(lab.network.closed(a).is_empty());
    assert!(lab.carries(a, b));
}
