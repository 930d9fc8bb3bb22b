//! The two kinds of blocks a bee is made of: the header (block 0) and one node block per change.
//!
//! All of it is protobuf, written field by field in the order below; unknown fields are skipped.
//!
//! | message | field | type | meaning |
//! |---|---|---|---|
//! | Header | 1 | string | protocol, `hyperbee` |
//! | | 2 | message | metadata: 1 `contentFeed` bytes, 2 `userData` bytes |
//! | Node | 1 | message | index: 1 repeated level |
//! | | 2 | bytes | key |
//! | | 3 | bytes | value; absent is null |
//! | Level | 1 | packed varints | per key, the seq of the block that holds it |
//! | | 2 | packed varints | per child, seq and level number |
//!
//! Source: hyperbee/lib/messages.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::{DecodeError, MAX_INT, Put, Reader, Result};
use bytes::Bytes;

/// The protocol a header names.
pub const PROTOCOL: &str = "hyperbee";

/// The most keys a level may hold. The reference stores at most 8; the room is for other writers, the
/// bound keeps one block from claiming millions.
pub const MAX_KEYS: usize = 64;

/// The most levels a block may hold. One change rewrites two or three nodes of each level of the tree; a batch of the
/// reference in which changes were refused may add those to the next one. A node is found by counting from the
/// first, so that without a bound every look at one could cost as much as the whole block.
const MAX_LEVELS: u64 = 4096;

/// The longest level in bytes: [`MAX_KEYS`] keys and one more child, each number in eight bytes, and some room.
const MAX_LEVEL: usize = 4096;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Block 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub protocol: String,
    pub metadata: Option<Metadata>,
}

/// What a header may carry for the user of the bee.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// For a drive, the key of its blobs core where that does not follow from the manifest.
    pub content_feed: Option<Vec<u8>>,
    pub user_data: Option<Vec<u8>>,
}

/// Where a tree node is stored: a block and the number of the level in its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub seq: u64,
    pub offset: u64,
}

/// A tree node as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// Seqs of the blocks that hold the keys, in key order.
    pub keys: Vec<u64>,
    /// Empty for a leaf, else one more than keys.
    pub children: Vec<Link>,
}

/// Any block after the header: one key, its value, and the tree nodes that were rewritten for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub key: Bytes,
    pub value: Option<Bytes>,
    index: Bytes,
}

impl Header {
    pub fn new(metadata: Option<Metadata>) -> Self {
        Self { protocol: PROTOCOL.into(), metadata }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, self.protocol.as_bytes());
        if let Some(metadata) = &self.metadata {
            let mut inner = Vec::new();
            if let Some(key) = &metadata.content_feed {
                put_bytes(&mut inner, 1, key);
            }
            if let Some(data) = &metadata.user_data {
                put_bytes(&mut inner, 2, data);
            }
            put_bytes(&mut out, 2, &inner);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (mut protocol, mut metadata) = (None, None);
        let mut fields = Fields::new(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => protocol = Some(field.bytes()?),
                2 => metadata = Some(Metadata::decode(field.bytes()?)?),
                _ => {}
            }
        }
        let protocol = protocol.ok_or(DecodeError::Invalid("bee header without protocol"))?;
        let protocol = std::str::from_utf8(protocol).map_err(|_| DecodeError::Invalid("UTF-8"))?;
        Ok(Self { protocol: protocol.into(), metadata })
    }
}

impl Metadata {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut metadata = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => metadata.content_feed = Some(field.bytes()?.to_vec()),
                2 => metadata.user_data = Some(field.bytes()?.to_vec()),
                _ => {}
            }
        }
        Ok(metadata)
    }
}

impl Block {
    /// Takes a block apart without copying: key, value and index stay slices of `raw`. Levels are decoded
    /// when they are asked for.
    pub fn decode(raw: &Bytes) -> Result<Self> {
        let (mut index, mut key, mut value) = (None, None, None);
        let mut fields = Fields::new(raw);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => index = Some(field.bytes()?),
                2 => key = Some(field.bytes()?),
                3 => value = Some(field.bytes()?),
                _ => {}
            }
        }
        let index = index.ok_or(DecodeError::Invalid("bee node without index"))?;
        let key = key.ok_or(DecodeError::Invalid("bee node without key"))?;
        Ok(Self {
            key: raw.slice_ref(key),
            value: value.map(|value| raw.slice_ref(value)),
            index: raw.slice_ref(index),
        })
    }

    /// The tree node of this number; an error if the block has fewer.
    pub fn level(&self, offset: u64) -> Result<Level> {
        let mut levels = self.levels();
        let mut passed = 0;
        while let Some(level) = levels.next()? {
            if passed == offset {
                return Level::decode(level);
            }
            passed += 1;
        }
        Err(DecodeError::Invalid("bee level number"))
    }

    /// All tree nodes of the block.
    pub fn all_levels(&self) -> Result<Vec<Level>> {
        let mut levels = self.levels();
        let mut all = Vec::new();
        while let Some(level) = levels.next()? {
            all.push(Level::decode(level)?);
        }
        Ok(all)
    }

    fn levels(&self) -> Levels<'_> {
        Levels { fields: Fields::new(&self.index), passed: 0 }
    }

    /// Whether any tree node in this block has a key stored in block `seq`.
    pub fn names_key(&self, seq: u64) -> Result<bool> {
        let mut levels = self.levels();
        while let Some(level) = levels.next()? {
            if Level::decode(level)?.keys.contains(&seq) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this block, number `seq`, records a deletion: no value, and no own key in its own index.
    pub fn is_deletion(&self, seq: u64) -> Result<bool> {
        Ok(self.value.is_none() && !self.names_key(seq)?)
    }

    /// Bytes this block keeps in memory.
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + self.index.len()
    }
}

