//! All names of a drive version in memory, so that lookups, listings and attributes never wait.
//!
//! The bee keeps a drive as a flat list of paths; directories exist because paths lie in them, or because they are
//! kept ([`super::Batch::keep_dir`]). The index turns that into a tree, loaded once by a walk of the whole bee ([`DriveIndex::load`]) and then kept
//! up by differences ([`DriveIndex::refresh`]). An index never changes: a refresh makes the next one, which
//! shares with it what did not change.
//!
//! Names come from whoever writes the drive. What cannot be a path on this machine is left out and
//! counted; an entry that makes no sense is shown as a file that cannot be read. A file and a directory
//! of the same name show as the directory, unless there is no file in it.

mod draft;
mod edit;
mod links;

use super::dir::{Dir, Node, differences};
use super::leaf::{Content, File, Leaf, Link};
use super::names::{self, Name};
use super::record::{Record, Special};
use crate::hyper::bee::{Bee, BeeError};
use crate::hyper::blobs::{Allowance, BlobError, BlobId, Blobs};
use crate::path::DrivePath;
use edit::room_of;
use links::Links;

pub use draft::Steps;

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};
use std::sync::Arc;

/// Changes beyond the number of files at which the whole bee is walked again: a difference needs a round
/// trip per step down, a walk one per level.
const REWALK: u64 = 1000;

/// Bytes of block maps that one load reads of those that are here, before it has anything to show. It is enough for
/// the maps of tens of thousands of files; the sizes of the others follow as those do whose maps are to be fetched.
const LOCAL_MAPS: usize = 64 << 20;

const TOO_MANY: &str = "the drive has far more folders than files";

/// Warnings per load about names left out; the others are only counted.
const WARNINGS: u64 = 10;

/// See the module. A clone is cheap.
#[derive(Debug, Clone, Default)]
pub struct DriveIndex {
    root: Arc<Dir>,
    /// Directories below the root.
    dirs: u64,
    /// Directories that are there for their own sake.
    kept: u64,
    version: u64,
    /// Forks of the bee's and the blobs' cores: when one changes, equal numbers mean nothing any more.
    forks: (u64, u64),
    /// More than a number that is shown holds, if the drive's owner likes: what is added must come off again.
    bytes: u128,
    left_out: u64,
    /// Those of them for whose directories there was no room.
    crowded: u64,
    /// Files whose block map is not here yet.
    unsized_files: BTreeSet<DrivePath>,
    /// Special nodes behind a file or link of the same name, which other programs put without knowing.
    hidden: BTreeMap<DrivePath, Box<Special>>,
    links: Links,
}

/// What a path is.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Directory(&'a Arc<Dir>),
    File(&'a File),
    Link(&'a Link),
    Special(&'a Special),
}

impl Found<'_> {
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Whether it is a folder with something in it.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Directory(dir) if !dir.is_empty())
    }
}

impl Node {
    /// What the name is shown as.
    pub fn shown(&self) -> Found<'_> {
        match self {
            Node::Directory(dir) => Found::Directory(dir),
            // Other programs do not know of kept directories and put files where one is.
            Node::Both(dir, _) if dir.leaves > 0 => Found::Directory(dir),
            Node::Both(_, leaf) => leaf.shown(),
            Node::Leaf(leaf) => leaf.shown(),
        }
    }
}

