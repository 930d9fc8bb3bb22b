//! The files called `.hdriveignore`: what they say now, and what they said when they could be read last.
//!
//! What such a file hides must not come out by an accident. One that cannot be read says what it said before; if nobody
//! knows that, nothing new is shared from its folder. One that was deleted, emptied or written anew hides what it hid for
//! another [`GRACE`], and while somebody is writing it: editors save by renaming, or empty a file before they fill it. That
//! goes for everything that it said within that time, whatever it says now.

use super::place::{locate, near};
use crate::path::DrivePath;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::borrow::Cow;
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
    /// What the file says, and what it said a moment ago: never none.
    These(Vec<Arc<Gitignore>>),
    /// It cannot be read, with the reason: what it said before.
    Before(Vec<Arc<Gitignore>>, String),
    /// It cannot be read, with the reason, and nobody knows what it says.
    Unknown(String),
}

impl Patterns {
    /// Left out is what any of them leaves out; in is only what all of them take in.
    pub fn say(&self, full: &Path, is_dir: bool) -> Said {
        let of = |patterns: &Arc<Gitignore>| match patterns.matched(full, is_dir) {
            Match::Ignore(_) => Said::Out,
            Match::Whitelist(_) => Said::In,
            Match::None => Said::Nothing,
        };
        let (Self::These(all) | Self::Before(all, _)) = self else { return Said::Nothing };
        let mut said = all.iter().map(of);
        let first = said.next().unwrap_or(Said::Nothing);
        said.fold(first, |so_far, said| match (so_far, said) {
            (Said::Out, _) | (_, Said::Out) => Said::Out,
            (so_far, said) if so_far == said => said,
            _ => Said::Nothing,
        })
    }
}

/// What was read of one file.
#[derive(Debug)]
struct Known {
    /// Nothing if there is no file.
    text: String,
    patterns: Arc<Gitignore>,
    /// What it said before, as long as that counts, each text once.
    earlier: Vec<Earlier>,
    /// Since when somebody writes it.
    open: Option<Instant>,
}

/// What a file does not say any more.
#[derive(Debug)]
struct Earlier {
    text: String,
    patterns: Arc<Gitignore>,
    until: Instant,
    /// The look that is due then was asked for.
    told: bool,
}

impl Known {
    /// What counts, the newest first.
    fn all(&self) -> Vec<Arc<Gitignore>> {
        let earlier = self.earlier.iter().map(|earlier| &earlier.patterns);
        std::iter::once(&self.patterns).chain(earlier).cloned().collect()
    }

    fn is_open(&self, now: Instant) -> bool {
        self.open.is_some_and(|since| now < since + LONGEST_OPEN)
    }

    /// It says this from now on.
    fn turn(&mut self, text: String, patterns: Arc<Gitignore>, now: Instant) {
        let patterns = std::mem::replace(&mut self.patterns, patterns);
        let text = std::mem::replace(&mut self.text, text);
        // What said nothing hides nothing.
        if !text.is_empty() {
            self.earlier.retain(|earlier| earlier.text != text);
            let until = now + GRACE;
            self.earlier.push(Earlier { text, patterns, until, told: false });
        }
    }

    /// All that it said counts for the whole time from now on.
    fn rest(&mut self, now: Instant) {
        for earlier in &mut self.earlier {
            (earlier.until, earlier.told) = (now + GRACE, false);
        }
    }
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
        let read = match (read, all.get(dir)) {
            (Err(why), Some(known)) => return Some(Patterns::Before(known.all(), why)),
            (Err(why), None) => return Some(Patterns::Unknown(why)),
            (Ok(None), None) => return None,
            (Ok(read), _) => read,
        };
        let gone = read.is_none();
        let (patterns, text) =
            read.unwrap_or_else(|| (Arc::new(Gitignore::empty()), String::new()));
        let known = all.entry(dir.clone()).or_insert_with(|| Known {
            text: text.clone(),
            patterns: patterns.clone(),
            earlier: Vec::new(),
            open: None,
        });
        if known.text != text {
            known.turn(text, patterns, now);
        }
        match known.is_open(now) {
            true => known.rest(now),
            false => known.earlier.retain(|earlier| now < earlier.until),
        }
        if gone && known.earlier.is_empty() {
            all.remove(dir);
            return None;
        }
        Some(Patterns::These(known.all()))
    }

    /// Somebody writes the file of `dir`, or is done with it.
    pub fn written(&self, dir: &DrivePath, open: bool, now: Instant) {
        if let Some(known) = crate::lock::lock(&self.0).get_mut(dir) {
            if known.open.is_some() && !open {
                // What is in it now counts from now on.
                known.rest(now);
            }
            known.open = open.then(|| known.open.unwrap_or(now));
        }
    }

    /// When folders have to be looked at again, because a file of theirs has been as it is for long enough.
    pub fn next(&self) -> Option<Instant> {
        let all = crate::lock::lock(&self.0);
        let earlier = all.values().flat_map(|known| &known.earlier);
        earlier.filter(|earlier| !earlier.told).map(|earlier| earlier.until).min()
    }

    /// Those folders; each is told once.
    pub fn take_due(&self, now: Instant) -> Vec<DrivePath> {
        let mut due = Vec::new();
        for (dir, known) in crate::lock::lock(&self.0).iter_mut() {
            let mut is_due = false;
            for earlier in known.earlier.iter_mut().filter(|e| !e.told && e.until <= now) {
                earlier.told = true;
                is_due = true;
            }
            if is_due {
                due.push(dir.clone());
            }
        }
        due
    }
}

