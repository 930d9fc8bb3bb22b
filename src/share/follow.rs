//! Which paths of a folder changed, told soon after they did.
//!
//! inotify (through `notify`) says what was touched; touched paths are gathered until the folder has been
//! quiet for [`QUIET`], or for [`LONGEST`] at the most while it is not. When the kernel lost events, or
//! there are more paths than are worth naming, the word is "everything".

use super::scan::drive_path;
use crate::path::DrivePath;
use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A pause this long after the last event ends a batch.
const QUIET: Duration = Duration::from_millis(100);
/// A batch is told after this long even if events go on.
const LONGEST: Duration = Duration::from_millis(500);
/// More paths than this in one batch are told as "everything".
const MAX_PATHS: usize = 4096;
/// Events on their way from the watcher; beyond that they are lost and everything is scanned.
const MAX_EVENTS: usize = 65_536;

/// What to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These, and everything below them.
    Paths(Vec<DrivePath>),
    Everything,
}

/// A running watch; it ends when dropped.
pub struct Follower {
    folder: PathBuf,
    events: mpsc::Receiver<Option<Event>>,
    _watcher: RecommendedWatcher,
}

impl Follower {
    /// Starts to watch `folder` and everything below.
    ///
    /// # Errors
    /// When the kernel's limit of watches is reached; the text names the sysctl.
    pub fn new(folder: &Path) -> Result<Self, String> {
        let (to, events) = mpsc::channel(MAX_EVENTS);
        let handler = move |event: notify::Result<Event>| {
            // A full queue or a lost event both end in a scan of everything.
            let event = event.ok().filter(|event| !event.need_rescan());
            if event.as_ref().is_none_or(is_change) {
                let _ = to.try_send(event);
            }
        };
        let explain = |error: notify::Error| match error.kind {
            notify::ErrorKind::MaxFilesWatch => "the kernel's limit of watched folders is \
                reached: raise it with `sysctl fs.inotify.max_user_watches=1048576`"
                .to_string(),
            _ => error.to_string(),
        };
        // A link is shared as a link: what it leads to is nobody's business here.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(handler, config).map_err(explain)?;
        watcher.watch(folder, RecursiveMode::Recursive).map_err(explain)?;
        Ok(Self { folder: folder.to_path_buf(), events, _watcher: watcher })
    }

    /// Waits for the next batch of changes; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Touched> {
        let mut paths = BTreeSet::new();
        let first = self.events.recv().await?;
        let mut everything = !self.gather(first, &mut paths);
        let longest = Instant::now() + LONGEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(longest);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(event)) => everything |= !self.gather(event, &mut paths),
                Ok(None) | Err(_) => break,
            }
        }
        everything |= paths.len() > MAX_PATHS || self.events.capacity() == 0;
        if everything {
            return Some(Touched::Everything);
        }
        Some(Touched::Paths(paths.into_iter().collect()))
    }

    /// Adds the paths of an event; false if they cannot be named.
    fn gather(&self, event: Option<Event>, paths: &mut BTreeSet<DrivePath>) -> bool {
        let Some(event) = event else { return false };
        paths.extend(event.paths.iter().filter_map(|full| drive_path(&self.folder, full)));
        true
    }
}

fn is_change(event: &Event) -> bool {
    !matches!(event.kind, EventKind::Access(access) if !matches!(
        access,
        notify::event::AccessKind::Close(notify::event::AccessMode::Write)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn nothing_is_told_of_what_lies_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("shared"), dir.path().join("outside"));
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("link")).unwrap();
        let mut follower = Follower::new(&folder).unwrap();
        fs::write(outside.join("secret"), "1").unwrap();
        fs::write(folder.join("file"), "2").unwrap();
        let told = tokio::time::timeout(Duration::from_secs(10), follower.next()).await.unwrap();
        assert_eq!(told, Some(Touched::Paths(vec![DrivePath::from_user("/file").unwrap()])));
    }

    #[tokio::test]
    async fn touched_paths_are_told_once_each() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let mut follower = Follower::new(dir.path()).unwrap();
        fs::write(dir.path().join("sub/a"), "1").unwrap();
        fs::write(dir.path().join("sub/a"), "2").unwrap();
        fs::write(dir.path().join("b"), "3").unwrap();
        let mut all = BTreeSet::new();
        while all.len() < 2 {
            match tokio::time::timeout(Duration::from_secs(10), follower.next()).await.unwrap() {
                Some(Touched::Paths(paths)) => all.extend(paths),
                other => panic!("{other:?}"),
            }
        }
        let all: Vec<&str> = all.iter().map(|p| p.as_str()).collect();
        assert_eq!(all, ["/b", "/sub/a"]);
    }
}
