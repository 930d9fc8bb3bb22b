//! Peers that lie, flood, or make no sense.

use super::*;
use crate::hyper::core::tree::Node;
use crate::hyper::replication::wire::{Reason, Want};

/// A hub that has the head of a core of 20 blocks and asks a hand-made peer for block 7.
fn asked() -> (Peer, CoreId, SharedCore, SharedCore, wire::RequestMessage) {
    let (w, r) = (writer(20), reader());
    let (mut peer, core) = Peer::new(&r);
    peer.serve_head(&w);
    peer.say(Message::Range { drop: false, start: 0, length: 20 });
    let now = peer.now;
    peer.hub.want_block(core, 7, true, now);
    peer.listen();
    let request = peer.requests().pop().expect("the block is asked for");
    (peer, core, w, r, request)
}

fn block_of(message: &mut Message) -> &mut crate::hyper::core::message::BlockProof {
    match message {
        Message::Data { proof, .. } => proof.block.as_mut().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_answer_is_taken() {
    let (mut peer, core, w, r, request) = asked();
    let data = peer.answer(&w, &request);
    peer.say(data);
    assert!(peer.events.contains(&HubEvent::Block { core, index: 7 }));
    assert!(peer.violations().is_empty());
    assert_true(&r);
}

#[test]
fn a_false_block_is_a_strike_and_is_not_stored() {
    type Change = fn(&mut Message);
    let changes: [Change; 5] = [
        |m| block_of(m).value = Bytes::from_static(b"lie"),
        |m| block_of(m).nodes[1].hash[0] ^= 1,
        |m| block_of(m).nodes[1].size += 1,
        |m| block_of(m).nodes.truncate(3),
        |m| block_of(m).index = 6,
    ];
    for change in changes {
        let (mut peer, core, w, r, request) = asked();
        let mut data = peer.answer(&w, &request);
        change(&mut data);
        peer.say(data);
        assert_eq!(peer.violations().len(), 1);
        assert!(!peer.is_closed());
        assert_eq!(here(&r), 0);
        // It is not asked for it again, only for its head, and the reader learns that nobody else has it.
        peer.wait(Duration::from_secs(3));
        assert!(peer.requests().iter().all(|message| message.request.block.is_none()));
        assert!(peer.events.contains(&HubEvent::BlockUnavailable { core, index: 7 }));
    }
}

#[test]
fn false_blocks_again_and_again_end_the_connection() {
    let (mut peer, core, _w, r, mut request) = asked();
    for block in 8..12 {
        let lie = crate::hyper::core::message::BlockProof {
            index: request.request.block.unwrap().index,
            value: Bytes::from_static(b"lie"),
            nodes: vec![],
        };
        let proof = crate::hyper::core::Proof { block: Some(lie), ..Default::default() };
        peer.say(Message::Data { request: request.id, proof });
        if peer.is_closed() {
            break;
        }
        let now = peer.now;
        peer.hub.want_block(core, block, true, now);
        peer.listen();
        request = peer.requests().pop().unwrap();
    }
    assert!(peer.is_closed());
    assert_eq!(here(&r), 0);
    assert_eq!(peer.hub.peers(core), []);
}

#[test]
fn a_false_signature_or_node_does_not_upgrade() {
    for change in 0..4 {
        let (w, r) = (writer(20), reader());
        let (mut peer, core) = Peer::new(&r);
        peer.sync(20, 0);
        let request = peer.requests().pop().unwrap();
        let mut data = peer.answer(&w, &request);
        let Message::Data { proof, .. } = &mut data else { panic!() };
        let upgrade = proof.upgrade.as_mut().unwrap();
        match change {
            0 => upgrade.signature[10] ^= 1,
            1 => upgrade.nodes[0].hash[0] ^= 1,
            2 => upgrade.length = 19,
            _ => proof.manifest = None,
        }
        peer.say(data);
        assert_eq!(length(&r), 0);
        assert_eq!(peer.violations().len(), 1, "{change}");
        assert_eq!(peer.requests(), [], "not asked again for the same");
        let now = peer.now;
        peer.hub.want_upgrade(core, now);
        peer.listen();
        assert!(peer.events.contains(&HubEvent::PeersSynced { core }), "refused is settled");
        // A new claim is looked at again.
        let w = writer(21);
        peer.sync(21, 0);
        let request = peer.requests().pop().unwrap();
        let data = peer.answer(&w, &request);
        peer.say(data);
        assert_eq!(length(&r), 21);
    }
}

#[test]
fn a_length_that_shrinks_or_is_absurd_ends_it() {
    let (mut peer, _) = Peer::new(&reader());
    peer.sync(20, 0);
    peer.sync(19, 0);
    peer.sync(18, 0);
    assert!(peer.is_closed(), "{:?}", peer.violations());
    let (mut peer, _) = Peer::new(&reader());
    peer.sync(1 << 52, 0);
    assert!(peer.is_closed());
}

#[test]
fn a_peer_that_does_not_know_the_key_is_thrown_out() {
    let mut peer = Peer::unopened();
    let now = peer.now;
    peer.hub.attach(writer(5), LIVE, now);
    let id = key().discovery_key();
    let handshake = wire::Handshake { seeks: true, capability: [3; 32] }.encode();
    peer.mux.open(wire::PROTOCOL, &id.0, &handshake).unwrap();
    peer.flush();
    assert_eq!(peer.violations(), [&Violation::Capability]);
    assert!(peer.is_closed());
    assert!(peer.heard.is_empty(), "nothing was told");
}

#[test]
fn malformed_frames_end_the_connection() {
    let frames: [&[u8]; 8] = [
        &[1, 3, 0xff],                                        // a data message cut short
        &[0, 0, 1, 200, 5],                                   // an item longer than its batch
        &[0, 0, 0, 3, 0, 0, 0],                               // a batch in a batch
        &[0, 1, 9, 1, 0x78, 0],                               // an id that skips some
        &[0, 2, 77],                                          // a reject of nothing
        &[1, 7, 0, 0xfe, 0xff, 0xff, 0xff, 0], // a bitfield of 64 million blocks, without bits
        &[1, 0, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0], // an integer above 2^53
        &[0xfd, 1],
    ];
    for frame in frames {
        let (mut peer, _) = Peer::new(&reader());
        let now = peer.now;
        peer.hub.handle_frame(peer.conn, Bytes::copy_from_slice(frame), now);
        peer.listen();
        assert!(peer.is_closed(), "{frame:?}");
        // What comes after is not looked at.
        peer.hub.handle_frame(peer.conn, Bytes::from_static(&[1, 0, 0, 0, 0, 0]), now);
    }
}

#[test]
fn ranges_of_two_to_the_forty_cost_nothing() {
    let (mut peer, core) = Peer::new(&reader());
    peer.sync(20, 0);
    for start in [0, 1, 1 << 39] {
        peer.say(Message::Range { drop: false, start, length: 1 << 40 });
        peer.say(Message::Range { drop: false, start, length: (1 << 53) - 1 });
        peer.say(Message::Range { drop: true, start: start + 5, length: 1 << 50 });
    }
    for i in 0..3000 {
        peer.say(Message::Range { drop: false, start: 1 + (i << 16), length: 40_000 });
    }
    peer.say(Message::Bitfield { start: 1 << 45, words: vec![u32::MAX; 65_536] });
    assert!(!peer.is_closed());
    assert!(peer.hub.peers(core)[0].contiguous < 1 << 22);
}

#[test]
fn answers_nobody_asked_for_are_strikes() {
    let (mut peer, _, w, r, request) = asked();
    let data = peer.answer(&w, &request);
    let Message::Data { proof, .. } = data else { panic!() };
    for id in [1000, 1001, 1002, 1003] {
        assert!(!peer.is_closed());
        peer.say(Message::Data { request: id, proof: proof.clone() });
    }
    assert!(peer.is_closed());
    assert_eq!(here(&r), 0);
}

#[test]
fn an_answer_to_a_cancelled_request_is_ignored() {
    let (mut peer, core, w, r, request) = asked();
    let now = peer.now;
    peer.hub.unwant_block(core, 7, now);
    peer.listen();
    assert_eq!(peer.heard.last(), Some(&Message::Cancel { request: request.id }));
    let data = peer.answer(&w, &request);
    peer.say(data.clone());
    assert_eq!((here(&r), peer.violations().len()), (0, 0));
    // Wanted again, the late answer serves.
    let now = peer.now;
    peer.hub.want_block(core, 7, true, now);
    peer.say(data);
    assert_eq!((here(&r), peer.violations().len()), (1, 0));
}

#[test]
fn an_answer_to_a_cancelled_request_may_have_nodes_that_came_since() {
    let (mut peer, core, w, r, request) = asked();
    let late = peer.answer(&w, &request);
    let now = peer.now;
    peer.hub.unwant_block(core, 7, now);
    // The neighbour brings the nodes that both need, so that the second request asks for fewer.
    peer.hub.want_block(core, 6, true, now);
    peer.listen();
    let neighbour = peer.requests().pop().unwrap();
    let data = peer.answer(&w, &neighbour);
    peer.say(data);
    peer.hub.want_block(core, 7, true, now);
    peer.listen();
    let again = peer.requests().pop().unwrap();
    assert!(again.request.block.unwrap().nodes < request.request.block.unwrap().nodes);
    peer.say(late);
    assert!(peer.violations().is_empty(), "{:?}", peer.violations());
    assert!(peer.events.contains(&HubEvent::Block { core, index: 7 }));
    let data = peer.answer(&w, &again);
    peer.say(data);
    assert!(peer.violations().is_empty(), "{:?}", peer.violations());
    assert_true(&r);
}

#[test]
fn no_data_is_believed_until_the_peer_says_otherwise() {
    let (mut peer, core, w, r, request) = asked();
    peer.say(Message::NoData { request: request.id, reason: Reason::NotAvailable });
    peer.wait(Duration::from_secs(2));
    assert_eq!(peer.requests(), []);
    assert!(peer.events.contains(&HubEvent::BlockUnavailable { core, index: 7 }));
    peer.say(Message::Range { drop: false, start: 7, length: 1 });
    let request = peer.requests().pop().expect("asked again");
    let data = peer.answer(&w, &request);
    peer.say(data);
    assert_eq!(here(&r), 1);
}

#[test]
fn endless_channels_end_the_connection() {
    let mut peer = Peer::unopened();
    let now = peer.now;
    for i in 0..20_000u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&i.to_le_bytes());
        if peer.mux.open(wire::PROTOCOL, &id, &[0; 33]).is_none() || peer.is_closed() {
            break;
        }
        let frame = peer.mux.poll_transmit().unwrap();
        peer.hub.handle_frame(peer.conn, frame.payload().to_vec().into(), now);
        peer.listen();
    }
    assert!(peer.is_closed());
}

