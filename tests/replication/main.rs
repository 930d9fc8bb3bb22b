//! Replication with the reference, frame by frame over a pipe: it serves and we read, we serve and it
//! reads. Skipped with a printed reason where it is not installed.
#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

mod peer;
#[path = "../common/reference.rs"]
mod reference;

use bytes::Bytes;
use hdrive::crypto::KeyPair;
use hdrive::hyper::core::storage::memory::memory;
use hdrive::hyper::core::{Core, CreateOptions, Durability};
use hdrive::hyper::replication::HubEvent;
use hdrive::key::{CoreKey, hex, unhex};
use peer::Peer;
use serde_json::json;
use std::time::Instant;

const SEED: [u8; 32] = [5; 32];

fn block(i: u64) -> Vec<u8> {
    (0..i * 37 % 900 + 1).map(|j| (i * 31 + j) as u8).collect()
}

fn hex_blocks(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|i| hex(&block(i))).collect()
}

fn blocks(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(|i| block(i).into()).collect()
}

/// The reference writes `length` blocks; we have the key.
fn js_writer(length: u64, encryption: Option<[u8; 32]>) -> Option<(Peer, Core)> {
    let mut peer = Peer::start()?;
    let secret = encryption.map(|key| hex(&key));
    let opened = peer.ask("open", json!({ "seed": hex(&SEED), "encryptionKey": secret }));
    let key = unhex(opened["key"].as_str().unwrap()).unwrap();
    peer.ask("append", json!({ "blocks": hex_blocks(0..length) }));
    let key = CoreKey(key.try_into().unwrap());
    let options = CreateOptions { encryption_key: encryption, ..CreateOptions::reader(key) };
    Some((peer, Core::create(&memory(), options).unwrap()))
}

/// We write `length` blocks; the reference has the key.
fn js_reader(length: u64, encryption: Option<[u8; 32]>) -> Option<(Peer, Core)> {
    let mut peer = Peer::start()?;
    let mut options = CreateOptions::writer(KeyPair::from_seed(&SEED));
    options.encryption_key = encryption;
    let mut core = Core::create(&memory(), options).unwrap();
    core.append(&blocks(0..length), Durability::Buffered).unwrap();
    let secret = encryption.map(|key| hex(&key));
    peer.ask("open", json!({ "key": hex(core.key().as_bytes()), "encryptionKey": secret }));
    Some((peer, core))
}

#[test]
fn a_core_of_the_reference_is_read() {
    for (we_begin, encryption) in [(true, None), (false, Some([9; 32]))] {
        let Some((mut peer, core)) = js_writer(700, encryption) else { return };
        let (id, core) = peer.attach(core);
        let now = Instant::now();
        peer.hub.want_block(id, 333, true, now);
        peer.hub.want_upgrade(id, now);
        peer.connect(we_begin);
        peer.until_event(&HubEvent::Block { core: id, index: 333 });
        peer.until_event(&HubEvent::PeersSynced { core: id });
        assert_eq!(core.lock().unwrap().length(), 700);
        for byte in [0u64, 1, 5000, 123_456] {
            let seek = peer.hub.want_seek(id, byte, Instant::now());
            let found = peer.until("a position", |peer| {
                peer.events.iter().find_map(|event| match event {
                    HubEvent::Seeked { seek: s, found, .. } if *s == seek => Some(*found),
                    _ => None,
                })
            });
            let theirs = peer.ask("seek", json!({ "bytes": byte }));
            let theirs = theirs["found"].as_array().unwrap();
            let theirs = (theirs[0].as_u64().unwrap(), theirs[1].as_u64().unwrap());
            assert_eq!(found, Some(theirs));
        }
        let range = peer.hub.want_range(id, 0..700, we_begin, Instant::now());
        peer.until_event(&HubEvent::RangeDone { core: id, range });
        for i in 0..700 {
            assert_eq!(core.lock().unwrap().get(i).unwrap().unwrap(), block(i));
        }
        // It goes on, and we follow.
        peer.ask("append", json!({ "blocks": hex_blocks(700..750) }));
        peer.until_event(&HubEvent::Upgraded { core: id, length: 750, fork: 0 });
        peer.hub.want_block(id, 749, true, Instant::now());
        peer.until_event(&HubEvent::Block { core: id, index: 749 });
        // It forks, and we follow.
        peer.events.clear();
        peer.ask("truncate", json!({ "length": 600 }));
        peer.until_event(&HubEvent::Upgraded { core: id, length: 600, fork: 1 });
        peer.ask("append", json!({ "blocks": hex_blocks(5..15) }));
        peer.hub.want_block(id, 605, true, Instant::now());
        peer.until_event(&HubEvent::Block { core: id, index: 605 });
        assert_eq!(core.lock().unwrap().get(605).unwrap().unwrap(), block(10));
        let state = peer.ask("state", json!({}));
        assert_eq!(state["remotes"][0]["length"], 610, "{state}");
    }
}

