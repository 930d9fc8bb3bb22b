//! One inode and its names.

use super::Ino;
use crate::fs::body::Body;
use crate::fs::volume::FileContent;
use crate::fs::volume::{Entry, Kind};
use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

/// A name in a folder; the table and the node that bears it share its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub parent: Ino,
    pub text: Arc<str>,
}

/// A name to look for, for which nothing is allocated.
pub(super) trait Sought {
    fn sought(&self) -> (Ino, &str);
}

impl Sought for Name {
    fn sought(&self) -> (Ino, &str) {
        (self.parent, &self.text)
    }
}

impl Sought for (Ino, &str) {
    fn sought(&self) -> (Ino, &str) {
        *self
    }
}

impl<'a> Borrow<dyn Sought + 'a> for Name {
    fn borrow(&self) -> &(dyn Sought + 'a) {
        self
    }
}

impl Hash for dyn Sought + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sought().hash(state);
    }
}

impl PartialEq for dyn Sought + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.sought() == other.sought()
    }
}

impl Eq for dyn Sought + '_ {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sought().hash(state);
    }
}

/// The names of one inode. Nearly all have one, so that this is no larger than one.
pub(super) enum Names {
    One(Name),
    /// None, or more than one.
    Others(Box<Others>),
}

#[derive(Default)]
pub(super) struct Others(BTreeSet<Name>);

impl Default for Names {
    fn default() -> Self {
        Self::Others(Box::default())
    }
}

impl Names {
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        let (one, others) = match self {
            Self::One(name) => (Some(name), None),
            Self::Others(others) => (None, Some(&others.0)),
        };
        one.into_iter().chain(others.into_iter().flatten())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Others(others) => others.0.len(),
        }
    }

    pub fn add(&mut self, name: Name) {
        *self = match std::mem::take(self) {
            Self::One(first) => Self::Others(Box::new(Others(BTreeSet::from([first, name])))),
            Self::Others(others) if others.0.is_empty() => Self::One(name),
            Self::Others(mut others) => {
                others.0.insert(name);
                Self::Others(others)
            }
        };
    }

    pub fn remove(&mut self, name: &Name) {
        match self {
            Self::One(one) if one == name => *self = Self::default(),
            Self::One(_) => {}
            Self::Others(others) => {
                others.0.remove(name);
                if others.0.len() == 1
                    && let Some(last) = others.0.pop_first()
                {
                    *self = Self::One(last);
                }
            }
        }
    }
}

/// One inode that the kernel knows, or is about to.
pub struct Node {
    pub(super) names: Names,
    /// What the volume last told of it.
    pub entry: Entry,
    /// How often the kernel was told of this number and has not yet forgotten.
    pub(super) lookups: u64,
    /// Open files and directories.
    pub(super) handles: u32,
    /// Names that are known in this directory, which stays for them.
    pub(super) below: u32,
    /// What all open files of this inode read; none while nothing is open.
    pub body: Option<Arc<Body>>,
    /// The revision whose bytes the kernel may hold in its page cache.
    pub pages: Option<u64>,
    /// What happened to it here, which no drive says.
    pub times: Option<Box<Times>>,
}

/// Times that are known as long as the inode is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// As somebody set it.
    pub atime: Option<SystemTime>,
    /// Of the last change of the inode.
    pub ctime: Option<SystemTime>,
    /// Of the last change of the names in a directory.
    pub mtime: Option<SystemTime>,
}

impl Node {
    pub(super) fn new(entry: Entry) -> Self {
        Self {
            names: Names::default(),
            entry,
            lookups: 0,
            handles: 0,
            below: 0,
            body: None,
            pages: None,
            times: None,
        }
    }

    /// What all who have it open read, which is `content` from now on.
    pub fn body_of(&mut self, content: Arc<dyn FileContent>) -> Arc<Body> {
        match &self.body {
            Some(body) => {
                body.exchange(content);
                body.clone()
            }
            None => self.body.insert(Arc::new(Body::new(content))).clone(),
        }
    }

    /// Its attributes changed just now.
    pub fn touch(&mut self, now: SystemTime) {
        self.times.get_or_insert_default().ctime = Some(now);
    }

    /// A name in this directory came or went just now.
    pub fn touch_names(&mut self, now: SystemTime) {
        let times = self.times.get_or_insert_default();
        (times.ctime, times.mtime) = (Some(now), Some(now));
    }

    pub fn is_open(&self) -> bool {
        self.handles > 0
    }

    /// Whether it still has a name, which the root never has.
    pub(super) fn is_linked(&self) -> bool {
        self.names.len() > 0
    }

    /// How many names it has: those that are known here if the volume does not tell.
    pub fn links(&self) -> u32 {
        match self.entry.links {
            0 => u32::try_from(self.names.len()).unwrap_or(u32::MAX),
            told => told,
        }
    }

    /// A file that the kernel knows.
    pub(super) fn is_told_file(&self) -> bool {
        self.entry.kind == Kind::File && self.lookups > 0
    }

    pub(super) fn is_known(&self) -> bool {
        self.lookups > 0 || self.handles > 0 || self.below > 0
    }

    /// Whether `entry` can take this inode's place without a reader noticing half of it: nobody reads, or what
    /// they read is what `entry` tells of, as when the file was changed from here.
    pub(super) fn can_become(&self, entry: &Entry) -> bool {
        let read_it = || {
            let body = self.body.as_ref();
            body.is_some_and(|body| body.content().revision() == entry.revision)
        };
        self.entry.kind == entry.kind && (entry.kind != Kind::File || !self.is_open() || read_it())
    }
}
