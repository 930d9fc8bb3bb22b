//! Which touched paths are due to be looked at, and when: a file once it is closed or quiet, not at each write.
//!
//! What a name stands for (made, moved, deleted) is due shortly after. Contents wait longer: a file that is being written
//! until it has been quiet for a while, one that never is every few seconds, and one that was just imported until it has
//! rested, all the longer the more its import cost.

use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A pause this long after the last event makes a path due, and no pause for this long does as well.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(500);

/// The same for a file that somebody writes and has not closed.
const OPEN_QUIET: Duration = Duration::from_millis(1500);
const OPEN_LONGEST: Duration = Duration::from_secs(4);

/// A file's content rests this long after an import, and as often as long as the import took.
const REST: Duration = Duration::from_secs(2);
const REST_FACTOR: u32 = 10;
const MAX_REST: Duration = Duration::from_secs(60);

/// No disk is taken for slower than this, in bytes a second, when what a file cost has to be told from the cost of a look at
/// everything.
const SLOWEST: f64 = 20e6;

/// More paths than this are looked at as "everything".
pub(super) const MAX_PATHS: usize = 4096;

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// It was made, moved, deleted, or its attributes changed.
    Named,
    /// Its content is being changed.
    Written,
    /// Whoever wrote it closed it.
    Closed,
}

struct Due {
    first: Instant,
    last: Instant,
    open: bool,
    /// Nothing but its content changed.
    content: bool,
    /// Somebody who could write it closed it.
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    paths: BTreeMap<DrivePath, Due>,
    /// Those of the last that were due that were closed.
    closed: Vec<DrivePath>,
    resting: BTreeMap<DrivePath, Instant>,
}

impl Pending {
    pub(super) fn touch(&mut self, path: DrivePath, touch: Touch, now: Instant) {
        let new = Due { first: now, last: now, open: false, content: true, closed: false };
        let due = self.paths.entry(path).or_insert(new);
        due.last = now;
        match touch {
            Touch::Named => due.content = false,
            Touch::Written => due.open = true,
            Touch::Closed => (due.open, due.closed) = (false, true),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.paths.len() > MAX_PATHS
    }

    /// When the next path is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let together = self.together();
        self.paths.iter().map(|(path, due)| self.due(path, due, together)).min()
    }

    /// The paths that are due.
    pub(super) fn take(&mut self, now: Instant) -> Vec<DrivePath> {
        self.resting.retain(|_, until| *until > now);
        let together = self.together();
        let due = self.paths.iter().filter(|(path, due)| self.due(path, due, together) <= now);
        let due: Vec<DrivePath> = due.map(|(path, _)| path.clone()).collect();
        self.closed.clear();
        for path in &due {
            if self.paths.remove(path).is_some_and(|due| due.closed) {
                self.closed.push(path.clone());
            }
        }
        due
    }

    /// Which of the paths that were taken last somebody closed who could write them.
    pub(super) fn closed(&self) -> &[DrivePath] {
        &self.closed
    }

    /// When all paths are due that nobody writes: what is done in a row (a rename, an unpacked archive) is seen in one
    /// step, as far as it does not go on for ever.
    fn together(&self) -> Option<Instant> {
        let ready =
            |(path, due): &(&DrivePath, &Due)| !due.open && self.rested(path, due).is_none();
        let ready = || self.paths.iter().filter(ready).map(|(_, due)| due);
        let last = ready().map(|due| due.last).max()?;
        let first = ready().map(|due| due.first).min()?;
        Some((last + QUIET).min(first + LONGEST))
    }

