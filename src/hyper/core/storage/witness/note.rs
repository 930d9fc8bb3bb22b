//! What a store notes of its database, and what its files are found to be.
//!
//! The note is 196 bytes: version 4, open, doubts (bits: 1 crashed, 2 copied), number of the doubt that it is a copy\[8\],
//! boot id\[16\], of the database eight times 8 bytes (inode, birth s and ns, change s and ns, size, modification s and ns;
//! little endian), when the note was written, s and ns, the file system's kind\[8\] and id\[8\], of the database's turn
//! whether it has one, the count\[8\] and the tag\[16\], number of the doubt that the machine stopped\[8\], number of the
//! device\[8\], of the disk behind it\[8\], and of the file that the note is in the inode\[8\] and birth, s and ns. Version 3
//! ended with the turn, and had one number for both doubts, version 2 with when it was written, version 1 with the size.

use super::place::Place;
use super::{Doubts, FileId};
use crate::codec::{Put, Reader};
use crate::hyper::core::storage::turn::Turn;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

const VERSION: u8 = 4;

/// A file as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) inode: u64,
    pub(super) born: (u64, u64),
    pub(super) changed: (u64, u64),
    pub(super) size: u64,
    pub(super) modified: (u64, u64),
}

pub(super) struct Note {
    pub(super) open: bool,
    pub(super) doubts: Doubts,
    pub(super) boot: [u8; 16],
    /// The database.
    pub(super) found: Found,
    /// When the note was written.
    pub(super) written: (u64, u64),
    pub(super) place: Option<Place>,
    pub(super) turn: Option<Turn>,
    /// The file that it is in.
    pub(super) own: Option<FileId>,
}

impl Found {
    pub(super) fn look(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.unwrap_or_default();
        Some(Self {
            inode: meta.ino(),
            born: (born.as_secs(), born.subsec_nanos().into()),
            changed: (meta.ctime() as u64, meta.ctime_nsec() as u64),
            size: meta.size(),
            modified: (meta.mtime() as u64, meta.mtime_nsec() as u64),
        })
    }

    /// None where files have no birth: inodes are used again.
    pub(super) fn id(&self) -> Option<FileId> {
        (self.born != (0, 0)).then_some((self.inode, self.born))
    }
}

impl Note {
    /// Whether the note is in the file that it was written to, or, where it does not say, was last changed when it was
    /// written, `delay` at the most later.
    pub(super) fn is_ours(&self, file: &Found, delay: Duration) -> bool {
        let time =
            |(s, ns): (u64, u64)| Duration::from_secs(s).saturating_add(Duration::from_nanos(ns));
        match self.own {
            Some(own) => file.id() == Some(own),
            None => time(file.changed) <= time(self.written).saturating_add(delay),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.open.into()];
        let Doubts { crashed, copied } = self.doubts;
        out.push(u8::from(crashed.is_some()) | u8::from(copied.is_some()) << 1);
        out.put(&copied.unwrap_or_default().to_le_bytes());
        out.put(&self.boot);
        let Found { inode, born, changed, size, modified } = self.found;
        let times = [modified, self.written].into_iter().flat_map(|(s, ns)| [s, ns]);
        for number in [inode, born.0, born.1, changed.0, changed.1, size].into_iter().chain(times) {
            out.put(&number.to_le_bytes());
        }
        let Place { kind, id, device, disk } = self.place.unwrap_or_default();
        out.put(&kind.to_le_bytes());
        out.put(&id.to_le_bytes());
        out.push(self.turn.is_some().into());
        let (count, tag) = self.turn.map_or((0, [0; 16]), |turn| (turn.count, turn.tag));
        out.put(&count.to_le_bytes());
        out.put(&tag);
        let (own, (own_s, own_ns)) = self.own.unwrap_or_default();
        for number in [crashed.unwrap_or_default(), device, disk, own, own_s, own_ns] {
            out.put(&number.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let [version, open, which] = r.fixed().ok()?;
        let number = |r: &mut Reader| r.fixed().ok().map(u64::from_le_bytes);
        let first = number(&mut r)?;
        let boot = r.fixed().ok()?;
        let mut pair = || Some((number(&mut r)?, number(&mut r)?));
        let ((inode, born_s), (born_ns, changed_s)) = (pair()?, pair()?);
        let (changed_ns, size) = pair()?;
        let (modified, written) = match version {
            1 => Default::default(),
            _ => (pair()?, pair()?),
        };
        let (born, changed) = ((born_s, born_ns), (changed_s, changed_ns));
        let found = Found { inode, born, changed, size, modified };
        let (mut place, mut turn) = (None, None);
        if version >= 3 {
            let (kind, id) = (number(&mut r)?, number(&mut r)?);
            place = Some(Place { kind, id, ..Place::default() });
            let [has_turn] = r.fixed().ok()?;
            let noted = Turn { count: number(&mut r)?, tag: r.fixed().ok()? };
            turn = (has_turn != 0).then_some(noted);
        }
        // Before version 4 there was room for one of them.
        let (mut second, mut own) = (first, None);
        if version >= 4 {
            second = number(&mut r)?;
            place = place.map(|place| {
                Some(Place { device: number(&mut r)?, disk: number(&mut r)?, ..place })
            })?;
            own = Some((number(&mut r)?, (number(&mut r)?, number(&mut r)?)));
        }
        let own = own.filter(|own| *own != FileId::default());
        let place = place.filter(|place| place.kind != 0);
        let doubts = Doubts {
            crashed: (which & 1 != 0).then_some(second),
            copied: (which & 2 != 0).then_some(first),
        };
        let known = (1..=VERSION).contains(&version);
        let open = open != 0;
        known.then_some(Self { open, doubts, boot, found, written, place, turn, own })
    }
}