/// The text of a file of patterns; none if there is none.
fn read(file: &Path) -> Result<Option<String>, String> {
    let near = near(file);
    let file = near.path();
    // A pipe of this name has nobody who writes into it.
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(file);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match std::fs::symlink_metadata(file) {
                Ok(_) => Err("it is a link that leads nowhere".into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.to_string()),
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
        builder.add_line(None, &without_alternates(line)).map_err(wrong)?;
    }
    builder.build().map(Arc::new).map_err(|error| error.to_string())
}

/// A line in which braces are as plain as they are to git: those who compile it take `{a,b}` for `a` or `b`.
pub fn without_alternates(line: &str) -> Cow<'_, str> {
    if !line.contains(['{', '}']) {
        return line.into();
    }
    let mut plain = String::with_capacity(line.len() + 2);
    // How many characters of a class were read; in one they are plain already.
    let mut in_class = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (in_class, c) {
            (None, '\\') => {
                plain.push(c);
                plain.extend(chars.next());
                continue;
            }
            (None, '{' | '}') => plain.push('\\'),
            (None, '[') => in_class = Some(0),
            (Some(0), '!' | '^') => {}
            // The first one of a class is a member.
            (Some(1..), ']') => in_class = None,
            (Some(n), _) => in_class = Some(n + 1),
            _ => {}
        }
        plain.push(c);
    }
    plain.into()
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
            assert_eq!(place.says("b", start), Some(Said::Out), "it was said a moment ago");
        }
        fs::remove_file(place.file()).unwrap();
        assert_eq!(place.says("a", start), Some(Said::Out));
        assert_eq!(place.1.take_due(start), []);
        assert_eq!(place.1.take_due(start + GRACE), [DrivePath::root()]);
        assert_eq!((place.1.take_due(start + GRACE), place.1.next()), (vec![], None));
        assert_eq!(place.says("a", start + GRACE), None);
    }

    #[test]
    fn a_pattern_that_was_there_for_a_moment_counts_as_long_as_one_that_was_there_for_long() {
        let place = Place::new();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let texts =
            [(0, "old\n"), (10_000, "old\nsecret\n"), (11_000, "old\n"), (11_500, "!secret\n")];
        for (at, text) in texts {
            fs::write(place.file(), text).unwrap();
            place.now(after(at));
        }
        assert_eq!(place.1.next(), Some(after(16_000)));
        for (at, old, secret) in [
            (15_999, Said::Out, Said::Out),
            (16_000, Said::Out, Said::Nothing),
            (16_500, Said::Nothing, Said::In),
        ] {
            assert_eq!(place.says("old", after(at)), Some(old), "{at}");
            assert_eq!(place.says("secret", after(at)), Some(secret), "{at}");
        }
    }

    #[test]
    fn braces_are_plain_as_they_are_to_git() {
        let place = Place::new();
        let now = Instant::now();
        fs::write(place.file(), "{a\n*.{b,c}\n\\{d\n[]{}]e\n[!{]f\n").unwrap();
        let cases = [
            ("{a", true),
            ("a", false),
            ("x.{b,c}", true),
            ("x.b", false),
            ("{d", true),
            ("{e", true),
            ("]e", true),
            ("xe", false),
            ("xf", true),
            ("{f", false),
        ];
        for (name, out) in cases {
            let wanted = if out { Said::Out } else { Said::Nothing };
            assert_eq!(place.says(name, now), Some(wanted), "{name}");
        }
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
