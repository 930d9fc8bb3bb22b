//! One iterative query: ask the nodes nearest to a target for nodes still nearer, until none are.
//!
//! A query knows whom it asked, who referred whom, and the `k` nearest good answers. It sends nothing:
//! [`super::Rpc`] takes the next node with [`Query::next`], and tells it what came back. Errors count for
//! nothing but their closer nodes are used (a network's first node may answer only errors). A node that
//! does not answer is reported to those who named it.
//!
//! Source: dht-rpc/lib/query.js

use super::K;
use super::message::{Token, error};
use super::table::{distance, node_id};
use crate::key::NodeId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddrV4;
use std::time::Duration;

/// Handle of a running query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// Requests of a query in flight.
pub const CONCURRENCY: usize = 10;
/// The same while only remembered nodes were asked and none has answered.
const CAREFUL_CONCURRENCY: usize = 3;
/// Addresses a query looks at. Ordinary ones need fewer than a hundred; liars who name ever nearer
/// addresses could otherwise keep one going for ever.
const MAX_SEEN: usize = 1024;
/// Nodes that are told that a node they named is silent.
const MAX_REFERRERS: usize = 8;

/// What to ask, and whom first.
#[derive(Debug, Clone)]
pub struct QuerySpec {
    pub target: NodeId,
    pub internal: bool,
    pub command: u64,
    pub value: Option<Vec<u8>>,
    /// Start from these instead of the table.
    pub nodes: Vec<SocketAddrV4>,
    /// Ask only `nodes`.
    pub only_nodes: bool,
    /// Resends per node.
    pub retries: u8,
    /// Requests in flight.
    pub concurrency: usize,
    /// Report nothing to the owner.
    pub silent: bool,
}

impl QuerySpec {
    pub fn new(command: u64, target: NodeId) -> Self {
        Self {
            target,
            internal: false,
            command,
            value: None,
            nodes: Vec::new(),
            only_nodes: false,
            retries: 5,
            concurrency: CONCURRENCY,
            silent: false,
        }
    }
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub from: SocketAddrV4,
    /// The responder's id, if it is that of its address.
    pub id: Option<NodeId>,
    /// Our address as the responder sees it.
    pub to: SocketAddrV4,
    pub token: Option<Token>,
    pub closer: Vec<SocketAddrV4>,
    pub error: u64,
    pub value: Option<Vec<u8>>,
    pub rtt: Duration,
}

#[derive(Debug)]
enum Seen {
    /// Asked or about to be; who named it.
    Open(Vec<SocketAddrV4>),
    Done,
    Down,
}

/// State of one query.
#[derive(Debug)]
pub struct Query {
    pub spec: QuerySpec,
    /// Nodes to ask first, in the order in which they were given.
    given: VecDeque<(NodeId, SocketAddrV4)>,
    /// Nodes to ask by their distance: the nearest is next. The reference takes the latest named, and asks
    /// twice as many until the nearest are known.
    pending: BTreeMap<[u8; 32], (NodeId, SocketAddrV4)>,
    seen: HashMap<SocketAddrV4, Seen>,
    /// The best answers, nearest first, at most [`K`].
    closest: Vec<Reply>,
    inflight: usize,
    /// Their distances.
    asking: BTreeSet<[u8; 32]>,
    /// Of those, how many passed one timeout, and how many two.
    slow: [usize; 2],
    /// The owner has its result; only what is still in flight is waited for.
    finished: bool,
    careful: bool,
    from_table: bool,
    successes: usize,
    errors: usize,
    own_id: NodeId,
}

/// Nodes to be told that `down` does not answer.
pub type DownHints = Vec<(SocketAddrV4, SocketAddrV4)>;

impl Query {
    pub fn new(mut spec: QuerySpec, own_id: NodeId) -> Self {
        let nodes = std::mem::take(&mut spec.nodes);
        let mut query = Self {
            spec,
            given: VecDeque::new(),
            pending: BTreeMap::new(),
            seen: HashMap::new(),
            closest: Vec::new(),
            inflight: 0,
            asking: BTreeSet::new(),
            slow: [0; 2],
            finished: false,
            careful: false,
            from_table: false,
            successes: 0,
            errors: 0,
            own_id,
        };
        for node in nodes {
            if query.seen.insert(node, Seen::Open(Vec::new())).is_none() {
                query.given.push_back((node_id(node), node));
            }
        }
        query
    }

