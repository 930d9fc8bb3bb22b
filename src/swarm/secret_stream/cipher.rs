//! libsodium's secretstream (xchacha20poly1305), one direction of it, in place.
//!
//! ```text
//! init   k = HChaCha20(key, header[0..16]);  nonce = u32le(1) ‖ header[16..24]
//! push   poly key = ChaCha20(k, nonce) block 0, first 32 bytes
//!        block    = [tag, 0 × 63] xor block 1        only block[0] travels, all 64 bytes are in the MAC
//!        c        = message xor blocks 2…
//!        mac      = Poly1305(block ‖ c ‖ zeros(len & 15) ‖ u64le(0) ‖ u64le(64 + len))
//!        nonce[4..12] ^= mac[0..8];  counter nonce[0..4] += 1, at 0 (or on a rekey tag) rekey
//! rekey  (k ‖ nonce[4..12]) ^= 40 bytes of ChaCha20(k, nonce);  counter = 1
//! ```
//!
//! The padding `len & 15` is a slip of libsodium's that everybody must share: it is *not* up to a
//! multiple of 16, which is why no AEAD crate fits.
//!
//! Source: libsodium crypto_secretstream/xchacha20poly1305, sodium-secretstream/index.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20::{ChaCha20, R20};
use poly1305::universal_hash::{KeyInit, UniversalHash};
use poly1305::{Block, Poly1305};
use subtle::ConstantTimeEq;

/// The only tag that is ever sent.
pub const TAG_MESSAGE: u8 = 0;
/// The bit of a tag that changes the key behind the message.
const TAG_REKEY: u8 = 2;

/// Bytes of a secretstream header.
pub const HEADER_LEN: usize = 24;
/// Bytes of the MAC behind a message.
pub const MAC_LEN: usize = 16;
/// What encryption adds: one byte of tag in front, the MAC behind.
pub const OVERHEAD: usize = 1 + MAC_LEN;

/// ChaCha20 and Poly1305 take turns over pieces of this size, so that the second pass finds the bytes
/// in the first-level cache. A multiple of both their widest strides (256 and 64 bytes).
const PIECE: usize = 8 * 1024;

/// One direction's state. It is the same for both ends; what differs is who calls `push` and `pull`.
#[derive(Clone)]
pub struct SecretStream {
    key: [u8; 32],
    /// Counter, u32le, and the inner nonce, 8 bytes.
    nonce: [u8; 12],
}

impl SecretStream {
    /// The state that `key` and the sender's random `header` start.
    pub fn new(key: &[u8; 32], header: &[u8; HEADER_LEN]) -> Self {
        let [seed @ .., _, _, _, _, _, _, _, _] = header;
        let inner = header.iter().skip(seed.len());
        let key = chacha20::hchacha::<R20>(key.into(), seed.into()).into();
        let mut nonce = [0; 12];
        nonce.iter_mut().skip(4).zip(inner).for_each(|(to, from)| *to = *from);
        let mut stream = Self { key, nonce };
        stream.set_counter(1);
        stream
    }

    /// Encrypts `message` where it lies. Answers the encrypted tag, which goes in front of it, and the
    /// MAC, which goes behind.
    pub fn push(&mut self, tag: u8, message: &mut [u8]) -> (u8, [u8; MAC_LEN]) {
        let mut pass = Pass::new(&self.key, &self.nonce);
        let cipher_tag = tag ^ pass.mask;
        pass.tag(cipher_tag);
        let len = message.len();
        for piece in message.chunks_mut(PIECE) {
            pass.cipher.apply_keystream(piece);
            pass.authenticate(piece);
        }
        let mac = pass.finish(len);
        self.advance(tag, &mac);
        (cipher_tag, mac)
    }

    /// Decrypts `message` where it lies and answers its tag, or `None` if it is not what the sender
    /// pushed next; then the bytes are garbage and the stream cannot go on.
    pub fn pull(&mut self, cipher_tag: u8, message: &mut [u8], mac: &[u8; MAC_LEN]) -> Option<u8> {
        let mut pass = Pass::new(&self.key, &self.nonce);
        let tag = cipher_tag ^ pass.mask;
        pass.tag(cipher_tag);
        let len = message.len();
        for piece in message.chunks_mut(PIECE) {
            pass.authenticate(piece);
            pass.cipher.apply_keystream(piece);
        }
        let expected = pass.finish(len);
        if !bool::from(expected.ct_eq(mac)) {
            return None;
        }
        self.advance(tag, mac);
        Some(tag)
    }

    fn counter(&self) -> u32 {
        self.nonce.first_chunk().copied().map_or(0, u32::from_le_bytes)
    }

    fn set_counter(&mut self, n: u32) {
        if let Some(counter) = self.nonce.first_chunk_mut::<4>() {
            *counter = n.to_le_bytes();
        }
    }

    /// The state behind a message.
    fn advance(&mut self, tag: u8, mac: &[u8; MAC_LEN]) {
        self.nonce.iter_mut().skip(4).zip(mac).for_each(|(to, from)| *to ^= *from);
        let counter = self.counter().wrapping_add(1);
        self.set_counter(counter);
        if counter == 0 || tag & TAG_REKEY != 0 {
            self.rekey();
        }
    }

    fn rekey(&mut self) {
        let mut stream = [0u8; 40];
        ChaCha20::new(&self.key.into(), &self.nonce.into()).apply_keystream(&mut stream);
        let state = self.key.iter_mut().chain(self.nonce.iter_mut().skip(4));
        state.zip(stream).for_each(|(to, from)| *to ^= from);
        self.set_counter(1);
    }
}

