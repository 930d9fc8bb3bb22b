//! All versions of a bee, oldest first, and what each changed: for a list of the past. It reads the whole past; where
//! one version is to be had, [`super::nearest`] finds it without.
//!
//! Several changes may be appended as one; then only the last block shows a whole tree, and the format has no mark
//! for it. But a tree tells by itself: block `n` shows a version if and only if the tree under it is the one before
//! with the changes up to `n` made. The tree before is compared by the nodes they share, so each look costs what
//! changed.
//!
//! The blocks must be here, or be fetched on the way.

use super::{Bee, BeeError, Change, Entry, Result};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One version, and what it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Length of the bee with it.
    pub version: u64,
    /// The length before; 1 for the first.
    pub before: u64,
    /// By key, the last word on each: the entry that was put, or none where it was deleted.
    pub changes: BTreeMap<Bytes, Option<Entry>>,
}

/// A walk over the versions of a bee, oldest first.
pub struct Versions {
    bee: Bee,
    history: super::History,
    /// The last version found.
    version: u64,
    next: u64,
}

impl Bee {
    /// The versions up to this one; this one counts as one whatever it shows.
    pub fn versions(&self) -> Versions {
        let bee = self.snapshot();
        Versions { history: bee.history(1), bee, version: 1, next: 1 }
    }
}

impl Versions {
    /// The next version; `None` after the present one.
    pub async fn next(&mut self) -> Result<Option<Step>> {
        let before = self.version;
        let mut changes = BTreeMap::new();
        while let Some(change) = self.history.next().await? {
            self.next += 1;
            let deletion = matches!(change, Change::Delete(_));
            let (Change::Put(entry) | Change::Delete(entry)) = change;
            changes
                .insert(entry.key.clone(), (!deletion || !entry.value.is_empty()).then_some(entry));
            let last = self.next >= self.bee.version();
            if last || self.is_version(before, &changes).await? {
                self.version = self.next;
                return Ok(Some(Step { version: self.next, before, changes }));
            }
        }
        Ok(None)
    }

    /// Whether the tree at `self.next` is that of `before` with `changes` made.
    async fn is_version(
        &self,
        before: u64,
        changes: &BTreeMap<Bytes, Option<Entry>>,
    ) -> Result<bool> {
        let tree = self.bee.checkout(self.next);
        match self.compare(&tree, before, changes).await {
            // What the blocks inside a batch show need not be a tree.
            Err(BeeError::Damaged { .. }) => Ok(false),
            compared => compared,
        }
    }

    async fn compare(
        &self,
        tree: &Bee,
        before: u64,
        changes: &BTreeMap<Bytes, Option<Entry>>,
    ) -> Result<bool> {
        // The newest and the outermost changes are what a part of a tree lacks; most are told by these.
        let outer = [changes.first_key_value(), changes.last_key_value()];
        for (key, entry) in outer.into_iter().flatten().chain(changes) {
            let found = tree.get(key).await?.map(|found| found.seq);
            if found != entry.as_ref().map(|entry| entry.seq) {
                return Ok(false);
            }
        }
        let old = self.bee.checkout(before);
        let mut diff = tree.diff(&old);
        while let Some(difference) = diff.next().await? {
            let changed = |entry: &Option<Entry>| {
                entry.as_ref().is_none_or(|entry| changes.contains_key(&entry.key))
            };
            if !changed(&difference.left) || !changed(&difference.right) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RangeOptions, run, vectors};
    use super::*;
    use crate::hyper::source::memory::MemoryLog;
    use crate::key::unhex;
    use serde_json::Value;

    fn found(bee: &Bee) -> Vec<Step> {
        let mut versions = bee.versions();
        std::iter::from_fn(|| run(versions.next()).unwrap()).collect()
    }

    /// Keys and values.
    fn entries(bee: &Bee) -> BTreeMap<Bytes, Bytes> {
        let mut range = bee.range(RangeOptions::default());
        let next = || run(range.next()).unwrap().map(|entry| (entry.key, entry.value));
        std::iter::from_fn(next).collect()
    }

    fn text(value: &Value) -> &'static str {
        Box::leak(value.as_str().unwrap().to_string().into_boxed_str())
    }

    /// Batches with deletions, as the reference wrote them.
    #[test]
    fn every_flush_is_found_and_whatever_is_found_shows_what_was_written_until_then() {
        let vector = &vectors()["beeBatch"];
        let blocks = vector["core"]["blocks"].as_array().unwrap().iter();
        let raw = |block: &Value| {
            Bytes::from(
                unhex(block["hex"].as_str().unwrap_or_else(|| block.as_str().unwrap())).unwrap(),
            )
        };
        let bee = Bee::new(MemoryLog::from_blocks(blocks.map(raw)));
        let steps = found(&bee);
        let versions: Vec<u64> = steps.iter().map(|step| step.version).collect();
        for length in vector["lengthAfter"].as_array().unwrap() {
            assert!(versions.contains(&length.as_u64().unwrap()), "{length} in {versions:?}");
        }
        // The operations, one by one; those that did nothing have no block.
        let mut model = BTreeMap::new();
        let mut states = vec![BTreeMap::new()];
        for operation in
            vector["batches"].as_array().unwrap().iter().flat_map(|b| b.as_array().unwrap())
        {
            let key = Bytes::from(text(&operation[1]));
            let did = match operation[0].as_str().unwrap() {
                "p" => {
                    model.insert(key, Bytes::from(text(&operation[2])));
                    true
                }
                _ => model.remove(&key).is_some(),
            };
            if did {
                states.push(model.clone());
            }
        }
        assert_eq!(states.len() as u64, bee.version(), "one block each, after the header");
        let mut before = 1;
        for step in &steps {
            assert_eq!(entries(&bee.checkout(step.version)), states[step.version as usize - 1]);
            assert_eq!(step.before, before);
            before = step.version;
        }
        let count = steps.len();
        assert!(count < 60, "{count} of {} blocks are taken for versions", bee.version());
    }

    #[test]
    fn single_changes_are_versions_each_and_an_empty_bee_has_none() {
        let log = MemoryLog::new();
        let bee = Bee::writable(log, None);
        assert!(found(&bee).is_empty());
        for n in 0..40u32 {
            let mut batch = bee.batch().unwrap();
            batch.put(format!("{:03}", n * 7 % 40), n.to_string()).unwrap();
            batch.flush().unwrap();
        }
        let mut batch = bee.batch().unwrap();
        batch.delete("003").unwrap();
        batch.flush().unwrap();
        let steps = found(&bee);
        assert_eq!(
            steps.iter().map(|s| s.version).collect::<Vec<_>>(),
            (2..=42).collect::<Vec<_>>()
        );
        assert_eq!(steps.last().unwrap().changes, BTreeMap::from([("003".into(), None)]));
    }

    #[test]
    fn a_large_first_batch_is_one_version_and_quickly_told() {
        let log = MemoryLog::new();
        let bee = Bee::writable(log.clone(), None);
        let mut batch = bee.batch().unwrap();
        for n in 0..5000u32 {
            batch.put(format!("{n:06}"), "x").unwrap();
        }
        batch.flush().unwrap();
        let steps = found(&bee);
        assert_eq!((steps.len(), steps[0].version, steps[0].changes.len()), (1, 5001, 5000));
    }
}