    /// Whether more nodes are wanted before the first request.
    pub fn wants_start_nodes(&self) -> bool {
        !self.spec.only_nodes && self.given.len() < K
    }

    /// Adds nodes of the table and bootstrap nodes, behind those given at the start.
    pub fn add_start_nodes(&mut self, nodes: impl IntoIterator<Item = SocketAddrV4>) {
        self.from_table = true;
        for node in nodes {
            self.add(node, None);
        }
    }

    /// The next node to ask, if the query wants another request in flight.
    pub fn next(&mut self) -> Option<SocketAddrV4> {
        let concurrency = self.slow[0]
            + if self.careful { CAREFUL_CONCURRENCY } else { self.spec.concurrency.max(1) };
        while self.inflight < concurrency {
            let next = match self.given.pop_front() {
                Some(node) => Some(node),
                None if self.can_wait() => None,
                None => self.pending.pop_first().map(|(_, node)| node),
            };
            let (id, addr) = next?;
            if self.is_closer(&id) {
                self.inflight += 1;
                self.asking.insert(distance(&self.spec.target, &id));
                return Some(addr);
            }
        }
        None
    }

    /// Whether the nearest node not asked so far is among the [`K`] nearest only if some of those do not answer
    /// that are being asked. Only where the query started from nodes that answered before: others may be
    /// invented, and honest ones must not wait for them.
    fn can_wait(&self) -> bool {
        if self.from_table {
            return false;
        }
        let Some((next, _)) = self.pending.first_key_value() else { return false };
        let answered = self.closest.partition_point(|reply| self.distance_of(reply) < *next);
        let asking = self.asking.range(..*next).count().saturating_sub(self.slow[0]);
        answered < K && answered + asking >= K
    }

    /// To be called when [`Self::next`] has nothing more: true when the query is over.
    pub fn settle(&mut self) -> bool {
        self.careful |= !self.from_table && self.successes + self.errors == 0;
        self.given.is_empty()
            && self.pending.is_empty()
            && (self.inflight == 0
                || (self.slow[0] == self.inflight && self.closest.len() >= K)
                || (self.slow[1] == self.inflight && !self.closest.is_empty()))
    }

    /// Whether a query that is over did too badly with the nodes it was given and should go on from the
    /// table.
    pub fn should_widen(&self) -> bool {
        !self.from_table && !self.spec.only_nodes && self.successes < K / 4
    }

    /// A node answered.
    pub fn on_reply(
        &mut self,
        reply: &Reply,
        late: u8,
        usable: impl Fn(&SocketAddrV4) -> bool,
    ) -> DownHints {
        self.finish_one(reply.from, late);
        self.seen.insert(reply.from, Seen::Done);
        if self.finished {
            return Vec::new();
        }
        if reply.error == error::NONE {
            self.successes += 1;
            self.keep_if_closest(reply);
        } else {
            self.errors += 1;
        }
        let mut hints = Vec::new();
        for node in reply.closer.iter().filter(|n| usable(n)) {
            if node_id(*node) == self.own_id {
                continue;
            }
            if matches!(self.seen.get(node), Some(Seen::Down)) {
                hints.push((reply.from, *node));
            }
            // Nodes come nearest first: behind one that is too far there are only farther ones.
            if !self.spec.only_nodes && !self.add(*node, Some(reply.from)) {
                break;
            }
        }
        if !self.from_table && self.successes + self.errors >= CONCURRENCY {
            self.careful = false;
        }
        hints
    }

    /// A node did not answer, or could not be asked.
    pub fn on_timeout(&mut self, node: SocketAddrV4, late: u8) -> DownHints {
        self.finish_one(node, late);
        self.errors += 1;
        match self.seen.insert(node, Seen::Down) {
            Some(Seen::Open(referrers)) => referrers.into_iter().map(|r| (r, node)).collect(),
            _ => Vec::new(),
        }
    }

    /// A request passed its timeout number `late`. From the first on another may go out beside it; from the
    /// second on it does not hold up the result.
    pub fn on_slow(&mut self, late: u8) {
        if let Some(slow) = self.slow.get_mut(usize::from(late.max(1)) - 1) {
            *slow += 1;
        }
    }

