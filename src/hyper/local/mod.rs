//! The content of a file that is being changed, before any of it is in a core.
//!
//! A [`LocalFile`] is a *base*, the blob that was published last, under what was written since. [`Layout`] says which byte
//! is whose. So a small change costs itself, be the file as large as it may, and a write touches neither core nor index.
//!
//! | what was written | lies |
//! |---|---|
//! | with no byte beyond the first [`SMALL`], where [`Memory`] has room | in memory, and in the record once there is one |
//! | else | in a sparse *staging file* of the store, each byte at its own offset |
//!
//! The first write that finds no place in memory moves all of it, and there it stays until the file is published.
//!
//! | way out | |
//! |---|---|
//! | into the blobs | [`LocalFile::snapshot`] is read by `blobs::Writer`, then [`LocalFile::rebase`] |
//! | over a crash | [`LocalFile::record`] and the staging file, if any, are committed; [`LocalFile::from_record`] |
//!
//! Each call is done as a whole or not at all, in the eyes of every other: a read, also one that waits for peers, sees
//! the file as it was at one moment. A write that fails may leave a part of it where something was written before.
//!
//! What the record on the device may speak of is never destroyed: bytes that a truncation or a hole took away keep their
//! place in the staging file, out of sight, until a record that does not know them is durable. A record of what is in
//! memory has all of it, and needs nothing else. After a crash each byte is what it was at the last sync, or what a later
//! call made of it.

mod layout;
mod memory;
mod ranges;
mod record;
mod snapshot;
mod staging;
mod state;

pub use memory::{Memory, SMALL};
pub use record::{Kept, MAX_RECORD, Record};
pub use snapshot::Snapshot;
pub use staging::is_staging;

use super::blobs::{BlobError, BlobId, Blobs, Reader};
use super::core::storage::{CoreFiles, Storage, StorageError};
use crate::codec::{DecodeError, MAX_INT};
use crate::crypto::sign;
use crate::key::DiscoveryKey;
use crate::lock::{read, write};
use bytes::Bytes;
use layout::Layout;
use state::{Part, State};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

/// Bytes of a file at most: as many as a blob can tell.
pub const MAX_SIZE: u64 = MAX_INT;

/// Why a changed file could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the file would become larger than a drive can hold")]
    TooLarge,
    /// The staging file is shorter than what was written to it.
    #[error("what was written to the file is not in the store any more")]
    Lost,
    #[error("what the store notes of a changed file is damaged: {0}")]
    Record(#[from] DecodeError),
    /// Of a snapshot: it is no more.
    #[error("the file was changed meanwhile")]
    Changed,
    /// Of a snapshot, which waits for nobody.
    #[error("a part of the file is not here")]
    NotHere,
}

pub type Result<T> = std::result::Result<T, LocalError>;

/// What a file was before it was changed.
#[derive(Clone)]
pub struct Base {
    pub reader: Reader,
    pub id: BlobId,
    /// Bytes of the content.
    pub size: u64,
}

/// What became of a [`LocalFile::rebase`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebased {
    /// Something else than the end was changed since: the file is as before.
    Refused,
    /// It has grown since, and the new end is all that is staged. [`LocalFile::record_version`] has changed.
    Grown,
    /// The file is its base. The staging file of this key, if there is one, is of no use: once the record that names it is
    /// gone, and no commit of [`LocalFile::files`] is under way, it is for [`Storage::remove_files`].
    Whole(Option<DiscoveryKey>),
}

/// What was done to a file for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    None,
    /// It grew by [`LocalFile::append`], as a log does: what it is now is the beginning of whatever it will be.
    Appended,
    Written,
}

/// What to put beside the staging file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// See [`LocalFile::record_version`].
    pub version: u64,
    pub bytes: Vec<u8>,
}

/// See the module. Offsets and sizes are bytes.
pub struct LocalFile {
    storage: Arc<dyn Storage>,
    state: RwLock<State>,
    /// What tells it from every other one, also after a crash.
    id: u64,
    writers: AtomicU32,
    /// The generation at the last look whether somebody writes it.
    seen: AtomicU64,
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = read(&self.state);
        f.debug_struct("LocalFile")
            .field("staging", &state.file().map(|file| file.id))
            .field("layout", &state.layout)
            .finish_non_exhaustive()
    }
}

/// How it is made, and read.
impl LocalFile {
    /// A file that is its base, or empty. Nothing is on the disk before something is written that has no place in memory.
    pub fn new(storage: &Arc<dyn Storage>, memory: &Arc<Memory>, base: Option<Base>) -> Self {
        let layout = Layout::of_base(base.as_ref().map_or(0, |base| base.size));
        Self::of(storage, State::new(memory, base, layout))
    }

    /// The file that a record speaks of, with its staging file, if it has one, as that is found. It is as the record
    /// describes it, so its [`Self::record_version`] needs no other; what is found is durable after the next commit of
    /// [`Self::files`].
    ///
    /// # Errors
    /// [`LocalError::Record`] if it is none, [`LocalError::Lost`] if the staging file is not all there.
    pub fn from_record(
        id: u64,
        bytes: &[u8],
        storage: &Arc<dyn Storage>,
        memory: &Arc<Memory>,
        blobs: &Blobs,
    ) -> Result<Self> {
        let record = Record::decode(bytes)?;
        let base = record.base.map(|(id, size)| {
            let reader = blobs.reader(id, Some(size));
            Base { reader, id, size }
        });
        let state = State::recover(record, storage, memory, base)?;
        Ok(Self { id, ..Self::of(storage, state) })
    }