#[test]
fn a_flood_of_requests_gets_no_data_beyond_the_bound() {
    let (mut peer, _) = Peer::new(&writer(20));
    peer.sync(0, 20);
    let now = peer.now;
    // It reads nothing.
    peer.hub.handle_queued(peer.conn, 3 << 20, now);
    peer.heard.clear();
    let (bound, beyond) = (Limits::default().upload_queue, 976);
    for id in 1..=(bound + beyond) as u64 {
        let request = crate::hyper::core::Request {
            block: Some(crate::hyper::core::message::NodeRequest { index: id % 20, nodes: 0 }),
            ..Default::default()
        };
        let m = Message::Request(wire::RequestMessage { id, fork: 0, request });
        peer.mux.send(peer.channel, m.kind(), |out| m.encode(out));
    }
    while let Some(frame) = peer.mux.poll_transmit() {
        peer.hub.handle_frame(peer.conn, frame.payload().to_vec().into(), now);
    }
    let queued = peer.hub.conns[&peer.conn].mux.queued();
    assert!(queued < 16 * 1024, "{queued}");
    peer.hub.handle_queued(peer.conn, 0, now);
    peer.listen();
    let no_data = peer.heard.iter().filter(|m| matches!(m, Message::NoData { .. })).count();
    let data = peer.heard.iter().filter(|m| matches!(m, Message::Data { .. })).count();
    assert_eq!((no_data, data), (beyond, bound));
}

