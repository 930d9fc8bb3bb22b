//! Peers that are slow, stuck, or silent about one thing.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Two servers with `length` blocks at hubs 0 and 1, a reader at hub 2 with its head, joined to both.
fn triangle(length: u64) -> (Sim, SharedCore, CoreId, [ConnId; 2]) {
    let mut sim = Sim::new(3);
    let (w, r) = (writer(length), reader());
    let core = sim.attach(2, &r);
    let mut conns = [ConnId(0); 2];
    for hub in [0, 1] {
        sim.attach(hub, &if hub == 0 { w.clone() } else { writer(length) });
        conns[hub] = sim.connect(2, hub, 5 * MS).1;
    }
    sim.run(Duration::from_secs(2));
    assert_eq!(self::length(&r), length);
    sim.events[2].clear();
    (sim, r, core, conns)
}

#[test]
fn a_stuck_peer_holds_up_a_range_for_seconds_only() {
    let (mut sim, r, core, conns) = triangle(3000);
    let now = sim.now;
    let range = sim.hubs[2].want_range(core, 0..3000, true, now);
    sim.drain();
    sim.lines.get_mut(&(0, conns[0])).unwrap().stuck = true;
    let done = HubEvent::RangeDone { core, range };
    let start = sim.now;
    assert!(sim.run_until(Duration::from_secs(10), |sim| sim.has_event(2, &done)));
    assert!(sim.now - start < Duration::from_secs(5), "{:?}", sim.now - start);
    assert_true(&r);
    let peers = sim.hubs[2].peers(core);
    assert!(peers.iter().all(|peer| peer.inflight <= 1), "cancelled at the stuck one: {peers:?}");
}

#[test]
fn a_block_somebody_waits_for_goes_to_another_peer_soon() {
    let (mut sim, _r, core, conns) = triangle(50);
    for hub in [0, 1] {
        sim.lines.get_mut(&(hub, conns[hub])).unwrap().stuck = hub == 0;
    }
    for block in 0..10 {
        sim.want(2, core, block);
    }
    let all = |sim: &mut Sim| sim.count(2, |e| matches!(e, HubEvent::Block { .. })) == 10;
    let start = sim.now;
    assert!(sim.run_until(Duration::from_secs(10), all));
    assert!(sim.now - start < Duration::from_secs(1), "{:?}", sim.now - start);
}

#[test]
fn a_server_that_never_answers_one_request_is_asked_again_later() {
    let (mut sim, w, r) = (Sim::new(2), writer(20), reader());
    let core = {
        sim.attach(0, &w);
        sim.attach(1, &r)
    };
    let line = sim.connect(1, 0, MS);
    sim.run(Duration::from_secs(1));
    sim.want(1, core, 3);
    sim.lines.get_mut(&(0, line.1)).unwrap().stuck = true;
    sim.run(Duration::from_secs(1));
    sim.lines.get_mut(&(0, line.1)).unwrap().stuck = false;
    sim.run(Duration::from_secs(60));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 3 }));
}

#[test]
fn an_upgrade_that_does_not_come_is_asked_of_another_peer() {
    let mut sim = Sim::new(3);
    let r = reader();
    let core = sim.attach(2, &r);
    let mut ids = Vec::new();
    for hub in [0, 1] {
        ids.push(sim.attach(hub, &writer(20)));
        sim.connect(2, hub, MS);
    }
    // The first asked for the upgrade never answers.
    sim.tap = Some(Box::new(
        |hub, bytes| if hub == 0 && bytes.get(1) == Some(&3) { vec![] } else { bytes },
    ));
    let upgraded = HubEvent::Upgraded { core, length: 20, fork: 0 };
    assert!(sim.run_until(Duration::from_secs(5), |sim| sim.has_event(2, &upgraded)));
    assert!(sim.run_until(Duration::from_secs(5), |sim| {
        sim.has_event(2, &HubEvent::PeersSynced { core })
    }));
}

#[test]
fn a_silent_remote_does_not_keep_the_head_waiting() {
    let mut sim = Sim::new(2);
    let core = sim.attach(1, &reader());
    let (conn, _) = sim.connect(1, 0, MS);
    sim.lines.get_mut(&(1, conn)).unwrap().stuck = true;
    let now = sim.now;
    sim.hubs[1].want_upgrade(core, now);
    sim.drain();
    assert!(!sim.has_event(1, &HubEvent::PeersSynced { core }));
    sim.run(Duration::from_secs(4));
    assert!(sim.has_event(1, &HubEvent::PeersSynced { core }));
}

