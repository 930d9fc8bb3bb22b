//! The client's side of a hole punch: what it asks the server through relays, and in which order.
//!
//! ```text
//! probe   via a relay of the server: who are you, and here am I   ─▶ its NAT, its addresses, a token
//! ask     via the relay of the handshake if it is one of those, with that token ─▶ it punches; we do
//! ```
//!
//! A punch may arrive at any time from the first message on: a server with a consistent NAT sends one as soon as it hears
//! that we opened our side towards it.
//!
//! Source: hyperdht/lib/connect.js:holepunch, probeRound, roundPunch

#[cfg(test)]
mod tests;

use crate::key::NodeId;
use crate::swarm::dht_rpc::{Ask, Reply};
use crate::swarm::hyperdht::event::{ConnectError, ConnectId};
use crate::swarm::hyperdht::handshake::holepunch_secret;
use crate::swarm::hyperdht::messages::{
    Firewall, HolepunchInfo, HolepunchPayload, Mode, NoisePayload, PeerHolepunch, PeerRecord,
    RelayInfo, command,
};
use crate::swarm::hyperdht::net::Net;
use crate::swarm::hyperdht::owner::{ConnectStep, Owner};
use crate::swarm::hyperdht::punch::{self, Aim, Punching, Remote};
use crate::swarm::hyperdht::secure_payload::SecurePayload;
use crate::swarm::hyperdht::turns::{Role, Turn};
use rand::RngCore;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// What a server that does not know its NAT yet gets to find out, as in the reference.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether it is our turn.
const QUEUE: Duration = Duration::from_millis(100);
/// The same of a server that has no turn for us, and how long it may take to have one.
const TRY_LATER: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);
/// Probes in all.
const PROBES: u32 = 4;
/// How often a server hears of us while we wait.
const REMIND: Duration = Duration::from_secs(4);
/// How long punches may take beyond the last of ours.
const LAST: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Stage {
    Probing,
    /// Until the next probe.
    Pausing(Instant),
    /// Others are punching with as many ports or sockets as may be: until it is looked again.
    Queueing(Instant),
    Asking(Turn),
    Punching(Punching),
}

/// One attempt.
pub(super) struct Punch {
    connect: ConnectId,
    target: NodeId,
    secure: SecurePayload,
    /// The server's number for the attempt.
    id: u64,
    /// Where the relay of the handshake sees the server.
    server: SocketAddrV4,
    /// Through whom it is asked to punch, first that relay, and where that one sees it.
    via: (SocketAddrV4, SocketAddrV4),
    /// Relays of the server, the one to ask first.
    relays: VecDeque<RelayInfo>,
    remote: Remote,
    round: u64,
    probes: u32,
    token: Option<[u8; 32]>,
    /// Until when a server may have no turn for us, and when it first had none.
    patience: Instant,
    put_off: Option<Instant>,
    /// When something was last said.
    spoke: Instant,
    stage: Stage,
}

impl std::fmt::Debug for Punch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Punch").field("server", &self.server).field("stage", &self.stage).finish()
    }
}

impl Punch {
    /// Opens our side, and asks. None if the server named no relay.
    pub fn start(
        connect: ConnectId,
        target: NodeId,
        handshake: &[u8; 64],
        info: HolepunchInfo,
        (server, via): (SocketAddrV4, SocketAddrV4),
        net: &mut Net,
        now: Instant,
    ) -> Option<Self> {
        let mut relays: VecDeque<_> = info.relays.into();
        // It may name anybody.
        relays.truncate(PeerRecord::MAX_RELAYS);
        relays.retain(|RelayInfo { relay, peer }| {
            net.rpc.is_usable(relay)
                && net.rpc.is_usable(peer)
                && (*relay == via || net.knock(relay.ip(), now))
        });
        if let Some(same) = relays.iter().position(|info| info.relay == via) {
            relays.swap(0, same);
        }
        // One that the server does not name, since the answer that made it a relay was lost, say, may be none that it
        // believes who is where.
        let first = relays.front().copied()?;
        let through = if first.relay == via { (via, server) } else { (first.relay, first.peer) };
        let mut local = [0; 32];
        net.rng.fill_bytes(&mut local);
        let secure = SecurePayload::new(holepunch_secret(handshake), local);
        punch::open_towards(server, net, now);
        let mut punch = Self {
            connect,
            target,
            secure,
            id: info.id,
            server,
            via: through,
            relays,
            remote: Remote::new(Firewall::Unknown),
            round: 0,
            probes: 0,
            token: None,
            patience: now + PATIENCE,
            put_off: None,
            spoke: now,
            stage: Stage::Probing,
        };
        punch.probe(net, now);
        Some(punch)
    }

