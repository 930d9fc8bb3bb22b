//! The client side of a connection: find a relay of the server, shake hands through it, pick a path.
//!
//! One Noise message is sent to every node that may know the server: relays known from before one after the
//! other, and each node of a FIND_PEER query as soon as it shows a record. The first answer that opens
//! wins, if it is not `doubtful`. Where there are many peers to try ([`Effort::Sparing`]) the query comes when the known relays have not helped.
//! Then, in this order:
//!
//! | the answer says | path |
//! |---|---|
//! | it came from the server itself | dial that address |
//! | server is open, or cannot be punched to | dial its first public address, else the one its relay sees |
//! | we are open | wait for the server to dial us |
//! | else | a hole is punched: see `punching` |
//! | and same public host | a moment before that its local addresses are asked (`lan`); the first that is proven wins |
//!
//! Source: hyperdht/lib/connect.js

mod again;
mod direct;
mod doubtful;
mod lan;
mod punching;
#[cfg(test)]
mod tests;
mod trying;

use self::direct::Direct;
use self::doubtful::{By, Doubtful};
use self::lan::Lan;
use self::punching::Punch;
use super::event::{Agreed, ConnectError, ConnectId, DhtEvent, Dial, Relays};
use super::handshake::{Answer, Opening};
use super::messages::{
    Firewall, HolepunchInfo, Mode, NoisePayload, PeerHandshake, PeerRecord, RelayThrough, command,
};
use super::nat::first_public;
use super::net::Net;
use super::owner::{ConnectStep as Step, Owner, Road};
use crate::crypto::hash;
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::message::error;
use crate::swarm::dht_rpc::{Ask, QueryId, QuerySpec, RETRIES, Reply};
use crate::swarm::secret_stream::noise::SessionKeys;
use crate::swarm::socket::SocketId;
use rand::RngCore;
use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Instant;

/// Handshakes under way at a time through nodes of the query. The server's three relays fit in; the
/// reference uses two.
const SLOTS: usize = 4;
/// Nodes a handshake is sent to at most: records can lie.
const MAX_ASKED: usize = 32;
/// Resends to a node of the query.
const QUERY_RETRIES: u8 = 3;

/// How a peer is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// All that helps, at once.
    Whole,
    /// One datagram to each known relay, one after the other, as far as its host has not had its allowance: it costs
    /// nothing to invent a record, and most may lead nowhere.
    Sparing,
    /// Where the peer itself may be, and nobody else is asked.
    Near,
}

/// Where a peer is looked for, beside where the DHT says.
#[derive(Debug, Clone, Default)]
pub struct Whereabouts {
    /// Nodes that can pass a handshake on to it.
    pub relays: Vec<SocketAddrV4>,
    /// Where it may be itself, on a local network of ours or wherever somebody says who is believed: no address is too
    /// private for that.
    pub direct: Vec<SocketAddrV4>,
    /// The same, where it says so itself when it is asked there: see `direct`.
    pub told: Vec<SocketAddr>,
}

impl From<Vec<SocketAddrV4>> for Whereabouts {
    fn from(relays: Vec<SocketAddrV4>) -> Self {
        Self { relays, ..Self::default() }
    }
}

/// The server's answer, opened.
#[derive(Debug)]
struct Link {
    keys: SessionKeys,
    remote_id: u32,
    big_datagrams: bool,
    relays: Relays,
}

#[derive(Debug)]
enum State {
    /// Looking for a relay that reaches the server.
    Finding {
        opening: Box<Opening>,
        query: Option<QueryId>,
    },
    /// The server does not lie open: ways to it are tried.
    Trying {
        link: Box<Link>,
        lan: Option<Lan>,
        punch: Option<Box<Punch>>,
        /// How the server is punched to, and when, if its local addresses have not answered by then.
        held: Option<(ToPunch, Instant)>,
        /// When a direct way is late, until that is told; and when none will come.
        late: Option<Instant>,
        end: Option<Instant>,
    },
    Over,
}

/// How the server can be punched to: its word on that, and where the relay of the handshake sees it, and the relay.
#[derive(Debug)]
struct ToPunch {
    info: HolepunchInfo,
    server: SocketAddrV4,
    via: SocketAddrV4,
}

