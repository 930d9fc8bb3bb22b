//! What survives a power cut before it is published.
//!
//! What is synced of a file that is not published lies in its staging file, and a record of the store says where the file
//! is in the drive and what it is made of. Of a small file all of that is in the record. The next start finds it, and goes
//! on as if nothing had been.
//!
//! A record alone never takes anything away: it may only speak of names that, as others see the drive, are the file's
//! already or nobody's. After a rename, say, or where something else had the name before, the file is published instead,
//! and with it all that was done to names. A publication brings the records that stay up to what the names are then.
//!
//! | record | value |
//! |---|---|
//! | `draft/` + key of the drive + `/` + [`LocalFile::id`], in hexadecimal | names, mode, id, owner; then the record of the [`LocalFile`] |

use super::{Draft, DraftError, Names, Which};
use crate::codec::{self, DecodeError, Put, Reader};
use crate::hyper::blobs::BlobId;
use crate::hyper::core::storage::{Durability, Records, Storage, StorageError, Writes};
use crate::hyper::drive::{Content, DriveIndex, File, Leaf, MODE_BITS, Owner, Stat, Steps, Time};
use crate::hyper::local::{LocalError, LocalFile, Record, is_staging};
use crate::key::{CoreKey, DiscoveryKey, hex};
use crate::lock::{lock, read, write};
use crate::path::{DrivePath, MAX_NAME, MAX_PATH};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of a file that a record tells at most; one with more is published.
const MAX_NAMES: usize = 64;

/// How often a file is published that somebody goes on changing meanwhile.
const TRIES: u32 = 5;

/// What the store has records of.
#[derive(Default)]
pub(super) struct Spool {
    /// By [`LocalFile::id`].
    files: BTreeMap<u64, Spooled>,
    /// Whose record tells a name. Texts, so that what lies below one follows it and a slash.
    names: BTreeMap<String, u64>,
    /// The names that are being published at this moment.
    coming: Option<DriveIndex>,
    /// Files whose records speak of what they were before others made them something else. They go with the next
    /// publication.
    void: BTreeSet<u64>,
}

/// What is known of a record.
struct Spooled {
    place: Place,
    /// See [`LocalFile::record_version`].
    version: u64,
    /// The [`LocalFile::generation`] up to which the file was made durable.
    synced: u64,
    /// The staging file that it speaks of.
    staging: Option<DiscoveryKey>,
    /// It was made while others were being published.
    newer: bool,
}

/// Where a file is in the drive, and what its entries will say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// One or more.
    names: Vec<DrivePath>,
    mode: u16,
    id: u64,
    owner: Owner,
}

/// What a publication makes of the records.
#[derive(Default)]
pub(super) struct Changes {
    pub writes: Writes,
    forgotten: Vec<u64>,
    moved: Vec<(u64, Place)>,
}

/// What the names of all records begin with.
const DRAFTS: &str = "draft/";

impl Spool {
    /// These names are being published.
    pub fn begin(&mut self, coming: DriveIndex) {
        self.coming = Some(coming);
        self.files.values_mut().for_each(|spooled| spooled.newer = false);
    }

    /// That is over, whatever came of it.
    pub fn end(&mut self) {
        self.coming = None;
    }

    /// What others made of these files is what they are.
    pub fn make_void(&mut self, files: Vec<u64>) {
        self.void.extend(files.into_iter().filter(|id| self.files.contains_key(id)));
    }

    /// Files whose records are of no use.
    pub fn void(&self) -> Vec<u64> {
        self.void.iter().copied().collect()
    }

    /// Whether a record speaks of this file.
    pub fn has(&self, file: u64) -> bool {
        self.files.contains_key(&file)
    }

    /// Whether the record of this file speaks of this staging file.
    pub fn needs(&self, file: u64, staging: &DiscoveryKey) -> bool {
        self.files.get(&file).is_some_and(|spooled| spooled.staging.as_ref() == Some(staging))
    }

    /// Whether a file of this generation is durable.
    pub fn holds(&self, file: u64, generation: u64) -> bool {
        self.files.get(&file).is_some_and(|spooled| spooled.synced >= generation)
    }

    /// Whether nothing was synced of a file after it had this generation.
    pub fn is_in(&self, file: u64, generation: u64) -> bool {
        self.files.get(&file).is_none_or(|spooled| spooled.synced <= generation)
    }

    fn put(&mut self, file: u64, spooled: Spooled) {
        self.take(file);
        for name in &spooled.place.names {
            self.names.insert(name.as_str().to_owned(), file);
        }
        self.files.insert(file, spooled);
    }

