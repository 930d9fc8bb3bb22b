//! x
pub mod handshake;
pub mod messages;
pub mod nat;
pub mod secure_payload;
pub mod signatures;
