//! Brings a drive up to what a folder holds, writing as little as possible.
//!
//! A file is taken for unchanged if size, modification time (to the millisecond) and mode are what the drive
//! says, and inode and change time what they were when it was imported. What differs is read; of a content that
//! only changed in places, those are appended, and one that the drive had already keeps its blocks. Contents are
//! appended before the entries that name them, in groups, so that a crash leaves at most blocks that nothing names.
//!
//! What is missing is taken for deleted only as far as the folder is [`Trust`]ed.

mod changes;
mod mounted;

pub use changes::{is_below, paths_below, topmost};

use super::ledger::{Ledger, Seen, head, print};
use super::place::locate;
use super::rules::Rules;
use super::scan::{Local, LocalKind, open_file};
use super::stores::is_store_database;
use crate::hyper::blobs::{BlobError, BlobId, Writer};
use crate::hyper::drive::{Drive, DriveError, DriveIndex, Entry, File, Found, Leaf};
use crate::path::DrivePath;
use changes::Change;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries or bytes after which what was imported so far is published, so that a long import shows up.
const GROUP_ENTRIES: usize = 20_000;
const GROUP_BYTES: u64 = 1 << 30;

/// Why the database of a store is left out.
pub const SECRET: &str = "this is the database of a store of drives: secret keys are never shared";

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
    /// Nothing was done: the folder is another one, or changed its place meanwhile.
    pub refused: bool,
    /// Files that only their owner can read here and that are new in the drive, or in a look at the whole folder
    /// all of them; and one of them.
    pub private: u64,
    pub private_example: Option<DrivePath>,
    /// What keeps some of the folder from being followed, and where; the drive stays as it is there.
    pub warnings: Vec<(PathBuf, String)>,
    /// What was left out, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
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
    /// Asked after each look whether the folder is still the one that was looked at.
    pub still: &'a dyn Fn() -> bool,
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

