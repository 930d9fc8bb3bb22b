//! How much may be in flight and how fast it leaves: BBR version 1, in bytes and microseconds.
//!
//! [`rate`] turns acknowledgements into samples of the delivery rate, [`bbr`] turns samples into a model of the path
//! (bottleneck bandwidth, round-trip time without queue) and the model into a window and a pacing rate.
//! [`win_filter`] keeps a running maximum or minimum; `ceiling` and `overflow` limit the window by losses
//! where BBR is blind: on local paths, and where a queue overflows that others share; `lumps` widens it
//! where acknowledgements come in lumps; `chance` raises the pace by what a path loses whatever is sent.
//! Nothing of this is visible on the wire.
//!
//! Source: libudx/src/udx_bbr.c, udx_rate.c; draft-cardwell-iccrg-bbr-congestion-control-00

pub mod bbr;
mod ceiling;
mod chance;
mod lumps;
mod overflow;
pub mod rate;
pub mod win_filter;

pub use bbr::Bbr;
pub use rate::{RateSample, RateSampler};
