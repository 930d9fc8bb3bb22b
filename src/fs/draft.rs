//! [`Volume`] for a drive of ours that is changed by way of the mount: what is shown is its draft.

use super::clock;
use super::drive::{DriveFile, blob_error, until_closed};
use super::volume::{
    BoxFuture, Changes, Entry, FileContent, Kind, MaybeLater, Result, Volume, VolumeError,
    VolumeInfo,
};
use super::volume::{Changed, FileWriter, Fresh, Rename, Writable};
use crate::hyper::core::storage::StorageError;
use crate::hyper::draft::{self, Draft, DraftError, EditError, Editor};
use crate::hyper::drive::{Content, DriveIndex, Found, Leaf, SpecialKind, Time};
use crate::hyper::local::{LocalError, LocalFile};
use crate::path::DrivePath;
use bytes::Bytes;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// A draft that is published now and then for as long as this is held.
pub type HeldDraft = Arc<dyn Deref<Target = Arc<Draft>> + Send + Sync>;

/// A draft as the filesystem sees it.
pub struct DraftVolume {
    draft: HeldDraft,
    editor: Arc<Editor>,
    /// The store, on whose disk everything comes to lie.
    store: PathBuf,
    /// The longest a read waits.
    patience: Duration,
    /// Turns true when this mount ends; others go on.
    closed: watch::Sender<bool>,
    listener: Arc<Mutex<Option<Listener>>>,
}

type Listener = Box<dyn Fn(Changes) + Send + Sync>;

impl DraftVolume {
    pub fn new(draft: HeldDraft, store: PathBuf, patience: Duration) -> Self {
        let listener: Arc<Mutex<Option<Listener>>> = Arc::default();
        let closed = watch::Sender::new(false);
        let (tells, ended) = (listener.clone(), closed.subscribe());
        let editor = draft.editor(Some(Box::new(move |paths| {
            let listens = !*ended.borrow();
            if let Some(listener) = &*super::lock(&tells)
                && listens
                && !paths.is_empty()
            {
                listener(Changes { paths: paths.to_vec() });
            }
            listens
        })));
        Self { draft, editor: Arc::new(editor), store, patience, closed, listener }
    }

    fn writer(&self, file: Arc<LocalFile>, revision: u64) -> Arc<dyn FileWriter> {
        let (draft, editor) = (self.draft.clone(), self.editor.clone());
        let (patience, closed) = (self.patience, self.closed.subscribe());
        let content = LocalContent { file, revision, patience, closed };
        Arc::new(LocalWriter { content, draft, editor })
    }

    /// Lets what was made at `path` belong to whom it is to.
    fn give(&self, path: &DrivePath, new: &Fresh) -> Result<()> {
        if new.uid.is_none() && new.gid.is_none() {
            return Ok(());
        }
        let set = draft::Set { uid: new.uid, gid: new.gid, ..Default::default() };
        self.editor.set(path, &set).map_err(edit_error)
    }

    /// What tells the content of the file at `path` from others.
    fn revision(&self, path: &DrivePath) -> u64 {
        self.draft
            .with_revisions(|names, revision| {
                names.leaf(path).map(|leaf| revision_of(names, path, leaf, revision))
            })
            .unwrap_or_default()
    }
}

impl Volume for DraftVolume {
    fn info(&self) -> VolumeInfo {
        self.draft.with_names(|names| VolumeInfo {
            key: self.draft.key().to_string(),
            version: names.version(),
            bytes: names.bytes(),
            files: names.files(),
        })
    }

    fn writable(&self) -> Option<&dyn Writable> {
        Some(self)
    }

    fn lookup(&self, path: &DrivePath) -> MaybeLater<Option<Entry>> {
        let found = self.draft.with_revisions(|names, revision| {
            names.lookup(path).map(|found| entry(names, path, found, revision))
        });
        MaybeLater::Now(Ok(found))
    }

    fn list(&self, dir: &DrivePath) -> MaybeLater<Arc<Vec<(String, Entry)>>> {
        MaybeLater::Now(self.draft.with_revisions(|names, revision| {
            let here = match names.lookup(dir) {
                Some(Found::Directory(here)) => here,
                Some(_) => return Err(VolumeError::NotADirectory),
                None => return Err(VolumeError::NotFound),
            };
            let list = here.iter().filter_map(|(name, node)| {
                let path = dir.join(name).ok()?;
                Some((name.to_string(), entry(names, &path, node.shown(), revision)))
            });
            Ok(Arc::new(list.collect()))
        }))
    }

