//! Addresses that somebody told us, where peers of our topics may be: asking there, and answering who asks us so.
//!
//! Each address is asked for each topic that we look for peers of, and again with growing pauses as long as nobody there
//! is connected: a peer may come later, or begin anew under another key. Whoever answers is dialled there, beside all
//! that the DHT knows of; he is believed nothing before the handshake. No address is too private for it, since a person
//! named it, or a key that a person was given. What one host costs has a bound for that reason too: [`Told`] sends
//! four inquiries a second there at most, whatever the ports, after the first seconds, and soon far fewer: a key may have
//! been made to have all its readers ask somebody who knows nothing of it.
//!
//! Who asks us gets one reply, smaller than what he sent, if he names a topic that we serve.

use super::dht_rpc::bucket::{Bucket, HostBuckets, Limit};
use super::inquiry::{self, Message, Nonce, Reply};
use super::socket::host_of;
use super::{JoinOptions, Swarm};
use crate::key::{PublicKey, Topic};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Addresses that are remembered of what people named, and of what keys say, 120 bytes each; of more, the one that was told
/// first is forgotten. A person hands out any number of keys, each with some addresses, and named few by hand.
const MAX_ADDRESSES: usize = 64;
const MAX_HINTED: usize = 1024;

/// Pauses between inquiries: what gets lost is asked again soon, who is not there yet is waited for.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// The last pause where a key has sent us, not a person.
const LAST_HINT_PAUSE: Duration = Duration::from_secs(120);
/// All are asked at once again because the network changed: no sooner than so long after that was done before.
const HURRY_PAUSE: Duration = Duration::from_secs(60);
/// Whoever answered is dialled; if that comes to nothing he is asked again.
const DIALLED: Duration = Duration::from_secs(10);

/// How long somebody may take to answer before it counts that nobody has.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Inquiries sent to one host: the drives of a large store are asked for one after the other.
const ASKED: Limit = Limit { burst: 32.0, rate: 4.0 };

/// Inquiries that are looked at, of one host and of all, whose sources may be forged; and topics that are hashed for them,
/// some 20 ms of each second. Of what there is for all some are dropped at random before it is used up: else a flood in
/// step with it would get all of it.
const HEARD_OF_HOST: Limit = Limit { burst: 64.0, rate: 8.0 };
const HEARD: Limit = Limit { burst: 8192.0, rate: 8192.0 };
const LOW: f64 = 0.5;
const HASHED: Limit = Limit { burst: 65_536.0, rate: 50_000.0 };
/// Buckets of hosts, 40 bytes each; so many that those of a flood leave something in that of any other.
const BUCKETS: usize = 4096;

/// Addresses of ours on local networks that a hint names where nobody has told us another, and nodes of the DHT.
const LOCAL_HINTS: usize = 2;
const NODE_HINTS: usize = 3;
/// Addresses that are taken from a key, and those of one host.
const MAX_HINTS: usize = 8;
const HINTS_OF_HOST: usize = 4;

/// Datagrams and peers that wait for the owner.
const MAX_QUEUED: usize = 256;

/// An address, of peers of one topic if a key said so: what else we look for is not told there.
#[derive(Debug)]
struct Place {
    addr: SocketAddr,
    of: Option<Topic>,
    allowance: Bucket,
}

impl Place {
    fn is_for(&self, topic: &Topic) -> bool {
        self.of.is_none_or(|of| of == *topic)
    }

    fn ask(&self, now: Instant) -> Ask {
        let last_pause = if self.of.is_some() { LAST_HINT_PAUSE } else { LAST_PAUSE };
        let (pause, nonce) = (FIRST_PAUSE, Nonce::default());
        Ask { since: now, at: now, pause, last_pause, nonce, who: None }
    }
}

/// One topic at one address.
#[derive(Debug)]
struct Ask {
    since: Instant,
    at: Instant,
    pause: Duration,
    last_pause: Duration,
    nonce: Nonce,
    /// Who answered.
    who: Option<PublicKey>,
}

