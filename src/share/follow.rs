//! Which paths of a folder changed, told soon after they did.
//!
//! inotify says what was touched ([`super::watch`]), [`super::pending`] when to look. What cannot be watched is looked at
//! every [`POLL`]. When events were lost, the folder itself became another, or something was mounted or unmounted in it,
//! the word is "everything".

use super::mounts::Mounts;
use super::pending::{MAX_PATHS, Pending};
use super::root::Identity;
use super::rules::Rules;
use super::watch::{Event, Watches};
use crate::path::DrivePath;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Folders without a watch are looked at this often.
pub const POLL: Duration = Duration::from_secs(10);
/// No event tells that something was mounted, or that a missing folder is back: it is looked for this often.
const LOOK: Duration = Duration::from_secs(2);

/// What to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These, and everything below them.
    Paths(Vec<DrivePath>),
    /// The whole folder; `replaced` if it was moved or deleted, whatever is there now.
    Everything { replaced: bool },
}

/// Whose folder it is, and what is mounted in it.
#[derive(PartialEq, Eq)]
struct Place {
    identity: Option<Identity>,
    /// None if nobody knows.
    mounts: Option<Mounts>,
}

/// A running watch; it ends when dropped.
pub struct Follower {
    rules: Rules,
    watches: Option<Watches>,
    pending: Pending,
    place: Place,
    replaced: bool,
    /// What could not be taken in, and when it is tried again.
    again: BTreeSet<DrivePath>,
    next_try: Instant,
    next_look: Instant,
    next_poll: Instant,
    /// Why something is polled; said once.
    problem: Option<String>,
    told: bool,
}

impl Follower {
    /// Starts to watch the folder of `rules` and everything below that they share.
    pub fn new(rules: Rules) -> Self {
        let place = Place::of(rules.folder());
        let now = Instant::now();
        let mut follower = Self {
            rules,
            watches: None,
            pending: Pending::default(),
            place,
            replaced: false,
            again: BTreeSet::new(),
            next_try: now,
            next_look: now + LOOK,
            next_poll: now + POLL,
            problem: None,
            told: false,
        };
        follower.watch();
        follower
    }

    /// What keeps some of the folder from being watched; told once.
    pub fn problem(&mut self) -> Option<String> {
        let limited = self.watches.as_mut().is_some_and(Watches::take_limited);
        if limited {
            self.problem = Some(
                "the kernel's limit of watched folders is reached: raise it with \
                 `sysctl fs.inotify.max_user_watches=1048576`"
                    .into(),
            );
        }
        let problem = self.problem.take().filter(|_| !self.told)?;
        self.told = true;
        Some(format!(
            "not every folder can be watched ({problem}); looking every {} s instead",
            POLL.as_secs()
        ))
    }

    fn watch(&mut self) {
        self.watches = None;
        match Watches::new() {
            Ok(mut watches) => {
                watches.add(&self.rules, &DrivePath::root());
                self.watches = Some(watches);
            }
            Err(error) => self.problem = Some(format!("inotify: {error}")),
        }
    }

    /// Waits until something is to be looked at.
    pub async fn next(&mut self) -> Touched {
        loop {
            if self.pending.is_full() {
                return self.everything();
            }
            let now = Instant::now();
            if let Some(due) = self.pending.next()
                && due <= now
            {
                return Touched::Paths(self.pending.take(now));
            }
            let due = self.rules.ignore_files().map(|files| files.take_due(now));
            if let Some(dirs) = due.filter(|dirs| !dirs.is_empty()) {
                if let Some(watches) = &mut self.watches {
                    dirs.iter().for_each(|dir| watches.add(&self.rules, dir));
                }
                return Touched::Paths(dirs);
            }
            if !self.again.is_empty() && now >= self.next_try {
                if self.again.iter().any(DrivePath::is_root) {
                    return self.everything();
                }
                let again: Vec<DrivePath> = std::mem::take(&mut self.again).into_iter().collect();
                // What kept them from being taken in may have kept them from being watched.
                if let Some(watches) = &mut self.watches {
                    again.iter().take(MAX_PATHS).for_each(|path| watches.add(&self.rules, path));
                }
                return Touched::Paths(again);
            }
            if now >= self.next_look {
                self.next_look = now + LOOK;
                let folder = self.rules.folder().to_path_buf();
                // It may take long, if the disk is a network away.
                let place = tokio::task::spawn_blocking(move || Place::of(&folder)).await;
                if place.is_ok_and(|place| place != self.place) {
                    return self.everything();
                }
            }
            if now >= self.next_poll {
                self.next_poll = now + POLL;
                let polled = self.polled();
                if !polled.is_empty() {
                    return Touched::Paths(polled);
                }
            }
            let mut until = self.next_look.min(self.next_poll);
            if !self.again.is_empty() {
                until = until.min(self.next_try);
            }
            let settled = self.rules.ignore_files().and_then(|files| files.next());
            let until = self.pending.next().into_iter().chain(settled).fold(until, Instant::min);
            let Some(watches) = &mut self.watches else {
                tokio::time::sleep_until(until.into()).await;
                continue;
            };
            match tokio::time::timeout_at(until.into(), watches.next(&self.rules)).await {
                Err(_elapsed) => {}
                Ok(Ok(events)) => {
                    if !self.take(events) {
                        return self.everything();
                    }
                }
                Ok(Err(error)) => {
                    self.problem = Some(format!("inotify: {error}"));
                    self.watches = None;
                }
            }
        }
    }

