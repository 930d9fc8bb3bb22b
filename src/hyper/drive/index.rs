//! All names of a drive version in memory, so that lookups, listings and attributes never wait.
//!
//! The bee keeps a drive as a flat list of paths; directories exist only because paths lie in them. The
//! index turns that into a tree, loaded once by a walk of the whole bee ([`DriveIndex::load`]) and then kept
//! up by differences ([`DriveIndex::refresh`]). An index never changes: a refresh makes the next one, which
//! shares with it what did not change.
//!
//! Names come from whoever writes the drive. What cannot be a path on this machine is left out and
//! counted; an entry that makes no sense is shown as a file that cannot be read. A file and a directory
//! of the same name show as the directory.

use super::dir::{Content, Dir, File, Leaf, Link, Node, differences};
use super::{Entry, FILES};
use crate::hyper::bee::{Bee, BeeError, Difference};
use crate::hyper::blobs::{BlobError, BlobId, Blobs, MAX_MAP_BLOCKS};
use crate::hyper::source::SourceError;
use crate::path::{DrivePath, PathError};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Block maps whose blocks are asked for at a time, to learn the sizes of their files.
const MAP_WINDOW: usize = 256;

/// Changes beyond the number of files at which the whole bee is walked again: a difference needs a round
/// trip per step down, a walk one per level.
const REWALK: u64 = 1000;

/// Warnings per load about names left out; the others are only counted.
const WARNINGS: u64 = 10;

/// See the module. A clone is cheap.
#[derive(Debug, Clone, Default)]
pub struct DriveIndex {
    root: Arc<Dir>,
    version: u64,
    /// Forks of the bee's and the blobs' cores: when one changes, equal numbers mean nothing any more.
    forks: (u64, u64),
    files: u64,
    bytes: u64,
    left_out: u64,
    /// Files with a block map that could not be fetched yet.
    unsized_files: BTreeSet<DrivePath>,
}

/// What a path is.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Directory(&'a Arc<Dir>),
    File(&'a File),
    Link(&'a Link),
}

impl Node {
    /// What the name is shown as.
    pub fn shown(&self) -> Found<'_> {
        match self {
            Node::Directory(dir) | Node::Both(dir, _) => Found::Directory(dir),
            Node::Leaf(Leaf::File(file)) => Found::File(file),
            Node::Leaf(Leaf::Link(link)) => Found::Link(link),
        }
    }
}

impl DriveIndex {
    /// Reads the whole bee. Many blocks are fetched side by side; see [`Bee::walk`].
    pub async fn load(bee: &Bee, blobs: &Blobs) -> Result<Self, BeeError> {
        let bee = bee.snapshot();
        let mut index = Self {
            version: bee.version(),
            forks: (bee.source().fork(), blobs.source().fork()),
            ..Self::default()
        };
        let mut entries = Vec::new();
        let mut left_out = 0;
        bee.walk(|entry| match drive_path(&entry.key) {
            Some(Ok(path)) => entries.push((path, leaf(entry.seq, &entry.value))),
            Some(Err(error)) => {
                left_out += 1;
                if left_out <= WARNINGS {
                    warn_left_out(&entry.key, error);
                }
            }
            None => {}
        })
        .await?;
        // In order, names fill their groups.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        index.left_out = left_out;
        for (path, leaf) in entries {
            index.insert(&path, leaf);
        }
        index.learn_sizes(blobs).await;
        Ok(index)
    }

    /// The index of the bee's present version, and the paths whose kind, content or attributes changed:
    /// files, links, and directories that appeared or vanished.
    pub async fn refresh(
        old: &Self,
        bee: &Bee,
        blobs: &Blobs,
    ) -> Result<(Self, Vec<DrivePath>), BeeError> {
        let bee = bee.snapshot();
        let (version, forks) = (bee.version(), (bee.source().fork(), blobs.source().fork()));
        let same_past = forks == old.forks && version >= old.version;
        let added = version.saturating_sub(old.version);
        let index = if !same_past || added > old.files + REWALK {
            Self::load(&bee, blobs).await?
        } else {
            let mut index = old.clone();
            index.version = version;
            if added > 0 {
                index.apply_difference(&bee, old.version).await?;
            }
            index.learn_sizes(blobs).await;
            index
        };
        let changed = changed_paths(old, &index, !same_past);
        Ok((index, changed))
    }

    /// The drive's version this is the index of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Files and links, those behind a directory of the same name included.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries whose names cannot be shown.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Files whose size is still to be learned: their block map could not be fetched.
    pub fn unsized_files(&self) -> usize {
        self.unsized_files.len()
    }

