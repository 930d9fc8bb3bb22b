//! Whether the store is where its last user left it, or a copy that may be older than what was published since.
//!
//! A log that goes on from an older copy forks: other blocks get the numbers of published ones. So a store notes
//! beside its database when that file was last changed, by the file system's own clock (its ctime), which nobody
//! who copies or restores files can set, and what it held then ([`super::turn`]). What is there at the next opening is
//! compared:
//!
//! | the database file | taken for |
//! |---|---|
//! | on another file system than the note says, as a snapshot or a layer of a container is | [`Doubt::Copied`] |
//! | last changed when the note says; closed in order, or the machine has not been started anew since | the one we left |
//! | left open, the same file (inode and birth), last changed by writing to it; the note is ours, the machine the same since | the one we left: our process was killed |
//! | the same, but the machine was started anew since | [`Doubt::Crashed`] |
//! | the same file, changed earlier than the note says, and the machine was started anew since: it stopped before the last time of change was on the device | [`Doubt::Crashed`] |
//! | the same file, written last when the note says: only its rights changed; the note is ours | as if it had not been touched |
//! | anything else | [`Doubt::Copied`] |
//! | any of that but [`Doubt::Copied`], on a file system that may be another than the note says: see [`Here`] | [`Doubt::Crashed`] |
//! | any of that, and it holds less than was noted, or what does not follow from that | [`Doubt::Copied`] |
//!
//! "The note is ours" where it was last changed when we wrote it, by the same clock: files that were restored in place
//! (`cp -a backup/. store/`) keep inode, size and modification time, and an old note comes with an old database.
//! Rights that were changed of both files look just like that; then peers are asked, or `--trust-store` tells.
//! Whoever puts files back changes them later than their note says, never earlier.
//!
//! A database that was put back alone, by writing to the file, looks like one whose process was killed, but holds an
//! older turn than the note. The note is written after each transaction and synced every few seconds and at the end, so
//! that only what came in the last seconds before a machine stopped can be missing from it. That the store is open is
//! durable before the database is touched, and the database's times are before it is noted as closed: else a machine
//! that stops leaves a closed note beside a database that was changed at another time.
//!
//! A doubt stays in the note until it is [settled](Witness::settle), each under a number of its own, by which
//! single cores that have been looked after are told from others. What no file can show is the rollback of a whole
//! machine or file system to a moment when the store was closed; there only a peer's longer log tells.
//!
//! The note is 148 bytes: version 3, open, doubt (0 to 2), its number\[8\], boot id\[16\], of the database eight
//! times 8 bytes (inode, birth s and ns, change s and ns, size, modification s and ns; little endian), when the note
//! was written, s and ns, the file system's kind\[8\] and id\[8\], and of the database's turn whether it has one, the
//! count\[8\] and the tag\[16\]. Version 2 ended with when it was written, version 1 with the size.

use super::private::FILE;
use super::turn::{LastTurn, Turn};
use crate::codec::{Put, Reader};
use crate::crypto::sign;
use crate::lock::lock;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const VERSION: u8 = 4;

/// The note of a store that was left open is ours if it was changed at most so long after the time in it: the longest
/// that a write may be held up.
const NOTE_DELAY: Duration = Duration::from_secs(1);
/// The same after a machine stopped: what was written to the note last may be missing, its time of change not. It is
/// synced every two seconds, which may take a while.
const NOTE_LOST: Duration = Duration::from_secs(30);
/// The same where nothing but the note tells a change of rights from a restored copy: a few ticks of the clock.
const NOTE_TICKS: Duration = Duration::from_millis(20);

const OVERLAY: u64 = 0x794c_7630;
/// Kinds of file system (ext, btrfs, tmpfs, overlay with an id of its own) whose id stays the same. That of others may
/// follow from the number of a device, which is another one when it is mounted again.
const LASTING_IDS: [u64; 4] = [0xef53, 0x9123_683e, 0x0102_1994, OVERLAY];
/// Of a kind, the bits that the system tells.
const KIND: u64 = 0xffff_ffff;
/// Added to the kind of a file system whose id is that of the one below it; noted is the number of its device instead.
const BORROWED_ID: u64 = 1 << 32;

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
    database: PathBuf,
    note: Option<File>,
    boot: [u8; 16],
    place: Option<Place>,
    state: Mutex<State>,
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
    /// The note was written, and that is not durable yet.
    unsynced: bool,
}

/// The file system of the database: its kind, and which it is of those.
type Place = (u64, u64);

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
    doubts: Doubts,
    boot: [u8; 16],
    found: Found,
    /// When the note was written.
    written: (u64, u64),
    place: Option<Place>,
    turn: Option<Turn>,
}

