//! Hypercore: an append-only log of blocks, signed as a Merkle tree.

pub mod bitfield;
pub mod manifest;
pub mod message;
pub mod storage;
pub mod tree;

pub use message::{Proof, Request};
