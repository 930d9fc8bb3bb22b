//! What is said to others, and when it may be.
//!
//! What differs between the published names and those of now is said in one batch. A file that is not to be published
//! yet, since somebody writes it, stays for others what it was, if need be under a new name.

use super::spool::Spool;
use super::{Draft, DraftError, Names};
use crate::hyper::blobs::{BlobError, BlobId, Writer};
use crate::hyper::core::storage::Durability;
use crate::hyper::drive::{
    Batch, Content, Drive, DriveIndex, Entry, Extended, File, Leaf, Local, Record, Stat, Steps,
    Time,
};
use crate::hyper::local::{Activity, Base, LocalError, LocalFile, Rebased, Snapshot};
use crate::hyper::source::SourceError;
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
    /// None, and no content of others either: names alone.
    Names,
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
    /// Staging files that are of no use, and whose they were. Those stay that a record still speaks of.
    leaving: Vec<(u64, DiscoveryKey)>,
    /// Files that were written all the time at the last [`Which::Long`], and have not been published since: as of the one
    /// before, while one is under way.
    waiting: BTreeSet<u64>,
    long: BTreeSet<u64>,
}

impl Publishing {
    /// Whether a file is published with the others.
    fn is_due(&mut self, file: &LocalFile, which: Which) -> bool {
        let id = file.id();
        let due = match which {
            Which::Names => return false,
            _ if !file.is_open() => true,
            Which::Closed => return false,
            Which::One(one) => id == one,
            Which::All => true,
            Which::Quiet => file.look() != Activity::Written,
            Which::Long => file.look() != Activity::Written || self.long.contains(&id),
        };
        match due {
            true => drop(self.waiting.remove(&id)),
            false if which == Which::Long => drop(self.waiting.insert(id)),
            false => {}
        }
        due
    }
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
    /// Whether a file is published with the others, by [`LocalFile::id`]: under all of its names or under none.
    due: &'a mut BTreeMap<u64, bool>,
    /// Names that are for others as if they were not there.
    unsaid: Vec<DrivePath>,
    /// Files that cannot be read as a whole, by [`LocalFile::id`]: for others they stay what they were.
    held_back: BTreeSet<u64>,
    /// Half of a file was taken that was written over meanwhile.
    is_torn: bool,
    /// Why that is so of one of them, unless somebody only goes on writing it.
    trouble: Option<DraftError>,
}

impl Draft {
    /// Publishes what is due. The version of the drive after that; none if there was nothing to say.
    ///
    /// # Errors
    /// Nothing is lost, and it can be tried again. Where it is a file that cannot be read, all others are published.
    pub fn publish(&self, which: Which) -> Result<Option<u64>, DraftError> {
        let published = {
            let publishing = &mut *lock(&self.publishing);
            if which == Which::Long {
                publishing.long = std::mem::take(&mut publishing.waiting);
            }
            let mut due = BTreeMap::new();
            loop {
                self.catch_up()?;
                match self.publish_in_turn(publishing, which, &mut due) {
                    Ok(Some(version)) => break Ok(version),
                    // Others changed the drive at this moment.
                    Ok(None) => {}
                    Err(error) => break Err(error),
                }
            }
        };
        if self.behind.load(Ordering::SeqCst) {
            self.absorb();
        }
        published
    }

    /// None if it is to be tried again, on the names that others made meanwhile. `due` is what was decided of files.
    fn publish_in_turn(
        &self,
        publishing: &mut Publishing,
        which: Which,
        due: &mut BTreeMap<u64, bool>,
    ) -> Result<Option<Option<u64>>, DraftError> {
        let before = {
            // Whoever syncs a file from now on minds what others are going to see.
            let mut spool = lock(&self.spool);
            let names = read(&self.names).clone();
            spool.begin(names.now.clone());
            names
        };
        let published = self.publish_names(publishing, before, which, due);
        lock(&self.spool).end();
        published
    }

