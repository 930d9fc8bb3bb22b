//! What two peers with a relay say to each other of the direct way, beside the stream.
//!
//! Acknowledgements may come from where a peer no longer leads to, late packets from where it was, and forged ones from
//! anywhere. So a peer says of itself that it is *settled*: it leads to the direct way and has had an answer there. Only when
//! both are settled does nobody need the relay. Who waits for the other to say so asks, and who is about to leave the
//! relay; the answer comes the way that the other leads to.
//!
//! A direct way may die in between. While the other is not settled, one that is goes back to the relay if nothing that it
//! sends arrives any more, though it hears the other; and says so. What was said last holds, until the relay is left.
//!
//! The reference takes a sign for a message of its application, which has none, and says none. But it does not go back
//! either once it has moved, and what it writes comes the way that it leads to.
//!
//! A sign is a message of [`unordered`](crate::swarm::secret_stream::unordered): `name (8) ‖ flags (1)`.

use super::going_direct::LEG_PATIENCE;
use super::{AGAIN, Stage, Swarm};
use crate::swarm::udx::Way;
use std::time::Instant;

const NAME: [u8; 8] = *b"hd-way/1";
const SETTLED: u8 = 1;
const ASKS: u8 = 2;

/// What a peer has said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it may be one of the reference.
    #[default]
    Nothing,
    Unsettled,
    Settled,
}

impl Swarm {
    /// Says whether we are settled.
    pub(super) fn say_sign(&mut self, stream: u32, asks: bool) {
        let settled = self.udx.is_settled(stream);
        let connection = self.connections.by_stream(stream).filter(|c| c.is_open());
        let Some(session) = connection.and_then(|c| c.session.as_mut()) else { return };
        let flags = if settled { SETTLED } else { 0 } | if asks { ASKS } else { 0 };
        let sign = session.unordered.seal(&[&NAME[..], &[flags]].concat());
        let _ = self.udx.send_message(stream, sign);
    }

    /// The peer has said something beside the stream, after all that was heard before.
    pub(in crate::swarm) fn heard_sign(&mut self, stream: u32, text: &[u8], now: Instant) {
        self.direct_shown(stream, now);
        let Some(&[flags]) = text.strip_prefix(&NAME) else { return };
        // Who tries a way has little to spend there, and will know soon.
        if flags & ASKS != 0 && (self.udx.is_settled(stream) || self.udx.is_on_leg(stream)) {
            self.say_sign(stream, false);
        }
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        let said = if flags & SETTLED == 0 { Said::Unsettled } else { Said::Settled };
        let before = std::mem::replace(&mut relayed.said, said);
        let Stage::Paired { moved: Some(moved), .. } = &mut relayed.stage else { return };
        if said == Said::Unsettled {
            // It may need the relay again.
            moved.leave_at = None;
        } else if before != said {
            relayed.at = now;
        }
    }

    /// Tells a peer that gives signs, a few times, that we lead to the leg; when next.
    pub(super) fn say_on_leg(&mut self, stream: u32, now: Instant) -> Option<Instant> {
        let relayed = self.relayed.get_mut(&stream).filter(|r| r.said != Said::Nothing)?;
        let Stage::Paired { since, again, moved: None, .. } = &mut relayed.stage else {
            return None;
        };
        let is_due = AGAIN.get(*again).is_some_and(|after| now >= *since + *after);
        *again += usize::from(is_due);
        let next = AGAIN.get(*again).map(|after| *since + *after);
        if is_due {
            self.say_sign(stream, false);
        }
        next
    }

    /// Looks whether the peer itself was heard the direct way: where that is nobody else tells any more.
    pub(in crate::swarm) fn direct_shown(&mut self, stream: u32, now: Instant) {
        if !self.relayed.contains_key(&stream) {
            return;
        }
        let Some((way, _)) = self.udx.shown(stream) else { return };
        let (on_leg, here) = (self.udx.is_on_leg(stream), self.udx.way(stream) == Some(way));
        let open = self.connections.by_stream(stream).is_some_and(|c| c.is_open());
        let tries = !on_leg && !here && !self.udx.is_settled(stream);
        let dead_at = self.leg_is_dead_at(stream);
        let Some(relayed) = self.relayed.get_mut(&stream) else { return };
        let paired = matches!(relayed.stage, Stage::Paired { .. });
        let is_new = relayed.shown.replace(way) != Some(way);
        relayed.direct = Some(way);
        if !paired || !open {
            return;
        }
        if is_new {
            // What came of other ways says nothing of this one.
            (relayed.tries, relayed.try_at) = (0, now);
        }
        if is_new && (on_leg || tries) {
            self.try_direct(stream, now);
        } else if let Some(at) = dead_at.filter(|_| on_leg) {
            relayed.at = relayed.at.min(at);
        }
    }

    /// When the leg of a stream, by which nothing has come since the peer was heard the direct way, counts as dead.
    pub(super) fn leg_is_dead_at(&self, stream: u32) -> Option<Instant> {
        let last = self.leg_heard(stream)?;
        self.udx.shown(stream).filter(|(_, at)| *at > last).map(|_| last + LEG_PATIENCE)
    }

    /// The ways by which the peer of a stream was heard, or has answered.
    pub(super) fn known_way(&self, stream: u32) -> Option<Way> {
        let settled = self.udx.way(stream).filter(|_| self.udx.is_settled(stream));
        settled.or_else(|| self.udx.shown(stream).map(|(way, _)| way))
    }
}
