//! A stream that goes through a relay moves to the direct way once that is known, and back if nothing comes of it, or not any
//! more.

use super::signs::Said;
use super::{AGAIN, Moved, Stage};
use crate::swarm::Swarm;
use crate::swarm::lifecycle::FIRST_BYTES_DIALLED;
use crate::swarm::relay::server::LEG_IDLE;
use crate::swarm::udx;
use std::time::{Duration, Instant};

/// How long a direct way is tried before it is looked what came of it; at least some times the way there and back.
const TRIAL: Duration = Duration::from_secs(1);

/// The same where the peer itself was heard: so many times the way there and back through the relay, within this.
const TRIAL_RTTS: u32 = 3;
const MOST_TRIAL: Duration = Duration::from_secs(4);

/// After a direct way came to nothing one is tried again, each time after twice as long, and after so many times only if
/// something has come from there since; as often, and soon, by a stream that is not open.
const TRY_AGAIN: Duration = Duration::from_secs(5);
const MOST_DOUBLINGS: u32 = 6;
pub(super) const MAX_TRIES: u32 = 4;

/// Between the peer's sign that it stays on the direct way and the end of the relay: what is under way through it arrives.
const FAREWELL: Duration = Duration::from_secs(1);

/// After so long on the direct way without a sign, though asked for it, the peer is one that gives none.
const MUTE: Duration = Duration::from_secs(4);

/// After so long such a peer's relay is left even if it, which hears us, is never heard on the direct way.
const LONG: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(10);

/// While the peer may need the relay something is said through it this often. A leg by which nothing came for so long, while the
/// peer is heard the direct way, is dead; and the relay takes away one by which nothing comes.
const SHOW_LEG: Duration = Duration::from_millis(500);
pub(super) const LEG_PATIENCE: Duration = Duration::from_secs(2);
const _: () = assert!(SHOW_LEG.as_millis() * 4 <= LEG_PATIENCE.as_millis());
const _: () = assert!(LEG_PATIENCE.as_secs() < LEG_IDLE.as_secs());

impl Moved {
    fn begin(now: Instant, wait: Duration) -> Self {
        Self { at: now, until: now + wait, settled: None, stuck: None, leave_at: None }
    }
}

impl Swarm {
    /// The direct way of a stream is known.
    pub(in crate::swarm) fn direct_found(&mut self, stream: u32, way: udx::Way, now: Instant) {
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        let (on_leg, here) = (self.udx.is_on_leg(stream), self.udx.way(stream) == Some(way));
        let silent = self.is_leg_silent(stream, now);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        (relayed.direct, relayed.told) = (relayed.shown.or(Some(way)), true);
        if on_leg && open && now < relayed.try_at {
            relayed.at = relayed.try_at;
        } else if on_leg && (open || silent && relayed.tries < MAX_TRIES) {
            self.try_direct(stream, now);
        } else if here && matches!(relayed.stage, Stage::Paired { moved: None, .. }) {
            // It has followed its peer there.
            self.has_moved(stream, now);
        }
    }

    /// A stream leads to a direct way, where its peer is asked.
    pub(super) fn has_moved(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        let Stage::Paired { moved, .. } = &mut relayed.stage else { return };
        *moved = Some(Moved::begin(now, TRIAL));
        relayed.at = now + TRIAL / 4;
        self.press(stream, now);
    }

    /// A stream goes where its peer is heard, however often that came to nothing.
    pub(super) fn follow(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        (relayed.tries, relayed.told) = (0, true);
        self.try_direct(stream, now);
    }

    /// A stream is open: if through a relay, it moves to a direct way that is known.
    pub(in crate::swarm) fn relayed_open(&mut self, stream: u32, now: Instant) {
        let heard = self.udx.heard(stream);
        let on_leg = self.udx.is_on_leg(stream);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        (relayed.tries, relayed.try_at) = (0, now);
        let Stage::Paired { moved, .. } = &mut relayed.stage else { return };
        if on_leg && relayed.direct.is_some() {
            self.say_sign(stream, false);
            self.try_direct(stream, now);
        } else if on_leg {
            self.say_sign(stream, false);
        } else if let Some(moved) = moved {
            if heard.direct.is_none_or(|at| at < moved.at) {
                // It was heard through the relay.
                return self.take_leg(stream, now);
            }
            *moved = Moved::begin(now, TRIAL);
            relayed.at = now + TRIAL / 4;
            self.press(stream, now);
        }
    }

