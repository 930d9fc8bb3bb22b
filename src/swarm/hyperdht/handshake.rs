//! The Noise IK handshake that travels inside PEER_HANDSHAKE, with its payloads decoded.
//!
//! The client's one message may reach the server through several relays and be answered by any of them;
//! an answer that does not decrypt leaves the handshake as it was, so a lying relay cannot spoil it.
//!
//! Source: hyperdht/lib/noise-wrap.js

use super::messages::{NoisePayload, command};
use super::signatures::namespace;
use crate::crypto::{Hash, KeyPair, hash};
use crate::key::PublicKey;
use crate::swarm::secret_stream::noise::{Handshake, Pattern, SessionKeys};

/// Bytes of a client's payload, which has zeros behind what it says, where nobody reads: who is there himself is to get
/// no more than three times his handshake, and an answer may say much.
const ROOM: usize = 112;
/// Bytes of a handshake that leave room for all that an answer says.
pub const ROOMY: usize = 96 + ROOM;

/// What a client's side was made of.
#[derive(Clone)]
struct Made {
    local: KeyPair,
    remote: PublicKey,
    payload: NoisePayload,
    ephemeral: [u8; 32],
}

/// The client's side: the message it sent, until an answer opens.
pub struct Opening {
    made: Made,
    state: Handshake,
    /// What goes to every relay.
    pub message: Vec<u8>,
}

impl Opening {
    /// `None` if the remote key is no key.
    pub fn new(
        local: &KeyPair,
        remote: &PublicKey,
        payload: &NoisePayload,
        ephemeral: [u8; 32],
    ) -> Option<Self> {
        let (local, payload) = (local.clone(), payload.clone());
        Self::of(Made { local, remote: *remote, payload, ephemeral })
    }

    fn of(made: Made) -> Option<Self> {
        let Made { local, remote, payload, ephemeral } = &made;
        let prologue = namespace(command::PEER_HANDSHAKE);
        let state = Handshake::initiator(Pattern::Ik, local, Some(remote), &prologue, *ephemeral);
        let mut state = state.ok()?;
        let mut bytes = payload.encode();
        bytes.resize(bytes.len().max(ROOM), 0);
        let message = state.write(&bytes).ok()?;
        Some(Self { made, state, message })
    }

    /// As it was before an answer was read: another answer to the same message may be the better one.
    pub fn unread(&self) -> Option<Self> {
        Self::of(self.made.clone())
    }

    /// The server's payload; `None` if this is not the server's answer. A payload that only the server
    /// can have sent but that does not decode comes back as [`Answer::Garbled`].
    pub fn read(&mut self, noise: &[u8]) -> Option<Answer> {
        let bytes = self.state.read(noise).ok()?;
        Some(NoisePayload::decode(&bytes).map_or(Answer::Garbled, Answer::Payload))
    }

    /// The keys, after [`Self::read`] gave an answer.
    pub fn finish(self) -> Option<SessionKeys> {
        self.state.finish().ok()
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("remote", &self.made.remote).finish_non_exhaustive()
    }
}

/// The server's word.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once, never kept")]
pub enum Answer {
    Payload(NoisePayload),
    Garbled,
}

/// The server's side, between the client's message and its own.
#[derive(Debug)]
pub struct Answering {
    state: Handshake,
    pub remote: PublicKey,
    pub payload: NoisePayload,
}

impl Answering {
    /// `None` if the message is not for this key pair, or not a handshake.
    pub fn read(local: &KeyPair, noise: &[u8], ephemeral: [u8; 32]) -> Option<Self> {
        let prologue = namespace(command::PEER_HANDSHAKE);
        let mut state = Handshake::responder(Pattern::Ik, local, &prologue, ephemeral).ok()?;
        let payload = NoisePayload::decode(&state.read(noise).ok()?).ok()?;
        Some(Self { remote: state.remote()?, state, payload })
    }

    /// The answer, and the keys it seals.
    pub fn reply(mut self, payload: &NoisePayload) -> Option<(Vec<u8>, SessionKeys)> {
        let message = self.state.write(&payload.encode()).ok()?;
        Some((message, self.state.finish().ok()?))
    }
}

/// Key of the hole punch payloads of a connection attempt.
pub fn holepunch_secret(handshake_hash: &[u8; 64]) -> Hash {
    hash::keyed(handshake_hash, &[&namespace(command::PEER_HOLEPUNCH)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_answer_leaves_the_handshake_as_it_was() {
        let (client, server) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
        let key = PublicKey(server.public());
        let mut opening = Opening::new(&client, &key, &NoisePayload::empty(1), [3; 32]).unwrap();
        let wrong = KeyPair::from_seed(&[9; 32]);
        assert!(Answering::read(&wrong, &opening.message, [4; 32]).is_none());
        let answering = Answering::read(&server, &opening.message, [5; 32]).unwrap();
        assert_eq!(answering.remote.0, client.public());
        let (message, keys) = answering.reply(&NoisePayload::empty(1)).unwrap();
        let mut forged = message.clone();
        for at in 0..message.len() {
            forged[at] ^= 1;
            assert!(opening.read(&forged).is_none(), "byte {at}");
            forged[at] ^= 1;
        }
        assert!(opening.read(&[]).is_none() && opening.read(&[0; 3000]).is_none());
        assert!(matches!(opening.read(&message), Some(Answer::Payload(_))));
        let mut again = opening.unread().unwrap();
        assert_eq!(again.message, opening.message);
        assert!(matches!(again.read(&message), Some(Answer::Payload(_))));
        let ours = opening.finish().unwrap();
        assert_eq!((ours.tx, ours.rx, ours.hash), (keys.rx, keys.tx, keys.hash));
    }

    #[test]
    fn the_holepunch_secret_matches_the_vector() {
        use crate::swarm::dht_rpc::testing::{bytes, vectors};
        let all = vectors();
        let run = &all["noise"]["hyperdht_IK"];
        let hash = bytes(&run["handshakeHash"]).try_into().unwrap();
        let want = bytes(&run["derived"]["holepunchSecret"]);
        assert_eq!(holepunch_secret(&hash).to_vec(), want);
    }
}
