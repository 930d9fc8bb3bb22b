//! Small durable writes without syncing the files they go to.
//!
//! Syncing a file costs a journal commit of the file system, and a change to a drive touches four files. Where
//! little was written to a file since its last sync, a copy of that goes into the database transaction that
//! speaks of it, and the file is synced some day. A store that finds such copies when it is opened writes them
//! again, in order, before anything else.
//!
//! | [`Table::Redo`] | layout |
//! |---|---|
//! | key | discovery key\[32\], file (0 blocks, 1 tree), u64 sequence (big-endian) |
//! | value | u64 offset (LE), bytes |
//!
//! Copies of a file are deleted by the next transaction after a sync of the file that began after they were made;
//! none of them may be put over what was written later.

use super::file::Unsynced;
use super::{CoreFiles, FileKind, Medium, RawFile, Result, StorageError, Table, Writes};
use crate::key::{DiscoveryKey, hex};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of copies that a file may have in the database before it is synced.
const MAX_PER_FILE: usize = 1 << 20;

/// Files with copies in the database at a time, which bounds what an opening has to repeat. Others are synced.
const MAX_FILES: usize = 128;

pub(super) const KINDS: [FileKind; 2] = [FileKind::Blocks, FileKind::Tree];

/// Which copies the database holds.
#[derive(Default)]
pub(super) struct Redo {
    logs: BTreeMap<(DiscoveryKey, FileKind), Log>,
    next: u64,
    /// Cores with copies that could not be repeated: what their files hold is to be proven first.
    pub(super) unrepeated: BTreeSet<DiscoveryKey>,
}

struct Log {
    files: Arc<CoreFiles>,
    sequences: Vec<u64>,
    bytes: usize,
    /// Copies below this sequence are in the synced file.
    synced_below: u64,
}

/// See [`Redo::forget`].
#[derive(Default)]
pub(super) struct Forgotten(Vec<((DiscoveryKey, FileKind), Log)>);

/// What one durable commit adds, to be settled when its outcome is known.
#[derive(Default)]
pub(super) struct Plan {
    added: Vec<Added>,
}

struct Added {
    files: Arc<CoreFiles>,
    kind: FileKind,
    sequences: Range<u64>,
    copies: Vec<(u64, Vec<u8>)>,
}

impl Plan {
    /// For a file that was synced after all: another handle of it had too much.
    fn drop_copies(&mut self, core: &DiscoveryKey, kind: FileKind, writes: &mut Writes) {
        self.added.retain(|added| {
            let keep = added.files.core != *core || added.kind != kind;
            for sequence in added.sequences.clone().filter(|_| !keep) {
                writes.delete(Table::Redo, redo_key(core, kind, sequence));
            }
            keep
        });
    }
}

impl Redo {
    /// Repeats what the database holds copies of, and makes that durable. Where nothing can be written the deletion of
    /// the copies is left to the next transaction, so that the store can be read; copies of this opening get other keys,
    /// so that they neither replace that deletion nor are taken back with it. Where a file cannot be written or synced its
    /// copies stay, and nothing may be committed ([`Self::unrepeated`]).
    pub(super) fn replay(medium: &dyn Medium) -> Result<(Self, Writes)> {
        let found = medium.scan(Table::Redo, &[])?;
        let mut redo = Self::default();
        let mut writes = Writes::default();
        let mut rest = found.as_slice();
        while let Some((key, value)) = rest.first() {
            let (name, ..) = parse(key, value)?;
            let file = Replayed::new(medium, name);
            let mut done = file.look_at_device();
            let mut copies = Vec::new();
            while let Some((key, value)) = rest.first() {
                let (next, sequence, offset, bytes) = parse(key, value)?;
                if next != name {
                    break;
                }
                done = done.and_then(|()| file.repeat(offset, bytes));
                redo.next = redo.next.max(sequence.saturating_add(1));
                copies.push(key.as_slice());
                rest = &rest[1..];
            }
            match done.and_then(|()| file.sync()) {
                Ok(()) => copies.into_iter().for_each(|key| writes.delete(Table::Redo, key)),
                Err(error) => {
                    if redo.unrepeated.is_empty() {
                        tracing::warn!("the store is only read: {error}");
                    }
                    redo.unrepeated.insert(name.0);
                }
            }
        }
        if writes.is_empty() || !redo.unrepeated.is_empty() {
            return Ok((redo, writes));
        }
        match medium.apply(&writes) {
            Err(error) if error.leaves_it_readable() => Ok((redo, writes)),
            done => done.map(|()| (redo, Writes::default())),
        }
    }

    /// The sequence to give to [`Self::synced`] after a sync that starts now.
    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    /// A file was synced, by a sync that began at `mark`.
    pub(super) fn synced(&mut self, core: &DiscoveryKey, kind: FileKind, mark: u64) {
        if let Some(log) = self.logs.get_mut(&(*core, kind)) {
            log.synced_below = log.synced_below.max(mark);
        }
    }

    /// Sees to it that files are durable with a transaction: syncs them or adds copies to its writes.
    pub(super) fn plan(
        &mut self,
        files: &[&Arc<CoreFiles>],
        plan: &mut Plan,
        writes: &mut Writes,
    ) -> Result<()> {
        for files in files {
            for kind in KINDS {
                let copies = match files.file(kind).take_unsynced() {
                    Unsynced::Nothing => continue,
                    Unsynced::Copied(copies) if self.has_room(files, kind, &copies) => copies,
                    _ => {
                        let mark = self.mark();
                        files.file(kind).sync_raw()?;
                        self.synced(&files.core, kind, mark);
                        plan.drop_copies(&files.core, kind, writes);
                        continue;
                    }
                };
                let from = self.next;
                self.next += copies.len() as u64;
                for (sequence, (offset, bytes)) in (from..).zip(&copies) {
                    let value = [offset.to_le_bytes().as_slice(), bytes].concat();
                    writes.put(Table::Redo, redo_key(&files.core, kind, sequence), value);
                }
                let (files, sequences) = (Arc::clone(files), from..self.next);
                plan.added.push(Added { files, kind, sequences, copies });
            }
        }
        Ok(())
    }

