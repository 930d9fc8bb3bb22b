//! Frames: from messages to the bytes of a stream, and back.
//!
//! Each direction has its own half. [`Sealer`] turns a [`FrameBuf`] into the bytes of one frame without
//! copying it; [`Opener`] is fed the stream as it comes, in pieces of any size, copies each byte once
//! into a buffer of the frame's size and decrypts it there.
//!
//! Both sides send their header frame as soon as they have keys, in either order. An empty message is a
//! keep-alive and is swallowed.
//!
//! Source: @hyperswarm/secret-stream/index.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::cipher::{HEADER_LEN, MAC_LEN, OVERHEAD, SecretStream, TAG_MESSAGE};
use super::noise::SessionKeys;
use crate::codec::FrameBuf;
use crate::crypto::hash;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// Largest `n` of a frame: what the three bytes of length can say.
const MAX_FRAME: usize = (1 << 24) - 1;

/// Largest plaintext of one frame.
pub const MAX_PLAINTEXT: usize = MAX_FRAME - OVERHEAD;

/// A frame's buffer is allocated at its announced size up to this, and grows with what really comes
/// above it: a peer's claim alone costs us no more. It covers every frame that carries a normal block.
const TRUSTED_FRAME: usize = 256 * 1024;

/// What a frame has beside its plaintext.
pub const FRAME_OVERHEAD: usize = 3 + OVERHEAD;

/// What a message costs beside its bytes: its buffer's own, and its place in the queues above.
pub const FRAME_COST: usize = 256;

/// What messages that nobody has taken may cost. A peer that keeps to the window of its stream, and does not fill
/// it with tiny messages, stays far below.
const MAX_READY: usize = 16 << 20;

/// Bytes of a header frame's content: stream id and secretstream header.
const HEADER_FRAME: usize = 32 + HEADER_LEN;

/// Bytes of the whole header frame.
pub const HEADER_FRAME_LEN: usize = 3 + HEADER_FRAME;

/// Why a stream cannot go on. Each of these ends the connection it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {0} bytes does not fit into a frame")]
    TooLong(usize),
    #[error("a frame of {0} bytes is too short")]
    TooShort(usize),
    #[error("the header frame has {0} bytes instead of 56")]
    HeaderLength(usize),
    #[error("the header frame names another stream")]
    StreamId,
    #[error("a frame does not decrypt")]
    Decrypt,
    #[error("too many messages at once")]
    TooMany,
}

/// What names one direction of a session: a hash over the handshake, keyed by the sender's role.
fn stream_id(handshake_hash: &[u8; 64], initiator: bool) -> [u8; 32] {
    let role = u8::from(!initiator);
    hash::keyed(handshake_hash, &[&hash::namespace("hyperswarm/secret-stream", role)])
}

/// Our half: encrypts what we send.
pub struct Sealer {
    stream: SecretStream,
    header: [u8; HEADER_FRAME_LEN],
}

impl Sealer {
    /// `nonce` is 24 random bytes.
    pub fn new(keys: &SessionKeys, nonce: [u8; HEADER_LEN]) -> Self {
        let mut header = [0; HEADER_FRAME_LEN];
        let id = stream_id(&keys.hash, keys.initiator);
        let bytes = [HEADER_FRAME as u8, 0, 0].into_iter().chain(id).chain(nonce);
        header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Self { stream: SecretStream::new(&keys.tx, &nonce), header }
    }

    /// The first bytes of the stream.
    pub fn header(&self) -> [u8; HEADER_FRAME_LEN] {
        self.header
    }

    /// The bytes of one frame. Frames must travel in the order in which they were sealed.
    pub fn seal(&mut self, frame: FrameBuf) -> Result<Bytes, FrameError> {
        if frame.len() > MAX_PLAINTEXT {
            return Err(FrameError::TooLong(frame.len()));
        }
        let [a, b, c, _] = ((frame.len() + OVERHEAD) as u32).to_le_bytes();
        let mut buf = frame.into_inner();
        let Some((head, message)) = buf.split_first_chunk_mut::<{ FrameBuf::HEADROOM }>() else {
            return Err(FrameError::TooShort(0));
        };
        let (tag, mac) = self.stream.push(TAG_MESSAGE, message);
        *head = [a, b, c, tag];
        buf.extend_from_slice(&mac);
        Ok(buf.into())
    }

