//! Truncation by the writer, and who follows.

use super::*;

#[test]
fn a_truncation_is_followed_and_the_rest_kept() {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(20), reader());
    let (cw, core) = (sim.attach(0, &w), sim.attach(1, &r));
    sim.connect(1, 0, 10 * MS);
    let now = sim.now;
    sim.hubs[1].want_range(core, 0..20, true, now);
    sim.run(Duration::from_secs(1));
    assert_eq!(here(&r), 20);
    w.lock().unwrap().truncate(13, 1).unwrap();
    let now = sim.now;
    sim.hubs[0].core_changed(cw, now);
    sim.run(Duration::from_secs(1));
    {
        let r = r.lock().unwrap();
        assert_eq!((r.fork(), r.length(), r.contiguous_length()), (1, 13, 13));
    }
    assert!(sim.has_event(1, &HubEvent::Truncated { core, length: 13, fork: 1 }));
    assert!(sim.has_event(1, &HubEvent::Upgraded { core, length: 13, fork: 1 }));
    // Appends on the new fork are followed as before.
    w.lock().unwrap().append(&[block(13).into(), block(14).into()], Durability::Buffered).unwrap();
    let now = sim.now;
    sim.hubs[0].core_changed(cw, now);
    sim.want(1, core, 14);
    sim.run(Duration::from_secs(1));
    assert!(sim.has_event(1, &HubEvent::Block { core, index: 14 }));
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
    assert_true(&r);
}

#[test]
fn a_fork_that_was_missed_is_followed_on_connect() {
    let (w, r) = (writer(20), reader());
    let mut sim = Sim::new(2);
    let (cw, core) = (sim.attach(0, &w), sim.attach(1, &r));
    let line = sim.connect(1, 0, MS);
    let now = sim.now;
    sim.hubs[1].want_range(core, 0..20, true, now);
    sim.run(Duration::from_secs(1));
    sim.cut((1, line.0));
    {
        let mut w = w.lock().unwrap();
        w.truncate(5, 1).unwrap();
        append(&mut w, 30);
        w.truncate(17, 2).unwrap();
        w.append(&[Bytes::from_static(b"other")], Durability::Buffered).unwrap();
    }
    let now = sim.now;
    sim.hubs[0].core_changed(cw, now);
    sim.connect(1, 0, MS);
    sim.hubs[1].want_range(core, 0..u64::MAX, true, now);
    sim.run(Duration::from_secs(2));
    let r = r.lock().unwrap();
    assert_eq!((r.fork(), r.length(), r.contiguous_length()), (2, 18, 18));
    assert_eq!(r.get(17).unwrap().unwrap(), &b"other"[..]);
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
}

#[test]
fn a_peer_on_an_older_fork_is_not_asked() {
    let (old, w) = (reader(), writer(20));
    let mut sim = Sim::new(3);
    let (c0, c1) = (sim.attach(0, &w), sim.attach(1, &old));
    let line = sim.connect(1, 0, MS);
    let now = sim.now;
    sim.hubs[1].want_range(c1, 0..20, true, now);
    sim.run(Duration::from_secs(1));
    sim.cut((1, line.0));
    w.lock().unwrap().truncate(10, 1).unwrap();
    append(&mut w.lock().unwrap(), 10);
    let now = sim.now;
    sim.hubs[0].core_changed(c0, now);
    // The third has the new head, then meets the old copy: both end on the new fork.
    let r = reader();
    let core = sim.attach(2, &r);
    sim.connect(2, 0, MS);
    sim.run(Duration::from_secs(1));
    sim.connect(2, 1, MS);
    let now = sim.now;
    sim.hubs[2].want_range(core, 0..20, false, now);
    sim.run(Duration::from_secs(2));
    assert_eq!((here(&r), old.lock().unwrap().fork()), (20, 1));
    assert_true(&r);
    assert_true(&old);
    let bad: usize = (0..3).map(|hub| sim.violations(hub)).sum();
    assert_eq!(bad, 0);
}
