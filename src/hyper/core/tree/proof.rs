//! Making proofs: the nodes a peer needs to check the part of the tree it asked for.
//!
//! The asker says how much it lacks (`nodes` levels above a block, an upgrade from its length), the server
//! sends exactly that. An answer with an upgrade always reaches the server's own head, because only that is
//! signed: what lies behind the asked range goes into `additional`.
//!
//! Source: hypercore/lib/merkle-tree.js:generateProof

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::seek::unpadded;
use super::{Head, Node, NodeSource, Tree, byte_offset};
use crate::hyper::core::message::{
    BlockProof, HashProof, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
};
use crate::hyper::flat_tree as flat;
use bytes::Bytes;
use std::io;

/// Why a request gets no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// No honest peer asks this: count it against the asker.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// A node to answer with is not here, as in a sparse copy: answer "no data".
    #[error("tree node {0} is not here")]
    Missing(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Result<T> = std::result::Result<T, ProofError>;

const INVALID: fn(&'static str) -> ProofError = ProofError::Invalid;

/// The proof for a request; `block.value` is left empty. An empty tree gives an empty proof.
///
/// `request.upgrade` must have gone through [`Prologue::widen`] where the manifest has a prologue. Whether the
/// block itself is here is not looked at, nor its index when it is past the tree and asked with 0 nodes.
///
/// [`Prologue::widen`]: crate::hyper::core::manifest::Prologue::widen
pub fn make_proof(head: &Head, nodes: &dyn NodeSource, request: &Request) -> Result<Proof> {
    let mut proof = Proof { fork: head.fork, ..Proof::default() };
    if head.length == 0 {
        return Ok(proof);
    }
    let asked = Asked::new(head, request)?;
    let mut maker = Maker { tree: Tree { head, nodes }, asked, node: None, seek: None };
    let upgrade = maker.run()?;

    if let Some(block) = request.block {
        let nodes = maker.node.ok_or(INVALID("block outside the upgrade"))?;
        proof.block = Some(BlockProof { index: block.index, value: Bytes::new(), nodes });
    } else if let Some(hash) = request.hash {
        let nodes = maker.node.ok_or(INVALID("hash outside the upgrade"))?;
        proof.hash = Some(HashProof { index: hash.index, nodes });
    }
    if let (Some(seek), Some(nodes)) = (request.seek, maker.seek) {
        proof.seek = Some(SeekProof { bytes: seek.bytes, nodes });
    }
    if let (Some(asked), Some((nodes, additional))) = (request.upgrade, upgrade) {
        let signature = head.signature.clone();
        let (start, length) = (asked.start, asked.length);
        proof.upgrade = Some(UpgradeProof { start, length, nodes, additional, signature });
    }
    Ok(proof)
}

/// The asked node: the leaf of a block, or any node of which the hash is wanted.
#[derive(Debug, Clone, Copy)]
struct Target {
    /// Tree index.
    index: u64,
    /// Levels to climb.
    levels: u64,
    /// A block's own node is not sent, since its value is.
    is_block: bool,
}

/// A request in tree terms, checked as far as it can be without nodes.
#[derive(Debug, Clone, Copy)]
struct Asked {
    target: Option<Target>,
    seek: Option<SeekRequest>,
    /// Blocks the asker has.
    from: u64,
    /// Length the proof must reach.
    to: u64,
    upgrade: bool,
}

impl Asked {
    fn new(head: &Head, request: &Request) -> Result<Self> {
        let target = match (request.block, request.hash) {
            (Some(_), Some(_)) => return Err(INVALID("block and hash")),
            (Some(b), None) if b.index < flat::MAX_LENGTH => {
                Some(Target { index: 2 * b.index, levels: b.nodes, is_block: true })
            }
            (None, Some(h)) if h.index <= flat::MAX_INDEX => {
                Some(Target { index: h.index, levels: h.nodes, is_block: false })
            }
            (None, None) => None,
            _ => return Err(INVALID("index")),
        };
        let (from, to) = match request.upgrade {
            Some(up) => (up.start, up.start.saturating_add(up.length)),
            None => (0, head.length),
        };
        if from >= to || to > head.length {
            return Err(INVALID("upgrade range"));
        }
        let (seek, upgrade) = (request.seek, request.upgrade.is_some());
        if upgrade && seek.is_some() && target.is_some_and(|t| t.index >= 2 * from) {
            return Err(INVALID("seek and new block in one upgrade"));
        }
        Ok(Self { target, seek, from, to, upgrade })
    }
}

struct Maker<'a> {
    tree: Tree<'a>,
    asked: Asked,
    /// Nodes of the block or hash part, once made.
    node: Option<Vec<Node>>,
    /// Nodes of the seek part, once made.
    seek: Option<Vec<Node>>,
}

impl Maker<'_> {
    /// Fills the block, hash and seek parts and gives upgrade and additional nodes.
    fn run(&mut self) -> Result<Option<(Vec<Node>, Vec<Node>)>> {
        let asked = self.asked;
        let mut sub = None;
        if let Some(target) = asked.target
            && (!asked.upgrade || flat::right_span(target.index) / 2 < asked.from)
        {
            // Inside the tree that the asker has.
            let root = climb(target, asked.to)?;
            let found = match asked.seek {
                Some(seek) => self.seek_untrusted(root, seek)?,
                None => None,
            };
            self.paths(found, root)?;
        } else if asked.upgrade {
            sub = match (asked.seek, asked.target) {
                (Some(seek), _) => self.seek_from_start(seek)?,
                (None, target) => target.map(|t| t.index),
            };
        }
        if !asked.upgrade {
            return Ok(None);
        }
        let nodes = self.connect(asked.from, asked.to, sub)?;
        let additional = match self.tree.head.length > asked.to {
            true => self.connect(asked.to, self.tree.head.length, None)?,
            false => Vec::new(),
        };
        Ok(Some((nodes, additional)))
    }

    fn node(&self, index: u64) -> Result<Node> {
        self.tree.node(index)?.ok_or(ProofError::Missing(index))
    }

    /// The nodes that take a tree of `from` blocks to one of `to`. The first of them that holds `sub` is left
    /// out: there the block, hash or seek part leads up to it.
    fn connect(&mut self, from: u64, to: u64, sub: Option<u64>) -> Result<Vec<Node>> {
        let mut out = Vec::new();
        let mut connected = from == 0;
        for root in flat::full_roots(to) {
            if flat::end(root) <= from {
                continue;
            }
            if !connected && flat::left_span(root) < 2 * from {
                let mut at = 2 * from - 2;
                while at != root {
                    let sibling = flat::sibling(at);
                    if sibling > at {
                        self.whole_or_part(sibling, sub, &mut out)?;
                    }
                    at = flat::parent(at);
                }
            } else {
                self.whole_or_part(root, sub, &mut out)?;
            }
            connected = true;
        }
        Ok(out)
    }

    fn whole_or_part(&mut self, root: u64, sub: Option<u64>, out: &mut Vec<Node>) -> Result<()> {
        let open = self.node.is_none() && self.seek.is_none();
        if open && sub.is_some_and(|sub| flat::contains(root, sub)) {
            return self.paths(sub, root);
        }
        out.push(self.node(root)?);
        Ok(())
    }

    /// The path from the asked node up to `root`, or without one from `found`, the node a seek led to.
    fn paths(&mut self, found: Option<u64>, root: u64) -> Result<()> {
        let Some(target) = self.asked.target else {
            self.seek = Some(self.seek_path(found.unwrap_or(root), root)?);
            return Ok(());
        };
        if !flat::contains(root, target.index) {
            return Err(INVALID("node outside the upgrade"));
        }
        let found = found.filter(|_| self.asked.seek.is_some());
        let mut out = Vec::new();
        if !target.is_block {
            out.push(self.node(target.index)?);
        }
        let mut at = target.index;
        while at != root {
            let sibling = flat::sibling(at);
            match found.filter(|&f| f != sibling && flat::contains(sibling, f)) {
                Some(found) => self.seek = Some(self.seek_path(found, sibling)?),
                None => out.push(self.node(sibling)?),
            }
            at = flat::parent(at);
        }
        self.node = Some(out);
        Ok(())
    }

    /// `found` itself and the siblings up to `root`, which contains it.
    fn seek_path(&self, found: u64, root: u64) -> Result<Vec<Node>> {
        let mut out = vec![self.node(found)?];
        let mut at = found;
        while at != root {
            out.push(self.node(flat::sibling(at))?);
            at = flat::parent(at);
        }
        Ok(out)
    }

    /// Where `seek` lands when bytes count from the start of the core; `None` if past the asked upgrade.
    fn seek_from_start(&self, seek: SeekRequest) -> Result<Option<u64>> {
        let mut bytes = seek.bytes;
        for root in flat::full_roots(self.asked.to) {
            let size = unpadded(&self.node(root)?, seek.padding);
            if bytes == size {
                return Ok(Some(root));
            }
            if bytes < size {
                return self.seek_within(root, bytes, seek.padding).map(Some);
            }
            bytes -= size;
        }
        Ok(None)
    }

    /// Where `seek` lands under `root`. An asker that put it elsewhere is wrong, but only under the first root:
    /// the reference has no offsets under the others and answers there without the seek.
    fn seek_untrusted(&self, root: u64, seek: SeekRequest) -> Result<Option<u64>> {
        let Tree { head, nodes } = self.tree;
        let first = head.roots.first().is_some_and(|r| flat::contains(r.index, root));
        let outside = if first { Err(INVALID("seek outside the node")) } else { Ok(None) };
        if flat::end(root) > head.length {
            return Err(INVALID("seek past the tree"));
        }
        let start = byte_offset(head, nodes, root)?.ok_or(ProofError::Missing(root))?;
        let padding = (flat::left_span(root) / 2).saturating_mul(seek.padding);
        let Some(bytes) = seek.bytes.checked_sub(start.saturating_sub(padding)) else {
            return outside;
        };
        if bytes == 0 {
            return Ok(Some(root));
        }
        if bytes >= unpadded(&self.node(root)?, seek.padding) {
            return outside;
        }
        self.seek_within(root, bytes, seek.padding).map(Some)
    }

    /// Descends to the node that holds byte `bytes` of `root`, as far as nodes are here.
    fn seek_within(&self, root: u64, mut bytes: u64, padding: u64) -> Result<u64> {
        let mut at = root;
        if bytes == 0 {
            return Ok(at);
        }
        while let (Some(left), Some(right)) = (flat::left_child(at), flat::right_child(at)) {
            let Some(node) = self.tree.node(left)? else { return Ok(at) };
            let size = unpadded(&node, padding);
            if size == bytes {
                return Ok(left);
            }
            if size > bytes {
                at = left;
            } else {
                bytes -= size;
                at = right;
            }
        }
        Ok(at)
    }
}

/// The ancestor `target.levels` above, which must not reach past a tree of `to` blocks.
fn climb(target: Target, to: u64) -> Result<u64> {
    let mut at = target.index;
    for _ in 0..target.levels {
        at = flat::parent(at);
        // Every node has an ancestor over `to`, so this ends after 53 rounds at most.
        if flat::contains(at, 2 * to) || at > flat::MAX_INDEX {
            return Err(INVALID("climbs past the tree"));
        }
    }
    Ok(at)
}
