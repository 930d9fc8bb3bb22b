//! The operations on a mounted drive, free of kernel types.
//!
//! Each answers at once ([`MaybeLater::Now`]) or promises to ([`MaybeLater::Later`]), as the volume does.
//!
//! # Never an old answer after a new one
//! A change bumps the *epoch* under its write lock, then the kernel is told to forget. A name or attribute may
//! be answered with a long time to live only while the epoch in which the volume was asked still holds; the
//! skin keeps the read lock ([`Filesystem::publish`]) from the question until the reply is in the kernel. So
//! an answer from before a change always reaches the kernel before the order to forget it.

mod changing;
mod directories;

pub use changing::{Seek, SetAttr};

use super::attr::Attr;
use super::body::Body;
use super::dir::OpenDir;
use super::errno::{FsError, Result};
use super::handle::{HandleId, Handles, OpenFile};
use super::inode::{Ino, Inodes};
use super::link::shown_target;
use super::lock;
use super::volume::{
    BoxFuture, Entry, FileContent, Kind, MaybeLater, Volume, VolumeError, VolumeInfo,
};
use super::xattr;
use crate::path::{DrivePath, MAX_NAME, valid_name};
use bytes::Bytes;
use lru::LruCache;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Files of a frozen volume that are kept ready to read without having been opened.
const READY_FILES: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The promise of an answer.
pub type Promise<T> = BoxFuture<Result<T>>;

/// Answers of the volume that were asked for while this is held are still true.
pub struct Published<'a>(RwLockReadGuard<'a, u64>);

impl Published<'_> {
    pub fn epoch(&self) -> u64 {
        *self.0
    }
}

/// An opened file, as `open` answers.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub handle: HandleId,
    /// Whether the pages that the kernel may hold are of this content.
    pub keep_pages: bool,
    /// Whether the kernel must ask for every read, because it does not know where the content ends.
    pub direct: bool,
}

/// A mounted drive.
pub struct Filesystem {
    volume: Arc<dyn Volume>,
    /// After this a promise ends, whatever the volume does.
    deadline: Duration,
    inodes: Mutex<Inodes>,
    files: Handles<OpenFile>,
    dirs: Handles<OpenDir>,
    /// Files read without an open, on a frozen volume.
    ready: Mutex<LruCache<Ino, Arc<OpenFile>>>,
    epoch: RwLock<u64>,
    /// The kernel keeps what is written for a while, and knows sizes and times of files better than we.
    keeps_writes: AtomicBool,
    /// Called with inodes whose attributes changed here, and which the kernel would not ask for again.
    own_changes: OnceLock<Box<dyn Fn(Ino) + Send + Sync>>,
}

impl Filesystem {
    /// A mount of `volume` whose waits end after `deadline`; the volume's own should be shorter.
    pub fn new(volume: Arc<dyn Volume>, deadline: Duration) -> Self {
        let root = match volume.lookup(&DrivePath::root()) {
            MaybeLater::Now(Ok(Some(entry))) if entry.kind == Kind::Directory => entry,
            _ => Entry::directory(),
        };
        Self {
            deadline,
            inodes: Mutex::new(Inodes::new(root)),
            files: Handles::default(),
            dirs: Handles::default(),
            ready: Mutex::new(LruCache::new(READY_FILES)),
            epoch: RwLock::new(0),
            keeps_writes: AtomicBool::new(false),
            own_changes: OnceLock::new(),
            volume,
        }
    }

    /// `tell` is called with inodes whose attributes the kernel is to forget; it only queues.
    pub fn on_own_changes(&self, tell: impl Fn(Ino) + Send + Sync + 'static) {
        let _ = self.own_changes.set(Box::new(tell));
    }

    /// Whether nothing will change any more, so that files need not be opened.
    pub fn frozen(&self) -> bool {
        self.volume.frozen()
    }

    /// Whether somebody has a file or a directory open. Of a frozen volume that is never known: none needs an open.
    pub fn has_open(&self) -> bool {
        !self.files.is_empty() || !self.dirs.is_empty()
    }

