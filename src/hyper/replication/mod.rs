//! Replication: what peers tell, ask and answer about cores.

pub mod wire;
