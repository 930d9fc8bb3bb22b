//! Replication with a peer that knows the rules and breaks them: any message at any time, true answers and
//! changed ones, opens and closes, garbage. Whatever it does, only true blocks of a signed tree are kept.
#![no_main]

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use hdrive::codec::FrameBuf;
use hdrive::hyper::core::manifest::Manifest;
use hdrive::hyper::core::storage::memory;
use hdrive::hyper::core::tree::make_proof;
use hdrive::hyper::core::{Core, CreateOptions, Durability};
use hdrive::mux::{Mux, MuxEvent, Protocol};
use hdrive::hyper::replication::wire::{
    self, Handshake, Message, Reason, RequestMessage, Sync, Want, capability,
};
use hdrive::hyper::replication::{AttachOptions, ConnId, ConnInfo, CoreId, Hub, Limits};
use hdrive::key::{CoreKey, PublicKey, Topic};
use hdrive_fuzz::{MAX_BLOCKS, Tree, block, disturb, key_pair, number, proof, request};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

static PROTOCOLS: &[Protocol] = &[Protocol { name: wire::PROTOCOL, aliases: &[] }];
const CONN: ConnId = ConnId(1);
const HASH: [u8; 64] = [9; 64];
/// Frames that one step may cause.
const BURST: usize = 5000;

struct Peer {
    mux: Mux,
    tree: Tree,
    manifest: Manifest,
    keys: [CoreKey; 2],
    channels: Vec<u64>,
    asked: VecDeque<(u64, RequestMessage)>,
}

impl Peer {
    fn handshake(&self, key: &CoreKey) -> Vec<u8> {
        Handshake { seeks: true, capability: capability(&HASH, key, false) }.encode()
    }

