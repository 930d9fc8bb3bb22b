//! Sealed hole punch payloads, and the token that proves an address.
//!
//! nonce (24, random) ‖ XSalsa20-Poly1305 secretbox: MAC (16) ‖ ciphertext. The key comes out of the
//! handshake, so a relay can neither read nor change what passes through it.
//!
//! Source: hyperdht/lib/secure-payload.js

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use super::messages::HolepunchPayload;
use crate::crypto::hash;
use crate::swarm::secret_stream::secretbox::{self, NONCE};
use std::net::Ipv4Addr;

/// Seals and opens the payloads of one connection attempt.
pub struct SecurePayload {
    shared: [u8; 32],
    local: [u8; 32],
}

impl SecurePayload {
    /// `shared` is the holepunch secret of the handshake, `local` 32 random bytes.
    pub fn new(shared: [u8; 32], local: [u8; 32]) -> Self {
        Self { shared, local }
    }

    /// What we ask the peer to send back from `host`, to know that it receives there.
    pub fn token(&self, host: &Ipv4Addr) -> [u8; 32] {
        hash::keyed(&self.local, &[host.to_string().as_bytes()])
    }

    pub fn seal(&self, payload: &HolepunchPayload, nonce: [u8; NONCE]) -> Vec<u8> {
        let sealed = secretbox::seal(&self.shared, &nonce, &payload.encode());
        [&nonce[..], &sealed].concat()
    }

    /// The payload, if it was sealed with the same secret.
    pub fn open(&self, sealed: &[u8]) -> Option<HolepunchPayload> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        HolepunchPayload::decode(&secretbox::open(&self.shared, nonce, sealed)?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::swarm::dht_rpc::testing::{bytes, bytes32, vectors};
    use proptest::prelude::*;

    #[test]
    fn sealing_matches_the_vector() {
        let all = vectors();
        let v = &all["holepunch_secure_payload"];
        let local = bytes32(&v["token"]["localSecret"]).unwrap();
        let secure = SecurePayload::new(bytes32(&v["secret"]).unwrap(), local);
        let payload = HolepunchPayload::decode(&bytes(&v["plain"])).unwrap();
        let sealed = secure.seal(&payload, bytes(&v["nonce"]).try_into().unwrap());
        assert_eq!(sealed, bytes(&v["encoded"]));
        assert_eq!(secure.open(&sealed), Some(payload));
        let host = v["token"]["host"].as_str().unwrap().parse().unwrap();
        assert_eq!(Some(secure.token(&host)), bytes32(&v["token"]["token"]));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_noticed(at in 0..59usize, bit in 0..8u8) {
            let all = vectors();
            let v = &all["holepunch_secure_payload"];
            let secure = SecurePayload::new(bytes32(&v["secret"]).unwrap(), [0; 32]);
            let mut sealed = bytes(&v["encoded"]);
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(secure.open(&sealed), None);
        }

        #[test]
        fn any_bytes_open_to_nothing(data in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert_eq!(SecurePayload::new([1; 32], [2; 32]).open(&data), None);
        }
    }
}
