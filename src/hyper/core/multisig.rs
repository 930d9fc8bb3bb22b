//! The signature field of cores that carry more than a plain signature.
//!
//! ```text
//! v1   array< signer uint | signature[64] | patch uint >, array<node>
//! v0   array< flags uint (1 patch) | signer uint | signature[64] | [start uint | length uint | array<uint>] >,
//!      array<node>
//! ```
//!
//! A *patch* is a number of blocks: the signer signed a tree that is so much longer, and the nodes (shared by
//! all signers) lead there. Version 1 is used even where there is one signer and no patch.
//!
//! Source: hypercore/lib/multisig.js, hypercore/lib/messages.js:multiSignature

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::node::{MAX_NODES, Node};
use crate::codec::{DecodeError, Put, Reader, Result};
use crate::crypto::Signature;

/// The longest signature that is looked at, whatever the manifest.
pub const MAX_SIGNATURE: usize = 1 << 20;

/// What one signer can need: its part, and a patch of [`MAX_NODES`] nodes of 50 bytes.
const MAX_PER_SIGNER: usize = 128 + MAX_NODES * 50;

/// Room for what later versions may append. A signature is kept and passed on as it came, so that a peer must
/// not be able to blow it up.
const MAX_SPARE: usize = 1024;

/// One signer's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Index in the manifest.
    pub signer: u64,
    pub signature: Signature,
    /// Blocks by which the tree this signer signed is longer.
    pub patch: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Multisig {
    pub parts: Vec<Part>,
    /// Nodes for all patches.
    pub nodes: Vec<Node>,
}

impl Multisig {
    /// `signers` is how many the manifest has; it bounds what is accepted.
    pub fn decode(signature: &[u8], version: u64, signers: usize) -> Result<Self> {
        let limit = MAX_PER_SIGNER.saturating_mul(signers).saturating_add(MAX_SPARE);
        if signature.len() > limit.min(MAX_SIGNATURE) {
            return Err(DecodeError::Invalid("signature size"));
        }
        let mut r = Reader::new(signature);
        let count = r.count(66)?;
        let part = if version == 0 { part_v0 } else { part };
        let parts = (0..count).map(|_| part(&mut r)).collect::<Result<_>>()?;
        let count = r.count(Node::MIN_ENCODED)?;
        if count > MAX_NODES.saturating_mul(signers) {
            return Err(DecodeError::Invalid("patch size"));
        }
        let nodes = (0..count).map(|_| Node::decode(&mut r)).collect::<Result<_>>()?;
        Ok(Self { parts, nodes })
    }

    /// One signer without patch.
    pub fn one(signer: u64, signature: &Signature, version: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(69);
        out.put_uint(1);
        if version == 0 {
            out.put_uint(0); // no patch
        }
        out.put_uint(signer);
        out.put(signature);
        if version > 0 {
            out.put_uint(0); // no patch
        }
        out.put_uint(0); // no nodes
        out
    }
}

fn part(r: &mut Reader) -> Result<Part> {
    Ok(Part { signer: r.uint()?, signature: r.fixed()?, patch: r.uint()? })
}

fn part_v0(r: &mut Reader) -> Result<Part> {
    let has_patch = r.uint()? & 1 != 0;
    let (signer, signature) = (r.uint()?, r.fixed()?);
    let mut patch = 0;
    if has_patch {
        let _start = r.uint()?;
        patch = r.uint()?;
        // Positions in the node list; the nodes are found by their index instead.
        for _ in 0..r.count(1)? {
            r.uint()?;
        }
    }
    Ok(Part { signer, signature, patch })
}