    pub fn lookup(&self, path: &DrivePath) -> Option<Found<'_>> {
        match self.node(path) {
            Some(node) => Some(node.shown()),
            None => path.is_root().then_some(Found::Directory(&self.root)),
        }
    }

    /// The names in a directory, in byte order; `None` if there is no such directory.
    pub fn list(&self, path: &DrivePath) -> Option<&Arc<Dir>> {
        match self.lookup(path)? {
            Found::Directory(dir) => Some(dir),
            _ => None,
        }
    }

    /// Calls `each` with every file and link at or below `path`, those not shown included.
    pub fn for_each_below(&self, path: &DrivePath, mut each: impl FnMut(&Leaf)) {
        if let Some(leaf) = self.node(path).and_then(Node::leaf) {
            each(leaf);
        }
        let mut todo: Vec<&Arc<Dir>> = self.list(path).into_iter().collect();
        while let Some(dir) = todo.pop() {
            for (_, node) in dir.iter() {
                node.leaf().into_iter().for_each(&mut each);
                todo.extend(node.dir());
            }
        }
    }

    /// Blocks of the blobs core that the files of this version need: what it may be cut back to with the
    /// names. It does not look into block maps, whose blocks lie before the map.
    pub fn blobs_length(&self) -> u64 {
        let mut length = 0;
        self.for_each_below(&DrivePath::root(), |leaf| {
            if let Leaf::File(file) = leaf {
                length = length.max(file.blob().map_or(0, |id| id.block_end()));
            }
        });
        length
    }

    fn node(&self, path: &DrivePath) -> Option<&Node> {
        let mut names = path.names();
        let mut node = self.root.get(names.next()?)?;
        for name in names {
            node = node.dir()?.get(name)?;
        }
        Some(node)
    }

    async fn apply_difference(&mut self, bee: &Bee, from: u64) -> Result<(), BeeError> {
        // Every block that the newer tree does not share lies in what was appended.
        bee.source().prefetch_range(from.max(1), bee.version());
        let mut diff = bee.diff(&bee.checkout(from));
        while let Some(Difference { left, right }) = diff.next().await? {
            match (left, right) {
                (Some(new), right) => match drive_path(&new.key) {
                    Some(Ok(path)) => self.insert(&path, leaf(new.seq, &new.value)),
                    Some(Err(error)) if right.is_none() => {
                        self.left_out += 1;
                        warn_left_out(&new.key, error);
                    }
                    _ => {}
                },
                (None, Some(old)) => match drive_path(&old.key) {
                    Some(Ok(path)) => self.remove(&path),
                    Some(Err(_)) => self.left_out = self.left_out.saturating_sub(1),
                    None => {}
                },
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: &DrivePath, leaf: Leaf) {
        let unsized_file = is_unsized(&leaf);
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size(&leaf));
        let mut dir = Arc::make_mut(&mut self.root);
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            if names.peek().is_some() {
                dir = dir.open(name);
                continue;
            }
            if let Some(old) = dir.set_leaf(name, leaf) {
                self.files -= 1;
                self.bytes = self.bytes.saturating_sub(size(&old));
            }
            break;
        }
        if unsized_file {
            self.unsized_files.insert(path.clone());
        } else {
            self.unsized_files.remove(path);
        }
    }

    /// Takes an entry out, and with it the directories that it alone kept in being.
    fn remove(&mut self, path: &DrivePath) {
        let Some(bytes) = self.node(path).and_then(Node::leaf).map(size) else { return };
        self.files -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.unsized_files.remove(path);
        let names: Vec<&str> = path.names().collect();
        let (depth, rest) = self.cut(&names);
        let mut dir = Arc::make_mut(&mut self.root);
        for name in &names[..depth] {
            dir = dir.open(name);
        }
        dir.replace(names[depth], rest);
    }

    /// Where to cut so that the entry of `names` is gone: how deep the name lies that changes, and what
    /// stays under it.
    fn cut(&self, names: &[&str]) -> (usize, Option<Node>) {
        let mut way = vec![&self.root];
        for name in names {
            way.extend(way[way.len() - 1].get(name).and_then(Node::dir));
        }
        let mut depth = names.len() - 1;
        loop {
            let rest = match way[depth].get(names[depth]) {
                Some(Node::Both(dir, _)) if depth + 1 == names.len() => {
                    Some(Node::Directory(Arc::clone(dir)))
                }
                Some(Node::Both(_, leaf)) => Some(Node::Leaf((**leaf).clone())),
                _ => None,
            };
            if rest.is_some() || depth == 0 || way[depth].len() > 1 {
                return (depth, rest);
            }
            depth -= 1;
        }
    }

    /// Fetches the block maps of files whose size is not known, side by side. A map that does not come is
    /// tried again at the next refresh; after the first one, nothing more is waited for.
    async fn learn_sizes(&mut self, blobs: &Blobs) {
        let todo: Vec<(DrivePath, File, BlobId)> = self
            .unsized_files
            .iter()
            .filter_map(|path| match self.node(path)?.leaf()? {
                Leaf::File(file) => match &file.content {
                    Content::Mapped(mapped) => Some((path.clone(), file.clone(), mapped.0)),
                    _ => None,
                },
                Leaf::Link(_) => None,
            })
            .collect();
        let mut patient = true;
        for window in todo.chunks(MAP_WINDOW) {
            let blocks = window.iter().filter(|(_, _, id)| id.block_length <= MAX_MAP_BLOCKS);
            let blocks = blocks.flat_map(|(_, _, id)| id.block_offset..id.block_end());
            blobs.source().prefetch(&blocks.collect::<Vec<_>>());
            for (path, file, id) in window {
                let content = match map_size(blobs, id, patient).await {
                    Ok(size) => Content::Mapped(Box::new((*id, Some(size)))),
                    Err(BlobError::Source(error)) => {
                        tracing::debug!(%path, %error, "size not known yet");
                        patient = false;
                        continue;
                    }
                    Err(error) => Content::Damaged(error.to_string().into()),
                };
                self.insert(path, Leaf::File(File { content, ..file.clone() }));
            }
        }
    }
}

