//! Which drive of the store keeps its contents in which core.
//!
//! The header of a drive says that, and whoever writes the drive wrote the header: it may name any core, one of our
//! own among them. What opening a drive refuses (`hyper::drive::secret`) is no drive's contents here either, and a
//! core that holds the names of any drive never is. Else one look at a stranger's drive could cost ours.
//!
//! The core of newer drives' contents proves whose it is: its key follows from the key of the names, and from no
//! other. Of such a core what another header says counts only while somebody here uses that drive. Else a stranger
//! could keep for ever what its owner gave up.

use super::{Node, NodeError, on_disk};
use crate::hyper::bee::{Bee, Header, PROTOCOL};
use crate::hyper::drive::BlobsCore;
use crate::hyper::session::CoreHandle;
use crate::hyper::source::BlockSource;
use crate::hyper::source::local::Local;
use crate::key::{CoreKey, DiscoveryKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Block 0, if it is here and that of a drive.
pub(super) async fn header(db: &CoreHandle) -> Option<Header> {
    if db.length() == 0 {
        return None;
    }
    Bee::new(Arc::new(Local(db.clone()))).header().await.ok()
}

/// Which core a drive says that its contents are in.
async fn claim(db: &CoreHandle) -> Option<BlobsCore> {
    let header = header(db).await;
    let manifest = db.core().manifest().cloned();
    BlobsCore::of(&db.key(), manifest.as_ref(), header.as_ref()).ok().flatten()
}

/// The drives that keep their contents in one core.
#[derive(Default)]
pub(super) struct Sharers {
    /// Readable here or not, by the cores of their names.
    pub drives: Vec<CoreHandle>,
    /// The one of them that the core was made for, where its key proves that.
    pub owner: Option<CoreKey>,
    /// Why some core of the store could not be asked, if one could not. It is no owner of what has one.
    pub closed: Option<NodeError>,
}

/// Which core names which as its contents: of the whole store, by one look at all of it, so that a look at each drive
/// of many needs no more. It is taken anew when a drive has been opened or closed since.
#[derive(Default)]
pub struct Survey {
    /// Openings, ends of uses and closings before it; none if it was never taken.
    uses: Option<u64>,
    /// By the contents, the cores that name them, be they allowed to or not.
    claims: BTreeMap<DiscoveryKey, BTreeSet<DiscoveryKey>>,
    /// Cores whose header was here: what they name is what they name.
    headers: BTreeSet<DiscoveryKey>,
    /// Cores that could not be opened.
    closed: Vec<DiscoveryKey>,
}

impl Node {
    /// The contents of a drive, as far as they are here, if the drive may have them in that core.
    pub(super) async fn contents_of(
        &self,
        db: &CoreHandle,
    ) -> Result<Option<CoreHandle>, NodeError> {
        match self.contents_key(db).await? {
            Some(contents) => self.stored(contents.discovery_key()).await,
            None => Ok(None),
        }
    }

    /// The core that a drive may have its contents in, be it here or not.
    pub(super) async fn contents_key(&self, db: &CoreHandle) -> Result<Option<CoreKey>, NodeError> {
        match claim(db).await {
            Some(claim) => self.admitted(db, &claim).await,
            None => Ok(None),
        }
    }

    /// The core that a drive says its contents are in, if the drive may have them there.
    async fn admitted(
        &self,
        db: &CoreHandle,
        claim: &BlobsCore,
    ) -> Result<Option<CoreKey>, NodeError> {
        match claim {
            BlobsCore::Derived(contents, _) if db.core().writable() => Ok(Some(*contents)),
            BlobsCore::Derived(contents, _) => self.unwritten(*contents).await,
            BlobsCore::Known(named) => Ok(match self.unwritten(*named).await? {
                Some(named) if named != db.key() && !self.holds_names(named).await? => Some(named),
                _ => None,
            }),
            BlobsCore::Named(_) => Ok(None),
        }
    }

    /// The core, unless this store writes it.
    async fn unwritten(&self, core: CoreKey) -> Result<Option<CoreKey>, NodeError> {
        let stored = self.stored(core.discovery_key()).await?;
        Ok(stored.is_none_or(|stored| stored.core().key_pair().is_none()).then_some(core))
    }

    /// Whether a core holds the names of a drive, be it one that cannot be read here.
    pub(super) async fn holds_names(&self, key: CoreKey) -> Result<bool, NodeError> {
        let is_open = self.open_drives().iter().any(|state| state.drive.key() == key);
        if is_open || self.names()?.iter().any(|(_, named)| *named == key) {
            return Ok(true);
        }
        let Some(core) = self.stored(key.discovery_key()).await? else { return Ok(false) };
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
                self.stored(contents.discovery_key()).await?.is_some()
            }
            _ => false,
        })
    }

    /// The drives of the store that keep their contents in a core. One that cannot be opened ends nothing: what it may
    /// have named is for the caller to judge.
    pub(super) async fn drives_in(
        &self,
        contents: &DiscoveryKey,
        survey: &mut Survey,
    ) -> Result<Sharers, NodeError> {
        if survey.uses != Some(self.drives.uses_ever()) {
            *survey = self.survey().await?;
        }
        let mut ids = survey.claims.get(contents).cloned().unwrap_or_default();
        // What is open may have got its header since.
        let open = self.open_drives().into_iter().map(|state| state.drive.db().discovery_key());
        ids.extend(open.filter(|id| !survey.headers.contains(id)));
        let mut sharers = Sharers::default();
        // No drive has its contents among its names.
        for id in ids.iter().chain(&survey.closed).filter(|id| *id != contents) {
            let db = match self.stored(*id).await {
                Ok(Some(db)) => db,
                Ok(None) => continue,
                Err(error) => {
                    sharers.closed.get_or_insert(error);
                    continue;
                }
            };
            let Some(claim) = claim(&db).await else { continue };
            // Of another core nothing needs to be known, be it one that cannot be opened.
            if claim.key().is_none_or(|key| key.discovery_key() != *contents)
                || self.admitted(&db, &claim).await?.is_none()
            {
                continue;
            }
            if matches!(claim, BlobsCore::Derived(..)) {
                sharers.owner = Some(db.key());
            }
            sharers.drives.push(db);
        }
        Ok(sharers)
    }

    async fn survey(&self) -> Result<Survey, NodeError> {
        let mut survey = Survey { uses: Some(self.drives.uses_ever()), ..Survey::default() };
        let store = self.store.clone();
        for id in on_disk(move || Ok(store.records().cores()?)).await? {
            match self.stored(id).await {
                Ok(Some(db)) => {
                    if header(&db).await.is_some() {
                        survey.headers.insert(id);
                    }
                    if let Some(contents) = claim(&db).await.and_then(|claim| claim.key()) {
                        survey.claims.entry(contents.discovery_key()).or_default().insert(id);
                    }
                }
                Ok(None) => {}
                Err(_) => survey.closed.push(id),
            }
        }
        Ok(survey)
    }

    /// A core of the store, opened on a thread that may wait for the disk.
    pub(super) async fn stored(&self, id: DiscoveryKey) -> Result<Option<CoreHandle>, NodeError> {
        let store = self.store.clone();
        on_disk(move || store.stored(&id).map_err(NodeError::from)).await
    }
}

#[cfg(test)]
#[path = "contents/tests.rs"]
mod tests;
