//! The listening side: one key, its announcement, and the handshakes that reach it.
//!
//! A client's handshake may arrive through several relays at once; it is known by its bytes and gets the
//! same answer from all of them, so it makes one stream. Who brings it in his own name gets another ([`Way`]): any node that
//! sees a handshake may do so. The answer to a relay offers an open address if we have one; else, to a client behind
//! the same public host, our addresses on the local networks (and our relays, without which it would not try those);
//! else to punch (`sessions`), if our NAT shows everybody the same address; else, and to a client on this machine, the
//! address that the relay sees, while we open our own NAT towards the client.
//!
//! Source: hyperdht/lib/server.js

use super::announcer::Announcer;
use super::blocked::Blocked;
use super::event::{Agreed, DhtEvent, Dial, RelayAsk, Relays};
use super::handshake::{Answering, ROOMY};
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

/// Answers to one handshake beside the one that relays get.
const MAX_DIRECT: usize = 4;

/// By which way a handshake came: through relays, or from this host itself, which may be anybody who saw it. What one is
/// answered must not be what the other gets: a relay's client is to punch, which nobody has to who is there himself.
type Way = Option<IpAddr>;

/// What was answered to a handshake, nothing if it got no answer, and the stream that was made for it.
struct Answered {
    noise: Option<Vec<u8>>,
    stream: Option<u32>,
    /// Its client came over that stream: the others lead to nobody.
    arrived: bool,
}

/// What a client is to be answered.
#[derive(Default)]
struct Offer {
    /// That it may punch, or come by the local network.
    punch: bool,
    relay: Option<RelayThrough>,
    /// Where one of our relays sees it.
    at: Option<Ipv4Addr>,
    /// The length of its handshake, if little is said: it came without a relay, or is short and says that its client is open,
    /// who is written to as well. Somebody else may be there, who gets the answer, also by a relay, and our first packets:
    /// together no more than three times the bytes of that.
    little: Option<usize>,
}

/// Addresses in an answer that says little.
const FEW_ADDRESSES: usize = 3;

