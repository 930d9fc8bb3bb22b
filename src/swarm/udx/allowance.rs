//! What may be sent to an address that has not shown that our peer is there, and what the peer is asked there.
//!
//! Where a stream goes is often told by third parties, and the source of a datagram can be forged, also that of one with
//! the right keys. Until the peer has answered a [`Challenge`] (`challenge.rs` puts it), only a few first bytes go out,
//! and three times what came from there: whoever names a victim's address makes us send it hardly more than he could
//! have sent himself. QUIC has the same rule (RFC 9000 §8.1).

use rand::Rng;
use rand::seq::index;

/// Bytes that may be sent for each one received.
const FACTOR: u64 = 3;

/// Packets of a challenge, and how many of them are sent: 2.7 million choices.
pub(super) const NUMBERS: usize = 24;
pub(super) const SENT: usize = NUMBERS / 2;

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

/// What the peer is asked: which of the packets are sent, and the number of the first once they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenge {
    sent: u32,
    pub(super) first: Option<u64>,
}

impl Challenge {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let sent = index::sample(rng, NUMBERS, SENT).into_iter().fold(0, |all, i| all | 1 << i);
        Self { sent, first: None }
    }

    /// The numbers from the first on, and whether each is sent.
    pub(super) fn numbers(self, first: u64) -> impl Iterator<Item = (u64, bool)> {
        (first..).take(NUMBERS).zip(0..).map(move |(seq, i)| (seq, self.sent >> i & 1 == 1))
    }
}
