//! Who is told which cores are here: peers of a topic hear of its cores, and nobody hears of others.

use super::*;

/// Cores that are read here, and their names.
fn cores(sim: &mut Sim, count: u8) -> (Vec<CoreId>, Vec<Topic>) {
    let now = sim.now;
    let attach = |n: u8| {
        let reader = CreateOptions::reader(*writer_of(n).key());
        let core = share(Core::create(&memory(), reader).unwrap());
        let topic = Topic::from(*core.lock().unwrap().discovery_key());
        (sim.hubs[0].attach(core, LIVE, now), topic)
    };
    (0..count).map(attach).unzip()
}

fn stranger(sim: &mut Sim, n: u64, initiator: bool) -> ConnId {
    let (conn, now) = (ConnId(90 + n), sim.now);
    let info = ConnInfo { handshake_hash: [7; 64], initiator, remote: PublicKey([9; 32]) };
    sim.hubs[0].handle_connected(conn, info, now);
    conn
}

/// Which of the names a hub says now.
fn named(hub: &mut Hub, topics: &[Topic]) -> Vec<bool> {
    let mut said = Vec::new();
    while let Some((_, frame)) = hub.poll_transmit() {
        said.extend_from_slice(frame.payload());
    }
    topics.iter().map(|topic| said.windows(32).any(|window| window == topic.0)).collect()
}

#[test]
fn a_stranger_hears_of_nothing_that_is_read() {
    let mut sim = Sim::new(1);
    let (ids, topics) = cores(&mut sim, 3);
    for initiator in [false, true] {
        stranger(&mut sim, u64::from(initiator), initiator);
        assert_eq!(named(&mut sim.hubs[0], &topics), [false; 3]);
    }
    // A wish is no reason, either.
    sim.want(0, ids[0], 5);
    let now = sim.now;
    sim.hubs[0].attach(share(writer_of(7)), LIVE, now);
    assert_eq!(named(&mut sim.hubs[0], &topics), [false; 3]);
}

#[test]
fn who_was_found_under_a_topic_hears_of_its_cores_whenever_they_are_opened() {
    let mut sim = Sim::new(1);
    let (ids, topics) = cores(&mut sim, 3);
    let (conn, now) = (stranger(&mut sim, 0, true), sim.now);
    sim.hubs[0].handle_met(conn, topics[1], now);
    assert_eq!(named(&mut sim.hubs[0], &topics), [false, true, false]);
    // The first core turns out to be the contents of the second.
    sim.hubs[0].add_topic(ids[0], topics[1], now);
    assert_eq!(named(&mut sim.hubs[0], &topics), [true, false, false]);
    // Found under a topic before its core is there.
    let late = share(writer_of(9));
    let topic = Topic::from(*late.lock().unwrap().discovery_key());
    sim.hubs[0].handle_met(conn, topic, now);
    sim.hubs[0].attach(late, LIVE, now);
    assert_eq!(named(&mut sim.hubs[0], &[topic]), [true]);
}

/// Whoever opens a core has to know its key: it hears of what belongs to it.
#[test]
fn who_opens_a_core_hears_of_what_goes_with_it() {
    for knows_key in [true, false] {
        let mut peer = Peer::unopened();
        let now = peer.now;
        let names = share(Core::create(&memory(), CreateOptions::reader(key())).unwrap());
        peer.hub.attach(names, LIVE, now);
        let contents = share(writer_of(3));
        let topic = Topic::from(*contents.lock().unwrap().discovery_key());
        let id = peer.hub.attach(contents, LIVE, now);
        peer.hub.add_topic(id, Topic::from(key().discovery_key()), now);
        assert_eq!(named(&mut peer.hub, &[topic]), [false]);
        let capability = match knows_key {
            true => wire::capability(&peer.info.handshake_hash, &key(), !peer.info.initiator),
            false => [1; 32],
        };
        let handshake = wire::Handshake { seeks: true, capability }.encode();
        peer.mux.open(wire::PROTOCOL, &key().discovery_key().0, &handshake).unwrap();
        let frame = peer.mux.poll_transmit().unwrap();
        peer.hub.handle_frame(peer.conn, frame.payload().to_vec().into(), now);
        assert_eq!(named(&mut peer.hub, &[topic]), [knows_key]);
    }
}
