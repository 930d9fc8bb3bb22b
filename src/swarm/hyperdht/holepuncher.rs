//! The place of the hole puncher in the connect flow.
//!
//! What it will need is here already: the message codecs and sealed payloads ([`super::messages`],
//! [`super::secure_payload`]), the verdict on a NAT ([`super::nat`]), the routing of PEER_HOLEPUNCH
//! ([`super::router`]). Until the probe and punch rounds exist, an attempt ends here with a named error,
//! and a server does not answer PEER_HOLEPUNCH: an error would end a client's race on the local network.
//!
//! Source: hyperdht/lib/holepuncher.js

use super::event::ConnectError;

/// The rounds of probing and punching.
#[derive(Debug)]
pub(super) enum Holepuncher {}

impl Holepuncher {
    /// Ends the attempt.
    pub fn start() -> ConnectError {
        ConnectError::CannotHolepunch
    }
}
