//! Inodes: paths the kernel knows by number.
//!
//! A number is a hash of its path, so it is the same after a remount. A path keeps its number when its
//! entry is replaced, unless somebody has the file open: they go on reading what they opened, under the old
//! number, and the name gets a new one. So one number never shows two contents to one reader, and the page
//! cache of the kernel, which is per number, never mixes them.

use super::body::Body;
use super::volume::{Entry, FileContent, Kind};
use crate::crypto::hash::hash;
use crate::path::DrivePath;
use std::collections::HashMap;
use std::sync::Arc;

/// Number of an inode; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    pub const ROOT: Self = Self(1);
}

/// One inode that the kernel knows, or is about to.
pub struct Node {
    pub path: Arc<DrivePath>,
    pub entry: Entry,
    /// Whether `path` still leads here.
    pub linked: bool,
    /// How often the kernel was told of this number and has not yet forgotten.
    lookups: u64,
    /// Open files and directories.
    handles: u32,
    /// What all open files of this inode read; none while nothing is open.
    pub body: Option<Arc<Body>>,
    /// The revision whose bytes the kernel may hold in its page cache.
    pub pages: Option<u64>,
}

impl Node {
    fn new(path: Arc<DrivePath>, entry: Entry) -> Self {
        Self { path, entry, linked: true, lookups: 0, handles: 0, body: None, pages: None }
    }

    pub fn is_open(&self) -> bool {
        self.handles > 0
    }

    /// Whether `entry` can take this inode's place without a reader noticing half of it.
    fn can_become(&self, entry: &Entry) -> bool {
        self.entry.kind == entry.kind && (entry.kind != Kind::File || !self.is_open())
    }
}

/// What [`Inodes::bind`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Same(Ino),
    /// The path was not known.
    New(Ino),
    /// The same number, another entry.
    Replaced(Ino),
    /// A new number; the old one lives on for those who hold it.
    Moved {
        old: Ino,
        new: Ino,
    },
}

impl Bound {
    pub fn ino(self) -> Ino {
        match self {
            Self::Same(ino) | Self::New(ino) | Self::Replaced(ino) => ino,
            Self::Moved { new, .. } => new,
        }
    }
}

/// All inodes of one mount.
pub struct Inodes {
    nodes: HashMap<Ino, Node>,
    by_path: HashMap<Arc<DrivePath>, Ino>,
    number: fn(&DrivePath, u32) -> u64,
}

impl Inodes {
    pub fn new(root: Entry) -> Self {
        Self::with_numbers(root, path_hash)
    }

    /// With another hash, for tests of collisions.
    fn with_numbers(root: Entry, number: fn(&DrivePath, u32) -> u64) -> Self {
        let path = Arc::new(DrivePath::root());
        let mut node = Node::new(path.clone(), root);
        // The kernel knows the root without asking and never forgets it.
        node.lookups = 1;
        Self {
            nodes: HashMap::from([(Ino::ROOT, node)]),
            by_path: HashMap::from([(path, Ino::ROOT)]),
            number,
        }
    }

    pub fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub fn at(&self, path: &DrivePath) -> Option<Ino> {
        self.by_path.get(path).copied()
    }

    /// The number that a lookup of `path` would give now.
    pub fn number(&self, path: &DrivePath) -> Ino {
        self.at(path).unwrap_or_else(|| self.free_number(path))
    }

    fn free_number(&self, path: &DrivePath) -> Ino {
        (0..=u32::MAX)
            .map(|salt| Ino((self.number)(path, salt)))
            .find(|ino| ino.0 > Ino::ROOT.0 && !self.nodes.contains_key(ino))
            .expect("fewer inodes than numbers")
    }

    /// Makes `path` stand for `entry`. The inode found or made is not yet counted as looked up.
    pub fn bind(&mut self, path: &DrivePath, entry: Entry) -> Bound {
        let Some(old) = self.at(path) else {
            return Bound::New(self.insert(Arc::new(path.clone()), entry));
        };
        let Some(node) = self.nodes.get_mut(&old) else {
            return Bound::New(self.insert(Arc::new(path.clone()), entry));
        };
        if node.entry == entry {
            return Bound::Same(old);
        }
        if old == Ino::ROOT || node.can_become(&entry) {
            node.entry = entry;
            return Bound::Replaced(old);
        }
        node.linked = false;
        let path = node.path.clone();
        let new = self.insert(path, entry);
        Bound::Moved { old, new }
    }

    fn insert(&mut self, path: Arc<DrivePath>, entry: Entry) -> Ino {
        let ino = self.free_number(&path);
        self.by_path.insert(path.clone(), ino);
        self.nodes.insert(ino, Node::new(path, entry));
        ino
    }

