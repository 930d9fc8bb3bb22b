//! Every connection of the swarm: connection ↔ stream ↔ remote key.
//!
//! A connection is *dialling* (HyperDHT is at work), then *waiting* (keys are agreed, the peer's first
//! packet has to come), then *unproven* (its stream leads somewhere, the peer's header frame has to come),
//! then *open*. One that is open is *placed* once its peer has shown that it is where the stream leads to: until then
//! its host may be anybody's. At most one connection per remote key counts; one that we accepted does not count before
//! a message came on it, for a handshake costs a stranger one datagram, its source forged or its bytes copied.
//!
//! This file holds the state and feeds the received bytes to the right [`Opener`]; what follows from a
//! change is decided in the swarm.

use super::SocketId;
use super::backlog::Backlog;
use super::conn_id::ConnId;
use super::early::Early;
use super::hyperdht::{ConnectId, RelayOffer};
use super::meter::Meter;
use super::offered::Offered;
use super::paths::Watch;
use super::secret_stream::frame::{FrameError, Opener, Sealer};
use super::secret_stream::unordered::Unordered;
use super::socket::host_of;
use super::udx::Sink;
use crate::key::PublicKey;
use bytes::Bytes;
use rand::Rng;
use rand::seq::IteratorRandom;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Silence on our side after which an empty frame is sent. The peer's UDX acknowledges it, or the
/// stream times out: that is how the dead are noticed.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long agreed keys wait for the first packet.
pub const FIRST_PACKET_WAIT: Duration = Duration::from_secs(10);

/// How long an accepted connection may be open without a message that shows that the peer knows its keys. The peer's
/// swarm sends one at once, the reference's when it has been silent for 5 s.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(15);

/// How long an open connection may last without its peer having shown that it is where the stream leads to. That takes
/// a round trip, and some more where much gets lost.
pub const PLACE_WAIT: Duration = Duration::from_secs(60);

/// How long after its first message the peer of an accepted connection is asked. What belongs to that message is
/// written by then, and the answer is there when there is more to say.
pub const ASK_WAIT: Duration = Duration::from_millis(2);

/// How long a frame that was begun may stand still while nothing else keeps its peer from going on.
pub const FRAME_WAIT: Duration = Duration::from_secs(60);

/// Accepted connections that have no place so far; of more, one is forgotten. A flood of as many handshakes
/// a second as are answered leaves an honest peer two seconds to show where it is.
pub const MAX_WAITING: usize = 224;

/// How long one that waits stays whoever else comes, if others have waited longer: some round trips of a long path.
pub const TIME_TO_ANSWER: Duration = Duration::from_secs(2);

/// So many waiting ones of a key are no more than one: a peer may begin anew before it is noticed that the last is gone.
const FEW: usize = 4;

/// Of so many waiting ones all are asked at once where they are.
pub const CROWDED: usize = 32;

/// What an accepted connection may send before it is open: some frames of a peer that speaks at once. It is
/// read only where the peer is connected already, and until its first whole frame.
pub const MAX_BEFORE_OPEN: usize = 64 * 1024;

/// Both halves of the encryption, and messages beside the stream.
pub struct Session {
    pub sealer: Sealer,
    pub opener: Opener,
    pub unordered: Unordered,
}

pub enum Phase {
    /// HyperDHT looks for the peer and shakes hands, until then at the latest.
    Dialling {
        connect: ConnectId,
        until: Instant,
    },
    /// Their first packet will tell where they are.
    Waiting {
        until: Instant,
    },
    /// The stream leads to an address; their header frame will tell that they are there.
    Unproven {
        until: Instant,
    },
    Open,
}