    /// An empty frame, which the peer swallows.
    pub fn keep_alive(&mut self) -> Bytes {
        self.seal(FrameBuf::with_capacity(0)).unwrap_or_default()
    }
}

/// What the next bytes of the stream belong to.
enum Assembly {
    /// The three bytes of length: those seen so far.
    Length { bytes: [u8; 3], have: usize },
    /// The content, and how many bytes of it are still to come.
    Content { buf: Vec<u8>, missing: usize },
}

impl Assembly {
    const START: Self = Self::Length { bytes: [0; 3], have: 0 };
}

/// Their half: joins and decrypts what we receive.
pub struct Opener {
    key: [u8; 32],
    remote_id: [u8; 32],
    /// `None` until the header frame came.
    stream: Option<SecretStream>,
    assembly: Assembly,
    ready: VecDeque<Bytes>,
    /// What those cost.
    ready_cost: usize,
    has_read: bool,
    failed: Option<FrameError>,
}

impl Opener {
    pub fn new(keys: &SessionKeys) -> Self {
        Self {
            key: keys.rx,
            remote_id: stream_id(&keys.hash, !keys.initiator),
            stream: None,
            assembly: Assembly::START,
            ready: VecDeque::new(),
            ready_cost: 0,
            has_read: false,
            failed: None,
        }
    }

