//! The channel table of one connection: local ids, remote ids, and which of them belong together.
//!
//! Each side numbers its channels itself. Two opens with the same (protocol, id) are one channel, no
//! matter who was first; there is no accept message.
//!
//! Source: protomux/index.js:Channel, _onopensession, _onrejectsession, _close

use std::collections::{HashMap, VecDeque};

/// Ids a remote may number its channels with. Honest peers use again what was freed, so the table is as
/// large as the number of cores two peers ever shared at once.
pub(super) const MAX_REMOTE_IDS: u64 = 1 << 16;
/// Channels we open on one connection; a frame to open one has about 90 bytes.
pub(super) const MAX_LOCAL_IDS: usize = 1 << 16;

/// In the place of a local id: whether there will be one is not known yet.
const DEFERRED: u64 = u64::MAX;

/// What two opens must have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PairKey {
    pub protocol: &'static str,
    pub id: Vec<u8>,
}

#[derive(Debug)]
enum Local {
    Free,
    /// We sent open, the remote has not answered.
    Opening(PairKey),
    /// We closed before the remote answered: the id is taken until its open or reject arrives.
    Draining(PairKey),
    Open {
        key: PairKey,
        remote: u64,
    },
}

/// A broken rule of the remote; the stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("opened a channel id that is in use or skips ids")]
    BadOpen,
    #[error("rejected a channel that was not being opened")]
    BadReject,
    #[error("opened too many channels")]
    TooMany,
}

/// What an incoming open turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Paired {
    /// It answers our open of this local id.
    With(u64),
    /// It answers an open that we closed since.
    Stale,
    /// We have no channel of that key on the way.
    No,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    local: Vec<Local>,
    free: Vec<u64>,
    /// By remote id, those in use: the local id it is paired with, or [`DEFERRED`]. An id that is free costs nothing:
    /// whoever opens what nobody has could fill a table otherwise.
    remote: HashMap<u64, u64>,
    /// The highest id that the remote ever opened.
    highest: u64,
    /// Opens of the remote that wait for our answer, by its ids.
    deferred: HashMap<u64, PairKey>,
    /// Local ids that sent an open and have no answer yet, oldest first.
    outgoing: HashMap<PairKey, VecDeque<u64>>,
    /// The open or opening channel of a key.
    current: HashMap<PairKey, u64>,
}

impl Table {
    /// Takes a local id for a channel of `key` that we open first.
    pub(super) fn open(&mut self, key: PairKey) -> Option<u64> {
        let id = self.allocate(&key)?;
        self.set(id, Local::Opening(key.clone()));
        self.outgoing.entry(key).or_default().push_back(id);
        Some(id)
    }

    /// Takes a local id for a channel that the remote opened as `remote`.
    pub(super) fn accept(&mut self, key: PairKey, remote: u64) -> Option<u64> {
        let id = self.allocate(&key)?;
        self.set(id, Local::Open { key, remote });
        self.pair(remote, id);
        Some(id)
    }

    /// Puts off the answer to an open that paired with nothing.
    pub(super) fn defer(&mut self, key: PairKey, remote: u64) {
        self.pair(remote, DEFERRED);
        self.deferred.insert(remote, key);
    }

    /// The open of channel `id` that was put off, to be answered now; `None` if the remote closed it meanwhile.
    pub(super) fn take_deferred(&mut self, remote: u64, id: &[u8]) -> Option<PairKey> {
        if self.deferred.get(&remote)?.id != id {
            return None;
        }
        self.unpair(remote);
        self.deferred.remove(&remote)
    }

    pub(super) fn deferred(&self) -> usize {
        self.deferred.len()
    }

    fn allocate(&mut self, key: &PairKey) -> Option<u64> {
        if self.current.contains_key(key) {
            return None;
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.local.len() < MAX_LOCAL_IDS => {
                self.local.push(Local::Free);
                self.local.len() as u64
            }
            None => return None,
        };
        self.current.insert(key.clone(), id);
        Some(id)
    }

    /// The remote opens `key` under its id `remote` (≥ 1).
    pub(super) fn remote_open(
        &mut self,
        key: Option<&PairKey>,
        remote: u64,
    ) -> Result<Paired, ChannelError> {
        if remote == self.highest + 1 {
            if remote > MAX_REMOTE_IDS {
                return Err(ChannelError::TooMany);
            }
            self.highest = remote;
        }
        if remote == 0 || remote > self.highest || self.remote.contains_key(&remote) {
            return Err(ChannelError::BadOpen);
        }
        let Some(key) = key else { return Ok(Paired::No) };
        let Some(local) = self.take_outgoing(key) else { return Ok(Paired::No) };
        match self.get(local) {
            Some(Local::Opening(_)) => {
                self.set(local, Local::Open { key: key.clone(), remote });
                self.pair(remote, local);
                Ok(Paired::With(local))
            }
            _ => {
                self.release(local);
                Ok(Paired::Stale)
            }
        }
    }

    /// The remote has nobody for our open `local`. Answers whether we still wanted it.
    pub(super) fn remote_reject(&mut self, local: u64) -> Result<bool, ChannelError> {
        let (key, wanted) = match self.get(local) {
            Some(Local::Opening(key)) => (key.clone(), true),
            Some(Local::Draining(key)) => (key.clone(), false),
            _ => return Err(ChannelError::BadReject),
        };
        if let Some(queue) = self.outgoing.get_mut(&key) {
            queue.retain(|id| *id != local);
            if queue.is_empty() {
                self.outgoing.remove(&key);
            }
        }
        if wanted {
            self.current.remove(&key);
        }
        self.release(local);
        Ok(wanted)
    }

    /// The remote closed its channel `remote`: the local id it was paired with.
    pub(super) fn remote_close(&mut self, remote: u64) -> Option<u64> {
        if self.deferred.remove(&remote).is_some() {
            self.unpair(remote);
            return None;
        }
        let local = self.local_of(remote)?;
        self.close(local);
        Some(local)
    }

    /// Ends a channel of ours. False if it was not open or opening.
    pub(super) fn close(&mut self, local: u64) -> bool {
        match self.get(local) {
            Some(Local::Open { key, remote }) => {
                let (key, remote) = (key.clone(), *remote);
                self.unpair(remote);
                self.current.remove(&key);
                self.release(local);
                true
            }
            Some(Local::Opening(key)) => {
                let key = key.clone();
                self.current.remove(&key);
                self.set(local, Local::Draining(key));
                true
            }
            _ => false,
        }
    }

    /// The local id that messages of the remote's channel `remote` are for.
    pub(super) fn local_of(&self, remote: u64) -> Option<u64> {
        self.remote.get(&remote).copied().filter(|local| *local != DEFERRED)
    }

    fn take_outgoing(&mut self, key: &PairKey) -> Option<u64> {
        let queue = self.outgoing.get_mut(key)?;
        let id = queue.pop_front();
        if queue.is_empty() {
            self.outgoing.remove(key);
        }
        id
    }

    fn pair(&mut self, remote: u64, local: u64) {
        self.remote.insert(remote, local);
    }

    fn unpair(&mut self, remote: u64) {
        self.remote.remove(&remote);
    }

    fn get(&self, local: u64) -> Option<&Local> {
        self.local.get(usize::try_from(local).ok()?.checked_sub(1)?)
    }

    fn set(&mut self, local: u64, state: Local) {
        if let Some(slot) = self.local.get_mut(local as usize - 1) {
            *slot = state;
        }
    }

    fn release(&mut self, local: u64) {
        self.set(local, Local::Free);
        self.free.push(local);
    }
}
