//! The nearest version of a bee that is whole, found without reading its past: for a look at one moment. It goes by how
//! the format is written and looks at the blocks around; [`super::versions`] compares trees, which is sure and reads
//! all that came before.
//!
//! Every length at which the writer stopped is a version; the lengths inside a batch are not, and nothing marks them.
//! But the format tells them apart, by how a batch is written:
//!
//! - A node is stored in the block of the last operation that touched it, and the root is touched by all. So inside a
//!   batch level 0 of a block, where a root would be, is missing or is a node that a later root leads to.
//! - A root is never a child: whatever changes below it, it is written anew.
//! - What comes to lie at level 0 inside a batch has no child in its own block. So a level 0 that has one is a root.
//! - A root that has lost all its levels but one may be stored in the middle of the batch that did this, as it was
//!   at its end. Then operations that follow take out keys that it does not have, or some before put keys that it should.
//!   Where neither is so nothing tells: that length is taken for a version, and shows what the batch came to.
//!
//! Found by reading hyperbee/index.js (Batch); nothing there looks for it.

use super::node::{Link, MAX_KEYS};
use super::{Bee, BeeError, Result};
use bytes::Bytes;
use std::collections::HashSet;

/// Blocks that are looked at, one way or the other, before a length that may be a version is taken for one. It
/// covers the largest batches that are written today.
const MAX_SCAN: u64 = 1 << 17;

/// Blocks that are asked for ahead.
const AHEAD: u64 = 512;

/// What a block says of the version that ends with it.
enum Says {
    Whole,
    Inside,
    /// Whole, unless a later block has this one's level 0 as a child.
    Perhaps,
}

/// Blocks whose level 0 is a child of a node somewhere.
#[derive(Default)]
struct Children(HashSet<u64>);

impl Bee {
    /// The last version at or before `version` that is whole. The newest one is, and the empty one.
    ///
    /// # Errors
    /// Those of fetching blocks.
    pub async fn whole_version(&self, version: u64) -> Result<u64> {
        let newest = self.version();
        if version >= newest {
            return Ok(newest);
        }
        let mut children = None;
        let mut version = version.max(1);
        let lowest = version.saturating_sub(MAX_SCAN).max(1);
        while version > lowest {
            let seq = version - 1;
            match self.says(seq).await? {
                Says::Whole => return Ok(version),
                Says::Inside => {
                    if let Some(children) = &mut children {
                        self.collect(seq, children).await?;
                    }
                }
                Says::Perhaps => {
                    match &mut children {
                        Some(children) => self.collect(seq, children).await?,
                        None => children = Some(self.children_from(seq, newest).await?),
                    }
                    let root = children.as_ref().is_some_and(|children| !children.0.contains(&seq));
                    if root && self.is_of_its_time(seq, newest).await? {
                        return Ok(version);
                    }
                }
            }
            version -= 1;
            if version.is_multiple_of(AHEAD) {
                self.source.prefetch_range(version.saturating_sub(AHEAD).max(1), version);
            }
        }
        Ok(1)
    }

    async fn says(&self, seq: u64) -> Result<Says> {
        let block = self.block(seq).await?;
        Ok(match super::to_node(Link { seq, offset: 0 }, &block) {
            Err(_) => Says::Inside,
            Ok(node) if node.children.iter().any(|child| child.seq > seq) => Says::Inside,
            Ok(node) if node.children.iter().any(|child| child.seq == seq) => Says::Whole,
            Ok(_) => Says::Perhaps,
        })
    }

    /// Whether the operations around make sense of a root that has no children: it has what those before put, and what
    /// those that follow take out.
    async fn is_of_its_time(&self, seq: u64, newest: u64) -> Result<bool> {
        let root = self.node(Link { seq, offset: 0 }).await?;
        if !root.is_leaf() {
            return Ok(true);
        }
        let mut keys = HashSet::new();
        for &key in &root.keys {
            keys.insert(self.block(key).await?.key.clone());
        }
        if !self.has_what_was_put(seq, &keys).await? {
            return Ok(false);
        }
        for next in seq + 1..newest.min(seq.saturating_add(MAX_SCAN)) {
            let block = self.block(next).await?;
            let deletion =
                block.is_deletion(next).map_err(|what| BeeError::Damaged { seq: next, what })?;
            if deletion && !keys.remove(&block.key) {
                return Ok(false);
            }
            if !deletion {
                keys.insert(block.key.clone());
            }
            // As far as the batch goes; larger trees have children.
            if keys.len() > MAX_KEYS || !matches!(self.says(next).await?, Says::Inside) {
                break;
            }
        }
        Ok(true)
    }

    /// Whether these keys are all that the operations up to block `seq` leave.
    async fn has_what_was_put(&self, seq: u64, keys: &HashSet<Bytes>) -> Result<bool> {
        let mut gone = HashSet::new();
        for at in (seq.saturating_sub(MAX_SCAN).max(1)..=seq).rev() {
            if (seq - at).is_multiple_of(AHEAD) {
                self.source.prefetch_range(at.saturating_sub(AHEAD).max(1), at);
            }
            let block = self.block(at).await?;
            let deletion =
                block.is_deletion(at).map_err(|what| BeeError::Damaged { seq: at, what })?;
            if deletion {
                gone.insert(block.key.clone());
            } else if !keys.contains(&block.key) && !gone.contains(&block.key) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The children that the blocks from `first` on have, up to the end of the batch that `first` may lie in.
    async fn children_from(&self, first: u64, newest: u64) -> Result<Children> {
        let mut children = Children::default();
        let end = newest.min(first.saturating_add(MAX_SCAN));
        for seq in first..end {
            if (seq - first).is_multiple_of(AHEAD) {
                self.source.prefetch_range(seq, end.min(seq + AHEAD));
            }
            self.collect(seq, &mut children).await?;
            if seq > first && matches!(self.says(seq).await?, Says::Whole) {
                break;
            }
        }
        Ok(children)
    }

    async fn collect(&self, seq: u64, children: &mut Children) -> Result<()> {
        let levels = self.block(seq).await?.all_levels();
        for level in levels.map_err(|what| BeeError::Damaged { seq, what })? {
            let first = level.children.iter().filter(|child| child.offset == 0);
            children.0.extend(first.map(|child| child.seq));
        }
        Ok(())
    }
}
