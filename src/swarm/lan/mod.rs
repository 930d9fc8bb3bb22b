//! Peers of the same local network, found without the DHT.
//!
//! Who joins a topic *calls* to everybody on each [`Link`]: what it has, and what it looks for. Who has something that is
//! looked for answers the caller, and who looks for something that somebody has calls back to that one alone. What is
//! found is a public key and an address; all else is the ordinary handshake, made there.
//!
//! ```text
//!   reader ── call (seek) ─▶ all      sharer ── call (have) ─▶ all
//!   reader ◀─ answer ────── sharer    sharer ◀─ call (seek) ── reader
//!                                     sharer ── answer ──────▶ reader
//! ```
//!
//! A firewall may let in what comes to everybody, and of what comes to its host alone only what answers it: an answer is none,
//! as the call was not sent to its sender. So whoever called and was not written to by anybody calls *loud*: what answers that
//! is sent to everybody as well, and who reads it there writes to its sender, by which it comes in. Where nothing is kept out
//! nobody has to hear it.
//!
//! Who does not know a topic learns that somebody here uses hdrive, and no more (`message`). Who knows it learns who is here
//! and has it, as from the DHT, and can tell whether a call is for it, that of a reader too. Those are all who have the
//! drive's key, and the nodes of the DHT that keep its announcement or were asked for it, should one of them be here. Calls of all topics travel together, 64 in each, three times
//! within a second after something changed; then those who look call with growing pauses up to [`REPEAT`], and who only
//! has is silent. A host gets no more than a few bounded answers for what it sends (`guard`).
//!
//! Why not mDNS: names and records of a service stand there for everybody to read, a hash of each topic and its nonce
//! would have to be fitted into them, and a crate for it brings sockets and a thread of its own.
//!
//! Calls go to [`GROUP`] with a TTL of 1, which no router passes on. It is a group of the range that an organisation
//! may use as it likes (RFC 2365). Where there is IPv6 they go to [`GROUP6`] as well, from the link-local address that
//! every interface has then: hosts meet also where nobody gave them an address.

mod guard;
mod hearing;
mod link;
mod message;
#[cfg(test)]
mod tests;

pub use hearing::{Hearing, LinkStatus};
pub use link::Link;

use super::JoinOptions;
use crate::crypto::KeyPair;
use crate::key::{PublicKey, Topic};
use guard::{Guard, Want};
use hearing::Ears;
use message::{Answer, Call, Ends, Message, Nonce, Roles, TAGS, Tag, Tagger};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where everybody is called.
pub const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 104, 100), 49_736);
/// The same for IPv6; of the interface.
pub const GROUP6: SocketAddrV6 =
    SocketAddrV6::new(Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x6864, 0x6472), 49_736, 0, 0);

/// Topics that are joined together are called together.
const GATHER: Duration = Duration::from_millis(2);
/// Pauses between the calls of a topic. The first are for datagrams that get lost, as on Wi-Fi one in ten may.
const PAUSES: [Duration; 8] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
];
/// Calls after which who waits for an answer may give up.
const ASKED: usize = 3;
/// So many of them are for who only has something, and does not look.
const HAVE_PAUSES: usize = 4;
/// The pause of those who look after that, and by how much it may differ.
const REPEAT: Duration = Duration::from_secs(300);
const JITTER: f64 = 0.1;
/// Topics whose call comes so soon are called with those that are due.
const TOGETHER: Duration = Duration::from_secs(60);
/// Calls on each link at once, 2048 topics, and the pause to the next.
const MAX_PARTS: usize = 32;
const PART_PAUSE: Duration = Duration::from_millis(250);
/// How long a call can be answered.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Calls that wait for answers.
const MAX_CALLED: usize = 256;
/// Rounds of others whose tags of our topics are remembered: the parts of one come together.
const MAX_HEARD: usize = 8;
/// What was found and sent and is not taken yet.
const MAX_QUEUED: usize = 1024;

/// A datagram to be sent from the main socket, or its companion for IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanTransmit {
    /// Over which interface, and from which address of ours.
    pub link: Link,
    /// To the [group](Link::group) with a TTL of 1, or to a neighbour.
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A neighbour that has these topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub key: PublicKey,
    pub addr: SocketAddr,
    pub topics: Vec<Topic>,
}

/// A joined topic.
#[derive(Debug)]
struct Joined {
    options: JoinOptions,
    /// When it is called next, and how often it was.
    at: Option<Instant>,
    called: usize,
    /// Since the last call somebody wrote to us alone for it.
    answered: bool,
}

