//! Accepted handshakes that are no connections so far: who of them gives way when there are too many.

use super::strangers::{Stranger, elsewhere, enter, key};
use super::*;
use crate::swarm::connections::TIME_TO_ANSWER;
use std::net::SocketAddrV4;

const KEYS: u32 = 20;
const HONEST: u32 = 12;

/// Strangers who are connected under some keys, and shake hands under them again and again.
struct Crowd {
    /// Who they are, and how many each: a key at a host.
    members: Vec<(PublicKey, SocketAddrV4)>,
    /// Whether they send a header frame, and no more, on what comes of it.
    headers: bool,
    handshakes: u32,
    held: Vec<Stranger>,
}

impl Crowd {
    fn enter(world: &mut Network, members: Vec<(PublicKey, SocketAddrV4)>, headers: bool) -> Self {
        let held = members.iter().enumerate();
        let held = held.map(|(n, (key, from))| enter(world, *key, n as u32, *from, Some(b"hi")));
        let held = held.collect();
        Self { members, headers, handshakes: 1000, held }
    }

    /// They shake hands for `time`, `rate` times a second.
    fn shake(&mut self, world: &mut Network, rate: u32, time: Duration) {
        let end = world.now + time;
        while world.now < end {
            self.handshakes += 1;
            let (key, from) = self.members[self.handshakes as usize % self.members.len()];
            let mut stranger = Stranger::shake(world, key, self.handshakes, None, false);
            if self.headers {
                let header = stranger.sealer.header().to_vec();
                stranger.write(header, world.now);
                stranger.speak(world, from);
                self.held.push(stranger);
            }
            world.run(Duration::from_secs(1) / rate);
        }
    }
}

/// How many of [`HONEST`] tries of swarm 0 to connect succeed though its first packet comes `rtt` after its handshake.
fn honest(members: Vec<(PublicKey, SocketAddrV4)>, headers: bool, rate: u32, rtt: u64) -> u32 {
    let mut world = Network::two();
    let mut crowd = Crowd::enter(&mut world, members, headers);
    crowd.shake(&mut world, rate, Duration::from_secs(10));
    assert!(world.machines[1].swarm.connections.waiting() >= MAX_WAITING);
    let mut in_time = 0;
    for n in 0..HONEST {
        let (us, them, now) = (world.key(0), world.key(1), world.now);
        let connect = ConnectId(2000 + u64::from(n));
        let swarm = &mut world.machines[0].swarm;
        let local = swarm.udx.open(None).unwrap();
        let id = swarm.connections.name(local);
        let phase = Phase::Dialling { connect, until: now + DIAL_TIMEOUT };
        swarm.connections.insert(Connection::new(id, them, true, phase, now));
        swarm.peers.connecting(them, now);
        let remote_id = 900_000 + n;
        let agreed = |remote, local_id, remote_id, tx, rx, dial: Option<Dial>| {
            let (hash, initiator) = ([100 + n as u8; 64], dial.is_some());
            let keys = SessionKeys { tx, rx, hash, remote, initiator };
            Agreed {
                keys,
                local_id,
                remote_id,
                dial,
                big_datagrams: false,
                relays: Relays::default(),
            }
        };
        let theirs = agreed(us, remote_id, local, [2; 32], [1; 32], None);
        world.machines[1].swarm.accepted(theirs, now);
        crowd.shake(&mut world, rate, Duration::from_millis(rtt));
        let dial = Some(Dial { socket: SocketId::MAIN, to: sim::port(1).into() });
        let ours = agreed(them, local, remote_id, [1; 32], [2; 32], dial);
        let now = world.now;
        world.machines[0].swarm.dialled(connect, ours, now);
        world.run(Duration::from_millis(200));
        let is_in = |c: &Connection| c.remote == us && c.is_peer();
        in_time += u32::from(world.machines[1].swarm.connections.iter().any(is_in));
        for stream in world.machines[0].swarm.connections.streams() {
            let now = world.now;
            world.machines[0].swarm.destroy(stream, Closed::Local, now);
        }
        world.run(Duration::from_millis(300));
    }
    in_time
}

