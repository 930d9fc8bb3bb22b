//! After an unclean end, and where the files are not the ones that we left: they are brought back to what hashes up to
//! the head.
//!
//! Blocks and nodes are written before the records that speak of them, and those are durable only with them, so
//! after an unclean end the records are right. But the tree file may hold nodes of changes that were lost, or a part of
//! a page. A stored node is trusted later on without being hashed again, so what is not connected to the roots must go.
//! Of files that somebody else has changed nothing is known: see [`super::soundness`].

use super::bitfield::Bitfield;
use super::storage::Durability;
use super::tree::{Node, NodeSource};
use super::{Core, Result};
use crate::crypto::hash;
use crate::hyper::flat_tree as flat;

impl Core {
    /// Erases every node that does not hash up to the roots, and forgets blocks below such nodes. Where nothing can be
    /// written what has to be waits in memory, so that the core can be read.
    pub(super) fn scrub(&mut self, own_files: bool) -> Result<()> {
        self.nodes.mending(true);
        let mended = self.mend(own_files);
        let flushed = mended.is_ok().then(|| self.flush(Durability::Buffered));
        self.nodes.mending(false);
        mended?;
        match flushed {
            Some(Err(error)) if !error.leaves_it_readable() => Err(error),
            _ => Ok(()),
        }
    }

    fn mend(&mut self, own_files: bool) -> Result<()> {
        let length = self.head.length;
        let keep_tail = !own_files && self.has_foreign_tail()?;
        self.soundness.get_mut().foreign_tail = keep_tail;
        if !keep_tail {
            self.nodes.truncate(length)?;
        }
        let claimed = if own_files { Bitfield::default() } else { self.bits.clone() };
        // Where every block is here, every node is: they became durable with the bits.
        if !own_files || self.bits.contiguous() < length {
            for root in self.head.roots.clone() {
                self.nodes.put(&root)?;
                self.scrub_below(root)?;
            }
        }
        self.bits.set_range(length..u64::MAX, false);
        if !keep_tail {
            // Pieces of an append that did not end.
            self.files.blocks.truncate(self.head.byte_length())?;
        }
        if !own_files {
            self.doubt_blocks(claimed)?;
        }
        self.session = self.storage.session().current;
        self.dirty.head = true;
        Ok(())
    }

    fn scrub_below(&mut self, root: Node) -> Result<()> {
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            let (Some(left), Some(right)) =
                (flat::left_child(node.index), flat::right_child(node.index))
            else {
                continue;
            };
            let view = self.view();
            match (view.node(left)?, view.node(right)?) {
                (Some(left), Some(right)) if is_parent(&node, &left, &right) => {
                    stack.push(right);
                    stack.push(left);
                }
                _ => {
                    self.nodes.erase(flat::left_span(node.index)..node.index)?;
                    self.nodes.erase(node.index + 1..flat::right_span(node.index) + 1)?;
                    let blocks = flat::left_span(node.index) / 2..flat::end(node.index);
                    self.bits.set_range(blocks, false);
                }
            }
        }
        Ok(())
    }
}

fn is_parent(node: &Node, left: &Node, right: &Node) -> bool {
    left.size.checked_add(right.size) == Some(node.size)
        && hash::parent(node.size, &left.hash, &right.hash) == node.hash
}
