//! Keeping a server findable: its announcement at the three nodes nearest to its key, its *relays*.
//!
//! ```text
//! Looking ──▶ Announcing ──▶ Resting 15 s ◀──▶ Pinging ──(40 rounds, or too few answer)──▶ Looking
//! ```
//!
//! The pings keep a NAT's mapping towards the relays open: they pass on what clients send us. If the NAT has made
//! another all the same, as after a restart, the relays still send to the old one: an update tells them. After an
//! update, nodes that are no relay any more are told to forget us, but for those that are set aside for a moment
//! (`dht_rpc::aside`): they will be relays again. If no relay was found the next try comes soon, with back-off.
//!
//! A ping asks for our record: a node that was restarted answers any other ping as before, and has forgotten us and
//! all our topics. When no relay is left that has held our record all along, the owner is told as soon as
//! there are relays again: where so many were restarted, together or one after the other, others that hold
//! its topics were as well.
//!
//! Source: hyperdht/lib/announcer.js

use super::event::DhtEvent;
use super::messages::{PeerRecord, RelayInfo, command};
use super::net::{Net, Withdrawal};
use super::owner::{AnnouncerStep as Step, Owner};
use super::signatures::Place;
use crate::crypto::KeyPair;
use crate::key::{NodeId, PublicKey};
use crate::swarm::dht_rpc::message::error;
use crate::swarm::dht_rpc::{Ask, QuerySpec, Reply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Relays a server has.
const RELAYS: usize = 3;
/// Pause between pings: as often as ICE keeps its paths open (RFC 8445), half of what the shortest-lived
/// mappings of NATs in the field are given. The reference's 3 s are two thirds of what an idle peer costs.
const PING_PAUSE: Duration = Duration::from_secs(15);
/// Pause before pings that somebody asked for.
const CHECK_PAUSE: Duration = Duration::from_secs(3);
/// Rounds of pings until the next update: ten minutes, well before the relays forget us.
const ROUNDS: u32 = 40;
/// How long we mistrust a relay that was silent or had forgotten us. By then all topics were announced again.
const DOUBT: Duration = Duration::from_secs(720);
/// Pause after an update that found no relay, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum State {
    Looking,
    Announcing { waiting: usize, relays: Vec<RelayInfo> },
    Resting { until: Instant, round: u32 },
    Pinging { waiting: usize, failed: usize, round: u32 },
}

/// The announcement of one key.
#[derive(Debug)]
pub(super) struct Announcer {
    key_pair: Arc<KeyPair>,
    target: NodeId,
    state: State,
    relays: Vec<RelayInfo>,
    /// Nodes that were asked last to be relays. One whose answer was lost is one and we do not know it; one of the update
    /// before is one until it hears that it is none any more.
    asked: VecDeque<SocketAddrV4>,
    /// Nodes that hold our announcement.
    holders: BTreeSet<SocketAddrV4>,
    /// Those of them that were set aside at the last query, and go on to hold it.
    kept: BTreeSet<SocketAddrV4>,
    closest: Vec<SocketAddrV4>,
    refresh: bool,
    /// Relays that have shown our record since they stored it.
    shown: BTreeSet<SocketAddrV4>,
    /// Relays that were silent or had forgotten us since the owner was last told, and when.
    doubted: BTreeMap<SocketAddrV4, Instant>,
    /// No relay has held our record all along.
    lost: bool,
    failures: u32,
    /// A node near the key was left alone.
    skipped: bool,
    /// The first update is over.
    ready: bool,
    updates: u64,
    /// When the relays were last asked.
    pinged: Instant,
}

impl Announcer {
    pub fn start(key_pair: Arc<KeyPair>, target: NodeId, net: &mut Net, now: Instant) -> Self {
        let mut announcer = Self {
            key_pair,
            target,
            state: State::Looking,
            relays: Vec::new(),
            asked: VecDeque::new(),
            holders: BTreeSet::new(),
            kept: BTreeSet::new(),
            closest: Vec::new(),
            refresh: false,
            shown: BTreeSet::new(),
            doubted: BTreeMap::new(),
            lost: false,
            failures: 0,
            skipped: false,
            ready: false,
            updates: 0,
            pinged: now,
        };
        announcer.update(net, now);
        announcer
    }

    /// Our relays, and how each of them sees us.
    pub fn relays(&self) -> &[RelayInfo] {
        &self.relays
    }

    /// Whether a node may pass on what clients send us because we asked it to.
    pub fn is_relay(&self, node: &SocketAddrV4) -> bool {
        self.relays.iter().any(|r| r.relay == *node) || self.asked.contains(node)
    }

