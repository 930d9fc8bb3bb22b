//! Entries of a bee in key order, forward or backward, between two bounds.
//!
//! Source: hyperbee/iterators/range.js

use super::{Bee, Entry, MAX_DEPTH, Node, Result, damaged};
use bytes::Bytes;
use std::ops::Bound;

/// Which entries, and how many.
#[derive(Debug, Clone)]
pub struct RangeOptions {
    pub lower: Bound<Bytes>,
    pub upper: Bound<Bytes>,
    pub reverse: bool,
    pub limit: usize,
}

impl Default for RangeOptions {
    fn default() -> Self {
        let (lower, upper) = (Bound::Unbounded, Bound::Unbounded);
        Self { lower, upper, reverse: false, limit: usize::MAX }
    }
}

impl RangeOptions {
    /// Every key that begins with `prefix`, which must end in a byte below 0xff (a sub's ends in 0).
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.into()) };
        let lower = Bound::Included(Bytes::copy_from_slice(prefix));
        Self { lower, upper, ..Self::default() }
    }
}

/// A place in a node: even numbers are child slots, odd ones keys, so `2i + 1` is key i.
struct Cursor {
    node: Node,
    place: isize,
}

impl Cursor {
    fn end(&self) -> isize {
        2 * self.node.keys.len() as isize
    }
}

/// An ordered walk; see [`Bee::range`].
pub struct Range {
    bee: Bee,
    options: RangeOptions,
    stack: Vec<Cursor>,
    opened: bool,
    last: Option<Bytes>,
}

impl Range {
    pub(super) fn new(bee: Bee, options: RangeOptions) -> Self {
        Self { bee, options, stack: Vec::new(), opened: false, last: None }
    }

    /// The next entry; `None` at the end. After an error the walk is over.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        let next = self.step().await;
        if !matches!(next, Ok(Some(_))) {
            self.stack.clear();
            self.opened = true;
        }
        next
    }

    /// Everything that is left. Only for results that are known to be small.
    pub async fn collect(mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next().await? {
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn step(&mut self) -> Result<Option<Entry>> {
        if self.options.limit == 0 {
            return Ok(None);
        }
        if !self.opened {
            self.opened = true;
            self.seek().await?;
        }
        let direction = if self.options.reverse { -1 } else { 1 };
        while let Some(top) = self.stack.last_mut() {
            let place = top.place;
            if place < 0 || place > top.end() {
                self.stack.pop();
                continue;
            }
            top.place += direction;
            let slot = (place >> 1) as usize;
            if place & 1 == 1 {
                let seq = top.node.keys[slot];
                if self.bee.try_block(seq)?.is_none() {
                    self.bee.preload(&top.node);
                }
                let entry = self.bee.entry(seq).await?;
                return self.accept(entry);
            }
            if !top.node.is_leaf() {
                let node = self.bee.child(&top.node, slot).await?;
                let place = if self.options.reverse { 2 * node.keys.len() as isize } else { 0 };
                self.push(node, place)?;
            }
        }
        Ok(None)
    }

    /// Checks order and end. The order check also ends every walk: a tree that leads in a ring or names
    /// a node twice repeats a key.
    fn accept(&mut self, entry: Entry) -> Result<Option<Entry>> {
        let reverse = self.options.reverse;
        let ordered = self.last.as_ref().is_none_or(|last| (*last < entry.key) != reverse);
        if !ordered || self.last.as_ref() == Some(&entry.key) {
            return Err(damaged(entry.seq, "key order"));
        }
        let end = if reverse { &self.options.lower } else { &self.options.upper };
        let inside = match end {
            Bound::Unbounded => true,
            Bound::Included(bound) => entry.key == *bound || (entry.key < *bound) != reverse,
            Bound::Excluded(bound) => entry.key != *bound && (entry.key < *bound) != reverse,
        };
        if !inside {
            return Ok(None);
        }
        self.options.limit -= 1;
        self.last = Some(entry.key.clone());
        Ok(Some(entry))
    }

    /// Goes down to where the walk begins.
    async fn seek(&mut self) -> Result<()> {
        let reverse = self.options.reverse;
        let begin = if reverse { &self.options.upper } else { &self.options.lower }.clone();
        let Some(mut node) = self.bee.root().await? else { return Ok(()) };
        let (bound, included) = match begin {
            Bound::Unbounded => {
                let place = if reverse { 2 * node.keys.len() as isize } else { 0 };
                return self.push(node, place);
            }
            Bound::Included(bound) => (bound, true),
            Bound::Excluded(bound) => (bound, false),
        };
        loop {
            match self.bee.search(&node, &bound).await? {
                Ok(at) => {
                    let key = 2 * at as isize + 1;
                    let step = if included {
                        0
                    } else if reverse {
                        -1
                    } else {
                        1
                    };
                    return self.push(node, key + step);
                }
                Err(at) => {
                    let slot = 2 * at as isize;
                    if node.is_leaf() {
                        return self.push(node, slot);
                    }
                    let child = self.bee.child(&node, at).await?;
                    self.push(node, slot + if reverse { -1 } else { 1 })?;
                    node = child;
                }
            }
        }
    }

    fn push(&mut self, node: Node, place: isize) -> Result<()> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(damaged(node.seq, "depth"));
        }
        self.stack.push(Cursor { node, place });
        Ok(())
    }
}
