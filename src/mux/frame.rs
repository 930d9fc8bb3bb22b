//! Frames of Protomux: what one secret-stream message holds.
//!
//! | frame | bytes (all integers `uint`) |
//! |---|---|
//! | message | channel (the SENDER's local id, ≥ 1), type, body |
//! | batch | 0, 0, channel, then repeated: length > 0 and that many bytes `type ‖ body`, or 0 and a new channel |
//! | open | 0, 1, sender's local id, protocol, id (buffer, empty for none), handshake to the end |
//! | reject | 0, 2, the opener's local id |
//! | close | 0, 3, the closer's local id |
//!
//! Inside a batch, control messages are items of channel 0. A frame is decoded lazily, item by item, so
//! that a hostile batch of millions of two-byte items never lies unpacked in memory.
//!
//! Source: protomux/index.js:_decode, _onbatch, _sendBatch

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::{DecodeError, FrameBuf, Put, Reader, Result, uint_len};
use bytes::Bytes;

const BATCH: u64 = 0;
const OPEN: u64 = 1;
const REJECT: u64 = 2;
const CLOSE: u64 = 3;

/// A control message, or a message of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Open {
        remote: u64,
        protocol: String,
        id: Vec<u8>,
        handshake: Bytes,
    },
    Reject {
        local: u64,
    },
    Close {
        remote: u64,
    },
    Message {
        channel: u64,
        kind: u64,
        body: Bytes,
    },
    /// A control type of the future: ignored.
    Unknown,
}

/// Longest protocol name or channel id that is taken; ours have 15 and 32 bytes.
const MAX_NAME: usize = 256;

/// The items of one received frame.
#[derive(Debug)]
pub(super) struct Items {
    rest: Bytes,
    /// Channel of the coming batch items; `None` for a frame that is a single item.
    batch: Option<u64>,
}

impl Items {
    /// # Errors
    /// The frame ends inside its header. An empty frame is a keep-alive without items.
    pub(super) fn new(frame: Bytes) -> Result<Self> {
        let mut r = Reader::new(&frame);
        if frame.len() >= 2 && r.uint()? == 0 && r.uint()? == BATCH {
            let channel = r.uint()?;
            let rest = frame.slice_ref(r.rest());
            return Ok(Self { rest, batch: Some(channel) });
        }
        Ok(Self { rest: frame, batch: None })
    }

    /// The next item, `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let Some(mut channel) = self.batch else {
            let frame = std::mem::take(&mut self.rest);
            if frame.is_empty() {
                return Ok(None);
            }
            let mut r = Reader::new(&frame);
            let channel = r.uint()?;
            return item(channel, &frame, r).map(Some);
        };
        let rest = std::mem::take(&mut self.rest);
        let mut r = Reader::new(&rest);
        while !r.is_empty() {
            let n = r.len()?;
            if n == 0 {
                channel = r.uint()?;
                continue;
            }
            let body = rest.slice_ref(r.take(n)?);
            self.rest = rest.slice_ref(r.rest());
            self.batch = Some(channel);
            return item(channel, &body, Reader::new(&body)).map(Some);
        }
        Ok(None)
    }
}

/// Decodes `type ‖ body` of `channel`; `r` stands on the type inside `whole`.
fn item(channel: u64, whole: &Bytes, mut r: Reader<'_>) -> Result<Item> {
    let kind = r.uint()?;
    if channel != 0 {
        return Ok(Item::Message { channel, kind, body: whole.slice_ref(r.rest()) });
    }
    Ok(match kind {
        BATCH => return Err(DecodeError::Invalid("batch inside a batch")),
        OPEN => {
            let remote = r.uint()?;
            let protocol = r.string()?;
            let id = r.buffer()?;
            if protocol.len() > MAX_NAME || id.len() > MAX_NAME {
                return Err(DecodeError::Invalid("channel name"));
            }
            let (protocol, id) = (protocol.to_owned(), id.to_vec());
            Item::Open { remote, protocol, id, handshake: whole.slice_ref(r.rest()) }
        }
        REJECT => Item::Reject { local: r.uint()? },
        CLOSE => Item::Close { remote: r.uint()? },
        _ => Item::Unknown,
    })
}

