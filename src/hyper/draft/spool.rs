//! What survives a power cut before it is published.
//!
//! What is synced of a file that is not published lies in its staging file, and a record of the store says where the file
//! is in the drive and what it is made of. The next start finds the record, and goes on as if nothing had been.
//!
//! | record | value |
//! |---|---|
//! | `draft/` + key of the drive + `/` + [`LocalFile::id`], in hexadecimal | path, mode, id; then the record of the [`LocalFile`] |

use super::{Draft, DraftError};
use crate::codec::{self, DecodeError, Put, Reader};
use crate::hyper::blobs::BlobId;
use crate::hyper::core::storage::{Durability, Records, Storage, StorageError, Writes};
use crate::hyper::drive::{Content, File, Leaf, MODE_BITS, Stat, Time};
use crate::hyper::local::{LocalFile, Record, is_staging};
use crate::key::{CoreKey, DiscoveryKey, hex};
use crate::lock::{lock, read, write};
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// What the store has records of, by [`LocalFile::id`].
#[derive(Default)]
pub(super) struct Spool {
    /// The place and the version that each speaks of.
    records: BTreeMap<u64, (Place, u64)>,
    /// Those that are being written, or taken away with what is published. Others go on meanwhile.
    claimed: BTreeSet<u64>,
    /// Those of what a file was before somebody else made it another. They go with the next publication.
    void: BTreeSet<u64>,
}

impl Spool {
    pub(super) fn void(&mut self, files: Vec<u64>) {
        self.void.extend(files.into_iter().filter(|id| self.records.contains_key(id)));
    }
}

/// Records that nobody else changes; given back when dropped.
pub(super) struct Claim<'a> {
    draft: &'a Draft,
    ids: BTreeSet<u64>,
}

impl Claim<'_> {
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.ids.iter().copied()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut spool = lock(&self.draft.spool);
        spool.claimed.retain(|id| !self.ids.contains(id));
        self.draft.spooled.notify_all();
    }
}

/// What became of what is not published.
#[derive(Debug, Default)]
pub struct Kept {
    /// So many files are durable, and published when the drive is worked on next.
    pub kept: usize,
    /// Of these what was written last is not.
    pub lost: Vec<DrivePath>,
    /// Why.
    pub why: Option<StorageError>,
    /// So many other changes are not: new names, names that are gone, attributes.
    pub names: usize,
}

/// Where a file is in the drive, and what its entry will say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: DrivePath,
    mode: u16,
    id: u64,
}

/// What the names of all records begin with.
const DRAFTS: &str = "draft/";

impl Draft {
    /// Makes what was written to a file so far durable, under this name, without publishing it.
    ///
    /// # Errors
    /// What was written since the last time may be lost by a power cut.
    pub fn sync(&self, path: &DrivePath, file: &LocalFile) -> Result<(), DraftError> {
        // The most of it, without keeping others from theirs.
        if let Some(files) = file.files() {
            self.storage.sync_files(&files)?;
        }
        let publish = || self.publish(super::Which::One(file.id())).map(drop);
        let stat = self.with_names(|names| {
            let leaf = names.leaf(path)?;
            let is_it = leaf.local().is_some_and(|local| local.file.id() == file.id());
            is_it.then(|| *leaf.stat())
        });
        // It was moved at this moment, or is what was published.
        let Some(Stat { mode, id, .. }) = stat else { return publish() };
        let place = Place { path: path.clone(), mode, id };
        let claim = self.claim(BTreeSet::from([file.id()]));
        let (version, base) = (file.record_version(), file.base());
        let known = {
            let spool = lock(&self.spool);
            spool.records.get(&file.id()).is_some_and(|known| *known == (place.clone(), version))
        };
        let mut writes = Writes::default();
        let recorded = if known { None } else { file.record() };
        match &recorded {
            Some(recorded) => {
                let value = [place.encode(), recorded.bytes.clone()].concat();
                Records::change(&mut writes, &name(&self.key, file.id()), Some(value));
            }
            None if known => {}
            None => {
                drop(claim);
                return publish();
            }
        }
        let files = file.files();
        let files: Vec<_> = files.iter().collect();
        self.storage.commit(writes, &files, Durability::Durable)?;
        if let Some(recorded) = recorded {
            file.recorded(recorded.version);
            let mut spool = lock(&self.spool);
            spool.records.insert(file.id(), (place, recorded.version));
            if file.base() == base {
                spool.void.remove(&file.id());
            }
        }
        Ok(())
    }

