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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
    /// Cores whose files are being synced outside a commit, once for each. Added to under `redo`.
    syncing: Mutex<Vec<DiscoveryKey>>,
    /// One of them is done.
    synced: Condvar,
    session: Session,
    /// This opening is noted on the medium, so that the next one can tell how it ended.
    noted: AtomicBool,
    sync_failed: AtomicBool,
    /// See [`Redo::unrepeated`].
    unrepeated: BTreeSet<DiscoveryKey>,
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
        let (mut redo, buffered) = Redo::replay(&medium)?;
        let unrepeated = std::mem::take(&mut redo.unrepeated);
        removal::finish(&medium)?;
        let session = match medium.get(Table::Meta, SESSION)? {
            None => Session { current: 1, unclean: 0 },
            Some(bytes) => next_session(&bytes)?,
        };
        Ok(Self {
            medium,
            state: Mutex::new(State { buffered, ..State::default() }),
            redo: Mutex::new(redo),
            syncing: Mutex::default(),
            synced: Condvar::new(),
            session,
            noted: AtomicBool::new(false),
            sync_failed: AtomicBool::new(!unrepeated.is_empty()),
            unrepeated,
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
        self.check_synced()?;
        let (earlier, claimed) = {
            let mut state = self.state();
            let earlier = Arc::new(std::mem::take(&mut state.buffered));
            state.flying = Some(earlier.clone());
            (earlier, std::mem::take(&mut state.claimed))
        };
        let mut all = Writes::clone(&earlier);
        all.merge(writes);
        let files: Vec<_> = claimed.files.iter().chain(files.iter().copied()).collect();
        let in_place = files.iter().try_for_each(|files| files.check_place());
        let done = in_place.and_then(|()| self.apply_with_files(redo, all, &files));
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

    /// Where the transaction finds no room for copies of what was written to files, the files are synced instead, and
    /// with them those that have copies: the transaction deletes them. That is tried after nothing else: a sync that
    /// finds no room is [`StorageError::Unsynced`].
    fn apply_with_files(
        &self,
        redo: &mut Redo,
        mut writes: Writes,
        files: &[&Arc<CoreFiles>],
    ) -> Result<()> {
        match self.apply_once(redo, &mut writes, files) {
            Err(StorageError::DiskFull { .. }) => {}
            done => return done,
        }
        writes.take_back_puts(Table::Redo);
        let synced = files.iter().try_for_each(|files| {
            KINDS.into_iter().try_for_each(|kind| files.file(kind).sync().map(drop))
        });
        self.note_sync(synced)?;
        self.settle(redo)?;
        self.apply_once(redo, &mut writes, files)
    }

    fn apply_once(
        &self,
        redo: &mut Redo,
        writes: &mut Writes,
        files: &[&Arc<CoreFiles>],
    ) -> Result<()> {
        let mut plan = Plan::default();
        let cores: BTreeSet<_> = files.iter().map(|files| files.core).collect();
        let planned = self
            .wait_for_syncs(|core| cores.contains(core))
            .and_then(|()| self.note_sync(redo.plan(files, &mut plan, writes)));
        let done = planned.and_then(|()| {
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
        match error {
            // It was not tried.
            StorageError::Unnoted { .. }
            | StorageError::Replaced { .. }
            | StorageError::SyncFailed => Err(error),
            StorageError::Unsynced(_) => Err(self.unsure(error)),
            error => match self.has_landed(writes) {
                Ok(false) => Err(error),
                Ok(true) | Err(_) => Err(self.unsure(error)),
            },
        }
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

    /// After a failed sync the kernel may drop the pages and report success the next time: whatever the error says, it
    /// is the last that this store tries.
    fn note_sync<T>(&self, synced: Result<T>) -> Result<T> {
        synced.map_err(|error| {
            if error.is_replaced() {
                return error; // it was not tried
            }
            self.sync_failed.store(true, Ordering::Release);
            StorageError::Unsynced(Box::new(error))
        })
    }

    fn check_synced(&self) -> Result<()> {
        match self.sync_failed.load(Ordering::Acquire) {
            true => Err(StorageError::SyncFailed),
            false => Ok(()),
        }
    }

    /// Who syncs a file has taken the note of what was written to it, and learns alone that this failed. A commit that
    /// speaks of the file, or needs it synced, waits for that; none begins meanwhile, since who waits has `redo`.
    fn wait_for_syncs(&self, of: impl Fn(&DiscoveryKey) -> bool) -> Result<()> {
        let mut syncing = lock(&self.syncing);
        while syncing.iter().any(&of) {
            syncing = self.synced.wait(syncing).unwrap_or_else(PoisonError::into_inner);
        }
        self.check_synced()
    }

    fn settle(&self, redo: &mut Redo) -> Result<()> {
        self.wait_for_syncs(|_| true)?;
        self.note_sync(redo.settle())
    }

    fn close(&self) -> Result<()> {
        self.settle(&mut self.redo())?;
        let mut writes = Writes::default();
        if self.noted.load(Ordering::Acquire) {
            writes.put(Table::Meta, SESSION, encode_session(self.session, true));
        }
        self.commit_durable(writes, &[])?;
        // That may have copied the last small writes.
        self.settle(&mut self.redo())?;
        self.commit_durable(Writes::default(), &[])
    }
}

/// While it lives a core's files are being synced.
struct Syncing<'a, M: Medium>(&'a Staged<M>, DiscoveryKey);

impl<'a, M: Medium> Syncing<'a, M> {
    fn begin(store: &'a Staged<M>, core: DiscoveryKey) -> Self {
        lock(&store.syncing).push(core);
        Self(store, core)
    }
}

impl<M: Medium> Drop for Syncing<'_, M> {
    fn drop(&mut self) {
        let mut syncing = lock(&self.0.syncing);
        if let Some(at) = syncing.iter().position(|core| *core == self.1) {
            syncing.swap_remove(at);
        }
        self.0.synced.notify_all();
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
            self.check_synced()?;
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
            let (mark, syncing) = {
                let redo = self.redo();
                (redo.mark(), Syncing::begin(self, files.core))
            };
            let synced = self.note_sync(files.file(kind).sync());
            drop(syncing);
            if synced? {
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
        let redo = &mut *self.redo();
        self.check_synced()?;
        // Copies of what is gone would be written again at the next opening, which takes room.
        let mut writes = Writes::default();
        let forgotten = redo.forget(core, &mut writes);
        if !writes.is_empty()
            && let Err(error) = self.apply(&writes)
        {
            redo.restore(forgotten);
            return Err(error);
        }
        removal::remove(&self.medium, redo, &[*core])
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

    fn is_repeated(&self, core: &DiscoveryKey) -> bool {
        !self.unrepeated.contains(core)
    }

    fn check_place(&self) -> Result<()> {
        self.medium.check_place()
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
            Err(error) if was_told(&error) => {
                tracing::debug!(%error, "the store was not closed in order");
            }
            Err(error) => {
                tracing::error!("the store could not be closed in order: {}", error.cause());
            }
        }
    }
}

/// Who changed something was told, of a full disk too. A sync may fail at the end only, when nobody asks any more.
fn was_told(error: &StorageError) -> bool {
    error.is_echo() || error.is_unwritable()
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
#[path = "staged/tests.rs"]
mod tests;
