//! The messages of the channel "hypercore/alpha".
//!
//! | type | name | body (`uint` where nothing else is said) |
//! |---|---|---|
//! | 0 | sync | flags (1 can upgrade, 2 uploading, 4 downloading, 8 has manifest, 16 allow push), fork, length, remote length |
//! | 1 | request | flags (1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest, 32 priority), id, fork, then by flag: block {index, nodes}, hash {tree index, nodes}, seek {bytes, padding}, upgrade {start, length}, priority |
//! | 2 | cancel | request id |
//! | 3 | data | flags (1 block, 2 hash, 4 seek, 8 upgrade, 16 manifest), request id, fork, then by flag: block {index, value (buffer), nodes}, hash {tree index, nodes}, seek {bytes, nodes}, upgrade {start, length, nodes, additional nodes, signature (buffer)}, manifest |
//! | 4 | no data | request id, flags (1 has reason), reason |
//! | 5, 6 | want, unwant | start, length, flags (1 any; left out if 0) |
//! | 7 | bitfield | start, count of words, words (u32 each) |
//! | 8 | range | flags (1 drop, 2 length is 1), start, length unless flag 2 |
//! | 9 | extension | name, payload to the end |
//!
//! A node is index, size, hash\[32]; a list of nodes is its count and the nodes. Trailing bytes are
//! ignored, as are unknown types, so that later versions may add fields.
//!
//! Source: hypercore/lib/messages.js:wire

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::{DecodeError, Put, Reader, Result, uint_len};
use crate::crypto::{Hash, hash};
use crate::hyper::core::manifest::Manifest;
use crate::hyper::core::message::{
    BlockProof, HashProof, NodeRequest, Proof, Request, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use crate::hyper::core::tree::Node;
use crate::key::CoreKey;
use bytes::Bytes;

pub const PROTOCOL: &str = "hypercore/alpha";
pub const PROTOCOL_ALIASES: &[&str] = &["hypercore"];

pub(super) const SYNC: u64 = 0;
pub(super) const REQUEST: u64 = 1;
pub(super) const CANCEL: u64 = 2;
pub(super) const DATA: u64 = 3;
pub(super) const NO_DATA: u64 = 4;
pub(super) const WANT: u64 = 5;
pub(super) const UNWANT: u64 = 6;
pub(super) const BITFIELD: u64 = 7;
pub(super) const RANGE: u64 = 8;
pub(super) const EXTENSION: u64 = 9;

/// Blocks that one bitfield message may tell about, and the largest want: 64 pages of 32768.
pub const SEGMENT: u64 = 2_097_152;

/// Nodes in any list: a path has at most 53 levels, an upgrade twice that.
const MAX_NODES: usize = 2 * 53;
/// A multisignature record of the largest quorum anyone uses stays far below.
const MAX_SIGNATURE: usize = 1 << 20;
/// Index, size, hash.
const MIN_NODE: usize = 34;
/// The longest message without a list: a request of every part, its flags and eleven numbers at full width.
const MAX_SMALL: usize = 1 + 11 * 9;

/// What the opener of a channel proves and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Requests with a seek are answered.
    pub seeks: bool,
    /// Shows that the sender knows the core key; see [`capability`].
    pub capability: Hash,
}

impl Handshake {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33);
        out.put_uint(u64::from(self.seeks));
        out.put(&self.capability);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        Ok(Self { seeks: r.uint()? & 1 != 0, capability: r.fixed()? })
    }
}

/// The capability that a side sends, given whether *that side* was the Noise initiator.
///
/// Source: hypercore/lib/caps.js:replicate
pub fn capability(handshake_hash: &[u8; 64], key: &CoreKey, initiator: bool) -> Hash {
    let namespace = hash::namespace("hypercore", if initiator { 1 } else { 2 });
    hash::keyed(handshake_hash, &[&namespace, key.as_bytes()])
}

/// What a side has and is willing to do; each one replaces the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sync {
    pub fork: u64,
    pub length: u64,
    /// The last length heard from the receiver: an acknowledgement.
    pub remote_length: u64,
    /// "I can prove an upgrade from the length I acknowledge to mine."
    pub can_upgrade: bool,
    pub uploading: bool,
    pub downloading: bool,
    pub has_manifest: bool,
    pub allow_push: bool,
}

