//! Lays out what a stream sends into the caller's buffer.
//!
//! A call yields either one small datagram (message, heartbeat, probe, acknowledgement) or a burst of data packets of
//! one size, each with its own header, ready for one segmented send. Data carries the acknowledgement along; a separate
//! one goes out only if there is no data to send or if there are gaps to report.

use super::allowance::NUMBERS;
use super::congestion::bbr::Phase;
use super::packet::{HEADER, Header, flag};
use super::recv::{MAX_AHEAD, MAX_HELD_BYTES};
use super::sent::State;
use super::stream::{Remote, Stream};
use super::timer::Timer;
use super::{MAX_BURST, Transmit};

/// Behind a packet that is not acknowledged no more is sent than a peer of ours holds ahead of a gap, for what was reported
/// out of order counts in no window, and all of it is kept. Four windows cost 15 MB for one JavaScript reader, and help only
/// where a packet is lost twice on a long fast path.
const MOST_WAITING: u64 = MAX_HELD_BYTES as u64;

/// The next data packet a stream would send.
#[derive(Debug, Clone, Copy)]
enum Next {
    Again { seq: u64, len: usize },
    Fresh { len: usize, padding: usize, end: bool },
}

impl Next {
    fn size(&self) -> usize {
        match self {
            Self::Again { len, .. } => HEADER + len,
            Self::Fresh { len, padding, .. } => HEADER + len + padding,
        }
    }

    /// Must travel alone: its size is a question.
    fn is_probe(&self) -> bool {
        matches!(self, Self::Fresh { padding: 1.., .. })
    }
}

