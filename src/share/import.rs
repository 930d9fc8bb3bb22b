//! Brings a drive up to what a folder holds, writing as little as possible.
//!
//! A file is taken for unchanged if size, modification time (to the millisecond) and mode are what the drive
//! says, and inode and change time what they were when it was imported. What differs is read; of a content that
//! only changed in places, those are appended, and one that the drive had already keeps its blocks. Contents are
//! appended before the entries that name them, in groups, so that a crash leaves at most blocks that nothing names.
//!
//! What is missing is taken for deleted only as far as the folder is [`Trust`]ed.
//!
//! An import may take long. The folder is held open all the time, and each file of it must be the one that was found
//! ([`super::content`]); before anything is published it is asked again whether the folder is still the one that is
//! shared, what is mounted in it, and what is to be left out. What changed meanwhile is looked at again.

mod changes;
mod mounted;

pub use changes::{is_below, paths_below, topmost};

use super::beneath::Beneath;
use super::content::{Contents, SECRET, Stored, UNSTEADY, Wanted, now_ns};
use super::errors::is_of_the_moment;
use super::ledger::{Ledger, Seen};
use super::mounts::Mounts;
use super::permit::{Allowed, Permit};
use super::place::{drive_path, locate};
use super::rules::Rules;
use super::scan::{Local, LocalKind, Look};
use crate::hyper::blobs::{BlobError, BlobId};
use crate::hyper::drive::{Drive, DriveError, DriveIndex, Entry, File, Found, Leaf};
use crate::path::DrivePath;
use changes::Change;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Entries or bytes after which what was imported so far is published, so that a long import shows up.
const GROUP_ENTRIES: usize = 20_000;
const GROUP_BYTES: u64 = 1 << 30;

/// Of a look at everything, what reading a file of this size or more costs is noted.
const DEAR: u64 = 1 << 20;

/// How far the folder is believed when names are missing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is the folder that was shared, and was watched: what is missing was deleted.
    Full,
    /// The user said that what is there is meant, whatever it is.
    Meant,
    /// It is another one: what is missing stays, unless it was told by name.
    Additions,
    /// The folder that was shared, not watched for a while: in full if anything is in it, else as additions.
    IfAny,
    /// Another folder in its place: in full if it holds at least half of the drive's names, else as additions.
    IfHalf,
    /// A folder of another filesystem: in full if it holds at least half of the drive's names, else not at all.
    OnlyHalf,
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Report {
    /// Files and links below the looked-at paths, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Entries written and removed.
    pub written: u64,
    pub removed: u64,
    /// Names that the folder does not have, and that stay in the drive because it is not trusted.
    pub kept: u64,
    /// No more was done: the folder is another one, or, if all of it is to be looked at again, changed its place
    /// meanwhile.
    pub refused: bool,
    /// Files that only their owner can read here and that are new in the drive, or in a look at the whole folder
    /// all of them; and one of them.
    pub private: u64,
    pub private_example: Option<DrivePath>,
    /// What keeps some of the folder from being followed, and where; the drive stays as it is there.
    pub warnings: Vec<(PathBuf, String)>,
    /// What was left out, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    /// What was not taken because it changed meanwhile: it is to be looked at again soon.
    pub again: BTreeSet<DrivePath>,
    /// Files that were to be read, and their bytes; of a look at everything the [`DEAR`] ones.
    pub read: Vec<(DrivePath, u64)>,
    /// Files that were left as they are, because they rest.
    pub rested: Vec<DrivePath>,
    /// What the store has no room for, with the reason: it is to be tried again.
    pub waiting: Vec<(DrivePath, String)>,
    /// Why nothing was looked at.
    pub blind: Option<String>,
}

impl Report {
    /// Counts a file that is in the drive, if others cannot read it here.
    fn count_private(&mut self, local: &Local) {
        if local.private {
            self.private += 1;
            self.private_example.get_or_insert_with(|| local.path.clone());
        }
    }
}