/// One connection attempt.
#[derive(Debug)]
pub(super) struct Connect {
    id: ConnectId,
    pub remote: PublicKey,
    target: NodeId,
    local_id: u32,
    state: State,
    /// We told the server that we are open: it comes to us.
    open: bool,
    /// Relays known from before, not tried yet.
    known: VecDeque<SocketAddrV4>,
    known_busy: bool,
    /// Nodes with a record, not asked yet.
    found: VecDeque<SocketAddrV4>,
    busy: usize,
    /// Handshakes under way to where the peer itself may be.
    direct: usize,
    told: Direct,
    doubtful: Option<Doubtful>,
    asked: Vec<SocketAddrV4>,
    /// Query rounds left: a first one from given relays is repeated from the table.
    rounds: u8,
    effort: Effort,
    had_record: bool,
    /// The relay that we named.
    relay_through: Option<RelayThrough>,
    /// Where the peer is to be looked for next time.
    pub next_relays: Vec<SocketAddrV4>,
    /// When it has a turn for us.
    again_at: Option<Instant>,
}

impl Connect {
    /// Begins; `relays` are asked first and the query starts from them. Meanwhile the peer is asked where it may be itself.
    pub fn start(
        id: ConnectId,
        remote: PublicKey,
        Whereabouts { relays, direct, told }: Whereabouts,
        local_id: u32,
        (effort, relay): (Effort, Option<PublicKey>),
        net: &mut Net,
        now: Instant,
    ) -> Result<Self, ConnectError> {
        let known: VecDeque<_> = relays.iter().copied().filter(|a| net.rpc.is_usable(a)).collect();
        let busy = !known.iter().any(|relay| net.can_knock(relay.ip(), now));
        if effort == Effort::Sparing
            && !known.is_empty()
            && busy
            && direct.is_empty()
            && told.is_empty()
        {
            return Err(ConnectError::RelaysBusy);
        }
        let mut ephemeral = [0; 32];
        net.rng.fill_bytes(&mut ephemeral);
        let relay_through = relay.map(|relay| net.relay_through(relay));
        let payload = net.client_payload(local_id, relay_through);
        let opening = Opening::new(&net.config.key_pair, &remote, &payload, ephemeral);
        let opening = Box::new(opening.ok_or(ConnectError::BadKey)?);
        let mut connect = Self {
            id,
            remote,
            target: NodeId(hash::hash(&[&remote.0])),
            local_id,
            state: State::Finding { opening, query: None },
            open: net.firewall() == Firewall::Open,
            known,
            known_busy: false,
            found: VecDeque::new(),
            busy: 0,
            direct: direct.len(),
            told: Direct::new(&remote, told, net, now),
            doubtful: None,
            asked: Vec::new(),
            rounds: match effort {
                Effort::Near => 0,
                Effort::Whole if !relays.is_empty() => 2,
                _ => 1,
            },
            effort,
            had_record: false,
            relay_through,
            next_relays: Vec::new(),
            again_at: None,
        };
        for addr in direct {
            connect.shake(addr, Road::Direct, net, now);
        }
        if connect.rounds > 0 && (effort == Effort::Whole || connect.known.is_empty()) {
            connect.find(net, now);
        }
        connect.advance(net, now);
        Ok(connect)
    }

    /// Whether an event with the outcome was given.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether the server has spoken.
    pub fn is_answered(&self) -> bool {
        matches!(self.state, State::Trying { .. })
    }

    /// A node of the query answered: one that shows a record knows a way to the server.
    pub fn on_reply(&mut self, reply: &Reply, net: &mut Net, now: Instant) {
        let record = reply.value.as_deref().and_then(|v| PeerRecord::decode(v).ok());
        if record.is_none_or(|r| r.public_key != self.remote) {
            return;
        }
        self.had_record = true;
        let seen = self.asked.contains(&reply.from)
            || self.found.contains(&reply.from)
            || self.known.contains(&reply.from);
        if !seen && self.asked.len() + self.found.len() < MAX_ASKED {
            self.found.push_back(reply.from);
            self.advance(net, now);
        }
    }

    pub fn on_query_done(&mut self, net: &mut Net, now: Instant) {
        if let State::Finding { query, .. } = &mut self.state {
            *query = None;
            self.advance(net, now);
        }
    }

