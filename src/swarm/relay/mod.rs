//! Blind relays: somebody who passes on the packets of two peers that cannot reach each other, and sees neither keys nor
//! contents.
//!
//! Each of the two makes an ordinary connection to the relay, the *control connection*, and asks there on a channel of its
//! own for the same token. The relay answers both with the id of a *leg*, to which they send from then on; how legs work
//! is told in [`super::udx`]. The leg lives as long as the control connection does, and uses its addresses.
//!
//! | file | what it tracks |
//! |---|---|
//! | `messages` | the bytes of what is said |
//! | `server` | tokens and links of a relay |
//! | `controls` | control connections, ours and those of customers |
//!
//! What follows from it for our own connections is decided in `swarm::relaying`, for customers in `swarm::customers`.

pub mod controls;
pub mod messages;
pub mod server;

#[cfg(test)]
pub fn vectors() -> serde_json::Value {
    let path = format!("{}/tests/vectors/relay.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).expect("the vectors")).expect("JSON")
}
