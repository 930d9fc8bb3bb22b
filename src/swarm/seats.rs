//! Who has a seat among the customers of our relay: how many there are, in all and of one host, and who gives way.
//!
//! As with the places of peers ([`super::room`]) hosts share them, for a key costs nothing. Where all are taken one gives
//! way to the next who comes, in this order:
//!
//! 1. who asks for nothing; then who has asked for long for what does not come;
//! 2. of a site that has more seats than the newcomer's would have, who came first;
//! 3. whoever is no peer of our drives, to one who is.
//!
//! Within each, peers of our drives go last, and those of the site with most seats first. A host that has its share makes
//! room itself: by whoever has nothing passed on.

use super::Swarm;
use super::connections::TIME_TO_ANSWER;
use super::relay::server::PENDING_WAIT;
use super::room::{Room, SCARCE};
use super::socket::{host_of, site_of};
use crate::key::PublicKey;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// Customers at a time, and of one host. A household or an office behind one address has fewer that need a relay.
pub(super) const MAX_CUSTOMERS: usize = 256;
pub(super) const MAX_PER_HOST: usize = 32;

/// What is done for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    AsksNothing,
    /// As long as a token waits, and nobody has come.
    AsksInVain,
    Asks,
    IsPassedOn,
}

#[derive(Debug)]
struct Seat {
    stream: u32,
    host: IpAddr,
    of_drive: bool,
    used: Use,
    since: Instant,
}

impl Swarm {
    /// Room for the customer over `stream`, who has just come: one that gives way ends where there is none left. False
    /// if none does.
    pub(super) fn make_seat(&mut self, stream: u32, now: Instant) -> bool {
        loop {
            match self.seat(stream, now) {
                Room::Free => return true,
                Room::InsteadOf(other) => self.end_control(other, "others come", now),
                Room::None => return false,
            }
        }
    }

    fn seat(&self, newcomer: u32, now: Instant) -> Room {
        let (own, others): (Vec<_>, Vec<_>) =
            self.seats(now).into_iter().partition(|seat| seat.stream == newcomer);
        let Some(&Seat { host, of_drive, .. }) = own.first() else { return Room::None };
        let mut taken = BTreeMap::new();
        for seat in &others {
            *taken.entry(site_of(seat.host)).or_insert(0) += 1;
        }
        let of_site = |host| taken.get(&site_of(host)).copied().unwrap_or(0);
        let idle = |seat: &&Seat| seat.used < Use::IsPassedOn;
        let rank = |seat: &&Seat| {
            (seat.used, seat.of_drive, Reverse(of_site(seat.host)), seat.since, seat.stream)
        };
        let at_host = others.iter().filter(|seat| seat.host == host).count();
        let scarce = others.len() >= MAX_CUSTOMERS - MAX_CUSTOMERS / SCARCE;
        let chosen = if at_host >= MAX_PER_HOST && !host.is_loopback() {
            others.iter().filter(|seat| seat.host == host).filter(idle).min_by_key(rank)
        } else if scarce && of_site(host) >= MAX_PER_HOST && !host.is_loopback() {
            let near = others.iter().filter(|seat| site_of(seat.host) == site_of(host));
            near.filter(idle).min_by_key(rank)
        } else if others.len() < MAX_CUSTOMERS {
            return Room::Free;
        } else {
            let most = |seat: &&Seat| of_site(seat.host) > of_site(host) + 1;
            let stranger = |seat: &&Seat| of_drive && !seat.of_drive;
            let by_site = |seat: &&Seat| {
                (seat.of_drive, Reverse(of_site(seat.host)), seat.since, seat.stream)
            };
            let all = || others.iter();
            let first = all().filter(|seat| seat.used < Use::Asks).min_by_key(rank);
            let second = first.or_else(|| all().filter(most).min_by_key(by_site));
            second.or_else(|| all().filter(stranger).min_by_key(by_site))
        };
        chosen.map_or(Room::None, |seat| Room::InsteadOf(seat.stream))
    }

    fn seats(&self, now: Instant) -> Vec<Seat> {
        let Some(relay) = &self.relay else { return Vec::new() };
        let useful = self.connections.iter().filter(|c| c.is_peer() && c.is_useful(now));
        let useful: BTreeSet<&PublicKey> = useful.map(|c| &c.remote).collect();
        let open = self.controls.customers().filter(|c| c.is_open());
        let seat = open.filter_map(|customer| {
            let (stream, remote) = (customer.id.stream(), &customer.remote);
            let sought = self.peers.get(remote);
            let sought = sought.is_some_and(|peer| peer.explicit || !peer.topics.is_empty());
            let used = if relay.server.has_links(stream) {
                Use::IsPassedOn
            } else if relay.server.is_idle(stream) && now >= customer.last_used + TIME_TO_ANSWER {
                Use::AsksNothing
            } else if now >= customer.last_used + PENDING_WAIT {
                Use::AsksInVain
            } else {
                Use::Asks
            };
            Some(Seat {
                stream,
                host: host_of(&customer.addr?),
                of_drive: sought || useful.contains(remote),
                used,
                since: customer.opened_at,
            })
        });
        seat.collect()
    }
}
