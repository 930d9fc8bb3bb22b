//! UDX: reliable ordered streams over UDP, many on one socket.
//!
//! [`Udx`] is a machine without sockets and clock. A datagram goes in through [`Udx::handle_datagram`]; payload that is in order
//! goes straight to the [`Sink`], nothing is queued for reading. After a batch of datagrams the owner calls
//! [`Udx::end_of_batch`], then drains [`Udx::poll_transmit`] and [`Udx::poll_event`] and sleeps until
//! [`Udx::poll_timeout`]. Acknowledgements are worked off, and sent, once per batch and stream.
//!
//! Streams are identified by a `u32` picked by their owner and told to the peer by other means; there is no handshake.
//! A packet for a stream that has no peer yet is kept and reported as [`UdxEvent::Unconnected`].
//!
//! | file | what it tracks |
//! |---|---|
//! | `packet` | the bytes of a packet |
//! | `stream`, `recovery`, `transmit` | one stream: state and input; acknowledgements and timers; output |
//! | `early` | what comes in before a stream is connected |
//! | `recv`, `send`, `sent`, `ranges` | gaps and window; bytes to send; packets on the way; sets of numbers |
//! | `rtt`, `rack`, `timer`, `pacer`, `mtu` | round trips; losses; deadlines; spacing; datagram size |
//! | `congestion` | BBR |
//! | `path` | following the peer to another address |
//! | `allowance`, `challenge` | what may go to an address before the peer is known to be there; asking it |
//! | `types`, `clock` | what the owner sees; its time in microseconds |
//! | `slots`, `share`, `outbox` | all streams by id; what each may hold; what they leave for the owner |
//! | `queued` | how much may wait for peers to take it |
//! | `graveyard` | ended streams that still answer |
//! | `legs`, `detour` | streams of others, passed on as a relay does; the way of a stream of ours through one |
//!
//! Source: libudx/src/udx.c, udx-native/lib/stream.js

mod allowance;
mod challenge;
mod clock;
mod congestion;
mod detour;
mod early;
mod graveyard;
mod legs;
mod mtu;
mod outbox;
mod pacer;
pub mod packet;
mod path;
mod queued;
mod rack;
mod ranges;
mod recovery;
mod recv;
mod rtt;
mod send;
mod sent;
mod share;
mod slots;
mod stream;
mod timer;
mod transmit;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;

use self::clock::Clock;
pub use self::detour::{Heard, Way};
use self::graveyard::Graveyard;
use self::legs::Legs;
pub use self::legs::{LegEnd, LegRates};
pub use self::mtu::{MAX_DATAGRAM, ORDINARY_MAX};
use self::outbox::Outbox;
use self::packet::Packet;
use self::queued::Queued;
pub use self::recv::MAX_WINDOW;
use self::share::Shares;
use self::slots::Slots;
use self::stream::{Remote, Stream};
pub use self::types::{
    CloseReason, ConnectOptions, Stats, Transmit, UdxConfig, UdxEvent, WriteError,
};
use crate::swarm::socket::SocketId;

/// Most bytes that one [`Udx::poll_transmit`] lays out: what one segmented send can take.
pub const MAX_BURST: usize = MAX_DATAGRAM;

/// Where stream payload goes.
pub trait Sink {
    /// The next bytes of a stream, by local id.
    fn data(&mut self, stream: u32, payload: &[u8]);

    /// What the sink holds for a stream, with what that costs; `None` if [`Udx::set_backlog`] tells it.
    fn held(&self, _stream: u32) -> Option<usize> {
        None
    }
}

/// The multiplexer: all streams of a node.
#[derive(Debug)]
pub struct Udx {
    rng: StdRng,
    cfg: UdxConfig,
    clock: Clock,
    streams: Slots,
    /// Slots that changed since they were last settled; slots that may have something to send.
    touched: Vec<usize>,
    ready: VecDeque<usize>,
    deadlines: BTreeSet<(u64, usize)>,
    out: Outbox,
    graveyard: Graveyard,
    shares: Shares,
    queued: Queued,
    legs: Legs,
}

impl Udx {
    pub fn new(rng: StdRng, cfg: UdxConfig) -> Self {
        Self {
            rng,
            cfg,
            clock: Clock::default(),
            streams: Slots::default(),
            touched: Vec::new(),
            ready: VecDeque::new(),
            deadlines: BTreeSet::new(),
            out: Outbox::default(),
            graveyard: Graveyard::default(),
            shares: Shares::default(),
            queued: Queued::default(),
            legs: Legs::default(),
        }
    }

    /// Makes a stream without a peer. Picks a random id if none is given; `None` if the given one is taken.
    pub fn open(&mut self, id: Option<u32>) -> Option<u32> {
        let id = match id {
            Some(id) if self.streams.has(id) => return None,
            Some(id) => id,
            None => self.random_id(),
        };
        self.graveyard.remove(id);
        self.streams.insert(Stream::new(id, self.cfg.low_water, self.rng.random()));
        Some(id)
    }