    fn has_room(&self, files: &CoreFiles, kind: FileKind, copies: &[(u64, Vec<u8>)]) -> bool {
        let bytes: usize = copies.iter().map(|(_, bytes)| bytes.len()).sum();
        match self.logs.get(&(files.core, kind)) {
            Some(log) => log.bytes + bytes <= MAX_PER_FILE,
            None => self.logs.len() < MAX_FILES,
        }
    }

    /// Adds the deletion of copies that are no longer needed.
    pub(super) fn prune(&self, writes: &mut Writes) {
        for ((core, kind), log) in &self.logs {
            for &sequence in log.sequences.iter().filter(|&&n| n < log.synced_below) {
                writes.delete(Table::Redo, redo_key(core, *kind, sequence));
            }
        }
    }

    /// The transaction is durable.
    pub(super) fn done(&mut self, plan: Plan) {
        // First what prune deleted, then what the plan added: no sync since covers that.
        self.logs.retain(|_, log| {
            log.sequences.retain(|&n| n >= log.synced_below);
            if log.sequences.is_empty() {
                log.bytes = 0;
            }
            !log.sequences.is_empty()
        });
        for Added { files, kind, sequences, copies } in plan.added {
            let log = self.logs.entry((files.core, kind)).or_insert_with(|| Log {
                files: files.clone(),
                sequences: Vec::new(),
                bytes: 0,
                synced_below: 0,
            });
            log.sequences.extend(sequences);
            log.bytes += copies.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
    }

    /// The transaction did not happen: its copies are the files' to see to again.
    pub(super) fn undo(&mut self, plan: Plan) {
        for added in plan.added.into_iter().rev() {
            added.files.file(added.kind).put_back(added.copies);
        }
    }

    /// Syncs every file that has copies, so that the next transaction deletes them all.
    pub(super) fn settle(&mut self) -> Result<()> {
        let mark = self.mark();
        for ((_, kind), log) in &mut self.logs {
            log.files.file(*kind).sync_raw()?;
            log.synced_below = mark;
        }
        Ok(())
    }

    /// Forgets a core that is deleted. What it knew of it, to be put back by [`Self::restore`] if the writes fail.
    pub(super) fn forget(&mut self, core: &DiscoveryKey, writes: &mut Writes) -> Forgotten {
        let mut forgotten = Forgotten::default();
        for kind in KINDS {
            let Some(log) = self.logs.remove(&(*core, kind)) else { continue };
            for sequence in &log.sequences {
                writes.delete(Table::Redo, redo_key(core, kind, *sequence));
            }
            forgotten.0.push(((*core, kind), log));
        }
        forgotten
    }

    pub(super) fn restore(&mut self, forgotten: Forgotten) {
        self.logs.extend(forgotten.0);
    }
}

fn redo_key(core: &DiscoveryKey, kind: FileKind, sequence: u64) -> Vec<u8> {
    let kind = match kind {
        FileKind::Blocks => 0,
        FileKind::Tree => 1,
    };
    [core.as_bytes().as_slice(), &[kind], &sequence.to_be_bytes()].concat()
}

/// A copy: of which file, its sequence, offset and bytes.
type Copied<'a> = ((DiscoveryKey, FileKind), u64, u64, &'a [u8]);

fn parse<'a>(key: &[u8], value: &'a [u8]) -> Result<Copied<'a>> {
    let read = || {
        let (core, rest) = key.split_first_chunk()?;
        let (kind, sequence) = rest.split_first()?;
        let kind = *KINDS.get(usize::from(*kind))?;
        let sequence = u64::from_be_bytes(sequence.try_into().ok()?);
        let (offset, bytes) = value.split_first_chunk()?;
        Some(((DiscoveryKey(*core), kind), sequence, u64::from_le_bytes(*offset), bytes))
    };
    read().ok_or_else(|| StorageError::DamagedRecord {
        table: Table::Redo,
        key: hex(key),
        reason: "not a copy of a write".into(),
    })
}

/// A file that writes are repeated to.
struct Replayed {
    raw: Box<dyn RawFile>,
    what: String,
}

impl Replayed {
    fn new(medium: &dyn Medium, (core, kind): (DiscoveryKey, FileKind)) -> Self {
        let what = format!("the file {} of the store", crate::key::short(&core.0));
        Self { raw: medium.file(&core, kind), what }
    }

    /// Where only the process was killed all of it is there, and needs no room on a full disk. Whether it is must be
    /// seen on the device: the process may have ended because a sync had failed.
    fn look_at_device(&self) -> Result<()> {
        self.sync()?;
        self.raw.forget_cached().map_err(|e| StorageError::io("read", &self.what, e))
    }

    fn repeat(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut there = vec![0; bytes.len()];
        let read = self.raw.read_at(offset, &mut there);
        if read.is_ok_and(|n| n == bytes.len()) && there == bytes {
            return Ok(());
        }
        let done = self.raw.write_at(offset, &mut [IoSlice::new(bytes)]);
        done.map_err(|e| StorageError::io("repeat a write to", &self.what, e))
    }

    fn sync(&self) -> Result<()> {
        self.raw.sync().map_err(|e| StorageError::io("sync", &self.what, e))
    }
}
