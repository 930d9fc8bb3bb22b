//! Where the peer of a stream is, once it was found: following it to another address, and moving there when told.
//!
//! A NAT may forget a mapping, a machine may get another address: then packets of the stream come from elsewhere. Their
//! source can be forged, and whoever saw one can copy it. So nothing that comes from elsewhere is believed: it brings data, and
//! nothing it says of what was sent, or of an end, counts. Nor is it answered there: else a peer could be made to acknowledge to
//! a stranger what that sends it in the name of another, and so to show him that it is where it never said that it is.
//!
//! The peer's is what the owner has opened: a frame of the secret stream ([`Udx::opened`]), or a message beside it, which
//! comes through however much of the stream waits for something that was lost ([`Udx::heard_from`]). From then on it is
//! acknowledged there as well, within three times what comes; and if the peer was silent at the old address for a while
//! since, the stream follows. A copied packet, from however many addresses, moves nothing while the peer speaks from where it
//! was. At the new address it then has to answer a question (`challenge`) before it gets more than three times what it sends
//! (`allowance`). The path before is kept until then, and comes back if there is no answer.
//!
//! A stream that has a way through a relay follows nobody: its owner knows of both ways, and moves it ([`super::detour`]). It
//! believes what comes by either, and what comes from elsewhere as little as any other stream.

use super::allowance::Allowance;
use super::detour::Way;
use super::mtu::ORDINARY_MAX;
use super::packet::{HEADER, Packet};
use super::stream::{Remote, Stream};
use super::timer::Timer;
use super::{Outbox, Udx, UdxEvent};
use crate::swarm::socket::SocketId;
use std::net::SocketAddr;
use std::time::Instant;

/// Bytes of one packet that an opened frame must hold to show where it came from: nobody guesses as many.
const PROOF: u64 = 16;

/// How long the old address must have been silent: two round trips, within these bounds. Microseconds.
const LEAST_SILENCE: u64 = 50_000;
const MOST_SILENCE: u64 = 500_000;

/// How long the peer has to answer at a new address, besides four round trips.
const ANSWER: u64 = 2_000_000;

/// A stream that moves again and again waits twice as long each time, so many times at most; one that was not moved for a
/// while begins anew.
const MOST_MOVES: u32 = 6;
const SETTLED: u64 = 30_000_000;

/// How large an acknowledgement may be for each byte that came from elsewhere.
const ANSWER_FACTOR: usize = 3;

/// Questions without an answer after which a peer that speaks from elsewhere is looked for there.
const MOVED_AFTER: u8 = 2;

/// Whether a packet came from where the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It did, or from where it was, or from where it also is.
    Peer,
    /// From where it is looked for, and was not heard so far: it may have got what was sent there. An end is not believed.
    Tried,
    /// From anybody.
    Elsewhere,
}

/// Another place that data came from.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    socket: SocketId,
    from: SocketAddr,
    /// Bytes of the stream that make it the peer's once they are opened.
    proof: u64,
    authentic: bool,
    received: u64,
    /// When data that came next in the stream last came from there: a copy that comes later does not count.
    last: u64,
}

/// The path before this one, on which the peer was heard.
#[derive(Debug, Clone, Copy)]
struct Before {
    remote: Remote,
    /// What may be sent there, if that was not proven.
    allowance: Option<Allowance>,
    /// When something last came from there.
    last: u64,
}

/// Of one stream.
#[derive(Debug, Default)]
pub(super) struct Paths {
    candidate: Option<Candidate>,
    before: Option<Before>,
    /// A relay that it went through. The peer is not followed back there.
    pub(super) left: Option<SocketAddr>,
    /// When something last came from where the stream leads to.
    last: u64,
    /// When something last came that was the peer's, from anywhere.
    heard: u64,
    moved_at: u64,
    moves: u32,
    /// Whom an acknowledgement is owed besides, and how large it may be.
    answer: Option<(Remote, usize)>,
}

impl Paths {
    /// From now on the peer has time to speak from where the stream leads to.
    pub(super) fn begin(now: u64) -> Self {
        Self { last: now, ..Self::default() }
    }

    /// The peer wrote what came then.
    pub(super) fn note_heard(&mut self, at: u64) {
        self.heard = self.heard.max(at);
    }
}

impl Udx {
    /// Moves a connected stream: from now on packets go there, also those sent again; what was sent before may still be
    /// acknowledged the old way. The new one is measured anew.
    pub fn change_remote(
        &mut self,
        id: u32,
        socket: SocketId,
        remote_id: u32,
        to: SocketAddr,
        max_datagram: usize,
        now: Instant,
    ) {
        let now = self.clock.set(now);
        if let Some((slot, stream)) = self.streams.get_mut(id)
            && stream.remote.is_some()
        {
            stream.change_remote(Remote { socket, to, id: remote_id }, max_datagram, now);
            self.touch(slot);
        }
    }