/// Where to look, and how much of it to believe.
pub struct Import<'a> {
    pub drive: &'a Drive,
    /// The drive's names now.
    pub index: &'a DriveIndex,
    pub rules: &'a Rules,
    pub ledger: &'a Ledger,
    pub trust: Trust,
    /// Files of the drive whose content was taken just now, at some cost: it is not taken again.
    pub resting: &'a BTreeSet<DrivePath>,
    /// The folder of the rules.
    pub held: &'a Beneath,
    /// Asked whether the held folder is still the one that is shared: before a look, after it, and before anything is
    /// published.
    pub still: &'a dyn Fn() -> bool,
    /// What there is no room for is left for later, and the rest goes on; else it is an error.
    pub in_parts: bool,
    /// Told how many bytes of how many have been read.
    pub progress: &'a dyn Fn(u64, u64),
    /// Asked now and then whether to stop; what was imported so far stays.
    pub cancelled: &'a dyn Fn() -> bool,
}

/// What a group of changes does to one name.
enum Outcome {
    Put(Box<Entry>, Seen),
    /// The drive has it as it is.
    Same(Seen),
    Remove,
    Keep,
    Let,
}

/// What became of the content of a file.
enum Taken {
    Stored(Option<Stored>),
    /// The store did not take it, for this reason.
    NoRoom(String),
}

