//! The kernel's requests that change something, translated.

use super::super::attr::Attr;
use super::super::clock;
use super::super::errno::{FsError, Result};
use super::super::filesystem::{Opened, Seek, SetAttr};
use super::super::inode::Ino;
use super::super::panics::guarded;
use super::super::reply::{GENERATION, failed};
use super::super::volume::{Fresh, Kind, Rename};
use super::{Fuse, handle, ino};
use fuser::{
    FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use nix::libc;
use std::ffi::OsStr;

/// Permission bits, setuid, setgid and sticky.
const MODE: u32 = 0o7777;

impl Fuse {
    /// What a mount that is written wants of the kernel.
    pub(super) fn ask_to_write(&mut self, config: &mut KernelConfig) {
        let Some(writable) = self.fs.writes() else { return };
        let mut offered = |flag| config.add_capabilities(flag).is_ok();
        offered(InitFlags::FUSE_ATOMIC_O_TRUNC);
        // Otherwise it asks at each write for an attribute that says whether there are privileges to be dropped.
        offered(InitFlags::FUSE_HANDLE_KILLPRIV_V2);
        // Sizes are then what it knows of its own writes. Where others write too, that is not enough.
        if !writable.is_shared() && offered(InitFlags::FUSE_WRITEBACK_CACHE) {
            self.past_cache = offered(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
            self.fs.keep_writes();
        }
    }

    pub(super) fn reply_made(&self, op: &'static str, made: Result<Attr>, reply: ReplyEntry) {
        match made {
            Ok(attr) => reply.entry(&self.ttl(attr.sure), &self.look.file_attr(&attr), GENERATION),
            Err(error) => reply.error(failed(op, &error)),
        }
    }

    pub(super) fn created(
        &self,
        req: &Request,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.fs.create(ino(parent), name, self.fresh(req, mode)) {
            Ok((attr, opened)) => reply.created(
                &self.ttl(attr.sure),
                &self.look.file_attr(&attr),
                GENERATION,
                FileHandle(opened.handle.0),
                self.flags_to_write(opened, flags),
            ),
            Err(error) => reply.error(failed("create", &error)),
        }
    }

    /// What this caller makes is like.
    pub(super) fn fresh(&self, req: &Request, mode: u32) -> Fresh {
        let (uid, gid) = self.look.owner(req.uid(), req.gid());
        Fresh { mode: (mode & MODE) as u16, uid, gid }
    }

    pub(super) fn opened_to_write(
        &self,
        req: &Request,
        number: INodeNo,
        flags: i32,
        reply: ReplyOpen,
    ) {
        let truncate = flags & libc::O_TRUNC != 0;
        let opened = self.fs.open_to_write(ino(number), truncate);
        if truncate && opened.is_ok() && is_unprivileged(req) {
            self.fs.drop_privileges(ino(number));
        }
        match opened {
            Ok(opened) => {
                reply.opened(FileHandle(opened.handle.0), self.flags_to_write(opened, flags))
            }
            Err(error) => reply.error(failed("open", &error)),
        }
    }

    /// What is appended here, others are to see at once; so are those who have the drive mounted beside.
    fn flags_to_write(&self, opened: Opened, flags: i32) -> FopenFlags {
        let at_once = flags & libc::O_APPEND != 0 || self.fs.is_shared();
        let mut known = FopenFlags::empty();
        known.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
        known.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct || self.past_cache && at_once);
        known
    }

    #[expect(clippy::too_many_arguments, reason = "as the kernel asks")]
    pub(super) fn wrote(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        reply: ReplyWrite,
    ) {
        guarded("write", req, number, || {
            // Where the kernel keeps what is written it alone knows where the end is, as long as nobody else writes.
            let append = flags.0 & libc::O_APPEND != 0
                && !how.contains(WriteFlags::FUSE_WRITE_CACHE)
                && (!self.fs.keeps_writes() || self.fs.is_shared());
            let done = self.fs.write(handle(fh), offset, data, append);
            // Before the caller can look.
            if done.is_ok() && how.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
                self.fs.drop_privileges(ino(number));
            }
            match done {
                Ok(()) => reply.written(data.len() as u32),
                Err(error) => reply.error(failed("write", &error)),
            }
        });
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
            let new = self.fresh(req, mode);
            let made = self.fs.make_node(ino(parent), name, kind, rdev, new);
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

    /// What is to be noted of a new owner: nothing where it is so already.
    fn new_owner(
        &self,
        ino: Ino,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(Option<u32>, Option<u32>)> {
        if uid.is_none() && gid.is_none() {
            return Ok((None, None));
        }
        let shown = self.look.file_attr(&self.fs.getattr(ino)?);
        let new = (uid.filter(|uid| *uid != shown.uid), gid.filter(|gid| *gid != shown.gid));
        // Where all is shown as one user's, it is.
        match self.look.owners || new == (None, None) {
            true => Ok(new),
            false => Err(FsError::NotPermitted),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "as the kernel asks")]
    pub(super) fn set(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        (uid, gid): (Option<u32>, Option<u32>),
        size: Option<u64>,
        (atime, mtime, is_written): (Option<TimeOrNow>, Option<TimeOrNow>, bool),
        fh: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        guarded("setattr", req, number, || {
            let gives = uid.is_some() || gid.is_some();
            let (uid, gid) = match self.new_owner(ino(number), uid, gid) {
                Ok(owner) => owner,
                Err(error) => return reply.error(failed("setattr", &error)),
            };
            let time = |time: TimeOrNow| match time {
                TimeOrNow::SpecificTime(time) => time,
                TimeOrNow::Now => clock::now(),
            };
            let set = SetAttr {
                mode: mode.map(|mode| (mode & MODE) as u16),
                size,
                atime: atime.map(time),
                mtime: mtime.map(time),
                written: is_written,
                uid,
                gid,
                // Root alone may keep them, and whoever gives a file to others does not.
                unprivileged: size.is_some() && is_unprivileged(req) || gives,
            };
            match self.fs.set(ino(number), fh.map(handle), &set) {
                Ok(attr) => reply.attr(&self.ttl(attr.sure), &self.look.file_attr(&attr)),
                Err(error) => reply.error(failed("setattr", &error)),
            }
        });
    }

    pub(super) fn copied(
        &self,
        req: &Request,
        number: INodeNo,
        from: (FileHandle, u64),
        to: (FileHandle, u64),
        len: u64,
        reply: ReplyWrite,
    ) {
        guarded("copy_file_range", req, number, || {
            // The answer has 32 bits.
            let len = len.min(u32::MAX.into());
            match self.fs.copy((handle(from.0), from.1), (handle(to.0), to.1), len) {
                Ok(done) => reply.written(done as u32),
                Err(error) => reply.error(failed("copy_file_range", &error)),
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

fn is_unprivileged(req: &Request) -> bool {
    req.uid() != 0
}

/// Whether an extended attribute has to be there before it is set, or must not.
pub(super) fn must_be_there(flags: i32) -> Option<bool> {
    match flags {
        libc::XATTR_CREATE => Some(false),
        libc::XATTR_REPLACE => Some(true),
        _ => None,
    }
}
