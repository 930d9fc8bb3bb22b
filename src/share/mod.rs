//! Sharing a local folder: its names and contents become a drive's, and stay so.
//!
//! `scan` says what is in the folder, `import` brings the drive up to that, `follow` says when to look again.
#![allow(clippy::disallowed_methods, reason = "a folder changes in real time")]

pub mod follow;
pub mod import;
pub mod scan;
