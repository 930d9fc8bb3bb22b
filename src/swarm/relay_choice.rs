//! Which relay a connection may go through, and when it is named and asked.
//!
//! Those that we were told of come first. Else a seed of the same drive that is connected serves, if it said in its handshake
//! that it is a relay: it can be reached, and has the same cause. Where none was at hand when a peer was dialled, that peer
//! is dialled once more as soon as there is one and it has not been reached, or only takes long to be.
//!
//! One that was no help for a peer is not named again for that peer for a while, and others are preferred to it
//! ([`silent_relays`](super::hyperdht)).
//!
//! [`RelayOffer`]: super::hyperdht::RelayOffer

use super::Swarm;
use super::connections::{Connection, Phase};
use super::socket::ipv4;
use crate::key::PublicKey;
use rand::seq::IteratorRandom;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// What the direct way has, before the relay is asked, where it may well be found: a punch of two friendly NATs takes about
/// so long.
const HEAD_START: Duration = Duration::from_millis(200);

/// A dial without a relay that lasts so long begins anew when there is one: two friendly NATs are passed by then.
const LASTS: Duration = Duration::from_millis(400);

impl Swarm {
    /// The relay to name to a peer: one that we were told of; else the nearest of those that peers are who share a topic
    /// with this one. Whoever holds a drive and can be reached helps those of its readers who cannot reach each other.
    pub(super) fn relay_for(&mut self, remote: &PublicKey, now: Instant) -> Option<PublicKey> {
        self.relay_other_than(None, remote, now)
    }

    pub(super) fn relay_other_than(
        &mut self,
        than: Option<PublicKey>,
        remote: &PublicKey,
        now: Instant,
    ) -> Option<PublicKey> {
        let silent = self.dht.silent_relays();
        let fits = |relay: &PublicKey| Some(*relay) != than && !silent.has(relay, remote, now);
        let topics = self.peers.get(remote).map(|peer| &peer.topics);
        let shares = |key: &PublicKey| {
            let of_key = self.peers.get(key).map(|peer| &peer.topics);
            topics.zip(of_key).is_some_and(|(topics, of_key)| !of_key.is_disjoint(topics))
        };
        let offers = self.connections.iter().filter(|c| c.is_peer() && c.remote != *remote);
        let offers = offers.filter(|c| shares(&c.remote));
        let rtt = |c: &Connection| self.udx.stats(c.id.stream()).and_then(|stats| stats.rtt);
        let offers =
            offers.filter_map(|c| Some((c.offers?, Some(rtt(c).unwrap_or(Duration::MAX)))));
        let known = self.relays.iter().map(|relay| (*relay, None)).chain(offers);
        // Those that were of no help may be so again: after all others, and in whatever order.
        let tried =
            silent.of(remote, now) > 0 || self.peers.get(remote).is_some_and(|p| p.attempts > 0);
        let mut best: Vec<(PublicKey, Option<Duration>)> = Vec::new();
        let rank = |relay: &PublicKey, offered: bool| {
            (silent.times(relay, remote), offered, silent.is_doubted(relay, now))
        };
        for (relay, rtt) in known.filter(|(relay, _)| fits(relay)) {
            let this = rank(&relay, rtt.is_some());
            let of_best = best.first().map(|(relay, rtt)| rank(relay, rtt.is_some()));
            if of_best.is_none_or(|of_best| this < of_best) {
                best.clear();
            }
            if of_best.is_none_or(|of_best| this <= of_best) {
                best.push((relay, rtt));
            }
        }
        let nearest =
            best.iter().min_by_key(|(_, rtt)| *rtt).filter(|(_, rtt)| !tried && rtt.is_some());
        let chosen = nearest.or_else(|| best.iter().choose(&mut self.rng));
        chosen.map(|(relay, _)| *relay)
    }

    /// Those that we were told of and that serve nobody.
    pub(super) fn absent_relays(&self) -> Vec<PublicKey> {
        let silent = self.dht.silent_relays();
        self.relays.iter().filter(|relay| silent.is_absent(relay)).copied().collect()
    }

    /// Where a relay may be.
    pub(super) fn relay_hint(&self, relay: &PublicKey) -> Vec<SocketAddrV4> {
        let offers = |c: &&Connection| c.is_open() && c.offers == Some(*relay);
        self.connections.iter().filter(offers).filter_map(|c| ipv4(c.addr?)).take(1).collect()
    }

    /// How long the direct way is looked for before the relay is asked.
    pub(super) fn head_start(&self, remote: &PublicKey, now: Instant) -> Duration {
        // It may have been the relay.
        let silent = self.dht.silent_relays().of(remote, now) > 0;
        let hard = self.peers.get(remote).is_some_and(|peer| peer.unreachable);
        let soon = !silent && (hard || self.dht.has_random_ports());
        if soon { Duration::ZERO } else { HEAD_START }
    }

    /// A dial came to nothing though the peer is there: through a relay, if there is one, it is tried again at once.
    pub(super) fn retry_by_relay(&mut self, dial: &Connection, now: Instant) {
        let remote = dial.remote;
        self.peers.set_unreachable(&remote);
        let unnamed = !dial.names_relay && self.relay_for(&remote, now).is_some();
        if unnamed || self.untried_relay(&remote, None, now).is_some() {
            tracing::debug!(peer = ?remote, "tried again through a relay");
            self.peers.hurry(&remote, now, &mut self.rng);
        }
    }

    /// A peer is connected that is a relay for others: those of its topics who could not be reached can, maybe, and so can
    /// those whom it takes long to reach.
    pub(super) fn relay_offered(&mut self, by: &PublicKey, now: Instant) {
        if let Some(relay) = self.connections.by_key(by).and_then(|c| c.offers) {
            self.dht.silent_relays_mut().is_there(&relay);
        }
        for key in self.peers.unreachable_beside(by) {
            self.peers.hurry(&key, now, &mut self.rng);
        }
        self.redial_at = Some(now);
        self.redial(now);
    }

    /// Dials that began before there was a relay to be named, and last, begin anew with one: what is named in a handshake
    /// cannot be named later.
    pub(super) fn redial(&mut self, now: Instant) {
        if self.redial_at.is_none_or(|at| at > now) {
            return;
        }
        self.redial_at = None;
        let lasts = |c: &&Connection| matches!(c.phase, Phase::Dialling { .. }) && !c.names_relay;
        let dials = self.connections.iter().filter(lasts);
        let dials: Vec<_> = dials.map(|c| (c.id.stream(), c.remote, c.opened_at + LASTS)).collect();
        for (stream, remote, at) in dials {
            if self.relay_for(&remote, now).is_none() {
                continue;
            }
            if at > now {
                self.redial_at = Some(self.redial_at.map_or(at, |next| next.min(at)));
                continue;
            }
            tracing::debug!(peer = ?remote, "dialled again, through a relay");
            self.peers.set_unreachable(&remote);
            self.cancel_dial(stream);
            self.connections.remove(stream);
            self.udx.destroy(stream);
            self.open_candidate(&remote, now);
            if self.connections.by_key(&remote).is_none() {
                self.peers.defer(remote, now, &mut self.rng);
            }
        }
    }
}