    /// Holds changes off while an answer is made and given to the kernel. Not to be nested.
    pub fn publish(&self) -> Published<'_> {
        Published(crate::lock::read(&self.epoch))
    }

    /// Starts a new epoch; while the guard is held nothing is answered. For [`super::notify`].
    pub(super) fn new_epoch(&self) -> RwLockWriteGuard<'_, u64> {
        let mut epoch = crate::lock::write(&self.epoch);
        *epoch = epoch.wrapping_add(1);
        epoch
    }

    pub(super) fn with_inodes<T>(&self, f: impl FnOnce(&mut Inodes) -> T) -> T {
        f(&mut lock(&self.inodes))
    }

    pub(super) fn volume(&self) -> &dyn Volume {
        &*self.volume
    }

    fn bounded<T: Send + 'static>(&self, future: BoxFuture<Answered<T>>) -> BoxFuture<Answered<T>> {
        bounded(future, self.deadline)
    }

    /// Path of an inode that the kernel names.
    fn path(&self, ino: Ino) -> Result<Arc<DrivePath>> {
        let inodes = lock(&self.inodes);
        match inodes.path(ino) {
            Some(path) => Ok(path),
            None if inodes.get(ino).is_some() => Err(VolumeError::NotFound.into()),
            None => Err(FsError::Stale),
        }
    }

    // ---- names and attributes ----

    /// The entry that `name` stands for in `parent`; none if there is none.
    ///
    /// The caller completes it with [`Filesystem::found`] while it publishes.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> MaybeLater<Option<Entry>, FsError> {
        let path = match self.child(parent, name) {
            Ok(Some(path)) => path,
            Ok(None) => return MaybeLater::Now(Ok(None)),
            Err(error) => return MaybeLater::Now(Err(error)),
        };
        match self.volume.lookup(&path) {
            MaybeLater::Now(result) => MaybeLater::Now(present(result)),
            MaybeLater::Later(future) => {
                let answer = self.bounded(future);
                MaybeLater::Later(Box::pin(async { present(answer.await) }))
            }
        }
    }

    /// The path of `name` in `parent`; none if no drive can hold such a name.
    fn child(&self, parent: Ino, name: &OsStr) -> Result<Option<DrivePath>> {
        if name.len() > MAX_NAME {
            return Err(FsError::NameTooLong);
        }
        let parent = self.path(parent)?;
        Ok(std::str::from_utf8(name.as_bytes()).ok().and_then(|name| parent.join(name).ok()))
    }

    /// Gives an entry that a lookup found its inode and counts it as told to the kernel.
    ///
    /// `asked` is the epoch in which the volume was asked. After a change it is asked again; the result says
    /// whether the answer may be believed for long.
    pub fn found(
        &self,
        parent: Ino,
        name: &OsStr,
        entry: Option<Entry>,
        asked: u64,
        now: &Published<'_>,
    ) -> Result<(Option<Attr>, bool)> {
        let Some(path) = self.child(parent, name)? else { return Ok((None, true)) };
        let (entry, lasting) = self.current(&path, entry, asked, now)?;
        let Some(entry) = entry else { return Ok((None, lasting)) };
        let mut inodes = lock(&self.inodes);
        let ino = inodes.bind(parent, path.name(), entry).ok_or(FsError::Stale)?.ino();
        inodes.remember(ino);
        let attr = Attr::of(&inodes, ino);
        Ok((attr, lasting && attr.is_none_or(|attr| attr.sure)))
    }

    fn current(
        &self,
        path: &DrivePath,
        entry: Option<Entry>,
        asked: u64,
        now: &Published<'_>,
    ) -> Result<(Option<Entry>, bool)> {
        if asked == now.epoch() {
            return Ok((entry, true));
        }
        match self.volume.lookup(path) {
            MaybeLater::Now(result) => Ok((present(result)?, true)),
            MaybeLater::Later(_) => Ok((entry, false)),
        }
    }

    /// Attributes of an inode. Never asks a peer: what is not here is told as last known.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let path = {
            let mut inodes = lock(&self.inodes);
            let node = inodes.get(ino).ok_or(FsError::Stale)?;
            match inodes.path(ino) {
                Some(path) if !node.entry.sure || !self.frozen() => path,
                _ => return attr_of_known(&mut inodes, ino),
            }
        };
        let answer = self.volume.lookup(&path);
        let mut inodes = lock(&self.inodes);
        if inodes.at(&path) != Some(ino) {
            // What is there now is another.
            return attr_of_known(&mut inodes, ino);
        }
        match answer {
            MaybeLater::Now(Ok(Some(entry))) => {
                if let Some(bound) = inodes.bind_at(&path, entry) {
                    inodes.settle(bound.ino());
                }
            }
            MaybeLater::Now(Ok(None) | Err(VolumeError::NotFound | VolumeError::NotADirectory)) => {
                inodes.unlink_at(&path);
            }
            _ => {}
        }
        attr_of_known(&mut inodes, ino)
    }

    /// Target of a link, as [`shown_target`] shows it.
    pub fn readlink(&self, ino: Ino) -> Result<String> {
        let inodes = lock(&self.inodes);
        let node = inodes.get(ino).ok_or(FsError::Stale)?;
        match (&node.entry.kind, &node.entry.target) {
            // What was made here reads as it was made.
            (Kind::Symlink, Some(target)) if node.entry.verbatim => Ok(target.clone()),
            (Kind::Symlink, Some(target)) => {
                let path = inodes.path(ino).ok_or(FsError::Stale)?;
                Ok(shown_target(&path, target)?.into_owned())
            }
            (Kind::Symlink, None) => Err(FsError::BadTarget),
            _ => Err(FsError::NotALink),
        }
    }

    /// The kernel forgot `count` of the times it was told of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        lock(&self.inodes).forget(ino, count);
    }

    pub fn info(&self) -> VolumeInfo {
        self.volume.info()
    }

    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<String> {
        let path = {
            let inodes = lock(&self.inodes);
            inodes.get(ino).ok_or(FsError::Stale)?;
            inodes.path(ino)
        };
        xattr::get(&*self.volume, path.as_deref(), name.as_bytes())
    }

    // ---- files ----

    /// Opens a file at the revision its inode shows.
    pub fn open(self: &Arc<Self>, ino: Ino) -> MaybeLater<Opened, FsError> {
        let answer = match self.content(ino) {
            Ok(answer) => answer,
            Err(error) => return MaybeLater::Now(Err(error)),
        };
        match answer {
            MaybeLater::Now(content) => {
                MaybeLater::Now(content.map_err(Into::into).and_then(|c| self.opened(ino, c)))
            }
            MaybeLater::Later(future) => {
                let (fs, content) = (self.clone(), self.bounded(future));
                MaybeLater::Later(Box::pin(async move { fs.opened(ino, content.await?) }))
            }
        }
    }

    /// What an inode reads: the same for all who have it open.
    fn content(&self, ino: Ino) -> Result<MaybeLater<Arc<dyn FileContent>>> {
        let path = {
            let inodes = lock(&self.inodes);
            let node = inodes.get(ino).ok_or(FsError::Stale)?;
            match node.entry.kind {
                Kind::File => {}
                Kind::Directory => return Err(VolumeError::IsADirectory.into()),
                _ => return Err(FsError::Stale),
            }
            if let Some(body) = &node.body {
                return Ok(MaybeLater::Now(Ok(body.content())));
            }
            inodes.path(ino).ok_or(FsError::Stale)?
        };
        Ok(self.volume.open(&path))
    }

    fn opened(&self, ino: Ino, content: Arc<dyn FileContent>) -> Result<Opened> {
        let revision = content.revision();
        let (keep_pages, direct, body) = {
            let mut inodes = lock(&self.inodes);
            let node = inodes.get_mut(ino).ok_or(FsError::Stale)?;
            if node.entry.revision != revision {
                // Replaced just now: the kernel looks the name up again and opens what it finds.
                return Err(FsError::Stale);
            }
            let keep_pages = node.pages.is_none_or(|of| of == revision);
            node.pages = Some(revision);
            // It was told this size; a block map may have told another since. What it writes itself it knows better than we
            // noted.
            let known = self.volume.writable().is_some() || content.size() == Some(node.entry.size);
            let direct = !node.entry.sure || !known;
            let body = node.body.get_or_insert_with(|| Arc::new(Body::new(content))).clone();
            inodes.hold(ino);
            (keep_pages, direct, body)
        };
        let handle = self.files.insert(OpenFile::new(ino, body));
        Ok(Opened { handle, keep_pages, direct })
    }

    pub fn release(&self, handle: HandleId) {
        if let Some(file) = self.files.remove(handle) {
            lock(&self.inodes).release(file.ino);
        }
    }

    /// Reads `len` bytes at `offset`, fewer at the end of the file.
    ///
    /// `handle` may be 0 on a frozen volume: then the file was never opened.
    pub fn read(
        self: &Arc<Self>,
        ino: Ino,
        handle: HandleId,
        offset: u64,
        len: usize,
    ) -> MaybeLater<Vec<Bytes>, FsError> {
        if let Some(file) = self.files.get(handle) {
            return read_file(file, offset, len, self.deadline);
        }
        if !self.frozen() {
            return MaybeLater::Now(Err(FsError::BadHandle));
        }
        if let Some(file) = lock(&self.ready).get(&ino) {
            return read_file(file.clone(), offset, len, self.deadline);
        }
        match self.content(ino) {
            Ok(MaybeLater::Now(Ok(content))) => {
                read_file(self.make_ready(ino, content), offset, len, self.deadline)
            }
            Ok(MaybeLater::Now(Err(error))) => MaybeLater::Now(Err(error.into())),
            Ok(MaybeLater::Later(future)) => {
                let (fs, content) = (self.clone(), self.bounded(future));
                MaybeLater::Later(Box::pin(async move {
                    let file = fs.make_ready(ino, content.await?);
                    match read_file(file, offset, len, fs.deadline) {
                        MaybeLater::Now(result) => result,
                        MaybeLater::Later(future) => future.await,
                    }
                }))
            }
            Err(error) => MaybeLater::Now(Err(error)),
        }
    }

    fn make_ready(&self, ino: Ino, content: Arc<dyn FileContent>) -> Arc<OpenFile> {
        let file = Arc::new(OpenFile::new(ino, Arc::new(Body::new(content))));
        lock(&self.ready).put(ino, file.clone());
        file
    }
}

