//! Whether others can send to us unasked: *open*, or behind a firewall or NAT that lets in only what we asked for.
//!
//! A node that the main socket never wrote to is asked, from another socket, to answer to the main one (PING_NAT). Such an
//! answer comes only where everybody is let in. For this to mean something it is noted whom the main socket writes to;
//! and as in a small DHT everybody is asked within a second, a few nodes are left alone until the probe is over
//! ([`super::aside`]). Whether who does not answer is there at all is asked as well: one that is not tells
//! nothing. The reference asks once, five nodes, of which some are not there; here it is asked again, with
//! back-off, until there is an answer, and an open node that heard nothing unasked for long asks again.
//!
//! A port that a router was asked for may be another than the one that our datagrams leave from, or they may leave from
//! another for each node: then that port is what is asked for. Not that of an inner router, whose outside is another address
//! than the one that nodes see: there it tells nothing.
//!
//! Open and *persistent* are two things: who is open can be dialled as he is; only who was so for twenty minutes, at the one
//! address that he sends from, serves others as a node of the DHT, and does no longer when the address changes or the answers fail to come.
//!
//! Source: dht-rpc/index.js:_checkIfFirewalled, _updateNetworkState

use super::aside::{Aside, SET_ASIDE};
use super::message::internal;
use super::requests::Purpose;
use super::{Ask, Rpc, RpcEvent};
use crate::swarm::socket::SocketId;
use lru::LruCache;
use rand::seq::SliceRandom;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Nodes asked at a time.
pub(super) const HELPERS: usize = 5;
/// Where so many or more are asked, one answer is not enough.
const MANY: usize = 4;
/// Datagrams to a helper that does not answer, and one.
const RETRIES: u8 = 2;
/// The pause after a probe without result, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LAST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// Probes of an open node that have to fail on end before it counts as open no longer.
const FAILURES: u32 = 3;
/// Clients on end that were told that we are open and did not come.
const MISSED: u32 = 3;
/// Hosts that the main socket wrote to, 80 bytes each.
const MAX_WRITTEN: usize = 2048;
/// Ticks after which a firewall has forgotten that we wrote to a host: ten minutes, twice what is usual at most.
pub(super) const FORGOTTEN: u64 = 120;
/// So long a router that is asked for a port may take: those that can tell are left alone.
const ROUTER: Duration = Duration::from_secs(20);
/// Nodes remembered that were named to us.
const MAX_NAMED: usize = 64;
/// Ticks that a node has to be open, at one address, until it serves others: twenty minutes.
const STABLE: u64 = 240;
/// Answers on end, of as many hosts, that see us elsewhere: our address has changed.
const ELSEWHERE: usize = 3;

/// Whether others can send to us unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Nobody could be asked so far, or nobody who could tell.
    #[default]
    Unknown,
    Open,
    /// Nobody's answer came so far, of those who were asked.
    Closed,
}

/// How many of so many nodes may be set aside: our NAT is known once three others have seen the main socket.
pub(super) fn helpers(nodes: usize) -> usize {
    nodes.saturating_sub(3).clamp(1, HELPERS)
}

#[derive(Debug)]
pub(super) struct Probe {
    access: Access,
    /// By host the tick at which the main socket last wrote to it.
    written: LruCache<Ipv4Addr, u64>,
    /// The latest tick of those that were dropped for want of room.
    dropped: u64,
    /// Nodes that were named to us.
    named: VecDeque<SocketAddrV4>,
    /// Answers that are waited for; who was asked and may tell something, with whether it is there; how many came that do.
    waiting: usize,
    asked: Vec<(Ipv4Addr, bool)>,
    heard: usize,
    /// What our router says it passes on to the main socket: a port, at the address of its outside if it told that.
    mapped: Option<SocketAddrV4>,
    /// At which address of ours they are to answer.
    asked_for: Option<SocketAddrV4>,
    failures: u32,
    missed: u32,
    due: Instant,
    /// The first one is put off.
    held: bool,
    /// Until when a router may still give us a port.
    awaited: Instant,
    /// The tick at which something last came unasked.
    unasked: u64,
    /// Since which tick we are open at the same address.
    open_since: u64,
    /// Where others see us that see us elsewhere than we believe to be.
    elsewhere: Vec<(Ipv4Addr, SocketAddrV4)>,
}

impl Probe {
    pub fn new(now: Instant) -> Self {
        Self {
            access: Access::Unknown,
            written: LruCache::unbounded(),
            dropped: 0,
            named: VecDeque::new(),
            waiting: 0,
            asked: Vec::new(),
            heard: 0,
            mapped: None,
            asked_for: None,
            failures: 0,
            missed: 0,
            due: now,
            held: false,
            awaited: now,
            unasked: 0,
            open_since: 0,
            elsewhere: Vec::new(),
        }
    }