impl Stream {
    /// Fills `buf` with the next datagrams; `None` if there is nothing to send now.
    pub(super) fn transmit(
        &mut self,
        now: u64,
        buf: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<Transmit> {
        let remote = self.remote?;
        buf.clear();
        self.in_parts = false;
        let segment = self
            .small_packet(&remote, now, buf)
            .or_else(|| self.ack_packet(&remote, true, buf))
            .or_else(|| self.data_packets(&remote, now, buf, max_segments))
            .or_else(|| self.ack_packet(&remote, false, buf))
            // Looking for data may have found the window closed, which asks for a heartbeat.
            .or_else(|| self.small_packet(&remote, now, buf))?;
        let asks = buf.len() == HEADER && buf.get(2) == Some(&flag::HEARTBEAT);
        if !(self.may_send(buf.len()) || asks && self.may_ask()) {
            // Not data, which was looked at before: whatever this told, the next packet will tell again.
            return None;
        }
        if let Some(allowance) = &mut self.unproven {
            allowance.on_sent(buf.len());
        }
        self.bytes_sent += buf.len() as u64;
        self.arm_keep_alive(now);
        Some(Transmit {
            socket: remote.socket,
            to: remote.to,
            segment_size: (buf.len() > segment).then_some(segment),
            ttl: None,
            in_parts: self.in_parts,
        })
    }

    /// A header with the next unused number.
    fn header(&mut self, remote: &Remote, flags: u8) -> Header {
        let window = self.recv.window();
        self.advertised = window;
        let (seq, ack) = (self.sent.next() as u32, self.recv.next() as u32);
        Header { flags, data_offset: 0, stream: remote.id, window, seq, ack }
    }

    fn small_packet(&mut self, remote: &Remote, now: u64, buf: &mut Vec<u8>) -> Option<usize> {
        if let Some(message) = self.pending.messages.pop_front() {
            buf.extend_from_slice(&self.header(remote, flag::MESSAGE).encode());
            buf.extend_from_slice(&message);
            return Some(buf.len());
        }
        if std::mem::take(&mut self.pending.heartbeat) {
            buf.extend_from_slice(&self.header(remote, flag::HEARTBEAT).encode());
            return Some(buf.len());
        }
        if let Some(size) = self.pending.size_answer.take() {
            buf.extend_from_slice(&self.header(remote, flag::SIZE_PROBE).encode());
            buf.extend_from_slice(&size.to_le_bytes());
            return Some(buf.len());
        }
        if self.unproven.is_none()
            && let Some(size) = self.mtu.large_probe()
        {
            buf.extend_from_slice(&self.header(remote, flag::SIZE_PROBE).encode());
            buf.resize(size, 0);
            self.arm_size_probe(now);
            return Some(buf.len());
        }
        None
    }

    /// A plain acknowledgement, or one with SACK blocks; with `urgent` only the latter.
    fn ack_packet(&mut self, remote: &Remote, urgent: bool, buf: &mut Vec<u8>) -> Option<usize> {
        let gaps = self.recv.has_gaps();
        if !self.pending.ack || urgent && !gaps {
            return None;
        }
        self.pending.ack = false;
        buf.extend_from_slice(&self.acknowledgement(remote));
        Some(buf.len())
    }

    /// What has come in so far.
    pub(super) fn acknowledgement(&mut self, remote: &Remote) -> Vec<u8> {
        let flags = if self.recv.has_gaps() { flag::SACK } else { 0 };
        let mut buf = self.header(remote, flags).encode().to_vec();
        for (start, end) in self.recv.sack_blocks() {
            buf.extend_from_slice(&start.to_le_bytes());
            buf.extend_from_slice(&end.to_le_bytes());
        }
        buf
    }

    /// The acknowledgement that is still owed when the stream goes away.
    pub(super) fn last_ack(&mut self) -> Option<Vec<u8>> {
        let mut buf = Vec::with_capacity(HEADER);
        let remote = self.remote?;
        self.ack_packet(&remote, false, &mut buf)?;
        Some(buf)
    }

    /// The acknowledgement that answers whatever still comes when the stream is gone.
    pub(super) fn final_ack(&mut self, remote: &Remote) -> [u8; HEADER] {
        self.header(remote, 0).encode()
    }

    /// The packet that tells the peer of an abrupt end.
    pub(super) fn destroy_packet(&mut self) -> Option<Vec<u8>> {
        let remote = self.remote?;
        Some(self.header(&remote, flag::DESTROY).encode().to_vec())
    }

    fn data_packets(
        &mut self,
        remote: &Remote,
        now: u64,
        buf: &mut Vec<u8>,
        max_segments: usize,
    ) -> Option<usize> {
        if !self.has_data() {
            self.note_app_limited();
            return None;
        }
        self.pacer.refill(now);
        self.timers.clear(Timer::Pace);
        let forced = std::mem::take(&mut self.tail_probe_due);
        let mut segment = 0;
        for count in 0..max_segments.max(1) {
            let forced = forced && count == 0;
            if !forced && !self.pacer.is_open() {
                self.timers.set(Timer::Pace, self.pacer.opens_at());
                break;
            }
            let Some(next) = self.next_packet(forced, now) else { break };
            if !self.may_send(buf.len() + next.size()) {
                if count == 0 {
                    self.ask_for_allowance(now);
                }
                break;
            }
            if count == 0 {
                segment = next.size();
                buf.reserve(segment);
            } else if next.size() > segment
                || next.is_probe()
                || buf.len() + next.size() > MAX_BURST
            {
                break;
            }
            self.emit(next, remote, now, buf);
            if next.size() < segment || next.is_probe() || self.in_parts {
                break;
            }
        }
        if segment == 0 {
            return None;
        }
        self.timers.clear(Timer::Unproven);
        // The header carried it, and there are no gaps to tell of (or they were just told).
        self.pending.ack = false;
        if forced || self.timers.get(Timer::Retransmit).is_none() {
            self.timers.set(Timer::Retransmit, now + self.rtt.rto());
        }
        self.arm_tail_probe(now);
        Some(segment)
    }

    fn has_data(&self) -> bool {
        self.tail_probe_due
            || self.send.unsent() > 0
            || self.end_waits()
            || self.sent.first_lost().is_some()
    }

    /// Bytes from the oldest that is not acknowledged in order to the newest that was sent.
    pub(super) fn waiting(&self) -> u64 {
        self.sent.front_offset().map_or(0, |front| self.send.next_offset().saturating_sub(front))
    }

    /// The END flag was asked for and is in no packet yet.
    fn end_waits(&self) -> bool {
        self.ending.wanted && self.ending.seq.is_none()
    }

    fn note_app_limited(&mut self) {
        if self.sent.in_flight() < self.bbr.cwnd() {
            self.rate.set_app_limited(self.sent.in_flight());
        }
    }

    /// What to send next if the windows allow it; `forced` ignores that of congestion.
    fn next_packet(&mut self, forced: bool, now: u64) -> Option<Next> {
        let in_flight = self.sent.in_flight();
        let fits = |size: usize, limit: u64| in_flight == 0 || in_flight + size as u64 <= limit;
        if self.is_moving() {
            // Before the peer has answered hardly anything may be sent: the question goes before all that was lost.
            if self.waits_to_ask() {
                self.ask_for_allowance(now);
                return None;
            }
            if self.window > NUMBERS as u64 {
                self.ask_before(0, now);
            }
            if let Some(seq) = self.next_of_question(forced) {
                return Some(Next::Again { seq, len: 1 });
            }
        }
        if let Some(seq) = self.sent.first_lost() {
            let len = self.sent.get(seq)?.len as usize;
            let allowed = forced || fits(HEADER + len, self.bbr.cwnd());
            return allowed.then_some(Next::Again { seq, len });
        }
        if self.waits_for_answer() || self.has_used_up() {
            self.note_app_limited();
            let seq = if forced { self.sent.last_in_flight()? } else { return None };
            return Some(Next::Again { seq, len: self.sent.get(seq)?.len as usize });
        }
        if self.waits_to_ask() {
            self.ask_for_allowance(now);
            return None;
        }
        let unsent = self.send.unsent();
        if unsent > 0 || self.end_waits() {
            let full = self.mtu.payload();
            let len = unsent.min(full);
            let end = self.end_waits() && len == unsent;
            // A peer of ours holds no more packets ahead, however small they are.
            let is_near = self.waiting() + len as u64 <= MOST_WAITING
                && self.sent.next() - self.sent.una() < MAX_AHEAD;
            let is_held = is_near && (in_flight == 0 || self.has_room_ahead(len as u64));
            // A bare END takes no room. Into a window that is open one packet goes if nothing is in flight, however
            // small it is: the answer tells of the room, where nothing else would.
            let window_open = len == 0 || self.window > 0 && fits(len, self.window) && is_held;
            if self.window > NUMBERS as u64 {
                self.doubt();
                if self.ask_before(HEADER + len, now) {
                    return Some(Next::Again { seq: self.sent.first_lost()?, len: 1 });
                }
            }
            if forced && self.window > 0 && is_held {
                return Some(Next::Fresh { len, padding: 0, end });
            }
            if window_open && fits(HEADER + len, self.bbr.cwnd()) {
                let probe = len == full && self.phase == Phase::Open;
                let padding = self.mtu.padding().filter(|_| probe).unwrap_or(0);
                return Some(Next::Fresh { len, padding, end });
            }
            self.ask_for_window(now);
            // A peer that is full takes nothing but what it waits for, and answers nothing else.
            if forced && !is_held && self.sent.is_first_in_flight() {
                let seq = self.sent.una();
                return Some(Next::Again { seq, len: self.sent.get(seq)?.len as usize });
            }
        } else {
            self.note_app_limited();
        }
        let seq = if forced { self.sent.last_in_flight()? } else { return None };
        Some(Next::Again { seq, len: self.sent.get(seq)?.len as usize })
    }

    /// Data waits before a closed window and nothing in flight would bring an answer: start asking.
    fn ask_for_window(&mut self, now: u64) {
        if self.window == 0 && self.sent.is_empty() && self.timers.get(Timer::ZeroWindow).is_none()
        {
            self.pending.heartbeat = true;
            self.timers.set(Timer::ZeroWindow, now + self.rtt.rto());
        }
    }

    /// Data waits that may not go to an unproven address: start asking the known peer for anything that allows more.
    fn ask_for_allowance(&mut self, now: u64) {
        if self.known && self.timers.get(Timer::Unproven).is_none() {
            self.pending.heartbeat = true;
            self.timers.set(Timer::Unproven, now + self.rtt.rto());
        }
    }

    fn emit(&mut self, next: Next, remote: &Remote, now: u64, buf: &mut Vec<u8>) {
        let idle = self.sent.in_flight() == 0;
        if idle && self.sent.is_empty() {
            self.bbr.on_restart(now, self.rate.is_app_limited());
        }
        let at_send = self.rate.on_sent(now, idle);
        let mut header = self.header(remote, flag::DATA);
        let (offset, len) = match next {
            Next::Again { seq, len } => {
                let Some(packet) = self.sent.get(seq) else { return };
                header.flags = packet.flags;
                header.seq = seq as u32;
                let offset = packet.offset;
                debug_assert_ne!(packet.state, State::Sacked);
                self.in_parts = HEADER + len > self.mtu.datagram();
                self.retransmits += u64::from(packet.xmit > 0);
                self.sent.resend(seq, now, at_send);
                (offset, len)
            }
            Next::Fresh { len, padding, end } => {
                header.flags =
                    if len > 0 { flag::DATA } else { 0 } | if end { flag::END } else { 0 };
                header.data_offset = padding as u8;
                let offset = self.send.cut(len);
                let seq = self.sent.push(offset, len, header.flags, padding > 0, now, at_send);
                if padding > 0 {
                    self.mtu.on_probe_sent(seq, padding);
                }
                if end {
                    self.ending.seq = Some(seq);
                }
                (offset, len)
            }
        };
        self.pacer.spend(next.size());
        self.data_sent += next.size() as u64;
        buf.extend_from_slice(&header.encode());
        buf.resize(buf.len() + usize::from(header.data_offset), 0);
        self.send.copy(offset, len, buf);
    }
}