/// One connection.
pub struct Connection {
    pub id: ConnId,
    pub remote: PublicKey,
    /// We dialled.
    pub initiator: bool,
    pub phase: Phase,
    /// `None` while dialling.
    pub session: Option<Session>,
    pub handshake_hash: [u8; 64],
    pub remote_stream: u32,
    pub big_datagrams: bool,
    pub addr: Option<SocketAddr>,
    /// Its peer has shown that it is at this address.
    pub proven: bool,
    /// When the peer is asked, if it has not shown that.
    pub ask_at: Instant,
    /// When it was made; when it became open.
    pub opened_at: Instant,
    pub last_write: Instant,
    pub last_read: Instant,
    /// When the last message came, other than a keep-alive; when it became open, if none has.
    pub last_used: Instant,
    /// Plaintext bytes of frames, both ways, keep-alives counted as frames.
    pub received: u64,
    pub sent: u64,
    /// Of what was received, and of what was sent and is not queued any more.
    pub meter: Meter<2>,
    /// Something was read, something was written: a duplicate may replace it.
    pub has_read: bool,
    pub has_written: bool,
    /// Whether the peer is still there.
    pub watch: Watch,
    /// When the owner had no use for it.
    pub offered: Offered,
    pub backlog: Backlog,
    /// Bytes queued when the owner was last told.
    pub told_queued: usize,
    /// The owner knows of it.
    pub told: bool,
    /// What it wants sent once the peer has shown itself.
    pub early: Early,
    /// A relay was named to the peer, whom we dial.
    pub names_relay: bool,
    /// The peer answered the handshake, though there may be no way to it.
    pub is_there: bool,
    /// And may be reached if it is dialled once more.
    pub again: bool,
    /// What the peer said of a relay of its own; and the relay, once it is open and that was true.
    pub offered_relay: Option<RelayOffer>,
    pub offers: Option<PublicKey>,
    /// Where the first packet came from, if it came before the keys.
    pub early_from: Option<(SocketId, SocketAddr)>,
    touched: bool,
}

impl Connection {
    pub fn new(id: ConnId, remote: PublicKey, initiator: bool, phase: Phase, now: Instant) -> Self {
        Self {
            id,
            remote,
            initiator,
            phase,
            session: None,
            handshake_hash: [0; 64],
            remote_stream: 0,
            big_datagrams: false,
            addr: None,
            proven: false,
            ask_at: now,
            opened_at: now,
            last_write: now,
            last_read: now,
            last_used: now,
            received: 0,
            sent: 0,
            meter: Meter::new(now),
            has_read: false,
            has_written: false,
            watch: Watch::default(),
            offered: Offered::default(),
            backlog: Backlog::default(),
            told_queued: 0,
            told: false,
            early: Early::default(),
            names_relay: false,
            is_there: false,
            again: false,
            offered_relay: None,
            offers: None,
            early_from: None,
            touched: false,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is open and leads to whom it says: we dialled it, or a message of the peer came.
    pub fn is_peer(&self) -> bool {
        self.is_open() && (self.initiator || self.has_read)
    }

    /// Whether it has one of our places, dialled ones included: it is no stranger who may be anywhere.
    pub fn is_placed(&self) -> bool {
        self.initiator || self.is_open() && self.proven
    }

    pub fn is_at(&self, host: IpAddr) -> bool {
        self.addr.is_some_and(|addr| host_of(&addr) == host)
    }

    pub fn is_unproven(&self) -> bool {
        matches!(self.phase, Phase::Unproven { .. })
    }

    /// Whether the peer's header frame has come.
    pub fn has_header(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.opener.has_header())
    }

    /// The next frame that came, if any.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(session) = &mut self.session else { return Ok(None) };
        let frame = session.opener.next()?;
        if let Some(frame) = &frame {
            self.received += frame.len() as u64;
            self.backlog.give(frame.len());
        }
        self.has_read |= session.opener.has_read();
        Ok(frame)
    }

    /// What is held for the connection, messages that wait to be told included.
    pub fn held(&self) -> usize {
        let ready = self.session.as_ref().map_or(0, |session| session.opener.ready_cost());
        self.backlog.cost() + ready
    }

    /// What is set aside for the message that is coming in.
    pub fn partial(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.opener.partial().1)
    }

    /// Whether it is open, and its peer has not shown in time who or where it is.
    pub fn is_overdue(&self, now: Instant) -> bool {
        !self.is_peer() && now >= self.opened_at + CONFIRM_WAIT
            || !self.proven && now >= self.opened_at + PLACE_WAIT
    }

    /// Whether the peer began a frame and left it at that.
    pub fn stands_still(&self, now: Instant) -> bool {
        self.partial() > 0 && self.held() == 0 && now >= self.last_read + FRAME_WAIT
    }

    /// When the connection wants attention.
    pub fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Dialling { until, .. }
            | Phase::Waiting { until }
            | Phase::Unproven { until } => until,
            Phase::Open => {
                let mut at = self.last_write + KEEP_ALIVE;
                at = self.watch.at.map_or(at, |watch| at.min(watch));
                if !self.is_peer() {
                    at = at.min(self.opened_at + CONFIRM_WAIT);
                }
                if !self.proven {
                    at = at.min(self.ask_at).min(self.opened_at + PLACE_WAIT);
                }
                at
            }
        }
    }
}

