//! Hypercore: an append-only log of blocks, signed as a Merkle tree.
//!
//! A [`Core`] is one such log as far as it is here: all of it where we write it, some of it where we read it.
//! It is plain and synchronous; whoever shares it locks it ([`SharedCore`]).
//!
//! | state | in memory | in the store |
//! |---|---|---|
//! | head: fork, length, roots, signature | [`Core::head`] | a record |
//! | which blocks are here | [`bitfield`] | a record per page of 32768 blocks |
//! | tree nodes | [`nodes`], pages that are written back | sparse file, 40 bytes each at 40 × tree index |
//! | blocks as stored (encrypted where the core is) | – | sparse file, each at its tree byte offset |
//!
//! Every size that a stored block's offset rests on is proven by hashes (see [`tree`]), so a stored block
//! never moves and blocks never overlap.
//!
//! What changes is committed in one of three ways. Our own appends go through [`commit`]: bytes and nodes to the
//! files (long ones piece by piece, see [`staging`]), then one transaction for the heads and bits of all cores
//! concerned. Blocks of peers
//! ([`Core::apply_proof`]) go to the files at once while their bits wait in memory for [`Core::flush`]; losing them
//! costs fetching them again. What destroys (truncation, clearing, [following a fork](follow)) first commits durably that
//! the bytes are gone, then frees them.
//!
//! | file | holds |
//! |---|---|
//! | `tree`, `node`, `nodes`, `head` | the Merkle tree: what is added to it and proven, a node, nodes on disk, what is signed |
//! | `bitfield`, `place`, `record` | which blocks are here and where; what the store keeps of that |
//! | `commit`, `staging`, `change`, `follow` | appends and blocks of peers; appends in pieces; what takes away; another fork |
//! | `message`, `prove`, `history` | what peers ask and answer, and whether it is of this core's history |
//! | `manifest`, `multisig`, `verifier` | who may sign, and how it is checked |
//! | `life`, `writer`, `secrecy`, `encryption` | how a core comes and goes; who may write and who may read it |
//! | `scrub`, `soundness` | whether the files hold what was verified, and what is done if not |
//! | `error` | what can go wrong |
//! | `storage` | where all of it lies |
//!
//! After an unclean end the tree file may hold less or more than the records say. [`scrub`] puts that right when
//! the core is opened next. Files that are not the ones we left are not believed: see [`soundness`].

pub mod bitfield;
mod change;
mod commit;
pub mod encryption;
mod error;
mod follow;
mod head;
mod history;
mod life;
pub mod manifest;
pub mod message;
pub mod multisig;
mod node;
mod nodes;
mod place;
mod prove;
mod record;
mod scrub;
mod secrecy;
mod soundness;
mod staging;
pub mod storage;
pub mod tree;
pub mod verifier;
mod writer;

#[cfg(test)]
mod tests;

pub use change::FreeStep;
pub use commit::{Flush, Prepared, commit, commit_also};
pub use error::{ApplyError, CoreError, WriterDoubt};
pub use follow::Following;
pub use message::{Proof, Request};
pub use place::{BlockPlace, Reading};
pub use prove::{Applied, Provable};
pub use secrecy::Secrecy;
pub use staging::{Piece, Staging};
pub use storage::{Durability, Storage};

use crate::crypto::KeyPair;
use crate::key::{CoreKey, DiscoveryKey};
use bitfield::Bitfield;
use bytes::Bytes;
use encryption::BlockCipher;
use manifest::Manifest;
use nodes::{NodeStore, View};
use record::Identity;
use soundness::Soundness;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use storage::CoreFiles;
use tree::{Head, SeekResult, SpanCursor};
use verifier::Verifier;

pub type Result<T> = std::result::Result<T, CoreError>;

/// A core between its local users and the replicator. Lock it briefly.
pub type SharedCore = Arc<Mutex<Core>>;

/// The longest core kept, in blocks. With 64 KiB blocks that is 2^56 bytes, far beyond any file.
pub const MAX_BLOCKS: u64 = 1 << 40;

/// The largest block that may be appended, in bytes. Peers' blocks are only bounded by the frame.
///
/// Source: hypercore/index.js:append
pub const MAX_BLOCK_SIZE: u64 = 15 << 20;

/// How to make or open a core.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    pub key: CoreKey,
    /// Not needed where the first answer of a peer brings it, or where `key_pair` says it: the manifest of a
    /// single signer, or none for a core whose key is the public key.
    pub manifest: Option<Manifest>,
    pub key_pair: Option<KeyPair>,
    pub encryption_key: Option<[u8; 32]>,
}

