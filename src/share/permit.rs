//! Whether names that a look found are shared still: an import may take long, and what `.hdriveignore` says from now on
//! counts for all that was not published yet. So do mounts.

use super::place::locate;
use super::rules::{Judge, Rules};
use crate::path::DrivePath;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Patterns are read again after this, before anything else is read.
const AGE: Duration = Duration::from_millis(100);

/// What the rules say of a name now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Yes,
    /// A look at its folder, which is on its way, tells what becomes of it.
    No,
    /// Nobody knows what is to be left out in its folder: only what is public already may be.
    Known,
    /// It cannot be told what is mounted.
    Unknown,
}

/// See the module.
pub struct Permit<'a> {
    rules: &'a Rules,
    now: RefCell<Option<Now<'a>>>,
}

struct Now<'a> {
    asked: Instant,
    /// None if nobody knows.
    judge: Option<Judge<'a>>,
    folders: HashMap<DrivePath, Allowed>,
}

impl<'a> Permit<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        Self { rules, now: RefCell::new(None) }
    }

    /// From here on the rules are those of this moment.
    pub fn renew(&self) {
        *self.now.borrow_mut() = None;
    }

    /// Asks the rules as they were [`AGE`] ago at the most.
    pub fn ask(&self, path: &DrivePath, is_dir: bool) -> Allowed {
        let mut now = self.now.borrow_mut();
        let old = now.take().filter(|now| now.asked.elapsed() < AGE);
        now.insert(old.unwrap_or_else(|| Now {
            asked: Instant::now(),
            judge: self.rules.begin().ok(),
            folders: HashMap::new(),
        }))
        .ask(self.rules, path, is_dir)
    }
}

impl Now<'_> {
    fn ask(&mut self, rules: &Rules, path: &DrivePath, is_dir: bool) -> Allowed {
        let Some(judge) = &mut self.judge else { return Allowed::Unknown };
        // From the first folder down, as far as they were not asked for before.
        let mut above: Vec<DrivePath> = Vec::new();
        let mut so_far = Allowed::Yes;
        for dir in std::iter::successors(path.parent(), DrivePath::parent) {
            if let Some(known) = self.folders.get(&dir) {
                so_far = *known;
                break;
            }
            above.push(dir);
        }
        for dir in above.into_iter().rev() {
            if so_far != Allowed::No {
                so_far = ask(judge, rules, &dir, true, so_far);
            }
            self.folders.insert(dir, so_far);
        }
        match so_far {
            Allowed::No => Allowed::No,
            so_far => ask(judge, rules, path, is_dir, so_far),
        }
    }
}

/// `above` is what was said of the folder it is in.
fn ask(
    judge: &mut Judge<'_>,
    rules: &Rules,
    path: &DrivePath,
    is_dir: bool,
    above: Allowed,
) -> Allowed {
    let full = locate(rules.folder(), path);
    if judge.hidden(&full).is_some() || judge.is_excluded(path, &full, is_dir) {
        return Allowed::No;
    }
    match path.parent() {
        Some(dir) if judge.is_unknown(&dir) => Allowed::Known,
        _ => above,
    }
}

#[cfg(test)]
mod tests {
    use super::super::patterns::IGNORE_FILE;
    use super::*;
    use std::fs;

    fn path(name: &str) -> DrivePath {
        DrivePath::from_user(name).unwrap()
    }

    #[test]
    fn what_is_left_out_from_now_on_is_not_allowed_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/deep")).unwrap();
        let rules = Rules::of_share(dir.path(), &[], false, None).unwrap();
        let permit = Permit::new(&rules);
        let says = |name: &str| permit.ask(&path(name), false);
        for name in ["/secret", "/a/deep/file", "/a/file"] {
            assert_eq!(says(name), Allowed::Yes);
        }
        fs::write(at(IGNORE_FILE), "secret\ndeep/\n").unwrap();
        permit.renew();
        assert_eq!(says("/secret"), Allowed::No);
        assert_eq!(says("/a/deep/file"), Allowed::No, "its folder is left out");
        assert_eq!(permit.ask(&path("/a/deep"), true), Allowed::No);
        assert_eq!(says("/a/file"), Allowed::Yes);
        fs::write(at("a").join(IGNORE_FILE), b"\xff\n").unwrap();
        std::thread::sleep(AGE);
        assert_eq!(says("/a/file"), Allowed::Known);
        assert_eq!(says("/b"), Allowed::Yes);
    }
}
