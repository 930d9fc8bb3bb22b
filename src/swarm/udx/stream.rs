//! One UDX stream: what comes in, and its life from `open` to the last acknowledgement.
//!
//! The work is split by direction: this file takes packets and keeps the state of both halves, [`super::recovery`] works off
//! acknowledgements and timers, [`super::transmit`] lays out what is sent. A packet only changes state; acknowledgements
//! are worked off once per batch in [`Stream::settle`], which the multiplexer calls before anything is sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;

use super::allowance::{Again, Allowance, Challenge};
use super::congestion::{Bbr, RateSampler, bbr::Phase};
use super::detour::Detour;
use super::early::Early;
use super::mtu::{self, Mtu};
use super::pacer::Pacer;
use super::packet::{FIRST_SEQ, HEADER, Packet, flag};
use super::path::{Paths, Source};
use super::rack::Rack;
use super::recv::{MAX_WINDOW, Receiver};
use super::rtt::Rtt;
use super::send::SendBuffer;
use super::sent::SentPackets;
use super::timer::{Timer, Timers};
use super::{CloseReason, ConnectOptions, Outbox, Sink, Stats, UdxEvent, WriteError};
use crate::swarm::socket::SocketId;

/// Unordered messages waiting to be sent; more push out the oldest, as a network would.
const MAX_MESSAGES: usize = 64;

/// Where the packets of a stream go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remote {
    pub(super) socket: SocketId,
    pub(super) to: SocketAddr,
    /// The peer's stream id.
    pub(super) id: u32,
}

/// What of the two halves has ended.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// The owner has nothing more to write.
    pub(super) wanted: bool,
    /// Number of our END packet.
    pub(super) seq: Option<u64>,
    /// The peer has all of it.
    pub(super) acked: bool,
    /// The owner was told of the peer's END.
    reported: bool,
}

/// Acknowledgements of this batch that were not worked off yet.
#[derive(Debug, Default)]
pub(super) struct AckBatch {
    pub(super) delivered: bool,
    pub(super) rtt: Option<u64>,
    pub(super) prior_in_flight: u64,
}

/// Small things to send once.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) ack: bool,
    pub(super) heartbeat: bool,
    /// Answer to a size probe: its size.
    pub(super) size_answer: Option<u32>,
    pub(super) messages: VecDeque<Bytes>,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) remote: Option<Remote>,
    /// Until the path is proven: what may be sent.
    pub(super) unproven: Option<Allowance>,
    /// The peer has the keys.
    pub(super) known: bool,
    /// What it is asked next.
    pub(super) question: Option<Challenge>,
    /// When it is asked again, once it was proven; and whether it was.
    pub(super) again: Again,
    pub(super) was_proven: bool,
    /// It was proven since the owner was last told.
    pub(super) newly_proven: bool,
    pub(super) paths: Paths,
    early: Early,
    /// The way through a relay, if there is one.
    pub(super) detour: Option<Detour>,
    pub(super) recv: Receiver,
    pub(super) send: SendBuffer,
    pub(super) sent: SentPackets,
    pub(super) rtt: Rtt,
    pub(super) rack: Rack,
    pub(super) mtu: Mtu,
    pub(super) bbr: Bbr,
    pub(super) rate: RateSampler,
    pub(super) pacer: Pacer,
    pub(super) timers: Timers,
    pub(super) phase: Phase,
    /// Recovery ends when everything below this number is acknowledged.
    pub(super) recovery_point: u64,
    pub(super) batch: AckBatch,
    pub(super) pending: Pending,
    pub(super) ending: Ending,
    /// The peer's window, and the seq and ack of the packet that told it.
    pub(super) window: u64,
    window_from: (u64, u64),
    /// The window in the last packet we sent.
    pub(super) advertised: u32,
    /// Times that the peer was asked, for room or for leave to send more, since its last packet.
    pub(super) unanswered: u8,
    /// The oldest packet was lost again and again, and the peer was asked for a sign of life: that tells whether it is
    /// gone or gets no packets of this size. None can come before this.
    pub(super) black_hole: Option<u64>,
    /// The packet laid out last has to travel in parts.
    pub(super) in_parts: bool,
    pub(super) keep_alive: Option<u64>,
    /// Tail probes since the last progress.
    pub(super) tail_probes: u32,
    pub(super) tail_probe_due: bool,
    low_water: usize,
    above_low_water: bool,
    pub(super) closed: Option<CloseReason>,
    pub(super) bytes_sent: u64,
    /// Of these in packets of data.
    pub(super) data_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) retransmits: u64,
    /// Of what the stream holds, how much the multiplexer has counted.
    pub(super) counted: usize,
    /// The same of what is queued for the peer; and when the peer last took some of it, or it began to wait.
    pub(super) counted_queue: usize,
    pub(super) taken_at: u64,
    /// When the peer last acknowledged anything, in order or not.
    pub(super) heeded_at: u64,
    /// In the multiplexer's lists.
    pub(super) touched: bool,
    pub(super) ready: bool,
    pub(super) deadline: Option<u64>,
}

