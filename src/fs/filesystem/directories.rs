//! Directories: opened with a snapshot of their names, told name by name.

use super::{Filesystem, Published, child_of};
use crate::fs::attr::Attr;
use crate::fs::dir::{self, Listing, OpenDir};
use crate::fs::errno::{FsError, Result};
use crate::fs::handle::HandleId;
use crate::fs::inode::{Ino, Inodes};
use crate::fs::lock;
use crate::fs::volume::{Kind, MaybeLater};
use crate::path::valid_name;
use std::sync::Arc;

/// One name of a directory, as `readdir` answers.
pub struct DirItem<'a> {
    pub ino: Ino,
    pub kind: Kind,
    pub name: &'a str,
    /// Resumes after this name.
    pub cookie: u64,
}

impl Filesystem {
    /// Opens a directory with a snapshot of its names.
    pub fn opendir(self: &Arc<Self>, ino: Ino, asked: u64) -> MaybeLater<HandleId, FsError> {
        let path = match self.path(ino) {
            Ok(path) => path,
            Err(error) => return MaybeLater::Now(Err(error)),
        };
        match self.volume.list(&path) {
            MaybeLater::Now(Ok(listing)) => {
                MaybeLater::Now(Ok(self.opened_dir(ino, asked, listing)))
            }
            MaybeLater::Now(Err(error)) => MaybeLater::Now(Err(error.into())),
            MaybeLater::Later(future) => {
                let (fs, listing) = (self.clone(), self.bounded(future));
                MaybeLater::Later(Box::pin(async move {
                    let listing = listing.await?;
                    Ok(fs.opened_dir(ino, asked, listing))
                }))
            }
        }
    }

    fn opened_dir(&self, ino: Ino, asked: u64, listing: Listing) -> HandleId {
        lock(&self.inodes).hold(ino);
        self.dirs.insert(OpenDir::new(ino, asked, listing))
    }

    pub fn releasedir(&self, handle: HandleId) {
        if let Some(dir) = self.dirs.remove(handle) {
            lock(&self.inodes).release(dir.ino);
        }
    }

    /// Tells the names after cookie `offset` until `tell` says it is full.
    pub fn readdir(
        &self,
        handle: HandleId,
        offset: u64,
        now: &Published<'_>,
        mut tell: impl FnMut(DirItem<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dirs.get(handle).ok_or(FsError::BadHandle)?;
        let (_, listing) = self.listing(&dir, offset, now);
        let inodes = lock(&self.inodes);
        if tell_dots(&inodes, &dir, offset, &mut tell) {
            return Ok(());
        }
        let (mut cookie, rest) = dir::rest(&listing, offset);
        for (name, entry) in rest {
            cookie += 1;
            // The volume should not tell such names; the kernel must not be told them.
            let number = valid_name(name).then(|| inodes.number(dir.ino, name, entry)).flatten();
            let Some(ino) = number else { continue };
            if tell(DirItem { ino, kind: entry.kind, name, cookie }) {
                break;
            }
        }
        Ok(())
    }

    /// The same with attributes; each name told counts as looked up, except `.` and `..`.
    pub fn readdirplus(
        &self,
        handle: HandleId,
        offset: u64,
        now: &Published<'_>,
        mut tell: impl FnMut(DirItem<'_>, Attr) -> bool,
    ) -> Result<()> {
        let dir = self.dirs.get(handle).ok_or(FsError::BadHandle)?;
        let (epoch, listing) = self.listing(&dir, offset, now);
        {
            let inodes = lock(&self.inodes);
            let Some(own) = Attr::of(&inodes, dir.ino) else { return Err(FsError::Stale) };
            let full = tell_dots(&inodes, &dir, offset, &mut |item: DirItem<'_>| {
                let attr = Attr { ino: item.ino, ..own };
                tell(item, attr)
            });
            if full {
                return Ok(());
            }
        }
        // Of one that is gone no name is found any more.
        let Ok(path) = self.path(dir.ino) else { return Ok(()) };
        let (mut cookie, rest) = dir::rest(&listing, offset);
        for (name, entry) in rest {
            cookie += 1;
            let Some(path) = child_of(&path, name) else { continue };
            let entry = match self.current(&path, Some(entry.clone()), epoch, now) {
                Ok((Some(entry), _)) => entry,
                _ => continue,
            };
            let kind = entry.kind;
            let mut inodes = lock(&self.inodes);
            let Some(bound) = inodes.bind(dir.ino, name, entry) else { continue };
            let ino = bound.ino();
            let Some(attr) = Attr::of(&inodes, ino) else { continue };
            if tell(DirItem { ino, kind, name, cookie }, attr) {
                inodes.settle(ino);
                break;
            }
            inodes.remember(ino);
        }
        Ok(())
    }

    /// The snapshot of an open directory; a new one when it is read from the start after a change.
    fn listing(&self, dir: &OpenDir, offset: u64, now: &Published<'_>) -> (u64, Listing) {
        let (epoch, listing) = dir.snapshot();
        if offset == 0
            && epoch != now.epoch()
            && let Ok(path) = self.path(dir.ino)
            && let MaybeLater::Now(Ok(fresh)) = self.volume.list(&path)
        {
            dir.replace(now.epoch(), fresh.clone());
            return (now.epoch(), fresh);
        }
        (epoch, listing)
    }
}

fn tell_dots(
    inodes: &Inodes,
    dir: &OpenDir,
    offset: u64,
    tell: &mut impl FnMut(DirItem<'_>) -> bool,
) -> bool {
    let parent = inodes.parent(dir.ino).unwrap_or(Ino::ROOT);
    let dots = [(1, ".", dir.ino), (2, "..", parent)];
    dots.into_iter()
        .filter(|(cookie, ..)| *cookie > offset)
        .any(|(cookie, name, ino)| tell(DirItem { ino, kind: Kind::Directory, name, cookie }))
}