    /// Takes what the hub sent.
    fn take(&mut self, frame: FrameBuf) {
        let frame = Bytes::copy_from_slice(frame.payload());
        // After a raw frame the two sides may see different channels: an error here says nothing.
        if self.mux.handle_frame(frame).is_err() {
            return;
        }
        while let Ok(Some(event)) = self.mux.poll_event() {
            match event {
                MuxEvent::Asked { id, .. } => {
                    let key = self.keys.iter().find(|key| id == key.discovery_key().0);
                    let handshake = key.map(|key| self.handshake(key)).unwrap_or_default();
                    self.channels.extend(self.mux.accept(&handshake));
                }
                MuxEvent::Message { channel, kind, body } => {
                    if let Ok(Some(Message::Request(request))) = Message::decode(kind, &body) {
                        self.asked.push_back((channel, request));
                    }
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, channel: u64, message: &Message) {
        self.mux.send(channel, message.kind(), |out| message.encode(out));
    }

    /// A true answer to the oldest request, or one with something changed.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some((channel, asked)) = self.asked.pop_front() else { return Ok(()) };
        let mut proof = match make_proof(&self.tree.head, &self.tree, &asked.request) {
            Ok(proof) => proof,
            Err(_) => {
                let reason = Reason::NotAvailable;
                self.send(channel, &Message::NoData { request: asked.id, reason });
                return Ok(());
            }
        };
        if let Some(part) = &mut proof.block {
            part.value = block(part.index);
        }
        if asked.request.manifest {
            proof.manifest = Some(self.manifest.clone());
        }
        if u.ratio(1, 4u8)? {
            disturb(u, &mut proof)?;
        }
        self.send(channel, &Message::Data { request: asked.id, proof });
        Ok(())
    }

    fn message(&self, u: &mut Unstructured<'_>) -> Result<Message> {
        let want = |u: &mut Unstructured<'_>| {
            Ok(Want { start: number(u)?, length: number(u)?, any: u.arbitrary()? })
        };
        Ok(match u.int_in_range(0..=10u8)? {
            0 | 1 => Message::Sync(Sync {
                fork: if u.ratio(7, 8u8)? { 0 } else { number(u)? },
                length: if u.arbitrary()? { self.tree.head.length } else { number(u)? },
                remote_length: number(u)?,
                can_upgrade: u.arbitrary()?,
                uploading: true,
                downloading: u.arbitrary()?,
                has_manifest: u.arbitrary()?,
                allow_push: u.arbitrary()?,
            }),
            2 => Message::Request(RequestMessage {
                id: number(u)?,
                fork: if u.ratio(7, 8u8)? { 0 } else { number(u)? },
                request: request(u)?,
            }),
            3 => Message::Cancel { request: number(u)? },
            4 => Message::Data { request: number(u)?, proof: proof(u, &self.tree)? },
            5 => Message::NoData { request: number(u)?, reason: Reason::Unknown },
            6 => Message::Want(want(u)?),
            7 => Message::Unwant(want(u)?),
            8 => Message::Bitfield { start: number(u)?, words: u.arbitrary()? },
            9 => Message::Extension {
                name: "hdrive/cores".to_string(),
                payload: u.arbitrary::<Vec<u8>>()?.into(),
            },
            _ => Message::Range { drop: u.arbitrary()?, start: number(u)?, length: number(u)? },
        })
    }
}

fn drain(hub: &mut Hub, peer: &mut Peer) {
    for _ in 0..BURST {
        match hub.poll_transmit() {
            Some((_, frame)) => peer.take(frame),
            None => break,
        }
    }
    assert!(hub.poll_transmit().is_none(), "too many frames at once");
    while hub.poll_event().is_some() {}
    while hub.poll_fork().is_some() {}
    peer.asked.truncate(2000);
}

fn step(
    u: &mut Unstructured<'_>,
    hub: &mut Hub,
    peer: &mut Peer,
    now: &mut Instant,
    ids: [CoreId; 2],
) -> Result<()> {
    let channel = match peer.channels.len() {
        0 => u.int_in_range(1..=4)?,
        n => peer.channels[u.choose_index(n)?],
    };
    match u.int_in_range(0..=15u8)? {
        0..=3 => peer.answer(u)?,
        4..=8 => {
            let message = peer.message(u)?;
            peer.send(channel, &message);
        }
        9 => {
            let key = peer.keys[u.choose_index(2)?];
            let handshake = peer.handshake(&key);
            peer.channels.extend(peer.mux.open(wire::PROTOCOL, &key.discovery_key().0, &handshake));
        }
        10 => peer.mux.close(channel),
        11 => *now += Duration::from_millis(u.int_in_range(0..=20_000)?),
        12 => hub.want_block(ids[0], number(u)?, u.arbitrary()?, *now),
        13 => {
            let start = number(u)?;
            hub.want_range(ids[0], start..start.saturating_add(number(u)?), u.arbitrary()?, *now);
        }
        14 => drop(hub.want_seek(ids[0], number(u)?, *now)),
        _ => hub.handle_frame(CONN, Bytes::from(u.arbitrary::<Vec<u8>>()?), *now),
    }
    while let Some(frame) = peer.mux.poll_transmit() {
        hub.handle_frame(CONN, Bytes::copy_from_slice(frame.payload()), *now);
    }
    hub.handle_timeout(*now);
    hub.handle_queued(CONN, 0, *now);
    Ok(())
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut now = Instant::now();
    let tree = Tree::new(u.int_in_range(1..=MAX_BLOCKS)?);
    let manifest = Manifest::single(key_pair(1).public());
    let storage = memory();
    let reader = Core::create(&storage, CreateOptions::reader(manifest.key())).expect("memory");
    let mut writer = Core::create(&storage, CreateOptions::writer(key_pair(2))).expect("memory");
    let blocks: Vec<Bytes> = (0..u.int_in_range(0..=MAX_BLOCKS)?).map(block).collect();
    writer.append(&blocks, Durability::Buffered).expect("memory");

    let keys = [*reader.key(), *writer.key()];
    let (reader, writer) = (Arc::new(Mutex::new(reader)), Arc::new(Mutex::new(writer)));
    let mut hub = Hub::new(Limits::default());
    let options = AttachOptions { downloading: true, small_blocks: u.arbitrary()? };
    let ids = [
        hub.attach(reader.clone(), options, now),
        hub.attach(writer.clone(), AttachOptions { downloading: u.arbitrary()?, ..options }, now),
    ];
    let info = ConnInfo { handshake_hash: HASH, initiator: true, remote: PublicKey([1; 32]) };
    hub.handle_connected(CONN, info, now);
    for key in &keys {
        hub.handle_met(CONN, Topic::from(key.discovery_key()), now);
    }
    let (channels, asked) = (Vec::new(), VecDeque::new());
    let mut peer = Peer { mux: Mux::new(PROTOCOLS), tree, manifest, keys, channels, asked };
    drain(&mut hub, &mut peer);
    while !u.is_empty() {
        step(u, &mut hub, &mut peer, &mut now, ids)?;
        drain(&mut hub, &mut peer);
    }

    let core = reader.lock().expect("no panic");
    let true_tree = Tree::new(core.length().min(MAX_BLOCKS));
    assert_eq!(core.head().tree_hash(), true_tree.head.tree_hash());
    for index in 0..core.length() {
        if let Some(value) = core.get(index).expect("memory") {
            assert_eq!(value, block(index), "block {index}");
        }
    }
    drop(core);
    let core = writer.lock().expect("no panic");
    assert_eq!(core.length(), blocks.len() as u64);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});
