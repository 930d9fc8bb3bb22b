//! What a peer can do wrong, and how much of it is too much.

use super::wire;
use crate::codec::DecodeError;
use crate::mux::MuxError;

/// A broken rule of the protocol. It is counted against the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error(transparent)]
    Mux(#[from] MuxError),
    #[error("malformed message of type {kind}: {error}")]
    Message { kind: u64, error: DecodeError },
    #[error("does not know the core it opened")]
    Capability,
    #[error("false proof: {0}")]
    Proof(String),
    #[error("answered something that was not asked")]
    Mismatch,
    #[error("sent data for a request that was never made")]
    Unasked,
    #[error("its length shrank from {from} to {to} without a fork")]
    Shrunk { from: u64, to: u64 },
    #[error("its fork went back from {from} to {to}")]
    ForkBack { from: u64, to: u64 },
    #[error("claims {0} blocks")]
    TooLong(u64),
    #[error("{0} invalid requests")]
    InvalidRequests(u32),
    #[error("opened too many channels that nobody has")]
    Openings,
    #[error("does not read what it asks for")]
    NotReading,
}

/// Strikes that end a connection.
pub(super) const MAX_STRIKES: u32 = 4;

impl Violation {
    /// How many strikes it counts; what no mistake explains ends the connection at once.
    pub(super) fn strikes(&self) -> u32 {
        match self {
            Self::Proof(_) | Self::Mismatch | Self::Unasked => 1,
            Self::Shrunk { .. } | Self::ForkBack { .. } => 2,
            _ => MAX_STRIKES,
        }
    }
}

/// Blocks a peer may claim to have: 2^40, 64 PiB of 64 KiB blocks.
pub(super) const MAX_LENGTH: u64 = 1 << 40;

/// Invalid requests of one peer about one core, as in the reference.
pub(super) const MAX_INVALID_REQUESTS: u32 = 64;

const _: () = assert!(MAX_LENGTH > wire::SEGMENT);
