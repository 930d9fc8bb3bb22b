//! What others do to the drive while it is worked on here: a command of this store, say.
//!
//! They take turns with its publications: whoever has a batch of the names finds those of all before. A draft looks for
//! what came meanwhile before each publication, with the batch in hand, and whenever it is told ([`Draft::absorb`]).
//!
//! | since the names that were published last | is from now on |
//! |---|---|
//! | only others changed it | what they made of it; whoever has the file open finds their content |
//! | its content was changed here, or is being | the content here, under what they say of the rest |
//! | what is said of it was changed here | that, with their content |
//! | it was moved, removed or made here | what was done here |
//!
//! So nothing that was written here is lost, and what they wrote instead is a version of the drive.

use super::{Draft, DraftError, Names};
use crate::hyper::bee::BeeError;
use crate::hyper::drive::{Content, DriveError, DriveIndex, File, Leaf, Local};
use crate::hyper::local::{Base, LocalFile};
use crate::lock::{lock, read, try_lock, write};
use crate::path::DrivePath;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

impl Draft {
    /// Takes what others added to the drive. Where somebody publishes at this moment he does it, and nobody waits.
    pub fn absorb(&self) {
        self.behind.store(true, Ordering::SeqCst);
        while self.behind.load(Ordering::SeqCst) {
            let Some(_publishing) = try_lock(&self.publishing) else { return };
            self.behind.store(false, Ordering::SeqCst);
            if let Err(error) = self.catch_up() {
                tracing::warn!(%error, "what others changed in the drive is not seen yet");
            }
        }
    }

    /// Takes what was learnt of the sizes of files since.
    pub fn learn(&self, index: &DriveIndex, changed: &[DrivePath]) {
        let names = &mut *write(&self.names);
        for path in changed {
            let Some(learnt @ Leaf::File(File { content: Content::Mapped(new), .. })) =
                index.leaf(path)
            else {
                continue;
            };
            for names in [&mut names.published, &mut names.now] {
                let known = names.leaf(path);
                if let Some(Leaf::File(File { content: Content::Mapped(old), seq, .. })) = known
                    && (*seq, old.0, old.1) == (learnt.seq(), new.0, None)
                {
                    names.set(path, learnt.clone());
                }
            }
        }
    }

    /// Takes what others added to the drive. Only for whoever publishes.
    pub(super) fn catch_up(&self) -> Result<(), DraftError> {
        let old = read(&self.names).published.clone();
        if old.version().max(1) == self.drive.version() {
            return Ok(());
        }
        let newest = pin!(self.drive.refresh(&old)).poll(&mut Context::from_waker(Waker::noop()));
        // All names of a drive of ours are here.
        let Poll::Ready(newest) = newest else {
            return Err(DriveError::Bee(BeeError::NotHere(self.drive.version())).into());
        };
        let (index, changed) = newest?;
        let base = |file: &File| {
            let (id, size) = (file.blob()?, file.known_size()?);
            Some(Base { reader: self.drive.blobs().reader(id, Some(size)), id, size })
        };
        {
            let mut spool = lock(&self.spool);
            let replaced = write(&self.names).merge(&index, base);
            spool.make_void(replaced);
        }
        self.tell(u64::MAX, &changed);
        Ok(())
    }
}

