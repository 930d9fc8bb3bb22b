//! What may be sent to an address that has not shown that our peer is there.
//!
//! Where a stream goes is often told by third parties, and the source of a datagram can be forged, also that of one with
//! the right keys. Until the peer has answered a [`super::challenge`], only a few first bytes go out, and three times what came from there: whoever names a
//! victim's address makes us send it hardly more than he could have sent himself. QUIC has the same rule (RFC 9000 §8.1).

use super::challenge::Challenge;

/// Bytes that may be sent for each one received.
const FACTOR: u64 = 3;

/// The account of one unproven path, bytes of UDP payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    first: u64,
    sent: u64,
    received: u64,
    /// How the peer is asked whether it is there, once it is known to be our peer.
    pub(super) challenge: Option<Challenge>,
}

impl Allowance {
    /// `first` bytes may be sent before anything comes.
    pub(super) fn new(first: u64) -> Self {
        Self { first, sent: 0, received: 0, challenge: None }
    }

    /// Bytes that may be sent now.
    pub(super) fn left(&self) -> u64 {
        self.first.saturating_add(FACTOR.saturating_mul(self.received)).saturating_sub(self.sent)
    }

    pub(super) fn on_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Something came from the very address that we send to.
    pub(super) fn on_received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Whether anything came from there.
    pub(super) fn is_answered(&self) -> bool {
        self.received > 0
    }
}
