use super::*;

/// A server with `length` blocks at hub 0, a client that knows the key at hub 1.
fn pair(length: u64, latency: Duration) -> (Sim, SharedCore, SharedCore, CoreId, CoreId) {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(length), reader());
    let (cw, cr) = (sim.attach(0, &w), sim.attach(1, &r));
    sim.connect(1, 0, latency);
    (sim, w, r, cw, cr)
}

#[test]
fn a_reader_gets_the_head_and_a_block() {
    let (mut sim, _w, r, _, core) = pair(20, 10 * MS);
    sim.want(1, core, 7);
    let event = HubEvent::Block { core, index: 7 };
    assert!(sim.run_until(Duration::from_secs(5), |sim| sim.has_event(1, &event)));
    // Open, sync and upgrade with the block: two round trips.
    assert!(sim.elapsed() <= 45 * MS, "{:?}", sim.elapsed());
    assert_eq!((length(&r), here(&r)), (20, 1));
    assert_true(&r);
    sim.run(Duration::from_secs(5));
    assert!(sim.has_event(1, &HubEvent::Upgraded { core, length: 20, fork: 0 }));
    assert_eq!(sim.count(1, |e| matches!(e, HubEvent::PeersSynced { .. })), 1);
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
    assert_eq!(sim.hubs[1].poll_timeout(), None, "nothing is left to wait for");
}

#[test]
fn a_range_is_fetched_and_reported() {
    for linear in [true, false] {
        let (mut sim, _w, r, _, core) = pair(1000, 10 * MS);
        let now = sim.now;
        let range = sim.hubs[1].want_range(core, 3..990, linear, now);
        let done = HubEvent::RangeDone { core, range };
        assert!(sim.run_until(Duration::from_secs(5), |sim| sim.has_event(1, &done)));
        assert!(sim.elapsed() < 200 * MS, "{:?}", sim.elapsed());
        assert_eq!(here(&r), 987);
        assert_true(&r);
        assert_eq!(sim.count(1, |e| matches!(e, HubEvent::Block { .. })), 987);
    }
}

#[test]
fn appends_are_followed_and_a_live_range_goes_on() {
    let (mut sim, w, r, cw, core) = pair(5, 10 * MS);
    let now = sim.now;
    sim.hubs[1].want_range(core, 0..u64::MAX, true, now);
    sim.run(Duration::from_secs(3));
    assert_eq!(here(&r), 5);
    for i in 1..4 {
        append(&mut w.lock().unwrap(), 50);
        let now = sim.now;
        sim.hubs[0].core_changed(cw, now);
        sim.run(Duration::from_secs(1));
        assert_eq!(here(&r), 5 + 50 * i);
    }
    assert_true(&r);
    // The writer knows that the reader has it all.
    assert_eq!(sim.hubs[0].peers(cw)[0].contiguous, 155);
}

#[test]
fn a_wish_made_before_any_peer_is_fulfilled_when_one_comes() {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(20), reader());
    let core = sim.attach(1, &r);
    sim.want(1, core, 4);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::BlockUnavailable { core, index: 4 }));
    sim.attach(0, &w);
    sim.connect(0, 1, MS);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 4 }));
}

#[test]
fn a_lost_connection_loses_no_wish() {
    let (mut sim, _w, r, _, core) = pair(3000, 20 * MS);
    let now = sim.now;
    let range = sim.hubs[1].want_range(core, 0..3000, true, now);
    sim.want(1, core, 2999);
    let conn = sim.lines.keys().copied().next().unwrap();
    sim.run(70 * MS);
    let before = here(&r);
    sim.cut(conn);
    sim.run(Duration::from_secs(1));
    assert!(before < 3000 && here(&r) == before);
    sim.connect(0, 1, 20 * MS);
    let done = HubEvent::RangeDone { core, range };
    assert!(sim.run_until(Duration::from_secs(5), |sim| sim.has_event(1, &done)));
    assert_true(&r);
}

