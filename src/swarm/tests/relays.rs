//! Peers with no direct way, and relays that are no help: the honest one is found among them.

use super::super::*;
use super::relaying::{CLIENT, Lab, SERVER, TOPIC, behind, relays};
use super::sim::Peer;
use crate::sim::Kind;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
enum Hostile {
    NeverPairs,
    /// Passes no more on than so much of what comes for a leg.
    Stingy(u64),
}

impl Hostile {
    fn take(self, lab: &mut Lab, i: usize) {
        lab.network.on(i, |peer, _| match self {
            Self::NeverPairs => peer.swarm.relay.as_mut().unwrap().mute = true,
            Self::Stingy(most) => peer.swarm.udx.be_stingy(most),
        });
    }
}

/// How long it takes until a reader has 20 kB of a sharer, between whom there is no direct way. So many seeds of the drive
/// are hostile relays, nearer than the honest one.
fn found_after(hostile: Hostile, count: u8, seed: u64) -> Option<Duration> {
    let mut lab = Lab::new(seed, 0.0);
    let mut bad = vec![lab.relay];
    for n in 1..count {
        let i = behind(&mut lab.network, Kind::Open, 110 + n, vec![]);
        relays(&mut lab.network, i, RelayLimits::default());
        lab.network.join(i, TOPIC, SERVER);
        bad.push(i);
    }
    bad.iter().for_each(|bad| hostile.take(&mut lab, *bad));
    let honest = behind(&mut lab.network, Kind::Open, 101, vec![]);
    relays(&mut lab.network, honest, RelayLimits::default());
    lab.network.join(honest, TOPIC, SERVER);
    lab.relay_seeds();
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = behind(&mut lab.network, Kind::Sym, 2, vec![]);
    for (from, to) in bad.iter().flat_map(|bad| [(b, *bad), (*bad, b)]) {
        lab.network.link(from, to).cfg.latency = 2 * MS;
    }
    lab.network.join(b, TOPIC, CLIENT);
    let (start, sharer, mut last) = (lab.network.now, lab.network.key(a), None);
    while lab.network.now < start + 240_000 * MS {
        lab.network.run(100 * MS);
        let status = lab.network.machines[b].swarm.status();
        let open = status.connections.into_iter().find(|c| c.open && c.remote == sharer);
        let conn = open.map(|c| c.conn);
        if let Some(conn) = conn.filter(|_| conn != last) {
            lab.network.send_frame(b, conn, &[5; 40]);
        }
        last = conn;
        let events = std::mem::take(&mut lab.network.machines[a].events);
        for event in events {
            if let SwarmEvent::Frame { conn, .. } = event {
                lab.network.send_frame(a, conn, &[9; 20_000]);
            }
        }
        if lab.network.frames(b).iter().any(|frame| frame.len() == 20_000) {
            return Some(lab.network.now - start);
        }
    }
    None
}

fn is_found_within(hostile: Hostile, count: u8, limit: Duration) {
    for seed in 6..11 {
        let took = found_after(hostile, count, seed);
        println!("{hostile:?}, {count}, {seed}: {took:?}");
        assert!(took.is_some_and(|took| took <= limit), "{hostile:?}, {count}, {seed}: {took:?}");
    }
}

#[test]
fn beside_relays_that_never_pair_the_honest_one_is_found() {
    is_found_within(Hostile::NeverPairs, 1, 4000 * MS);
    is_found_within(Hostile::NeverPairs, 5, 12_000 * MS);
}

#[test]
fn beside_relays_that_pass_nothing_on_the_honest_one_is_found() {
    is_found_within(Hostile::Stingy(0), 1, 4000 * MS);
    is_found_within(Hostile::Stingy(0), 5, 12_000 * MS);
}

#[test]
fn beside_relays_that_pass_a_little_on_the_honest_one_is_found() {
    is_found_within(Hostile::Stingy(1500), 1, 4000 * MS);
    is_found_within(Hostile::Stingy(1500), 5, 15_000 * MS);
    is_found_within(Hostile::Stingy(300), 5, 15_000 * MS);
}

#[test]
#[ignore = "long: make test-long"]
fn among_many_hostile_relays_the_honest_one_is_found() {
    for hostile in [Hostile::NeverPairs, Hostile::Stingy(0), Hostile::Stingy(1500)] {
        is_found_within(hostile, 16, 60_000 * MS);
    }
}

/// A stream of `b` to `a`, which have no direct way, as soon as it has paired with a relay that passes nothing on.
fn just_paired(lab: &mut Lab) -> (usize, u32, PublicKey) {
    let relay = lab.relay;
    Hostile::Stingy(0).take(lab, relay);
    let a = lab.sharer(Kind::Sym, vec![]);
    let b = lab.reader(Kind::Sym, vec![lab.key]);
    let paired = |n: &mut Peer| {
        let streams = n.swarm.connections.streams();
        streams.into_iter().find(|stream| n.swarm.udx.leg(*stream).is_some())
    };
    loop {
        lab.network.run(5 * MS);
        if let Some(stream) = paired(&mut lab.network.machines[b]) {
            return (b, stream, lab.network.key(a));
        }
    }
}

#[test]
fn a_relay_that_had_no_time_to_help_is_no_worse_than_others() {
    for (wait, noted) in [(100, 0), (1100, 1)] {
        let mut lab = Lab::new(4, 0.0);
        let (b, stream, peer) = just_paired(&mut lab);
        lab.network.run(wait * MS);
        let key = lab.key;
        let times = lab.network.on(b, |b, now| {
            b.swarm.dial_failed(stream, "for a test".to_string(), now);
            b.swarm.dht.silent_relays().times(&key, &peer)
        });
        assert_eq!(times, noted, "after {wait} ms");
    }
}

/// Whoever has no other way is told that it is the relay.
#[test]
fn a_relay_that_was_named_and_is_none_is_known_until_it_is_there() {
    let mut lab = Lab::new(3, 0.0);
    let a = lab.sharer(Kind::Sym, vec![]);
    let sharer = lab.network.on(a, |peer, _| PublicKey(peer.swarm.key_pair.public()));
    let nobody = PublicKey(KeyPair::from_seed(&[99; 32]).public());
    for (n, wrong) in [(1, nobody), (2, sharer)] {
        let b = behind(&mut lab.network, Kind::Sym, 10 + n, vec![wrong]);
        lab.network.join(b, TOPIC, CLIENT);
        lab.network.run(Duration::from_secs(30));
        let status = lab.network.on(b, |peer, _| peer.swarm.status());
        assert_eq!(status.absent_relays, [wrong], "{n}: {status:?}");
        assert_eq!(status.reachability[&TOPIC].failed, 1);
    }
    let b = behind(&mut lab.network, Kind::Sym, 20, vec![lab.key]);
    lab.network.join(b, TOPIC, CLIENT);
    assert!(lab.meet(a, b, Duration::from_secs(20)).is_some());
    assert!(lab.network.on(b, |peer, _| peer.swarm.status()).absent_relays.is_empty());
}
