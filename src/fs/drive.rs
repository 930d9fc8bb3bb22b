//! [`Volume`] for a Hyperdrive that keeps itself current; the only file here that knows one.

use super::volume::{
    BoxFuture, Changes, Entry, FileContent, Kind, MaybeLater, Result, Volume, VolumeError,
    VolumeInfo,
};
use crate::hyper::blobs::BlobError;
use crate::hyper::drive::{
    Content, DriveError, DriveIndex, FileReader, Found, Leaf, LiveDrive, LiveError,
};
use crate::hyper::session::with_patience;
use crate::hyper::source::SourceError;
use crate::path::DrivePath;
use bytes::Bytes;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A drive that stays open for as long as this is held.
pub type Held = Arc<dyn Deref<Target = LiveDrive> + Send + Sync>;

/// A drive as the filesystem sees it.
pub struct DriveVolume {
    drive: Held,
    /// Whether it is mounted at a version.
    fixed: bool,
    /// The longest a read waits, and a first look at the drive for its index while a peer is connected.
    patience: Duration,
    /// Turns true when this mount ends; other users of the drive go on.
    closed: watch::Sender<bool>,
}

impl DriveVolume {
    pub fn new(drive: Held, fixed: bool, patience: Duration) -> Self {
        Self { drive, fixed, patience, closed: watch::Sender::new(false) }
    }

    /// Answers from the index. While there is none, a connected peer is waited for; without one the drive
    /// is empty for now and fills when it is found.
    fn with_index<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&DriveIndex) -> Result<T> + Send + 'static,
    ) -> MaybeLater<T> {
        if let Some(index) = self.drive.index() {
            return MaybeLater::Now(answer(&index));
        }
        if self.drive.db().reach().borrow().peers == 0 {
            return MaybeLater::Now(answer(&DriveIndex::default()));
        }
        let (drive, patience) = (self.drive.clone(), self.patience);
        let wait = async move { drive.ready(patience).await.map_err(volume_error) };
        let wait = until_closed(self.closed.subscribe(), wait);
        MaybeLater::Later(Box::pin(async move { answer(&*wait.await?) }))
    }
}

impl Volume for DriveVolume {
    fn info(&self) -> VolumeInfo {
        let index = self.drive.index().unwrap_or_default();
        VolumeInfo {
            key: self.drive.key().to_string(),
            version: index.version(),
            bytes: index.bytes(),
            files: index.files(),
        }
    }

    fn frozen(&self) -> bool {
        self.fixed && self.drive.is_whole()
    }

    fn lookup(&self, path: &DrivePath) -> MaybeLater<Option<Entry>> {
        let path = path.clone();
        self.with_index(move |index| Ok(index.lookup(&path).and_then(entry)))
    }

    fn list(&self, dir: &DrivePath) -> MaybeLater<Arc<Vec<(String, Entry)>>> {
        let dir = dir.clone();
        self.with_index(move |index| {
            let names = match index.lookup(&dir) {
                Some(Found::Directory(names)) => names,
                Some(_) => return Err(VolumeError::NotADirectory),
                None => return Err(VolumeError::NotFound),
            };
            let list = names
                .iter()
                .filter_map(|(name, node)| Some((name.to_string(), entry(node.shown())?)));
            Ok(Arc::new(list.collect()))
        })
    }

    fn open(&self, path: &DrivePath) -> MaybeLater<Arc<dyn FileContent>> {
        let (path, drive, closed) = (path.clone(), self.drive.clone(), self.closed.subscribe());
        let patience = self.patience;
        self.with_index(move |index| {
            let found = index.lookup(&path).ok_or(VolumeError::NotFound)?;
            let revision = entry(found).ok_or(VolumeError::NotFound)?.revision;
            let reader = drive.content_in(index, &path).map_err(volume_error)?;
            Ok(Arc::new(DriveFile { reader, revision, patience, closed }) as Arc<dyn FileContent>)
        })
    }

    fn cached_bytes(&self, path: &DrivePath) -> u64 {
        let (Some(index), Some(blobs)) = (self.drive.index(), self.drive.blobs()) else { return 0 };
        let core = blobs.core();
        let mut total: u64 = 0;
        index.for_each_below(path, |leaf| {
            if let Leaf::File(file) = leaf
                && let Content::Blob(id) = &file.content
                && id.block_length > 0
            {
                let end = id.block_offset.saturating_add(id.block_length);
                let here = core.count_here(id.block_offset..end);
                // Blocks of one blob are of one size but for the last, so this is exact when all are here.
                let bytes = u128::from(id.byte_length) * u128::from(here);
                total = total.saturating_add((bytes / u128::from(id.block_length)) as u64);
            }
        });
        total
    }

