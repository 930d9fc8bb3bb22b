//! Data structures and replication: Hypercore, Hyperbee, Hyperblobs, Hyperdrive.

pub mod bee;
pub mod blobs;
pub mod cache;
pub mod core;
pub mod draft;
pub mod drive;
pub mod flat_tree;
pub mod local;
pub mod replication;
#[expect(clippy::disallowed_methods, reason = "its waits are those of callers, in real time")]
pub mod session;
pub mod source;
pub mod store;