    fn take(&mut self, file: u64) -> Option<Spooled> {
        self.void.remove(&file);
        let spooled = self.files.remove(&file)?;
        for name in &spooled.place.names {
            if self.names.get(name.as_str()) == Some(&file) {
                self.names.remove(name.as_str());
            }
        }
        Some(spooled)
    }

    /// Whether the record of another file is in the way of one at `path`.
    fn is_taken(&self, path: &DrivePath, file: u64) -> bool {
        let is_others = |path: &str| self.names.get(path).is_some_and(|id| *id != file);
        let below = format!("{path}/");
        let next = self.names.range(below.clone()..).next();
        next.is_some_and(|(name, _)| name.starts_with(&below))
            || is_others(path.as_str())
            || above(path).any(|path| is_others(path.as_str()))
    }

    /// What becomes of the records once `steps` are published, and files `known` to others need none.
    pub fn changes(
        &self,
        draft: &Draft,
        known: impl IntoIterator<Item = u64>,
        steps: &Steps,
    ) -> Result<Changes, DraftError> {
        let mut changes = Changes::default();
        for id in known.into_iter().filter(|id| self.has(*id)) {
            Records::change(&mut changes.writes, &name(&draft.key, id), None);
            changes.forgotten.push(id);
        }
        let mut places: BTreeMap<u64, Place> = BTreeMap::new();
        for (path, leaf) in &steps.leaves {
            let Some((leaf, local)) = leaf.as_ref().and_then(|leaf| Some((leaf, leaf.local()?)))
            else {
                continue;
            };
            let place = places.entry(local.file.id()).or_insert_with(|| Place::of(leaf));
            place.names.push(path.clone());
        }
        let records = Records::new(draft.storage.clone());
        for (id, mut place) in places {
            place.names.sort_unstable();
            let stays = |spooled: &&Spooled| !spooled.newer && spooled.place != place;
            if changes.forgotten.contains(&id) || self.files.get(&id).filter(stays).is_none() {
                continue;
            }
            let name = name(&draft.key, id);
            let Some(value) = records.get_record(&name)? else { continue };
            let (_, record) = Place::decode(&value).map_err(LocalError::from)?;
            let value = [&place.encode()[..], record].concat();
            Records::change(&mut changes.writes, &name, Some(value));
            changes.moved.push((id, place));
        }
        Ok(changes)
    }

    /// They are durable.
    pub fn changed(&mut self, changes: Changes) {
        for id in changes.forgotten {
            self.take(id);
        }
        for (id, place) in changes.moved {
            if let Some(spooled) = self.take(id) {
                self.put(id, Spooled { place, ..spooled });
            }
        }
    }
}

impl Names {
    /// Where a file is that has the name `path`. None if it has not, or if a record cannot say all of it.
    fn place(&self, path: &DrivePath, file: u64) -> Option<Place> {
        let leaf = self.now.leaf(path).filter(|leaf| is(leaf, file))?;
        if leaf.xattrs().is_some_and(|xattrs| xattrs.is_unwritten()) {
            return None;
        }
        let names = self.all_of(path).ok().filter(|names| names.len() <= MAX_NAMES)?;
        Some(Place { names, ..Place::of(leaf) })
    }
}

fn is(leaf: &Leaf, file: u64) -> bool {
    leaf.local().is_some_and(|local| local.file.id() == file)
}

/// The folders that it lies in.
fn above(path: &DrivePath) -> impl Iterator<Item = DrivePath> {
    std::iter::successors(path.parent(), DrivePath::parent)
}

/// Whether a file can be put at `path` and takes nobody's place but what it may.
fn is_free(index: &DriveIndex, path: &DrivePath, may_take: impl Fn(Option<&Leaf>) -> bool) -> bool {
    index.list(path).is_none()
        && may_take(index.leaf(path))
        && above(path).all(|path| index.leaf(&path).is_none())
}

impl Draft {
    /// Makes what was written to a file so far durable, under this name and all others that it has. Where a record cannot
    /// do it, it is published.
    ///
    /// # Errors
    /// What was written since the last time may be lost by a power cut.
    pub fn sync(&self, path: &DrivePath, file: &LocalFile) -> Result<(), DraftError> {
        // The most of it, without keeping others from theirs.
        if let Some(files) = file.files() {
            let synced = self.storage.sync_files(&files);
            let is_staged = || file.files().is_some_and(|now| Arc::ptr_eq(&now, &files));
            match synced {
                // It was published meanwhile, and what was staged is gone.
                Err(error) if error.is_replaced() && !is_staged() => {}
                synced => synced?,
            }
        }
        if self.record(path, file, false)? {
            return Ok(());
        }
        let mut tries = 0;
        loop {
            match self.publish(Which::One(file.id())) {
                Err(DraftError::Local(LocalError::Changed)) if tries < TRIES => tries += 1,
                done => return done.map(drop),
            }
        }
    }

