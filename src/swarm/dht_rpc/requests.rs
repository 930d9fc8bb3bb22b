//! Requests on their way: matching by tid, retries, and the window that keeps us from flooding.
//!
//! An attempt is given 1 s; a request is resent up to its number of retries and then given up. A response
//! counts only if it comes from the address that was asked: the tid alone has 16 bits. The window is four
//! buckets of 750 ms: at most [`WINDOW`] requests in the current one and twice that in all; others wait.
//!
//! Source: dht-rpc/lib/io.js:Request, CongestionWindow

use super::message::Request;
use super::query::QueryId;
use super::table::Node;
use super::{RequestId, Transmit};
use crate::key::NodeId;
use crate::swarm::socket::SocketId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

/// Requests that may be sent in one bucket.
const WINDOW: usize = 80;
/// Length of a bucket.
const DRAIN: Duration = Duration::from_millis(750);
/// Time an attempt is given.
const ATTEMPT: Duration = Duration::from_millis(1000);
/// The same of the first attempt where somebody waits: through a relay there and back takes less on most ways, and who
/// gets it twice answers twice the same.
const FIRST_HASTY: Duration = Duration::from_millis(400);
/// Requests in flight or waiting. Only our own doings make requests (a stranger causes at most a dozen
/// pings), so this is a backstop well below the 65 536 tids.
pub const MAX_INFLIGHT: usize = 4096;

/// For whom a request was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    Query(QueryId),
    /// Is this node of the table still there?
    Check(NodeId),
    /// The row is full: if `old` is silent, `new` takes its place.
    Swap {
        old: NodeId,
        new: Node,
    },
    /// The answer is to come to another socket.
    Probe,
    /// Is it there, of which another answer is to come to another socket?
    IsThere,
    /// The answer does not matter.
    Hint,
    /// The owner's.
    User(RequestId),
}

/// How a request is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sending {
    pub socket: SocketId,
    pub retries: u8,
    pub ttl: Option<u8>,
    /// Pass the window.
    pub force: bool,
    /// Time for the first attempt beyond [`ATTEMPT`].
    pub extra: Duration,
    /// The first attempt is given [`FIRST_HASTY`] only.
    pub hasty: bool,
}

#[derive(Debug)]
struct Inflight {
    to: SocketAddrV4,
    bytes: Vec<u8>,
    how: Sending,
    purpose: Purpose,
    sent: u8,
    late: u8,
    sent_at: Instant,
    deadline: Option<Instant>,
}

/// What became of a request that got no answer in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Its attempt number `late` passed; it goes on.
    Slow { purpose: Purpose, late: u8 },
    /// Given up.
    Lost { purpose: Purpose, to: SocketAddrV4, late: u8 },
}

/// An answered request.
#[derive(Debug)]
pub(super) struct Answered {
    pub purpose: Purpose,
    /// The socket that it was sent from.
    pub socket: SocketId,
    pub rtt: Duration,
    /// How often [`Overdue::Slow`] was told before.
    pub late: u8,
}

#[derive(Debug, Default)]
struct Window {
    buckets: [usize; 4],
    current: usize,
}

impl Window {
    fn is_full(&self) -> bool {
        self.buckets[self.current] >= WINDOW || self.buckets.iter().sum::<usize>() >= 2 * WINDOW
    }

    fn sent(&mut self) {
        self.buckets[self.current] += 1;
    }

    fn answered(&mut self) {
        let bucket = &mut self.buckets[self.current];
        *bucket = bucket.saturating_sub(1);
    }

    fn drain(&mut self) {
        self.current = (self.current + 1) % 4;
        self.buckets[self.current] = 0;
    }
}

/// All requests of a node.
#[derive(Debug)]
pub(super) struct Requests {
    inflight: BTreeMap<u16, Inflight>,
    deadlines: BTreeSet<(Instant, u16)>,
    waiting: VecDeque<u16>,
    window: Window,
    drain_at: Instant,
    next_tid: u16,
    /// Totals since the start, for [`super::health`].
    pub responses: u64,
    pub timeouts: u64,
}