    /// The owner has opened every frame that a stream has delivered, but for the last `behind` bytes, of which the rest has to
    /// come: the peer wrote them.
    pub fn opened(&mut self, id: u32, behind: usize, now: Instant) {
        let now = self.clock.set(now);
        if let Some((slot, stream)) = self.streams.get_mut(id)
            && stream.opened(behind, now, &mut self.out)
        {
            self.touch(slot);
        }
    }

    /// The owner has opened an unordered message of `len` bytes ([`UdxEvent::Message`]) that is newer than all before: the
    /// peer wrote it, and may be where it came from.
    pub fn heard_from(&mut self, id: u32, way: Way, len: usize, now: Instant) {
        let now = self.clock.set(now);
        if let Some((slot, stream)) = self.streams.get_mut(id)
            && stream.heard_from(way, HEADER + len, now, &mut self.out)
        {
            self.touch(slot);
        }
    }

    /// When something last came for a stream that was its peer's.
    pub fn last_heard(&self, id: u32) -> Option<Instant> {
        self.clock.instant(self.streams.get(id)?.paths.heard)
    }

    /// Where a connected stream leads to. It follows its peer.
    pub fn remote(&self, id: u32) -> Option<SocketAddr> {
        Some(self.streams.get(id)?.remote?.to)
    }

    /// Whether a stream goes through a socket, or may again.
    pub fn uses(&mut self, socket: SocketId) -> bool {
        (0..self.streams.slots()).any(|slot| {
            let Some(stream) = self.streams.at(slot) else { return false };
            let before = stream.paths.before.map(|before| before.remote);
            let candidate = stream.paths.candidate.map(|candidate| candidate.socket);
            let remotes = stream.remote.into_iter().chain(before);
            remotes.map(|remote| remote.socket).chain(candidate).any(|used| used == socket)
        })
    }
}

impl Stream {
    /// A packet of `len` bytes came from `from`: whose it is. While the path was never proven one from where the stream leads to
    /// counts for what may be sent.
    ///
    /// Where nothing has come from the address that we were told, the peer is where its first packet comes from, as it is
    /// for a stream that was told none. It is elsewhere as well if it speaks from there and has not answered here for a
    /// while. All begins anew then, so whoever names one victim after the other gains nothing.
    pub(super) fn note_source(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        len: usize,
        now: u64,
    ) -> Source {
        if self.is_chosen(from, len) {
            let source = self.believes((socket, from));
            if source != Source::Elsewhere {
                (self.paths.last, self.paths.heard) = (now, now);
                self.note_direct((socket, from), now);
            }
            return source;
        }
        let there = self.remote_at(socket, from);
        let Some(remote) = &mut self.remote else { return Source::Elsewhere };
        if remote.to != from {
            match &self.unproven {
                Some(allowance) if !self.was_proven && self.paths.moves == 0 => {
                    if !allowance.is_answered() {
                        *remote = there.unwrap_or(*remote);
                    } else if self.unanswered >= MOVED_AFTER && self.known {
                        *remote = there.unwrap_or(*remote);
                        self.forget_question();
                        self.unproven = self.unproven.map(Allowance::elsewhere);
                    } else {
                        return self.note_elsewhere((socket, from), len, now);
                    }
                }
                _ => return self.note_elsewhere((socket, from), len, now),
            }
        }
        (self.paths.last, self.paths.heard) = (now, now);
        self.note_direct((socket, from), now);
        if let Some(allowance) = &mut self.unproven {
            allowance.on_received(len);
            // If that is still too little the next question may follow at once.
            self.timers.clear(Timer::Unproven);
        }
        Source::Peer
    }

    fn note_elsewhere(&mut self, way: Way, len: usize, now: u64) -> Source {
        let (_, from) = way;
        let mut known = self.believes(way) == Source::Peer;
        if let Some(before) = self.paths.before.as_mut().filter(|b| b.remote.to == from) {
            (before.last, known) = (now, true);
        }
        if let Some(candidate) = self.paths.candidate.as_mut().filter(|c| c.from == from) {
            candidate.received += len as u64;
            known |= candidate.authentic;
            if candidate.authentic {
                self.plan_to_follow();
            }
        }
        if known {
            self.paths.heard = now;
            self.note_direct(way, now);
        }
        if known { Source::Peer } else { Source::Elsewhere }
    }

    /// Whether it was ever known where the peer is.
    fn was_found(&self) -> bool {
        let answered = |allowance: Allowance| allowance.is_answered();
        self.was_proven || self.unproven.is_none_or(answered) || self.paths.moves > 0
    }

