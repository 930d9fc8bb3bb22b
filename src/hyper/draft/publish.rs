//! What is said to others, and when it may be.
//!
//! What differs between the published names and those of now is said in one batch. A file that is not to be published
//! yet, since somebody writes it, stays for others what it was, if need be under a new name.

use super::{Draft, DraftError, Names};
use crate::hyper::blobs::{BlobError, BlobId, Writer};
use crate::hyper::core::storage::Durability;
use crate::hyper::drive::{
    Batch, Content, Drive, DriveIndex, Entry, Extended, File, Leaf, Local, Record, Stat, Steps,
    Time,
};
use crate::hyper::local::{Activity, Base, LocalFile, Rebased, Snapshot};
use crate::key::DiscoveryKey;
use crate::lock::{lock, read, write};
use crate::path::DrivePath;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Seek;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which files that somebody has open are published with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// None.
    Closed,
    /// Those that were not written since such were asked for last, or that only grew by appends, as a log does.
    Quiet,
    /// The same, and those that were to be left alone when this was asked last, and have not been since.
    Long,
    /// The one with this [`LocalFile::id`].
    One(u64),
    /// All of them.
    All,
}

/// What goes from one publication to the next.
#[derive(Default)]
pub(super) struct Publishing {
    /// Staging files that no record names any more as soon as another commit is durable.
    leaving: Vec<DiscoveryKey>,
    /// Files that were written all the time at the last [`Which::Long`], and have not been published since: as of the one
    /// before, while one is under way.
    waiting: BTreeSet<u64>,
    long: BTreeSet<u64>,
}

/// What is to be said of a name.
struct Saying {
    path: DrivePath,
    /// None: it is gone.
    leaf: Option<Leaf>,
    /// Whether others know it.
    known: bool,
}

/// A content on its way.
struct Sent {
    snapshot: Snapshot,
    blob: BlobId,
}

/// Contents that are published with the names. The core is not asked for before the first.
struct Contents<'a> {
    drive: &'a Drive,
    which: Which,
    publishing: &'a mut Publishing,
    writer: Option<Writer<'a>>,
    sent: BTreeMap<u64, (Arc<LocalFile>, Sent)>,
    /// What was decided of a file: all its names are published, or none.
    due: BTreeMap<u64, bool>,
    /// The file that was written over while it was read.
    torn: Option<u64>,
}

impl Draft {
    /// Publishes what is due. The version of the drive after that; none if there was nothing to say.
    ///
    /// # Errors
    /// Nothing is published then, and nothing is lost: it can be tried again.
    pub fn publish(&self, which: Which) -> Result<Option<u64>, DraftError> {
        let published = {
            let mut publishing = lock(&self.publishing);
            self.catch_up()?;
            let mut contents = Contents::new(&self.drive, which, &mut publishing);
            loop {
                match self.publish_once(&mut contents) {
                    Ok(Some(version)) => break version,
                    // Others changed the drive at this moment.
                    Ok(None) => self.catch_up()?,
                    Err(error) if !contents.leave_torn() => return Err(error),
                    Err(_) => {}
                }
            }
        };
        if self.behind.load(Ordering::SeqCst) {
            self.absorb();
        }
        Ok(published)
    }

