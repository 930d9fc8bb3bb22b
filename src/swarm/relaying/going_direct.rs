//! A stream that goes through a relay moves to the direct way once that is known, and back if nothing comes of it.

use super::{AGAIN, Moved, Stage};
use crate::swarm::Swarm;
use crate::swarm::lifecycle::FIRST_BYTES_DIALLED;
use crate::swarm::relay::server::LEG_IDLE;
use crate::swarm::udx;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long a direct way is tried before it is looked what came of it; at least some times the way there and back.
const TRIAL: Duration = Duration::from_secs(1);

/// After a direct way came to nothing one is tried again, each time after twice as long, and after so many times only if
/// something has come from there since; as often, and soon, by a stream that is not open.
const TRY_AGAIN: Duration = Duration::from_secs(5);
const MOST_DOUBLINGS: u32 = 6;
pub(super) const MAX_TRIES: u32 = 4;

/// Between the peer's first sign over the direct way and the end of the relay: what is under way through it arrives.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// After so long on the direct way the relay is left even if the peer, which hears us, is never heard there.
const LONG: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(10);

/// Meanwhile the peer needs the relay, which takes away a leg by which nothing comes.
const SHOW_LEG: Duration = Duration::from_secs(20);
const _: () = assert!(SHOW_LEG.as_secs() * 2 < LEG_IDLE.as_secs());

impl Moved {
    fn begin(now: Instant) -> Self {
        Self { at: now, leave_at: None, shown: now }
    }
}

impl Swarm {
    /// The direct way of a stream is known.
    pub(in crate::swarm) fn direct_found(&mut self, stream: u32, way: udx::Way, now: Instant) {
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        let (on_leg, here) = (self.udx.is_on_leg(stream), self.udx.way(stream) == Some(way));
        let silent = self.is_leg_silent(stream, now);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        (relayed.direct, relayed.told) = (Some(way), true);
        if on_leg && open && now < relayed.try_at {
            relayed.at = relayed.try_at;
        } else if on_leg && (open || silent && relayed.tries < MAX_TRIES) {
            self.try_direct(stream, now);
        } else if here && let Stage::Paired { moved: moved @ None, .. } = &mut relayed.stage {
            // It has followed its peer there.
            *moved = Some(Moved::begin(now));
            relayed.at = now + TRIAL / 4;
            self.press(stream, now);
        }
    }

    /// A stream is open: if through a relay, it moves to a direct way that is known.
    pub(in crate::swarm) fn relayed_open(&mut self, stream: u32, now: Instant) {
        let heard = self.udx.heard(stream);
        let on_leg = self.udx.is_on_leg(stream);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        (relayed.tries, relayed.try_at) = (0, now);
        let Stage::Paired { moved, .. } = &mut relayed.stage else { return };
        if on_leg && relayed.direct.is_some() {
            self.try_direct(stream, now);
        } else if let Some(moved) = moved {
            if heard.direct.is_none_or(|at| at < moved.at) {
                // It was heard through the relay.
                return self.take_leg(stream, now);
            }
            moved.at = now;
            relayed.at = now + TRIAL / 4;
            self.press(stream, now);
        }
    }

    pub(super) fn try_direct(&mut self, stream: u32, now: Instant) {
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        let Some(way) = relayed.direct else { return };
        if relayed.tries >= MAX_TRIES && !relayed.told {
            relayed.at = now + LONG;
            return;
        }
        (relayed.tries, relayed.told) = (relayed.tries + 1, false);
        let Stage::Paired { moved, .. } = &mut relayed.stage else { return };
        *moved = Some(Moved::begin(now));
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
        // A peer of the reference takes an empty message for a sign of the direct way, and answers heartbeats.
        let _ = self.udx.send_message(stream, Bytes::new());
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
        relayed.at = if open { relayed.try_at } else { now + AGAIN[0] };
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
        let heard = self.udx.heard(stream);
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
        let Stage::Paired { moved: Some(state), .. } = &mut relayed.stage else { return };
        let proven = self.udx.is_proven(stream);
        if proven && heard.direct.is_some_and(|at| at > moved.at) {
            state.leave_at = Some(now + FAREWELL);
            relayed.at = now + FAREWELL;
            // What of the peer's own look at us got lost comes once more.
            let _ = self.udx.send_message(stream, Bytes::new());
            return;
        }
        if now < moved.at + TRIAL {
            relayed.at = now + TRIAL / 4;
            return self.sound(stream);
        }
        let quiet = heard.by_leg.is_none_or(|at| now >= at + QUIET);
        if proven {
            // It has shown that it hears us there, and itself still comes through the relay.
            relayed.at = now + TRIAL;
            if now >= moved.at + LONG && quiet {
                return self.leave_relay(stream, now);
            }
            if now >= state.shown + SHOW_LEG {
                state.shown = now;
                self.udx.show_leg(stream);
            }
            return self.sound(stream);
        }
        self.take_leg(stream, now);
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