    /// Whether the first update is over, so that [`Self::relay_addresses`] means something.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Where to ask for us: our own address if it is open, then the relays.
    pub fn relay_addresses(&self, net: &Net) -> Vec<SocketAddrV4> {
        let open = net.open_address().into_iter();
        open.chain(self.relays.iter().map(|r| r.relay)).take(PeerRecord::MAX_RELAYS).collect()
    }

    /// Updates finished so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Our encoded record, as it stands at the relays.
    pub fn record(&self) -> Vec<u8> {
        let public_key = PublicKey(self.key_pair.public());
        PeerRecord { public_key, relay_addresses: Vec::new() }.encode()
    }

    /// Something changed (network, address): update soon.
    pub fn refresh(&mut self, net: &mut Net, now: Instant) {
        self.refresh = true;
        if let State::Resting { .. } = self.state {
            self.update(net, now);
        }
    }

    /// Others are left alone than before, or nobody.
    pub fn released(&mut self, net: &mut Net, now: Instant) {
        let relay = self.relays.iter().any(|relay| net.rpc.is_aside(relay.relay.ip()));
        if std::mem::take(&mut self.skipped) || relay {
            self.refresh(net, now);
        }
    }

    pub fn on_query_done(&mut self, closest: &[Reply], net: &mut Net, now: Instant) {
        if !matches!(self.state, State::Looking) {
            return;
        }
        self.closest = closest.iter().map(|r| r.from).collect();
        // Restarted since the last ping: it would hold our record again before the next.
        for reply in closest {
            if reply.value.is_none() && self.shown.remove(&reply.from) {
                self.doubted.insert(reply.from, now);
            }
        }
        let mut waiting = 0;
        // Who is left alone cannot be a relay: to be one it has to know the main socket. Where nobody else is there it is not
        // left alone any longer.
        if !closest.is_empty() && closest.iter().all(|reply| net.rpc.is_aside(reply.from.ip())) {
            net.rpc.use_all(now);
        }
        let is_aside = |reply: &&Reply| net.rpc.is_aside(reply.from.ip());
        let set_aside = |holder: &&SocketAddrV4| net.rpc.is_set_aside(holder.ip());
        self.kept = self.holders.iter().filter(set_aside).copied().collect();
        self.skipped = closest.iter().take(RELAYS).any(|reply| is_aside(&reply));
        self.skipped |= !self.kept.is_empty();
        let relays: Vec<_> = closest.iter().filter(|reply| !is_aside(reply)).take(RELAYS).collect();
        for reply in relays {
            let (Some(node), Some(token)) = (reply.id, reply.token) else { continue };
            let place = Place { target: &self.target, node: &node, token: &token };
            let public_key = PublicKey(self.key_pair.public());
            let peer = PeerRecord { public_key, relay_addresses: Vec::new() };
            let value = place.announce(peer, &self.key_pair).encode();
            let ask = Ask {
                target: Some(self.target),
                token: Some(token),
                value: Some(value),
                ..Ask::new(reply.from, command::ANNOUNCE)
            };
            let step = Step::Announce(RelayInfo { relay: reply.from, peer: reply.to });
            net.keep(self.target, reply.from);
            net.ask(ask, Owner::Announcer(self.target, step), now);
            self.asked.retain(|asked| *asked != reply.from);
            self.asked.push_back(reply.from);
            waiting += 1;
        }
        self.asked.drain(..self.asked.len().saturating_sub(2 * RELAYS));
        self.state = State::Announcing { waiting, relays: Vec::new() };
        if waiting == 0 {
            self.finish_update(net, now);
        }
    }

    /// One of our requests was answered, or not (`None`).
    pub fn on_answer(&mut self, step: Step, reply: Option<&Reply>, net: &mut Net, now: Instant) {
        match (step, &mut self.state) {
            (Step::Announce(relay), State::Announcing { waiting, relays }) => {
                *waiting -= 1;
                if let Some(reply) = reply.filter(|r| r.error == error::NONE) {
                    // It may have been found from another socket, of which it saw another address.
                    relays.push(RelayInfo { peer: reply.to, ..relay });
                }
                if *waiting == 0 {
                    self.finish_update(net, now);
                }
            }
            (Step::Ping(relay), State::Pinging { waiting, failed, round }) => {
                *waiting -= 1;
                let known = note_ping(relay, reply, &mut self.shown, &mut self.doubted, now);
                let elsewhere = reply.is_some_and(|reply| {
                    self.relays.iter().any(|r| r.relay == relay && r.peer != reply.to)
                });
                if !known || elsewhere {
                    *failed += 1;
                }
                if *waiting == 0 {
                    let (enough, round) = (*failed == 0, *round);
                    self.after_pings(enough, round, net, now);
                }
            }
            _ => {}
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Resting { until, .. } => Some(until),
            _ => None,
        }
    }

