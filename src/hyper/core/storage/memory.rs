//! A store in memory: for tests and fuzz targets.

use super::{FileKind, Medium, RawFile, Result, Staged, Storage, Table, Writes};
use crate::key::DiscoveryKey;
use crate::lock::lock;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};

/// A new empty store in memory.
pub fn memory() -> Arc<dyn Storage> {
    // An empty medium has no session record that could be damaged.
    Arc::new(Staged::new(MemoryMedium::default()).expect("an empty store opens"))
}

/// Records in ordered maps.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryRecords(BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryRecords {
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(&table)?.get(key).cloned()
    }

    pub(super) fn scan(&self, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(records) = self.0.get(&table) else { return Vec::new() };
        let from = records.range(prefix.to_vec()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix));
        found.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn apply(&mut self, writes: &Writes) {
        for (table, records) in writes.iter() {
            let mine = self.0.entry(table).or_default();
            for (key, value) in records {
                match value {
                    Some(value) => mine.insert(key.clone(), value.clone()),
                    None => mine.remove(key),
                };
            }
        }
    }
}

const CHUNK: u64 = 16 << 10;

/// A sparse run of bytes: chunks of 16 KiB that are there or read as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct SparseBytes {
    chunks: BTreeMap<u64, Box<[u8]>>,
    len: u64,
}

impl SparseBytes {
    pub(super) fn read_at(&self, mut offset: u64, buf: &mut [u8]) -> usize {
        let total = (self.len.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let mut rest = &mut buf[..total];
        while !rest.is_empty() {
            let start = (offset % CHUNK) as usize;
            let n = rest.len().min(CHUNK as usize - start);
            let (now, later) = rest.split_at_mut(n);
            match self.chunks.get(&(offset / CHUNK)) {
                Some(chunk) => now.copy_from_slice(&chunk[start..start + n]),
                None => now.fill(0),
            }
            rest = later;
            offset += n as u64;
        }
        total
    }

    pub(super) fn write_at(&mut self, mut offset: u64, mut bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let start = (offset % CHUNK) as usize;
            let n = bytes.len().min(CHUNK as usize - start);
            let chunk = self.chunks.entry(offset / CHUNK);
            let chunk = chunk.or_insert_with(|| vec![0; CHUNK as usize].into());
            chunk[start..start + n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            offset += n as u64;
        }
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return;
        }
        let touched = self.chunks.range_mut(offset / CHUNK..end.div_ceil(CHUNK));
        for (number, chunk) in touched {
            let base = number * CHUNK;
            let from = offset.saturating_sub(base).min(CHUNK) as usize;
            let to = (end - base).min(CHUNK) as usize;
            chunk[from..to].fill(0);
        }
        self.chunks.retain(|n, _| n * CHUNK < offset || (n + 1) * CHUNK > end);
    }

    /// Bytes of chunks that are there.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK
    }

    pub(super) fn truncate(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len - len);
            self.len = len;
        }
    }
}

/// Cores whose files take any bytes, with the sum.
pub(super) fn sum_by_core(
    files: impl Iterator<Item = (DiscoveryKey, u64)>,
) -> Vec<(DiscoveryKey, u64)> {
    let mut sums = BTreeMap::new();
    files.for_each(|(core, bytes)| *sums.entry(core).or_default() += bytes);
    sums.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

type SharedBytes = Arc<Mutex<SparseBytes>>;

/// Everything in maps.
#[derive(Default)]
pub struct MemoryMedium {
    records: Mutex<MemoryRecords>,
    files: Mutex<BTreeMap<(DiscoveryKey, FileKind), SharedBytes>>,
}

impl Medium for MemoryMedium {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(lock(&self.records).get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(lock(&self.records).scan(table, prefix))
    }

    fn apply(&self, writes: &Writes) -> Result<()> {
        lock(&self.records).apply(writes);
        Ok(())
    }

    fn file(&self, core: &DiscoveryKey, kind: FileKind) -> Box<dyn RawFile> {
        Box::new(MemoryFile(lock(&self.files).entry((*core, kind)).or_default().clone()))
    }

    fn remove_file(&self, core: &DiscoveryKey, kind: FileKind) -> Result<()> {
        lock(&self.files).remove(&(*core, kind));
        Ok(())
    }

    fn cores_with_files(&self) -> Result<Vec<(DiscoveryKey, u64)>> {
        let files = lock(&self.files);
        let bytes = files.iter().map(|((core, _), bytes)| (*core, lock(bytes).bytes()));
        Ok(sum_by_core(bytes))
    }
}

struct MemoryFile(SharedBytes);

impl RawFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(lock(&self.0).read_at(offset, buf))
    }

    fn write_at(&self, mut offset: u64, bufs: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut bytes = lock(&self.0);
        for buf in bufs.iter() {
            bytes.write_at(offset, buf);
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        lock(&self.0).punch(offset, len);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        lock(&self.0).truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sparse_bytes_are_a_vector(ops in proptest::collection::vec(
            (0u8..4, 0u64..60_000, 0usize..20_000, any::<u8>()), 1..30)) {
            let (mut sparse, mut model) = (SparseBytes::default(), Vec::new());
            for (op, offset, len, byte) in ops {
                let at = offset as usize;
                match op {
                    0 | 1 => {
                        sparse.write_at(offset, &vec![byte; len]);
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].fill(byte);
                    }
                    2 => {
                        sparse.punch(offset, len as u64);
                        let end = (at + len).min(model.len());
                        model[at.min(end)..end].fill(0);
                    }
                    _ => {
                        sparse.truncate(offset);
                        model.truncate(at);
                    }
                }
                let mut buf = vec![9; model.len() + 10];
                prop_assert_eq!(sparse.read_at(0, &mut buf), model.len());
                prop_assert!(buf[..model.len()] == model[..]);
            }
        }
    }
}
