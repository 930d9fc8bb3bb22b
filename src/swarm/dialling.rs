//! Whom we dial, how many at a time, and which dial gives way to others that wait.
//!
//! Records outlive their peers by up to twenty minutes, and anybody can announce any number of keys. So nobody
//! waits for a peer that does not answer: where a topic has few peers, those never dialled are dialled many at a time,
//! and each has [`KNOCK`] to answer before it gives way to the next. It comes back, dialled for as long as it takes, when
//! all have had their chance.
//!
//! What all that sends has these bounds: so many dials at a time ([`Limits`](super::Limits)); while there are more than
//! a few, one datagram to each relay of a peer instead of several ([`HyperDht::knock`](super::HyperDht::knock)), and to
//! one host no more than its allowance; and 160 requests without an answer in 3 s of all together
//! ([`super::dht_rpc`]).
//!
//! Source: hyperswarm/index.js:_connect, _attemptClientConnections (the haste is ours)

use super::Swarm;
use super::connections::{Connection, Phase};
use super::dial_queue::{Dial, Turn};
use super::event::Closed;
use super::hyperdht::Whereabouts;
use super::socket::ipv4;
use std::time::{Duration, Instant};

/// A dial that takes longer has got stuck: punching through the worst pair of NATs takes 35 s.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a peer has to answer the handshake while others wait, and once more for its first packet: several times
/// the way there and back.
pub(super) const KNOCK: Duration = Duration::from_secs(1);

/// Dials, and peers that wait for one, above which each is made with one datagram at a time.
const MANY: usize = 8;

/// After a host of relays has had its allowance nobody is dialled for so long: then it has one more. Meanwhile who names
/// it waits with all others, so that nobody is kept from his turn by those who name his relays.
const HOLD: Duration = Duration::from_millis(50);

/// Why it is no peer of ours, of one that gave way.
const NO_ANSWER: &str = "it does not answer";

/// The dials under way.
#[derive(Debug, Default)]
struct Dials {
    /// Of peers that were dialled in vain before.
    again: usize,
    hopeful: usize,
    /// Hopeful ones whose time to answer is not over, and when the first is.
    young: usize,
    ripe_at: Option<Instant>,
    /// The oldest whose time is over.
    ripe: Option<(Instant, u32)>,
}

impl Swarm {
    /// Dials the next queued peer if one more may be dialled.
    pub(super) fn start_dial(&mut self, now: Instant) -> bool {
        self.dial_at = self.hold_dials.filter(|until| *until > now);
        if self.dial_at.is_some() || self.stopping || self.peers.queued() == 0 {
            return false;
        }
        let Some(dial) = self.next_dial(now) else { return false };
        let Some(stream) = self.udx.open(None) else { return false };
        let many = self.peers.queued() + self.connections.dialling() >= MANY;
        let Dial { remote, relay_addresses: relays, near, mut told, explicit } = dial;
        let near = near.filter(|near| self.near_dials.of(&near.ip()).take(1.0, now));
        // The DHT's messages are of IPv4.
        told.extend(near.filter(|near| near.is_ipv6() && !told.contains(near)));
        let direct = near.and_then(ipv4).into_iter().collect();
        let whereabouts = Whereabouts { relays, direct, told };
        tracing::debug!(peer = ?remote, explicit, many, "dialling");
        let relay = self.relay_for(&remote, now);
        let connect = match many {
            true => self.dht.knock(relay, remote, whereabouts, stream, now),
            false => self.dht.connect_through(relay, remote, whereabouts, stream, now),
        };
        let id = self.connections.name(stream);
        let phase = Phase::Dialling { connect, until: now + DIAL_TIMEOUT };
        let mut dial = Connection::new(id, remote, true, phase, now);
        dial.names_relay = relay.is_some();
        self.connections.insert(dial);
        self.peers.connecting(remote, now);
        true
    }

