//! Long writes go past the page cache.
//!
//! What an import appends lies in the page cache already, as the file it came from, and what a download appends
//! in our own cache of blocks. A second copy there costs more than it saves: every page of it must be found, and
//! under most hypervisors be fetched from the host first. Measured on ext4 in a virtual machine: 0.3 to 0.9 GB/s
//! through the cache with a processor at its limit, 1.5 GB/s past it with an idle one.
//!
//! Such a write must begin and end at a multiple of the device's block and come from memory that is aligned, so
//! it is copied through a small buffer which stays in the processor's cache. Its ragged ends take the usual way.

use crate::lock::lock;
use nix::sys::statfs::{self, FsType};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Multiple at which direct writes begin and end, in bytes: no smaller than any usual device's block.
const ALIGN: usize = 4096;

/// Bytes per call. Larger calls are not faster, and this much stays in the cache of a processor.
const BUFFER: usize = 1 << 20;

/// Writes below this take the page cache: the wait for the device would cost more.
const MIN_DIRECT: usize = 1 << 20;

/// File systems that keep direct writes and cached reads of one file coherent.
const COHERENT: [FsType; 4] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::F2FS_SUPER_MAGIC,
];

/// The direct way of one store.
pub(super) struct Direct {
    /// Cleared for good once the file system has refused.
    usable: AtomicBool,
    /// The buffer of the last writer, for the next one.
    spare: Mutex<Option<Buffer>>,
}

impl Direct {
    /// For files below `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        let coherent = statfs::statfs(dir)
            .is_ok_and(|found| COHERENT.iter().any(|known| *known == found.filesystem_type()));
        Self { usable: AtomicBool::new(coherent), spare: Mutex::default() }
    }

    /// Whether a write of so many bytes should go this way.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        bytes >= MIN_DIRECT && self.usable.load(Ordering::Relaxed)
    }

    /// Writes the slices one after the other from `offset`. `false` if the file system does not take it: then
    /// nothing is known of the range, and it must be written the usual way.
    pub(super) fn write(
        &self,
        direct: &File,
        cached: &File,
        mut offset: u64,
        slices: &[IoSlice<'_>],
    ) -> io::Result<bool> {
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut source = Source { slices, at: 0 };
        let mut buffer = lock(&self.spare).take().unwrap_or_else(Buffer::new);
        let ragged = (offset.next_multiple_of(ALIGN as u64) - offset) as usize;
        let mut next = ragged.min(left);
        while left > 0 {
            if next == 0 {
                next = if left >= ALIGN { left.min(BUFFER) / ALIGN * ALIGN } else { left };
            }
            let bytes = &mut buffer.aligned()[..next];
            source.fill(bytes);
            let whole = offset.is_multiple_of(ALIGN as u64) && next.is_multiple_of(ALIGN);
            match if whole { direct } else { cached }.write_all_at(bytes, offset) {
                Err(e) if whole && e.kind() == io::ErrorKind::InvalidInput => {
                    self.usable.store(false, Ordering::Relaxed);
                    return Ok(false);
                }
                done => done?,
            }
            offset += next as u64;
            left -= next;
            next = 0;
        }
        *lock(&self.spare) = Some(buffer);
        Ok(true)
    }
}

/// Bytes of slices, one after the other.
struct Source<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// Bytes of the first slice that are taken.
    at: usize,
}

impl Source<'_, '_> {
    /// Takes as many bytes as `out` holds; there must be that many.
    fn fill(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Some((first, rest)) = self.slices.split_first() else { return };
            let from = &first[self.at..];
            let n = from.len().min(out.len());
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(&from[..n]);
            out = later;
            self.at += n;
            if self.at == first.len() {
                (self.slices, self.at) = (rest, 0);
            }
        }
    }
}

struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Self {
        Self(vec![0; BUFFER + ALIGN])
    }

    fn aligned(&mut self) -> &mut [u8] {
        let start = self.0.as_ptr().align_offset(ALIGN);
        &mut self.0[start..start + BUFFER]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::OpenOptionsExt;

    proptest! {
        #![proptest_config(crate::sim::cases(24))]
        #[test]
        fn any_span_lands_where_it_should(offset in 0u64..20_000, sizes in prop::collection::vec(0usize..900_000, 1..5)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, vec![9; 10_000]).unwrap();
            let flags = nix::fcntl::OFlag::O_DIRECT.bits();
            let cached = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let plain = || std::fs::OpenOptions::new().write(true).open(&path);
            let direct = std::fs::OpenOptions::new().write(true).custom_flags(flags).open(&path);
            let parts: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, n)| (0..*n).map(|b| (b * 7 + i) as u8).collect()).collect();
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let way = Direct::new(dir.path());
            // Where the file system knows no direct writes, the spans are at least cut and put as for one that does.
            let direct = direct.or_else(|_| plain()).unwrap();
            if !way.write(&direct, &cached, offset, &slices).unwrap() {
                prop_assert!(!way.takes(usize::MAX));
                prop_assert!(way.write(&plain().unwrap(), &cached, offset, &slices).unwrap());
            }
            let mut want = vec![9; 10_000];
            let all = parts.concat();
            if !all.is_empty() {
                let end = offset as usize + all.len();
                want.resize(want.len().max(end), 0);
                want[offset as usize..end].copy_from_slice(&all);
            }
            prop_assert!(std::fs::read(&path).unwrap() == want);
        }
    }
}
