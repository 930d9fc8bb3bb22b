//! A writer that went on from an old copy of its store.

use super::*;

/// The first `common` blocks, and then others up to `length`.
fn other_writer(common: u64, length: u64) -> SharedCore {
    let w = writer(common);
    let blocks: Vec<Bytes> = (common..length).map(|i| vec![0xee, i as u8].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    w
}

/// A reader between the peers that have these cores, connected one after the other.
fn among(cores: &[SharedCore]) -> (Sim, SharedCore, CoreId, usize) {
    let (mut sim, r, reader_at) = (Sim::new(cores.len() + 1), reader(), cores.len());
    let core = sim.attach(reader_at, &r);
    for (hub, shared) in cores.iter().enumerate() {
        sim.attach(hub, shared);
        sim.connect(reader_at, hub, 5 * MS);
        sim.run(Duration::from_secs(2));
    }
    (sim, r, core, reader_at)
}

fn is_split(sim: &Sim, hub: usize) -> bool {
    sim.count(hub, |event| matches!(event, HubEvent::TwoHistories { .. })) == 1
}

#[test]
fn a_reader_notices_two_histories_whatever_their_lengths() {
    for (first, second) in [((20, 20), (8, 20)), ((20, 20), (8, 30)), ((30, 30), (8, 20))] {
        let build = |(common, length)| other_writer(common, length);
        let (mut sim, r, core, hub) = among(&[build(first), build(second)]);
        assert!(is_split(&sim, hub), "{first:?} {second:?}: {:?}", sim.events[hub]);
        assert_eq!(length(&r), first.1, "the second is not followed");
        // Nothing more is taken.
        sim.want(hub, core, 3);
        sim.run(Duration::from_secs(5));
        assert_eq!(here(&r), 0);
    }
}

#[test]
fn a_shorter_history_that_is_not_known_here_is_compared_with_who_gave_us_ours() {
    // The reader has the head only: no nodes to tell what the first 11 blocks were.
    let cores = [writer(300), other_writer(8, 211)];
    let (sim, _, _, hub) = among(&cores);
    assert!(is_split(&sim, hub), "{:?}", sim.events[hub]);
}

#[test]
fn peers_of_one_history_are_not_taken_for_two() {
    let cores = [writer(300), writer(211), writer(300), writer(299), writer(301), writer(1)];
    let (mut sim, r, core, hub) = among(&cores);
    let now = sim.now;
    sim.hubs[hub].want_range(core, 0..301, false, now);
    sim.run(Duration::from_secs(90));
    assert!(!is_split(&sim, hub));
    assert_eq!((length(&r), here(&r), sim.violations(hub)), (301, 301, 0));
}

#[test]
fn a_peer_cannot_make_two_histories_by_lying() {
    let w = writer(20);
    let (mut peer, _) = Peer::new(&reader());
    peer.serve_head(&w);
    let now = peer.now;
    peer.hub.handle_closed(peer.conn, now);
    // It comes back, is asked for its head, and bends each node of the answer in turn.
    for bent in 0..2 {
        peer.conn = ConnId(10 + bent as u64);
        peer.mux = Mux::new(super::super::super::connection::PROTOCOLS);
        let now = peer.now;
        peer.hub.handle_connected(peer.conn, peer.info.clone(), now);
        meet_all(&mut peer.hub, now);
        peer.open(key());
        peer.sync(20, 20);
        let request = peer.requests().pop().expect("its head is asked for");
        let mut data = peer.answer(&w, &request);
        let Message::Data { proof, .. } = &mut data else { panic!() };
        proof.upgrade.as_mut().unwrap().nodes[bent].hash[0] ^= 1;
        peer.say(data);
        assert!(matches!(peer.violations()[..], [.., Violation::Proof(_)]));
    }
    assert!(!peer.events.iter().any(|event| matches!(event, HubEvent::TwoHistories { .. })));
}
