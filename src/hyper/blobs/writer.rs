//! Appends contents to a blobs core, cut into blocks.
//!
//! A [`Writer`] has the core to itself and may take many contents. Their blocks are written as they come;
//! they are in the core after [`Writer::flush`], with one signature and one commit. A writer that is dropped
//! before leaves nothing.
//!
//! A *polite* one lets others in who want to write, between two pieces: what it has taken is committed then, though
//! nothing names it yet, and what comes next lies behind theirs. A long content that is parted by that becomes a block map.
//!
//! Source: hyperblobs/lib/streams.js (BlobWriteStream)

use super::block_map::{BlockMap, MAX_ENTRIES};
use super::{BLOCK_SIZE, BlobError, BlobId, Result};
use crate::hyper::core::storage::Writes;
use crate::hyper::source::{Append, BlockLog, SourceError};
use crate::lease::Lease;
use crate::lock::{Baton, Taken, lock};
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

/// Bytes that are handed on at a time: enough for the disk, little enough to be held a few times.
const PIECE: u64 = 4 << 20;

/// A block takes as long as so many bytes, be it as small as it may.
const BLOCK_COST: u64 = 16 << 10;

/// Bytes after which what was handed on is committed without being told to. That bounds what the next start
/// after a crash throws away, and the tree nodes held in memory: 2 MiB.
const MAX_UNCOMMITTED: u64 = 1 << 30;

/// See the module.
pub struct Writer<'a> {
    log: &'a Arc<dyn BlockLog>,
    turn: &'a Arc<Baton>,
    is_polite: bool,
    /// What was done since the others were let in, in bytes.
    done: u64,
    core: Arc<Mutex<Core>>,
    /// Blocks and bytes of the core once everything is appended.
    length: u64,
    byte_length: u64,
    /// Blocks since the last commit, in order, and of those what was not handed on yet.
    uncommitted: u64,
    uncommitted_bytes: u64,
    pending: Vec<Bytes>,
    pending_bytes: u64,
}

/// The core. Whoever ends the right to write takes it away, and with it what is not committed.
struct Held {
    append: Box<dyn Append + Send>,
    _turn: Taken,
}

enum Core {
    Here(Held),
    /// Somebody else is let in.
    Lent,
    /// The writer has ended, or was called off.
    Gone,
}

impl Held {
    /// Waits for those who asked before.
    fn take(log: &Arc<dyn BlockLog>, turn: &Arc<Baton>) -> Result<Self> {
        let turn = turn.take();
        Ok(Self { append: Arc::clone(log).begin()?, _turn: turn })
    }
}

/// Takes it away when dropped.
struct TakesAway(Arc<Mutex<Core>>);

impl Drop for TakesAway {
    fn drop(&mut self) {
        *lock(&self.0) = Core::Gone;
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        *lock(&self.core) = Core::Gone;
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        log: &'a Arc<dyn BlockLog>,
        turn: &'a Arc<Baton>,
        lease: Option<&Lease>,
    ) -> Result<Self> {
        let core = Arc::new(Mutex::new(Core::Here(Held::take(log, turn)?)));
        if lease.is_some_and(|lease| !lease.hold(TakesAway(Arc::clone(&core)))) {
            return Err(BlobError::CalledOff);
        }
        Ok(Self {
            log,
            turn,
            is_polite: false,
            done: 0,
            core,
            length: log.length(),
            byte_length: log.byte_length(),
            uncommitted: 0,
            uncommitted_bytes: 0,
            pending: Vec::new(),
            pending_bytes: 0,
        })
    }

    /// Lets others in from now on.
    pub(super) fn be_polite(mut self) -> Self {
        self.is_polite = true;
        self
    }

