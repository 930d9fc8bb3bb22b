//! Small files are read, and hashed, by a thread of its own while another stores those before them.
//!
//! It takes only what is simple: a file that can be read, was not touched since it was found, and is no database.
//! Everything else is left to whoever stores it.

use super::super::beneath::Beneath;
use super::super::ledger::{Seen, whole_hashes};
use super::super::scan::Look;
use super::super::stores::may_be_database;
use super::{TICK, Wanted, now_ns, read_small};
use crate::crypto::hash::Hash;
use crate::hyper::blobs::BLOCK_SIZE;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

/// Fewer files are not worth a thread.
const MIN_FILES: usize = 64;

/// Files, and bytes, that are handed on together.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 1 << 20;
/// Batches that wait, besides the one that is read and the one that is stored.
const WAITING: usize = 2;

/// A file as it was found, all of it.
pub(super) struct Ready {
    pub bytes: Bytes,
    pub hash: Hash,
    pub seen: Seen,
}

/// See the module.
pub(super) struct Ahead {
    batches: Receiver<Vec<Option<Ready>>>,
    batch: std::vec::IntoIter<Option<Ready>>,
}

impl Ahead {
    /// Begins with the first of `files`; none if that is not worth it. It ends with the files, or when this is dropped.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        folder: &'scope Beneath,
        files: &'scope [Wanted<'scope>],
    ) -> Option<Self> {
        if files.iter().filter(|wanted| is_small(wanted)).take(MIN_FILES).count() < MIN_FILES {
            return None;
        }
        let (sender, batches) = sync_channel(WAITING);
        let work = move || read_all(folder, files, &sender);
        // Without it all is read by whoever stores it.
        Builder::new().name("read ahead".into()).spawn_scoped(scope, work).ok()?;
        Some(Self { batches, batch: Vec::new().into_iter() })
    }

    /// What was read of the next file; none if that was left to the caller.
    pub fn next(&mut self) -> Option<Ready> {
        if self.batch.len() == 0 {
            self.batch = self.batches.recv().unwrap_or_default().into_iter();
        }
        self.batch.next().flatten()
    }
}

fn is_small(wanted: &Wanted<'_>) -> bool {
    wanted.local.size() <= BLOCK_SIZE
}

fn read_all(folder: &Beneath, mut files: &[Wanted<'_>], sender: &SyncSender<Vec<Option<Ready>>>) {
    while !files.is_empty() {
        let mut bytes = 0;
        let fits = files.iter().take(BATCH).take_while(|wanted| {
            bytes += wanted.local.size().min(BLOCK_SIZE);
            bytes <= BATCH_BYTES
        });
        let (batch, rest) = files.split_at(fits.count());
        let read: Vec<_> = batch.iter().map(|wanted| read(folder, wanted)).collect();
        let contents: Vec<_> = read.iter().flatten().map(|(bytes, _)| bytes).collect();
        let mut hashes = whole_hashes(&contents).into_iter();
        let ready = read.into_iter().map(|read| {
            let (bytes, seen) = read?;
            Some(Ready { bytes, hash: hashes.next()?, seen })
        });
        if sender.send(ready.collect()).is_err() {
            return;
        }
        files = rest;
    }
}

fn read(folder: &Beneath, wanted: &Wanted<'_>) -> Option<(Bytes, Seen)> {
    let before = wanted.local.look();
    let now = now_ns();
    if !is_small(wanted) || now.saturating_sub(before.stamp.ctime_ns) < TICK.as_nanos() as i64 {
        return None;
    }
    let file = folder.open(&wanted.local.path).ok()?;
    let bytes = read_small(&file, before.size).ok()?;
    let whole = Look::at(&file).ok()? == before && !may_be_database(&bytes);
    whole.then(|| (bytes, Seen::of(&before.stamp, now)))
}