#[test]
fn invalid_requests_are_answered_and_counted() {
    let (mut peer, _) = Peer::new(&writer(20));
    peer.sync(0, 20);
    peer.heard.clear();
    for id in 1..=64 {
        assert!(!peer.is_closed());
        let request = crate::hyper::core::Request {
            upgrade: Some(crate::hyper::core::message::UpgradeRequest { start: 0, length: 21 }),
            ..Default::default()
        };
        peer.say(Message::Request(wire::RequestMessage { id, fork: 0, request }));
        if id < 64 {
            let reason = Reason::InvalidRequest;
            assert_eq!(peer.heard.pop(), Some(Message::NoData { request: id, reason }));
        }
    }
    assert!(peer.is_closed());
}

#[test]
fn wants_are_bounded_and_answered_in_turn() {
    let (mut peer, _) = Peer::new(&writer(20));
    peer.sync(0, 20);
    let now = peer.now;
    peer.hub.handle_queued(peer.conn, 3 << 20, now);
    for i in 0..100_000u64 {
        let want = Message::Want(Want { start: i % 7 * 32, length: 32, any: i % 5 == 0 });
        peer.mux.send(peer.channel, want.kind(), |out| want.encode(out));
    }
    while let Some(frame) = peer.mux.poll_transmit() {
        peer.hub.handle_frame(peer.conn, frame.payload().to_vec().into(), now);
    }
    assert!(peer.hub.conns[&peer.conn].mux.queued() < 64);
    peer.heard.clear();
    peer.hub.handle_queued(peer.conn, 0, now);
    peer.listen();
    assert!(peer.heard.len() <= 512 && !peer.heard.is_empty(), "{}", peer.heard.len());
}