    fn probe(&mut self, net: &mut Net, now: Instant) {
        let Some(relay) = self.relays.front().copied() else { return };
        self.probes += 1;
        self.stage = Stage::Probing;
        let payload = HolepunchPayload { remote_address: Some(self.server), ..self.said(net) };
        self.say(payload, relay.relay, relay.peer, net, now);
    }

    fn ask(&mut self, net: &mut Net, now: Instant) {
        let sort = punch::sort(net.nat_verdict().0, self.remote.firewall, *self.server.ip());
        let Some(turn) = net.punching.take(Role::Client, sort, now) else {
            self.stage = Stage::Queueing(now + QUEUE);
            return;
        };
        self.stage = Stage::Asking(turn);
        self.say_ask(net, now);
    }

    fn say_ask(&mut self, net: &mut Net, now: Instant) {
        let payload = HolepunchPayload {
            punching: true,
            token: Some(self.secure.token(self.server.ip())),
            remote_token: self.token,
            ..self.said(net)
        };
        let (relay, peer) = self.via;
        self.say(payload, relay, peer, net, now);
    }

    /// The server forgets whom it has not heard for some seconds.
    fn remind(&mut self, net: &mut Net, now: Instant) {
        let (payload, (relay, peer)) = (self.said(net), self.via);
        self.say(payload, relay, peer, net, now);
    }

    fn said(&mut self, net: &Net) -> HolepunchPayload {
        let (firewall, addresses) = net.nat_verdict();
        let round = self.round;
        self.round += 1;
        let addresses = (!addresses.is_empty()).then_some(addresses);
        HolepunchPayload { round, addresses, ..HolepunchPayload::said(firewall) }
    }

    fn say(
        &mut self,
        payload: HolepunchPayload,
        relay: SocketAddrV4,
        peer: SocketAddrV4,
        net: &mut Net,
        now: Instant,
    ) {
        self.spoke = now;
        let mut nonce = [0; 24];
        net.rng.fill_bytes(&mut nonce);
        let payload = self.secure.seal(&payload, nonce);
        let m = PeerHolepunch { mode: Mode::FromClient, id: self.id, payload, peer: Some(peer) };
        let ask = Ask {
            target: Some(self.target),
            value: Some(m.encode()),
            hasty: true,
            ..Ask::new(relay, command::PEER_HOLEPUNCH)
        };
        net.ask(ask, Owner::Connect(self.connect, ConnectStep::Punch), now);
    }

    /// The server answered, or did not (`None`).
    pub fn on_answer(
        &mut self,
        reply: Option<&Reply>,
        net: &mut Net,
        now: Instant,
    ) -> Result<(), ConnectError> {
        let told = reply.and_then(|reply| {
            let m = PeerHolepunch::decode(reply.value.as_deref()?).ok()?;
            let told = self.secure.open(&m.payload).filter(|_| m.mode == Mode::Reply)?;
            Some((told, m.peer))
        });
        let Some((told, seen_at)) = told else { return self.on_silence(net, now) };
        // The answer to what was said while we waited.
        let stale = told.error == NoisePayload::ERROR_NONE
            && told.round.saturating_add(1) < self.round
            && matches!(self.stage, Stage::Asking(_));
        if stale {
            return Ok(());
        }
        if told.error == NoisePayload::ERROR_TRY_LATER && now < self.patience {
            self.put_off.get_or_insert(now);
            self.enter(Stage::Queueing(now + TRY_LATER), net);
            return Ok(());
        }
        if told.error != NoisePayload::ERROR_NONE {
            return Err(ConnectError::ServerError(told.error));
        }
        let asked = matches!(self.stage, Stage::Asking(_));
        let echoed = asked && told.remote_token == Some(self.secure.token(self.server.ip()));
        self.remote.update(&told, echoed.then_some(*self.server.ip()));
        let (ours, _) = net.nat_verdict();
        tracing::debug!(server = %self.server, ?ours, theirs = ?told.firewall, round = self.round, "punching");
        match self.stage {
            Stage::Probing => {
                self.token = told.token.or(self.token);
                self.moved(seen_at, net, now);
                let unsure = [ours, told.firewall].contains(&Firewall::Unknown);
                if unsure || self.token.is_none() {
                    if self.probes >= PROBES {
                        return Err(ConnectError::HolepunchFailed);
                    }
                    self.stage = Stage::Pausing(if unsure { now + PAUSE } else { now });
                } else if [ours, told.firewall] == [Firewall::Random; 2] {
                    return Err(ConnectError::CannotHolepunch);
                } else {
                    self.ask(net, now);
                }
            }
            Stage::Asking(_) => {
                let aim = Aim::of(ours, &self.remote).filter(|_| told.punching);
                let aim = aim.ok_or(ConnectError::HolepunchFailed)?;
                match std::mem::replace(&mut self.stage, Stage::Probing) {
                    Stage::Asking(turn) if turn.sort == aim.sort() => {
                        self.stage = Stage::Punching(Punching::start(aim, turn, net, now));
                        self.handle_timeout(net, now)?;
                    }
                    // It says something else than before.
                    stage => {
                        self.stage = stage;
                        return Err(ConnectError::HolepunchFailed);
                    }
                }
            }
            Stage::Pausing(_) | Stage::Queueing(_) | Stage::Punching(_) => {}
        }
        Ok(())
    }

