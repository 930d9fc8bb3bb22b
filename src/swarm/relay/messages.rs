//! What a peer and a relay say to each other, on a Protomux channel of their own.
//!
//! | kind | message | encoding |
//! |---|---|---|
//! | 0 | pair | uint flags (1: of the one who named the relay), 32 token, uint stream id, uint seq |
//! | 1 | unpair | uint flags, 32 token |
//!
//! Source: blind-relay/index.js:messages

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use crate::codec::{DecodeError, Put, Reader, Result};
use crate::mux::Protocol;

/// Of the channel, whose id is the public key of the peer who comes to the relay.
pub const PROTOCOL: &str = "blind-relay";
pub const PROTOCOLS: &[Protocol] = &[Protocol { name: PROTOCOL, aliases: &[] }];

pub const PAIR: u64 = 0;
pub const UNPAIR: u64 = 1;

/// By what the two halves of a pair find each other.
pub type Token = [u8; 32];

/// Of a peer: "join my stream `id` with that of whoever has the token". Of a relay: "send to `id`, they are joined".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub initiator: bool,
    pub token: Token,
    pub id: u32,
    pub seq: u64,
}

impl Pair {
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        Ok(Self {
            initiator: r.uint()? & 1 != 0,
            token: r.fixed()?,
            id: u32::try_from(r.uint()?).map_err(|_| DecodeError::Invalid("stream id"))?,
            seq: r.uint()?,
        })
    }

    pub fn encode(&self, out: &mut impl Put) {
        out.put_uint(u64::from(self.initiator));
        out.put(&self.token);
        out.put_uint(self.id.into());
        out.put_uint(self.seq);
    }
}

/// The token of an unpair.
pub fn decode_unpair(bytes: &[u8]) -> Result<Token> {
    let mut r = Reader::new(bytes);
    r.uint()?;
    r.fixed()
}

pub fn encode_unpair(token: &Token, out: &mut impl Put) {
    out.put_uint(0);
    out.put(token);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::key::{hex, unhex};
    use crate::swarm::relay::vectors;

    #[test]
    fn messages_are_those_of_the_reference() {
        for case in vectors()["messages"].as_array().unwrap() {
            let token: Token = unhex(case["token"].as_str().unwrap()).unwrap().try_into().unwrap();
            let encoded = unhex(case["encoded"].as_str().unwrap()).unwrap();
            let mut out = Vec::new();
            if case["message"] == "unpair" {
                assert_eq!(decode_unpair(&encoded), Ok(token));
                encode_unpair(&token, &mut out);
            } else {
                let Ok(id) = u32::try_from(case["id"].as_u64().unwrap()) else {
                    assert!(Pair::decode(&encoded).is_err());
                    continue;
                };
                let initiator = case["isInitiator"].as_bool().unwrap();
                let seq = case["seq"].as_u64().unwrap();
                let pair = Pair { initiator, token, id, seq };
                assert_eq!(Pair::decode(&encoded), Ok(pair));
                pair.encode(&mut out);
            }
            assert_eq!(hex(&out), case["encoded"].as_str().unwrap());
        }
    }

    #[test]
    fn what_does_not_decode_there_does_not_decode_here() {
        for case in vectors()["decoding"].as_array().unwrap() {
            let got = Pair::decode(&unhex(case["bytes"].as_str().unwrap()).unwrap());
            let id = case["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let want = id.map(|id| (case["isInitiator"].as_bool().unwrap(), id));
            assert_eq!(got.ok().map(|pair| (pair.initiator, pair.id)), want, "{case}");
        }
    }
}
