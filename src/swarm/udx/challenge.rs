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

use super::allowance::{Allowance, Challenge, KEPT, NUMBERS, SENT};
use super::packet::HEADER;
use super::stream::Stream;
use super::timer::Timer;
use rand::Rng;

/// Bytes that it sends.
const COST: u64 = (SENT * (HEADER + 1)) as u64;

/// To be left besides, for packets of it that get lost. A first message goes before the question, which would delay it
/// by a round trip; what is needed after that is earned by acknowledgements.
const SPARE: u64 = 100;

impl Stream {
    /// The peer has the keys. From now on it may be asked whether it is there.
    pub(super) fn peer_known(&mut self, rng: &mut impl Rng) {
        self.known = true;
        self.prepare_question(rng);
    }

    /// Each question is another one.
    pub(super) fn prepare_question(&mut self, rng: &mut impl Rng) {
        if self.known && self.question.is_none() {
            self.question = Some(Challenge::new(rng));
        }
    }

    /// The peer is to be asked with the next bytes that are written.
    pub(super) fn ask_soon(&mut self) {
        if let Some(allowance) = &mut self.unproven {
            allowance.due = true;
        }
    }

    /// Whether nobody has shown that the peer is where the stream leads to, and nobody was asked so far.
    pub(super) fn is_to_be_asked(&self) -> bool {
        self.unproven.is_some() && !self.waits_for_answer()
    }

    /// Whether the peer was asked and has not answered.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.asked().is_some()
    }

    fn asked(&self) -> Option<(Challenge, u64)> {
        self.unproven?.asked
    }

    /// Whether it is time to ask and too little may be sent for it. What comes next is to be asked with.
    pub(super) fn waits_to_ask(&self) -> bool {
        let waits = |a: Allowance| a.due && a.asked.is_none() && a.left() < COST + KEPT;
        self.known && self.send.unsent() >= NUMBERS && self.unproven.is_some_and(waits)
    }

    /// Asks the peer, if that must be done before `size` bytes may follow. Its packets then wait to be sent.
    pub(super) fn ask_before(&mut self, size: usize, now: u64) -> bool {
        let first = self.sent.next();
        let Some(allowance) = &mut self.unproven else { return false };
        let left = allowance.left();
        let is_time = left >= COST + KEPT
            && (allowance.due || left < size as u64 + COST + SPARE)
            && self.send.unsent() >= NUMBERS;
        if !is_time || allowance.asked.is_some() {
            return false;
        }
        let Some(challenge) = self.question.take() else { return false };
        allowance.asked = Some((challenge, first));
        if self.sent.is_empty() {
            self.bbr.on_restart(now, self.rate.is_app_limited());
        }
        for (_, sent) in challenge.numbers(first) {
            let offset = self.send.cut(1);
            self.sent.push_byte(offset, sent, now);
        }
        true
    }

    /// The peer is elsewhere. What was asked tells nothing any more.
    pub(super) fn forget_question(&mut self) {
        let Some((challenge, first)) = self.asked() else { return };
        challenge.numbers(first).for_each(|(seq, _)| self.sent.release(seq));
    }

    /// Looks whether the peer has reported all that was sent to it: then it is where the stream leads to.
    pub(super) fn look_for_answer(&mut self) {
        let Some((challenge, first)) = self.asked() else { return };
        let sent = &self.sent;
        if challenge.numbers(first).all(|(seq, shown)| !shown || sent.is_delivered(seq)) {
            tracing::trace!(stream = self.id, "the peer is there");
            self.unproven = None;
            self.newly_proven = true;
            self.timers.clear(Timer::Unproven);
            challenge.numbers(first).for_each(|(seq, _)| self.sent.release(seq));
        }
    }
}
