//! The routing table: rows of up to [`K`] nodes by how many leading bits they share with our id.
//!
//! A row is sorted by id, and [`Table::closest`] takes whole rows, nearest first, without sorting by
//! distance: that is what the reference answers, and a query sorts for itself. Besides the rows the table
//! keeps the order in which nodes were last heard from, for pings and for asking "someone recent".
//!
//! Source: kademlia-routing-table/index.js, time-ordered-set/index.js

use super::K;
use crate::codec::net;
use crate::crypto::hash;
use crate::key::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

const ROWS: usize = 256;

/// The id of the node at `addr`: the hash of its six address bytes.
pub fn node_id(addr: SocketAddrV4) -> NodeId {
    let mut bytes = Vec::with_capacity(net::IPV4_LEN);
    net::put_ipv4(&mut bytes, &addr);
    NodeId(hash::hash(&[&bytes]))
}

/// A 32-byte distance; compares as a big-endian number.
pub fn distance(a: &NodeId, b: &NodeId) -> [u8; 32] {
    std::array::from_fn(|i| a.0[i] ^ b.0[i])
}

/// A node whose id is that of the address it wrote from. Only an answer to a request of ours shows that it is
/// there: a request can be sent in any node's name, so those not heard from are pinged. Ticks are those of [`super::Rpc`], 5 s each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub addr: SocketAddrV4,
    /// Tick of entry.
    pub added: u64,
    /// Tick of the last ping we sent or answer we got, 0 for none.
    pub pinged: u64,
    /// Tick of the last answer from it, 0 for none.
    pub seen: u64,
    /// Tick of the last sample of our address it gave, 0 for none.
    pub sampled: u64,
    /// How often others said it was down.
    pub down_hints: u32,
    /// Place in the order of last messages.
    order: u64,
}

impl Node {
    pub fn new(addr: SocketAddrV4, tick: u64) -> Self {
        Self {
            id: node_id(addr),
            addr,
            added: tick,
            pinged: tick,
            seen: tick,
            sampled: 0,
            down_hints: 0,
            order: 0,
        }
    }
}

/// What [`Table::add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    New,
    /// It was there already, or it is ourselves.
    Known,
    /// Its row is full; the row's number.
    Full(usize),
}

/// The nodes we know, at most 256 rows of [`K`].
#[derive(Debug)]
pub struct Table {
    id: NodeId,
    rows: Vec<Vec<Node>>,
    by_order: BTreeMap<u64, NodeId>,
    next_order: u64,
}

impl Table {
    pub fn new(id: NodeId) -> Self {
        Self { id, rows: vec![Vec::new(); ROWS], by_order: BTreeMap::new(), next_order: 0 }
    }

    pub fn id(&self) -> &NodeId {
        &self.id
    }

    pub fn len(&self) -> usize {
        self.by_order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_order.is_empty()
    }

    pub fn get(&self, id: &NodeId) -> Option<&Node> {
        let row = &self.rows[self.row_of(id)];
        row.binary_search_by(|n| n.id.cmp(id)).ok().map(|i| &row[i])
    }

    pub fn get_mut(&mut self, id: &NodeId) -> Option<&mut Node> {
        let row = self.row_of(id);
        let row = &mut self.rows[row];
        row.binary_search_by(|n| n.id.cmp(id)).ok().map(|i| &mut row[i])
    }

    /// Puts a node into its row, if there is room.
    pub fn add(&mut self, mut node: Node) -> Added {
        if node.id == self.id {
            return Added::Known;
        }
        let i = self.row_of(&node.id);
        let row = &mut self.rows[i];
        match row.binary_search_by(|n| n.id.cmp(&node.id)) {
            Ok(_) => Added::Known,
            Err(_) if row.len() >= K => Added::Full(i),
            Err(at) => {
                node.order = self.next_order;
                self.next_order += 1;
                self.by_order.insert(node.order, node.id);
                row.insert(at, node);
                Added::New
            }
        }
    }

    pub fn remove(&mut self, id: &NodeId) -> Option<Node> {
        let row = self.row_of(id);
        let row = &mut self.rows[row];
        let at = row.binary_search_by(|n| n.id.cmp(id)).ok()?;
        let node = row.remove(at);
        self.by_order.remove(&node.order);
        Some(node)
    }

    /// Makes the node the most recently heard one.
    pub fn touch(&mut self, id: &NodeId) {
        let order = self.next_order;
        let Some(node) = self.get_mut(id) else { return };
        let old = std::mem::replace(&mut node.order, order);
        self.next_order += 1;
        self.by_order.remove(&old);
        self.by_order.insert(order, *id);
    }

