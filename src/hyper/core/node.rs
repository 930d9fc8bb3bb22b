//! One node of a core's Merkle tree, as files, messages and signatures carry it: plain data below all of them.

use crate::codec::{self, Put, Reader};
use crate::crypto::hash::{self, Hash};
use crate::hyper::flat_tree as flat;

/// The longest list of nodes any message has reason to carry: two for each level of the tallest tree. Longer
/// ones are refused before anything is allocated or hashed.
pub const MAX_NODES: usize = 2 * 53;

/// One node of the tree: flat-tree index, byte length under it, hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub index: u64,
    pub size: u64,
    pub hash: Hash,
}

impl Node {
    /// Bytes that an encoded node takes at least.
    pub const MIN_ENCODED: usize = 34;

    /// Appends index, size and hash as messages carry them.
    pub fn put(&self, out: &mut impl Put) {
        out.put_uint(self.index);
        out.put_uint(self.size);
        out.put(&self.hash);
    }

    pub fn decode(r: &mut Reader) -> codec::Result<Self> {
        Ok(Self { index: r.uint()?, size: r.uint()?, hash: r.fixed()? })
    }

    /// The parent of two siblings, given in either order. `None` if their sizes do not add up to a size.
    pub(super) fn parent_of(a: &Node, b: &Node) -> Option<Node> {
        let size = a.size.checked_add(b.size).filter(|&size| size <= codec::MAX_INT)?;
        let (left, right) = if a.index < b.index { (a, b) } else { (b, a) };
        let hash = hash::parent(size, &left.hash, &right.hash);
        Some(Node { index: flat::parent(left.index), size, hash })
    }
}
