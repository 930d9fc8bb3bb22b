//! Data structures and replication: Hypercore, Hyperbee, Hyperblobs, Hyperdrive.
pub mod core;
pub mod mux;
pub mod replication;
pub mod source;
