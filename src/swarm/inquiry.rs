//! What is asked, and answered, at an address that is known from elsewhere than the DHT: who has a topic there, and a
//! handshake with him.
//!
//! ```text
//! inquiry    "HDI1" 0 nonce(16) tag(16), and zeros up to 96 bytes
//! reply      "HDI1" 1 nonce(16) key(32) proof(16)
//! handshake  "HDI1" 2 nonce(16) target(32) Noise message
//! answer     "HDI1" 3 nonce(16) Noise message
//! ```
//!
//! The tag is a hash keyed with the topic, of a nonce that is another one each time: who does not know the topic learns
//! nothing, and does not even see that two inquiries are for the same. In a reply the public key is hidden under another
//! such hash, and the proof shows that it comes from somebody who knows the topic. That is no proof that he has the key:
//! the handshake is. A reply is smaller than what it replies to.
//!
//! The handshake is that of HyperDHT; in its own form it would need addresses of IPv4.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::Reader;
use crate::crypto::{Hash, hash};
use crate::key::{NodeId, PublicKey, Topic};

const MAGIC: &[u8] = b"HDI1";
const INQUIRY: u8 = 0;
const REPLY: u8 = 1;
const HANDSHAKE: u8 = 2;
const ANSWER: u8 = 3;

/// Bytes of an inquiry.
const INQUIRY_LEN: usize = 96;

/// Longest Noise message: some forty addresses more than one of ours has.
const MAX_NOISE: usize = 1024;

/// Random; what answers it carries it.
pub type Nonce = [u8; 16];
type Short = [u8; 16];

/// What a keyed hash is for.
#[derive(Clone, Copy)]
enum Use {
    Tag,
    Mask,
    Proof,
}

fn keyed(topic: &Topic, what: Use, parts: [&[u8]; 2]) -> Hash {
    let [first, second] = parts;
    let namespace = hash::namespace("hdrive/inquiry", what as u8);
    hash::keyed(&topic.0, &[&namespace, first, second])
}

fn short(hash: Hash) -> Short {
    let mut short = Short::default();
    short.iter_mut().zip(hash).for_each(|(to, byte)| *to = byte);
    short
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Inquiry { nonce: Nonce, tag: Short },
    Reply(Reply),
    Handshake { nonce: Nonce, target: NodeId, noise: Vec<u8> },
    Answer { nonce: Nonce, noise: Vec<u8> },
}

/// The answer to an inquiry, not opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub nonce: Nonce,
    masked: [u8; 32],
    proof: Short,
}

/// Whether a datagram is one of these.
pub fn is_ours(datagram: &[u8]) -> bool {
    datagram.starts_with(MAGIC)
}

/// What an inquiry for `topic` is known by.
pub fn tag(topic: &Topic, nonce: &Nonce) -> Short {
    short(keyed(topic, Use::Tag, [nonce, &[]]))
}

impl Reply {
    /// `key` has `topic`.
    pub fn new(topic: &Topic, nonce: Nonce, key: &PublicKey) -> Self {
        let proof = short(keyed(topic, Use::Proof, [&nonce, &key.0]));
        Self { nonce, masked: masked(topic, &nonce, key.0), proof }
    }

    /// Who has `topic`, if its sender knows the topic.
    pub fn open(&self, topic: &Topic) -> Option<PublicKey> {
        let key = masked(topic, &self.nonce, self.masked);
        let proof = short(keyed(topic, Use::Proof, [&self.nonce, &key]));
        (proof == self.proof).then_some(PublicKey(key))
    }
}

fn masked(topic: &Topic, nonce: &Nonce, mut key: [u8; 32]) -> [u8; 32] {
    let mask = keyed(topic, Use::Mask, [nonce, &[]]);
    key.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    key
}

