//! The way of a stream through a relay, beside the direct one.
//!
//! A stream that may go through a relay has a *leg* there, with an id of its own: packets to the relay carry that instead
//! of the peer's stream id. So whichever of the two ways a stream takes, and whichever it follows its peer to, the id goes
//! with it. It is noted when something last came each way, by which the owner knows what of both works.
//!
//! Where the peer is beside the relay anybody may say, with one packet in its name. So an address is tried for a moment, within
//! three times what came from there, and every address keeps its account as long as no other one takes its place. That is
//! whatever speaks next once a trial came to nothing: where the peer is, it goes on speaking. What comes from anywhere else
//! than the leg, where the stream leads, and where the peer itself was heard brings data, and no news ([`Stream::believes`]).

use super::Udx;
use super::allowance::Allowance;
use super::mtu::ORDINARY_MAX;
use super::outbox::Outbox;
use super::packet::Header;
use super::path::Source;
use super::stream::{Remote, Stream};
use super::timer::Timer;
use super::types::UdxEvent;
use crate::swarm::socket::SocketId;
use std::net::SocketAddr;
use std::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(super) struct Detour {
    leg: Remote,
    /// The peer's own stream.
    peer_id: u32,
    /// When something last came through the relay, and from where else the peer is, or is looked for.
    by_leg: Option<u64>,
    direct: Option<u64>,
    /// Where else the peer itself was last heard, and when; and what may yet turn out to be the peer's.
    shown: Option<(Way, u64)>,
    proof: Option<Proof>,
    /// It has answered a question since the owner chose the way.
    answered: bool,
    /// The direct way that was tried last, or is to be, and what may go there.
    account: Option<(Way, Allowance)>,
    /// The owner was told of it, and has not given it up.
    told: bool,
    /// The owner has chosen one of the two ways: the stream follows nobody to the other.
    chosen: bool,
}

/// A packet of the stream that came from elsewhere than the leg.
#[derive(Debug, Clone, Copy)]
struct Proof {
    way: Way,
    /// Bytes of the stream that make it the peer's once they are opened.
    at: u64,
    came: u64,
}

/// What may go the way back to a relay, which is where it is, before the peer has shown itself there.
pub(super) const RETURN: u64 = 64 << 10;

/// A socket of ours, and an address.
pub type Way = (SocketId, SocketAddr);

/// When something last came for a stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard {
    pub by_leg: Option<Instant>,
    pub direct: Option<Instant>,
}

impl Stream {
    /// What a packet to there is addressed with.
    pub(super) fn remote_at(&self, socket: SocketId, to: SocketAddr) -> Option<Remote> {
        let remote = self.remote?;
        Some(match &self.detour {
            Some(detour) if detour.leg.socket == socket && detour.leg.to == to => detour.leg,
            Some(detour) => Remote { socket, to, id: detour.peer_id },
            None => Remote { socket, to, id: remote.id },
        })
    }

    /// Whether the owner has chosen the way; counts what came there.
    pub(super) fn is_chosen(&mut self, from: SocketAddr, len: usize) -> bool {
        let chosen = self.detour.is_some_and(|detour| detour.chosen);
        let here = self.remote.is_some_and(|remote| remote.to == from);
        if let Some(allowance) = self.unproven.as_mut().filter(|_| chosen && here) {
            allowance.on_received(len);
            self.timers.clear(Timer::Unproven);
        }
        chosen
    }

    /// Takes a way, which the peer has to show to lead to it; until then no more goes there than is allowed.
    fn choose(&mut self, allowance: Option<Allowance>) {
        self.forget_question();
        self.unproven = allowance;
        self.timers.clear(Timer::Unproven);
        if let Some(detour) = &mut self.detour {
            (detour.chosen, detour.answered) = (true, false);
        }
    }

    /// Notes which way a packet of `len` bytes came.
    pub(super) fn note_way(&mut self, (socket, from): Way, len: usize, now: u64, out: &mut Outbox) {
        let here = self.remote.is_some_and(|remote| remote.to == from);
        let Some(detour) = &mut self.detour else { return };
        if (detour.leg.socket, detour.leg.to) == (socket, from) {
            detour.by_leg = Some(now);
            return;
        }
        if here {
            return;
        }
        if !std::mem::replace(&mut detour.told, true) {
            detour.open_account((socket, from));
            out.events.push_back(UdxEvent::Elsewhere { id: self.id, socket, from });
        }
        if let Some((_, allowance)) = detour.account.as_mut().filter(|a| a.0 == (socket, from)) {
            allowance.on_received(len);
        }
    }

    /// How far what comes from there is believed, by a stream that has a leg.
    pub(super) fn believes(&self, way: Way) -> Source {
        let Some(detour) = &self.detour else { return Source::Elsewhere };
        let by_leg = (detour.leg.socket, detour.leg.to) == way;
        let shown = detour.shown.is_some_and(|(shown, _)| shown == way);
        let here = self.remote.is_some_and(|remote| remote.to == way.1);
        if by_leg || shown || here && (detour.answered || !self.known) {
            Source::Peer
        } else if here {
            Source::Tried
        } else {
            Source::Elsewhere
        }
    }

