//! Holes in files: how space is given back, and whether there is any to give.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// File systems give space back in pieces of this, most of them.
const PAGE: u64 = 4096;

/// Makes a range inside the file read as zeros, and gives its space back where the file system can.
pub(super) fn punch(file: &File, offset: u64, end: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, mode, offset as i64, (end - offset) as i64) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP) => write_zeros(file, offset, end),
        Err(e) => Err(e.into()),
    }
}

/// Whether a hole in this range would give anything back.
pub(super) fn holds(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    // A page that others are in as well stays.
    let first = offset.div_ceil(PAGE).saturating_mul(PAGE) as i64;
    let end = (offset.saturating_add(len) / PAGE).saturating_mul(PAGE) as i64;
    if first >= end {
        return Ok(false);
    }
    match lseek(file, first, Whence::SeekData) {
        Ok(data) => Ok(data < end),
        // Nothing but holes up to the end of the file.
        Err(Errno::ENXIO) => Ok(false),
        // A file system that cannot tell.
        Err(_) => Ok(true),
    }
}

/// The next run of bytes at or after `offset` that is no hole; none up to the end of the file.
pub(super) fn data_after(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    let Ok(from) = i64::try_from(offset) else { return Ok(None) };
    let start = match lseek(file, from, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        // A file system that cannot tell.
        Err(_) => return Ok(Some(offset..file.metadata()?.len())),
    };
    let end = lseek(file, start, Whence::SeekHole)?;
    Ok(Some(start as u64..end as u64))
}

/// For file systems without holes: the range reads as zeros, its space is not given back.
fn write_zeros(file: &File, mut offset: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; 256 << 10];
    while offset < end {
        let n = (end - offset).min(zeros.len() as u64);
        file.write_all_at(&zeros[..n as usize], offset)?;
        offset += n;
    }
    Ok(())
}
