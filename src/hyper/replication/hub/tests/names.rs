//! How few round trips a reader of names needs.

use super::*;

/// The tree of names of a drive.
const NAMES: AttachOptions = AttachOptions { downloading: true, small_blocks: true };

fn reader_of(blocks: u64) -> (Sim, SharedCore) {
    let mut sim = Sim::new(2);
    let (w, r) = (writer(blocks), reader());
    sim.attach(0, &w);
    sim.hubs[1].attach(r.clone(), NAMES, sim.now);
    sim.connect(1, 0, 10 * MS);
    (sim, r)
}

#[test]
fn few_names_come_with_the_upgrade() {
    let (mut sim, r) = reader_of(30);
    // Open, and all the rest.
    sim.run(41 * MS);
    assert_eq!((length(&r), here(&r)), (30, 30));
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
    assert_true(&r);
}

#[test]
fn of_many_names_the_first_block_and_the_last_come_with_the_upgrade() {
    let (mut sim, r) = reader_of(1000);
    sim.run(41 * MS);
    let has = |block| r.lock().unwrap().has(block);
    assert!(length(&r) == 1000 && here(&r) == 2 && has(0) && has(999));
    assert_true(&r);
}

/// A peer that answers as it likes: a block before the upgrade that it was asked for behind is nobody's fault.
#[test]
fn a_block_that_overtakes_its_upgrade_is_asked_for_again() {
    let w = writer(3);
    let mut peer = Peer::unopened();
    let (r, now) = (reader(), peer.now);
    let core = peer.hub.attach(r.clone(), NAMES, now);
    peer.hub.want_block(core, 1, true, now);
    peer.hub.want_block(core, 2, true, now);
    peer.open(key());
    let has = Message::Range { drop: false, start: 0, length: 3 };
    peer.mux.send(peer.channel, has.kind(), |out| has.encode(out));
    peer.sync(3, 0);
    for (asked, came) in [(3, 1), (1, 2)] {
        let requests = peer.requests();
        assert_eq!(requests.len(), asked);
        for request in requests.iter().rev() {
            let answer = peer.answer(&w, request);
            peer.say(answer);
        }
        assert_eq!(here(&r), came);
    }
    assert_eq!(peer.violations(), Vec::<&Violation>::new());
}
