//! Queries on their way: whom they ask next, what the answers mean for them, and when they are over.

use super::message::error;
use super::query::{Query, QueryId, QuerySpec, Reply};
use super::requests::Purpose;
use super::{Ask, K, MAX_INFLIGHT, Rpc, RpcEvent, is_usable};
use crate::key::NodeId;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Requests in flight above which queries send nothing more until some are answered: what a query ends with,
/// a request to each of the nearest nodes, finds room below [`MAX_INFLIGHT`].
const MAX_QUERY_INFLIGHT: usize = MAX_INFLIGHT / 4;

impl Rpc {
    /// Lets queries go on that waited for room.
    pub(super) fn resume(&mut self, now: Instant) {
        while self.requests.len() < MAX_QUERY_INFLIGHT
            && let Some(id) = self.stalled.pop_first()
        {
            self.advance(id, now);
        }
    }

    pub(super) fn on_query_reply(&mut self, id: QueryId, reply: Reply, late: u8, now: Instant) {
        self.note_named(&reply.closer, now);
        let (config, own) = (&self.config, self.address());
        let Some(query) = self.queries.get_mut(&id) else { return };
        let usable = |addr: &SocketAddrV4| is_usable(config, addr) && Some(*addr) != own;
        let hints = query.on_reply(&reply, late, usable);
        if reply.error == error::NONE && !query.spec.silent && !query.is_finished() {
            self.events.push_back(RpcEvent::QueryReply { query: id, reply });
        }
        self.send_down_hints(hints, now);
        self.advance(id, now);
    }

    /// Lets a query send what it may, and ends it when it is over.
    pub(super) fn advance(&mut self, id: QueryId, now: Instant) {
        loop {
            let Some(query) = self.queries.get_mut(&id) else { return };
            if query.is_finished() {
                break;
            }
            if self.requests.len() >= MAX_QUERY_INFLIGHT {
                self.stalled.insert(id);
                return;
            }
            if let Some(to) = query.next() {
                self.visit(id, to, now);
                continue;
            }
            if !query.settle() {
                return;
            }
            if query.should_widen() {
                let target = query.spec.target;
                let nodes = self.start_nodes(&target, now);
                if let Some(query) = self.queries.get_mut(&id) {
                    query.add_start_nodes(nodes);
                }
                continue;
            }
            let (silent, closest) = (query.spec.silent, query.finish());
            if silent {
                self.on_silent_done(id, now);
            } else {
                self.events.push_back(RpcEvent::QueryDone { query: id, closest });
            }
        }
        // What is still in flight tells who is down, if it is not answered.
        if self.queries.get(&id).is_some_and(Query::is_idle) {
            self.queries.remove(&id);
        }
    }

    fn visit(&mut self, id: QueryId, to: SocketAddrV4, now: Instant) {
        let Some(QuerySpec { internal, command, target, value, retries, .. }) =
            self.queries.get(&id).map(|q| q.spec.clone())
        else {
            return;
        };
        let target = Some(target);
        let socket = self.any_socket(to.ip());
        let ask = Ask { internal, target, value, retries, socket, ..Ask::new(to, command) };
        if !self.send(ask, false, Duration::ZERO, Purpose::Query(id), now)
            && let Some(query) = self.queries.get_mut(&id)
        {
            query.on_timeout(to, 0);
        }
    }

    /// The table's nodes near the target, and bootstrap nodes while those are few; those that keys named, now and then.
    pub(super) fn start_nodes(&mut self, target: &NodeId, now: Instant) -> Vec<SocketAddrV4> {
        let mut nodes: Vec<_> = self.table.closest(target, K).into_iter().map(|n| n.addr).collect();
        if nodes.len() < K {
            let own = self.address();
            let known = self.config.bootstrap.iter().chain(self.hinted.take(now));
            nodes.extend(known.copied().filter(|known| Some(*known) != own));
        }
        nodes
    }
}
