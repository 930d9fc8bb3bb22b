//! Whether the store is where its last user left it, or a copy that may be older than what was published since.
//!
//! A log that goes on from an older copy forks: other blocks get the numbers of published ones. So a store notes beside its
//! database when that file was last changed, by the file system's own clock (its ctime), which nobody who copies or
//! restores files can set, and what it held then ([`super::turn`]). These are all the rules; the first that fits counts,
//! and what is said of places is looked at besides:
//!
//! | what is seen at the next opening | concluded | what happens |
//! |---|---|---|
//! | no note, of a database without turns: an older version of this program wrote it | [`Doubt::Crashed`] | see below |
//! | no note, of a database with turns | [`Doubt::Copied`] | |
//! | the database as noted: same times and size; or *ours*, with nothing but its rights changed. Closed in order, or in the same boot | the one we left | it is written |
//! | the same, left open, in another boot | [`Doubt::Crashed`] | |
//! | *ours*, left open, the same file (inode and birth), last changed by writing to it, same boot | the one we left: our process was killed | it is written |
//! | the same, in another boot | [`Doubt::Crashed`] | |
//! | the same file, changed no later than noted, in another boot: the machine stopped before the last time of change was on the device | [`Doubt::Crashed`] | |
//! | anything else | [`Doubt::Copied`] | |
//! | whatever the rest: the database holds less than noted, or what does not follow from that | [`Doubt::Copied`] | |
//! | a place that is another than noted (another file system; in the same boot another device; left open, another disk behind the same number): a snapshot, an image, a layer | [`Doubt::Copied`] | |
//! | a place that may be another: see [`judge::Here`] | [`Doubt::Crashed`] | |
//!
//! | doubt | before a drive of ours is changed | it ends |
//! |---|---|---|
//! | [`Doubt::Crashed`] | peers are asked; if none is found it is written | for each drive by that |
//! | [`Doubt::Copied`] | peers are asked; if none is found it is refused | for each drive by peers who have no more, for the store by `--trust-store` |
//! | two histories of it were signed (`core::writer`) | it is refused | by `--trust-store` |
//!
//! A doubt stays in the note, and has a number, by which drives that were cleared of it are told from others; a new stop of
//! the machine is a new doubt, and takes nothing back of what was cleared of a copy. Drives that are made in doubt have none.
//!
//! *Ours* is a note that is in the file that it was written to: it says in which (inode and birth). It is written to a new
//! file before the first change after an opening, and after changes every few seconds and at the end. Whoever restores
//! files, in place or not, brings a note that was in another, or the times of another; whoever changes rights, or links
//! the files elsewhere, leaves them as they are. Where files have no birth, or none could be made, times must do: a note is
//! ours if its file was last changed when it was written.
//!
//! The note is written before the database is opened, and after each transaction; where that fails nothing is changed,
//! and where it cannot be noted that the store is open, the database is opened to be read. So a process that is killed
//! leaves it one turn behind at most, and a machine that stops those of the last seconds. The database's times are on the
//! device before it is noted as closed: else a machine that stops leaves a closed note beside a database that was
//! changed at another time.
//!
//! What no file can show is the rollback of a whole machine or file system to a moment when the store was closed; there
//! only a peer's longer log tells. And the image or snapshot of a file system that was taken while the store was open
//! looks like the file system after a power cut once the machine was started anew.

mod judge;
mod note;
mod place;

use super::private::FILE;
use super::turn::{LastTurn, Turn};
use crate::crypto::sign;
use crate::lock::lock;
use judge::{Here, doubts_by_turn, judge};
use note::{Found, Note};
use place::Place;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a store may be older than what was published from it. The later is the graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It was not closed in order: the machine stopped. Nothing that was told to anyone should be missing.
    Crashed,
    /// It is a copy, or was restored from one.
    Copied,
}

/// The doubts of a store, each with the number under which single cores are cleared of it. Who is cleared of one is
/// so whatever comes later: a machine that stops makes no new copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubts {
    pub crashed: Option<u64>,
    pub copied: Option<u64>,
}

impl Doubts {
    pub fn gravest(&self) -> Option<Doubt> {
        let crashed = self.crashed.map(|_| Doubt::Crashed);
        self.copied.map(|_| Doubt::Copied).or(crashed)
    }

    /// What is left for who was cleared of these numbers.
    pub fn but(&self, cleared: &[u64]) -> Self {
        let left = |doubt: Option<u64>| doubt.filter(|number| !cleared.contains(number));
        Self { crashed: left(self.crashed), copied: left(self.copied) }
    }

    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.copied.into_iter().chain(self.crashed)
    }

    fn and(mut self, news: Doubt) -> Self {
        let number = Some(u64::from_le_bytes(*sign::random().first_chunk().unwrap_or(&[1; 8])));
        match news {
            Doubt::Crashed => self.crashed = number,
            Doubt::Copied => self.copied = number,
        }
        self
    }
}

