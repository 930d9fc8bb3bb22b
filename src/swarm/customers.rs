//! The customers of a relay: peers who come to have their streams passed on.
//!
//! Their handshakes come to a key of its own, on which we listen while we relay. A customer costs a control connection,
//! tokens, legs and bytes; of each there is a bound, for one host and for all. Who has a seat is decided in
//! [`super::seats`].

use super::connections::{Connection, Connections, FIRST_PACKET_WAIT, Phase};
use super::hyperdht::{Agreed, Dial, RelayOffer};
use super::meter::Meter;
use super::relay::messages::{Pair, Token};
use super::relay::server::{Joiner, Server, SessionId};
use super::socket::host_of;
use super::udx::{LegEnd, LegRates, Udx};
use super::{RelayingStatus, Swarm};
use crate::crypto::KeyPair;
use crate::key::PublicKey;
use std::sync::Arc;
use std::time::Instant;

/// Customers who have not shown where they are; of more the oldest goes.
const MAX_WAITING: usize = 64;

/// What a relay gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Bytes a second of one customer, by its host.
    pub customer: u64,
    /// Bytes a second of all together.
    pub total: u64,
}

impl Default for RelayLimits {
    /// A good film for each customer, and half of what a home's fast line sends for all.
    fn default() -> Self {
        Self { customer: 4 << 20, total: 16 << 20 }
    }
}

/// A relay, while it is one.
pub(super) struct Relay {
    key_pair: Arc<KeyPair>,
    pub(super) server: Server,
    /// Of what is passed on.
    pub(super) meter: Meter<1>,
    /// It never pairs anybody, as no honest relay does.
    #[cfg(test)]
    pub(super) mute: bool,
}

/// Makes legs for a server.
struct Legs<'a> {
    udx: &'a mut Udx,
    table: &'a mut Connections,
    now: Instant,
}

impl Joiner for Legs<'_> {
    fn join(&mut self, ends: [(SessionId, u32); 2]) -> [u32; 2] {
        let ends = ends.map(|(session, remote_id)| {
            let customer = self.table.by_stream(session);
            let host = customer.as_ref().and_then(|c| c.addr).map(|addr| host_of(&addr));
            LegEnd { remote_id, host, proven: customer.is_some_and(|c| c.proven) }
        });
        self.udx.join_legs(ends, self.now)
    }

    fn remove(&mut self, leg: u32) {
        self.udx.remove_leg(leg);
    }

    fn used(&self, leg: u32) -> Option<Instant> {
        self.udx.leg_used(leg)
    }
}

impl Swarm {
    /// Is a relay for whoever comes to this key, or none any more.
    pub fn set_relay(&mut self, relay: Option<(Arc<KeyPair>, RelayLimits)>, now: Instant) {
        let old = self.relay.as_ref().map(|relay| relay.key_pair.clone());
        let new = relay.as_ref().map(|(key_pair, _)| key_pair.public());
        if let Some(old) = old.filter(|old| Some(old.public()) != new) {
            self.dht.unlisten(&PublicKey(old.public()), now);
            self.dht.offer_relay(None);
            let customers = self.controls.customers().map(|c| c.id.stream());
            for stream in customers.collect::<Vec<_>>() {
                self.end_control(stream, "we relay no more", now);
            }
            self.relay = None;
        }
        if let Some((key_pair, limits)) = relay {
            self.udx.limit_legs(LegRates { host: limits.customer, total: limits.total }, now);
            let own = PublicKey(self.key_pair.public());
            self.dht.offer_relay(Some(RelayOffer::new(&key_pair, &own)));
            self.dht.listen(key_pair.clone(), now);
            self.relay.get_or_insert_with(|| Relay {
                key_pair,
                server: Server::default(),
                meter: Meter::new(now),
                #[cfg(test)]
                mute: false,
            });
        }
        self.pump(now);
    }

    pub(super) fn relaying_status(&self) -> Option<RelayingStatus> {
        let relay = self.relay.as_ref()?;
        let passed = self.udx.passed_on();
        let [passing] = relay.meter.rates([passed], self.measured);
        Some(RelayingStatus {
            key: PublicKey(relay.key_pair.public()),
            customers: self.controls.customers().filter(|c| c.is_open()).count(),
            pairs: relay.server.links(),
            passed,
            passing,
        })
    }

    /// Whether a key is that of our own relay.
    pub(super) fn is_own_relay(&self, key: &PublicKey) -> bool {
        self.relay.as_ref().is_some_and(|relay| relay.key_pair.public() == key.0)
    }

