//! The two datagrams of the local network, and what of them is secret.
//!
//! ```text
//!   call    "HDL1" 0 roles part nonce(16) tag(8) × 64                  to everybody, or to one host
//!   answer  "HDL1" 1 part count nonce(16) salt(16) [index proof(8)] × count sealed(96)   to who called, or to everybody
//! ```
//!
//! Everything that names a topic is a hash keyed with the topic: who does not know it sees random bytes, others each time,
//! and as many of them whatever is called. Tags hold for one source and one nonce, so that a call which is sent
//! again by another host gets no answer. An answer shows that its sender knows each topic (`proof`); `sealed` is the
//! sender's public key and its signature of nonce, salt and both addresses, readable with the first of the topics:
//! nobody can say that somebody else's key is where he is himself.
//!
//! Roles are for everybody to read: that a host looks for something, or has it, and whether nobody wrote to it for that when it
//! called before.
//!
//! A call is never smaller than three quarters of what an answer can be.

use crate::codec::{Reader, net};
use crate::crypto::{Hash, KeyPair, Signature, hash, sign};
use crate::key::{PublicKey, Topic};
use rand::RngCore;
use std::net::SocketAddr;

const MAGIC: &[u8] = b"HDL1";
const CALL: u8 = 0;
const ANSWER: u8 = 1;

/// Topics that one call names; places that are not needed hold random bytes.
pub const TAGS: usize = 64;

const SEEK: u8 = 1;
const HAVE: u8 = 2;
const LOUD: u8 = 4;

/// Names a round of calls of one host on one link. It is random.
pub type Nonce = [u8; 16];
pub type Tag = [u8; 8];
type Salt = [u8; 16];

const PUBLIC_KEY: usize = 32;
const SEALED: usize = PUBLIC_KEY + 64;

/// What a keyed hash is for.
#[derive(Clone, Copy)]
enum Use {
    Tag,
    Proof,
    Seal(u8),
    Signature,
}

impl Use {
    fn namespace(self) -> Hash {
        hash::namespace(
            "hdrive/lan",
            match self {
                Self::Tag => 0,
                Self::Proof => 1,
                Self::Signature => 2,
                Self::Seal(n) => 3 + n,
            },
        )
    }
}

/// What a host says of its topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Roles {
    /// It looks for others who have something of them.
    pub seek: bool,
    /// It has something of them.
    pub have: bool,
    /// Nobody wrote to it alone for them when it called before: what answers this is to be heard by everybody as well.
    pub loud: bool,
}

impl Roles {
    fn byte(self) -> u8 {
        let bits = [(self.seek, SEEK), (self.have, HAVE), (self.loud, LOUD)];
        bits.into_iter().map(|(is, bit)| if is { bit } else { 0 }).sum()
    }

    /// Bits that are not known mean nothing.
    fn of(byte: u8) -> Self {
        let is = |bit| byte & bit != 0;
        Self { seek: is(SEEK), have: is(HAVE), loud: is(LOUD) }
    }
}

/// What a host says of some topics, in a round of such calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub roles: Roles,
    /// Which of the calls of its round it is.
    pub part: u8,
    pub nonce: Nonce,
    pub tags: Vec<Tag>,
}

/// Who answered a call, and for which of its tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub part: u8,
    pub nonce: Nonce,
    salt: Salt,
    proofs: Vec<(u8, Tag)>,
    sealed: [u8; SEALED],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Call(Call),
    Answer(Answer),
}

/// Whether a datagram is one of these.
pub fn is_ours(datagram: &[u8]) -> bool {
    datagram.starts_with(MAGIC)
}

/// Host and port. The number of an interface is another one at each end.
fn addr_bytes(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(18);
    match addr {
        SocketAddr::V4(addr) => net::put_ipv4(&mut bytes, &addr),
        SocketAddr::V6(addr) => {
            bytes.extend(addr.ip().octets());
            bytes.extend(addr.port().to_le_bytes());
        }
    }
    bytes
}

fn short(hash: Hash) -> Tag {
    let [a, b, c, d, e, f, g, h, ..] = hash;
    [a, b, c, d, e, f, g, h]
}

/// Makes the tags of one round of calls.
pub struct Tagger {
    namespace: Hash,
    nonce: Nonce,
    caller: Vec<u8>,
}

impl Tagger {
    pub fn new(nonce: Nonce, caller: SocketAddr) -> Self {
        Self { namespace: Use::Tag.namespace(), nonce, caller: addr_bytes(caller) }
    }

    pub fn tag(&self, topic: &Topic) -> Tag {
        short(hash::keyed(&topic.0, &[&self.namespace, &self.nonce, &self.caller]))
    }
}