/// One pass over one message.
struct Pass {
    /// At block 2, where the message begins.
    cipher: ChaCha20,
    poly: Poly1305,
    /// Block 1 of the key stream: hides the tag, and all of it is authenticated.
    block: [u8; 64],
    /// Its first byte.
    mask: u8,
    /// What is left of the last piece behind its whole blocks, up to 15 bytes.
    rest: [u8; 16],
    rest_len: usize,
}

impl Pass {
    fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let mut cipher = ChaCha20::new(key.into(), nonce.into());
        let mut head = [0u8; 128];
        cipher.apply_keystream(&mut head);
        let mut poly_key = [0; 32];
        let mut block = [0; 64];
        poly_key.iter_mut().zip(&head).for_each(|(to, from)| *to = *from);
        block.iter_mut().zip(head.iter().skip(64)).for_each(|(to, from)| *to = *from);
        let [mask, ..] = block;
        Self {
            cipher,
            poly: Poly1305::new(&poly_key.into()),
            block,
            mask,
            rest: [0; 16],
            rest_len: 0,
        }
    }

    /// Authenticates the block of the tag.
    fn tag(&mut self, cipher_tag: u8) {
        let mut block = self.block;
        if let Some(first) = block.first_mut() {
            *first = cipher_tag;
        }
        self.authenticate(&block);
    }

    /// Authenticates ciphertext. Only the last piece may be other than a multiple of 16 long.
    fn authenticate(&mut self, piece: &[u8]) {
        let (blocks, rest) = Block::slice_as_chunks(piece);
        self.poly.update(blocks);
        self.rest_len = rest.len();
        self.rest.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    /// The MAC of the tag and a message of `len` bytes.
    fn finish(self, len: usize) -> [u8; MAC_LEN] {
        // The rest, as many zeros again (libsodium's padding), the two lengths.
        let mut tail = [0u8; 15 + 15 + 16];
        let n = self.rest_len;
        tail.iter_mut().zip(self.rest.iter().take(n)).for_each(|(to, from)| *to = *from);
        let lengths = tail.iter_mut().skip(n + n + 8);
        lengths.zip((64 + len as u64).to_le_bytes()).for_each(|(to, from)| *to = from);
        self.poly.compute_unpadded(tail.get(..n + n + 16).unwrap_or_default()).into()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::key::{hex, unhex};
    use crate::swarm::secret_stream::vectors;
    use proptest::prelude::*;

    fn state(s: &SecretStream) -> String {
        hex(&[&s.key[..], &s.nonce, &[0; 8]].concat())
    }

    #[test]
    fn frames_of_the_vectors() {
        let v = &vectors()["secret_stream"];
        let text = |v: &serde_json::Value| unhex(v.as_str().unwrap()).unwrap();
        let key = text(&v["key"]).try_into().unwrap();
        let header = text(&v["header"]).try_into().unwrap();
        let mut push = SecretStream::new(&key, &header);
        let mut pull = push.clone();
        assert_eq!(state(&push), v["state_initial"].as_str().unwrap());
        for frame in v["frames"].as_array().unwrap() {
            let plain = text(&frame["plain"]);
            let mut message = plain.clone();
            let (tag, mac) = push.push(TAG_MESSAGE, &mut message);
            let wire = [&[tag][..], &message, &mac].concat();
            assert_eq!(hex(&wire), frame["wire"].as_str().unwrap()[6..]);
            assert_eq!(state(&push), frame["state_after"].as_str().unwrap());
            assert_eq!(pull.pull(tag, &mut message, &mac), Some(TAG_MESSAGE));
            assert_eq!(message, plain);
            assert_eq!(state(&pull), state(&push));
        }
    }

    #[test]
    fn the_key_changes_when_the_counter_wraps() {
        let mut push = SecretStream::new(&[1; 32], &[2; 24]);
        push.set_counter(u32::MAX);
        let mut pull = push.clone();
        let key = push.key;
        for i in 0..3u8 {
            let mut message = vec![i; 40];
            let (tag, mac) = push.push(TAG_MESSAGE, &mut message);
            assert_eq!(pull.pull(tag, &mut message, &mac), Some(TAG_MESSAGE));
            assert_eq!(message, vec![i; 40]);
        }
        assert_ne!(push.key, key);
        assert_eq!(push.counter(), 3);
    }

    proptest! {
        #[test]
        fn any_length_comes_back(len in 0usize..40_000, flip in any::<u16>(), tag in 0u8..4) {
            let mut push = SecretStream::new(&[1; 32], &[2; 24]);
            let mut pull = push.clone();
            let plain: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
            let mut message = plain.clone();
            let (cipher_tag, mac) = push.push(tag, &mut message);
            if len > 0 {
                let mut bad = message.clone();
                bad[flip as usize % len] ^= 1;
                prop_assert_eq!(pull.clone().pull(cipher_tag, &mut bad, &mac), None);
            }
            let mut bad = message.clone();
            prop_assert_eq!(pull.clone().pull(cipher_tag ^ 1, &mut bad, &mac), None);
            prop_assert_eq!(pull.pull(cipher_tag, &mut message, &mac), Some(tag));
            prop_assert_eq!(message, plain);
            prop_assert_eq!(state(&pull), state(&push));
        }
    }
}
