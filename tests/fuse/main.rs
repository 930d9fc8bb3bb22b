//! Mounts on temporary directories over a volume in memory, one file per operation.
//!
//! Without `/dev/fuse` each test says so and passes; with `HDRIVE_REQUIRE_ALL=1` it fails instead.
#![allow(clippy::disallowed_methods, reason = "real mounts, real time")]

mod change;
mod child;
mod common;
mod covered;
mod drive;
mod hang;
mod lookup;
mod mmap;
mod mount;
mod panic;
mod read;
mod readdir;
#[path = "../common/required.rs"]
mod required;
mod reuse;
mod speed;
mod statfs;
mod symlink;
mod user;
mod volume;
mod xattr;
