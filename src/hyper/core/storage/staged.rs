//! Buffered and durable commits over a medium that only knows durable ones.
//!
//! Buffered commits stay in memory until the next durable one, which makes every file durable that they spoke of
//! and then applies them with its own in one go. So the medium only ever holds states that were committed, in
//! order, and a failed durable commit leaves the buffered ones where they were, unless it may be on the medium all the
//! same: then nothing is taken any more.

use super::redo::{KINDS, Plan, Redo};
use super::removal;
use super::{
    CoreFiles, Doubts, Durability, FileKind, Medium, Result, Session, Storage, StorageError, Table,
    Writes,
};
use crate::codec::{DecodeError, Put, Reader};
use crate::key::DiscoveryKey;
use crate::lock::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Buffered records kept in memory at most, in bytes; a commit beyond it is made durable.
const MAX_BUFFERED: usize = 16 << 20;

/// [`Table::Meta`]: number of the latest opening that wrote, and whether it was closed in order.
const SESSION: &[u8] = b"session";

/// A [`Storage`] over a [`Medium`].
pub struct Staged<M: Medium> {
    medium: M,
    state: Mutex<State>,
    /// Held through a durable commit; others queue here while `state` stays free.
    redo: Mutex<Redo>,
    session: Session,
    /// This opening is noted on the medium, so that the next one can tell how it ended.
    noted: AtomicBool,
    sync_failed: AtomicBool,
}

/// Files in the order in which they were claimed first, which is that of their writes where two instances of one
/// core follow each other. After an unclean end there may be tens of thousands.
#[derive(Default)]
struct Claimed {
    files: Vec<Arc<CoreFiles>>,
    known: BTreeSet<usize>,
}

impl Claimed {
    fn add(&mut self, files: &Arc<CoreFiles>) {
        if self.known.insert(Arc::as_ptr(files) as usize) {
            self.files.push(Arc::clone(files));
        }
    }
}

#[derive(Default)]
struct State {
    /// Committed, not yet handed to the medium.
    buffered: Writes,
    /// Files that `buffered` speaks of.
    claimed: Claimed,
    /// The part that is being applied right now; it is read as committed.
    flying: Option<Arc<Writes>>,
}

impl<M: Medium> Staged<M> {
    /// Opens a store on a medium.
    ///
    /// # Errors
    /// [`StorageError::DamagedRecord`] if the session record does not decode, and what the medium says.
    pub fn new(medium: M) -> Result<Self> {
        let buffered = Redo::replay(&medium)?;
        removal::finish(&medium)?;
        let session = match medium.get(Table::Meta, SESSION)? {
            None => Session { current: 1, unclean: 0 },
            Some(bytes) => next_session(&bytes)?,
        };
        Ok(Self {
            medium,
            state: Mutex::new(State { buffered, ..State::default() }),
            redo: Mutex::default(),
            session,
            noted: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced in single steps, so a panic elsewhere leaves it whole.
        lock(&self.state)
    }

    fn redo(&self) -> MutexGuard<'_, Redo> {
        lock(&self.redo)
    }

    fn commit_durable(&self, writes: Writes, files: &[&Arc<CoreFiles>]) -> Result<()> {
        let redo = &mut *self.redo();
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(StorageError::SyncFailed);
        }
        let (earlier, claimed) = {
            let mut state = self.state();
            let earlier = Arc::new(std::mem::take(&mut state.buffered));
            state.flying = Some(earlier.clone());
            (earlier, std::mem::take(&mut state.claimed))
        };
        let mut all = Writes::clone(&earlier);
        all.merge(writes);
        let files: Vec<_> = claimed.files.iter().chain(files.iter().copied()).collect();
        let done = self.apply_with_files(redo, all, &files);
        let mut state = self.state();
        state.flying = None;
        // What may have landed is on the medium; the records that it replaced must not lie over it.
        if done.as_ref().is_err_and(|error| !error.is_unsure()) {
            let mut back = Writes::clone(&earlier);
            back.merge(std::mem::take(&mut state.buffered));
            state.buffered = back;
            let later = std::mem::replace(&mut state.claimed, claimed);
            later.files.iter().for_each(|files| state.claimed.add(files));
        }
        done
    }

    /// Where there is no room for copies of what was written to files, the files are synced instead, and with them
    /// those that have copies: the transaction deletes them.
    fn apply_with_files(
        &self,
        redo: &mut Redo,
        mut writes: Writes,
        files: &[&Arc<CoreFiles>],
    ) -> Result<()> {
        match self.apply_once(redo, &mut writes, files) {
            Err(full) if full.is_disk_full() => {}
            done => return done,
        }
        writes.take_back_puts(Table::Redo);
        let synced = files.iter().try_for_each(|files| {
            KINDS.into_iter().try_for_each(|kind| files.file(kind).sync().map(drop))
        });
        self.note_sync(synced.and_then(|()| redo.settle()))?;
        self.apply_once(redo, &mut writes, files)
    }

