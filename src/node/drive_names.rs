//! Local names of the drives that this store writes, and how a drive gets its key.
//!
//! | record | holds |
//! |---|---|
//! | `drive/` + name | the key of the drive |
//! | `forgotten/` + name | how often the name was given up (u64, little endian); not at all if that is 0 |
//!
//! A key pair follows from the name and that number. It must never write a second history: readers of the first would
//! find their log cut. So a drive is made, and given up, in one transaction with its name and the number; and a key of
//! which the store has anything, but not with the secret, is passed over.

use super::{Node, NodeError, chronicle, on_disk};
use crate::crypto::KeyPair;
use crate::hyper::core::manifest::Manifest;
use crate::hyper::core::storage::{Durability, Records, Writes};
use crate::hyper::core::{CreateOptions, Secrecy};
use crate::hyper::drive::fix_key;
use crate::hyper::session::CoreHandle;
use crate::hyper::store::{Namespace, Store};
use crate::key::CoreKey;
use crate::lock::lock;
use std::sync::Arc;

const NAMES: &str = "drive/";
const GENERATIONS: &str = "forgotten/";

/// Names of the drives of a store, with their keys.
pub(super) fn names_in(store: &Store) -> Result<Vec<(String, CoreKey)>, NodeError> {
    let records = store.records().records(NAMES)?;
    let named = records.into_iter().filter_map(|(name, key)| {
        let name = name.strip_prefix(NAMES).unwrap_or(&name).to_string();
        Some((name, CoreKey(key.try_into().ok()?)))
    });
    Ok(named.collect())
}

impl Node {
    /// The drive with this local name.
    pub fn drive_named(&self, name: &str) -> Result<Option<CoreKey>, NodeError> {
        let record = self.store.records().get_record(&format!("{NAMES}{name}"))?;
        Ok(record.and_then(|key| key.try_into().ok()).map(CoreKey))
    }

    /// Names of the drives of this store, with their keys.
    pub fn names(&self) -> Result<Vec<(String, CoreKey)>, NodeError> {
        names_in(&self.store)
    }

    /// The drive that this store writes under `name`; made if there is none.
    pub async fn create_drive(
        self: &Arc<Self>,
        name: &str,
        secret: Option<[u8; 32]>,
    ) -> Result<CoreHandle, NodeError> {
        let (node, name) = (self.clone(), name.to_string());
        on_disk(move || node.make_drive(&name, secret)).await
    }

    fn make_drive(&self, name: &str, secret: Option<[u8; 32]>) -> Result<CoreHandle, NodeError> {
        let _names = lock(&self.names);
        let mut generation = self.generation(name)?;
        if let Some(key) = self.drive_named(name)? {
            if let Some(db) = self.written(&key)? {
                fix_key(&self.store, &db, secret)?;
                return Ok(db);
            }
            // A name without its drive: an older version of this program was killed while it forgot that.
            generation += 1;
        }
        loop {
            let pair = self.pair(name, generation);
            let key = Manifest::single(pair.public()).key();
            let mut writes = Writes::default();
            set_generation(&mut writes, name, generation);
            Records::change(&mut writes, &format!("{NAMES}{name}"), Some(key.0.to_vec()));
            if let Some(db) = self.written(&key)? {
                // An older version was killed before it had a name; the log is all that was written with the pair.
                fix_key(&self.store, &db, secret)?;
                self.store.storage().commit(writes, &[], Durability::Durable)?;
                return Ok(db);
            }
            let made = self.store.create(both_cores(pair, secret), writes)?;
            if let Some(db) = made.and_then(|cores| cores.into_iter().next()) {
                return Ok(db);
            }
            generation += 1;
        }
    }

    /// Adds to the writes that all names of a drive, and notes under its key, are given up. The names are to be locked
    /// until that is done.
    pub(super) fn give_up_names(
        &self,
        key: CoreKey,
        writes: &mut Writes,
    ) -> Result<Vec<String>, NodeError> {
        let names = self.names()?.into_iter().filter(|(_, named)| *named == key);
        let names: Vec<String> = names.map(|(name, _)| name).collect();
        for name in &names {
            set_generation(writes, name, self.generation(name)? + 1);
            Records::change(writes, &format!("{NAMES}{name}"), None);
        }
        chronicle::forget(&key, writes);
        Ok(names)
    }

    /// How many drives of this name were forgotten.
    fn generation(&self, name: &str) -> Result<u64, NodeError> {
        let record = self.store.records().get_record(&format!("{GENERATIONS}{name}"))?;
        Ok(record.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    fn pair(&self, name: &str, generation: u64) -> KeyPair {
        let space = Namespace::ROOT.child(name.as_bytes());
        let space = match generation {
            0 => space,
            generation => space.child(&generation.to_le_bytes()),
        };
        self.store.key_pair(&space, "db")
    }

    /// The core of a drive's names, if this store has the secret to it.
    fn written(&self, key: &CoreKey) -> Result<Option<CoreHandle>, NodeError> {
        let stored = self.store.stored(&key.discovery_key())?;
        Ok(stored.filter(|db| db.core().key_pair().is_some()))
    }
}

fn set_generation(writes: &mut Writes, name: &str, generation: u64) {
    if generation > 0 {
        let value = Some(generation.to_le_bytes().to_vec());
        Records::change(writes, &format!("{GENERATIONS}{name}"), value);
    }
}

/// How both cores of a new drive are made, that of the names first. The contents are made as well, so that nobody who
/// names them in a header of his can have them made without their secret.
fn both_cores(pair: KeyPair, secret: Option<[u8; 32]>) -> Vec<(CreateOptions, Secrecy)> {
    let manifest = Manifest::single(pair.public());
    let key = manifest.key();
    let contents = manifest.content(&key);
    let names = (manifest, Secrecy::Known(secret));
    // Without a key nothing is said of the contents.
    let of_contents = secret.map_or(Secrecy::Unknown, |key| Secrecy::Known(Some(key)));
    let all = [Some(names), contents.map(|manifest| (manifest, of_contents))];
    let options = |(manifest, secrecy): (Manifest, Secrecy)| {
        let (key, pair) = (manifest.key(), Some(pair.clone()));
        let manifest = Some(manifest);
        (CreateOptions { key, manifest, key_pair: pair, encryption_key: None }, secrecy)
    };
    all.into_iter().flatten().map(options).collect()
}
