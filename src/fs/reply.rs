//! What the kernel is told: answers to its requests, and news of changes.

use super::attr::Look;
use super::errno::{FsError, Result};
use super::filesystem::{Filesystem, Opened};
use super::handle::HandleId;
use super::inode::Ino;
use super::notify::KernelCache;
use super::volume::Entry;
use bytes::Bytes;
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, Notifier, ReplyData, ReplyEntry, ReplyOpen,
    ReplyXattr,
};
use std::cell::RefCell;
use std::ffi::OsStr;

/// Numbers are never used for another path, so there is one generation.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn failed(op: &'static str, error: &FsError) -> Errno {
    error.log(op);
    error.errno()
}

thread_local! {
    /// Where blocks are joined: a reply is one slice. Kept, so that its pages are touched once.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn reply_bytes(op: &'static str, reply: ReplyData, result: Result<Vec<Bytes>>) {
    match result {
        Ok(parts) => match parts.as_slice() {
            [] => reply.data(&[]),
            [one] => reply.data(one),
            many => JOINED.with_borrow_mut(|joined| {
                joined.clear();
                many.iter().for_each(|part| joined.extend_from_slice(part));
                reply.data(joined);
            }),
        },
        Err(error) => reply.error(failed(op, &error)),
    }
}

pub(super) fn reply_xattr(op: &'static str, reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    let result = result.and_then(|value| {
        let fits = size == 0 || value.len() <= size as usize;
        if fits { Ok(value) } else { Err(FsError::Range) }
    });
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(failed(op, &error)),
    }
}

/// Completes a lookup while no change can come between and gives it to the kernel.
pub(super) fn reply_entry(
    fs: &Filesystem,
    look: &Look,
    (parent, name): (Ino, &OsStr),
    asked: u64,
    result: Result<Option<Entry>>,
    reply: ReplyEntry,
) {
    let now = fs.publish();
    match result.and_then(|entry| fs.found(parent, name, entry, asked, &now)) {
        Ok((found, lasting)) => {
            let ttl = Look::ttl(lasting, fs.frozen());
            let attr = found.map_or_else(|| look.nothing(), |attr| look.file_attr(&attr));
            reply.entry(&ttl, &attr, GENERATION);
        }
        Err(error) => reply.error(failed("lookup", &error)),
    }
}

pub(super) fn reply_opened(reply: ReplyOpen, result: Result<Opened>) {
    match result {
        Ok(opened) => {
            let mut flags = FopenFlags::FOPEN_NOFLUSH;
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_pages);
            flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
            reply.opened(FileHandle(opened.handle.0), flags);
        }
        Err(error) => reply.error(failed("open", &error)),
    }
}

pub(super) fn reply_opened_dir(reply: ReplyOpen, result: Result<HandleId>) {
    let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
    match result {
        Ok(handle) => reply.opened(FileHandle(handle.0), flags),
        Err(error) => reply.error(failed("opendir", &error)),
    }
}

impl KernelCache for Notifier {
    fn forget_inode(&self, ino: Ino) {
        let _ = self.inval_inode(INodeNo(ino.0), 0, 0);
    }

    fn forget_attributes(&self, ino: Ino) {
        let _ = self.inval_inode(INodeNo(ino.0), -1, 0);
    }

    fn forget_name(&self, parent: Ino, name: &str) {
        let _ = self.inval_entry(INodeNo(parent.0), OsStr::new(name));
    }

    fn grown(&self, ino: Ino, offset: u64, bytes: &[u8]) {
        let _ = self.store(INodeNo(ino.0), offset, bytes);
    }

    fn deleted(&self, parent: Ino, child: Ino, name: &str) {
        // Fails for a directory that the kernel thinks is not empty.
        if self.delete(INodeNo(parent.0), INodeNo(child.0), OsStr::new(name)).is_err() {
            self.forget_name(parent, name);
        }
    }
}
