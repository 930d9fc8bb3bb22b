//! Hyperdrive.
