//! What this store remembers of a share and a drive has no place for.
//!
//! | record | says |
//! |---|---|
//! | `share-root/` + drive key | path and identity of the folder; the drive is written by `share` alone |
//! | `share/` + drive + `f` + path | inode and change time that the file had when it was imported |
//! | `share/` + drive + `c` + first block | print of a content that the drive has, and where it is |
//! | `share/` + drive + `t` + path | how often readings of it were stored that came to nothing, and where the last is |
//! | `share/` + drive + `m` + path | identity of what was mounted there when it was crossed |
//! | `share/` + drive + `g` + path | nothing: the name came from another folder than the one that is shared |
//!
//! `drive` is the first eight bytes of its key. All of it may be lost: then files are read again, and nothing else
//! happens. A print is found before the content is compared, it is never trusted.

use super::root::Identity;
use super::scan::Stamp;
use crate::codec::{Put, Reader};
use crate::crypto::hash::{self, Hash};
use crate::hyper::blobs::BlobId;
use crate::hyper::core::storage::{Durability, Result, Storage, Table, Writes};
use crate::key::CoreKey;
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const ROOT: &[u8] = b"share-root/";
const SHARE: &[u8] = b"share/";

/// Bytes at both ends of a file that go into its print.
const PRINT_BYTES: u64 = 1 << 16;

/// A file that changed this shortly before it was looked at may change again without another change time.
pub const RACY_NS: i64 = 2_000_000_000;

/// Contents of one print that are kept in mind: each may be compared with a file.
const MAX_ALIKE: usize = 16;

/// Files of which is remembered that they were read when nobody wrote them; one that is forgotten is read once more.
const MAX_CLOSED: usize = 1 << 14;

/// Tells contents apart that are worth comparing.
pub type Print = [u8; 16];

/// What a file was when it was imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    ino: u64,
    /// 0 if it was too fresh to be sure of.
    ctime_ns: i64,
}

impl Seen {
    /// `now_ns` is when it was looked at.
    pub fn of(stamp: &Stamp, now_ns: i64) -> Self {
        let fresh = now_ns.saturating_sub(stamp.ctime_ns) < RACY_NS;
        Self { ino: stamp.file.ino, ctime_ns: if fresh { 0 } else { stamp.ctime_ns } }
    }

    /// It is another one by now, whatever it looks like.
    pub fn unsure(stamp: &Stamp) -> Self {
        Self { ino: stamp.file.ino, ctime_ns: 0 }
    }

    /// Whether a file with this stamp has not been touched since.
    pub fn is(&self, stamp: &Stamp) -> bool {
        self.ctime_ns != 0 && (self.ino, self.ctime_ns) == (stamp.file.ino, stamp.ctime_ns)
    }
}

/// Readings of a file that were stored, and that nothing names since it changed meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Torn {
    pub times: u64,
    /// The last that went to the end of the file: what comes next is perhaps not much different.
    pub last: Option<BlobId>,
}

/// The folder of a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRoot {
    pub path: PathBuf,
    pub identity: Identity,
}

/// The records of one drive.
pub struct Ledger {
    storage: Arc<dyn Storage>,
    key: CoreKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writes: Writes,
    /// Loaded when it is first asked for.
    contents: Option<Known>,
    /// Names of inodes that have several.
    links: HashMap<u64, Linked>,
    /// Files that somebody closed who could write them, and that are looked at for that.
    closed: HashSet<DrivePath>,
    /// What files were that were read after they had been closed so.
    read_closed: HashMap<DrivePath, Seen>,
}

/// First bytes of a print → first block.
#[derive(Default)]
struct Known {
    newest: HashMap<u64, u64>,
    /// Older ones of the same print, oldest first: files that differ in the middle alone.
    older: HashMap<u64, Vec<u64>>,
}

impl Known {
    fn insert(&mut self, print: u64, block: u64) {
        let Some(before) = self.newest.insert(print, block).filter(|before| *before != block)
        else {
            return;
        };
        let older = self.older.entry(print).or_default();
        older.retain(|known| *known != block);
        if older.len() + 1 >= MAX_ALIKE {
            older.remove(0);
        }
        older.push(before);
    }

    /// Newest first.
    fn of(&self, print: u64) -> Vec<u64> {
        let older = self.older.get(&print).into_iter().flatten().rev();
        self.newest.get(&print).into_iter().chain(older).copied().collect()
    }
}

#[derive(Default)]
struct Linked {
    names: BTreeSet<DrivePath>,
    /// All names that the folder had were looked for.
    complete: bool,
}

