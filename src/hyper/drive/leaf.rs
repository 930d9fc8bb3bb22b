//! What stands under a name of a drive that is no folder, as an index keeps it: what its entry says, without the text.

use super::Entry;
use super::attributes::Stat;
use super::xattrs::Extended;
use crate::hyper::blobs::BlobId;
use std::sync::Arc;

/// A name with an entry of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf {
    File(File),
    Link(Link),
}

#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// The bee block of the entry.
    pub seq: u64,
    pub stat: Stat,
    /// None if it has none.
    pub xattrs: Option<Arc<Extended>>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub seq: u64,
    pub stat: Stat,
    pub xattrs: Option<Arc<Extended>>,
    /// As stored; an absolute one means the drive's root.
    pub target: Arc<str>,
}

/// Where a file's bytes are.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Blob(BlobId),
    /// A block map, with the size it tells; none until the map is here.
    Mapped(Box<(BlobId, Option<u64>)>),
    /// The entry makes no sense; reading fails with this.
    Damaged(Arc<str>),
}

impl Leaf {
    /// What an entry says, `value` of block `seq`. One that makes no sense is a file that cannot be read.
    pub(super) fn decode(seq: u64, value: &[u8]) -> Self {
        let entry = match Entry::decode(value) {
            Ok(entry) => entry,
            Err(error) => {
                let content = Content::Damaged(error.to_string().into());
                let stat = Stat { mode: 0o644, ..Stat::default() };
                return Leaf::File(File { seq, stat, xattrs: None, content });
            }
        };
        let (stat, has_xattrs) = entry.described();
        let xattrs = has_xattrs.then(Extended::stored);
        if let Some(target) = entry.linkname {
            return Leaf::Link(Link { seq, stat, xattrs, target: target.into() });
        }
        let content = match entry.blob {
            Some(id) if id.block_map => Content::Mapped(Box::new((id, None))),
            blob => Content::Blob(blob.unwrap_or_default()),
        };
        Leaf::File(File { seq, stat, xattrs, content })
    }

    /// Mode, time and id.
    pub fn stat(&self) -> &Stat {
        match self {
            Leaf::File(file) => &file.stat,
            Leaf::Link(link) => &link.stat,
        }
    }

    /// Bytes of the content, as far as they are known.
    pub(super) fn size(&self) -> u128 {
        match self {
            Leaf::File(file) => file.size().into(),
            Leaf::Link(_) => 0,
        }
    }

    /// Whether only a block map tells the size that is not here.
    pub(super) fn is_unsized(&self) -> bool {
        match self {
            Leaf::File(file) => {
                matches!(&file.content, Content::Mapped(mapped) if mapped.1.is_none())
            }
            Leaf::Link(_) => false,
        }
    }
}

impl File {
    /// A file without a time, as it is without an entry in a drive.
    #[cfg(test)]
    pub fn of(content: Content) -> Self {
        let stat = Stat { mode: 0o644, ..Stat::default() };
        Self { seq: 0, stat, xattrs: None, content }
    }

    /// Modification time in milliseconds since 1970.
    pub fn mtime_ms(&self) -> Option<i64> {
        self.stat.mtime.ms()
    }

    /// Permission bits alone, without setuid, setgid and sticky: what of a drive's modes is safe to follow, whoever wrote it.
    pub fn permissions(&self) -> u16 {
        self.stat.mode & 0o777
    }

    /// The blob or block map that holds the content.
    pub fn blob(&self) -> Option<BlobId> {
        match &self.content {
            Content::Blob(id) => Some(*id),
            Content::Mapped(mapped) => Some(mapped.0),
            Content::Damaged(_) => None,
        }
    }

    /// Bytes of the content, as far as they are known: those of its block map while that is not here, so that nobody
    /// takes the file for empty. See [`Self::known_size`].
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Blob(id) => id.byte_length,
            Content::Mapped(mapped) => mapped.1.unwrap_or(mapped.0.byte_length.max(1)),
            Content::Damaged(_) => 0,
        }
    }

    /// Bytes of the content; none while only a block map tells them that is not here.
    pub fn known_size(&self) -> Option<u64> {
        match &self.content {
            Content::Mapped(mapped) => mapped.1,
            _ => Some(self.size()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_small() {
        assert_eq!(size_of::<Leaf>(), 80, "an index holds millions");
    }
}
