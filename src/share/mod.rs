//! Sharing a local folder: its names and contents become a drive's, and stay so.
//!
//! | file | does |
//! |---|---|
//! | `scan`, `rules`, `patterns`, `mounts`, `stores`, `place` | what is in the folder, and what of it is shared |
//! | `root`, `folder` | whether it is still the folder that was shared |
//! | `content`, `beneath` | read files, and append what of them the drive lacks |
//! | `import`, `ledger` | bring the drive up to that, and remember of each file what a drive does not hold |
//! | `follow`, `watch`, `pending` | when to look again, and where |
#![allow(clippy::disallowed_methods, reason = "a folder changes in real time")]

mod beneath;
pub mod content;
pub mod folder;
pub mod follow;
pub mod import;
pub mod ledger;
pub mod mounts;
pub mod patterns;
mod pending;
pub mod place;
pub mod root;
pub mod rules;
pub mod scan;
pub mod stores;
mod watch;
