//! How two versions of a bee differ, at a cost that follows the changes and not the size.
//!
//! Two cursors walk both trees in key order. Where both stand on the same stored node or the same stored
//! key, both step over it: what is below cannot differ.
//!
//! Source: hyperbee/iterators/diff.js

use super::node::Link;
use super::{Bee, Entry, MAX_DEPTH, Node, Result, damaged, down};
use bytes::Bytes;
use std::cmp::Ordering;

/// One key that is not the same in both versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entry in the bee that was asked; none if the key is not in it.
    pub left: Option<Entry>,
    /// The entry in the bee it was compared with.
    pub right: Option<Entry>,
}

/// See [`Bee::diff`].
pub struct Diff {
    left: Side,
    right: Side,
    opened: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Child(Link),
    Key(u64),
}

/// A node and the place in it: `2i` is child i, `2i + 1` key i. Leaves have keys only.
struct Subtree {
    node: Node,
    at: usize,
}

struct Side {
    bee: Bee,
    stack: Vec<Subtree>,
    last: Option<Bytes>,
    opened: u64,
}

impl Diff {
    pub(super) fn new(left: Bee, right: Bee) -> Self {
        Self { left: Side::new(left), right: Side::new(right), opened: false }
    }

    /// The next difference; `None` at the end. After an error the walk is over.
    pub async fn next(&mut self) -> Result<Option<Difference>> {
        if !self.opened {
            self.opened = true;
            self.left.open().await?;
            self.right.open().await?;
        }
        let next = self.step().await;
        if next.is_err() {
            self.left.stack.clear();
            self.right.stack.clear();
        }
        next
    }

    async fn step(&mut self) -> Result<Option<Difference>> {
        loop {
            let (left, right) = (&mut self.left, &mut self.right);
            let (l, r) = match (left.place()?, right.place()?) {
                (None, None) => return Ok(None),
                (Some(Place::Child(_)), None) => {
                    left.descend().await?;
                    continue;
                }
                (None, Some(Place::Child(_))) => {
                    right.descend().await?;
                    continue;
                }
                (Some(Place::Key(_)), None) => return only_left(left).await,
                (None, Some(Place::Key(_))) => return only_right(right).await,
                (Some(l), Some(r)) => (l, r),
            };
            if l == r {
                left.advance();
                right.advance();
                continue;
            }
            match (l, r) {
                (Place::Key(_), Place::Child(_)) => right.descend().await?,
                (Place::Child(_), Place::Key(_)) => left.descend().await?,
                (Place::Key(_), Place::Key(_)) => match compare(left, right).await? {
                    Ordering::Less => return only_left(left).await,
                    Ordering::Greater => return only_right(right).await,
                    Ordering::Equal => {
                        let (left, right) = (left.take().await?, right.take().await?);
                        return Ok(Some(Difference { left: Some(left), right: Some(right) }));
                    }
                },
                (Place::Child(_), Place::Child(_)) => match compare(left, right).await? {
                    Ordering::Equal => {
                        left.descend().await?;
                        right.descend().await?;
                    }
                    // The subtree that ends later may hold the other one: open it first.
                    Ordering::Less => right.descend().await?,
                    Ordering::Greater => left.descend().await?,
                },
            }
        }
    }
}

async fn only_left(side: &mut Side) -> Result<Option<Difference>> {
    Ok(Some(Difference { left: Some(side.take().await?), right: None }))
}

async fn only_right(side: &mut Side) -> Result<Option<Difference>> {
    Ok(Some(Difference { left: None, right: Some(side.take().await?) }))
}

/// Orders the upper ends of both places; no end at all is the greatest.
async fn compare(left: &Side, right: &Side) -> Result<Ordering> {
    Ok(match (left.upper().await?, right.upper().await?) {
        (Some(l), Some(r)) => l.cmp(&r),
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (None, None) => Ordering::Equal,
    })
}

impl Subtree {
    /// The first place: child 0, or key 0 in a leaf.
    fn new(node: Node) -> Self {
        let at = usize::from(node.is_leaf());
        Self { node, at }
    }

    fn is_done(&self) -> bool {
        let keys = self.node.keys.len();
        self.at > if self.node.is_leaf() { (2 * keys).saturating_sub(1) } else { 2 * keys }
    }
}

impl Side {
    fn new(bee: Bee) -> Self {
        Self { bee, stack: Vec::new(), last: None, opened: 0 }
    }

    async fn open(&mut self) -> Result<()> {
        match self.bee.root().await? {
            Some(root) if !root.keys.is_empty() => self.stack.push(Subtree::new(root)),
            _ => {}
        }
        Ok(())
    }

    fn place(&mut self) -> Result<Option<Place>> {
        while self.stack.pop_if(|top| top.is_done()).is_some() {}
        let Some(top) = self.stack.last() else { return Ok(None) };
        let slot = top.at >> 1;
        Ok(Some(match top.at & 1 {
            0 => Place::Child(down(&top.node, slot)?),
            _ => Place::Key(top.node.keys[slot]),
        }))
    }

    fn advance(&mut self) {
        if let Some(top) = self.stack.last_mut() {
            top.at += if top.node.is_leaf() { 2 } else { 1 };
        }
    }

    /// The key at or right of the place, in this node or, failing that, above.
    async fn upper(&self) -> Result<Option<Bytes>> {
        for tree in self.stack.iter().rev() {
            if tree.at >> 1 < tree.node.keys.len() {
                return self.bee.key(&tree.node, tree.at >> 1).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Steps over the child here and into it.
    async fn descend(&mut self) -> Result<()> {
        let depth = self.stack.len();
        let Some(top) = self.stack.last_mut() else { return Ok(()) };
        // A sound tree has fewer nodes than the log has blocks. Without the count, a tree that names its
        // nodes many times over could keep us here for ever.
        self.opened += 1;
        if depth >= MAX_DEPTH || self.opened > self.bee.version() {
            return Err(damaged(top.node.seq, "tree shape"));
        }
        let slot = top.at >> 1;
        top.at += 1;
        let node = self.bee.child(&top.node, slot).await?;
        self.stack.push(Subtree::new(node));
        Ok(())
    }

    /// The entry here, and a step over it. Keys must come in order.
    async fn take(&mut self) -> Result<Entry> {
        let top = self.stack.last().ok_or_else(|| damaged(0, "diff"))?;
        let seq = top.node.keys[top.at >> 1];
        self.advance();
        let entry = self.bee.entry(seq).await?;
        if self.last.as_ref().is_some_and(|last| *last >= entry.key) {
            return Err(damaged(seq, "key order"));
        }
        self.last = Some(entry.key.clone());
        Ok(entry)
    }
}
