//! What survives a power cut before it is published.
//!
//! What is synced of a file that is not published lies in its staging file, and a record of the store says where the file
//! is in the drive and what it is made of. The next start finds the record, and goes on as if nothing had been.
//!
//! | record | value |
//! |---|---|
//! | `draft/` + key of the drive + `/` + [`LocalFile::id`], in hexadecimal | path, mode, id, owner; then the record of the [`LocalFile`] |

use super::{Draft, DraftError};
use crate::codec::{self, DecodeError, Put, Reader};
use crate::hyper::core::storage::{Durability, Records, Storage, Writes};
use crate::hyper::drive::{Content, File, Leaf, MODE_BITS, Owner, Stat, Time};
use crate::hyper::local::{LocalFile, is_staging};
use crate::key::{CoreKey, DiscoveryKey, hex};
use crate::lock::{lock, write};
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the store has a record of, by [`LocalFile::id`]: the place and the version that it speaks of.
pub(super) type Spool = BTreeMap<u64, (Place, u64)>;

/// Where a file is in the drive, and what its entry will say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    path: DrivePath,
    mode: u16,
    id: u64,
    owner: Owner,
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
        let Some(Stat { mode, id, owner, .. }) = stat else { return publish() };
        let place = Place { path: path.clone(), mode, id, owner };
        let mut spool = lock(&self.spool);
        let version = file.record_version();
        let mut writes = Writes::default();
        let known = spool.get(&file.id()).is_some_and(|known| *known == (place.clone(), version));
        let recorded = if known { None } else { file.record() };
        match &recorded {
            Some(recorded) => {
                let value = [place.encode(), recorded.bytes.clone()].concat();
                Records::change(&mut writes, &name(&self.key, file.id()), Some(value));
            }
            None if known => {}
            None => {
                drop(spool);
                return publish();
            }
        }
        let files = file.files();
        let files: Vec<_> = files.iter().collect();
        self.storage.commit(writes, &files, Durability::Durable)?;
        if let Some(recorded) = recorded {
            file.recorded(recorded.version);
            spool.insert(file.id(), (place, recorded.version));
        }
        Ok(())
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
            let Place { mode, id: number, owner, .. } = place;
            let stat = Stat { mode, id: number, owner, mtime: Time::NONE };
            let content = Content::local(&file, published, id);
            names.now.set(&place.path, Leaf::File(File { seq, stat, xattrs, content }));
            spool.insert(id, (place, file.record_version()));
        }
        Ok(())
    }

    /// Deletes what an end without notice left in a store of files that nothing was synced of. Only before the first draft
    /// is opened.
    pub fn clean(storage: &Arc<dyn Storage>) -> Result<(), DraftError> {
        let records = Records::new(storage.clone()).records(DRAFTS)?;
        let staged = |(_, value): &(_, Vec<u8>)| {
            let (_, record) = Place::decode(value).ok()?;
            LocalFile::staging_of(record)
        };
        let kept: BTreeSet<DiscoveryKey> = records.iter().filter_map(staged).collect();
        for (id, _) in storage.cores_with_files()? {
            if is_staging(&id) && !kept.contains(&id) {
                storage.remove_files(&id)?;
            }
        }
        Ok(())
    }

    /// That the store has no record of these files any more.
    pub(super) fn forget<'a>(
        &self,
        spool: &Spool,
        files: impl IntoIterator<Item = &'a u64>,
    ) -> Writes {
        let mut writes = Writes::default();
        for id in files.into_iter().filter(|id| spool.contains_key(id)) {
            Records::change(&mut writes, &name(&self.key, *id), None);
        }
        writes
    }
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
        for id in [self.owner.uid(), self.owner.gid()] {
            out.put_uint(id.map_or(0, |id| u64::from(id) + 1));
        }
        out
    }

    /// The place, and what follows it.
    fn decode(bytes: &[u8]) -> codec::Result<(Self, &[u8])> {
        let mut reader = Reader::new(bytes);
        let path = DrivePath::from_entry_key(reader.string()?);
        let path = path.map_err(|_| DecodeError::Invalid("path"))?;
        let mode = reader.uint()? as u16 & MODE_BITS;
        let id = reader.u64()?;
        let mut owner = || Ok(u32::try_from(reader.uint()?).ok().and_then(|id| id.checked_sub(1)));
        let owner = Owner::new(owner()?, owner()?);
        Ok((Self { path, mode, id, owner }, reader.rest()))
    }
}
