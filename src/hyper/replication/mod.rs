//! Replication: what peers tell, ask and answer about cores.

pub mod remote_bitfield;
pub mod wants;
pub mod wire;