    fn subscribe(&self, listener: Box<dyn Fn(Changes) + Send + Sync>) {
        let closed = self.closed.subscribe();
        self.drive.subscribe(move |paths| {
            let listens = !*closed.borrow();
            if listens && !paths.is_empty() {
                listener(Changes { paths: paths.to_vec() });
            }
            listens
        });
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// None for special nodes, which are not shown.
fn entry(found: Found<'_>) -> Option<Entry> {
    Some(match found {
        Found::Directory(_) => Entry::directory(),
        Found::File(file) => Entry {
            kind: Kind::File,
            size: file.size(),
            mode: file.permissions(),
            mtime_ms: file.mtime_ms().unwrap_or(0),
            mtime_ns: file.stat.mtime.ns(),
            uid: None,
            gid: None,
            rdev: 0,
            target: None,
            verbatim: false,
            revision: file.seq,
            id: 0,
            links: 1,
            sure: file.known_size().is_some(),
        },
        Found::Link(link) => Entry {
            kind: Kind::Symlink,
            size: link.target.len() as u64,
            mode: 0o777,
            mtime_ms: link.stat.mtime.ms().unwrap_or(0),
            mtime_ns: link.stat.mtime.ns(),
            uid: None,
            gid: None,
            rdev: 0,
            target: Some(link.target.to_string()),
            verbatim: false,
            revision: link.seq,
            id: 0,
            links: 1,
            sure: true,
        },
        Found::Special(_) => return None,
    })
}

/// A file of a version of a drive.
pub(super) struct DriveFile {
    pub reader: FileReader,
    pub revision: u64,
    pub patience: Duration,
    pub closed: watch::Receiver<bool>,
}

impl FileContent for DriveFile {
    fn size(&self) -> Option<u64> {
        self.reader.known_size()
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        self.reader.read_local(offset, len).map_err(blob_error)
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<Result<Vec<Bytes>>> {
        let read = self.reader.read(offset, len);
        let patience = self.patience;
        let read = async move {
            // Whatever other users of the drive have: a mount that joins has its own.
            match tokio::time::timeout(patience, with_patience(patience, read)).await {
                Ok(read) => read.map_err(blob_error),
                Err(_) => {
                    Err(VolumeError::TimedOut(format!("no peer sent it within {patience:?}")))
                }
            }
        };
        Box::pin(until_closed(self.closed.clone(), read))
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.reader.prefetch(offset, len);
    }
}

/// `work`, or [`VolumeError::Closed`] if the mount ends first.
pub(super) async fn until_closed<T>(
    mut closed: watch::Receiver<bool>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        _ = closed.wait_for(|closed| *closed) => Err(VolumeError::Closed),
    }
}

pub(super) fn volume_error(error: LiveError) -> VolumeError {
    match error {
        LiveError::NotFound(_) => VolumeError::NotFound,
        LiveError::IsADirectory(_) => VolumeError::IsADirectory,
        LiveError::ReadOnly => VolumeError::ReadOnly,
        LiveError::NoPeers | LiveError::TimedOut(_) => VolumeError::TimedOut(error.to_string()),
        LiveError::Drive(DriveError::Blob(error)) => blob_error(error),
        error => VolumeError::Io(error.to_string()),
    }
}

pub(super) fn blob_error(error: BlobError) -> VolumeError {
    match error {
        BlobError::Source(error @ (SourceError::TimedOut(_) | SourceError::Lost(_))) => {
            VolumeError::TimedOut(error.to_string())
        }
        BlobError::Source(SourceError::Closed) => VolumeError::Closed,
        error => VolumeError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hyper::drive::{File, Special, SpecialKind, Stat};

    #[test]
    fn what_others_wrote_gives_nobody_rights_and_makes_no_devices() {
        let stat = Stat { mode: 0o6755, ..Stat::default() };
        let file = File { stat, ..File::of(Content::Blob(Default::default())) };
        assert_eq!(entry(Found::File(&file)).map(|entry| entry.mode), Some(0o755));
        let kind = SpecialKind::Char { major: 1, minor: 3 };
        assert!(entry(Found::Special(&Special { seq: 1, kind, stat, xattrs: None })).is_none());
    }
}
