//! The B-tree while it is being written: the nodes that a batch has touched, in memory.
//!
//! To produce the very bytes that the reference does, it keeps the reference's object identities: a
//! [`Ref`] is one child link that may move from parent to parent, and the list of Refs an operation
//! rewrote is looked at again when the batch is flushed. Both live in arenas and are named by number.
//!
//! Source: hyperbee/index.js (TreeNode, setKeyToNearestLeaf, rebalance)

use super::node::Link;
use super::{MAX_DEPTH, Result, damaged, search};
use std::cmp::Ordering;

/// Keys a node must keep, the root excepted.
const MIN_KEYS: usize = 4;
/// Keys at which a node splits; also the most children it may have.
const SPLIT_KEYS: usize = 9;

pub(super) type NodeId = usize;
pub(super) type RefId = usize;

/// A child link.
#[derive(Debug, Clone, Copy)]
struct Ref {
    link: Link,
    /// The child, once loaded or made.
    node: Option<NodeId>,
}

/// A node; keys are known by the seq of their block.
#[derive(Debug, Default)]
struct Node {
    keys: Vec<u64>,
    children: Vec<RefId>,
    changed: bool,
}

/// Where nodes and keys that are not in memory come from.
pub(super) trait Load {
    /// Key seqs and child links of a stored node.
    fn node(&mut self, link: Link) -> Result<(Vec<u64>, Vec<Link>)>;
    /// How `key` compares to the key that block `seq` holds.
    fn compare(&mut self, key: &[u8], seq: u64) -> Result<Ordering>;
    /// Asked when an operation meets its key, stored in block `seq`: whether to leave it as it is.
    fn refuse(&mut self, seq: u64) -> Result<bool>;
}

/// The nodes an operation rewrote, in the order of their levels; `None` is a level that fell out.
pub(super) type Index = Vec<Option<RefId>>;

#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    refs: Vec<Ref>,
}

impl Tree {
    /// The root stored at `link`, or an empty one.
    pub(super) fn root(&mut self, link: Option<Link>, load: &mut impl Load) -> Result<NodeId> {
        match link {
            Some(link) => self.load(link, load),
            None => Ok(self.create(Vec::new(), Vec::new())),
        }
    }

    /// Puts the key stored in block `seq` into the tree and returns the root, which is another one when
    /// the old one was split. `None` if the key was there and [`Load::refuse`] said so; nodes on the way
    /// are marked changed even then.
    pub(super) fn put(
        &mut self,
        root: NodeId,
        seq: u64,
        key: &[u8],
        load: &mut impl Load,
    ) -> Result<Option<NodeId>> {
        let mut path = Vec::new();
        let mut node = root;
        let slot = loop {
            let leaf = self.nodes[node].children.is_empty();
            if !leaf {
                path.push(node);
                self.nodes[node].changed = true;
            }
            match self.search(node, key, load)? {
                Ok(at) => {
                    let old = self.nodes[node].keys[at];
                    if load.refuse(old)? {
                        return Ok(None);
                    }
                    self.nodes[node].keys[at] = seq;
                    self.nodes[node].changed = true;
                    return Ok(Some(root));
                }
                Err(at) if leaf => break at,
                Err(at) => node = self.child(node, at, load)?,
            }
            if path.len() > MAX_DEPTH {
                return Err(damaged(seq, "depth"));
            }
        };
        self.nodes[node].keys.insert(slot, seq);
        self.nodes[node].changed = true;
        self.split_up(root, node, path).map(Some)
    }

    /// Splits `node` and then its parents as long as they are full.
    fn split_up(
        &mut self,
        mut root: NodeId,
        mut node: NodeId,
        mut path: Vec<NodeId>,
    ) -> Result<NodeId> {
        while self.nodes[node].keys.len() >= SPLIT_KEYS {
            let (median, right) = self.split(node);
            let right = self.link(right);
            let Some(parent) = path.pop() else {
                let left = self.link(node);
                root = self.create(vec![median], vec![left, right]);
                break;
            };
            let at = self.slot_of(parent, node)?;
            let parent_node = &mut self.nodes[parent];
            parent_node.keys.insert(at, median);
            parent_node.children.insert(at + 1, right);
            parent_node.changed = true;
            node = parent;
        }
        Ok(root)
    }

    /// Cuts the upper half off into a new node; the median belongs to neither.
    fn split(&mut self, node: NodeId) -> (u64, NodeId) {
        let left = &mut self.nodes[node];
        let half = left.keys.len() >> 1;
        let keys = left.keys.split_off(left.keys.len() - half);
        let median = left.keys.pop().unwrap_or_default();
        let children = match left.children.len() {
            0 => Vec::new(),
            n => left.children.split_off(n - half - 1),
        };
        left.changed = true;
        (median, self.create(keys, children))
    }