    /// A request was answered, or not (`None`).
    pub fn on_answer(&mut self, step: Step, reply: Option<&Reply>, net: &mut Net, now: Instant) {
        match step {
            Step::Find => {}
            Step::Handshake { via, road } => {
                match road {
                    Road::Direct => self.direct -= 1,
                    Road::Known => self.known_busy = false,
                    Road::Found => self.busy -= 1,
                }
                if let Some(reply) = reply {
                    self.on_handshake_reply(via, reply, net, now);
                }
                self.advance(net, now);
            }
            Step::Lan(addr) => self.on_lan(addr, reply.is_some(), net, now),
            Step::Punch => {
                if let State::Trying { punch: Some(punch), .. } = &mut self.state
                    && let Err(why) = punch.on_answer(reply, net, now)
                {
                    self.on_punch_failed(why, net, now);
                }
                self.tell_if_late(net, now);
            }
        }
    }

    /// Stops all requests.
    pub fn stop(&mut self, net: &mut Net) {
        let id = self.id;
        net.cancel_owner(|o| matches!(o, Owner::Connect(c, _) if *c == id));
        if let State::Trying { punch: Some(punch), .. } =
            std::mem::replace(&mut self.state, State::Over)
        {
            punch.end(net);
        }
    }

    fn find(&mut self, net: &mut Net, now: Instant) {
        self.rounds -= 1;
        let nodes = if self.rounds > 0 { self.known.iter().copied().collect() } else { Vec::new() };
        let spec = QuerySpec {
            nodes,
            retries: QUERY_RETRIES,
            ..QuerySpec::new(command::FIND_PEER, self.target)
        };
        let id = net.query(spec, Owner::Connect(self.id, Step::Find), now);
        if let State::Finding { query, .. } = &mut self.state {
            *query = Some(id);
        }
    }

    /// Sends handshakes while there are slots and nodes, and gives up when nothing is left.
    fn advance(&mut self, net: &mut Net, now: Instant) {
        if !matches!(self.state, State::Finding { .. }) {
            return;
        }
        if let State::Finding { opening, .. } = &self.state {
            self.told.handle_timeout(&opening.message, net, now);
        }
        while !self.known_busy
            && let Some(via) = net.next_way(&mut self.known, true)
        {
            if self.effort == Effort::Sparing && !net.knock(via.ip(), now) {
                continue;
            }
            self.known_busy = true;
            self.shake(via, Road::Known, net, now);
        }
        let all = !matches!(self.state, State::Finding { query: Some(_), .. });
        while self.busy < SLOTS
            && let Some(via) = net.next_way(&mut self.found, all)
        {
            self.busy += 1;
            self.shake(via, Road::Found, net, now);
        }
        let State::Finding { query, .. } = &self.state else { return };
        if query.is_some() || self.busy + self.direct > 0 || self.known_busy {
            return;
        }
        if self.doubtful.is_some() {
            if !self.told.is_under_way() {
                self.take_doubtful(net, now);
            }
        } else if self.rounds > 0 {
            self.find(net, now);
        } else if !self.told.is_under_way() {
            let tried = !self.asked.is_empty() || self.told.was_tried();
            let why = if self.had_record || tried {
                ConnectError::PeerConnectionFailed
            } else {
                ConnectError::PeerNotFound
            };
            self.fail(why, net);
        }
    }

    fn shake(&mut self, via: SocketAddrV4, road: Road, net: &mut Net, now: Instant) {
        let State::Finding { opening, .. } = &self.state else { return };
        let noise = opening.message.clone();
        let m = PeerHandshake { mode: Mode::FromClient, noise, peer: None, relay: None };
        let ask = Ask {
            target: Some(self.target),
            value: Some(m.encode()),
            retries: match (road, self.effort) {
                (Road::Known, Effort::Sparing) => 0,
                _ => RETRIES,
            },
            hasty: self.effort == Effort::Whole,
            ..Ask::new(via, command::PEER_HANDSHAKE)
        };
        self.asked.push(via);
        net.ask(ask, Owner::Connect(self.id, Step::Handshake { via, road }), now);
    }

    fn on_handshake_reply(
        &mut self,
        via: SocketAddrV4,
        reply: &Reply,
        net: &mut Net,
        now: Instant,
    ) {
        let State::Finding { opening, .. } = &mut self.state else { return };
        if reply.error != error::NONE {
            return;
        }
        let Some(m) = reply.value.as_deref().and_then(|v| PeerHandshake::decode(v).ok()) else {
            return;
        };
        if m.mode != Mode::Reply {
            return;
        }
        // Nobody outside makes us write into our local networks. The way through another relay stays open.
        if m.peer.is_some_and(|peer| !net.rpc.is_usable(&peer)) {
            tracing::debug!(%via, "a relay names an address that cannot be the peer's, ignored");
            return;
        }
        let Some(answer) = opening.read(&m.noise) else {
            tracing::debug!(%via, "handshake answer does not open, ignored");
            return;
        };
        let Answer::Payload(payload) = answer else {
            return self.fail(ConnectError::HandshakeInvalid, net);
        };
        let by = (via, m.peer, reply.to);
        if !self.keep_back(&payload, by, net, now) {
            self.on_answer_payload(by, payload, net, now);
        }
    }

