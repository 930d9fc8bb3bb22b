//! Which drive of the store keeps its contents in which core.
//!
//! The header of a drive says that, and whoever writes the drive wrote the header: it may name any core, one of our
//! own among them. What opening a drive refuses (`hyper::drive::secret`) is no drive's contents here either, and a
//! core that holds the names of any drive never is. Else one look at a stranger's drive could cost ours.

use super::{Node, NodeError};
use crate::hyper::bee::{Bee, Header, PROTOCOL};
use crate::hyper::drive::BlobsCore;
use crate::hyper::session::CoreHandle;
use crate::hyper::source::BlockSource;
use crate::hyper::source::local::Local;
use crate::key::{CoreKey, DiscoveryKey};
use std::sync::Arc;

/// Block 0, if it is here and that of a drive.
pub(super) async fn header(db: &CoreHandle) -> Option<Header> {
    if db.length() == 0 {
        return None;
    }
    Bee::new(Arc::new(Local(db.clone()))).header().await.ok()
}

impl Node {
    /// The contents of a drive, as far as they are here, if the drive may have them in that core.
    pub(super) async fn contents_of(
        &self,
        db: &CoreHandle,
    ) -> Result<Option<CoreHandle>, NodeError> {
        let header = header(db).await;
        let (key, manifest, own) = {
            let core = db.core();
            (*core.key(), core.manifest().cloned(), core.writable())
        };
        let found = BlobsCore::of(&key, manifest.as_ref(), header.as_ref()).ok().flatten();
        let contents = match found {
            Some(BlobsCore::Derived(contents, _)) => {
                Some(contents).filter(|_| own).or(self.unwritten(contents)?)
            }
            Some(BlobsCore::Known(named)) => match self.unwritten(named)? {
                Some(named) if named != key && !self.holds_names(named).await? => Some(named),
                _ => None,
            },
            Some(BlobsCore::Named(_)) | None => None,
        };
        Ok(match contents {
            Some(contents) => self.store.stored(&contents.discovery_key())?,
            None => None,
        })
    }

    /// The core, unless this store writes it.
    fn unwritten(&self, core: CoreKey) -> Result<Option<CoreKey>, NodeError> {
        Ok((!self.store.writes(&core)?).then_some(core))
    }

    /// Whether a core holds the names of a drive, be it one that cannot be read here.
    async fn holds_names(&self, key: CoreKey) -> Result<bool, NodeError> {
        let is_open = self.open_drives().iter().any(|state| state.drive.key() == key);
        if is_open || self.names()?.iter().any(|(_, named)| *named == key) {
            return Ok(true);
        }
        let Some(core) = self.store.stored(&key.discovery_key())? else { return Ok(false) };
        if header(&core).await.is_some() {
            return Ok(true);
        }
        let (first, manifest) = {
            let core = core.core();
            (core.stored_block(0)?, core.manifest().cloned())
        };
        // What was believed of its encryption may be wrong.
        let plain = first.and_then(|block| Header::decode(&block).ok());
        if plain.is_some_and(|header| header.protocol == PROTOCOL) {
            return Ok(true);
        }
        Ok(match BlobsCore::of(&key, manifest.as_ref(), None).ok().flatten() {
            Some(BlobsCore::Derived(contents, _)) => {
                self.store.stored(&contents.discovery_key())?.is_some()
            }
            _ => false,
        })
    }

    /// The drives that keep their contents in a core, readable here or not, by the cores of their names.
    pub(super) async fn drives_in(
        &self,
        contents: &DiscoveryKey,
    ) -> Result<Vec<CoreHandle>, NodeError> {
        let mut drives = Vec::new();
        for id in self.store.records().cores()? {
            let Some(db) = self.store.stored(&id)? else { continue };
            let found = self.contents_of(&db).await?;
            if found.is_some_and(|core| core.discovery_key() == *contents) {
                drives.push(db);
            }
        }
        Ok(drives)
    }
}

#[cfg(test)]
#[path = "contents/tests.rs"]
mod tests;