/// Bytes of the content behind a block map.
async fn map_size(blobs: &Blobs, id: &BlobId, patient: bool) -> Result<u64, BlobError> {
    if !patient && id.block_length <= MAX_MAP_BLOCKS {
        for block in id.block_offset..id.block_end() {
            if blobs.source().try_block(block)?.is_none() {
                return Err(SourceError::TimedOut(block).into());
            }
        }
    }
    Ok(blobs.map(id).await?.size())
}

/// The path a bee key stands for. `None` for keys that are not files of the drive.
fn drive_path(key: &[u8]) -> Option<Result<DrivePath, PathError>> {
    let path = key.strip_prefix(FILES)?;
    let path = std::str::from_utf8(path).map_err(|_| PathError::BadName);
    Some(path.and_then(DrivePath::from_entry_key))
}

fn warn_left_out(key: &[u8], error: PathError) {
    let name = String::from_utf8_lossy(key.get(..200).unwrap_or(key)).into_owned();
    tracing::warn!(?name, %error, "name left out");
}

fn leaf(seq: u64, value: &[u8]) -> Leaf {
    let entry = match Entry::decode(value) {
        Ok(entry) => entry,
        Err(error) => {
            let content = Content::Damaged(error.to_string().into());
            return Leaf::File(File { seq, mtime_ms: None, mode: 0o644, content });
        }
    };
    let (mtime_ms, mode) = (entry.mtime_ms(), entry.mode());
    if let Some(target) = entry.linkname {
        return Leaf::Link(Link { seq, mtime_ms, target: target.into() });
    }
    let content = match entry.blob {
        Some(id) if id.block_map => Content::Mapped(Box::new((id, None))),
        blob => Content::Blob(blob.unwrap_or_default()),
    };
    Leaf::File(File { seq, mtime_ms, mode, content })
}

fn size(leaf: &Leaf) -> u64 {
    match leaf {
        Leaf::File(file) => file.size(),
        Leaf::Link(_) => 0,
    }
}

fn is_unsized(leaf: &Leaf) -> bool {
    match leaf {
        Leaf::File(file) => matches!(&file.content, Content::Mapped(mapped) if mapped.1.is_none()),
        Leaf::Link(_) => false,
    }
}

/// Paths that are shown differently. With `distrust`, every file that is in both counts as changed: the
/// same block numbers may hold other content since one of the cores was cut back.
fn changed_paths(old: &DriveIndex, new: &DriveIndex, distrust: bool) -> Vec<DrivePath> {
    let mut changed = Vec::new();
    let none = Arc::new(Dir::default());
    let mut todo = vec![(DrivePath::root(), &old.root, &new.root)];
    while let Some((path, old, new)) = todo.pop() {
        if Arc::ptr_eq(old, new) {
            continue;
        }
        differences(old, new, |name, old, new| {
            let Ok(path) = path.join(name) else { return };
            let (old, new) = (old.map(Node::shown), new.map(Node::shown));
            let same = match (old, new) {
                (Some(Found::Directory(_)), Some(Found::Directory(_))) => true,
                (Some(Found::File(a)), Some(Found::File(b))) => a == b && !distrust,
                (Some(Found::Link(a)), Some(Found::Link(b))) => a == b,
                _ => false,
            };
            let dirs = match (old, new) {
                (Some(Found::Directory(a)), Some(Found::Directory(b))) => Some((a, b)),
                (Some(Found::Directory(a)), _) => Some((a, &none)),
                (_, Some(Found::Directory(b))) => Some((&none, b)),
                _ => None,
            };
            if let Some((a, b)) = dirs {
                todo.push((path.clone(), a, b));
            }
            if !same {
                changed.push(path);
            }
        });
    }
    changed
}

#[cfg(test)]
mod tests;
