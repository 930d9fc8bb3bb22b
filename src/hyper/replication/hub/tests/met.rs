//! Who is told which cores are here: peers of a topic hear of its cores, and nobody hears of others.

use super::*;

use crate::hyper::replication::tags;

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
    let first = sim.hubs[0].replicas[&ids[0]].core.clone();
    sim.hubs[0].attach_for(&[topics[1]], first, LIVE, now);
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
        peer.hub.attach_for(&[Topic::from(key().discovery_key())], contents, LIVE, now);
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

/// It may have come to have the core since it refused it.
#[test]
fn who_is_found_again_is_asked_again() {
    let mut sim = Sim::new(2);
    let (ids, topics) = cores(&mut sim, 1);
    let (conn, _) = sim.join(0, 1, MS);
    for _ in 0..3 {
        let now = sim.now;
        sim.hubs[0].handle_met(conn, topics[0], now);
        assert_eq!(sim.hubs[0].company(ids[0]).coming, 1);
        sim.hubs[0].handle_met(conn, topics[0], now);
        sim.run(Duration::from_secs(1));
        assert_eq!(sim.hubs[0].company(ids[0]), Company::default());
    }
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
}

/// A peer that opens whatever it has asks once: the answer to that may change.
#[test]
fn who_named_a_core_before_it_was_here_hears_of_it_then() {
    let mut peer = Peer::unopened();
    let mut other = peer.info.clone();
    other.handshake_hash = [9; 64];
    peer.hub.handle_connected(ConnId(10), other, peer.now);
    peer.open(key());
    assert_eq!(peer.closed, [peer.channel]);
    let now = peer.now;
    let topic = Topic::from(key().discovery_key());
    peer.hub.attach_for(&[topic], share(writer_of(3)), LIVE, now);
    let told = |peer: &mut Peer| {
        let frames: Vec<_> = std::iter::from_fn(|| peer.hub.poll_transmit()).collect();
        frames.iter().map(|(conn, _)| *conn).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut peer), [], "it has named that one, and not shown that it knows its key");
    peer.hub.attach(share(writer_of(1)), LIVE, now);
    assert_eq!(told(&mut peer), []);
    peer.hub.attach(writer(5), LIVE, now);
    assert_eq!(told(&mut peer), [peer.conn]);
    // What it makes us remember counts, and is forgotten with it.
    assert_ne!(peer.hub.held, 0);
    peer.hub.handle_closed(peer.conn, now);
    assert_eq!(peer.hub.held, 0);
}

#[test]
fn no_more_names_are_remembered_than_there_is_room_for() {
    let mut peer = Peer::unopened();
    let now = peer.now;
    peer.hub.limits.fair_share = 0;
    peer.hub.limits.held_of_one = 100 * 64;
    for n in 0..200u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        peer.mux.open(wire::PROTOCOL, &id, &[0; 33]).unwrap();
        peer.flush();
    }
    assert_eq!((peer.hub.held, peer.hub.conns[&peer.conn].held_for_names()), (6400, 6400));
    peer.hub.handle_closed(peer.conn, now);
    assert_eq!(peer.hub.held, 0);
}

/// Two who are connected for one core, which the second serves and the first has opened.
fn acquainted() -> (Sim, [CoreId; 2]) {
    let mut sim = Sim::new(2);
    let (w, r, now) = (writer(5), reader(), sim.now);
    let there = sim.hubs[1].attach(w, LIVE, now);
    let here = sim.hubs[0].attach(r, LIVE, now);
    let (conn, _) = sim.join(0, 1, 10 * MS);
    sim.hubs[0].handle_met(conn, Topic::from(key().discovery_key()), now);
    (sim, [here, there])
}

fn reader_of(core: &SharedCore) -> SharedCore {
    let key = *core.lock().unwrap().key();
    share(Core::create(&memory(), CreateOptions::reader(key)).unwrap())
}

