//! Reads local files: small ones whole, others as a stream that can be called off.

use super::Contents;
use crate::hyper::blobs::BLOCK_SIZE;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A part of a content, as much as fits; less only at its end.
pub(super) trait ReadPart {
    fn read_part(&self, buf: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadPart for [u8] {
    fn read_part(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        (&self[(at as usize).min(self.len())..]).read(buf)
    }
}

/// The first bytes of a file. It tells how far it is, and ends with an error when it is called off.
pub(super) struct Content<'a> {
    /// Whose file it is, and the bytes of the files before it.
    pub group: (&'a Contents<'a>, u64),
    pub file: &'a File,
    pub size: u64,
    pub at: u64,
}

impl ReadPart for Content<'_> {
    fn read_part(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let (contents, done) = self.group;
        if (contents.cancelled)() {
            return Err(io::Error::other("interrupted"));
        }
        let most = self.size.saturating_sub(at).min(buf.len() as u64) as usize;
        let n = read_full_at(self.file, &mut buf[..most], at)?;
        (contents.progress)(done + at + n as u64);
        Ok(n)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.read_part(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Content<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// All of a file that says that it has `size` bytes. Those that the kernel makes up may have more, or less.
pub(super) fn read_small(file: &File, size: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; size as usize + 1];
    let mut n = 0;
    // What ends where it should is not asked for more.
    while n as u64 != size || n == 0 {
        if n == bytes.len() {
            bytes.resize(n + BLOCK_SIZE as usize, 0);
        }
        match file.read_at(&mut bytes[n..], n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(n);
    Ok(bytes.into())
}

fn read_full_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match file.read_at(&mut buf[n..], offset + n as u64) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(n)
}