impl Sync {
    /// Whether who says so knows more of the core than its key, from which alone everybody says "length 0".
    pub fn knows_core(&self) -> bool {
        self.has_manifest || self.length > 0
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Unknown,
    NotAvailable,
    InvalidRequest,
}

/// A [`Request`] with the numbers of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestMessage {
    pub id: u64,
    pub fork: u64,
    pub request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub start: u64,
    pub length: u64,
    /// One block of the range is enough.
    pub any: bool,
}

#[expect(clippy::large_enum_variant, reason = "moved once, never kept")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Sync(Sync),
    Request(RequestMessage),
    Cancel { request: u64 },
    Data { request: u64, proof: Proof },
    NoData { request: u64, reason: Reason },
    Want(Want),
    Unwant(Want),
    Bitfield { start: u64, words: Vec<u32> },
    Range { drop: bool, start: u64, length: u64 },
    Extension { name: String, payload: Bytes },
}

impl Message {
    /// Decodes the body of a message; the value of a block stays a slice of `body`.
    ///
    /// `Ok(None)` is a type of the future.
    pub fn decode(kind: u64, body: &Bytes) -> Result<Option<Self>> {
        let mut r = Reader::new(body);
        Ok(Some(match kind {
            SYNC => Self::Sync(sync(&mut r)?),
            REQUEST => Self::Request(request(&mut r)?),
            CANCEL => Self::Cancel { request: r.uint()? },
            DATA => data(&mut r, body)?,
            NO_DATA => no_data(&mut r)?,
            WANT => Self::Want(want(&mut r)?),
            UNWANT => Self::Unwant(want(&mut r)?),
            BITFIELD => bitfield(&mut r)?,
            RANGE => range(&mut r)?,
            EXTENSION => {
                let name = r.string()?.to_owned();
                Self::Extension { name, payload: body.slice_ref(r.rest()) }
            }
            _ => return Ok(None),
        }))
    }

    pub fn kind(&self) -> u64 {
        match self {
            Self::Sync(_) => SYNC,
            Self::Request(_) => REQUEST,
            Self::Cancel { .. } => CANCEL,
            Self::Data { .. } => DATA,
            Self::NoData { .. } => NO_DATA,
            Self::Want(_) => WANT,
            Self::Unwant(_) => UNWANT,
            Self::Bitfield { .. } => BITFIELD,
            Self::Range { .. } => RANGE,
            Self::Extension { .. } => EXTENSION,
        }
    }

    /// Bytes that [`Message::encode`] writes at most; close for the large ones.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Data { request, proof } => data_len(*request, proof),
            Self::Bitfield { words, .. } => 18 + 4 * words.len(),
            Self::Extension { name, payload } => 9 + name.len() + payload.len(),
            _ => MAX_SMALL,
        }
    }

    /// Writes the body.
    pub fn encode(&self, out: &mut dyn Put) {
        match self {
            Self::Sync(sync) => put_sync(out, sync),
            Self::Request(request) => put_request(out, request),
            Self::Cancel { request } => out.put_uint(*request),
            Self::Data { request, proof } => put_data(out, *request, proof),
            Self::NoData { request, reason } => put_no_data(out, *request, *reason),
            Self::Want(want) | Self::Unwant(want) => put_want(out, want),
            Self::Bitfield { start, words } => {
                out.put_uint(*start);
                out.put_uint(words.len() as u64);
                words.iter().for_each(|word| out.put_u32(*word));
            }
            Self::Range { drop, start, length } => {
                out.put_uint(flag(1, *drop) | flag(2, *length == 1));
                out.put_uint(*start);
                if *length != 1 {
                    out.put_uint(*length);
                }
            }
            Self::Extension { name, payload } => {
                out.put_string(name);
                out.put(payload);
            }
        }
    }
}

/// The request id and block of a data message, without the work of decoding the rest.
pub(super) fn peek_block(kind: u64, body: &[u8]) -> Option<(u64, &[u8])> {
    let mut r = Reader::new(body);
    if kind != DATA || r.uint().ok()? & 1 == 0 {
        return None;
    }
    let (request, _fork, _index) = (r.uint().ok()?, r.uint().ok()?, r.uint().ok()?);
    Some((request, r.buffer().ok()?))
}

fn flag(bit: u64, on: bool) -> u64 {
    if on { bit } else { 0 }
}