impl Stream {
    pub(super) fn new(id: u32, low_water: usize, dice: u32) -> Self {
        Self {
            id,
            remote: None,
            unproven: None,
            known: false,
            question: None,
            again: Again::default(),
            was_proven: false,
            newly_proven: false,
            paths: Paths::default(),
            early: Early::default(),
            detour: None,
            recv: Receiver::new(0),
            send: SendBuffer::default(),
            sent: SentPackets::new(0),
            rtt: Rtt::default(),
            rack: Rack::default(),
            mtu: Mtu::new(mtu::ORDINARY_MAX),
            bbr: Bbr::new(mtu::BASE, dice),
            rate: RateSampler::default(),
            pacer: Pacer::new(
                super::congestion::bbr::INITIAL_PACKETS * mtu::BASE as u64,
                mtu::BASE,
            ),
            timers: Timers::default(),
            phase: Phase::Open,
            recovery_point: 0,
            batch: AckBatch::default(),
            pending: Pending::default(),
            ending: Ending::default(),
            window: MAX_WINDOW as u64,
            window_from: (FIRST_SEQ, FIRST_SEQ),
            advertised: MAX_WINDOW as u32,
            unanswered: 0,
            black_hole: None,
            in_parts: false,
            keep_alive: None,
            tail_probes: 0,
            tail_probe_due: false,
            low_water,
            above_low_water: false,
            closed: None,
            bytes_sent: 0,
            data_sent: 0,
            bytes_received: 0,
            retransmits: 0,
            counted: 0,
            counted_queue: 0,
            taken_at: 0,
            heeded_at: 0,
            touched: false,
            ready: false,
            deadline: None,
        }
    }

    /// What is held for the stream: what came too early, out of order, or waits above.
    pub(super) fn held(&self) -> usize {
        self.early.bytes() + self.recv.held()
    }

    pub(super) fn connect(
        &mut self,
        remote: Remote,
        opts: &ConnectOptions,
        receive_buffer: usize,
        now: u64,
    ) {
        self.remote = Some(remote);
        self.paths = Paths::begin(now);
        self.unproven = opts.unproven.map(Allowance::new);
        self.agree(opts.max_datagram);
        self.recv = Receiver::new(opts.initial_ack);
        if remote.to.ip().is_loopback() {
            // The system counts its own overhead, about as much as small datagrams carry.
            self.recv.set_limit(receive_buffer / 2);
        }
        self.sent = SentPackets::new(opts.initial_seq);
        self.window_from = (self.recv.next(), self.sent.una());
        self.keep_alive = opts.keep_alive.map(|period| (period.as_micros() as u64).max(1));
        self.pacer.set_rate(self.bbr.pacing_rate(), self.mtu.datagram());
        self.arm_keep_alive(now);
    }

    /// Starts with the datagram size a peer takes; waiting messages that are too large for it are lost.
    pub(super) fn agree(&mut self, max_datagram: usize) {
        self.mtu = Mtu::new(max_datagram);
        self.pending.messages.retain(|message| self.mtu.agrees_to(message.len()));
    }

    /// Keeps a datagram until the stream is connected.
    pub(super) fn hold(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut Outbox,
    ) {
        if self.early.hold(socket, from, datagram) {
            out.events.push_back(UdxEvent::Unconnected { id: self.id, socket, from });
        }
    }