    /// Everything is looked at: nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.paths.clear();
        self.closed.clear();
    }

    /// These were looked at, and so many bytes of some read, which took some time. Each rests for its own part of it: a
    /// small file that was looked at together with a large one is not to wait for that.
    pub(super) fn rest(
        &mut self,
        paths: &[DrivePath],
        read: &[(DrivePath, u64)],
        took: Duration,
        now: Instant,
    ) {
        let all: u64 = read.iter().map(|(_, bytes)| bytes).sum();
        let whole = paths.iter().any(DrivePath::is_root);
        let rest = |bytes: u64| {
            let mut cost = took.as_secs_f64() * (bytes as f64 / all.max(1) as f64);
            if whole {
                cost = cost.min(bytes as f64 / SLOWEST);
            }
            let rest = Duration::from_secs_f64(cost * f64::from(REST_FACTOR));
            now + rest.clamp(REST, MAX_REST)
        };
        let read: BTreeMap<&DrivePath, u64> = read.iter().map(|(path, n)| (path, *n)).collect();
        let told = paths.iter().map(|path| (path, read.get(path).copied().unwrap_or(0)));
        // In a look at everything none is told by name.
        let found = read.iter().filter(|_| whole).map(|(path, bytes)| (*path, *bytes));
        for (path, bytes) in told.chain(found) {
            self.resting.insert(path.clone(), rest(bytes));
        }
    }

    /// The paths that rest now.
    pub(super) fn resting(&self, now: Instant) -> BTreeSet<DrivePath> {
        let resting = self.resting.iter().filter(|(_, until)| **until > now);
        resting.map(|(path, _)| path.clone()).collect()
    }

    fn due(&self, path: &DrivePath, due: &Due, together: Option<Instant>) -> Instant {
        let at = match together {
            _ if due.open => (due.last + OPEN_QUIET).min(due.first + OPEN_LONGEST),
            Some(together) => together,
            None => due.last + QUIET,
        };
        self.rested(path, due).map_or(at, |rested| at.max(rested))
    }

    /// Until when a path has to rest.
    fn rested(&self, path: &DrivePath, due: &Due) -> Option<Instant> {
        self.resting.get(path).copied().filter(|_| due.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> DrivePath {
        DrivePath::from_user(name).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Runs what happens at these milliseconds and tells when paths were due.
    fn run(events: &[(u64, &str, Touch)], took: Duration) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut pending = Pending::default();
        let mut events = events.iter().peekable();
        let mut told = Vec::new();
        loop {
            let event = events.peek().map(|(at, ..)| start + ms(*at));
            let next = pending.next();
            match (event, next) {
                (Some(event), due) if due.is_none_or(|due| event <= due) => {
                    let (_, name, touch) = events.next().unwrap();
                    pending.touch(path(name), *touch, event);
                }
                (_, Some(due)) => {
                    let paths = pending.take(due);
                    assert!(!paths.is_empty());
                    let at = (due - start).as_millis() as u64;
                    told.extend(paths.iter().map(|path| (at, path.name().to_string())));
                    let read: Vec<_> = paths.iter().map(|path| (path.clone(), 1)).collect();
                    pending.rest(&paths, &read, took, due);
                }
                (None, None) => return told,
                (Some(_), None) => unreachable!("an event comes first"),
            }
        }
    }

    #[test]
    fn a_download_is_looked_at_a_few_times_and_at_once_when_it_is_closed() {
        let mut events = vec![(0, "big", Touch::Named)];
        events.extend((0..1000).map(|i| (i * 10, "big", Touch::Written)));
        events.push((10_000, "big", Touch::Closed));
        let told = run(&events, ms(100));
        assert!(told.len() <= 4, "{told:?}");
        assert!(told.last().unwrap().0 <= 10_500 + 2000, "{told:?}");
        let quick = run(
            &[(0, "f", Touch::Named), (5, "f", Touch::Written), (9, "f", Touch::Closed)],
            ms(1),
        );
        assert_eq!(quick, [(109, "f".to_string())]);
    }

    #[test]
    fn an_open_log_is_looked_at_every_few_seconds() {
        let events: Vec<_> = (0..600).map(|i| (i * 100, "log", Touch::Written)).collect();
        let told = run(&events, ms(1));
        assert!((10..=30).contains(&told.len()), "{} in a minute", told.len());
        // One line, then nothing.
        assert_eq!(run(&[(0, "log", Touch::Written)], ms(1)), [(1500, "log".to_string())]);
    }

    #[test]
    fn what_costs_much_rests_longer_and_names_never_wait_for_it() {
        let closes: Vec<_> = (0..60).map(|i| (i * 1000, "big", Touch::Closed)).collect();
        assert!(run(&closes, Duration::from_secs(3)).len() <= 4);
        let told = run(&[(0, "f", Touch::Closed), (200, "f", Touch::Named)], ms(1));
        assert_eq!(told, [(100, "f".to_string()), (300, "f".to_string())]);
    }

    #[test]
    fn a_small_file_does_not_rest_for_a_large_one() {
        let (start, mut pending) = (Instant::now(), Pending::default());
        let (big, small) = (path("/big"), path("/small"));
        let read = [(big.clone(), 1 << 30), (small.clone(), 10)];
        pending.rest(&[big.clone(), small.clone()], &read, Duration::from_secs(5), start);
        for path in [&big, &small] {
            pending.touch(path.clone(), Touch::Closed, start);
        }
        assert_eq!(pending.take(start + ms(2000)), [small]);
        assert_eq!(pending.take(start + ms(40_000)), []);
        assert_eq!(pending.take(start + ms(50_000)), [big]);
    }

    /// Else each loss of events would read it once more.
    #[test]
    fn what_a_look_at_everything_read_rests_for_what_it_cost_alone() {
        let (start, mut pending) = (Instant::now(), Pending::default());
        let log = path("/log");
        pending.rest(
            &[DrivePath::root()],
            &[(log.clone(), 200_000_000)],
            Duration::from_secs(1),
            start,
        );
        assert!(pending.resting(start + ms(9_900)).contains(&log));
        assert!(!pending.resting(start + ms(10_100)).contains(&log));
        // A long look for a small file.
        pending.rest(
            &[DrivePath::root()],
            &[(log.clone(), 2_000_000)],
            Duration::from_secs(60),
            start,
        );
        assert!(!pending.resting(start + ms(2_100)).contains(&log));
        assert!(pending.resting(start + ms(1_900)).contains(&log));
    }

    #[test]
    fn what_is_done_in_a_row_is_due_in_one_step() {
        let events = ["a", "b", "c", "d"].into_iter().zip([0, 30, 90, 150]);
        let events: Vec<_> = events.map(|(name, at)| (at, name, Touch::Closed)).collect();
        let told = run(&events, ms(1));
        assert!(told.iter().all(|(at, _)| *at == 250), "{told:?}");
    }

    #[test]
    fn both_names_of_a_rename_are_due_together() {
        let told = run(
            &[(0, "a", Touch::Closed), (1000, "a", Touch::Named), (1000, "b", Touch::Named)],
            ms(1),
        );
        assert_eq!(told[1..], [(1100, "a".to_string()), (1100, "b".to_string())]);
    }
}
