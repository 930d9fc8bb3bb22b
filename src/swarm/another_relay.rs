//! A relay that brings nothing, and the next one instead of it.
//!
//! It may not pair, because it is full, or hostile, or slow; pair and pass nothing on; or pass something on and then no more.
//! Where there is no direct way and another relay is at hand, none of these is waited for as long as where there is no
//! other: it is noted ([`silent_relays`](super::hyperdht)), and the peer is dialled at once through the next. One that was
//! merely slow has more time at its next turn.

use super::Swarm;
use super::event::Closed;
use crate::key::PublicKey;
use std::time::{Duration, Instant};

/// How long a relay may take to pair where another one is at hand: the peer has to find it, and shake hands with it. Each time
/// that it was no help before doubles it.
const PAIRS_SOON: Duration = Duration::from_millis(1000);
/// As long as we need ourselves to get there.
const OPENS_SOON: Duration = Duration::from_millis(1500);
/// As for [`PAIRS_SOON`].
const MAX_DOUBLED: u32 = 4;

/// So many relays that were no help lately, and a peer is not in a hurry any more: it may be the peer that is silent.
const MANY: usize = 16;

impl Swarm {
    /// How long a relay that was asked just now may take to pair, if `open` over a connection that was there.
    pub(super) fn pair_wait(&self, stream: u32, open: bool) -> Option<Duration> {
        let (relay, remote) = self.names(stream)?;
        let times = self.dht.silent_relays().times(&relay, &remote).min(MAX_DOUBLED);
        Some(if open { PAIRS_SOON } else { OPENS_SOON } * 2u32.pow(times))
    }

    /// The relay that we named to the peer of a stream that we dialled.
    fn names(&self, stream: u32) -> Option<(PublicKey, PublicKey)> {
        let relay = self.relayed.get(&stream)?.relay();
        let dial = self.connections.iter().find(|c| c.id.stream() == stream)?;
        (dial.initiator && dial.names_relay).then_some((relay, dial.remote))
    }

    /// A relay that was not tried for a peer, other than this one.
    pub(super) fn untried_relay(
        &mut self,
        remote: &PublicKey,
        than: Option<PublicKey>,
        now: Instant,
    ) -> Option<PublicKey> {
        let relay = self.relay_other_than(than, remote, now)?;
        let silent = self.dht.silent_relays();
        let tried = silent.times(&relay, remote) > 0 || silent.of(remote, now) >= MANY;
        (!tried).then_some(relay)
    }

    /// The relay of a stream that is not open brings nothing: its peer is dialled through another one, if there is one and
    /// the direct way has come to nothing. True if so.
    pub(super) fn changes_relay(&mut self, stream: u32, why: &str, now: Instant) -> bool {
        let Some((relay, remote)) = self.names(stream) else { return false };
        let direct = self.relayed.get(&stream).is_some_and(|relayed| relayed.may_be_direct());
        let waits = self.connections.by_stream(stream).is_some_and(|c| !c.is_open());
        if direct || !waits || self.stopping {
            return false;
        }
        if self.untried_relay(&remote, Some(relay), now).is_none() {
            return false;
        }
        self.dht.silent_relays_mut().note(relay, remote, now);
        tracing::debug!(?relay, peer = ?remote, why, "dialled again, through another relay");
        self.peers.set_unreachable(&remote);
        self.cancel_dial(stream);
        if let Some(dial) = self.connections.remove(stream) {
            self.tell_gone(&dial, Closed::Unreached);
        }
        self.udx.destroy(stream);
        self.open_candidate(&remote, now);
        if self.connections.by_key(&remote).is_none() {
            self.peers.defer(remote, now, &mut self.rng);
        }
        true
    }

    /// An open stream hears nothing any more, whatever we ask: if it goes through a relay that is no help.
    pub(super) fn note_dead_relay(&mut self, stream: u32, remote: PublicKey, now: Instant) {
        let Some(relay) = self.relay_of(stream) else { return };
        let noted = self.relayed.get_mut(&stream).map(|r| std::mem::replace(&mut r.noted, true));
        if noted == Some(false) {
            tracing::debug!(?relay, peer = ?remote, "nothing comes through the relay any more");
            self.dht.silent_relays_mut().note(relay, remote, now);
        }
    }
}
