//! What is sent to a peer before it has shown itself: the first words of our side go out with the header frame, which
//! saves a round trip. To an address that may be anybody's no more goes than one small frame; the rest waits here.

use crate::codec::FrameBuf;

/// The longest frame that goes out ahead: the openings of two channels.
pub const MAX_EARLY: usize = 256;

#[derive(Debug, Default)]
pub struct Early {
    sent: bool,
    bytes: usize,
    /// What comes behind. Its owner writes it, no peer, and counts its bytes as queued.
    waiting: Vec<FrameBuf>,
}

impl Early {
    /// The frame, if it may go out now; else it waits.
    pub fn pass(&mut self, frame: FrameBuf) -> Option<FrameBuf> {
        if !self.sent && self.waiting.is_empty() && frame.len() <= MAX_EARLY {
            self.sent = true;
            return Some(frame);
        }
        self.bytes += frame.len();
        self.waiting.push(frame);
        None
    }

    /// Whether something went out.
    pub fn is_sent(&self) -> bool {
        self.sent
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What waited, when the peer is there.
    pub fn take(&mut self) -> Vec<FrameBuf> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_small_frame_goes_ahead_and_the_rest_in_order_behind() {
        let frame = |len| FrameBuf::from(&vec![0; len][..]);
        let mut early = Early::default();
        assert!(early.pass(frame(MAX_EARLY)).is_some() && early.is_sent());
        assert!(early.pass(frame(1)).is_none() && early.pass(frame(2)).is_none());
        assert_eq!(early.bytes(), 3);
        assert_eq!(early.take().iter().map(FrameBuf::len).collect::<Vec<_>>(), [1, 2]);
        let mut early = Early::default();
        assert!(early.pass(frame(MAX_EARLY + 1)).is_none() && early.pass(frame(1)).is_none());
        assert!(!early.is_sent() && early.bytes() == MAX_EARLY + 2);
    }
}
