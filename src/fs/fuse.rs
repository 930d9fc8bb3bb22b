//! The kernel's requests: translated, answered here or in a task, nothing decided.
//!
//! What the volume has is answered on the FUSE thread; a reply that must wait for a peer moves into a task on
//! the runtime, and the thread takes the next request. A panic costs the one request that met it: a reply that
//! is dropped unanswered sends EIO.

use super::attr::{Attr, Look, file_type};
use super::errno::Result;
use super::filesystem::{Filesystem as Operations, Promise};
use super::handle::HandleId;
use super::inode::Ino;
use super::panics::{caught, caught_panic, guarded};
use super::pending::Pending;
use super::reply::{
    GENERATION, failed, reply_bytes, reply_entry, reply_opened, reply_opened_dir, reply_xattr,
};
use super::volume::MaybeLater;
use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tracing::{Instrument, Span};

/// Requests of read-ahead that the kernel may have under way. Its default of 16 would hold a network back.
const MAX_BACKGROUND: u16 = 128;
/// From here on the kernel calls the filesystem congested and reads less ahead.
const CONGESTION_THRESHOLD: u16 = 96;
/// Unit of `statfs`, in bytes.
const STATFS_BLOCK: u32 = 4096;

/// What every drive wants of the kernel, each only if it is offered.
const WANTED: [InitFlags; 6] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_AUTO_INVAL_DATA,
];

/// The skin between the kernel and the operations.
pub struct Fuse {
    fs: Arc<Operations>,
    look: Look,
    pending: Arc<Pending>,
    runtime: Handle,
    /// Whether the kernel can do without OPEN, and may: it then lets whoever may see a file read what it has cached.
    /// Settled by `init`.
    no_open: bool,
}

impl Fuse {
    pub fn new(fs: Arc<Operations>, look: Look, pending: Arc<Pending>, runtime: Handle) -> Self {
        Self { fs, look, pending, runtime, no_open: false }
    }

    /// Answers in a task, or with the caller's end if that comes first.
    fn later<T: Send + 'static>(
        &self,
        op: &'static str,
        req: &Request,
        promise: Promise<T>,
        answer: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let mut ticket = self.pending.register(req.pid());
        let task = async move {
            let result = tokio::select! {
                biased;
                result = caught(promise) => result,
                error = ticket.ended() => Err(error),
            };
            drop(ticket);
            caught_panic(op, || answer(result));
        };
        self.runtime.spawn(task.instrument(Span::current()));
    }

    fn ttl(&self, lasting: bool) -> Duration {
        Look::ttl(lasting, self.fs.frozen())
    }
}

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

fn handle(number: FileHandle) -> HandleId {
    HandleId(number.0)
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        if !self.look.private {
            self.no_open = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_ok();
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_congestion_threshold(CONGESTION_THRESHOLD);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded("lookup", req, parent, || {
            let parent = ino(parent);
            let asked = self.fs.publish().epoch();
            match self.fs.lookup(parent, name) {
                MaybeLater::Now(result) => {
                    reply_entry(&self.fs, &self.look, (parent, name), asked, result, reply)
                }
                MaybeLater::Later(promise) => {
                    let (fs, look, name) = (self.fs.clone(), self.look, OsString::from(name));
                    self.later("lookup", req, promise, move |result| {
                        reply_entry(&fs, &look, (parent, &name), asked, result, reply)
                    });
                }
            }
        });
    }

    fn forget(&self, req: &Request, number: INodeNo, count: u64) {
        guarded("forget", req, number, || self.fs.forget(ino(number), count));
    }

    fn getattr(
        &self,
        req: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        guarded("getattr", req, number, || {
            let _now = self.fs.publish();
            match self.fs.getattr(ino(number)) {
                Ok(attr) => reply.attr(&self.ttl(attr.sure), &self.look.file_attr(&attr)),
                Err(error) => reply.error(failed("getattr", &error)),
            }
        });
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        guarded("readlink", req, number, || match self.fs.readlink(ino(number)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(failed("readlink", &error)),
        });
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded("open", req, number, || {
            if flags.acc_mode() != OpenAccMode::O_RDONLY {
                return reply.error(Errno::EROFS);
            }
            if self.no_open && self.fs.frozen() {
                return reply.error(Errno::ENOSYS);
            }
            match self.fs.open(ino(number)) {
                MaybeLater::Now(result) => reply_opened(reply, result),
                MaybeLater::Later(promise) => {
                    self.later("open", req, promise, move |result| reply_opened(reply, result));
                }
            }
        });
    }

    fn read(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded("read", req, number, || {
            match self.fs.read(ino(number), handle(fh), offset, size as usize) {
                MaybeLater::Now(result) => reply_bytes("read", reply, result),
                MaybeLater::Later(promise) => self.later("read", req, promise, move |result| {
                    reply_bytes("read", reply, result);
                }),
            }
        });
    }

    fn release(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded("release", req, number, || {
            self.fs.release(handle(fh));
            reply.ok();
        });
    }

    fn opendir(&self, req: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        guarded("opendir", req, number, || {
            let asked = self.fs.publish().epoch();
            match self.fs.opendir(ino(number), asked) {
                MaybeLater::Now(result) => reply_opened_dir(reply, result),
                MaybeLater::Later(promise) => self.later("opendir", req, promise, move |result| {
                    reply_opened_dir(reply, result);
                }),
            }
        });
    }

    fn readdir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded("readdir", req, number, || {
            let now = self.fs.publish();
            let result = self.fs.readdir(handle(fh), offset, &now, |item| {
                reply.add(INodeNo(item.ino.0), item.cookie, file_type(item.kind), item.name)
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed("readdir", &error)),
            }
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded("readdirplus", req, number, || {
            let now = self.fs.publish();
            let result = self.fs.readdirplus(handle(fh), offset, &now, |item, attr: Attr| {
                let ttl = self.ttl(attr.sure);
                let attr = self.look.file_attr(&attr);
                reply.add(attr.ino, item.cookie, item.name, &ttl, &attr, GENERATION)
            });
            match result {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(failed("readdirplus", &error)),
            }
        });
    }

    fn releasedir(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        guarded("releasedir", req, number, || {
            self.fs.releasedir(handle(fh));
            reply.ok();
        });
    }

    fn statfs(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        guarded("statfs", req, number, || {
            let info = self.fs.info();
            let blocks = info.bytes.div_ceil(u64::from(STATFS_BLOCK));
            let longest = crate::path::MAX_NAME as u32;
            reply.statfs(blocks, 0, 0, info.files, 0, STATFS_BLOCK, longest, STATFS_BLOCK);
        });
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded("getxattr", req, number, || {
            let value = self.fs.getxattr(ino(number), name).map(String::into_bytes);
            reply_xattr("getxattr", reply, size, value);
        });
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", req, number, || {
            reply_xattr("listxattr", reply, size, Ok(Vec::new()));
        });
    }

    fn access(&self, _req: &Request, _number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks modes by itself (default_permissions); this is asked of no mount we make.
        if mask.contains(AccessFlags::W_OK) { reply.error(Errno::EROFS) } else { reply.ok() }
    }

    // ---- what the kernel does by itself once it has heard ENOSYS ----

    fn flush(
        &self,
        _req: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn lseek(
        &self,
        _req: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // ---- changes: the mount is read-only even if somebody remounts it otherwise ----

    fn setattr(
        &self,
        _req: &Request,
        _number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &std::path::Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: fuser::ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}