    /// Another relay of the server may reach it.
    fn on_silence(&mut self, net: &mut Net, now: Instant) -> Result<(), ConnectError> {
        match self.stage {
            Stage::Probing => {
                self.relays.pop_front();
                if self.relays.is_empty() {
                    return Err(ConnectError::HolepunchFailed);
                }
                self.probe(net, now);
            }
            Stage::Asking(_) => {
                let through = self.via.0;
                self.relays.retain(|info| info.relay != through);
                let next = self.relays.pop_front().ok_or(ConnectError::HolepunchFailed)?;
                self.via = (next.relay, next.peer);
                self.say_ask(net, now);
            }
            Stage::Pausing(_) | Stage::Queueing(_) | Stage::Punching(_) => {}
        }
        Ok(())
    }

    /// A server of the reference may answer from another socket than shook hands, if the first has no steady address. The
    /// relay of the handshake sees it there.
    fn moved(&mut self, seen_at: Option<SocketAddrV4>, net: &mut Net, now: Instant) {
        let probed = self.relays.front().map(|info| info.relay);
        let to = seen_at.filter(|to| probed == Some(self.via.0) && net.rpc.is_usable(to));
        if let Some(to) = to.filter(|to| *to != self.server) {
            (self.server, self.via.1) = (to, to);
            punch::open_towards(to, net, now);
        }
    }

    /// When the server first had no turn for us. One of the reference has forgotten us with that word.
    pub fn put_off(&self) -> Option<Instant> {
        self.put_off
    }

    /// It is over, with a way or without.
    pub fn end(mut self, net: &mut Net) {
        self.enter(Stage::Probing, net);
    }

    /// Leaves a stage, and gives back what it has.
    fn enter(&mut self, stage: Stage, net: &mut Net) {
        match std::mem::replace(&mut self.stage, stage) {
            Stage::Asking(turn) => net.punching.give_back(turn),
            Stage::Punching(punching) => punching.end(net),
            Stage::Probing | Stage::Pausing(_) | Stage::Queueing(_) => {}
        }
    }

    /// Whether it takes seconds rather than round trips: ports are tried, or there is no turn yet.
    pub fn is_slow(&self, net: &Net) -> bool {
        let queues = matches!(self.stage, Stage::Queueing(_) | Stage::Pausing(_));
        queues || [net.nat_verdict().0, self.remote.firewall].contains(&Firewall::Random)
    }

    /// Whether a punch from there is the server's. Of a host with random ports it may be another's who is there too, unless
    /// it is ours that we try.
    pub fn is_at(&self, from: &SocketAddrV4) -> bool {
        let tries = matches!(self.stage, Stage::Punching(_));
        *from == self.server || self.remote.is_at(from, tries)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Pausing(until) | Stage::Queueing(until) => Some(*until),
            Stage::Punching(punching) => {
                Some(punching.poll_timeout().unwrap_or(punching.next() + LAST))
            }
            Stage::Probing | Stage::Asking(_) => None,
        }
    }

    pub fn handle_timeout(&mut self, net: &mut Net, now: Instant) -> Result<(), ConnectError> {
        match &mut self.stage {
            Stage::Pausing(until) if *until <= now => self.probe(net, now),
            Stage::Queueing(until) if *until <= now => {
                self.ask(net, now);
                if matches!(self.stage, Stage::Queueing(_)) && now >= self.spoke + REMIND {
                    self.remind(net, now);
                }
            }
            Stage::Punching(punching) => {
                if punching.poll_timeout().is_none() && punching.next() + LAST <= now {
                    return Err(ConnectError::HolepunchFailed);
                }
                punching.handle_timeout(&self.remote, net, now);
            }
            _ => {}
        }
        Ok(())
    }
}