impl Requests {
    pub fn new(first_tid: u16, now: Instant) -> Self {
        Self {
            inflight: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: VecDeque::new(),
            window: Window::default(),
            drain_at: now + DRAIN,
            next_tid: first_tid,
            responses: 0,
            timeouts: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.inflight.len()
    }

    /// Gives the request a tid and sends it, or queues it behind the window. False if there are too many.
    pub fn send(
        &mut self,
        mut request: Request,
        how: Sending,
        purpose: Purpose,
        now: Instant,
        out: &mut VecDeque<Transmit>,
    ) -> bool {
        if self.inflight.len() >= MAX_INFLIGHT {
            return false;
        }
        while self.inflight.contains_key(&self.next_tid) {
            self.next_tid = self.next_tid.wrapping_add(1);
        }
        let tid = self.next_tid;
        self.next_tid = tid.wrapping_add(1);
        request.tid = tid;
        let (to, bytes) = (request.to, request.encode());
        let entry =
            Inflight { to, bytes, how, purpose, sent: 0, late: 0, sent_at: now, deadline: None };
        self.inflight.insert(tid, entry);
        self.attempt(tid, now, out);
        true
    }

    /// The request that a response of `tid` from `from` answers. It is over with that.
    pub fn answer(&mut self, tid: u16, from: SocketAddrV4, now: Instant) -> Option<Answered> {
        if self.inflight.get(&tid)?.to != from {
            return None;
        }
        let entry = self.remove(tid)?;
        self.window.answered();
        self.responses += 1;
        let rtt = now.saturating_duration_since(entry.sent_at);
        Some(Answered { purpose: entry.purpose, socket: entry.how.socket, rtt, late: entry.late })
    }

    /// Forgets the requests made for `purpose`.
    pub fn cancel(&mut self, purpose: &Purpose) {
        let tids: Vec<u16> =
            self.inflight.iter().filter(|(_, e)| e.purpose == *purpose).map(|(t, _)| *t).collect();
        for tid in tids {
            self.remove(tid);
            self.window.answered();
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = self.deadlines.first().map(|(at, _)| *at);
        let drain = (!self.waiting.is_empty()).then_some(self.drain_at);
        first.into_iter().chain(drain).min()
    }

    /// Resends, gives up, and lets waiting requests go.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut VecDeque<Transmit>) -> Vec<Overdue> {
        self.drain(now, out);
        let mut overdue = Vec::new();
        while let Some(&(at, tid)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(entry) = self.inflight.get_mut(&tid) else { continue };
            entry.deadline = None;
            if entry.sent > entry.how.retries {
                // A firewall may keep an answer to another socket, which says nothing of the network.
                self.timeouts +=
                    u64::from(!matches!(entry.purpose, Purpose::Probe | Purpose::IsThere));
                self.window.answered();
                let Some(entry) = self.remove(tid) else { continue };
                let Inflight { purpose, to, late, .. } = entry;
                overdue.push(Overdue::Lost { purpose, to, late });
                continue;
            }
            entry.late += 1;
            overdue.push(Overdue::Slow { purpose: entry.purpose.clone(), late: entry.late });
            self.attempt(tid, now, out);
        }
        overdue
    }

    fn drain(&mut self, now: Instant, out: &mut VecDeque<Transmit>) {
        // After a long pause four turns have emptied everything.
        for _ in 0..4 {
            if now < self.drain_at {
                break;
            }
            self.window.drain();
            self.drain_at += DRAIN;
        }
        if now >= self.drain_at {
            self.drain_at = now + DRAIN;
        }
        while !self.window.is_full()
            && let Some(tid) = self.waiting.pop_front()
        {
            self.transmit(tid, now, out);
        }
    }

    fn attempt(&mut self, tid: u16, now: Instant, out: &mut VecDeque<Transmit>) {
        let force = self.inflight.get(&tid).is_some_and(|e| e.how.force);
        if self.drain_at <= now {
            self.drain(now, out);
        }
        if !force && self.window.is_full() {
            self.waiting.push_back(tid);
        } else {
            self.transmit(tid, now, out);
        }
    }

    fn transmit(&mut self, tid: u16, now: Instant, out: &mut VecDeque<Transmit>) {
        let Some(entry) = self.inflight.get_mut(&tid) else { return };
        entry.sent += 1;
        entry.sent_at = now;
        let attempt = if entry.how.hasty && entry.sent == 1 { FIRST_HASTY } else { ATTEMPT };
        let deadline = now + attempt + entry.how.extra;
        entry.deadline = Some(deadline);
        self.deadlines.insert((deadline, tid));
        self.window.sent();
        out.push_back(Transmit {
            socket: entry.how.socket,
            to: entry.to,
            bytes: entry.bytes.clone(),
            ttl: entry.how.ttl,
        });
    }

    fn remove(&mut self, tid: u16) -> Option<Inflight> {
        let entry = self.inflight.remove(&tid)?;
        match entry.deadline {
            Some(at) => {
                self.deadlines.remove(&(at, tid));
            }
            None => self.waiting.retain(|t| *t != tid),
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::RETRIES;
    use super::*;
    use crate::sim::epoch;
    use crate::swarm::dht_rpc::message::internal;

    const NODE: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 0, 0, 1), 1000);

    fn ping(to: SocketAddrV4) -> Request {
        Request {
            tid: 0,
            to,
            id: None,
            token: None,
            internal: true,
            command: internal::PING,
            target: None,
            value: None,
        }
    }

    fn how(retries: u8) -> Sending {
        Sending {
            socket: SocketId::MAIN,
            retries,
            ttl: None,
            force: false,
            extra: Duration::ZERO,
            hasty: false,
        }
    }

    #[test]
    fn a_silent_node_gets_four_datagrams_a_second_apart_and_is_lost_after_four() {
        let start = epoch();
        let (mut requests, mut out) = (Requests::new(65535, start), VecDeque::new());
        assert!(requests.send(ping(NODE), how(RETRIES), Purpose::Hint, start, &mut out));
        let mut overdue = Vec::new();
        while let Some(at) = requests.poll_timeout() {
            overdue.extend(requests.handle_timeout(at, &mut out).into_iter().map(|o| (at, o)));
        }
        assert_eq!(out.len(), 4);
        assert_eq!(overdue.len(), 4);
        let slow = Overdue::Slow { purpose: Purpose::Hint, late: 1 };
        assert_eq!(overdue[0], (start + ATTEMPT, slow));
        let lost = Overdue::Lost { purpose: Purpose::Hint, to: NODE, late: 3 };
        assert_eq!(overdue[3], (start + ATTEMPT * 4, lost));
        assert_eq!(requests.len(), 0);
    }

    #[test]
    fn what_somebody_waits_for_is_asked_once_more_and_soon() {
        let start = epoch();
        let (mut requests, mut out) = (Requests::new(1, start), VecDeque::new());
        let how = Sending { hasty: true, ..how(RETRIES) };
        requests.send(ping(NODE), how, Purpose::Hint, start, &mut out);
        assert_eq!(requests.poll_timeout(), Some(start + FIRST_HASTY));
        requests.handle_timeout(start + FIRST_HASTY, &mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(requests.poll_timeout(), Some(start + FIRST_HASTY + ATTEMPT));
    }

    #[test]
    fn only_the_node_that_was_asked_can_answer() {
        let start = epoch();
        let (mut requests, mut out) = (Requests::new(7, start), VecDeque::new());
        requests.send(ping(NODE), how(0), Purpose::Hint, start, &mut out);
        let other = SocketAddrV4::new([10, 0, 0, 2].into(), 1000);
        assert!(requests.answer(7, other, start).is_none());
        assert!(requests.answer(8, NODE, start).is_none());
        assert!(requests.answer(7, NODE, start).is_some());
        assert!(requests.answer(7, NODE, start).is_none(), "once");
    }

    #[test]
    fn more_than_a_window_waits_for_the_next_bucket_or_an_answer() {
        let start = epoch();
        let (mut requests, mut out) = (Requests::new(0, start), VecDeque::new());
        for _ in 0..300 {
            requests.send(ping(NODE), how(9), Purpose::Hint, start, &mut out);
        }
        assert_eq!(out.len(), WINDOW);
        requests.handle_timeout(start + DRAIN, &mut out);
        assert_eq!(out.len(), 2 * WINDOW);
        requests.handle_timeout(start + DRAIN * 2, &mut out);
        assert_eq!(out.len(), 2 * WINDOW, "160 in four buckets are the most");
    }

    #[test]
    fn cancelled_requests_are_silent() {
        let start = epoch();
        let (mut requests, mut out) = (Requests::new(0, start), VecDeque::new());
        for n in 0..100 {
            requests.send(ping(NODE), how(3), Purpose::User(RequestId(n % 2)), start, &mut out);
        }
        requests.cancel(&Purpose::User(RequestId(0)));
        assert_eq!(requests.len(), 50);
        requests.cancel(&Purpose::User(RequestId(1)));
        assert_eq!(requests.poll_timeout(), None);
    }
}
