//! What several targets share: trees to prove against, shapes of peers' messages, futures that never wait.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use hdrive::crypto::{KeyPair, hash};
use hdrive::hyper::core::manifest::Manifest;
use hdrive::hyper::core::message::{
    BlockProof, HashProof, NodeRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use hdrive::hyper::core::tree::{Batch, Head, Node, NodeSource};
use hdrive::hyper::core::verifier::Verifier;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

/// The longest tree any target makes, in blocks.
pub const MAX_BLOCKS: u64 = 64;

/// A signed core of `length` blocks; block `i` holds `i % 7 + 1` bytes.
#[derive(Clone)]
pub struct Tree {
    pub head: Head,
    pub nodes: BTreeMap<u64, Node>,
    pub verifier: Verifier,
}

impl NodeSource for Tree {
    fn node(&self, index: u64) -> io::Result<Option<Node>> {
        Ok(self.nodes.get(&index).copied())
    }
}

pub fn block(index: u64) -> Bytes {
    vec![index as u8; (index % 7 + 1) as usize].into()
}

/// The key pair of this seed. Made once: fuzzing is about what comes after.
pub fn key_pair(seed: u8) -> KeyPair {
    static PAIRS: [OnceLock<KeyPair>; 256] = [const { OnceLock::new() }; 256];
    PAIRS[usize::from(seed)].get_or_init(|| KeyPair::from_seed(&[seed; 32])).clone()
}

impl Tree {
    /// Fork 0, at most [`MAX_BLOCKS`] blocks.
    pub fn new(length: u64) -> Self {
        static TREES: OnceLock<Vec<Tree>> = OnceLock::new();
        TREES.get_or_init(|| (0..=MAX_BLOCKS).map(Tree::make).collect())[length as usize].clone()
    }

    fn make(length: u64) -> Self {
        let pair = key_pair(1);
        let manifest = Manifest::single(pair.public());
        let verifier = Verifier::new(&manifest.key(), &manifest).expect("its own manifest");
        let mut batch = Batch::new(&Head::default());
        for index in 0..length {
            let value = block(index);
            batch.push(value.len() as u64, hash::leaf(&value));
        }
        let (mut head, nodes) = batch.finish();
        if length > 0 {
            head.signature = verifier.sign(&head, &pair).expect("its own key");
        }
        let nodes = nodes.into_iter().map(|node| (node.index, node)).collect();
        Self { head, nodes, verifier }
    }

    /// Forgets the nodes that `keep` does not name.
    pub fn thin(&mut self, keep: u64) {
        self.nodes.retain(|index, _| keep >> (index % 64) & 1 != 0);
    }
}

/// A number of a kind that breaks things: small, near a power of two, or any.
pub fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<u64> {
    Ok(match u.int_in_range(0..=7u8)? {
        0..=4 => u.int_in_range(0..=2 * MAX_BLOCKS)?,
        5 => (1u64 << u.int_in_range(0..=63)?).wrapping_add(u.int_in_range(0..=4)?).wrapping_sub(2),
        _ => u64::arbitrary(u)?,
    })
}

fn option<T>(
    u: &mut Unstructured<'_>,
    make: impl FnOnce(&mut Unstructured<'_>) -> arbitrary::Result<T>,
) -> arbitrary::Result<Option<T>> {
    if u.arbitrary()? { make(u).map(Some) } else { Ok(None) }
}

pub fn request(u: &mut Unstructured<'_>) -> arbitrary::Result<Request> {
    let node = |u: &mut Unstructured<'_>| Ok(NodeRequest { index: number(u)?, nodes: number(u)? });
    Ok(Request {
        block: option(u, node)?,
        hash: option(u, node)?,
        seek: option(u, |u| Ok(SeekRequest { bytes: number(u)?, padding: number(u)? }))?,
        upgrade: option(u, |u| Ok(UpgradeRequest { start: number(u)?, length: number(u)? }))?,
        manifest: u.arbitrary()?,
        priority: number(u)?,
    })
}

/// Nodes, some of them true ones of `tree`.
pub fn nodes(u: &mut Unstructured<'_>, tree: &Tree) -> arbitrary::Result<Vec<Node>> {
    let count = u.int_in_range(0..=8)?;
    (0..count).map(|_| node(u, tree)).collect()
}

pub fn node(u: &mut Unstructured<'_>, tree: &Tree) -> arbitrary::Result<Node> {
    let index = number(u)?;
    let mut node = match tree.nodes.get(&index) {
        Some(node) => *node,
        None => Node { index, size: number(u)?, hash: [u.arbitrary()?; 32] },
    };
    if u.ratio(1, 8u8)? {
        node.size = number(u)?;
    }
    Ok(node)
}

pub fn proof(u: &mut Unstructured<'_>, tree: &Tree) -> arbitrary::Result<Proof> {
    Ok(Proof {
        fork: number(u)?,
        block: option(u, |u| {
            let index = number(u)?;
            Ok(BlockProof { index, value: block(index), nodes: nodes(u, tree)? })
        })?,
        hash: option(u, |u| Ok(HashProof { index: number(u)?, nodes: nodes(u, tree)? }))?,
        seek: option(u, |u| Ok(SeekProof { bytes: number(u)?, nodes: nodes(u, tree)? }))?,
        upgrade: option(u, |u| {
            Ok(UpgradeProof {
                start: number(u)?,
                length: number(u)?,
                nodes: nodes(u, tree)?,
                additional: nodes(u, tree)?,
                signature: if u.arbitrary()? { tree.head.signature.clone() } else { Vec::new() },
            })
        })?,
        manifest: None,
    })
}

/// Changes one thing in a true proof.
pub fn disturb(u: &mut Unstructured<'_>, proof: &mut Proof) -> arbitrary::Result<()> {
    let mut lists: Vec<&mut Vec<Node>> = Vec::new();
    let mut numbers: Vec<&mut u64> = vec![&mut proof.fork];
    if let Some(block) = &mut proof.block {
        numbers.push(&mut block.index);
        lists.push(&mut block.nodes);
    }
    if let Some(hash) = &mut proof.hash {
        numbers.push(&mut hash.index);
        lists.push(&mut hash.nodes);
    }
    if let Some(seek) = &mut proof.seek {
        numbers.push(&mut seek.bytes);
        lists.push(&mut seek.nodes);
    }
    if let Some(upgrade) = &mut proof.upgrade {
        numbers.extend([&mut upgrade.start, &mut upgrade.length]);
        lists.extend([&mut upgrade.nodes, &mut upgrade.additional]);
    }
    if u.arbitrary()? {
        let at = u.choose_index(numbers.len())?;
        *numbers[at] = number(u)?;
    } else if !lists.is_empty() {
        let at = u.choose_index(lists.len())?;
        let list = &mut *lists[at];
        if list.is_empty() {
            list.push(Node { index: number(u)?, size: number(u)?, hash: u.arbitrary()? });
        }
        let at = u.choose_index(list.len())?;
        match u.int_in_range(0..=4u8)? {
            0 => list[at].size = number(u)?,
            1 => list[at].index = number(u)?,
            2 => list[at].hash[u.choose_index(32)?] ^= u8::arbitrary(u)?,
            3 => drop(list.remove(at)),
            _ => {
                let other = u.choose_index(list.len())?;
                list.swap(at, other);
            }
        }
    }
    Ok(())
}

/// Runs a future over sources that answer at once.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("nothing here has to be waited for");
}
