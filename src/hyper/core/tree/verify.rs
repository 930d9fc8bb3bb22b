//! Checking proofs: what a peer's answer adds to a tree, if it is true.
//!
//! Each part of an answer is hashed up to one node. That node must be part of what the upgrade in the same
//! answer signs, or else be stored already with the same hash. Nothing is changed here: the core commits
//! [`Verified`] as a whole.
//!
//! Source: hypercore/lib/merkle-tree.js:verifyTree, verifyUpgrade, verify

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::batch::NotAdjacent;
use super::{Batch, Head, MAX_NODES, Node, NodeSource, Tree, byte_offset};
use crate::crypto::hash::{self, Hash};
use crate::hyper::core::manifest::Prologue;
use crate::hyper::core::message::{Proof, UpgradeProof};
use crate::hyper::core::verifier::Verifier;
use crate::hyper::flat_tree as flat;
use std::io;

/// Why a proof was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The nodes are not the ones that the answer needs, or lead to none we know.
    #[error("invalid proof: {0}")]
    Invalid(&'static str),
    /// The nodes hash to something else than the tree we know.
    #[error("invalid checksum at tree node {0}")]
    Checksum(u64),
    /// The new tree is not signed by who may sign it.
    #[error("invalid signature")]
    Signature,
    /// About another fork than ours: neither right nor wrong, to be ignored.
    #[error("proof of fork {0}")]
    Fork(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<NotAdjacent> for VerifyError {
    fn from(_: NotAdjacent) -> Self {
        Self::Invalid("node does not continue the tree")
    }
}

type Result<T> = std::result::Result<T, VerifyError>;

/// What to commit for an accepted proof, in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Nodes to store, later ones over earlier ones.
    pub nodes: Vec<Node>,
    /// The new head, signature included, if the tree got longer.
    pub head: Option<Head>,
    /// Index and stored size of the block that the proof carried.
    pub block: Option<(u64, u64)>,
}

impl Verified {
    /// Where the proof's block goes in stored bytes. `head` and `nodes` are what the proof was verified against;
    /// the new nodes count as stored already.
    pub fn block_offset(&self, head: &Head, nodes: &dyn NodeSource) -> io::Result<Option<u64>> {
        let Some((block, _)) = self.block else { return Ok(None) };
        let nodes = Overlay { new: &self.nodes, stored: nodes };
        byte_offset(self.head.as_ref().unwrap_or(head), &nodes, 2 * block)
    }
}

/// Stored nodes as they will be with some new ones.
struct Overlay<'a> {
    new: &'a [Node],
    stored: &'a dyn NodeSource,
}

impl NodeSource for Overlay<'_> {
    fn node(&self, index: u64) -> io::Result<Option<Node>> {
        match self.new.iter().rev().find(|node| node.index == index) {
            Some(node) => Ok(Some(*node)),
            None => self.stored.node(index),
        }
    }
}

/// Checks a proof against a tree. `leaf` is the leaf hash of `proof.block.value` if the caller has it already.
///
/// Whether the proof is what was asked for is the caller's to check. `verifier` is only used if the tree grows.
pub fn verify_proof(
    head: &Head,
    nodes: &dyn NodeSource,
    proof: &Proof,
    leaf: Option<Hash>,
    verifier: &Verifier,
) -> Result<Verified> {
    if proof.fork != head.fork {
        return Err(VerifyError::Fork(proof.fork));
    }
    let tree = Tree { head, nodes };
    let mut climbs = Climbs::default();
    let mut top = climbs.run(proof, leaf)?;
    let mut grown = None;
    if let Some(upgrade) = &proof.upgrade {
        let mut batch = Batch::new(head);
        top = grow(&mut batch, upgrade, top, verifier.prologue())?;
        if batch.length() > head.length {
            grown = Some(sign_off(batch, upgrade, verifier)?);
        }
    }
    let mut nodes = climbs.settle(&tree, top)?;
    let mut new_head = None;
    if let Some((head, mut new)) = grown {
        nodes.append(&mut new);
        new_head = Some(head);
    }
    let block = proof.block.as_ref().map(|b| (b.index, b.value.len() as u64));
    Ok(Verified { nodes, head: new_head, block })
}

