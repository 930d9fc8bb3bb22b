//! What stands under a name of a drive that is no folder, as an index keeps it: what its entry says, without the text.

use super::Entry;
use super::attributes::Stat;
use super::record::Special;
use super::xattrs::Extended;
use crate::hyper::blobs::BlobId;
use crate::hyper::local::LocalFile;
use std::sync::Arc;

/// A name with an entry of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf {
    File(File),
    Link(Link),
    /// A pipe, a socket or a device.
    Special(Box<Special>),
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
    /// It is being changed here, or not published yet: only in the names of a draft ([`crate::hyper::draft`]). The time is
    /// then that of what is published.
    Local(Box<Local>),
}

/// A file that is not what others see.
#[derive(Debug, Clone)]
pub struct Local {
    pub file: Arc<LocalFile>,
    /// What others see; none if they see none.
    pub published: Option<Content>,
    /// Of a drive's draft: what tells this content from others, whatever is written to it.
    pub revision: u64,
}

impl PartialEq for Local {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && self.published == other.published
    }
}

impl Content {
    /// A file that is being changed.
    pub fn local(file: &Arc<LocalFile>, published: Option<Self>, revision: u64) -> Self {
        Self::Local(Box::new(Local { file: Arc::clone(file), published, revision }))
    }

    /// A content that is in the drive, of so many bytes.
    pub fn stored(blob: BlobId, size: u64) -> Self {
        match blob.block_map {
            true => Self::Mapped(Box::new((blob, Some(size)))),
            false => Self::Blob(blob),
        }
    }
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

    /// The bee block that says it; 0 before there is one.
    pub fn seq(&self) -> u64 {
        match self {
            Leaf::File(file) => file.seq,
            Leaf::Link(link) => link.seq,
            Leaf::Special(node) => node.seq,
        }
    }

    /// It is stored in this block now, with all that belongs to it.
    pub(in crate::hyper) fn stored(&mut self, in_block: u64) {
        let (seq, xattrs) = match self {
            Leaf::File(file) => (&mut file.seq, &mut file.xattrs),
            Leaf::Link(link) => (&mut link.seq, &mut link.xattrs),
            Leaf::Special(node) => (&mut node.seq, &mut node.xattrs),
        };
        *seq = in_block;
        *xattrs = xattrs.take().map(|_| Extended::stored());
    }

    pub fn xattrs(&self) -> Option<&Arc<Extended>> {
        match self {
            Leaf::File(file) => file.xattrs.as_ref(),
            Leaf::Link(link) => link.xattrs.as_ref(),
            Leaf::Special(node) => node.xattrs.as_ref(),
        }
    }

    /// The file, if it is one that is changed here.
    pub fn local(&self) -> Option<&Local> {
        match self {
            Leaf::File(File { content: Content::Local(local), .. }) => Some(local),
            _ => None,
        }
    }

    /// Whether both are one file if they bear one id: have one content.
    pub(super) fn is_one_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Leaf::File(a), Leaf::File(b)) => match (&a.content, &b.content) {
                (Content::Local(a), Content::Local(b)) => Arc::ptr_eq(&a.file, &b.file),
                _ => a.blob().is_some() && a.blob() == b.blob(),
            },
            (Leaf::Link(a), Leaf::Link(b)) => a.target == b.target,
            (Leaf::Special(a), Leaf::Special(b)) => a.kind == b.kind,
            _ => false,
        }
    }

    /// Mode, time and id.
    pub fn stat(&self) -> &Stat {
        match self {
            Leaf::File(file) => &file.stat,
            Leaf::Link(link) => &link.stat,
            Leaf::Special(node) => &node.stat,
        }
    }

    /// Mode, time and id, and the extended attributes.
    pub fn described_mut(&mut self) -> (&mut Stat, &mut Option<Arc<Extended>>) {
        match self {
            Leaf::File(file) => (&mut file.stat, &mut file.xattrs),
            Leaf::Link(link) => (&mut link.stat, &mut link.xattrs),
            Leaf::Special(node) => (&mut node.stat, &mut node.xattrs),
        }
    }

    /// The special node, if it is one.
    pub fn special(&self) -> Option<&Special> {
        match self {
            Leaf::Special(node) => Some(node),
            _ => None,
        }
    }

    /// Bytes of the content that count for the drive, as far as they are known. What is changed here does not: its size
    /// moves under the index.
    pub(super) fn size(&self) -> u128 {
        match self {
            Leaf::File(File { content: Content::Local(_), .. }) => 0,
            Leaf::File(file) => file.size().into(),
            Leaf::Link(_) | Leaf::Special(_) => 0,
        }
    }

    /// Whether only a block map tells the size that is not here.
    pub(super) fn is_unsized(&self) -> bool {
        match self {
            Leaf::File(file) => {
                matches!(&file.content, Content::Mapped(mapped) if mapped.1.is_none())
            }
            Leaf::Link(_) | Leaf::Special(_) => false,
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
            Content::Local(local) => local.file.base(),
        }
    }

    /// Bytes of the content, as far as they are known: those of its block map while that is not here, so that nobody
    /// takes the file for empty. See [`Self::known_size`].
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Blob(id) => id.byte_length,
            Content::Mapped(mapped) => mapped.1.unwrap_or(mapped.0.byte_length.max(1)),
            Content::Damaged(_) => 0,
            Content::Local(local) => local.file.size(),
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
        assert_eq!(size_of::<Leaf>(), 88, "an index holds millions");
    }
}
