//! The files called `.hdriveignore`: what they say now, and what they said when they could be read last.
//!
//! What such a file hides must not come out by an accident. One that cannot be read says what it said before; if nobody
//! knows that, nothing new is shared from its folder. One that was deleted, emptied or written anew hides what it hid for
//! another [`GRACE`], and while somebody is writing it: editors save by renaming, or empty a file before they fill it.

use super::place::locate;
use crate::path::DrivePath;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long patterns that are gone still count.
pub const GRACE: Duration = Duration::from_secs(5);
/// A program that keeps the file open for writing is waited for this long.
const LONGEST_OPEN: Duration = Duration::from_secs(60);

/// The file that says what is left out of the folder it lies in.
pub const IGNORE_FILE: &str = ".hdriveignore";

/// What the file of one folder says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Out,
    In,
    Nothing,
}

/// The patterns of one folder.
#[derive(Debug, Clone)]
pub enum Patterns {
    /// The file as it is.
    These(Arc<Gitignore>),
    /// As it is, and as it was a moment ago.
    Both(Arc<Gitignore>, Arc<Gitignore>),
    /// It cannot be read, with the reason: as it was.
    Before(Arc<Gitignore>, String),
    /// It cannot be read, with the reason, and nobody knows what it says.
    Unknown(String),
}

impl Patterns {
    pub fn say(&self, full: &Path, is_dir: bool) -> Said {
        let of = |patterns: &Gitignore| match patterns.matched(full, is_dir) {
            Match::Ignore(_) => Said::Out,
            Match::Whitelist(_) => Said::In,
            Match::None => Said::Nothing,
        };
        match self {
            Self::These(patterns) | Self::Before(patterns, _) => of(patterns),
            Self::Both(now, before) => match (of(now), of(before)) {
                (Said::Out, _) | (_, Said::Out) => Said::Out,
                (now, before) if now == before => now,
                _ => Said::Nothing,
            },
            Self::Unknown(_) => Said::Nothing,
        }
    }
}

/// What was read of one file.
#[derive(Debug)]
struct Known {
    text: String,
    patterns: Arc<Gitignore>,
    change: Option<Change>,
    /// Since when somebody writes it.
    open: Option<Instant>,
}

/// The file is not any more what is known.
#[derive(Debug)]
struct Change {
    text: String,
    until: Instant,
    /// The look that is due then was asked for.
    told: bool,
}

/// Those of all folders of a share, over all looks at it.
#[derive(Debug, Clone, Default)]
pub struct IgnoreFiles(Arc<Mutex<HashMap<DrivePath, Known>>>);

impl IgnoreFiles {
    /// The patterns of the folder `dir` now; none if it has no such file.
    pub fn of(&self, folder: &Path, dir: &DrivePath, now: Instant) -> Option<Patterns> {
        let base = locate(folder, dir);
        let read = read(&base.join(IGNORE_FILE)).and_then(|text| match text {
            Some(text) => Ok(Some((compile(&base, &text)?, text))),
            None => Ok(None),
        });
        let mut all = crate::lock::lock(&self.0);
        let (patterns, text) = match (read, all.get(dir)) {
            (Err(why), Some(known)) => return Some(Patterns::Before(known.patterns.clone(), why)),
            (Err(why), None) => return Some(Patterns::Unknown(why)),
            (Ok(None), None) => return None,
            (Ok(Some((patterns, text))), None) => {
                let known = Known { text, patterns: patterns.clone(), change: None, open: None };
                all.insert(dir.clone(), known);
                return Some(Patterns::These(patterns));
            }
            (Ok(Some((patterns, text))), Some(_)) => (patterns, Some(text)),
            (Ok(None), Some(_)) => (Arc::new(Gitignore::empty()), None),
        };
        let known = all.get_mut(dir)?;
        let is = text.as_deref().unwrap_or_default();
        if is == known.text {
            // The same patterns; an empty file that is gone is forgotten below.
            known.change = None;
            if text.is_some() {
                return Some(Patterns::These(patterns));
            }
        }
        let open = known.open.filter(|since| now < *since + LONGEST_OPEN).is_some();
        let change = match known.change.take() {
            Some(change) if change.text == is && !open => change,
            _ => Change { text: is.to_string(), until: now + GRACE, told: false },
        };
        if now < change.until && !known.text.is_empty() {
            known.change = Some(change);
            return Some(Patterns::Both(patterns, known.patterns.clone()));
        }
        let Some(text) = text else {
            all.remove(dir);
            return None;
        };
        (known.text, known.patterns) = (text, patterns.clone());
        Some(Patterns::These(patterns))
    }

    /// Somebody writes the file of `dir`, or is done with it.
    pub fn written(&self, dir: &DrivePath, open: bool, now: Instant) {
        if let Some(known) = crate::lock::lock(&self.0).get_mut(dir) {
            if known.open.is_some() && !open {
                // What is in it now counts from now on.
                known.change = None;
            }
            known.open = open.then(|| known.open.unwrap_or(now));
        }
    }

    /// When folders have to be looked at again, because a file of theirs has been as it is for long enough.
    pub fn next(&self) -> Option<Instant> {
        let all = crate::lock::lock(&self.0);
        let changes = all.values().filter_map(|known| known.change.as_ref());
        changes.filter(|change| !change.told).map(|change| change.until).min()
    }

