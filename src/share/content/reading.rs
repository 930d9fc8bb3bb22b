//! Reads local files: small ones whole, others as a stream that can be called off.

use super::super::scan::Look;
use super::Contents;
use crate::hyper::blobs::BLOCK_SIZE;
use bytes::Bytes;
use std::cell::Cell;
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

/// After so many bytes it is asked again whether a file stays as it is.
const ASKED: u64 = 1 << 20;

/// The first bytes of a file. It tells how far it is, and ends with an error when it is called off. If somebody writes
/// over what the file holds it just ends, so that what was stored of it by then can be made use of.
pub(super) struct Content<'a> {
    /// Whose file it is, and the bytes of the files before it.
    pub group: (&'a Contents<'a>, u64),
    pub file: &'a File,
    pub size: u64,
    pub at: u64,
    /// What it must stay, and whether it may grow for all that; none if that does not matter.
    before: Option<(Look, bool)>,
    unasked: Cell<u64>,
    torn: Cell<bool>,
}

impl<'a> Content<'a> {
    pub fn new(
        group: (&'a Contents<'a>, u64),
        file: &'a File,
        size: u64,
        before: Option<(Look, bool)>,
    ) -> Self {
        Self { group, file, size, at: 0, before, unasked: Cell::new(0), torn: Cell::new(false) }
    }

    /// From here on the file must stay so.
    pub fn watch(&mut self, before: Option<(Look, bool)>) {
        self.before = before;
        // It is asked before anything else is read.
        self.unasked.set(ASKED);
    }

    /// Whether it ended because of that.
    pub fn is_torn(&self) -> bool {
        self.torn.get()
    }

    fn ask(&self, n: u64) -> io::Result<bool> {
        let Some((before, may_grow)) = &self.before else { return Ok(false) };
        self.unasked.set(self.unasked.get() + n);
        if self.unasked.get() >= ASKED && !self.torn.get() {
            self.unasked.set(0);
            self.torn.set(match may_grow {
                true => is_overwritten(self.file, before)?,
                false => Look::at(self.file)? != *before,
            });
        }
        Ok(self.torn.get())
    }
}

/// Whether anything happened to a file since, but that it grew.
pub(super) fn is_overwritten(file: &File, before: &Look) -> io::Result<bool> {
    let now = Look::at(file)?;
    Ok(now != *before && (now.size <= before.size || !now.stamp.is_of(&before.stamp)))
}

impl ReadPart for Content<'_> {
    fn read_part(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let (contents, done) = self.group;
        if (contents.cancelled)() {
            return Err(io::Error::other("interrupted"));
        }
        let most = self.size.saturating_sub(at).min(buf.len() as u64) as usize;
        if most == 0 || self.ask(most as u64)? {
            return Ok(0);
        }
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