impl Ledger {
    pub fn new(storage: Arc<dyn Storage>, key: CoreKey) -> Self {
        Self { storage, key, state: Mutex::default() }
    }

    /// The same after a start: only what was written is known.
    #[cfg(test)]
    pub(super) fn again(&self) -> Self {
        Self::new(self.storage.clone(), self.key)
    }

    /// The folder that the drive follows.
    pub fn root(&self) -> Result<Option<SharedRoot>> {
        let record = self.storage.get(Table::Records, &root_key(&self.key))?;
        Ok(record.and_then(|record| decode_root(&record)))
    }

    pub fn set_root(&self, root: &SharedRoot) -> Result<()> {
        let mut value = Vec::new();
        value.put_buffer(&root.identity.encode());
        value.put(root.path.as_os_str().as_bytes());
        let mut writes = Writes::default();
        writes.put(Table::Records, root_key(&self.key), value);
        self.storage.commit(writes, &[], Durability::Durable)
    }

    /// The drives that follow a folder, and which.
    pub fn roots(storage: &Arc<dyn Storage>) -> Result<Vec<(CoreKey, SharedRoot)>> {
        let records = storage.scan(Table::Records, ROOT)?;
        let root = |(key, value): (Vec<u8>, Vec<u8>)| {
            Some((CoreKey(key.get(ROOT.len()..)?.try_into().ok()?), decode_root(&value)?))
        };
        Ok(records.into_iter().filter_map(root).collect())
    }

    /// What removes all records of the drive.
    pub fn removal(&self) -> Result<Writes> {
        let mut writes = Writes::default();
        for (key, _) in self.storage.scan(Table::Records, &[SHARE, &self.key.0[..8]].concat())? {
            writes.delete(Table::Records, key);
        }
        writes.delete(Table::Records, root_key(&self.key));
        Ok(writes)
    }

    pub fn seen(&self, path: &DrivePath) -> Result<Option<Seen>> {
        let value = self.read(&self.record(b'f', path.as_str().as_bytes()))?;
        Ok(value.and_then(|value| decode_seen(&value)))
    }

