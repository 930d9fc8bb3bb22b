//! In which order known peers are dialled.

use std::cmp::Reverse;

/// Order of dialling; higher first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    VeryLow,
    Low,
    Normal,
    High,
    VeryHigh,
}

/// A place in the dial queue: those of one priority in random order.
pub(super) type Slot = (Reverse<Priority>, u64);
