//! Operations that change what is mounted.
//!
//! One at a time where names are concerned, under an epoch of its own: a path is found, the volume changes what is there,
//! and the table of inodes follows, before anybody asks for a name or changes one. What is written into files waits for
//! nobody.

use super::{Filesystem, Opened, Promise, attr_of_known, present};
use crate::fs::attr::Attr;
use crate::fs::clock;
use crate::fs::errno::{FsError, Result};
use crate::fs::handle::{HandleId, OpenFile};
use crate::fs::inode::{Ino, Inodes};
use crate::fs::lock;
use crate::fs::volume::{Changed, FileWriter, Fresh, Rename, Writable};
use crate::fs::volume::{Entry, Kind, MaybeLater, VolumeError};
use crate::fs::xattr;
use crate::path::{DrivePath, MAX_NAME};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// Bytes that one request copies at most, so that others are answered meanwhile, and how many at a time.
const COPIED_AT_ONCE: u64 = 16 << 20;
const COPY_PIECE: u64 = 1 << 20;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
/// Without it setgid means something else.
const GROUP_EXECUTES: u16 = 0o010;

/// What of an inode is to be changed; none stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    pub mode: Option<u16>,
    pub size: Option<u64>,
    pub atime: Option<SystemTime>,
    pub mtime: Option<SystemTime>,
    /// The time is that of what the kernel wrote, and nobody's wish.
    pub written: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Setuid and setgid go, as when somebody writes who may not set them.
    pub unprivileged: bool,
}

/// What SEEK_DATA and SEEK_HOLE look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

impl Filesystem {
    fn writable(&self) -> Result<&dyn Writable> {
        Ok(self.volume.writable().ok_or(VolumeError::ReadOnly)?)
    }

