//! What the kernel asks, one function for each of its requests.

use super::changing::{must_be_there, reply_done};
use super::{Fuse, handle, ino};
use crate::fs::attr::{Attr, file_type};
use crate::fs::panics::guarded;
use crate::fs::reply::{
    GENERATION, failed, reply_bytes, reply_entry, reply_opened, reply_opened_dir, reply_xattr,
};
use crate::fs::volume::MaybeLater;
use fuser::{
    AccessFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

/// Unit of `statfs`, in bytes.
const STATFS_BLOCK: u32 = 4096;

impl Filesystem for Fuse {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        self.settle(config);
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
                return self.opened_to_write(req, number, flags.0, reply);
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
            let blocks = |bytes: u64| bytes.div_ceil(u64::from(STATFS_BLOCK));
            let longest = crate::path::MAX_NAME as u32;
            let (free, all) = match self.fs.room() {
                Some((free, all)) => (blocks(free), blocks(all)),
                None => (0, blocks(info.bytes)),
            };
            // As many files as one likes.
            let names = if free > 0 { u32::MAX.into() } else { 0 };
            reply.statfs(
                all,
                free,
                free,
                info.files + names,
                names,
                STATFS_BLOCK,
                longest,
                STATFS_BLOCK,
            );
        });
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded("getxattr", req, number, || {
            reply_xattr("getxattr", reply, size, self.fs.xattr(ino(number), name));
        });
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        guarded("listxattr", req, number, || {
            reply_xattr("listxattr", reply, size, self.fs.list_xattrs(ino(number)));
        });
    }

    fn access(&self, _req: &Request, _number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks modes by itself (default_permissions); this is asked of no mount we make.
        let refused = mask.contains(AccessFlags::W_OK) && self.fs.room().is_none();
        if refused { reply.error(Errno::EROFS) } else { reply.ok() }
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

    fn fsync(
        &self,
        req: &Request,
        _number: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let synced = self.fs.sync(handle(fh));
        self.later("fsync", req, synced, move |done| reply_done("fsync", done, reply));
    }

    fn fsyncdir(&self, req: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.fs.sync_names();
        self.later("fsyncdir", req, synced, move |done| reply_done("fsyncdir", done, reply));
    }

    fn lseek(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.sought(req, number, fh, offset, whence, reply);
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

    // ---- changes ----

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // As the kernel tells the time of what it wrote itself.
        let alone = atime.is_none() && mode.is_none() && size.is_none() && uid.is_none();
        let times = (atime, mtime, alone && ctime.is_some() && fh.is_some());
        self.set(req, number, mode, (uid, gid), size, times, fh, reply);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.made_node(req, (parent, name), mode, rdev, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded("mkdir", req, parent, || {
            let made = self.fs.make_dir(ino(parent), name, self.fresh(req, mode));
            self.reply_made("mkdir", made, reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("unlink", req, parent, || {
            reply_done("unlink", self.fs.unlink(ino(parent), name), reply);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("rmdir", req, parent, || {
            reply_done("rmdir", self.fs.remove_dir(ino(parent), name), reply);
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &std::path::Path,
        reply: ReplyEntry,
    ) {
        guarded("symlink", req, parent, || {
            let new = self.fresh(req, 0o777);
            let made = self.fs.make_link(ino(parent), name, target.as_os_str(), new);
            self.reply_made("symlink", made, reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.renamed(req, (parent, name), (to, new), flags, reply);
    }

    fn link(
        &self,
        req: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        guarded("link", req, number, || {
            let made = self.fs.link(ino(number), ino(parent), name);
            self.reply_made("link", made, reply);
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        guarded("create", req, parent, || self.created(req, (parent, name), mode, flags, reply));
    }

    fn write(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        how: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.wrote(req, number, fh, offset, data, how, flags, reply);
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded("setxattr", req, number, || {
            let must = must_be_there(flags);
            let done = self.fs.set_xattr(ino(number), name, Some(value), must);
            reply_done("setxattr", done, reply);
        });
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded("removexattr", req, number, || {
            let done = self.fs.set_xattr(ino(number), name, None, Some(true));
            reply_done("removexattr", done, reply);
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.allocated(req, number, fh, (offset, length), mode, reply);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        number: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.copied(req, number, (from, from_offset), (to, to_offset), len, reply);
    }
}
