//! How much each stream may hold, so that all together do not hold too much.

use super::recv::MAX_WINDOW;
use super::stream::Stream;

/// What all streams together may hold for their owner, ahead of gaps, and before they are connected. From half of it on
/// each has an equal share of the other half: windows shrink to that, and a stream that holds more takes no data.
pub const MAX_HELD: usize = 128 << 20;

/// What each stream may hold, however many there are: a window that lets a round trip be used.
pub const MIN_SHARE: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Shares {
    /// What all streams hold.
    pub held: usize,
}

impl Shares {
    /// Whether they hold so much that each has a share.
    pub fn is_scarce(&self) -> bool {
        self.held >= MAX_HELD / 2
    }

    /// What each of so many streams may hold.
    pub fn of_each(&self, streams: usize) -> usize {
        if self.is_scarce() {
            (MAX_HELD / 2 / streams.max(1)).clamp(MIN_SHARE, MAX_WINDOW)
        } else {
            MAX_WINDOW
        }
    }

    /// Notes what a stream holds now.
    pub fn count(&mut self, stream: &mut Stream) {
        let held = stream.held();
        self.held = (self.held + held).saturating_sub(std::mem::replace(&mut stream.counted, held));
    }

    /// A stream is gone.
    pub fn uncount(&mut self, stream: &Stream) {
        self.held = self.held.saturating_sub(stream.counted);
    }
}
