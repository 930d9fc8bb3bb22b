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
//! It costs one round trip, and at first only where more is to be sent than [`super::allowance`] lets pass unproven. Who
//! reads what goes to the address can answer for it, and so can the victim itself: peers take packets of a stream from
//! anywhere and report them to where *they* have its other end. So the peer is asked again when as much has gone there as
//! had before, 4 MiB at the most, and then data flows on beside the question: the address is unproven again with an
//! allowance that lasts longer than the answer takes on a path that works. Without an answer it comes to an end, and
//! little is sent from then on. So a flow ends soon after nobody takes it any more, whoever acknowledges it. An idle path
//! is never asked.
//!
//! What remains: of 1.8 million guesses, one is right. And a victim whose own stream takes our bytes, for the start of a
//! long frame say, answers for as long as it does; after that it is sent a stretch and an allowance, 4 and 5 MiB, at the
//! most.

use super::allowance::{Again, Allowance, Challenge, NUMBERS, SENT};
use super::packet::HEADER;
use super::recv::MAX_WINDOW;
use super::stream::Stream;
use super::timer::Timer;
use rand::Rng;

/// Bytes that it sends.
const COST: u64 = (SENT * (HEADER + 1)) as u64;

/// To be left besides, for packets of it that get lost. A first message goes before the question, which would delay it
/// by a round trip; what is needed after that is earned by acknowledgements.
const SPARE: u64 = 100;

/// The first time, and later on, the peer is asked again after about so many bytes, and always after the last.
const FIRST_STRETCH: u64 = 64 << 10;
const LAST_STRETCH: u64 = 3 << 20;
const LONGEST_STRETCH: u64 = 4 << 20;

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
            let stretch = self.data_sent.clamp(FIRST_STRETCH, LAST_STRETCH);
            // Nobody knows which packets will be those of the question.
            let from = self.data_sent + stretch * 3 / 4 + rng.random_range(0..stretch / 2);
            let by = (from + stretch).min(self.data_sent + LONGEST_STRETCH);
            self.again = Again { from, by, ..self.again };
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

    /// Whether the peer was asked and has not answered, and nothing else may be sent.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.asked().is_some() && !self.was_proven
    }

    /// Whether a peer was asked again, and nothing new may be sent before it has answered.
    pub(super) fn has_used_up(&self) -> bool {
        let (_, kept) = self.again.allowance();
        self.was_proven && self.unproven.is_some_and(|a| a.asked.is_some() && a.left() < kept)
    }

    /// Notes how much room the peer offers.
    pub(super) fn note_window(&mut self) {
        if self.window >= MAX_WINDOW as u64 {
            self.again.roomy = Some(self.data_sent);
        }
    }

    /// Whether the peer has room for `len` bytes more ahead of a gap, which a loss makes and a question that it has not got
    /// the rest of. To close it takes two round trips, in which it can use nothing and makes no more room; a window is for
    /// one of them. A peer that holds two has lately offered all of one, except for what its owner had not taken yet. Of
    /// others many want memory: they hold no more than they offer, and would have to be sent the rest again
    /// ([`super::recv`]).
    pub(super) fn has_room_ahead(&self, len: u64) -> bool {
        let most = MAX_WINDOW as u64;
        let roomy = self.again.roomy.is_some_and(|at| self.data_sent <= at + most);
        self.waiting() + len <= self.window.saturating_add(if roomy { most } else { 0 })
    }

    /// Asks a peer again that has answered before, if it is time to.
    pub(super) fn doubt(&mut self) {
        let (unsent, cwnd) = (self.send.unsent(), self.bbr.cwnd());
        let late = self.data_sent >= self.again.by || unsent as u64 >= cwnd;
        if self.was_proven
            && self.unproven.is_none()
            && self.data_sent >= self.again.from
            && late
            && unsent >= NUMBERS
            && self.question.is_some()
        {
            let (beside, kept) = self.again.allowance();
            self.unproven = Some(Allowance::new(beside + kept));
            self.ask_soon();
        }
    }

    fn asked(&self) -> Option<(Challenge, u64)> {
        self.unproven?.asked
    }

    /// Whether it is time to ask and too little may be sent for it. What comes next is to be asked with.
    pub(super) fn waits_to_ask(&self) -> bool {
        let waits = |a: Allowance| a.due && a.asked.is_none() && a.left() < COST;
        self.known && self.send.unsent() >= NUMBERS && self.unproven.is_some_and(waits)
    }

    /// Asks the peer, if that must be done before `size` bytes may follow. Its packets then wait to be sent.
    pub(super) fn ask_before(&mut self, size: usize, now: u64) -> bool {
        let first = self.sent.next();
        let Some(allowance) = &mut self.unproven else { return false };
        let left = allowance.left();
        let is_time = left >= COST
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

    /// The packet of the question that is to be sent next; if one is `forced`, the last again.
    pub(super) fn next_of_question(&self, forced: bool) -> Option<u64> {
        let (_, first) = self.asked()?;
        let numbers = first..first + NUMBERS as u64;
        let last = || self.sent.last_in_flight().filter(|seq| forced && numbers.contains(seq));
        self.sent.first_lost_of(numbers.clone()).or_else(last)
    }

    /// There was no answer for long.
    pub(super) fn repeat_question(&mut self) {
        let Some((_, first)) = self.asked() else { return };
        for seq in first..first + NUMBERS as u64 {
            self.sent.mark_lost(seq);
        }
    }

    /// The peer is heard. Nothing new goes out before it has answered, which would tell of what got lost: what it was asked
    /// a round trip and a half ago is sent again.
    pub(super) fn press_question(&mut self, now: u64) {
        let Some((_, first)) = self.asked().filter(|_| !self.was_proven) else { return };
        let Some(rtt) = self.rtt.smoothed() else { return };
        for seq in first..first + NUMBERS as u64 {
            if self.sent.get(seq).is_some_and(|packet| packet.time + rtt * 3 / 2 <= now) {
                self.lose(seq);
            }
        }
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
            self.newly_proven = !self.was_proven || self.is_moving();
            self.was_proven = true;
            self.again.window = self.bbr.cwnd();
            self.forget_path_before();
            self.note_answer();
            self.timers.clear(Timer::Unproven);
            challenge.numbers(first).for_each(|(seq, _)| self.sent.release(seq));
        }
    }
}
