//! Keeping the table and the view of ourselves fresh: bootstrap, ticks, pings, refresh, own address.
//!
//! A tick is 5 s. Every eighth pings the oldest few nodes; a refresh query runs after 60 quiet ticks, or
//! each 64 while there are fewer than [`K`] nodes, and on every tick while there is none. A node that nobody
//! else relies on, one without an id, does both half as often. A tick that comes 15 s late means that the
//! machine slept: then everything we know counts as old.
//!
//! Source: dht-rpc/index.js:_ontick, _onwakeup, _onfullrow, _updateNetworkState

use super::message::internal;
use super::query::{CONCURRENCY, DownHints, QueryId, QuerySpec};
use super::requests::Purpose;
use super::table::{Added, Node};
use super::{Ask, K, NatSampler, Rpc, RpcEvent, bogon, node_id};
use crate::codec::net;
use crate::key::NodeId;
use rand::Rng;
use rand::rngs::StdRng;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(5);
/// A tick this late means we slept.
const SLEPT: Duration = Duration::from_secs(15);
/// Ticks between pings of the oldest nodes: 40 s.
const PING_TICKS: u64 = 8;
/// Quiet ticks until a refresh: 5 minutes.
const REFRESH_TICKS: u64 = 60;
/// Ticks in which a node heard from is recent: a minute.
const RECENT: u64 = 12;
/// Ticks after which a node is old: half an hour.
const OLD: u64 = 360;
/// Pings for full rows at a time.
const MAX_SWAPS: usize = 3;
/// Down hints sent per tick.
const MAX_DOWN_HINTS: usize = 50;
/// Requests of a refresh in flight: nobody waits for it.
const REFRESH_CONCURRENCY: usize = 2;

#[derive(Debug)]
pub(super) struct Upkeep {
    pub tick: u64,
    pub next_tick: Instant,
    pub bootstrapped: bool,
    /// Pings of table nodes in flight.
    pub checks: usize,
    swaps: usize,
    refresh_in: u64,
    down_hints: usize,
    bootstrap: Option<QueryId>,
    refresh: Option<QueryId>,
    /// Nodes without id that gave a sample of our address.
    samplers: Vec<SocketAddrV4>,
}

impl Upkeep {
    pub fn new(rng: &mut StdRng, now: Instant) -> Self {
        Self {
            // Nodes started together should not tick together.
            tick: rng.random_range(50..=100),
            next_tick: now + TICK,
            bootstrapped: false,
            checks: 0,
            swaps: 0,
            refresh_in: rng.random_range(REFRESH_TICKS / 2..=REFRESH_TICKS),
            down_hints: 0,
            bootstrap: None,
            refresh: None,
            samplers: Vec::new(),
        }
    }
}

impl Rpc {
    /// Leaves only the pings.
    #[cfg(test)]
    pub(super) fn upkeep_without_refresh(&mut self) {
        self.upkeep.refresh_in = u64::MAX;
        // Past the first ticks, which are drawn, and between two rounds of pings.
        self.upkeep.tick = 105;
    }

    /// There is traffic anyway.
    pub(super) fn delay_refresh(&mut self) {
        self.upkeep.refresh_in = if self.persistent { REFRESH_TICKS } else { 2 * REFRESH_TICKS };
    }

    pub(super) fn start_bootstrap(&mut self, now: Instant) {
        let target = *self.table.id();
        let id = self.find_node(target, CONCURRENCY, now);
        self.upkeep.bootstrap = Some(id);
        if !self.queries.contains_key(&id) {
            self.on_silent_done(id, now);
        }
    }

