//! One connection as replication sees it: its multiplexer, its backlog, its record.

use super::fork::Fork;
use super::held::{ENTRY, Held};
use super::tags::Tags;
use super::violation::{MAX_STRIKES, Violation};
use super::wire::{self, Message};
use super::{ConnId, ConnInfo, CoreId, HubEvent, Limits};
use crate::key::{DiscoveryKey, Topic};
use crate::mux::{Mux, Protocol};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

pub(super) const PROTOCOLS: &[Protocol] =
    &[Protocol { name: wire::PROTOCOL, aliases: wire::PROTOCOL_ALIASES }];

/// What may wait of the answers that do not wait for room: channels opened and refused, lengths, "no data". A peer that
/// opens some thousand cores at once stays below. What we ask it in turn is no fault of its own; that ends at
/// `max_backlog`, and at what UDX keeps for all peers.
const MAX_AT_ONCE: usize = 4 << 20;

/// What a frame costs beside its bytes where it waits.
const FRAME_COST: usize = 256;

/// Openings that nobody here answers, per [`REFUSAL_SPAN`]. A peer with some thousand cores of which we
/// have none is honest; each refusal costs a look into the storage.
const MAX_REFUSALS: u32 = 8192;
const REFUSAL_SPAN: Duration = Duration::from_secs(60);

/// Topics under which a peer was met, as many as the swarm remembers of one.
const MAX_MET: usize = 16_384;

/// Cores that a peer named and that are not here, as many as it may name in a minute.
const MAX_NAMED: usize = MAX_REFUSALS as usize;

/// Strikes are forgotten when none came for this long: connections live for weeks.
const FORGIVE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Conn {
    pub info: ConnInfo,
    pub mux: Mux,
    /// When the last data of any core came.
    pub last_data: Instant,
    /// Which core a channel (by our id) is about.
    pub channels: HashMap<u64, CoreId>,
    /// Cores with requests that wait for an answer, in turn.
    pub serving: VecDeque<CoreId>,
    /// Bytes below us that were not sent: as last reported, and what was handed down since.
    below: usize,
    /// What of the backlog was said at once in answer to what it said, with what frames cost; about, for nobody knows in
    /// what order it goes.
    at_once: usize,
    /// What was queued of requests of ours.
    asked: usize,
    strikes: u32,
    last_strike: Instant,
    refusals: (Instant, u32),
    pub closing: bool,
    /// What it makes us hold.
    pub held: Held,
    /// Topics under which its peer was found, or of which it has shown that it knows the core.
    met: BTreeSet<Topic>,
    /// Cores that it opened and that were not here: it will not open them again by itself.
    named: BTreeSet<DiscoveryKey>,
    pub tags: Tags,
}

impl Conn {
    pub fn new(info: ConnInfo, now: Instant) -> Self {
        Self {
            info,
            mux: Mux::new(PROTOCOLS),
            last_data: now,
            channels: HashMap::new(),
            serving: VecDeque::new(),
            below: 0,
            at_once: 0,
            asked: 0,
            strikes: 0,
            last_strike: now,
            refusals: (now, 0),
            closing: false,
            held: Held::default(),
            met: BTreeSet::new(),
            named: BTreeSet::new(),
            tags: Tags::default(),
        }
    }

    /// Its peer is one of `topic`.
    pub fn meet(&mut self, topic: Topic) {
        if self.met.len() < MAX_MET {
            self.met.insert(topic);
        }
    }

    /// Its peer opened a core that is not here. False if that is not to be remembered.
    fn name(&mut self, core: DiscoveryKey) -> bool {
        self.named.len() < MAX_NAMED && self.named.insert(core)
    }

    /// Bytes that are held for the names.
    pub fn held_for_names(&self) -> usize {
        self.named.len() * ENTRY
    }

    /// Whether its peer may hear of a core: it named it itself, or is one of any of these topics.
    pub fn may_hear_of(&self, core: &DiscoveryKey, topics: &BTreeSet<Topic>) -> bool {
        self.named.contains(core) || topics.iter().any(|topic| self.met.contains(topic))
    }

    /// Bytes that are queued for this connection, here and below.
    pub fn backlog(&self) -> usize {
        self.below + self.mux.queued()
    }

    pub fn set_below(&mut self, bytes: usize) {
        let before = self.backlog();
        self.below = bytes;
        // As large a part of it has gone as of the rest.
        let now = self.backlog();
        if now < before {
            self.at_once = (self.at_once as u64 * now as u64 / before as u64) as usize;
        }
    }