type Answered<T> = super::volume::Result<T>;

/// The backstop against a volume that never answers.
fn bounded<T: Send + 'static>(
    future: BoxFuture<Answered<T>>,
    deadline: Duration,
) -> BoxFuture<Answered<T>> {
    Box::pin(async move {
        match tokio::time::timeout(deadline, future).await {
            Ok(result) => result,
            Err(_) => Err(VolumeError::TimedOut(format!("no answer within {deadline:?}"))),
        }
    })
}

/// An entry that is not there is no error of a lookup.
fn present(result: Answered<Option<Entry>>) -> Result<Option<Entry>> {
    match result {
        Err(VolumeError::NotFound) => Ok(None),
        other => Ok(other?),
    }
}

/// Attributes as the table has them. A name that is gone is told only to those who hold it open.
fn attr_of_known(inodes: &mut Inodes, ino: Ino) -> Result<Attr> {
    let unlinked = inodes.path(ino).is_none();
    let node = inodes.get_mut(ino).ok_or(FsError::Stale)?;
    if unlinked && !node.is_open() {
        return Err(FsError::Stale);
    }
    // It may be written on.
    if unlinked && let Some(size) = node.body.as_ref().and_then(|body| body.content().size()) {
        node.entry.size = size;
    }
    Attr::of(inodes, ino).ok_or(FsError::Stale)
}