    /// None if it is to be tried again, on the names that others made meanwhile.
    fn publish_once(&self, contents: &mut Contents<'_>) -> Result<Option<Option<u64>>, DraftError> {
        let mut before = read(&self.names).clone();
        let mut steps = before.steps();
        let mut sayings = contents.sayings(&before.published, &steps)?;
        let says = sayings.iter().any(|saying| !saying.known)
            || !steps.nodes.is_empty()
            || !steps.records.is_empty();
        let mut batch = if says { Some(self.drive.batch()?) } else { None };
        if batch.as_ref().is_some_and(|batch| batch.next() != before.published.version().max(1)) {
            return Ok(None);
        }
        let gone: Vec<u64> = before.gone.drain(..).map(|file| file.id()).collect();
        // Nobody syncs a file between its content's being published and its record's being forgotten.
        let claimed = gone.iter().chain(contents.sent.keys()).copied();
        let claim = self.claim(claimed.chain(self.void_records()).collect());
        let current = contents.sent.iter().filter(|(_, (_, sent))| sent.snapshot.is_current());
        let current: BTreeSet<u64> = current.map(|(id, _)| *id).collect();
        let forgotten: Vec<u64> = claim
            .ids()
            .filter(|id| current.contains(id) || !contents.sent.contains_key(id))
            .collect();
        let writes = self.forget(&forgotten);
        let mut version = None;
        if let Some(mut batch) = batch.take() {
            for saying in sayings.iter_mut().filter(|saying| !saying.known) {
                self.say(&mut batch, saying)?;
            }
            for (path, node) in &mut steps.nodes {
                let Some(node) = node else {
                    batch.delete_node(path)?;
                    continue;
                };
                let mut record = match node.seq {
                    0 => Record::special(node.kind),
                    seq => self.drive.local_record(seq)?,
                };
                record.describe(&node.stat, node.xattrs.as_deref());
                node.seq = batch.next();
                batch.put_node(path, &record)?;
            }
            for (path, own) in &mut steps.records {
                let Some(own) = own else {
                    batch.forget_dir(path)?;
                    continue;
                };
                let mut record = match own.seq {
                    0 => Record::default(),
                    seq => self.drive.local_record(seq)?,
                };
                record.describe(&own.stat, own.xattrs.as_deref());
                own.seq = batch.next();
                batch.put_dir(path, &record)?;
            }
            version = Some(batch.flush_with(contents.writer.as_mut(), writes)?);
        } else if !writes.is_empty() {
            self.storage.commit(writes, &[], Durability::Durable)?;
        }
        contents.writer = None;
        let mut published = before.published.clone();
        for saying in sayings.iter().filter(|saying| !saying.known) {
            published.hear(&saying.path, saying.leaf.clone());
        }
        for (path, node) in &steps.nodes {
            published.hear_node(path, node.clone());
        }
        for (path, own) in &steps.records {
            published.hear_record(path, own.clone());
        }
        if let Some(version) = version {
            published.set_version(version);
        }
        let sent = std::mem::take(&mut contents.sent);
        let useless = self.settle(published, &before, &steps, &sayings, sent);
        self.forgot(&forgotten);
        drop(claim);
        // No durable record has named those since the commit above.
        for staging in std::mem::replace(&mut contents.publishing.leaving, useless) {
            self.storage.remove_files(&staging)?;
        }
        Ok(Some(version))
    }

    fn say(&self, batch: &mut Batch<'_>, saying: &mut Saying) -> Result<(), DraftError> {
        let Some(leaf) = &mut saying.leaf else {
            batch.delete(&saying.path)?;
            return Ok(());
        };
        let block = batch.next();
        batch.put(&saying.path, &self.entry(leaf)?)?;
        leaf.stored(block);
        Ok(())
    }

    /// The entry that says what a leaf does. What others wrote into the one before stays.
    fn entry(&self, leaf: &Leaf) -> Result<Entry, DraftError> {
        let mut entry = match leaf.seq() {
            0 => Entry::default(),
            seq => self.drive.local_entry(seq)?,
        };
        (entry.linkname, entry.blob) = match leaf {
            Leaf::File(file) => (None, file.blob()),
            Leaf::Link(link) => (Some(link.target.to_string()), None),
            Leaf::Special(_) => (None, None),
        };
        entry.describe(leaf.stat(), leaf.xattrs().map(|xattrs| &**xattrs));
        Ok(entry)
    }

