//! Whether we are cut off: nobody answers any more. Some who fall silent are no sign of it, and whoever wants us to look
//! everything up anew may well be silent. So when several hosts that had answered do not, those are asked that
//! answered last; only if none of them does, nobody seems to be there.

use super::requests::Purpose;
use super::{Ask, Rpc};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// So many hosts must have fallen silent, or all that are known; and so many others are asked then.
const HOSTS: usize = 3;
/// How long those may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Hosts that had answered before and lost a request since the last answer of anybody, each once.
    hosts: Vec<Ipv4Addr>,
    /// When others were asked because of that.
    asked_at: Option<Instant>,
    /// Nobody was known at a tick, or nobody answered, and nobody has since.
    cut_off: bool,
}

impl Silence {
    /// Somebody answered. True if we were cut off.
    pub fn ends(&mut self) -> bool {
        std::mem::take(self).cut_off
    }

    fn is_doubted(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now >= at + PATIENCE)
    }
}

impl Rpc {
    /// A host that had answered before did not.
    pub(super) fn fell_silent(&mut self, host: Ipv4Addr, now: Instant) {
        let silence = &mut self.silence;
        if silence.asked_at.is_some() {
            return;
        }
        if !silence.hosts.contains(&host) {
            silence.hosts.push(host);
        }
        let others = || self.table.oldest_first().filter(|node| node.seen > 0);
        let all = || others().all(|node| self.silence.hosts.contains(node.addr.ip()));
        if self.silence.hosts.len() >= HOSTS || all() {
            self.silence.asked_at = Some(now);
            self.ask_around(HOSTS, now);
        }
    }

    /// At a tick: while we are cut off somebody is asked whether the network is back; nothing else may be due for minutes.
    pub(super) fn listen_for_anybody(&mut self, now: Instant) {
        self.silence.cut_off |= self.table.is_empty() || self.silence.is_doubted(now);
        if self.silence.cut_off {
            self.ask_around(1, now);
        }
    }

    /// Asks nodes of so many hosts that answered last, and one to start from.
    fn ask_around(&mut self, hosts: usize, now: Instant) {
        let silent = &self.silence.hosts;
        let mut known: Vec<SocketAddrV4> = Vec::with_capacity(hosts + 1);
        for _ in 0..hosts {
            let others = self.table.oldest_first();
            let others = others.filter(|n| known.iter().all(|known| known.ip() != n.addr.ip()));
            // Who writes to us is there, but only who answered is worth asking.
            let best = others.max_by_key(|n| (!silent.contains(n.addr.ip()), n.seen));
            known.extend(best.map(|node| node.addr));
        }
        let turn = usize::try_from(self.upkeep.tick).unwrap_or(0);
        let bootstrap = &self.config.bootstrap;
        known.extend(bootstrap.get(turn % bootstrap.len().max(1)).filter(|a| !known.contains(a)));
        for to in known {
            let ask = Ask { retries: 0, ..Ask::ping(to) };
            self.send(ask, true, Duration::ZERO, Purpose::Hint, now);
        }
    }
}