fn child_of(dir: &DrivePath, name: &str) -> Option<DrivePath> {
    // The volume should not tell such names; the kernel must not be told them.
    if valid_name(name) { dir.join(name).ok() } else { None }
}

/// Reads from what is here, or promises to.
fn read_file(
    file: Arc<OpenFile>,
    offset: u64,
    len: usize,
    deadline: Duration,
) -> MaybeLater<Vec<Bytes>, FsError> {
    let content = file.content();
    let len = match content.size() {
        Some(size) => len.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX)),
        None => len,
    };
    if len == 0 {
        return MaybeLater::Now(Ok(Vec::new()));
    }
    let span = len as u64;
    let local = content.read_local(offset, len);
    file.read_ahead(&*content, offset, span);
    match local {
        Ok(Some(parts)) => return MaybeLater::Now(Ok(parts)),
        Ok(None) => {}
        Err(error) => return MaybeLater::Now(Err(error.into())),
    }
    if file.just_timed_out(offset, span) {
        let why = "the same bytes did not come just now".to_owned();
        return MaybeLater::Now(Err(VolumeError::TimedOut(why).into()));
    }
    let bytes = bounded(content.read(offset, len), deadline);
    MaybeLater::Later(Box::pin(async move {
        let result = bytes.await;
        if matches!(result, Err(VolumeError::TimedOut(_))) {
            file.note_timeout(offset, span);
        }
        Ok(result?)
    }))
}