impl Leaf {
    fn shown(&self) -> Found<'_> {
        match self {
            Leaf::File(file) => Found::File(file),
            Leaf::Link(link) => Found::Link(link),
            Leaf::Special(node) => Found::Special(node),
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
            links: Links::loading(),
            ..Self::default()
        };
        let mut entries = Vec::new();
        let (mut kept, mut nodes) = (Vec::new(), Vec::new());
        bee.walk(|entry| match names::parse(&entry.key) {
            Some(Ok(Name::Leaf(path))) => {
                entries.push((path, Leaf::decode(entry.seq, &entry.value)))
            }
            Some(Ok(Name::Kept(path))) => {
                kept.push((path, Record::decode(&entry.value).folder(entry.seq)));
            }
            Some(Ok(Name::Node(path))) => {
                let node = Record::decode(&entry.value).node(entry.seq);
                nodes.extend(node.map(|node| (path, node)));
            }
            Some(Err(error)) => index.leave_out(&String::from_utf8_lossy(&entry.key), &error),
            None => {}
        })
        .await?;
        // In order, names fill their groups.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        kept.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        nodes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        // All names count, so that whether they have room together does not hang on their order.
        let room = room_of((entries.len() + kept.len() + nodes.len()) as u64);
        for (path, leaf) in entries {
            if !index.insert(&path, leaf, room) {
                index.crowd_out(&path);
            }
        }
        for (path, own) in kept {
            if !index.keep_recorded(&path, own, room) {
                index.crowd_out(&path);
            }
        }
        for (path, node) in nodes {
            if !index.insert_node(&path, node, room) {
                index.crowd_out(&path);
            }
        }
        index.settle_links();
        let unsized_files: Vec<DrivePath> = index.unsized_files.iter().cloned().collect();
        index.learn_local(blobs, &unsized_files).await;
        Ok(index)
    }

    /// The index of the bee's present version, and the paths whose kind, content or attributes changed.
    pub async fn refresh(
        old: &Self,
        bee: &Bee,
        blobs: &Blobs,
    ) -> Result<(Self, Vec<DrivePath>), BeeError> {
        let bee = bee.snapshot();
        let (version, forks) = (bee.version(), (bee.source().fork(), blobs.source().fork()));
        let same_past = forks == old.forks && version >= old.version;
        let added = version.saturating_sub(old.version);
        let mut next = None;
        if same_past && added <= old.files() + REWALK {
            let mut index = old.clone();
            index.version = version;
            if added == 0 || index.apply_difference(&bee, old.version).await? {
                next = Some(index);
            }
        }
        let index = match next {
            Some(mut index) => {
                let is_new = |path: &&DrivePath| old.unsized_map(path) != index.unsized_map(path);
                let new: Vec<_> = index.unsized_files.iter().filter(is_new).cloned().collect();
                index.learn_local(blobs, &new).await;
                index
            }
            None => Self::load(&bee, blobs).await?,
        };
        let changed = changed_paths(old, &index, !same_past);
        Ok((index, changed))
    }

    /// The drive's version this is the index of.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the names are the very same, not only equal ones.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    /// The file or link at `path`, shown or not.
    pub fn leaf(&self, path: &DrivePath) -> Option<&Leaf> {
        self.node(path).and_then(Node::leaf)
    }

    /// Files, links and special nodes, those behind a directory of the same name included.
    pub fn files(&self) -> u64 {
        self.root.leaves
    }

    /// Bytes of all files, as far as a number holds them.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes).unwrap_or(u64::MAX)
    }

    /// Entries whose names cannot be shown.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Files whose size is still to be learnt: their block map is not here.
    pub fn unsized_files(&self) -> usize {
        self.unsized_files.len()
    }

    /// Those files, with the ids of their block maps.
    pub fn unsized_maps(&self) -> impl Iterator<Item = (&DrivePath, BlobId)> {
        self.unsized_files.iter().filter_map(|path| Some((path, self.unsized_map(path)?)))
    }

    fn unsized_map(&self, path: &DrivePath) -> Option<BlobId> {
        match self.node(path)?.leaf()? {
            Leaf::File(File { content: Content::Mapped(mapped), .. }) if mapped.1.is_none() => {
                Some(mapped.0)
            }
            _ => None,
        }
    }

    /// The same names with what was learnt of sizes since, and the paths that this changes.
    pub fn with_sizes(
        &self,
        learnt: Vec<(DrivePath, BlobId, Result<u64, BlobError>)>,
    ) -> (Self, Vec<DrivePath>) {
        let mut index = self.clone();
        let learnt = learnt.into_iter();
        let changed = learnt
            .filter_map(|(path, id, size)| index.learn(&path, id, size).then_some(path))
            .collect();
        index.settle_links();
        (index, changed)
    }

    /// Notes what a block map told of a file, if the file still has that map. Whether it told something.
    fn learn(&mut self, path: &DrivePath, id: BlobId, size: Result<u64, BlobError>) -> bool {
        if self.unsized_map(path) != Some(id) {
            return false;
        }
        let content = match size {
            Ok(size) => Content::Mapped(Box::new((id, Some(size)))),
            Err(BlobError::Source(_)) => return false,
            Err(error) => Content::Damaged(error.to_string().into()),
        };
        match self.node(path).and_then(Node::leaf).cloned() {
            // It has its place.
            Some(Leaf::File(file)) => {
                self.insert(path, Leaf::File(File { content, ..file }), u64::MAX)
            }
            _ => false,
        }
    }

    /// Learns from the block maps of these files that are here, as far as [`LOCAL_MAPS`] goes.
    async fn learn_local(&mut self, blobs: &Blobs, paths: &[DrivePath]) {
        let mut allowance = Allowance::new(LOCAL_MAPS);
        // Any number of files may have the same map.
        let mut told = HashMap::new();
        for path in paths {
            let Some(id) = self.unsized_map(path) else { continue };
            if let hash_map::Entry::Vacant(untold) = told.entry(id) {
                untold.insert(blobs.map_size_local(&id, &mut allowance).await.transpose());
            }
            if let Some(Some(size)) = told.get(&id) {
                self.learn(path, id, size.clone());
            }
        }
        self.settle_links();
    }

    pub fn lookup(&self, path: &DrivePath) -> Option<Found<'_>> {
        let mut found = Found::Directory(&self.root);
        for name in path.names() {
            let Found::Directory(dir) = found else { return None };
            found = dir.get(name)?.shown();
        }
        Some(found)
    }

    /// The names in a directory, in byte order; `None` if there is no such directory.
    pub fn list(&self, path: &DrivePath) -> Option<&Arc<Dir>> {
        match self.lookup(path)? {
            Found::Directory(dir) => Some(dir),
            _ => None,
        }
    }

    /// Calls `each` with every file, link and special node at or below `path`, those not shown included.
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

    /// Directories at or below `path` that are kept though nothing need be in them, those not shown included.
    pub fn kept_below(&self, path: &DrivePath) -> Vec<DrivePath> {
        let mut found = Vec::new();
        // Most drives keep none.
        let start = (self.kept > 0).then(|| self.dir(path)).flatten();
        let mut todo: Vec<(DrivePath, &Arc<Dir>)> =
            start.map(|dir| (path.clone(), dir)).into_iter().collect();
        while let Some((path, dir)) = todo.pop() {
            let below =
                dir.iter().filter_map(|(name, node)| Some((path.join(name).ok()?, node.dir()?)));
            todo.extend(below);
            if dir.kept {
                found.push(path);
            }
        }
        found
    }

    /// The directory at `path`, shown or not.
    fn dir(&self, path: &DrivePath) -> Option<&Arc<Dir>> {
        let mut dir = &self.root;
        for name in path.names() {
            dir = dir.get(name)?.dir()?;
        }
        Some(dir)
    }

    /// What is at `path`, shown or not; none for the root.
    fn node(&self, path: &DrivePath) -> Option<&Node> {
        let mut names = path.names();
        let mut node = self.root.get(names.next()?)?;
        for name in names {
            node = node.dir()?.get(name)?;
        }
        Some(node)
    }
}

/// Paths that are shown differently. With `distrust`, every file that is in both counts as changed: the
/// same block numbers may hold other content since one of the cores was cut back.
fn changed_paths(old: &DriveIndex, new: &DriveIndex, distrust: bool) -> Vec<DrivePath> {
    let mut changed = Vec::new();
    let same_dir = |a: &Dir, b: &Dir| a.own == b.own && !(distrust && b.own.is_some());
    if !same_dir(&old.root, &new.root) {
        changed.push(DrivePath::root());
    }
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
                (Some(Found::Directory(a)), Some(Found::Directory(b))) => same_dir(a, b),
                (Some(Found::File(a)), Some(Found::File(b))) => a == b && !distrust,
                (Some(Found::Link(a)), Some(Found::Link(b))) => a == b,
                (Some(Found::Special(a)), Some(Found::Special(b))) => a == b,
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
mod hostile_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod tests;
