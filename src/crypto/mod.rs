//! The two primitives everything is signed and addressed with: BLAKE2b and Ed25519.

pub mod hash;
pub mod sign;

pub use hash::{Hash, namespace};
pub use sign::{KeyPair, Signature};
