//! Whether the store is where its last user left it, or a copy that may be older than what was published since.
//!
//! A log that goes on from an older copy forks: other blocks get the numbers of published ones. So a store notes
//! beside its database when that file was last changed, by the file system's own clock (its ctime), which nobody
//! who copies or restores files can set. What is there at the next opening is compared:
//!
//! | the database file | taken for |
//! |---|---|
//! | last changed when the note says; closed in order, or the machine has not been started anew since | the one we left |
//! | left open, the same file (inode and birth), last changed by writing to it; the note is ours, the machine the same since | the one we left: our process was killed |
//! | the same, but the machine was started anew since | [`Doubt::Crashed`] |
//! | the same file, written last when the note says: only its rights changed; the note is ours | as if it had not been touched |
//! | anything else | [`Doubt::Copied`] |
//!
//! "The note is ours" where it was last changed when we wrote it, by the same clock: files that were restored in place
//! (`cp -a backup/. store/`) keep inode, size and modification time, and an old note comes with an old database.
//! Rights that were changed of both files look just like that; then peers are asked, or `--trust-store` tells.
//!
//! A doubt stays in the note until it is [settled](Witness::settle), each under a number of its own, by which
//! single cores that have been looked after are told from others. What no file can show is the rollback of a whole
//! machine or file system to a moment when the store was closed; there only a peer's longer log tells.
//!
//! The note is 107 bytes: version 2, open, doubt (0 to 2), its number\[8\], boot id\[16\], of the database eight
//! times 8 bytes (inode, birth s and ns, change s and ns, size, modification s and ns; little endian), and when the note
//! was written, s and ns. Version 1 ended with the size.

use super::private::FILE;
use crate::codec::{Put, Reader};
use crate::crypto::sign;
use crate::lock::lock;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VERSION: u8 = 2;

/// The note of a store that was left open is ours if it was changed at most so long after the time in it: the longest
/// that a write may be held up.
const NOTE_DELAY: Duration = Duration::from_secs(1);
/// The same after a machine stopped: what was written to the note last may be missing, its time of change not.
const NOTE_LOST: Duration = Duration::from_secs(900);
/// The same where nothing but the note tells a change of rights from a restored copy: a few ticks of the clock.
const NOTE_TICKS: Duration = Duration::from_millis(20);

/// Why a store may be older than what was published from it. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It was not closed in order: the machine stopped. Nothing that was told to anyone should be missing.
    Crashed,
    /// It is a copy, or was restored from one.
    Copied,
}

/// A doubt and its number.
pub type Doubted = (Doubt, u64);

/// See the module.
pub(super) struct Witness {
    database: PathBuf,
    note: Option<File>,
    boot: [u8; 16],
    doubt: Mutex<Option<Doubted>>,
}

/// The database file as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    inode: u64,
    born: (u64, u64),
    changed: (u64, u64),
    size: u64,
    modified: (u64, u64),
}

struct Note {
    open: bool,
    doubt: Option<Doubted>,
    boot: [u8; 16],
    found: Found,
    /// When the note was written.
    written: (u64, u64),
}

impl Witness {
    /// Compares; to be called before the database is opened, and `new` if it has just been made.
    pub(super) fn open(dir: &Path, database: &Path, new: bool) -> Self {
        let path = dir.join("witness");
        let boot = boot_id();
        let note = fs::read(&path).ok().and_then(|bytes| Note::decode(&bytes));
        let doubt = match (new, Found::look(database)) {
            (true, _) => None,
            (false, now) => judge(note.as_ref(), now, Found::look(&path), &boot),
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE);
        let file = options.open(&path);
        if let Err(error) = &file {
            tracing::warn!("{}: {error}", path.display());
        }
        Self { database: database.to_path_buf(), note: file.ok(), boot, doubt: Mutex::new(doubt) }
    }

    pub(super) fn doubt(&self) -> Option<Doubted> {
        *lock(&self.doubt)
    }

    /// The store may be written: somebody who can tell says so.
    pub(super) fn settle(&self) {
        *lock(&self.doubt) = None;
        self.note(true);
    }

    /// Notes how the database is now; after each change of it, and once it is closed.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is compared with what the file system's clock says"
    )]
    pub(super) fn note(&self, open: bool) {
        let (Some(file), Some(found)) = (&self.note, Found::look(&self.database)) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = (now.as_secs(), now.subsec_nanos().into());
        let note = Note { open, doubt: self.doubt(), boot: self.boot, found, written };
        if let Err(error) = file.write_all_at(&note.encode(), 0) {
            // The next opening is in doubt then, which is right.
            tracing::debug!("the witness of the store cannot be written: {error}");
        }
    }
}

