//! inotify over a tree of folders: one watch a folder, kept up as folders come and go.
//!
//! A folder that cannot be watched (the kernel's limit is reached), or not be looked into to watch what is below, even for
//! a moment, is told to be polled, and nothing else changes. A watch is added before the folder is listed, so that nothing
//! falls between. A folder that is seen at several places, with bind mounts, has one watch, which counts for all of them.
//!
//! Source: inotify(7)

use super::errors::is_gone;
use super::import::is_below;
use super::meta::Meta;
use super::patterns::IGNORE_FILE;
use super::pending::Touch;
use super::place::{drive_path, locate};
use super::rules::{Judge, Rules, Verdict};
use crate::path::DrivePath;
use rustix::fs::CWD;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Instant;
use tokio::io::unix::AsyncFd;

/// Bytes of events taken at a time.
const EVENTS: usize = 1 << 16;

/// What an event says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Touched(DrivePath, Touch),
    /// Events were lost.
    Lost,
    /// The folder at the top was moved, deleted or unmounted.
    Root,
}

/// See the module.
pub(super) struct Watches {
    fd: AsyncFd<OwnedFd>,
    /// Where each is seen: never none.
    paths: HashMap<i32, BTreeSet<DrivePath>>,
    numbers: BTreeMap<DrivePath, i32>,
    /// Folders that are not watched, or below which not everything is.
    polled: BTreeSet<DrivePath>,
    /// Files that something is mounted over.
    files: BTreeSet<DrivePath>,
    /// The limit was met since this was asked last.
    limited: bool,
}