fn sync(r: &mut Reader<'_>) -> Result<Sync> {
    let flags = r.uint()?;
    let has = |bit| flags & bit != 0;
    Ok(Sync {
        fork: r.uint()?,
        length: r.uint()?,
        remote_length: r.uint()?,
        can_upgrade: has(1),
        uploading: has(2),
        downloading: has(4),
        has_manifest: has(8),
        allow_push: has(16),
    })
}

fn put_sync(out: &mut dyn Put, m: &Sync) {
    out.put_uint(
        flag(1, m.can_upgrade)
            | flag(2, m.uploading)
            | flag(4, m.downloading)
            | flag(8, m.has_manifest)
            | flag(16, m.allow_push),
    );
    out.put_uint(m.fork);
    out.put_uint(m.length);
    out.put_uint(m.remote_length);
}

fn request(r: &mut Reader<'_>) -> Result<RequestMessage> {
    let flags = r.uint()?;
    let has = |bit| flags & bit != 0;
    let (id, fork) = (r.uint()?, r.uint()?);
    let mut m = Request { manifest: has(16), ..Request::default() };
    if has(1) {
        m.block = Some(NodeRequest { index: r.uint()?, nodes: r.uint()? });
    }
    if has(2) {
        m.hash = Some(NodeRequest { index: r.uint()?, nodes: r.uint()? });
    }
    if has(4) {
        m.seek = Some(SeekRequest { bytes: r.uint()?, padding: r.uint()? });
    }
    if has(8) {
        m.upgrade = Some(UpgradeRequest { start: r.uint()?, length: r.uint()? });
    }
    if has(32) {
        m.priority = r.uint()?;
    }
    Ok(RequestMessage { id, fork, request: m })
}

fn put_request(out: &mut dyn Put, m: &RequestMessage) {
    let q = &m.request;
    out.put_uint(
        flag(1, q.block.is_some())
            | flag(2, q.hash.is_some())
            | flag(4, q.seek.is_some())
            | flag(8, q.upgrade.is_some())
            | flag(16, q.manifest)
            | flag(32, q.priority != 0),
    );
    out.put_uint(m.id);
    out.put_uint(m.fork);
    for part in [q.block, q.hash].into_iter().flatten() {
        out.put_uint(part.index);
        out.put_uint(part.nodes);
    }
    if let Some(seek) = q.seek {
        out.put_uint(seek.bytes);
        out.put_uint(seek.padding);
    }
    if let Some(upgrade) = q.upgrade {
        out.put_uint(upgrade.start);
        out.put_uint(upgrade.length);
    }
    if q.priority != 0 {
        out.put_uint(q.priority);
    }
}

fn nodes(r: &mut Reader<'_>) -> Result<Vec<Node>> {
    let n = r.count(MIN_NODE)?;
    if n > MAX_NODES {
        return Err(DecodeError::Invalid("count of nodes"));
    }
    (0..n).map(|_| Ok(Node { index: r.uint()?, size: r.uint()?, hash: r.fixed()? })).collect()
}

fn put_nodes(out: &mut dyn Put, nodes: &[Node]) {
    out.put_uint(nodes.len() as u64);
    for node in nodes {
        out.put_uint(node.index);
        out.put_uint(node.size);
        out.put(&node.hash);
    }
}

fn data(r: &mut Reader<'_>, body: &Bytes) -> Result<Message> {
    let flags = r.uint()?;
    let has = |bit| flags & bit != 0;
    let request = r.uint()?;
    let mut proof = Proof { fork: r.uint()?, ..Proof::default() };
    if has(1) {
        let index = r.uint()?;
        let value = body.slice_ref(r.buffer()?);
        proof.block = Some(BlockProof { index, value, nodes: nodes(r)? });
    }
    if has(2) {
        proof.hash = Some(HashProof { index: r.uint()?, nodes: nodes(r)? });
    }
    if has(4) {
        proof.seek = Some(SeekProof { bytes: r.uint()?, nodes: nodes(r)? });
    }
    if has(8) {
        proof.upgrade = Some(upgrade(r)?);
    }
    if has(16) {
        proof.manifest = Some(Manifest::decode(r)?);
    }
    Ok(Message::Data { request, proof })
}

fn upgrade(r: &mut Reader<'_>) -> Result<UpgradeProof> {
    let (start, length) = (r.uint()?, r.uint()?);
    let (nodes, additional) = (nodes(r)?, nodes(r)?);
    let signature = r.buffer()?;
    if signature.len() > MAX_SIGNATURE {
        return Err(DecodeError::Invalid("signature length"));
    }
    Ok(UpgradeProof { start, length, nodes, additional, signature: signature.to_vec() })
}