#[test]
fn a_sparse_server_is_asked_for_what_it_has_only() {
    let mut sim = Sim::new(3);
    let (w, middle, r) = (writer(200), reader(), reader());
    let (_, cm) = (sim.attach(0, &w), sim.attach(1, &middle));
    let line = sim.connect(1, 0, MS);
    let now = sim.now;
    sim.hubs[1].want_range(cm, 50..120, true, now);
    sim.run(Duration::from_secs(1));
    sim.cut((1, line.0));
    let cr = sim.attach(2, &r);
    sim.connect(2, 1, MS);
    sim.want(2, cr, 60);
    sim.want(2, cr, 10);
    sim.run(Duration::from_secs(5));
    assert!(sim.has_event(2, &HubEvent::Block { core: cr, index: 60 }));
    assert!(sim.has_event(2, &HubEvent::BlockUnavailable { core: cr, index: 10 }));
    assert_eq!(sim.violations(1) + sim.violations(2), 0);
    // The middle one gets the block, tells, and it goes on.
    sim.connect(1, 0, MS);
    sim.want(1, cm, 10);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(2, &HubEvent::Block { core: cr, index: 10 }));
    assert_true(&r);
}

#[test]
fn two_servers_share_the_work() {
    let mut sim = Sim::new(3);
    let (w, copy, r) = (writer(2000), reader(), reader());
    let (_, cc, cr) = (sim.attach(0, &w), sim.attach(1, &copy), sim.attach(2, &r));
    sim.connect(1, 0, MS);
    let now = sim.now;
    sim.hubs[1].want_range(cc, 0..2000, true, now);
    sim.run(Duration::from_secs(2));
    assert_eq!(here(&copy), 2000);
    for hub in [0, 1] {
        let (_, conn) = sim.connect(2, hub, 5 * MS);
        sim.lines.get_mut(&(hub, conn)).unwrap().rate = Some(100_000);
    }
    let now = sim.now;
    let range = sim.hubs[2].want_range(cr, 0..2000, false, now);
    let done = HubEvent::RangeDone { core: cr, range };
    assert!(sim.run_until(Duration::from_secs(20), |sim| sim.has_event(2, &done)));
    let down: Vec<u64> = sim.hubs[2].peers(cr).iter().map(|peer| peer.bytes_down).collect();
    let total: u64 = down.iter().sum();
    assert!(down.iter().all(|bytes| bytes * 4 > total), "{down:?}");
    assert_true(&r);
}

#[test]
fn an_unwanted_range_is_cancelled() {
    let (mut sim, _w, r, _, core) = pair(5000, 50 * MS);
    for line in sim.lines.values_mut() {
        line.rate = Some(200_000);
    }
    let now = sim.now;
    let range = sim.hubs[1].want_range(core, 0..5000, true, now);
    sim.run(500 * MS);
    let now = sim.now;
    sim.hubs[1].unwant_range(range, now);
    sim.run(Duration::from_secs(20));
    assert!(here(&r) < 2000, "{}", here(&r));
    assert_eq!(sim.hubs[1].peers(core)[0].inflight, 0);
    assert_eq!(sim.violations(1), 0);
}

#[test]
fn a_block_wanted_twice_is_cancelled_with_the_last_waiter() {
    let (mut sim, _w, _r, _, core) = pair(20, 50 * MS);
    sim.run(Duration::from_secs(1));
    sim.want(1, core, 3);
    sim.want(1, core, 3);
    let now = sim.now;
    sim.hubs[1].unwant_block(core, 3, now);
    assert_eq!(sim.hubs[1].peers(core)[0].inflight, 1);
    sim.hubs[1].unwant_block(core, 3, now);
    assert_eq!(sim.hubs[1].peers(core)[0].inflight, 0);
}