/// See the module.
pub(super) struct Witness {
    dir: PathBuf,
    database: PathBuf,
    boot: [u8; 16],
    place: Option<Place>,
    state: Mutex<State>,
    /// Held while the note is written and made durable, so that an older one never comes after a newer one.
    file: Mutex<NoteFile>,
}

#[derive(Default)]
struct State {
    doubts: Doubts,
    /// What the note said when the store was opened, if there was one, until the database has been looked into.
    /// None of a database that has just been made.
    pending: Option<Option<Note>>,
    /// What the database holds.
    turn: Option<Turn>,
    /// The boot that the note is of. While the database has not been looked into that is the one of a note that was
    /// left open: what may be missing since then may be missing still.
    boot: [u8; 16],
}

/// The file of the note.
#[derive(Default)]
struct NoteFile {
    file: Option<File>,
    /// Which it is, if the note is to be known by that.
    own: Option<FileId>,
    /// It was made, as far as that went, since the store was opened.
    fresh: bool,
    /// The database was changed since it was made.
    used: bool,
    /// It was written, and that is not durable yet.
    unsynced: bool,
    /// What it should say by now could not be written.
    stale: bool,
}

/// A file among all that ever were: its inode and when that came to be.
type FileId = (u64, (u64, u64));

impl Witness {
    /// Compares; to be called before the database is opened, and `new` if it has just been made. What the database
    /// holds is to be told by [`Self::opened`] before anything is made of the doubts.
    pub(super) fn open(dir: &Path, database: &Path, new: bool) -> Self {
        let path = path_in(dir);
        let boot = boot_id();
        let place = Place::of(database);
        let found = fs::read(&path).ok().and_then(|bytes| Note::decode(&bytes)).filter(|_| !new);
        let noted = Found::look(&path);
        let doubts = match new {
            true => Doubts::default(),
            false => {
                let here = Here { boot: &boot, place };
                judge(found.as_ref(), Found::look(database), noted, &here)
            }
        };
        let own = found.as_ref().and_then(|note| note.own);
        let own = own.filter(|own| noted.and_then(|noted| noted.id()) == Some(*own));
        let turn = found.as_ref().and_then(|note| note.turn);
        let noted_boot = found.as_ref().filter(|note| note.open).map_or(boot, |note| note.boot);
        let pending = (!new).then_some(found);
        let state = Mutex::new(State { doubts, pending, turn, boot: noted_boot });
        let file = Mutex::new(NoteFile { own, ..NoteFile::default() });
        let (dir, database) = (dir.to_path_buf(), database.to_path_buf());
        Self { dir, database, boot, place, state, file }
    }

    pub(super) fn path(&self) -> PathBuf {
        path_in(&self.dir)
    }

    /// Where a new note is made.
    fn beside(&self) -> PathBuf {
        self.dir.join("witness.new")
    }

    /// Whether who used the store last did not close it in order; to be asked before it is opened.
    pub(super) fn was_left_open(&self) -> bool {
        matches!(&lock(&self.state).pending, Some(Some(note)) if note.open)
    }

    /// The database is about to be opened, which changes it: who ends in the middle of that has left it open.
    ///
    /// # Errors
    /// That cannot be noted.
    pub(super) fn opening(&self) -> io::Result<()> {
        if matches!(lock(&self.state).pending, Some(None)) {
            // That there is no note is all that is known of it. Whether one can be made later is to be seen now.
            return self.try_to_make();
        }
        let mut file = lock(&self.file);
        self.write(&mut file, true)?;
        file.sync()
    }

    /// The database was opened, and holds this. Nothing is noted where it is only `read`.
    ///
    /// # Errors
    /// That cannot be noted.
    pub(super) fn opened(&self, turn: Option<LastTurn>, read: bool) -> io::Result<()> {
        let known = {
            let mut state = lock(&self.state);
            let before = state.doubts;
            let known = match state.pending.take() {
                Some(Some(found)) => {
                    state.doubts = doubts_by_turn(&found, turn, before, found.boot == self.boot);
                    true
                }
                // Whoever writes turns writes notes: it came here without.
                Some(None) if turn.is_some() => {
                    state.doubts = before.and(Doubt::Copied);
                    false
                }
                Some(None) | None => false,
            };
            state.turn = turn.map(|last| last.turn);
            state.boot = self.boot;
            known && state.doubts == before
        };
        let mut file = lock(&self.file);
        match known {
            _ if read => Ok(()),
            true => self.write(&mut file, true),
            // A machine that stops soon must not leave a database with turns and no note.
            false => self.renew(&mut file, true),
        }
    }

    /// To be called before a transaction.
    ///
    /// # Errors
    /// The one before it cannot be noted, nor could this one.
    pub(super) fn ready(&self) -> io::Result<()> {
        let mut file = lock(&self.file);
        match file.fresh && !file.stale {
            true => Ok(()),
            false => self.renew(&mut file, true),
        }
    }

