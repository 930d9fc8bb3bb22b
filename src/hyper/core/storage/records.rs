//! The small records of a store: its primary key, and whatever else is small.

use super::{Durability, Result, Storage, StorageError, Table, Writes};
use crate::codec::{self, Reader};
use crate::crypto::sign;
use crate::key::{DiscoveryKey, hex};
use std::sync::Arc;

/// Typed access to [`Table::Records`]. Changes are durable unless a method says otherwise.
///
/// | key | value |
/// |---|---|
/// | `primary` | 32 bytes |
/// | `note/` + name | anything |
#[derive(Clone)]
pub struct Records {
    storage: Arc<dyn Storage>,
}

const PRIMARY: &[u8] = b"primary";

impl Records {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    /// The key that a store derives its key pairs from; made at the first call.
    pub fn primary_key(&self) -> Result<[u8; 32]> {
        if let Some(bytes) = self.storage.get(Table::Records, PRIMARY)? {
            return bytes.try_into().map_err(|_| damaged(PRIMARY, "not 32 bytes"));
        }
        let key = sign::random();
        self.set_primary_key(&key)?;
        Ok(key)
    }

    pub fn set_primary_key(&self, key: &[u8; 32]) -> Result<()> {
        self.put(PRIMARY, key.to_vec(), Durability::Durable)
    }

    /// A record of the caller's own.
    pub fn get_record(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.storage.get(Table::Records, &note_key(name))
    }

    pub fn put_record(&self, name: &str, value: &[u8], durability: Durability) -> Result<()> {
        self.put(&note_key(name), value.to_vec(), durability)
    }

    /// The same as a part of a larger change: the value, or that it is gone.
    pub fn change(writes: &mut Writes, name: &str, value: Option<Vec<u8>>) {
        match value {
            Some(value) => writes.put(Table::Records, note_key(name), value),
            None => writes.delete(Table::Records, note_key(name)),
        }
    }

    /// Records whose name starts with `prefix`, in name order.
    pub fn records(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let found = self.storage.scan(Table::Records, &note_key(prefix))?;
        let named = |(key, value): (Vec<u8>, _)| {
            let name = String::from_utf8(key[5..].to_vec()).map_err(|_| damaged(&key, "UTF-8"))?;
            Ok((name, value))
        };
        found.into_iter().map(named).collect()
    }

    /// Every core of the store, in key order; nothing is opened.
    pub fn cores(&self) -> Result<Vec<DiscoveryKey>> {
        let found = self.storage.scan(Table::Cores, b"")?;
        found.iter().map(|(key, _)| discovery_key(key, key)).collect()
    }

    fn put(&self, key: &[u8], value: Vec<u8>, durability: Durability) -> Result<()> {
        let mut writes = Writes::default();
        writes.put(Table::Records, key, value);
        self.storage.commit(writes, &[], durability)
    }
}

fn note_key(name: &str) -> Vec<u8> {
    [b"note/", name.as_bytes()].concat()
}

fn discovery_key(key: &[u8], bytes: &[u8]) -> Result<DiscoveryKey> {
    let read: codec::Result<[u8; 32]> = Reader::new(bytes).fixed();
    read.map(DiscoveryKey).map_err(|e| damaged(key, &e.to_string()))
}

fn damaged(key: &[u8], reason: &str) -> StorageError {
    StorageError::DamagedRecord { table: Table::Records, key: hex(key), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::super::memory::memory;
    use super::*;

    #[test]
    fn records_come_back() {
        let records = Records::new(memory());
        let primary = records.primary_key().unwrap();
        assert_eq!(records.primary_key().unwrap(), primary);
        records.put_record("fs/x", b"1", Durability::Buffered).unwrap();
        assert_eq!(records.get_record("fs/x").unwrap(), Some(b"1".to_vec()));
        assert_eq!(records.records("fs/").unwrap(), vec![("fs/x".to_string(), b"1".to_vec())]);
    }
}
