//! Attempts to connect to keys, as the owner of the node asks for them.

use super::connect::{Connect, Effort};
use super::{ConnectError, ConnectId, DhtEvent, HyperDht, Whereabouts, target_of};
use crate::key::PublicKey;
use rand::seq::SliceRandom;
use std::net::SocketAddr;
use std::time::Instant;

impl HyperDht {
    /// Connects to a key. What is known of its `whereabouts` may be nothing; `local_id` is the stream
    /// the owner has ready. Ends in [`DhtEvent::Outgoing`] or [`DhtEvent::ConnectFailed`].
    pub fn connect(
        &mut self,
        remote: PublicKey,
        whereabouts: impl Into<Whereabouts>,
        local_id: u32,
        now: Instant,
    ) -> ConnectId {
        self.connect_through(None, remote, whereabouts, local_id, now)
    }

    /// The same, and names a relay that both sides may go through. Where one of them names any there may be a
    /// [`DhtEvent::Answered`] before.
    pub fn connect_through(
        &mut self,
        relay: Option<PublicKey>,
        remote: PublicKey,
        whereabouts: impl Into<Whereabouts>,
        local_id: u32,
        now: Instant,
    ) -> ConnectId {
        self.connect_with((Effort::Whole, relay), remote, whereabouts.into(), local_id, now)
    }

    /// The same for one of many keys, most of which may lead nowhere: with one datagram after the other.
    pub fn knock(
        &mut self,
        relay: Option<PublicKey>,
        remote: PublicKey,
        whereabouts: impl Into<Whereabouts>,
        local_id: u32,
        now: Instant,
    ) -> ConnectId {
        let mut whereabouts = whereabouts.into();
        // Others each time: some may be gone.
        whereabouts.relays.shuffle(&mut self.net.rng);
        self.connect_with((Effort::Sparing, relay), remote, whereabouts, local_id, now)
    }

    /// The same with a peer of a local network, at its `addr` there and nowhere else.
    pub fn approach(
        &mut self,
        remote: PublicKey,
        addr: SocketAddr,
        local_id: u32,
        now: Instant,
    ) -> ConnectId {
        let mut whereabouts = Whereabouts::default();
        match addr {
            SocketAddr::V4(addr) => whereabouts.direct.push(addr),
            // The DHT's messages are of IPv4.
            SocketAddr::V6(_) => whereabouts.told.push(addr),
        }
        self.connect_with((Effort::Near, None), remote, whereabouts, local_id, now)
    }

    fn connect_with(
        &mut self,
        (effort, relay): (Effort, Option<PublicKey>),
        remote: PublicKey,
        Whereabouts { relays, direct, told }: Whereabouts,
        local_id: u32,
        now: Instant,
    ) -> ConnectId {
        let id = ConnectId(self.fresh_id());
        let target = target_of(&remote);
        let route = self.records.as_ref().and_then(|r| r.route(&target)).map(|r| r.relay);
        let relays = match route {
            _ if effort == Effort::Near => Vec::new(),
            Some(relay) => vec![relay],
            None if !relays.is_empty() => relays,
            None => self.known_relays.of(&remote),
        };
        let connect = if remote == self.public_key() {
            Err(ConnectError::BadKey)
        } else {
            let (whereabouts, how) = (Whereabouts { relays, direct, told }, (effort, relay));
            Connect::start(id, remote, whereabouts, local_id, how, &mut self.net, now)
        };
        match connect {
            Ok(connect) => {
                self.connects.insert(id, connect);
            }
            Err(why) => {
                self.net.events.push_back(DhtEvent::ConnectFailed { connect: id, remote, why });
            }
        }
        self.pump(now);
        id
    }

    /// Whether the peer of a connection attempt is there, and a way to it is looked for.
    pub fn is_answered(&self, id: ConnectId) -> bool {
        self.connects.get(&id).is_some_and(Connect::is_answered)
    }

    /// Whether its ports are tried, or it waits for its turn to: seconds rather than round trips.
    pub fn is_searching(&self, id: ConnectId) -> bool {
        self.connects.get(&id).is_some_and(|connect| connect.is_searching(&self.net))
    }

    /// Ends a connection attempt without an event.
    pub fn cancel(&mut self, id: ConnectId) {
        if let Some(mut connect) = self.connects.remove(&id) {
            connect.stop(&mut self.net);
        }
    }
}