    fn apply_once(
        &self,
        redo: &mut Redo,
        writes: &mut Writes,
        files: &[&Arc<CoreFiles>],
    ) -> Result<()> {
        let mut plan = Plan::default();
        let planned = redo.plan(files, &mut plan, writes);
        let done = self.note_sync(planned).and_then(|()| {
            redo.prune(writes);
            if writes.is_empty() { Ok(()) } else { self.apply(writes) }
        });
        if done.is_ok() {
            redo.done(plan)
        } else {
            redo.undo(plan)
        }
        done
    }

    /// Applies a transaction. One that reports an error may be there all the same, so what landed is read again.
    fn apply(&self, writes: &Writes) -> Result<()> {
        let Err(error) = self.medium.apply(writes) else { return Ok(()) };
        if matches!(error, StorageError::Unnoted { .. }) {
            return Err(error); // it was not tried
        }
        let again = match self.has_landed(writes) {
            Ok(false) => return Err(error),
            Err(_) if error.is_disk_full() => return Err(error),
            // It changes nothing any more, and vouches for what is there.
            Ok(true) if !error.is_device() => self.medium.apply(writes),
            Ok(true) | Err(_) => return Err(self.unsure(error)),
        };
        again.map_err(|error| self.unsure(error))
    }

    fn unsure(&self, error: StorageError) -> StorageError {
        self.sync_failed.store(true, Ordering::Release);
        StorageError::Unsure(Box::new(error))
    }

