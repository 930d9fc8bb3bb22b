//! Our connections that may go through a relay: asking for a leg, going through it, and leaving it for the direct way.
//!
//! ```text
//!   handshake names a relay ─▶ (a moment) ─▶ asked ─▶ paired ─▶ the stream goes through its leg
//!                       └─▶ meanwhile the direct way is looked for ─▶ found ─▶ tried ─▶ the relay is left
//! ```
//!
//! Of the two ways the first that is there is taken. A stream that takes the direct one and hears nothing changes over to
//! the leg; one that took the leg and hears nothing changes over to a direct way that is known, and so on; one that is
//! open through the relay moves to the direct way as soon as there is one, and back if nothing comes of it, or not any more.
//! The relay is left only when both have said that they stay on the direct way ([`signs`]), for until then one may need it. Who has the
//! leg, and hears the peer itself by the direct way alone, goes there. So neither way being dead, whatever the order of things, leaves the two waiting; and a relay that pairs and passes
//! nothing on is not named again for that peer for a while.
//!
//! Source: hyperdht/lib/connect.js:relayConnection, relay-connection.js

mod going_direct;
mod signs;
mod to_relay;

use super::Swarm;
use super::connections::Phase;
use super::control_room::Share;
use super::hyperdht::{ConnectId, RelayAsk};
use super::relay::messages::Pair;
use super::udx;
use crate::key::PublicKey;
use going_direct::MAX_TRIES;
use signs::Said;
use std::net::{IpAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How long a relay may take, as in the reference.
const PAIR_WAIT: Duration = Duration::from_secs(15);

/// While it takes longer than it might, it is looked so often whether there is another one now.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a stream that is not open may hear nothing where it is before it changes over to the other way that is there.
/// What was sent the first way goes on, and an answer to it is taken: so a longer way there and back loses nothing.
const SILENCE: Duration = Duration::from_millis(300);

/// When the first packet through a relay is sent again while nothing is heard: a relay of the reference loses what comes
/// before the peer has sent something.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];

/// After so long without a word of the peer a relay that paired is no help: what is sent through it at once is repeated
/// and has had time to come.
const HELPS_WITHIN: Duration = Duration::from_secs(1);

/// A stream that moved to the direct way, and still has its leg.
#[derive(Debug, Clone, Copy)]
struct Moved {
    at: Instant,
    /// Until when the peer is to answer there; when it had.
    until: Instant,
    settled: Option<Instant>,
    /// How much the peer had acknowledged when it was first seen that nothing more comes, and when that was.
    stuck: Option<(u64, Instant)>,
    /// The peer stays there as well: the relay is left then.
    leave_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The direct way has its head start.
    Waiting,
    /// The relay was asked, over this control connection.
    Asked {
        control: u32,
    },
    Paired {
        control: u32,
        since: Instant,
        again: usize,
        moved: Option<Moved>,
    },
}

/// One stream.
#[derive(Debug)]
pub(super) struct Relayed {
    ask: RelayAsk,
    /// Where the relay may be.
    hint: Vec<SocketAddrV4>,
    /// The attempt that goes on looking for a direct way.
    pub connect: Option<ConnectId>,
    /// The direct way, if it is known. Whoever sent a packet has told it, unless the peer itself was heard there.
    pub direct: Option<udx::Way>,
    shown: Option<udx::Way>,
    /// The one that our dial led to.
    pub dialled: Option<udx::Way>,
    /// How often a direct way was tried, when it may be tried again, and whether anything has come from there since.
    tries: u32,
    try_at: Instant,
    told: bool,
    said: Said,
    /// When the relay was asked; when it paired.
    asked: Option<Instant>,
    paired: Option<Instant>,
    /// The relay has been noted as one that is no help.
    pub noted: bool,
    stage: Stage,
    /// When something is to be done.
    at: Instant,
}

impl Relayed {
    pub fn relay(&self) -> PublicKey {
        self.ask.relay
    }

    /// Whether a direct way is known, or still looked for.
    pub fn may_be_direct(&self) -> bool {
        self.connect.is_some() || self.direct.is_some()
    }
}

impl Swarm {
    /// The handshake of `stream` names a relay.
    pub(super) fn begin_relay(
        &mut self,
        stream: u32,
        ask: RelayAsk,
        connect: Option<ConnectId>,
        delay: Duration,
        now: Instant,
    ) {
        let hint = self.relay_hint(&ask.relay);
        let at = now + delay;
        let (direct, dialled, stage) = (None, None, Stage::Waiting);
        let (asked, paired, noted) = (None, None, false);
        let (tries, try_at, told, shown, said) = (0, now, false, None, Said::Nothing);
        let relayed = Relayed {
            ask,
            hint,
            connect,
            direct,
            shown,
            dialled,
            tries,
            try_at,
            told,
            said,
            asked,
            paired,
            noted,
            stage,
            at,
        };
        self.relayed.insert(stream, relayed);
        if delay.is_zero() {
            self.relayed_due(stream, now);
        }
    }

    /// No direct way will come soon: the relay is not kept waiting for one.
    pub(super) fn direct_is_late(&mut self, connect: ConnectId, now: Instant) {
        let waits = |(_, relayed): &(&u32, &Relayed)| {
            relayed.connect == Some(connect) && matches!(relayed.stage, Stage::Waiting)
        };
        let Some(stream) = self.relayed.iter().find(waits).map(|(stream, _)| *stream) else {
            return;
        };
        self.relayed_due(stream, now);
    }

    /// Whether a stream whose direct way was not found goes on because it has a relay, or may come to.
    pub(super) fn goes_on_by_relay(&mut self, stream: u32, now: Instant) -> bool {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return false };
        relayed.connect = None;
        if matches!(relayed.stage, Stage::Waiting) {
            // Nothing is gained by waiting.
            self.relayed_due(stream, now);
        }
        self.relayed.contains_key(&stream)
    }

    /// The stream that an attempt to connect is for.
    pub(super) fn stream_of(&self, connect: ConnectId) -> Option<u32> {
        let relayed = self.relayed.iter().find(|(_, r)| r.connect == Some(connect));
        relayed.map(|(stream, _)| *stream).or_else(|| self.connections.dial(connect))
    }

    pub(super) fn relayed_timeout(&self) -> Option<Instant> {
        self.relayed.values().map(|relayed| relayed.at).min()
    }

    pub(super) fn handle_relayed(&mut self, now: Instant) {
        let due = self.relayed.iter().filter(|(_, r)| r.at <= now).map(|(stream, _)| *stream);
        for stream in due.collect::<Vec<_>>() {
            self.relayed_due(stream, now);
        }
    }

    /// Whether streams go through a control connection, or wait to.
    pub(super) fn needs_control(&self, control: u32) -> bool {
        self.relayed_by(control).next().is_some()
    }

    /// Streams that go through a control connection, or wait to, each with the host of the client who named the relay.
    pub(super) fn relayed_by(&self, control: u32) -> impl Iterator<Item = (u32, Option<IpAddr>)> {
        let by = move |stage: Stage| match stage {
            Stage::Waiting => false,
            Stage::Asked { control: of } | Stage::Paired { control: of, .. } => of == control,
        };
        let streams = self.relayed.iter().filter(move |(_, relayed)| by(relayed.stage));
        streams.map(|(stream, relayed)| (*stream, relayed.ask.client))
    }

    /// The relay that a stream goes through now.
    pub(super) fn relay_of(&self, stream: u32) -> Option<PublicKey> {
        let relayed = self.relayed.get(&stream).filter(|_| self.udx.is_on_leg(stream))?;
        Some(relayed.ask.relay)
    }

    fn relayed_due(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        relayed.at = now + PAIR_WAIT;
        let stage = relayed.stage;
        match stage {
            Stage::Waiting => self.ask_relay(stream, now),
            Stage::Asked { .. } if self.changes_relay(stream, "it does not pair", now) => {}
            Stage::Asked { .. } => self.wait_for_pair(stream, now),
            Stage::Paired { since, again, moved: None, .. } => {
                self.look_around_leg(stream, since, again, now);
            }
            Stage::Paired { moved: Some(moved), .. } => self.look_at_trial(stream, moved, now),
        }
    }

    fn ask_relay(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get(&stream) else { return };
        let (relay, hint) = (relayed.ask.relay, relayed.hint.clone());
        let share = relayed.ask.client.map_or(Share::Relay(None), Share::Client);
        let Some(control) = self.control_to(relay, hint, share, now) else {
            return self.relay_failed(stream, "there is no way to the relay", now);
        };
        if let Some(relayed) = self.relayed.get_mut(&stream) {
            relayed.stage = Stage::Asked { control };
            relayed.asked.get_or_insert(now);
        }
        self.await_pair(stream, false, now);
        if self.controls.table.by_stream(control).is_some_and(|control| control.is_open()) {
            self.say_pair(stream, control, now);
            self.flush_control(control, now);
        }
    }

    /// Looks early whether it has paired, if another relay could.
    fn await_pair(&mut self, stream: u32, open: bool, now: Instant) {
        let wait = self.pair_wait(stream, open).unwrap_or(PAIR_WAIT).min(PAIR_WAIT);
        if let Some(relayed) = self.relayed.get_mut(&stream) {
            relayed.at = now + wait;
        }
    }

    /// It has not paired so far, and there is no other, or maybe a direct way.
    fn wait_for_pair(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        let end = relayed.asked.map_or(now, |at| at + PAIR_WAIT);
        if now >= end {
            return self.relay_failed(stream, "the relay did not answer", now);
        }
        relayed.at = end.min(now + LOOK_AGAIN);
        self.look_after_relay(stream, now);
    }

    fn say_pair(&mut self, stream: u32, control: u32, now: Instant) {
        self.await_pair(stream, true, now);
        let (Some(relayed), Some(control)) =
            (self.relayed.get(&stream), self.controls.get(control))
        else {
            return;
        };
        let RelayAsk { token, initiator, .. } = relayed.ask;
        control.say_pair(&Pair { initiator, token, id: stream, seq: 0 });
    }

    /// A control connection is there: asks for all that wait for it.
    pub(super) fn relay_open(&mut self, control: u32, now: Instant) {
        let waits = |stage: Stage| matches!(stage, Stage::Asked { control: of } if of == control);
        let streams = self.relayed.iter().filter(|(_, r)| waits(r.stage)).map(|(s, _)| *s);
        for stream in streams.collect::<Vec<_>>() {
            self.say_pair(stream, control, now);
        }
    }

    /// The relay says that both halves are there.
    pub(super) fn paired(&mut self, control: u32, pair: &Pair, now: Instant) {
        let Some(way) = self.udx.way(control) else { return };
        let asked = |stage| matches!(stage, Stage::Asked { control: of } if of == control);
        let wanted = self.relayed.iter_mut().find(|(_, r)| {
            r.ask.token == pair.token && r.ask.initiator == pair.initiator && asked(r.stage)
        });
        let Some((&stream, relayed)) = wanted else { return };
        relayed.stage = Stage::Paired { control, since: now, again: 0, moved: None };
        relayed.paired = Some(now);
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let peer_id = connection.remote_stream;
        tracing::debug!(peer = ?connection.remote, relay = ?relayed.ask.relay, "paired");
        self.udx.set_leg(stream, way, pair.id, peer_id);
        if self.udx.remote(stream).is_none() {
            self.reach_through(stream, way, pair.id, now);
        } else {
            self.udx.show_leg(stream);
        }
        if let Some(relayed) = self.relayed.get_mut(&stream) {
            relayed.at = now + AGAIN[0];
        }
    }

    /// A stream that has a leg and did not move: looks whether it hears its peer where it is.
    fn look_around_leg(&mut self, stream: u32, since: Instant, again: usize, now: Instant) {
        let on_leg = self.udx.is_on_leg(stream);
        let heard = self.udx.heard(stream);
        let connection = self.connections.by_stream(stream);
        let (open, initiator) = connection.map_or((false, false), |c| (c.is_open(), c.initiator));
        let silent = self.is_leg_silent(stream, now);
        let dead_at = self.leg_is_dead_at(stream);
        let last = heard.by_leg.map_or(since, |at| at.max(since));
        if on_leg
            && now >= last + HELPS_WITHIN
            && self.changes_relay(stream, "nothing comes through it", now)
        {
            return;
        }
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        if on_leg && relayed.direct.is_some() && (open || silent && relayed.tries < MAX_TRIES) {
            return match open && now < relayed.try_at {
                true if dead_at.is_some_and(|at| at <= now) => self.follow(stream, now),
                true => {
                    let mut at = dead_at.map_or(relayed.try_at, |at| at.min(relayed.try_at));
                    at = self.say_on_leg(stream, now).map_or(at, |next| at.min(next));
                    if let Some(relayed) = self.relayed.get_mut(&stream) {
                        relayed.at = at;
                    }
                }
                false => self.try_direct(stream, now),
            };
        }
        if let Some(after) = AGAIN.get(again)
            && now >= since + *after
            && let Stage::Paired { again, .. } = &mut relayed.stage
        {
            *again += 1;
            if on_leg && heard.by_leg.is_none() {
                self.udx.repeat(stream);
            }
        }
        let next = AGAIN.get(again + 1).map(|after| since + *after);
        relayed.at = next.filter(|at| *at > now).unwrap_or(now + SILENCE);
        if on_leg {
            return;
        }
        // It took the direct way: either the peer is heard there and hears us, or the leg is tried.
        if heard.direct.is_some() && self.udx.is_heard(stream) {
            self.has_moved(stream, now);
        } else if now >= since + SILENCE {
            let way = self.udx.way(stream);
            relayed.direct = relayed.direct.or(way);
            relayed.dialled = relayed.dialled.or(way.filter(|_| initiator));
            self.take_leg(stream, now);
        }
    }

    /// Whether a stream has its leg for a while and has heard nothing by it lately.
    fn is_leg_silent(&self, stream: u32, now: Instant) -> bool {
        self.leg_heard(stream).is_some_and(|at| now >= at + SILENCE)
    }

    /// When something last came by the leg of a stream, which it has or took not before that.
    fn leg_heard(&self, stream: u32) -> Option<Instant> {
        let Stage::Paired { since, .. } = self.relayed.get(&stream)?.stage else { return None };
        Some(self.udx.heard(stream).by_leg.map_or(since, |at| at.max(since)))
    }

    /// Notes whether anything of the peer came through the relay of a stream, which is about to end or to leave it.
    pub(super) fn judge_relay(&mut self, stream: u32, now: Instant) {
        let (Some(relayed), Some(connection)) =
            (self.relayed.get(&stream), self.connections.by_stream(stream))
        else {
            return;
        };
        let (relay, peer) = (relayed.ask.relay, connection.remote);
        let (heard, open) = (self.udx.heard(stream).by_leg, connection.is_open());
        let last = heard.max(relayed.paired);
        if heard.is_some_and(|at| !relayed.noted && (open || now < at + HELPS_WITHIN)) {
            self.dht.silent_relays_mut().heard(&relay, &peer);
        } else if !relayed.noted && last.is_some_and(|at| now >= at + HELPS_WITHIN) {
            tracing::debug!(?relay, ?peer, "nothing came through the relay");
            self.dht.silent_relays_mut().note(relay, peer, now);
        }
    }

    fn take_back(&mut self, relayed: &Relayed, now: Instant) {
        let (Stage::Asked { control } | Stage::Paired { control, .. }) = relayed.stage else {
            return;
        };
        if let Some(state) = self.controls.get(control) {
            state.say_unpair(&relayed.ask.token);
            self.flush_control(control, now);
        }
        if let Some(control) = self.controls.table.by_stream(control) {
            control.last_used = now;
        }
    }

    /// No way through the relay came about.
    fn relay_failed(&mut self, stream: u32, why: &str, now: Instant) {
        let Some(relayed) = self.relayed.remove(&stream) else { return };
        tracing::debug!(stream, why, "not relayed");
        if let (Stage::Asked { control }, Some(peer)) =
            (relayed.stage, self.connections.by_stream(stream).map(|c| c.remote))
            && !self.controls.get(control).is_some_and(|control| control.serves)
        {
            // Whoever it was, it is no relay, or cannot be reached.
            self.dht.silent_relays_mut().note_absent(relayed.ask.relay, peer, now);
        }
        self.take_back(&relayed, now);
        // The direct way may still come about, unless that has failed.
        let waits = self.connections.by_stream(stream).map(|c| (c.initiator, &c.phase));
        if let Some((true, Phase::Dialling { .. })) = waits
            && relayed.connect.is_none()
        {
            self.dial_failed(stream, why.to_string(), now);
        }
    }

    /// The control connection is gone, and the leg with it.
    pub(super) fn relay_lost(&mut self, control: u32, now: Instant) {
        let of = |stage: Stage| match stage {
            Stage::Waiting => false,
            Stage::Asked { control: of } | Stage::Paired { control: of, .. } => of == control,
        };
        let streams = self.relayed.iter().filter(|(_, r)| of(r.stage)).map(|(s, _)| *s);
        for stream in streams.collect::<Vec<_>>() {
            let Some(relayed) = self.relayed.get(&stream) else { continue };
            let (direct, stage) = (relayed.direct, relayed.stage);
            let known = self.known_way(stream);
            let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
            let (on_leg, here) = (self.udx.is_on_leg(stream), self.udx.way(stream));
            if matches!(stage, Stage::Asked { .. }) {
                self.relay_failed(stream, "the relay is gone", now);
            } else if let Some(way) = known.or(direct.filter(|_| !open))
                && (on_leg || open && here != Some(way))
            {
                self.move_to(stream, way, now);
                self.ask(stream, now);
                self.leave_relay(stream, now);
            } else {
                self.leave_relay(stream, now);
                if on_leg {
                    self.path_lost(stream, now);
                }
            }
        }
    }

    /// Takes back what was asked of relays for streams that are gone.
    pub(super) fn tidy_relayed(&mut self, now: Instant) {
        // What we ended still has to be said to the peer.
        let gone =
            |stream: &&u32| !self.connections.has(**stream) && !self.closing.contains_key(*stream);
        let gone: Vec<u32> = self.relayed.keys().filter(gone).copied().collect();
        gone.into_iter().for_each(|stream| self.leave_relay(stream, now));
        if self.stopping && self.relayed.is_empty() {
            for stream in self.controls.table.streams() {
                self.end_control(stream, "we stop", now);
            }
        }
    }
}
