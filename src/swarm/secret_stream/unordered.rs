//! Messages beside the stream, each in a datagram of its own: `counter (8) ‖ secretbox`.
//!
//! They come at once, whatever the stream waits for, or never. The reference opens any of them, also twice; here one is new
//! only if its counter is above those that came before, so a copy that comes behind the message itself tells nothing.
//!
//! Source: @hyperswarm/secret-stream/index.js:_setupSecretSend, _boxMessage, _onmessage

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::noise::SessionKeys;
use super::secretbox::{self, MAC, NONCE};
use crate::crypto::hash;
use bytes::Bytes;

/// What a message has beside its text.
pub const UNORDERED_OVERHEAD: usize = 8 + MAC;

/// Both directions of a session.
pub struct Unordered {
    seals: [u8; 32],
    opens: [u8; 32],
    /// Of the last message of ours.
    counter: u64,
    /// The highest that was opened.
    newest: Option<u64>,
}

/// The key of one direction.
fn key(keys: &SessionKeys, by_initiator: bool) -> [u8; 32] {
    let namespace = |i| hash::namespace("hyperswarm/secret-stream", i);
    hash::keyed(&keys.hash, &[&namespace(u8::from(!by_initiator)), &namespace(2)])
}

fn nonce(counter: u64) -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    nonce.iter_mut().zip(counter.to_le_bytes()).for_each(|(to, from)| *to = from);
    nonce
}

impl Unordered {
    /// `counter` is random.
    pub fn new(keys: &SessionKeys, counter: u64) -> Self {
        let (seals, opens) = (key(keys, keys.initiator), key(keys, !keys.initiator));
        Self { seals, opens, counter, newest: None }
    }

    pub fn seal(&mut self, text: &[u8]) -> Bytes {
        self.counter = self.counter.wrapping_add(1);
        let sealed = secretbox::seal(&self.seals, &nonce(self.counter), text);
        [&self.counter.to_le_bytes()[..], &sealed].concat().into()
    }

    /// The text of a message that the peer sent after all those that were opened before.
    pub fn open(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (counter, sealed) = message.split_first_chunk::<8>()?;
        let counter = u64::from_le_bytes(*counter);
        // It starts anywhere, and wraps.
        let is_new = |newest: u64| counter.wrapping_sub(newest).cast_signed() > 0;
        if !self.newest.is_none_or(is_new) {
            return None;
        }
        let text = secretbox::open(&self.opens, &nonce(counter), sealed)?;
        self.newest = Some(counter);
        Some(text)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::key::{PublicKey, hex, unhex};
    use crate::swarm::secret_stream::vectors;
    use proptest::prelude::*;

    fn pair(hash: [u8; 64], counter: u64) -> (Unordered, Unordered) {
        let keys = |initiator| {
            let remote = PublicKey([0; 32]);
            SessionKeys { tx: [1; 32], rx: [2; 32], hash, remote, initiator }
        };
        (Unordered::new(&keys(true), counter), Unordered::new(&keys(false), 9))
    }

    #[test]
    fn a_message_of_the_vectors() {
        let all = vectors();
        let text = |v: &serde_json::Value| unhex(v.as_str().unwrap()).unwrap();
        let hash = text(&all["noise"]["hyperdht_IK"]["handshakeHash"]).try_into().unwrap();
        let v = &all["secret_stream"]["unordered"];
        let (mut a, mut b) = pair(hash, 0);
        assert_eq!(hex(&a.seals), v["key_initiator_to_responder"].as_str().unwrap());
        let sealed = a.seal(&text(&v["plain"]));
        assert_eq!(hex(&sealed), v["envelope"].as_str().unwrap());
        assert_eq!(b.open(&sealed), Some(text(&v["plain"])));
    }

    #[test]
    fn what_was_opened_is_not_new_again_nor_what_came_before_it() {
        for start in [0, 77, u64::MAX - 1] {
            let (mut a, mut b) = pair([7; 64], start);
            let sealed = [a.seal(b"one"), a.seal(b"two"), a.seal(b"")];
            assert_eq!(b.open(&sealed[1]).as_deref(), Some(&b"two"[..]));
            assert_eq!((b.open(&sealed[0]), b.open(&sealed[1])), (None, None));
            assert_eq!(b.open(&sealed[2]), Some(vec![]));
            // It is not the peer's own that comes back.
            assert_eq!(a.open(&sealed[2]), None);
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(at in 0..UNORDERED_OVERHEAD + 5, bit in 0..8u8) {
            let (mut a, mut b) = pair([7; 64], 5);
            let mut sealed = a.seal(b"hello").to_vec();
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(b.open(&sealed), None);
        }

        #[test]
        fn any_bytes_open_to_nothing(data in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(pair([7; 64], 5).1.open(&data), None);
        }
    }
}
