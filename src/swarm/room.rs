//! Who has a place among our connections: how many are accepted in all and of one host, who makes room for a
//! newcomer, and when one that is of no use ends.
//!
//! A key costs nothing, so places are not given by key. A host that answers costs something: each has a share of
//! them, which its peers take when they have shown that they are there. Where all places are taken, one of these gives way to the next who comes, in this order:
//!
//! 1. who has no use for its place, the oldest first;
//! 2. who has asked for nothing and given nothing for minutes, the longest first;
//! 3. of a host that has more places than the newcomer's would have, who has been quiet longest.
//!
//! Within the first two those of the host with most places go first. Peers that were asked for by key stay.

use super::conn_id::ConnId;
use super::connections::Connection;
use super::event::Closed;
use super::socket::host_of;
use super::{PeerInfo, Swarm};
use crate::key::{PublicKey, Topic};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Accepted connections of one host where places are scarce, a quarter of all: no single host can keep everybody else
/// out. While there are more it may have more, for a school or an office may be behind one address; and this machine
/// always may.
pub(super) const MAX_PER_HOST: usize = 64;

/// Places are scarce when no more than this part of them is free.
pub(super) const SCARCE: usize = 4;

/// Without a message for so long a connection is idle: at least every few seconds somebody who reads asks for
/// something, and gets it.
const IDLE: Duration = Duration::from_secs(300);

/// How long a peer that was found under a topic of ours may be connected without a use. Anybody can announce
/// any key; the peer of a drive opens its channels at once.
pub(super) const MAX_UNUSED: Duration = Duration::from_secs(120);

/// Room for one more connection.
pub(super) enum Room {
    Free,
    InsteadOf(u32),
    None,
}

impl Connection {
    /// Whether the peer has said something, and the owner has not found since that it has no use for it.
    pub(super) fn is_useful(&self, now: Instant) -> bool {
        self.is_open() && self.received > 0 && !self.offered.is_recent(now)
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        now >= self.last_used + IDLE
    }
}

impl Swarm {
    /// Whether a handshake of `remote` may lead to one more connection. Its host is not known for sure so far.
    pub(super) fn may_have_room(&self, remote: &PublicKey, now: Instant) -> bool {
        let room = self.connections.counted() < self.limits.max_connections
            || self.gives_way(None, now).is_some()
            || self.has_too_many(None).is_some();
        room && !self.stopping && !self.peers.is_refused(remote, now)
    }

    /// Whether `remote` would get a place if it is at `host`.
    pub(super) fn has_room(&self, remote: &PublicKey, host: IpAddr, now: Instant) -> bool {
        !self.stopping
            && !self.peers.is_refused(remote, now)
            && !matches!(self.room(host, now), Room::None)
    }

    /// Makes room for one more accepted connection, from `remote` at `host`: one that gives way to it ends where
    /// there is no place left. False if none does.
    pub(super) fn make_room(&mut self, remote: &PublicKey, host: IpAddr, now: Instant) -> bool {
        if self.stopping || self.peers.is_refused(remote, now) {
            return false;
        }
        loop {
            match self.room(host, now) {
                Room::Free => return true,
                Room::InsteadOf(stream) => self.destroy(stream, Closed::Local, now),
                Room::None => return false,
            }
        }
    }

    /// What room there is for one more of `host`.
    fn room(&self, host: IpAddr, now: Instant) -> Room {
        let of_host = self.connections.accepted().filter(|c| c.is_at(host)).count();
        let (counted, max) = (self.connections.counted(), self.limits.max_connections);
        let scarce = counted >= max - max / SCARCE && !host.is_loopback();
        let other = if scarce && of_host >= MAX_PER_HOST {
            self.gives_way(Some(host), now)
        } else if counted >= max {
            self.gives_way(None, now).or_else(|| self.has_too_many(Some(host)))
        } else {
            return Room::Free;
        };
        other.map_or(Room::None, Room::InsteadOf)
    }

    /// Who gives way to any newcomer, of those at `host` if it is given.
    fn gives_way(&self, host: Option<IpAddr>, now: Instant) -> Option<u32> {
        let places = self.places();
        let at_host = self.movable().filter(|c| host.is_none_or(|h| c.is_at(h)));
        let idle = at_host.filter(|c| !c.is_useful(now) || c.is_idle(now));
        let rank = |c: &&Connection| {
            let useful = c.is_useful(now);
            let since = if useful { c.last_used } else { c.opened_at };
            (useful, Reverse(places_of(&places, c)), since, c.id)
        };
        idle.min_by_key(rank).map(|c| c.id.stream())
    }

    /// Who gives way to one of `newcomer`, a host that would have fewer places even then; or of any host.
    fn has_too_many(&self, newcomer: Option<IpAddr>) -> Option<u32> {
        let places = self.places();
        let own = newcomer.and_then(|host| places.get(&host).copied()).unwrap_or(0);
        let movable = self.movable().filter(|c| places_of(&places, c) > own + 1);
        let rank = |c: &&Connection| (Reverse(places_of(&places, c)), c.last_used, c.id);
        movable.min_by_key(rank).map(|c| c.id.stream())
    }

    /// Accepted connections that are not to peers that were asked for.
    fn movable(&self) -> impl Iterator<Item = &Connection> {
        let explicit = |key| self.peers.get(key).is_some_and(|peer| peer.explicit);
        self.connections.accepted().filter(move |c| !explicit(&c.remote))
    }

    /// Accepted connections of each host.
    fn places(&self) -> BTreeMap<IpAddr, usize> {
        let mut places = BTreeMap::new();
        for addr in self.connections.accepted().filter_map(|c| c.addr) {
            *places.entry(host_of(&addr)).or_insert(0) += 1;
        }
        places
    }

    /// Whether we dial others than explicit peers. The more of those there are, the fewer others. Strangers who
    /// reached us, and are of use, stand for no more than half of those whom we would dial. With `fewer` dials than there are.
    pub(super) fn is_within_max_peers(&self, fewer: usize, now: Instant) -> bool {
        let factor = match self.peers.explicit() {
            0 => 1,
            1 => 2,
            2 | 3 => 3,
            _ => 4,
        };
        let max = self.limits.max_peers;
        let dialled = self.connections.iter().filter(|c| c.initiator).count() - fewer;
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

fn places_of(places: &BTreeMap<IpAddr, usize>, connection: &Connection) -> usize {
    connection.addr.and_then(|addr| places.get(&host_of(&addr)).copied()).unwrap_or(0)
}
