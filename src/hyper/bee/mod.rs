//! Hyperbee: an ordered map of keys to values, kept as a B-tree in an append-only log.
//!
//! Every change appends one block with the key, the value and the tree nodes that the change rewrote, the
//! root first. So each length at which the writer stopped is a version of its own, and an old version
//! costs nothing to read ([`Bee::checkout`]). Version = number of blocks, the header included.
//!
//! Reading works over any [`BlockSource`] and waits only for blocks that are not here. A writer
//! ([`Bee::writable`], [`Bee::batch`]) has all its blocks, so writing never waits. The blocks come from
//! whoever holds the bee's secret key, who may be hostile: nothing here panics, loops or allocates by
//! what they say, a senseless tree ends in [`BeeError::Damaged`].
//!
//! Not copied from the reference: its shortcut of answering a lookup from the block that stores a visited
//! node, which brings deleted keys back.
//!
//! Source: hyperbee/index.js

mod batch;
mod cache;
mod diff;
mod history;
mod nearest;
mod node;
mod range;
mod tree;
mod versions;
mod walk;

pub use batch::Batch;
pub use diff::{Diff, Difference};
pub use history::{Change, History};
pub use node::{Header, Metadata, PROTOCOL};
pub use range::{Range, RangeOptions};
pub use versions::{Step, Versions};

use super::source::{BlockLog, BlockSource, SourceError};
use crate::codec::DecodeError;
use bytes::Bytes;
use cache::BlockCache;
use node::{Block, Level, Link};
use std::cmp::Ordering;
use std::sync::{Arc, Mutex};

/// The deepest tree that is followed. With at least four keys a node, 2^53 keys fit in 24 levels; more
/// can only be a ring.
const MAX_DEPTH: usize = 64;

/// Why a bee could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BeeError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The writer of the core wrote a block that no bee has.
    #[error("the drive's names are damaged in block {seq}: {what}")]
    Damaged { seq: u64, what: DecodeError },
    /// Block 0 names another protocol.
    #[error("this is not the key of a drive: '{0}' is behind it")]
    Protocol(String),
    /// Only with calls that do not wait.
    #[error("block {0} of the drive's names is not in the store")]
    NotHere(u64),
    /// Someone else appended to the core while a batch was open.
    #[error("the drive was changed by something else at the same moment: try again")]
    Raced,
    /// A writer handle is needed, not a reader's or a checkout.
    #[error("a version of a drive never changes")]
    ReadOnly,
}

pub type Result<T> = std::result::Result<T, BeeError>;

fn damaged(seq: u64, what: &'static str) -> BeeError {
    BeeError::Damaged { seq, what: DecodeError::Invalid(what) }
}

/// A key and its value, with the number of the block that holds both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    pub key: Bytes,
    /// Empty for null.
    pub value: Bytes,
}

/// A bee, or one version of it. Clones share cache and writer's lock.
#[derive(Clone)]
pub struct Bee {
    source: Arc<dyn BlockSource>,
    writer: Option<Arc<Writer>>,
    checkout: Option<u64>,
    cache: Arc<BlockCache>,
}

struct Writer {
    log: Arc<dyn BlockLog>,
    metadata: Option<Metadata>,
    /// Held by a batch from its first to its last operation.
    turn: Mutex<()>,
}

/// A tree node taken out of its block.
#[derive(Debug, Clone)]
struct Node {
    seq: u64,
    keys: Vec<u64>,
    children: Vec<Link>,
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }
}

impl Bee {
    /// A reader's view.
    pub fn new(source: Arc<dyn BlockSource>) -> Self {
        Self { source, writer: None, checkout: None, cache: Arc::default() }
    }

    /// A writer's handle. `metadata` goes into the header, which is written before the first change.
    pub fn writable(log: Arc<dyn BlockLog>, metadata: Option<Metadata>) -> Self {
        let source: Arc<dyn BlockSource> = log.clone();
        let writer = Writer { log, metadata, turn: Mutex::new(()) };
        Self { source, writer: Some(Arc::new(writer)), checkout: None, cache: Arc::default() }
    }

    pub fn source(&self) -> &Arc<dyn BlockSource> {
        &self.source
    }

    /// Blocks of this version, the header included; 1 for an empty bee.
    pub fn version(&self) -> u64 {
        self.checkout.unwrap_or_else(|| self.source.length()).max(1)
    }