    /// The peer, or who answers where it is looked for, was heard there.
    pub(super) fn note_direct(&mut self, way: Way, now: u64) {
        if let Some(detour) = &mut self.detour
            && (detour.leg.socket, detour.leg.to) != way
        {
            detour.direct = detour.direct.max(Some(now));
        }
    }

    /// What makes `proof` bytes of the stream came from there. False if it has no leg.
    pub(super) fn note_proof(&mut self, way: Way, proof: u64, now: u64) -> bool {
        let Some(detour) = &mut self.detour else { return false };
        let direct = (detour.leg.socket, detour.leg.to) != way;
        if direct && detour.proof.is_none_or(|known| known.way != way) {
            detour.proof = Some(Proof { way, at: proof, came: now });
        }
        true
    }

    /// So many bytes of the stream are the peer's.
    pub(super) fn look_at_proof(&mut self, opened: u64) {
        let Some(detour) = &mut self.detour else { return };
        if let Some(Proof { way, came, .. }) = detour.proof.take_if(|proof| proof.at <= opened) {
            detour.shown = Some((way, came));
            self.paths.note_heard(came);
            self.note_direct(way, came);
        }
    }

    /// The peer wrote what came from there. False if it has no leg.
    pub(super) fn note_shown(&mut self, way: Way, now: u64) -> bool {
        let Some(detour) = &mut self.detour else { return false };
        if (detour.leg.socket, detour.leg.to) != way {
            detour.shown = Some((way, now));
        }
        self.paths.note_heard(now);
        self.note_direct(way, now);
        true
    }

    pub(super) fn note_answer(&mut self) {
        if let Some(detour) = &mut self.detour {
            detour.answered = true;
        }
    }

    /// A direct way is given up: what went there is remembered.
    fn close_trial(&mut self) {
        let (remote, unproven) = (self.remote, self.unproven);
        let Some(detour) = &mut self.detour else { return };
        detour.told = false;
        if let (Some(remote), Some(unproven), Some((way, allowance))) =
            (remote, unproven, &mut detour.account)
            && *way == (remote.socket, remote.to)
        {
            *allowance = unproven.of_trial(0);
        }
    }
}

impl Detour {
    /// What may go a direct way. There is one account.
    fn open_account(&mut self, way: Way) -> Allowance {
        let known = self.account.filter(|account| account.0 == way);
        self.account.insert(known.unwrap_or((way, Allowance::new(0)))).1
    }
}

impl Udx {
    /// The peer of a stream, which has the stream `peer_id`, may be reached through leg `leg` of a relay as well. What comes
    /// from a third place is told from now on.
    pub fn set_leg(&mut self, id: u32, (socket, to): Way, leg: u32, peer_id: u32) {
        if let Some((_, stream)) = self.streams.get_mut(id) {
            let leg = Remote { socket, to, id: leg };
            let answered = stream.remote.is_some() && stream.unproven.is_none();
            stream.detour = Some(Detour {
                leg,
                peer_id,
                by_leg: None,
                direct: None,
                shown: None,
                proof: None,
                answered,
                account: None,
                told: false,
                chosen: false,
            });
        }
    }

    /// The leg is gone.
    pub fn forget_leg(&mut self, id: u32) {
        if let Some((_, stream)) = self.streams.get_mut(id) {
            stream.paths.left = stream.detour.take().map(|detour| detour.leg.to);
            stream.unproven = stream.unproven.map(Allowance::for_good);
        }
    }

    /// Moves a stream to a direct way, where `first` bytes may go besides three times what came from there. The peer is to
    /// be asked there: whoever says where it is may lie.
    pub fn try_way(&mut self, id: u32, way: Way, first: u64, max_datagram: usize, now: Instant) {
        let Some((_, stream)) = self.streams.get_mut(id) else { return };
        stream.close_trial();
        let Some(detour) = &mut stream.detour else { return };
        let (peer_id, allowance) = (detour.peer_id, detour.open_account(way));
        detour.told = true;
        self.change_remote(id, way.0, peer_id, way.1, max_datagram, now);
        if let Some((_, stream)) = self.streams.get_mut(id) {
            stream.choose(Some(allowance.of_trial(first)));
        }
    }

    /// Moves a stream to its leg. If the peer had shown before that it is there, it is so still.
    pub fn take_leg(&mut self, id: u32, now: Instant) {
        let Some((way, leg)) = self.leg(id) else { return };
        if let Some((_, stream)) = self.streams.get_mut(id) {
            stream.close_trial();
        }
        self.change_remote(id, way.0, leg, way.1, ORDINARY_MAX, now);
        if let Some((_, stream)) = self.streams.get_mut(id) {
            let most = (!stream.was_proven).then(|| Allowance::new(RETURN));
            stream.choose(most);
            // What the peer was told the other way may not have come.
            stream.pending.ack = true;
        }
    }