    /// A transaction was tried, and gave the database this turn.
    pub(super) fn changed(&self, turn: Option<&LastTurn>) {
        if let Some(last) = turn {
            let mut state = lock(&self.state);
            // Those who committed at the same moment may come in another order.
            if state.turn.is_none_or(|known| known.count < last.turn.count) {
                state.turn = Some(last.turn);
            }
        }
        let mut file = lock(&self.file);
        file.used = true;
        let _ = self.write(&mut file, true);
    }

    pub(super) fn doubts(&self) -> Doubts {
        lock(&self.state).doubts
    }

    /// The store may be written: somebody who can tell says so.
    pub(super) fn settle(&self) {
        lock(&self.state).doubts = Doubts::default();
        let _ = self.write(&mut lock(&self.file), true);
    }

    /// The database is closed.
    pub(super) fn close(&self) {
        // Syncing only its bytes, as the database does, leaves an older time of change on the device.
        if let Err(error) = File::open(&self.database).and_then(|file| file.sync_all()) {
            tracing::debug!("the database cannot be synced: {error}");
        }
        let mut file = lock(&self.file);
        let noted = match file.used {
            true => self.renew(&mut file, false),
            false => self.write(&mut file, false).and_then(|()| file.sync()),
        };
        if let Err(error) = noted {
            tracing::debug!("it cannot be noted that the store is closed: {error}");
        }
    }

    /// Makes the note durable if it was written since that was done last.
    pub(super) fn sync(&self) {
        let mut file = lock(&self.file);
        let synced = match file.used {
            true => self.renew(&mut file, true),
            false => file.sync(),
        };
        if let Err(error) = synced {
            tracing::debug!("the witness of the store cannot be synced: {error}");
        }
    }

    /// Notes, durably, how the database is now, in a new file where one can be made.
    fn renew(&self, file: &mut NoteFile, open: bool) -> io::Result<()> {
        if let Err(error) = self.make_anew(file, open) {
            tracing::debug!("the witness of the store is written in place: {error}");
            file.own = None;
            self.write(file, open)?;
        }
        file.sync()?;
        (file.fresh, file.used) = (true, false);
        Ok(())
    }

    fn make_anew(&self, file: &mut NoteFile, open: bool) -> io::Result<()> {
        let beside = self.beside();
        let _ = fs::remove_file(&beside);
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(FILE).open(&beside)?;
        let put = || {
            let own = Found::look(&beside).and_then(|found| found.id());
            let own = own.ok_or_else(|| io::Error::other("files have no birth here"))?;
            made.write_all_at(&self.describe(Some(own), open)?.encode(), 0)?;
            made.sync_all()?;
            fs::rename(&beside, self.path())?;
            Ok(own)
        };
        let own = put().inspect_err(|_: &io::Error| {
            let _ = fs::remove_file(&beside);
        })?;
        let new = NoteFile { file: Some(made), own: Some(own), ..NoteFile::default() };
        *file = new;
        File::open(&self.dir)?.sync_all()
    }

    /// Makes a file like a note and takes it away.
    fn try_to_make(&self) -> io::Result<()> {
        let beside = self.beside();
        let _ = fs::remove_file(&beside);
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(FILE).open(&beside)?;
        let like = self.describe(None, true).map(|note| note.encode());
        let tried =
            like.and_then(|like| made.write_all_at(&like, 0)).and_then(|()| made.sync_all());
        fs::remove_file(&beside)?;
        tried
    }

    /// Notes how the database is now; after each change of it, and once it is closed.
    fn write(&self, file: &mut NoteFile, open: bool) -> io::Result<()> {
        let noted = self.describe(file.own, open).and_then(|note| {
            let path = self.path();
            let written = file.get(&path)?.write_all_at(&note.encode(), 0);
            file.unsynced = true;
            if written.is_err() && fs::metadata(&path).is_ok_and(|meta| meta.len() == 0) {
                // There was no note, and no room for one.
                file.file = None;
                let _ = fs::remove_file(&path);
            }
            written
        });
        file.stale = noted.is_err();
        noted.inspect_err(|error| {
            tracing::debug!("the witness of the store cannot be written: {error}");
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "it is compared with what the file system's clock says"
    )]
    fn describe(&self, own: Option<FileId>, open: bool) -> io::Result<Note> {
        let found = Found::look(&self.database).ok_or(io::ErrorKind::NotFound)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = (now.as_secs(), now.subsec_nanos().into());
        let State { doubts, turn, boot, .. } = *lock(&self.state);
        let place = self.place;
        Ok(Note { open, doubts, boot, found, written, place, turn, own })
    }
}

impl NoteFile {
    fn get(&mut self, path: &Path) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(FILE).open(path)?
            }
        };
        Ok(self.file.insert(file))
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.unsynced) {
            file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("witness")
}

/// A number that is another after each start of the machine.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    crate::key::unhex(&digits).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
#[path = "witness/tests.rs"]
mod tests;
