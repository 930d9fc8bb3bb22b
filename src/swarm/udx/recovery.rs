//! What the sender concludes from acknowledgements and from their absence.

use super::allowance::MAX_SILENT;
use super::congestion::bbr::{Phase, View};
use super::mtu;
use super::packet::{MAX_SACK_BLOCKS, Packet};
use super::rack::{Rack, Verdict};
use super::sent::{Sent, State};
use super::stream::{AckBatch, Stream};
use super::timer::Timer;
use super::{CloseReason, Outbox, Udx};
use std::time::Instant;

/// Retransmissions by timeout of one packet before the peer counts as gone: 13 s with the shortest timeout.
const MAX_TIMEOUTS: u8 = 6;

/// Questions in a row, for a closed window, that may stay without any packet of the peer: 15 s with the shortest timeout.
/// A peer that answers and leaves its window closed is only slow.
const MAX_UNANSWERED: u8 = 8;

/// Tail probes in a row, each waiting twice as long; then the retransmission timer takes over.
const MAX_TAIL_PROBES: u32 = 4;

/// When the first tail probe is due before there is any sample of the round trip, microseconds.
const FIRST_PROBE: u64 = 300_000;

/// Timeouts of one large packet after which its size is suspected.
const BLACK_HOLE_TIMEOUTS: u8 = 2;

/// How long an answer to a large size probe may take beyond three round trips, microseconds.
const SIZE_PROBE_GRACE: u64 = 20_000;

impl Stream {
    /// Marks what a packet acknowledges; conclusions wait for the end of the batch.
    pub(super) fn take_ack(&mut self, packet: &Packet, ack: u64, now: u64) {
        if !self.batch.delivered {
            self.batch.prior_in_flight = self.sent.in_flight();
        }
        let min_rtt = self.rtt.min();
        let Self { sent, rack, rate, batch, mtu, .. } = self;
        let (mut grown, mut forged) = (false, false);
        let mut on_delivered = |seq: u64, packet: &Sent, sacked: bool, rack: &mut Rack| {
            if packet.state == State::Withheld {
                forged = true;
                return;
            }
            batch.delivered = true;
            rack.on_delivered(seq, packet, sacked, now, min_rtt);
            rate.on_delivered(now, packet.size(), packet.xmit, packet.time, packet.at_send);
            // One that was given up and could not be sent again tells when there was leave to ask, no round trip.
            if packet.transmissions == 1 && packet.state != State::Lost {
                let rtt = now.saturating_sub(packet.time).max(1);
                batch.rtt = Some(batch.rtt.map_or(rtt, |least| least.min(rtt)));
            }
            if packet.probe {
                grown |= mtu.on_probe_delivered(seq);
            }
        };
        let offset = sent.acknowledge(ack, |seq, packet| on_delivered(seq, packet, false, rack));
        for (start, end) in packet.sack_blocks() {
            let (start, end) = (sent.expand(start), sent.expand(end));
            sent.sack(start, end, |seq, packet| on_delivered(seq, packet, true, rack));
        }
        if packet.sack_blocks().count() >= MAX_SACK_BLOCKS {
            rack.on_full_report(sent.next());
        }
        if !sent.has_sacked() {
            rack.on_in_order();
        }
        if let Some(offset) = offset {
            self.batch.delivered = true;
            self.send.release(offset);
            self.taken_at = now;
        }
        if grown {
            self.on_mtu_change();
        }
        if forged {
            self.closed = Some(CloseReason::Forged);
        }
        self.look_for_answer();
    }

    /// Works off the acknowledgements of a batch.
    pub(super) fn finish_acks(&mut self, now: u64) {
        if !self.batch.delivered {
            return;
        }
        let batch: AckBatch = std::mem::take(&mut self.batch);
        self.heeded_at = now;
        self.mtu.on_ack();
        if let Some(rtt) = batch.rtt {
            self.rtt.update(rtt, now);
        }
        if self.phase != Phase::Open && self.sent.una() >= self.recovery_point {
            self.phase = Phase::Open;
            self.bbr.on_recovered();
            self.rack.on_recovered();
        }
        let lost = self.detect_losses(now);
        let mut sample = self.rate.finish(self.rtt.min());
        sample.rtt = batch.rtt;
        sample.lost = lost;
        sample.prior_in_flight = batch.prior_in_flight;
        let view = View {
            now,
            in_flight: self.sent.in_flight(),
            delivered: self.rate.delivered(),
            phase: self.phase,
            una: self.sent.una(),
            next: self.sent.next(),
        };
        self.bbr.on_ack(&sample, &view);
        if self.bbr.in_probe_rtt() {
            self.rate.set_app_limited(view.in_flight);
        }
        self.pacer.refill(now);
        self.pacer.set_rate(self.bbr.pacing_rate(), self.mtu.datagram());
        self.tail_probes = 0;
        self.rearm(now);
    }