/// Bodies of control messages, type included, as they stand in a batch under channel 0.
pub(super) fn put_open(
    out: &mut impl Put,
    local: u64,
    protocol: &str,
    id: &[u8],
    handshake: &[u8],
) {
    out.put_uint(OPEN);
    out.put_uint(local);
    out.put_string(protocol);
    out.put_buffer(id);
    out.put(handshake);
}

pub(super) fn put_reject(out: &mut impl Put, remote: u64) {
    out.put_uint(REJECT);
    out.put_uint(remote);
}

pub(super) fn put_close(out: &mut impl Put, local: u64) {
    out.put_uint(CLOSE);
    out.put_uint(local);
}

/// Small messages on their way out, waiting to share a frame.
#[derive(Debug, Default)]
pub(super) struct Cork {
    /// `type ‖ body` of every item, one behind the other.
    bytes: Vec<u8>,
    /// Channel and end offset of each item.
    items: Vec<(u64, usize)>,
}

impl Cork {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one item of `channel`; `encode` writes type and body.
    pub(super) fn push(&mut self, channel: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.items.push((channel, self.bytes.len()));
    }

    /// Everything so far as one frame: the item itself if it is alone, else a batch.
    pub(super) fn take(&mut self) -> Option<FrameBuf> {
        let &(first, end) = self.items.first()?;
        let mut frame = FrameBuf::with_capacity(self.bytes.len() + 4 * self.items.len() + 12);
        if self.items.len() == 1 {
            frame.put_uint(first);
            frame.put(self.bytes.get(..end).unwrap_or_default());
        } else {
            self.put_batch(&mut frame, first);
        }
        self.bytes.clear();
        self.items.clear();
        Some(frame)
    }

    fn put_batch(&self, frame: &mut FrameBuf, first: u64) {
        frame.put(&[0, BATCH as u8]);
        frame.put_uint(first);
        let (mut channel, mut start) = (first, 0);
        for &(c, end) in &self.items {
            if c != channel {
                channel = c;
                frame.put_u8(0);
                frame.put_uint(c);
            }
            frame.put_buffer(self.bytes.get(start..end).unwrap_or_default());
            start = end;
        }
    }
}

/// A frame of its own for a large message of `channel`, to be filled with `body` bytes of body.
pub(super) fn message_frame(channel: u64, kind: u64, body: usize) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(uint_len(channel) + uint_len(kind) + body);
    frame.put_uint(channel);
    frame.put_uint(kind);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(bytes: &[u8]) -> Result<Vec<Item>> {
        let mut items = Items::new(Bytes::copy_from_slice(bytes))?;
        let mut out = Vec::new();
        while let Some(item) = items.next()? {
            out.push(item);
        }
        Ok(out)
    }

    proptest! {
        #[test]
        fn what_was_corked_is_what_arrives(
            sent in proptest::collection::vec((1u64..400, 0u64..20, proptest::collection::vec(any::<u8>(), 0..40)), 1..30)
        ) {
            let mut cork = Cork::default();
            for (channel, kind, body) in &sent {
                cork.push(*channel, |out| { out.put_uint(*kind); out.put(body); });
            }
            let frame = cork.take().expect("not empty");
            let want: Vec<Item> = sent.into_iter()
                .map(|(channel, kind, body)| Item::Message { channel, kind, body: body.into() }).collect();
            prop_assert_eq!(items(frame.payload()), Ok(want));
        }

        #[test]
        fn any_bytes_decode_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = items(&bytes);
        }
    }

    #[test]
    fn an_item_longer_than_its_frame_is_refused() {
        assert!(items(&[0, 0, 1, 9, 0]).is_err());
    }

    #[test]
    fn an_empty_frame_has_no_items() {
        assert_eq!(items(&[]), Ok(vec![]));
    }
}