/// Who has a topic, and where, as he says himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub key: PublicKey,
    pub addr: SocketAddr,
    pub topic: Topic,
}

/// The machine.
pub struct Told {
    key: PublicKey,
    rng: StdRng,
    addresses: VecDeque<Place>,
    topics: BTreeMap<Topic, JoinOptions>,
    asks: BTreeMap<(SocketAddr, Topic), Ask>,
    next_at: Option<Instant>,
    hurried_at: Option<Instant>,
    heard_of: HostBuckets,
    heard: Bucket,
    hashed: Bucket,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    found: VecDeque<Found>,
}

impl Told {
    /// `key` is ours.
    pub fn new(key: PublicKey, mut rng: StdRng, now: Instant) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self {
            key,
            rng,
            addresses: VecDeque::new(),
            topics: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_at: None,
            hurried_at: None,
            heard_of: HostBuckets::new(seed, HEARD_OF_HOST, BUCKETS, now),
            heard: Bucket::full(HEARD, now),
            hashed: Bucket::full(HASHED, now),
            out: VecDeque::new(),
            found: VecDeque::new(),
        }
    }

    /// Peers may be there, of one topic or whatever topic. An address that was told before is asked at once again.
    pub fn tell(
        &mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        of: Option<Topic>,
        now: Instant,
    ) {
        for addr in addresses.into_iter().filter(is_possible) {
            let place = Place { addr, of, allowance: Bucket::full(ASKED, now) };
            let looked_for = self.topics.iter().filter(|(_, options)| options.client);
            for (topic, _) in looked_for.filter(|(topic, _)| place.is_for(topic)) {
                self.asks.insert((addr, *topic), place.ask(now));
            }
            if !self.addresses.iter().any(|known| known.addr == addr && known.of == of) {
                self.addresses.push_back(place);
            }
        }
        self.forget_some(of.is_some(), if of.is_some() { MAX_HINTED } else { MAX_ADDRESSES });
        self.schedule();
    }

    /// Forgets what is beyond `most` of the addresses that keys say, or that people named: first those of topics that are not
    /// looked for, of others those that were told first.
    fn forget_some(&mut self, hinted: bool, most: usize) {
        let alike = self.addresses.iter().filter(|place| place.of.is_some() == hinted).count();
        if alike <= most {
            return;
        }
        let mut beyond = alike - most;
        for only_idle in [true, false] {
            let idle = |place: &Place| place.of.is_some_and(|of| !self.topics.contains_key(&of));
            self.addresses.retain(|place| {
                let goes =
                    beyond > 0 && place.of.is_some() == hinted && (!only_idle || idle(place));
                beyond -= usize::from(goes);
                !goes
            });
        }
        let left = &self.addresses;
        self.asks.retain(|(addr, topic), _| {
            left.iter().any(|place| place.addr == *addr && place.is_for(topic))
        });
    }

    /// A topic is joined in these roles.
    pub fn join(&mut self, topic: Topic, options: JoinOptions, now: Instant) {
        let before = self.topics.insert(topic, options);
        if !options.client {
            self.asks.retain(|(_, asked), _| *asked != topic);
        } else if before.is_none_or(|before| !before.client) {
            for place in self.addresses.iter().filter(|place| place.is_for(&topic)) {
                self.asks.insert((place.addr, topic), place.ask(now));
            }
        }
        self.schedule();
    }

    pub fn leave(&mut self, topic: &Topic) {
        self.topics.remove(topic);
        self.asks.retain(|(_, asked), _| asked != topic);
        self.schedule();
    }

    /// Nobody is asked or answered any more.
    pub fn stop(&mut self) {
        self.topics.clear();
        self.asks.clear();
        self.schedule();
    }

    /// Everybody who is not connected is asked anew: the network changed.
    pub fn hurry(&mut self, now: Instant) {
        if self.hurried_at.is_some_and(|at| now < at + HURRY_PAUSE) {
            return;
        }
        self.hurried_at = Some(now);
        for ask in self.asks.values_mut() {
            (ask.at, ask.pause) = (now, FIRST_PAUSE);
        }
        self.schedule();
    }

    /// The connection to `key` is gone, or a dial of it came to nothing.
    pub fn lost(&mut self, key: &PublicKey, now: Instant) {
        for ask in self.asks.values_mut().filter(|ask| ask.who == Some(*key)) {
            // Not sooner than the pauses have it where it fails time and again.
            ask.who = None;
            ask.at = now + ask.pause;
        }
        self.schedule();
    }

    /// Whether somebody who was asked for `topic` just now may still answer.
    pub fn may_answer(&self, topic: &Topic, now: Instant) -> bool {
        let young = |ask: &Ask| ask.who.is_none() && now < ask.since + PATIENCE;
        self.asks.iter().any(|((_, asked), ask)| asked == topic && young(ask))
    }

    /// Where nobody has answered for `topic`.
    pub fn silent(&self, topic: &Topic) -> Vec<SocketAddr> {
        let of_topic = self.asks.iter().filter(|((_, asked), _)| asked == topic);
        of_topic.filter(|(_, ask)| ask.who.is_none()).map(|((addr, _), _)| *addr).collect()
    }

    /// Takes a datagram that is [`inquiry::is_ours`].
    pub fn handle(&mut self, from: SocketAddr, message: &Message, now: Instant) {
        match message {
            Message::Inquiry { nonce, tag } => self.on_inquiry(from, *nonce, tag, now),
            Message::Reply(reply) => self.on_reply(from, reply, now),
            Message::Handshake { .. } | Message::Answer { .. } => {}
        }
    }

    /// Asks where it is time. `connected`: whether somebody is, or is being dialled.
    pub fn handle_timeout(&mut self, connected: impl Fn(&PublicKey) -> bool, now: Instant) {
        if self.next_at.is_none_or(|at| at > now) {
            return;
        }
        for ((addr, topic), ask) in self.asks.iter_mut().filter(|(_, ask)| ask.at <= now) {
            if ask.who.is_some_and(|who| connected(&who)) {
                ask.at = now + ask.last_pause;
                continue;
            }
            // The first of a host counts for all.
            let place = self.addresses.iter_mut().find(|place| place.addr.ip() == addr.ip());
            let may = place.is_some_and(|place| place.allowance.take(1.0, now));
            if self.out.len() >= MAX_QUEUED || !may {
                ask.at = now + FIRST_PAUSE;
                continue;
            }
            ask.who = None;
            self.rng.fill_bytes(&mut ask.nonce);
            self.out.push_back((*addr, Message::inquiry(topic, ask.nonce).encode()));
            ask.at = now + ask.pause;
            ask.pause = (ask.pause * 2).min(ask.last_pause);
        }
        self.schedule();
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    pub fn poll_found(&mut self) -> Option<Found> {
        self.found.pop_front()
    }

    fn schedule(&mut self) {
        self.next_at = self.asks.values().map(|ask| ask.at).min();
    }

    fn on_inquiry(&mut self, from: SocketAddr, nonce: Nonce, tag: &[u8; 16], now: Instant) {
        let served = || self.topics.iter().filter(|(_, options)| options.server);
        let topics = served().count();
        // More than there are tokens for are never too many for once.
        let cost = (topics as f64).min(HASHED.burst / 2.0);
        let own = from.ip().is_loopback() || self.heard_of.of(&host_of(&from)).take(1.0, now);
        if topics == 0
            || !own
            || self.out.len() >= MAX_QUEUED
            || self.rng.random::<f64>() * LOW >= self.heard.fill(now).min(self.hashed.fill(now))
            || !self.heard.take(1.0, now)
            || !self.hashed.take(cost, now)
        {
            return;
        }
        let mut topics = self.topics.iter().filter(|(_, options)| options.server);
        if let Some((topic, _)) = topics.find(|(topic, _)| inquiry::tag(topic, &nonce) == *tag) {
            let reply = Message::Reply(Reply::new(topic, nonce, &self.key)).encode();
            self.out.push_back((from, reply));
        }
    }

    fn on_reply(&mut self, from: SocketAddr, reply: &Reply, now: Instant) {
        let asked = |((addr, _), ask): &(&(SocketAddr, Topic), &mut Ask)| {
            *addr == from && ask.nonce == reply.nonce && ask.who.is_none()
        };
        let Some(((_, topic), ask)) = self.asks.iter_mut().find(asked) else { return };
        let Some(key) = reply.open(topic) else {
            tracing::debug!(%from, "a false reply to an inquiry, ignored");
            return;
        };
        if key == self.key || self.found.len() >= MAX_QUEUED {
            return;
        }
        tracing::debug!(%from, peer = ?key, "somebody is where we were told");
        ask.who = Some(key);
        ask.at = now + DIALLED.max(ask.pause);
        self.found.push_back(Found { key, addr: from, topic: *topic });
        self.schedule();
    }
}

