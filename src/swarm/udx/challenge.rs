//! Whether the peer gets what is sent to an address.
//!
//! Acknowledgements of UDX carry numbers alone, and numbers are counted up from 0: whoever cannot see what goes to an
//! address can still acknowledge it. What he cannot know is which packets were never sent. So of the next
//! [`NUMBERS`] packets of the stream, of one byte each, half are held back at random. The peer has to report exactly the
//! others, as it does of itself with every gap. Then the address is proven, and those held back follow, as if lost.
//! Who reports one that was not sent has not seen what was.
//!
//! Any peer answers this, for to it that is a lossy path. But peers of the network (libudx of udx-native 1.20.0 to 1.21.2)
//! look for what to report only until they passed as many missing numbers as they hold packets. What they would never
//! report is not asked, see `allowance.rs`.
//!
//! It costs one round trip, once, and only where more is to be sent than [`super::allowance`] lets pass unproven. What
//! remains: who reads what goes to the address can answer for it; and of 1.8 million guesses, one is right.

use super::allowance::{Challenge, KEPT, NUMBERS, SENT};
use super::packet::HEADER;
use super::stream::Stream;
use super::timer::Timer;
use rand::Rng;

/// Bytes that it sends.
const COST: u64 = (SENT * (HEADER + 1)) as u64;

/// To be left besides, for packets of it that get lost. It is asked while there is so much, for what is sent before does
/// not come back where acknowledgements get lost.
const SPARE: u64 = 350;

impl Stream {
    /// The peer has the keys. From now on it may be asked whether it is there.
    pub(super) fn peer_known(&mut self, rng: &mut impl Rng) {
        if let Some(allowance) = &mut self.unproven
            && allowance.challenge.is_none()
        {
            allowance.challenge = Some(Challenge::new(rng));
        }
    }

    /// Whether the peer was asked and has not answered.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.asked().is_some()
    }

    fn asked(&self) -> Option<(Challenge, u64)> {
        let challenge = self.unproven?.challenge?;
        Some((challenge, challenge.first?))
    }

    /// Asks the peer, if that must be done before `size` bytes may follow. Its packets then wait to be sent.
    pub(super) fn ask_before(&mut self, size: usize, now: u64) -> bool {
        let first = self.sent.next();
        let Some(allowance) = &mut self.unproven else { return false };
        let left = allowance.left();
        let Some(challenge) = allowance.challenge.as_mut().filter(|_| {
            left >= COST + KEPT
                && left < size as u64 + COST + SPARE
                && self.send.unsent() >= NUMBERS
        }) else {
            return false;
        };
        challenge.first = Some(first);
        let challenge = *challenge;
        if self.sent.is_empty() {
            self.bbr.on_restart(now, self.rate.is_app_limited());
        }
        for (_, sent) in challenge.numbers(first) {
            let offset = self.send.cut(1);
            self.sent.push_byte(offset, sent, now);
        }
        true
    }

    /// Looks whether the peer has reported all that was sent to it: then it is where the stream leads to.
    pub(super) fn look_for_answer(&mut self) {
        let Some((challenge, first)) = self.asked() else { return };
        let sent = &self.sent;
        if challenge.numbers(first).all(|(seq, shown)| !shown || sent.is_delivered(seq)) {
            tracing::trace!(stream = self.id, "the peer is there");
            self.unproven = None;
            self.timers.clear(Timer::Unproven);
            challenge.numbers(first).for_each(|(seq, _)| self.sent.release(seq));
        }
    }
}