    /// The main socket writes to a host.
    pub fn wrote(&mut self, host: Ipv4Addr, tick: u64) {
        self.written.push(host, tick);
        if self.written.len() > MAX_WRITTEN
            && let Some((_, at)) = self.written.pop_lru()
        {
            self.dropped = self.dropped.max(at);
        }
    }

    /// Whether a firewall that lets in only whom we wrote to would let this host in.
    fn is_known(&self, host: &Ipv4Addr, tick: u64) -> bool {
        let at = self.written.peek(host).copied().unwrap_or(self.dropped);
        at != 0 && tick < at + FORGOTTEN
    }

    /// Whether we were open, at one address, for so long that others may rely on us.
    pub fn is_stable(&self, tick: u64) -> bool {
        self.access == Access::Open && tick >= self.open_since + STABLE
    }
}

impl Rpc {
    /// Whether others can send to us unasked.
    pub fn access(&self) -> Access {
        if self.config.persistent && self.persistent { Access::Open } else { self.probe.access }
    }

    /// Our address, if anybody can reach us there.
    pub fn open_address(&self) -> Option<SocketAddrV4> {
        self.entrance().filter(|_| self.access() == Access::Open)
    }

    /// Where others can reach us, if they can unasked.
    fn entrance(&self) -> Option<SocketAddrV4> {
        let mapped = self.probe.mapped.filter(|_| self.config.address.is_none());
        match mapped.zip(self.nat.host()) {
            Some((mapped, host)) if mapped.ip().is_unspecified() || *mapped.ip() == host => {
                Some(SocketAddrV4::new(host, mapped.port()))
            }
            _ => self.address(),
        }
    }

    /// The main socket writes to a host, by another way than ours.
    pub fn wrote_to(&mut self, host: Ipv4Addr) {
        self.probe.wrote(host, self.upkeep.tick);
    }

    /// Puts the first probe off, and keeps those aside who are to be asked: then, and again if a router gives us a port.
    pub fn hold_probe(&mut self, until: Instant) {
        let probe = &mut self.probe;
        if probe.access == Access::Unknown && probe.asked.is_empty() {
            (probe.due, probe.held, probe.awaited) = (until, true, until + ROUTER);
            self.aside.until = self.aside.until.max(until + SET_ASIDE);
        }
    }

    /// Probes now if that was put off, or if our router says that we can be reached at a port of it (0.0.0.0 where it did not
    /// tell its address) and the probes so far had no result, or were for another port.
    pub fn probe_anew(&mut self, mapped: Option<SocketAddrV4>, now: Instant) {
        let before = self.entrance();
        self.probe.mapped = mapped;
        self.probe.awaited = now;
        let entrance = self.entrance();
        let moved = self.probe.access == Access::Open && entrance != before;
        let unasked = mapped.is_some() && self.probe.asked_for != entrance;
        if moved || unasked && (self.probe.waiting > 0 || self.probe.access == Access::Closed) {
            self.stop_probe();

            // Where each destination sees another port there is none to ask for.
            self.set_access(if entrance.is_none() { Access::Closed } else { Access::Unknown });
        }
        let probe = &mut self.probe;
        let held = std::mem::take(&mut probe.held);
        if held || moved || mapped.is_some() && probe.access != Access::Open {
            (probe.due, probe.failures) = (now, 0);
            self.probe_if_due(now);
        } else if probe.waiting == 0 {
            self.use_all(now);
        }
    }

    /// A node named others.
    pub(super) fn note_named(&mut self, nodes: &[SocketAddrV4], now: Instant) {
        if self.config.persistent {
            return;
        }
        let tick = self.upkeep.tick;
        for node in nodes {
            let new = !self.probe.named.iter().any(|known| known.ip() == node.ip());
            if new && self.is_usable(node) && !self.probe.is_known(node.ip(), tick) {
                self.probe.named.push_front(*node);
            }
        }
        self.probe.named.truncate(MAX_NAMED);
        self.probe_if_due(now);
    }

    /// Something came to the main socket from a host: whether unasked.
    pub(super) fn note_unasked(&mut self, from: &SocketAddrV4) {
        let tick = self.upkeep.tick;
        if self.probe.access == Access::Open
            && self.is_usable(from)
            && !self.probe.is_known(from.ip(), tick)
            && self.address().is_some_and(|own| own.ip() != from.ip())
        {
            self.probe.unasked = tick;
        }
    }

