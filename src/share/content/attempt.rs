//! Files that change while they are read: how often each was tried, how long it has to rest before the next time, and what
//! the last reading gave.

use super::super::scan::{Local, Look};
use super::{Stored, TICK, now_ns};
use crate::crypto::hash::Hash;
use bytes::Bytes;
use std::time::Duration;

/// How often a file is read that changes meanwhile.
const ATTEMPTS: u32 = 4;
/// A file that was seen to change must rest so much longer before each further time: who writes it may just be waiting
/// for a processor.
const REST: Duration = Duration::from_millis(80);

/// A file on its way into a group.
pub(super) struct Reading {
    /// Which one of the group.
    pub at: usize,
    /// The file that has its name, as it was found.
    pub found: Look,
    /// What it was before its next reading.
    pub before: Option<Look>,
    /// Readings by now.
    pub tries: u32,
    pub earlier: Option<Box<Earlier>>,
    /// It could not be read the last time.
    pub hindered: bool,
    /// It was made to wait, once, for another file that may hold the same.
    pub waited: bool,
}

/// A reading of a file that changed meanwhile.
pub(super) struct Earlier {
    pub before: Look,
    pub after: Look,
    pub what: Part,
}

/// What was read.
#[derive(PartialEq, Eq)]
pub(super) enum Part {
    Small(Bytes),
    /// So many bytes, with this hash.
    Large(Hash, u64),
}

impl Reading {
    pub fn new(at: usize, local: &Local) -> Self {
        let (before, earlier, hindered) = (None, None, false);
        Self { at, found: local.look(), before, tries: 0, earlier, hindered, waited: false }
    }

    /// It could not be read for a moment's reason; whether it was tried often enough.
    pub fn hinder(&mut self) -> bool {
        self.hindered = true;
        self.failed().is_some()
    }

    /// How long it has to be waited for before the next time.
    pub fn pause(&self) -> Option<Duration> {
        let rest = self.before.and_then(|before| self.unrest(&before));
        rest.max(self.hindered.then_some(REST * self.tries))
    }

    /// It changed meanwhile; what is to be said of it if it was read often enough.
    pub fn failed(&mut self) -> Option<Stored> {
        self.tries += 1;
        (self.tries >= ATTEMPTS).then_some(Stored::Unsteady)
    }

    /// For how long it has to stay as it is before it is read; none if it has rested.
    pub fn unrest(&self, before: &Look) -> Option<Duration> {
        let rest = (TICK + REST * self.tries).as_nanos() as i64;
        let left = rest - now_ns().saturating_sub(before.stamp.ctime_ns);
        // It is older, or the clock of the filesystem is ahead.
        (1..=rest).contains(&left).then(|| Duration::from_nanos(left as u64))
    }
}

impl Earlier {
    /// Whether a file that does nothing but grow was read again and held the same: then it was no mixture. One that is
    /// written over and over may look the same twice, and be one.
    pub fn is_confirmed_by(&self, now: &Self) -> bool {
        let looks = [&self.before, &self.after, &now.before, &now.after];
        let one = looks.iter().all(|look| look.stamp.file == self.before.stamp.file);
        let sizes = looks.map(|look| look.size);
        let grows = sizes.is_sorted() && sizes[0] < sizes[3];
        one && grows
            && match (&self.what, &now.what) {
                (Part::Small(then), Part::Small(now)) => now.starts_with(then),
                (then, now) => then == now,
            }
    }
}