/// Checks the signature over a grown tree; gives its head and new nodes.
pub(super) fn sign_off(
    batch: Batch,
    upgrade: &UpgradeProof,
    verifier: &Verifier,
) -> Result<(Head, Vec<Node>)> {
    let (mut head, nodes) = batch.finish();
    head.signature = upgrade.signature.clone();
    if !verifier.verify(&head) {
        return Err(VerifyError::Signature);
    }
    Ok((head, nodes))
}

/// Where a chain of hashes ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Top {
    node: Node,
    /// Whether the node was hashed here, so that its size is as true as its hash; else it is as received.
    computed: bool,
}

/// Received nodes, to be taken in the one order that fits, and the top of another part that may be used once.
struct Queue<'a> {
    nodes: std::slice::Iter<'a, Node>,
    extra: Option<Top>,
}

impl<'a> Queue<'a> {
    fn new(nodes: &'a [Node], extra: Option<Top>) -> Result<Self> {
        if nodes.len() > MAX_NODES {
            return Err(VerifyError::Invalid("more nodes than a tree has levels"));
        }
        Ok(Self { nodes: nodes.iter(), extra })
    }

    fn is_empty(&self) -> bool {
        self.nodes.as_slice().is_empty() && self.extra.is_none()
    }

    /// The node at `index`; the flag says whether it is the extra one.
    fn shift(&mut self, index: u64) -> Result<(Top, bool)> {
        if let Some(extra) = self.extra.take_if(|extra| extra.node.index == index) {
            return Ok((extra, true));
        }
        match self.nodes.next() {
            Some(&node) if node.index == index => Ok((Top { node, computed: false }, false)),
            _ => Err(VerifyError::Invalid("unexpected node")),
        }
    }
}

/// The parts of a proof that climb from a node: seek, and block or hash.
#[derive(Debug, Default)]
pub(super) struct Climbs {
    nodes: Vec<Node>,
    /// Positions in `nodes` of pairs received as they are: only the sum of their sizes is proven, so they must
    /// not replace stored nodes.
    doubtful: Vec<usize>,
}

impl Climbs {
    /// Hashes each part up; gives the top of the block or hash part, or of the seek part if it is alone.
    pub(super) fn run(&mut self, proof: &Proof, leaf: Option<Hash>) -> Result<Option<Top>> {
        let mut sought = None;
        if let Some((first, rest)) = proof.seek.as_ref().and_then(|s| s.nodes.split_first()) {
            let first = Top { node: *first, computed: false };
            sought = Some(self.climb(first, Queue::new(rest, None)?)?);
        }
        match (&proof.block, &proof.hash) {
            (Some(_), Some(_)) => Err(VerifyError::Invalid("block and hash")),
            (Some(block), None) => {
                if block.index >= flat::MAX_LENGTH {
                    return Err(VerifyError::Invalid("block index"));
                }
                let queue = Queue::new(&block.nodes, sought)?;
                let hash = leaf.unwrap_or_else(|| hash::leaf(&block.value));
                let size = block.value.len() as u64;
                let node = Node { index: 2 * block.index, size, hash };
                self.climb(Top { node, computed: true }, queue).map(Some)
            }
            (None, Some(hash)) => {
                let mut queue = Queue::new(&hash.nodes, sought)?;
                let (first, _) = queue.shift(hash.index)?;
                self.climb(first, queue).map(Some)
            }
            (None, None) => Ok(sought),
        }
    }

    fn climb(&mut self, first: Top, mut queue: Queue) -> Result<Top> {
        let mut top = first;
        self.push(top);
        while !queue.is_empty() {
            let (sibling, _) = queue.shift(flat::sibling(top.node.index))?;
            self.push(sibling);
            if sibling.computed || top.computed {
                // The sum and one of the two are true, hence the other.
                let at = self.nodes.len();
                self.doubtful.retain(|&i| i + 2 < at);
            }
            let node = Node::parent_of(&top.node, &sibling.node)
                .filter(|parent| parent.index <= flat::MAX_INDEX)
                .ok_or(VerifyError::Invalid("sizes or levels exceed a tree's"))?;
            top = Top { node, computed: true };
            self.push(top);
        }
        Ok(top)
    }

