//! Who writes a drive of this store: at most one share at a time, or any number of commands that change it, and nobody
//! while it is cleared.
//!
//! Contents are written, or found to be here already, long before a name is given to them. Until then they look like
//! garbage. So an import or a put has its turn ([`Turn`]) from its look at the drive to its last change of it, together
//! with others of its kind; whoever clears the drive has it alone.

use crate::key::CoreKey;
use std::collections::BTreeMap;
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
pub(super) struct Claims(Arc<Mutex<BTreeMap<CoreKey, Writer>>>);

/// Who writes a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A share, which makes the drive what a folder is.
    Share,
    /// So many commands that change it.
    Commands(usize),
}

/// The right to write a drive; given back when dropped.
pub struct Writing {
    claims: Claims,
    key: CoreKey,
}

impl Claims {
    /// For a share.
    ///
    /// # Errors
    /// Who has it, if somebody has.
    pub(super) fn follow(&self, key: CoreKey) -> Result<Writing, Writer> {
        let mut writers = self.lock();
        match writers.get(&key) {
            Some(writer) => Err(*writer),
            None => {
                writers.insert(key, Writer::Share);
                Ok(Writing { claims: self.clone(), key })
            }
        }
    }

    /// For a command; none if a share has it.
    pub(super) fn change(&self, key: CoreKey) -> Option<Writing> {
        let mut writers = self.lock();
        match writers.entry(key).or_insert(Writer::Commands(0)) {
            Writer::Share => None,
            Writer::Commands(n) => {
                *n += 1;
                Some(Writing { claims: self.clone(), key })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CoreKey, Writer>> {
        crate::lock::lock(&self.0)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut writers = self.claims.lock();
        match writers.get_mut(&self.key) {
            Some(Writer::Commands(n)) if *n > 1 => *n -= 1,
            _ => drop(writers.remove(&self.key)),
        }
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
    #[test]
    fn a_drive_is_written_by_a_share_or_by_commands() {
        let claims = Claims::default();
        let key = CoreKey([1; 32]);
        let share = claims.follow(key).unwrap_or_else(|_| panic!("it is free"));
        assert_eq!(claims.follow(key).err(), Some(Writer::Share));
        assert!(claims.change(key).is_none());
        assert!(claims.change(CoreKey([2; 32])).is_some(), "another drive");
        drop(share);
        let first = claims.change(key).unwrap();
        let second = claims.change(key).unwrap();
        drop(first);
        assert_eq!(claims.follow(key).err(), Some(Writer::Commands(1)));
        drop(second);
        assert!(claims.follow(key).is_ok());
        assert!(claims.lock().is_empty());
    }
}