    /// The path of `name` in `parent`, for a name that is there or is to be.
    fn place<'a>(&self, parent: Ino, name: &'a OsStr) -> Result<(DrivePath, &'a str)> {
        if name.len() > MAX_NAME {
            return Err(FsError::NameTooLong);
        }
        let text = std::str::from_utf8(name.as_bytes()).map_err(|_| VolumeError::Name)?;
        let path = self.path(parent)?.join(text).map_err(|_| FsError::NameTooLong)?;
        Ok((path, text))
    }

    /// From now on the kernel keeps what is written for a while; before anything was asked of it.
    pub fn keep_writes(&self) {
        self.keeps_writes.store(true, Ordering::Relaxed);
        lock(&self.inodes).sizes_are_told_once();
    }

    pub fn keeps_writes(&self) -> bool {
        self.keeps_writes.load(Ordering::Relaxed)
    }

    /// Whether somebody has a file open to be written.
    pub fn is_being_written(&self) -> bool {
        self.files.any(|file| file.writer().is_some())
    }

    /// How the volume is changed; none if it is not.
    pub fn writes(&self) -> Option<&dyn Writable> {
        self.volume.writable()
    }

    /// Whether others have the volume mounted too, to write it.
    pub fn is_shared(&self) -> bool {
        self.writes().is_some_and(Writable::is_shared)
    }

    /// What was made at `path` just now, told to the kernel.
    fn made(&self, parent: Ino, name: &str, path: &DrivePath) -> Result<Attr> {
        let entry = self.entry(path)?;
        let mut inodes = lock(&self.inodes);
        let ino = inodes.bind(parent, name, entry).ok_or(FsError::Stale)?.ino();
        inodes.remember(ino);
        touch(&mut inodes, &[ino], &[parent]);
        Attr::of(&inodes, ino).ok_or(FsError::Stale)
    }

    fn entry(&self, path: &DrivePath) -> Result<Entry> {
        match self.volume.lookup(path) {
            MaybeLater::Now(found) => present(found)?.ok_or_else(|| VolumeError::NotFound.into()),
            MaybeLater::Later(_) => Err(FsError::Stale),
        }
    }

    /// Makes an empty file and opens it to be written.
    pub fn create(&self, parent: Ino, name: &OsStr, new: Fresh) -> Result<(Attr, Opened)> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        let file = writable.create(&path, &self.in_folder(parent, Kind::File, new))?;
        let attr = self.made(parent, name, &path)?;
        Ok((attr, self.opened_to_write(attr.ino, file)?))
    }

    /// Opens a file to be written; empties it if `truncate`.
    pub fn open_to_write(&self, ino: Ino, truncate: bool) -> Result<Opened> {
        let file = self.writer(ino)?;
        if truncate {
            file.truncate(0)?;
            self.tell_written(ino);
        }
        self.opened_to_write(ino, file)
    }

    /// In a folder with setgid all belongs to its group, and what is a folder goes on so.
    fn in_folder(&self, parent: Ino, kind: Kind, new: Fresh) -> Fresh {
        let inodes = lock(&self.inodes);
        match inodes.get(parent).map(|node| &node.entry) {
            Some(entry) if entry.verbatim && entry.mode & SETGID != 0 => {
                let own = if kind == Kind::Directory { SETGID } else { 0 };
                Fresh { mode: new.mode | own, gid: entry.gid, ..new }
            }
            _ => new,
        }
    }

    /// Setuid and setgid are lost by a file that somebody writes who may not set them.
    pub fn drop_privileges(&self, ino: Ino) {
        let set = SetAttr { unprivileged: true, ..SetAttr::default() };
        if let Err(error) = self.set(ino, None, &set) {
            error.log("write");
        }
    }

    fn writer(&self, ino: Ino) -> Result<Arc<dyn FileWriter>> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let path = self.path(ino)?;
        let file = writable.open(&path)?;
        // Whoever reads it reads what is written from now on.
        let entry = self.entry(&path)?;
        lock(&self.inodes).renew(ino, entry, file.content());
        Ok(file)
    }

    fn opened_to_write(&self, ino: Ino, file: Arc<dyn FileWriter>) -> Result<Opened> {
        let (keep_pages, body) = {
            let mut inodes = lock(&self.inodes);
            let node = inodes.get_mut(ino).ok_or(FsError::Stale)?;
            let revision = file.revision();
            let keep_pages = node.pages.is_none_or(|of| of == revision);
            node.pages = Some(revision);
            let body = node.body_of(file.content());
            inodes.hold(ino);
            (keep_pages, body)
        };
        let handle = self.files.insert(OpenFile::to_write(ino, body, file));
        Ok(Opened { handle, keep_pages, direct: false })
    }

    /// Who else has the volume mounted is to know.
    fn tell_written(&self, ino: Ino) {
        if let Some(node) = lock(&self.inodes).get_mut(ino) {
            node.touch(clock::now());
        }
        if let Some(writable) = self.volume.writable()
            && writable.is_shared()
            && let Ok(path) = self.path(ino)
        {
            writable.wrote(&path);
        }
    }

    /// The kernel does not know by itself that these have others by now.
    fn forget_attributes(&self, inodes: impl IntoIterator<Item = Ino>) {
        let tell = self.own_changes.get();
        inodes.into_iter().for_each(|ino| tell.into_iter().for_each(|tell| tell(ino)));
    }

    /// All who have the file at `path` open here read what it is now.
    pub(in crate::fs) fn reopen(&self, path: &DrivePath) {
        let open = |inodes: &Inodes| {
            let ino = inodes.at(path)?;
            inodes.get(ino)?.body.clone()
        };
        if let Some(body) = open(&lock(&self.inodes))
            && let MaybeLater::Now(Ok(content)) = self.volume.open(path)
            && content.revision() == body.content().revision()
        {
            body.exchange(content);
        }
    }

    pub fn make_dir(&self, parent: Ino, name: &OsStr, new: Fresh) -> Result<Attr> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        writable.make_dir(&path, &self.in_folder(parent, Kind::Directory, new))?;
        self.made(parent, name, &path)
    }

    pub fn make_link(&self, parent: Ino, name: &OsStr, target: &OsStr, new: Fresh) -> Result<Attr> {
        let writable = self.writable()?;
        let target = std::str::from_utf8(target.as_bytes()).map_err(|_| VolumeError::Name)?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        writable.make_link(&path, target, &self.in_folder(parent, Kind::Symlink, new))?;
        self.made(parent, name, &path)
    }

    /// Makes a pipe, a socket or a device; an empty file too.
    pub fn make_node(
        &self,
        parent: Ino,
        name: &OsStr,
        kind: Kind,
        rdev: u32,
        new: Fresh,
    ) -> Result<Attr> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        let new = self.in_folder(parent, kind, new);
        match kind {
            Kind::File => drop(writable.create(&path, &new)?),
            _ => writable.make_special(&path, kind, rdev, &new)?,
        }
        self.made(parent, name, &path)
    }

    /// One more name for an inode.
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Attr> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let from = self.path(ino)?;
        let (path, name) = self.place(parent, name)?;
        if lock(&self.inodes).get(ino).is_some_and(|node| node.entry.kind == Kind::Directory) {
            return Err(FsError::NotPermitted);
        }
        writable.link(&from, &path, ino.0)?;
        let (old, new) = (self.entry(&from)?, self.entry(&path)?);
        let mut inodes = lock(&self.inodes);
        if let Some(node) = inodes.get_mut(ino) {
            node.entry = old;
        }
        inodes.link(ino, parent, name);
        if let Some(node) = inodes.get_mut(ino) {
            node.entry = new;
        }
        inodes.remember(ino);
        touch(&mut inodes, &[ino], &[parent]);
        Attr::of(&inodes, ino).ok_or(FsError::Stale)
    }

    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        writable.remove(&path)?;
        let mut inodes = lock(&self.inodes);
        let gone = inodes.child(parent, name);
        touch(&mut inodes, gone.as_slice(), &[parent]);
        inodes.unlink(parent, name);
        drop(inodes);
        self.forget_attributes(gone);
        Ok(())
    }

    pub fn remove_dir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (path, name) = self.place(parent, name)?;
        writable.remove_dir(&path)?;
        let mut inodes = lock(&self.inodes);
        touch(&mut inodes, &[], &[parent]);
        inodes.unlink(parent, name);
        Ok(())
    }

    pub fn rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr), how: Rename) -> Result<()> {
        let writable = self.writable()?;
        let _alone = self.new_epoch();
        let (source, old) = self.place(from.0, from.1)?;
        let (target, new) = self.place(to.0, to.1)?;
        writable.rename(&source, &target, how)?;
        let mut inodes = lock(&self.inodes);
        let known = [inodes.child(from.0, old), inodes.child(to.0, new)];
        let known: Vec<Ino> = known.into_iter().flatten().collect();
        touch(&mut inodes, &known, &[from.0, to.0]);
        match how {
            Rename::Exchange => inodes.exchange((from.0, old), (to.0, new)),
            Rename::Replace | Rename::NoReplace => inodes.rename((from.0, old), (to.0, new)),
        };
        drop(inodes);
        self.forget_attributes(known);
        Ok(())
    }

    /// Changes attributes; `handle` is an open file of it, if the caller has one.
    pub fn set(&self, ino: Ino, handle: Option<HandleId>, set: &SetAttr) -> Result<Attr> {
        let writable = self.writable()?;
        let open = handle.and_then(|handle| self.files.get(handle));
        let mut writer = open.as_ref().and_then(|file| file.writer().cloned());
        if let (true, Some(mtime), Some(file)) = (set.written, set.mtime, &writer) {
            file.touch(mtime);
            return self.known(ino);
        }
        if let Some(size) = set.size {
            let file = match &writer {
                Some(file) => file.clone(),
                None => self.writer(ino)?,
            };
            file.truncate(size)?;
            self.tell_written(ino);
            writer.get_or_insert(file);
        }
        let mode = self.new_mode(ino, set);
        let &SetAttr { mtime, uid, gid, .. } = set;
        if mode.is_some() || mtime.is_some() || uid.is_some() || gid.is_some() {
            let _alone = self.new_epoch();
            match self.path(ino) {
                Ok(path) => writable.set(&path, &Changed { mode, mtime, uid, gid })?,
                // It has no name any more, and lives on as long as it is open.
                Err(_) => {
                    if let (Some(file), Some(mtime)) = (&writer, set.mtime) {
                        file.set_mtime(mtime);
                    }
                    if let Some(node) = lock(&self.inodes).get_mut(ino) {
                        let entry = &mut node.entry;
                        entry.mode = mode.unwrap_or(entry.mode);
                        (entry.uid, entry.gid) = (uid.or(entry.uid), gid.or(entry.gid));
                    }
                }
            }
        }
        if let Some(node) = lock(&self.inodes).get_mut(ino) {
            node.touch(clock::now());
            let times = node.times.get_or_insert_default();
            times.atime = set.atime.or(times.atime);
            if set.mtime.is_some() {
                times.mtime = None;
            }
        }
        self.known(ino)
    }

    fn known(&self, ino: Ino) -> Result<Attr> {
        match self.path(ino) {
            Ok(_) => self.getattr(ino),
            // The kernel may still write out the times of one that has no name any more, and that nobody has open.
            Err(_) => {
                let inodes = &mut lock(&self.inodes);
                attr_of_known(inodes, ino).or_else(|_| Attr::of(inodes, ino).ok_or(FsError::Stale))
            }
        }
    }

    /// The mode that an inode is to have; none if it keeps its own.
    fn new_mode(&self, ino: Ino, set: &SetAttr) -> Option<u16> {
        let inodes = lock(&self.inodes);
        let entry = &inodes.get(ino)?.entry;
        let mode = set.mode.unwrap_or(entry.mode);
        let lost = match mode & GROUP_EXECUTES {
            0 => SETUID,
            _ => SETUID | SETGID,
        };
        let drops = set.unprivileged && entry.kind == Kind::File;
        let mode = if drops { mode & !lost } else { mode };
        (set.mode.is_some() || mode != entry.mode).then_some(mode)
    }

    // ---- contents ----

    fn file(&self, handle: HandleId) -> Result<(Ino, Arc<dyn FileWriter>)> {
        let file = self.files.get(handle).ok_or(FsError::BadHandle)?;
        let writer = file.writer().cloned().ok_or(FsError::BadHandle)?;
        Ok((file.ino, writer))
    }

    /// Writes all of `bytes`; at the end if `append`.
    pub fn write(&self, handle: HandleId, offset: u64, bytes: &[u8], append: bool) -> Result<()> {
        let (ino, file) = self.file(handle)?;
        match append {
            true => file.append(bytes)?,
            false => file.write(offset, bytes)?,
        }
        self.tell_written(ino);
        Ok(())
    }

    /// Copies `len` bytes of one open file from `from.1` to `to.1` of another, or fewer; how many is told. None at the end.
    ///
    /// # Errors
    /// [`FsError::Unsupported`] where only a peer has the bytes: the kernel then reads and writes them itself.
    pub fn copy(&self, from: (HandleId, u64), to: (HandleId, u64), len: u64) -> Result<u64> {
        let source = self.files.get(from.0).ok_or(FsError::BadHandle)?;
        let (ino, target) = self.file(to.0)?;
        let content = source.content();
        let len = len.min(content.size().ok_or(FsError::Unsupported)?.saturating_sub(from.1));
        let writable = self.writable()?;
        if from.1 == to.1
            && let (Ok(source), Ok(target)) = (self.path(source.ino), self.path(ino))
            && let shared @ 1.. = writable.share(&source, &target, from.1..from.1 + len)?
        {
            self.tell_written(ino);
            return Ok(shared);
        }
        let mut done = 0;
        while done < len.min(COPIED_AT_ONCE) {
            let piece = (len - done).min(COPIED_AT_ONCE - done).min(COPY_PIECE);
            let bytes = content.read_local(from.1 + done, piece as usize)?;
            let bytes = bytes.ok_or(FsError::Unsupported)?.concat();
            if bytes.is_empty() {
                break;
            }
            target.write(to.1 + done, &bytes)?;
            done += bytes.len() as u64;
        }
        self.tell_written(ino);
        Ok(done)
    }

    pub fn allocate(
        &self,
        handle: HandleId,
        range: std::ops::Range<u64>,
        keep_size: bool,
    ) -> Result<()> {
        let (ino, file) = self.file(handle)?;
        file.allocate(range, keep_size)?;
        self.tell_written(ino);
        Ok(())
    }

    pub fn punch(&self, handle: HandleId, range: std::ops::Range<u64>) -> Result<()> {
        let (ino, file) = self.file(handle)?;
        file.punch(range);
        self.tell_written(ino);
        Ok(())
    }

    pub fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> Result<u64> {
        let file = self.files.get(handle).ok_or(FsError::BadHandle)?;
        let content = file.content();
        let size = content.size().unwrap_or(u64::MAX);
        if offset >= size {
            return Err(FsError::NoData);
        }
        let found = match (file.writer(), what) {
            (Some(file), Seek::Data) => file.next_data(offset),
            (Some(file), Seek::Hole) => file.next_hole(offset),
            (None, Seek::Data) => Some(offset),
            (None, Seek::Hole) => Some(size),
        };
        found.ok_or(FsError::NoData)
    }

    /// Resolves when what was written to the file is durable.
    pub fn sync(&self, handle: HandleId) -> Promise<()> {
        // One that is open to be read makes durable what others wrote.
        let file = self.file(handle).or_else(|_| {
            let open = self.files.get(handle).ok_or(FsError::BadHandle)?;
            Ok::<_, FsError>((open.ino, self.writer(open.ino)?))
        });
        let Ok((ino, file)) = file else { return Box::pin(async { Ok(()) }) };
        let path = self.path(ino).ok();
        let synced = file.sync(path.as_deref());
        Box::pin(async move {
            let done = synced.await;
            drop(file);
            Ok(done?)
        })
    }

    /// Resolves when all names are durable.
    pub fn sync_names(&self) -> Promise<()> {
        match self.volume.writable() {
            None => Box::pin(async { Ok(()) }),
            Some(writable) => {
                let synced = writable.sync();
                Box::pin(async move { Ok(synced.await?) })
            }
        }
    }

    /// Bytes that are free, and that there are.
    pub fn room(&self) -> Option<(u64, u64)> {
        Some(self.volume.writable()?.room())
    }

    // ---- extended attributes ----

    pub fn xattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        match self.getxattr(ino, name) {
            Err(FsError::NoAttribute) => {}
            known => return known.map(String::into_bytes),
        }
        let Some(writable) = self.volume.writable() else { return Err(FsError::NoAttribute) };
        let name = std::str::from_utf8(name.as_bytes()).map_err(|_| FsError::NoAttribute)?;
        let xattrs = writable.xattrs(&*self.path(ino)?)?;
        let found = xattrs.into_iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value).ok_or(FsError::NoAttribute)
    }

    /// Their names, each with a zero byte behind it.
    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<u8>> {
        let Some(writable) = self.volume.writable() else { return Ok(Vec::new()) };
        let xattrs = writable.xattrs(&*self.path(ino)?)?;
        Ok(xattrs.into_iter().flat_map(|(name, _)| [name.as_bytes(), b"\0"].concat()).collect())
    }

    /// Sets one, or removes it; `must` says whether it has to be there before, or must not.
    pub fn set_xattr(
        &self,
        ino: Ino,
        name: &OsStr,
        value: Option<&[u8]>,
        must: Option<bool>,
    ) -> Result<()> {
        let writable = self.writable()?;
        let name = std::str::from_utf8(name.as_bytes()).map_err(|_| FsError::Unsupported)?;
        if xattr::is_ours(name) {
            // Programs that copy files carry them along.
            return Ok(());
        }
        if !name.starts_with("user.") && !name.starts_with("trusted.") {
            return Err(FsError::Unsupported);
        }
        let _alone = self.new_epoch();
        let path = self.path(ino)?;
        let there = writable.xattrs(&path)?.iter().any(|(known, _)| known == name);
        match must {
            Some(true) if !there => return Err(FsError::NoAttribute),
            Some(false) if there => return Err(VolumeError::Exists.into()),
            _ => {}
        }
        writable.set_xattr(&path, name, value)?;
        touch(&mut lock(&self.inodes), &[ino], &[]);
        Ok(())
    }
}

/// Inodes that changed just now, and directories in which names did.
fn touch(inodes: &mut Inodes, changed: &[Ino], dirs: &[Ino]) {
    let now = clock::now();
    for ino in changed {
        inodes.get_mut(*ino).into_iter().for_each(|node| node.touch(now));
    }
    for ino in dirs {
        inodes.get_mut(*ino).into_iter().for_each(|node| node.touch_names(now));
    }
}