    fn has_landed(&self, writes: &Writes) -> Result<bool> {
        for (table, records) in writes.iter() {
            for (key, value) in records {
                if self.medium.get(table, key)? != *value {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// After a failed sync the kernel may drop the pages and report success the next time.
    fn note_sync<T>(&self, synced: Result<T>) -> Result<T> {
        self.sync_failed.fetch_or(synced.is_err(), Ordering::AcqRel);
        synced
    }

    fn close(&self) -> Result<()> {
        let settled = self.redo().settle();
        self.note_sync(settled)?;
        let mut writes = Writes::default();
        if self.noted.load(Ordering::Acquire) {
            writes.put(Table::Meta, SESSION, encode_session(self.session, true));
        }
        self.commit_durable(writes, &[])?;
        // That may have copied the last small writes.
        let settled = self.redo().settle();
        self.note_sync(settled)?;
        self.commit_durable(Writes::default(), &[])
    }
}

impl<M: Medium> Storage for Staged<M> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let flying = {
            let state = self.state();
            if let Some(value) = state.buffered.get(table, key) {
                return Ok(value.cloned());
            }
            state.flying.clone()
        };
        match flying.as_ref().and_then(|writes| writes.get(table, key)) {
            Some(value) => Ok(value.cloned()),
            None => self.medium.get(table, key),
        }
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        // What lies over the medium is copied first: a commit that lands meanwhile is then seen once or not at all.
        let (flying, mut over) = {
            let state = self.state();
            (state.flying.clone(), state.buffered.within(table, prefix))
        };
        if let Some(flying) = flying {
            let mut both = flying.within(table, prefix);
            both.merge(over);
            over = both;
        }
        let mut records: BTreeMap<_, _> = self.medium.scan(table, prefix)?.into_iter().collect();
        over.overlay(table, prefix, &mut records);
        Ok(records.into_iter().collect())
    }

    fn commit(
        &self,
        writes: Writes,
        files: &[&Arc<CoreFiles>],
        durability: Durability,
    ) -> Result<()> {
        if durability == Durability::Buffered {
            if self.sync_failed.load(Ordering::Acquire) {
                return Err(StorageError::SyncFailed);
            }
            let mut state = self.state();
            if state.buffered.bytes() + writes.bytes() <= MAX_BUFFERED {
                state.buffered.merge(writes);
                for file in files {
                    state.claimed.add(file);
                }
                return Ok(());
            }
        }
        self.commit_durable(writes, files)
    }

    fn files(&self, core: &DiscoveryKey) -> Arc<CoreFiles> {
        Arc::new(CoreFiles::new(&self.medium, core))
    }

    fn sync_files(&self, files: &Arc<CoreFiles>) -> Result<()> {
        for kind in [FileKind::Blocks, FileKind::Tree] {
            let mark = self.redo().mark();
            if self.note_sync(files.file(kind).sync())? {
                self.redo().synced(&files.core, kind, mark);
            }
        }
        Ok(())
    }

    fn remove_cores(&self, cores: &[DiscoveryKey], mut writes: Writes) -> Result<()> {
        cores.iter().for_each(|core| removal::note(core, &mut writes));
        self.commit_durable(writes, &[])?;
        if let Err(error) = removal::remove(&self.medium, &mut self.redo(), cores) {
            tracing::warn!("what is removed takes space until the store is opened again: {error}");
        }
        Ok(())
    }

    fn remove_files(&self, core: &DiscoveryKey) -> Result<()> {
        removal::remove(&self.medium, &mut self.redo(), &[*core])
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        self.medium.cores_with_files()
    }

    fn begin_session(&self) -> Result<Session> {
        if !self.noted.load(Ordering::Acquire) {
            let mut writes = Writes::default();
            writes.put(Table::Meta, SESSION, encode_session(self.session, false));
            self.commit_durable(writes, &[])?;
            self.noted.store(true, Ordering::Release);
        }
        Ok(self.session)
    }

    fn session(&self) -> Session {
        self.session
    }

    fn doubts(&self) -> Doubts {
        self.medium.doubts()
    }

    fn settle_doubts(&self) {
        self.medium.settle_doubts();
    }

    fn sync_witness(&self) {
        self.medium.sync_witness();
    }
}

impl<M: Medium> Drop for Staged<M> {
    fn drop(&mut self) {
        match self.close() {
            Ok(()) => {}
            // Told before, as a full disk was to who flushed it.
            Err(error) if error.is_echo() || error.cause().is_unwritable() => {
                tracing::debug!(%error, "the store was not closed in order");
            }
            Err(error) => {
                tracing::error!("the store could not be closed in order: {}", error.cause());
            }
        }
    }
}

/// uint number, bool closed in order, uint number of the latest one that was not.
fn encode_session(session: Session, closed: bool) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_uint(session.current);
    out.put_bool(closed);
    out.put_uint(session.unclean);
    out
}

fn next_session(bytes: &[u8]) -> Result<Session> {
    let read = |mut r: Reader| {
        let (last, closed, unclean) = (r.uint()?, r.bool()?, r.uint()?);
        Ok(Session { current: last + 1, unclean: if closed { unclean } else { last } })
    };
    read(Reader::new(bytes)).map_err(|e: DecodeError| StorageError::DamagedRecord {
        table: Table::Meta,
        key: "session".into(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryMedium;
    use super::*;
    use std::time::{Duration, Instant};

    /// What opening cores after an unclean end does to the storage: a look and a buffered commit each.
    #[expect(clippy::disallowed_methods, reason = "measures")]
    fn open_cores(count: u32) -> Duration {
        let store = Staged::new(MemoryMedium::default()).unwrap();
        let started = Instant::now();
        for i in 0..count {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            let files = store.files(&DiscoveryKey(key));
            assert!(store.scan(Table::Bits, &key).unwrap().is_empty());
            let mut writes = Writes::default();
            writes.put(Table::Heads, key, vec![7; 150]);
            store.commit(writes, &[&files], Durability::Buffered).unwrap();
        }
        started.elapsed()
    }

    #[test]
    fn four_times_the_cores_take_about_four_times_as_long() {
        let (mut few, mut many) = (Duration::MAX, Duration::MAX);
        // Whatever else the machine does makes one of them slower now and then.
        for _ in 0..8 {
            few = few.min(open_cores(2_000));
            many = many.min(open_cores(8_000));
            println!("2,000 cores: {few:?}, 8,000 cores: {many:?}");
            if many < 9 * few {
                return;
            }
        }
        panic!("{few:?} and {many:?}");
    }

    /// A database that has no room for copies of what is written to files.
    #[derive(Default)]
    struct Narrow(MemoryMedium);

    impl Medium for Narrow {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
            self.0.get(table, key)
        }

        fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
            self.0.scan(table, prefix)
        }

        fn apply(&self, writes: &Writes) -> Result<()> {
            let copies = writes.iter().filter(|(table, _)| *table == Table::Redo);
            if copies.flat_map(|(_, records)| records.values()).any(Option::is_some) {
                return Err(StorageError::DiskFull { op: "write", what: "the database".into() });
            }
            self.0.apply(writes)
        }

        fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn super::super::RawFile> {
            self.0.file(core, kind)
        }

        fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
            self.0.remove_file(core, kind)
        }

        fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
            self.0.cores_with_files()
        }
    }

    #[test]
    fn what_has_no_room_with_copies_is_committed_without_them() {
        let store = Staged::new(Narrow::default()).unwrap();
        let files = store.files(&DiscoveryKey([1; 32]));
        for round in 0..3u8 {
            files.blocks.write_at(u64::from(round), &[round]).unwrap();
            let mut writes = Writes::default();
            writes.put(Table::Heads, vec![1], vec![round]);
            store.commit(writes, &[&files], Durability::Durable).unwrap();
            assert_eq!(store.medium.get(Table::Heads, &[1]).unwrap(), Some(vec![round]));
        }
    }
}
