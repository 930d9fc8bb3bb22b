//! What programs that others wrote say of a mount that is written: what passes on the ordinary disk must pass here, but for
//! what a test lists with its reason.
//!
//! Each test is a process of its own in namespaces of its own ([`alone`]), as root, with loopback for a network, a store
//! for itself and a deadline; with it ends all that it started. A suite runs on the mount, and on the disk beside it if
//! something failed there; in the long form always. `SUITES` is how much of the long form there is to be, in per cent: see
//! `scripts/test-long`. Without it a test takes some seconds.
#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

#[path = "../common/mod.rs"]
mod common;

mod alone;
mod cpython;
mod dbench;
mod fio;
mod fsx;
mod ground;
mod model;
mod neighbours;
mod pjdfstest;
mod programs;
mod running;
mod sqlite;
mod stress;
mod unison;

/// How much there is to be done: `short` of it in a test of every day, the asked share of `long` in a long one.
fn share(short: u64, long: u64) -> u64 {
    percent().map_or(short, |percent| short.max(long * percent / 100))
}

/// How much of the long form is asked for; none, it is a test of every day.
fn percent() -> Option<u64> {
    std::env::var("SUITES").ok().map(|asked| asked.parse().expect("SUITES is in per cent"))
}