#[test]
fn a_slow_line_is_not_taken_for_a_dead_one() {
    let (mut sim, w, r) = (Sim::new(2), reader(), reader());
    // 40 blocks of 64 KiB over 100 KB/s: 26 seconds.
    let blocks: Vec<Bytes> = (0..40u8).map(|i| vec![i; 65_536].into()).collect();
    drop(w);
    let w = share(writer_of(0));
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    sim.attach(0, &w);
    let core = sim.attach(1, &r);
    let (_, conn) = sim.connect(1, 0, 50 * MS);
    sim.lines.get_mut(&(0, conn)).unwrap().rate = Some(100_000);
    let now = sim.now;
    let range = sim.hubs[1].want_range(core, 0..40, true, now);
    let done = HubEvent::RangeDone { core, range };
    assert!(sim.run_until(Duration::from_secs(40), |sim| sim.has_event(1, &done)));
    assert!(sim.elapsed() < Duration::from_secs(29), "{:?}", sim.elapsed());
    let sent = sim.hubs[0].peers(CoreId(1))[0].bytes_up;
    assert_eq!(sent, 40 * 65_536, "nothing was sent twice");
}

#[test]
fn the_window_of_a_slow_peer_shrinks() {
    let mut sim = Sim::new(2);
    let w = share(writer_of(0));
    let blocks: Vec<Bytes> = (0..200u8).map(|i| vec![i; 65_536].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    sim.attach(0, &w);
    let core = sim.attach(1, &reader());
    let (_, conn) = sim.connect(1, 0, 20 * MS);
    sim.lines.get_mut(&(0, conn)).unwrap().rate = Some(500_000);
    let now = sim.now;
    sim.hubs[1].want_range(core, 0..200, true, now);
    sim.run(Duration::from_secs(15));
    let inflight = sim.hubs[1].peers(core)[0].inflight;
    assert!((4..16).contains(&inflight), "about a second of work: {inflight}");
}

/// A server's process stands still while readers wait, give up after a second and come back; its timers and
/// all that was sent to it come due at once.
fn server_stands_still(seed: u64, time: Duration) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut sim, w, r) = (Sim::new(2), writer(200), reader());
    sim.attach(0, &w);
    let core = sim.attach(1, &r);
    let (conn, back) = sim.connect(1, 0, 5 * MS);
    sim.run(Duration::from_secs(1));
    // Its answers come one by one, while the reader changes its mind.
    sim.lines.get_mut(&(0, back)).unwrap().rate = Some(10_000);
    let (seek, now) = (sim.now, sim.now);
    sim.freeze(0, time);
    let byte = w.lock().unwrap().block_offset(150).unwrap().unwrap();
    let seek = (sim.hubs[1].want_seek(core, byte, seek), byte);
    if rng.random() {
        sim.hubs[1].want_range(core, 20..60, true, now);
    }
    let thaw = now + time;
    while sim.now < thaw + Duration::from_secs(1) {
        let blocks: Vec<u64> = (0..4).map(|_| rng.random_range(0..16)).collect();
        blocks.iter().for_each(|block| sim.want(1, core, *block));
        sim.run(Duration::from_millis(rng.random_range(0..300)));
        let now = sim.now;
        blocks.iter().for_each(|block| sim.hubs[1].unwant_block(core, *block, now));
    }
    // Whatever happened, a new reader gets what it wants.
    assert!(sim.run_until(Duration::from_secs(60), |sim| sim.air.next().is_none()));
    sim.lines.get_mut(&(0, back)).unwrap().rate = None;
    let start = sim.now;
    (0..200).for_each(|block| sim.want(1, core, block));
    let all = sim.run_until(Duration::from_secs(2), |_| here(&r) == 200);
    assert!(all, "seed {seed}, {time:?}: {} of 200 blocks", here(&r));
    assert!(sim.now - start < Duration::from_secs(1), "seed {seed}: {:?}", sim.now - start);
    let found = HubEvent::Seeked { core, seek: seek.0, found: Some((150, 0)) };
    assert!(sim.has_event(1, &found), "seed {seed}: byte {} not found", seek.1);
    assert_eq!((sim.violations(0), sim.violations(1)), (0, 0), "seed {seed}: {:?}", sim.events);
    assert!(sim.lines.contains_key(&(1, conn)));
    assert_true(&r);
}

#[test]
fn a_server_that_stood_still_is_as_good_as_before() {
    for (seed, secs) in [1, 2, 5, 12, 20, 40].into_iter().cycle().take(60).enumerate() {
        server_stands_still(seed as u64, Duration::from_secs(secs));
    }
}
