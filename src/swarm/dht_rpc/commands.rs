//! Answering requests: the commands every node knows, and the checks before the owner sees the others.
//!
//! Source: dht-rpc/index.js:_onrequest, _ondelayedping

use super::message::{Request, error, internal};
use super::requests::Purpose;
use super::{Account, Ask, Extras, Incoming, Rpc, RpcEvent, node_id};
use crate::codec::{Reader, net};
use crate::swarm::socket::SocketId;
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// The longest delay of a DELAYED_PING.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// Delayed answers kept; a stranger may ask for one with each datagram.
const MAX_DELAYED: usize = 256;
/// Checks of nodes that were said to be down, at a time.
const MAX_CHECKS: usize = 10;

/// Answers to DELAYED_PING that are not due yet.
#[derive(Debug, Default)]
pub(super) struct Delayed(VecDeque<(Instant, Incoming)>);

impl Delayed {
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().map(|(at, _)| *at).min()
    }
}

impl Rpc {
    pub(super) fn on_request(
        &mut self,
        socket: SocketId,
        from: SocketAddrV4,
        request: Request,
        now: Instant,
    ) {
        let id = request.id.filter(|id| *id == node_id(from));
        let incoming = Incoming { socket, from, id, request };
        if let Some(token) = &incoming.request.token
            && !self.tokens.accepts(token, from.ip())
        {
            let extras = Extras { error: error::INVALID_TOKEN, token: true, closer: true };
            return self.reply(&incoming, None, extras, now);
        }
        if incoming.request.token.is_some() {
            self.proven.add(*from.ip(), self.upkeep.tick);
        }
        // What it says of our address is no sample: anybody can send a request in any node's name.
        if id.is_some() {
            self.note_node(from, id, None, now);
        }
        if incoming.request.internal {
            self.serve_internal(incoming, now);
        } else {
            self.events.push_back(RpcEvent::Request(incoming));
        }
    }

    /// Answers "I do not know this", with nodes that may.
    pub fn reply_unknown(&mut self, incoming: &Incoming, now: Instant) {
        let extras = Extras { error: error::UNKNOWN_COMMAND, token: false, closer: true };
        self.reply(incoming, None, extras, now);
    }

    fn serve_internal(&mut self, incoming: Incoming, now: Instant) {
        let value = incoming.request.value.as_deref().unwrap_or_default();
        let mut r = Reader::new(value);
        match incoming.request.command {
            internal::PING => self.reply(&incoming, None, Extras::BARE, now),
            internal::PING_NAT => {
                let Some(port) = r.u16().ok().filter(|p| *p != 0) else { return };
                let to = SocketAddrV4::new(*incoming.from.ip(), port);
                self.reply_to(&incoming, to, None, Extras::BARE, Account::Others, now);
            }
            internal::FIND_NODE if incoming.request.target.is_none() => {}
            internal::FIND_NODE => {
                self.reply(&incoming, None, Extras { closer: true, ..Extras::BARE }, now);
            }
            internal::DOWN_HINT => {
                let Ok(down) = net::ipv4(&mut r) else { return };
                self.on_down_hint(down, now);
                self.reply(&incoming, None, Extras::BARE, now);
            }
            internal::DELAYED_PING => {
                let Ok(ms) = r.u32() else { return };
                let delay = Duration::from_millis(ms.into());
                if delay <= MAX_DELAY && self.delayed.0.len() < MAX_DELAYED {
                    self.delayed.0.push_back((now + delay, incoming));
                }
            }
            _ => self.reply_unknown(&incoming, now),
        }
    }

    pub(super) fn send_delayed(&mut self, now: Instant) {
        if self.delayed.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        for (at, incoming) in std::mem::take(&mut self.delayed.0) {
            if at <= now {
                self.reply(&incoming, None, Extras::BARE, now);
            } else {
                self.delayed.0.push_back((at, incoming));
            }
        }
    }

    /// Somebody found a node silent that we named: see for ourselves.
    fn on_down_hint(&mut self, down: SocketAddrV4, now: Instant) {
        if self.upkeep.checks >= MAX_CHECKS {
            return;
        }
        let tick = self.upkeep.tick;
        let Some(node) = self.table.get_mut(&node_id(down)) else { return };
        if node.pinged < tick || node.down_hints == 0 {
            node.down_hints += 1;
            let id = node.id;
            self.check(id, now);
        }
    }

    /// Pings a node of the table; it is removed if it is silent.
    pub(super) fn check(&mut self, id: crate::key::NodeId, now: Instant) {
        let tick = self.upkeep.tick;
        let Some(node) = self.table.get_mut(&id) else { return };
        node.pinged = tick;
        let ask = Ask::ping(node.addr);
        if self.send(ask, false, Duration::ZERO, Purpose::Check(id), now) {
            self.upkeep.checks += 1;
        }
    }
}