impl Message {
    pub fn inquiry(topic: &Topic, nonce: Nonce) -> Self {
        Self::Inquiry { nonce, tag: tag(topic, &nonce) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let head = |kind: u8, nonce: &Nonce| [MAGIC, &[kind], nonce].concat();
        match self {
            Self::Inquiry { nonce, tag } => {
                let mut out = [&head(INQUIRY, nonce)[..], tag].concat();
                out.resize(INQUIRY_LEN, 0);
                out
            }
            Self::Reply(Reply { nonce, masked, proof }) => {
                [&head(REPLY, nonce)[..], masked, proof].concat()
            }
            Self::Handshake { nonce, target, noise } => {
                [&head(HANDSHAKE, nonce)[..], &target.0, noise].concat()
            }
            Self::Answer { nonce, noise } => [&head(ANSWER, nonce)[..], noise].concat(),
        }
    }

    /// None for what is none of ours, or not whole.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let mut r = Reader::new(datagram.strip_prefix(MAGIC)?);
        let kind = r.u8().ok()?;
        let nonce = r.fixed().ok()?;
        let noise = |r: &mut Reader<'_>| {
            let noise = r.take(r.remaining()).ok()?;
            (noise.len() <= MAX_NOISE).then(|| noise.to_vec())
        };
        Some(match kind {
            INQUIRY if datagram.len() == INQUIRY_LEN => {
                Self::Inquiry { nonce, tag: r.fixed().ok()? }
            }
            REPLY => {
                let (masked, proof) = (r.fixed().ok()?, r.fixed().ok()?);
                r.is_empty().then_some(Self::Reply(Reply { nonce, masked, proof }))?
            }
            HANDSHAKE => {
                let target = NodeId(r.fixed().ok()?);
                Self::Handshake { nonce, target, noise: noise(&mut r)? }
            }
            ANSWER => Self::Answer { nonce, noise: noise(&mut r)? },
            _ => return None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const TOPIC: Topic = Topic([1; 32]);
    const KEY: PublicKey = PublicKey([2; 32]);
    const NONCE: Nonce = [3; 16];

    #[test]
    fn a_reply_is_smaller_and_opens_for_who_knows_the_topic() {
        let asked = Message::inquiry(&TOPIC, NONCE).encode();
        let reply = Message::Reply(Reply::new(&TOPIC, NONCE, &KEY)).encode();
        assert!(reply.len() < asked.len());
        let Some(Message::Reply(read)) = Message::decode(&reply) else { panic!() };
        assert_eq!((read.open(&TOPIC), read.open(&Topic([9; 32]))), (Some(KEY), None));
        for at in 21..reply.len() {
            let mut forged = reply.clone();
            forged[at] ^= 1;
            let Some(Message::Reply(forged)) = Message::decode(&forged) else { panic!() };
            assert_eq!(forged.open(&TOPIC), None, "byte {at}");
        }
    }

    #[test]
    fn nothing_of_it_shows_topic_or_key_and_the_same_looks_otherwise_each_time() {
        let bytes = [
            Message::inquiry(&TOPIC, NONCE).encode(),
            Message::Reply(Reply::new(&TOPIC, NONCE, &KEY)).encode(),
        ];
        for shown in [&TOPIC.0[..4], &KEY.0[..4]] {
            assert!(bytes.iter().all(|bytes| !bytes.windows(4).any(|window| window == shown)));
        }
        assert_ne!(tag(&TOPIC, &NONCE), tag(&TOPIC, &[4; 16]));
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        let whole = [
            Message::inquiry(&TOPIC, NONCE),
            Message::Reply(Reply::new(&TOPIC, NONCE, &KEY)),
            Message::Handshake { nonce: NONCE, target: NodeId([5; 32]), noise: vec![6; 100] },
            Message::Answer { nonce: NONCE, noise: vec![7; 100] },
        ];
        for (kind, message) in whole.into_iter().enumerate() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message));
            let shortest = [96, 69, 53, 21][kind];
            assert!((0..shortest).all(|len| Message::decode(&bytes[..len]).is_none()), "{kind}");
        }
        let long = Message::Answer { nonce: NONCE, noise: vec![7; MAX_NOISE + 1] }.encode();
        assert_eq!(Message::decode(&long), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_to_something_or_nothing(bytes: Vec<u8>, kind in 0u8..5) {
            let _ = Message::decode(&[MAGIC, &[kind], &bytes].concat());
        }
    }
}
