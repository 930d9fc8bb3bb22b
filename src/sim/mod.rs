//! Virtual networks for tests: links that delay, lose, reorder and queue, in virtual time and replayed from a seed.

mod link;

pub use link::{Link, LinkConfig, LinkStats};

use std::time::Instant;

/// Some moment to count virtual time from.
pub fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "only differences to it matter")]
    Instant::now()
}
