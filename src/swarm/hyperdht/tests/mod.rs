//! Whole machines in a network of virtual time, and on loopback against the JavaScript reference.

mod abuse;
mod access;
mod aside;
mod crowd;
mod floods;
mod flows;
mod guards;
mod interop;
mod liars;
mod sim;