    /// Those folders; each is told once.
    pub fn take_due(&self, now: Instant) -> Vec<DrivePath> {
        let mut due = Vec::new();
        for (dir, known) in crate::lock::lock(&self.0).iter_mut() {
            if let Some(change) = known.change.as_mut().filter(|c| !c.told && c.until <= now) {
                change.told = true;
                due.push(dir.clone());
            }
        }
        due
    }
}

/// The text of a file of patterns; none if there is none.
fn read(file: &Path) -> Result<Option<String>, String> {
    // A pipe of this name has nobody who writes into it.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(file);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match std::fs::symlink_metadata(file) {
                Ok(_) => Err("it is a link that leads nowhere".into()),
                Err(_) => Ok(None),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    if !opened.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".into());
    }
    opened.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let is_comment = |line: &[u8]| line.starts_with(b"#");
    for (n, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if std::str::from_utf8(line).is_err() && !is_comment(line) {
            return Err(format!("line {} is not UTF-8", n + 1));
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn compile(base: &Path, text: &str) -> Result<Arc<Gitignore>, String> {
    let mut builder = GitignoreBuilder::new(base);
    // As other editors write it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (n, line) in text.lines().enumerate() {
        let wrong = |error: ignore::Error| format!("line {}: {error}", n + 1);
        builder.add_line(None, line).map_err(wrong)?;
    }
    builder.build().map(Arc::new).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Place(tempfile::TempDir, IgnoreFiles);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap(), IgnoreFiles::default())
        }

        fn file(&self) -> std::path::PathBuf {
            self.0.path().join(IGNORE_FILE)
        }

        fn now(&self, at: Instant) -> Option<Patterns> {
            self.1.of(self.0.path(), &DrivePath::root(), at)
        }

        fn says(&self, name: &str, at: Instant) -> Option<Said> {
            self.now(at).map(|patterns| patterns.say(&self.0.path().join(name), false))
        }
    }

    #[test]
    fn patterns_that_are_gone_count_for_a_while_and_new_ones_at_once() {
        let place = Place::new();
        let start = Instant::now();
        assert!(place.now(start).is_none());
        fs::write(place.file(), "a\n").unwrap();
        assert_eq!(place.says("a", start), Some(Said::Out));
        for gone in [true, false] {
            match gone {
                true => fs::remove_file(place.file()).unwrap(),
                false => fs::write(place.file(), "").unwrap(),
            }
            assert_eq!(place.says("a", start), Some(Said::Out));
            assert_eq!(place.1.next(), Some(start + GRACE));
            fs::write(place.file(), "a\nb\n").unwrap();
            assert_eq!(place.says("a", start), Some(Said::Out));
            assert_eq!(place.says("b", start), Some(Said::Out));
            fs::write(place.file(), "a\n").unwrap();
            assert_eq!(place.says("a", start), Some(Said::Out));
            assert_eq!(place.1.next(), None, "it is back");
        }
        fs::remove_file(place.file()).unwrap();
        assert_eq!(place.says("a", start), Some(Said::Out));
        assert_eq!(place.1.take_due(start), []);
        assert_eq!(place.1.take_due(start + GRACE), [DrivePath::root()]);
        assert_eq!((place.1.take_due(start + GRACE), place.1.next()), (vec![], None));
        assert_eq!(place.says("a", start + GRACE), None);
    }

    #[test]
    fn a_file_that_is_being_written_hides_what_it_hid() {
        let place = Place::new();
        let start = Instant::now();
        fs::write(place.file(), "a\n").unwrap();
        place.now(start);
        fs::write(place.file(), "").unwrap();
        place.1.written(&DrivePath::root(), true, start);
        for after in [0, 6, 20, 50] {
            assert_eq!(place.says("a", start + Duration::from_secs(after)), Some(Said::Out));
        }
        let done = start + Duration::from_secs(55);
        place.1.written(&DrivePath::root(), false, done);
        assert_eq!(place.says("a", done), Some(Said::Out));
        assert_eq!(place.says("a", done + GRACE), Some(Said::Nothing));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_what_it_said_before() {
        let now = Instant::now();
        let broken: [fn(&Path); 4] = [
            |file| fs::write(file, b"a\n\xff\n").unwrap(),
            |file| std::os::unix::fs::symlink("nowhere", file).unwrap(),
            |file| fs::create_dir(file).unwrap(),
            |file| nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        ];
        for (n, make) in broken.into_iter().enumerate() {
            let place = Place::new();
            make(&place.file());
            assert!(matches!(place.now(now), Some(Patterns::Unknown(_))), "{n}");

            let place = Place::new();
            fs::write(place.file(), "a\n").unwrap();
            place.now(now);
            fs::remove_file(place.file()).unwrap();
            make(&place.file());
            let later = now + 100 * GRACE;
            assert!(matches!(place.now(later), Some(Patterns::Before(..))), "{n}");
            assert_eq!(place.says("a", later), Some(Said::Out), "{n}");
        }
        let place = Place::new();
        fs::write(place.file(), b"# caf\xe9\r\na\r\n").unwrap();
        assert_eq!(place.says("a", now), Some(Said::Out), "a comment may say what it likes");
    }
}
