//! Following a fork: a peer's tree with a higher fork, proven from nothing, and what ours has in common with it.
//!
//! The prefix is found with the nodes of that one proof. It may be shorter than the true one, which only costs
//! fetching some blocks again; the reference narrows it down with further requests.
//!
//! Source: hypercore/lib/merkle-tree.js:ReorgBatch, reorg

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::verify::{Climbs, grow, sign_off};
use super::{Batch, Head, Node, NodeSource, Tree, VerifyError};
use crate::hyper::core::message::Proof;
use crate::hyper::core::verifier::Verifier;
use crate::hyper::flat_tree as flat;
use std::io;

/// What to commit to follow a fork: drop everything from `ancestors` on (blocks, bits, nodes, and nodes that
/// reach past it), then store `nodes` and `head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reorg {
    /// Blocks that both trees begin with.
    pub ancestors: u64,
    pub head: Head,
    pub nodes: Vec<Node>,
    /// Index and stored size of the block that the proof carried, if any.
    pub block: Option<(u64, u64)>,
}

/// Checks the answer to `request { fork, upgrade { start: 0, length } }` and compares it with the local tree.
/// The proof's fork must be above the local one.
pub fn verify_reorg(
    local: &Head,
    nodes: &dyn NodeSource,
    proof: &Proof,
    verifier: &Verifier,
) -> Result<Reorg, VerifyError> {
    if proof.fork <= local.fork {
        return Err(VerifyError::Fork(proof.fork));
    }
    let upgrade = match &proof.upgrade {
        Some(upgrade) if upgrade.start == 0 => upgrade,
        _ => return Err(VerifyError::Invalid("a fork needs an upgrade from the start")),
    };
    let empty = Head { fork: proof.fork, ..Head::default() };
    let mut climbs = Climbs::default();
    let top = climbs.run(proof, None)?;
    let mut batch = Batch::new(&empty);
    if grow(&mut batch, upgrade, top, verifier.prologue())?.is_some() {
        return Err(VerifyError::Invalid("block or hash outside the upgrade"));
    }
    let (head, grown) = sign_off(batch, upgrade, verifier)?;
    let mut new = climbs.into_nodes();
    new.extend(grown);

    let tree = Tree { head: local, nodes };
    let ancestors = common_prefix(&tree, &head, &new)?;
    let mut nodes = Vec::with_capacity(new.len());
    for node in new {
        // What is stored of the common part stays: sizes in the proof may be shifted between siblings.
        if flat::end(node.index) > ancestors || tree.node(node.index)?.is_none() {
            nodes.push(node);
        }
    }
    let block = proof.block.as_ref().map(|b| (b.index, b.value.len() as u64));
    Ok(Reorg { ancestors, head, nodes, block })
}

/// The longest run of nodes from the left, of those proven, that the local tree has too.
fn common_prefix(tree: &Tree, head: &Head, proven: &[Node]) -> io::Result<u64> {
    let mut all: Vec<&Node> = proven.iter().chain(&head.roots).collect();
    all.sort_by_key(|node| (flat::left_span(node.index), u64::MAX - flat::leaves(node.index)));
    let mut ancestors = 0;
    for node in all {
        if flat::left_span(node.index) != 2 * ancestors || flat::end(node.index) > tree.head.length
        {
            continue;
        }
        if tree.node(node.index)?.as_ref() == Some(node) {
            ancestors = flat::end(node.index);
        }
    }
    Ok(ancestors)
}