    /// Works off what came before the stream was connected.
    pub(super) fn deliver_early(&mut self, now: u64, out: &mut Outbox, sink: &mut dyn Sink) {
        if self.remote.is_none() {
            return;
        }
        for (socket, from, datagram) in self.early.take() {
            if let Some(packet) = Packet::parse(&datagram) {
                self.note_way((socket, from), packet.size, now, out);
                self.handle(&packet, (socket, from), now, out, sink);
            }
        }
    }

    /// Whether a datagram of `len` bytes may go out.
    pub(super) fn may_send(&self, len: usize) -> bool {
        self.unproven.is_none_or(|allowance| len as u64 <= allowance.left())
    }

    /// Whether a heartbeat, or a farewell, of a header may go out.
    pub(super) fn may_ask(&self) -> bool {
        self.may_send(HEADER) || self.known && self.unproven.is_some_and(|a| a.may_ask())
    }

    /// Whether what was lost may not be sent again yet.
    pub(super) fn is_held_back(&self) -> bool {
        let lost = self.sent.first_lost().and_then(|seq| self.sent.get(seq));
        lost.is_some_and(|packet| !self.may_send(packet.size() as usize))
    }

    /// Takes a packet that came to a socket from an address. If that is not the peer's ([`Self::note_source`]) it brings
    /// data, and no news of what was sent to another address.
    pub(super) fn handle(
        &mut self,
        packet: &Packet,
        (socket, from): (SocketId, SocketAddr),
        now: u64,
        out: &mut Outbox,
        sink: &mut dyn Sink,
    ) {
        let header = &packet.header;
        if self.closed.is_some() {
            return;
        }
        let source = self.note_source(socket, from, packet.size, now);
        let believed = source != Source::Elsewhere;
        if believed {
            self.unanswered = 0;
        }
        if header.has(flag::DATA | flag::END | flag::HEARTBEAT) {
            self.owe_answer(socket, from, packet.size);
        }
        if header.has(flag::HEARTBEAT) {
            self.pending.ack |= believed;
            return;
        }
        if header.flags == flag::SIZE_PROBE && self.mtu.large_agreed() {
            if believed {
                self.handle_size_probe(packet);
            }
            return;
        }
        let seq = self.recv.expand(header.seq);
        let room = !self.recv.is_full() || packet.payload.is_empty();
        if header.has(flag::DATA | flag::END) && !room {
            // As if it were lost. The acknowledgement tells that the window is closed.
            self.pending.ack = true;
        } else if header.has(flag::DATA | flag::END) {
            let id = self.id;
            let (start, next) = (self.bytes_received, seq == self.recv.next());
            let received = &mut self.bytes_received;
            self.recv.accept(seq, header.flags, packet.payload, |payload| {
                *received += payload.len() as u64;
                sink.data(id, payload);
            });
            if next && self.bytes_received > start {
                self.note_data_from(socket, from, start, packet, now);
            }
            if let Some(held) = sink.held(id) {
                self.recv.set_backlog(held);
            }
            self.pending.ack = true;
        }
        if header.has(flag::DESTROY) && source == Source::Peer && seq >= self.recv.next() {
            self.closed = Some(CloseReason::Reset);
            return;
        }
        if header.has(flag::MESSAGE) {
            out.message(self.id, (socket, from), packet.payload);
        }
        if believed {
            self.handle_ack(packet, seq, now);
            self.press_question(now);
        }
    }

    fn handle_ack(&mut self, packet: &Packet, seq: u64, now: u64) {
        let ack = self.sent.expand(packet.header.ack);
        if ack > self.sent.next() {
            return;
        }
        let was = self.sent.una();
        let newer =
            seq > self.window_from.0 || seq == self.window_from.0 && ack >= self.window_from.1;
        if ack >= self.sent.una() && newer {
            // No peer of the network offers more, and what it can make us keep follows from it.
            self.window = u64::from(packet.header.window).min(MAX_WINDOW as u64);
            self.note_window();
            self.window_from = (seq, ack);
            if self.window > 0 {
                self.timers.clear(Timer::ZeroWindow);
            }
        }
        if ack > self.sent.una() || !packet.sack.is_empty() {
            self.take_ack(packet, ack, now);
        }
        if ack > was {
            self.black_hole = None;
        }
        if self.black_hole.is_some_and(|from| now >= from) {
            self.escape_black_hole();
        }
    }

