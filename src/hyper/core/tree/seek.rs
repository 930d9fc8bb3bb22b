//! Where blocks lie in bytes, which block holds a byte, and what is missing to know.
//!
//! Source: hypercore/lib/merkle-tree.js:getByteOffset, ByteSeeker, missingNodes

use super::{Head, Node, NodeSource, Tree};
use crate::hyper::flat_tree as flat;
use std::io;

/// Bytes under a node without the `padding` of each block.
pub(super) fn unpadded(node: &Node, padding: u64) -> u64 {
    node.size.saturating_sub(flat::leaves(node.index).saturating_mul(padding))
}

/// Stored bytes before the first block under `tree_index`; for twice the length that is the byte length.
/// `None` if a node on the way is not here, or the index is past the tree.
pub fn byte_offset(
    head: &Head,
    nodes: &dyn NodeSource,
    tree_index: u64,
) -> io::Result<Option<u64>> {
    let leaf = flat::left_span(tree_index);
    let mut offset = 0;
    for root in &head.roots {
        if leaf > flat::right_span(root.index) {
            offset += root.size;
            continue;
        }
        let within = offset_within(nodes, root.index, leaf)?;
        return Ok(within.map(|within| offset + within));
    }
    Ok((leaf == 2 * head.length).then_some(offset))
}

/// Bytes before `leaf` under `root`, which contains it: the sizes of the left siblings on the way up. Reads
/// only those, half the levels on average.
fn offset_within(nodes: &dyn NodeSource, root: u64, leaf: u64) -> io::Result<Option<u64>> {
    let (mut at, mut offset) = (leaf, 0u64);
    // Every right turn on the way is a set bit of the leaf's position under the root.
    while at != root && flat::left_span(at) != flat::left_span(root) {
        let sibling = flat::sibling(at);
        if sibling < at {
            let Some(node) = nodes.node(sibling)? else { return Ok(None) };
            offset = offset.saturating_add(node.size);
        }
        at = flat::parent(at);
    }
    Ok(Some(offset))
}

/// Offset and size of a block in stored bytes. `None` if nodes are missing or the block is past the end.
/// Prefer a [`SpanCursor`] where blocks are read one after the other.
pub fn block_span(
    head: &Head,
    nodes: &dyn NodeSource,
    block: u64,
) -> io::Result<Option<(u64, u64)>> {
    if block >= head.length {
        return Ok(None);
    }
    let Some(leaf) = (Tree { head, nodes }).node(2 * block)? else { return Ok(None) };
    let offset = byte_offset(head, nodes, 2 * block)?;
    Ok(offset.map(|offset| (offset, leaf.size)))
}

/// Remembers where the last block ended, so that the next one costs one node instead of a path of them.
///
/// Ask it for stored blocks only (the offset of others may rest on sizes that are put right later), and
/// [`clear`](Self::clear) it when the tree is truncated or reorganised.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpanCursor {
    /// The block after the last one asked for, and its offset.
    next: Option<(u64, u64)>,
}

impl SpanCursor {
    /// As [`block_span`].
    pub fn span(
        &mut self,
        head: &Head,
        nodes: &dyn NodeSource,
        block: u64,
    ) -> io::Result<Option<(u64, u64)>> {
        let span = match self.next {
            Some((next, offset)) if next == block && block < head.length => {
                let leaf = (Tree { head, nodes }).node(2 * block)?;
                leaf.map(|leaf| (offset, leaf.size))
            }
            _ => block_span(head, nodes, block)?,
        };
        self.next = span.map(|(offset, size)| (block + 1, offset + size)).or(self.next);
        Ok(span)
    }
}

/// How many levels above a block are not here: what to put into a request for it. 0 for a block at or past
/// the length, whose request must carry an upgrade.
pub fn missing_nodes(head: &Head, nodes: &dyn NodeSource, block: u64) -> io::Result<u64> {
    if block >= head.length {
        return Ok(0);
    }
    let tree = Tree { head, nodes };
    let (mut at, mut count) = (2 * block, 0);
    while !flat::contains(at, 2 * head.length) && tree.node(at)?.is_none() {
        count += 1;
        at = flat::parent(at);
    }
    Ok(count)
}

/// [`missing_nodes`] of someone who has the roots at `length` and nothing else.
pub fn max_missing_nodes(block: u64, length: u64) -> u64 {
    let mut roots = flat::full_roots(length);
    let root = roots.find(|&root| block < length && block < flat::end(root));
    root.map_or(0, |root| flat::depth(root).into())
}

/// Where a byte position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekResult {
    /// `offset` bytes into `block`. The end of the core is offset 0 of the block at the length.
    Found { block: u64, offset: u64 },
    /// Under `node` (a tree index), which spans the blocks `start..end`; its children are not here.
    Need { node: u64, start: u64, end: u64 },
    /// Past the end of the tree as it is known.
    PastEnd,
}

/// Finds the block with byte `bytes`, not counting `padding` bytes at the head of each block.
pub fn seek(
    head: &Head,
    nodes: &dyn NodeSource,
    bytes: u64,
    padding: u64,
) -> io::Result<SeekResult> {
    let found = |index: u64, offset| SeekResult::Found { block: index / 2, offset };
    if bytes == 0 {
        return Ok(found(0, 0));
    }
    let mut left_over = bytes;
    for root in &head.roots {
        let size = unpadded(root, padding);
        if left_over == size {
            return Ok(found(flat::right_span(root.index) + 2, 0));
        }
        if left_over < size {
            return seek_within(nodes, root.index, left_over, padding);
        }
        left_over -= size;
    }
    Ok(SeekResult::PastEnd)
}

fn seek_within(
    nodes: &dyn NodeSource,
    root: u64,
    mut bytes: u64,
    padding: u64,
) -> io::Result<SeekResult> {
    let mut at = root;
    while let (Some(left), Some(right)) = (flat::left_child(at), flat::right_child(at)) {
        let Some(node) = nodes.node(left)? else {
            let (start, end) = (flat::left_span(at) / 2, flat::end(at));
            return Ok(SeekResult::Need { node: at, start, end });
        };
        let size = unpadded(&node, padding);
        if bytes == size {
            return Ok(SeekResult::Found { block: flat::end(left), offset: 0 });
        }
        if bytes < size {
            at = left;
        } else {
            bytes -= size;
            at = right;
        }
    }
    Ok(SeekResult::Found { block: at / 2, offset: bytes })
}

/// Roots of the tree cut to `new_length` blocks. `None` if one is not here, or the tree is shorter than that.
pub fn truncated_roots(
    head: &Head,
    nodes: &dyn NodeSource,
    new_length: u64,
) -> io::Result<Option<Vec<Node>>> {
    if new_length > head.length {
        return Ok(None);
    }
    let tree = Tree { head, nodes };
    flat::full_roots(new_length).map(|root| tree.node(root)).collect()
}
