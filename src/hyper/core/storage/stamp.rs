//! Which file it is and when it was last changed, by the file system's own clock, which nobody who copies or restores
//! files can set.
//!
//! A core's record says what its files were when they held what the record speaks of. Files that are something else
//! now were put back, copied, or written after the last commit: what lies in them is looked at before it is used
//! ([`super::super::soundness`]). New rights or another name change a file's time as well; that costs a look.

use crate::codec::{Put, Reader, Result};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// One file; all zeros where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    /// Seconds and nanoseconds.
    changed: (u64, u64),
    size: u64,
}

impl FileStamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            changed: (meta.ctime() as u64, meta.ctime_nsec() as u64),
            size: meta.size(),
        }
    }
}

/// Both files of a core, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStamp {
    pub(super) blocks: FileStamp,
    pub(super) tree: FileStamp,
}

impl CoreStamp {
    /// Eight numbers of 8 bytes (little endian): of blocks and tree inode, change s and ns, size.
    pub fn put(&self, out: &mut Vec<u8>) {
        for FileStamp { inode, changed: (s, ns), size } in [self.blocks, self.tree] {
            [inode, s, ns, size].iter().for_each(|number| out.put(&number.to_le_bytes()));
        }
    }

    pub fn decode(r: &mut Reader) -> Result<Self> {
        let mut file = || {
            let mut number = || r.fixed().map(u64::from_le_bytes);
            Ok(FileStamp { inode: number()?, changed: (number()?, number()?), size: number()? })
        };
        Ok(Self { blocks: file()?, tree: file()? })
    }
}
