//! Encrypted, framed messages over a byte stream.
//!
//! A connection's keys come out of a Noise handshake ([`noise`]) that HyperDHT runs inside its own
//! requests. What travels in the stream is, each way, one header frame and then message frames:
//!
//! ```text
//! header frame   38 00 00 ‖ stream id of the sender (32) ‖ secretstream header (24)
//! message frame  uint24le(n) ‖ n bytes of ciphertext,  n = plaintext + 17
//! ```
//!
//! [`frame`] cuts and joins the frames, [`cipher`] is libsodium's secretstream under them. [`unordered`] seals messages that
//! travel beside the stream.
//! Nothing here knows of sockets, streams or time.
//!
//! Source: @hyperswarm/secret-stream/index.js, sodium-secretstream/index.js

pub mod cipher;
pub mod frame;
pub mod noise;
pub mod secretbox;
pub mod unordered;

/// The reference's transcripts for this layer.
#[cfg(test)]
pub(crate) fn vectors() -> serde_json::Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/swarm.json"));
    serde_json::from_str(text).unwrap()
}