/// All of them, by stream.
#[derive(Default)]
pub struct Connections {
    streams: BTreeMap<u32, Connection>,
    /// The connection that counts for a key.
    by_key: BTreeMap<PublicKey, u32>,
    /// Streams that data came in for since the last look.
    touched: Vec<u32>,
    /// No deadline is before this.
    next_deadline: Option<Instant>,
    counter: u64,
}

impl Connections {
    /// A new name for a connection over `stream`.
    pub fn name(&mut self, stream: u32) -> ConnId {
        self.counter += 1;
        ConnId(self.counter << 32 | u64::from(stream))
    }

    pub fn insert(&mut self, connection: Connection) {
        let stream = connection.id.stream();
        self.note_deadline(connection.deadline());
        if connection.initiator {
            self.by_key.insert(connection.remote, stream);
        }
        self.streams.insert(stream, connection);
    }

    /// The connection over `stream` is the one that counts for its key.
    pub fn claim_key(&mut self, stream: u32) {
        if let Some(connection) = self.streams.get(&stream) {
            self.by_key.insert(connection.remote, stream);
        }
    }

    pub fn remove(&mut self, stream: u32) -> Option<Connection> {
        let connection = self.streams.remove(&stream)?;
        if self.by_key.get(&connection.remote) == Some(&stream) {
            self.by_key.remove(&connection.remote);
        }
        Some(connection)
    }

