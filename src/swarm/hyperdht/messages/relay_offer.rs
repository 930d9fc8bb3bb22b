//! A relay that a peer is for others, as its handshakes say.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::crypto::KeyPair;
use crate::crypto::sign::{self, Signature};
use crate::key::PublicKey;

/// Marks the sender's relay, the last thing in a payload.
pub(super) const RELAY_MARK: &[u8; 8] = b"hdrv-rly";

pub(super) fn relay_offer(rest: &[u8]) -> Option<RelayOffer> {
    let (rest, proof) = rest.split_last_chunk::<64>()?;
    let (before, key) = rest.split_last_chunk::<32>()?;
    let offer = RelayOffer { key: PublicKey(*key), proof: *proof };
    before.ends_with(RELAY_MARK).then_some(offer)
}

/// A relay that a peer is for others, and its word that it is that peer's: readers go there, so it must be nobody's who
/// knows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayOffer {
    pub key: PublicKey,
    pub proof: Signature,
}

impl RelayOffer {
    /// That of `relay`, for a peer with the key `by`.
    pub fn new(relay: &KeyPair, by: &PublicKey) -> Self {
        Self { key: PublicKey(relay.public()), proof: relay.sign(&Self::signable(by)) }
    }

    /// The relay, if it says itself that it is that of `by`.
    pub fn proven(&self, by: &PublicKey) -> Option<PublicKey> {
        sign::verify(&self.key.0, &Self::signable(by), &self.proof).then_some(self.key)
    }

    fn signable(by: &PublicKey) -> Vec<u8> {
        [&RELAY_MARK[..], &by.0].concat()
    }
}

impl std::fmt::Debug for RelayOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayOffer({:?})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_offered_by_whom_it_says_and_nobody_else() {
        let [relay, peer, other] = [1, 2, 3].map(|n| KeyPair::from_seed(&[n; 32]));
        let [by, another] = [&peer, &other].map(|pair| PublicKey(pair.public()));
        let offer = RelayOffer::new(&relay, &by);
        assert_eq!(offer.proven(&by), Some(PublicKey(relay.public())));
        assert_eq!(offer.proven(&another), None);
        let lie = RelayOffer { key: another, ..RelayOffer::new(&relay, &by) };
        assert_eq!(lie.proven(&by), None);
    }

    #[test]
    fn an_offer_is_read_back_whole_or_not_at_all() {
        let offer = RelayOffer::new(&KeyPair::from_seed(&[1; 32]), &PublicKey([2; 32]));
        let bytes = [&b"before"[..], RELAY_MARK, &offer.key.0, &offer.proof].concat();
        assert_eq!(relay_offer(&bytes), Some(offer));
        for cut in 1..=bytes.len() {
            assert_eq!(relay_offer(bytes.get(cut..).unwrap_or_default()).is_some(), cut <= 6);
            assert_eq!(relay_offer(bytes.get(..bytes.len() - cut).unwrap_or_default()), None);
        }
    }
}
