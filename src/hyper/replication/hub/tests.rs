//! Hubs joined by lines with latency and rate, in virtual time.

mod basic;
mod budget;
mod forks;
mod full;
mod histories;
mod hostile;
mod many;
mod met;
mod names;
mod opening;
mod patience;
mod speed;
mod storm;
mod transcripts;

use super::*;
use crate::hyper::core::storage::memory::memory;
use crate::hyper::core::tree::testing::{block, key_pair};
use crate::hyper::core::{CreateOptions, Durability, Provable};
use crate::hyper::replication::wire::{self, Message};
use crate::key::{CoreKey, PublicKey};
use crate::mux::{Mux, MuxEvent};
use crate::sim::{Agenda, epoch};
use bytes::Bytes;
use std::sync::Mutex;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const LIVE: AttachOptions = AttachOptions { downloading: true, small_blocks: false };

/// Peers with an open channel for a core.
fn open(hub: &Hub, id: CoreId) -> usize {
    let Company { told, silent, blank, .. } = hub.company(id);
    told + silent + blank
}

/// A line in one direction.
struct Line {
    to: (usize, ConnId),
    latency: Duration,
    /// Bytes per second.
    rate: Option<u64>,
    free_at: Instant,
    queued: usize,
    /// Bytes so far.
    sent: u64,
    /// Frames are swallowed.
    stuck: bool,
}

/// A frame on its way, and which end of a line it left.
struct Frame {
    to: (usize, ConnId),
    bytes: Vec<u8>,
    from: (usize, ConnId),
}

/// May change a frame on its way from a hub.
type Tap = Box<dyn FnMut(usize, Vec<u8>) -> Vec<u8>>;

struct Sim {
    hubs: Vec<Hub>,
    events: Vec<Vec<HubEvent>>,
    start: Instant,
    now: Instant,
    lines: BTreeMap<(usize, ConnId), Line>,
    air: Agenda<Frame>,
    seq: u64,
    tap: Option<Tap>,
    /// Hubs whose process stands still, and until when: frames wait for them, and so do their timers.
    frozen: BTreeMap<usize, Instant>,
    /// What is found in the store of a hub when a peer asks for it, at once.
    stores: BTreeMap<usize, SharedCore>,
}

/// Every peer was found under every topic.
fn meet_all(hub: &mut Hub, now: Instant) {
    let topics: Vec<Topic> = hub.by_topic.keys().copied().collect();
    for conn in hub.conns.keys().copied().collect::<Vec<_>>() {
        topics.iter().for_each(|topic| hub.handle_met(conn, *topic, now));
    }
}

impl Sim {
    fn new(hubs: usize) -> Self {
        let now = epoch();
        Self {
            hubs: (0..hubs).map(|_| Hub::new(Limits::default())).collect(),
            events: vec![Vec::new(); hubs],
            start: now,
            now,
            lines: BTreeMap::new(),
            air: Agenda::default(),
            seq: 0,
            tap: None,
            frozen: BTreeMap::new(),
            stores: BTreeMap::new(),
        }
    }

    fn freeze(&mut self, hub: usize, time: Duration) {
        self.frozen.insert(hub, self.now + time);
    }

    /// When a hub next sees what is due for it at `at`.
    fn awake(&self, hub: usize, at: Instant) -> Instant {
        self.frozen.get(&hub).map_or(at, |until| at.max(*until))
    }

    /// Joins two hubs, met for all that they have; `a` is the initiator. Gives both ends' ids.
    fn connect(&mut self, a: usize, b: usize, latency: Duration) -> (ConnId, ConnId) {
        let conns = self.join(a, b, latency);
        [a, b].into_iter().for_each(|hub| meet_all(&mut self.hubs[hub], self.now));
        conns
    }

