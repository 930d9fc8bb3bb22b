//! What is concluded from a note and what is found: the rules of [`super`].

use super::note::{Found, Note};
use super::place::{BORROWED_ID, KIND, OVERLAY, Place};
use super::{Doubt, Doubts};
use crate::hyper::core::storage::turn::LastTurn;
use std::time::Duration;

/// The note of a store that was left open is ours, where only times tell, if it was changed at most so long after the
/// time in it: the longest that a write may be held up.
const NOTE_DELAY: Duration = Duration::from_secs(1);
/// The same after a machine stopped: what was written to the note last may be missing, its time of change not. It is
/// synced every two seconds, which may take a while.
const NOTE_LOST: Duration = Duration::from_secs(30);
/// The same where nothing but the note tells a change of rights from a restored copy: a few ticks of the clock.
pub(super) const NOTE_TICKS: Duration = Duration::from_millis(20);

/// Kinds of file system (ext, btrfs, tmpfs, overlay with an id of its own) whose id stays the same. That of others may
/// follow from the number of a device, which is another one when it is mounted again.
const LASTING_IDS: [u64; 4] = [0xef53, 0x9123_683e, 0x0102_1994, OVERLAY];

/// Where the store is looked at.
pub(super) struct Here<'a> {
    pub(super) boot: &'a [u8; 16],
    pub(super) place: Option<Place>,
}

impl Here<'_> {
    /// What it means that the store is on another file system or device than the note says, or may be. An id that does not
    /// last is another one when the same file system is mounted again, and may be when a snapshot is; of a borrowed one
    /// two containers that begin with the same layer have the same, and a device of their own. Devices are compared
    /// within a boot only: later their numbers are given anew.
    fn doubt(&self, note: &Note) -> Option<Doubt> {
        let (then, now) = note.place.zip(self.place)?;
        let same_boot = note.boot == *self.boot;
        let other = |then: u64, now: u64| then != 0 && now != 0 && then != now;
        let other_disk = other(then.device, now.device) || note.open && other(then.disk, now.disk);
        let by_id = (then.kind, then.id) != (now.kind, now.id);
        match now.kind & KIND {
            kind if kind != then.kind & KIND => Some(Doubt::Copied),
            _ if same_boot && other_disk => Some(Doubt::Copied),
            _ if (then.kind | now.kind) & BORROWED_ID != 0 => {
                (by_id || !same_boot).then_some(Doubt::Crashed)
            }
            kind if LASTING_IDS.contains(&kind) => by_id.then_some(Doubt::Copied),
            _ => (by_id && same_boot).then_some(Doubt::Crashed),
        }
    }
}

/// The doubts once it is known what the database holds.
pub(super) fn doubts_by_turn(
    note: &Note,
    turn: Option<LastTurn>,
    doubts: Doubts,
    runs_on: bool,
) -> Doubts {
    // An older version of this program has noted none.
    let Some(noted) = note.turn else { return doubts };
    match turn.is_some_and(|turn| turn.goes_on_from(&noted, !runs_on)) {
        true => doubts,
        false => doubts.and(Doubt::Copied),
    }
}

/// `now` is the database as it is found, `noted` the file of the note.
pub(super) fn judge(
    note: Option<&Note>,
    now: Option<Found>,
    noted: Option<Found>,
    here: &Here<'_>,
) -> Doubts {
    let Some((note, now)) = note.zip(now) else { return Doubts::default().and(Doubt::Crashed) };
    let then = &note.found;
    let runs_on = note.boot == *here.boot;
    let left = now.changed == then.changed && now.size == then.size;
    let same = (now.inode, now.born) == (then.inode, then.born);
    let is_ours = |delay| noted.is_some_and(|noted| note.is_ours(&noted, delay));
    let rights =
        same && (now.modified, now.size) == (then.modified, then.size) && is_ours(NOTE_TICKS);
    // Whoever restores a file sets its time of modification, to an earlier one than it had, and so changes it later than
    // that. So does who changes its rights, which only a note that is surely ours tells from it.
    let by_writing =
        now.modified == now.changed || note.own.is_some() && now.modified >= then.modified;
    let killed = note.open && same && by_writing;
    // Whoever puts a file back changes it later than was noted of any that was there before.
    let time_lost = same && now.changed <= then.changed;
    let news = match left || rights {
        true if !note.open || runs_on => None,
        true => Some(Doubt::Crashed),
        false if killed && runs_on && is_ours(NOTE_DELAY) => None,
        false if killed && !runs_on && is_ours(NOTE_LOST) => Some(Doubt::Crashed),
        false if time_lost && !runs_on => Some(Doubt::Crashed),
        false => Some(Doubt::Copied),
    };
    match news.max(here.doubt(note)) {
        None => note.doubts,
        Some(news) => note.doubts.and(news),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
