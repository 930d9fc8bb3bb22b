//! The contents of local files as a drive holds them: none is a mixture, and none is appended twice.
//!
//! A file is read between two looks at it. Where they differ it is read again, a few times; of one that
//! only grows all the time, two readings that agree are as good. What goes on changing is left to the caller. Files that
//! are being written are waited for together, and after all others.
//!
//! | the content | what is appended |
//! |---|---|
//! | is that of the same name in the drive, or shares much with it | what differs (`hyper::blobs::update`) |
//! | is one that the drive had under any name | nothing: it is found by its print, and compared |
//! | is that of another file of the same import | nothing |
//! | is new | all of it |
//!
//! A small file is read in one piece, and nothing of it appended before it is known to be whole. For large ones see
//! [`large`].

mod ahead;
mod attempt;
mod large;
mod reading;

use self::ahead::{Ahead, Ready};
use self::attempt::{Earlier, Part, Reading};
use self::reading::{ReadPart, is_overwritten, read_small};
use super::beneath::Beneath;
use super::errors::{is_gone, is_of_the_moment};
use super::ledger::{Ledger, Seen, print_in, whole_hashes};
use super::rules::Rules;
use super::scan::{Local, LocalKind, Look, scan_in};
use super::stores::is_store_database;
use crate::crypto::hash::Hash;
use crate::hyper::blobs::{BLOCK_SIZE, BlobError, BlobId, Blobs, Writer};
use crate::path::DrivePath;
use bytes::Bytes;
use std::collections::HashMap;
use std::io::{self, Cursor, Read, Seek};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The clock of file times may stand still for so long: what changed since cannot be told from what comes next.
const TICK: Duration = Duration::from_millis(20);

/// Room for so many small files is made at once.
const MAX_SMALL: usize = 1 << 15;

/// What people are told of a file that changes all the time.
pub const UNSTEADY: &str = "it changed each time that it was read, and a mixture is of no use: try again when nothing \
                            writes to it";

/// Why the database of a store is left out.
pub const SECRET: &str = "this is the database of a store of drives: secret keys are never shared";

/// A file whose content is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub local: &'a Local,
    /// Its name in the drive.
    pub name: &'a DrivePath,
    /// What the drive has under that.
    pub old: Option<BlobId>,
}

/// What became of a file.
#[derive(Debug)]
pub enum Stored {
    /// Its content is in the drive; what the file was when that was read, and what tells whether it still is.
    Blob(BlobId, Look, Seen),
    /// It must never be shared: see [`SECRET`].
    Secret,
    /// See [`UNSTEADY`].
    Unsteady,
    /// The same, but it rests now, and only has to for longer: see [`large`].
    Fresh,
    /// It is gone, or lies on another mount than when it was found: what is there now must be looked at first.
    Moved,
    /// It is not allowed any more.
    Forbidden,
    Unread(io::Error),
}

/// Takes files into a drive.
pub struct Contents<'a> {
    pub blobs: &'a Blobs,
    pub ledger: &'a Ledger,
    pub rules: &'a Rules,
    /// The folder of the rules, in which the files were found.
    pub held: &'a Beneath,
    /// Asked before each file whether it may be taken.
    pub allowed: &'a dyn Fn(&DrivePath) -> bool,
    /// Told how many bytes of the files have been read.
    pub progress: &'a dyn Fn(u64),
    /// Asked now and then whether to stop.
    pub cancelled: &'a dyn Fn() -> bool,
    /// Nothing is appended, as far as that can be, when it is called off, or what is
    /// there is not any more what was found.
    pub all_or_nothing: bool,
}

/// Contents that go into the drive together.
struct Group<'a> {
    contents: &'a Contents<'a>,
    writer: Writer<'a>,
    /// What small files of this group hold → where it will be.
    small: HashMap<Hash, BlobId>,
    /// Bytes of the files before the one that is read.
    done: u64,
}

impl Contents<'_> {
    /// The contents of these files, in this order; none of those that were not come to. What was taken is in the drive
    /// when this returns, unless it is all or nothing.
    ///
    /// # Errors
    /// When the drive cannot be written. A file that cannot be read is none: see [`Stored`].
    pub fn store(
        &self,
        writer: Writer<'_>,
        files: &[Wanted<'_>],
    ) -> Result<Vec<Option<Stored>>, BlobError> {
        let group = Group {
            contents: self,
            writer,
            small: HashMap::with_capacity(files.len().min(MAX_SMALL)),
            done: 0,
        };
        std::thread::scope(|scope| {
            let ahead = Ahead::start(scope, self.held, files);
            group.store(files, ahead)
        })
    }
}