    /// What was said is durable. Files that nobody writes are from now on what was published; what was staged for them is
    /// of no use any more.
    fn settle(
        &self,
        published: DriveIndex,
        before: &Names,
        steps: &Steps,
        sayings: &[Saying],
        sent: BTreeMap<u64, (Arc<LocalFile>, Sent)>,
    ) -> Vec<DiscoveryKey> {
        let mut useless = Vec::new();
        let mut names = write(&self.names);
        for (file, Sent { snapshot, blob }) in sent.into_values() {
            let size = snapshot.size();
            let base = Base { reader: self.drive.blobs().reader(blob, Some(size)), id: blob, size };
            if let Rebased::Whole(staging) = file.rebase(snapshot.generation(), base) {
                useless.extend(staging);
            }
        }
        let untouched = names.now.is_same(&before.now);
        let mut all_said = sayings.len() == steps.leaves.len();
        for Saying { path, leaf, .. } in sayings {
            let (Some(said), Some(now)) = (leaf, names.now.leaf(path).cloned()) else { continue };
            let leaf = if before.now.leaf(path) == Some(&now) { said.clone() } else { now.clone() };
            let leaf = match (&now, said, leaf) {
                (Leaf::File(now), Leaf::File(said), Leaf::File(leaf)) => {
                    let leaf = match &now.content {
                        Content::Local(local) => after(local, said, leaf),
                        _ => leaf,
                    };
                    all_said &= leaf == *said;
                    Leaf::File(leaf)
                }
                (_, said, leaf) => {
                    all_said &= leaf == *said;
                    leaf
                }
            };
            if leaf != now {
                let revision = names.revision(&now);
                if leaf.local().is_none() && leaf.seq() != revision {
                    names.revisions.insert(leaf.seq(), revision);
                }
                names.now.set(path, leaf);
            }
        }
        for (path, node) in &steps.nodes {
            let now = names.now.leaf(path);
            if let Some(node) = node
                && now.is_some_and(|now| Some(now) == before.now.leaf(path))
            {
                let mut leaf = Leaf::Special(Box::new(node.clone()));
                leaf.stored(node.seq);
                names.now.set(path, leaf);
            }
        }
        for (path, own) in &steps.records {
            let of = |index: &DriveIndex| index.list(path).map(|dir| dir.attributes().cloned());
            if let Some(own) = own
                && of(&names.now).is_some_and(|now| Some(now) == of(&before.now))
            {
                let mut own = own.clone();
                own.xattrs = own.xattrs.map(|_| Extended::stored());
                names.now.set_dir_attributes(path, own);
            }
        }
        if untouched {
            names.now.said(steps);
        }
        names.now.set_version(published.version());
        // What is the same need not be compared again.
        names.published = if untouched && all_said { names.now.clone() } else { published };
        // Who has one of those open still reads it.
        let (open, closed): (Vec<_>, _) = std::mem::take(&mut names.gone)
            .into_iter()
            .partition(|file| Arc::strong_count(file) > 1);
        useless.extend(closed.iter().filter_map(|file| file.staging()));
        names.gone = open;
        useless
    }
}

impl<'a> Contents<'a> {
    fn new(drive: &'a Drive, which: Which, publishing: &'a mut Publishing) -> Self {
        let (sent, due) = (BTreeMap::new(), BTreeMap::new());
        if which == Which::Long {
            publishing.long = std::mem::take(&mut publishing.waiting);
        }
        Self { drive, which, publishing, writer: None, sent, due, torn: None }
    }

    /// A file that was written over while it was read is left for later: no half of it was taken. False if there was none
    /// that may be.
    fn leave_torn(&mut self) -> bool {
        let Some(torn) = self.torn.take() else { return false };
        if matches!(self.which, Which::One(_) | Which::All) {
            return false;
        }
        (self.writer, self.sent) = (None, BTreeMap::new());
        self.due.insert(torn, false);
        true
    }

    fn sayings(
        &mut self,
        published: &DriveIndex,
        steps: &Steps,
    ) -> Result<Vec<Saying>, DraftError> {
        let mut sayings = Vec::new();
        for (path, leaf) in &steps.leaves {
            let leaf = match leaf {
                None => None,
                Some(leaf) => match self.saying(leaf)? {
                    None => continue,
                    said => said,
                },
            };
            let before = published.leaf(path);
            let known = says_same(before, leaf.as_ref());
            let leaf = if known { before.cloned() } else { leaf };
            sayings.push(Saying { path: path.clone(), leaf, known });
        }
        Ok(sayings)
    }