impl Call {
    /// Of at most [`TAGS`] topics.
    pub fn encode(&self, rng: &mut impl RngCore) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([CALL, self.roles.byte(), self.part]);
        out.extend(self.nonce);
        let mut blank = || {
            let mut tag = Tag::default();
            rng.fill_bytes(&mut tag);
            tag
        };
        for i in 0..TAGS {
            out.extend(self.tags.get(i).copied().unwrap_or_else(&mut blank));
        }
        out
    }
}

/// Who meets whom: both ends of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub caller: SocketAddr,
    pub answerer: SocketAddr,
}

impl Answer {
    /// To a call of `nonce` from `ends.caller`: `topics` are those of it that are here, with their places in it. None
    /// without any.
    pub fn new(
        key_pair: &KeyPair,
        (nonce, part): (Nonce, u8),
        topics: &[(u8, Topic)],
        ends: Ends,
        rng: &mut impl RngCore,
    ) -> Option<Self> {
        let (_, first) = topics.first()?;
        let mut salt = Salt::default();
        rng.fill_bytes(&mut salt);
        let key = PublicKey(key_pair.public());
        let proof = |topic: &Topic| proof(topic, &nonce, &salt, &key, ends);
        let proofs = topics.iter().map(|(index, topic)| (*index, proof(topic))).collect();
        let mut sealed = [0; SEALED];
        let (public, signature) = sealed.split_at_mut(PUBLIC_KEY);
        public.copy_from_slice(&key.0);
        signature.copy_from_slice(&key_pair.sign(&signed(&nonce, &salt, ends)));
        seal(&mut sealed, first, &nonce, &salt);
        Some(Self { part, nonce, salt, proofs, sealed })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([ANSWER, self.part, self.proofs.len() as u8]);
        out.extend(self.nonce);
        out.extend(self.salt);
        for (index, proof) in &self.proofs {
            out.push(*index);
            out.extend(proof);
        }
        out.extend(self.sealed);
        out
    }

    /// Who sent it, and under which topics; `called` are those that the part of the call named. None if any word of it
    /// is false.
    pub fn open(&self, called: &[Topic], ends: Ends) -> Option<(PublicKey, Vec<Topic>)> {
        let topics = self.proofs.iter().map(|(index, _)| called.get(usize::from(*index)).copied());
        let topics: Vec<Topic> = topics.collect::<Option<_>>()?;
        let mut body = self.sealed;
        seal(&mut body, topics.first()?, &self.nonce, &self.salt);
        let (public, signature) = body.split_first_chunk::<PUBLIC_KEY>()?;
        let key = PublicKey(*public);
        for (topic, (_, theirs)) in topics.iter().zip(&self.proofs) {
            if proof(topic, &self.nonce, &self.salt, &key, ends) != *theirs {
                return None;
            }
        }
        let signature: &Signature = signature.try_into().ok()?;
        sign::verify(&key.0, &signed(&self.nonce, &self.salt, ends), signature)
            .then_some((key, topics))
    }
}

/// Only who knows `topic` can make it, and for himself alone.
fn proof(topic: &Topic, nonce: &Nonce, salt: &Salt, key: &PublicKey, ends: Ends) -> Tag {
    let (namespace, answerer) = (Use::Proof.namespace(), addr_bytes(ends.answerer));
    short(hash::keyed(&topic.0, &[&namespace, nonce, salt, &key.0, &answerer]))
}

fn signed(nonce: &Nonce, salt: &Salt, ends: Ends) -> Hash {
    let (caller, answerer) = (addr_bytes(ends.caller), addr_bytes(ends.answerer));
    hash::hash(&[&Use::Signature.namespace(), nonce, salt, &caller, &answerer])
}

/// Hides what an answer says from those who do not know `topic`, or shows it. The salt is another one each time.
fn seal(body: &mut [u8; SEALED], topic: &Topic, nonce: &Nonce, salt: &Salt) {
    for (i, part) in body.chunks_mut(32).enumerate() {
        let namespace = Use::Seal(i as u8).namespace();
        let stream = hash::keyed(&topic.0, &[&namespace, nonce, salt]);
        part.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
    }
}

