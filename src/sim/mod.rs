//! A virtual network for tests: machines at addresses, links that delay, lose, reorder and queue, one clock that jumps
//! to the next thing that happens, and all of it replayed from a seed.
//!
//! [`Net`] is the network, [`Machine`] what a test puts into it, on the Internet or behind boxes ([`Nat`]). What is joined by frames and not by datagrams (the hubs
//! of the replication) has lines of its own, and shares only the [`Agenda`].

mod agenda;
mod kind;
mod link;
mod nat;
mod net;
mod tests;
mod topology;

pub use agenda::Agenda;
pub use kind::Kind;
pub use link::{Link, LinkConfig, LinkStats};
pub use nat::{Filter, Nat, NatConfig, Ports};
pub use net::{Datagram, Machine, Net, Outgoing};
pub use topology::{CORE_HOPS, Realm};

use proptest::test_runner::Config;
use std::time::Instant;

/// How many cases proptest runs of a property that does not say how many.
const PROPTEST_CASES: u64 = 256;

/// So many cases of a property that is dearer or cheaper than others. `PROPTEST_CASES` counts for it as for them: twice
/// the usual 256 are twice as many here.
pub fn cases(usual: u32) -> Config {
    let asked = Config::default();
    let cases = u64::from(usual) * u64::from(asked.cases) / PROPTEST_CASES;
    Config { cases: u32::try_from(cases).unwrap_or(u32::MAX).max(1), ..asked }
}

/// Some moment to count virtual time from.
pub fn epoch() -> Instant {
    #[allow(clippy::disallowed_methods, reason = "only differences to it matter")]
    Instant::now()
}