    /// What can be said of a leaf; none as long as it has never been published, and is not to be now.
    fn saying(&mut self, leaf: &Leaf) -> Result<Option<Leaf>, DraftError> {
        let Leaf::File(file) = leaf else { return Ok(Some(leaf.clone())) };
        let Content::Local(local) = &file.content else { return Ok(Some(leaf.clone())) };
        if !self.is_due(&local.file) {
            let published = local.published.clone();
            return Ok(published.map(|content| Leaf::File(File { content, ..file.clone() })));
        }
        let (blob, size, mtime) = self.send(&local.file)?;
        let mut said = File { content: Content::stored(blob, size), ..file.clone() };
        said.stat.mtime = told_time(mtime, file.stat.mtime);
        Ok(Some(Leaf::File(said)))
    }

    fn is_due(&mut self, file: &LocalFile) -> bool {
        let id = file.id();
        if let Some(due) = self.due.get(&id) {
            return *due;
        }
        let due = match self.which {
            _ if !file.is_open() => true,
            Which::Closed => false,
            Which::One(one) => id == one,
            Which::All => true,
            Which::Quiet => file.look() != Activity::Written,
            Which::Long => file.look() != Activity::Written || self.publishing.long.contains(&id),
        };
        match due {
            true => drop(self.publishing.waiting.remove(&id)),
            false if self.which == Which::Long => drop(self.publishing.waiting.insert(id)),
            false => {}
        }
        self.due.insert(id, due);
        due
    }

    /// The content of a file as a blob, its size and its time.
    fn send(&mut self, file: &Arc<LocalFile>) -> Result<(BlobId, u64, i128), DraftError> {
        if let Some((_, Sent { snapshot, blob })) = self.sent.get(&file.id()) {
            return Ok((*blob, snapshot.size(), snapshot.mtime()));
        }
        let mut snapshot = file.snapshot();
        let (size, mtime) = (snapshot.size(), snapshot.mtime());
        let blob = match snapshot.base() {
            Some(base) if snapshot.changed().is_empty() && file.is_base() => base,
            None if size == 0 => BlobId::default(),
            base => {
                let writer = match &mut self.writer {
                    Some(writer) => writer,
                    None => self.writer.insert(self.drive.blobs().writer()?),
                };
                let stored = store(writer, base, &mut snapshot);
                if stored.is_err() && !snapshot.is_whole() {
                    self.torn = Some(file.id());
                }
                stored?
            }
        };
        self.sent.insert(file.id(), (Arc::clone(file), Sent { snapshot, blob }));
        Ok((blob, size, mtime))
    }
}

/// The blob of a content that was changed from `base`.
fn store(
    writer: &mut Writer<'_>,
    base: Option<BlobId>,
    snapshot: &mut Snapshot,
) -> Result<BlobId, BlobError> {
    if let Some(base) = base {
        let (changed, size) = (snapshot.changed().to_vec(), snapshot.size());
        if let Some(blob) = writer.patch(&base, &changed, size, snapshot)? {
            return Ok(blob);
        }
    }
    snapshot.rewind().map_err(|error| BlobError::Input(Arc::new(error)))?;
    writer.put(snapshot)
}

/// A file that is being changed, once `said` is what others see: that, if it is what the file is and nobody writes it.
/// `leaf` is what else is to be said of it.
fn after(local: &Local, said: &File, leaf: File) -> File {
    let content = said.content.clone();
    let time = told_time(local.file.mtime(), said.stat.mtime);
    let clean = local.file.is_base() && time == said.stat.mtime && !local.file.is_open();
    let content =
        if clean { content } else { Content::local(&local.file, Some(content), local.revision) };
    let stat = Stat { mtime: said.stat.mtime, ..leaf.stat };
    File { seq: said.seq, stat, content, ..leaf }
}

/// What is said of a time; where nothing ever was, and it was not set here, that stays so.
fn told_time(nanos: i128, before: Time) -> Time {
    if before.nanos().unwrap_or(0) == nanos { before } else { Time::of_nanos(nanos) }
}

/// Whether others know it already.
fn says_same(known: Option<&Leaf>, new: Option<&Leaf>) -> bool {
    let (Some(known), Some(new)) = (known, new) else { return known.is_none() && new.is_none() };
    let mut new = new.clone();
    let unwritten = new.xattrs().is_some_and(|xattrs| xattrs.is_unwritten());
    new.stored(known.seq());
    !unwritten && *known == new
}