    pub fn handle_timeout(&mut self, net: &mut Net, now: Instant) {
        let State::Resting { until, round } = self.state else { return };
        if now < until {
            return;
        }
        if self.refresh || round >= ROUNDS || self.relays.is_empty() {
            return self.update(net, now);
        }
        self.ping(round, net, now);
    }

    /// Peers may not find us where they did: the relays are asked whether they see us there.
    pub fn check(&mut self, net: &mut Net, now: Instant) {
        let State::Resting { round, .. } = self.state else { return };
        if now >= self.pinged + CHECK_PAUSE && !self.relays.is_empty() {
            self.ping(round, net, now);
        }
    }

    fn ping(&mut self, round: u32, net: &mut Net, now: Instant) {
        self.pinged = now;
        for relay in self.relays.iter().map(|r| r.relay) {
            let ask = Ask { target: Some(self.target), ..Ask::new(relay, command::FIND_PEER) };
            net.ask(ask, Owner::Announcer(self.target, Step::Ping(relay)), now);
        }
        self.state = State::Pinging { waiting: self.relays.len(), failed: 0, round };
    }

    /// Stops; what is to be told to the relays that know us.
    pub fn stop(self, net: &mut Net) -> Withdrawal {
        net.cancel_owner(|o| matches!(o, Owner::Announcer(target, _) if *target == self.target));
        let nodes = self.holders.into_iter().collect();
        Withdrawal { key_pair: self.key_pair, target: self.target, nodes }
    }

    fn update(&mut self, net: &mut Net, now: Instant) {
        self.refresh = false;
        self.state = State::Looking;
        let spec = QuerySpec {
            nodes: self.closest.clone(),
            ..QuerySpec::new(command::FIND_PEER, self.target)
        };
        net.query(spec, Owner::Announcer(self.target, Step::Look), now);
    }

    fn finish_update(&mut self, net: &mut Net, now: Instant) {
        let State::Announcing { relays, .. } = std::mem::replace(&mut self.state, State::Looking)
        else {
            return;
        };
        let mut current = std::mem::take(&mut self.kept);
        current.extend(relays.iter().map(|r| r.relay));
        let dropped: Vec<_> = self.holders.difference(&current).copied().collect();
        self.holders = current;
        self.relays = relays;
        self.shown.retain(|relay| self.holders.contains(relay));
        self.doubted.retain(|_, at| now < *at + DOUBT);
        self.lost |=
            if self.holders.is_empty() { !dropped.is_empty() } else { self.is_forgotten() };
        if !self.relays.is_empty() && std::mem::take(&mut self.lost) {
            self.doubted.clear();
            net.events.push_back(DhtEvent::Forgotten);
        }
        self.updates += 1;
        self.failures = if self.relays.is_empty() { self.failures + 1 } else { 0 };
        let pause = match self.failures {
            0 => PING_PAUSE,
            n => (FIRST_RETRY * 2u32.saturating_pow(n - 1).min(64)).min(LAST_RETRY),
        };
        self.state = State::Resting { until: now + pause, round: 0 };
        // Without relays but open to all, we are found by those who know our address.
        self.ready |= !self.relays.is_empty() || self.failures > 1 || net.open_address().is_some();
        if !dropped.is_empty() {
            let (key_pair, target) = (self.key_pair.clone(), self.target);
            net.withdrawals.push(Withdrawal { key_pair, target, nodes: dropped });
        }
        if self.refresh {
            self.update(net, now);
        }
    }

    fn after_pings(&mut self, enough: bool, round: u32, net: &mut Net, now: Instant) {
        self.lost |= !enough && self.is_forgotten();
        if enough && !self.refresh {
            self.state = State::Resting { until: now + PING_PAUSE, round: round + 1 };
        } else {
            self.update(net, now);
        }
    }

    /// Whether no node has held our record all along.
    fn is_forgotten(&self) -> bool {
        self.holders.iter().all(|holder| self.doubted.contains_key(holder))
    }
}

/// Notes how a relay answered. False if it was silent or has forgotten us, which calls for an update; but one that
/// has stored our record and never shown it calls for no more than one.
fn note_ping(
    relay: SocketAddrV4,
    reply: Option<&Reply>,
    shown: &mut BTreeSet<SocketAddrV4>,
    doubted: &mut BTreeMap<SocketAddrV4, Instant>,
    now: Instant,
) -> bool {
    if reply.is_some_and(|reply| reply.value.is_some()) {
        shown.insert(relay);
        return true;
    }
    let had_shown = shown.remove(&relay);
    let first = doubted.insert(relay, now).is_none();
    reply.is_some() && !had_shown && !first
}
