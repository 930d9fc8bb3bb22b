//! hdrive: a peer-to-peer drive as a POSIX filesystem.
//!
//! Imports point down these floors, and sideways only inside a wing:
//!
//! | floor | modules | knows nothing of |
//! |---|---|---|
//! | top | `cli` | – |
//! | joints | `node` (hyper + swarm), `share` (folder to drive), `fs` (drive, through `fs::volume`) | `node`: fuser; `fs`: the swarm |
//! | wings | `hyper` (data, replication) and `swarm` (network) | each other; sockets, except `swarm::driver` |
//! | ground | `codec`, `crypto`, `descriptors`, `disk`, `key`, `lock`, `mountinfo`, `path` | time; async, except `disk`; I/O, except `mountinfo` |

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
pub mod node;
pub mod path;
pub mod share;
#[cfg(test)]
pub mod sim;
pub mod swarm;