#[test]
fn strangers_who_shake_hands_again_and_again_keep_no_newcomer_out() {
    let one = || vec![(key(7), elsewhere(1))];
    let of_one_host = || (20..20 + KEYS).map(|n| (key(n as u8), elsewhere(1))).collect();
    for (members, headers, rate, rtt) in [
        (one(), true, 30, 100),
        (one(), true, 100, 50),
        (one(), true, 100, 1000),
        (one(), false, 100, 1000),
        (of_one_host(), true, 100, 1000),
    ] {
        let what = format!("{} keys, headers {headers}, {rate}/s, {rtt} ms", members.len());
        assert_eq!(honest(members, headers, rate, rtt), HONEST, "{what}");
    }
}

/// Of honest newcomers, `group` at once from one host, how many of `all` are still waited for when they have had a second
/// to show where they are. Beside them 100 a second shake hands, each under another key, and speak in the name of
/// others, every `named`th in that of the honest host.
fn beside_forged(named: u32, group: u32, headers: bool) -> (usize, usize) {
    let mut world = Network::two();
    let someone = |n: u32| PublicKey(crate::crypto::hash::hash(&[&n.to_le_bytes()]));
    let honest = |n: u32| SocketAddrV4::new([77, 0, 0, 1].into(), 4000 + n as u16);
    let come = |world: &mut Network, n: u32, from, header: bool| {
        let mut stranger = Stranger::shake(world, someone(n), n, None, false);
        if header {
            let header = stranger.sealer.header().to_vec();
            stranger.write(header, world.now);
            stranger.speak(world, from);
        }
        stranger
    };
    let (mut held, mut newcomers, mut all, mut stay) = (vec![], vec![], 0, 0);
    for n in 0..800u32 {
        let from = if n % named == 0 { honest(n) } else { elsewhere(n) };
        held.push(come(&mut world, n, from, headers));
        if n >= 300 && n % 100 == 0 {
            newcomers = (0..group).map(|g| 100_000 + n + g).collect();
            held.extend(newcomers.iter().map(|&n| come(&mut world, n, honest(n), true)));
            all += newcomers.len();
        }
        world.run(Duration::from_millis(10));
        if n % 100 == 99 {
            let connections = &mut world.machines[1].swarm.connections;
            let waits = |n: &&u32| connections.by_stream(0x10_0000 + **n).is_some();
            stay += newcomers.iter().filter(waits).count();
        }
    }
    assert!(world.machines[1].swarm.connections.waiting() >= MAX_WAITING);
    (stay, all)
}

#[test]
fn who_speaks_in_the_name_of_a_host_does_not_have_its_newcomers_give_way() {
    for (named, group, headers) in
        [(2, 1, true), (10, 1, true), (1000, 10, true), (1000, 10, false), (3, 4, false)]
    {
        let (stay, all) = beside_forged(named, group, headers);
        assert_eq!(stay, all, "every {named}th, {group} at once, headers {headers}");
    }
}

#[test]
fn of_those_who_are_alike_the_oldest_without_a_header_frame_gives_way() {
    let mut world = Network::two();
    let now = world.now;
    let mut held = Vec::new();
    // Two who are connected already, and send a header frame, are the oldest of all.
    for n in 0..2 {
        held.push(enter(&mut world, key(10 + n), u32::from(n), elsewhere(n.into()), Some(b"hi")));
        let mut again = Stranger::shake(&mut world, key(10 + n), 10 + u32::from(n), None, false);
        let header = again.sealer.header().to_vec();
        again.write(header, now);
        again.speak(&mut world, elsewhere(n.into()));
        held.push(again);
    }
    for n in 2..6 {
        world.run(Duration::from_millis(10));
        held.push(Stranger::shake(&mut world, key(10 + n), 20 + u32::from(n), None, false));
    }
    let (mut rng, late) = (StdRng::seed_from_u64(1), world.now + TIME_TO_ANSWER);
    let connections = &mut world.machines[1].swarm.connections;
    let gone: Vec<_> = std::iter::from_fn(|| {
        let stream = connections.next_to_give_way(&mut rng, late)?;
        connections.remove(stream).map(|c| (c.remote, c.has_header()))
    })
    .collect();
    let order = [(2, false), (3, false), (4, false), (5, false), (0, true), (1, true)];
    assert_eq!(gone, order.map(|(n, header)| (key(10 + n), header)));
}