    /// What is in the core already.
    pub(super) fn log(&self) -> &'a Arc<dyn BlockLog> {
        self.log
    }

    /// Blocks of the core once everything taken is appended.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Takes a whole content and tells where it will be. It is in the core after the next flush.
    pub fn put(&mut self, content: impl Read) -> Result<BlobId> {
        self.make_way()?;
        self.collect(Cutter::new(content).map(|block| block.map_err(input)))
    }

    /// The same of one of `size` bytes at most, which may be parted if a map can name so many.
    pub fn put_long(&mut self, content: impl Read, size: u64) -> Result<BlobId> {
        if !self.is_polite || size <= PIECE || size.div_ceil(BLOCK_SIZE) > MAX_ENTRIES as u64 {
            return self.put(content);
        }
        let mut content = content.take(size);
        let (mut map, mut parts) = (BlockMap::default(), Vec::new());
        loop {
            let part = self.put((&mut content).take(PIECE))?;
            let mut left = part.byte_length;
            for block in part.block_offset..part.block_end() {
                let length = left.min(BLOCK_SIZE);
                map.push(block, length)?;
                left -= length;
            }
            match parts.last_mut() {
                Some(_) if part.byte_length == 0 => {}
                Some(last) if BlobId::block_end(last) == part.block_offset => {
                    last.block_length += part.block_length;
                    last.byte_length += part.byte_length;
                }
                _ => parts.push(part),
            }
            if part.byte_length < PIECE {
                break;
            }
        }
        match &parts[..] {
            [whole] => Ok(*whole),
            _ => {
                let id = self.put_blocks(map.encode())?;
                Ok(BlobId { block_map: true, ..id })
            }
        }
    }

    /// The same for blocks that are cut already.
    pub fn put_blocks(&mut self, blocks: impl IntoIterator<Item = Bytes>) -> Result<BlobId> {
        self.make_way()?;
        self.collect(blocks.into_iter().map(Ok))
    }

    /// Counts a block of so many bytes that was written, or compared.
    pub(super) fn count(&mut self, bytes: u64) {
        self.done += bytes + BLOCK_COST;
    }

    /// Lets others in, if they wait and it may. Before a content, or where one may be parted: what was taken is in the core
    /// then, and what is taken next behind what others append.
    pub(super) fn make_way(&mut self) -> Result<()> {
        if !self.is_polite || self.done < PIECE || !self.turn.is_wanted() {
            return Ok(());
        }
        self.done = 0;
        self.flush()?;
        {
            let mut core = lock(&self.core);
            match std::mem::replace(&mut *core, Core::Lent) {
                Core::Here(held) => drop(held),
                _ => *core = Core::Gone,
            }
        }
        let held = Held::take(self.log, self.turn)?;
        match &mut *lock(&self.core) {
            core @ Core::Lent => *core = Core::Here(held),
            _ => return Err(BlobError::CalledOff),
        }
        (self.length, self.byte_length) = (self.log.length(), self.log.byte_length());
        Ok(())
    }

    /// Makes a blob longer without writing it again, if it is the last thing in the core. `None` if it is not, or is a
    /// block map.
    pub fn extend(&mut self, id: &BlobId, content: impl Read) -> Result<Option<BlobId>> {
        if id.block_map || id.block_end() != self.length {
            return Ok(None);
        }
        // Behind it, and nothing of others between.
        let more = self.collect(Cutter::new(content).map(|block| block.map_err(input)))?;
        Ok(Some(BlobId {
            block_length: id.block_length + more.block_length,
            byte_length: id.byte_length + more.byte_length,
            ..*id
        }))
    }

    /// Appends everything taken so far.
    pub fn flush(&mut self) -> Result<()> {
        match self.uncommitted {
            0 => Ok(()),
            _ => self.commit(|append| append.commit()),
        }
    }

    fn commit(
        &mut self,
        commit: impl FnOnce(&mut (dyn Append + Send)) -> std::result::Result<u64, SourceError>,
    ) -> Result<()> {
        self.hand_on()?;
        let first = self.length - self.uncommitted;
        if self.with(commit)? != first {
            return Err(BlobError::Raced);
        }
        (self.uncommitted, self.uncommitted_bytes) = (0, 0);
        Ok(())
    }

    /// The same, and appends `blocks` to the log that names what was taken: see [`Append::commit_with`].
    pub fn flush_with(
        &mut self,
        names: &dyn BlockLog,
        blocks: Vec<Bytes>,
        also: Writes,
    ) -> Result<()> {
        match self.uncommitted {
            // It may have been called off all the same.
            0 => self.with(|_| names.append_also(blocks, also).map(drop)),
            _ => self.commit(|append| append.commit_with(names, blocks, also)),
        }
    }

    /// Nobody takes the core away meanwhile.
    fn with<T>(
        &self,
        write: impl FnOnce(&mut (dyn Append + Send)) -> std::result::Result<T, SourceError>,
    ) -> Result<T> {
        match &mut *lock(&self.core) {
            Core::Here(held) => Ok(write(&mut *held.append)?),
            Core::Lent | Core::Gone => Err(BlobError::CalledOff),
        }
    }

    fn hand_on(&mut self) -> Result<()> {
        self.pending_bytes = 0;
        match std::mem::take(&mut self.pending) {
            pending if pending.is_empty() => Ok(()),
            pending => self.with(|append| append.push(pending)),
        }
    }

    fn collect(&mut self, blocks: impl Iterator<Item = Result<Bytes>>) -> Result<BlobId> {
        let (block_offset, byte_offset) = (self.length, self.byte_length);
        for block in blocks {
            let block = block?;
            let size = block.len() as u64;
            self.count(size);
            self.length += 1;
            self.byte_length += size;
            self.uncommitted += 1;
            self.uncommitted_bytes += size;
            self.pending_bytes += size;
            self.pending.push(block);
            if self.uncommitted_bytes >= MAX_UNCOMMITTED {
                self.flush()?;
            } else if self.pending_bytes >= PIECE {
                self.hand_on()?;
            }
        }
        Ok(BlobId {
            block_offset,
            byte_offset,
            block_length: self.length - block_offset,
            byte_length: self.byte_length - byte_offset,
            block_map: false,
        })
    }
}

