//! Who writes a drive of this store: at most one share at a time, and nobody while it is cleared.
//!
//! Contents are written, or found to be here already, long before a name is given to them. Until then they look like
//! garbage. So an import or a put has its turn ([`Turn`]) from its look at the drive to its last change of it, together
//! with others of its kind; whoever clears the drive has it alone.

use crate::key::CoreKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// How long an import is waited for that is under way.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// See the module; given back when dropped.
pub struct Turn {
    _shared: OwnedRwLockReadGuard<()>,
}

/// The drive is not written meanwhile; given back when dropped.
pub struct Clearing {
    _alone: OwnedRwLockWriteGuard<()>,
}

#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<CoreKey, Arc<RwLock<()>>>>);

impl Turns {
    pub(super) async fn write(&self, key: CoreKey) -> Turn {
        Turn { _shared: self.of(key).read_owned().await }
    }

    /// None if somebody goes on writing.
    pub(super) async fn clear(&self, key: CoreKey, patience: Duration) -> Option<Clearing> {
        let alone = tokio::time::timeout(patience, self.of(key).write_owned()).await;
        alone.ok().map(|alone| Clearing { _alone: alone })
    }

    fn of(&self, key: CoreKey) -> Arc<RwLock<()>> {
        let mut turns = crate::lock::lock(&self.0);
        // Under the lock one that only the list holds cannot be given to anybody.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(key).or_default().clone()
    }
}

/// The drives that are being written.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<BTreeSet<CoreKey>>>);

/// The right to write a drive; given back when dropped.
pub struct Writing {
    claims: Claims,
    key: CoreKey,
}

impl Claims {
    /// None if somebody has it.
    pub(super) fn claim(&self, key: CoreKey) -> Option<Writing> {
        let new = self.lock().insert(key);
        new.then(|| Writing { claims: self.clone(), key })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<CoreKey>> {
        crate::lock::lock(&self.0)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drive_is_not_cleared_while_it_is_written_and_the_other_way_round() {
        const PATIENCE: Duration = Duration::from_millis(50);
        let turns = Turns::default();
        let key = CoreKey([1; 32]);
        let first = turns.write(key).await;
        let second = turns.write(key).await;
        drop(first);
        assert!(turns.clear(key, PATIENCE).await.is_none(), "one still writes");
        assert!(turns.clear(CoreKey([2; 32]), PATIENCE).await.is_some(), "another drive");
        drop(second);
        let clearing = turns.clear(key, PATIENCE).await.unwrap();
        let waits = tokio::time::timeout(PATIENCE, turns.write(key)).await;
        assert!(waits.is_err());
        drop(clearing);
        turns.write(key).await;
        assert!(turns.0.lock().unwrap().len() <= 1);
    }
}