    fn open(&self, path: &DrivePath) -> MaybeLater<Arc<dyn FileContent>> {
        let (patience, closed) = (self.patience, self.closed.subscribe());
        let opened = self.draft.with_revisions(|names, revision| {
            let leaf = names.leaf(path).ok_or(VolumeError::NotFound)?;
            let revision = revision_of(names, path, leaf, revision);
            let Leaf::File(file) = leaf else { return Err(VolumeError::NotFound) };
            if let Content::Local(local) = &file.content {
                let file = local.file.clone();
                return Ok(Arc::new(LocalContent { file, revision, patience, closed })
                    as Arc<dyn FileContent>);
            }
            let reader = self.draft.drive().open(file);
            let reader = reader.map_err(|error| VolumeError::Io(error.to_string()))?;
            Ok(Arc::new(DriveFile { reader, revision, patience, closed }) as Arc<dyn FileContent>)
        });
        MaybeLater::Now(opened)
    }

    fn cached_bytes(&self, path: &DrivePath) -> u64 {
        // All of a drive of ours is here.
        let mut total = 0u64;
        self.draft.with_names(|names| {
            names.for_each_below(path, |leaf| {
                if let Leaf::File(file) = leaf {
                    total = total.saturating_add(file.size());
                }
            });
        });
        total
    }

    fn subscribe(&self, listener: Box<dyn Fn(Changes) + Send + Sync>) {
        *super::lock(&self.listener) = Some(listener);
    }

    fn close(&self) {
        self.closed.send_replace(true);
    }
}

/// What tells the content of a file from others: for all its names that of the first, each of which has an entry of its own.
fn revision_of(
    names: &DriveIndex,
    path: &DrivePath,
    leaf: &Leaf,
    revision: &dyn Fn(&Leaf) -> u64,
) -> u64 {
    let first = names.links(names.id_of(path, leaf)).next();
    revision(first.and_then(|first| names.leaf(first)).unwrap_or(leaf))
}

fn entry(
    names: &DriveIndex,
    path: &DrivePath,
    found: Found<'_>,
    revision: &dyn Fn(&Leaf) -> u64,
) -> Entry {
    let leaf = match found {
        Found::Directory(dir) => {
            let stat = dir.stat();
            return Entry {
                mode: stat.mode,
                mtime_ms: stat.mtime.ms().unwrap_or(0),
                mtime_ns: stat.mtime.ns(),
                uid: stat.owner.uid(),
                gid: stat.owner.gid(),
                verbatim: true,
                ..Entry::directory()
            };
        }
        Found::File(_) | Found::Link(_) | Found::Special(_) => names.leaf(path),
    };
    let Some(leaf) = leaf else { return Entry::directory() };
    let stat = leaf.stat();
    let id = names.id_of(path, leaf);
    let mut entry = Entry {
        kind: Kind::File,
        size: 0,
        mode: stat.mode,
        mtime_ms: stat.mtime.ms().unwrap_or(0),
        mtime_ns: stat.mtime.ns(),
        uid: stat.owner.uid(),
        gid: stat.owner.gid(),
        rdev: 0,
        target: None,
        verbatim: true,
        revision: revision_of(names, path, leaf, revision),
        id,
        links: names.link_count(id) as u32,
        sure: true,
    };
    match leaf {
        Leaf::File(file) => {
            entry.size = file.size();
            entry.sure = file.known_size().is_some();
            if let Content::Local(local) = &file.content {
                let mtime = Time::of_nanos(local.file.mtime());
                (entry.mtime_ms, entry.mtime_ns) = (mtime.ms().unwrap_or(0), mtime.ns());
            }
        }
        Leaf::Link(link) => {
            entry.kind = Kind::Symlink;
            entry.size = link.target.len() as u64;
            entry.target = Some(link.target.to_string());
        }
        Leaf::Special(node) => {
            (entry.kind, entry.rdev) = match node.kind {
                SpecialKind::Fifo => (Kind::Fifo, 0),
                SpecialKind::Socket => (Kind::Socket, 0),
                SpecialKind::Char { major, minor } => (Kind::CharDevice, device(major, minor)),
                SpecialKind::Block { major, minor } => (Kind::BlockDevice, device(major, minor)),
            };
        }
    }
    entry
}

/// As the kernel has them in 32 bits.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

fn of_device(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, (rdev & 0xff) | (rdev >> 12) & !0xff)
}

impl Writable for DraftVolume {
    fn create(&self, path: &DrivePath, new: &Fresh) -> Result<Arc<dyn FileWriter>> {
        let file = self.editor.create(path, new.mode, now()).map_err(edit_error)?;
        let revision = file.id();
        let writer = self.writer(file, revision);
        self.give(path, new)?;
        Ok(writer)
    }

    fn open(&self, path: &DrivePath) -> Result<Arc<dyn FileWriter>> {
        let file = self.editor.open(path).map_err(edit_error)?;
        Ok(self.writer(file, self.revision(path)))
    }