#[test]
fn bytes_are_found_by_seeking() {
    let (mut sim, w, r, _, core) = pair(20, 10 * MS);
    for byte in [0u64, 1, 50, 100, 179, 245] {
        let now = sim.now;
        let seek = sim.hubs[1].want_seek(core, byte, now);
        sim.run(Duration::from_secs(2));
        let want = match w.lock().unwrap().seek(byte).unwrap() {
            crate::hyper::core::tree::SeekResult::Found { block, offset } => Some((block, offset)),
            _ => None,
        };
        assert!(sim.has_event(1, &HubEvent::Seeked { core, seek, found: want }), "{byte}");
    }
    let now = sim.now;
    let seek = sim.hubs[1].want_seek(core, 1 << 30, now);
    sim.run(Duration::from_secs(2));
    assert!(sim.has_event(1, &HubEvent::Seeked { core, seek, found: None }));
    assert_eq!(here(&r), 0, "seeking fetches no blocks");
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
}

#[test]
fn a_core_of_the_store_is_served_and_let_go() {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(20), reader());
    sim.stores.insert(0, w.clone());
    let core = sim.attach(1, &r);
    let line = sim.connect(1, 0, MS);
    sim.want(1, core, 5);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 5 }));
    assert!(sim.hubs[0].core_id(&key().discovery_key()).is_some());
    sim.cut((1, line.0));
    assert!(sim.hubs[0].core_id(&key().discovery_key()).is_none());
    assert_eq!(Arc::strong_count(&w), 2);
}

#[test]
fn nobody_serves_an_unknown_core() {
    let mut sim = Sim::new(2);
    let core = sim.attach(1, &reader());
    sim.connect(1, 0, MS);
    let now = sim.now;
    sim.hubs[1].want_upgrade(core, now);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::PeersSynced { core }));
    assert_eq!(sim.hubs[1].peers(core), []);
    // Later the other side has it too, and opens by itself.
    sim.attach(0, &writer(3));
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Upgraded { core, length: 3, fork: 0 }));
}

#[test]
fn want_upgrade_says_when_the_head_is_current() {
    let (mut sim, w, r, cw, core) = pair(20, 100 * MS);
    let now = sim.now;
    sim.hubs[1].want_upgrade(core, now);
    let synced = |sim: &mut Sim| sim.has_event(1, &HubEvent::PeersSynced { core });
    assert!(sim.run_until(Duration::from_secs(3), synced));
    assert_eq!(length(&r), 20, "not before the upgrade is applied");
    sim.events[1].clear();
    let now = sim.now;
    sim.hubs[1].want_upgrade(core, now);
    sim.drain();
    assert!(sim.has_event(1, &HubEvent::PeersSynced { core }), "at once when all is known");
    // An append makes it false, then true again.
    sim.events[1].clear();
    append(&mut w.lock().unwrap(), 1);
    let now = sim.now;
    sim.hubs[0].core_changed(cw, now);
    sim.run(Duration::from_secs(1));
    let upgraded = HubEvent::Upgraded { core, length: 21, fork: 0 };
    let position = |want: &HubEvent| sim.events[1].iter().position(|event| event == want);
    assert!(position(&upgraded).unwrap() < position(&HubEvent::PeersSynced { core }).unwrap());
}

#[test]
fn idle_sides_close_and_open_again() {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(20), reader());
    let passive = AttachOptions { downloading: false, small_blocks: false };
    let now = sim.now;
    let cw = sim.hubs[0].attach(w.clone(), passive, now);
    let cr = sim.hubs[1].attach(r.clone(), passive, now);
    sim.connect(1, 0, MS);
    sim.run(Duration::from_secs(1));
    assert!(sim.hubs[0].peers(cw).is_empty());
    sim.want(1, cr, 3);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Block { core: cr, index: 3 }));
    let now = sim.now;
    sim.hubs[1].detach(cr, now);
    sim.run(Duration::from_secs(1));
    assert!(sim.hubs[0].peers(cw).is_empty());
    assert_eq!(Arc::strong_count(&r), 1);
}