impl Watches {
    /// # Errors
    /// When the kernel gives no more of these.
    pub(super) fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd stays the same file")]
        let fd = AsyncFd::new(fd)?;
        Ok(Self {
            fd,
            paths: HashMap::new(),
            numbers: BTreeMap::new(),
            polled: BTreeSet::new(),
            files: BTreeSet::new(),
            limited: false,
        })
    }

    /// Watches a folder and all below that the rules share.
    pub(super) fn add(&mut self, rules: &Rules, path: &DrivePath) {
        self.add_by(rules, path, &folders_in);
    }

    fn add_by(
        &mut self,
        rules: &Rules,
        path: &DrivePath,
        folders_in: &dyn Fn(&Path, &DrivePath) -> io::Result<Vec<DrivePath>>,
    ) {
        let Ok(mut judge) = rules.begin() else {
            self.polled.insert(path.clone());
            return;
        };
        self.add_mounted_files(rules, &judge, path);
        let mut todo = vec![path.clone()];
        while let Some(path) = todo.pop() {
            let below = match self.add_one(rules, &mut judge, &path) {
                Ok(true) => folders_in(&locate(rules.folder(), &path), &path),
                watched => watched.map(|_| Vec::new()),
            };
            match below {
                Err(error) if !is_gone(&error) => drop(self.polled.insert(path)),
                below => {
                    self.polled.remove(&path);
                    todo.extend(below.unwrap_or_default());
                }
            }
        }
    }

    /// What was mounted over a file is written by other names, in folders of which none may be watched.
    fn add_mounted_files(&mut self, rules: &Rules, judge: &Judge<'_>, path: &DrivePath) {
        let shared = judge.mounts().paths().filter(|full| judge.hidden(full).is_none());
        let files = shared.filter(|full| !Meta::at(CWD, full).is_ok_and(|meta| meta.is_dir()));
        let files = files.filter_map(|full| drive_path(rules.folder(), full));
        self.files.extend(files.filter(|at| is_below(at, path)));
    }

    /// Watches one folder; false if it is none, or not shared.
    fn add_one(
        &mut self,
        rules: &Rules,
        judge: &mut Judge<'_>,
        path: &DrivePath,
    ) -> io::Result<bool> {
        let full = locate(rules.folder(), path);
        let is_shared = judge.hidden(&full).is_none() && {
            let meta = Meta::at(CWD, &full)?;
            meta.is_dir() && judge.judge(path, &full, &meta)? == Verdict::Shared
        };
        if !is_shared {
            return Ok(false);
        }
        let flags = WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        let number = inotify::add_watch(self.fd.get_ref(), full.as_path(), flags);
        let number = number.inspect_err(|error| {
            self.limited |= matches!(*error, Errno::NOSPC | Errno::NOMEM);
        })?;
        self.name(number, path);
        Ok(true)
    }

    /// What is watched as `number` is seen at `path`.
    fn name(&mut self, number: i32, path: &DrivePath) {
        if self.numbers.get(path) != Some(&number) {
            self.unname(path);
            self.numbers.insert(path.clone(), number);
        }
        self.paths.entry(number).or_default().insert(path.clone());
    }

    /// What was watched at `path` is not seen there any more; if it is nowhere else it is not watched any more.
    fn unname(&mut self, path: &DrivePath) {
        let Some(number) = self.numbers.remove(path) else { return };
        let Some(paths) = self.paths.get_mut(&number) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.paths.remove(&number);
            // A deleted folder took its watch along.
            let _ = inotify::remove_watch(self.fd.get_ref(), number);
        }
    }

    /// Forgets a folder and all below.
    fn remove(&mut self, path: &DrivePath) {
        let gone = self.numbers.range(path.clone()..).map(|(at, _)| at);
        let gone = gone.take_while(|at| at.as_str().starts_with(path.as_str()));
        let gone: Vec<DrivePath> = gone.filter(|at| is_below(at, path)).cloned().collect();
        gone.iter().for_each(|at| self.unname(at));
        self.polled.retain(|at| !is_below(at, path));
    }

    /// What has to be looked at now and then.
    pub(super) fn polled(&self) -> Vec<DrivePath> {
        self.polled.iter().chain(&self.files).cloned().collect()
    }

    /// Whether the kernel's limit was met since the last call.
    pub(super) fn take_limited(&mut self) -> bool {
        std::mem::take(&mut self.limited)
    }

    /// Waits for events. None is lost when nobody waits any more.
    pub(super) async fn read(&self) -> io::Result<Vec<Raw>> {
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| read(fd.get_ref())) {
                Ok(raw) => return raw,
                Err(_would_block) => {}
            }
        }
    }

    /// Tells what events say. Folders that came are looked at for it, on a disk that may hang.
    pub(super) fn told(&mut self, rules: &Rules, raw: Vec<Raw>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut came = BTreeSet::new();
        for (number, flags, name) in raw {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                events.push(Event::Lost);
                continue;
            }
            for dir in self.paths.get(&number).cloned().unwrap_or_default() {
                self.understand(
                    rules,
                    (number, dir),
                    flags,
                    name.as_deref(),
                    &mut events,
                    &mut came,
                );
            }
        }
        // Two folders that change places: what left took the watch of what had come already.
        for path in came {
            if !self.numbers.contains_key(&path) && !self.polled.contains(&path) {
                self.add(rules, &path);
            }
        }
        events
    }

    fn understand(
        &mut self,
        rules: &Rules,
        (number, dir): (i32, DrivePath),
        flags: ReadFlags,
        name: Option<&OsStr>,
        events: &mut Vec<Event>,
        came: &mut BTreeSet<DrivePath>,
    ) {
        let itself =
            ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if flags.intersects(itself) {
            if dir.is_root() {
                events.push(Event::Root);
            } else if flags.contains(ReadFlags::UNMOUNT) {
                // What was mounted anew since may look the same, and has no watch.
                events.push(Event::Lost);
            } else if flags.contains(ReadFlags::IGNORED) && self.numbers.get(&dir) == Some(&number)
            {
                self.unname(&dir);
            }
            return;
        }
        let Some(name) = name else {
            // The folder at the top has no other that tells when it can be looked at.
            if dir.is_root() && flags.contains(ReadFlags::ATTRIB) {
                events.push(Event::Touched(dir, Touch::Named));
            }
            return;
        };
        let Some(path) = name.to_str().and_then(|name| dir.join(name).ok()) else {
            // A name that a drive cannot hold: a look at its folder tells it.
            if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                events.push(Event::Touched(dir, Touch::Named));
            }
            return;
        };
        if flags.contains(ReadFlags::ISDIR) {
            if flags.contains(ReadFlags::MOVED_FROM) {
                self.remove(&path);
            }
            if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::ATTRIB) {
                self.add(rules, &path);
            }
            if flags.contains(ReadFlags::MOVED_TO) {
                came.insert(path.clone());
            }
        }
        if path.name() == IGNORE_FILE {
            let open = flags.contains(ReadFlags::MODIFY);
            if let Some(files) = rules.ignore_files()
                && (open || !flags.contains(ReadFlags::ATTRIB))
            {
                files.written(&dir, open, Instant::now());
            }
            self.add(rules, &dir);
            events.push(Event::Touched(dir, Touch::Named));
            return;
        }
        let touch = if flags.contains(ReadFlags::CLOSE_WRITE) {
            Touch::Closed
        } else if flags.contains(ReadFlags::MODIFY) {
            Touch::Written
        } else {
            Touch::Named
        };
        events.push(Event::Touched(path, touch));
    }
}

/// The folders in a folder.
fn folders_in(full: &Path, path: &DrivePath) -> io::Result<Vec<DrivePath>> {
    let mut below = Vec::new();
    for entry in std::fs::read_dir(full)? {
        let entry = entry?;
        let is_dir = match entry.file_type() {
            Err(error) if is_gone(&error) => false,
            kind => kind?.is_dir(),
        };
        let name = entry.file_name();
        below.extend(name.to_str().filter(|_| is_dir).and_then(|name| path.join(name).ok()));
    }
    Ok(below)
}

/// As the kernel says it.
pub(super) type Raw = (i32, ReadFlags, Option<OsString>);

