//! Hypercore: an append-only log of blocks, signed as a Merkle tree.

pub mod encryption;
pub mod manifest;
pub mod message;
pub mod multisig;
pub mod tree;
pub mod verifier;

pub use message::{Proof, Request};