impl Message {
    /// None for what is none of ours, or not whole.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let mut r = Reader::new(datagram.strip_prefix(MAGIC)?);
        let message = match r.u8().ok()? {
            CALL => {
                let (roles, part, nonce) = (r.u8().ok()?, r.u8().ok()?, r.fixed().ok()?);
                let tags = (0..TAGS).map(|_| r.fixed().ok()).collect::<Option<_>>()?;
                Self::Call(Call { roles: Roles::of(roles), part, nonce, tags })
            }
            ANSWER => {
                let (part, count) = (r.u8().ok()?, usize::from(r.u8().ok()?));
                let (nonce, salt) = (r.fixed().ok()?, r.fixed().ok()?);
                let proof = |r: &mut Reader<'_>| Some((r.u8().ok()?, r.fixed().ok()?));
                if count > TAGS {
                    return None;
                }
                let proofs = (0..count).map(|_| proof(&mut r)).collect::<Option<_>>()?;
                Self::Answer(Answer { part, nonce, salt, proofs, sealed: r.fixed().ok()? })
            }
            _ => return None,
        };
        r.is_empty().then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn addr(host: u8) -> SocketAddr {
        ([192, 168, 1, host], 4000 + u16::from(host)).into()
    }

    const ENDS: fn() -> Ends = || Ends { caller: addr(1), answerer: addr(2) };

    fn answer(topics: &[(u8, Topic)]) -> Answer {
        let (mut rng, key_pair) = (StdRng::seed_from_u64(1), KeyPair::from_seed(&[1; 32]));
        Answer::new(&key_pair, ([7; 16], 0), topics, ENDS(), &mut rng).unwrap()
    }

    #[test]
    fn all_calls_look_alike_and_an_answer_is_hardly_larger() {
        let mut rng = StdRng::seed_from_u64(1);
        let topics: Vec<_> = (0..TAGS as u8).map(|n| (n, Topic([n; 32]))).collect();
        let tagger = Tagger::new([7; 16], addr(1));
        let roles = Roles { seek: true, have: false, loud: true };
        let mut call = |n: usize| {
            let tags = topics[..n].iter().map(|(_, topic)| tagger.tag(topic)).collect();
            let call = Call { roles, part: 0, nonce: [7; 16], tags };
            call.encode(&mut rng)
        };
        let (one, all) = (call(1), call(TAGS));
        assert_eq!(one.len(), all.len());
        assert!(4 * one.len() >= 3 * answer(&topics).encode().len());
        let Some(Message::Call(call)) = Message::decode(&one) else { panic!() };
        assert_eq!((call.roles, call.tags[0]), (roles, tagger.tag(&topics[0].1)));
        // The same topic looks otherwise in another round, and from another host.
        let others = [Tagger::new([8; 16], addr(1)), Tagger::new([7; 16], addr(2))];
        assert!(others.iter().all(|other| other.tag(&topics[0].1) != call.tags[0]));
    }

    #[test]
    fn an_answer_opens_for_whom_it_is_meant_and_in_nobody_elses_place() {
        let topics = [Topic([1; 32]), Topic([2; 32]), Topic([3; 32])];
        let whole = answer(&[(2, topics[2]), (0, topics[0])]);
        let key = PublicKey(KeyPair::from_seed(&[1; 32]).public());
        let bytes = whole.encode();
        let Some(Message::Answer(read)) = Message::decode(&bytes) else { panic!() };
        assert_eq!(read, whole);
        assert_eq!(read.open(&topics, ENDS()), Some((key, vec![topics[2], topics[0]])));
        for ends in [Ends { caller: addr(3), ..ENDS() }, Ends { answerer: addr(3), ..ENDS() }] {
            assert_eq!(read.open(&topics, ends), None);
        }
        assert_eq!(read.open(&topics[..2], ENDS()), None, "more than was asked for");
        let others = [Topic([4; 32]), topics[1], topics[2]];
        assert_eq!(read.open(&others, ENDS()), None, "of a topic that it does not know");
        // The key is not to be seen, and no byte can be changed.
        assert!(!bytes.windows(8).any(|bytes| bytes == &key.0[..8]));
        for at in 5..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let Some(Message::Answer(forged)) = Message::decode(&forged) else { continue };
            let same = (forged.part, forged.nonce) == (whole.part, whole.nonce);
            assert!(!same || forged.open(&topics, ENDS()).is_none(), "byte {at}");
        }
    }

    #[test]
    fn what_is_not_whole_or_longer_is_nothing() {
        let whole = answer(&[(0, Topic([1; 32]))]).encode();
        for len in 0..whole.len() {
            assert_eq!(Message::decode(&whole[..len]), None, "{len}");
        }
        assert_eq!(Message::decode(&[&whole[..], &[0]].concat()), None);
        let mut many = whole;
        many[6] = 255;
        assert_eq!(Message::decode(&many), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_to_something_or_nothing(bytes: Vec<u8>, kind in 0u8..3) {
            let _ = Message::decode(&[MAGIC, &[kind], &bytes].concat());
        }
    }
}