impl Import<'_> {
    /// Looks at these paths and everything below them; the root for the whole folder.
    pub fn run(&self, paths: &[DrivePath]) -> Result<Report, DriveError> {
        let mut report = Report::default();
        let mounts = match Mounts::below(self.rules.folder()) {
            Ok(mounts) => mounts,
            Err(error) => {
                let blind = Some(error.to_string());
                return Ok(Report { refused: true, blind, ..report });
            }
        };
        let refused = |report: Report| {
            let again = BTreeSet::from([DrivePath::root()]);
            Ok(Report { refused: true, again, skipped: report.skipped, ..Report::default() })
        };
        if !(self.still)() {
            return refused(report);
        }
        let changes = self.changes(paths, &mut report).map_err(storage)?;
        if !(self.still)() {
            return refused(report);
        }
        report.refused |= report.blind.is_some();
        if !report.refused {
            let whole = paths.iter().any(DrivePath::is_root);
            self.apply(changes, &mounts, whole, &mut report)?;
        }
        Ok(report)
    }

    fn apply(
        &self,
        mut changes: Vec<Change>,
        mounts: &Mounts,
        whole: bool,
        report: &mut Report,
    ) -> Result<(), DriveError> {
        let total = changes.iter().map(Change::size).sum();
        let permit = Permit::new(self.rules);
        let mut done = 0;
        while !changes.is_empty() && !(self.cancelled)() {
            let before = done;
            let fits = changes.iter().take(GROUP_ENTRIES).take_while(|change| {
                let fits = done < before + GROUP_BYTES;
                done += if fits { change.size() } else { 0 };
                fits
            });
            let rest = changes.split_off(fits.count());
            let least = if whole { DEAR } else { 1 };
            let files = changes.iter().filter(|change| change.size() >= least);
            report.read.extend(files.map(|change| (change.path().clone(), change.size())));
            let group = std::mem::replace(&mut changes, rest);
            let allowed = |path: &DrivePath| self.is_allowed(&permit, path, false).is_ok();
            let progress = |read| (self.progress)(before + read, total);
            let mut stored = self.contents(&group, &allowed, &progress)?;
            // All that is read by now is published, or not, by what is so from here on.
            if !(self.still)() {
                report.refused = true;
                report.again.insert(DrivePath::root());
                return Ok(());
            }
            let moved = self.moved(mounts);
            permit.renew();
            let mut outcomes: Vec<(DrivePath, Outcome)> = Vec::with_capacity(group.len());
            for change in group {
                let (path, is_dir) = (change.path(), matches!(change, Change::Keep(_)));
                let stays = match &moved {
                    None => true,
                    Some(moved) => moved.iter().any(|at| is_below(path, at)),
                };
                let brings = matches!(change, Change::Write(_) | Change::Keep(_));
                let refused = match stays {
                    true => Err(true),
                    false if brings => self.is_allowed(&permit, path, is_dir),
                    false => Ok(()),
                };
                if let Err(again) = refused {
                    if again {
                        report.again.insert(path.clone());
                    }
                    if let Change::Write(local) = &change {
                        drop(matches!(local.kind, LocalKind::File { .. }).then(|| stored.next()));
                    }
                    continue;
                }
                let outcome = match change {
                    Change::Remove(path) => (path, Outcome::Remove),
                    Change::Keep(path) => (path, Outcome::Keep),
                    Change::Let(path) => (path, Outcome::Let),
                    Change::Write(local) => {
                        let Some(outcome) = self.written(&local, &mut stored, report) else {
                            continue;
                        };
                        let new = || self.index.lookup(&local.path).is_none();
                        if !matches!(outcome, Outcome::Remove) && (whole || new()) {
                            report.count_private(&local);
                        }
                        (local.path, outcome)
                    }
                };
                outcomes.push(outcome);
            }
            (self.progress)(done, total);
            self.publish(outcomes, report)?;
        }
        Ok(())
    }

    /// Where something was mounted or unmounted since; none if nobody knows.
    fn moved(&self, before: &Mounts) -> Option<Vec<DrivePath>> {
        let folder = self.rules.folder();
        let now = Mounts::below(folder).ok()?;
        Some(before.changed(&now).into_iter().filter_map(|at| drive_path(folder, at)).collect())
    }

    /// Whether the rules, as they are now, share a name. If not, whether it has to be looked at again for that.
    fn is_allowed(&self, permit: &Permit<'_>, path: &DrivePath, is_dir: bool) -> Result<(), bool> {
        match permit.ask(path, is_dir) {
            Allowed::Yes => Ok(()),
            Allowed::Known if self.index.lookup(path).is_some() || self.is_kept(path) => Ok(()),
            Allowed::No => Err(false),
            // It may be for a moment.
            Allowed::Known | Allowed::Unknown => Err(true),
        }
    }

    /// The contents of the files of a group, in the drive by now.
    fn contents(
        &self,
        group: &[Change],
        allowed: &dyn Fn(&DrivePath) -> bool,
        progress: &dyn Fn(u64),
    ) -> Result<std::vec::IntoIter<Taken>, BlobError> {
        let files = group.iter().filter_map(|change| match change {
            Change::Write(local) if matches!(local.kind, LocalKind::File { .. }) => Some(local),
            _ => None,
        });
        let mut wanted = Vec::with_capacity(group.len());
        wanted.extend(files.map(|local| Wanted {
            local,
            name: &local.path,
            old: self.old_content(local),
        }));
        if wanted.is_empty() {
            return Ok(Vec::new().into_iter());
        }
        let contents = Contents {
            blobs: self.drive.blobs(),
            ledger: self.ledger,
            rules: self.rules,
            held: self.held,
            allowed,
            progress,
            cancelled: self.cancelled,
            all_or_nothing: false,
        };
        let store = |wanted: &[Wanted<'_>]| contents.store(self.drive.blobs().writer()?, wanted);
        match store(&wanted) {
            Err(BlobError::Source(_)) if self.in_parts => {}
            stored => {
                let stored: Vec<_> = stored?.into_iter().map(Taken::Stored).collect();
                return Ok(stored.into_iter());
            }
        }
        // One by one, so that only what does not fit waits: the small ones first.
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted[*at].local.size());
        let mut stored: Vec<Taken> = wanted.iter().map(|_| Taken::Stored(None)).collect();
        let mut full: Option<String> = None;
        for at in order {
            stored[at] = match &full {
                // A file that is in the drive already may need little.
                Some(why) if wanted[at].old.is_none() => Taken::NoRoom(why.clone()),
                _ => match store(&wanted[at..=at]) {
                    Ok(mut one) => Taken::Stored(one.pop().flatten()),
                    Err(BlobError::Source(error)) => {
                        Taken::NoRoom(full.insert(error.to_string()).clone())
                    }
                    Err(error) => return Err(error),
                },
            };
        }
        Ok(stored.into_iter())
    }

    fn old_content(&self, local: &Local) -> Option<BlobId> {
        match self.index.lookup(&local.path) {
            Some(Found::File(file)) => file.blob(),
            _ => None,
        }
    }

    /// What becomes of a local file or link; nothing of what is left out. Files have their contents from `stored`.
    fn written(
        &self,
        local: &Local,
        stored: &mut impl Iterator<Item = Taken>,
        report: &mut Report,
    ) -> Option<Outcome> {
        let skip = |report: &mut Report, why: String| {
            report.skipped.push((locate(self.rules.folder(), &local.path), why));
        };
        // What the drive has of it stays.
        let keep = |report: &mut Report, why: String| {
            self.tell_unfollowed(report, locate(self.rules.folder(), &local.path), why);
        };
        let (entry, seen) = match &local.kind {
            LocalKind::Symlink { target } => {
                let mut entry = Entry::symlink(target.clone());
                entry.set_mtime_ms(local.mtime_ms);
                (entry, Seen::of(&local.stamp, now_ns()))
            }
            LocalKind::File { .. } => match self.taken(local, stored, report)? {
                Stored::Blob(id, look, seen) => (file_entry(id, &look), seen),
                Stored::Secret => {
                    skip(report, SECRET.into());
                    return Some(Outcome::Remove);
                }
                Stored::Unsteady => {
                    keep(report, UNSTEADY.into());
                    return None;
                }
                Stored::Fresh => {
                    // No event tells when it has rested.
                    report.again.insert(local.path.clone());
                    skip(report, UNSTEADY.into());
                    return None;
                }
                Stored::Unread(error) => {
                    if is_of_the_moment(&error) {
                        report.again.insert(local.path.clone());
                    }
                    keep(report, error.to_string());
                    return None;
                }
                Stored::Moved => {
                    report.again.insert(local.path.clone());
                    return None;
                }
                // It was not allowed when it was to be read, and is now.
                Stored::Forbidden => {
                    report.again.insert(local.path.clone());
                    return None;
                }
            },
        };
        Some(match is_entry_of(self.index, &local.path, &entry) {
            true => Outcome::Same(seen),
            false => Outcome::Put(Box::new(entry), seen),
        })
    }

    /// What became of the content of the next file; none if it was not come to, or has to wait.
    fn taken(
        &self,
        local: &Local,
        stored: &mut impl Iterator<Item = Taken>,
        report: &mut Report,
    ) -> Option<Stored> {
        match stored.next()? {
            Taken::Stored(stored) => stored,
            Taken::NoRoom(why) => {
                report.waiting.push((local.path.clone(), why));
                None
            }
        }
    }

    /// Writes a group of entries as one change of the drive.
    fn publish(
        &self,
        outcomes: Vec<(DrivePath, Outcome)>,
        report: &mut Report,
    ) -> Result<(), DriveError> {
        let mut batch = self.drive.batch()?;
        let guests = report.kept > 0 || self.trust == Trust::Additions;
        for (path, outcome) in outcomes {
            match outcome {
                Outcome::Put(entry, seen) => {
                    batch.put(&path, &entry)?;
                    self.ledger.note(&path, seen);
                    if guests {
                        self.ledger.note_guest(&path);
                    }
                    report.written += 1;
                }
                Outcome::Same(seen) => self.ledger.note(&path, seen),
                Outcome::Remove => {
                    report.removed += u64::from(batch.remove(&path)?);
                    self.ledger.forget(&path);
                }
                Outcome::Keep => report.written += u64::from(batch.keep_dir(&path)?),
                Outcome::Let => report.removed += u64::from(batch.forget_dir(&path)?),
            }
        }
        if !batch.is_empty() {
            batch.flush()?;
        }
        self.ledger.write().map_err(storage)
    }
}

