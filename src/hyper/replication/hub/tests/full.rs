//! A reader whose disk is full.

use super::*;
use crate::hyper::core::storage::crash::CrashMedium;
use crate::hyper::core::storage::{Staged, Storage};

const BLOCK: usize = 64 * 1024;
const BLOCKS: u64 = 400;

/// A server, and a reader with the head whose disk takes nothing more.
fn full() -> (Sim, CrashMedium, SharedCore, CoreId, ConnId) {
    let w = share(writer_of(0));
    let blocks: Vec<Bytes> = (0..BLOCKS).map(|i| vec![i as u8; BLOCK].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    let medium = CrashMedium::default();
    let storage: Arc<dyn Storage> = Arc::new(Staged::new(medium.clone()).unwrap());
    let r = share(Core::create(&storage, CreateOptions::reader(key())).unwrap());
    let mut sim = Sim::new(2);
    sim.attach(0, &w);
    let core = sim.attach(1, &r);
    let (_, end) = sim.connect(1, 0, 5 * MS);
    sim.run(Duration::from_secs(1));
    assert_eq!(length(&r), BLOCKS);
    medium.set_full(true);
    (sim, medium, r, core, end)
}

#[test]
fn who_waits_gets_the_block_and_nothing_else_is_fetched_in_vain() {
    let (mut sim, medium, r, core, end) = full();
    let now = sim.now;
    let range = sim.hubs[1].want_range(core, 0..BLOCKS, true, now);
    sim.run(Duration::from_secs(10));
    let before = sim.lines[&(0, end)].sent;
    for round in 0..20 {
        sim.want(1, core, round * 17);
        sim.run(Duration::from_secs(3));
        let given = |e: &HubEvent| {
            let HubEvent::Unstored { index, stored, .. } = e else { return false };
            *index == round * 17 && stored.iter().all(|byte| *byte == *index as u8)
        };
        assert_eq!(sim.count(1, given), 1, "block {}", round * 17);
    }
    assert_eq!(here(&r), 0);
    let sent = (sim.lines[&(0, end)].sent - before) / BLOCK as u64;
    assert!(sent < 20 + 6, "{sent} blocks in a minute, 20 of them waited for");
    let told = |e: &HubEvent| matches!(e, HubEvent::StorageFailed { full: true, .. });
    assert_eq!(sim.count(1, told), 1, "said once");
    // Somebody makes room.
    medium.set_full(false);
    let done = HubEvent::RangeDone { core, range };
    assert!(sim.run_until(Duration::from_secs(40), |sim| sim.has_event(1, &done)));
    assert_eq!(here(&r), BLOCKS);
    assert_eq!(sim.violations(0) + sim.violations(1), 0);
}

#[test]
fn a_longer_head_is_followed_on_a_full_disk() {
    let (mut sim, _medium, r, core, _) = full();
    let w = share(writer_of(0));
    let blocks: Vec<Bytes> = (0..BLOCKS + 5).map(|i| vec![i as u8; BLOCK].into()).collect();
    w.lock().unwrap().append(&blocks, Durability::Buffered).unwrap();
    // A block of the head that is to come is waited for already: it would come along with it.
    sim.want(1, core, BLOCKS + 1);
    sim.want(1, core, 3);
    sim.run(Duration::from_secs(1));
    let server = sim.hubs.len();
    sim.hubs.push(Hub::new(Limits::default()));
    sim.events.push(Vec::new());
    sim.attach(server, &w);
    sim.connect(1, server, 5 * MS);
    sim.run(Duration::from_secs(5));
    assert_eq!((length(&r), here(&r)), (BLOCKS + 5, 0));
    let given =
        |e: &HubEvent| matches!(e, HubEvent::Unstored { index, .. } if *index == BLOCKS + 1);
    assert_eq!(sim.count(1, given), 1);
}