    /// Asks some nodes to answer to the main socket, if that is due and there are any.
    pub(super) fn probe_if_due(&mut self, now: Instant) {
        let tick = self.upkeep.tick;
        let probe = &self.probe;
        let recent = probe.access == Access::Open && tick < probe.unasked + FORGOTTEN;
        if self.config.persistent || probe.waiting > 0 || now < probe.due || recent {
            return;
        }
        let Some(address) = self.entrance() else {
            // Where each destination sees another port there is none to ask for.
            if self.nat.host().is_some() && self.probe.access == Access::Unknown {
                self.set_access(Access::Closed);
            }
            return;
        };
        let table = self.table.oldest_first().map(|node| node.addr);
        let known = self.probe.named.iter().chain(&self.config.bootstrap).copied().chain(table);
        let (mut fresh, mut used): (Vec<SocketAddrV4>, Vec<Ipv4Addr>) = Default::default();
        for node in known.filter(|node| node.ip() != address.ip() && self.is_usable(node)) {
            if self.probe.is_known(node.ip(), tick) {
                used.push(*node.ip());
            } else if fresh.iter().all(|other| other.ip() != node.ip()) {
                fresh.push(node);
            }
        }
        used.sort_unstable();
        used.dedup();
        let count = fresh.len().min(helpers(fresh.len() + used.len()));
        if count == 0 {
            if self.probe.access == Access::Unknown {
                self.spare_one();
            }
            return;
        }
        fresh.shuffle(&mut self.rng);
        fresh.truncate(count);
        self.probe.named.retain(|node| !fresh.contains(node));
        self.aside.hosts = fresh.iter().map(|node| *node.ip()).collect();
        self.aside.until = (now + SET_ASIDE).max(self.probe.awaited);
        self.probe.asked = fresh.iter().map(|node| (*node.ip(), false)).collect();
        self.probe.heard = 0;
        self.probe.asked_for = Some(address);
        for node in fresh {
            let ask = Ask {
                internal: true,
                value: Some(address.port().to_le_bytes().to_vec()),
                retries: RETRIES,
                socket: SocketId::PROBE,
                ..Ask::new(node, internal::PING_NAT)
            };
            if self.send(ask, false, Duration::ZERO, Purpose::Probe, now) {
                self.probe.waiting += 1;
            }
            let there = Ask { retries: RETRIES, socket: SocketId::PROBE, ..Ask::ping(node) };
            self.send(there, false, Duration::ZERO, Purpose::IsThere, now);
        }
    }

    /// A helper answered: to which socket, where it sees that, and when it was asked for the which time again.
    pub(super) fn on_probed(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        (seen, late): (SocketAddrV4, u8),
        now: Instant,
    ) {
        let fresh = !self.probe.is_known(from.ip(), self.upkeep.tick);
        let agreed = self.probe.asked_for == Some(seen) && self.entrance() == Some(seen);
        let main = socket == SocketId::MAIN;
        self.probe.heard += usize::from(main && fresh && agreed);
        if main && !fresh && late == 0 {
            // The main socket wrote there meanwhile, to dial somebody through that node say: it tells nothing.
            self.probe.asked.retain(|(host, _)| host != from.ip());
        }
        self.after_helper(now);
    }

    /// A helper answered to the socket that asked it.
    pub(super) fn helper_is_there(&mut self, host: Ipv4Addr) {
        for (_, there) in self.probe.asked.iter_mut().filter(|(asked, _)| *asked == host) {
            *there = true;
        }
    }

    /// A helper's answer came, or did not.
    pub(super) fn after_helper(&mut self, now: Instant) {
        let probe = &mut self.probe;
        probe.waiting = probe.waiting.saturating_sub(1);
        let enough = if probe.asked.len() >= MANY { 2 } else { 1 };
        if probe.heard >= enough {
            probe.due = now + FIRST_PAUSE;
            (probe.failures, probe.unasked) = (0, self.upkeep.tick);
            self.set_access(Access::Open);
        } else if probe.waiting == 0 && probe.asked.is_empty() {
            probe.due = now + FIRST_PAUSE;
        } else if probe.waiting == 0 {
            let told = probe.asked.iter().any(|(_, there)| *there);
            // Who is not there is not asked again so soon: that would keep others from being asked.
            for (host, _) in probe.asked.iter().filter(|(_, there)| !there) {
                probe.written.push(*host, self.upkeep.tick);
            }
            let open = probe.access == Access::Open;
            probe.failures += u32::from(told || !open);
            let doubled =
                FIRST_PAUSE * 2u32.saturating_pow(probe.failures.saturating_sub(1)).min(1024);
            probe.due = now + if open { FIRST_PAUSE } else { doubled.min(LAST_PAUSE) };
            if told && (!open || probe.failures >= FAILURES) {
                self.set_access(Access::Closed);
            }
        }
        if self.probe.waiting == 0 {
            self.requests.cancel(&Purpose::IsThere);
            self.events.push_back(RpcEvent::ProbeOver);
            if self.probe.access == Access::Open || now >= self.probe.awaited {
                self.use_all(now);
            }
        }
    }