    /// Makes a file durable by a record of it. Whether that is possible; `over` even if something else is seen by others
    /// under its name, which is gone.
    pub(super) fn record(
        &self,
        path: &DrivePath,
        file: &LocalFile,
        over: bool,
    ) -> Result<bool, DraftError> {
        let mut spool = lock(&self.spool);
        // What comes later may be made durable too, and need not.
        let synced = file.generation();
        let Some(place) = self.recordable(&spool, path, file.id(), over) else { return Ok(false) };
        let version = file.record_version();
        let is_known = |known: &&Spooled| (&known.place, known.version) == (&place, version);
        let mut writes = Writes::default();
        let is_new = spool.files.get(&file.id()).filter(is_known).is_none();
        let mut version = version;
        let mut staging = spool.files.get(&file.id()).and_then(|spooled| spooled.staging);
        let mut files = file.files();
        if is_new {
            let Some((recorded, spoken_of)) = file.record_with_files() else { return Ok(false) };
            files = spoken_of;
            staging = LocalFile::staging_of(&recorded.bytes);
            let value = [place.encode(), recorded.bytes].concat();
            let name = name(&self.key, file.id());
            // Of a transaction that changes nothing nobody can tell whether it failed.
            if Records::new(self.storage.clone()).get_record(&name)?.as_ref() != Some(&value) {
                Records::change(&mut writes, &name, Some(value));
            }
            version = recorded.version;
        }
        let files: Vec<_> = files.iter().collect();
        self.storage.commit(writes, &files, Durability::Durable)?;
        if is_new {
            file.recorded(version);
        }
        let newer = spool.coming.is_some();
        spool.put(file.id(), Spooled { place, version, synced, staging, newer });
        for left in file.take_left().iter().filter(|left| !spool.needs(file.id(), left)) {
            // Else it goes with the next start.
            let _ = self.storage.remove_files(left);
        }
        Ok(true)
    }

    /// The place of a file, if a record of it may say it.
    fn recordable(&self, spool: &Spool, path: &DrivePath, file: u64, over: bool) -> Option<Place> {
        let names = read(&self.names);
        let place = names.place(path, file)?;
        let free = place.names.iter().all(|path| {
            let seq = names.now.leaf(path).map_or(0, Leaf::seq);
            let in_published = |leaf: Option<&Leaf>| over || leaf.map_or(0, Leaf::seq) == seq;
            let in_coming = |leaf: Option<&Leaf>| {
                leaf.is_none_or(|leaf| is(leaf, file) || (seq != 0 && leaf.seq() == seq))
            };
            is_free(&names.published, path, in_published)
                && spool.coming.as_ref().is_none_or(|coming| is_free(coming, path, in_coming))
                && !spool.is_taken(path, file)
        });
        free.then_some(place)
    }

    /// Takes up what an earlier end left.
    ///
    /// # Errors
    /// Where the store cannot be read, nothing is known to be lost.
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
            let path = &place.names[0];
            let found =
                LocalFile::from_record(id, record, &self.storage, &self.memory, self.drive.blobs());
            let file = match found {
                Ok(file) => Arc::new(file),
                // Another time it may be there.
                Err(error @ LocalError::Storage(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%path, %error, "what was written to a file last is lost");
                    continue;
                }
            };
            write(&self.names).take_up(&file, &place);
            let (version, staging) = (file.record_version(), file.staging());
            spool.put(id, Spooled { place, version, synced: 0, staging, newer: false });
        }
        Ok(())
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
            staged.extend(file_record(&value).and_then(LocalFile::staging_of));
            Records::change(&mut writes, &name, None);
        }
        Ok((writes, staged))
    }

    /// The contents that what an earlier end left was changed from.
    pub fn bases(storage: &Arc<dyn Storage>, key: &CoreKey) -> Result<Vec<BlobId>, StorageError> {
        let records = Records::new(storage.clone()).records(&prefix(key))?;
        let base =
            |(_, value): &(_, Vec<u8>)| Some(Record::decode(file_record(value)?).ok()?.base?.0);
        Ok(records.iter().filter_map(base).collect())
    }

    /// Deletes what an end without notice left in a store of files that nothing was synced of. Only before the first draft
    /// is opened.
    pub fn clean(storage: &Arc<dyn Storage>) -> Result<(), DraftError> {
        let mut kept = BTreeSet::new();
        for (name, value) in Records::new(storage.clone()).records(DRAFTS)? {
            match file_record(&value).filter(|record| Record::decode(record).is_ok()) {
                Some(record) => kept.extend(LocalFile::staging_of(record)),
                // Any of them may be what it speaks of.
                None => {
                    tracing::warn!(name, "a record makes no sense, and no staging file is deleted");
                    return Ok(());
                }
            }
        }
        for (id, _) in storage.cores_with_files()? {
            if is_staging(&id) && !kept.contains(&id) {
                storage.remove_files(&id)?;
            }
        }
        Ok(())
    }
}