impl Swarm {
    /// Peers of whatever topic may be at these addresses, as a person says.
    pub fn tell(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, now: Instant) {
        self.tell_of(addresses, None, now);
    }

    fn tell_of(
        &mut self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        of: Option<Topic>,
        now: Instant,
    ) {
        self.told.tell(addresses, of, now);
        self.ask_told(now);
        self.pump(now);
    }

    /// A key says that peers of `topic`, or nodes of the DHT near its announcement, are at these addresses. Whoever made the
    /// key may name any: the DHT is asked only where its nodes may be.
    pub fn hint(&mut self, topic: Topic, mut nodes: Vec<SocketAddrV4>, now: Instant) {
        let mut hosts = BTreeMap::new();
        nodes.retain(|node| {
            let count: &mut usize = hosts.entry(*node.ip()).or_default();
            *count += 1;
            *count <= HINTS_OF_HOST
        });
        nodes.truncate(MAX_HINTS);
        self.dht.hint(topic, &nodes, now);
        self.tell_of(nodes.into_iter().map(SocketAddr::V4), Some(topic), now);
    }

    /// Where those may look who are given a key of `topic`: at our own address, and at nodes near the announcement, which
    /// know of us or of others. Behind a router that was asked for none it is a guess that our port is the one that it forwards.
    /// An address that leads everybody to his own machine is no hint, unless the whole network is on one.
    pub fn hints(&self, topic: &Topic) -> Vec<SocketAddrV4> {
        let (nat, local) = (self.dht.nat(), self.dht.local_addresses());
        let port = local.first().map(SocketAddrV4::port);
        let forwarded = nat.host().zip(port).map(|(host, port)| SocketAddrV4::new(host, port));
        let open = self.dht.open_address();
        let mut hints: Vec<_> = open.into_iter().chain(nat.address()).chain(forwarded).collect();
        if hints.is_empty() {
            let here = self.dht.is_on_loopback();
            let others = local.iter().filter(|local| here || !local.ip().is_loopback());
            hints.extend(others.take(LOCAL_HINTS));
        }
        hints.extend(self.dht.nearest(topic).iter().take(NODE_HINTS));
        let mut known = BTreeSet::new();
        hints.retain(|hint| known.insert(*hint));
        hints
    }

    pub(super) fn handle_inquiry(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if let Some(message) = Message::decode(datagram) {
            self.told.handle(from, &message, now);
            self.dht.handle_direct(from, &message, now);
        }
    }

    pub(super) fn ask_told(&mut self, now: Instant) {
        let connections = &self.connections;
        self.told.handle_timeout(|key| connections.has_key(key), now);
    }
}

/// Whether anybody can be at an address.
fn is_possible(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

#[cfg(test)]
mod tests;
