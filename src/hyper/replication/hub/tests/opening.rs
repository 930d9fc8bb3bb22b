//! Channels that wait while somebody looks for their core.

use super::*;
use crate::hyper::replication::hub::opening::{MAX_WAITING, OPENING_PATIENCE};

/// A peer that has opened the channel of a core that nobody has looked for yet.
fn waiting() -> Peer {
    let mut peer = Peer::unopened();
    peer.slow_store = true;
    peer.open(key());
    let discovery = key().discovery_key();
    assert_eq!(peer.events, [HubEvent::CoreAsked { discovery }]);
    peer
}

fn asked(peer: &Peer) -> usize {
    peer.events.iter().filter(|event| matches!(event, HubEvent::CoreAsked { .. })).count()
}

#[test]
fn a_channel_waits_until_its_core_is_found() {
    let mut peer = waiting();
    peer.wait(OPENING_PATIENCE / 2);
    assert!(peer.heard.is_empty() && peer.closed.is_empty());
    let (now, core) = (peer.now, writer(20));
    peer.hub.handle_core_found(&key().discovery_key(), Some(core), now);
    peer.listen();
    assert!(peer.heard.iter().any(|message| matches!(message, Message::Sync(_))));
    peer.sync(0, 20);
    assert_eq!(open(&peer.hub, peer.hub.core_id(&key().discovery_key()).unwrap()), 1);
    peer.wait(OPENING_PATIENCE * 2);
    assert!(peer.closed.is_empty() && peer.violations().is_empty());
}

#[test]
fn the_core_may_be_attached_meanwhile() {
    let mut peer = waiting();
    let (now, core) = (peer.now, writer(20));
    let id = peer.hub.attach(core.clone(), LIVE, now);
    peer.listen();
    assert_eq!(open(&peer.hub, id), 1);
    peer.hub.handle_core_found(&key().discovery_key(), Some(core), now);
    peer.listen();
    assert_eq!((open(&peer.hub, id), peer.violations().len()), (1, 0));
}

#[test]
fn a_core_that_is_not_there_or_not_found_in_time_is_refused() {
    for answered in [true, false] {
        let mut peer = waiting();
        match answered {
            true => peer.hub.handle_core_found(&key().discovery_key(), None, peer.now),
            false => peer.wait(OPENING_PATIENCE),
        }
        peer.listen();
        assert_eq!(peer.closed, [peer.channel], "answered: {answered}");
        peer.wait(OPENING_PATIENCE);
        assert_eq!(peer.hub.poll_timeout(), None, "nothing is left to wait for");
        // What is found later is not taken in for nobody, and the peer may ask once more.
        let (now, core) = (peer.now, writer(20));
        peer.hub.handle_core_found(&key().discovery_key(), Some(core), now);
        assert_eq!(peer.hub.core_id(&key().discovery_key()), None);
        peer.open(key());
        assert_eq!(asked(&peer), 2);
    }
}

#[test]
fn a_channel_that_is_closed_meanwhile_waits_no_more() {
    let mut peer = waiting();
    peer.mux.close(peer.channel);
    peer.flush();
    assert_eq!(peer.hub.conns[&peer.conn].mux.deferred(), 0);
    let (now, core) = (peer.now, writer(20));
    peer.hub.handle_core_found(&key().discovery_key(), Some(core), now);
    peer.listen();
    assert_eq!(peer.hub.core_id(&key().discovery_key()), None, "nobody asks for it any more");
    assert!(peer.violations().is_empty());
}

#[test]
fn a_connection_that_ends_takes_its_waiting_channels_with_it() {
    let mut peer = waiting();
    let (now, core) = (peer.now, writer(20));
    peer.hub.handle_closed(peer.conn, now);
    peer.hub.handle_core_found(&key().discovery_key(), Some(core), now);
    assert_eq!(peer.hub.core_id(&key().discovery_key()), None);
}

#[test]
fn no_more_channels_wait_than_the_bound() {
    let mut peer = Peer::unopened();
    peer.slow_store = true;
    for i in 0..MAX_WAITING as u64 + 100 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&i.to_le_bytes());
        peer.mux.open(wire::PROTOCOL, &id, &[0; 33]).unwrap();
        peer.flush();
    }
    assert_eq!((asked(&peer), peer.closed.len()), (MAX_WAITING, 100));
    assert_eq!(peer.hub.conns[&peer.conn].mux.deferred(), MAX_WAITING);
    assert!(!peer.is_closed());
}
