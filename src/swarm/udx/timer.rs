//! Why a stream wants to be woken.

/// One reason to wake up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Nothing was acknowledged for a long time: the oldest packet is resent.
    Retransmit,
    /// The tail of a burst may be lost: one packet is sent to provoke an answer.
    TailProbe,
    /// A packet that may merely be late will count as lost.
    Reorder,
    /// The peer's window is closed: ask again.
    ZeroWindow,
    /// What waits may not go to an address that is not proven: ask for an answer, which allows more.
    Unproven,
    /// The peer speaks from elsewhere: the stream may follow.
    Follow,
    /// No answer at the new place: the stream leads back.
    Return,
    /// Nothing was sent for a while.
    KeepAlive,
    /// The pacer allows the next burst.
    Pace,
    /// No answer to a probe for large datagrams.
    SizeProbe,
}

const COUNT: usize = Timer::SizeProbe as usize + 1;
const NEVER: u64 = u64::MAX;

/// The deadlines of a stream, microseconds.
#[derive(Debug)]
pub struct Timers {
    at: [u64; COUNT],
}

impl Default for Timers {
    fn default() -> Self {
        Self { at: [NEVER; COUNT] }
    }
}

impl Timers {
    pub fn set(&mut self, timer: Timer, at: u64) {
        self.at[timer as usize] = at;
    }

    pub fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = NEVER;
    }

    pub fn get(&self, timer: Timer) -> Option<u64> {
        Some(self.at[timer as usize]).filter(|at| *at != NEVER)
    }

    /// Clears the timer and says so if it is due.
    pub fn take_due(&mut self, timer: Timer, now: u64) -> bool {
        let due = self.at[timer as usize] <= now;
        if due {
            self.clear(timer);
        }
        due
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<u64> {
        self.at.iter().copied().min().filter(|at| *at != NEVER)
    }
}