impl Level {
    fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_LEVEL {
            return Err(DecodeError::Invalid("bee level: too long"));
        }
        let mut level = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, field)) = fields.next()? {
            match number {
                1 => {
                    let mut packed = Reader::new(field.bytes()?);
                    while !packed.is_empty() {
                        level.keys.push(varint(&mut packed)?);
                        if level.keys.len() > MAX_KEYS {
                            return Err(DecodeError::Invalid("bee level: too many keys"));
                        }
                    }
                }
                2 => {
                    let mut packed = Reader::new(field.bytes()?);
                    while !packed.is_empty() {
                        let link = Link { seq: varint(&mut packed)?, offset: varint(&mut packed)? };
                        level.children.push(link);
                        if level.children.len() > MAX_KEYS + 1 {
                            return Err(DecodeError::Invalid("bee level: too many children"));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(level)
    }

    /// Whether keys and children fit together as they do in every node that a root leads to.
    pub fn is_sound(&self) -> bool {
        self.children.is_empty()
            || !self.keys.is_empty() && self.children.len() == self.keys.len() + 1
    }
}

/// Writes node blocks. It keeps its scratch memory from block to block.
#[derive(Default)]
pub struct Encoder {
    index: Vec<u8>,
    level: Vec<u8>,
}

impl Encoder {
    /// Adds a level to the block being written. Iterators are walked twice.
    pub fn level(
        &mut self,
        keys: impl Iterator<Item = u64> + Clone,
        children: impl Iterator<Item = Link> + Clone,
    ) {
        self.level.clear();
        put_packed(&mut self.level, 1, keys);
        put_packed(&mut self.level, 2, children.flat_map(|link| [link.seq, link.offset]));
        put_bytes(&mut self.index, 1, &self.level);
    }

    /// The block with the levels added since the last one.
    pub fn finish(&mut self, key: &[u8], value: Option<&[u8]>) -> Bytes {
        let room = self.index.len() + key.len() + value.map_or(0, <[u8]>::len) + 33;
        let mut out = Vec::with_capacity(room);
        put_bytes(&mut out, 1, &self.index);
        put_bytes(&mut out, 2, key);
        if let Some(value) = value {
            put_bytes(&mut out, 3, value);
        }
        self.index.clear();
        out.into()
    }
}

/// One protobuf field's content.
enum Field<'a> {
    Bytes(&'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            Field::Other => Err(DecodeError::Invalid("bee field type")),
        }
    }
}

/// Walks the levels of an index, not decoded.
struct Levels<'a> {
    fields: Fields<'a>,
    /// Fields so far, those of other programs included.
    passed: u64,
}

impl<'a> Levels<'a> {
    fn next(&mut self) -> Result<Option<&'a [u8]>> {
        while let Some((number, field)) = self.fields.next()? {
            self.passed += 1;
            if self.passed > MAX_LEVELS {
                return Err(DecodeError::Invalid("bee node: too many levels"));
            }
            if number == 1 {
                return field.bytes().map(Some);
            }
        }
        Ok(None)
    }
}

/// Walks the fields of a protobuf message.
struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    /// Field number and content of the next field.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.0)?;
        let field = match tag & 7 {
            VARINT => {
                varint(&mut self.0)?;
                Field::Other
            }
            FIXED64 => {
                self.0.take(8)?;
                Field::Other
            }
            BYTES => {
                let length = usize::try_from(varint(&mut self.0)?);
                Field::Bytes(self.0.take(length.map_err(|_| DecodeError::UnexpectedEnd)?)?)
            }
            FIXED32 => {
                self.0.take(4)?;
                Field::Other
            }
            _ => return Err(DecodeError::Invalid("protobuf wire type")),
        };
        Ok(Some((tag >> 3, field)))
    }
}