    /// What nodes said of our address counts no more.
    pub fn forget_samples(&mut self) {
        self.rows.iter_mut().flatten().for_each(|node| node.sampled = 0);
    }

    pub fn row(&self, i: usize) -> &[Node] {
        &self.rows[i]
    }

    /// Up to `k` nodes near `target`, row by row.
    pub fn closest(&self, target: &NodeId, k: usize) -> Vec<Node> {
        let d = self.row_of(target);
        let rows = (0..=d).rev().chain(d + 1..ROWS);
        rows.flat_map(|i| &self.rows[i]).take(k).copied().collect()
    }

    /// Nodes from the one not heard from for longest.
    pub fn oldest_first(&self) -> impl Iterator<Item = &Node> {
        self.by_order.values().filter_map(|id| self.get(id))
    }

    /// The same nodes around another id; those whose new row is full are dropped.
    pub fn rebuilt_around(&self, id: NodeId) -> Self {
        let mut table = Self::new(id);
        for node in self.oldest_first() {
            table.add(*node);
        }
        table
    }

    /// Number of leading bits that `id` shares with ours.
    fn row_of(&self, id: &NodeId) -> usize {
        let d = distance(&self.id, id);
        match d.iter().position(|&b| b != 0) {
            Some(i) => i * 8 + d[i].leading_zeros() as usize,
            None => ROWS - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::dht_rpc::testing::{bytes32, host_port, vectors};
    use proptest::prelude::*;

    #[test]
    fn node_ids_match_the_vectors() {
        for v in vectors()["addresses"].as_array().unwrap() {
            let addr = host_port(v);
            assert_eq!(Some(node_id(addr).0), bytes32(&v["id"]));
            let mut out = Vec::new();
            net::put_ipv4(&mut out, &addr);
            assert_eq!(crate::key::hex(&out), v["encoded"].as_str().unwrap());
        }
    }

    #[test]
    fn adding_and_closest_match_the_vector() {
        let all = vectors();
        let v = &all["routing_table"];
        let mut table = Table::new(NodeId(bytes32(&v["self"]).unwrap()));
        let nodes: Vec<Node> =
            v["nodes"].as_array().unwrap().iter().map(|n| Node::new(host_port(n), 1)).collect();
        for (node, want) in nodes.iter().zip(v["nodes"].as_array().unwrap()) {
            assert_eq!(Some(node.id.0), bytes32(&want["id"]));
            assert_eq!(table.add(*node) == Added::New, want["added"].as_bool().unwrap());
        }
        let got: Vec<NodeId> = table
            .closest(&NodeId(bytes32(&v["target"]).unwrap()), K)
            .iter()
            .map(|n| n.id)
            .collect();
        let want: Vec<NodeId> = v["closest20"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| nodes[i.as_u64().unwrap() as usize].id)
            .collect();
        assert_eq!(got, want);
    }

    proptest! {
        /// Rows stay sorted and bounded, and both indexes hold the same nodes.
        #[test]
        fn rows_and_order_agree(ops in proptest::collection::vec((0..3u8, 0..200u16), 0..400)) {
            let mut table = Table::new(NodeId([9; 32]));
            for (op, port) in ops {
                let node = Node::new(SocketAddrV4::new([10, 0, 0, 1].into(), port + 1), 1);
                match op {
                    0 => { table.add(node); }
                    1 => { table.remove(&node.id); }
                    _ => table.touch(&node.id),
                }
            }
            let in_rows: usize = (0..ROWS).map(|i| table.row(i).len()).sum();
            prop_assert_eq!(in_rows, table.len());
            prop_assert_eq!(table.oldest_first().count(), table.len());
            for i in 0..ROWS {
                prop_assert!(table.row(i).len() <= K);
                prop_assert!(table.row(i).is_sorted_by(|a, b| a.id < b.id));
            }
        }
    }

    #[test]
    fn a_touched_node_is_the_latest() {
        let mut table = Table::new(NodeId([0; 32]));
        let nodes: Vec<Node> =
            (1..4).map(|p| Node::new(SocketAddrV4::new([10, 0, 0, 1].into(), p), 1)).collect();
        nodes.iter().for_each(|n| assert_eq!(table.add(*n), Added::New));
        table.touch(&nodes[0].id);
        assert_eq!(table.oldest_first().last().unwrap().id, nodes[0].id);
        assert_eq!(table.oldest_first().next().unwrap().id, nodes[1].id);
    }
}