    /// The same of two who were met for nothing.
    fn join(&mut self, a: usize, b: usize, latency: Duration) -> (ConnId, ConnId) {
        self.seq += 2;
        let (ca, cb) = (ConnId(self.seq), ConnId(self.seq + 1));
        let mut handshake_hash = [0; 64];
        handshake_hash[0] = self.seq as u8;
        for (hub, conn, to, initiator) in [(a, ca, (b, cb), true), (b, cb, (a, ca), false)] {
            let now = self.now;
            let line =
                Line { to, latency, rate: None, free_at: now, queued: 0, sent: 0, stuck: false };
            self.lines.insert((hub, conn), line);
            let info = ConnInfo { handshake_hash, initiator, remote: PublicKey([to.0 as u8; 32]) };
            self.hubs[hub].handle_connected(conn, info, now);
        }
        (ca, cb)
    }

    fn cut(&mut self, (hub, conn): (usize, ConnId)) {
        let Some(line) = self.lines.remove(&(hub, conn)) else { return };
        self.lines.remove(&line.to);
        let now = self.now;
        self.hubs[hub].handle_closed(conn, now);
        self.hubs[line.to.0].handle_closed(line.to.1, now);
    }

    /// Empties all machines onto the lines.
    fn drain(&mut self) {
        for hub in 0..self.hubs.len() {
            while self.drain_hub(hub) {}
        }
    }

    /// False if there was nothing.
    fn drain_hub(&mut self, hub: usize) -> bool {
        let mut any = false;
        while let Some((conn, frame)) = self.hubs[hub].poll_transmit() {
            let mut bytes = frame.payload().to_vec();
            if let Some(tap) = &mut self.tap {
                bytes = tap(hub, bytes);
            }
            self.put(hub, conn, bytes);
            any = true;
        }
        while let Some(event) = self.hubs[hub].poll_event() {
            if let HubEvent::CloseConnection { conn, .. } = &event {
                self.cut((hub, *conn));
            }
            if let HubEvent::CoreAsked { discovery } = &event {
                let here = |core: &&SharedCore| core.lock().unwrap().discovery_key() == discovery;
                let found = self.stores.get(&hub).filter(here).cloned();
                let (found, now) = (found, self.now);
                self.hubs[hub].handle_core_found(discovery, found, now);
            }
            self.events[hub].push(event);
            any = true;
        }
        while let Some(fork) = self.hubs[hub].poll_fork() {
            self.hubs[hub].handle_stored(fork.store(), self.now);
            any = true;
        }
        any
    }

    fn put(&mut self, hub: usize, conn: ConnId, bytes: Vec<u8>) {
        let now = self.now;
        let Some(line) = self.lines.get_mut(&(hub, conn)).filter(|line| !line.stuck) else {
            return;
        };
        let takes = line
            .rate
            .map_or(Duration::ZERO, |r| Duration::from_secs_f64(bytes.len() as f64 / r as f64));
        line.free_at = line.free_at.max(now) + takes;
        line.queued += bytes.len();
        line.sent += bytes.len() as u64;
        let frame = Frame { to: line.to, bytes, from: (hub, conn) };
        self.air.put(line.free_at + line.latency, frame);
    }