    /// Which of the paths that were told last somebody closed who could write them.
    pub fn closed(&self) -> &[DrivePath] {
        self.pending.closed()
    }

    /// These were looked at, and so many bytes of some read, which took some time.
    pub fn looked_at(&mut self, paths: &[DrivePath], read: &[(DrivePath, u64)], took: Duration) {
        self.pending.rest(paths, read, took, Instant::now());
    }

    /// These are told once more after a pause, whatever else happens; `replaced` if the look at them was to judge that.
    pub fn again(
        &mut self,
        paths: impl IntoIterator<Item = DrivePath>,
        pause: Duration,
        replaced: bool,
    ) {
        let due = Instant::now() + pause;
        // What waits already is not put off.
        self.next_try = if self.again.is_empty() { due } else { self.next_try.min(due) };
        self.again.extend(paths);
        self.replaced |= replaced;
    }

    /// Takes events; false if everything has to be looked at.
    fn take(&mut self, events: Vec<Event>) -> bool {
        let now = Instant::now();
        let mut complete = true;
        for event in events {
            match event {
                Event::Touched(path, touch) => self.pending.touch(path, touch, now),
                Event::Lost => complete = false,
                Event::Root => {
                    self.replaced = true;
                    complete = false;
                }
            }
        }
        complete
    }

    fn everything(&mut self) -> Touched {
        self.pending.clear();
        self.again.clear();
        self.watch();
        self.place = Place::of(self.rules.folder());
        Touched::Everything { replaced: std::mem::take(&mut self.replaced) }
    }

    /// Folders without a watch; another try is made to watch them.
    fn polled(&mut self) -> Vec<DrivePath> {
        let Some(watches) = &mut self.watches else {
            self.watch();
            return vec![DrivePath::root()];
        };
        let polled = watches.polled();
        for path in polled.iter().take(MAX_PATHS) {
            watches.add(&self.rules, path);
        }
        match polled.len() {
            0..=MAX_PATHS => polled,
            _ => vec![DrivePath::root()],
        }
    }
}

impl Place {
    fn of(folder: &Path) -> Self {
        Self { identity: Identity::of(folder).ok(), mounts: Mounts::below(folder).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn next(follower: &mut Follower) -> Touched {
        tokio::time::timeout(Duration::from_secs(20), follower.next()).await.unwrap()
    }

    async fn paths(follower: &mut Follower, wanted: &[&str]) {
        let mut told = BTreeSet::new();
        while !wanted.iter().all(|path| told.contains(*path)) {
            match next(follower).await {
                Touched::Paths(paths) => told.extend(paths.iter().map(|path| path.to_string())),
                Touched::Everything { .. } => panic!("everything, after {told:?}"),
            }
        }
    }

    fn follow(folder: &Path) -> Follower {
        Follower::new(Rules::of_share(folder, &[], false, None).unwrap())
    }

    #[tokio::test]
    async fn nothing_is_told_of_what_lies_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("shared"), dir.path().join("outside"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        let mut follower = follow(&folder);
        fs::write(outside.join("secret"), "1").unwrap();
        fs::write(folder.join("file"), "2").unwrap();
        assert_eq!(
            next(&mut follower).await,
            Touched::Paths(vec![DrivePath::from_user("/file").unwrap()])
        );
    }

    /// What no event can name is told by a look at the folder.
    #[tokio::test]
    async fn names_that_are_not_utf8_and_the_rights_of_the_folder_are_a_reason_to_look() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let mut follower = follow(dir.path());
        let name = std::ffi::OsStr::from_bytes(b"bad-\xff");
        fs::write(dir.path().join("sub").join(name), "").unwrap();
        paths(&mut follower, &["/sub"]).await;
        let rights = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(dir.path(), rights).unwrap();
        paths(&mut follower, &["/"]).await;
    }

    #[tokio::test]
    async fn folders_that_come_go_and_move_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        let mut follower = follow(dir.path());
        fs::write(at("sub/a"), "1").unwrap();
        fs::write(at("b"), "3").unwrap();
        paths(&mut follower, &["/sub/a", "/b"]).await;
        fs::create_dir_all(at("new/deep")).unwrap();
        paths(&mut follower, &["/new"]).await;
        fs::write(at("new/deep/file"), "x").unwrap();
        paths(&mut follower, &["/new/deep/file"]).await;
        fs::rename(at("new"), at("moved")).unwrap();
        paths(&mut follower, &["/new", "/moved"]).await;
        fs::write(at("moved/deep/file"), "y").unwrap();
        paths(&mut follower, &["/moved/deep/file"]).await;
    }

    #[tokio::test]
    async fn a_folder_that_is_replaced_is_told_and_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let mut follower = follow(&folder);
        fs::rename(&folder, dir.path().join("away")).unwrap();
        assert_eq!(next(&mut follower).await, Touched::Everything { replaced: true });
        fs::create_dir(&folder).unwrap();
        assert!(matches!(next(&mut follower).await, Touched::Everything { .. }));
        fs::write(folder.join("file"), "1").unwrap();
        paths(&mut follower, &["/file"]).await;
    }
}
