//! Data structures and replication: Hypercore, Hyperbee, Hyperblobs, Hyperdrive.

pub mod bee;
pub mod blobs;
pub mod cache;
pub mod core;
pub mod drive;
pub mod flat_tree;
pub mod mux;
pub mod replication;
pub mod session;
pub mod source;
pub mod store;