    /// Waits until nobody else changes the records of these files.
    pub(super) fn claim(&self, ids: BTreeSet<u64>) -> Claim<'_> {
        let spool = lock(&self.spool);
        let taken = |spool: &mut Spool| !spool.claimed.is_disjoint(&ids);
        let waited = self.spooled.wait_while(spool, taken);
        let mut spool = waited.unwrap_or_else(PoisonError::into_inner);
        spool.claimed.extend(&ids);
        drop(spool);
        Claim { draft: self, ids }
    }

    /// Records that are of no use.
    pub(super) fn void_records(&self) -> BTreeSet<u64> {
        lock(&self.spool).void.clone()
    }

    /// Makes all that is not published durable, as [`Self::sync`] does, in one go.
    pub fn keep(&self) -> Kept {
        let steps = read(&self.names).steps();
        let mut files: BTreeMap<u64, (Place, Arc<LocalFile>)> = BTreeMap::new();
        let mut kept = Kept::default();
        for (path, leaf) in steps.leaves {
            match leaf.as_ref().map(|leaf| (leaf.local(), leaf.stat())) {
                // It is only open.
                Some((Some(local), _)) if local.file.is_base() && local.published.is_some() => {}
                Some((Some(local), stat)) => {
                    let place = Place { path, mode: stat.mode, id: stat.id };
                    files.entry(local.file.id()).or_insert((place, Arc::clone(&local.file)));
                }
                _ => kept.names += 1,
            }
        }
        kept.names += steps.nodes.len() + steps.records.len();
        let claim = self.claim(files.keys().copied().collect());
        let (mut writes, mut stored, mut recorded) = (Writes::default(), Vec::new(), Vec::new());
        for (id, (place, file)) in files {
            let Some(record) = file.record() else {
                kept.lost.push(place.path);
                continue;
            };
            let value = [place.encode(), record.bytes].concat();
            Records::change(&mut writes, &name(&self.key, id), Some(value));
            stored.extend(file.files());
            recorded.push((id, place, file, record.version));
        }
        let stored: Vec<_> = stored.iter().collect();
        let committed = self.storage.commit(writes, &stored, Durability::Durable);
        let mut spool = lock(&self.spool);
        for (id, place, file, version) in recorded {
            if committed.is_ok() {
                file.recorded(version);
                kept.kept += 1;
                spool.void.remove(&id);
                spool.records.insert(id, (place, version));
            } else if spool.records.get(&id).is_none_or(|known| *known != (place.clone(), version))
            {
                kept.lost.push(place.path);
            }
        }
        drop(spool);
        drop(claim);
        kept.why = committed.err();
        kept
    }

    /// Whether an earlier end left something of this drive that is not published.
    pub fn has_records(storage: &Arc<dyn Storage>, key: &CoreKey) -> Result<bool, DraftError> {
        Ok(!Records::new(storage.clone()).records(&prefix(key))?.is_empty())
    }

    /// What goes with a drive that is forgotten: its records, and its staging files, which are to be removed after them.
    pub fn removal(
        storage: &Arc<dyn Storage>,
        key: &CoreKey,
    ) -> Result<(Writes, Vec<DiscoveryKey>), StorageError> {
        let (mut writes, mut staged) = (Writes::default(), Vec::new());
        for (name, value) in Records::new(storage.clone()).records(&prefix(key))? {
            staged.extend(staging(&value));
            Records::change(&mut writes, &name, None);
        }
        Ok((writes, staged))
    }

    /// The contents that what an earlier end left was changed from.
    pub fn bases(storage: &Arc<dyn Storage>, key: &CoreKey) -> Result<Vec<BlobId>, StorageError> {
        let records = Records::new(storage.clone()).records(&prefix(key))?;
        let base = |(_, value): &(_, Vec<u8>)| {
            let (_, record) = Place::decode(value).ok()?;
            Some(Record::decode(record).ok()?.base?.0)
        };
        Ok(records.iter().filter_map(base).collect())
    }

    /// Takes up what an earlier end left.
    pub(super) fn recover(&self) -> Result<(), DraftError> {
        let prefix = &prefix(&self.key);
        let mut spool = lock(&self.spool);
        for (name, value) in Records::new(self.storage.clone()).records(prefix)? {
            let id = name.strip_prefix(prefix).and_then(|id| u64::from_str_radix(id, 16).ok());
            let read = id.and_then(|id| Some((id, Place::decode(&value).ok()?)));
            let Some((id, (place, record))) = read else {
                tracing::error!(
                    name,
                    "a record of a changed file makes no sense, and is left alone"
                );
                continue;
            };
            let found = LocalFile::from_record(id, record, &self.storage, self.drive.blobs());
            let file = match found {
                Ok(file) => Arc::new(file),
                Err(error) => {
                    tracing::error!(path = %place.path, %error, "what was written to a file last is lost");
                    continue;
                }
            };
            let mut names = write(&self.names);
            let before = names.now.leaf(&place.path).cloned();
            let seq = before.as_ref().map_or(0, Leaf::seq);
            let (published, xattrs) = match before {
                Some(Leaf::File(file)) => (Some(file.content), file.xattrs),
                _ => (None, None),
            };
            let stat = Stat { mode: place.mode, id: place.id, mtime: Time::NONE };
            let content = Content::local(&file, published, id);
            names.now.set(&place.path, Leaf::File(File { seq, stat, xattrs, content }));
            spool.records.insert(id, (place, file.record_version()));
        }
        Ok(())
    }

    /// Deletes what an end without notice left in a store of files that nothing was synced of. Only before the first draft
    /// is opened.
    pub fn clean(storage: &Arc<dyn Storage>) -> Result<(), DraftError> {
        let records = Records::new(storage.clone()).records(DRAFTS)?;
        let kept: BTreeSet<DiscoveryKey> =
            records.iter().filter_map(|(_, value)| staging(value)).collect();
        for (id, _) in storage.cores_with_files()? {
            if is_staging(&id) && !kept.contains(&id) {
                storage.remove_files(&id)?;
            }
        }
        Ok(())
    }

    /// That the store has no record of these files any more.
    pub(super) fn forget(&self, files: &[u64]) -> Writes {
        let spool = lock(&self.spool);
        let mut writes = Writes::default();
        for id in files.iter().filter(|id| spool.records.contains_key(id)) {
            Records::change(&mut writes, &name(&self.key, *id), None);
        }
        writes
    }

    /// It has none.
    pub(super) fn forgot(&self, files: &[u64]) {
        let mut spool = lock(&self.spool);
        for id in files {
            spool.records.remove(id);
            spool.void.remove(id);
        }
    }
}

/// The staging file that a record speaks of.
fn staging(value: &[u8]) -> Option<DiscoveryKey> {
    LocalFile::staging_of(Place::decode(value).ok()?.1)
}

fn name(drive: &CoreKey, file: u64) -> String {
    format!("{}{file:016x}", prefix(drive))
}

fn prefix(drive: &CoreKey) -> String {
    format!("{DRAFTS}{}/", hex(&drive.0))
}

impl Place {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_buffer(self.path.as_str().as_bytes());
        out.put_uint(self.mode.into());
        out.extend(self.id.to_le_bytes());
        out
    }

    /// The place, and what follows it.
    fn decode(bytes: &[u8]) -> codec::Result<(Self, &[u8])> {
        let mut reader = Reader::new(bytes);
        let path = DrivePath::from_entry_key(reader.string()?);
        let path = path.map_err(|_| DecodeError::Invalid("path"))?;
        let mode = reader.uint()? as u16 & MODE_BITS;
        let id = reader.u64()?;
        Ok((Self { path, mode, id }, reader.rest()))
    }
}
