//! The listening side: one key, its announcement, and the handshakes that reach it.
//!
//! A client's handshake may arrive through several relays at once; it is known by its bytes and gets the
//! same answer each time, so it makes one stream. The answer offers an open address if we have one; else, to a client behind
//! the same public host, our addresses on the local networks (and our relays, without which it would not try those);
//! else to punch (`sessions`), if our NAT shows everybody the same address; else, and to a client on this machine, the
//! address that the relay sees, while we open our own NAT towards the client.
//!
//! Source: hyperdht/lib/server.js

use super::announcer::Announcer;
use super::blocked::Blocked;
use super::event::{Agreed, DhtEvent, Dial, RelayAsk, Relays};
use super::handshake::Answering;
use super::handshake_allowance::{ANSWERED_BURST, ANSWERED_RATE, HandshakeAllowance};
use super::messages::{
    Firewall, HolepunchInfo, Mode, NoisePayload, PeerHandshake, RelayThrough, UdxInfo,
};
use super::net::Net;
use super::punch;
use super::sessions::{Client, Sessions};
use crate::crypto::{Hash, KeyPair, hash};
use crate::key::{NodeId, PublicKey};
use crate::swarm::SocketId;
use crate::swarm::dht_rpc::Incoming;
use crate::swarm::socket::host_of;
use rand::seq::IteratorRandom;
use rand::{Rng, RngCore};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer is kept for copies of its handshake.
const HANDSHAKE_KEEP: Duration = Duration::from_secs(20);
/// Answers kept: as many as may be given in [`HANDSHAKE_KEEP`], and some more.
const MAX_HANDSHAKES: usize =
    ANSWERED_BURST + ANSWERED_RATE * HANDSHAKE_KEEP.as_secs() as usize + 104;
/// When a datagram is sent towards a client that will dial us, so that our NAT lets it in.
const OPENINGS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(150),
    Duration::from_millis(600),
    Duration::from_millis(1800),
];
/// Openings waiting for their time.
const MAX_OPENINGS: usize = 256;

/// What a client is answered.
struct Given {
    answer: Vec<u8>,
    /// What it says of our NAT.
    firewall: Firewall,
    /// The number of the stream that was agreed on, and the hash of the handshake.
    stream: Option<(u32, [u8; 64])>,
}

/// A key that is listened on.
pub(super) struct Server {
    pub key_pair: Arc<KeyPair>,
    pub announcer: Announcer,
    /// By the hash of the handshake's bytes: the answer, none for those that get none.
    answers: BTreeMap<Hash, Option<Vec<u8>>>,
    by_age: VecDeque<(Instant, Hash)>,
    openings: VecDeque<(Instant, SocketAddrV4)>,
    allowance: HandshakeAllowance,
    pub sessions: Sessions,
}

impl Server {
    pub fn start(key_pair: Arc<KeyPair>, target: NodeId, net: &mut Net, now: Instant) -> Self {
        Self {
            announcer: Announcer::start(key_pair.clone(), target, net, now),
            key_pair,
            answers: BTreeMap::new(),
            by_age: VecDeque::new(),
            openings: VecDeque::new(),
            allowance: HandshakeAllowance::new(net.rng.random(), now),
            sessions: Sessions::default(),
        }
    }

    /// The answer to a handshake; `None` if it gets none. A new one makes a [`DhtEvent::Incoming`].
    pub fn on_handshake(
        &mut self,
        m: &PeerHandshake,
        incoming: &Incoming,
        blocked: &Blocked,
        net: &mut Net,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let id = hash::hash(&[&m.noise]);
        if let Some(answer) = self.answers.get(&id) {
            return answer.clone();
        }
        // Our relays tell the truth about who asked them; of a second one they know only whom they were asked by, and
        // any other node speaks for itself. What comes may be from a forged source, so whoever gets the answer pays.
        let ours = self.announcer.is_relay(&incoming.from);
        let told = m.peer.filter(|_| ours && m.mode == Mode::FromRelay);
        let answered = m.relay.filter(|_| m.mode == Mode::FromSecondRelay);
        let source = told.or(answered).unwrap_or(incoming.from);
        let host = (*source.ip(), told.is_some());
        let client = self.read(&m.noise, IpAddr::V4(host.0), host.1, net, now)?;
        let answer = self.answer((client, host), m, incoming, blocked, net, now);
        self.keep(id, answer.clone(), now);
        answer
    }

