//! hdrive: a peer-to-peer drive as a POSIX filesystem.
//!
//! Its floors, which imports point down, are told in `ARCHITECTURE.md`.

pub mod cli;
pub mod codec;
pub mod crypto;
mod descriptors;
pub mod disk;
pub mod fs;
pub mod hyper;
pub mod key;
pub mod lease;
pub mod lock;
pub mod mountinfo;
pub mod mux;
pub mod node;
pub mod path;
#[cfg(test)]
#[path = "../tests/common/reference.rs"]
mod reference;
#[cfg(test)]
#[path = "../tests/common/required.rs"]
mod required;
pub mod share;
#[cfg(test)]
pub mod sim;
pub mod swarm;
pub mod threads;