impl Names {
    /// Puts a file where its record says.
    fn take_up(&mut self, file: &Arc<LocalFile>, place: &Place) {
        for path in &place.names {
            let may_take = |leaf: Option<&Leaf>| leaf.is_none_or(|leaf| leaf.local().is_none());
            // Others may have changed the drive since.
            let path = match is_free(&self.now, path, may_take) {
                true => path.clone(),
                false => self.beside(path),
            };
            let before = self.now.leaf(&path).cloned();
            let seq = before.as_ref().map_or(0, Leaf::seq);
            let (published, xattrs) = match before {
                Some(Leaf::File(file)) => (Some(file.content), file.xattrs),
                _ => (None, None),
            };
            let &Place { mode, id, owner, .. } = place;
            let stat = Stat { mode, id, owner, mtime: Time::NONE };
            let content = Content::local(file, published, file.id());
            self.now.set(&path, Leaf::File(File { seq, stat, xattrs, content }));
        }
    }

    /// A name that nothing has, in the folder that a file was in, or above it where that is none any more.
    fn beside(&self, path: &DrivePath) -> DrivePath {
        let mut folders = above(path);
        let is_folder = |path: &DrivePath| {
            let has_room = path.as_str().len() + MAX_NAME < MAX_PATH;
            has_room && self.now.leaf(path).is_none() && self.now.list(path).is_some()
        };
        let folder = folders.find(is_folder).unwrap_or_else(DrivePath::root);
        let name: String = path.name().chars().take(RECOVERED_CHARS).collect();
        let names = (1u64..).filter_map(|n| folder.join(&format!("{name}.recovered-{n}")).ok());
        let free = |path: &DrivePath| self.now.lookup(path).is_none();
        names.into_iter().find(free).expect("a folder has fewer names than there are numbers")
    }
}

/// Of a name in the one that a file gets whose place is taken: what fits whatever its letters are.
const RECOVERED_CHARS: usize = 50;

/// What a record says of the file itself.
fn file_record(value: &[u8]) -> Option<&[u8]> {
    Place::decode(value).ok().map(|(_, record)| record)
}

fn name(drive: &CoreKey, file: u64) -> String {
    format!("{}{file:016x}", prefix(drive))
}

fn prefix(drive: &CoreKey) -> String {
    format!("{DRAFTS}{}/", hex(&drive.0))
}

impl Place {
    /// That of a leaf, without its names.
    fn of(leaf: &Leaf) -> Self {
        let Stat { mode, id, owner, .. } = *leaf.stat();
        Self { names: Vec::new(), mode, id, owner }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_uint(self.names.len() as u64);
        for name in &self.names {
            out.put_buffer(name.as_str().as_bytes());
        }
        out.put_uint(self.mode.into());
        out.extend(self.id.to_le_bytes());
        for id in [self.owner.uid(), self.owner.gid()] {
            out.put_uint(id.map_or(0, |id| u64::from(id) + 1));
        }
        out
    }

    /// The place, and what follows it.
    fn decode(bytes: &[u8]) -> codec::Result<(Self, &[u8])> {
        let mut reader = Reader::new(bytes);
        let mut names = Vec::new();
        for _ in 0..reader.count(1)? {
            let path = DrivePath::from_entry_key(reader.string()?);
            names.push(path.map_err(|_| DecodeError::Invalid("path"))?);
        }
        if names.is_empty() {
            return Err(DecodeError::Invalid("names"));
        }
        let mode = reader.uint()? as u16 & MODE_BITS;
        let id = reader.u64()?;
        let mut owner = || Ok(u32::try_from(reader.uint()?).ok().and_then(|id| id.checked_sub(1)));
        let owner = Owner::new(owner()?, owner()?);
        Ok((Self { names, mode, id, owner }, reader.rest()))
    }
}
