//! Who writes a drive of this store: at most one share at a time.

use crate::key::CoreKey;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

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
