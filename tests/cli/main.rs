//! The whole program as a user meets it: what is typed, what is printed, how it ends, and what bad input and
//! bad peers get. Every process is real; the network is loopback.
//!
//! What bad peers send is tested where it is decoded and judged; here is only what a user sees of it:
//!
//! | a peer sends | tests |
//! |---|---|
//! | a wrong block, a wrong proof, a bad signature | `hub/tests/hostile.rs` (`a_false_block…`, `a_false_signature…`), `core/tree/tests.rs` (`a_changed_proof…`), `liar.rs` here |
//! | a shrinking or absurd length | `hub/tests/hostile.rs` (`a_length_that_shrinks…`, `ranges_of_two_to_the_forty…`) |
//! | endless channels, floods of requests | `hub/tests/hostile.rs` (`endless_channels…`, `a_flood_of_requests…`) |
//! | oversized or truncated frames | `secret_stream/frame.rs` (`a_claimed_length…`, `a_short_frame…`), `mux/frame.rs`, `hub/tests/hostile.rs` (`malformed_frames…`) |
//! | garbage datagrams | `udx/tests/hostile.rs`, `dht_rpc/message.rs`, `hyperdht/tests/liars.rs` (`any_bytes…`), `liar.rs` here |
//! | hostile names and entries | `drive/tests.rs`, `tests/interop/mount_js.rs` |
//!
//! `tests/fuse` has the mount's own: faults of mount points and devices, callers that are killed.
#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

#[path = "../common/mod.rs"]
mod common;

mod backups;
mod beside;
mod callers;
mod commands;
mod copies;
mod covered;
mod daemons;
mod demo;
mod doctor;
mod encrypted;
mod failing;
mod following;
mod fstab;
mod gets;
mod help;
mod hung;
mod input;
mod killed;
mod liar;
mod lifetimes;
mod limits;
mod looking;
mod memory;
mod mounts;
mod moving;
mod neighbours;
mod owners;
mod parallel;
mod paths;
mod peers;
mod private;
mod public;
mod puts;
mod readers;
mod relay;
mod sharing;
mod space;
mod stopped;
mod store;
mod swapped;
mod targets;
mod threads;
mod told;
mod unmounted;
mod users;
mod versions;
mod views;
mod words;
mod writing;