fn storage(error: impl std::fmt::Display) -> DriveError {
    BlobError::from(crate::hyper::source::SourceError::Storage(error.to_string())).into()
}

/// The entry of a file as it was read.
pub fn file_entry(id: BlobId, look: &Look) -> Entry {
    let mut entry = Entry::file(id);
    entry.set_mode(look.mode as u16);
    entry.set_mtime_ms(look.mtime_ms);
    entry
}

/// Whether the drive has this entry already.
pub fn is_entry_of(index: &DriveIndex, path: &DrivePath, entry: &Entry) -> bool {
    match index.lookup(path) {
        Some(Found::File(file)) => is_entry(&Leaf::File(file.clone()), entry),
        Some(Found::Link(link)) => is_entry(&Leaf::Link(link.clone()), entry),
        _ => false,
    }
}

/// Whether a name of the drive says all that `entry` does.
fn is_entry(leaf: &Leaf, entry: &Entry) -> bool {
    match leaf {
        Leaf::File(file) => {
            entry.linkname.is_none() && file.blob() == entry.blob && is_attributes(file, entry)
        }
        Leaf::Link(link) => {
            entry.linkname.as_deref() == Some(&*link.target)
                && link.stat.mtime.ms() == entry.mtime_ms()
        }
        Leaf::Special(_) => false,
    }
}

fn is_attributes(file: &File, entry: &Entry) -> bool {
    file.permissions() == entry.mode() && file.mtime_ms() == entry.mtime_ms()
}

#[cfg(test)]
mod tests;
