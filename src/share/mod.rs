//! Sharing a local folder: its names and contents become a drive's, and stay so.
//!
//! | file | does |
//! |---|---|
//! | `scan`, `meta`, `rules`, `patterns`, `mounts`, `stores`, `place` | what is in the folder, and what of it is shared |
//! | `permit` | whether it is still, when it is read and when it is published |
//! | `root`, `folder` | whether it is still the folder that was shared |
//! | `beneath` | the folder held open, so that it stays the same one from the look at it to the last file |
//! | `errors` | what is tried again when it cannot be looked at or read |
//! | `content` | reads files, and appends what of them the drive lacks |
//! | `import`, `ledger` | bring the drive up to that, and remember of each file what a drive does not hold |
//! | `follow`, `watch`, `pending` | when to look again, and where |
#![allow(clippy::disallowed_methods, reason = "a folder changes in real time")]

pub mod beneath;
pub mod content;
mod errors;
pub mod folder;
pub mod follow;
pub mod import;
pub mod ledger;
mod meta;
pub mod mounts;
pub mod patterns;
mod pending;
pub mod permit;
pub mod place;
pub mod root;
pub mod rules;
pub mod scan;
pub mod stores;
mod watch;