    /// The path is gone; its inode lives on for those who hold it.
    pub fn unlink(&mut self, path: &DrivePath) -> Option<Ino> {
        if path.is_root() {
            return None;
        }
        let ino = self.by_path.remove(path)?;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.linked = false;
        }
        self.settle(ino);
        Some(ino)
    }

    /// The kernel was told of `ino` once more.
    pub fn remember(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_add(1);
        }
    }

    /// The kernel forgot `count` of the times it was told.
    pub fn forget(&mut self, ino: Ino, count: u64) {
        if ino == Ino::ROOT {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(count);
            self.settle(ino);
        }
    }

    /// A file or directory was opened.
    pub fn hold(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handles = node.handles.saturating_add(1);
        }
    }

    /// A file or directory was closed.
    pub fn release(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.handles = node.handles.saturating_sub(1);
        if node.handles == 0 {
            node.body = None;
            self.settle(ino);
        }
    }

    /// The file is changed from here: it is `entry` now and reads `content`, for all who have it open too. The
    /// bytes are still those that the kernel may hold in its page cache.
    #[cfg_attr(not(test), expect(dead_code, reason = "for files that are opened to write"))]
    pub fn renew(&mut self, ino: Ino, entry: Entry, content: Arc<dyn FileContent>) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.pages = node.pages.map(|_| entry.revision);
        node.entry = entry;
        if let Some(body) = &node.body {
            body.exchange(content);
        }
    }

    /// Drops `ino` if nobody knows it.
    pub fn settle(&mut self, ino: Ino) {
        let unused =
            self.nodes.get(&ino).is_some_and(|node| node.lookups == 0 && node.handles == 0);
        if !unused {
            return;
        }
        if let Some(node) = self.nodes.remove(&ino)
            && node.linked
        {
            self.by_path.remove(&node.path);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// 64 bits of BLAKE2b: nobody who names files can make many of them collide, which would make each probe
/// for a free number long.
fn path_hash(path: &DrivePath, salt: u32) -> u64 {
    let digest = hash(&[&salt.to_le_bytes(), path.as_str().as_bytes()]);
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::volume::{BoxFuture, Result};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn entry(kind: Kind, revision: u64) -> Entry {
        Entry { kind, size: 0, mode: 0o644, mtime_ms: 0, target: None, revision, sure: true }
    }

    fn file(revision: u64) -> Entry {
        entry(Kind::File, revision)
    }

    fn inodes() -> Inodes {
        Inodes::new(entry(Kind::Directory, 0))
    }

    fn path(text: &str) -> DrivePath {
        DrivePath::from_user(text).unwrap()
    }

    #[test]
    fn numbers_are_the_same_in_every_mount() {
        let (mut a, mut b) = (inodes(), inodes());
        b.bind(&path("/other"), file(1));
        let told = a.number(&path("/x/y"));
        assert_eq!(told, a.bind(&path("/x/y"), file(1)).ino());
        assert_eq!(told, b.bind(&path("/x/y"), file(9)).ino());
        assert_eq!(a.number(&DrivePath::root()), Ino::ROOT);
        // Pinned: changing the hash would change every number users have seen.
        assert_eq!(told, Ino(path_hash(&path("/x/y"), 0)));
    }

    #[test]
    fn a_replaced_file_keeps_its_number_while_nobody_reads_it() {
        let mut inodes = inodes();
        let ino = inodes.bind(&path("/f"), file(1)).ino();
        inodes.remember(ino);
        assert_eq!(inodes.bind(&path("/f"), file(1)), Bound::Same(ino));
        assert_eq!(inodes.bind(&path("/f"), file(2)), Bound::Replaced(ino));
    }

    #[test]
    fn an_open_file_keeps_its_content_and_the_name_moves_on() {
        let mut inodes = inodes();
        let old = inodes.bind(&path("/f"), file(1)).ino();
        inodes.remember(old);
        inodes.hold(old);
        let Bound::Moved { old: was, new } = inodes.bind(&path("/f"), file(2)) else { panic!() };
        assert_eq!(was, old);
        assert_eq!(inodes.at(&path("/f")), Some(new));
        assert_eq!(inodes.get(old).unwrap().entry.revision, 1);
        assert!(!inodes.get(old).unwrap().linked);
        inodes.remember(new);
        inodes.release(old);
        assert!(inodes.get(old).is_some(), "the kernel still knows it");
        inodes.forget(old, 1);
        assert!(inodes.get(old).is_none());
        assert_eq!(inodes.at(&path("/f")), Some(new), "forgetting the old leaves the new");
    }

    /// A content that is known by its revision.
    struct Content(u64);

    impl FileContent for Content {
        fn size(&self) -> Option<u64> {
            Some(0)
        }

        fn revision(&self) -> u64 {
            self.0
        }

        fn read_local(&self, _: u64, _: usize) -> Result<Option<Vec<Bytes>>> {
            Ok(None)
        }

        fn read(&self, _: u64, _: usize) -> BoxFuture<Result<Vec<Bytes>>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn prefetch(&self, _: u64, _: u64) {}
    }

    #[test]
    fn a_file_that_is_changed_here_is_read_by_all_who_have_it_open() {
        let mut inodes = inodes();
        let ino = inodes.bind(&path("/f"), file(1)).ino();
        let body = Arc::new(Body::new(Arc::new(Content(1))));
        let node = inodes.get_mut(ino).unwrap();
        (node.body, node.pages) = (Some(body.clone()), Some(1));
        inodes.hold(ino);
        inodes.renew(ino, file(2), Arc::new(Content(2)));
        assert_eq!(body.content().revision(), 2);
        let node = inodes.get(ino).unwrap();
        assert_eq!((node.entry.revision, node.pages), (2, Some(2)));
        assert_eq!(inodes.bind(&path("/f"), file(2)), Bound::Same(ino));
        inodes.release(ino);
        assert!(inodes.get(ino).is_none());
    }

    #[test]
    fn another_kind_is_another_inode() {
        let mut inodes = inodes();
        let old = inodes.bind(&path("/f"), file(1)).ino();
        inodes.remember(old);
        assert!(matches!(inodes.bind(&path("/f"), entry(Kind::Directory, 2)), Bound::Moved { .. }));
    }

    #[test]
    fn collisions_get_other_numbers() {
        let mut inodes = Inodes::with_numbers(entry(Kind::Directory, 0), |_, salt| salt.into());
        let a = inodes.bind(&path("/a"), file(1)).ino();
        let b = inodes.bind(&path("/b"), file(1)).ino();
        assert_eq!((a, b), (Ino(2), Ino(3)));
        inodes.settle(a);
        assert_eq!(inodes.at(&path("/b")), Some(b));
        assert_eq!(inodes.number(&path("/c")), Ino(2));
    }

    #[test]
    fn an_unlinked_inode_lives_until_it_is_forgotten() {
        let mut inodes = inodes();
        let ino = inodes.bind(&path("/f"), file(1)).ino();
        inodes.remember(ino);
        assert_eq!(inodes.unlink(&path("/f")), Some(ino));
        assert_eq!(inodes.at(&path("/f")), None);
        assert!(inodes.get(ino).is_some());
        inodes.forget(ino, 1);
        assert_eq!(inodes.len(), 1);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Lookup(u8, u64),
        Open(u8),
        Close(u8),
        Unlink(u8),
        Forget(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let name = 0..4u8;
        prop_oneof![
            (name.clone(), 0..3u64).prop_map(|(n, r)| Op::Lookup(n, r)),
            name.clone().prop_map(Op::Open),
            name.clone().prop_map(Op::Close),
            name.clone().prop_map(Op::Unlink),
            name.prop_map(Op::Forget),
        ]
    }

    proptest! {
        /// The table holds exactly what the kernel knows or has open, whatever happens to the names.
        #[test]
        fn nothing_is_lost_and_nothing_leaks(ops in proptest::collection::vec(op(), 0..80)) {
            let mut inodes = inodes();
            let mut known: std::collections::BTreeMap<Ino, (u64, u32)> = Default::default();
            for op in ops {
                match op {
                    Op::Lookup(name, revision) => {
                        let ino = inodes.bind(&path(&format!("/{name}")), file(revision)).ino();
                        inodes.remember(ino);
                        known.entry(ino).or_default().0 += 1;
                    }
                    Op::Open(name) => if let Some(ino) = inodes.at(&path(&format!("/{name}"))) {
                        inodes.hold(ino);
                        known.entry(ino).or_default().1 += 1;
                    },
                    Op::Close(nth) => if let Some((ino, _)) = known.iter().filter(|(_, k)| k.1 > 0).nth(nth.into()) {
                        let ino = *ino;
                        inodes.release(ino);
                        known.get_mut(&ino).unwrap().1 -= 1;
                    },
                    Op::Unlink(name) => { inodes.unlink(&path(&format!("/{name}"))); }
                    Op::Forget(nth) => if let Some((ino, _)) = known.iter().nth(nth.into()) {
                        let ino = *ino;
                        inodes.forget(ino, known[&ino].0);
                        known.get_mut(&ino).unwrap().0 = 0;
                    },
                }
                known.retain(|_, k| *k != (0, 0));
                for ino in known.keys() {
                    prop_assert!(inodes.get(*ino).is_some());
                }
                prop_assert_eq!(inodes.len(), known.len() + 1);
                for (path, ino) in &inodes.by_path {
                    prop_assert!(inodes.nodes[ino].linked);
                    prop_assert_eq!(path, &inodes.nodes[ino].path);
                }
            }
        }
    }
}
