//! A virtual network for tests: machines at addresses, links that delay, lose, reorder and queue, one clock that jumps
//! to the next thing that happens, and all of it replayed from a seed.
//!
//! [`Net`] is the network, [`Machine`] what a test puts into it. What is joined by frames and not by datagrams (the hubs
//! of the replication) has lines of its own, and shares only the [`Agenda`].

mod agenda;
mod link;
mod net;
mod tests;

pub use agenda::Agenda;
pub use link::{Link, LinkConfig, LinkStats};
pub use net::{Datagram, Machine, Net};

use std::time::Instant;

/// Some moment to count virtual time from.
pub fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "only differences to it matter")]
    Instant::now()
}