    /// Takes the next bytes of the stream. What they complete is decrypted at once, while it is in the
    /// cache, and waits for [`Self::next`]. After an error everything is ignored.
    pub fn feed(&mut self, mut data: &[u8]) {
        while !data.is_empty() && self.failed.is_none() {
            match self.step(data) {
                Ok(rest) => data = rest,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// The next message, in order; then, if the stream broke, why.
    #[expect(clippy::should_implement_trait, reason = "no iterator: more may come later")]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        match (self.ready.pop_front(), self.failed) {
            (Some(message), _) => {
                self.ready_cost = self.ready_cost.saturating_sub(message.len() + FRAME_COST);
                Ok(Some(message))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Whether the header frame has come: the sender saw both messages of the handshake. So has whoever sent a copy of
    /// an old first message and got our answer; only a message proves that the peer itself is there.
    pub fn has_header(&self) -> bool {
        self.stream.is_some()
    }

    /// Why the stream broke, if it did.
    pub fn failed(&self) -> Option<FrameError> {
        self.failed
    }

    /// What messages cost that wait to be taken.
    pub fn ready_cost(&self) -> usize {
        self.ready_cost
    }

    /// Bytes of the frame that is coming in, and the bytes that are set aside for it.
    pub fn partial(&self) -> (usize, usize) {
        match &self.assembly {
            Assembly::Length { have, .. } => (*have, 0),
            Assembly::Content { buf, .. } => (buf.len(), buf.capacity()),
        }
    }

    /// Bytes that were fed and belong to no frame that was opened so far.
    pub fn unopened(&self) -> usize {
        match &self.assembly {
            Assembly::Length { have, .. } => *have,
            Assembly::Content { buf, .. } => 3 + buf.len(),
        }
    }

    /// Whether a message has come, be it a keep-alive.
    pub fn has_read(&self) -> bool {
        self.has_read
    }

    /// Uses up some of `data` and answers what is left of it.
    fn step<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], FrameError> {
        match &mut self.assembly {
            Assembly::Length { bytes, have } => {
                let (&first, rest) = data.split_first().ok_or(FrameError::TooShort(0))?;
                if let Some(slot) = bytes.get_mut(*have) {
                    *slot = first;
                }
                *have += 1;
                if *have == 3 {
                    let [a, b, c] = *bytes;
                    let missing = u32::from_le_bytes([a, b, c, 0]) as usize;
                    self.check_length(missing)?;
                    let buf = Vec::with_capacity(missing.min(TRUSTED_FRAME));
                    self.assembly = Assembly::Content { buf, missing };
                }
                Ok(rest)
            }
            Assembly::Content { buf, missing } => {
                let (mine, rest) = data.split_at_checked(*missing).unwrap_or((data, &[]));
                if buf.capacity() - buf.len() < mine.len() {
                    // As much again as came, but never more than the frame: one of 8 MiB must not become 16.
                    buf.reserve_exact((*missing).min(buf.len().max(mine.len())));
                }
                buf.extend_from_slice(mine);
                *missing -= mine.len();
                if *missing == 0 {
                    let content = std::mem::take(buf);
                    self.assembly = Assembly::START;
                    self.open(content)?;
                }
                Ok(rest)
            }
        }
    }

    fn check_length(&self, n: usize) -> Result<(), FrameError> {
        match &self.stream {
            None if n != HEADER_FRAME => Err(FrameError::HeaderLength(n)),
            Some(_) if n < OVERHEAD => Err(FrameError::TooShort(n)),
            _ => Ok(()),
        }
    }

    fn open(&mut self, mut content: Vec<u8>) -> Result<(), FrameError> {
        let Some(stream) = &mut self.stream else { return self.open_header(&content) };
        let short = FrameError::TooShort(content.len());
        let (tag, rest) = content.split_first_mut().ok_or(short)?;
        let (message, mac) = rest.split_last_chunk_mut::<MAC_LEN>().ok_or(short)?;
        stream.pull(*tag, message, mac).ok_or(FrameError::Decrypt)?;
        self.has_read = true;
        let len = message.len();
        if len > 0 {
            let mut message = Bytes::from(content);
            message.advance(1);
            message.truncate(len);
            self.ready.push_back(message);
            self.ready_cost += len + FRAME_COST;
        }
        if self.ready_cost > MAX_READY { Err(FrameError::TooMany) } else { Ok(()) }
    }

    fn open_header(&mut self, content: &[u8]) -> Result<(), FrameError> {
        let wrong = FrameError::HeaderLength(content.len());
        let (id, nonce) = content.split_first_chunk::<32>().ok_or(wrong)?;
        if *id != self.remote_id {
            return Err(FrameError::StreamId);
        }
        self.stream = Some(SecretStream::new(&self.key, nonce.first_chunk().ok_or(wrong)?));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::codec::Put;
    use crate::key::{PublicKey, hex, unhex};
    use crate::swarm::secret_stream::vectors;
    use proptest::prelude::*;

    /// Keys of both ends.
    pub(crate) fn session() -> (SessionKeys, SessionKeys) {
        let remote = PublicKey([0; 32]);
        let hash = [7; 64];
        (
            SessionKeys { tx: [1; 32], rx: [2; 32], hash, remote, initiator: true },
            SessionKeys { tx: [2; 32], rx: [1; 32], hash, remote, initiator: false },
        )
    }

    fn drain(opener: &mut Opener) -> Result<Vec<Bytes>, FrameError> {
        let mut out = Vec::new();
        while let Some(message) = opener.next()? {
            out.push(message);
        }
        Ok(out)
    }

    #[test]
    fn frames_of_the_vectors() {
        let v = vectors();
        let text = |v: &serde_json::Value| unhex(v.as_str().unwrap()).unwrap();
        let noise = &v["noise"]["hyperdht_IK"];
        let v = &v["secret_stream"];
        let hash = text(&noise["handshakeHash"]).try_into().unwrap();
        let key = text(&v["key"]).try_into().unwrap();
        let remote = PublicKey([0; 32]);
        let keys = SessionKeys { tx: key, rx: [0; 32], hash, remote, initiator: true };
        let mut sealer = Sealer::new(&keys, text(&v["header"]).try_into().unwrap());
        let mut opener =
            Opener::new(&SessionKeys { tx: [0; 32], rx: key, hash, remote, initiator: false });
        assert_eq!(hex(&sealer.header()), v["header_frame"].as_str().unwrap());
        opener.feed(&sealer.header());
        for frame in v["frames"].as_array().unwrap() {
            let plain = text(&frame["plain"]);
            let sealed = sealer.seal(FrameBuf::from(&plain[..])).unwrap();
            assert_eq!(hex(&sealed), frame["wire"].as_str().unwrap());
            opener.feed(&sealed);
            let want = if plain.is_empty() { None } else { Some(Bytes::from(plain)) };
            assert_eq!(opener.next(), Ok(want));
        }
    }

    #[test]
    fn a_stream_that_starts_with_something_else_breaks() {
        let (a, b) = session();
        let header = Sealer::new(&a, [3; 24]).header();
        let mut opener = Opener::new(&b);
        opener.feed(&[57, 0, 0, 1]);
        assert_eq!(opener.next(), Err(FrameError::HeaderLength(57)));

        let mut opener = Opener::new(&a); // our own header, sent back
        opener.feed(&header);
        assert_eq!(opener.next(), Err(FrameError::StreamId));
    }

    #[test]
    fn a_broken_frame_ends_the_stream_behind_the_good_ones() {
        let (a, b) = session();
        let mut sealer = Sealer::new(&a, [3; 24]);
        let mut opener = Opener::new(&b);
        opener.feed(&sealer.header());
        opener.feed(&sealer.seal(FrameBuf::from(&b"good"[..])).unwrap());
        let mut bad = sealer.seal(FrameBuf::from(&b"bad"[..])).unwrap().to_vec();
        bad[5] ^= 1;
        opener.feed(&bad);
        opener.feed(&sealer.keep_alive());
        assert_eq!(opener.next(), Ok(Some(Bytes::from_static(b"good"))));
        assert_eq!(opener.next(), Err(FrameError::Decrypt));
        assert_eq!(opener.next(), Err(FrameError::Decrypt));
    }

    #[test]
    fn a_short_frame_breaks_the_stream() {
        let (a, b) = session();
        let mut opener = Opener::new(&b);
        opener.feed(&Sealer::new(&a, [3; 24]).header());
        opener.feed(&[16, 0, 0]);
        assert_eq!(opener.next(), Err(FrameError::TooShort(16)));
    }

    #[test]
    fn a_claimed_length_is_not_allocated() {
        let (a, b) = session();
        let mut opener = Opener::new(&b);
        opener.feed(&Sealer::new(&a, [3; 24]).header());
        opener.feed(&[0xff, 0xff, 0xff, 1, 2, 3]);
        let Assembly::Content { buf, missing } = &opener.assembly else { panic!() };
        assert_eq!((buf.capacity(), *missing), (TRUSTED_FRAME, MAX_FRAME - 3));
    }

    #[test]
    fn sealing_a_frame_with_the_right_capacity_moves_nothing() {
        let (a, _) = session();
        let mut frame = FrameBuf::with_capacity(1000);
        frame.put(&[5; 1000]);
        let before = frame.payload().as_ptr();
        let sealed = Sealer::new(&a, [3; 24]).seal(frame).unwrap();
        assert_eq!(sealed[4..].as_ptr(), before);
    }

    #[test]
    fn messages_that_nobody_takes_are_held_up_to_a_bound() {
        let (a, b) = session();
        let mut sealer = Sealer::new(&a, [3; 24]);
        let mut opener = Opener::new(&b);
        opener.feed(&sealer.header());
        let plain = vec![1; 1 << 20];
        for _ in 0..20 {
            opener.feed(&sealer.seal(FrameBuf::from(&plain[..])).unwrap());
        }
        assert!(opener.ready_cost() <= MAX_READY + plain.len() + FRAME_COST);
        assert!(matches!(opener.failed(), Some(FrameError::TooMany)));
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_messages(
            lens in proptest::collection::vec(0usize..3000, 0..20),
            cuts in proptest::collection::vec(1usize..2000, 1..50),
        ) {
            let (a, b) = session();
            let mut sealer = Sealer::new(&a, [3; 24]);
            let mut wire = sealer.header().to_vec();
            let mut want = Vec::new();
            for (i, len) in lens.into_iter().enumerate() {
                let plain = vec![i as u8; len];
                wire.extend_from_slice(&sealer.seal(FrameBuf::from(&plain[..])).unwrap());
                if len > 0 {
                    want.push(Bytes::from(plain));
                }
            }
            let mut opener = Opener::new(&b);
            let mut got = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                opener.feed(head);
                got.extend(drain(&mut opener).unwrap());
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(got, want);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (a, b) = session();
            let mut opener = Opener::new(&b);
            opener.feed(&Sealer::new(&a, [3; 24]).header());
            opener.feed(&bytes);
            let _ = drain(&mut opener);
        }
    }
}