impl Witness {
    /// Compares; to be called before the database is opened, and `new` if it has just been made. What the database
    /// holds is to be told by [`Self::opened`] before anything is made of the doubt.
    pub(super) fn open(dir: &Path, database: &Path, new: bool) -> Self {
        let path = dir.join("witness");
        let boot = boot_id();
        let place = place_of(database);
        let found = fs::read(&path).ok().and_then(|bytes| Note::decode(&bytes)).filter(|_| !new);
        let doubts = match new {
            true => Doubts::default(),
            false => {
                let here = Here { boot: &boot, place };
                judge(found.as_ref(), Found::look(database), Found::look(&path), &here)
            }
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(FILE);
        let file = options.open(&path);
        if let Err(error) = &file {
            tracing::warn!("{}: {error}", path.display());
        }
        let turn = found.as_ref().and_then(|note| note.turn);
        // Opening it changes the file: who ends in the middle of that has left it open.
        let was_ours = found.as_ref().is_some_and(|note| note.doubts.copied == doubts.copied);
        let noted_boot = found.as_ref().filter(|note| note.open).map_or(boot, |note| note.boot);
        let pending = (!new).then_some(found);
        let state = Mutex::new(State { doubts, pending, turn, boot: noted_boot, unsynced: false });
        let database = database.to_path_buf();
        let witness = Self { database, note: file.ok(), boot, place, state };
        if was_ours {
            witness.note(true);
            witness.sync();
        }
        witness
    }

    /// The database was opened, and holds this.
    pub(super) fn opened(&self, turn: Option<LastTurn>) {
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
        self.note(true);
        if !known {
            // A machine that stops soon must not leave a database with turns and no note.
            self.sync();
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
        self.note(true);
    }

    pub(super) fn doubts(&self) -> Doubts {
        lock(&self.state).doubts
    }

    /// The store may be written: somebody who can tell says so.
    pub(super) fn settle(&self) {
        lock(&self.state).doubts = Doubts::default();
        self.note(true);
    }

    /// The database is closed.
    pub(super) fn close(&self) {
        // Syncing only its bytes, as the database does, leaves an older time of change on the device.
        if let Err(error) = File::open(&self.database).and_then(|file| file.sync_all()) {
            tracing::debug!("the database cannot be synced: {error}");
        }
        self.note(false);
        self.sync();
    }

    /// Makes the note durable if it was written since that was done last.
    pub(super) fn sync(&self) {
        let Some(file) = &self.note else { return };
        if !std::mem::take(&mut lock(&self.state).unsynced) {
            return;
        }
        if let Err(error) = file.sync_data() {
            lock(&self.state).unsynced = true;
            tracing::debug!("the witness of the store cannot be synced: {error}");
        }
    }

    /// Notes how the database is now; after each change of it, and once it is closed.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is compared with what the file system's clock says"
    )]
    fn note(&self, open: bool) {
        let (Some(file), Some(found)) = (&self.note, Found::look(&self.database)) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = (now.as_secs(), now.subsec_nanos().into());
        // Held while it is written, so that an older note never comes after a newer one.
        let mut state = lock(&self.state);
        state.unsynced = true;
        let (doubts, turn) = (state.doubts, state.turn);
        let (boot, place) = (state.boot, self.place);
        let note = Note { open, doubts, boot, found, written, place, turn };
        if let Err(error) = file.write_all_at(&note.encode(), 0) {
            // The next opening is in doubt then, which is right.
            tracing::debug!("the witness of the store cannot be written: {error}");
        }
    }
}

/// Where the store is looked at.
struct Here<'a> {
    boot: &'a [u8; 16],
    place: Option<Place>,
}

impl Here<'_> {
    /// What it means that the store is on another file system than the note says, or may be. An id that does not last
    /// is another one when the same file system is mounted again, and may be when a snapshot is; of a borrowed one two
    /// containers that begin with the same layer have the same, and a device of their own.
    fn doubt(&self, note: &Note) -> Option<Doubt> {
        let (then, now) = note.place.zip(self.place)?;
        let same_boot = note.boot == *self.boot;
        match now.0 & KIND {
            kind if kind != then.0 & KIND => Some(Doubt::Copied),
            _ if (then.0 | now.0) & BORROWED_ID != 0 => {
                (then != now || !same_boot).then_some(Doubt::Crashed)
            }
            kind if LASTING_IDS.contains(&kind) => (then.1 != now.1).then_some(Doubt::Copied),
            _ => (then.1 != now.1 && same_boot).then_some(Doubt::Crashed),
        }
    }
}