/// Whenever either of two comes to have a second core, nobody found under its topic.
#[test]
fn two_that_were_met_for_one_core_find_out_that_they_both_have_another() {
    const SECOND: Duration = Duration::from_secs(1);
    for late in [[false, false], [true, false], [false, true], [true, true]] {
        let (mut sim, _) = acquainted();
        let w = share(writer_of(4));
        append(&mut w.lock().unwrap(), 3);
        let cores = [reader_of(&w), w];
        for round in [false, true] {
            if round {
                sim.run(SECOND);
            }
            for hub in [0, 1].into_iter().filter(|&hub| late[hub] == round) {
                let now = sim.now;
                sim.hubs[hub].attach(cores[hub].clone(), LIVE, now);
            }
        }
        sim.run(SECOND);
        assert_eq!(length(&cores[0]), 3, "late: {late:?}");
        // Either of them goes and comes back.
        for hub in [0, 1] {
            let (now, name) = (sim.now, *cores[0].lock().unwrap().discovery_key());
            let id = sim.hubs[hub].core_id(&name).unwrap();
            sim.hubs[hub].detach(id, now);
            sim.run(SECOND);
            assert_eq!(open(&sim.hubs[1 - hub], sim.hubs[1 - hub].core_id(&name).unwrap()), 0);
            let now = sim.now;
            let id = sim.hubs[hub].attach(cores[hub].clone(), LIVE, now);
            sim.run(SECOND);
            assert_eq!(open(&sim.hubs[hub], id), 1, "late: {late:?}, hub: {hub}");
        }
        assert_eq!(sim.violations(0) + sim.violations(1), 0);
    }
}

/// Nothing can be said while no channel is open: it is when one is again.
#[test]
fn what_came_while_no_channel_was_open_is_said_later() {
    let (mut sim, [here, _]) = acquainted();
    sim.run(Duration::from_secs(1));
    let now = sim.now;
    sim.hubs[0].detach(here, now);
    sim.run(Duration::from_secs(1));
    let w = share(writer_of(4));
    append(&mut w.lock().unwrap(), 3);
    let (r, now) = (reader_of(&w), sim.now);
    sim.hubs[1].attach(w, LIVE, now);
    sim.hubs[0].attach(r.clone(), LIVE, now);
    sim.run(Duration::from_secs(1));
    assert_eq!(length(&r), 0);
    let now = sim.now;
    sim.hubs[0].attach(reader(), LIVE, now);
    sim.run(Duration::from_secs(1));
    assert_eq!(length(&r), 3);
}

/// Whoever has opened one core hears a tag of each other, which says nothing to who does not know it, and shows nothing
/// when it comes back.
#[test]
fn tags_tell_nothing_and_cannot_be_said_by_who_does_not_know_the_core() {
    let (mut peer, _) = Peer::new(&writer(5));
    let now = peer.now;
    peer.sync(0, 5);
    peer.heard.clear();
    let core = share(writer_of(4));
    let (name, core_key) = {
        let core = core.lock().unwrap();
        (*core.discovery_key(), *core.key())
    };
    let id = peer.hub.attach(core, LIVE, now);
    peer.listen();
    let payload = match &peer.heard[..] {
        [Message::Extension { payload, .. }] => payload.clone(),
        heard => panic!("{heard:?}"),
    };
    let info = peer.info.clone();
    let tag = |initiator| tags::tag(&info.handshake_hash, &core_key, initiator);
    assert_eq!(payload[..], tag(info.initiator));
    assert!(!name.0.starts_with(&payload) && !core_key.0.starts_with(&payload));
    let mut say = |tags: &[u8]| {
        let payload = Bytes::copy_from_slice(tags);
        peer.say(Message::Extension { name: tags::NAME.to_string(), payload });
        peer.hub.company(id).coming
    };
    assert_eq!(say(&payload), 0);
    assert_eq!(say(&[[7; 16], [8; 16]].concat()), 0);
    assert_eq!(say(&tag(!info.initiator)[..15]), 0);
    // Who knows the key may say so, also among others, and may have said so before.
    assert_eq!(say(&[[7; 16], tag(!info.initiator), tag(!info.initiator)].concat()), 1);
    assert_eq!(peer.violations(), Vec::<&Violation>::new());
}

