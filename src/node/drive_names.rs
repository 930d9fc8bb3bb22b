//! Local names of the drives that this store writes, and how a drive gets its key.
//!
//! The record `drive/` + name holds the key of the drive.
//!
//! A key pair must never write a second history: readers of the first would find their log cut. So a drive is made, and
//! given up, in one transaction with its name, and gets a key that no drive had before, here or in a copy of this store,
//! which has the same names and the same primary key: chance has a part in it. (Stores hold records `forgotten/` of
//! the time when it had none.)

use super::{Node, NodeError, chronicle, on_disk};
use crate::crypto::{KeyPair, sign};
use crate::hyper::core::manifest::Manifest;
use crate::hyper::core::storage::{Records, Writes};
use crate::hyper::core::{CreateOptions, Secrecy};
use crate::hyper::drive::fix_key;
use crate::hyper::session::CoreHandle;
use crate::hyper::store::{Namespace, Store};
use crate::key::CoreKey;
use crate::lock::lock;
use std::sync::Arc;

const NAMES: &str = "drive/";

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
        // A name may be without its drive: an older version of this program was killed while it forgot that.
        if let Some(key) = self.drive_named(name)?
            && let Some(db) = self.written(&key)?
        {
            fix_key(&self.store, &db, secret)?;
            return Ok(db);
        }
        loop {
            let pair = self.new_pair(name);
            let key = Manifest::single(pair.public()).key();
            let mut writes = Writes::default();
            Records::change(&mut writes, &format!("{NAMES}{name}"), Some(key.0.to_vec()));
            let made = self.store.create(both_cores(pair, secret), writes)?;
            if let Some(db) = made.and_then(|cores| cores.into_iter().next()) {
                return Ok(db);
            }
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
            Records::change(writes, &format!("{NAMES}{name}"), None);
        }
        chronicle::forget(&key, writes);
        Ok(names)
    }

    /// One that nobody had before.
    fn new_pair(&self, name: &str) -> KeyPair {
        let space = Namespace::ROOT.child(name.as_bytes()).child(&sign::random());
        self.store.key_pair(&space, "db")
    }

    /// The core of a drive's names, if this store has the secret to it.
    fn written(&self, key: &CoreKey) -> Result<Option<CoreHandle>, NodeError> {
        let stored = self.store.stored(&key.discovery_key())?;
        Ok(stored.filter(|db| db.core().key_pair().is_some()))
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