    /// A record as it will be.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(pending) = self.lock().writes.get(Table::Records, key) {
            return Ok(pending.cloned());
        }
        self.storage.get(Table::Records, key)
    }

    /// Remembers a file as it was imported; durable some time after [`Ledger::write`].
    pub fn note(&self, path: &DrivePath, seen: Seen) {
        let value = [seen.ino.to_le_bytes(), seen.ctime_ns.to_le_bytes()].concat();
        let key = self.record(b'f', path.as_str().as_bytes());
        let mut state = self.lock();
        state.writes.put(Table::Records, key, value);
        if state.closed.contains(path) {
            if state.read_closed.len() >= MAX_CLOSED {
                state.read_closed.clear();
            }
            state.read_closed.insert(path.clone(), seen);
        }
    }

    /// These files were closed by somebody who could write them, and no others that are looked at next.
    pub fn set_closed(&self, paths: &[DrivePath]) {
        self.lock().closed = paths.iter().cloned().collect();
    }

    /// Whether a file may hold something else though it looks as it did when it was read: it was closed since by
    /// somebody who may have had it mapped then. What is written through a mapping changes the times of the file only
    /// where the page was clean; on some filesystems never.
    pub fn is_doubtful(&self, path: &DrivePath, seen: &Seen) -> bool {
        let state = self.lock();
        state.closed.contains(path) && state.read_closed.get(path) != Some(seen)
    }

    pub fn forget(&self, path: &DrivePath) {
        let mut state = self.lock();
        for kind in [b'f', b't'] {
            state.writes.delete(Table::Records, self.record(kind, path.as_str().as_bytes()));
        }
    }

    /// What became of the readings of a file so far.
    pub fn torn(&self, path: &DrivePath) -> Result<Torn> {
        let value = self.read(&self.record(b't', path.as_str().as_bytes()))?;
        Ok(value.and_then(|value| decode_torn(&value)).unwrap_or_default())
    }

    pub fn note_torn(&self, path: &DrivePath, torn: &Torn) {
        let mut value = Vec::new();
        value.put_uint(torn.times);
        if let Some(last) = &torn.last {
            value.put_uint(last.block_offset);
            put_content(&mut value, last);
        }
        let key = self.record(b't', path.as_str().as_bytes());
        self.lock().writes.put(Table::Records, key, value);
    }

    /// The file was stored.
    pub fn forget_torn(&self, path: &DrivePath) {
        let key = self.record(b't', path.as_str().as_bytes());
        self.lock().writes.delete(Table::Records, key);
    }

    /// Contents of this print that the drive had once, newest first.
    pub fn contents(&self, print: &Print) -> Result<Vec<BlobId>> {
        let mut state = self.lock();
        if state.contents.is_none() {
            let mut known = Known::default();
            for (key, value) in self.storage.scan(Table::Records, &self.record(b'c', b""))? {
                if let (Some(block), Some(print)) = (key.last_chunk(), value.first_chunk()) {
                    known.insert(short(print), u64::from_be_bytes(*block));
                }
            }
            state.contents = Some(known);
        }
        let blocks = state.contents.as_ref().map(|known| known.of(short(print)));
        let mut found = Vec::new();
        for block in blocks.unwrap_or_default() {
            let key = self.record(b'c', &block.to_be_bytes());
            let value = match state.writes.get(Table::Records, &key) {
                Some(pending) => pending.cloned(),
                None => self.storage.get(Table::Records, &key)?,
            };
            let content = value.and_then(|value| decode_content(block, &value));
            found.extend(content.filter(|(known, _)| known == print).map(|(_, id)| id));
        }
        Ok(found)
    }

    pub fn note_content(&self, print: &Print, id: &BlobId) {
        let mut value = print.to_vec();
        put_content(&mut value, id);
        let key = self.record(b'c', &id.block_offset.to_be_bytes());
        let mut state = self.lock();
        state.writes.put(Table::Records, key, value);
        if let Some(contents) = &mut state.contents {
            contents.insert(short(print), id.block_offset);
        }
    }

    /// Remembers names of inodes that have several. `complete` if they are all that the folder holds.
    pub fn note_links<'a>(
        &self,
        found: impl Iterator<Item = (u64, &'a DrivePath)>,
        complete: bool,
    ) {
        let mut state = self.lock();
        if complete {
            state.links.clear();
        }
        for (ino, path) in found {
            let linked = state.links.entry(ino).or_default();
            linked.names.insert(path.clone());
            linked.complete |= complete;
        }
    }

    /// The names that these inodes had in the folder.
    pub fn names_of(&self, inodes: &HashSet<u64>) -> Result<BTreeSet<DrivePath>> {
        let mut state = self.lock();
        let is_known = |ino: &u64| state.links.get(ino).is_some_and(|linked| linked.complete);
        let unknown: HashSet<u64> = inodes.iter().copied().filter(|ino| !is_known(ino)).collect();
        if !unknown.is_empty() {
            let prefix = self.record(b'f', b"");
            for (key, value) in self.storage.scan(Table::Records, &prefix)? {
                let Some(seen) = decode_seen(&value).filter(|seen| unknown.contains(&seen.ino))
                else {
                    continue;
                };
                let name = std::str::from_utf8(&key[prefix.len()..]).ok();
                if let Some(path) = name.and_then(|name| DrivePath::from_entry_key(name).ok()) {
                    state.links.entry(seen.ino).or_default().names.insert(path);
                }
            }
            for ino in unknown {
                state.links.entry(ino).or_default().complete = true;
            }
        }
        let linked = inodes.iter().filter_map(|ino| state.links.get(ino));
        Ok(linked.flat_map(|linked| linked.names.iter().cloned()).collect())
    }

    /// Mount points that were crossed, whether or not something is mounted there now, and what was mounted there; none
    /// in records of an older version.
    pub fn crossed(&self) -> Result<BTreeMap<DrivePath, Option<Identity>>> {
        let prefix = self.record(b'm', b"");
        let found = self.storage.scan(Table::Records, &prefix)?;
        let mount = |(key, value): (Vec<u8>, Vec<u8>)| {
            let path = std::str::from_utf8(&key[prefix.len()..]).ok()?;
            Some((DrivePath::from_entry_key(path).ok()?, Identity::decode(&value)))
        };
        Ok(found.into_iter().filter_map(mount).collect())
    }

    pub fn note_crossed(&self, path: &DrivePath, identity: &Identity) {
        let key = self.record(b'm', path.as_str().as_bytes());
        self.lock().writes.put(Table::Records, key, identity.encode());
    }

    /// Forgets mount points: what is mounted now is all that counts.
    pub fn forget_crossed(&self) -> Result<()> {
        self.forget_all(b'm')
    }

    /// Remembers that a name was taken from a folder that is perhaps not the one that is shared.
    pub fn note_guest(&self, path: &DrivePath) {
        let key = self.record(b'g', path.as_str().as_bytes());
        self.lock().writes.put(Table::Records, key, Vec::new());
    }

    /// Those names.
    pub fn guests(&self) -> Result<HashSet<DrivePath>> {
        let prefix = self.record(b'g', b"");
        let found = self.storage.scan(Table::Records, &prefix)?;
        let guest = |(key, _): (Vec<u8>, Vec<u8>)| {
            DrivePath::from_entry_key(std::str::from_utf8(&key[prefix.len()..]).ok()?).ok()
        };
        Ok(found.into_iter().filter_map(guest).collect())
    }

    /// The folder that they came from is the one that is shared.
    pub fn forget_guests(&self) -> Result<()> {
        self.forget_all(b'g')
    }

    fn forget_all(&self, kind: u8) -> Result<()> {
        let mut writes = Writes::default();
        for (key, _) in self.storage.scan(Table::Records, &self.record(kind, b""))? {
            writes.delete(Table::Records, key);
        }
        match writes.is_empty() {
            true => Ok(()),
            false => self.storage.commit(writes, &[], Durability::Durable),
        }
    }

    /// Hands what was noted to the store.
    pub fn write(&self) -> Result<()> {
        let writes = std::mem::take(&mut self.lock().writes);
        match writes.is_empty() {
            true => Ok(()),
            false => self.storage.commit(writes, &[], Durability::Buffered),
        }
    }

    fn record(&self, kind: u8, name: &[u8]) -> Vec<u8> {
        [SHARE, &self.key.0[..8], &[kind], name].concat()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        crate::lock::lock(&self.state)
    }
}

