//! Hosts that the main socket leaves alone, so that they can tell whether others reach us unasked: a firewall lets in
//! whom we wrote to.
//!
//! A few of the nodes that we start from are left alone until the first probe is over, and those that are asked until theirs
//! is. Where every node knows us already and nobody could tell, one of them is *spared* until a firewall has forgotten
//! that we wrote to it, and asked then. What can be sent from the other socket meanwhile is. Where nobody else answers it
//! ends at once: to be found is worth more than to know whether we are open.

use super::probe::{FORGOTTEN, HELPERS, helpers};
use super::requests::Purpose;
use super::{Ask, Rpc, RpcEvent};
use crate::swarm::socket::SocketId;
use rand::seq::IndexedRandom;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How long they are set aside.
pub(super) const SET_ASIDE: Duration = Duration::from_millis(1500);
/// Ticks after which one that is spared should have been asked: if something writes to it all the time, another is spared.
const SPARED: u64 = FORGOTTEN + 12;

#[derive(Debug)]
pub(super) struct Aside {
    pub hosts: Vec<Ipv4Addr>,
    pub until: Instant,
    /// One, and since which tick.
    spared: Option<(Ipv4Addr, u64)>,
}

impl Aside {
    pub fn new(hosts: Vec<Ipv4Addr>, until: Instant) -> Self {
        Self { hosts, until, spared: None }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.hosts.is_empty()).then_some(self.until)
    }
}

impl Rpc {
    /// Whether the main socket is to leave a host alone for now.
    pub fn is_aside(&self, host: &Ipv4Addr) -> bool {
        self.aside.hosts.contains(host) || self.aside.spared.is_some_and(|(one, _)| one == *host)
    }

    /// The same, and only for a moment: what it holds of us is as good as before.
    pub fn is_set_aside(&self, host: &Ipv4Addr) -> bool {
        self.aside.hosts.contains(host)
    }

    /// Whether one of the nodes is left alone until it can tell whether others reach us.
    pub fn spares(&self) -> bool {
        self.aside.spared.is_some()
    }

    /// The socket for what any socket can send.
    pub fn any_socket(&self, to: &Ipv4Addr) -> SocketId {
        if self.is_aside(to) { SocketId::PROBE } else { SocketId::MAIN }
    }

    /// Some of the nodes that we start from, for a moment: of one that nobody has written to much can be learnt.
    pub(super) fn set_bootstrap_aside(&mut self, now: Instant) {
        let count = helpers(self.config.bootstrap.len());
        let hosts: Vec<_> =
            self.config.bootstrap.iter().rev().take(count).map(|a| *a.ip()).collect();
        let first = self.config.bootstrap.first().map(|first| *first.ip());
        self.aside.hosts = hosts.into_iter().filter(|host| Some(*host) != first).collect();
        self.aside.until = self.aside.until.max(now + SET_ASIDE);
    }

    /// Nobody is left alone any more. Those who were have not told yet where they see the main socket.
    pub fn use_all(&mut self, now: Instant) {
        let mut hosts = std::mem::take(&mut self.aside.hosts);
        hosts.extend(self.aside.spared.take().map(|(host, _)| host));
        if hosts.is_empty() {
            return;
        }
        let known = self.table.oldest_first().map(|node| node.addr);
        let asked: Vec<_> = known.filter(|node| hosts.contains(node.ip())).take(HELPERS).collect();
        for node in asked {
            let ask = Ask { retries: 1, ..Ask::ping(node) };
            self.send(ask, false, Duration::ZERO, Purpose::Hint, now);
        }
        self.events.push_back(RpcEvent::Released);
    }

    /// Every node knows us: one is spared, if there is another to get on with.
    pub(super) fn spare_one(&mut self) {
        let tick = self.upkeep.tick;
        let mut hosts: Vec<_> = self.table.oldest_first().map(|node| *node.addr.ip()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let before = self.aside.spared;
        if hosts.len() > 1 {
            if before.is_some_and(|(host, since)| tick < since + SPARED && hosts.contains(&host)) {
                return;
            }
            hosts.retain(|host| before.is_none_or(|(before, _)| before != *host));
            self.aside.spared = hosts.choose(&mut self.rng).map(|host| (*host, tick));
        } else {
            self.aside.spared = None;
        }
        if before.is_some() || self.spares() {
            self.events.push_back(RpcEvent::Released);
        }
    }
}