impl Answered {
    const NONE: Self = Self { noise: None, stream: None, arrived: false };
}

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
    /// By the hash of the handshake's bytes.
    answers: BTreeMap<(Hash, Way), Answered>,
    by_age: VecDeque<(Instant, (Hash, Way))>,
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
        // Where the client is.
        let (direct, from) = match m.mode {
            Mode::FromClient => (true, incoming.from),
            Mode::FromRelay | Mode::FromSecondRelay => (false, m.peer?),
            Mode::FromServer | Mode::Reply => return None,
        };
        if !(net.rpc.is_usable(&from) || direct && net.is_near(&from)) {
            return None;
        }
        // Our relays tell the truth about who asked them; of a second one they know only whom they were asked by, and
        // any other node speaks for itself. What comes may be from a forged source, so whoever gets the answer pays.
        let ours = self.announcer.is_relay(&incoming.from);
        let told = m.peer.filter(|_| ours && m.mode == Mode::FromRelay);
        let answered = m.relay.filter(|_| m.mode == Mode::FromSecondRelay);
        let source = told.or(answered).unwrap_or(incoming.from);
        let host = (*source.ip(), told.is_some());
        let way = way_of(&m.noise, direct.then_some(IpAddr::V4(*from.ip())), net);
        if let Some(answered) = self.answered(&way) {
            let (noise, stream) = (answered.noise.clone(), answered.stream);
            if let (Some(told), Some(stream)) = (told, stream) {
                self.sessions.told_again(stream, *told.ip(), incoming.from);
            }
            return noise;
        }
        let client = self.read(&m.noise, IpAddr::V4(host.0), host.1, net, now)?;
        let from = if direct { from } else { said_place(&client.payload, from)? };
        let brought = (from, direct, m.noise.len());
        let given = self.answer((client, host), brought, incoming, blocked, net, now);
        self.keep(way, given, now)
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
        let way = way_of(noise, Some(host_of(&from)), net);
        if let Some(answered) = self.answered(&way) {
            return answered.noise.clone();
        }
        let mut client = self.read(noise, host_of(&from), false, net, now)?;
        // The way is known.
        client.payload.relay_through = None;
        let refused = client.remote.0 == self.key_pair.public() || blocked.has(&client.remote, now);
        let dial = Dial { socket: SocketId::towards(&from), to: from };
        let offer = Offer { little: Some(noise.len()), ..Offer::default() };
        let given = (!refused).then(|| self.agree(client, Some(dial), offer, net)).flatten();
        self.keep(way, given, now)
    }

    /// What a handshake was answered that came by this way, or has led its client to us by another.
    fn answered(&self, way: &(Hash, Way)) -> Option<&Answered> {
        let all = || self.answers.range((way.0, None)..).take_while(|((id, _), _)| *id == way.0);
        let arrived = all().find(|(_, answered)| answered.arrived).map(|(_, answered)| answered);
        let same = || self.answers.get(way);
        let full = || all().filter(|((_, way), _)| way.is_some()).nth(MAX_DIRECT - 1);
        let none = || way.1.and_then(|_| full()).map(|_| &Answered::NONE);
        arrived.or_else(same).or_else(none)
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

    fn keep(&mut self, way: (Hash, Way), given: Option<Given>, now: Instant) -> Option<Vec<u8>> {
        let stream = given.as_ref().and_then(|given| given.stream).map(|(stream, _)| stream);
        let noise = given.map(|given| given.answer);
        self.answers.insert(way, Answered { noise: noise.clone(), stream, arrived: false });
        self.by_age.push_back((now + HANDSHAKE_KEEP, way));
        if self.by_age.len() > MAX_HANDSHAKES
            && let Some((_, oldest)) = self.by_age.pop_front()
        {
            self.answers.remove(&oldest);
        }
        noise
    }

    /// The client of `stream` is there.
    pub fn arrived(&mut self, stream: u32) {
        let of = |answered: &&mut Answered| answered.stream == Some(stream);
        if let Some(answered) = self.answers.values_mut().find(of) {
            answered.arrived = true;
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
        (from, direct, len): (SocketAddrV4, bool, usize),
        incoming: &Incoming,
        blocked: &Blocked,
        net: &mut Net,
        now: Instant,
    ) -> Option<Given> {
        let remote = client.remote;
        if remote.0 == self.key_pair.public() || blocked.has(&remote, now) {
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
        let at = trusted.then_some(host);
        let little = dial.map(|_| len).filter(|len| direct || *len < ROOMY);
        let offer = Offer { punch: lan || punch, relay, at, little };
        let given = self.agree(client, dial, offer, net)?;
        let Some((local_id, hash)) = given.stream else { return Some(given) };
        if punch {
            let by = trusted.then_some(incoming.from);
            let client = Client { host, by, firewall: theirs };
            self.sessions.begin(&hash, local_id, client, net, now);
        } else if dial.is_none() && !same_host && given.firewall != Firewall::Open {
            self.open_towards(from, now);
        }
        Some(given)
    }

    /// Answers a client. With one that we understand a stream is agreed on.
    fn agree(
        &mut self,
        client: Answering,
        dial: Option<Dial>,
        Offer { punch, relay, at, little }: Offer,
        net: &mut Net,
    ) -> Option<Given> {
        let theirs = client.payload.clone();
        let udx = theirs.udx.filter(|_| theirs.version == NoisePayload::VERSION);
        let local_id = net.rng.random_range(1..=u32::MAX);
        let mut payload = self.payload(&theirs, local_id, punch, net);
        payload.relay_through = relay;
        payload.relay = net.config.relay;
        if let Some(len) = little {
            payload.addresses4.truncate(FEW_ADDRESSES);
            payload.relay_addresses = None;
            payload.relay = payload.relay.filter(|_| len >= ROOMY);
        }
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

/// What an answer is kept under. An open server says the same to everybody: where it is.
fn way_of(noise: &[u8], host: Option<IpAddr>, net: &Net) -> (Hash, Way) {
    (hash::hash(&[noise]), host.filter(|_| net.firewall() != Firewall::Open))
}

/// Where a client is that a relay sees at `at`. An open one is written to there: so it has to be where it says itself.
fn said_place(client: &NoisePayload, at: SocketAddrV4) -> Option<SocketAddrV4> {
    if client.firewall != Firewall::Open || client.addresses4.contains(&at) {
        return Some(at);
    }
    client.addresses4.iter().find(|own| own.ip() == at.ip()).copied()
}