    /// Looks around somewhere in the id space.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.upkeep.refresh.is_some() {
            return;
        }
        let n = self.table.len();
        let node = (n > 0).then(|| self.rng.random_range(0..n));
        let node = node.and_then(|i| self.table.oldest_first().nth(i)).map(|n| n.id);
        let target = node.unwrap_or(*self.table.id());
        let id = self.find_node(target, REFRESH_CONCURRENCY, now);
        self.upkeep.refresh = self.queries.contains_key(&id).then_some(id);
    }

    fn find_node(&mut self, target: NodeId, concurrency: usize, now: Instant) -> QueryId {
        let spec = QuerySpec::new(internal::FIND_NODE, target);
        self.query(QuerySpec { internal: true, silent: true, concurrency, ..spec }, now)
    }

    pub(super) fn on_silent_done(&mut self, id: QueryId, now: Instant) {
        if self.upkeep.refresh == Some(id) {
            self.upkeep.refresh = None;
        }
        if self.upkeep.bootstrap == Some(id) {
            self.upkeep.bootstrap = None;
            if self.update_id() {
                // Those near our id come to know us by being asked.
                return self.start_bootstrap(now);
            }
            if !self.upkeep.bootstrapped {
                self.upkeep.bootstrapped = true;
                self.events.push_back(RpcEvent::Bootstrapped);
            }
        }
    }

    /// Takes an id if we are to have one and know our address, or another one if we were misled about it.
    /// True if the table has a new middle.
    pub(super) fn update_id(&mut self) -> bool {
        if !self.config.persistent && !self.probe.is_stable(self.upkeep.tick) {
            return false;
        }
        let Some(address) = self.address() else { return false };
        // Others look for us where we send from.
        if !self.config.persistent && self.open_address() != Some(address) {
            return false;
        }
        let id = node_id(address);
        if self.id() == Some(id) {
            return false;
        }
        self.persistent = true;
        self.table = self.table.rebuilt_around(id);
        tracing::debug!(%address, "persistent");
        self.events.push_back(RpcEvent::Persistent(id));
        true
    }

    pub(super) fn handle_tick(&mut self, now: Instant) {
        if now < self.upkeep.next_tick {
            return;
        }
        if now >= self.upkeep.next_tick + SLEPT {
            self.wake_up();
        } else {
            self.upkeep.tick += 1;
        }
        self.upkeep.next_tick = now + TICK;
        self.upkeep.down_hints = 0;
        if !self.upkeep.bootstrapped {
            return;
        }
        self.probe_if_due(now);
        if self.update_id() && self.upkeep.bootstrap.is_none() {
            self.start_bootstrap(now);
        }
        let pings = if self.persistent { PING_TICKS } else { 2 * PING_TICKS };
        if self.upkeep.tick.is_multiple_of(pings) {
            self.ping_some(now);
        }
        self.upkeep.refresh_in = self.upkeep.refresh_in.saturating_sub(1);
        let sparse = self.upkeep.tick & 63 == 0 && self.table.len() < K;
        self.listen_for_anybody(now);
        let others = !self.config.bootstrap.is_empty() || self.hinted.is_due(now);
        let alone = self.table.is_empty() && others;
        if sparse || alone || self.upkeep.refresh_in == 0 {
            self.delay_refresh();
            self.refresh(now);
        }
        if self.health.tick(self.requests.responses, self.requests.timeouts) {
            let (online, degraded) = (self.health.online(), self.health.degraded());
            self.events.push_back(RpcEvent::Health { online, degraded });
        }
    }

    /// Our public address is another one: a full node takes the id of that.
    pub fn set_address(&mut self, address: SocketAddrV4, now: Instant) {
        self.config.allow_bogons |= bogon::is_bogon(address.ip());
        self.config.address = Some(address);
        if self.update_id() && self.upkeep.bootstrap.is_none() {
            self.start_bootstrap(now);
        }
    }

    /// Our addresses changed: what nodes said of the one before is void, and they are asked anew.
    pub fn network_changed(&mut self, now: Instant) {
        self.nat = NatSampler::default();
        self.config.address.into_iter().for_each(|address| self.nat.add(address));
        self.upkeep.samplers.clear();
        self.table.forget_samples();
        self.forget_access(now);
        self.hinted.hurry();
        self.refresh(now);
    }

    fn wake_up(&mut self) {
        let upkeep = &mut self.upkeep;
        upkeep.tick += 2 * OLD;
        // Two ticks before the next round of pings: the network needs a moment to come up too.
        upkeep.tick = upkeep.tick.next_multiple_of(2 * PING_TICKS) - 2;
        upkeep.refresh_in = 1;
        self.be_stable_anew();
        self.hinted.hurry();
        self.health.reset();
        self.events.push_back(RpcEvent::WokeUp);
    }

    fn ping_some(&mut self, now: Instant) {
        let tick = self.upkeep.tick;
        let Some(oldest) = self.table.oldest_first().next() else { return };
        let count = match self.requests.len() {
            _ if tick - oldest.pinged < RECENT => 2,
            3.. => 3,
            _ => 5,
        };
        let ids: Vec<NodeId> = self
            .table
            .oldest_first()
            .take(count)
            .filter(|n| n.pinged < tick)
            .map(|n| n.id)
            .collect();
        for id in ids {
            self.check(id, now);
        }
    }

    /// A datagram came from a node: note who it is, and if it answered a request of ours, that it lives and what it
    /// says of our address (`sample`). A request may have been sent by anybody in its name.
    pub(super) fn note_node(
        &mut self,
        from: SocketAddrV4,
        id: Option<NodeId>,
        sample: Option<SocketAddrV4>,
        now: Instant,
    ) {
        if !self.is_usable(&from) {
            return;
        }
        let tick = self.upkeep.tick;
        let Some(id) = id else {
            return sample.into_iter().for_each(|sample| self.sample_stranger(from, sample));
        };
        if let Some(node) = self.table.get_mut(&id) {
            let Some(sample) = sample else { return };
            let due = node.sampled == 0 || tick - node.sampled >= OLD;
            (node.pinged, node.seen) = (tick, tick);
            if due {
                node.sampled = tick;
                self.nat.add(sample);
            }
            self.table.touch(&id);
            return;
        }
        let mut node = Node::new(from, tick);
        if sample.is_some() {
            node.sampled = tick;
        } else {
            (node.pinged, node.seen) = (0, 0);
        }
        match self.table.add(node) {
            Added::New => sample.into_iter().for_each(|sample| self.nat.add(sample)),
            Added::Known => {}
            Added::Full(row) => self.on_full_row(row, node, now),
        }
    }

    /// A few nodes without id may tell our address too: in a young network there are no others.
    fn sample_stranger(&mut self, from: SocketAddrV4, our_address: SocketAddrV4) {
        let room = self.upkeep.samplers.len() < self.config.bootstrap.len().max(1);
        if room && !self.upkeep.samplers.contains(&from) {
            self.upkeep.samplers.push(from);
            self.nat.add(our_address);
        }
    }

    fn on_full_row(&mut self, row: usize, new: Node, now: Instant) {
        if !self.upkeep.bootstrapped || self.upkeep.swaps >= MAX_SWAPS {
            return;
        }
        let tick = self.upkeep.tick;
        let rows = self.table.row(row).iter().filter(|n| n.pinged != tick);
        let Some(old) = rows.min_by_key(|n| (n.pinged, n.added)).copied() else { return };
        let trusted = tick - old.pinged < RECENT && tick - old.added > OLD;
        if trusted {
            return;
        }
        if let Some(node) = self.table.get_mut(&old.id) {
            node.pinged = tick;
        }
        let purpose = Purpose::Swap { old: old.id, new };
        if self.send(Ask::ping(old.addr), false, Duration::ZERO, purpose, now) {
            self.upkeep.swaps += 1;
        }
    }

    pub(super) fn on_swap(&mut self, old: &NodeId, mut new: Node, alive: bool) {
        self.upkeep.swaps = self.upkeep.swaps.saturating_sub(1);
        if !alive {
            self.table.remove(old);
            let tick = self.upkeep.tick;
            (new.added, new.pinged, new.seen) = (tick, tick, tick);
            self.table.add(new);
        }
    }

    pub(super) fn on_check(&mut self, id: &NodeId, alive: bool) {
        self.upkeep.checks = self.upkeep.checks.saturating_sub(1);
        if !alive {
            self.table.remove(id);
        }
    }

    pub(super) fn send_down_hints(&mut self, hints: DownHints, now: Instant) {
        for (to, down) in hints {
            if self.upkeep.down_hints >= MAX_DOWN_HINTS {
                return;
            }
            self.upkeep.down_hints += 1;
            let mut value = Vec::with_capacity(net::IPV4_LEN);
            net::put_ipv4(&mut value, &down);
            let value = Some(value);
            let ask = Ask { internal: true, value, ..Ask::new(to, internal::DOWN_HINT) };
            self.send(ask, false, Duration::ZERO, Purpose::Hint, now);
        }
    }
}