    fn next_dial(&mut self, now: Instant) -> Option<Dial> {
        let limits = self.limits;
        let dials = self.dials(now);
        let only_explicit = !self.is_within_max_peers(0, now);
        let gives_way = dials.ripe.is_some() && self.is_within_max_peers(1, now);
        let sought = self.peers.is_due(Turn::Sought, false) && (!only_explicit || gives_way);
        if sought || self.peers.is_due(Turn::Hopeful, only_explicit) {
            let young = if sought { limits.max_sought } else { limits.max_parallel_first };
            let room = dials.hopeful < limits.max_sought && !(sought && only_explicit);
            let (turn, only_explicit) =
                if sought { (Turn::Sought, false) } else { (Turn::Hopeful, only_explicit) };
            if dials.young < young
                && (room || dials.ripe.is_some_and(|(_, stream)| self.put_back(stream, now)))
            {
                return self.peers.next_dial(turn, only_explicit, now);
            }
        }
        let waits = |turn| self.peers.is_due(turn, false);
        self.dial_at = dials.ripe_at.filter(|_| waits(Turn::Sought) || waits(Turn::Hopeful));
        let first = || !self.connections.iter().any(|c| c.is_peer() && self.is_sought(c));
        let again = self.peers.is_due(Turn::Again, only_explicit)
            && dials.again < limits.max_parallel_first
            && (dials.again < limits.max_parallel || first());
        again.then(|| self.peers.next_dial(Turn::Again, only_explicit, now)).flatten()
    }

    /// Whether a connection leads to somebody of our drives. A stranger who reached us is no reason to look more slowly
    /// for those.
    fn is_sought(&self, connection: &Connection) -> bool {
        let peer = self.peers.get(&connection.remote);
        peer.is_some_and(|peer| peer.explicit || !peer.topics.is_empty())
    }

    /// Whether a connection is a dial of somebody who was not dialled in vain so far.
    pub(super) fn is_hopeful(&self, dial: &Connection) -> bool {
        self.peers.get(&dial.remote).is_some_and(super::PeerInfo::is_hopeful)
    }

    fn dials(&self, now: Instant) -> Dials {
        let mut dials = Dials::default();
        for dial in self.connections.iter().filter(|c| c.initiator && !c.is_open()) {
            if !self.is_hopeful(dial) {
                dials.again += 1;
                continue;
            }
            dials.hopeful += 1;
            // Several ways there and back, each, and as many again where a hole is punched.
            let knocks = match dial.phase {
                Phase::Dialling { connect, .. } if self.dht.is_answered(connect) => 3,
                Phase::Dialling { .. } => 1,
                _ => 2,
            };
            let ripe_at = dial.opened_at + KNOCK * knocks;
            if ripe_at > now {
                dials.young += 1;
                dials.ripe_at = Some(dials.ripe_at.map_or(ripe_at, |at| at.min(ripe_at)));
            } else {
                let this = (dial.opened_at, dial.id.stream());
                dials.ripe = Some(dials.ripe.map_or(this, |oldest| oldest.min(this)));
            }
        }
        dials
    }

    /// The host of its relays has had its allowance: its peer waits again.
    pub(super) fn hold_dial(&mut self, stream: u32, now: Instant) {
        let Some(dial) = self.connections.remove(stream) else { return };
        self.udx.destroy(stream);
        self.hold_dials = Some(now + HOLD);
        self.open_candidate(&dial.remote, now);
        if self.connections.by_key(&dial.remote).is_none() {
            self.peers.defer(dial.remote, now, &mut self.rng);
        }
    }

    /// Ends a dial that has not come about so far; its peer waits for another one. True if that made room.
    fn put_back(&mut self, stream: u32, now: Instant) -> bool {
        self.cancel_dial(stream);
        let Some(dial) = self.connections.remove(stream) else { return false };
        tracing::debug!(peer = ?dial.remote, "no answer, others wait");
        self.udx.destroy(stream);
        self.tell_gone(&dial, Closed::Unreached);
        self.peers.failed(&dial.remote, NO_ANSWER);
        if dial.session.is_none() {
            self.peers.neighbour_is_silent(&dial.remote);
        }
        self.open_candidate(&dial.remote, now);
        if self.connections.by_key(&dial.remote).is_none() {
            self.peers.put_back(dial.remote, now, &mut self.rng);
        }
        true
    }
}