    fn push(&mut self, top: Top) {
        if !top.computed {
            self.doubtful.push(self.nodes.len());
        }
        self.nodes.push(top.node);
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        self.nodes
    }

    /// Compares the top with the stored node, unless the upgrade took it in, and gives the nodes to store.
    fn settle(mut self, tree: &Tree, top: Option<Top>) -> Result<Vec<Node>> {
        for &at in self.doubtful.iter().rev() {
            let Some(node) = self.nodes.get(at) else { continue };
            if tree.node(node.index)?.is_some_and(|stored| stored.hash == node.hash) {
                self.nodes.remove(at);
            }
        }
        let Some(top) = top else { return Ok(self.nodes) };
        let index = top.node.index;
        let Some(stored) = tree.node(index)? else {
            return Err(VerifyError::Invalid("leads to no node that is known"));
        };
        if stored.hash != top.node.hash {
            return Err(VerifyError::Checksum(index));
        }
        if top.computed && stored.size != top.node.size {
            self.nodes.push(put_right(tree, &top.node)?);
        } else if self.nodes.last() == Some(&stored) {
            self.nodes.pop();
        }
        Ok(self.nodes)
    }
}

/// The sibling of a node whose stored size turned out wrong: the two share a sum (see the module's page), so
/// it was shifted the other way.
fn put_right(tree: &Tree, node: &Node) -> Result<Node> {
    let wrong = VerifyError::Checksum(node.index);
    if tree.head.roots.iter().any(|root| root.index == node.index) {
        return Err(wrong);
    }
    let parent = tree.node(flat::parent(node.index))?;
    let sibling = tree.node(flat::sibling(node.index))?;
    let (Some(parent), Some(sibling)) = (parent, sibling) else { return Err(wrong) };
    let size = parent.size.checked_sub(node.size).ok_or(wrong)?;
    Ok(Node { size, ..sibling })
}

/// Grows a tree by an upgrade. Gives back `top` unless the new roots are built on it. The signature is still
/// to be checked.
///
/// Source: hypercore/lib/merkle-tree.js:verifyUpgrade
pub(super) fn grow(
    batch: &mut Batch,
    upgrade: &UpgradeProof,
    top: Option<Top>,
    prologue: Option<&Prologue>,
) -> Result<Option<Top>> {
    if let Some(p) = prologue
        && upgrade.start < p.length
        && (upgrade.start != 0 || upgrade.length < p.length)
    {
        return Err(VerifyError::Invalid("part of a prologue"));
    }
    let length = upgrade.start.saturating_add(upgrade.length);
    if length > flat::MAX_LENGTH || upgrade.additional.len() > MAX_NODES {
        return Err(VerifyError::Invalid("upgrade exceeds a tree's size"));
    }
    let mut queue = Queue::new(&upgrade.nodes, top)?;
    batch.grow(length, |index| queue.shift(index).map(|(top, is_extra)| (top.node, !is_extra)))?;
    if let Some(p) = prologue
        && batch.length() == p.length
        && batch.head().tree_hash() != p.hash
    {
        return Err(VerifyError::Invalid("prologue hash"));
    }
    grow_further(batch, &upgrade.additional)?;
    Ok(queue.extra)
}

/// Appends the nodes between the asked length and the signed one. Each is the sibling of the last root, or
/// the leftmost node of some depth under it.
fn grow_further(batch: &mut Batch, additional: &[Node]) -> Result<()> {
    let Some(mut last) = batch.last_root() else {
        return Err(VerifyError::Invalid("upgrade of nothing"));
    };
    let mut rest = additional.iter().peekable();
    while let Some(node) = rest.next_if(|node| node.index == flat::sibling(last)) {
        batch.append_root(*node, true)?;
        last = batch.last_root().unwrap_or(last);
    }
    let mut at = flat::sibling(last);
    for node in rest {
        while at != node.index {
            at = flat::left_child(at).ok_or(VerifyError::Invalid("unexpected additional node"))?;
        }
        batch.append_root(*node, true)?;
        // A root that merged stands for a taller one: what follows is right of that.
        at = flat::sibling(batch.last_root().unwrap_or(at));
    }
    Ok(())
}
