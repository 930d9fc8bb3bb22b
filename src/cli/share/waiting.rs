//! What of a shared folder waits because the store has no room for it: which names, and what was told of them.

use crate::path::DrivePath;
use std::collections::{BTreeSet, HashSet};

/// Names that are remembered one by one; with more of them, all of the folder is said to wait.
const MAX_NAMES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    names: BTreeSet<DrivePath>,
    /// Those that were told, whether they wait still or are being tried: a try is no reason to tell them again.
    told: BTreeSet<DrivePath>,
    /// The last problem of the whole.
    problem: String,
}

/// What is to be told: one of the names, with the number of the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct New<'a> {
    pub path: &'a DrivePath,
    pub why: &'a str,
    pub more: usize,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// These wait from here on.
    pub fn add<'a>(&mut self, names: impl Iterator<Item = &'a DrivePath>) {
        add(&mut self.names, names);
    }

    /// These wait, each with the reason. What of it was not told yet.
    pub fn take_in<'a>(&mut self, names: &'a [(DrivePath, String)]) -> Option<New<'a>> {
        let told = Under::these(&self.told);
        let mut new = names.iter().filter(|(path, _)| !told.has(path));
        let first = new.next().map(|(path, why)| New { path, why, more: new.count() });
        self.add(names.iter().map(|(path, _)| path));
        add(&mut self.told, names.iter().map(|(path, _)| path));
        first
    }

    /// All of the folder is said to wait.
    pub fn is_whole(&self) -> bool {
        self.names.contains(&DrivePath::root())
    }

    /// These were looked at, and wait no more unless that is said anew. Those that `rested` were not looked at.
    pub fn done(&mut self, looked_at: &Under<'_>, rested: &[DrivePath]) {
        let waits = |path: &DrivePath| !looked_at.has(path) || rested.contains(path);
        self.names.retain(waits);
    }

    /// Whether a problem of the whole is another one than the last.
    pub fn is_new_problem(&mut self, problem: &str) -> bool {
        let new = self.problem != problem;
        self.problem = problem.into();
        new
    }
}

fn add<'a>(to: &mut BTreeSet<DrivePath>, names: impl Iterator<Item = &'a DrivePath>) {
    to.extend(names.cloned());
    if to.len() > MAX_NAMES {
        *to = BTreeSet::from([DrivePath::root()]);
    }
}

/// Some paths, and everything below them.
pub(super) struct Under<'a>(HashSet<&'a DrivePath>);

impl<'a> Under<'a> {
    pub fn these(paths: impl IntoIterator<Item = &'a DrivePath>) -> Self {
        Self(paths.into_iter().collect())
    }

    pub fn has(&self, path: &DrivePath) -> bool {
        self.0.contains(path)
            || std::iter::successors(path.parent(), DrivePath::parent)
                .any(|above| self.0.contains(&above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> Vec<(DrivePath, String)> {
        let path = |n| DrivePath::from_user(&format!("/dir/f{n:06}")).unwrap();
        range.map(|n| (path(n), "full".to_string())).collect()
    }

    #[test]
    fn each_name_that_waits_is_told_once_in_looks_at_parts_and_at_all() {
        let mut waiting = Waiting::default();
        let (one, all) = (names(0..1), names(0..20));
        assert_eq!(waiting.take_in(&one).unwrap().more, 0);
        let new = waiting.take_in(&all).unwrap();
        assert_eq!((new.path, new.more), (&all[1].0, 18));
        for again in [&one, &all, &one] {
            let paths: Vec<_> = again.iter().map(|(path, _)| path.clone()).collect();
            waiting.done(&Under::these(&paths), &[]);
            assert_eq!(waiting.take_in(again), None);
        }
        let all: Vec<_> = all.into_iter().map(|(path, _)| path).collect();
        waiting.done(&Under::these(&all), &all[3..4]);
        assert!(!waiting.is_empty(), "one was left alone");
        waiting.done(&Under::these(&all), &[]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn many_names_take_no_more_room_than_some() {
        let mut waiting = Waiting::default();
        let many = names(0..MAX_NAMES + 10);
        assert_eq!(waiting.take_in(&many).unwrap().more, many.len() - 1);
        assert_eq!(waiting.names.len(), 1);
        assert_eq!(waiting.take_in(&names(MAX_NAMES..2 * MAX_NAMES)), None, "all is said to wait");
        waiting.done(&Under::these(&[many[0].0.clone()]), &[]);
        assert!(!waiting.is_empty(), "only a look at all of it can tell");
        waiting.done(&Under::these(&[DrivePath::root()]), &[]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn what_lies_below_is_under_it() {
        let at = |name: &str| DrivePath::from_user(name).unwrap();
        let paths = [at("/a"), at("/b/c")];
        let under = Under::these(&paths);
        for (path, is_under) in
            [("/a", true), ("/a/x/y", true), ("/ab", false), ("/b", false), ("/b/c/d", true)]
        {
            assert_eq!(under.has(&at(path)), is_under, "{path}");
        }
    }
}
