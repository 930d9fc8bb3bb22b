//! All entries of a bee at once, for whoever wants everything: level by level instead of key by key.
//!
//! An ordered walk of a bee far away waits for each node before it knows the next. Here all nodes of one
//! level are asked for together, and with them all keys the level above named, so the walk costs about as
//! many round trips as the tree is deep (6 for twenty thousand entries).

use super::node::{Block, Link};
use super::{Bee, BeeError, Entry, MAX_DEPTH, Result, damaged, entry, to_node};
use bytes::Bytes;
use std::collections::HashSet;

/// Blocks that are asked for at a time; two such windows are under way. It bounds what a far-away bee
/// makes us hold and request.
const WINDOW: usize = 4096;

impl Bee {
    /// Calls `visit` with every entry of this version, in no particular order.
    pub async fn walk(&self, mut visit: impl FnMut(Entry) + Send) -> Result<()> {
        let bee = self.snapshot();
        let mut level: Vec<Link> = bee.root_link().into_iter().collect();
        let mut keys = 0u64;
        for _ in 0..MAX_DEPTH {
            if level.is_empty() {
                return Ok(());
            }
            let mut wanted = Vec::new();
            let mut below = Vec::new();
            bee.fetch(
                &mut level,
                |link| link.seq,
                |link, block| {
                    let node = to_node(link, block)?;
                    for at in 0..node.children.len() {
                        below.push(super::down(&node, at)?);
                    }
                    // A tree names each block's key once, so more keys than blocks is a tree that names
                    // nodes twice; without this check it could be made to take for ever.
                    keys += node.keys.len() as u64;
                    if keys >= bee.version() {
                        return Err(damaged(link.seq, "tree node"));
                    }
                    wanted.extend(node.keys);
                    Ok(())
                },
            )
            .await?;
            // Keys of this level and nodes of the next travel together.
            bee.hint(&below);
            bee.fetch(
                &mut wanted,
                |seq| *seq,
                |seq, block| {
                    visit(entry(seq, block));
                    Ok(())
                },
            )
            .await?;
            level = below;
        }
        Err(damaged(bee.version() - 1, "depth"))
    }

    fn hint(&self, links: &[Link]) {
        let mut seen = HashSet::new();
        let seqs: Vec<u64> = links
            .iter()
            .map(|link| link.seq)
            .filter(|&seq| !self.source.has(seq) && seen.insert(seq))
            .take(WINDOW)
            .collect();
        if !seqs.is_empty() {
            self.source.prefetch(&seqs);
        }
    }

    /// Calls `each` with the block of every item: first those that are here, then the others as they are
    /// fetched, window by window. Empties `items`. The cache of decoded blocks is left alone.
    async fn fetch<T: Copy>(
        &self,
        items: &mut Vec<T>,
        seq_of: impl Fn(&T) -> u64,
        mut each: impl FnMut(T, &Block) -> Result<()>,
    ) -> Result<()> {
        let decode =
            |seq, raw: &Bytes| Block::decode(raw).map_err(|what| BeeError::Damaged { seq, what });
        let mut missing = Vec::new();
        for item in items.drain(..) {
            let seq = seq_of(&item);
            match self.source.try_block(seq)? {
                Some(raw) => each(item, &decode(seq, &raw)?)?,
                None => missing.push(item),
            }
        }
        let mut windows = missing.chunks(WINDOW).peekable();
        let ask = |window: &[T]| {
            self.source.prefetch(&window.iter().map(&seq_of).collect::<Vec<_>>());
        };
        if let Some(first) = windows.peek() {
            ask(first);
        }
        while let Some(window) = windows.next() {
            if let Some(next) = windows.peek() {
                ask(next);
            }
            for &item in window {
                let seq = seq_of(&item);
                let raw = match self.source.try_block(seq)? {
                    Some(raw) => raw,
                    None => self.source.block(seq).await?,
                };
                each(item, &decode(seq, &raw)?)?;
            }
        }
        Ok(())
    }
}