    fn of(storage: &Arc<dyn Storage>, state: State) -> Self {
        let (writers, seen) = (AtomicU32::new(0), AtomicU64::new(u64::MAX));
        Self { storage: storage.clone(), state: RwLock::new(state), id: fresh(), writers, seen }
    }

    /// The staging file that a record speaks of; none if it needs none, or makes no sense.
    pub fn staging_of(record: &[u8]) -> Option<DiscoveryKey> {
        match Record::decode(record).ok()?.kept {
            Kept::Inline(_) => None,
            Kept::File { id, .. } => Some(id),
        }
    }

    /// The staging file, if there is one.
    pub fn staging(&self) -> Option<DiscoveryKey> {
        read(&self.state).file().map(|file| file.id)
    }

    /// A random number that tells it from every other one.
    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn size(&self) -> u64 {
        read(&self.state).layout.size
    }

    /// Nanoseconds since 1970.
    pub fn mtime(&self) -> i128 {
        read(&self.state).mtime
    }

    /// Each change makes it greater.
    pub fn generation(&self) -> u64 {
        read(&self.state).generation
    }

    /// The blob under it.
    pub fn base(&self) -> Option<BlobId> {
        read(&self.state).base.as_ref().map(|base| base.id)
    }

    /// Whether the content is that of the base, or empty without one.
    pub fn is_base(&self) -> bool {
        let state = read(&self.state);
        state.only_appended() && state.layout.size == state.base_size()
    }

    /// The base, if the file is nothing else.
    pub fn whole_base(&self) -> Option<Base> {
        let state = read(&self.state);
        let is_whole = state.only_appended() && state.layout.size == state.base_size();
        state.base.clone().filter(|_| is_whole)
    }

    /// Whether the base is still its beginning: what was added can be published without the rest.
    pub fn only_appended(&self) -> bool {
        read(&self.state).only_appended()
    }

    /// The ranges that are not the base's, in order and apart, holes among them.
    pub fn changed(&self) -> Vec<Range<u64>> {
        read(&self.state).layout.changed()
    }

    /// The bytes `offset..offset + len`, cut at the end. None if a part of the base is not here.
    pub fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        let state = read(&self.state);
        let mut pieces = Vec::new();
        for part in state.parts(offset, len)? {
            match part {
                Part::Here(bytes) => pieces.push(bytes),
                Part::Base(range) => match state.read_base_local(range)? {
                    Some(found) => pieces.extend(found),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(pieces))
    }

    /// The same, fetching what is missing. It is the content at the time of the call.
    pub fn read(
        &self,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = Result<Vec<Bytes>>> + Send + 'static {
        let (parts, base) = {
            let state = read(&self.state);
            (state.parts(offset, len), state.base.clone())
        };
        async move {
            let parts = parts?;
            if let Some(base) = &base
                && parts.iter().filter(|part| matches!(part, Part::Base(_))).count() > 1
            {
                base.reader.prefetch(offset, len as u64);
            }
            let mut pieces = Vec::new();
            for part in parts {
                match (part, &base) {
                    (Part::Here(bytes), _) => pieces.push(bytes),
                    (Part::Base(range), Some(base)) => pieces.extend(base.read(range).await?),
                    (Part::Base(_), None) => return Err(LocalError::Lost),
                }
            }
            Ok(pieces)
        }
    }

    /// SEEK_DATA: the first byte at or after `offset` that was written or is the base's. None if there is none.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        read(&self.state).layout.next_data(offset)
    }

    /// SEEK_HOLE: the first that is neither, or the size. None past the end.
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        read(&self.state).layout.next_hole(offset)
    }
}

/// How it is changed. After an error the size and all that was not named are as before.
impl LocalFile {
    /// Writes all of it. Past the end the file grows, with zeros in between.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        write(&self.state).write(&self.storage, offset, bytes)
    }

    /// Writes it at the end, wherever that is by then; tells where.
    pub fn append(&self, bytes: &[u8]) -> Result<u64> {
        let mut state = write(&self.state);
        let (end, otherwise) = (state.layout.size, state.otherwise);
        state.write(&self.storage, end, bytes)?;
        state.otherwise = otherwise;
        Ok(end)
    }

    /// Cuts the file, or lets it grow with zeros.
    pub fn truncate(&self, size: u64) -> Result<()> {
        write(&self.state).truncate(size)
    }

    /// Makes what of a range is in the file read as zeros, and a hole.
    pub fn punch(&self, range: Range<u64>) {
        write(&self.state).punch(range);
    }

    /// Lets the file reach to the end of a range, unless its size is to be kept. No room is set aside: what is written
    /// there later may find the disk full.
    pub fn allocate(&self, range: Range<u64>, keep_size: bool) -> Result<()> {
        let mut state = write(&self.state);
        match keep_size || range.end <= state.layout.size {
            true => Ok(()),
            false => state.truncate(range.end),
        }
    }

    /// Lets a range have the same bytes as that range of `base`, without copying them. False, and nothing is done, unless the
    /// file is what is before it of the same base, and nothing else.
    pub fn share(&self, base: &Base, range: Range<u64>) -> bool {
        write(&self.state).share(base, range)
    }

    /// The time that somebody gave it: a record that does not know it is not enough.
    pub fn set_mtime(&self, mtime: i128) {
        write(&self.state).set_mtime(mtime, true);
    }

    /// The time of a write. After a crash it may be the one of the last record.
    pub fn touch(&self, mtime: i128) {
        write(&self.state).set_mtime(mtime, false);
    }
}

