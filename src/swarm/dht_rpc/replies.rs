//! What is sent because others want it: answers, what is passed on, punches. Each within the budget of the host it goes to.

use super::message::{Request, Response};
use super::requests::Purpose;
use super::{Account, Ask, Extras, Incoming, K, Rpc, Transmit};
use crate::swarm::socket::SocketId;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// What a datagram takes beside its bytes: the headers of UDP, IP and Ethernet.
const HEADERS: usize = 8 + 20 + 18;

impl Rpc {
    /// Answers a request.
    pub fn reply(&mut self, to: &Incoming, value: Option<Vec<u8>>, extras: Extras, now: Instant) {
        self.reply_to(to, to.from, value, extras, Account::Others, now);
    }

    /// Answers a request at another address than it came from: its tid is known there.
    pub fn reply_to(
        &mut self,
        incoming: &Incoming,
        to: SocketAddrV4,
        value: Option<Vec<u8>>,
        extras: Extras,
        account: Account,
        now: Instant,
    ) {
        let closer = incoming
            .request
            .target
            .filter(|_| extras.closer)
            .map(|target| self.table.closest(&target, K).into_iter().map(|n| n.addr).collect());
        let response = Response {
            tid: incoming.request.tid,
            to,
            id: self.id_on(incoming.socket),
            token: extras.token.then(|| self.tokens.issue(to.ip())),
            closer: closer.unwrap_or_default(),
            error: extras.error,
            value,
        };
        self.send_unasked(incoming.socket, to, response.encode(), account, now);
    }

    /// Passes a request on under the same tid, with another value.
    pub fn relay(
        &mut self,
        incoming: &Incoming,
        to: SocketAddrV4,
        value: Vec<u8>,
        account: Account,
        now: Instant,
    ) {
        let request = Request {
            to,
            id: self.id_on(incoming.socket),
            token: None,
            value: Some(value),
            ..incoming.request.clone()
        };
        self.send_unasked(incoming.socket, to, request.encode(), account, now);
    }

    fn send_unasked(
        &mut self,
        socket: SocketId,
        to: SocketAddrV4,
        bytes: Vec<u8>,
        account: Account,
        now: Instant,
    ) {
        self.send_raw(socket, to, bytes, None, account, now);
    }

    /// Sends bytes, which need not be dht-rpc (a punch), within the host's budget.
    pub fn send_raw(
        &mut self,
        socket: SocketId,
        to: SocketAddrV4,
        bytes: Vec<u8>,
        ttl: Option<u8>,
        account: Account,
        now: Instant,
    ) {
        if account == Account::Others && !self.is_proven_or_small(to, bytes.len(), now) {
            return;
        }
        let on_wire = bytes.len() + HEADERS;
        if to.port() == 0 || !self.budget.take(to.ip(), on_wire, account, now) {
            tracing::trace!(%to, len = bytes.len(), "host is over its budget, nothing sent");
            return;
        }
        self.out.push_back(Transmit { socket, to, bytes, ttl });
    }

    /// Whether a host has shown that it receives what it is sent, or was not sent much so far. It may be asked to.
    fn is_proven_or_small(&mut self, to: SocketAddrV4, bytes: usize, now: Instant) -> bool {
        let tick = self.upkeep.tick;
        if self.proven.has(to.ip(), tick) {
            return true;
        }
        let (may, show) = self.budget.take_unproven(to.ip(), bytes, now);
        if show && self.is_usable(&to) && self.proven.may_ask(*to.ip(), tick) {
            let ask = Ask { retries: 0, ..Ask::ping(to) };
            self.send(ask, false, Duration::ZERO, Purpose::Hint, now);
        }
        may
    }
}