impl Import<'_> {
    /// Looks at these paths and everything below them; the root for the whole folder.
    pub fn run(&self, paths: &[DrivePath]) -> Result<Report, DriveError> {
        let mut report = Report::default();
        let changes = self.changes(paths, &mut report).map_err(storage)?;
        if !(self.still)() {
            return Ok(Report { refused: true, skipped: report.skipped, ..Report::default() });
        }
        if !report.refused {
            let whole = paths.iter().any(DrivePath::is_root);
            self.apply(changes, whole, &mut report)?;
        }
        Ok(report)
    }

    fn apply(
        &self,
        changes: Vec<Change>,
        whole: bool,
        report: &mut Report,
    ) -> Result<(), DriveError> {
        let total = changes.iter().map(Change::size).sum();
        let mut done = 0;
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() && !(self.cancelled)() {
            let mut outcomes: Vec<(DrivePath, Outcome)> = Vec::new();
            let group_end = done + GROUP_BYTES;
            let mut writer = self.drive.blobs().writer()?;
            while outcomes.len() < GROUP_ENTRIES && done < group_end && !(self.cancelled)() {
                let Some(change) = changes.next() else { break };
                let before = done;
                done += change.size();
                let outcome = match change {
                    Change::Remove(path) => (path, Outcome::Remove),
                    Change::Keep(path) => (path, Outcome::Keep),
                    Change::Let(path) => (path, Outcome::Let),
                    Change::Write(local) => {
                        let mut told = |read: u64| (self.progress)(before + read, total);
                        match self.write(&local, &mut writer, &mut told) {
                            Ok(Some(outcome)) => {
                                if whole || self.index.lookup(&local.path).is_none() {
                                    report.count_private(&local);
                                }
                                (local.path, outcome)
                            }
                            Ok(None) => {
                                let full = locate(self.rules.folder(), &local.path);
                                report.skipped.push((full, SECRET.into()));
                                (local.path, Outcome::Remove)
                            }
                            Err(BlobError::Input(error)) => {
                                let full = locate(self.rules.folder(), &local.path);
                                report.skipped.push((full, error.to_string()));
                                continue;
                            }
                            Err(error) => return Err(error.into()),
                        }
                    }
                };
                outcomes.push(outcome);
                (self.progress)(done, total);
            }
            writer.flush()?;
            drop(writer);
            self.publish(outcomes, report)?;
        }
        Ok(())
    }

    /// Writes a group of entries as one change of the drive.
    fn publish(
        &self,
        outcomes: Vec<(DrivePath, Outcome)>,
        report: &mut Report,
    ) -> Result<(), DriveError> {
        let mut batch = self.drive.batch()?;
        for (path, outcome) in outcomes {
            match outcome {
                Outcome::Put(entry, seen) => {
                    batch.put(&path, &entry)?;
                    self.ledger.note(&path, seen);
                    report.written += 1;
                }
                Outcome::Same(seen) => self.ledger.note(&path, seen),
                Outcome::Remove => {
                    report.removed += u64::from(batch.delete(&path)?);
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

    /// What becomes of a local file or link; its content is in the writer or already in the drive. None for what must
    /// never be shared.
    fn write(
        &self,
        local: &Local,
        writer: &mut Writer<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Outcome>, BlobError> {
        let seen = Seen::of(&local.stamp, now_ns());
        let mut entry = match &local.kind {
            LocalKind::Symlink { target } => Entry::symlink(target.clone()),
            LocalKind::File { size } => match self.content(local, *size, writer, progress)? {
                Some(id) => Entry::file(id),
                None => return Ok(None),
            },
        };
        if entry.linkname.is_none() {
            entry.set_mode(local.mode as u16);
        }
        entry.set_mtime_ms(local.mtime_ms);
        let same = match self.index.lookup(&local.path) {
            Some(Found::File(file)) => is_entry(&Leaf::File(file.clone()), &entry),
            Some(Found::Link(link)) => is_entry(&Leaf::Link(link.clone()), &entry),
            _ => false,
        };
        Ok(Some(if same { Outcome::Same(seen) } else { Outcome::Put(Box::new(entry), seen) }))
    }

    /// The blob of a local file: that of its name as far as it is the same, one that the drive had, or a new one.
    fn content(
        &self,
        local: &Local,
        size: u64,
        writer: &mut Writer<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<BlobId>, BlobError> {
        let file = open_file(self.rules.folder(), &local.path).map_err(input)?;
        let begins = head(&file, size).map_err(input)?;
        if is_store_database(&begins, &file) {
            return Ok(None);
        }
        let old = match self.index.lookup(&local.path) {
            Some(Found::File(file)) => file.blob(),
            _ => None,
        };
        let mut counted = Counted { file, read: 0, progress };
        if let Some(old) = old
            && let Some(id) = self.update(&old, writer, &mut counted)?
        {
            if id != old
                && let Ok(print) = print(&counted.file, begins, size)
            {
                self.ledger.note_content(&print, &id);
            }
            return Ok(Some(id));
        }
        // A file that shrinks at this very moment has no print.
        let print = if size > 0 { print(&counted.file, begins, size).ok() } else { None };
        if let Some(print) = &print
            && let Ok(Some(id)) = self.ledger.content(print)
            && self.is_content(&id, size, &counted.file)
        {
            return Ok(Some(id));
        }
        if old.is_some() {
            counted.seek(SeekFrom::Start(0)).map_err(input)?;
        }
        let id = writer.put(&mut counted)?;
        if let Some(print) = &print {
            self.ledger.note_content(print, &id);
        }
        Ok(Some(id))
    }

    /// What the drive says of the old content may be damaged: then it is written anew.
    fn update(
        &self,
        old: &BlobId,
        writer: &mut Writer<'_>,
        content: &mut Counted<'_>,
    ) -> Result<Option<BlobId>, BlobError> {
        match writer.update(old, content) {
            Err(BlobError::Damaged(_) | BlobError::MapVersion(_)) => Ok(None),
            updated => updated,
        }
    }

    /// Whether a blob, as far as it is here, has just the bytes of a local file.
    fn is_content(&self, id: &BlobId, size: u64, local: &fs::File) -> bool {
        const STEP: usize = 1 << 20;
        let reader = self.drive.blobs().reader(*id, Some(size));
        let mut offset = 0;
        let mut buf = vec![0; STEP];
        loop {
            let Ok(n) = read_full_at(local, &mut buf, offset) else { return false };
            let Ok(Some(pieces)) = reader.read_local(offset, n.max(1)) else { return false };
            if n == 0 {
                return offset == reader.size() && pieces.is_empty();
            }
            let mut left = &buf[..n];
            for piece in pieces {
                let Some((head, tail)) = left.split_at_checked(piece.len()) else { return false };
                if head != piece {
                    return false;
                }
                left = tail;
            }
            if !left.is_empty() {
                return false;
            }
            offset += n as u64;
        }
    }
}

fn read_full_at(file: &fs::File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match file.read_at(&mut buf[n..], offset + n as u64)? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}

/// Reads a file and tells how far it is.
struct Counted<'a> {
    file: fs::File,
    read: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.read += n as u64;
        (self.progress)(self.read);
        Ok(n)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = self.file.seek(to)?;
        if let SeekFrom::Start(_) = to {
            self.read = at;
        }
        Ok(at)
    }
}

fn input(error: io::Error) -> BlobError {
    BlobError::Input(Arc::new(error))
}

fn storage(error: impl std::fmt::Display) -> DriveError {
    BlobError::from(crate::hyper::source::SourceError::Storage(error.to_string())).into()
}

/// Whether a name of the drive says all that `entry` does.
fn is_entry(leaf: &Leaf, entry: &Entry) -> bool {
    match leaf {
        Leaf::File(file) => {
            entry.linkname.is_none() && file.blob() == entry.blob && is_attributes(file, entry)
        }
        Leaf::Link(link) => {
            entry.linkname.as_deref() == Some(&*link.target) && link.mtime_ms == entry.mtime_ms()
        }
    }
}

fn is_attributes(file: &File, entry: &Entry) -> bool {
    file.mode == entry.mode() && file.mtime_ms == entry.mtime_ms()
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64
}

#[cfg(test)]
mod tests;
