//! Data structures and replication: Hypercore, Hyperbee, Hyperblobs, Hyperdrive.
pub mod cache;
pub mod core;
pub mod flat_tree;
pub mod mux;
pub mod replication;
pub mod source;
