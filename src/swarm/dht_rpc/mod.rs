//! dht-rpc: a Kademlia node over single datagrams, without any meaning of its own.
//!
//! [`Rpc`] asks and answers, keeps the routing table fresh, walks queries towards their target, and
//! hands requests it does not know to its owner ([`RpcEvent::Request`]), who answers with [`Rpc::reply`].
//!
//! A node is *ephemeral* (it has no id, is not entered in tables, stores nothing) or *persistent*: its id is
//! the hash of its public address, so a node's id counts only if it matches the address the
//! datagram came from. We become persistent only when told to, and only once our address is known: given by
//! the owner, or by a majority of nodes ([`NatSampler`]).
//!
//! Everything is sans-io: after each `handle_*` or command the owner drains [`Rpc::poll_event`] and
//! [`Rpc::poll_transmit`]. Time is cut in ticks of 5 s.
//!
//! Source: dht-rpc/index.js, dht-rpc/lib/io.js

mod aside;
pub mod bogon;
pub mod bucket;
mod budget;
mod commands;
mod event;
mod health;
mod hinted;
pub mod message;
mod nat_sampler;
mod probe;
mod proven;
mod query;
mod replies;
mod requests;
mod silence;
mod table;
mod token;
mod upkeep;
mod walk;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use budget::Account;
pub use event::{Ask, Extras, Incoming, RETRIES, RequestId, RpcConfig, RpcEvent, Transmit};
pub use health::Health;
pub use message::{Request, Response, Token};
pub use nat_sampler::NatSampler;
pub use probe::Access;
pub use query::{CONCURRENCY, QueryId, QuerySpec, Reply};
pub use requests::MAX_INFLIGHT;
pub use table::{Node, Table, node_id};

use crate::key::NodeId;
use crate::swarm::socket::SocketId;
use budget::Budget;
use message::Message;
use query::Query;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use requests::{Overdue, Purpose, Requests, Sending};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};
use token::Tokens;

/// Nodes per row, and how many nearest nodes a query looks for.
pub const K: usize = 20;

/// A dht-rpc node.
pub struct Rpc {
    config: RpcConfig,
    rng: StdRng,
    table: Table,
    requests: Requests,
    tokens: Tokens,
    budget: Budget,
    nat: NatSampler,
    health: Health,
    queries: BTreeMap<QueryId, Query>,
    /// Queries that wait until fewer requests are in flight.
    stalled: BTreeSet<QueryId>,
    next_id: u64,
    persistent: bool,
    events: VecDeque<RpcEvent>,
    out: VecDeque<Transmit>,
    delayed: commands::Delayed,
    upkeep: upkeep::Upkeep,
    probe: probe::Probe,
    aside: aside::Aside,
    hinted: hinted::Hinted,
    proven: proven::Proven,
    silence: silence::Silence,
}

impl Rpc {
    pub fn new(config: RpcConfig, mut rng: StdRng, now: Instant) -> Self {
        let mut id = [0; 32];
        rng.fill_bytes(&mut id);
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let mut rpc = Self {
            table: Table::new(NodeId(id)),
            requests: Requests::new(rng.random(), now),
            tokens: Tokens::new(&mut rng, now),
            budget: Budget::new(key, now),
            nat: NatSampler::default(),
            health: Health::default(),
            queries: BTreeMap::new(),
            stalled: BTreeSet::new(),
            next_id: 0,
            persistent: false,
            events: VecDeque::new(),
            out: VecDeque::new(),
            delayed: commands::Delayed::default(),
            upkeep: upkeep::Upkeep::new(&mut rng, now),
            probe: probe::Probe::new(now),
            aside: aside::Aside::new(Vec::new(), now),
            hinted: hinted::Hinted::default(),
            proven: proven::Proven::default(),
            silence: silence::Silence::default(),
            config,
            rng,
        };
        if let Some(address) = rpc.config.address {
            rpc.nat.add(address);
        }
        rpc.update_id();
        rpc.set_bootstrap_aside(now);
        rpc.start_bootstrap(now);
        rpc
    }

    /// Our id, once we are persistent.
    pub fn id(&self) -> Option<NodeId> {
        self.persistent.then(|| *self.table.id())
    }

    /// What others say our address is; only a full address if they agree on the port.
    pub fn nat(&self) -> &NatSampler {
        &self.nat
    }