    fn make_dir(&self, path: &DrivePath, new: &Fresh) -> Result<()> {
        self.editor.make_dir(path).map_err(edit_error)?;
        let &Fresh { mode, uid, gid } = new;
        let set = draft::Set { mode: Some(mode), mtime: Some(now()), uid, gid };
        self.editor.set(path, &set).map_err(edit_error)
    }

    fn make_link(&self, path: &DrivePath, target: &str, new: &Fresh) -> Result<()> {
        self.editor.make_link(path, target, now()).map_err(edit_error)?;
        self.give(path, new)
    }

    fn make_special(&self, path: &DrivePath, kind: Kind, rdev: u32, new: &Fresh) -> Result<()> {
        let (major, minor) = of_device(rdev);
        let kind = match kind {
            Kind::Fifo => SpecialKind::Fifo,
            Kind::Socket => SpecialKind::Socket,
            Kind::CharDevice => SpecialKind::Char { major, minor },
            Kind::BlockDevice => SpecialKind::Block { major, minor },
            Kind::File | Kind::Directory | Kind::Symlink => return Err(VolumeError::Impossible),
        };
        self.editor.make_special(path, kind, new.mode, now()).map_err(edit_error)?;
        self.give(path, new)
    }

    fn share(&self, from: &DrivePath, to: &DrivePath, range: Range<u64>) -> Result<u64> {
        self.editor.share(from, to, range).map_err(edit_error)
    }

    fn link(&self, from: &DrivePath, to: &DrivePath, id: u64) -> Result<()> {
        self.editor.link(from, to, id).map_err(edit_error)
    }

    fn rename(&self, from: &DrivePath, to: &DrivePath, how: Rename) -> Result<()> {
        let how = match how {
            Rename::Replace => draft::Rename::Replace,
            Rename::NoReplace => draft::Rename::NoReplace,
            Rename::Exchange => draft::Rename::Exchange,
        };
        self.editor.rename(from, to, how).map_err(edit_error)
    }

    fn remove(&self, path: &DrivePath) -> Result<()> {
        self.editor.remove(path).map_err(edit_error)
    }

    fn remove_dir(&self, path: &DrivePath) -> Result<()> {
        self.editor.remove_dir(path).map_err(edit_error)
    }

    fn set(&self, path: &DrivePath, changed: &Changed) -> Result<()> {
        let mtime = changed.mtime.map(|time| Time::of_nanos(nanos(time)));
        let &Changed { mode, uid, gid, .. } = changed;
        let set = draft::Set { mode, mtime, uid, gid };
        self.editor.set(path, &set).map_err(edit_error)
    }

    fn xattrs(&self, path: &DrivePath) -> Result<Vec<(String, Vec<u8>)>> {
        let xattrs = self.draft.xattrs(path).map_err(draft_error)?;
        Ok(xattrs.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect())
    }

    fn set_xattr(&self, path: &DrivePath, name: &str, value: Option<&[u8]>) -> Result<()> {
        let mut xattrs = self.draft.xattrs(path).map_err(draft_error)?;
        match value {
            Some(value) => xattrs
                .set(name, value.to_vec())
                .map(drop)
                .map_err(|error| VolumeError::NoSpace(error.to_string()))?,
            None => drop(xattrs.remove(name)),
        }
        self.editor.set_xattrs(path, xattrs).map_err(edit_error)
    }

    fn is_shared(&self) -> bool {
        self.draft.editors() > 1
    }

    fn wrote(&self, path: &DrivePath) {
        self.editor.wrote(path);
    }

    fn on_flush(&self, ask: Box<dyn Fn() -> bool + Send + Sync>) {
        self.draft.on_flush(ask);
    }

    fn sync(&self) -> BoxFuture<Result<()>> {
        let draft = self.draft.clone();
        on_disk(move || draft.publish(draft::Which::Closed).map(drop))
    }

    fn room(&self) -> (u64, u64) {
        let stat = nix::sys::statvfs::statvfs(&self.store).ok();
        stat.map_or((0, 0), |stat| {
            let unit = stat.fragment_size();
            (stat.blocks_available() * unit, stat.blocks() * unit)
        })
    }
}

/// A file that is being changed here.
struct LocalContent {
    file: Arc<LocalFile>,
    revision: u64,
    patience: Duration,
    closed: watch::Receiver<bool>,
}

impl FileContent for LocalContent {
    fn size(&self) -> Option<u64> {
        Some(self.file.size())
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        self.file.read_local(offset, len).map_err(local_error)
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<Result<Vec<Bytes>>> {
        let (read, patience) = (self.file.read(offset, len), self.patience);
        let read = async move {
            match tokio::time::timeout(patience, read).await {
                Ok(read) => read.map_err(local_error),
                Err(_) => {
                    Err(VolumeError::TimedOut(format!("no peer sent it within {patience:?}")))
                }
            }
        };
        Box::pin(until_closed(self.closed.clone(), read))
    }

    fn prefetch(&self, _offset: u64, _len: u64) {}
}

/// The same, open to be written.
struct LocalWriter {
    content: LocalContent,
    draft: HeldDraft,
    editor: Arc<Editor>,
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        self.editor.close(&self.content.file);
    }
}

