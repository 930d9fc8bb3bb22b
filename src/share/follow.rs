//! Which paths of a folder changed, told soon after they did.
//!
//! inotify says what was touched ([`super::watch`]), [`super::pending`] when to look. What cannot be watched is looked at
//! every [`POLL`]. When events were lost, the folder itself became another, or something was mounted or unmounted in it,
//! the word is "everything".

use super::mounts::Mounts;
use super::pending::{MAX_PATHS, Pending, Touch};
use super::root::Identity;
use super::rules::Rules;
use super::watch::{Event, Watches};
use crate::disk;
use crate::path::DrivePath;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Folders without a watch are looked at this often.
pub const POLL: Duration = Duration::from_secs(10);
/// No event tells that something was mounted, or that a missing folder is back: it is looked for this often.
const LOOK: Duration = Duration::from_secs(2);

/// A look at everything that only lost events ask for comes this often after the last one, as long as that took: a quarter
/// of the time at most goes into them.
const REST_FACTOR: u32 = 3;
const MAX_REST: Duration = Duration::from_secs(60);

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

/// What came of a call to the disk, and the watches that it was made with.
type Asked = (Watches, Vec<Event>);

/// A running watch; it ends when dropped.
///
/// Whatever asks the disk does so on a thread that may hang with it, and has the watches meanwhile.
pub struct Follower {
    rules: Arc<Rules>,
    watches: Option<Watches>,
    asking: Option<disk::Begun<Asked>>,
    pending: Pending,
    place: Place,
    /// Events were lost.
    lost: bool,
    /// Not before this is everything looked at for that.
    rested: Instant,
    /// It was moved or deleted, which was not told yet, or not to somebody who could judge it.
    moved: bool,
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
    /// Starts to watch the folder of `rules` and everything below that they share. It asks the disk.
    pub fn new(rules: Rules) -> Self {
        let now = Instant::now();
        let mut follower = Self {
            place: Place::of(rules.folder()),
            rules: Arc::new(rules),
            watches: None,
            asking: None,
            pending: Pending::default(),
            lost: false,
            rested: now,
            moved: false,
            replaced: false,
            again: BTreeSet::new(),
            next_try: now,
            next_look: now + LOOK,
            next_poll: now + POLL,
            problem: None,
            told: false,
        };
        let watches = watch(&follower.rules);
        follower.begin(watches);
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

    fn begin(&mut self, watches: io::Result<Watches>) {
        match watches {
            Ok(watches) => self.watches = Some(watches),
            Err(error) => self.end(&error),
        }
    }

    fn end(&mut self, error: &dyn std::fmt::Display) {
        self.problem = Some(format!("inotify: {error}"));
        self.watches = None;
    }

    /// Waits for a call to the disk that was begun, whoever began it.
    async fn asked(&mut self) {
        let Some(asking) = &mut self.asking else { return };
        let asked = asking.await;
        self.asking = None;
        match asked {
            Ok((watches, events)) => {
                self.watches = Some(watches);
                self.take(events);
            }
            Err(error) => self.end(&io::Error::other(error)),
        }
    }

    /// Lets the watches ask the disk. When this is dropped, whoever comes next waits for them.
    async fn ask(&mut self, ask: impl FnOnce(&mut Watches, &Rules) -> Vec<Event> + Send + 'static) {
        self.asked().await;
        let Some(mut watches) = self.watches.take() else { return };
        let rules = self.rules.clone();
        self.asking = Some(disk::begin(move || {
            let events = ask(&mut watches, &rules);
            (watches, events)
        }));
        self.asked().await;
    }

    /// Watches these as well, and all that is in them.
    async fn add(&mut self, paths: Vec<DrivePath>) {
        let add = move |watches: &mut Watches, rules: &Rules| {
            paths.iter().for_each(|path| watches.add(rules, path));
            Vec::new()
        };
        self.ask(add).await;
    }

    /// Takes in what happens, for as long as it is waited for: the kernel keeps only so many events.
    pub async fn listen(&mut self) -> Infallible {
        loop {
            self.take_some().await;
        }
    }

    /// Waits for events and takes them in; for ever if there are none to come.
    async fn take_some(&mut self) {
        self.asked().await;
        let Some(watches) = &self.watches else { return std::future::pending().await };
        match watches.read().await {
            Ok(raw) => self.ask(move |watches, rules| watches.told(rules, raw)).await,
            Err(error) => self.end(&error),
        }
    }

    /// Waits until something is to be looked at.
    pub async fn next(&mut self) -> Touched {
        loop {
            self.asked().await;
            let now = Instant::now();
            if self.moved || self.lost && now >= self.rested {
                return self.everything().await;
            }
            if let Some(due) = self.pending.next()
                && due <= now
            {
                return Touched::Paths(self.pending.take(now));
            }
            let due = self.rules.ignore_files().map(|files| files.take_due(now));
            if let Some(dirs) = due.filter(|dirs| !dirs.is_empty()) {
                self.add(dirs.clone()).await;
                return Touched::Paths(dirs);
            }
            if self.next_try().is_some_and(|next| next <= now) {
                if self.again.iter().any(DrivePath::is_root) {
                    return self.everything().await;
                }
                let again: Vec<DrivePath> = std::mem::take(&mut self.again).into_iter().collect();
                // What kept them from being taken in may have kept them from being watched.
                self.add(again.iter().take(MAX_PATHS).cloned().collect()).await;
                return Touched::Paths(again);
            }
            if now >= self.next_look {
                self.next_look = now + LOOK;
                let rules = self.rules.clone();
                let place = disk::ask(move || Place::of(rules.folder())).await;
                if place.is_ok_and(|place| place != self.place) {
                    return self.everything().await;
                }
            }
            if now >= self.next_poll {
                self.next_poll = now + POLL;
                let polled = self.polled().await;
                if !polled.is_empty() {
                    return Touched::Paths(polled);
                }
            }
            let mut until = self.next_look.min(self.next_poll);
            if self.lost {
                until = until.min(self.rested);
            }
            let settled = self.rules.ignore_files().and_then(|files| files.next());
            let next = [self.pending.next(), settled, self.next_try()];
            let until = next.into_iter().flatten().fold(until, Instant::min);
            let _elapsed = tokio::time::timeout_at(until.into(), self.take_some()).await;
        }
    }

    /// Which of the paths that were told last somebody closed who could write them.
    pub fn closed(&self) -> &[DrivePath] {
        self.pending.closed()
    }

    /// When something is tried again.
    fn next_try(&self) -> Option<Instant> {
        match self.again.iter().any(DrivePath::is_root) {
            _ if self.again.is_empty() => None,
            true => Some(self.next_try.max(self.rested)),
            false => Some(self.next_try),
        }
    }

    /// These were looked at, and so many bytes of some read, which took some time.
    pub fn looked_at(&mut self, paths: &[DrivePath], read: &[(DrivePath, u64)], took: Duration) {
        let now = Instant::now();
        self.pending.rest(paths, read, took, now);
        if paths.iter().any(DrivePath::is_root) {
            self.rested = now + (took * REST_FACTOR).min(MAX_REST);
        }
    }

    /// Files whose content a look at everything leaves alone: they are dear, and were looked at just now.
    pub fn resting(&self) -> BTreeSet<DrivePath> {
        self.pending.resting(Instant::now())
    }

    /// Those of them that changed are looked at when they have rested.
    pub fn later(&mut self, paths: Vec<DrivePath>) {
        let now = Instant::now();
        paths.into_iter().for_each(|path| self.pending.touch(path, Touch::Written, now));
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
        if self.again.len() > MAX_PATHS {
            // One by one they would cost more than the whole folder does.
            self.again = BTreeSet::from([DrivePath::root()]);
        }
        self.replaced |= replaced;
    }

    fn take(&mut self, events: Vec<Event>) {
        let now = Instant::now();
        for event in events {
            match event {
                Event::Touched(path, touch) => self.pending.touch(path, touch, now),
                Event::Lost => self.lost = true,
                Event::Root => (self.moved, self.replaced) = (true, true),
            }
        }
        if self.pending.is_full() {
            self.pending.clear();
            self.lost = true;
        }
    }

    async fn everything(&mut self) -> Touched {
        self.asked().await;
        self.pending.clear();
        self.again.clear();
        (self.lost, self.moved, self.watches) = (false, false, None);
        let rules = self.rules.clone();
        // It is watched before it is looked at.
        let ask = disk::ask(move || (watch(&rules), Place::of(rules.folder()))).await;
        match ask {
            Ok((watches, place)) => {
                self.begin(watches);
                self.place = place;
            }
            Err(error) => self.end(&error),
        }
        Touched::Everything { replaced: std::mem::take(&mut self.replaced) }
    }

    /// Folders without a watch; another try is made to watch them.
    async fn polled(&mut self) -> Vec<DrivePath> {
        self.asked().await;
        let Some(watches) = &self.watches else {
            let rules = self.rules.clone();
            match disk::ask(move || watch(&rules)).await {
                Ok(watches) => self.begin(watches),
                Err(error) => self.end(&error),
            }
            return vec![DrivePath::root()];
        };
        let polled = watches.polled();
        self.add(polled.iter().take(MAX_PATHS).cloned().collect()).await;
        match polled.len() {
            0..=MAX_PATHS => polled,
            _ => vec![DrivePath::root()],
        }
    }
}

fn watch(rules: &Rules) -> io::Result<Watches> {
    let mut watches = Watches::new()?;
    watches.add(rules, &DrivePath::root());
    Ok(watches)
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
        tokio::time::timeout(Duration::from_secs(60), follower.next()).await.unwrap()
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

    /// Whole looks for lost events rest by their cost, whatever else goes on meanwhile.
    #[tokio::test]
    async fn lost_events_are_made_up_for_when_the_last_look_has_rested() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = follow(dir.path());
        // Longer than this test.
        follower.looked_at(&[DrivePath::root()], &[], Duration::from_secs(60));
        follower.take(vec![Event::Lost]);
        fs::write(dir.path().join("file"), "1").unwrap();
        paths(&mut follower, &["/file"]).await;
        follower.looked_at(&[DrivePath::root()], &[], Duration::from_millis(700));
        let looked = Instant::now();
        follower.take(vec![Event::Lost]);
        assert_eq!(next(&mut follower).await, Touched::Everything { replaced: false });
        assert!(looked.elapsed() >= Duration::from_secs(2), "{:?}", looked.elapsed());
        follower.looked_at(&[DrivePath::root()], &[], Duration::from_secs(60));
        follower.take(vec![Event::Root]);
        assert_eq!(next(&mut follower).await, Touched::Everything { replaced: true });
    }

    /// What happens during an import that takes long is not left to the kernel, which keeps only so much.
    #[tokio::test]
    async fn events_are_taken_in_while_something_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = follow(dir.path());
        let names: Vec<_> = (0..400).map(|n| dir.path().join(format!("f{n}"))).collect();
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let rounds = limit.trim().parse::<usize>().unwrap() / names.len() / 2 + 2;
        let churn = async {
            for _ in 0..rounds {
                for name in &names {
                    fs::write(name, "x").unwrap();
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = churn => {}
            never = follower.listen() => match never {},
        }
        assert!(matches!(next(&mut follower).await, Touched::Paths(_)));
    }

    #[tokio::test]
    async fn more_names_than_are_looked_at_one_by_one_are_a_look_at_everything() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = follow(dir.path());
        let names = (0..=MAX_PATHS).map(|n| DrivePath::from_user(&format!("/f{n}")).unwrap());
        follower.again(names, Duration::ZERO, false);
        assert_eq!(next(&mut follower).await, Touched::Everything { replaced: false });
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
