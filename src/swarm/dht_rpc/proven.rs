//! Hosts that have shown that they receive what is sent to them, by an answer to a request of ours or a token that they
//! were given. Whoever has not may be somebody else in whose name a liar asks: of our answers, which may be twenty times
//! as long as a question, it gets few, and is asked to show itself when it wants more.
//!
//! The reference answers everybody without a limit.

use lru::LruCache;
use std::net::Ipv4Addr;

/// Hosts remembered, 80 bytes each.
const MAX_HOSTS: usize = 4096;
/// Ticks after which one has to show itself again: an hour.
const LASTS: u64 = 720;
/// Hosts asked in one tick, each with one datagram: a flood in the names of many must not use up what we may ask.
const MAX_ASKED: usize = 8;

#[derive(Debug)]
pub(super) struct Proven {
    /// By host the tick at which it last did.
    hosts: LruCache<Ipv4Addr, u64>,
    /// The hosts asked in a tick.
    asked: (u64, Vec<Ipv4Addr>),
}

impl Default for Proven {
    fn default() -> Self {
        Self { hosts: LruCache::unbounded(), asked: (0, Vec::new()) }
    }
}

impl Proven {
    /// A host has shown that it receives what it is sent.
    pub fn add(&mut self, host: Ipv4Addr, tick: u64) {
        self.hosts.push(host, tick);
        if self.hosts.len() > MAX_HOSTS {
            self.hosts.pop_lru();
        }
    }

    pub fn has(&self, host: &Ipv4Addr, tick: u64) -> bool {
        self.hosts.peek(host).is_some_and(|at| tick < at + LASTS)
    }

    /// Whether a host that wants more is to be asked now.
    pub fn may_ask(&mut self, host: Ipv4Addr, tick: u64) -> bool {
        if self.asked.0 != tick {
            self.asked = (tick, Vec::new());
        }
        let may = self.asked.1.len() < MAX_ASKED && !self.asked.1.contains(&host);
        self.asked.1.extend(may.then_some(host));
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0800_0000 + n)
    }

    #[test]
    fn so_many_are_remembered_and_not_for_ever() {
        let mut proven = Proven::default();
        (0..2 * MAX_HOSTS as u32).for_each(|n| proven.add(host(n), 100));
        assert_eq!(proven.hosts.len(), MAX_HOSTS);
        assert!(!proven.has(&host(0), 100) && proven.has(&host(MAX_HOSTS as u32), 100 + LASTS - 1));
        assert!(!proven.has(&host(MAX_HOSTS as u32), 100 + LASTS));
    }

    #[test]
    fn a_few_are_asked_at_a_time_and_each_once() {
        let mut proven = Proven::default();
        assert!(proven.may_ask(host(1), 7) && !proven.may_ask(host(1), 7));
        assert_eq!((2..100).filter(|n| proven.may_ask(host(*n), 7)).count(), MAX_ASKED - 1);
        assert!(proven.may_ask(host(1), 8));
    }
}