#[test]
fn a_connection_that_never_reads_is_closed() {
    let (mut peer, _) = Peer::new(&writer(20));
    peer.sync(0, 20);
    let now = peer.now;
    peer.hub.handle_queued(peer.conn, 65 << 20, now);
    let request = crate::hyper::core::Request { manifest: true, ..Default::default() };
    // Something that is answered at once, whatever the backlog.
    for id in 0..Limits::default().upload_queue as u64 + 76 {
        let m = Message::Request(wire::RequestMessage { id, fork: 0, request: request.clone() });
        peer.mux.send(peer.channel, m.kind(), |out| m.encode(out));
    }
    peer.flush();
    assert!(peer.is_closed());
}

#[test]
fn nodes_with_sizes_beyond_reason_do_no_harm() {
    let (w, r) = (writer(20), reader());
    let (mut peer, _) = Peer::new(&r);
    peer.sync(20, 0);
    let request = peer.requests().pop().unwrap();
    let mut data = peer.answer(&w, &request);
    let Message::Data { proof, .. } = &mut data else { panic!() };
    let upgrade = proof.upgrade.as_mut().unwrap();
    for node in &mut upgrade.nodes {
        *node = Node { size: (1 << 53) - 1, ..*node };
    }
    peer.say(data);
    assert_eq!((length(&r), peer.violations().len()), (0, 1));
}

#[test]
fn random_messages_never_panic() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (w, r) = (writer(40), reader());
        let (mut peer, core) = Peer::new(if seed % 2 == 0 { &r } else { &w });
        if seed % 2 == 0 {
            peer.serve_head(&writer(20));
            let now = peer.now;
            peer.hub.want_range(core, 0..30, seed % 4 == 0, now);
            peer.hub.want_seek(core, 100, now);
        }
        for _ in 0..200 {
            if peer.is_closed() {
                break;
            }
            let number = |rng: &mut StdRng| match rng.random_range(0..4) {
                0 => rng.random_range(0..4),
                1 => rng.random_range(0..50),
                2 => 1 << rng.random_range(0..53),
                _ => rng.random_range(0..1 << 22),
            };
            let (a, b) = (number(&mut rng), number(&mut rng));
            let message = match rng.random_range(0..9) {
                0 => Message::Sync(wire::Sync {
                    fork: rng.random_range(0..2),
                    length: a % 64,
                    remote_length: b % 64,
                    can_upgrade: rng.random(),
                    uploading: rng.random_bool(0.9),
                    downloading: rng.random_bool(0.9),
                    has_manifest: rng.random(),
                    allow_push: rng.random(),
                }),
                1 => Message::Range { drop: rng.random(), start: a, length: b },
                2 => Message::Bitfield { start: a & !31, words: vec![rng.random(); 70] },
                3 => Message::Want(Want { start: a, length: b, any: rng.random() }),
                4 => Message::Unwant(Want { start: a, length: b, any: rng.random() }),
                5 => Message::Cancel { request: a },
                6 => Message::NoData { request: a % 40, reason: Reason::Unknown },
                7 => {
                    let part = |on: bool| {
                        on.then_some(crate::hyper::core::message::NodeRequest {
                            index: a,
                            nodes: b % 9,
                        })
                    };
                    let request = crate::hyper::core::Request {
                        block: part(rng.random()),
                        hash: part(rng.random()),
                        upgrade: rng.random::<bool>().then_some(
                            crate::hyper::core::message::UpgradeRequest { start: a, length: b },
                        ),
                        seek: rng.random::<bool>().then_some(
                            crate::hyper::core::message::SeekRequest { bytes: b, padding: 0 },
                        ),
                        manifest: rng.random(),
                        priority: b,
                    };
                    Message::Request(wire::RequestMessage { id: a, fork: 0, request })
                }
                _ => match peer.requests().pop() {
                    Some(request) if request.fork == 0 => {
                        match w.lock().unwrap().create_proof(&request.request).unwrap() {
                            Provable::Proof(proof) => Message::Data { request: request.id, proof },
                            _ => continue,
                        }
                    }
                    _ => continue,
                },
            };
            peer.say(message);
            if rng.random_bool(0.1) {
                peer.wait(Duration::from_millis(rng.random_range(0..3000)));
            }
        }
        assert_true(&r);
    }
}