    /// The bee as it was at `version`. Only versions at which the writer stopped are whole; inside a
    /// batch a reader may see a wrong tree. See [`Bee::whole_version`].
    pub fn checkout(&self, version: u64) -> Self {
        Self { checkout: Some(version.max(1)), writer: None, ..self.clone() }
    }

    /// This version, whatever is appended later.
    pub fn snapshot(&self) -> Self {
        self.checkout(self.version())
    }

    /// Block 0, checked to be a bee's.
    pub async fn header(&self) -> Result<Header> {
        let raw = match self.source.try_block(0)? {
            Some(raw) => raw,
            None => self.source.block(0).await?,
        };
        let header = Header::decode(&raw).map_err(|what| BeeError::Damaged { seq: 0, what })?;
        match header.protocol.as_str() {
            PROTOCOL => Ok(header),
            _ => Err(BeeError::Protocol(header.protocol)),
        }
    }

    /// The entry of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        let Some(mut node) = self.root().await? else { return Ok(None) };
        for _ in 0..MAX_DEPTH {
            match self.search(&node, key).await? {
                Ok(at) => return self.entry(node.keys[at]).await.map(Some),
                Err(_) if node.is_leaf() => return Ok(None),
                Err(at) => node = self.child(&node, at).await?,
            }
        }
        Err(damaged(node.seq, "depth"))
    }

    /// The entry of `key` without waiting; [`BeeError::NotHere`] if a block on the way is missing.
    pub fn get_local(&self, key: &[u8]) -> Result<Option<Entry>> {
        let Some(link) = self.root_link() else { return Ok(None) };
        let mut node = self.local_node(link)?;
        for _ in 0..MAX_DEPTH {
            let found = search(&node.keys, |seq| Ok(key.cmp(&self.local_block(seq)?.key)))?;
            match found {
                Ok(at) => {
                    let seq = node.keys[at];
                    return Ok(Some(entry(seq, &*self.local_block(seq)?)));
                }
                Err(_) if node.is_leaf() => return Ok(None),
                Err(at) => node = self.local_node(down(&node, at)?)?,
            }
        }
        Err(damaged(node.seq, "depth"))
    }

    /// Key and value of the block `seq`, which is here.
    pub fn local_entry(&self, seq: u64) -> Result<Entry> {
        Ok(entry(seq, &*self.local_block(seq)?))
    }

    /// Key and value of the block `seq`.
    pub async fn entry(&self, seq: u64) -> Result<Entry> {
        Ok(entry(seq, &*self.block(seq).await?))
    }

    /// Entries in key order.
    pub fn range(&self, options: RangeOptions) -> Range {
        Range::new(self.snapshot(), options)
    }

    /// What was done, block by block, from block `from` up to this version.
    pub fn history(&self, from: u64) -> History {
        History::new(self.snapshot(), from)
    }

    /// How this version differs from `other`, in key order.
    pub fn diff(&self, other: &Bee) -> Diff {
        Diff::new(self.snapshot(), other.snapshot())
    }

    /// Starts a group of changes that is appended as one. Blocks while another batch is open.
    pub fn batch(&self) -> Result<Batch<'_>> {
        let writer = self.writer.as_ref().ok_or(BeeError::ReadOnly)?;
        let turn = crate::lock::lock(&writer.turn);
        Ok(Batch::new(self, writer, turn))
    }

    // Loading.

    fn root_link(&self) -> Option<Link> {
        let version = self.version();
        (version > 1).then(|| Link { seq: version - 1, offset: 0 })
    }

    async fn root(&self) -> Result<Option<Node>> {
        match self.root_link() {
            Some(link) => self.node(link).await.map(Some),
            None => Ok(None),
        }
    }

    /// The child in slot `at`. The first one that is not here asks for all its siblings and their keys as
    /// well: whoever walks on will want them, and they come in the same round trip.
    async fn child(&self, node: &Node, at: usize) -> Result<Node> {
        let link = down(node, at)?;
        if self.try_block(link.seq)?.is_none() {
            self.preload(node);
        }
        self.node(link).await
    }

    async fn node(&self, link: Link) -> Result<Node> {
        to_node(link, &*self.block(link.seq).await?)
    }

    fn local_node(&self, link: Link) -> Result<Node> {
        to_node(link, &*self.local_block(link.seq)?)
    }

    fn preload(&self, node: &Node) {
        let children = node.children.iter().map(|link| link.seq);
        let seqs: Vec<u64> = node.keys.iter().copied().chain(children).collect();
        self.source.prefetch(&seqs);
    }

    /// [`search`] that waits.
    async fn search(&self, node: &Node, key: &[u8]) -> Result<std::result::Result<usize, usize>> {
        let (mut low, mut high) = (0, node.keys.len());
        while low < high {
            let mid = (low + high) >> 1;
            let found = self.key(node, mid).await?;
            match key.cmp(&found[..]) {
                Ordering::Equal => return Ok(Ok(mid)),
                Ordering::Less => high = mid,
                Ordering::Greater => low = mid + 1,
            }
        }
        Ok(Err(low))
    }

    /// The bytes of the key in slot `at`.
    async fn key(&self, node: &Node, at: usize) -> Result<Bytes> {
        let seq = node.keys[at];
        if self.try_block(seq)?.is_none() {
            self.preload(node);
        }
        Ok(self.block(seq).await?.key.clone())
    }

    async fn block(&self, seq: u64) -> Result<Arc<Block>> {
        if let Some(block) = self.try_block(seq)? {
            return Ok(block);
        }
        let fork = self.source.fork();
        let raw = self.source.block(seq).await?;
        self.keep(fork, seq, &raw)
    }

    fn local_block(&self, seq: u64) -> Result<Arc<Block>> {
        self.try_block(seq)?.ok_or(BeeError::NotHere(seq))
    }

    fn try_block(&self, seq: u64) -> Result<Option<Arc<Block>>> {
        let fork = self.source.fork();
        if let Some(block) = self.cache.get(fork, seq) {
            return Ok(Some(block));
        }
        match self.source.try_block(seq)? {
            Some(raw) => self.keep(fork, seq, &raw).map(Some),
            None => Ok(None),
        }
    }

    fn keep(&self, fork: u64, seq: u64, raw: &Bytes) -> Result<Arc<Block>> {
        let block = Block::decode(raw).map_err(|what| BeeError::Damaged { seq, what })?;
        let block = Arc::new(block);
        self.cache.insert(fork, seq, Arc::clone(&block));
        Ok(block)
    }
}