    /// Gives up packets that are overdue; returns their bytes.
    fn detect_losses(&mut self, now: u64) -> u64 {
        let mut bytes = 0;
        self.timers.clear(Timer::Reorder);
        loop {
            let recovering = self.phase != Phase::Open;
            match self.rack.next_lost(&mut self.sent, &self.rtt, recovering, now) {
                Verdict::Lost(seq) => bytes += self.lose(seq),
                Verdict::At(at) => {
                    self.timers.set(Timer::Reorder, at);
                    break;
                }
                Verdict::None => break,
            }
        }
        if bytes > 0 && self.phase == Phase::Open {
            self.phase = Phase::Recovery;
            self.recovery_point = self.sent.next();
            self.bbr.on_enter_recovery();
        }
        bytes
    }

    /// Gives one packet up. A lost size probe says nothing about congestion and counts nothing.
    pub(super) fn lose(&mut self, seq: u64) -> u64 {
        match self.sent.mark_lost(seq) {
            Some(packet) if packet.probe => {
                self.mtu.on_probe_lost(seq);
                0
            }
            Some(packet) => packet.size(),
            None => 0,
        }
    }

    /// Sets the timers that watch over what is in flight, after progress or a transmission by one of them.
    pub(super) fn rearm(&mut self, now: u64) {
        if self.sent.is_empty() {
            self.timers.clear(Timer::Retransmit);
            self.timers.clear(Timer::TailProbe);
            self.timers.clear(Timer::Reorder);
            return;
        }
        self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        self.arm_tail_probe(now);
    }

    /// Plans a tail probe if it comes before the retransmission timeout.
    pub(super) fn arm_tail_probe(&mut self, now: u64) {
        self.timers.clear(Timer::TailProbe);
        if self.tail_probes >= MAX_TAIL_PROBES || self.phase == Phase::Loss {
            return;
        }
        // Before the peer is known there are only so many packets for so many timeouts.
        let first = if self.known { Some(FIRST_PROBE) } else { None };
        let Some(wait) = self.rtt.probe_timeout().or(first) else { return };
        let at = now + (wait << self.tail_probes);
        if self.timers.get(Timer::Retransmit).is_some_and(|rto| at < rto) {
            self.timers.set(Timer::TailProbe, at);
        }
    }

    pub(super) fn arm_keep_alive(&mut self, now: u64) {
        if let Some(period) = self.keep_alive {
            self.timers.set(Timer::KeepAlive, now + period);
        }
    }

    pub(super) fn arm_size_probe(&mut self, now: u64) {
        let wait = 3 * self.rtt.smoothed().unwrap_or(SIZE_PROBE_GRACE) + SIZE_PROBE_GRACE;
        self.timers.set(Timer::SizeProbe, now + wait);
    }

    /// Deals with every timer that is due.
    pub(super) fn handle_timeout(&mut self, now: u64, out: &mut Outbox) {
        self.timers.take_due(Timer::Pace, now);
        if self.timers.take_due(Timer::Reorder, now) {
            self.on_reorder_timeout(now);
        }
        if self.timers.take_due(Timer::TailProbe, now) && !self.sent.is_empty() {
            self.tail_probes += 1;
            self.tail_probe_due = true;
        }
        if self.timers.take_due(Timer::Retransmit, now) {
            self.on_retransmit_timeout(now);
        }
        if self.timers.take_due(Timer::ZeroWindow, now) && self.window == 0 {
            if self.unanswered >= MAX_UNANSWERED {
                self.closed = Some(CloseReason::TimedOut);
                return;
            }
            self.unanswered += 1;
            self.pending.heartbeat = true;
            self.timers.set(Timer::ZeroWindow, now + 2 * self.rtt.rto());
        }
        if self.timers.take_due(Timer::Unproven, now) {
            if self.unanswered >= MAX_SILENT {
                self.closed = Some(CloseReason::TimedOut);
                return;
            }
            self.unanswered += 1;
            self.pending.heartbeat = true;
            self.timers.set(Timer::Unproven, now + 2 * self.rtt.rto());
        }
        if self.timers.take_due(Timer::Follow, now) {
            self.follow(now, out);
        }
        if self.timers.take_due(Timer::Return, now) {
            self.go_back(now, out);
        }
        if self.timers.take_due(Timer::KeepAlive, now) {
            self.pending.heartbeat |= self.sent.is_empty();
            self.arm_keep_alive(now);
        }
        if self.timers.take_due(Timer::SizeProbe, now) {
            self.mtu.on_large_timeout();
        }
    }