#[test]
fn a_sparse_core_of_the_reference_is_read_where_it_has_something() {
    let Some((mut peer, core)) = js_writer(500, None) else { return };
    peer.ask("clear", json!({ "start": 100, "end": 200 }));
    let (id, core) = peer.attach(core);
    peer.connect(true);
    let now = Instant::now();
    peer.hub.want_range(id, 0..500, false, now);
    peer.hub.want_block(id, 150, true, now);
    peer.until_event(&HubEvent::BlockUnavailable { core: id, index: 150 });
    peer.until("all that is there", |_| (core.lock().unwrap().blocks_here() == 400).then_some(()));
}

#[test]
fn the_reference_reads_a_core_of_ours() {
    for (we_begin, encryption) in [(true, Some([8; 32])), (false, None)] {
        let Some((mut peer, core)) = js_reader(700, encryption) else { return };
        let (id, core) = peer.attach(core);
        let early = peer.begin("get", json!({ "index": 444 }));
        peer.connect(we_begin);
        assert_eq!(peer.end(early)["value"], hex(&block(444)));
        for byte in [1u64, 5000, 123_456] {
            let found = peer.ask("seek", json!({ "bytes": byte }));
            let ours = core.lock().unwrap().seek(byte).unwrap();
            let want = match ours {
                hdrive::hyper::core::tree::SeekResult::Found { block, offset } => [block, offset],
                other => panic!("{other:?}"),
            };
            assert_eq!(found["found"], json!(want));
        }
        let down = peer.ask("download", json!({ "start": 0, "end": 700, "linear": we_begin }));
        assert_eq!(down["local"], json!(hex_blocks(0..700)));
        // We go on, and it follows.
        core.lock().unwrap().append(&blocks(700..750), Durability::Buffered).unwrap();
        peer.hub.core_changed(id, Instant::now());
        peer.ask("update", json!({}));
        assert_eq!(peer.ask("get", json!({ "index": 749 }))["value"], hex(&block(749)));
        // We fork, and it follows.
        core.lock().unwrap().truncate(600, 1).unwrap();
        core.lock().unwrap().append(&blocks(5..15), Durability::Buffered).unwrap();
        peer.hub.core_changed(id, Instant::now());
        peer.until("the length as they have it", |peer| {
            (peer.hub.peers(id)[0].length == 610).then_some(())
        });
        let state = peer.ask("state", json!({}));
        assert_eq!((&state["fork"], &state["length"]), (&json!(1), &json!(610)), "{state}");
        assert_eq!(peer.ask("get", json!({ "index": 605 }))["value"], hex(&block(10)));
    }
}

#[test]
fn the_reference_reads_what_we_have_of_a_core() {
    let Some((mut peer, core)) = js_reader(500, None) else { return };
    let (id, core) = peer.attach(core);
    core.lock().unwrap().clear(100..200).unwrap();
    peer.hub.core_cleared(id, 100..200, Instant::now());
    peer.connect(true);
    assert_eq!(peer.ask("get", json!({ "index": 300 }))["value"], hex(&block(300)));
    let down = peer.ask("download", json!({ "start": 200, "end": 500 }));
    assert_eq!(down["local"], json!(hex_blocks(200..500)));
    assert_eq!(peer.ask("state", json!({}))["remotes"][0]["contiguous"], 100);
}
