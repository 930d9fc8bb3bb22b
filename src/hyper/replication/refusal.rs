//! Why our core does not take a peer's answer, in the words of replication: false, of another tree, or no fault of the
//! peer's.

use crate::hyper::core::tree::VerifyError;
use crate::hyper::core::{ApplyError, CoreError};

/// Why a proof was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is false.
    Invalid(String),
    /// It is about another fork or an older tree: neither right nor wrong.
    Stale,
    /// It is true, and our own storage would not take its block, for it is full or for another reason.
    Unstored { why: String, full: bool },
    /// An append of ours is under way: later.
    Busy,
    /// Our own storage failed; the peer is not to blame.
    Storage(String),
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Rejected(VerifyError::Fork(_)) => Self::Stale,
            ApplyError::Unstored(error) => {
                Self::Unstored { why: error.to_string(), full: error.is_disk_full() }
            }
            ApplyError::Local(CoreError::Busy) => Self::Busy,
            ApplyError::Local(error) => Self::Storage(error.to_string()),
            other => Self::Invalid(other.to_string()),
        }
    }
}