    fn publish_names(
        &self,
        publishing: &mut Publishing,
        mut before: Names,
        which: Which,
        due: &mut BTreeMap<u64, bool>,
    ) -> Result<Option<Option<u64>>, DraftError> {
        let mut steps = before.steps();
        let mut contents = Contents::new(&self.drive, which, publishing, due);
        let mut sayings = contents.sayings(&before.published, &steps)?;
        if contents.is_torn {
            return Ok(None);
        }
        let Contents { publishing, mut writer, sent, unsaid, trouble, .. } = contents;
        before.now.keep_folders(&unsaid, &before.published, &mut steps);
        let says = sayings.iter().any(|saying| !saying.known)
            || !steps.nodes.is_empty()
            || !steps.records.is_empty();
        // Whoever else writes the drive is waited for before anybody waits for us.
        let mut batch = if says { Some(self.drive.batch()?) } else { None };
        if batch.as_ref().is_some_and(|batch| batch.next() != before.published.version().max(1)) {
            return Ok(None);
        }
        // Nobody syncs a file between its content's being published and its record's being forgotten.
        let mut spool = lock(&self.spool);
        let gone: Vec<u64> = before.gone.drain(..).map(|file| file.id()).collect();
        let all = sent.values().filter(|(file, sent)| {
            // Of what was synced since the record alone knows.
            spool.is_in(file.id(), sent.snapshot.generation())
        });
        let known = gone.into_iter().chain(all.map(|(file, _)| file.id())).chain(spool.void());
        let mut changes = spool.changes(self, known, &steps)?;
        let records = std::mem::take(&mut changes.writes);
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
            version = Some(batch.flush_with(writer.as_mut(), records)?);
        } else if !records.is_empty() {
            self.storage.commit(records, &[], Durability::Durable)?;
        }
        drop(writer);
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
        spool.changed(changes);
        publishing.leaving.extend(self.settle(published, &before, &steps, &sayings, sent, &spool));
        publishing.leaving.retain(|(file, staging)| {
            if spool.needs(*file, staging) {
                return true;
            }
            let removed = self.storage.remove_files(staging);
            if let Err(error) = &removed {
                tracing::debug!(%error, "a staging file stays for now");
            }
            removed.is_err()
        });
        drop(spool);
        trouble.map_or(Ok(Some(version)), Err)
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
        spool: &Spool,
    ) -> Vec<(u64, DiscoveryKey)> {
        let mut useless = Vec::new();
        let mut names = write(&self.names);
        for (file, Sent { snapshot, blob }) in sent.into_values() {
            let size = snapshot.size();
            let base = Base { reader: self.drive.blobs().reader(blob, Some(size)), id: blob, size };
            useless.extend(file.take_left().into_iter().map(|staging| (file.id(), staging)));
            if let Rebased::Whole(Some(staging)) = file.rebase(snapshot.generation(), base) {
                useless.push((file.id(), staging));
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
        // Who has one of those open still reads it, and what lost its name just now may have a record.
        let (open, closed): (Vec<_>, _) = std::mem::take(&mut names.gone)
            .into_iter()
            .partition(|file| Arc::strong_count(file) > 1 || spool.has(file.id()));
        for file in closed {
            let staged = file.staging().into_iter().chain(file.take_left());
            useless.extend(staged.map(|staging| (file.id(), staging)));
        }
        names.gone = open;
        useless
    }
}

impl<'a> Contents<'a> {
    fn new(
        drive: &'a Drive,
        which: Which,
        publishing: &'a mut Publishing,
        due: &'a mut BTreeMap<u64, bool>,
    ) -> Self {
        let (sent, held_back, unsaid) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        let (writer, trouble) = (None, None);
        Self {
            drive,
            which,
            publishing,
            writer,
            sent,
            due,
            unsaid,
            held_back,
            is_torn: false,
            trouble,
        }
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
                    None => {
                        self.unsaid.push(path.clone());
                        continue;
                    }
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
        let is_due = || self.publishing.is_due(&local.file, self.which);
        let due = *self.due.entry(local.file.id()).or_insert_with(is_due);
        let sent = if due { self.try_send(&local.file)? } else { None };
        let Some((blob, size, mtime)) = sent else {
            let published = local.published.clone();
            return Ok(published.map(|content| Leaf::File(File { content, ..file.clone() })));
        };
        let mut said = File { content: Content::stored(blob, size), ..file.clone() };
        said.stat.mtime = told_time(mtime, file.stat.mtime);
        Ok(Some(Leaf::File(said)))
    }

    /// [`Self::send`]; none if it is the file that cannot be read: others need not wait for it.
    fn try_send(
        &mut self,
        file: &Arc<LocalFile>,
    ) -> Result<Option<(BlobId, u64, i128)>, DraftError> {
        if self.held_back.contains(&file.id()) {
            return Ok(None);
        }
        let error = match self.send(file) {
            Ok(sent) => return Ok(Some(sent)),
            Err(error) => file_error(error)?,
        };
        let is_changing = matches!(error, DraftError::Local(LocalError::Changed));
        if is_changing && !matches!(self.which, Which::One(_) | Which::All) {
            // Who writes it is not done with it: the others go without it, and without the half of it that was read.
            self.due.insert(file.id(), false);
            self.is_torn = true;
            return Ok(None);
        }
        self.held_back.insert(file.id());
        if !is_changing || self.which == Which::One(file.id()) {
            self.trouble.get_or_insert(error);
        }
        Ok(None)
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
                let patched = match base {
                    Some(base) => {
                        let changed = snapshot.changed().to_vec();
                        writer.patch(&base, &changed, size, &mut snapshot)?
                    }
                    None => None,
                };
                match patched {
                    Some(blob) => blob,
                    None => match snapshot.block()? {
                        Some(block) => writer.put_blocks([block])?,
                        None => {
                            snapshot.rewind().map_err(|error| BlobError::Input(Arc::new(error)))?;
                            writer.put(&mut snapshot)?
                        }
                    },
                }
            }
        };
        self.sent.insert(file.id(), (Arc::clone(file), Sent { snapshot, blob }));
        Ok((blob, size, mtime))
    }
}

/// A file that is being changed, once `said` is what others see: that, if it is what the file is and nobody writes it.
/// `leaf` is what else is to be said of it.
fn after(local: &Local, said: &File, leaf: File) -> File {
    let content = said.content.clone();
    let time = told_time(local.file.mtime(), said.stat.mtime);
    // Another file may have come to this name meanwhile, published under the one that it had.
    let is_said = local.file.is_base() && local.file.base() == said.blob();
    let clean = is_said && time == said.stat.mtime && !local.file.is_open();
    let content =
        if clean { content } else { Content::local(&local.file, Some(content), local.revision) };
    let stat = Stat { mtime: said.stat.mtime, ..leaf.stat };
    File { seq: said.seq, stat, content, ..leaf }
}

/// Why a file could not be read; fails with what has to do with all of them.
fn file_error(error: DraftError) -> Result<DraftError, DraftError> {
    let DraftError::Blob(BlobError::Input(input)) = &error else {
        return match error {
            DraftError::Local(_) => Ok(error),
            DraftError::Blob(BlobError::Damaged(_) | BlobError::MapVersion(_)) => Ok(error),
            DraftError::Blob(BlobError::Source(
                SourceError::Lost(_) | SourceError::TimedOut(_),
            )) => Ok(error),
            error => Err(error),
        };
    };
    let local = input.get_ref().and_then(|error| error.downcast_ref());
    match local {
        Some(LocalError::Changed) => Ok(LocalError::Changed.into()),
        _ => Ok(error),
    }
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