    /// A packet of `len` bytes wants to be acknowledged: also to where it came from, if that is elsewhere and the peer was
    /// heard there.
    pub(super) fn owe_answer(&mut self, socket: SocketId, from: SocketAddr, len: usize) {
        let heard = self.paths.candidate.is_some_and(|c| c.from == from && c.authentic)
            || self.paths.before.is_some_and(|before| before.remote.to == from);
        let Some(to) = self.remote_at(socket, from).filter(|_| heard && self.was_found()) else {
            return;
        };
        let owed = self.paths.answer.filter(|(to, _)| to.to == from).map_or(0, |answer| answer.1);
        self.paths.answer = Some((to, owed + ANSWER_FACTOR * len));
    }

    /// Whether the peer may have moved to `from`.
    fn may_be_at(&self, from: SocketAddr) -> bool {
        let here = self.remote.is_none_or(|remote| remote.to == from);
        self.was_found() && !here && self.paths.left != Some(from)
    }

    /// A packet brought what comes next in the stream, behind `start` bytes.
    pub(super) fn note_data_from(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        start: u64,
        packet: &Packet,
        now: u64,
    ) {
        if (packet.payload.len() as u64) < PROOF
            || self.note_proof((socket, from), start + PROOF, now)
            || !self.may_be_at(from)
        {
            return;
        }
        if let Some(candidate) = self.paths.candidate.as_mut().filter(|c| c.from == from) {
            (candidate.socket, candidate.last) = (socket, now);
            return;
        }
        let (proof, received) = (start + PROOF, packet.size as u64);
        self.paths.candidate =
            Some(Candidate { socket, from, proof, authentic: false, received, last: now });
    }

    /// All but the last `behind` delivered bytes are the peer's. True if that changed anything.
    fn opened(&mut self, behind: usize, now: u64, out: &mut Outbox) -> bool {
        let opened = self.bytes_received.saturating_sub(behind as u64);
        self.look_at_proof(opened);
        let candidate = self.paths.candidate.as_mut();
        let Some(candidate) = candidate.filter(|c| !c.authentic && c.proof <= opened) else {
            return false;
        };
        candidate.authentic = true;
        self.plan_to_follow();
        self.follow(now, out);
        true
    }

    /// The peer has written a message of `len` bytes that came from there, after all that was heard of it before.
    fn heard_from(&mut self, (socket, from): Way, len: usize, now: u64, out: &mut Outbox) -> bool {
        if self.note_shown((socket, from), now) || !self.may_be_at(from) {
            return false;
        }
        let known = self.paths.candidate.filter(|c| c.from == from);
        let received = known.map_or(len as u64, |candidate| candidate.received);
        self.paths.candidate =
            Some(Candidate { socket, from, proof: 0, authentic: true, received, last: now });
        self.paths.heard = now;
        self.plan_to_follow();
        self.follow(now, out);
        true
    }

    /// How long the old address has to be silent. Two sides that follow each other crosswise do not wait equally long.
    fn silence(&self) -> u64 {
        let wait =
            (2 * self.rtt.smoothed().unwrap_or(MOST_SILENCE)).clamp(LEAST_SILENCE, MOST_SILENCE);
        wait + wait * u64::from(self.id % 64) / 128
    }

    /// When the stream may follow its candidate.
    fn follows_at(&self) -> u64 {
        let Paths { last, moved_at, moves, .. } = self.paths;
        let hold = if moves == 0 { 0 } else { self.silence() << moves.min(MOST_MOVES) };
        (last + self.silence()).max(moved_at + hold)
    }

    fn plan_to_follow(&mut self) {
        if self.timers.get(Timer::Follow).is_none() {
            self.timers.set(Timer::Follow, self.follows_at());
        }
    }

    /// Moves to where the peer speaks from, if it is time to.
    pub(super) fn follow(&mut self, now: u64, out: &mut Outbox) {
        let candidate = self.paths.candidate.filter(|c| c.authentic && c.last > self.paths.last);
        let Some(Candidate { socket, from, received, last, .. }) = candidate else {
            // It speaks here again.
            return self.timers.clear(Timer::Follow);
        };
        let at = self.follows_at();
        if at > now {
            return self.timers.set(Timer::Follow, at);
        }
        self.timers.clear(Timer::Follow);
        let back = self.paths.before.filter(|before| before.remote.to == from);
        let Some(to) = self.remote_at(socket, from).filter(|_| self.detour.is_none()) else {
            return;
        };
        let allowance = match back {
            Some(before) => before.allowance,
            None => {
                let mut allowance = Allowance::new(0);
                allowance.on_received(received as usize);
                Some(allowance.of_trial(0))
            }
        };
        self.move_to(to, allowance, back.is_some(), now, out);
        self.paths.last = last;
        self.lose_all(now);
    }

