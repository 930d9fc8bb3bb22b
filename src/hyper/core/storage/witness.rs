//! Whether the store is where its last user left it, or a copy that may be older than what was published since.
//!
//! A log that goes on from an older copy forks: other blocks get the numbers of published ones. So a store notes
//! beside its database when that file was last changed, by the file system's own clock (its ctime), which nobody
//! who copies or restores files can set. What is there at the next opening is compared:
//!
//! | the database file | taken for |
//! |---|---|
//! | last changed when the note says; closed in order, or the machine has not been started anew since | the one we left |
//! | the same file (inode and birth), changed since or left open by a machine that stopped | [`Doubt::Crashed`] |
//! | another file, or closed in order and written since | [`Doubt::Copied`] |
//!
//! A doubt stays in the note until it is [settled](Witness::settle), each under a number of its own, by which
//! single cores that have been looked after are told from others. What no file can show is the rollback of a whole
//! machine or file system to a moment when the store was closed; there only a peer's longer log tells.
//!
//! The note is 77 bytes: version 1, open, doubt (0 to 2), its number\[8\], boot id\[16\], and of the database
//! six times 8 bytes (inode, birth s and ns, change s and ns, size; little endian) and 2 bytes 0.

use super::private::FILE;
use crate::codec::{Put, Reader};
use crate::crypto::sign;
use crate::lock::lock;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

const VERSION: u8 = 1;

/// Why a store may be older than what was published from it. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It was open when the machine stopped. Nothing that was told to anyone should be missing.
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
}

struct Note {
    open: bool,
    doubt: Option<Doubted>,
    boot: [u8; 16],
    found: Found,
}

impl Witness {
    /// Compares; to be called before the database is opened, and `new` if it has just been made.
    pub(super) fn open(dir: &Path, database: &Path, new: bool) -> Self {
        let path = dir.join("witness");
        let boot = boot_id();
        let note = fs::read(&path).ok().and_then(|bytes| Note::decode(&bytes));
        let doubt = match (new, Found::look(database)) {
            (true, _) => None,
            (false, now) => judge(note.as_ref(), now, &boot),
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
    pub(super) fn note(&self, open: bool) {
        let (Some(file), Some(found)) = (&self.note, Found::look(&self.database)) else { return };
        let note = Note { open, doubt: self.doubt(), boot: self.boot, found };
        if let Err(error) = file.write_all_at(&note.encode(), 0) {
            // The next opening is in doubt then, which is right.
            tracing::debug!("the witness of the store cannot be written: {error}");
        }
    }
}

fn judge(note: Option<&Note>, now: Option<Found>, boot: &[u8; 16]) -> Option<Doubted> {
    let number = || u64::from_le_bytes(*sign::random().first_chunk().unwrap_or(&[1; 8]));
    let Some((note, now)) = note.zip(now) else { return Some((Doubt::Crashed, number())) };
    let then = &note.found;
    let left = now.changed == then.changed && now.size == then.size;
    let same = (now.inode, now.born) == (then.inode, then.born);
    let news = match (left, same) {
        (true, _) if !note.open || note.boot == *boot => return note.doubt,
        (true, _) => Doubt::Crashed,
        // A change of rights alone shows as well; only a copy would be of another size.
        (false, true) if note.open || now.size == then.size => Doubt::Crashed,
        (false, _) => Doubt::Copied,
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
        })
    }
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.open.into()];
        out.push(match self.doubt {
            None => 0,
            Some((Doubt::Crashed, _)) => 1,
            Some((Doubt::Copied, _)) => 2,
        });
        out.put(&self.doubt.map_or(0, |(_, number)| number).to_le_bytes());
        out.put(&self.boot);
        let Found { inode, born, changed, size } = self.found;
        for number in [inode, born.0, born.1, changed.0, changed.1, size] {
            out.put(&number.to_le_bytes());
        }
        out.put(&[0; 2]);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let [version, open, doubt] = r.fixed().ok()?;
        let number = |r: &mut Reader| r.fixed().ok().map(u64::from_le_bytes);
        let doubt_number = number(&mut r)?;
        let boot = r.fixed().ok()?;
        let mut six = [0; 6];
        for place in &mut six {
            *place = number(&mut r)?;
        }
        let [inode, born_s, born_ns, changed_s, changed_ns, size] = six;
        let found =
            Found { inode, born: (born_s, born_ns), changed: (changed_s, changed_ns), size };
        let doubt = match doubt {
            0 => None,
            1 => Some((Doubt::Crashed, doubt_number)),
            _ => Some((Doubt::Copied, doubt_number)),
        };
        (version == VERSION).then_some(Self { open: open != 0, doubt, boot, found })
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