/// A peer of one core takes of a store with many little more than a tag of each.
#[test]
fn a_peer_of_one_core_costs_a_tag_for_each_other() {
    const OTHERS: usize = 200;
    let mut peer = Peer::unopened();
    let now = peer.now;
    peer.hub.attach(writer(5), LIVE, now);
    for n in 0..OTHERS as u8 {
        let other =
            share(Core::create(&memory(), CreateOptions::reader(CoreKey([n; 32]))).unwrap());
        peer.hub.attach(other, LIVE, now);
    }
    peer.open(key());
    assert_eq!(peer.hub.conns[&peer.conn].channels.len(), 1);
    let said = peer.heard.iter().map(Message::size_hint).sum::<usize>();
    assert!(said < OTHERS * tags::LEN + 400, "{said}");
    assert!(peer.hub.held < 2048, "{}", peer.hub.held);
}

/// The contents of a drive come when its names have told their key: a peer of the drive needs no tag of them.
#[test]
fn what_belongs_to_a_topic_is_opened_to_its_peers_at_once() {
    let (mut peer, _) = Peer::new(&writer(5));
    let now = peer.now;
    peer.heard.clear();
    let id =
        peer.hub.attach_for(&[Topic::from(key().discovery_key())], share(writer_of(4)), LIVE, now);
    peer.listen();
    assert_eq!((peer.hub.company(id).coming, peer.heard), (1, vec![]));
}

/// The channel that a tag goes by is closed by the other side while it is under way.
#[test]
fn a_tag_that_crosses_the_end_of_its_channel_is_said_again() {
    const SECOND: Duration = Duration::from_secs(1);
    let (mut sim, [_, there]) = acquainted();
    sim.run(SECOND);
    let w = share(writer_of(4));
    append(&mut w.lock().unwrap(), 3);
    let r = reader_of(&w);
    let now = sim.now;
    sim.hubs[1].attach(w, LIVE, now);
    sim.run(SECOND);
    let now = sim.now;
    sim.hubs[0].attach(r.clone(), LIVE, now);
    sim.hubs[1].detach(there, now);
    sim.run(SECOND);
    let now = sim.now;
    sim.hubs[1].attach(writer(5), LIVE, now);
    sim.run(10 * SECOND);
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
    assert_eq!(length(&r), 3);
}

/// Neither side hears then that the other closes, nor what was said there last.
#[test]
fn a_tag_whose_channel_both_close_is_said_again() {
    const SECOND: Duration = Duration::from_secs(1);
    // By the next channel to open, or by one that is.
    for another in [false, true] {
        let (mut sim, [here, there]) = acquainted();
        if another {
            let (w, now) = (share(writer_of(6)), sim.now);
            sim.hubs[0].attach(reader_of(&w), LIVE, now);
            sim.hubs[1].attach(w, LIVE, now);
        }
        sim.run(SECOND);
        let w = share(writer_of(4));
        append(&mut w.lock().unwrap(), 3);
        let (r, now) = (reader_of(&w), sim.now);
        sim.hubs[1].attach(w, LIVE, now);
        sim.run(SECOND);
        let conn = *sim.hubs[0].conns.keys().next().unwrap();
        let now = sim.now;
        sim.hubs[0].attach(r.clone(), LIVE, now);
        assert_eq!(sim.hubs[0].conns[&conn].tags.via, Some(here));
        sim.hubs[0].detach(here, now);
        sim.hubs[1].detach(there, now);
        sim.run(SECOND);
        if !another {
            let now = sim.now;
            sim.hubs[0].attach(reader(), LIVE, now);
            sim.hubs[1].attach(writer(5), LIVE, now);
            sim.hubs[0].handle_met(conn, Topic::from(key().discovery_key()), now);
            sim.run(SECOND);
        }
        assert_eq!(sim.violations(0) + sim.violations(1), 0);
        assert_eq!(length(&r), 3, "another channel is open: {another}");
    }
}

/// Tags cost a hash each.
#[test]
fn who_closes_its_channel_again_and_again_is_not_told_each_time() {
    let (mut sim, [_, there]) = acquainted();
    let (mut there, mut said) = (there, 0);
    let now = sim.now;
    sim.hubs[0].attach(reader_of(&share(writer_of(4))), LIVE, now);
    for _ in 0..100 {
        sim.run(Duration::from_millis(200));
        let now = sim.now;
        sim.hubs[1].detach(there, now);
        sim.run(Duration::from_millis(200));
        said = sim.hubs[0].conns.values().map(|conn| conn.tags.again).sum();
        let now = sim.now;
        there = sim.hubs[1].attach(writer(5), LIVE, now);
    }
    assert_eq!(said, tags::MAX_AGAIN);
}