pub(super) fn input(error: io::Error) -> BlobError {
    BlobError::Input(Arc::new(error))
}

/// Cuts a stream into blocks of [`BLOCK_SIZE`] bytes; the last may be shorter.
pub struct Cutter<R> {
    content: R,
    done: bool,
}

impl<R: Read> Cutter<R> {
    pub fn new(content: R) -> Self {
        Self { content, done: false }
    }
}

impl<R: Read> Iterator for Cutter<R> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut block = Vec::with_capacity(BLOCK_SIZE as usize);
        let read = (&mut self.content).take(BLOCK_SIZE).read_to_end(&mut block);
        self.done = read.is_err() || (block.len() as u64) < BLOCK_SIZE;
        match read {
            Err(error) => Some(Err(error)),
            Ok(0) => None,
            Ok(_) => {
                // A short block must not keep 64 KiB in memory for as long as someone holds it.
                block.shrink_to_fit();
                Some(Ok(block.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Blobs;
    use super::*;
    use crate::hyper::source::memory::MemoryLog;

    /// A content in the middle of which somebody else comes who wants to write, and waits.
    struct Met {
        content: Vec<u8>,
        at: usize,
        blobs: Blobs,
        other: Option<std::thread::JoinHandle<BlobId>>,
    }

    impl Read for Met {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if self.at > PIECE as usize / 2 && self.other.is_none() {
                let blobs = self.blobs.clone();
                self.other = Some(std::thread::spawn(move || {
                    let mut writer = blobs.writer().unwrap();
                    let id = writer.put(&b"other"[..]).unwrap();
                    writer.flush().unwrap();
                    id
                }));
                while !self.blobs.turn.is_wanted() {
                    std::thread::yield_now();
                }
            }
            let n = (&self.content[self.at..]).read(buf)?;
            self.at += n;
            Ok(n)
        }
    }

    #[test]
    fn a_polite_writer_lets_others_in_and_parts_a_long_content_for_it() {
        let blobs = Blobs::writable(MemoryLog::new());
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|n| (n / 251) as u8).collect();
        let mut writer = blobs.polite_writer().unwrap();
        let small = writer.put(&b"small"[..]).unwrap();
        let whole = writer.put_long(&content[..], content.len() as u64).unwrap();
        assert!(!whole.block_map, "nobody waits");
        let met = |blobs| Met { content: content.clone(), at: 0, blobs, other: None };
        let mut first = met(blobs.clone());
        let parted = writer.put_long(&mut first, content.len() as u64).unwrap();
        assert!(parted.block_map);
        let other = first.other.unwrap().join().unwrap();
        assert!(other.block_offset > whole.block_end() && other.block_end() < parted.block_offset);
        // What cannot be parted lets nobody in before it is all there.
        let mut second = met(blobs.clone());
        let put = writer.put(&mut second).unwrap();
        let next = writer.put(&b"next"[..]).unwrap();
        let other = second.other.unwrap().join().unwrap();
        assert!(other.block_offset == put.block_end() && next.block_offset == other.block_end());
        writer.flush().unwrap();
        drop(writer);
        let read = |id| blobs.reader(id, None).read_local(0, 1 << 30).unwrap().unwrap().concat();
        assert!([whole, parted, put].into_iter().all(|id| read(id) == content));
        assert_eq!((&read(small)[..], &read(next)[..]), (&b"small"[..], &b"next"[..]));
    }

    #[test]
    fn a_writer_that_is_called_off_while_others_are_let_in_takes_nothing_more() {
        let lease = Lease::default();
        let blobs = Blobs::writable(MemoryLog::new());
        let under = blobs.under(&lease);
        let mut writer = under.polite_writer().unwrap();
        writer.put(&vec![1; PIECE as usize][..]).unwrap();
        let ends = lease.clone();
        let others = blobs.clone();
        let other = std::thread::spawn(move || {
            let _writer = others.writer().unwrap();
            ends.end();
        });
        while !blobs.turn.is_wanted() {
            std::thread::yield_now();
        }
        assert!(matches!(writer.put(&b"more"[..]), Err(BlobError::CalledOff)));
        other.join().unwrap();
    }
}