impl Group<'_> {
    /// In rounds: first all that is calm, so that it waits for nothing; then, after a rest for all of them together,
    /// what was being written, and what waits for the content of another.
    fn store(
        mut self,
        files: &[Wanted<'_>],
        mut ahead: Option<Ahead>,
    ) -> Result<Vec<Option<Stored>>, BlobError> {
        let Contents { cancelled, allowed, all_or_nothing, .. } = *self.contents;
        let mut stored: Vec<Option<Stored>> = files.iter().map(|_| None).collect();
        let all = files.iter().enumerate().map(|(at, wanted)| Reading::new(at, wanted.local));
        let mut round: Box<dyn Iterator<Item = Reading> + '_> = Box::new(all);
        let mut first = true;
        loop {
            let mut later = Vec::new();
            for mut reading in round {
                if cancelled() {
                    break;
                }
                let at = reading.at;
                let ready = ahead.as_mut().filter(|_| first).and_then(Ahead::next);
                stored[at] = match allowed(&files[at].local.path) {
                    true => self.take(&files[at], &mut reading, ready)?,
                    false => Some(Stored::Forbidden),
                };
                match &stored[at] {
                    None => later.push(reading),
                    Some(Stored::Moved | Stored::Forbidden) if all_or_nothing => {
                        return Ok(stored);
                    }
                    Some(_) => self.count(&files[at]),
                }
            }
            if all_or_nothing && cancelled() {
                return Ok(stored);
            }
            self.writer.flush()?;
            if later.is_empty() || cancelled() {
                return Ok(stored);
            }
            self.rest(files, &mut later);
            round = Box::new(later.into_iter());
            first = false;
        }
    }

    fn count(&mut self, wanted: &Wanted<'_>) {
        self.done += wanted.local.size();
        (self.contents.progress)(self.done);
    }

    /// Waits until each of them can have rested for as long as it must: those that have not changed since are calm.
    fn rest(&self, files: &[Wanted<'_>], later: &mut [Reading]) {
        for reading in &mut *later {
            if reading.before.is_none() {
                // What is wrong with it shows when it is read.
                reading.before = self.look(&files[reading.at], reading).ok().and_then(Result::ok);
            }
        }
        if let Some(longest) = later.iter().filter_map(Reading::pause).max() {
            std::thread::sleep(longest);
        }
    }

    /// None if it has to be tried in the next round, or was called off.
    fn take(
        &mut self,
        wanted: &Wanted<'_>,
        reading: &mut Reading,
        ready: Option<Ready>,
    ) -> Result<Option<Stored>, BlobError> {
        if let Some(Ready { bytes, hash, seen }) = ready {
            let id = self.store_small(bytes, hash, wanted.old)?;
            return Ok(Some(Stored::Blob(id, wanted.local.look(), seen)));
        }
        reading.hindered = false;
        match self.read(wanted, reading) {
            Err(BlobError::Input(_)) if (self.contents.cancelled)() => Ok(None),
            // At once: nothing may tell when it can be read.
            Err(BlobError::Input(error)) => Ok(match is_of_the_moment(&error) {
                true => reading.hinder().then(|| Stored::Unread(same(&error))),
                false => Some(Stored::Unread(same(&error))),
            }),
            taken => taken,
        }
    }

    /// What the file is before it is read; else what became of it, if that is known by now.
    fn look(
        &self,
        wanted: &Wanted<'_>,
        reading: &mut Reading,
    ) -> Result<Result<Look, Option<Stored>>, BlobError> {
        let found = reading.found;
        // For a small one what it was when it was found is good enough, the first time: nothing of it is appended
        // before it is known to be that one.
        if reading.tries == 0 && found.size <= BLOCK_SIZE {
            return Ok(Ok(found));
        }
        let file = match self.contents.held.open(&wanted.local.path) {
            Ok(file) => file,
            Err(error) if is_moved(&error) => return Ok(Err(Some(Stored::Moved))),
            Err(error) => return Err(input(error)),
        };
        let before = Look::at(&file).map_err(input)?;
        if before.stamp.is_of(&found.stamp) {
            return Ok(Ok(before));
        }
        // Another file has its name.
        let Some(look) = self.find_again(wanted.local) else {
            return Ok(Err(Some(Stored::Moved)));
        };
        reading.found = look;
        Ok(if before.stamp.is_of(&look.stamp) { Ok(before) } else { Err(reading.failed()) })
    }

    fn read(
        &mut self,
        wanted: &Wanted<'_>,
        reading: &mut Reading,
    ) -> Result<Option<Stored>, BlobError> {
        let before = match reading.before.take() {
            Some(before) => before,
            None => match self.look(wanted, reading)? {
                Err(known) => return Ok(known),
                Ok(before) if reading.unrest(&before).is_some() => {
                    reading.before = Some(before);
                    return Ok(None);
                }
                Ok(before) => before,
            },
        };
        let file = match self.contents.held.open(&wanted.local.path) {
            Ok(file) => file,
            Err(error) if is_moved(&error) => return Ok(Some(Stored::Moved)),
            Err(error) => return Err(input(error)),
        };
        if before.size > BLOCK_SIZE {
            // It is being written over, and not worth a long reading.
            return match is_overwritten(&file, &before).map_err(input)? {
                true => Ok(reading.failed()),
                false => self.read_large(wanted, reading, &file, before),
            };
        }
        let seen = Seen::of(&before.stamp, now_ns());
        let bytes = read_small(&file, before.size).map_err(input)?;
        let after = Look::at(&file).map_err(input)?;
        if after == before {
            return Ok(Some(match is_store_database(&bytes, &file).map_err(input)? {
                true => Stored::Secret,
                false => Stored::Blob(self.store_bytes(bytes, wanted.old)?, before, seen),
            }));
        }
        let now = Earlier { before, after, what: Part::Small(bytes) };
        let earlier = reading.earlier.take();
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_confirmed_by(&now))
            && let Part::Small(bytes) = earlier.what
        {
            return Ok(Some(match is_store_database(&bytes, &file).map_err(input)? {
                true => Stored::Secret,
                false => {
                    let id = self.store_bytes(bytes, wanted.old)?;
                    Stored::Blob(id, earlier.before, Seen::unsure(&before.stamp))
                }
            }));
        }
        reading.earlier = Some(Box::new(now));
        Ok(reading.failed())
    }

    fn store_bytes(&mut self, bytes: Bytes, old: Option<BlobId>) -> Result<BlobId, BlobError> {
        let hash = whole_hash(&bytes);
        self.store_small(bytes, hash, old)
    }

    /// What is there now, if it is a file that is shared, and in the same mount as before.
    fn find_again(&self, before: &Local) -> Option<Look> {
        let Contents { rules, held, .. } = self.contents;
        let mut found = scan_in(rules, held, &before.path).found.into_iter();
        let now = found.find(|local| {
            local.path == before.path && matches!(local.kind, LocalKind::File { .. })
        })?;
        now.stamp.is_beside(&before.stamp).then(|| now.look())
    }

    /// The blob of a whole small file; see [`whole_hashes`].
    fn store_small(
        &mut self,
        bytes: Bytes,
        hash: Hash,
        old: Option<BlobId>,
    ) -> Result<BlobId, BlobError> {
        let (ledger, print) = (self.contents.ledger, print_in(&hash));
        if let Some(old) = old
            && let Some(id) = self.update(&old, &mut Cursor::new(&bytes))?
        {
            if id != old {
                ledger.note_content(&print, &id);
            }
            return Ok(id);
        }
        if bytes.is_empty() {
            return self.writer.put_blocks([]);
        }
        if let Some(id) = self.small.get(&hash) {
            return Ok(*id);
        }
        for id in ledger.contents(&print).unwrap_or_default() {
            let size = bytes.len() as u64;
            if self.is_committed(&id)
                && self.is_content(&id, size, |buf, at| bytes.read_part(buf, at))
            {
                return Ok(id);
            }
        }
        let id = match bytes.len() as u64 > BLOCK_SIZE {
            true => self.writer.put(&bytes[..])?,
            false => self.writer.put_blocks([bytes])?,
        };
        self.small.insert(hash, id);
        ledger.note_content(&print, &id);
        Ok(id)
    }

    /// What the drive says of the old content may be damaged: then it is written anew.
    fn update(
        &mut self,
        old: &BlobId,
        content: &mut (impl Read + Seek),
    ) -> Result<Option<BlobId>, BlobError> {
        match self.writer.update(old, content) {
            Err(BlobError::Damaged(_) | BlobError::MapVersion(_)) => Ok(None),
            updated => updated,
        }
    }

    fn is_committed(&self, id: &BlobId) -> bool {
        id.block_end() <= self.contents.blobs.source().length()
    }

    /// Whether a blob, as far as it is here, has just these bytes; `read` fills a buffer from an offset on.
    fn is_content(
        &self,
        id: &BlobId,
        size: u64,
        read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
    ) -> bool {
        const STEP: u64 = 1 << 20;
        let reader = self.contents.blobs.reader(*id, Some(size));
        let mut buf = vec![0; STEP.min(size + 1) as usize];
        let mut offset = 0;
        loop {
            let Ok(n) = read(&mut buf, offset) else { return false };
            let Ok(Some(pieces)) = reader.read_local(offset, n.max(1)) else { return false };
            if n == 0 {
                return offset == reader.size() && pieces.is_empty();
            }
            let mut left = &buf[..n];
            for piece in pieces {
                let Some((head, tail)) = left.split_at_checked(piece.len()) else { return false };
                if head != piece {
                    return false;
                }
                left = tail;
            }
            if !left.is_empty() {
                return false;
            }
            offset += n as u64;
        }
    }
}

fn whole_hash(bytes: &Bytes) -> Hash {
    whole_hashes(std::slice::from_ref(bytes))[0]
}

pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
}

/// Whether what was found is not there any more, or something is mounted over it.
fn is_moved(error: &io::Error) -> bool {
    is_gone(error) || error.kind() == io::ErrorKind::CrossesDevices
}

fn same(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn input(error: io::Error) -> BlobError {
    BlobError::Input(Arc::new(error))
}

#[cfg(test)]
mod tests;