    /// The peer seems to be there and has not got a large packet that was sent several times over seconds: the path may
    /// have become narrower. What is cut from now on is small. What was cut before is sent again as it is, but in parts
    /// ([`super::Transmit::in_parts`]).
    ///
    /// It is never cut anew. A number once sent stands for its bytes for ever: an old copy may come however late,
    /// acknowledgements tell numbers and not sizes, and so nobody could say where the packet after it has to begin.
    /// Fragments of IP are the one way to bring the same bytes under the same number through a narrower path. Where
    /// not even they pass, the stream times out, and a new one begins with small packets.
    ///
    /// So nothing is lost if the conclusion is wrong, and the path only stood still: the search for the size begins
    /// anew, and copies are ignored.
    pub(super) fn escape_black_hole(&mut self) {
        tracing::debug!(stream = self.id, "large packets get lost, in parts from now on");
        self.black_hole = None;
        self.mtu.on_black_hole();
        self.timers.clear(Timer::SizeProbe);
        self.lose_too_large();
        self.on_mtu_change();
    }

    /// Gives up the packets in flight that are larger than what passes whole.
    fn lose_too_large(&mut self) {
        let most = self.mtu.datagram() as u64;
        for seq in self.sent.in_flight_where(|packet| packet.size() > most) {
            self.lose(seq);
        }
    }

    fn on_reorder_timeout(&mut self, now: u64) {
        if self.detect_losses(now) > 0 {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
    }

    fn on_retransmit_timeout(&mut self, now: u64) {
        if self.is_held_back() {
            // It was not sent since: that there is no answer tells nothing.
            self.repeat_question();
            self.timers.set(Timer::Retransmit, now + 2 * self.rtt.rto());
            return;
        }
        let Some(front) = self.sent.front_mut() else { return };
        if front.timeouts >= MAX_TIMEOUTS {
            self.closed = Some(CloseReason::TimedOut);
            return;
        }
        front.timeouts += 1;
        // Whoever is dead is so however much may be sent to him.
        self.unanswered += u8::from(self.unproven.is_some());
        if front.timeouts >= BLACK_HOLE_TIMEOUTS && front.size() > mtu::BASE as u64 {
            // The question is smaller than what was measured, and a little faster. Whatever the peer says then is
            // taken for an answer.
            self.black_hole = Some(now + self.rtt.min() * 3 / 4);
            self.pending.heartbeat = true;
        }
        self.bbr.on_timeout();
        self.phase = Phase::Loss;
        self.recovery_point = self.sent.next();
        let (una, limit) = (self.sent.una(), self.rack.age_limit(&self.rtt, true));
        for seq in self.sent.in_flight_where(|packet| packet.time + limit <= now) {
            self.lose(seq);
        }
        self.lose(una);
        self.tail_probe_due = false;
        self.timers.clear(Timer::TailProbe);
        self.timers.clear(Timer::Reorder);
        self.timers.set(Timer::Retransmit, now + 2 * self.rtt.rto());
    }

    /// The system refused a datagram of `size` bytes.
    pub(super) fn handle_send_error(&mut self, size: usize) {
        if let Some(seq) = self.mtu.on_send_error(size) {
            self.lose(seq);
        }
        self.lose_too_large();
        self.timers.clear(Timer::SizeProbe);
        self.on_mtu_change();
    }
}

impl Udx {
    /// Since when a peer has taken nothing, though it was sent again after a timeout; `None` if that is not so.
    pub fn unheeded_since(&self, id: u32) -> Option<Instant> {
        let stream = self.streams.get(id)?;
        let first = stream.sent.get(stream.sent.una()).filter(|first| first.timeouts > 0);
        first.and_then(|_| self.clock.instant(stream.heeded_at))
    }
}