    /// The server has spoken: nothing else about this handshake matters any more.
    fn on_answer_payload(
        &mut self,
        (via, seen_at, own): By,
        payload: NoisePayload,
        net: &mut Net,
        now: Instant,
    ) {
        let Some(link) = self.open(&payload, net) else { return };
        if link.relays.ask.is_some() {
            let agreed = self.agreed(&link, None);
            net.events.push_back(DhtEvent::Answered { connect: self.id, agreed });
        }
        let Some(server) = seen_at else {
            return self.succeed(&link, Some(via), net);
        };
        let relayed = server != via;
        let info = payload.holepunch.clone().filter(|info| !info.relays.is_empty());
        let holepunchable = info.is_some();
        let then = info.map(|info| ToPunch { info, server, via });
        if payload.firewall == Firewall::Open || (relayed && !holepunchable) {
            return match first_public(&payload.addresses4, server) {
                to if to.port() != 0 => self.succeed(&link, Some(to), net),
                _ => self.fail(ConnectError::HandshakeInvalid, net),
            };
        }
        if self.open {
            return self.succeed(&link, None, net);
        }
        let candidates = lan::candidates(&payload, net);
        // Where most nodes see us is known better than from this one relay.
        let host = net.rpc.nat().host().filter(|_| !net.is_here(server.ip()));
        let same_host = own.ip() == server.ip() && host.is_none_or(|host| host == *server.ip());
        let beside = relayed && same_host && !candidates.is_empty();
        self.begin_trying((link, beside.then(|| Lan::new(candidates)), then), net, now);
    }

    /// What was agreed on; none if that was nothing, which is told.
    fn open(&mut self, payload: &NoisePayload, net: &mut Net) -> Option<Box<Link>> {
        let id = self.id;
        net.cancel_owner(|o| matches!(o, Owner::Connect(c, _) if *c == id));
        let State::Finding { opening, .. } = std::mem::replace(&mut self.state, State::Over) else {
            return None;
        };
        let (Some(keys), Some(udx)) = (opening.finish(), &payload.udx) else {
            let why = match payload.version {
                NoisePayload::VERSION => ConnectError::ServerError(payload.error),
                other => ConnectError::ServerIncompatible(other),
            };
            self.fail(why, net);
            return None;
        };
        if payload.error != NoisePayload::ERROR_NONE {
            self.fail(ConnectError::ServerError(payload.error), net);
            return None;
        }
        self.next_relays = payload.relay_addresses.clone().unwrap_or_else(|| self.asked.clone());
        let big_datagrams = udx.big_datagrams && net.config.big_datagrams;
        let relays = Relays {
            ask: Net::relay_ask(payload.relay_through, self.relay_through),
            offered: payload.relay,
        };
        Some(Box::new(Link { keys, remote_id: udx.id, big_datagrams, relays }))
    }

    fn succeed(&mut self, link: &Link, dial: Option<SocketAddrV4>, net: &mut Net) {
        self.succeed_from(link, dial.map(|to| Dial { socket: SocketId::MAIN, to: to.into() }), net);
    }

    fn succeed_from(&mut self, link: &Link, dial: Option<Dial>, net: &mut Net) {
        self.state = State::Over;
        let agreed = self.agreed(link, dial);
        net.events.push_back(DhtEvent::Outgoing { connect: self.id, agreed });
    }

    fn agreed(&self, link: &Link, dial: Option<Dial>) -> Agreed {
        Agreed {
            keys: link.keys.clone(),
            local_id: self.local_id,
            remote_id: link.remote_id,
            dial,
            big_datagrams: link.big_datagrams,
            relays: link.relays,
        }
    }

    fn fail(&mut self, why: ConnectError, net: &mut Net) {
        self.stop(net);
        net.events.push_back(DhtEvent::ConnectFailed {
            connect: self.id,
            remote: self.remote,
            why,
        });
    }
}