    /// Runs until nothing more happens, or for `time`.
    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until `done`; false if `time` passed before.
    fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + time;
        loop {
            self.drain();
            if done(self) {
                return true;
            }
            let arrival = self.air.next();
            let timers = self.hubs.iter().enumerate();
            let timers = timers.filter_map(|(i, hub)| Some(self.awake(i, hub.poll_timeout()?)));
            let timer = timers.min();
            let next = arrival.into_iter().chain(timer).min().filter(|at| *at <= end);
            let Some(next) = next else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            let now = self.now;
            if arrival == Some(next) {
                let Some(frame) = self.air.pop(now) else { continue };
                let awake = self.awake(frame.to.0, now);
                if awake > now {
                    self.air.put(awake, frame);
                    continue;
                }
                let Frame { to: (hub, conn), bytes, from } = frame;
                if let Some(line) = self.lines.get_mut(&from) {
                    line.queued -= bytes.len();
                    let queued = line.queued;
                    self.hubs[from.0].handle_queued(from.1, queued, now);
                    self.hubs[hub].handle_frame(conn, bytes.into(), now);
                }
            }
            for (i, hub) in self.hubs.iter_mut().enumerate() {
                if self.frozen.get(&i).is_none_or(|until| *until <= now) {
                    hub.handle_timeout(now);
                }
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn attach(&mut self, hub: usize, core: &SharedCore) -> CoreId {
        let now = self.now;
        let id = self.hubs[hub].attach(core.clone(), LIVE, now);
        meet_all(&mut self.hubs[hub], now);
        id
    }

    fn want(&mut self, hub: usize, core: CoreId, block: u64) {
        let now = self.now;
        self.hubs[hub].want_block(core, block, true, now);
    }

    fn has_event(&self, hub: usize, want: &HubEvent) -> bool {
        self.events[hub].contains(want)
    }

    fn count(&self, hub: usize, f: impl Fn(&HubEvent) -> bool) -> usize {
        self.events[hub].iter().filter(|event| f(event)).count()
    }

    fn violations(&self, hub: usize) -> usize {
        self.count(hub, |event| matches!(event, HubEvent::Violation { .. }))
    }
}

/// A peer made by hand, without latency, in front of one hub.
struct Peer {
    hub: Hub,
    mux: Mux,
    conn: ConnId,
    channel: u64,
    now: Instant,
    info: ConnInfo,
    heard: Vec<Message>,
    events: Vec<HubEvent>,
    /// Channels that were closed or refused.
    closed: Vec<u64>,
    /// Cores are looked for, and nobody says what came of it.
    slow_store: bool,
}

impl Peer {
    /// Connected, and the channel of the test core opened by both. The hub is the initiator.
    fn new(core: &SharedCore) -> (Self, CoreId) {
        let mut peer = Self::unopened();
        let now = peer.now;
        let id = peer.hub.attach(core.clone(), LIVE, now);
        peer.open(key());
        (peer, id)
    }

    fn unopened() -> Self {
        let now = epoch();
        let conn = ConnId(9);
        let handshake_hash = std::array::from_fn(|i| i as u8);
        let info = ConnInfo { handshake_hash, initiator: true, remote: PublicKey([1; 32]) };
        let mut hub = Hub::new(Limits::default());
        hub.handle_connected(conn, info.clone(), now);
        let mux = Mux::new(super::super::connection::PROTOCOLS);
        Self {
            hub,
            mux,
            conn,
            channel: 0,
            now,
            info,
            heard: vec![],
            events: vec![],
            closed: vec![],
            slow_store: false,
        }
    }

    fn open(&mut self, key: CoreKey) {
        let capability = wire::capability(&self.info.handshake_hash, &key, !self.info.initiator);
        let handshake = wire::Handshake { seeks: true, capability }.encode();
        let id = key.discovery_key();
        self.channel = self.mux.open(wire::PROTOCOL, &id.0, &handshake).unwrap();
        self.flush();
    }

    /// Hands over what was sent, and takes what comes back.
    fn flush(&mut self) {
        let now = self.now;
        while let Some(frame) = self.mux.poll_transmit() {
            self.hub.handle_frame(self.conn, frame.payload().to_vec().into(), now);
        }
        self.listen();
    }

    fn listen(&mut self) {
        self.take_events();
        while let Some((_, frame)) = self.hub.poll_transmit() {
            self.mux.handle_frame(frame.payload().to_vec().into()).unwrap();
            while let Some(event) = self.mux.poll_event().unwrap() {
                match event {
                    MuxEvent::Message { kind, body, .. } => {
                        self.heard.push(Message::decode(kind, &body).unwrap().unwrap());
                    }
                    MuxEvent::Closed { channel, .. } => self.closed.push(channel),
                    _ => {}
                }
            }
            let now = self.now;
            self.hub.handle_queued(self.conn, 0, now);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            if let HubEvent::CoreAsked { discovery } = &event
                && !self.slow_store
            {
                self.hub.handle_core_found(discovery, None, self.now);
            }
            self.events.push(event);
        }
        while let Some(fork) = self.hub.poll_fork() {
            self.hub.handle_stored(fork.store(), self.now);
        }
    }

    fn say(&mut self, message: Message) {
        self.mux.send_sized(self.channel, message.kind(), message.size_hint(), |out| {
            message.encode(out);
        });
        self.flush();
    }

    fn sync(&mut self, length: u64, remote_length: u64) {
        self.say(Message::Sync(wire::Sync {
            length,
            remote_length,
            can_upgrade: true,
            uploading: true,
            downloading: true,
            has_manifest: true,
            ..wire::Sync::default()
        }));
    }

    /// Time passes with nothing said.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.hub.poll_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.hub.handle_timeout(at);
            self.listen();
        }
        self.now = end;
    }