    pub(super) fn try_direct(&mut self, stream: u32, now: Instant) {
        let answer = self.answer_wait(stream);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        // Strangers may tell of ever other ways: every second time it is our own, if our dial led to one.
        let own = relayed.dialled.filter(|_| relayed.tries.is_multiple_of(2));
        let Some(way) = relayed.shown.or(own).or(relayed.direct) else { return };
        let wait = match relayed.shown == Some(way) {
            true => answer,
            false => TRIAL,
        };
        if relayed.tries >= MAX_TRIES && !relayed.told {
            relayed.at = now + LONG;
            return;
        }
        (relayed.tries, relayed.told) = (relayed.tries + 1, false);
        let Stage::Paired { moved, .. } = &mut relayed.stage else { return };
        *moved = Some(Moved::begin(now, wait));
        relayed.at = now + TRIAL / 4;
        tracing::debug!(stream, to = %way.1, "trying the direct way");
        self.move_to(stream, way, now);
        self.press(stream, now);
    }

    /// Has the peer show itself where the stream is now.
    pub(super) fn press(&mut self, stream: u32, now: Instant) {
        if self.connections.by_stream(stream).is_some_and(|c| c.is_open()) {
            self.ask(stream, now);
            self.sound(stream);
        } else {
            self.udx.repeat(stream);
        }
    }

    /// Makes the peer notice where we are, and answer.
    pub(super) fn sound(&mut self, stream: u32) {
        // A peer of the reference takes a message for a sign of the direct way, and answers heartbeats.
        self.say_sign(stream, self.udx.is_settled(stream));
        self.udx.beat(stream);
    }

    /// Back to the relay, or to it for the first time.
    pub(super) fn take_leg(&mut self, stream: u32, now: Instant) {
        let Some((way, _)) = self.udx.leg(stream) else { return };
        tracing::debug!(stream, "through the relay");
        self.udx.take_leg(stream, now);
        self.note_way(stream, way);
        self.udx.repeat(stream);
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        if let Stage::Paired { moved, since, again, .. } = &mut relayed.stage {
            (*moved, *since, *again) = (None, now, 0);
        }
        let doublings = relayed.tries.saturating_sub(1).min(MOST_DOUBLINGS);
        relayed.try_at = now + TRY_AGAIN * (1 << doublings);
        relayed.at = now + AGAIN[0];
        if open && relayed.said != Said::Nothing {
            self.say_sign(stream, false);
        }
    }

    pub(super) fn move_to(&mut self, stream: u32, way: udx::Way, now: Instant) {
        let Some(connection) = self.connections.by_stream(stream) else { return };
        let big = connection.big_datagrams && way.1.ip().is_loopback();
        let max = if big { udx::MAX_DATAGRAM } else { udx::ORDINARY_MAX };
        let dialled = self.relayed.get(&stream).and_then(|relayed| relayed.dialled);
        let first = if dialled == Some(way) { FIRST_BYTES_DIALLED } else { 0 };
        self.udx.try_way(stream, way, first, max, now);
        self.note_way(stream, way);
    }

    pub(super) fn note_way(&mut self, stream: u32, way: udx::Way) {
        if let Some(connection) = self.connections.by_stream(stream).filter(|c| c.is_open()) {
            connection.addr = Some(way.1);
        }
    }

