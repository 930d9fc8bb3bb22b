//! Nodes to enter by that a key named. They are asked where hardly anybody else is known, beside the nodes that we were given
//! to start from; but whoever made the key may have named anybody, or they are long gone: so with pauses that double.

use super::Rpc;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Nodes that are remembered.
const MAX_NODES: usize = 64;
/// Pauses between the times that they are asked.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LAST_PAUSE: Duration = Duration::from_secs(600);
/// All that begins within this asks them together.
const TOGETHER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Hinted {
    nodes: Vec<SocketAddrV4>,
    pause: Duration,
    /// When they were asked, and when they may be again.
    asked: Option<(Instant, Instant)>,
}

impl Default for Hinted {
    fn default() -> Self {
        Self { nodes: Vec::new(), pause: FIRST_PAUSE, asked: None }
    }
}

impl Hinted {
    /// They may be asked at once: one is new, one answered, or we are elsewhere.
    pub fn hurry(&mut self) {
        (self.pause, self.asked) = (FIRST_PAUSE, None);
    }

    pub fn answered(&mut self, node: &SocketAddrV4) {
        if self.nodes.contains(node) {
            self.hurry();
        }
    }

    /// Whether it is time to ask them.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.nodes.is_empty() && self.asked.is_none_or(|(_, at)| at <= now)
    }

    /// Those to ask now, which may be none.
    pub fn take(&mut self, now: Instant) -> &[SocketAddrV4] {
        if self.is_due(now) {
            self.asked = Some((now, now + self.pause));
            self.pause = (self.pause * 2).min(LAST_PAUSE);
        }
        let just_now = self.asked.is_some_and(|(at, _)| now < at + TOGETHER);
        if just_now { &self.nodes } else { &[] }
    }
}

impl Rpc {
    /// A key says that there are nodes.
    pub fn hint(&mut self, nodes: &[SocketAddrV4], now: Instant) {
        let known = &mut self.hinted.nodes;
        let before = known.len();
        for node in nodes.iter().filter(|node| !self.config.bootstrap.contains(node)) {
            if known.len() < MAX_NODES && !known.contains(node) {
                known.push(*node);
            }
        }
        if known.len() > before {
            self.hinted.hurry();
            if self.table.is_empty() {
                self.refresh(now);
            }
        }
    }
}
