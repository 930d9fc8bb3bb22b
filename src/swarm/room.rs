//! Who has a place among our connections: how many are accepted in all and of one host, who makes room for a
//! newcomer, and when one that is of no use ends.
//!
//! A key costs nothing, so places are not given by key. A host that answers costs something: each has a share of
//! them. And whoever takes a place without a use for it gives way to the next who comes, the oldest first.

use super::connections::{ConnId, Connection};
use super::event::Closed;
use super::{PeerInfo, Swarm};
use crate::key::{PublicKey, Topic};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Accepted connections of one host. A quarter of all places: enough for a household, a school or an office behind
/// one address, while no single host can keep everybody else out.
pub(super) const MAX_PER_HOST: usize = 64;

/// The owner offers a connection without a use again and again, every 15 s. After a longer pause it had one.
const OFFERS_END: Duration = Duration::from_secs(30);

/// How long a peer that was found under a topic of ours may be connected without a use. Anybody can announce
/// any key; the peer of a drive opens its channels at once.
pub(super) const MAX_UNUSED: Duration = Duration::from_secs(120);

/// When the owner first, and last, offered to end a connection since it was last of use.
#[derive(Default)]
pub struct Offered(Option<(Instant, Instant)>);

impl Offered {
    /// One more offer. Answers how long the connection has been of no use.
    fn again(&mut self, now: Instant) -> Duration {
        let first = self.0.filter(|(_, last)| now < *last + OFFERS_END).map_or(now, |(at, _)| at);
        self.0 = Some((first, now));
        now - first
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.0.is_some_and(|(_, last)| now < last + OFFERS_END)
    }
}

impl Connection {
    /// Whether the peer has said something, and the owner has not found since that it has no use for it.
    fn is_useful(&self, now: Instant) -> bool {
        self.is_open() && self.received > 0 && !self.offered.is_recent(now)
    }
}

impl Swarm {
    /// Whether a handshake of `remote` may lead to one more connection.
    pub(super) fn may_have_room(&self, remote: &PublicKey, now: Instant) -> bool {
        let room = self.connections.counted() < self.limits.max_connections
            || self.oldest_useless(None, now).is_some();
        room && !self.stopping && !self.peers.is_refused(remote, now)
    }

    /// Whether one more connection may be accepted, from `remote` at `host`. One that is of no use ends for it
    /// where there is no place left.
    pub(super) fn make_room(&mut self, remote: &PublicKey, host: Ipv4Addr, now: Instant) -> bool {
        if self.stopping || self.peers.is_refused(remote, now) {
            return false;
        }
        loop {
            let of_host = self.connections.accepted().filter(|c| c.is_at(host)).count();
            let only_of = if of_host >= MAX_PER_HOST {
                Some(host)
            } else if self.connections.counted() >= self.limits.max_connections {
                None
            } else {
                return true;
            };
            let Some(stream) = self.oldest_useless(only_of, now) else { return false };
            self.destroy(stream, Closed::Local, now);
        }
    }

    fn oldest_useless(&self, host: Option<Ipv4Addr>, now: Instant) -> Option<u32> {
        let accepted = self.connections.accepted().filter(|c| host.is_none_or(|h| c.is_at(h)));
        let useless = accepted.filter(|c| !c.is_useful(now));
        useless.min_by_key(|c| (c.opened_at, c.id)).map(|c| c.id.stream())
    }

    /// Whether we dial others than explicit peers. The more of those there are, the fewer others. Strangers who
    /// reached us, and are of use, stand for no more than half of those whom we would dial.
    pub(super) fn is_within_max_peers(&self, now: Instant) -> bool {
        let factor = match self.peers.explicit() {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            _ => 4,
        };
        let max = self.limits.max_peers;
        let dialled = self.connections.iter().filter(|c| c.initiator).count();
        let useful = self.connections.accepted().filter(|c| c.is_useful(now)).count();
        factor * dialled + (factor * useful).min(max / 2) < max
    }

    /// The owner has no use for a connection: ends it, unless its peer was asked for or, for a while, if it was
    /// found under a topic that is joined, which may need it yet.
    pub fn release(&mut self, conn: ConnId, now: Instant) {
        let Some(connection) = self.connections.get(conn) else { return };
        let (remote, unused) = (connection.remote, connection.offered.again(now));
        let shares = |topic: &Topic| self.topics.is_joined(topic);
        let waits = |peer: &PeerInfo| unused < MAX_UNUSED && peer.topics.iter().any(shares);
        if self.peers.get(&remote).is_some_and(|peer| peer.explicit || waits(peer)) {
            return;
        }
        self.peers.set_aside(&remote);
        self.close(conn, now);
    }
}