/// Who has it.
impl LocalFile {
    /// Somebody has it open to write.
    pub fn open(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// He has not any more. Whether nobody has.
    pub fn close(&self) -> bool {
        self.writers.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub fn is_open(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0
    }

    /// What was done to it since this was asked last.
    pub fn look(&self) -> Activity {
        let (now, otherwise) = {
            let state = read(&self.state);
            (state.generation, state.otherwise)
        };
        match self.seen.swap(now, Ordering::AcqRel) {
            seen if seen == now => Activity::None,
            // It was never asked.
            u64::MAX if otherwise > 0 => Activity::Written,
            seen if otherwise > seen => Activity::Written,
            _ => Activity::Appended,
        }
    }
}

/// How it is published.
impl LocalFile {
    /// The content as it is now, to be read as long as no byte of it is changed.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        Snapshot::new(self, &read(&self.state))
    }

    /// Somebody else made another content of it, unless it has one of its own. Whether it is `base` from now on.
    pub fn replace(&self, base: Base) -> bool {
        write(&self.state).replace(base)
    }

    /// The content at `generation` is published as `base`, whose blocks are here.
    pub fn rebase(&self, generation: u64, base: Base) -> Rebased {
        write(&self.state).rebase(generation, base)
    }
}

/// How it is made durable: put the record where it is found, and `Storage::commit(writes, &[files], Durable)`.
impl LocalFile {
    /// Where the bytes are that a commit must see to. None where the record has all of them.
    pub fn files(&self) -> Option<Arc<CoreFiles>> {
        read(&self.state).file().map(|file| file.files.clone())
    }

    /// As long as it is the version of the record that was committed last, that one is enough, and a commit of
    /// [`Self::files`] alone makes everything durable. Whoever deletes the record has none.
    pub fn record_version(&self) -> u64 {
        read(&self.state).version
    }

    /// What [`Self::from_record`] needs. None if it were too long: publish the file instead.
    ///
    /// What is in memory is in the record, and each write makes another one necessary.
    ///
    /// A file with a staging file that grows by what is written to its end needs no other record: where nothing useless
    /// lies in the staging file past the size, the record is *open*, and the length of the staging file is the size. That is
    /// right because nothing but a write makes that file longer (no room is set aside, a failed write past the end makes
    /// another record necessary, so do cutting and growing without a write), because a synced write is in its length, and
    /// because the base never shows past a size that the file has had. What a crash leaves there beyond the last sync is of
    /// writes that were not synced, with zeros where one is missing, as on any file system.
    pub fn record(&self) -> Option<Recorded> {
        write(&self.state).record()
    }

    /// Staging files that it has no more, and that are to be removed once no record names them.
    pub fn take_left(&self) -> Vec<DiscoveryKey> {
        std::mem::take(&mut write(&self.state).left)
    }

    /// The same, and the files that it speaks of, which a commit of it must see to: they may be others a moment later.
    pub fn record_with_files(&self) -> Option<(Recorded, Option<Arc<CoreFiles>>)> {
        let mut state = write(&self.state);
        let recorded = state.record()?;
        Some((recorded, state.file().map(|file| file.files.clone())))
    }

    /// The record of this version is durable, or there is none any more: what only older ones knew gives its space back.
    pub fn recorded(&self, version: u64) {
        let mut state = write(&self.state);
        if state.version == version {
            state.free();
        }
    }
}

impl Base {
    /// All of a range inside it.
    async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        let len = (range.end - range.start) as usize;
        whole(self.reader.read(range.start, len).await?, len)
    }

    /// The same, if it is here.
    fn read_local(&self, range: Range<u64>) -> Result<Option<Vec<Bytes>>> {
        let len = (range.end - range.start) as usize;
        let found = self.reader.read_local(range.start, len)?;
        found.map(|pieces| whole(pieces, len)).transpose()
    }
}

fn fresh() -> u64 {
    let random = sign::random();
    u64::from_le_bytes(*random.first_chunk().expect("32 bytes are 8 and more"))
}

fn whole(pieces: Vec<Bytes>, len: usize) -> Result<Vec<Bytes>> {
    match pieces.iter().map(Bytes::len).sum::<usize>() == len {
        true => Ok(pieces),
        false => Err(BlobError::Damaged("it is shorter than its entry says").into()),
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod small_tests;
#[cfg(test)]
mod tests;