    /// A client, to whom we may have said that we are open, came or did not. Where none comes there may be a firewall, of
    /// which in a small DHT, where we write to everybody all the time, nothing else tells.
    pub fn note_client(&mut self, came: bool, now: Instant) {
        let probe = &mut self.probe;
        probe.missed = if came || probe.access != Access::Open { 0 } else { probe.missed + 1 };
        if probe.missed >= MISSED {
            (probe.missed, probe.due) = (0, now + FIRST_PAUSE);
            self.set_access(Access::Closed);
        }
    }

    /// When nobody is set aside any more, and when the first probe is put off no longer.
    pub(super) fn probe_timeout(&self) -> Option<Instant> {
        let held = self.probe.held.then_some(self.probe.due);
        self.aside.poll_timeout().into_iter().chain(held).min()
    }

    pub(super) fn handle_probe_timeout(&mut self, now: Instant) {
        if self.probe.held && self.probe.due <= now {
            (self.probe.held, self.probe.failures) = (false, 0);
            self.probe_if_due(now);
        }
        if self.aside.poll_timeout().is_some_and(|until| until <= now) {
            self.use_all(now);
        }
    }

    /// Time has passed, whose every tick is counted from here on: the machine slept.
    pub(super) fn be_stable_anew(&mut self) {
        self.probe.open_since = self.upkeep.tick;
    }

    /// Whoever was asked is waited for no longer.
    fn stop_probe(&mut self) {
        self.requests.cancel(&Purpose::Probe);
        self.requests.cancel(&Purpose::IsThere);
        self.probe.waiting = 0;
    }

    fn set_access(&mut self, access: Access) {
        let before = std::mem::replace(&mut self.probe.access, access);
        if before == access {
            return;
        }
        tracing::debug!(?access, address = ?self.address(), "whether others can send to us");
        self.probe.open_since = self.upkeep.tick;
        self.step_back();
        if before == Access::Open {
            self.events.push_back(RpcEvent::Moved);
        }
        self.events.push_back(RpcEvent::Access(access));
    }

    /// A node that took an id because it was open has none any more.
    fn step_back(&mut self) {
        if !self.config.persistent && std::mem::take(&mut self.persistent) {
            tracing::debug!("no longer persistent");
            self.events.push_back(RpcEvent::Ephemeral);
        }
    }

    /// Our address is or may be another one: what was found out counts no more, and is to be found out anew. A few nodes
    /// that the main socket has not written to since are set aside for it; the only one never is, we have to live with it.
    pub(super) fn forget_access(&mut self, now: Instant) {
        self.set_access(Access::Unknown);
        self.stop_probe();
        let (named, mapped) = (std::mem::take(&mut self.probe.named), self.probe.mapped);
        self.probe = Probe { named, mapped, ..Probe::new(now) };
        let mut hosts: Vec<_> = self.table.oldest_first().map(|node| *node.addr.ip()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.shuffle(&mut self.rng);
        hosts.truncate(helpers(hosts.len()).min(hosts.len().saturating_sub(1)));
        self.aside = Aside::new(hosts, now + SET_ASIDE);
    }

    /// A node sees the main socket at `seen`. True if enough of them see it elsewhere than we believe, and agree.
    pub(super) fn note_seen(&mut self, from: Ipv4Addr, seen: SocketAddrV4) -> bool {
        let (host, port) = (self.nat.host(), self.nat.port());
        let as_before =
            host.is_none_or(|host| host == *seen.ip()) && (port == 0 || port == seen.port());
        let probe = &mut self.probe;
        if as_before || probe.elsewhere.first().is_some_and(|(_, other)| *other != seen) {
            probe.elsewhere.clear();
        }
        if as_before || probe.elsewhere.iter().any(|(host, _)| *host == from) {
            return false;
        }
        probe.elsewhere.push((from, seen));
        probe.elsewhere.len() >= ELSEWHERE.min(self.table.len().max(1))
    }
}
