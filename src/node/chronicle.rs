//! When each version of a drive was first here. The drive itself does not say: its entries carry the times of
//! files, and a photo of 1999 may have been shared today.
//!
//! One record per drive: version and time in seconds since 1970 (u64 each, little endian), oldest first.

use crate::hyper::core::storage::{Durability, Records, StorageError, Writes};
use crate::hyper::session::CoreHandle;
use crate::hyper::source::{BlockLog, BlockSource};
use crate::hyper::store::Store;
use crate::key::CoreKey;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Versions of others are noted at most this often; of several in between the last counts.
const EVERY: Duration = Duration::from_secs(10);
/// Notes kept per drive. When there are more, every second of the older half goes.
const MAX_NOTES: usize = 4096;

/// A version, and when it was first seen here, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub version: u64,
    pub at: u64,
}

/// The last of these versions with a time no later than `time`, in milliseconds since 1970; of versions that share
/// a time, or where times are out of order, the newest. None if all are later.
pub fn last_until(seen: &[Seen], time: i64) -> Option<usize> {
    seen.iter().rposition(|seen| seen.ms() <= time)
}

/// The first version with an earlier time than one before it: the clock was wrong, or set back.
pub fn out_of_order(seen: &[Seen]) -> Option<Seen> {
    seen.windows(2).map(|pair| (pair[0], pair[1])).find(|(a, b)| b.at < a.at).map(|(_, b)| b)
}

impl Seen {
    /// Milliseconds since 1970.
    pub fn ms(&self) -> i64 {
        i64::try_from(self.at).unwrap_or(i64::MAX).saturating_mul(1000)
    }
}

fn name(key: &CoreKey) -> String {
    format!("seen/{key}")
}

/// What is noted of a drive, oldest first.
pub fn seen(store: &Store, key: &CoreKey) -> Result<Vec<Seen>, StorageError> {
    let record = store.records().get_record(&name(key))?.unwrap_or_default();
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let note = |note: &[u8]| Seen { version: word(note), at: word(note.get(8..).unwrap_or(&[])) };
    Ok(record.chunks_exact(16).map(note).collect())
}

/// Adds to the writes that what is noted of a drive goes.
pub fn forget(key: &CoreKey, writes: &mut Writes) {
    Records::change(writes, &name(key), None);
}

/// Notes the present version of a drive, if it is a new one.
pub fn note(store: &Store, db: &CoreHandle) {
    let version = db.length();
    let noted = seen(store, &db.key()).and_then(|mut notes| {
        let known = notes.last().map_or(0, |last| last.version);
        if version <= 1 || version == known {
            return Ok(());
        }
        // A drive whose log was cut has other versions of these lengths.
        notes.retain(|note| note.version < version);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        notes.push(Seen { version, at: now.as_secs() });
        thin(&mut notes);
        let bytes = notes.iter().flat_map(|note| [note.version, note.at]);
        let bytes: Vec<u8> = bytes.flat_map(u64::to_le_bytes).collect();
        store.records().put_record(&name(&db.key()), &bytes, Durability::Buffered)
    });
    if let Err(error) = noted {
        tracing::debug!(%error, "the time of a version could not be noted");
    }
}

fn thin(notes: &mut Vec<Seen>) {
    if notes.len() > MAX_NOTES {
        let half = notes.len() / 2;
        let mut at = 0;
        notes.retain(|_| {
            at += 1;
            at > half || at % 2 == 1
        });
    }
}

/// Notes versions as they come, for as long as it runs; each one of a drive of ours, which is written here and now.
pub async fn follow(store: &Store, db: &CoreHandle) {
    let mut versions = db.versions();
    loop {
        versions.borrow_and_update();
        note(store, db);
        if !db.writable() {
            tokio::time::sleep(EVERY).await;
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_is_told_and_the_newest_version_of_a_time_is_found() {
        let notes = |all: &[(u64, u64)]| -> Vec<Seen> {
            all.iter().map(|&(version, at)| Seen { version, at }).collect()
        };
        let rising = notes(&[(2, 100), (5, 200), (7, 200), (9, 300)]);
        assert_eq!(out_of_order(&rising), None);
        assert_eq!(
            [99_999, 100_000, 200_000, 299_999].map(|at| last_until(&rising, at)),
            [None, Some(0), Some(2), Some(2)]
        );
        // Version 5 was written before the clock was set.
        let back = notes(&[(2, 100), (5, 3), (9, 300)]);
        assert_eq!(out_of_order(&back), Some(back[1]));
        assert_eq!(
            [2_000, 3_000, 100_000, 300_000].map(|at| last_until(&back, at)),
            [None, Some(1), Some(1), Some(2)]
        );
        assert_eq!(last_until(&notes(&[(2, u64::MAX)]), i64::MAX), Some(0));
    }

    #[test]
    fn old_notes_grow_sparse_and_new_ones_stay() {
        let mut notes: Vec<_> =
            (0..=MAX_NOTES as u64).map(|n| Seen { version: n, at: n }).collect();
        thin(&mut notes);
        assert!(notes.len() <= MAX_NOTES * 3 / 4 + 1, "{}", notes.len());
        assert_eq!((notes[0].version, notes[1].version), (0, 2));
        assert_eq!(notes.last().unwrap().version, MAX_NOTES as u64);
        assert!(notes.windows(2).all(|pair| pair[0].version < pair[1].version));
    }
}