    pub(super) fn look_at_trial(&mut self, stream: u32, moved: Moved, now: Instant) {
        if moved.leave_at.is_some_and(|at| at <= now) {
            tracing::debug!(stream, "the direct way works: the relay is left");
            return self.leave_relay(stream, now);
        }
        let (heard, settled) = (self.udx.heard(stream), self.udx.is_settled(stream));
        let dead = self.leg_is_dead_at(stream).is_some_and(|at| at <= now);
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        if !open {
            let is_heard = heard.direct.is_some_and(|at| at > moved.at);
            if !is_heard && now >= moved.at + TRIAL {
                return self.take_leg(stream, now);
            }
            relayed.at = now + TRIAL / 4;
            return self.udx.repeat(stream);
        }
        let said = relayed.said;
        let Stage::Paired { moved: Some(state), .. } = &mut relayed.stage else { return };
        if state.leave_at.is_some() {
            // The peer is to hear it, whatever gets lost.
            relayed.at = now + FAREWELL / 4;
            return self.say_sign(stream, true);
        }
        if !settled && now < moved.until {
            relayed.at = now + TRIAL / 4;
            return self.sound(stream);
        }
        // One that came about on the direct way may have a leg that never brought anything.
        let useless = dead || heard.by_leg.is_none() && relayed.tries == 0;
        if !settled && useless {
            // There is nothing to go back to.
            self.press(stream, now);
            return self.look_again(stream, now);
        }
        if !settled {
            return self.take_leg(stream, now);
        }
        let since = *state.settled.get_or_insert(now);
        let mute = said == Said::Nothing && now >= since + MUTE;
        let written = self.udx.shown(stream).is_some_and(|(_, at)| at > moved.at);
        let quiet = heard.by_leg.is_none_or(|at| now >= at + QUIET);
        if said == Said::Settled || mute && written {
            state.leave_at = Some(now + FAREWELL);
            relayed.at = now + FAREWELL / 4;
            return self.say_sign(stream, true);
        }
        if said != Said::Settled && self.steps_back(stream, now) {
            return;
        }
        if mute && now >= since + LONG && quiet {
            return self.leave_relay(stream, now);
        }
        // It has shown that it hears us there, and may itself still come through the relay.
        self.udx.show_leg(stream);
        self.sound(stream);
        self.look_again(stream, now);
    }

    /// How long a peer may take that is there.
    fn answer_wait(&self, stream: u32) -> Duration {
        let rtt = self.udx.stats(stream).and_then(|stats| stats.rtt).unwrap_or_default();
        (rtt * TRIAL_RTTS).clamp(TRIAL, MOST_TRIAL)
    }

    /// Whether nothing of what goes to a direct way that worked arrives any more, though the peer is heard elsewhere: the
    /// stream goes there.
    fn steps_back(&mut self, stream: u32, now: Instant) -> bool {
        let (wait, got) = (self.answer_wait(stream), self.udx.waits_at(stream));
        let (by_leg, here) = (self.udx.heard(stream).by_leg, self.udx.way(stream));
        let shown = self.udx.shown(stream).filter(|(way, _)| here != Some(*way)).map(|(_, at)| at);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return false };
        let Stage::Paired { moved: Some(Moved { stuck, .. }), .. } = &mut relayed.stage else {
            return false;
        };
        *stuck = got.map(|got| stuck.filter(|(then, _)| *then == got).unwrap_or((got, now)));
        let Some((_, since)) = stuck.filter(|(_, since)| now >= *since + wait) else {
            return false;
        };
        if by_leg.max(shown).is_none_or(|at| at <= since) {
            return false;
        }
        tracing::debug!(stream, "the direct way does not work any more");
        match shown > by_leg {
            true => self.follow(stream, now),
            false => self.take_leg(stream, now),
        }
        true
    }

    fn look_again(&mut self, stream: u32, now: Instant) {
        if let Some(relayed) = self.relayed.get_mut(&stream) {
            relayed.at = now + SHOW_LEG;
        }
    }

    /// Nothing of a stream goes through its relay any more.
    pub(super) fn leave_relay(&mut self, stream: u32, now: Instant) {
        self.judge_relay(stream, now);
        let Some(relayed) = self.relayed.remove(&stream) else { return };
        self.udx.forget_leg(stream);
        if let Some(connect) = relayed.connect {
            self.dht.cancel(connect);
        }
        self.take_back(&relayed, now);
    }
}