    /// The stream leads to `to` from now on, where it led before if it goes `back`.
    fn move_to(
        &mut self,
        to: Remote,
        allowance: Option<Allowance>,
        back: bool,
        now: u64,
        out: &mut Outbox,
    ) {
        let Some(was) = self.remote.replace(to) else { return };
        self.forget_question();
        if back {
            self.paths.before = None;
        } else if !self.is_moving() {
            let allowance = self.unproven.filter(|_| !self.was_proven);
            self.paths.before = Some(Before { remote: was, allowance, last: self.paths.last });
        }
        self.unproven = allowance;
        self.ask_soon();
        let paths = &mut self.paths;
        paths.candidate.take_if(|candidate| candidate.from == to.to);
        paths.moves = if now >= paths.moved_at + SETTLED { 1 } else { paths.moves + 1 };
        (paths.moved_at, paths.last) = (now, now);
        self.unanswered = 0;
        if back {
            self.timers.clear(Timer::Return);
        } else {
            self.await_answer(now);
        }
        self.timers.clear(Timer::Unproven);
        self.timers.clear(Timer::ZeroWindow);
        if was.to.ip() != to.to.ip() {
            self.measure_anew();
        }
        tracing::debug!(stream = self.id, from = %was.to, to = %to.to, "moved");
        out.events.push_back(UdxEvent::Moved { id: self.id, socket: to.socket, to: to.to });
    }

    fn change_remote(&mut self, remote: Remote, max_datagram: usize, now: u64) {
        let Paths { left, heard, last, .. } = self.paths;
        // What is still under way on the old path counts.
        let allowance = self.unproven.filter(|_| !self.was_proven);
        let before = self.remote.replace(remote).map(|remote| Before { remote, allowance, last });
        self.paths = Paths { left, heard, before, ..Paths::begin(now) };
        self.timers.clear(Timer::Return);
        self.timers.clear(Timer::Follow);
        self.agree(max_datagram);
        self.measure_anew();
    }

    /// Whether the stream leads to a place since a short while, and the peer has not answered there.
    pub(super) fn is_moving(&self) -> bool {
        self.timers.get(Timer::Return).is_some()
    }

    /// The peer has not answered at the new place: the stream leads back, unless nothing is heard from there either.
    pub(super) fn go_back(&mut self, now: u64, out: &mut Outbox) {
        let Some(before) = self.paths.before.filter(|_| self.unproven.is_some()) else { return };
        let Paths { moved_at, last, .. } = self.paths;
        if last > moved_at && before.last <= moved_at {
            return self.await_answer(now);
        }
        self.paths.candidate = None;
        self.move_to(before.remote, before.allowance, true, now, out);
        self.lose_all(now);
    }

    fn await_answer(&mut self, now: u64) {
        self.timers.set(Timer::Return, now + ANSWER + 4 * self.rtt.smoothed().unwrap_or(0));
    }

    /// Its peer has answered.
    pub(super) fn forget_path_before(&mut self) {
        self.timers.clear(Timer::Return);
        self.paths.before = None;
    }

    /// Acknowledges to where data came from, besides to where the stream leads.
    pub(super) fn answer_elsewhere(&mut self, out: &mut Outbox) {
        let Some((to, most)) = self.paths.answer.take() else { return };
        let bytes = self.acknowledgement(&to);
        if bytes.len() <= most {
            out.answer(to.socket, to.to, bytes);
        }
    }

    /// Nothing that is known of one path is true of another.
    fn measure_anew(&mut self) {
        let dice = self.sent.next() as u32 ^ self.id;
        let loopback = self.remote.is_some_and(|remote| remote.to.ip().is_loopback());
        let most = if loopback { self.mtu.agreed() } else { self.mtu.agreed().min(ORDINARY_MAX) };
        self.agree(most);
        self.mtu.on_ack();
        self.timers.clear(Timer::SizeProbe);
        self.bbr = super::congestion::Bbr::new(self.mtu.datagram(), dice);
        self.rtt = super::rtt::Rtt::default();
        self.sent.measure_nothing();
        self.pacer.set_rate(self.bbr.pacing_rate(), self.mtu.datagram());
    }

    /// What was under way went to where nobody is: all of it is sent again.
    fn lose_all(&mut self, now: u64) {
        for seq in self.sent.in_flight_where(|_| true) {
            self.lose(seq);
        }
        self.sent.forgive();
        self.black_hole = None;
        (self.tail_probes, self.tail_probe_due) = (0, false);
        self.timers.clear(Timer::Reorder);
        self.rearm(now);
    }
}