    /// Takes a key out and returns the root. `None` if it is not there or was refused; nothing is marked
    /// then.
    pub(super) fn delete(
        &mut self,
        root: NodeId,
        key: &[u8],
        load: &mut impl Load,
    ) -> Result<Option<NodeId>> {
        let mut path = vec![root];
        let mut node = root;
        let slot = loop {
            match self.search(node, key, load)? {
                Ok(at) => break at,
                Err(_) if self.nodes[node].children.is_empty() => return Ok(None),
                Err(at) => node = self.child(node, at, load)?,
            }
            path.push(node);
            if path.len() > MAX_DEPTH {
                return Err(damaged(0, "depth"));
            }
        };
        if load.refuse(self.nodes[node].keys[slot])? {
            return Ok(None);
        }
        if self.nodes[node].children.is_empty() {
            self.nodes[node].keys.remove(slot);
        } else {
            self.pull_up_nearest(node, slot, &mut path, load)?;
        }
        for &node in &path {
            self.nodes[node].changed = true;
        }
        self.rebalance(path, load).map(Some)
    }

    /// Fills the key slot of an inner node from the nearest leaf on the fuller side.
    fn pull_up_nearest(
        &mut self,
        node: NodeId,
        slot: usize,
        path: &mut Vec<NodeId>,
        load: &mut impl Load,
    ) -> Result<()> {
        let (left, right) = (self.child(node, slot, load)?, self.child(node, slot + 1, load)?);
        let (left, right) = (self.edge(left, false, load)?, self.edge(right, true, load)?);
        let keys_of = |tree: &Self, path: &[NodeId]| {
            path.last().map_or(0, |&leaf| tree.nodes[leaf].keys.len())
        };
        let from_right = keys_of(self, &left) < keys_of(self, &right);
        let chain = if from_right { right } else { left };
        let leaf = chain.last().copied().unwrap_or(node);
        path.extend(chain);
        let keys = &mut self.nodes[leaf].keys;
        if keys.is_empty() {
            return Err(damaged(0, "empty leaf"));
        }
        let key = if from_right { keys.remove(0) } else { keys.remove(keys.len() - 1) };
        self.nodes[node].keys[slot] = key;
        Ok(())
    }

    /// `node` and what is below it on its left or right edge, down to the leaf.
    fn edge(&mut self, mut node: NodeId, left: bool, load: &mut impl Load) -> Result<Vec<NodeId>> {
        let mut chain = vec![node];
        while !self.nodes[node].children.is_empty() {
            let at = if left { 0 } else { self.nodes[node].children.len() - 1 };
            node = self.child(node, at, load)?;
            chain.push(node);
            if chain.len() > MAX_DEPTH {
                return Err(damaged(0, "depth"));
            }
        }
        Ok(chain)
    }

    /// Gives nodes that became too small keys of a sibling, or merges them, from the leaf up.
    fn rebalance(&mut self, mut path: Vec<NodeId>, load: &mut impl Load) -> Result<NodeId> {
        let root = path[0];
        while path.len() > 1 {
            let Some(node) = path.pop() else { break };
            let parent = path[path.len() - 1];
            if self.nodes[node].keys.len() >= MIN_KEYS {
                return Ok(root);
            }
            let at = self.slot_of(parent, node)?;
            let left = match at {
                0 => None,
                _ => Some(self.child(parent, at - 1, load)?),
            };
            let right = match at + 1 < self.nodes[parent].children.len() {
                true => Some(self.child(parent, at + 1, load)?),
                false => None,
            };
            let spare = |tree: &Self, side: &NodeId| tree.nodes[*side].keys.len() > MIN_KEYS;
            if let Some(left) = left.filter(|side| spare(self, side)) {
                self.borrow_left(parent, at, left, node);
                return Ok(root);
            }
            if let Some(right) = right.filter(|side| spare(self, side)) {
                self.borrow_right(parent, at, right, node);
                return Ok(root);
            }
            match (left, right) {
                (Some(left), _) => self.merge(parent, at - 1, left, node),
                (None, Some(right)) => self.merge(parent, at, node, right),
                (None, None) => return Err(damaged(0, "only child")),
            }
        }
        let top = &self.nodes[root];
        if top.keys.is_empty() && !top.children.is_empty() {
            return self.child(root, 0, load);
        }
        Ok(root)
    }

    fn borrow_left(&mut self, parent: NodeId, at: usize, left: NodeId, node: NodeId) {
        let up = self.nodes[left].keys.pop();
        let child = self.nodes[left].children.pop();
        self.nodes[left].changed = true;
        let Some(up) = up else { return };
        let down = std::mem::replace(&mut self.nodes[parent].keys[at - 1], up);
        self.nodes[node].keys.insert(0, down);
        if let Some(child) = child {
            self.nodes[node].children.insert(0, child);
        }
    }

    fn borrow_right(&mut self, parent: NodeId, at: usize, right: NodeId, node: NodeId) {
        let from = &mut self.nodes[right];
        from.changed = true;
        let up = from.keys.remove(0);
        let child = (!from.children.is_empty()).then(|| from.children.remove(0));
        let down = std::mem::replace(&mut self.nodes[parent].keys[at], up);
        self.nodes[node].keys.push(down);
        self.nodes[node].children.extend(child);
    }

