//! What peers make us hold: their bitfields, the requests and wants that wait, the channels themselves.
//!
//! Each of these has a bound per core. A peer may share thousands of cores with us, and there may be hundreds of peers,
//! so there is a bound per connection and one for the process as well. What does not fit is not kept: a request gets
//! "no data", blocks that were announced are taken as not there, a channel is refused. Nobody is thrown out for it.

use super::Limits;

/// Bytes that one connection may make us hold, over all its cores.
pub(super) const MAX_HELD_OF_ONE: usize = 32 << 20;
/// Bytes that all connections together may make us hold.
pub(super) const MAX_HELD: usize = 256 << 20;
/// What a connection may always hold, even when others have taken everything: some thousand requests.
pub(super) const FAIR_SHARE: usize = 1 << 20;

/// What a channel costs by itself, about.
pub(super) const CHANNEL: usize = 1024;
/// What a request or want that waits costs with its places in the tables, about.
pub(super) const JOB: usize = 256;
/// What an entry of a small table costs, about.
pub(super) const ENTRY: usize = 64;

/// Bytes that are held for one connection.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Counts a change of what is held for one core of the connection.
    pub fn change(&mut self, total: &mut usize, before: usize, now: usize) {
        self.0 = (self.0 + now).saturating_sub(before);
        *total = (*total + now).saturating_sub(before);
    }

    /// Bytes that the connection may still have held; `total` is what all have.
    pub fn room(&self, total: usize, limits: &Limits) -> usize {
        let own = limits.held_of_one.saturating_sub(self.0);
        let fair = limits.fair_share.saturating_sub(self.0);
        own.min(limits.held.saturating_sub(total).max(fair))
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.0
    }
}