impl FileContent for LocalWriter {
    fn size(&self) -> Option<u64> {
        self.content.size()
    }

    fn revision(&self) -> u64 {
        self.content.revision
    }

    fn read_local(&self, offset: u64, len: usize) -> Result<Option<Vec<Bytes>>> {
        self.content.read_local(offset, len)
    }

    fn read(&self, offset: u64, len: usize) -> BoxFuture<Result<Vec<Bytes>>> {
        self.content.read(offset, len)
    }

    fn prefetch(&self, _offset: u64, _len: u64) {}
}

impl LocalWriter {
    fn wrote(&self, done: std::result::Result<(), LocalError>) -> Result<()> {
        done.map_err(local_error)?;
        self.content.file.touch(nanos(clock::now()));
        Ok(())
    }
}

impl FileWriter for LocalWriter {
    fn content(&self) -> Arc<dyn FileContent> {
        let LocalContent { file, revision, patience, closed } = &self.content;
        let (file, closed) = (file.clone(), closed.clone());
        Arc::new(LocalContent { file, revision: *revision, patience: *patience, closed })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.wrote(self.content.file.write(offset, bytes))
    }

    fn append(&self, bytes: &[u8]) -> Result<()> {
        self.wrote(self.content.file.append(bytes).map(drop))
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.wrote(self.content.file.truncate(size))
    }

    fn punch(&self, range: Range<u64>) {
        self.content.file.punch(range);
        self.content.file.touch(nanos(clock::now()));
    }

    fn allocate(&self, range: Range<u64>, keep_size: bool) -> Result<()> {
        self.content.file.allocate(range, keep_size).map_err(local_error)
    }

    fn set_mtime(&self, mtime: SystemTime) {
        self.content.file.set_mtime(nanos(mtime));
    }

    fn touch(&self, mtime: SystemTime) {
        self.content.file.touch(nanos(mtime));
    }

    fn mtime(&self) -> SystemTime {
        system_time(self.content.file.mtime())
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        self.content.file.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> Option<u64> {
        self.content.file.next_hole(offset)
    }

    fn sync(&self, path: Option<&DrivePath>) -> BoxFuture<Result<()>> {
        // What has no name goes with whoever has it open.
        let Some(path) = path.cloned() else { return Box::pin(async { Ok(()) }) };
        let (draft, file) = (self.draft.clone(), self.content.file.clone());
        on_disk(move || draft.sync(&path, &file))
    }
}

/// On a thread that may wait for the disk of the store.
fn on_disk(
    work: impl FnOnce() -> std::result::Result<(), DraftError> + Send + 'static,
) -> BoxFuture<Result<()>> {
    Box::pin(async {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done.map_err(draft_error),
            Err(error) => Err(VolumeError::Io(error.to_string())),
        }
    })
}

fn now() -> Time {
    Time::of_nanos(nanos(clock::now()))
}

/// Since 1970.
fn nanos(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

fn system_time(nanos: i128) -> SystemTime {
    let part = |nanos: u128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    let distance = part(nanos.unsigned_abs());
    let time = match nanos < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn edit_error(error: EditError) -> VolumeError {
    match error {
        EditError::NotFound => VolumeError::NotFound,
        EditError::Exists => VolumeError::Exists,
        EditError::NotADirectory => VolumeError::NotADirectory,
        EditError::IsADirectory => VolumeError::IsADirectory,
        EditError::NotEmpty => VolumeError::NotEmpty,
        EditError::Impossible => VolumeError::Impossible,
        EditError::Name => VolumeError::Name,
        EditError::TooLong => VolumeError::NameTooLong,
        EditError::Damaged => VolumeError::Io(error.to_string()),
    }
}

fn local_error(error: LocalError) -> VolumeError {
    match error {
        LocalError::Storage(error) => storage_error(error),
        LocalError::Blob(error) => blob_error(error),
        LocalError::TooLarge => VolumeError::TooLarge,
        error => VolumeError::Io(error.to_string()),
    }
}

fn draft_error(error: DraftError) -> VolumeError {
    match error {
        error if error.is_disk_full() => VolumeError::NoSpace(error.to_string()),
        DraftError::Storage(error) => storage_error(error),
        DraftError::Local(error) => local_error(error),
        DraftError::Blob(error) => blob_error(error),
        error => VolumeError::Io(error.to_string()),
    }
}

fn storage_error(error: StorageError) -> VolumeError {
    match error.is_disk_full() {
        true => VolumeError::NoSpace(error.to_string()),
        false => VolumeError::Io(error.to_string()),
    }
}