    fn random_id(&mut self) -> u32 {
        loop {
            let id = self.rng.random();
            if !self.streams.has(id) && !self.graveyard.has(id) && !self.legs.has(id) {
                return id;
            }
        }
    }

    /// Tells a stream where its peer is. Nothing is sent by this. What came in before is worked off at the next datagram,
    /// or at once by [`Self::deliver_early`].
    pub fn connect(
        &mut self,
        id: u32,
        socket: SocketId,
        remote_id: u32,
        to: SocketAddr,
        opts: ConnectOptions,
        now: Instant,
    ) {
        let now = self.clock.set(now);
        let receive_buffer = self.cfg.receive_buffer;
        if let Some((slot, stream)) = self.streams.get_mut(id)
            && stream.remote.is_none()
        {
            stream.connect(Remote { socket, to, id: remote_id }, &opts, receive_buffer, now);
            self.touch(slot);
        }
    }

    /// Hands over what came in before the stream was connected.
    pub fn deliver_early(&mut self, id: u32, now: Instant, sink: &mut dyn Sink) {
        let now = self.clock.set(now);
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.deliver_early(now, &mut self.out, sink);
            self.count_held(slot);
            self.touch(slot);
        }
    }

    /// The peer has shown that it has the keys. Whether it is where the stream leads to it is asked as soon as more is to
    /// go there than may go to anybody.
    pub fn peer_known(&mut self, id: u32) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.peer_known(&mut self.rng);
            self.touch(slot);
        }
    }

    /// The known peer is to be asked with the next bytes that are written, rather than when more is to go there than may
    /// go to anybody. [`Self::QUESTION`] bytes are enough.
    pub fn ask(&mut self, id: u32) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.ask_soon();
            self.touch(slot);
        }
    }

    /// Bytes of a stream that a question takes.
    pub const QUESTION: usize = allowance::NUMBERS;

    /// Whether [`Self::ask`] would change anything.
    pub fn is_to_be_asked(&self, id: u32) -> bool {
        self.streams.get(id).is_some_and(Stream::is_to_be_asked)
    }

    /// Takes a datagram; false if it is no packet of a stream we know.
    pub fn handle_datagram(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        sink: &mut dyn Sink,
    ) -> bool {
        let Some(id) = packet::stream_id(datagram) else { return false };
        let at = now;
        let now = self.clock.set(now);
        let Some(slot) = self.streams.slot(id) else {
            if self.legs.handle(id, (socket, from), datagram, at, &mut self.out) {
                return true;
            }
            return self
                .graveyard
                .answer(id, datagram, now, |ack| self.out.answer(socket, from, ack));
        };
        let share = self.shares.of_each(self.streams.len());
        let Some(stream) = self.streams.at(slot) else { return false };
        if stream.remote.is_none() {
            if stream.held() + datagram.len() <= share {
                stream.hold(socket, from, datagram, &mut self.out);
                self.count_held(slot);
            }
            return true;
        }
        stream.deliver_early(now, &mut self.out, sink);
        // A data offset behind the end of the datagram: ours, but nothing to be done with it.
        if let Some(packet) = Packet::parse(datagram) {
            stream.note_way((socket, from), packet.size, now, &mut self.out);
            stream.handle(&packet, (socket, from), now, &mut self.out, sink);
            self.count_held(slot);
            self.touch(slot);
        }
        true
    }

    /// Works off what the datagrams since the last call have changed. To be called after each receive batch.
    pub fn end_of_batch(&mut self, now: Instant) {
        self.clock.set(now);
        self.settle();
    }

    /// Appends bytes to a stream. The stream need not be connected yet.
    ///
    /// # Errors
    /// If there is no such stream, or its end was asked for.
    pub fn write(&mut self, id: u32, bytes: Bytes, now: Instant) -> Result<(), WriteError> {
        self.clock.set(now);
        let (slot, stream) = self.streams.get_mut(id).ok_or(WriteError::Unknown)?;
        if stream.ending.wanted {
            return Err(WriteError::Ended);
        }
        if stream.send.kept() == 0 {
            stream.taken_at = self.clock.now;
            stream.heeded_at = self.clock.now;
        }
        stream.write(bytes);
        self.touch(slot);
        self.count_queued(slot);
        Ok(())
    }

    /// Sends an unordered, unreliable message. It travels whole: on a path narrower than its datagram it is lost.
    ///
    /// # Errors
    /// If there is no such stream, or the message is larger than the peer takes. Before the stream is connected that is what
    /// every peer takes.
    pub fn send_message(&mut self, id: u32, bytes: Bytes) -> Result<(), WriteError> {
        let (slot, stream) = self.streams.get_mut(id).ok_or(WriteError::Unknown)?;
        stream.send_message(bytes)?;
        self.touch(slot);
        Ok(())
    }

    /// Bytes written that were not sent for the first time yet.
    pub fn unsent(&self, id: u32) -> usize {
        self.streams.get(id).map_or(0, |stream| stream.send.unsent())
    }

    /// Tells how many delivered bytes wait above: the window offered to the peer is its share (`share`) less this.
    pub fn set_backlog(&mut self, id: u32, bytes: usize) {
        let streams = self.streams.len();
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            let share = self.shares.of(slot, stream, streams);
            stream.recv.set_share(share);
            stream.set_backlog(bytes);
            if stream.pending.ack {
                self.touch(slot);
            }
            self.count_held(slot);
        }
    }

    /// Tells how many bytes of a message that is still coming in wait above. They count for all streams together, not
    /// against the window, which would never open again.
    pub fn set_partial(&mut self, id: u32, bytes: usize) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.recv.set_partial(bytes);
            self.count_held(slot);
        }
    }

    /// Ends our half after everything written.
    pub fn end(&mut self, id: u32) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.ending.wanted = true;
            self.touch(slot);
        }
    }

    /// Ends the stream at once and tells the peer. No [`UdxEvent::Closed`] follows.
    pub fn destroy(&mut self, id: u32) {
        let Some((slot, stream)) = self.streams.get_mut(id) else { return };
        stream.say_farewell(CloseReason::Destroyed, &mut self.out);
        self.remove(slot);
    }

    /// The system refused to send a datagram of `size` bytes as too large (EMSGSIZE).
    pub fn handle_send_error(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        size: usize,
        now: Instant,
    ) {
        self.clock.set(now);
        for slot in 0..self.streams.slots() {
            if let Some(stream) = self.streams.at(slot)
                && stream.remote.is_some_and(|remote| remote.socket == socket && remote.to == to)
            {
                stream.handle_send_error(size);
                self.touch(slot);
            }
        }
    }

    /// Fills `buf` with up to `max_segments` datagrams of equal size (the last may be shorter) of one stream.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        buf: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        let now = self.clock.set(now);
        self.settle();
        if let Some((transmit, bytes)) = self.out.poll_datagram(max_segments) {
            buf.clear();
            buf.extend_from_slice(&bytes);
            return Some(transmit);
        }
        while let Some(slot) = self.ready.pop_front() {
            let Some(stream) = self.streams.at(slot).filter(|stream| stream.ready) else {
                continue;
            };
            if let Some(transmit) = stream.transmit(now, buf, max_segments) {
                self.ready.push_back(slot);
                return Some(transmit);
            }
            stream.ready = false;
            // The write queue may have run low.
            stream.report_writable(&mut self.out);
            self.update_deadline(slot);
        }
        None
    }

    pub fn poll_event(&mut self) -> Option<UdxEvent> {
        self.settle();
        self.out.poll_event()
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.settle();
        self.deadlines.first().and_then(|(at, _)| self.clock.instant(*at))
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.clock.set(now);
        while let Some(&(at, slot)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            if let Some(stream) = self.streams.at(slot) {
                stream.deadline = None;
                stream.handle_timeout(now, &mut self.out);
                self.touch(slot);
            }
        }
        self.graveyard.expire(now);
        self.settle();
    }

    pub fn stats(&self, id: u32) -> Option<Stats> {
        self.streams.get(id).map(Stream::stats)
    }

    fn touch(&mut self, slot: usize) {
        if let Some(stream) = self.streams.at(slot)
            && !stream.touched
        {
            stream.touched = true;
            self.touched.push(slot);
        }
    }

    /// Works off every touched stream, and removes those that are closed by it.
    fn settle(&mut self) {
        if self.shares.is_tight() && !self.touched.is_empty() {
            self.make_room();
            self.shares.take_turns(&mut self.streams);
        }
        let streams = self.streams.len();
        while let Some(slot) = self.touched.pop() {
            let Some(stream) = self.streams.at(slot).filter(|stream| stream.touched) else {
                continue;
            };
            stream.touched = false;
            let share = self.shares.of(slot, stream, streams);
            stream.recv.set_share(share);
            stream.settle(self.clock.now, &mut self.out);
            self.queued.count(stream);
            stream.prepare_question(&mut self.rng);
            if stream.closed.is_some() {
                self.bury(slot);
                continue;
            }
            if !stream.ready {
                stream.ready = true;
                self.ready.push_back(slot);
            }
            self.update_deadline(slot);
        }
    }

    fn update_deadline(&mut self, slot: usize) {
        let Some(stream) = self.streams.at(slot) else { return };
        let deadline = stream.timers.next();
        if deadline == stream.deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut stream.deadline, deadline) {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, slot));
        }
    }

    /// Removes a closed stream; one that ended well leaves its acknowledgement.
    fn bury(&mut self, slot: usize) {
        if let Some(stream) = self.streams.at(slot)
            && stream.closed == Some(CloseReason::Ended)
            && let Some(remote) = stream.remote
        {
            if let Some(ack) = stream.last_ack() {
                self.out.datagram(remote.socket, remote.to, ack);
            }
            let ack = stream.final_ack(&remote);
            self.graveyard.bury(stream.id, ack, self.clock.now);
        }
        self.remove(slot);
    }

    fn remove(&mut self, slot: usize) {
        let Some(stream) = self.streams.remove(slot) else { return };
        if let Some(deadline) = stream.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        self.shares.uncount(&stream);
        self.queued.uncount(&stream);
    }
}