    /// The answer to a handshake that its client sent to us from `from`, without a relay.
    pub fn on_direct(
        &mut self,
        noise: &[u8],
        from: SocketAddr,
        blocked: &Blocked,
        net: &mut Net,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let id = hash::hash(&[noise]);
        if let Some(answer) = self.answers.get(&id) {
            return answer.clone();
        }
        let mut client = self.read(noise, host_of(&from), false, net, now)?;
        // The way is known.
        client.payload.relay_through = None;
        let refused = client.remote.0 == self.key_pair.public() || blocked.has(&client.remote, now);
        let dial = Dial { socket: SocketId::towards(&from), to: from };
        let answer = if refused {
            None
        } else {
            self.agree(client, Some(dial), (false, None, None), net).map(|given| given.answer)
        };
        self.keep(id, answer.clone(), now);
        answer
    }

    /// What a handshake says, if its sender has not had his allowance.
    fn read(
        &mut self,
        noise: &[u8],
        source: IpAddr,
        relayed: bool,
        net: &mut Net,
        now: Instant,
    ) -> Option<Answering> {
        let chance = net.rng.random();
        let Some(sort) = self.allowance.read(&source, relayed, chance, now) else {
            tracing::debug!(from = %source, "too many handshakes, one dropped");
            return None;
        };
        let mut ephemeral = [0; 32];
        net.rng.fill_bytes(&mut ephemeral);
        // What does not open costs its sender's allowance and nobody else's.
        let client = Answering::read(&self.key_pair, noise, ephemeral)?;
        if !self.allowance.answer(sort, net.rng.random(), now) {
            tracing::debug!(from = %source, "too many clients, one gets no answer");
            return None;
        }
        Some(client)
    }

