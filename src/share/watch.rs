//! inotify over a tree of folders: one watch a folder, kept up as folders come and go.
//!
//! A folder that cannot be watched (the kernel's limit is reached, or it cannot be read) is told to be polled, and
//! nothing else changes. A watch is added before the folder is listed, so that nothing falls between.
//!
//! Source: inotify(7)

use super::meta::Meta;
use super::patterns::IGNORE_FILE;
use super::pending::Touch;
use super::place::locate;
use super::rules::{Judge, Rules, Verdict};
use crate::path::DrivePath;
use rustix::fs::CWD;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
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
    paths: HashMap<i32, DrivePath>,
    numbers: BTreeMap<DrivePath, i32>,
    /// Folders that are not watched; what lies below them is not either.
    polled: BTreeSet<DrivePath>,
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
            limited: false,
        })
    }

    /// Watches a folder and all below that the rules share.
    pub(super) fn add(&mut self, rules: &Rules, path: &DrivePath) {
        let Ok(mut judge) = rules.begin() else {
            self.polled.insert(path.clone());
            return;
        };
        let mut todo = vec![path.clone()];
        while let Some(path) = todo.pop() {
            if self.add_one(rules, &mut judge, &path) {
                let Ok(entries) = std::fs::read_dir(locate(rules.folder(), &path)) else {
                    continue;
                };
                let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
                let names = dirs.filter_map(|e| path.join(e.file_name().to_str()?).ok());
                todo.extend(names);
            }
        }
    }

    fn add_one(&mut self, rules: &Rules, judge: &mut Judge<'_>, path: &DrivePath) -> bool {
        let full = locate(rules.folder(), path);
        if judge.hidden(&full).is_some() {
            return false;
        }
        let Ok(meta) = Meta::at(CWD, &full) else { return false };
        if !meta.is_dir() || judge.judge(path, &full, &meta) != Verdict::Shared {
            return false;
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
        match inotify::add_watch(self.fd.get_ref(), full.as_path(), flags) {
            Ok(number) => {
                self.polled.remove(path);
                if let Some(before) = self.paths.insert(number, path.clone()) {
                    self.numbers.remove(&before);
                }
                self.numbers.insert(path.clone(), number);
                true
            }
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(error) => {
                self.limited |= matches!(error, Errno::NOSPC | Errno::NOMEM);
                self.polled.insert(path.clone());
                false
            }
        }
    }

    /// Forgets a folder and all below.
    fn remove(&mut self, path: &DrivePath) {
        let below = format!("{path}/");
        let gone: Vec<(DrivePath, i32)> = self
            .numbers
            .range(path.clone()..)
            .take_while(|(at, _)| at.as_str().starts_with(path.as_str()))
            .filter(|(at, _)| *at == path || at.as_str().starts_with(&below))
            .map(|(at, number)| (at.clone(), *number))
            .collect();
        for (at, number) in gone {
            self.numbers.remove(&at);
            self.paths.remove(&number);
            // A deleted folder took its watch along.
            let _ = inotify::remove_watch(self.fd.get_ref(), number);
        }
        self.polled.retain(|at| at != path && !at.as_str().starts_with(&below));
    }

    /// Folders that have to be looked at now and then.
    pub(super) fn polled(&self) -> Vec<DrivePath> {
        self.polled.iter().cloned().collect()
    }

    /// Whether the kernel's limit was met since the last call.
    pub(super) fn take_limited(&mut self) -> bool {
        std::mem::take(&mut self.limited)
    }

    /// Waits for events and tells what they say.
    pub(super) async fn next(&mut self, rules: &Rules) -> io::Result<Vec<Event>> {
        let raw = loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| read(fd.get_ref())) {
                Ok(raw) => break raw?,
                Err(_would_block) => {}
            }
        };
        let mut events = Vec::new();
        let mut came = BTreeSet::new();
        for (number, flags, name) in raw {
            self.understand(rules, number, flags, name, &mut events, &mut came);
        }
        // Two folders that change places: what left took the watch of what had come already.
        for path in came {
            if !self.numbers.contains_key(&path) && !self.polled.contains(&path) {
                self.add(rules, &path);
            }
        }
        Ok(events)
    }

    fn understand(
        &mut self,
        rules: &Rules,
        number: i32,
        flags: ReadFlags,
        name: Option<OsString>,
        events: &mut Vec<Event>,
        came: &mut BTreeSet<DrivePath>,
    ) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            events.push(Event::Lost);
            return;
        }
        let Some(dir) = self.paths.get(&number).cloned() else { return };
        let itself =
            ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if flags.intersects(itself) {
            if dir.is_root() {
                events.push(Event::Root);
            } else if flags.contains(ReadFlags::UNMOUNT) {
                // What was mounted anew since may look the same, and has no watch.
                events.push(Event::Lost);
            } else if flags.contains(ReadFlags::IGNORED) {
                self.paths.remove(&number);
                self.numbers.remove(&dir);
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

type Raw = (i32, ReadFlags, Option<OsString>);

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