    /// Moves the key in slot `at` of the parent and all of `right` into `left`.
    fn merge(&mut self, parent: NodeId, at: usize, left: NodeId, right: NodeId) {
        let keys = std::mem::take(&mut self.nodes[right].keys);
        let children = std::mem::take(&mut self.nodes[right].children);
        let median = self.nodes[parent].keys.remove(at);
        let freed = self.nodes[parent].children.remove(at + 1);
        // Seq 0 takes the freed node out of the block that an earlier operation of the batch put it in.
        self.refs[freed].link.seq = 0;
        self.nodes[parent].changed = true;
        let into = &mut self.nodes[left];
        into.keys.push(median);
        into.keys.extend(keys);
        into.children.extend(children);
        into.changed = true;
    }

    /// Numbers the changed nodes below and with `root` as the levels of block `seq`: the root first, then
    /// depth first.
    pub(super) fn emit(&mut self, root: NodeId, seq: u64) -> Index {
        let mut index = Index::new();
        self.emit_node(root, seq, &mut index);
        let top = Ref { link: Link { seq, offset: 0 }, node: Some(root) };
        self.refs.push(top);
        index[0] = Some(self.refs.len() - 1);
        index
    }

    fn emit_node(&mut self, node: NodeId, seq: u64, index: &mut Index) -> u64 {
        let offset = index.len();
        index.push(None);
        self.nodes[node].changed = false;
        for i in 0..self.nodes[node].children.len() {
            let child = self.nodes[node].children[i];
            let Some(below) = self.refs[child].node.filter(|&n| self.nodes[n].changed) else {
                continue;
            };
            self.refs[child].link.seq = seq;
            let at = self.emit_node(below, seq, index);
            self.refs[child].link.offset = at;
            index[at as usize] = Some(child);
        }
        offset as u64
    }

    /// Drops from an operation's index the nodes that a later one rewrote, and renumbers the rest. The
    /// order that comes out is the reference's.
    pub(super) fn compact(&mut self, index: &mut Index, seq: u64) {
        index[0] = None;
        let mut at = 0;
        while at < index.len() {
            match index[at] {
                Some(id) if self.refs[id].link.seq == seq => {
                    self.refs[id].link.offset = at as u64;
                    at += 1;
                }
                _ => {
                    index.swap_remove(at);
                }
            }
        }
    }

    /// Key seqs of the node a Ref leads to.
    pub(super) fn keys(&self, id: RefId) -> impl Iterator<Item = u64> + Clone + '_ {
        self.refs[id].node.into_iter().flat_map(|node| self.nodes[node].keys.iter().copied())
    }

    /// Child links of the node a Ref leads to.
    pub(super) fn links(&self, id: RefId) -> impl Iterator<Item = Link> + Clone + '_ {
        let node = self.refs[id].node.into_iter();
        node.flat_map(|node| self.nodes[node].children.iter().map(|&child| self.refs[child].link))
    }

    /// The seq that holds `key`.
    pub(super) fn find(
        &mut self,
        root: NodeId,
        key: &[u8],
        load: &mut impl Load,
    ) -> Result<Option<u64>> {
        let mut node = root;
        for _ in 0..MAX_DEPTH {
            match self.search(node, key, load)? {
                Ok(at) => return Ok(Some(self.nodes[node].keys[at])),
                Err(_) if self.nodes[node].children.is_empty() => return Ok(None),
                Err(at) => node = self.child(node, at, load)?,
            }
        }
        Err(damaged(0, "depth"))
    }

    fn search(
        &self,
        node: NodeId,
        key: &[u8],
        load: &mut impl Load,
    ) -> Result<std::result::Result<usize, usize>> {
        search(&self.nodes[node].keys, |seq| load.compare(key, seq))
    }

    fn child(&mut self, node: NodeId, at: usize, load: &mut impl Load) -> Result<NodeId> {
        let id = *self.nodes[node].children.get(at).ok_or_else(|| damaged(0, "child slot"))?;
        if let Some(child) = self.refs[id].node {
            return Ok(child);
        }
        let child = self.load(self.refs[id].link, load)?;
        self.refs[id].node = Some(child);
        Ok(child)
    }

    fn load(&mut self, link: Link, load: &mut impl Load) -> Result<NodeId> {
        let (keys, links) = load.node(link)?;
        let first = self.refs.len();
        self.refs.extend(links.into_iter().map(|link| Ref { link, node: None }));
        let children = (first..self.refs.len()).collect();
        self.nodes.push(Node { keys, children, changed: false });
        Ok(self.nodes.len() - 1)
    }

    fn create(&mut self, keys: Vec<u64>, children: Vec<RefId>) -> NodeId {
        self.nodes.push(Node { keys, children, changed: true });
        self.nodes.len() - 1
    }

    /// A link to a node that has no place yet.
    fn link(&mut self, node: NodeId) -> RefId {
        self.refs.push(Ref { link: Link { seq: 0, offset: 0 }, node: Some(node) });
        self.refs.len() - 1
    }

    fn slot_of(&self, parent: NodeId, node: NodeId) -> Result<usize> {
        let children = &self.nodes[parent].children;
        let found = children.iter().position(|&child| self.refs[child].node == Some(node));
        found.ok_or_else(|| damaged(0, "parent"))
    }
}