    /// What is queued before a frame of it is read.
    pub fn begin_frame(&mut self) -> usize {
        self.asked = 0;
        self.mux.queued()
    }

    /// Counts what a frame of it made us say at once, where `before` had been queued. False if it is too much of that.
    pub fn said_at_once(&mut self, before: usize) -> bool {
        let said = self.mux.queued().saturating_sub(before).saturating_sub(self.asked);
        if said > 0 {
            self.at_once += said + FRAME_COST;
        }
        self.at_once <= MAX_AT_ONCE
    }

    pub fn handed_down(&mut self, bytes: usize) {
        self.below += bytes;
    }

    /// Counts an opening that was refused. False if there were too many.
    pub fn refused(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.refusals.0) > REFUSAL_SPAN {
            self.refusals = (now, 0);
        }
        self.refusals.1 += 1;
        self.refusals.1 <= MAX_REFUSALS
    }
}

/// What the parts of the hub work on besides their own state.
pub(super) struct Ctx<'a> {
    pub conns: &'a mut BTreeMap<ConnId, Conn>,
    /// Connections that may have something to send.
    pub dirty: &'a mut BTreeSet<ConnId>,
    /// Connections that have to end.
    pub doomed: &'a mut Vec<ConnId>,
    /// Peers that turned out to be some of a topic.
    pub met: &'a mut Vec<(ConnId, Topic)>,
    /// Cores that others may be told of in tags.
    pub shown: &'a mut BTreeSet<CoreId>,
    /// Connections that are to be told again what is here.
    pub untold: &'a mut Vec<ConnId>,
    pub events: &'a mut VecDeque<HubEvent>,
    /// Forks to be stored.
    pub forks: &'a mut VecDeque<Fork>,
    pub limits: &'a Limits,
    /// Bytes that all connections make us hold.
    pub held: &'a mut usize,
    pub now: Instant,
    /// More messages of the same frame follow: decisions wait for the last one.
    pub defer: bool,
}

impl Ctx<'_> {
    pub fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&id).filter(|conn| !conn.closing)
    }

    /// A connection that is about to get something to send.
    pub fn writing(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.dirty.insert(id);
        self.conn(id)
    }

    /// Queues a message; gives its approximate size.
    pub fn send(&mut self, id: ConnId, channel: u64, message: &Message) -> usize {
        let limit = self.limits.max_backlog;
        let Some(conn) = self.writing(id) else { return 0 };
        let (len, before) = (message.size_hint(), conn.mux.queued());
        conn.mux.send_sized(channel, message.kind(), len, |out| message.encode(out));
        if matches!(message, Message::Request(_) | Message::Cancel { .. }) {
            conn.asked += conn.mux.queued().saturating_sub(before);
        }
        if conn.backlog() > limit {
            self.strike(id, None, Violation::NotReading);
        }
        len
    }

    pub fn emit(&mut self, event: HubEvent) {
        self.events.push_back(event);
    }

    /// Counts a violation, and ends the connection when it is enough.
    pub fn strike(&mut self, id: ConnId, core: Option<CoreId>, what: Violation) {
        let now = self.now;
        let Some(conn) = self.conn(id) else { return };
        if now.saturating_duration_since(conn.last_strike) > FORGIVE {
            conn.strikes = 0;
        }
        conn.last_strike = now;
        conn.strikes += what.strikes();
        let enough = conn.strikes >= MAX_STRIKES;
        conn.closing = enough;
        let why = what.to_string();
        self.emit(HubEvent::Violation { conn: id, core, what });
        if enough {
            self.doomed.push(id);
            self.emit(HubEvent::CloseConnection { conn: id, why });
        }
    }

    /// Bytes that a connection may still make us hold.
    pub fn room(&self, id: ConnId) -> usize {
        self.conns.get(&id).map_or(0, |conn| conn.held.room(*self.held, self.limits))
    }

    /// A peer opened a core that is not here.
    pub fn name(&mut self, id: ConnId, core: DiscoveryKey) {
        if self.room(id) >= ENTRY
            && let Some(conn) = self.conns.get_mut(&id)
            && conn.name(core)
        {
            conn.held.change(self.held, 0, ENTRY);
        }
    }

    /// The bytes of a block, to be kept for a while. The reference packs answers into frames of 8 MiB: none may live as
    /// long as a block.
    pub fn kept(&self, value: &Bytes) -> Bytes {
        if self.defer { Bytes::copy_from_slice(value) } else { value.clone() }
    }
}
