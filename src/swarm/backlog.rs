//! The messages that the owner of a connection was given, and is not done with.

use super::secret_stream::frame::FRAME_COST;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub struct Backlog {
    cost: usize,
    /// Their sizes, and how much of the first is consumed.
    given: VecDeque<u32>,
    consumed: usize,
}

impl Backlog {
    /// The owner is given a message of `len` bytes.
    pub fn give(&mut self, len: usize) {
        self.cost += len + FRAME_COST;
        self.given.push_back(len as u32);
    }

    /// The owner is done with `bytes` more, in their order.
    pub fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
        while let Some(&len) = self.given.front()
            && len as usize <= self.consumed
        {
            self.given.pop_front();
            self.consumed -= len as usize;
            self.cost = self.cost.saturating_sub(len as usize + FRAME_COST);
        }
        if self.given.is_empty() {
            // More than there was.
            self.consumed = 0;
        }
    }

    /// What they take, bytes.
    pub fn cost(&self) -> usize {
        self.cost
    }
}
