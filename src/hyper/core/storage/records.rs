//! The small records of a store: its primary key, names of cores, pins, and whatever else is small.

use super::{Durability, Result, Storage, StorageError, Table, Writes};
use crate::codec::{self, Put, Reader};
use crate::crypto::sign;
use crate::key::{DiscoveryKey, hex};
use std::sync::Arc;

/// Typed access to [`Table::Records`]. Changes are durable unless a method says otherwise.
///
/// | key | value |
/// |---|---|
/// | `primary` | 32 bytes |
/// | `alias/` + uint-prefixed namespace + name | discovery key |
/// | `pin/` + discovery key | what the pinner wants to remember |
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

    /// The core that `name` stands for in a namespace.
    pub fn alias(&self, namespace: &[u8], name: &str) -> Result<Option<DiscoveryKey>> {
        let key = alias_key(namespace, Some(name));
        self.storage.get(Table::Records, &key)?.map(|bytes| discovery_key(&key, &bytes)).transpose()
    }

    pub fn set_alias(&self, namespace: &[u8], name: &str, core: &DiscoveryKey) -> Result<()> {
        self.put(&alias_key(namespace, Some(name)), core.0.to_vec(), Durability::Durable)
    }

    pub fn remove_alias(&self, namespace: &[u8], name: &str) -> Result<()> {
        self.delete(&alias_key(namespace, Some(name)))
    }

    /// Names of a namespace and their cores, in name order.
    pub fn aliases(&self, namespace: &[u8]) -> Result<Vec<(String, DiscoveryKey)>> {
        let prefix = alias_key(namespace, None);
        let found = self.storage.scan(Table::Records, &prefix)?;
        let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8(key[prefix.len()..].to_vec());
            Ok((name.map_err(|_| damaged(&key, "UTF-8"))?, discovery_key(&key, &value)?))
        };
        found.into_iter().map(parse).collect()
    }

    /// Keeps a core through evictions; `note` is the pinner's own.
    pub fn pin(&self, core: &DiscoveryKey, note: &[u8]) -> Result<()> {
        self.put(&pin_key(core), note.to_vec(), Durability::Durable)
    }

    pub fn unpin(&self, core: &DiscoveryKey) -> Result<()> {
        self.delete(&pin_key(core))
    }

    pub fn pins(&self) -> Result<Vec<(DiscoveryKey, Vec<u8>)>> {
        let found = self.storage.scan(Table::Records, b"pin/")?;
        found.into_iter().map(|(key, note)| Ok((discovery_key(&key, &key[4..])?, note))).collect()
    }

    /// A record of the caller's own.
    pub fn get_record(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.storage.get(Table::Records, &note_key(name))
    }

    pub fn put_record(&self, name: &str, value: &[u8], durability: Durability) -> Result<()> {
        self.put(&note_key(name), value.to_vec(), durability)
    }

    pub fn remove_record(&self, name: &str) -> Result<()> {
        self.delete(&note_key(name))
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

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut writes = Writes::default();
        writes.delete(Table::Records, key);
        self.storage.commit(writes, &[], Durability::Durable)
    }
}

fn alias_key(namespace: &[u8], name: Option<&str>) -> Vec<u8> {
    let mut key = b"alias/".to_vec();
    key.put_buffer(namespace);
    key.put(name.unwrap_or_default().as_bytes());
    key
}

fn pin_key(core: &DiscoveryKey) -> Vec<u8> {
    [b"pin/", core.as_bytes().as_slice()].concat()
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
        let (a, b) = (DiscoveryKey([1; 32]), DiscoveryKey([2; 32]));
        records.set_alias(b"ns", "photos", &a).unwrap();
        records.set_alias(b"ns", "music", &b).unwrap();
        records.set_alias(b"ns2", "music", &a).unwrap();
        assert_eq!(records.alias(b"ns", "photos").unwrap(), Some(a));
        assert_eq!(
            records.aliases(b"ns").unwrap(),
            vec![("music".to_string(), b), ("photos".to_string(), a)]
        );
        records.remove_alias(b"ns", "music").unwrap();
        assert_eq!(records.alias(b"ns", "music").unwrap(), None);
        records.pin(&a, b"why").unwrap();
        records.pin(&b, b"").unwrap();
        records.unpin(&b).unwrap();
        assert_eq!(records.pins().unwrap(), vec![(a, b"why".to_vec())]);
        records.put_record("fs/x", b"1", Durability::Buffered).unwrap();
        assert_eq!(records.get_record("fs/x").unwrap(), Some(b"1".to_vec()));
        assert_eq!(records.records("fs/").unwrap(), vec![("fs/x".to_string(), b"1".to_vec())]);
        records.remove_record("fs/x").unwrap();
        assert_eq!(records.get_record("fs/x").unwrap(), None);
    }
}