/// The doubts once it is known what the database holds.
fn doubts_by_turn(note: &Note, turn: Option<LastTurn>, doubts: Doubts, runs_on: bool) -> Doubts {
    // An older version of this program has noted none.
    let Some(noted) = note.turn else { return doubts };
    match turn.is_some_and(|turn| turn.goes_on_from(&noted, !runs_on)) {
        true => doubts,
        false => doubts.and(Doubt::Copied),
    }
}

/// `now` is the database as it is found, `noted` the file of the note.
fn judge(note: Option<&Note>, now: Option<Found>, noted: Option<Found>, here: &Here<'_>) -> Doubts {
    let Some((note, now)) = note.zip(now) else { return Doubts::default().and(Doubt::Crashed) };
    let then = &note.found;
    let runs_on = note.boot == *here.boot;
    let left = now.changed == then.changed && now.size == then.size;
    let same = (now.inode, now.born) == (then.inode, then.born);
    let is_ours = |delay| noted.is_some_and(|noted| note.is_untouched(&noted, delay));
    // Whoever restores a file sets its time of modification, and so changes it later than that.
    let killed = note.open && same && now.modified == now.changed;
    let rights =
        same && (now.modified, now.size) == (then.modified, then.size) && is_ours(NOTE_TICKS);
    // Whoever puts a file back changes it later than was noted of any that was there before.
    let time_lost = same && now.changed <= then.changed;
    let news = match left || rights {
        true if !note.open || runs_on => None,
        true => Some(Doubt::Crashed),
        false if killed && runs_on && is_ours(NOTE_DELAY) => None,
        false if killed && !runs_on && is_ours(NOTE_LOST) => Some(Doubt::Crashed),
        false if time_lost && !runs_on => Some(Doubt::Crashed),
        false => Some(Doubt::Copied),
    };
    match news.max(here.doubt(note)) {
        None => note.doubts,
        Some(news) => note.doubts.and(news),
    }
}

fn place_of(database: &Path) -> Option<Place> {
    let kind = rustix::fs::statfs(database).ok()?.f_type as u64 & KIND;
    if kind == OVERLAY {
        // Of files, the device may be that of a layer.
        let device = fs::metadata(database.parent()?).ok()?.dev();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if !has_own_id(&mounts, device) {
            return Some((kind | BORROWED_ID, device));
        }
    }
    Some((kind, rustix::fs::statvfs(database).ok()?.f_fsid))
}

/// Whether an overlay has an id of its own: Linux says so among its options, where it is not the one of a layer.
fn has_own_id(mounts: &str, device: u64) -> bool {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    mounts.lines().any(|line| {
        let options = line.rsplit(' ').next().unwrap_or_default();
        line.split(' ').nth(2) == Some(&number)
            && options.split(',').any(|option| option == "uuid=on")
    })
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
        let Doubts { crashed, copied } = self.doubts;
        out.push(u8::from(crashed.is_some()) | u8::from(copied.is_some()) << 1);
        out.put(&copied.unwrap_or_default().to_le_bytes());
        out.put(&self.boot);
        let Found { inode, born, changed, size, modified } = self.found;
        let times = [modified, self.written].into_iter().flat_map(|(s, ns)| [s, ns]);
        for number in [inode, born.0, born.1, changed.0, changed.1, size].into_iter().chain(times) {
            out.put(&number.to_le_bytes());
        }
        let (kind, id) = self.place.unwrap_or_default();
        out.put(&kind.to_le_bytes());
        out.put(&id.to_le_bytes());
        out.push(self.turn.is_some().into());
        let (count, tag) = self.turn.map_or((0, [0; 16]), |turn| (turn.count, turn.tag));
        out.put(&count.to_le_bytes());
        out.put(&tag);
        out.put(&crashed.unwrap_or_default().to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let [version, open, which] = r.fixed().ok()?;
        let number = |r: &mut Reader| r.fixed().ok().map(u64::from_le_bytes);
        let first = number(&mut r)?;
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
        let (mut place, mut turn) = (None, None);
        if version >= 3 {
            place = Some((number(&mut r)?, number(&mut r)?)).filter(|place| *place != (0, 0));
            let [has_turn] = r.fixed().ok()?;
            let noted = Turn { count: number(&mut r)?, tag: r.fixed().ok()? };
            turn = (has_turn != 0).then_some(noted);
        }
        // Before version 4 there was room for one of them.
        let second = if version >= 4 { number(&mut r)? } else { first };
        let doubts = Doubts {
            crashed: (which & 1 != 0).then_some(second),
            copied: (which & 2 != 0).then_some(first),
        };
        let known = (1..=VERSION).contains(&version);
        let open = open != 0;
        known.then_some(Self { open, doubts, boot, found, written, place, turn })
    }
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