#[test]
fn encrypted_and_compat_cores_replicate() {
    let secret = Some([7; 32]);
    let mut options = CreateOptions::writer(key_pair(0));
    options.encryption_key = secret;
    let compat_key = CoreKey(key_pair(1).public());
    let compat = CreateOptions { key_pair: Some(key_pair(1)), ..CreateOptions::reader(compat_key) };
    for (options, secret) in [(options, secret), (compat, None)] {
        let mut w = Core::create(&memory(), options).unwrap();
        append(&mut w, 40);
        let copy = CreateOptions { encryption_key: secret, ..CreateOptions::reader(*w.key()) };
        let r = share(Core::create(&memory(), copy).unwrap());
        let mut sim = Sim::new(2);
        let (_, core) = (sim.attach(0, &share(w)), sim.attach(1, &r));
        sim.connect(0, 1, MS);
        let now = sim.now;
        sim.hubs[1].want_range(core, 0..40, true, now);
        sim.run(Duration::from_secs(1));
        assert_eq!(here(&r), 40);
        assert_true(&r);
        let seek = {
            let now = sim.now;
            sim.hubs[1].want_seek(core, 77, now)
        };
        sim.drain();
        assert_eq!(
            sim.count(1, |e| matches!(e, HubEvent::Seeked { seek: s, .. } if *s == seek)),
            1
        );
    }
}

#[test]
fn a_core_attached_to_open_connections_is_in_sync_when_its_head_is_here() {
    let mut sim = Sim::new(3);
    let (w, r) = (writer(20), reader());
    sim.attach(0, &w);
    sim.connect(1, 0, 10 * MS);
    // A peer that has never heard of the core: its refusal is no sync, and nobody waits for more of it.
    sim.connect(1, 2, 30 * MS);
    sim.run(Duration::from_secs(1));
    let core = sim.attach(1, &r);
    let now = sim.now;
    sim.hubs[1].want_upgrade(core, now);
    let synced = HubEvent::PeersSynced { core };
    assert!(sim.run_until(Duration::from_secs(1), |sim| sim.has_event(1, &synced)));
    assert_eq!(length(&r), 20);
}

#[test]
fn an_empty_core_is_known_to_be_empty_by_a_peer_that_knows_it() {
    let (mut sim, w, _r, cw, core) = pair(0, 10 * MS);
    let empty = HubEvent::Heard { core, empty: true };
    assert!(sim.run_until(Duration::from_secs(1), |sim| sim.has_event(1, &empty)));
    assert!(sim.elapsed() <= 40 * MS, "{:?}", sim.elapsed());
    append(&mut w.lock().unwrap(), 1);
    let now = sim.now;
    sim.hubs[0].core_changed(cw, now);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Heard { core, empty: false }));
    assert_eq!(sim.count(1, |e| matches!(e, HubEvent::Heard { .. })), 2);
}

#[test]
fn a_peer_that_has_only_the_key_says_nothing_about_the_core() {
    let mut sim = Sim::new(2);
    for hub in 0..2 {
        sim.attach(hub, &reader());
    }
    sim.connect(1, 0, MS);
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.count(1, |e| matches!(e, HubEvent::Heard { .. })), 0, "{:?}", sim.events[1]);
    assert_eq!(sim.count(1, |e| matches!(e, HubEvent::PeersSynced { .. })), 1);
}