    /// Somebody saw us at this address.
    #[cfg(test)]
    pub fn sample(&mut self, seen: SocketAddrV4) {
        self.nat.add(seen);
    }

    /// Our public address: what the owner said, else what the majority of nodes sees.
    pub fn address(&self) -> Option<SocketAddrV4> {
        self.config.address.or_else(|| self.nat.address())
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    #[cfg(test)]
    pub fn is_bootstrapped(&self) -> bool {
        self.upkeep.bootstrapped
    }

    /// The nodes to start from have other addresses: asks them if there is nobody else. True if that is news.
    pub fn set_bootstrap(&mut self, nodes: Vec<SocketAddrV4>, now: Instant) -> bool {
        if self.config.bootstrap == nodes {
            return false;
        }
        self.config.allow_bogons |= nodes.iter().any(|node| bogon::is_bogon(node.ip()));
        self.config.bootstrap = nodes;
        if self.table.is_empty() {
            self.set_bootstrap_aside(now);
            self.refresh(now);
        }
        true
    }

    /// The nodes to start from.
    pub fn bootstrap(&self) -> &[SocketAddrV4] {
        &self.config.bootstrap
    }

    /// Requests in flight.
    pub fn inflight(&self) -> usize {
        self.requests.len()
    }

    /// Whether a node may be at this address.
    pub fn is_usable(&self, addr: &SocketAddrV4) -> bool {
        is_usable(&self.config, addr)
    }

    /// Takes a datagram; false if it is not dht-rpc.
    pub fn handle_datagram(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        data: &[u8],
        now: Instant,
    ) -> bool {
        if data.len() < 2 || !matches!(data.first(), Some(&(message::REQUEST | message::RESPONSE)))
        {
            return false;
        }
        if from.port() == 0 {
            return true;
        }
        if socket == SocketId::MAIN {
            self.note_unasked(&from);
        }
        match Message::decode(data) {
            Ok(Message::Request(request)) => self.on_request(socket, from, request, now),
            Ok(Message::Response(response)) => {
                self.on_response(socket, from, response, now);
                self.resume(now);
            }
            Err(error) => tracing::trace!(%from, %error, "undecodable dht message"),
        }
        true
    }

    /// Sends one request.
    pub fn request(&mut self, ask: Ask, now: Instant) -> RequestId {
        let id = RequestId(self.fresh_id());
        if !self.send(ask, false, Duration::ZERO, Purpose::User(id), now) {
            self.events.push_back(RpcEvent::Timeout { id });
        }
        id
    }

    /// Forgets a request; no event will come of it.
    pub fn cancel_request(&mut self, id: RequestId) {
        self.requests.cancel(&Purpose::User(id));
    }

    /// Waits for a request no longer: it ends as one that is not answered.
    pub fn give_up(&mut self, id: RequestId) {
        self.cancel_request(id);
        self.events.push_back(RpcEvent::Timeout { id });
    }

    /// Starts a query.
    pub fn query(&mut self, spec: QuerySpec, now: Instant) -> QueryId {
        let id = QueryId(self.fresh_id());
        let mut query = Query::new(spec, *self.table.id());
        if query.wants_start_nodes() {
            query.add_start_nodes(self.start_nodes(&query.spec.target, now));
        }
        self.queries.insert(id, query);
        self.delay_refresh();
        self.advance(id, now);
        id
    }

    /// Ends a query; no event will come of it.
    pub fn cancel_query(&mut self, id: QueryId) {
        self.queries.remove(&id);
        self.stalled.remove(&id);
        self.requests.cancel(&Purpose::Query(id));
    }

    /// These sockets are closed: nothing more is sent from them.
    pub fn forget_sockets(&mut self, sockets: &[SocketId]) {
        self.out.retain(|transmit| !sockets.contains(&transmit.socket));
    }

    pub fn poll_event(&mut self) -> Option<RpcEvent> {
        self.events.pop_front()
    }

    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.out.pop_front()?;
        if transmit.socket == SocketId::MAIN {
            self.wrote_to(*transmit.to.ip());
        }
        Some(transmit)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.requests.poll_timeout(),
            Some(self.tokens.poll_timeout()),
            Some(self.upkeep.next_tick),
            self.delayed.poll_timeout(),
            self.probe_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.tokens.handle_timeout(&mut self.rng, now);
        self.send_delayed(now);
        for overdue in self.requests.handle_timeout(now, &mut self.out) {
            match overdue {
                Overdue::Slow { purpose: Purpose::Query(id), late } => {
                    if let Some(query) = self.queries.get_mut(&id) {
                        query.on_slow(late);
                    }
                    self.advance(id, now);
                }
                Overdue::Slow { .. } => {}
                Overdue::Lost { purpose, to, late } => self.on_lost(purpose, to, late, now),
            }
        }
        self.handle_probe_timeout(now);
        self.resume(now);
        self.handle_tick(now);
    }