impl Names {
    /// Goes on from `newest`, which others made of what was published. `base` is what a file of theirs is under what is
    /// written to it. Those that are open, and are theirs from now on: a record of what they were is of no use.
    fn merge(&mut self, newest: &DriveIndex, base: impl Fn(&File) -> Option<Base>) -> Vec<u64> {
        let theirs = self.published.steps_to(newest);
        let mut replaced = Vec::new();
        for (path, new) in &theirs.leaves {
            let was = self.published.leaf(path).filter(|leaf| leaf.special().is_none());
            match (self.now.leaf(path).cloned(), was, new) {
                (Some(Leaf::File(ours)), was, new) if matches!(ours.content, Content::Local(_)) => {
                    let was = match was {
                        Some(Leaf::File(was)) => Some(was.clone()),
                        _ => None,
                    };
                    let new = new.as_ref();
                    replaced.extend(self.merge_local(path, ours, was.as_ref(), new, &base));
                }
                (now, was, new) if now.as_ref() == was => match new {
                    Some(new) => self.now.set(path, new.clone()),
                    None => self.now.hear(path, None),
                },
                (Some(Leaf::File(ours)), Some(Leaf::File(was)), Some(Leaf::File(new))) => {
                    let content = match ours.content == was.content {
                        true => new.content.clone(),
                        false => ours.content.clone(),
                    };
                    let merged = File { content, ..described(&ours, Some(was), new) };
                    self.now.set(path, Leaf::File(merged));
                }
                _ => {}
            }
        }
        for (path, node) in &theirs.nodes {
            if self.now.leaf(path) == self.published.leaf(path) {
                self.now.hear_node(path, node.clone());
            }
        }
        for (path, own) in &theirs.records {
            let of = |index: &DriveIndex| index.list(path).map(|dir| dir.attributes().cloned());
            if of(&self.now) == of(&self.published) {
                self.now.hear_record(path, own.clone());
            }
        }
        self.published = newest.clone();
        self.now.set_version(newest.version());
        replaced
    }

    /// Of a file that is open, or is not published. Its [`LocalFile::id`] if it is open, and theirs from now on.
    fn merge_local(
        &mut self,
        path: &DrivePath,
        ours: File,
        was: Option<&File>,
        new: Option<&Leaf>,
        base: &impl Fn(&File) -> Option<Base>,
    ) -> Option<u64> {
        let Content::Local(local) = &ours.content else { return None };
        let Local { file, revision, .. } = &**local;
        let time = ours.stat.mtime.nanos().unwrap_or(0);
        // One that was made here is what it is here, though nothing may be in it yet.
        let is_unchanged = file.base().is_some() && file.is_base() && file.mtime() == time;
        let is_alone = self.now.link_count(self.now.id_of(path, &Leaf::File(ours.clone()))) < 2;
        if let Some(Leaf::File(new)) = new {
            if is_unchanged && is_alone && file.is_open() {
                if base(new).is_some_and(|base| file.replace(base)) {
                    file.touch(new.stat.mtime.nanos().unwrap_or(0));
                    let content = Content::local(file, Some(new.content.clone()), new.seq);
                    self.now.set(path, Leaf::File(File { content, ..new.clone() }));
                    return Some(file.id());
                }
            } else if is_unchanged {
                self.let_go(is_alone, file);
                self.now.set(path, Leaf::File(new.clone()));
                return None;
            }
            let content = Content::local(file, Some(new.content.clone()), *revision);
            let mut merged = File { content, ..described(&ours, was, new) };
            // It is that of what others see.
            merged.stat.mtime = new.stat.mtime;
            self.now.set(path, Leaf::File(merged));
        } else if is_unchanged {
            self.let_go(is_alone, file);
            match new {
                Some(new) => self.now.set(path, new.clone()),
                None => self.now.hear(path, None),
            }
        } else {
            let content = Content::local(file, None, *revision);
            self.now.set(path, Leaf::File(File { seq: 0, content, ..ours }));
        }
        None
    }

    fn let_go(&mut self, is_alone: bool, file: &Arc<LocalFile>) {
        // Under another name it lives on.
        if is_alone {
            self.gone.push(Arc::clone(file));
        }
    }
}

/// What is said of `new`, but for what was changed here.
fn described(ours: &File, was: Option<&File>, new: &File) -> File {
    let mut merged = new.clone();
    let Some(was) = was else { return File { seq: new.seq, ..ours.clone() } };
    if ours.stat.mode != was.stat.mode {
        merged.stat.mode = ours.stat.mode;
    }
    if ours.stat.mtime != was.stat.mtime {
        merged.stat.mtime = ours.stat.mtime;
    }
    if ours.stat.owner != was.stat.owner {
        merged.stat.owner = ours.stat.owner;
    }
    if ours.stat.id != was.stat.id {
        merged.stat.id = ours.stat.id;
    }
    let is_set = ours.xattrs.as_ref().is_some_and(|xattrs| xattrs.is_unwritten());
    if is_set || ours.xattrs.is_none() {
        merged.xattrs =
            if was.xattrs == ours.xattrs { new.xattrs.clone() } else { ours.xattrs.clone() };
    }
    merged
}
