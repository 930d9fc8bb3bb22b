//! Flat-tree numbering: the nodes of a binary tree as integers, leaves at the even ones.
//!
//! ```text
//! 3              7
//!          ┌─────┴─────┐
//! 2        3           11
//!       ┌──┴──┐     ┌──┴──┐
//! 1     1     5     9     13
//!      ┌┴┐   ┌┴┐   ┌┴┐   ┌┴─┐
//! 0    0 2   4 6   8 10  12 14
//! ```
//!
//! Block i is leaf 2i. A node has a *depth* (trailing one bits) and an *offset* (how many nodes of its depth
//! are left of it). Nothing here panics, whatever the index; results mean something for indexes up to
//! [`MAX_INDEX`], and callers refuse larger ones where bytes of a peer come in.
//!
//! Source: flat-tree/index.js

use crate::codec::MAX_INT;

/// The largest index a message can carry. A valid tree stays below it, its ancestors' indexes below 2^54.
pub const MAX_INDEX: u64 = MAX_INT;

/// The longest tree whose nodes all have an index up to [`MAX_INDEX`], in blocks.
pub const MAX_LENGTH: u64 = 1 << 52;

/// Depths are cut here so that no shift leaves 64 bits.
const MAX_DEPTH: u32 = 62;

/// Levels above the leaves.
pub const fn depth(index: u64) -> u32 {
    let depth = index.trailing_ones();
    if depth > MAX_DEPTH { MAX_DEPTH } else { depth }
}

/// Position among the nodes of the same depth.
pub const fn offset(index: u64) -> u64 {
    index >> (depth(index) + 1)
}

/// The node at `depth` and `offset`; `depth` is cut at 62.
pub const fn index(depth: u32, offset: u64) -> u64 {
    let depth = if depth > MAX_DEPTH { MAX_DEPTH } else { depth };
    offset << (depth + 1) | ((1 << depth) - 1)
}

pub const fn parent(index_: u64) -> u64 {
    index(depth(index_) + 1, offset(index_) >> 1)
}

pub const fn sibling(index_: u64) -> u64 {
    index(depth(index_), offset(index_) ^ 1)
}

/// `None` for a leaf.
pub const fn left_child(index_: u64) -> Option<u64> {
    match depth(index_) {
        0 => None,
        d => Some(index(d - 1, offset(index_) << 1)),
    }
}

/// `None` for a leaf.
pub const fn right_child(index_: u64) -> Option<u64> {
    match depth(index_) {
        0 => None,
        d => Some(index(d - 1, offset(index_) << 1 | 1)),
    }
}

/// The first leaf under a node, as a tree index.
pub const fn left_span(index: u64) -> u64 {
    offset(index) << (depth(index) + 1)
}

/// The last leaf under a node, as a tree index.
pub const fn right_span(index: u64) -> u64 {
    left_span(index).saturating_add(2 * (leaves(index) - 1))
}

/// Number of leaves under a node.
pub const fn leaves(index: u64) -> u64 {
    1 << depth(index)
}

/// Whether `other` is `index` or under it.
pub const fn contains(index: u64, other: u64) -> bool {
    left_span(index) <= other && other <= right_span(index)
}

/// Length of a tree, in blocks, that ends with this node.
pub const fn end(index: u64) -> u64 {
    right_span(index) / 2 + 1
}

/// The roots of a tree of `length` blocks, left to right: one for each bit of the length.
pub const fn full_roots(length: u64) -> FullRoots {
    FullRoots { done: 0, left: length }
}

/// Iterator made by [`full_roots`]; gives tree indexes.
#[derive(Debug, Clone)]
pub struct FullRoots {
    /// Blocks under the roots given so far.
    done: u64,
    left: u64,
}

impl Iterator for FullRoots {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let span = 1u64.checked_shl(self.left.checked_ilog2()?)?;
        let root = self.done.wrapping_mul(2).wrapping_add(span - 1);
        self.done = self.done.wrapping_add(span);
        self.left -= span;
        Some(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vectors() {
        let vectors = crate::hyper::core::tree::testing::vectors();
        for (length, roots) in
            vectors["flat_tree"]["full_roots_by_length"].as_array().unwrap().iter().enumerate()
        {
            let roots: Vec<u64> =
                roots.as_array().unwrap().iter().map(|r| r.as_u64().unwrap()).collect();
            assert_eq!(full_roots(length as u64).collect::<Vec<_>>(), roots, "length {length}");
        }
        for fact in vectors["flat_tree"]["node_facts"].as_array().unwrap() {
            let i = fact["index"].as_u64().unwrap();
            assert_eq!(u64::from(depth(i)), fact["depth"]);
            assert_eq!(offset(i), fact["offset"]);
            assert_eq!(parent(i), fact["parent"]);
            assert_eq!(sibling(i), fact["sibling"]);
            assert_eq!(left_span(i), fact["leftSpan"]);
            assert_eq!(right_span(i), fact["rightSpan"]);
            match fact["children"].as_array() {
                None => assert_eq!((left_child(i), right_child(i)), (None, None)),
                Some(c) => {
                    assert_eq!(left_child(i), c[0].as_u64());
                    assert_eq!(right_child(i), c[1].as_u64());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn laws(i in 0..=MAX_INDEX) {
            prop_assert_eq!(index(depth(i), offset(i)), i);
            prop_assert_eq!(sibling(sibling(i)), i);
            prop_assert_eq!(parent(sibling(i)), parent(i));
            prop_assert!(contains(parent(i), i) && contains(parent(i), sibling(i)));
            prop_assert!(!contains(i, parent(i)) || i == parent(i));
            prop_assert_eq!(right_span(i) - left_span(i), 2 * (leaves(i) - 1));
            if let (Some(l), Some(r)) = (left_child(i), right_child(i)) {
                prop_assert_eq!((parent(l), parent(r), sibling(l)), (i, i, r));
                prop_assert_eq!((left_span(l), right_span(r)), (left_span(i), right_span(i)));
                prop_assert_eq!(right_span(l) + 2, left_span(r));
            }
        }

        #[test]
        fn full_roots_cover_the_length_once(length in 0..=MAX_LENGTH) {
            let mut at = 0;
            for root in full_roots(length) {
                prop_assert_eq!(left_span(root), 2 * at);
                prop_assert!(root <= MAX_INDEX);
                at = end(root);
            }
            prop_assert_eq!(at, length);
        }

        #[test]
        fn nothing_panics(i in any::<u64>(), d in any::<u32>()) {
            let _ = (parent(i), sibling(i), left_child(i), right_child(i), end(i), leaves(i));
            let _ = (index(d, i), contains(i, !i), full_roots(i).count());
        }
    }

    #[test]
    fn the_ends_of_the_range_do_not_panic() {
        for i in [u64::MAX, u64::MAX - 1, u64::MAX >> 1, 1 << 63, MAX_INDEX] {
            let _ = (parent(i), sibling(i), left_child(i), right_child(i), end(i), leaves(i));
            let _ = (contains(i, 0), full_roots(i).last());
        }
    }
}