    /// Gives the nearest good answers, nearest first; from now on the query only waits for what is in
    /// flight, to know who is down.
    pub fn finish(&mut self) -> Vec<Reply> {
        self.finished = true;
        std::mem::take(&mut self.closest)
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub fn is_idle(&self) -> bool {
        self.inflight == 0
    }

    fn finish_one(&mut self, node: SocketAddrV4, late: u8) {
        self.asking.remove(&distance(&self.spec.target, &node_id(node)));
        self.inflight = self.inflight.saturating_sub(1);
        for slow in self.slow.iter_mut().take(late.into()) {
            *slow = slow.saturating_sub(1);
        }
    }

    /// Whether a node at `id` would be among the nearest.
    fn is_closer(&self, id: &NodeId) -> bool {
        let Some(worst) = self.closest.last().filter(|_| self.closest.len() >= K) else {
            return true;
        };
        distance(&self.spec.target, id) < self.distance_of(worst)
    }

    fn distance_of(&self, reply: &Reply) -> [u8; 32] {
        distance(&self.spec.target, &reply.id.unwrap_or(NodeId([0xff; 32])))
    }

    /// Notes a node; false if it is too far to matter.
    fn add(&mut self, addr: SocketAddrV4, referrer: Option<SocketAddrV4>) -> bool {
        let id = node_id(addr);
        let closer = self.is_closer(&id);
        let room = self.seen.len() < MAX_SEEN;
        match self.seen.get_mut(&addr) {
            Some(Seen::Open(referrers)) => {
                let wanted = referrers.len() < MAX_REFERRERS;
                let new = referrer.filter(|r| wanted && !referrers.contains(r));
                referrers.extend(new);
            }
            Some(_) => {}
            None if closer && room => {
                self.seen.insert(addr, Seen::Open(referrer.into_iter().collect()));
                self.pending.insert(distance(&self.spec.target, &id), (id, addr));
            }
            None => return false,
        }
        closer
    }

    fn keep_if_closest(&mut self, reply: &Reply) {
        let Some(id) = reply.id.filter(|id| self.is_closer(id)) else { return };
        let key = distance(&self.spec.target, &id);
        let target = self.spec.target;
        let of = |r: &Reply| distance(&target, &r.id.unwrap_or(NodeId([0xff; 32])));
        match self.closest.binary_search_by_key(&key, of) {
            Ok(at) => self.closest[at] = reply.clone(),
            Err(at) => self.closest.insert(at, reply.clone()),
        }
        self.closest.truncate(K);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: u16) -> SocketAddrV4 {
        SocketAddrV4::new([10, 0, (n >> 8) as u8, n as u8].into(), 1000 + n)
    }

    fn reply(from: SocketAddrV4, closer: Vec<SocketAddrV4>) -> Reply {
        Reply {
            from,
            id: Some(node_id(from)),
            to: node(0),
            token: None,
            closer,
            error: 0,
            value: None,
            rtt: Duration::ZERO,
        }
    }

    fn nearest(target: &NodeId, nodes: &[SocketAddrV4], k: usize) -> Vec<SocketAddrV4> {
        let mut nodes = nodes.to_vec();
        nodes.sort_by_key(|n| distance(target, &node_id(*n)));
        nodes.truncate(k);
        nodes
    }

    /// Runs a query over nodes that know some of each other; `down` do not answer.
    fn run(query: &mut Query, all: &[SocketAddrV4], down: &[SocketAddrV4]) -> (usize, DownHints) {
        let (mut asked, mut hints) = (0, Vec::new());
        loop {
            let batch: Vec<_> = std::iter::from_fn(|| query.next()).collect();
            if query.settle() {
                return (asked, hints);
            }
            for addr in batch {
                asked += 1;
                hints.extend(if down.contains(&addr) {
                    query.on_timeout(addr, 0)
                } else {
                    let closer = nearest(&query.spec.target, all, K);
                    query.on_reply(&reply(addr, closer), 0, |_| true)
                });
            }
        }
    }

    #[test]
    fn it_finds_the_k_nearest_and_asks_few() {
        let all: Vec<_> = (1..500).map(node).collect();
        let target = NodeId([7; 32]);
        let mut query = Query::new(QuerySpec::new(3, target), NodeId([0; 32]));
        query.add_start_nodes([all[0]]);
        let (asked, _) = run(&mut query, &all, &[]);
        let found: Vec<_> = query.closest.iter().map(|r| r.from).collect();
        assert_eq!(found, nearest(&target, &all, K));
        assert!(asked <= K + 1, "{asked}");
    }

    #[test]
    fn where_the_nearest_are_known_nobody_else_is_asked() {
        let all: Vec<_> = (1..500).map(node).collect();
        let target = NodeId([7; 32]);
        let nodes = nearest(&target, &all, K);
        let mut query =
            Query::new(QuerySpec { nodes, ..QuerySpec::new(3, target) }, NodeId([0; 32]));
        // Each names the nodes near itself, most of them farther from the target.
        let mut asking = VecDeque::new();
        let mut asked = 0;
        loop {
            asking.extend(std::iter::from_fn(|| query.next()));
            let Some(addr) = asking.pop_front() else { break };
            asked += 1;
            query.on_reply(&reply(addr, nearest(&node_id(addr), &all, K)), 0, |_| true);
        }
        assert!(query.settle());
        assert_eq!(asked, K);
    }

    #[test]
    fn silent_nodes_are_reported_to_those_who_named_them() {
        let all: Vec<_> = (1..60).map(node).collect();
        let target = NodeId([7; 32]);
        let down = nearest(&target, &all, 2);
        let mut query = Query::new(QuerySpec::new(3, target), NodeId([0; 32]));
        query.add_start_nodes([all[5]]);
        let (_, hints) = run(&mut query, &all, &down);
        assert!(down.iter().all(|d| hints.iter().any(|(to, hint)| hint == d && to != d)));
        assert!(query.closest.iter().all(|r| !down.contains(&r.from)));
    }

    #[test]
    fn closer_nodes_of_an_error_are_used_and_the_error_is_no_answer() {
        let mut query = Query::new(QuerySpec::new(2, NodeId([7; 32])), NodeId([0; 32]));
        query.add_start_nodes([node(1)]);
        assert_eq!(query.next(), Some(node(1)));
        let mut error = reply(node(1), vec![node(2)]);
        error.error = error::UNKNOWN_COMMAND;
        query.on_reply(&error, 0, |_| true);
        assert_eq!(query.next(), Some(node(2)));
        assert!(query.closest.is_empty());
    }

    #[test]
    fn in_a_small_network_a_dead_node_delays_the_result_by_two_timeouts_only() {
        let mut query = Query::new(QuerySpec::new(2, NodeId([7; 32])), NodeId([0; 32]));
        query.add_start_nodes([node(1), node(2)]);
        assert!(query.next().is_some() && query.next().is_some());
        query.on_slow(1);
        query.on_slow(2);
        assert!(!query.settle(), "there is no answer at all yet");
        query.on_reply(&reply(node(1), vec![]), 0, |_| true);
        assert!(query.settle());
        assert_eq!(query.finish().len(), 1);
        let hints = query.on_timeout(node(2), 2);
        assert!(query.is_idle() && hints.is_empty());
    }

    #[test]
    fn liars_who_name_ever_new_addresses_are_cut_off() {
        let mut query = Query::new(QuerySpec::new(2, NodeId([7; 32])), NodeId([0; 32]));
        query.add_start_nodes([node(1)]);
        let (mut n, mut asked) = (2, 0);
        while let Some(addr) = query.next() {
            asked += 1;
            let closer = (n..n + 20).map(node).collect();
            n += 20;
            // Without an id nothing ever becomes "closest", so everything looks near.
            let liar = Reply { id: None, ..reply(addr, closer) };
            query.on_reply(&liar, 0, |_| true);
        }
        assert!(query.settle());
        assert_eq!(asked, MAX_SEEN);
    }

    #[test]
    fn given_nodes_go_first_and_a_failure_widens_to_the_table() {
        let spec =
            QuerySpec { nodes: vec![node(3), node(4)], ..QuerySpec::new(2, NodeId([7; 32])) };
        let mut query = Query::new(spec, NodeId([0; 32]));
        assert_eq!(query.next(), Some(node(3)));
        assert_eq!(query.next(), Some(node(4)));
        assert!(!query.settle());
        query.on_timeout(node(3), 0);
        query.on_timeout(node(4), 0);
        assert!(query.settle() && query.should_widen());
    }

    proptest! {
        /// Whatever answers come, the closest list is sorted, unique and bounded.
        #[test]
        fn closest_stays_sorted(answers in proptest::collection::vec((1..300u16, any::<bool>()), 0..120)) {
            let mut query = Query::new(QuerySpec::new(2, NodeId([7; 32])), NodeId([0; 32]));
            for (n, good) in answers {
                let mut reply = reply(node(n), vec![]);
                reply.error = u64::from(!good);
                query.on_reply(&reply, 0, |_| true);
            }
            let keys: Vec<_> = query.closest.iter().map(|r| query.distance_of(r)).collect();
            prop_assert!(keys.is_sorted_by(|a, b| a < b));
            prop_assert!(keys.len() <= K);
        }
    }
}