    fn requests(&mut self) -> Vec<wire::RequestMessage> {
        let heard = std::mem::take(&mut self.heard);
        let request = |message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        };
        heard.into_iter().filter_map(request).collect()
    }

    /// The true answer of a core to a request.
    fn answer(&mut self, of: &SharedCore, request: &wire::RequestMessage) -> Message {
        let answer = of.lock().unwrap().create_proof(&request.request);
        match answer.unwrap() {
            Provable::Proof(proof) => Message::Data { request: request.id, proof },
            other => panic!("{other:?}"),
        }
    }

    /// Lets the hub have the head of a core.
    fn serve_head(&mut self, of: &SharedCore) {
        self.sync(length(of), 0);
        let requests = self.requests();
        let request = requests.last().expect("an upgrade is asked for");
        let data = self.answer(of, request);
        self.say(data);
        self.heard.clear();
    }

    fn violations(&self) -> Vec<&Violation> {
        let events = self.events.iter();
        events
            .filter_map(|event| match event {
                HubEvent::Violation { what, .. } => Some(what),
                _ => None,
            })
            .collect()
    }

    fn is_closed(&self) -> bool {
        self.events.iter().any(|event| matches!(event, HubEvent::CloseConnection { .. }))
    }
}

#[test]
fn the_hub_may_move_to_a_thread_of_its_own() {
    fn is_send<T: Send>() {}
    is_send::<Hub>();
}

fn share(core: Core) -> SharedCore {
    Arc::new(Mutex::new(core))
}

/// A core of key pair 0 with the blocks of the vectors.
fn writer(length: u64) -> SharedCore {
    let mut core = Core::create(&memory(), CreateOptions::writer(key_pair(0))).unwrap();
    append(&mut core, length);
    share(core)
}

fn append(core: &mut Core, count: u64) {
    let start = core.length();
    let blocks: Vec<Bytes> = (start..start + count).map(|i| block(i).into()).collect();
    core.append(&blocks, Durability::Buffered).unwrap();
}

/// A copy of that core which knows only the key.
fn reader() -> SharedCore {
    share(Core::create(&memory(), CreateOptions::reader(key())).unwrap())
}

fn key() -> CoreKey {
    *writer_of(0).key()
}

fn writer_of(pair: u8) -> Core {
    Core::create(&memory(), CreateOptions::writer(key_pair(pair))).unwrap()
}

/// Everything a core holds is what the writer wrote.
fn assert_true(core: &SharedCore) {
    let core = core.lock().unwrap();
    for i in (0..core.length()).filter(|i| core.has(*i)) {
        assert_eq!(core.get(i).unwrap().unwrap(), block(i), "block {i}");
    }
}

fn length(core: &SharedCore) -> u64 {
    core.lock().unwrap().length()
}

fn here(core: &SharedCore) -> u64 {
    core.lock().unwrap().blocks_here()
}