    fn handle_size_probe(&mut self, packet: &Packet) {
        match packet.payload.first_chunk::<4>() {
            Some(size) if packet.payload.len() == 4 => {
                if self.mtu.on_large_answer(u32::from_le_bytes(*size) as usize) {
                    self.timers.clear(Timer::SizeProbe);
                    self.on_mtu_change();
                }
            }
            _ => self.pending.size_answer = Some(packet.size as u32),
        }
    }

    pub(super) fn on_mtu_change(&mut self) {
        self.bbr.set_packet(self.mtu.datagram());
        self.pacer.set_rate(self.bbr.pacing_rate(), self.mtu.datagram());
    }

    /// Ends at once, and tells the peer.
    pub(super) fn say_farewell(&mut self, why: CloseReason, out: &mut Outbox) {
        self.closed = Some(why);
        if let Some((remote, bytes)) = self.remote.zip(self.destroy_packet())
            && self.may_ask()
        {
            out.datagram(remote.socket, remote.to, bytes);
        }
    }

    /// Works off the batch: acknowledgements, losses, what the owner must know.
    pub(super) fn settle(&mut self, now: u64, out: &mut Outbox) {
        if self.closed.is_none() {
            self.finish_acks(now);
            self.answer_elsewhere(out);
            self.report(out);
        }
        if let Some(reason) = self.closed {
            self.send.clear();
            if reason == CloseReason::TimedOut {
                // It may only be that we do not hear it.
                self.say_farewell(reason, out);
            }
            if reason != CloseReason::Destroyed {
                out.events.push_back(UdxEvent::Closed { id: self.id, reason });
            }
        }
    }

    pub(super) fn report_writable(&mut self, out: &mut Outbox) {
        if self.above_low_water && self.send.unsent() <= self.low_water {
            self.above_low_water = false;
            out.events.push_back(UdxEvent::Writable { id: self.id });
        }
    }

    fn report(&mut self, out: &mut Outbox) {
        self.report_writable(out);
        if std::mem::take(&mut self.newly_proven) {
            out.events.push_back(UdxEvent::Proven { id: self.id });
        }
        if self.recv.ended() && !self.ending.reported {
            self.ending.reported = true;
            out.events.push_back(UdxEvent::RemoteEnded { id: self.id });
        }
        let ended = self.ending.seq.is_some_and(|seq| self.sent.una() > seq);
        if ended && !self.ending.acked {
            self.ending.acked = true;
            // The reference confirms once more while it waits for the peer's END.
            self.pending.ack |= !self.recv.ended();
        }
        if self.ending.acked && self.recv.ended() {
            self.closed = Some(CloseReason::Ended);
        }
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        self.send.push(bytes);
        self.above_low_water |= self.send.unsent() > self.low_water;
    }

    /// A peer of the reference does not notice that the end of a datagram was cut off, so nothing larger than agreed is taken.
    pub(super) fn send_message(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        if !self.mtu.agrees_to(bytes.len()) {
            return Err(WriteError::TooLarge);
        }
        if self.pending.messages.len() == MAX_MESSAGES {
            self.pending.messages.pop_front();
        }
        self.pending.messages.push_back(bytes);
        Ok(())
    }

    /// The owner has used up or piled up data: the window changes.
    pub(super) fn set_backlog(&mut self, bytes: usize) {
        self.recv.set_backlog(bytes);
        // A peer that stopped, or soon will, must learn of the room; it does not ask often.
        let was = self.advertised as usize;
        let limit = self.recv.most();
        if was < limit / 2 && self.recv.window() as usize >= was + limit / 4 {
            self.pending.ack = true;
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            rtt: self.rtt.smoothed().map(std::time::Duration::from_micros),
            cwnd: self.bbr.cwnd(),
            bandwidth: self.bbr.bandwidth(),
            in_flight: self.sent.in_flight(),
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            retransmits: self.retransmits,
            mtu: self.mtu.datagram() + mtu::IP_UDP,
        }
    }
}