fn entry(seq: u64, block: &Block) -> Entry {
    Entry { seq, key: block.key.clone(), value: block.value.clone().unwrap_or_default() }
}

/// The link in child slot `at`. A child is written with or before its parent, so a link forward is a lie.
fn down(node: &Node, at: usize) -> Result<Link> {
    match node.children.get(at) {
        Some(link) if link.seq <= node.seq && link.seq > 0 => Ok(*link),
        _ => Err(damaged(node.seq, "child link")),
    }
}

fn to_node(link: Link, block: &Block) -> Result<Node> {
    let Link { seq, offset } = link;
    let level: Level = block.level(offset).map_err(|what| BeeError::Damaged { seq, what })?;
    if !level.is_sound() || level.keys.iter().any(|&key| key == 0 || key > seq) {
        return Err(damaged(seq, "tree node"));
    }
    Ok(Node { seq, keys: level.keys, children: level.children })
}

/// Binary search among keys stored in the blocks `seqs`: `compare` says how the wanted key compares to
/// that of a block. Slot of the key (`Ok`) or of the child to go to (`Err`).
fn search(
    seqs: &[u64],
    mut compare: impl FnMut(u64) -> Result<Ordering>,
) -> Result<std::result::Result<usize, usize>> {
    let (mut low, mut high) = (0, seqs.len());
    while low < high {
        let mid = (low + high) >> 1;
        match compare(seqs[mid])? {
            Ordering::Equal => return Ok(Ok(mid)),
            Ordering::Less => high = mid,
            Ordering::Greater => low = mid + 1,
        }
    }
    Ok(Err(low))
}

/// The drive vectors, which hold the bee's as well.
#[cfg(test)]
pub(crate) fn vectors() -> &'static serde_json::Value {
    static VECTORS: std::sync::OnceLock<serde_json::Value> = std::sync::OnceLock::new();
    VECTORS.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/drive.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::run;
