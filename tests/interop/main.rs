//! Both directions against the JavaScript reference, over real sockets on loopback: it writes and we
//! read, we write and it reads. The DHT under all of it is hdrive's own node, except where the name says
//! otherwise.
#![allow(clippy::disallowed_methods, reason = "real processes, real time")]

#[path = "../common/mod.rs"]
mod common;

mod hints;
mod lacking;
mod mount_js;
mod network;
mod share_to_js;
mod space;
mod unannounced;