fn put_data(out: &mut dyn Put, request: u64, proof: &Proof) {
    out.put_uint(
        flag(1, proof.block.is_some())
            | flag(2, proof.hash.is_some())
            | flag(4, proof.seek.is_some())
            | flag(8, proof.upgrade.is_some())
            | flag(16, proof.manifest.is_some()),
    );
    out.put_uint(request);
    out.put_uint(proof.fork);
    if let Some(block) = &proof.block {
        out.put_uint(block.index);
        out.put_buffer(&block.value);
        put_nodes(out, &block.nodes);
    }
    if let Some(hash) = &proof.hash {
        out.put_uint(hash.index);
        put_nodes(out, &hash.nodes);
    }
    if let Some(seek) = &proof.seek {
        out.put_uint(seek.bytes);
        put_nodes(out, &seek.nodes);
    }
    if let Some(upgrade) = &proof.upgrade {
        out.put_uint(upgrade.start);
        out.put_uint(upgrade.length);
        put_nodes(out, &upgrade.nodes);
        put_nodes(out, &upgrade.additional);
        out.put_buffer(&upgrade.signature);
    }
    if let Some(manifest) = &proof.manifest {
        out.put(&manifest.encode());
    }
}

/// An upper bound of what [`put_data`] writes: nodes are counted at full width.
fn data_len(request: u64, proof: &Proof) -> usize {
    const NODE: usize = 32 + 9 + 9;
    let mut len = 1 + uint_len(request) + uint_len(proof.fork);
    if let Some(block) = &proof.block {
        len += 9 + 9 + block.value.len() + 9 + NODE * block.nodes.len();
    }
    if let Some(hash) = &proof.hash {
        len += 18 + NODE * hash.nodes.len();
    }
    if let Some(seek) = &proof.seek {
        len += 18 + NODE * seek.nodes.len();
    }
    if let Some(upgrade) = &proof.upgrade {
        let nodes = upgrade.nodes.len() + upgrade.additional.len();
        len += 45 + NODE * nodes + upgrade.signature.len();
    }
    if let Some(manifest) = &proof.manifest {
        // Sent once to a peer, and as long as its creator made it.
        len += manifest.encode().len();
    }
    len
}

fn no_data(r: &mut Reader<'_>) -> Result<Message> {
    let request = r.uint()?;
    let flags = if r.is_empty() { 0 } else { r.uint()? };
    let reason = if flags & 1 == 0 { 0 } else { r.uint()? };
    let reason = match reason {
        1 => Reason::NotAvailable,
        2 => Reason::InvalidRequest,
        _ => Reason::Unknown,
    };
    Ok(Message::NoData { request, reason })
}

fn put_no_data(out: &mut dyn Put, request: u64, reason: Reason) {
    out.put_uint(request);
    match reason {
        Reason::Unknown => out.put_uint(0),
        Reason::NotAvailable => out.put(&[1, 1]),
        Reason::InvalidRequest => out.put(&[1, 2]),
    }
}

fn want(r: &mut Reader<'_>) -> Result<Want> {
    let (start, length) = (r.uint()?, r.uint()?);
    let flags = if r.is_empty() { 0 } else { r.uint()? };
    Ok(Want { start, length, any: flags & 1 != 0 })
}

fn put_want(out: &mut dyn Put, want: &Want) {
    out.put_uint(want.start);
    out.put_uint(want.length);
    if want.any {
        out.put_uint(1);
    }
}

fn bitfield(r: &mut Reader<'_>) -> Result<Message> {
    let start = r.uint()?;
    let n = r.len()?;
    if n as u64 > SEGMENT / 32 {
        return Err(DecodeError::Invalid("bitfield longer than a segment"));
    }
    let bytes = r.take(4 * n)?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(Message::Bitfield { start, words: words.iter().map(|w| u32::from_le_bytes(*w)).collect() })
}

fn range(r: &mut Reader<'_>) -> Result<Message> {
    let flags = r.uint()?;
    let start = r.uint()?;
    let length = if flags & 2 != 0 { 1 } else { r.uint()? };
    Ok(Message::Range { drop: flags & 1 != 0, start, length })
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests;
