//! What is said to a peer before it has shown itself.

use super::*;
use crate::swarm::early::MAX_EARLY;
use std::sync::atomic::{AtomicUsize, Ordering};

fn reaching(world: &Network) -> ConnId {
    let mut told = world.machines[0].events.iter().filter_map(|event| match event {
        SwarmEvent::Reaching { conn, .. } => Some(*conn),
        _ => None,
    });
    told.next().expect("it is told at once")
}

#[test]
fn the_first_words_go_out_with_the_header() {
    let mut world = Network::two();
    world.dial(0);
    let conn = reaching(&world);
    world.send_frame(0, conn, b"first");
    // One way.
    world.run(Duration::from_millis(6));
    assert_eq!(world.frames(1), [b"first".to_vec()]);
    assert!(world.connected(0).is_empty());
    world.run(Duration::from_secs(1));
    assert_eq!(world.connected(0), [(conn, true)]);
    world.send_frame(0, conn, b"then");
    world.run(Duration::from_secs(1));
    assert_eq!(world.frames(1), [b"first".to_vec(), b"then".to_vec()]);
}

#[test]
fn whoever_is_not_there_gets_a_few_small_datagrams() {
    let mut world = Network::two();
    world.cut(true);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    world.tap = Some(Box::new(move |datagram| {
        counter.fetch_add(datagram.bytes.len(), Ordering::Relaxed);
        true
    }));
    world.dial(0);
    let conn = reaching(&world);
    for len in [MAX_EARLY, 100_000, 5] {
        world.send_frame(0, conn, &vec![7; len]);
    }
    world.run(FIRST_PACKET_WAIT * 2);
    assert_eq!(world.closed(0), [(conn, Closed::Unreached)]);
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent > 400 && sent < 2600, "{sent}");
}

#[test]
fn what_waited_comes_in_order_once_the_peer_is_there() {
    let mut world = Network::two();
    world.dial(0);
    let conn = reaching(&world);
    let frames: Vec<_> = (1..6u8).map(|n| vec![n; usize::from(n) * 100]).collect();
    for frame in &frames {
        world.send_frame(0, conn, frame);
    }
    world.run(Duration::from_secs(1));
    assert_eq!(world.frames(1), frames);
}
