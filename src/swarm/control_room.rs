//! How many relays we go to at a time, for whom, and who gives way.
//!
//! Which relay a connection goes through the other side may say, and keys cost nothing. So where places are scarce each
//! host of clients has a share of them, and each host of relays that whom we dial names. Those clients of whom no node
//! that we believe says where they are have one share together, as have relays that we have not reached yet. Where all
//! places are taken one gives way to the next, as with peers ([`super::room`]):
//!
//! 1. through which nothing goes; then through which nothing of use came to go in time, of who has most places first;
//! 2. of who has more places than the newcomer would have;
//! 3. any, to a relay that we were told of.
//!
//! A relay that we were told of never gives way, and one that a peer is who is of use to us counts as one of use.

use super::Swarm;
use super::room::{Room, SCARCE};
use super::socket::host_of;
use crate::key::PublicKey;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Control connections to relays, at most. One serves all streams through its relay.
pub(super) const MAX_CONTROLS: usize = 32;

/// Those of one share where places are scarce. The readers of an office who cannot be reached mostly name one relay.
const MAX_PER_SHARE: usize = 4;

/// What a relay has to be reached, and two peers to find each other through it and say something.
const TIME_TO_HELP: Duration = Duration::from_secs(15);

/// Whose part of the places it is that a way to a relay takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    /// The clients at a host, who named the relay.
    Client(IpAddr),
    /// The relays at a host; those that are not reached so far.
    Relay(Option<IpAddr>),
}

impl Share {
    /// This machine always may.
    fn is_free(self) -> bool {
        matches!(self, Self::Client(host) | Self::Relay(Some(host)) if host.is_loopback())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    None,
    Vain,
    /// What is to go through it may come to be of use yet.
    Young,
    Good,
}

/// One that is there, or is looked for.
#[derive(Debug)]
struct Place {
    stream: u32,
    told: bool,
    used: Use,
    shares: BTreeSet<Share>,
    since: Instant,
}

impl Swarm {
    /// Room for a way to one more relay, which a stream of `share` wants: one that gives way ends where there is none
    /// left. False if none does.
    pub(super) fn make_control_room(
        &mut self,
        relay: &PublicKey,
        share: Share,
        now: Instant,
    ) -> bool {
        loop {
            match self.control_room(relay, share, now) {
                Room::Free => return true,
                Room::InsteadOf(stream) => self.end_control(stream, "others need one", now),
                Room::None => return false,
            }
        }
    }

    fn control_room(&self, relay: &PublicKey, share: Share, now: Instant) -> Room {
        let (places, told) = (self.control_places(now), self.relays.contains(relay));
        let count = |share: &Share| places.iter().filter(|p| p.shares.contains(share)).count();
        // One that several need is no burden of who has most.
        let weight = |place: &&Place| place.shares.iter().map(count).min().unwrap_or(0);
        let rank = |place: &&Place| (place.used, Reverse(weight(place)), place.since, place.stream);
        let movable = || places.iter().filter(|place| !place.told);
        let idle = |place: &&Place| place.used < Use::Good;
        let scarce = places.len() >= MAX_CONTROLS - MAX_CONTROLS / SCARCE;
        let chosen = if scarce && !told && !share.is_free() && count(&share) >= MAX_PER_SHARE {
            let alone = |place: &&Place| place.shares.iter().all(|of| *of == share);
            movable().filter(idle).filter(alone).min_by_key(rank)
        } else if places.len() < MAX_CONTROLS {
            return Room::Free;
        } else {
            let most = |place: &&Place| weight(place) > count(&share) + 1;
            let first = movable().filter(|place| place.used < Use::Young).min_by_key(rank);
            let second = first.or_else(|| movable().filter(most).min_by_key(rank));
            second.or_else(|| movable().filter(|_| told).min_by_key(rank))
        };
        chosen.map_or(Room::None, |place| Room::InsteadOf(place.stream))
    }

    fn control_places(&self, now: Instant) -> Vec<Place> {
        let of_use = self.connections.iter().filter(|c| c.is_useful(now) && !c.is_idle(now));
        let (mut streams, mut offers) = (BTreeSet::new(), BTreeSet::new());
        for connection in of_use {
            streams.insert(connection.id.stream());
            offers.extend(connection.offers.filter(|_| connection.is_peer()));
        }
        let ours = self.controls.table.iter().filter(|control| control.initiator);
        let place = ours.map(|control| {
            let stream = control.id.stream();
            let at = control.addr.filter(|_| control.is_open()).map(|addr| host_of(&addr));
            let wants = || self.relayed_by(stream);
            let good =
                wants().any(|(of, _)| streams.contains(&of)) || offers.contains(&control.remote);
            let used = match wants().next() {
                _ if good => Use::Good,
                Some(_) if now < control.opened_at + TIME_TO_HELP => Use::Young,
                Some(_) => Use::Vain,
                None => Use::None,
            };
            let share = |client: Option<IpAddr>| client.map_or(Share::Relay(at), Share::Client);
            Place {
                stream,
                told: self.relays.contains(&control.remote),
                used,
                shares: wants().map(|(_, client)| share(client)).collect(),
                since: control.opened_at,
            }
        });
        place.collect()
    }
}