#[test]
fn a_peer_that_has_only_the_key_is_told_from_one_that_knows_the_core() {
    let mut sim = Sim::new(3);
    let (w, r) = (writer(0), reader());
    let core = sim.attach(1, &r);
    let here = |sim: &Sim| sim.hubs[1].company(core);
    let wait = sim.attach(2, &reader());
    let (peer, _) = sim.connect(1, 2, MS);
    assert_eq!(here(&sim), Company { coming: 1, ..Company::default() });
    sim.run_until(Duration::from_secs(1), |sim| open(&sim.hubs[1], core) > 0);
    assert_eq!(here(&sim), Company { silent: 1, ..Company::default() });
    sim.run(Duration::from_secs(1));
    assert_eq!(here(&sim), Company { blank: 1, ..Company::default() });
    assert_eq!(sim.hubs[2].company(wait), here(&sim));
    // The writer comes, though nothing is in it so far; what both learn from it makes them know the core as well.
    sim.attach(0, &w);
    sim.connect(1, 0, MS);
    sim.run(Duration::from_secs(1));
    assert_eq!(here(&sim), Company { told: 1, blank: 1, ..Company::default() });
    append(&mut w.lock().unwrap(), 3);
    let now = sim.now;
    let served = sim.hubs[0].core_id(&key().discovery_key()).unwrap();
    sim.hubs[0].core_changed(served, now);
    sim.run(Duration::from_secs(1));
    assert_eq!(here(&sim), Company { told: 2, ..Company::default() });
    assert!(sim.count(1, |e| matches!(e, HubEvent::PeerTold { .. })) >= 3);
    let now = sim.now;
    sim.hubs[1].handle_closed(peer, now);
    assert_eq!(here(&sim), Company { told: 1, ..Company::default() });
}

#[test]
fn a_core_that_was_only_served_knows_its_peers_when_it_is_opened() {
    // A reader that is served by nobody asks a node which has the head of the core, and not the rest, in its store.
    let (mut sim, stored) = (Sim::new(2), reader());
    {
        let mut sim = Sim::new(2);
        sim.attach(0, &writer(20));
        sim.attach(1, &stored);
        sim.connect(1, 0, MS);
        sim.run(Duration::from_secs(1));
    }
    sim.stores.insert(0, stored.clone());
    let w = writer(20);
    sim.attach(1, &w);
    sim.connect(1, 0, 10 * MS);
    sim.run(Duration::from_secs(2));
    sim.events[0].clear();
    let core = sim.attach(0, &stored);
    assert_eq!(open(&sim.hubs[0], core), 1);
    sim.want(0, core, 7);
    sim.run(Duration::from_secs(1));
    for event in [
        HubEvent::PeersSynced { core },
        HubEvent::Heard { core, empty: false },
        HubEvent::Block { core, index: 7 },
    ] {
        assert!(sim.has_event(0, &event), "{event:?} of {:?}", sim.events[0]);
    }
}

#[test]
fn a_core_that_leaves_the_hub_closes_its_channels_and_forgets_its_wishes() {
    let (mut sim, _w, r, cw, core) = pair(20, MS);
    sim.want(1, core, 5);
    sim.run(Duration::from_secs(1));
    let now = sim.now;
    let range = sim.hubs[1].want_range(core, 0..u64::MAX, true, now);
    sim.hubs[1].detach(core, now);
    sim.run(Duration::from_secs(1));
    assert!(sim.hubs[0].peers(cw).is_empty() && sim.hubs[1].peers(core).is_empty());
    assert_eq!(sim.hubs[1].core_id(&r.lock().unwrap().discovery_key().clone()), None);
    let now = sim.now;
    sim.hubs[1].unwant_range(range, now);
    assert_eq!(sim.hubs[1].poll_timeout(), None);
    // It may come back, on the same connection.
    let core = sim.attach(1, &r);
    sim.want(1, core, 6);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 6 }));
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
}

#[test]
fn cleared_blocks_are_told_and_not_asked_for() {
    let (mut sim, w, r, cw, core) = pair(20, MS);
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.hubs[1].peers(core)[0].contiguous, 20);
    w.lock().unwrap().clear(3..6).unwrap();
    let now = sim.now;
    sim.hubs[0].core_cleared(cw, 3..6, now);
    sim.run(Duration::from_secs(1));
    assert_eq!(sim.hubs[1].peers(core)[0].contiguous, 3);
    for block in [2, 4, 10] {
        sim.want(1, core, block);
    }
    sim.run(Duration::from_secs(3));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 2 }));
    // Blocks above are known of as before, though a contiguous start no longer covers them.
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 10 }));
    assert!(sim.has_event(1, &HubEvent::BlockUnavailable { core, index: 4 }));
    assert_eq!(here(&r), 2);
}
