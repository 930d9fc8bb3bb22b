//! A log in memory: the core that tests, benchmarks and fuzz targets read from and append to.
//!
//! A log made with [`MemoryLog::sparse`] stands for a reader far away: it knows the length of another log
//! and has none of its blocks until they are asked for. It counts how they were asked for, so that a test
//! can tell one round trip from a hundred.

use super::{Append, BlockLog, BlockSource, BoxFuture, SourceError};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
struct State {
    blocks: Vec<Bytes>,
    fork: u64,
    here: BTreeSet<u64>,
    lost: BTreeSet<u64>,
    cleared: BTreeSet<u64>,
    waits: u64,
    hinted: u64,
    seeks: u64,
    appends: u64,
}

/// See the module.
#[derive(Default)]
pub struct MemoryLog {
    state: Mutex<State>,
    remote: Option<Arc<MemoryLog>>,
}

impl MemoryLog {
    /// An empty log that can be appended to.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn from_blocks(blocks: impl IntoIterator<Item = Bytes>) -> Arc<Self> {
        let state = State { blocks: blocks.into_iter().collect(), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), remote: None })
    }

    /// A reader of `remote` as it is now, with no block here yet.
    pub fn sparse(remote: &Arc<MemoryLog>) -> Arc<Self> {
        let log = Self { state: Mutex::default(), remote: Some(Arc::clone(remote)) };
        log.update();
        Arc::new(log)
    }

    /// Takes over the length and fork that the remote has now.
    pub fn update(&self) {
        let Some(remote) = &self.remote else { return };
        let (blocks, fork) = {
            let state = remote.lock();
            (state.blocks.clone(), state.fork)
        };
        let mut state = self.lock();
        if state.fork != fork {
            state.here.clear();
        }
        (state.blocks, state.fork) = (blocks, fork);
    }

    /// Makes a block never arrive.
    pub fn lose(&self, index: u64) {
        self.lock().lost.insert(index);
    }

    /// Takes a block away from here.
    pub fn clear(&self, index: u64) {
        self.lock().cleared.insert(index);
    }

    /// Cuts the log to `length` blocks under the next fork number.
    pub fn truncate(&self, length: u64) {
        let mut state = self.lock();
        state.blocks.truncate(length as usize);
        state.fork += 1;
    }

    pub fn blocks(&self) -> Vec<Bytes> {
        self.lock().blocks.clone()
    }

    /// Blocks that someone had to wait for because nothing had asked for them before.
    pub fn waits(&self) -> u64 {
        self.lock().waits
    }

    /// Blocks that were asked for ahead of need.
    pub fn hinted(&self) -> u64 {
        self.lock().hinted
    }

    pub fn seeks(&self) -> u64 {
        self.lock().seeks
    }

    pub fn appends(&self) -> u64 {
        self.lock().appends
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        crate::lock::lock(&self.state)
    }

    fn is_here(&self, state: &State, index: u64) -> bool {
        let here = self.remote.is_none() || state.here.contains(&index);
        here && !state.cleared.contains(&index)
    }

    fn fetch(&self, index: u64) -> Result<Bytes, SourceError> {
        let mut state = self.lock();
        let length = state.blocks.len() as u64;
        let Some(block) = state.blocks.get(index as usize).cloned() else {
            return Err(SourceError::OutOfRange { index, length });
        };
        if !self.is_here(&state, index) {
            state.waits += 1;
            if state.lost.contains(&index) {
                return Err(SourceError::TimedOut(index));
            }
            state.here.insert(index);
        }
        Ok(block)
    }
}

impl BlockSource for MemoryLog {
    fn length(&self) -> u64 {
        self.lock().blocks.len() as u64
    }

    fn fork(&self) -> u64 {
        self.lock().fork
    }

    fn byte_length(&self) -> u64 {
        self.lock().blocks.iter().map(|block| block.len() as u64).sum()
    }

    fn try_block(&self, index: u64) -> Result<Option<Bytes>, SourceError> {
        let state = self.lock();
        let length = state.blocks.len() as u64;
        match state.blocks.get(index as usize) {
            None => Err(SourceError::OutOfRange { index, length }),
            Some(block) => Ok(self.is_here(&state, index).then(|| block.clone())),
        }
    }

    fn block(&self, index: u64) -> BoxFuture<'static, Result<Bytes, SourceError>> {
        let answer = self.fetch(index);
        Box::pin(async move { answer })
    }

    fn prefetch(&self, indexes: &[u64]) {
        let mut state = self.lock();
        for &index in indexes {
            if !self.is_here(&state, index) && !state.lost.contains(&index) {
                state.hinted += 1;
                state.here.insert(index);
            }
        }
    }

    fn seek(&self, byte: u64) -> BoxFuture<'static, Result<(u64, u64), SourceError>> {
        let mut state = self.lock();
        state.seeks += 1;
        let (mut index, mut left) = (0, byte);
        for block in &state.blocks {
            if left < block.len() as u64 {
                break;
            }
            left -= block.len() as u64;
            index += 1;
        }
        Box::pin(async move { Ok((index, left)) })
    }

    fn byte_offset(&self, index: u64) -> Result<Option<u64>, SourceError> {
        let state = self.lock();
        let length = state.blocks.len() as u64;
        // The proof of a block brings what tells where it starts and ends.
        let known = index == 0
            || index == length
            || self.is_here(&state, index)
            || self.is_here(&state, index - 1);
        let sizes = state.blocks.iter().take(index as usize).map(|block| block.len() as u64);
        Ok((known && index <= length).then(|| sizes.sum()))
    }
}

impl BlockLog for MemoryLog {
    fn writable(&self) -> bool {
        self.remote.is_none()
    }

    fn append(&self, blocks: Vec<Bytes>) -> Result<u64, SourceError> {
        if !self.writable() {
            return Err(SourceError::ReadOnly);
        }
        let mut state = self.lock();
        state.appends += 1;
        let first = state.blocks.len() as u64;
        state.blocks.extend(blocks);
        Ok(first)
    }

    fn begin(self: Arc<Self>) -> Result<Box<dyn Append + Send>, SourceError> {
        match self.writable() {
            true => Ok(Box::new(Collected { log: self, blocks: Vec::new() })),
            false => Err(SourceError::ReadOnly),
        }
    }
}

/// A long append that is held until its commit.
struct Collected {
    log: Arc<MemoryLog>,
    blocks: Vec<Bytes>,
}

impl Append for Collected {
    fn push(&mut self, blocks: Vec<Bytes>) -> Result<(), SourceError> {
        self.blocks.extend(blocks);
        Ok(())
    }

    fn commit(&mut self) -> Result<u64, SourceError> {
        self.log.append(std::mem::take(&mut self.blocks))
    }
}