    pub fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.streams.get_mut(&id.stream()).filter(|connection| connection.id == id)
    }

    pub fn has(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    pub fn by_stream(&mut self, stream: u32) -> Option<&mut Connection> {
        self.streams.get_mut(&stream)
    }

    /// The connection, dialled or accepted, that counts for `remote`.
    pub fn by_key(&mut self, remote: &PublicKey) -> Option<&mut Connection> {
        let stream = self.by_key.get(remote)?;
        self.streams.get_mut(stream)
    }

    /// Whether a connection, dialled or accepted, counts for `remote`.
    pub fn has_key(&self, remote: &PublicKey) -> bool {
        self.by_key.contains_key(remote)
    }

    /// The connection that HyperDHT works on as `connect`.
    pub fn dial(&self, connect: ConnectId) -> Option<u32> {
        let wanted = |c: &Connection| matches!(c.phase, Phase::Dialling { connect: id, .. } if id == connect);
        self.streams.iter().find(|(_, connection)| wanted(connection)).map(|(&stream, _)| stream)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.streams.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.streams.values_mut()
    }

    pub fn streams(&self) -> Vec<u32> {
        self.streams.keys().copied().collect()
    }

    /// Dials under way.
    pub fn dialling(&self) -> usize {
        let dialling = |c: &&Connection| c.initiator && !c.is_open();
        self.streams.values().filter(dialling).count()
    }

    /// Connections that take a place, dialled ones included.
    pub fn counted(&self) -> usize {
        self.streams.values().filter(|c| c.is_placed()).count()
    }

    /// Accepted connections that have a place.
    pub fn accepted(&self) -> impl Iterator<Item = &Connection> {
        self.streams.values().filter(|c| !c.initiator && c.is_placed())
    }

    /// Other connections of `remote` than the one over `stream` that are open or dialled.
    pub fn beside(&self, stream: u32, remote: &PublicKey) -> Vec<u32> {
        let beside = |c: &&Connection| {
            c.remote == *remote && c.id.stream() != stream && (c.initiator || c.is_open())
        };
        self.streams.values().filter(beside).map(|c| c.id.stream()).collect()
    }

    /// An open connection that leads to `remote` itself.
    pub fn confirmed(&self, remote: &PublicKey) -> Option<u32> {
        let leads = |c: &&Connection| c.remote == *remote && c.is_peer();
        self.streams.values().find(leads).map(|c| c.id.stream())
    }

    /// Accepted connections that have no place so far.
    pub fn waiting(&self) -> usize {
        self.streams.values().filter(|c| !c.is_placed()).count()
    }

    /// Open connections whose peers have not shown where they are.
    pub fn nowhere(&self) -> Vec<u32> {
        self.streams.values().filter(|c| c.is_open() && !c.proven).map(|c| c.id.stream()).collect()
    }

    /// The waiting connection that gives way to the next: of the key with most of them, so that nobody who shakes hands
    /// again and again displaces others. Of those one that had its [`TIME_TO_ANSWER`], first without a header frame,
    /// and the oldest first; else any, for who comes in a burst is not to choose whom it displaces.
    ///
    /// Where they say they are ranks nobody: it may be a lie, by which an honest peer from there would have to go.
    pub fn next_to_give_way(&self, rng: &mut impl Rng, now: Instant) -> Option<u32> {
        let waiting = || self.streams.values().filter(|c| !c.is_placed());
        let mut of_key = BTreeMap::new();
        for connection in waiting() {
            *of_key.entry(connection.remote).or_insert(0) += 1;
        }
        let count = |c: &Connection| of_key.get(&c.remote).copied().unwrap_or(0).max(FEW);
        let most = waiting().map(count).max()?;
        let of_most = || waiting().filter(|c| count(c) == most);
        let old = of_most().filter(|c| now >= c.opened_at + TIME_TO_ANSWER);
        let rank = |c: &&Connection| (c.has_header(), c.opened_at, c.id);
        let chosen = old.min_by_key(rank).or_else(|| of_most().choose(rng));
        chosen.map(|c| c.id.stream())
    }

    /// Accepted connections of `remote` that have its header frame and are not open.
    pub fn candidates(&self, remote: &PublicKey) -> Vec<u32> {
        let candidate = |c: &&Connection| {
            c.remote == *remote && !c.initiator && c.is_unproven() && c.has_header()
        };
        self.streams.values().filter(candidate).map(|c| c.id.stream()).collect()
    }

    /// Streams that were fed since the last call.
    pub fn take_touched(&mut self) -> Vec<u32> {
        for stream in &self.touched {
            if let Some(connection) = self.streams.get_mut(stream) {
                connection.touched = false;
            }
        }
        std::mem::take(&mut self.touched)
    }

    /// Gives the list back, to be used again.
    pub fn recycle(&mut self, mut list: Vec<u32>) {
        if self.touched.is_empty() {
            list.clear();
            self.touched = list;
        }
    }

    /// Streams whose deadline has come. Deadlines only move back with every write, so between two
    /// calls no one has to be asked.
    pub fn due(&mut self, now: Instant) -> Vec<u32> {
        if self.next_deadline.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.next_deadline =
            self.streams.values().map(Connection::deadline).filter(|&at| at > now).min();
        let due = self.streams.iter().filter(|(_, connection)| connection.deadline() <= now);
        due.map(|(&stream, _)| stream).collect()
    }

    pub fn note_deadline(&mut self, at: Instant) {
        self.next_deadline = Some(self.next_deadline.map_or(at, |next| next.min(at)));
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_deadline
    }
}

/// Two tables of which one has the stream.
pub struct Both<'a>(pub &'a mut Connections, pub &'a mut Connections);

impl Sink for Both<'_> {
    fn data(&mut self, stream: u32, payload: &[u8]) {
        if self.0.has(stream) {
            self.0.data(stream, payload);
        } else {
            self.1.data(stream, payload);
        }
    }

    fn held(&self, stream: u32) -> Option<usize> {
        self.0.held(stream).or_else(|| self.1.held(stream))
    }
}

impl Sink for Connections {
    fn data(&mut self, stream: u32, payload: &[u8]) {
        let Some(connection) = self.streams.get_mut(&stream) else { return };
        let Some(session) = &mut connection.session else { return };
        session.opener.feed(payload);
        if !connection.touched {
            connection.touched = true;
            self.touched.push(stream);
        }
    }

    fn held(&self, stream: u32) -> Option<usize> {
        self.streams.get(&stream).map(Connection::held)
    }
}