/// `now` is the database as it is found, `noted` the file of the note.
fn judge(
    note: Option<&Note>,
    now: Option<Found>,
    noted: Option<Found>,
    boot: &[u8; 16],
) -> Option<Doubted> {
    let number = || u64::from_le_bytes(*sign::random().first_chunk().unwrap_or(&[1; 8]));
    let Some((note, now)) = note.zip(now) else { return Some((Doubt::Crashed, number())) };
    let then = &note.found;
    let runs_on = note.boot == *boot;
    let left = now.changed == then.changed && now.size == then.size;
    let same = (now.inode, now.born) == (then.inode, then.born);
    let is_ours = |delay| noted.is_some_and(|noted| note.is_untouched(&noted, delay));
    // Whoever restores a file sets its time of modification, and so changes it later than that.
    let killed = note.open && same && now.modified == now.changed;
    let rights =
        same && (now.modified, now.size) == (then.modified, then.size) && is_ours(NOTE_TICKS);
    let news = match left || rights {
        true if !note.open || runs_on => return note.doubt,
        true => Doubt::Crashed,
        false if killed && runs_on && is_ours(NOTE_DELAY) => return note.doubt,
        false if killed && !runs_on && is_ours(NOTE_LOST) => Doubt::Crashed,
        false => Doubt::Copied,
    };
    let gravest = note.doubt.map_or(news, |(doubt, _)| doubt.max(news));
    Some((gravest, number()))
}

impl Found {
    fn look(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.unwrap_or_default();
        Some(Self {
            inode: meta.ino(),
            born: (born.as_secs(), born.subsec_nanos().into()),
            changed: (meta.ctime() as u64, meta.ctime_nsec() as u64),
            size: meta.size(),
            modified: (meta.mtime() as u64, meta.mtime_nsec() as u64),
        })
    }
}