    fn keep(&mut self, id: Hash, answer: Option<Vec<u8>>, now: Instant) {
        self.answers.insert(id, answer);
        self.by_age.push_back((now + HANDSHAKE_KEEP, id));
        if self.by_age.len() > MAX_HANDSHAKES
            && let Some((_, oldest)) = self.by_age.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// A peer was at `host`: its next handshakes come from who it says.
    pub fn connected(&mut self, host: IpAddr) {
        self.allowance.connected(host);
    }

    #[cfg(test)]
    pub fn is_known(&self, host: IpAddr) -> bool {
        self.allowance.is_known(host)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let openings = self.openings.iter().map(|(at, _)| *at).min();
        let oldest = self.by_age.front().map(|(at, _)| *at);
        let sessions = self.sessions.poll_timeout();
        [self.announcer.poll_timeout(), openings, oldest, sessions].into_iter().flatten().min()
    }

    pub fn handle_timeout(&mut self, net: &mut Net, now: Instant) {
        self.announcer.handle_timeout(net, now);
        while let Some((at, id)) = self.by_age.front()
            && *at <= now
        {
            self.answers.remove(id);
            self.by_age.pop_front();
        }
        self.sessions.handle_timeout(net, now);
        self.openings.retain(|(at, to)| {
            if *at <= now {
                punch::punch(*to, net, now);
            }
            *at > now
        });
    }

    fn answer(
        &mut self,
        (client, (host, trusted)): (Answering, (Ipv4Addr, bool)),
        m: &PeerHandshake,
        incoming: &Incoming,
        blocked: &Blocked,
        net: &mut Net,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let remote = client.remote;
        if remote.0 == self.key_pair.public() || blocked.has(&remote, now) {
            return None;
        }
        let direct = m.peer.is_none();
        let from = m.peer.unwrap_or(incoming.from);
        if !(net.rpc.is_usable(&from) || direct && net.is_near(&from)) {
            return None;
        }
        let theirs = client.payload.firewall;
        let same_host = from.ip() == incoming.request.to.ip();
        // A client on this very machine needs no way around a router.
        let lan = same_host && !net.is_here(from.ip()) && net.has_lan_address();
        let here = net.is_here(from.ip());
        let punch = !direct && !here && theirs != Firewall::Open && self.can_punch(net);
        let relay = self.names_relay(&remote, net, now).map(|relay| net.relay_through(relay));
        let dial = (direct || theirs == Firewall::Open)
            .then_some(Dial { socket: incoming.socket, to: from.into() });
        let Given { answer, firewall, stream } =
            self.agree(client, dial, (lan || punch, relay, trusted.then_some(host)), net)?;
        let Some((local_id, hash)) = stream else { return Some(answer) };
        if punch {
            let client = Client { host, trusted, firewall: theirs };
            self.sessions.begin(&hash, local_id, client, net, now);
        } else if dial.is_none() && !same_host && firewall != Firewall::Open {
            self.open_towards(from, now);
        }
        Some(answer)
    }

    /// Answers a client. With one that we understand a stream is agreed on.
    fn agree(
        &mut self,
        client: Answering,
        dial: Option<Dial>,
        (punch, relay, at): (bool, Option<RelayThrough>, Option<Ipv4Addr>),
        net: &mut Net,
    ) -> Option<Given> {
        let theirs = client.payload.clone();
        let udx = theirs.udx.filter(|_| theirs.version == NoisePayload::VERSION);
        let local_id = net.rng.random_range(1..=u32::MAX);
        let mut payload = self.payload(&theirs, local_id, punch, net);
        payload.relay_through = relay;
        payload.relay = net.config.relay;
        // Ours, if both name one.
        let ask = match relay {
            Some(relay) => Net::relay_ask(None, Some(relay)),
            None => {
                let client = Some(at.unwrap_or(Ipv4Addr::UNSPECIFIED).into());
                Net::relay_ask(theirs.relay_through, None).map(|ask| RelayAsk { client, ..ask })
            }
        };
        let (answer, keys) = client.reply(&payload)?;
        let firewall = payload.firewall;
        let Some(udx) = udx else { return Some(Given { answer, firewall, stream: None }) };
        let stream = Some((local_id, keys.hash));
        net.events.push_back(DhtEvent::Incoming {
            local: self.key_pair.clone(),
            agreed: Agreed {
                keys,
                local_id,
                remote_id: udx.id,
                dial,
                big_datagrams: udx.big_datagrams && net.config.big_datagrams,
                relays: Relays { ask, offered: theirs.relay },
            },
        });
        Some(Given { answer, firewall, stream })
    }

    fn payload(
        &mut self,
        theirs: &NoisePayload,
        local_id: u32,
        punch: bool,
        net: &Net,
    ) -> NoisePayload {
        let error = match (theirs.version, &theirs.udx) {
            (NoisePayload::VERSION, Some(_)) => NoisePayload::ERROR_NONE,
            (NoisePayload::VERSION, None) => NoisePayload::ERROR_ABORTED,
            _ => NoisePayload::ERROR_VERSION,
        };
        let firewall = net.firewall();
        let relays = self.announcer.relays();
        let punch = punch && firewall != Firewall::Open && !relays.is_empty();
        let id = self.sessions.next_id();
        let holepunch = punch.then(|| HolepunchInfo { id, relays: relays.to_vec() });
        let relay_addresses = self.announcer.relay_addresses(net);
        NoisePayload {
            error,
            firewall,
            holepunch,
            addresses4: net.addresses(),
            udx: Some(UdxInfo {
                reusable_socket: false,
                big_datagrams: net.config.big_datagrams,
                id: local_id,
                seq: 0,
            }),
            secret_stream: true,
            relay_addresses: (!relay_addresses.is_empty()).then_some(relay_addresses),
            ..NoisePayload::empty(NoisePayload::VERSION)
        }
    }

    /// The relay that clients are to go through. Nobody goes to a relay through another.
    fn names_relay(&self, to: &PublicKey, net: &mut Net, now: Instant) -> Option<PublicKey> {
        if net.config.relay.is_some_and(|relay| relay.key.0 == self.key_pair.public()) {
            return None;
        }
        let silent = &net.silent_relays;
        let fit = net.config.relays.iter().filter(|relay| !silent.has(relay, to, now));
        fit.choose(&mut net.rng).copied()
    }

    /// Whether we know of our NAT what a client who punches must be told.
    fn can_punch(&self, net: &Net) -> bool {
        let known = matches!(net.nat_verdict().0, Firewall::Consistent | Firewall::Random);
        known && !self.announcer.relays().is_empty()
    }

    /// The client dials the address its relay knows: our NAT must have seen us write to the client's.
    fn open_towards(&mut self, client: SocketAddrV4, now: Instant) {
        if self.openings.len() + OPENINGS.len() <= MAX_OPENINGS {
            self.openings.extend(OPENINGS.map(|after| (now + after, client)));
        }
    }
}
