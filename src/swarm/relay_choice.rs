//! Which relay a connection may go through, and when it is named and asked.
//!
//! Those that we were told of come first. Else a seed of the same drive that is connected serves, if it said in its handshake
//! that it is a relay: it can be reached, and has the same cause. Where none was at hand when a peer was dialled, that peer
//! is dialled once more as soon as there is one and it has not been reached, or only takes long to be.
//!
//! One through which nothing of a peer was heard is not named again for that peer for a while, and others are preferred to
//! it ([`silent_relays`](super::hyperdht)).
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
        let silent = self.dht.silent_relays();
        let fits = |relay: &PublicKey| !silent.has(relay, remote, now);
        let sound = |relay: &PublicKey| !silent.is_doubted(relay, now);
        let told = || self.relays.iter().filter(|relay| fits(relay));
        let chosen = told().filter(|relay| sound(relay)).choose(&mut self.rng);
        if let Some(relay) = chosen.or_else(|| told().choose(&mut self.rng)) {
            return Some(*relay);
        }
        let peer = self.peers.get(remote)?;
        let (topics, failed) = (&peer.topics, peer.attempts > 0);
        let shares = |key: &PublicKey| {
            self.peers.get(key).is_some_and(|peer| !peer.topics.is_disjoint(topics))
        };
        let offers = self.connections.iter().filter(|c| c.is_peer() && c.remote != *remote);
        let offers = offers.filter(|c| c.offers.is_some_and(|r| fits(&r)) && shares(&c.remote));
        let (best, others): (Vec<_>, Vec<_>) =
            offers.partition(|c| c.offers.is_some_and(|relay| sound(&relay)));
        let offers = if best.is_empty() { others } else { best }.into_iter();
        let rtt = |c: &Connection| self.udx.stats(c.id.stream()).and_then(|stats| stats.rtt);
        let nearest = |c: &&Connection| (rtt(c).unwrap_or(Duration::MAX), c.id);
        // One that was of no help may be so again.
        let chosen = if failed { offers.choose(&mut self.rng) } else { offers.min_by_key(nearest) };
        chosen.and_then(|c| c.offers)
    }

    /// Where a relay may be.
    pub(super) fn relay_hint(&self, relay: &PublicKey) -> Vec<SocketAddrV4> {
        let offers = |c: &&Connection| c.is_open() && c.offers == Some(*relay);
        self.connections.iter().filter(offers).filter_map(|c| ipv4(c.addr?)).take(1).collect()
    }

    /// How long the direct way is looked for before the relay is asked.
    pub(super) fn head_start(&self, remote: &PublicKey, now: Instant) -> Duration {
        // It may have been the relay.
        let silent = self.dht.silent_relays().has_any_of(remote, now);
        let hard = self.peers.get(remote).is_some_and(|peer| peer.unreachable);
        let soon = !silent && (hard || self.dht.has_random_ports());
        if soon { Duration::ZERO } else { HEAD_START }
    }

    /// A dial came to nothing though the peer is there: through a relay, if there is one, it is tried again at once.
    pub(super) fn retry_by_relay(&mut self, dial: &Connection, now: Instant) {
        let remote = dial.remote;
        self.peers.set_unreachable(&remote);
        let silent = self.dht.silent_relays().has_any_of(&remote, now);
        if (!dial.names_relay || silent) && self.relay_for(&remote, now).is_some() {
            tracing::debug!(peer = ?remote, "tried again through a relay");
            self.peers.hurry(&remote, now, &mut self.rng);
        }
    }

    /// A peer is connected that is a relay for others: those of its topics who could not be reached can, maybe, and so can
    /// those whom it takes long to reach.
    pub(super) fn relay_offered(&mut self, by: &PublicKey, now: Instant) {
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