/// The events that are here.
fn read(fd: &OwnedFd) -> io::Result<Vec<Raw>> {
    let mut buf = vec![MaybeUninit::uninit(); EVENTS];
    let mut reader = inotify::Reader::new(fd, &mut buf);
    let mut raw = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name =
                    event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                raw.push((event.wd(), event.events(), name));
            }
            // What is left stays with the kernel until the next call.
            Err(Errno::AGAIN) if !raw.is_empty() => return Ok(raw),
            Err(error) => return Err(error.into()),
        }
        if reader.is_buffer_empty() && !raw.is_empty() {
            return Ok(raw);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::Bind;
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    fn path(name: &str) -> DrivePath {
        DrivePath::from_user(name).unwrap()
    }

    /// What is told until nothing is any more.
    async fn told(watches: &mut Watches, rules: &Rules) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        let pause = Duration::from_millis(200);
        while let Ok(raw) = tokio::time::timeout(pause, watches.read()).await {
            let events = raw.map(|raw| watches.told(rules, raw));
            told.extend(events.unwrap().into_iter().map(|event| match event {
                Event::Touched(path, _) => path.to_string(),
                other => format!("{other:?}"),
            }));
        }
        told
    }

    struct Folder {
        dir: tempfile::TempDir,
        rules: Rules,
        watches: Watches,
    }

    impl Folder {
        fn new(dirs: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            dirs.iter().for_each(|name| fs::create_dir_all(dir.path().join(name)).unwrap());
            let folder = dir.path().canonicalize().unwrap();
            let rules = Rules::of_share(&folder, &[], true, None).unwrap();
            Self { dir, rules, watches: Watches::new().unwrap() }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().canonicalize().unwrap().join(name)
        }

        fn add(&mut self) {
            self.watches.add(&self.rules, &DrivePath::root());
        }

        async fn told(&mut self) -> Vec<String> {
            told(&mut self.watches, &self.rules).await.into_iter().collect()
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_seen_at_two_places_is_told_at_both() {
        let mut f = Folder::new(&["a/deep", "b"]);
        fs::write(f.at("one"), "").unwrap();
        fs::write(f.at("two"), "").unwrap();
        let Some(mount) = Bind::over(&f.at("a"), &f.at("b")) else { return };
        let _file = Bind::over(&f.at("one"), &f.at("two")).unwrap();
        f.add();
        assert_eq!(
            f.watches.polled(),
            [path("/two")],
            "its folder is told of no write to the other"
        );
        fs::write(f.at("a/file"), "1").unwrap();
        fs::write(f.at("b/deep/file"), "1").unwrap();
        let all = ["/a/deep/file", "/a/file", "/b/deep/file", "/b/file"];
        assert_eq!(f.told().await, all);
        fs::create_dir(f.at("a/new")).unwrap();
        assert_eq!(f.told().await, ["/a/new", "/b/new"]);
        fs::write(f.at("b/new/file"), "1").unwrap();
        assert_eq!(f.told().await, ["/a/new/file", "/b/new/file"]);
        // One of them goes.
        drop(mount);
        f.watches.remove(&path("/b"));
        fs::write(f.at("a/deep/file"), "2").unwrap();
        assert_eq!(f.told().await, ["/a/deep/file"]);
        fs::remove_dir_all(f.at("a")).unwrap();
        f.told().await;
        assert_eq!(f.watches.numbers.keys().collect::<Vec<_>>(), [&DrivePath::root()]);
        assert_eq!(f.watches.paths.len(), 1);
    }

    #[tokio::test]
    async fn two_folders_that_change_places_are_watched_at_the_new_ones() {
        let mut f = Folder::new(&["a", "b"]);
        f.add();
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(CWD, f.at("a"), CWD, f.at("b"), flags).unwrap();
        f.told().await;
        fs::write(f.at("a/x"), "1").unwrap();
        fs::write(f.at("b/y"), "1").unwrap();
        assert_eq!(f.told().await, ["/a/x", "/b/y"]);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_into_for_a_moment_is_polled_until_it_can() {
        let mut f = Folder::new(&["new/deep/deeper"]);
        let no_more = |_: &Path, path: &DrivePath| match path.as_str() {
            "/new/deep" => Err(Errno::MFILE.into()),
            _ => folders_in(&locate(f.rules.folder(), path), path),
        };
        f.watches.add_by(&f.rules, &DrivePath::root(), &no_more);
        assert_eq!(f.watches.polled(), [path("/new/deep")]);
        f.watches.add(&f.rules, &path("/new/deep"));
        assert!(f.watches.polled().is_empty());
        fs::write(f.at("new/deep/deeper/file"), "1").unwrap();
        assert_eq!(f.told().await, ["/new/deep/deeper/file"]);
        // One that went meanwhile is not polled for ever.
        f.watches.polled.insert(path("/gone"));
        f.watches.add(&f.rules, &path("/gone"));
        assert!(f.watches.polled().is_empty());
    }
}
