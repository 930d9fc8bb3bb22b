//! Whole machines in a network of virtual time, and on loopback against the JavaScript reference.

mod flows;
mod interop;
mod liars;
mod sim;