impl CreateOptions {
    /// To read a core of which only the key is known.
    pub fn reader(key: CoreKey) -> Self {
        Self { key, manifest: None, key_pair: None, encryption_key: None }
    }

    /// To write a core with the default manifest of one signer.
    pub fn writer(key_pair: KeyPair) -> Self {
        let manifest = Manifest::single(key_pair.public());
        let key = manifest.key();
        Self { key, manifest: Some(manifest), key_pair: Some(key_pair), encryption_key: None }
    }
}

/// One core of a store. There must be one instance per core of a store at a time.
pub struct Core {
    storage: Arc<dyn Storage>,
    files: Arc<CoreFiles>,
    discovery_key: DiscoveryKey,
    identity: Identity,
    writable: bool,
    cipher: Option<Arc<BlockCipher>>,
    head: Head,
    nodes: NodeStore,
    bits: Bitfield,
    /// The session in which the tree file was last known to be sound.
    session: u64,
    dirty: Dirty,
    cursor: Cell<SpanCursor>,
    /// Where the block after the last stored one goes.
    next_write: Option<(u64, u64)>,
    /// Counts what takes bytes away, for readers outside the lock.
    generation: Arc<AtomicU64>,
    /// A [`Staging`] is under way.
    appending: Arc<AtomicBool>,
    /// A fork is being stored: see [`follow`].
    following: bool,
    /// A head that the device may hold speaks of bytes past ours: nothing there may be cut off.
    claimed: Arc<AtomicBool>,
    /// What forbids to write it before peers were asked.
    doubt: Option<WriterDoubt>,
    /// Whether something does, for the contents that belong to it.
    doubted: Arc<AtomicBool>,
    /// The same of the names that it holds the contents of.
    names_doubted: Option<Arc<AtomicBool>>,
    /// A peer's longer log was taken for a core that we write.
    outgrown: bool,
    soundness: RefCell<Soundness>,
    /// Counts commits, so that a flush can tell that its snapshot is no longer the latest.
    commits: u64,
}

/// What the store does not have yet, besides bits and nodes.
#[derive(Debug, Clone, Copy, Default)]
struct Dirty {
    identity: bool,
    head: bool,
    /// That two histories of it were signed.
    split: bool,
    /// Something that a peer sent is among what waits. The rest is made anew, or was refused to who asked for it.
    fetched: bool,
}

/// What a core is and has.
impl Core {
    pub fn key(&self) -> &CoreKey {
        &self.identity.key
    }