/// What a file of `size` bytes begins with: enough for its print.
pub fn head(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut head = vec![0; PRINT_BYTES.min(size) as usize];
    let n = file.read_at(&mut head, 0)?;
    head.truncate(n);
    Ok(head)
}

/// The print of a file of `size` bytes that begins with `head`.
pub fn print(file: &File, head: Vec<u8>, size: u64) -> io::Result<Print> {
    let mut ends = head;
    if size > PRINT_BYTES {
        let last = PRINT_BYTES.min(size - PRINT_BYTES) as usize;
        let mut end = vec![0; last];
        file.read_exact_at(&mut end, size - last as u64)?;
        ends.extend(end);
    }
    Ok(print_in(&hash::hash(&[&size.to_le_bytes(), &ends])))
}

/// Hashes of contents that are no longer than their ends, and so of all of them; their prints are a part of these.
pub fn whole_hashes(contents: &[impl AsRef<[u8]>]) -> Vec<Hash> {
    hash::hashes(contents, |content| (content.len() as u64).to_le_bytes())
}

pub fn print_in(hash: &Hash) -> Print {
    let mut print = [0; 16];
    print.copy_from_slice(&hash[..16]);
    print
}

fn short(print: &Print) -> u64 {
    let (head, _) = print.split_at(8);
    head.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn root_key(key: &CoreKey) -> Vec<u8> {
    [ROOT, &key.0].concat()
}

fn decode_root(value: &[u8]) -> Option<SharedRoot> {
    let mut reader = Reader::new(value);
    let identity = Identity::decode(reader.buffer().ok()?)?;
    let path = Path::new(&OsString::from_vec(reader.rest().to_vec())).to_path_buf();
    Some(SharedRoot { path, identity })
}

fn decode_seen(value: &[u8]) -> Option<Seen> {
    let mut reader = Reader::new(value);
    Some(Seen { ino: reader.u64().ok()?, ctime_ns: reader.u64().ok()? as i64 })
}

fn decode_content(block_offset: u64, value: &[u8]) -> Option<(Print, BlobId)> {
    let mut reader = Reader::new(value);
    let print = reader.fixed().ok()?;
    Some((print, content_at(block_offset, &mut reader)?))
}

fn content_at(block_offset: u64, reader: &mut Reader<'_>) -> Option<BlobId> {
    let mut next = || reader.uint().ok();
    Some(BlobId {
        block_offset,
        byte_offset: next()?,
        block_length: next()?,
        byte_length: next()?,
        block_map: next()? == 1,
    })
}

/// All of it but its first block.
fn put_content(value: &mut Vec<u8>, id: &BlobId) {
    for number in [id.byte_offset, id.block_length, id.byte_length, u64::from(id.block_map)] {
        value.put_uint(number);
    }
}

fn decode_torn(value: &[u8]) -> Option<Torn> {
    let mut reader = Reader::new(value);
    let times = reader.uint().ok()?;
    let last = reader.uint().ok().and_then(|block| content_at(block, &mut reader));
    Some(Torn { times, last })
}

#[cfg(test)]
mod tests;
