//! Which blocks of the contents a drive's entries name: what must stay for a version to be readable.
//!
//! An entry names a run of blocks, or, with a block map, the map's own blocks and every block that the map
//! lists. Blocks may be named by many entries. Entries whose keys are no paths count like any other: what
//! they mean is their writer's business, but a blob id in them is one.

use super::{BlockSet, Drive, Entry, Result};
use crate::hyper::bee::Change;
use crate::hyper::blobs::BlobId;
use std::collections::HashSet;

/// See the module.
#[derive(Default)]
pub struct Named {
    pub blocks: BlockSet,
    /// Block maps whose lists are in.
    maps: HashSet<(u64, u64)>,
    /// Block maps still to be read.
    unread: Vec<BlobId>,
}

impl Named {
    /// Adds what the version of the names that `drive` shows names.
    pub async fn version(&mut self, drive: &Drive) -> Result<()> {
        let mut values = Vec::new();
        drive.bee().walk(|entry| values.push(entry.value)).await?;
        values.iter().for_each(|value| self.value(value));
        self.read_maps(drive).await
    }

    /// Adds what the version of `drive` names under the keys that were changed from block `from` of the names on.
    pub async fn changed_since(&mut self, drive: &Drive, from: u64) -> Result<()> {
        let mut keys = HashSet::new();
        let mut history = drive.bee().history(from);
        while let Some(change) = history.next().await? {
            let (Change::Put(entry) | Change::Delete(entry)) = change;
            keys.insert(entry.key);
        }
        for key in keys {
            if let Some(entry) = drive.bee().get(&key).await? {
                self.value(&entry.value);
            }
        }
        self.read_maps(drive).await
    }

    /// Adds what was ever named from block `from` of the names up to the version of `drive`.
    pub async fn since(&mut self, drive: &Drive, from: u64) -> Result<()> {
        let mut history = drive.bee().history(from);
        while let Some(change) = history.next().await? {
            // The value of a put inside a batch may be taken for that of a deletion: it names blocks all the same.
            let (Change::Put(entry) | Change::Delete(entry)) = change;
            self.value(&entry.value);
        }
        self.read_maps(drive).await
    }

    /// Adds contents that are open.
    pub async fn contents(&mut self, drive: &Drive, ids: &[BlobId]) -> Result<()> {
        ids.iter().for_each(|id| self.blob(*id));
        self.read_maps(drive).await
    }

    fn value(&mut self, value: &[u8]) {
        if let Some(id) = Entry::decode(value).ok().and_then(|entry| entry.blob) {
            self.blob(id);
        }
    }

    fn blob(&mut self, id: BlobId) {
        self.blocks.insert(id.block_offset..id.block_end());
        if id.block_map && self.maps.insert((id.block_offset, id.block_length)) {
            self.unread.push(id);
        }
    }

    async fn read_maps(&mut self, drive: &Drive) -> Result<()> {
        while let Some(id) = self.unread.pop() {
            let map = drive.blobs().map(&id).await?;
            for entry in (0..map.len()).filter_map(|at| map.entry(at)) {
                self.blocks.insert(entry.block..entry.block.saturating_add(1));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fixture, path};
    use super::*;
    use crate::hyper::bee::run;
    use crate::hyper::blobs::BlockMap;

    fn named(drive: &Drive) -> Vec<u64> {
        let mut named = Named::default();
        run(named.version(drive)).unwrap();
        named.blocks.runs().flatten().collect()
    }

    #[test]
    fn files_share_blocks_through_maps_and_each_is_counted_while_one_of_them_lives() {
        let f = fixture(None);
        let blobs = f.drive.blobs();
        f.put("/old", &[1; 100]); // block 0
        f.put("/kept", &[2; 70_000]); // blocks 1, 2
        let mut map = BlockMap::default();
        map.push(0, 100).unwrap();
        map.push(2, 70_000 - 65_536).unwrap();
        let id = blobs.put_map(&map).unwrap(); // block 3
        let mut batch = f.drive.batch().unwrap();
        batch.put(&path("/mapped"), &Entry::file(id)).unwrap();
        batch.put(&path("/twin"), &Entry::file(id)).unwrap();
        batch.flush().unwrap();
        let version = f.drive.version();
        assert_eq!(named(&f.drive), [0, 1, 2, 3]);

        let delete = |name: &str| {
            let mut batch = f.drive.batch().unwrap();
            batch.delete(&path(name)).unwrap();
            batch.flush().unwrap();
        };
        delete("/old");
        delete("/mapped");
        assert_eq!(named(&f.drive), [0, 1, 2, 3], "the twin's map still lists block 0");
        delete("/twin");
        assert_eq!(named(&f.drive), [1, 2]);
        assert_eq!(named(&f.drive.checkout(version)), [0, 1, 2, 3]);

        // What of it is new since a version.
        f.put("/new", &[4; 10]); // block 4
        f.put("/new", &[5; 10]); // block 5
        f.put("/passing", &[6; 10]); // block 6
        delete("/passing");
        let mut changed = Named::default();
        run(changed.changed_since(&f.drive, version)).unwrap();
        assert_eq!(changed.blocks.runs().flatten().collect::<Vec<_>>(), [5]);
        let version = f.drive.version();

        // All that was named since a version, be it gone again.
        f.put("/brief", &[3; 10]); // block 7
        delete("/brief");
        let mut since = Named::default();
        run(since.since(&f.drive, version)).unwrap();
        assert_eq!(since.blocks.runs().flatten().collect::<Vec<_>>(), [7]);
    }
}