    /// Somebody shook hands with our relay.
    pub(super) fn accept_customer(&mut self, agreed: Agreed, now: Instant) {
        let remote = agreed.keys.remote;
        if self.relay.is_none() || self.stopping || self.peers.is_refused(&remote, now) {
            return self.dht.gone(agreed.local_id);
        }
        let waiting = || self.controls.customers().filter(|c| !c.proven);
        if waiting().count() >= MAX_WAITING
            && let Some(oldest) = waiting().min_by_key(|c| (c.opened_at, c.id))
        {
            let stream = oldest.id.stream();
            self.end_control(stream, "others come", now);
        }
        let Some(stream) = self.udx.open(Some(agreed.local_id)) else {
            return self.dht.gone(agreed.local_id);
        };
        let id = self.connections.name(stream);
        let phase = Phase::Waiting { until: now + FIRST_PACKET_WAIT };
        self.controls.insert(Connection::new(id, remote, false, phase, now));
        let dial = agreed.dial;
        self.set_session(stream, agreed);
        if let Some(Dial { socket, to }) = dial {
            self.reach(stream, socket, to, now);
        }
    }

    /// The header frame of a customer has come. False if there is no room for one more.
    pub(super) fn customer_open(&mut self, stream: u32, now: Instant) -> bool {
        let room = self.make_seat(stream, now);
        if let Some(relay) = self.relay.as_mut().filter(|_| room) {
            relay.server.open(stream);
        }
        room
    }

    /// A customer is where it says, or where it has moved to: its legs lead there and are no danger to anybody, but for those
    /// that it had made while it said that it was elsewhere.
    pub(super) fn customer_proven(&mut self, stream: u32, now: Instant) {
        let Some(way) = self.udx.way(stream) else { return };
        let Some(customer) = self.controls.table.by_stream(stream) else { return };
        let moved = !customer.is_at(host_of(&way.1)) && !customer.initiator;
        (customer.proven, customer.addr) = (true, Some(way.1));
        if moved && !self.make_seat(stream, now) {
            return self.end_control(stream, "too many customers of its host", now);
        }
        let Some(relay) = &mut self.relay else { return };
        let legs: Vec<u32> = relay.server.legs(stream).collect();
        for leg in legs.into_iter().filter(|leg| !self.udx.prove_leg(*leg, way, now)) {
            relay.server.end_leg(leg);
        }
    }

    pub(super) fn customer_pairs(&mut self, stream: u32, pair: Pair, now: Instant) {
        let Some(relay) = &mut self.relay else { return };
        #[cfg(test)]
        if relay.mute {
            return;
        }
        let mut legs = Legs { udx: &mut self.udx, table: &mut self.controls.table, now };
        let answers = relay.server.pair(stream, pair, &mut legs, now);
        for (session, answer) in answers {
            if let Some(control) = self.controls.get(session) {
                control.say_pair(&answer);
            }
            self.flush_control(session, now);
        }
    }

    pub(super) fn customer_unpairs(&mut self, stream: u32, token: &Token, now: Instant) {
        let Some(relay) = &mut self.relay else { return };
        let mut legs = Legs { udx: &mut self.udx, table: &mut self.controls.table, now };
        relay.server.unpair(stream, token, &mut legs);
    }

    /// Whether something is passed on for a customer.
    pub(super) fn is_passed_on(&self, stream: u32) -> bool {
        self.relay.as_ref().is_some_and(|relay| relay.server.has_links(stream))
    }

    pub(super) fn customer_gone(&mut self, stream: u32, now: Instant) {
        let Some(relay) = &mut self.relay else { return };
        let mut legs = Legs { udx: &mut self.udx, table: &mut self.controls.table, now };
        relay.server.close(stream, &mut legs);
    }

    pub(super) fn leg_ended(&mut self, leg: u32) {
        if let Some(relay) = &mut self.relay {
            relay.server.end_leg(leg);
        }
    }

    pub(super) fn relay_timeout(&self) -> Option<Instant> {
        self.relay.as_ref()?.server.poll_timeout()
    }

    pub(super) fn relay_due(&mut self, now: Instant) {
        let Some(relay) = &mut self.relay else { return };
        let mut legs = Legs { udx: &mut self.udx, table: &mut self.controls.table, now };
        relay.server.handle_timeout(&mut legs, now);
    }
}