impl Joined {
    fn new(options: JoinOptions, now: Instant) -> Self {
        Self { options, at: Some(now + GATHER), called: 0, answered: false }
    }

    fn roles(&self) -> Roles {
        let JoinOptions { server: have, client: seek } = self.options;
        Roles { seek, have, loud: self.called > 0 && !self.answered }
    }
}

/// A call of ours that may be answered.
#[derive(Debug)]
struct Called {
    nonce: Nonce,
    part: u8,
    caller: SocketAddr,
    topics: Vec<Topic>,
    until: Instant,
}

/// What a round of somebody's calls is of our topics.
#[derive(Debug)]
struct Heard {
    nonce: Nonce,
    from: SocketAddr,
    tags: BTreeMap<Tag, Topic>,
}

/// The machine.
pub struct Lan {
    key_pair: Arc<KeyPair>,
    rng: StdRng,
    links: Vec<Link>,
    topics: BTreeMap<Topic, Joined>,
    next_at: Option<Instant>,
    called: VecDeque<Called>,
    heard: VecDeque<Heard>,
    ears: Ears,
    guard: Guard,
    out: VecDeque<LanTransmit>,
    found: VecDeque<Neighbour>,
}

impl Lan {
    /// Silent until it is given [links](Self::set_links).
    pub fn new(key_pair: Arc<KeyPair>, mut rng: StdRng, now: Instant) -> Self {
        Self {
            key_pair,
            guard: Guard::new(&mut rng, now),
            rng,
            links: Vec::new(),
            topics: BTreeMap::new(),
            next_at: None,
            called: VecDeque::new(),
            heard: VecDeque::new(),
            ears: Ears::default(),
            out: VecDeque::new(),
            found: VecDeque::new(),
        }
    }

    /// What is called where nothing is joined: neighbours hear it, and nobody has anything to answer.
    pub fn empty_call(rng: &mut StdRng) -> Vec<u8> {
        let mut nonce = Nonce::default();
        rng.fill_bytes(&mut nonce);
        let roles = Roles { seek: true, ..Roles::default() };
        Call { roles, part: 0, nonce, tags: Vec::new() }.encode(rng)
    }