    /// The store that it lives in.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub fn discovery_key(&self) -> &DiscoveryKey {
        &self.discovery_key
    }

    /// A number to tell cores apart by, as in the block cache.
    pub fn id(&self) -> u64 {
        self.discovery_key.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// `None` for a reader that has had no answer yet. A compat core has the one that follows from its key.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.identity.verifier.as_ref().map(Verifier::manifest)
    }

    /// The manifest as peers are told it: a compat core has none to tell.
    pub fn told_manifest(&self) -> Option<&Manifest> {
        self.manifest().filter(|_| !self.is_compat())
    }

    /// Whether the core is known to be a compat one: its key is the signer's public key.
    pub fn is_compat(&self) -> bool {
        self.identity.verifier.as_ref().is_some_and(Verifier::is_compat)
    }

    /// Whether we can append.
    pub fn writable(&self) -> bool {
        self.writable
    }

    pub fn key_pair(&self) -> Option<&KeyPair> {
        self.identity.key_pair.as_ref()
    }

    pub fn encryption_key(&self) -> Option<&[u8; 32]> {
        self.identity.secrecy.key()
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Length in blocks.
    pub fn length(&self) -> u64 {
        self.head.length
    }

    pub fn fork(&self) -> u64 {
        self.head.fork
    }

    /// Plaintext bytes of all blocks, here or not.
    pub fn byte_length(&self) -> u64 {
        let padding = self.padding().saturating_mul(self.head.length);
        self.head.byte_length().saturating_sub(padding)
    }

    /// Bytes that encryption adds to each block: 8 or 0.
    pub fn padding(&self) -> u64 {
        if self.cipher.is_some() { encryption::PADDING as u64 } else { 0 }
    }

    /// Blocks here from 0 without a hole.
    pub fn contiguous_length(&self) -> u64 {
        self.bits.contiguous()
    }

    pub fn has(&self, block: u64) -> bool {
        self.bits.get(block)
    }

    pub fn blocks_here(&self) -> u64 {
        self.bits.count()
    }

    /// Blocks of a range that are here.
    pub fn count_here(&self, range: Range<u64>) -> u64 {
        self.bits.count_range(range)
    }

    /// The first block of the range that is not here; blocks past the length count as missing.
    pub fn next_missing(&self, range: Range<u64>) -> Option<u64> {
        Some(self.bits.next_unset(range.start)).filter(|&block| block < range.end)
    }

    /// The first block of the range that is here.
    pub fn next_present(&self, range: Range<u64>) -> Option<u64> {
        self.bits.next_set(range.start).filter(|&block| block < range.end)
    }

    /// Bitfield words for a message: from `start` rounded down to 32, to `start + len` (or the length, if that is
    /// less) rounded up to 32.
    pub fn bits(&self, start: u64, len: u64) -> Vec<u32> {
        let end = start.saturating_add(len).min(self.head.length);
        if start >= end { Vec::new() } else { self.bits.words(start, end - start) }
    }

    /// Levels above a block that are not here: what to ask for with it.
    pub fn missing_nodes(&self, block: u64) -> Result<u64> {
        Ok(tree::missing_nodes(&self.head, &self.view(), block)?)
    }

    /// Whether an upgrade from `length` to the head can be proven: the roots at `length` are here.
    pub fn can_prove_from(&self, length: u64) -> bool {
        length <= self.contiguous_length()
            || matches!(tree::truncated_roots(&self.head, &self.view(), length), Ok(Some(_)))
    }

    /// The block that holds plaintext byte `bytes`.
    pub fn seek(&self, bytes: u64) -> Result<SeekResult> {
        Ok(tree::seek(&self.head, &self.view(), bytes, self.padding())?)
    }

    /// Plaintext bytes before a block, if the nodes to tell are here. The length is allowed as index.
    pub fn block_offset(&self, block: u64) -> Result<Option<u64>> {
        if block > self.head.length {
            return Ok(None);
        }
        let offset = tree::byte_offset(&self.head, &self.view(), 2 * block)?;
        Ok(offset.map(|offset| offset.saturating_sub(self.padding() * block)))
    }

    /// The nodes of the tree as it is.
    fn view(&self) -> View<'_> {
        self.nodes.view(self.head.length)
    }
}

/// Reading.
impl Core {
    /// The block as stored and sent: encrypted where the core is. `None` if it is not here.
    pub fn stored_block(&self, block: u64) -> Result<Option<Bytes>> {
        Ok(self.read_here(block)?.map(|(_, stored)| stored))
    }

    /// The plaintext of a block. `None` if it is not here.
    pub fn get(&self, block: u64) -> Result<Option<Bytes>> {
        self.read_here(block)?.map(|(place, stored)| place.open(stored)).transpose()
    }

    /// Where a block is, so that it can be read without the core. `None` if it is not here.
    pub fn locate(&self, block: u64) -> Result<Option<BlockPlace>> {
        if !self.bits.get(block) {
            return Ok(None);
        }
        let Some((offset, size)) = self.known_span(block)? else {
            self.note_lost(block);
            return Ok(None);
        };
        Ok(Some(BlockPlace {
            expected: self.expected(block)?,
            files: self.files.clone(),
            cipher: self.cipher.clone(),
            block,
            offset,
            size,
            generation: (self.generation.clone(), self.generation.load(Ordering::Acquire)),
        }))
    }

    /// Offset and size of a block that is here, in stored bytes.
    fn span(&self, block: u64) -> Result<(u64, u64)> {
        self.known_span(block)?.ok_or(CoreError::MissingNodes(block))
    }

    /// The same, if the nodes to tell are here.
    fn known_span(&self, block: u64) -> Result<Option<(u64, u64)>> {
        let mut cursor = self.cursor.get();
        let span = cursor.span(&self.head, &self.view(), block)?;
        self.cursor.set(cursor);
        Ok(span)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.following {
            return; // what the store has is newer, or as good
        }
        self.heed();
        let loses = self.dirty.fetched || self.dirty.split;
        let Err(error) = self.flush(Durability::Buffered) else { return };
        tracing::debug!(core = ?self.discovery_key, %error, "changes are lost");
        if loses && !error.is_echo() {
            tracing::error!("what was fetched last is lost: {error}");
        }
    }
}