    fn on_response(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        response: Response,
        now: Instant,
    ) {
        let Some(answered) = self.requests.answer(response.tid, from, now) else { return };
        self.proven.add(*from.ip(), self.upkeep.tick);
        self.hinted.answered(&from);
        let id = response.id.filter(|id| *id == node_id(from));
        // How others see a socket for punches says nothing of the one that we are found at.
        let sample = (answered.socket == SocketId::MAIN).then_some(response.to);
        if let Some(seen) = sample
            && self.note_seen(*from.ip(), seen)
        {
            self.network_changed(now);
            self.events.push_back(RpcEvent::Moved);
        }
        self.note_node(from, id, sample, now);
        if self.silence.ends() {
            self.events.push_back(RpcEvent::Met);
        }
        let reply = Reply {
            from,
            id,
            to: response.to,
            token: response.token,
            closer: response.closer,
            error: response.error,
            value: response.value,
            rtt: answered.rtt,
        };
        match answered.purpose {
            Purpose::Query(query) => self.on_query_reply(query, reply, answered.late, now),
            Purpose::User(id) => self.events.push_back(RpcEvent::Response { id, reply }),
            Purpose::Check(node) => self.on_check(&node, id == Some(node)),
            Purpose::Swap { old, new } => self.on_swap(&old, new, id == Some(old)),
            Purpose::Probe => self.on_probed(socket, from, (reply.to, answered.late), now),
            Purpose::IsThere => self.helper_is_there(*from.ip()),
            Purpose::Hint => {}
        }
        self.probe_if_due(now);
    }

    fn on_lost(&mut self, purpose: Purpose, to: SocketAddrV4, late: u8, now: Instant) {
        // What a node was to pass on may be lost behind it, and whoever has never answered says nothing of the network.
        let tells = !matches!(purpose, Purpose::Probe | Purpose::IsThere | Purpose::User(_));
        if tells && self.proven.has(to.ip(), self.upkeep.tick) {
            self.fell_silent(*to.ip(), now);
        }
        match purpose {
            Purpose::Query(query) => {
                self.table.remove(&node_id(to));
                let Some(state) = self.queries.get_mut(&query) else { return };
                let hints = state.on_timeout(to, late);
                self.send_down_hints(hints, now);
                self.advance(query, now);
            }
            Purpose::User(id) => self.events.push_back(RpcEvent::Timeout { id }),
            Purpose::Check(id) => self.on_check(&id, false),
            Purpose::Swap { old, new } => self.on_swap(&old, new, false),
            Purpose::Probe => self.after_helper(now),
            Purpose::IsThere | Purpose::Hint => {}
        }
    }

    fn send(
        &mut self,
        ask: Ask,
        force: bool,
        extra: Duration,
        purpose: Purpose,
        now: Instant,
    ) -> bool {
        let anywhere = matches!(purpose, Purpose::Check(_) | Purpose::Swap { .. } | Purpose::Hint);
        let socket = if anywhere { self.any_socket(ask.to.ip()) } else { ask.socket };
        let request = Request {
            tid: 0,
            to: ask.to,
            id: self.id_on(socket),
            token: ask.token,
            internal: ask.internal,
            command: ask.command,
            target: ask.target,
            value: ask.value,
        };
        let (retries, hasty) = (ask.retries + u8::from(ask.hasty), ask.hasty);
        let how = Sending { socket, retries, ttl: None, force, extra, hasty };
        self.requests.send(request, how, purpose, now, &mut self.out)
    }

    /// The id goes out only from the socket whose address it is the hash of.
    fn id_on(&self, socket: SocketId) -> Option<NodeId> {
        self.id().filter(|_| socket == SocketId::MAIN)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

fn is_usable(config: &RpcConfig, addr: &SocketAddrV4) -> bool {
    addr.port() != 0
        && !bogon::is_known_bad(addr)
        && !bogon::is_reserved(addr.ip())
        && (config.allow_bogons || !bogon::is_bogon(addr.ip()))
}