    /// The local networks are these: if that is news everything is called anew. Those where nobody is to be called are
    /// left out.
    pub fn set_links(&mut self, mut links: Vec<Link>, now: Instant) {
        links.retain(Link::is_private);
        if self.links == links {
            return;
        }
        self.ears.set_links(&links);
        (self.links, self.out) = (links, VecDeque::new());
        (self.called, self.heard) = (VecDeque::new(), VecDeque::new());
        for joined in self.topics.values_mut() {
            *joined = Joined::new(joined.options, now);
        }
        self.schedule();
    }

    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Whether anybody can be called at all.
    pub fn is_on(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether neighbours may answer soon who has the topic: it was called just now for the first times.
    pub fn is_asking(&self, topic: &Topic) -> bool {
        let asks = |joined: &Joined| joined.options.client && joined.called < ASKED;
        self.is_on() && self.topics.get(topic).is_some_and(asks)
    }

    /// How far our calls are heard on each link.
    pub fn status(&self) -> Vec<LinkStatus> {
        self.ears.status()
    }

    /// The link on which a host would be.
    pub fn link_of(&self, host: &SocketAddr) -> Option<Link> {
        self.links.iter().find(|link| link.holds(host)).copied()
    }

    /// A topic is joined in these roles, which is called at once.
    pub fn join(&mut self, topic: Topic, options: JoinOptions, now: Instant) {
        if self.topics.get(&topic).is_some_and(|joined| joined.options == options) {
            return;
        }
        self.topics.insert(topic, Joined::new(options, now));
        self.heard.clear();
        self.schedule();
    }

    pub fn leave(&mut self, topic: &Topic) {
        if self.topics.remove(topic).is_some() {
            self.heard.clear();
            self.schedule();
        }
    }

    /// Takes a datagram that somebody sent to us. False if it is not of the local network.
    pub fn handle_datagram(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        self.take(from, datagram, false, now)
    }

    fn take(&mut self, from: SocketAddr, datagram: &[u8], to_all: bool, now: Instant) -> bool {
        if !message::is_ours(datagram) {
            return false;
        }
        // What comes through a router is no neighbour's; what we said ourselves comes back.
        let own = self.links.iter().any(|link| link.addr == from);
        if let Some(link) = self.link_of(&from).filter(|_| !own && from.port() != 0) {
            match Message::decode(datagram) {
                Some(Message::Call(call)) => self.on_call(&call, from, link, to_all, now),
                Some(Message::Answer(answer)) => self.on_answer(&answer, from, link, to_all, now),
                None => {}
            }
        }
        true
    }

    /// Takes one that somebody sent to everybody, maybe we.
    pub fn handle_call(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if let Some(link) = self.link_of(&from).filter(|_| message::is_ours(datagram)) {
            self.ears.heard(&link);
        }
        self.take(from, datagram, true, now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while self.called.front().is_some_and(|called| called.until <= now) {
            self.called.pop_front();
        }
        self.ears.handle_timeout(now);
        if self.next_at.is_some_and(|at| at <= now) {
            self.call_all(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let called = self.called.front().map(|called| called.until);
        let next = self.next_at.filter(|_| self.is_on());
        [next, called, self.ears.poll_timeout()].into_iter().flatten().min()
    }

    pub fn poll_transmit(&mut self) -> Option<LanTransmit> {
        self.out.pop_front()
    }

    /// The next that was found.
    pub fn poll_found(&mut self) -> Option<Neighbour> {
        self.found.pop_front()
    }

    fn schedule(&mut self) {
        self.next_at = self.topics.values().filter_map(|joined| joined.at).min();
    }

    /// Calls what is due, and what soon will be.
    fn call_all(&mut self, now: Instant) {
        let (mut due, jitter) = (Vec::new(), self.rng.random_range(1.0 - JITTER..1.0 + JITTER));
        for (topic, joined) in &mut self.topics {
            let resting = joined.called > PAUSES.len();
            let together = if resting { now + TOGETHER } else { now + GATHER };
            if joined.at.is_some_and(|at| at <= together) {
                due.push((*topic, joined.roles()));
            }
        }
        // As many of those that look, of those that have, and of those that do both.
        due.sort_by_key(|(_, roles)| *roles);
        let parts: Vec<&[_]> =
            due.chunk_by(|(_, a), (_, b)| a == b).flat_map(|same| same.chunks(TAGS)).collect();
        let now_parts = &parts[..parts.len().min(MAX_PARTS)];
        for link in self.links.clone() {
            let nonce = self.nonce();
            if !now_parts.is_empty() {
                self.ears.called(&link, now);
            }
            for (part, topics) in (0..).zip(now_parts) {
                let Some((_, roles)) = topics.first() else { continue };
                let topics = topics.iter().map(|(topic, _)| *topic).collect();
                let bytes = self.call(*roles, (nonce, part), topics, link, now);
                self.send(LanTransmit { link, to: link.group(), bytes });
            }
        }
        let deaf = self.ears.is_deaf();
        for (topic, roles) in now_parts.iter().copied().flatten() {
            let Some(joined) = self.topics.get_mut(topic) else { continue };
            let pause = match roles.seek || deaf {
                true => Some(PAUSES.get(joined.called).copied().unwrap_or(REPEAT.mul_f64(jitter))),
                false => PAUSES.get(joined.called).copied().filter(|_| joined.called < HAVE_PAUSES),
            };
            (joined.called, joined.answered) = (joined.called + 1, false);
            joined.at = pause.map(|pause| now + pause);
        }
        let more = parts.len() > MAX_PARTS;
        self.schedule();
        if more {
            self.next_at = Some(now + PART_PAUSE);
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = Nonce::default();
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    /// A call from a link of ours, which waits for answers if it looks for something.
    fn call(
        &mut self,
        roles: Roles,
        (nonce, part): (Nonce, u8),
        topics: Vec<Topic>,
        link: Link,
        now: Instant,
    ) -> Vec<u8> {
        let tagger = Tagger::new(nonce, link.addr);
        let tags = topics.iter().map(|topic| tagger.tag(topic)).collect();
        let bytes = Call { roles, part, nonce, tags }.encode(&mut self.rng);
        if roles.seek {
            if self.called.len() >= MAX_CALLED {
                self.called.pop_front();
            }
            let (caller, until) = (link.addr, now + ANSWER_WAIT);
            self.called.push_back(Called { nonce, part, caller, topics, until });
        }
        bytes
    }

    fn send(&mut self, transmit: LanTransmit) {
        if self.out.len() < MAX_QUEUED {
            self.out.push_back(transmit);
        }
    }

    fn on_call(&mut self, call: &Call, from: SocketAddr, link: Link, to_all: bool, now: Instant) {
        if self.topics.is_empty() || !self.guard.take(Want::Call, &from.ip(), &mut self.rng, now) {
            return;
        }
        let Some(heard) = self.hear(call.nonce, from, now) else { return };
        let Roles { seek, have, loud } = call.roles;
        let tags = call.tags.iter().zip(0u8..);
        let known: Vec<(u8, Topic)> =
            tags.filter_map(|(tag, i)| Some((i, *heard.tags.get(tag)?))).collect();
        let is = |topic: &Topic, role: fn(&JoinOptions) -> bool| {
            self.topics.get(topic).is_some_and(|joined| role(&joined.options))
        };
        let wanted = || known.iter().filter(|(_, topic)| is(topic, |o| o.server));
        let offered = || known.iter().filter(|(_, topic)| is(topic, |o| o.client));
        let wanted: Vec<_> = wanted().filter(|_| seek).copied().collect();
        let offered: Vec<_> = offered().filter(|_| have).map(|(_, topic)| *topic).collect();
        if !to_all {
            self.written_to(wanted.iter().map(|(_, topic)| topic));
        }
        if wanted.is_empty() && offered.is_empty()
            || !self.guard.take(Want::Send, &from.ip(), &mut self.rng, now)
        {
            return;
        }
        let ends = Ends { caller: from, answerer: link.addr };
        let of = (call.nonce, call.part);
        let answer = Answer::new(&self.key_pair, of, &wanted, ends, &mut self.rng);
        let bytes = match answer {
            // Who calls for what it has as well will come to us: once is enough.
            Some(answer) => answer.encode(),
            None => {
                let (nonce, roles) = (self.nonce(), Roles { seek: true, ..Roles::default() });
                self.call(roles, (nonce, 0), offered, link, now)
            }
        };
        // First what opens our own firewall to it.
        self.send(LanTransmit { link, to: from, bytes: bytes.clone() });
        if loud && to_all && self.guard.take(Want::Spread, &from.ip(), &mut self.rng, now) {
            self.send(LanTransmit { link, to: link.group(), bytes });
        }
    }

    /// Somebody wrote to us alone for these: of such they may be more.
    fn written_to<'a>(&mut self, topics: impl Iterator<Item = &'a Topic>) {
        for topic in topics {
            if let Some(joined) = self.topics.get_mut(topic) {
                joined.answered = true;
            }
        }
    }

    /// The tags of our topics in a round of calls.
    fn hear(&mut self, nonce: Nonce, from: SocketAddr, now: Instant) -> Option<&Heard> {
        let known = self.heard.iter().position(|h| (h.nonce, h.from) == (nonce, from));
        if known.is_none() {
            if !self.guard.hash(self.topics.len(), now) {
                return None;
            }
            let tagger = Tagger::new(nonce, from);
            let tags = self.topics.keys().map(|topic| (tagger.tag(topic), *topic)).collect();
            if self.heard.len() >= MAX_HEARD {
                self.heard.pop_front();
            }
            self.heard.push_back(Heard { nonce, from, tags });
        }
        self.heard.get(known.unwrap_or(self.heard.len().checked_sub(1)?))
    }

    fn on_answer(
        &mut self,
        answer: &Answer,
        from: SocketAddr,
        link: Link,
        to_all: bool,
        now: Instant,
    ) {
        let is_its = |called: &&Called| {
            (called.nonce, called.part, called.caller) == (answer.nonce, answer.part, link.addr)
        };
        let Some(called) = self.called.iter().find(is_its) else { return };
        if !self.guard.take(Want::Answer, &from.ip(), &mut self.rng, now) {
            return;
        }
        let ends = Ends { caller: called.caller, answerer: from };
        let Some((key, mut topics)) = answer.open(&called.topics, ends) else {
            tracing::debug!(%from, "a false answer on the local network, ignored");
            return;
        };
        topics.retain(|topic| self.topics.contains_key(topic));
        if !to_all {
            self.written_to(topics.iter());
        }
        if key.0 != self.key_pair.public() && self.found.len() < MAX_QUEUED {
            tracing::debug!(%from, peer = ?key, topics = topics.len(), "a neighbour");
            self.found.push_back(Neighbour { key, addr: from, topics });
        }
    }
}