    /// Whether a stream leads to its peer directly, which has answered there: it stays there.
    pub fn is_settled(&self, id: u32) -> bool {
        let answered = |stream: &Stream| stream.detour.is_none_or(|detour| detour.answered);
        self.streams.get(id).is_some_and(answered) && !self.is_on_leg(id)
    }

    /// The way other than its leg that the peer of a stream itself was last heard by, and when: it wrote what came there.
    pub fn shown(&self, id: u32) -> Option<(Way, Instant)> {
        let (way, at) = self.streams.get(id)?.detour?.shown?;
        Some((way, self.clock.instant(at)?))
    }

    /// Sends a bare acknowledgement through the leg, which tells the relay where we are and the peer nothing.
    pub fn show_leg(&mut self, id: u32) {
        let Some((_, stream)) = self.streams.get_mut(id) else { return };
        let Some(Detour { leg, .. }) = stream.detour else { return };
        let (seq, ack) = (stream.sent.next() as u32, stream.recv.next() as u32);
        let window = stream.recv.window();
        let header = Header { flags: 0, data_offset: 0, stream: leg.id, window, seq, ack };
        self.out.datagram(leg.socket, leg.to, header.encode().to_vec());
    }

    /// Whether a stream leads to its leg.
    pub fn is_on_leg(&self, id: u32) -> bool {
        let stream = self.streams.get(id);
        stream.is_some_and(|s| {
            s.detour.zip(s.remote).is_some_and(|(d, r)| d.leg.to == r.to && d.leg.id == r.id)
        })
    }

    /// Where a stream leads to, and through which socket.
    pub fn way(&self, id: u32) -> Option<Way> {
        let remote = self.streams.get(id)?.remote?;
        Some((remote.socket, remote.to))
    }

    /// The way to the leg of a stream, and its id.
    pub fn leg(&self, id: u32) -> Option<(Way, u32)> {
        let leg = self.streams.get(id)?.detour?.leg;
        Some(((leg.socket, leg.to), leg.id))
    }

    /// How much the peer has acknowledged so far, if it still has to acknowledge something: while that is the same nothing
    /// comes of what is sent.
    pub fn waits_at(&self, id: u32) -> Option<u64> {
        let stream = self.streams.get(id).filter(|stream| !stream.sent.is_empty())?;
        Some(stream.rate.delivered())
    }

    /// Whether the peer has acknowledged anything.
    pub fn is_heard(&self, id: u32) -> bool {
        self.streams.get(id).is_some_and(|stream| stream.sent.una() > super::packet::FIRST_SEQ)
    }

    /// Sends what was sent last once more, if it is not acknowledged.
    pub fn repeat(&mut self, id: u32) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.tail_probe_due = stream.sent.last_in_flight().is_some();
            self.touch(slot);
        }
    }

    /// When something last came for a stream that has a leg.
    pub fn heard(&self, id: u32) -> Heard {
        let Some(detour) = self.streams.get(id).and_then(|stream| stream.detour) else {
            return Heard::default();
        };
        let at = |micros: Option<u64>| micros.and_then(|at| self.clock.instant(at));
        Heard { by_leg: at(detour.by_leg), direct: at(detour.direct) }
    }

    /// Asks the peer of a stream for a sign of life.
    pub fn beat(&mut self, id: u32) {
        if let Some((slot, stream)) = self.streams.get_mut(id) {
            stream.pending.heartbeat = true;
            self.touch(slot);
        }
    }

    /// Limits what legs pass on.
    pub fn limit_legs(&mut self, rates: super::LegRates, now: Instant) {
        self.legs.limit(rates, now);
    }

    /// Joins two streams of others; gives the ids of the legs that their peers send to.
    pub fn join_legs(&mut self, ends: [super::LegEnd; 2], now: Instant) -> [u32; 2] {
        let first = self.random_id();
        let second = loop {
            let id = self.random_id();
            if id != first {
                break id;
            }
        };
        self.legs.join([first, second], ends, now);
        [first, second]
    }

    pub fn remove_leg(&mut self, leg: u32) {
        self.legs.remove(leg);
    }

    /// The peer of a leg has shown that it is there. False if the leg may lead to anybody else: it is gone.
    pub fn prove_leg(&mut self, leg: u32, way: Way, now: Instant) -> bool {
        self.legs.prove(leg, way, now)
    }

    /// When something last came for a leg; `None` if it is gone.
    pub fn leg_used(&self, leg: u32) -> Option<Instant> {
        self.legs.used(leg)
    }

    #[cfg(test)]
    pub fn be_stingy(&mut self, most: u64) {
        self.legs.stingy = Some(most);
    }

    /// Bytes that legs have passed on.
    pub fn passed_on(&self) -> u64 {
        self.legs.passed()
    }
}
