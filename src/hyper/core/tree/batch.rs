//! Growing a tree: by blocks of our own, or by the roots that a proof gives.
//!
//! Source: hypercore/lib/merkle-tree.js:MerkleTreeBatch

use crate::codec::MAX_INT;
use crate::crypto::hash::Hash;
use crate::hyper::core::head::Head;
use crate::hyper::core::node::Node;
use crate::hyper::flat_tree as flat;
use std::collections::BTreeMap;

/// A tree that grows in memory. Nothing of it counts before its head is signed (our own blocks) or its
/// signature verified (a peer's proof).
#[derive(Debug, Clone)]
pub struct Batch {
    fork: u64,
    length: u64,
    roots: Vec<Node>,
    /// New nodes in the order they came to be.
    nodes: Vec<Node>,
}

/// Why a tree cannot grow by a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAdjacent;

impl Batch {
    /// Starts from a tree's current state.
    pub fn new(head: &Head) -> Self {
        Self { fork: head.fork, length: head.length, roots: head.roots.clone(), nodes: Vec::new() }
    }

    /// Appends a block of `size` stored bytes whose leaf hash is `leaf`.
    ///
    /// # Panics
    /// Past 2^52 blocks or 2^53 bytes, which no disk holds.
    pub fn push(&mut self, size: u64, leaf: Hash) {
        let node = Node { index: 2 * self.length, size, hash: leaf };
        self.append_root(node, true).expect("a leaf at the length extends the tree");
    }

    /// Length in blocks.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Stored bytes under the tree: where the next block's bytes start.
    pub fn byte_length(&self) -> u64 {
        self.roots.iter().map(|root| root.size).sum()
    }

    /// The head, yet to be signed, and all new nodes: leaves and parents.
    pub fn finish(self) -> (Head, Vec<Node>) {
        let head =
            Head { fork: self.fork, length: self.length, roots: self.roots, signature: Vec::new() };
        (head, self.nodes)
    }

    /// The state as a head without signature.
    pub(super) fn head(&self) -> Head {
        self.clone().finish().0
    }

    pub(super) fn last_root(&self) -> Option<u64> {
        self.roots.last().map(|root| root.index)
    }

    /// Appends a whole subtree and merges roots that became siblings. `record` is false for a node that the
    /// caller holds already. The node must begin where the tree ends.
    pub(super) fn append_root(&mut self, node: Node, record: bool) -> Result<(), NotAdjacent> {
        let length = flat::end(node.index);
        let adjacent = flat::left_span(node.index) == 2 * self.length;
        if !adjacent || length > flat::MAX_LENGTH || node.size > MAX_INT {
            return Err(NotAdjacent);
        }
        self.length = length;
        self.roots.push(node);
        if record {
            self.nodes.push(node);
        }
        while let [.., left, right] = self.roots.as_slice()
            && flat::sibling(right.index) == left.index
        {
            let parent = Node::parent_of(left, right).ok_or(NotAdjacent)?;
            self.roots.truncate(self.roots.len() - 2);
            self.roots.push(parent);
            self.nodes.push(parent);
        }
        Ok(())
    }

    /// Grows to the tree of `length` blocks with nodes from a map, as far as they fit.
    pub(in crate::hyper::core) fn grow_with(
        &mut self,
        length: u64,
        nodes: &BTreeMap<u64, Node>,
    ) -> Option<()> {
        let shift = |index| nodes.get(&index).map(|node| (*node, true)).ok_or(NotAdjacent);
        self.grow(length, shift).ok()
    }

    /// Grows to the tree of `length` blocks with the nodes that `shift` gives for the asked indexes: what is
    /// right of the last root on the way up, then whole roots. With each node `shift` says whether to record it.
    pub(super) fn grow<E: From<NotAdjacent>>(
        &mut self,
        length: u64,
        mut shift: impl FnMut(u64) -> Result<(Node, bool), E>,
    ) -> Result<(), E> {
        let old: Vec<u64> = self.roots.iter().map(|root| root.index).collect();
        let mut kept = 0;
        let mut connected = old.is_empty();
        for root in flat::full_roots(length) {
            if old.get(kept) == Some(&root) {
                kept += 1;
                continue;
            }
            if !connected && kept < old.len() {
                while let Some(last) = self.last_root().filter(|&last| last != root) {
                    let (node, record) = shift(flat::sibling(last))?;
                    self.append_root(node, record)?;
                }
            } else {
                let (node, record) = shift(root)?;
                self.append_root(node, record)?;
            }
            connected = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hash;
    use crate::hyper::core::tree::testing::{bytes, bytes32, node, nodes, vectors};

    #[test]
    fn vectors_of_trees() {
        let v = vectors();
        assert_eq!(Head::default().tree_hash(), bytes32(&v["tree_hash_of_no_roots"]));
        let mut batch = Batch::new(&Head::default());
        let blocks = v["blocks"].as_array().unwrap();
        for (length, tree) in v["trees"].as_array().unwrap().iter().enumerate() {
            if length > 0 {
                let block = bytes(&blocks[length - 1]);
                batch.push(block.len() as u64, hash::leaf(&block));
            }
            let head = batch.head();
            assert_eq!(head.length, length as u64);
            assert_eq!(head.byte_length(), tree["byteLength"]);
            assert_eq!(batch.byte_length(), tree["byteLength"]);
            assert_eq!(head.roots, nodes(&tree["roots"]));
            assert_eq!(head.tree_hash(), bytes32(&tree["treeHash"]));
            if length == 20 {
                let mut all = batch.clone().finish().1;
                all.sort_by_key(|n| n.index);
                assert_eq!(all, nodes(&v["tree_nodes_of_length_20"]));
            }
        }
    }

    #[test]
    fn vectors_of_hashes() {
        let v = vectors();
        for leaf in v["leaf_hashes"].as_array().unwrap() {
            assert_eq!(hash::leaf(&bytes(&leaf["data"])), bytes32(&leaf["hash"]));
        }
        for p in v["parent_hashes"].as_array().unwrap() {
            let (left, right) = (node(&p["left"]), node(&p["right"]));
            let parent = Node::parent_of(&right, &left).unwrap();
            assert_eq!(parent.hash, bytes32(&p["hash"]));
            assert_eq!(parent.size, p["parentSize"]);
            assert_eq!(Node::parent_of(&left, &right), Some(parent));
        }
    }

    #[test]
    fn a_node_that_does_not_continue_the_tree_is_refused() {
        let mut batch = Batch::new(&Head::default());
        batch.push(1, [0; 32]);
        for index in [0, 1, 4, 5, u64::MAX, u64::MAX - 1] {
            let node = Node { index, size: 1, hash: [0; 32] };
            assert_eq!(batch.append_root(node, true), Err(NotAdjacent), "{index}");
        }
        let huge = Node { index: 2, size: u64::MAX, hash: [0; 32] };
        assert!(batch.append_root(huge, true).is_err());
    }
}