/// A protobuf varint of at most 2^53 - 1, which is as far as the reference counts.
fn varint(reader: &mut Reader<'_>) -> Result<u64> {
    let mut n = 0u64;
    for shift in (0..56).step_by(7) {
        let byte = reader.u8()?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if n <= MAX_INT { Ok(n) } else { Err(DecodeError::Invalid("varint")) };
        }
    }
    Err(DecodeError::Invalid("varint"))
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.put(bytes);
}

/// A packed list; an empty one is left out.
fn put_packed(out: &mut Vec<u8>, number: u64, numbers: impl Iterator<Item = u64> + Clone) {
    let length: usize = numbers.clone().map(varint_len).sum();
    if length > 0 {
        put_varint(out, number << 3 | BYTES);
        put_varint(out, length as u64);
        numbers.for_each(|n| put_varint(out, n));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::key::{hex, unhex};
    use proptest::prelude::*;

    fn link() -> impl Strategy<Value = Link> {
        (0..=MAX_INT, 0u64..300).prop_map(|(seq, offset)| Link { seq, offset })
    }

    fn level() -> impl Strategy<Value = Level> {
        let keys = proptest::collection::vec(0..=MAX_INT, 0..9);
        (keys, proptest::collection::vec(link(), 0..10))
            .prop_map(|(keys, children)| Level { keys, children })
    }

    proptest! {
        #[test]
        fn a_block_round_trips(
            levels in proptest::collection::vec(level(), 0..6),
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        ) {
            let mut encoder = Encoder::default();
            for level in &levels {
                encoder.level(level.keys.iter().copied(), level.children.iter().copied());
            }
            let raw = encoder.finish(&key, value.as_deref());
            let block = Block::decode(&raw).unwrap();
            prop_assert_eq!(&block.key[..], &key[..]);
            prop_assert_eq!(block.value.as_deref(), value.as_deref());
            for (i, level) in levels.iter().enumerate() {
                prop_assert_eq!(&block.level(i as u64).unwrap(), level);
            }
            prop_assert!(block.level(levels.len() as u64).is_err());
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Header::decode(&bytes);
            if let Ok(block) = Block::decode(&bytes.into()) {
                let _ = (block.level(0), block.level(3), block.is_deletion(1));
            }
        }
    }

    #[test]
    fn header_variants_match_the_reference() {
        let vectors = crate::hyper::bee::vectors();
        let headers = &vectors["bee"]["headers"];
        let feed = |content_feed| Some(Metadata { content_feed, user_data: None });
        let user = Metadata { content_feed: None, user_data: Some(b"hi".to_vec()) };
        for (name, metadata) in [
            ("none", None),
            ("contentFeedNull", feed(None)),
            ("contentFeed", feed(Some(vec![0xaa; 32]))),
            ("userData", Some(user)),
        ] {
            let header = Header::new(metadata);
            assert_eq!(hex(&header.encode()), headers[name].as_str().unwrap(), "{name}");
            let bytes = unhex(headers[name].as_str().unwrap()).unwrap();
            assert_eq!(Header::decode(&bytes).unwrap(), header, "{name}");
        }
    }

    #[test]
    fn a_look_at_a_node_costs_no_more_than_a_bound_whatever_the_block_claims() {
        let mut encoder = Encoder::default();
        for seq in 0..MAX_LEVELS {
            encoder.level([seq].into_iter(), std::iter::empty());
        }
        let sound = Block::decode(&encoder.finish(b"k", None)).unwrap();
        assert_eq!(sound.level(MAX_LEVELS - 1).unwrap().keys, [MAX_LEVELS - 1]);
        assert_eq!(sound.all_levels().unwrap().len() as u64, MAX_LEVELS);

        let mut index = Vec::new();
        (0..2_000_000).for_each(|_| put_bytes(&mut index, 1, &[]));
        let mut raw = Vec::new();
        put_bytes(&mut raw, 1, &index);
        put_bytes(&mut raw, 2, b"k");
        let block = Block::decode(&raw.into()).unwrap();
        assert!(block.level(0).is_ok());
        // The answer of who stopped there, not of who came to the end.
        let stopped = DecodeError::Invalid("bee node: too many levels");
        assert_eq!(block.level(1_999_999), Err(stopped));
        assert_eq!(block.is_deletion(1), Err(stopped));
        assert_eq!(block.all_levels(), Err(stopped));

        let mut level = Vec::new();
        (0..=MAX_LEVEL).for_each(|_| put_varint(&mut level, 9 << 3));
        assert!(Level::decode(&level).is_err());
    }

    #[test]
    fn unknown_fields_are_skipped_and_strange_ones_refused() {
        let raw = Bytes::from(unhex("0a0012016b1a0176208001").unwrap());
        assert_eq!(&Block::decode(&raw).unwrap().key[..], b"k");
        for bad in ["0a00", "12016b", "0a00120", "0a0012016b23", "0a0012ffffffffffffffff01", "0801"]
        {
            let Some(bytes) = unhex(bad) else { continue };
            assert!(Block::decode(&bytes.into()).is_err(), "{bad}");
        }
    }
}
