//! The kernel's requests that change something, translated.

use super::super::attr::Attr;
use super::super::errno::{FsError, Result};
use super::super::filesystem::{Opened, Seek, SetAttr};
use super::super::panics::guarded;
use super::super::reply::{GENERATION, failed};
use super::super::volume::Kind;
use super::super::volume::Rename;
use super::{Fuse, handle, ino};
use fuser::{
    FileHandle, FopenFlags, INodeNo, RenameFlags, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, Request, TimeOrNow,
};
use nix::libc;
use std::ffi::OsStr;
use std::time::SystemTime;

/// Permission bits, setuid, setgid and sticky.
const MODE: u32 = 0o7777;

impl Fuse {
    pub(super) fn reply_made(&self, op: &'static str, made: Result<Attr>, reply: ReplyEntry) {
        match made {
            Ok(attr) => reply.entry(&self.ttl(attr.sure), &self.look.file_attr(&attr), GENERATION),
            Err(error) => reply.error(failed(op, &error)),
        }
    }

    pub(super) fn reply_created(&self, made: Result<(Attr, Opened)>, reply: ReplyCreate) {
        match made {
            Ok((attr, opened)) => reply.created(
                &self.ttl(attr.sure),
                &self.look.file_attr(&attr),
                GENERATION,
                FileHandle(opened.handle.0),
                to_write(opened),
            ),
            Err(error) => reply.error(failed("create", &error)),
        }
    }

    pub(super) fn reply_opened_to_write(&self, opened: Result<Opened>, reply: ReplyOpen) {
        match opened {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), to_write(opened)),
            Err(error) => reply.error(failed("open", &error)),
        }
    }

    pub(super) fn made_node(
        &self,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded("mknod", req, parent, || {
            let kind = match mode & libc::S_IFMT {
                libc::S_IFREG | 0 => Kind::File,
                libc::S_IFIFO => Kind::Fifo,
                libc::S_IFSOCK => Kind::Socket,
                libc::S_IFCHR => Kind::CharDevice,
                libc::S_IFBLK => Kind::BlockDevice,
                _ => return reply.error(failed("mknod", &FsError::Invalid)),
            };
            let made = self.fs.make_node(ino(parent), name, kind, (mode & MODE) as u16, rdev);
            self.reply_made("mknod", made, reply);
        });
    }

    pub(super) fn renamed(
        &self,
        req: &Request,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded("rename", req, from.0, || {
            let how = match flags {
                RenameFlags::RENAME_NOREPLACE => Rename::NoReplace,
                RenameFlags::RENAME_EXCHANGE => Rename::Exchange,
                flags if flags.is_empty() => Rename::Replace,
                _ => return reply.error(failed("rename", &FsError::Invalid)),
            };
            let done = self.fs.rename((ino(from.0), from.1), (ino(to.0), to.1), how);
            reply_done("rename", done, reply);
        });
    }

    #[expect(clippy::too_many_arguments, reason = "as the kernel asks")]
    pub(super) fn set(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        (uid, gid): (Option<u32>, Option<u32>),
        size: Option<u64>,
        (atime, mtime): (Option<TimeOrNow>, Option<TimeOrNow>),
        fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        guarded("setattr", req, number, || {
            // All belongs to one.
            let others = uid.is_some_and(|uid| uid != self.look.uid)
                || gid.is_some_and(|gid| gid != self.look.gid);
            if others {
                return reply.error(failed("setattr", &FsError::NotPermitted));
            }
            let time = |time: TimeOrNow| match time {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => SystemTime::now(),
            };
            let set = SetAttr {
                mode: mode.map(|mode| (mode & MODE) as u16),
                size,
                atime: atime.map(time),
                mtime: mtime.map(time),
            };
            match self.fs.set(ino(number), fh.map(handle), &set) {
                Ok(attr) => reply.attr(&self.ttl(attr.sure), &self.look.file_attr(&attr)),
                Err(error) => reply.error(failed("setattr", &error)),
            }
        });
    }

    pub(super) fn allocated(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        (offset, length): (u64, u64),
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded("fallocate", req, number, || {
            let range = offset..offset.saturating_add(length);
            let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
            let done = match mode & !libc::FALLOC_FL_KEEP_SIZE {
                0 => self.fs.allocate(handle(fh), range, keep_size),
                libc::FALLOC_FL_PUNCH_HOLE if keep_size => self.fs.punch(handle(fh), range),
                libc::FALLOC_FL_ZERO_RANGE => self
                    .fs
                    .allocate(handle(fh), range.clone(), keep_size)
                    .and_then(|()| self.fs.punch(handle(fh), range)),
                _ => Err(FsError::Unsupported),
            };
            reply_done("fallocate", done, reply);
        });
    }

    pub(super) fn sought(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guarded("lseek", req, number, || {
            let what = match whence {
                libc::SEEK_DATA => Seek::Data,
                libc::SEEK_HOLE => Seek::Hole,
                _ => return reply.error(failed("lseek", &FsError::Invalid)),
            };
            let offset = u64::try_from(offset).map_err(|_| FsError::NoData);
            match offset.and_then(|offset| self.fs.seek(handle(fh), offset, what)) {
                Ok(at) => reply.offset(at as i64),
                Err(error) => reply.error(failed("lseek", &error)),
            }
        });
    }
}

pub(super) fn reply_done(op: &'static str, done: Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(failed(op, &error)),
    }
}

fn to_write(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
    flags
}