impl Note {
    /// Whether the file of the note was last changed by the writing of the note, as far as times tell.
    fn is_untouched(&self, file: &Found, delay: Duration) -> bool {
        let time =
            |(s, ns): (u64, u64)| Duration::from_secs(s).saturating_add(Duration::from_nanos(ns));
        time(file.changed) <= time(self.written).saturating_add(delay)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.open.into()];
        out.push(match self.doubt {
            None => 0,
            Some((Doubt::Crashed, _)) => 1,
            Some((Doubt::Copied, _)) => 2,
        });
        out.put(&self.doubt.map_or(0, |(_, number)| number).to_le_bytes());
        out.put(&self.boot);
        let Found { inode, born, changed, size, modified } = self.found;
        let times = [modified, self.written].into_iter().flat_map(|(s, ns)| [s, ns]);
        for number in [inode, born.0, born.1, changed.0, changed.1, size].into_iter().chain(times) {
            out.put(&number.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let [version, open, doubt] = r.fixed().ok()?;
        let number = |r: &mut Reader| r.fixed().ok().map(u64::from_le_bytes);
        let doubt_number = number(&mut r)?;
        let boot = r.fixed().ok()?;
        let mut pair = || Some((number(&mut r)?, number(&mut r)?));
        let ((inode, born_s), (born_ns, changed_s)) = (pair()?, pair()?);
        let (changed_ns, size) = pair()?;
        let (modified, written) = match version {
            1 => Default::default(),
            _ => (pair()?, pair()?),
        };
        let (born, changed) = ((born_s, born_ns), (changed_s, changed_ns));
        let found = Found { inode, born, changed, size, modified };
        let doubt = match doubt {
            0 => None,
            1 => Some((Doubt::Crashed, doubt_number)),
            _ => Some((Doubt::Copied, doubt_number)),
        };
        let known = (1..=VERSION).contains(&version);
        known.then_some(Self { open: open != 0, doubt, boot, found, written })
    }
}

/// A number that is another after each start of the machine.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    crate::key::unhex(&digits).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("db"), b"1").unwrap();
            Self { dir }
        }

        fn database(&self) -> PathBuf {
            self.dir.path().join("db")
        }

        fn open(&self) -> Witness {
            Witness::open(self.dir.path(), &self.database(), false)
        }

        /// Opened, changed, and left open or closed.
        fn use_it(&self, close: bool) {
            let witness = self.open();
            self.change();
            witness.note(true);
            if close {
                self.change();
                witness.note(false);
            }
        }

        /// A clock tick later, so that the change shows.
        #[expect(
            clippy::disallowed_methods,
            reason = "it is the file system's clock that must move on"
        )]
        fn change(&self) {
            std::thread::sleep(std::time::Duration::from_millis(15));
            let mut options = OpenOptions::new();
            let mut file = options.append(true).open(self.database()).unwrap();
            std::io::Write::write_all(&mut file, b"more").unwrap();
        }

        /// Long after the note was written.
        #[expect(clippy::disallowed_methods, reason = "as above")]
        fn change_rights(&self, mode: u32) {
            use std::os::unix::fs::PermissionsExt;
            std::thread::sleep(4 * NOTE_TICKS);
            fs::set_permissions(self.database(), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn doubt(&self) -> Option<Doubt> {
            self.open().doubt().map(|(doubt, _)| doubt)
        }

        fn edit(&self, change: impl FnOnce(&mut Note)) {
            let path = self.dir.path().join("witness");
            let mut note = Note::decode(&fs::read(&path).unwrap()).unwrap();
            change(&mut note);
            fs::write(path, note.encode()).unwrap();
        }
    }

    #[test]
    fn what_was_left_is_known_again() {
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        for close in [true, false, true] {
            place.use_it(close);
            assert_eq!(place.doubt(), None, "closed: {close}");
        }
        // Closed, and the machine started anew.
        place.edit(|note| note.boot = [1; 16]);
        assert_eq!(place.doubt(), None);
    }

    #[test]
    fn a_machine_that_stopped_is_told_from_a_copy() {
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        place.use_it(false);
        place.edit(|note| note.boot = [1; 16]);
        assert_eq!(place.doubt(), Some(Doubt::Crashed));
        place.change();
        assert_eq!(place.doubt(), Some(Doubt::Crashed));
        // A copy, put back in its place or over what is there.
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        place.use_it(true);
        let old = fs::read(place.database()).unwrap();
        let note = fs::read(place.dir.path().join("witness")).unwrap();
        place.use_it(true);
        for away in [true, false] {
            if away {
                fs::rename(place.database(), place.dir.path().join("away")).unwrap();
            }
            fs::write(place.database(), &old).unwrap();
            fs::write(place.dir.path().join("witness"), &note).unwrap();
            assert!(place.doubt().is_some());
        }
        fs::remove_file(place.dir.path().join("witness")).unwrap();
        assert_eq!(place.doubt(), Some(Doubt::Crashed));
    }

    /// Both files as they are, to be put back in place as `cp -a` does it.
    fn backup(place: &Place) -> impl Fn() {
        let files = [place.database(), place.dir.path().join("witness")].map(|path| {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            (fs::read(&path).unwrap(), modified, path)
        });
        move || {
            for (bytes, modified, path) in &files {
                fs::write(path, bytes).unwrap();
                File::options().write(true).open(path).unwrap().set_modified(*modified).unwrap();
            }
        }
    }

    #[test]
    fn a_copy_that_was_put_back_in_place_is_one() {
        for close in [true, false] {
            let place = Place::new();
            Witness::open(place.dir.path(), &place.database(), true).note(true);
            place.use_it(close);
            let restore = backup(&place);
            // As large as before.
            place.change();
            place.use_it(true);
            restore();
            assert_eq!(place.doubt(), Some(Doubt::Copied), "closed: {close}");
            place.edit(|note| note.boot = [1; 16]);
            assert_eq!(place.doubt(), Some(Doubt::Copied), "closed: {close}, another start");
        }
    }

    #[test]
    fn a_killed_process_and_other_rights_are_no_doubt() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        place.use_it(false);
        // Killed between a change and its note.
        place.change();
        assert_eq!(place.doubt(), None);
        place.use_it(true);
        place.change_rights(0o640);
        assert_eq!(place.doubt(), None);
        // Of both files: nobody can tell that from a copy.
        place.use_it(true);
        place.change_rights(0o600);
        let note = place.dir.path().join("witness");
        fs::set_permissions(note, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(place.doubt(), Some(Doubt::Copied));
    }

    #[test]
    fn a_note_of_the_first_version_is_read() {
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        place.use_it(true);
        let path = place.dir.path().join("witness");
        let mut note = fs::read(&path).unwrap();
        assert_eq!(note.len(), 107);
        note[0] = 1;
        note.truncate(75);
        note.extend([0; 2]);
        fs::write(&path, note).unwrap();
        assert_eq!(place.doubt(), None);
        place.change();
        assert_eq!(place.doubt(), Some(Doubt::Copied));
    }

    #[test]
    fn a_doubt_stays_until_it_is_settled() {
        let place = Place::new();
        Witness::open(place.dir.path(), &place.database(), true).note(true);
        place.use_it(true);
        let copy = fs::read(place.database()).unwrap();
        fs::remove_file(place.database()).unwrap();
        fs::write(place.dir.path().join("other"), b"takes the inode").unwrap();
        fs::write(place.database(), copy).unwrap();
        place.use_it(true);
        place.use_it(true);
        let (doubt, number) = place.open().doubt().unwrap();
        assert_eq!(doubt, Doubt::Copied);
        place.use_it(true);
        assert_eq!(place.open().doubt(), Some((doubt, number)));
        place.open().settle();
        place.use_it(true);
        assert_eq!(place.doubt(), None);
    }
}
